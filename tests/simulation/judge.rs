//! The rules of section 9 of the contract, held at each step as it happens.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use enlist::domain::{
    CommandId, Pool, PoolState, RegistrationStatus, SpecHash, State, Worker, WorkerId, WorkerKey, WorkerType,
};
use enlist::journal::{Entry, PoolEntry};
use jiff::Timestamp;

use super::world::World;

type Held = Result<(), String>;

#[derive(Debug, Default)]
pub(crate) struct Judge {
    pub(crate) violations: Vec<String>,
    /// The whole log, and by which delivery each event was written.
    pub(crate) events: Vec<(Entry, Option<u64>)>,
    pub(crate) pool_events: Vec<PoolEntry>,
    heads: BTreeMap<WorkerKey, usize>,
    limits: BTreeMap<Pool, usize>,
    /// What each provision has claimed.
    allocations: BTreeMap<(Pool, CommandId), Vec<Allocation>>,
    /// Refused provisions.
    refused: BTreeSet<(Pool, CommandId, String)>,
    /// The epoch of each worker's newest `terminating`.
    ends: BTreeMap<WorkerKey, u64>,
    /// Workers whose end the scheduler has been told of since it began.
    let_go: BTreeSet<WorkerKey>,
    offered: BTreeSet<WorkerKey>,
    accepted: BTreeSet<(WorkerKey, u64)>,
    ended: BTreeSet<WorkerKey>,
    /// What each message's deliveries were told that they have made: by which, whose, and which instance.
    made: BTreeMap<(Pool, u64), Vec<(u64, WorkerKey, String)>>,
    /// Deliveries that came to an end of their own.
    over: BTreeSet<u64>,
    /// Pools with a wanted size, and whether they have had it.
    sizing: BTreeMap<Pool, (usize, bool)>,
}

#[derive(Debug)]
struct Allocation {
    worker: WorkerId,
    content: SpecHash,
    has_outcome: bool,
}

fn that(holds: bool, otherwise: impl FnOnce() -> String) -> Held {
    if holds { Ok(()) } else { Err(otherwise()) }
}

/// The table of section 4.
fn may_follow(before: State, next: State) -> bool {
    use State::{Failed, Lost, Provisioned, Provisioning, Registered, RegistrationFailed, Terminated, Terminating};
    match before {
        Provisioning => matches!(next, Provisioning | Provisioned | Terminating | Failed | Lost),
        Provisioned => matches!(next, Provisioned | Registered | RegistrationFailed | Terminating | Lost),
        Registered => matches!(next, Terminating | Lost),
        RegistrationFailed => matches!(next, Registered | RegistrationFailed | Terminating | Lost),
        Terminating => matches!(next, Terminating | Terminated),
        Terminated | Failed | Lost => false,
    }
}

impl Judge {
    pub(crate) fn new(limits: BTreeMap<Pool, usize>) -> Self {
        Self { limits, ..Self::default() }
    }

    pub(crate) fn head(&self, key: &WorkerKey) -> Option<&Entry> {
        self.heads.get(key).map(|at| &self.events[*at].0)
    }

    pub(crate) fn heads(&self, pool: &Pool) -> impl Iterator<Item = &Entry> {
        self.heads.iter().filter(move |(key, _)| key.pool == *pool).map(|(_, at)| &self.events[*at].0)
    }

    /// An event was stored; `alive` is the worker's instance at this moment.
    pub(crate) fn event(
        &mut self,
        before: Option<&Entry>,
        entry: Entry,
        by: Option<u64>,
        alive: Option<&str>,
        world: &World,
    ) -> Held {
        let worker = entry.worker.clone();
        let key = worker.key();
        let said = || format!("{key} is {}, event {}", worker.state.as_str(), entry.sequence);
        let begins = before.is_none_or(|before| before.worker.state.is_final());
        let judged = self.follows(before, &entry, world).and_then(|()| self.is_true(&worker, alive));
        let judged = judged.map_err(|what| format!("{}: {what}", said()));
        if begins && worker.state == State::Provisioning {
            self.ended.remove(&key);
            self.let_go.remove(&key);
        }
        if worker.state == State::Terminating && before.is_none_or(|before| before.worker.state != State::Terminating) {
            self.ends.insert(key.clone(), worker.epoch);
        }
        if (worker.state == State::Terminating || worker.state.is_final()) && self.ended.insert(key.clone()) {
            self.let_go.remove(&key);
        }
        let judged = judged.and(self.outcomes(begins, &worker));
        self.heads.insert(key.clone(), self.events.len());
        self.events.push((entry, by));
        self.has_size(&worker.pool);
        judged
    }

