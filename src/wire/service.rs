//! Requests to a replica as a NATS service, and its replies.
//!
//! A request with a field that is not known is refused, as a command is: whoever misspells a filter is not to be answered
//! with everything.

use serde::{Deserialize, Serialize};

use super::scheduler::{Unreadable, read};
use super::to_json;
use crate::domain::{Pool, State, Worker, WorkerId};

/// The longest page of a list.
pub const MAX_PAGE: u32 = 1000;
/// The length of a page where none is asked for.
const USUAL_PAGE: u32 = 100;

/// Asks for a worker's newest event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct GetRequest {
    /// Its pool.
    pub pool: Pool,
    /// Its name in the pool.
    pub worker_id: WorkerId,
}

/// Asks for a page of the fleet's workers, those that changed longest ago first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct WorkersRequest {
    /// Of this pool only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<Pool>,
    /// In one of these states only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(test, schemars(extend("items" = { "enum": State::ALL.map(State::as_str) })))]
    pub states: Vec<State>,
    /// The `next` of the page before. A worker that changes meanwhile comes again, on a later page; none is missed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// Workers on a page at most.
    #[serde(default = "usual_page")]
    #[cfg_attr(test, schemars(range(min = 1, max = MAX_PAGE)))]
    pub limit: u32,
}

fn usual_page() -> u32 {
    USUAL_PAGE
}

/// A page of the fleet's workers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct WorkersReply {
    /// Each as of its newest event.
    pub workers: Vec<Worker>,
    /// What to ask after for the next page; absent on the last. A page with few workers, or none, need not be the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// A replica's word that it drains, given before it begins to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DrainReply {
    /// The service's id of the replica.
    pub instance_id: String,
    /// How long it may take at most, in milliseconds.
    pub within_ms: u64,
}

impl GetRequest {
    /// Reads a request.
    pub fn decode(body: &[u8]) -> Result<Self, Unreadable> {
        read("get request", body)
    }
}

impl WorkersRequest {
    /// Reads a request; an empty one asks for everything.
    pub fn decode(body: &[u8]) -> Result<Self, Unreadable> {
        let request: Self = read("list request", if body.is_empty() { b"{}" } else { body })?;
        if !(1..=MAX_PAGE).contains(&request.limit) {
            let found = request.limit;
            return Err(Unreadable(format!("list request: limit: found {found}, expected 1 to {MAX_PAGE}")));
        }
        Ok(request)
    }
}

impl WorkersReply {
    /// What a worker adds to the body.
    #[must_use]
    pub fn size_of(worker: &Worker) -> usize {
        to_json(worker, 1024).len()
    }

    /// The body to answer with.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        to_json(self, 64 + 1024 * self.workers.len())
    }

    /// Reads a reply.
    pub fn decode(body: &[u8]) -> Result<Self, Unreadable> {
        read("list reply", body)
    }
}

impl DrainReply {
    /// The body to answer with.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        to_json(self, 128)
    }

    /// Reads a reply.
    pub fn decode(body: &[u8]) -> Result<Self, Unreadable> {
        read("drain reply", body)
    }
}
