//! Messages of the log made events again.

use async_nats::HeaderMap;

use crate::bus::stored::Stored;
use crate::bus::subjects::Subjects;
use crate::bus::trace::{self, TRACEPARENT, TRACESTATE};
use crate::domain::{TraceContext, WorkerKey};
use crate::journal::{Entry, EventOf, PoolEntry, ReadError, Scanned, WRITER, Writer};
use crate::wire::event::{self, EventUnreadable};

pub(super) fn entry(stored: &Stored) -> Result<Entry, ReadError> {
    let Stored { subject, sequence, body, .. } = stored;
    let worker = event::decode(body).map_err(|error| unreadable(subject, *sequence, &error))?;
    Ok(Entry { worker, sequence: *sequence, writer: stored_writer(stored) })
}

pub(super) fn pool_entry(stored: &Stored) -> Result<PoolEntry, ReadError> {
    let Stored { subject, sequence, body, .. } = stored;
    let record = event::decode_pool(body).map_err(|error| unreadable(subject, *sequence, &error))?;
    Ok(PoolEntry { record, sequence: *sequence, writer: stored_writer(stored) })
}

/// An event as a consumer delivers it.
pub(super) fn delivered(
    subject: &str,
    sequence: u64,
    headers: Option<&HeaderMap>,
    body: &[u8],
) -> Result<Scanned, ReadError> {
    let name = headers.and_then(|headers| headers.get(WRITER)).map(async_nats::HeaderValue::as_str);
    let writer = writer(name, trace::read(headers));
    let fault = |error: EventUnreadable| unreadable(subject, sequence, &error);
    match whose(subject, sequence)? {
        EventOf::Worker(_) => {
            Ok(Scanned::Worker(Entry { worker: event::decode(body).map_err(fault)?, sequence, writer }))
        }
        EventOf::Pool(_) => {
            Ok(Scanned::Pool(PoolEntry { record: event::decode_pool(body).map_err(fault)?, sequence, writer }))
        }
    }
}

/// Whose event it is, by its subject.
pub(super) fn whose(subject: &str, sequence: u64) -> Result<EventOf, ReadError> {
    match Subjects::read_owner(subject) {
        Some((pool, Some(worker_id))) => Ok(EventOf::Worker(WorkerKey::new(pool, worker_id))),
        Some((pool, None)) => Ok(EventOf::Pool(pool)),
        None => Err(ReadError(format!("event {sequence}: {subject:?} is no subject of an event"))),
    }
}

fn stored_writer(stored: &Stored) -> Writer {
    let trace = stored.header(TRACEPARENT).and_then(|parent| TraceContext::read(parent, stored.header(TRACESTATE)));
    writer(stored.header(WRITER), trace)
}

fn writer(header: Option<&str>, trace: Option<TraceContext>) -> Writer {
    Writer { trace, ..Writer::from_header(header.unwrap_or_default()) }
}

fn unreadable(subject: &str, sequence: u64, error: &EventUnreadable) -> ReadError {
    ReadError(format!("event {sequence} on {subject}: {error}"))
}