    fn follows(&self, before: Option<&Entry>, entry: &Entry, world: &World) -> Held {
        let worker = &entry.worker;
        let Some(Entry { worker: last, writer, .. }) = before else {
            let first = worker.rev == 1;
            return that(first, || format!("its first event has rev {}", worker.rev));
        };
        that(worker.rev == last.rev + 1, || format!("rev {} after {}", worker.rev, last.rev))?;
        that(worker.epoch >= last.epoch, || format!("epoch {} after {}", worker.epoch, last.epoch))?;
        if last.state.is_final() {
            let again = worker.worker_type == WorkerType::Static
                && worker.state == State::Provisioning
                && worker.command_id != last.command_id;
            return that(again, || format!("it comes after {}", last.state.as_str()));
        }
        that(may_follow(last.state, worker.state), || format!("it comes after {}", last.state.as_str()))?;
        that(worker.command_id == last.command_id && worker.created_at == last.created_at, || {
            format!("made by {} and now of {}", last.command_id, worker.command_id)
        })?;
        let other = entry.writer.name != writer.name;
        let open = matches!(last.state, State::Provisioning | State::Provisioned | State::Terminating);
        let takes_over = other && open && worker.state == last.state && worker.error.is_none();
        that(!takes_over || worker.epoch > last.epoch, || "another try takes it over under the same epoch".to_owned())?;
        let steps = open && worker.state != last.state && !matches!(worker.state, State::Terminating | State::Lost);
        that(!other || !steps, || "the step is of a try that does not have the worker".to_owned())?;
        let theirs = writer.message.zip(entry.writer.message).is_some_and(|(theirs, ours)| theirs != ours);
        if takes_over && theirs && last.state != State::Terminating {
            let stood = worker.updated_at.duration_since(last.updated_at);
            let longest = longest_step(world, &worker.pool);
            let nobodys = stood > jiff::SignedDuration::try_from(longest).unwrap();
            that(nobodys, || format!("another command takes it over after {stood:?}"))?;
        }
        Ok(())
    }

    fn is_true(&self, worker: &Worker, alive: Option<&str>) -> Held {
        let lives = alive.is_some() && alive == worker.instance_id.as_deref();
        match worker.state {
            State::Registered => {
                let accepted = self.accepted.contains(&(worker.key(), worker.epoch));
                that(accepted, || format!("the scheduler has not accepted it, epoch {}", worker.epoch))
            }
            State::Terminated | State::Lost => that(!lives, || format!("its instance {alive:?} lives")),
            _ => Ok(()),
        }
    }

    fn outcomes(&mut self, begins: bool, worker: &Worker) -> Held {
        let key = (worker.pool.clone(), worker.command_id.clone());
        if begins && worker.state == State::Provisioning {
            let (worker_id, content) = (worker.worker_id.clone(), worker.spec_hash.clone());
            let all = self.allocations.entry(key).or_default();
            all.push(Allocation { worker: worker_id, content, has_outcome: false });
            return that(all.len() == 1, || {
                let workers: Vec<&WorkerId> = all.iter().map(|one| &one.worker).collect();
                format!("command {} makes a second worker: {workers:?}", worker.command_id)
            });
        }
        let closed = worker.ended_by.as_ref().is_some_and(|ended| {
            ended.command_id.as_ref() == Some(&worker.command_id)
                && matches!(ended.reason.as_deref(), Some("quota" | "exhausted" | "expired" | "conflict"))
        });
        let is_outcome = match worker.state {
            State::Provisioned => worker.registration.status == RegistrationStatus::Disabled,
            State::Registered | State::RegistrationFailed | State::Failed | State::Lost => true,
            State::Terminated => !closed,
            State::Provisioning | State::Terminating => false,
        };
        if !is_outcome {
            return Ok(());
        }
        let Some(allocation) = self.allocations.get_mut(&key).and_then(|all| all.last_mut()) else { return Ok(()) };
        allocation.has_outcome = true;
        let refused = (key.0, key.1, allocation.content.as_str().to_owned());
        // A claim that was on its way for minutes may come after the dead letter. Nobody works on it: it makes nothing, and
        // whoever finds it ends it.
        that(!self.refused.contains(&refused) || worker.instance_id.is_none(), || {
            format!("command {} has an outcome and a dead letter", worker.command_id)
        })
    }

