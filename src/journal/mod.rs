//! The event log: the only record. One write is one event, compared and set against the worker's newest.

mod census;
pub mod follow;
mod memory;
pub mod nats;

use std::future::Future;
use std::sync::Arc;

pub use census::Census;
pub use memory::MemoryJournal;

use crate::domain::{Pool, Worker, WorkerKey};

/// Who writes: one name for each try of a command, so that a write whose answer was lost can be told from another's, and
/// the queue message that the try works on, so that a redelivery of that very message can be told from a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writer {
    /// The try.
    pub name: Arc<str>,
    /// The message's sequence in its pool's queue; `None` for a call without a queue.
    pub message: Option<u64>,
}

impl Writer {
    /// As it stands in an event's header.
    #[must_use]
    pub fn to_header(&self) -> String {
        match self.message {
            Some(message) => format!("{}/{message}", self.name),
            None => self.name.to_string(),
        }
    }

    /// Reads [`Self::to_header`] back.
    #[must_use]
    pub fn from_header(text: &str) -> Self {
        match text.split_once('/') {
            Some((name, message)) => Self { name: name.into(), message: message.parse().ok() },
            None => Self { name: text.into(), message: None },
        }
    }
}

/// A worker's event as the log holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The worker as of this event.
    pub worker: Worker,
    /// The event's place in the log; what the next write is compared against.
    pub sequence: u64,
    /// Who wrote it.
    pub writer: Writer,
}

/// Why an event is not in the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Someone else has written since: ours is not the newest. Read the head and decide.
    #[error("another event of this worker was stored first")]
    Conflict,
    /// The log cannot be reached. The write may still land later, where its compare-and-set makes it harmless.
    #[error("the event log cannot be written: {0}")]
    Unavailable(String),
}

/// The log cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the event log cannot be read: {0}")]
pub struct ReadError(pub String);

/// The log of events, with two homes: a NATS stream and this process's memory.
///
/// A contract about repetition: an `append` that returned `Ok` is durable as far as the home is; one that returned
/// `Conflict` was not stored; after `Unavailable` only `head` tells.
pub trait Journal: Send + Sync + 'static {
    /// Stores `worker` as the next event after the one at `after` (0 for none) and returns its sequence.
    fn append(
        &self,
        worker: &Worker,
        after: u64,
        writer: &Writer,
    ) -> impl Future<Output = Result<u64, AppendError>> + Send;

    /// The worker's newest event, read from the leader.
    fn head(&self, key: &WorkerKey) -> impl Future<Output = Result<Option<Entry>, ReadError>> + Send;

    /// Every kept event of one worker, oldest first.
    fn history(&self, key: &WorkerKey) -> impl Future<Output = Result<Vec<Entry>, ReadError>> + Send;

    /// Whether `max` or more workers of the pool are live, every event that is stored by now taken into account.
    fn is_full(&self, pool: &Pool, max: usize) -> impl Future<Output = Result<bool, ReadError>> + Send;

    /// Whether this worker is among the first `max` live ones of its pool, in the order of their claims, judged once the
    /// log is known up to `sequence`. Replicas come to the same answer, since all read the same order; but see
    /// [`Census`] for a worker that was taken over before a replica began to follow.
    fn admits(
        &self,
        key: &WorkerKey,
        sequence: u64,
        max: usize,
    ) -> impl Future<Output = Result<bool, ReadError>> + Send;
}
