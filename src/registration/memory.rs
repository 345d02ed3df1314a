//! A scheduler in this process: what a library user without NATS registers with, and what the demo scheduler keeps.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::{ListedWorker, RegisterWorker, RegistrationError, UnregisterWorker, WorkerRegistrationPort};
use crate::domain::{Pool, WorkerId, WorkerKey};
use crate::wire::scheduler::{RegisterReply, UnregisterReply};

/// Workers that are gone and still remembered for their epoch; the oldest are forgotten, or it would grow for ever.
const REMEMBERED: usize = 100_000;

/// Keeps a list of workers. A cheap handle on shared state.
///
/// The fence of section 5: a request below an epoch that has been seen for its worker is ignored, so that a register
/// which a replica sent before it lost the worker does not bring it back.
#[derive(Debug, Clone, Default)]
pub struct MemoryScheduler {
    state: Arc<Mutex<State>>,
    drain: Duration,
    keeps_journal: bool,
}

/// A request as the scheduler got it.
#[derive(Debug, Clone, PartialEq)]
pub enum Asked {
    /// To take a worker.
    Register(RegisterWorker),
    /// To let one go.
    Unregister(UnregisterWorker),
}

#[derive(Debug, Default)]
struct State {
    pools: BTreeMap<Pool, BTreeMap<WorkerId, Entry>>,
    gone: VecDeque<WorkerKey>,
    journal: Vec<Asked>,
}

#[derive(Debug)]
struct Entry {
    /// The highest epoch seen.
    epoch: u64,
    standing: Standing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Registered,
    Draining { until: Instant },
    Gone,
}

impl MemoryScheduler {
    /// An empty scheduler that lets workers go at once and keeps no journal.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A worker takes this long to drain; its unregister is answered `busy` meanwhile.
    #[must_use]
    pub fn with_drain(self, drain: Duration) -> Self {
        Self { drain, ..self }
    }

    /// Keeps every request. It grows without end: for tests.
    #[must_use]
    pub fn with_journal(self) -> Self {
        Self { keeps_journal: true, ..self }
    }

    /// Every register and unregister so far, in the order in which they came, if a journal is kept.
    #[must_use]
    pub fn journal(&self) -> Vec<Asked> {
        self.state().journal.clone()
    }

    /// How many workers are registered, in all pools.
    #[must_use]
    pub fn registered(&self) -> usize {
        self.state().pools.values().flat_map(BTreeMap::values).filter(|entry| entry.standing != Standing::Gone).count()
    }

    /// Takes a worker, and says whether it had been taken before.
    #[must_use]
    pub fn register(&self, request: &RegisterWorker) -> RegisterReply {
        let RegisterWorker { worker_id, pool, epoch, .. } = request;
        let mut state = self.state();
        if self.keeps_journal {
            state.journal.push(Asked::Register(request.clone()));
        }
        let workers = state.pools.entry(pool.clone()).or_default();
        let Some(entry) = workers.get_mut(worker_id) else {
            workers.insert(worker_id.clone(), Entry { epoch: *epoch, standing: Standing::Registered });
            return RegisterReply::Accepted;
        };
        if *epoch < entry.epoch {
            return RegisterReply::Already;
        }
        let newer = *epoch > entry.epoch;
        entry.epoch = *epoch;
        match entry.standing {
            // A repetition of the register that came before the unregister does not end the drain; a new owner's does.
            Standing::Draining { .. } if !newer => RegisterReply::Already,
            Standing::Registered => RegisterReply::Already,
            Standing::Draining { .. } | Standing::Gone => {
                entry.standing = Standing::Registered;
                RegisterReply::Accepted
            }
        }
    }

    /// Lets a worker go, or says for how long it still drains.
    #[must_use]
    pub fn unregister(&self, request: &UnregisterWorker) -> UnregisterReply {
        let UnregisterWorker { worker_id, pool, epoch, .. } = request;
        let now = Instant::now();
        let mut state = self.state();
        if self.keeps_journal {
            state.journal.push(Asked::Unregister(request.clone()));
        }
        let workers = state.pools.entry(pool.clone()).or_default();
        let Some(entry) = workers.get_mut(worker_id) else {
            // One that was never heard of is remembered too: its register may still be on the way.
            workers.insert(worker_id.clone(), Entry { epoch: *epoch, standing: Standing::Gone });
            state.remember(WorkerKey::new(pool.clone(), worker_id.clone()));
            return UnregisterReply::Unknown;
        };
        if *epoch < entry.epoch {
            return UnregisterReply::Unknown;
        }
        entry.epoch = *epoch;
        let until = match entry.standing {
            Standing::Gone => return UnregisterReply::Unknown,
            Standing::Draining { until } => until,
            Standing::Registered => now + self.drain,
        };
        if until > now {
            entry.standing = Standing::Draining { until };
            let left = until.duration_since(now).as_millis();
            return UnregisterReply::Busy { retry_after_ms: Some(u64::try_from(left).unwrap_or(u64::MAX).max(1)) };
        }
        entry.standing = Standing::Gone;
        state.remember(WorkerKey::new(pool.clone(), worker_id.clone()));
        UnregisterReply::Accepted
    }