    /// A provision's dead letter was stored.
    pub(crate) fn refused(&mut self, pool: &Pool, command: &CommandId, content: SpecHash) -> Held {
        let all = self.allocations.get(&(pool.clone(), command.clone()));
        let told = all.is_some_and(|all| all.iter().any(|one| one.has_outcome && one.content == content));
        self.refused.insert((pool.clone(), command.clone(), content.as_str().to_owned()));
        that(!told, || format!("command {command} has a dead letter and an outcome"))
    }

    /// Whether a provision has an outcome in the log.
    pub(crate) fn has_outcome(&self, pool: &Pool, command: &CommandId, content: &SpecHash) -> bool {
        let all = self.allocations.get(&(pool.clone(), command.clone()));
        all.is_some_and(|all| all.iter().any(|one| one.has_outcome && one.content == *content))
    }

    pub(crate) fn has_ended(&self, key: &WorkerKey) -> bool {
        self.events.iter().any(|(entry, _)| entry.worker.state.is_final() && entry.worker.key() == *key)
    }

    /// How far the log goes.
    pub(crate) fn last(&self) -> u64 {
        let events = self.events.last().map_or(0, |(entry, _)| entry.sequence);
        events.max(self.pool_events.last().map_or(0, |entry| entry.sequence))
    }

    pub(crate) fn is_sized_or_overtaken(&self, pool: &Pool, command: &CommandId) -> bool {
        let mut of_pool = self.pool_events.iter().map(|entry| &entry.record).filter(|record| record.pool == *pool);
        of_pool.next_back().is_some_and(|last| last.command_id != *command || last.state == PoolState::Sized)
    }

    pub(crate) fn pool_event(&mut self, entry: PoolEntry) -> Held {
        let record = entry.record.clone();
        let last = self.pool_events.iter().rev().find(|last| last.record.pool == record.pool);
        let rev = last.map_or(0, |last| last.record.rev);
        let judged = that(record.rev == rev + 1, || format!("{}: rev {} after {rev}", record.pool, record.rev));
        self.pool_events.push(entry);
        match record.state {
            PoolState::Sizing => {
                self.sizing.insert(record.pool.clone(), (record.size as usize, false));
                self.has_size(&record.pool);
                judged
            }
            PoolState::Sized => judged.and(that(self.sizing.get(&record.pool).is_some_and(|(_, had)| *had), || {
                format!("{} is said to have its size {} and has not had it", record.pool, record.size)
            })),
        }
    }

    fn has_size(&mut self, pool: &Pool) {
        let Some((size, false)) = self.sizing.get(pool).copied() else { return };
        let live: Vec<&Worker> = self.heads(pool).map(|head| &head.worker).filter(|w| !w.state.is_final()).collect();
        let ready = live.iter().filter(|worker| match worker.state {
            State::Registered | State::RegistrationFailed => true,
            State::Provisioned => worker.registration.status == RegistrationStatus::Disabled,
            _ => false,
        });
        if live.len() == size && ready.count() == size {
            self.sizing.insert(pool.clone(), (size, true));
        }
    }

    /// An instance was made; `living` are all that there are.
    pub(crate) fn made(&self, key: &WorkerKey, living: &[WorkerKey]) -> Held {
        that(self.head(key).is_some(), || format!("{key}: an instance is made and nobody has claimed it"))?;
        let Some(max) = self.limits.get(&key.pool) else { return Ok(()) };
        let counts = |key: &&WorkerKey| {
            let state = self.head(key).map(|head| head.worker.state);
            state.is_some_and(|state| !state.is_final() && state != State::Terminating)
        };
        let number = living.iter().filter(|other| other.pool == key.pool).filter(counts).count();
        that(number <= *max, || format!("{key} is number {number} of a pool that may have {max}"))
    }

