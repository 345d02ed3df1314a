//! Every subject, stream and consumer name, each in one function; only validated names can get in.

use std::fmt::Display;

use crate::domain::{CommandId, Pool, PoolState, Prefix, State, Verb, WorkerId, WorkerKey};
use crate::wire::event::POOL_TOKEN;

/// The names of one fleet's objects.
#[derive(Debug, Clone)]
pub struct Subjects {
    prefix: Prefix,
    upper: String,
}

impl Subjects {
    /// The names under `prefix`.
    #[must_use]
    pub fn new(prefix: &Prefix) -> Self {
        Self { prefix: prefix.clone(), upper: prefix.as_str().to_ascii_uppercase() }
    }

    /// The fleet.
    #[must_use]
    pub fn prefix(&self) -> &Prefix {
        &self.prefix
    }

    /// Where a command is published.
    #[must_use]
    pub fn command(&self, pool: &Pool, verb: Verb) -> String {
        format!("{}.cmd.{pool}.{}", self.prefix, verb.as_str())
    }

    /// The work queue of a pool.
    #[must_use]
    pub fn command_stream(&self, pool: &Pool) -> String {
        format!("{}_CMD_{pool}", self.upper)
    }

    /// The stream that is the record.
    #[must_use]
    pub fn event_stream(&self) -> String {
        format!("{}_EVENTS", self.upper)
    }

    /// The stream of dead letters.
    #[must_use]
    pub fn dead_stream(&self) -> String {
        format!("{}_DEAD", self.upper)
    }

    /// The bucket with the newest event of each worker.
    #[must_use]
    pub fn view_bucket(&self) -> String {
        format!("{}_workers", self.prefix)
    }

    /// The stream behind that bucket.
    #[must_use]
    pub fn view_stream(&self) -> String {
        format!("KV_{}", self.view_bucket())
    }

    /// Every subject on which events are written.
    #[must_use]
    pub fn log_all(&self) -> String {
        format!("{}.log.*.*.*", self.prefix)
    }

    /// Where an event is written; only enlist may.
    #[must_use]
    pub fn log(&self, key: &WorkerKey, state: State) -> String {
        joined([self.prefix.as_str(), "log", key.pool.as_str(), key.worker_id.as_str(), state.as_str()])
    }

    /// Where a pool's own event is written.
    #[must_use]
    pub fn pool_log(&self, pool: &Pool, state: PoolState) -> String {
        format!("{}.log.{pool}.{POOL_TOKEN}.{}", self.prefix, state.as_str())
    }

    /// What the server makes of [`Self::log_all`].
    #[must_use]
    pub fn log_transform(&self) -> String {
        format!("{}.events.{{{{wildcard(1)}}}}.{{{{wildcard(2)}}}}.{{{{wildcard(3)}}}}", self.prefix)
    }

    /// Every event.
    #[must_use]
    pub fn events_all(&self) -> String {
        format!("{}.events.*.*.*", self.prefix)
    }

    /// Every event, in the form that the server takes for a republish onto the same subjects.
    #[must_use]
    pub fn events_republished(&self) -> String {
        format!("{}.events.>", self.prefix)
    }

    /// Every event by which a worker has entered a state.
    #[must_use]
    pub fn events_in(&self, state: State) -> String {
        format!("{}.events.*.*.{}", self.prefix, state.as_str())
    }

    /// Every event of a pool.
    #[must_use]
    pub fn events_of_pool(&self, pool: &Pool) -> String {
        format!("{}.events.{pool}.*.*", self.prefix)
    }

    /// Every event of a worker: the one filter of compare-and-set.
    #[must_use]
    pub fn events_of(&self, key: &WorkerKey) -> String {
        joined([self.prefix.as_str(), "events", key.pool.as_str(), key.worker_id.as_str(), "*"])
    }

    /// Every event of a pool's own, beside its workers'.
    #[must_use]
    pub fn own_events_of(&self, pool: &Pool) -> String {
        format!("{}.events.{pool}.{POOL_TOKEN}.*", self.prefix)
    }

    /// Whose event a subject is: a worker's, or its pool's own.
    #[must_use]
    pub fn read_owner(subject: &str) -> Option<(Pool, Option<WorkerId>)> {
        let mut tokens = subject.split('.').skip(2);
        let pool = Pool::new(tokens.next()?).ok()?;
        let worker = match tokens.next()? {
            POOL_TOKEN => None,
            token => Some(WorkerId::new(token).ok()?),
        };
        (tokens.count() == 1).then_some((pool, worker))
    }

    /// Worker and state of an event's subject.
    #[must_use]
    pub fn read_event(subject: &str) -> Option<(WorkerId, State)> {
        let mut tokens = subject.split('.').skip(3);
        let worker = WorkerId::new(tokens.next()?).ok()?;
        let state = State::from_token(tokens.next()?)?;
        tokens.next().is_none().then_some((worker, state))
    }

