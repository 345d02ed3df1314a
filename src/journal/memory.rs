//! The log in this process's memory: for library use without NATS, and for simulation.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{AppendError, Census, Entry, EventOf, Journal, PoolEntry, PurgeError, ReadError, Scan, Scanned, Writer};
use crate::domain::{Pool, PoolRecord, Worker, WorkerKey};
use crate::mutant::{self, Mutant};

/// A log that lives as long as its last clone.
#[derive(Debug, Clone, Default)]
pub struct MemoryJournal(Arc<Mutex<Log>>);

#[derive(Debug, Default)]
struct Log {
    last: u64,
    workers: HashMap<WorkerKey, Vec<Entry>>,
    pools: HashMap<Pool, Vec<PoolEntry>>,
    censuses: HashMap<Pool, Census>,
}

impl Log {
    /// The place of the next event, if `head` is still what its writer takes it to be.
    fn next(&mut self, head: Option<u64>, after: u64) -> Result<u64, AppendError> {
        if head.unwrap_or(0) != after && !mutant::on(Mutant::NoExpectedSequence) {
            return Err(AppendError::Conflict);
        }
        self.last += 1;
        Ok(self.last)
    }
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
        let head = log.workers.get(&key).and_then(|entries| entries.last()).map(|entry| entry.sequence);
        let sequence = log.next(head, after)?;
        let census = log.censuses.entry(worker.pool.clone()).or_default();
        census.observe(&worker.worker_id, worker.state, sequence, writer.claim);
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
        Ok(self.log().censuses.get(pool).map_or(0, Census::live) >= max)
    }

    async fn admits(&self, key: &WorkerKey, _sequence: u64, max: usize) -> Result<bool, ReadError> {
        Ok(self.log().censuses.get(&key.pool).is_none_or(|census| census.admits(&key.worker_id, max).unwrap_or(true)))
    }

    async fn scan<F: FnMut(Scanned) + Send>(&self, pool: &Pool, take: F) -> Result<Scan, ReadError> {
        let (last, mut newest) = {
            let log = self.log();
            let workers = log.workers.iter().filter(|(key, _)| key.pool == *pool);
            let workers = workers.filter_map(|(_, entries)| entries.last().cloned());
            let newest: Vec<(u64, Scanned)> = workers.map(|entry| (entry.sequence, Scanned::Worker(entry))).collect();
            let own = log.pools.get(pool).and_then(|entries| entries.last().cloned());
            let own = own.map(|entry| (entry.sequence, Scanned::Pool(entry)));
            (log.last, newest.into_iter().chain(own).collect::<Vec<_>>())
        };
        newest.sort_by_key(|(sequence, _)| *sequence);
        // Not under the lock: the caller's code may look at the log.
        newest.into_iter().map(|(_, event)| event).for_each(take);
        Ok(Scan { last })
    }

    async fn event_at(&self, sequence: u64) -> Result<Option<EventOf>, ReadError> {
        let log = self.log();
        let worker = log.workers.iter().find(|(_, entries)| entries.iter().any(|entry| entry.sequence == sequence));
        if let Some((key, _)) = worker {
            return Ok(Some(EventOf::Worker(key.clone())));
        }
        let pool = log.pools.iter().find(|(_, entries)| entries.iter().any(|entry| entry.sequence == sequence));
        Ok(pool.map(|(pool, _)| EventOf::Pool(pool.clone())))
    }

    async fn purge(&self, key: &WorkerKey, upto: u64) -> Result<(), PurgeError> {
        let mut log = self.log();
        if let Some(entries) = log.workers.get_mut(key) {
            entries.retain(|entry| entry.sequence > upto);
            if entries.is_empty() {
                log.workers.remove(key);
            }
        }
        Ok(())
    }

    async fn pool_head(&self, pool: &Pool) -> Result<Option<PoolEntry>, ReadError> {
        Ok(self.log().pools.get(pool).and_then(|entries| entries.last()).cloned())
    }

    async fn pool_history(&self, pool: &Pool) -> Result<Vec<PoolEntry>, ReadError> {
        Ok(self.log().pools.get(pool).cloned().unwrap_or_default())
    }

    async fn append_pool(&self, record: &PoolRecord, after: u64, writer: &Writer) -> Result<u64, AppendError> {
        let mut log = self.log();
        let head = log.pools.get(&record.pool).and_then(|entries| entries.last()).map(|entry| entry.sequence);
        let sequence = log.next(head, after)?;
        let entry = PoolEntry { record: record.clone(), sequence, writer: writer.clone() };
        log.pools.entry(record.pool.clone()).or_default().push(entry);
        Ok(sequence)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::domain::{Claim, CommandId, PoolState, SpecHash, Step, WorkerId, WorkerType};

    fn writer() -> Writer {
        Writer { name: "r.1".into(), message: None, claim: None, trace: None }
    }

    fn pool(name: &str) -> Pool {
        Pool::new(name).unwrap()
    }

    fn claimed(pool_name: &str, id: &str) -> Worker {
        let claim = Claim {
            pool: pool(pool_name),
            worker_id: WorkerId::new(id).unwrap(),
            worker_type: WorkerType::Dynamic,
            command_id: CommandId::new("c-1").unwrap(),
            correlation_id: None,
            spec_hash: SpecHash::of(b"1"),
            provider: "null".into(),
            capabilities: crate::domain::Capabilities::default(),
            registration: false,
        };
        Step::Claim(Box::new(claim)).apply(None, Timestamp::UNIX_EPOCH).unwrap()
    }

    fn size(rev: u64) -> PoolRecord {
        PoolRecord {
            pool: pool("a"),
            state: PoolState::Sizing,
            rev,
            size: 3,
            actual: 0,
            command_id: CommandId::new("c-1").unwrap(),
            correlation_id: None,
            updated_at: Timestamp::UNIX_EPOCH,
        }
    }

    #[tokio::test]
    async fn a_scan_sees_a_pool_as_it_stands_in_the_order_of_the_log() {
        let log = MemoryJournal::new();
        let (one, two) = (claimed("a", "one"), claimed("a", "two"));
        let first = log.append(&one, 0, &writer()).await.unwrap();
        log.append(&two, 0, &writer()).await.unwrap();
        log.append_pool(&size(1), 0, &writer()).await.unwrap();
        let taken_over = Step::TakeOver.apply(Some(&one), Timestamp::UNIX_EPOCH).unwrap();
        log.append(&taken_over, first, &writer()).await.unwrap();
        log.append(&claimed("b", "one"), 0, &writer()).await.unwrap();

        let mut seen = Vec::new();
        let scan = log.scan(&pool("a"), |event| seen.push(event)).await.unwrap();
        assert_eq!(scan, Scan { last: 5 });
        let entry = |worker, sequence| Scanned::Worker(Entry { worker, sequence, writer: writer() });
        let own = Scanned::Pool(PoolEntry { record: size(1), sequence: 3, writer: writer() });
        assert_eq!(seen, [entry(two, 2), own, entry(taken_over, 4)]);
        assert_eq!(log.event_at(3).await.unwrap(), Some(EventOf::Pool(pool("a"))));
        assert_eq!(log.event_at(6).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_purge_leaves_newer_events_and_gives_no_place_twice() {
        let log = MemoryJournal::new();
        let worker = claimed("a", "one");
        log.append(&worker, 0, &writer()).await.unwrap();
        let next = Step::TakeOver.apply(Some(&worker), Timestamp::UNIX_EPOCH).unwrap();
        log.append(&next, 1, &writer()).await.unwrap();
        log.purge(&worker.key(), 1).await.unwrap();
        assert_eq!(log.head(&worker.key()).await.unwrap().unwrap().sequence, 2);
        log.purge(&worker.key(), 2).await.unwrap();
        log.purge(&worker.key(), 2).await.unwrap();
        assert_eq!((log.event_at(2).await, log.history(&worker.key()).await), (Ok(None), Ok(vec![])));
        assert_eq!(log.append(&worker, 0, &writer()).await, Ok(3));
    }

    #[tokio::test]
    async fn a_pool_s_own_record_is_compared_and_set() {
        let log = MemoryJournal::new();
        log.append(&claimed("a", "one"), 0, &writer()).await.unwrap();
        assert_eq!(log.append_pool(&size(1), 0, &writer()).await, Ok(2));
        assert_eq!(log.append_pool(&size(2), 0, &writer()).await, Err(AppendError::Conflict));
        assert_eq!(log.append_pool(&size(2), 2, &writer()).await, Ok(3));
        assert_eq!(log.pool_head(&pool("a")).await.unwrap().map(|entry| entry.sequence), Some(3));
        assert_eq!(log.pool_history(&pool("a")).await.unwrap().len(), 2);
    }
}
