//! The event log: the only record. One write is one event, compared and set against the worker's newest.

mod census;
pub mod decide;
mod entry;
pub mod follow;
mod memory;
pub mod nats;

use std::future::Future;

pub use census::Census;
pub use entry::{Entry, EventOf, PoolEntry, Scan, Scanned, Writer};
pub use memory::MemoryJournal;

use crate::domain::{Pool, PoolRecord, Worker, WorkerKey};
pub use crate::wire::event::WRITER;

/// Why an event is not in the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Someone else has written since: ours is not the newest. Read the head and decide.
    #[error("another event was stored first")]
    Conflict,
    /// The log cannot be reached. The write may still land later, where its compare-and-set makes it harmless.
    #[error("the event log cannot be written: {0}")]
    Unavailable(String),
}

/// The log cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the event log cannot be read: {0}")]
pub struct ReadError(pub String);

/// Events may not be gone, or not all of them: purge again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the event log cannot be purged: {0}")]
pub struct PurgeError(pub String);

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
    /// log is known up to `sequence`. Replicas come to the same answer, since all read the same order.
    fn admits(
        &self,
        key: &WorkerKey,
        sequence: u64,
        max: usize,
    ) -> impl Future<Output = Result<bool, ReadError>> + Send;

    /// Reads how every worker of a pool stands: of each its newest event, perhaps preceded by older ones of its own, which
    /// come in the order of the log; the pool's own newest events too. Everything stored before the call is seen.
    fn scan<F: FnMut(Scanned) + Send>(
        &self,
        pool: &Pool,
        take: F,
    ) -> impl Future<Output = Result<Scan, ReadError>> + Send;

    /// Whose event stands at a place in the log: `None` where there is none any more, or not yet.
    fn event_at(&self, sequence: u64) -> impl Future<Output = Result<Option<EventOf>, ReadError>> + Send;

    /// Removes the events of a worker up to and including `upto`, and before them its entry in the view: a crash between
    /// the two leaves events that the next purge finds. Newer events of the same worker stay. Called again it is `Ok`.
    fn purge(&self, key: &WorkerKey, upto: u64) -> impl Future<Output = Result<(), PurgeError>> + Send;

    /// A pool's newest own event, read from the leader.
    fn pool_head(&self, pool: &Pool) -> impl Future<Output = Result<Option<PoolEntry>, ReadError>> + Send;

    /// Every kept event of a pool's own, oldest first.
    fn pool_history(&self, pool: &Pool) -> impl Future<Output = Result<Vec<PoolEntry>, ReadError>> + Send;

    /// Stores the pool's next own event, as [`Self::append`] does a worker's.
    fn append_pool(
        &self,
        record: &PoolRecord,
        after: u64,
        writer: &Writer,
    ) -> impl Future<Output = Result<u64, AppendError>> + Send;
}
