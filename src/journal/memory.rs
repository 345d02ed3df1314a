//! The log in this process's memory: for library use without NATS, and for simulation.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{AppendError, Census, Entry, Journal, ReadError, Writer};
use crate::domain::{Pool, Worker, WorkerKey};

/// A log that lives as long as its last clone.
#[derive(Debug, Clone, Default)]
pub struct MemoryJournal(Arc<Mutex<Log>>);

#[derive(Debug, Default)]
struct Log {
    last: u64,
    workers: HashMap<WorkerKey, Vec<Entry>>,
    pools: HashMap<Pool, Census>,
}

impl MemoryJournal {
    /// An empty log.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Every event of every worker, in the order of the log.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        let mut all: Vec<Entry> = self.log().workers.values().flatten().cloned().collect();
        all.sort_by_key(|entry| entry.sequence);
        all
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        // No code path panics between two writes to the log, so a poisoned lock still guards a whole one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Journal for MemoryJournal {
    async fn append(&self, worker: &Worker, after: u64, writer: &Writer) -> Result<u64, AppendError> {
        let mut log = self.log();
        let key = worker.key();
        let head = log.workers.get(&key).and_then(|entries| entries.last()).map_or(0, |entry| entry.sequence);
        if head != after {
            return Err(AppendError::Conflict);
        }
        log.last += 1;
        let sequence = log.last;
        log.pools.entry(worker.pool.clone()).or_default().observe(&worker.worker_id, worker.state, sequence);
        let entry = Entry { worker: worker.clone(), sequence, writer: writer.clone() };
        log.workers.entry(key).or_default().push(entry);
        Ok(sequence)
    }

    async fn head(&self, key: &WorkerKey) -> Result<Option<Entry>, ReadError> {
        Ok(self.log().workers.get(key).and_then(|entries| entries.last()).cloned())
    }

    async fn history(&self, key: &WorkerKey) -> Result<Vec<Entry>, ReadError> {
        Ok(self.log().workers.get(key).cloned().unwrap_or_default())
    }

    async fn is_full(&self, pool: &Pool, max: usize) -> Result<bool, ReadError> {
        Ok(self.log().pools.get(pool).map_or(0, Census::live) >= max)
    }

    async fn admits(&self, key: &WorkerKey, _sequence: u64, max: usize) -> Result<bool, ReadError> {
        Ok(self.log().pools.get(&key.pool).is_none_or(|census| census.admits(&key.worker_id, max)))
    }
}