    /// At most `limit` workers, of one pool or of all, that come after the given one; and whether there are more.
    #[must_use]
    pub fn page(&self, pool: Option<&Pool>, after: Option<&WorkerKey>, limit: usize) -> (Vec<ListedWorker>, bool) {
        let state = self.state();
        let mut found = Vec::new();
        let from = pool.or(after.map(|after| &after.pool)).map_or(Bound::Unbounded, Bound::Included);
        let to = pool.map_or(Bound::Unbounded, Bound::Included);
        for (pool, workers) in state.pools.range::<Pool, _>((from, to)) {
            let start = match after {
                Some(after) if after.pool > *pool => continue,
                Some(after) if after.pool == *pool => Bound::Excluded(&after.worker_id),
                _ => Bound::Unbounded,
            };
            for (worker_id, entry) in workers.range::<WorkerId, _>((start, Bound::Unbounded)) {
                if entry.standing == Standing::Gone {
                    continue;
                }
                if found.len() == limit {
                    return (found, true);
                }
                found.push(ListedWorker { worker_id: worker_id.clone(), pool: pool.clone(), epoch: entry.epoch });
            }
        }
        (found, false)
    }

    /// Nothing panics under this lock: poison says nothing.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn remember(&mut self, key: WorkerKey) {
        self.gone.push_back(key);
        while self.gone.len() > REMEMBERED {
            let Some(WorkerKey { pool, worker_id }) = self.gone.pop_front() else { return };
            if let Some(workers) = self.pools.get_mut(&pool)
                && workers.get(&worker_id).is_some_and(|entry| entry.standing == Standing::Gone)
            {
                workers.remove(&worker_id);
            }
        }
    }
}

impl WorkerRegistrationPort for MemoryScheduler {
    async fn register_worker(&self, request: &RegisterWorker) -> Result<(), RegistrationError> {
        match self.register(request) {
            RegisterReply::Accepted | RegisterReply::Already => Ok(()),
            RegisterReply::Rejected { code, message } => Err(RegistrationError::Rejected { code, message }),
            RegisterReply::Busy { retry_after_ms } => {
                Err(RegistrationError::Busy { retry_after: Duration::from_millis(retry_after_ms) })
            }
        }
    }

    async fn unregister_worker(&self, request: &UnregisterWorker) -> Result<(), RegistrationError> {
        match self.unregister(request) {
            UnregisterReply::Accepted | UnregisterReply::Unknown => Ok(()),
            UnregisterReply::Busy { retry_after_ms } => {
                Err(RegistrationError::Busy { retry_after: Duration::from_millis(retry_after_ms.unwrap_or(1)) })
            }
        }
    }