    /// What the view makes of an event's subject.
    #[must_use]
    pub fn view_transform(&self) -> String {
        format!("$KV.{}.{{{{wildcard(1)}}}}.{{{{wildcard(2)}}}}", self.view_bucket())
    }

    /// A worker's entry in the view.
    #[must_use]
    pub fn view_of(&self, key: &WorkerKey) -> String {
        format!("$KV.{}.{}.{}", self.view_bucket(), key.pool, key.worker_id)
    }

    /// A pool's own entry in the view.
    #[must_use]
    pub fn own_view_of(&self, pool: &Pool) -> String {
        format!("$KV.{}.{pool}.{POOL_TOKEN}", self.view_bucket())
    }

    /// The entries in the view of a pool's workers, and of the pool itself.
    #[must_use]
    pub fn view_of_pool(&self, pool: &Pool) -> String {
        format!("$KV.{}.{pool}.*", self.view_bucket())
    }

    /// Every dead letter.
    #[must_use]
    pub fn dead_all(&self) -> String {
        self.dead_below("*.*.*")
    }

    /// Every dead letter of a pool.
    #[must_use]
    pub fn dead_of_pool(&self, pool: &Pool) -> String {
        self.dead_below(format_args!("{pool}.*.*"))
    }

    /// Where a dead letter is stored; `_` stands for a command id that could not be read.
    #[must_use]
    pub fn dead(&self, pool: &Pool, verb: Verb, command_id: Option<&CommandId>) -> String {
        self.dead_below(format_args!("{pool}.{}.{}", verb.as_str(), command_id.map_or("_", CommandId::as_str)))
    }

    /// What dead letters are stored under, with any end: for permissions, and for what only tries them.
    #[must_use]
    pub fn dead_below(&self, end: impl Display) -> String {
        format!("{}.dead.{end}", self.prefix)
    }

    /// Where requests to replicas begin.
    #[must_use]
    pub fn service(&self) -> String {
        format!("{}.srv", self.prefix)
    }
}

/// Tokens with dots between: for names of every write, without a formatter.
fn joined<const N: usize>(tokens: [&str; N]) -> String {
    let mut name = String::with_capacity(tokens.iter().map(|token| token.len() + 1).sum());
    for (number, token) in tokens.into_iter().enumerate() {
        if number > 0 {
            name.push('.');
        }
        name.push_str(token);
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_contract() {
        let subjects = Subjects::new(&Prefix::new("enlist").unwrap());
        let pool = Pool::new("gpu-a").unwrap();
        let key = WorkerKey::new(pool.clone(), WorkerId::new("w-1").unwrap());
        assert_eq!(subjects.command(&pool, Verb::Provision), "enlist.cmd.gpu-a.provision");
        assert_eq!(subjects.command_stream(&pool), "ENLIST_CMD_gpu-a");
        assert_eq!(subjects.log(&key, State::Registered), "enlist.log.gpu-a.w-1.registered");
        assert_eq!(subjects.events_of(&key), "enlist.events.gpu-a.w-1.*");
        assert_eq!(subjects.log_transform(), "enlist.events.{{wildcard(1)}}.{{wildcard(2)}}.{{wildcard(3)}}");
        assert_eq!(subjects.view_transform(), "$KV.enlist_workers.{{wildcard(1)}}.{{wildcard(2)}}");
        assert_eq!(subjects.view_of(&key), "$KV.enlist_workers.gpu-a.w-1");
        assert_eq!(subjects.view_of_pool(&pool), "$KV.enlist_workers.gpu-a.*");
        assert_eq!(subjects.pool_log(&pool, PoolState::Sizing), "enlist.log.gpu-a._.sizing");
        assert_eq!(subjects.own_events_of(&pool), "enlist.events.gpu-a._.*");
        assert_eq!(subjects.dead(&pool, Verb::Terminate, None), "enlist.dead.gpu-a.terminate._");
        assert_eq!(subjects.dead_of_pool(&pool), "enlist.dead.gpu-a.*.*");
        assert_eq!(
            Subjects::read_event("enlist.events.gpu-a.w-1.registered"),
            Some((WorkerId::new("w-1").unwrap(), State::Registered))
        );
        assert_eq!(Subjects::read_event("enlist.events.gpu-a._.sizing"), None);
    }

    #[test]
    fn an_event_s_subject_tells_whose_it_is() {
        let pool = Pool::new("gpu-a").unwrap();
        let worker = Some(WorkerId::new("w-1").unwrap());
        assert_eq!(Subjects::read_owner("enlist.events.gpu-a.w-1.registered"), Some((pool.clone(), worker)));
        assert_eq!(Subjects::read_owner("enlist.events.gpu-a._.sizing"), Some((pool, None)));
        for none in ["enlist.events.gpu-a.w-1", "enlist.events.gpu-a.w-1.lost.more", "enlist.events.gpu-a.W.lost"] {
            assert_eq!(Subjects::read_owner(none), None, "{none}");
        }
    }
}
