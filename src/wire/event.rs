//! Events: `CloudEvents` 1.0 in structured JSON; `data` is the whole worker, or the pool's own record.
//!
//! Reading is tolerant: attributes and fields that are not known are passed over, since a fleet runs two versions while
//! it is upgraded, and a record that cannot be read would hold up its worker for ever. A change that old replicas must
//! not pass over gets a new type (`….v2`), which they refuse.

use std::borrow::Cow;
use std::fmt;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::to_json;
use crate::domain::{PoolRecord, Prefix, Worker};
use crate::text::{cut, quoted};

/// The header `Content-Type` of every event.
pub const CONTENT_TYPE: &str = "application/cloudevents+json";

/// The header that names the writer of an event. Every event has it: what has not is none.
pub const WRITER: &str = "Enlist-Writer";

/// The worker token of a pool's own record.
pub const POOL_TOKEN: &str = "_";

/// An event that cannot be read back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an event cannot be read: {0}")]
pub struct EventUnreadable(pub String);

/// An event, in structured JSON. Attributes that are not listed here may come with later versions and are passed over.
// Written in one pass, without a tree in between.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Outgoing<'a, T> {
    /// The version of the envelope.
    #[cfg_attr(test, schemars(extend("const" = "1.0")))]
    specversion: &'a str,
    /// `<pool>.<worker_id>.<rev>`, `_` standing for the worker id in a pool's own events.
    #[cfg_attr(test, schemars(with = "String", regex(pattern = r"^[a-z0-9-]+\.(_|[a-z0-9-]+)\.[0-9]+$")))]
    id: fmt::Arguments<'a>,
    /// `/enlist/<prefix>`.
    #[cfg_attr(test, schemars(with = "String", regex(pattern = "^/enlist/[a-z0-9-]+$")))]
    source: fmt::Arguments<'a>,
    /// `enlist.worker.<state>.v1`, or `enlist.pool.<state>.v1` for a pool's own events.
    #[cfg_attr(test, schemars(with = "String", regex(pattern = r"^enlist\.(worker|pool)\.[a-z_]+\.v1$")))]
    r#type: fmt::Arguments<'a>,
    /// `<pool>/<worker_id>`.
    #[cfg_attr(test, schemars(with = "String", regex(pattern = "^[a-z0-9-]+/(_|[a-z0-9-]+)$")))]
    subject: fmt::Arguments<'a>,
    /// When the event was written.
    #[cfg_attr(test, schemars(with = "String", extend("format" = "date-time")))]
    #[serde(serialize_with = "crate::text::moment")]
    time: Timestamp,
    /// The form of `data`.
    #[cfg_attr(test, schemars(extend("const" = "application/json")))]
    datacontenttype: &'a str,
    /// W3C trace context of the command, where there is one; a header of the message too.
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
    /// The whole record as of this event.
    data: &'a T,
}

/// What a reader needs of the envelope.
#[derive(Deserialize)]
struct Incoming<'a, T> {
    #[serde(borrow)]
    specversion: Cow<'a, str>,
    #[serde(borrow)]
    r#type: Cow<'a, str>,
    data: T,
}

/// The event's `id`: `<pool>.<worker_id>.<rev>`.
#[must_use]
pub fn event_id(worker: &Worker) -> String {
    format!("{}.{}.{}", worker.pool, worker.worker_id, worker.rev)
}

/// The body of the event that makes `worker` the record. `traceparent` is put in where there is one.
#[must_use]
pub fn encode(prefix: &Prefix, worker: &Worker, traceparent: Option<&str>) -> Vec<u8> {
    let Worker { pool, worker_id, rev, state, updated_at, .. } = worker;
    to_json(
        &Outgoing {
            specversion: "1.0",
            id: format_args!("{pool}.{worker_id}.{rev}"),
            source: format_args!("/enlist/{prefix}"),
            r#type: format_args!("enlist.worker.{}.v1", state.as_str()),
            subject: format_args!("{pool}/{worker_id}"),
            time: *updated_at,
            datacontenttype: "application/json",
            traceparent,
            data: worker,
        },
        1024,
    )
}

/// Reads an event's worker back.
pub fn decode(body: &[u8]) -> Result<Worker, EventUnreadable> {
    let (kind, worker): (_, Worker) = open(body)?;
    expect_type(&kind, "worker", worker.state.as_str())?;
    Ok(worker)
}

/// The body of a pool's own event: `<prefix>.events.<pool>._.sizing` or `.sized`.
#[must_use]
pub fn encode_pool(prefix: &Prefix, record: &PoolRecord, traceparent: Option<&str>) -> Vec<u8> {
    let PoolRecord { pool, rev, state, updated_at, .. } = record;
    to_json(
        &Outgoing {
            specversion: "1.0",
            id: format_args!("{pool}.{POOL_TOKEN}.{rev}"),
            source: format_args!("/enlist/{prefix}"),
            r#type: format_args!("enlist.pool.{}.v1", state.as_str()),
            subject: format_args!("{pool}/{POOL_TOKEN}"),
            time: *updated_at,
            datacontenttype: "application/json",
            traceparent,
            data: record,
        },
        512,
    )
}

/// Reads a pool's own event back.
pub fn decode_pool(body: &[u8]) -> Result<PoolRecord, EventUnreadable> {
    let (kind, record): (_, PoolRecord) = open(body)?;
    expect_type(&kind, "pool", record.state.as_str())?;
    Ok(record)
}

fn open<T: DeserializeOwned>(body: &[u8]) -> Result<(Cow<'_, str>, T), EventUnreadable> {
    let Incoming { specversion, r#type, data } =
        serde_json::from_slice(body).map_err(|error| EventUnreadable(cut(&error.to_string(), 200)))?;
    if specversion != "1.0" {
        return Err(EventUnreadable(format!("found specversion {}, expected \"1.0\"", quoted(&specversion, 40))));
    }
    Ok((r#type, data))
}

fn expect_type(found: &str, what: &str, state: &str) -> Result<(), EventUnreadable> {
    let expected = format!("enlist.{what}.{state}.v1");
    if found == expected {
        return Ok(());
    }
    Err(EventUnreadable(format!("found type {}, expected {expected:?}", quoted(found, 80))))
}