    async fn list_workers(&self, pool: &Pool) -> Result<Option<Vec<ListedWorker>>, RegistrationError> {
        Ok(Some(self.page(Some(pool), None, usize::MAX).0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Capabilities, WorkerType};
    use jiff::Timestamp;

    fn register(id: &str, epoch: u64) -> RegisterWorker {
        RegisterWorker {
            worker_id: WorkerId::new(id).unwrap(),
            pool: Pool::new("gpu").unwrap(),
            worker_type: WorkerType::Dynamic,
            instance_id: None,
            endpoint: None,
            capabilities: Capabilities::default(),
            epoch,
            rev: 1,
            attempt: 1,
            expires_at: Timestamp::UNIX_EPOCH,
            trace: None,
        }
    }

    fn unregister(id: &str, epoch: u64) -> UnregisterWorker {
        let RegisterWorker { worker_id, pool, instance_id, epoch, .. } = register(id, epoch);
        UnregisterWorker {
            worker_id,
            pool,
            instance_id,
            epoch,
            reason: String::new(),
            grace: Duration::ZERO,
            trace: None,
        }
    }

    #[test]
    fn a_worker_that_is_registered_twice_is_there_once() {
        let scheduler = MemoryScheduler::new();
        assert_eq!(scheduler.register(&register("a", 1)), RegisterReply::Accepted);
        assert_eq!(scheduler.register(&register("a", 1)), RegisterReply::Already);
        assert_eq!(scheduler.register(&register("a", 2)), RegisterReply::Already);
        assert_eq!(scheduler.page(None, None, 9).0[0].epoch, 2);
        assert_eq!(scheduler.registered(), 1);
    }

    #[test]
    fn a_request_below_an_epoch_that_has_been_seen_changes_nothing() {
        let scheduler = MemoryScheduler::new();
        assert_eq!(scheduler.register(&register("a", 3)), RegisterReply::Accepted);
        assert_eq!(scheduler.unregister(&unregister("a", 2)), UnregisterReply::Unknown);
        assert_eq!(scheduler.registered(), 1);
        assert_eq!(scheduler.unregister(&unregister("a", 3)), UnregisterReply::Accepted);
        assert_eq!(scheduler.register(&register("a", 2)), RegisterReply::Already);
        assert_eq!(scheduler.registered(), 0, "a register that comes late does not bring the worker back");
        assert_eq!(scheduler.register(&register("a", 4)), RegisterReply::Accepted);
    }

    #[test]
    fn a_register_that_arrives_after_its_worker_s_unregister_is_fenced_even_if_it_is_the_first() {
        let scheduler = MemoryScheduler::new();
        assert_eq!(scheduler.unregister(&unregister("a", 2)), UnregisterReply::Unknown);
        assert_eq!(scheduler.register(&register("a", 1)), RegisterReply::Already);
        assert_eq!(scheduler.registered(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_is_busy_until_it_is_over_and_a_repeated_register_does_not_end_it() {
        let scheduler = MemoryScheduler::new().with_drain(Duration::from_secs(2));
        let _ = scheduler.register(&register("a", 1));
        assert_eq!(scheduler.unregister(&unregister("a", 1)), UnregisterReply::Busy { retry_after_ms: Some(2_000) });
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(scheduler.register(&register("a", 1)), RegisterReply::Already);
        assert_eq!(scheduler.unregister(&unregister("a", 1)), UnregisterReply::Busy { retry_after_ms: Some(1_000) });
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(scheduler.unregister(&unregister("a", 1)), UnregisterReply::Accepted);
        assert_eq!(scheduler.unregister(&unregister("a", 1)), UnregisterReply::Unknown);
    }

    #[test]
    fn pages_hold_every_worker_once_and_no_other_pool_s() {
        let scheduler = MemoryScheduler::new();
        for number in 0..7 {
            let _ = scheduler.register(&register(&format!("a-{number}"), 1));
            let _ = scheduler.register(&RegisterWorker { pool: Pool::new("cpu").unwrap(), ..register("b", 1) });
        }
        let _ = scheduler.unregister(&unregister("a-3", 1));
        let read = |pool: Option<&Pool>| {
            let (mut all, mut after) = (Vec::new(), None);
            loop {
                let (page, more) = scheduler.page(pool, after.as_ref(), 2);
                after = page.last().map(|last| WorkerKey::new(last.pool.clone(), last.worker_id.clone()));
                all.extend(page.into_iter().map(|worker| worker.worker_id.to_string()));
                if !more {
                    return all;
                }
            }
        };
        assert_eq!(read(Some(&Pool::new("gpu").unwrap())), ["a-0", "a-1", "a-2", "a-4", "a-5", "a-6"]);
        assert_eq!(read(None).len(), 7);
        assert!(read(Some(&Pool::new("none").unwrap())).is_empty());
    }

    #[test]
    fn the_journal_is_kept_for_those_who_ask_for_it() {
        let [without, with] = [MemoryScheduler::new(), MemoryScheduler::new().with_journal()];
        for scheduler in [&without, &with] {
            let _ = scheduler.register(&register("a", 1));
            let _ = scheduler.unregister(&unregister("a", 1));
        }
        assert!(without.journal().is_empty());
        assert_eq!(with.journal(), [Asked::Register(register("a", 1)), Asked::Unregister(unregister("a", 1))]);
    }

    #[test]
    fn the_gone_are_forgotten_in_the_end() {
        let scheduler = MemoryScheduler::new();
        for number in 0..REMEMBERED + 10 {
            let _ = scheduler.unregister(&unregister(&number.to_string(), 1));
        }
        assert_eq!(scheduler.state().pools.values().map(BTreeMap::len).sum::<usize>(), REMEMBERED);
    }
}