    /// An instance was removed.
    pub(crate) fn removed(&self, key: &WorkerKey, instance: &str) -> Held {
        let Some(Entry { worker, .. }) = self.head(key) else {
            return Err(format!("{key}: {instance} is removed, and no record says so"));
        };
        let ending = worker.state == State::Terminating || worker.state.is_final();
        that(ending, || format!("{key}: {instance} is removed, and its worker is {}", worker.state.as_str()))?;
        self.host_left(key)
    }

    /// The scheduler is told before the instance goes.
    pub(crate) fn host_left(&self, key: &WorkerKey) -> Held {
        let Some(Entry { worker, .. }) = self.head(key) else { return Ok(()) };
        let registers = worker.registration.status != RegistrationStatus::Disabled && self.offered.contains(key);
        let ending = worker.state == State::Terminating || worker.state.is_final();
        that(!registers || !ending || self.let_go.contains(key), || {
            format!("{key}: its instance is removed and the scheduler has not been told")
        })
    }

    pub(crate) fn offered(&mut self, key: &WorkerKey, epoch: u64, attempt: u32, looked: bool) -> Held {
        self.offered.insert(key.clone());
        let head = self.head(key).map(|head| head.worker.clone());
        let ending = head.is_some_and(|head| head.state == State::Terminating || head.state.is_final());
        that(attempt == 1 || looked || !ending, || {
            format!("{key}: offered to the scheduler for the {attempt}. time, and its end is on record")
        })?;
        let end = self.ends.get(key).filter(|_| self.ended.contains(key));
        that(end.is_none_or(|end| epoch < *end), || format!("{key}: offered with epoch {epoch} after terminating"))
    }

    pub(crate) fn accepted(&mut self, key: &WorkerKey, epoch: u64) -> Held {
        self.accepted.insert((key.clone(), epoch));
        Ok(())
    }

    pub(crate) fn let_go(&mut self, key: &WorkerKey) -> Held {
        self.let_go.insert(key.clone());
        Ok(())
    }

    pub(crate) fn purge(&self, key: &WorkerKey, now: Timestamp, retention: Duration) -> Held {
        let Some(Entry { worker, .. }) = self.head(key) else { return Ok(()) };
        let past = now.duration_since(worker.updated_at) > jiff::SignedDuration::try_from(retention).unwrap();
        that(worker.state.is_final() && past, || format!("{key} is purged before its time"))
    }

    /// A delivery was told that its worker's instance is there.
    pub(crate) fn told(&mut self, message: (Pool, u64), number: u64, key: &WorkerKey, instance: &str) -> Held {
        self.made.entry(message).or_default().push((number, key.clone(), instance.to_owned()));
        Ok(())
    }

    /// A delivery is at its end. Where its message is done, nothing lives any more that it has made for a worker that ended.
    pub(crate) fn over(
        &mut self,
        message: (Pool, u64),
        number: u64,
        done: bool,
        living: &[(WorkerKey, String)],
    ) -> Held {
        self.over.insert(number);
        if !done {
            return Ok(());
        }
        for (by, key, instance) in self.made.get(&message).into_iter().flatten() {
            let ended = self.head(key).is_some_and(|head| head.worker.state.is_final());
            let lives = living.iter().any(|(other, id)| other == key && id == instance);
            that(!(self.over.contains(by) && ended && lives), || {
                format!("{key} has ended and its command is done, and {instance} that it has made lives")
            })?;
        }
        Ok(())
    }

    /// A delivery is left to another one.
    pub(crate) fn left(&self, number: u64) -> Held {
        let own = |at: &&usize| self.events[**at].1 == Some(number) && !self.events[**at].0.worker.state.is_final();
        match self.heads.iter().find(|(_, at)| own(at)) {
            Some((key, _)) => Err(format!("{key} is left to others, and nobody has written after delivery #{number}")),
            None => Ok(()),
        }
    }
}

fn longest_step(world: &World, pool: &Pool) -> Duration {
    let config = &world.settings(pool).config;
    config.registration_timeout + config.unregister_timeout + config.launch_timeout + 2 * config.grace
}
