//! What is known of the fleet beside its census: the newest events, whose registration fails, what was refused.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use async_nats::HeaderValue;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::pulse::Pulse;
use crate::bus::batch::Copied;
use crate::bus::view::{Record, Seen};
use crate::domain::{Pool, PoolRecord, State, Worker, WorkerKey};
use crate::wire::dead_letter::DeadLetter;

/// Workers kept whose registration fails; the oldest are let go.
const FAILING: usize = 1000;
/// Of them shown, and dead letters shown.
const SHOWN: usize = 50;
/// Events of one look that are sent on: more than that nobody reads.
const EVENTS: usize = 40;

/// See the module. Bounded, whatever happens in a fleet.
pub(super) struct Book {
    /// The log is known up to here.
    pub(super) last: u64,
    /// The dead letters are.
    pub(super) last_dead: u64,
    /// Whether there were more dead letters than are read back.
    pub(super) unread_dead: bool,
    pub(super) sizes: BTreeMap<Pool, PoolRecord>,
    /// Pools that events have told of.
    pub(super) seen: BTreeSet<Pool>,
    pub(super) pulse: Pulse,
    failing: BTreeMap<WorkerKey, (u64, Timestamp, Worker)>,
    dead: VecDeque<Value>,
    news: VecDeque<Value>,
    /// Events since the last look that were not kept for it.
    skipped: usize,
}

impl Book {
    pub(super) fn new(last: u64, last_dead: u64) -> Self {
        Self {
            last,
            last_dead,
            unread_dead: last_dead > 0,
            sizes: BTreeMap::new(),
            seen: BTreeSet::new(),
            pulse: Pulse::new(),
            failing: BTreeMap::new(),
            dead: VecDeque::new(),
            news: VecDeque::new(),
            skipped: 0,
        }
    }

    /// Takes in an event of the log.
    pub(super) fn take(&mut self, seen: Seen, now: Timestamp) {
        let Seen { sequence, time, record } = seen;
        self.last = self.last.max(sequence);
        let at = time.as_millisecond();
        match record {
            Record::Worker(worker) => {
                self.seen.insert(worker.pool.clone());
                let first = !self.failing.contains_key(&worker.key());
                self.pulse.observe(&worker, time, now, first);
                self.tell(json!({ "seq": sequence, "at": at, "worker": &*worker }));
                if worker.state == State::RegistrationFailed {
                    self.fails(sequence, time, *worker);
                } else {
                    self.failing.remove(&worker.key());
                }
            }
            Record::Pool(record) => {
                self.seen.insert(record.pool.clone());
                self.tell(json!({ "seq": sequence, "at": at, "pool": &*record }));
                self.sizes.insert(record.pool.clone(), *record);
            }
            // Of a later version, which has a page of its own.
            Record::Unreadable(..) => {}
        }
    }

    /// Takes in a worker whose registration has failed.
    pub(super) fn fails(&mut self, sequence: u64, time: Timestamp, worker: Worker) {
        self.failing.insert(worker.key(), (sequence, time, worker));
        if self.failing.len() > FAILING {
            let oldest = self.failing.iter().min_by_key(|(_, (sequence, ..))| *sequence).map(|(key, _)| key.clone());
            oldest.and_then(|oldest| self.failing.remove(&oldest));
        }
    }

    /// Takes in a dead letter.
    pub(super) fn bury(&mut self, copied: Copied, now: Timestamp) {
        let Copied { subject, sequence, time, headers, body } = copied;
        self.last_dead = self.last_dead.max(sequence);
        if std::mem::take(&mut self.unread_dead) {
            self.pulse.is_whole_since(time);
        }
        self.pulse.refused(time, now);
        let header = |name| headers.get(name).map(HeaderValue::as_str);
        let Ok(letter) = DeadLetter::decode(header, body) else { return };
        let mut tokens = subject.split('.').skip(2);
        let (pool, verb, command_id) = (tokens.next(), tokens.next(), tokens.next());
        self.dead.push_front(json!({
            "seq": sequence, "at": time.as_millisecond(), "pool": pool, "verb": verb, "command_id": command_id,
            "reason": letter.refusal.reason.as_str(), "detail": letter.refusal.detail,
        }));
        self.dead.truncate(SHOWN);
    }

    fn tell(&mut self, event: Value) {
        self.news.push_back(event);
        if self.news.len() > EVENTS {
            self.news.pop_front();
            self.skipped += 1;
        }
    }

    /// The events since the last look, the oldest first, and how many came beside them.
    pub(super) fn news(&mut self) -> Option<Value> {
        if self.news.is_empty() {
            return None;
        }
        let (events, skipped) = (std::mem::take(&mut self.news), std::mem::take(&mut self.skipped));
        Some(json!({ "events": events, "skipped": skipped }))
    }

    /// Workers whose registration fails, the newest failure first.
    pub(super) fn failing(&self) -> Value {
        let mut failing: Vec<_> = self.failing.values().collect();
        failing.sort_unstable_by_key(|(sequence, ..)| std::cmp::Reverse(*sequence));
        let shown: Vec<_> = failing
            .iter()
            .take(SHOWN)
            .map(|(sequence, time, worker)| json!({ "seq": sequence, "at": time.as_millisecond(), "worker": worker }))
            .collect();
        json!({ "all": failing.len(), "workers": shown })
    }

    /// Dead letters, the newest first.
    pub(super) fn dead(&self) -> Value {
        json!(self.dead)
    }
}
