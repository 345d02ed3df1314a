//! What each pool has left behind, for the checker.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_nats::Client;

use crate::checker::{Acked, Command, Event, History};
use crate::ears::{Ears, Heard, Place};
use crate::fleet::{Fleet, POOLS, PREFIX, UNREGISTER_TIMEOUT};
use crate::publisher::Sent;
use crate::scheduler::Scheduler;
use crate::stored::{dead_letter, entry, is_of_an_interval, queued, stored};
use crate::watch::header;

/// Everything that there is to look at.
pub(crate) struct Stage<'a> {
    pub(crate) client: &'a Client,
    pub(crate) fleet: &'a Fleet,
    pub(crate) scheduler: &'a Scheduler,
    pub(crate) ears: &'a Ears,
}

impl Stage<'_> {
    /// What is still to be done: the lines of all queues.
    pub(crate) async fn left(&self) -> BTreeMap<&'static str, Vec<String>> {
        let mut left = BTreeMap::new();
        for pool in POOLS {
            let lines = queued(self.client, PREFIX, pool).await.into_values();
            left.insert(pool, lines.filter(|line| !is_of_an_interval(line, PREFIX, pool)).collect());
        }
        left
    }

    /// The history of each pool.
    pub(crate) async fn histories(&self, sent: &[Sent]) -> Vec<History> {
        let (upper, left, acks) = (PREFIX.to_uppercase(), self.left().await, self.ears.acks());
        let dead = stored(self.client, &format!("{upper}_DEAD")).await;
        let view = stored(self.client, &format!("KV_{PREFIX}_workers")).await;
        let log = stored(self.client, &format!("{upper}_EVENTS")).await;
        let of_pool = |subject: &str, pool: &str| subject.split('.').nth(2) == Some(pool);
        let history = |pool: &'static str| {
            let events = log.iter().filter(|(_, message)| of_pool(&message.subject, pool));
            let (sizes, events): (Vec<Event>, Vec<Event>) = events
                .map(|(sequence, message)| Event {
                    sequence: *sequence,
                    subject: message.subject.to_string(),
                    content_type: header(message, "Content-Type"),
                    body: serde_json::from_slice(&message.payload).expect("an event in JSON"),
                })
                .partition(|event| event.subject.split('.').nth(3) == Some("_"));
            let dead = dead.iter().filter(|(_, message)| of_pool(&message.subject, pool));
            let view = view.iter().filter(|(_, message)| of_pool(&message.subject, pool));
            let of_pool = sent.iter().filter(|sent| sent.pool == pool).map(|sent| acked(sent, &acks));
            History {
                prefix: PREFIX.to_owned(),
                pool: pool.to_owned(),
                events,
                sizes,
                purged: BTreeSet::new(),
                view: view.filter_map(|(_, message)| entry(&message.subject, &message.payload)).collect(),
                dead: dead.map(|(sequence, message)| dead_letter(*sequence, message)).collect(),
                commands: of_pool.chain(self.ears.own(pool)).collect(),
                strays: Vec::new(),
                provider: self.fleet.home(pool).steps(),
                alive: self.fleet.home(pool).alive(),
                scheduler: self.scheduler.journal(pool),
                left: left[pool].clone(),
                // What is left of it at the end is too little for one more try.
                unregister_timeout: Some(UNREGISTER_TIMEOUT.saturating_sub(Duration::from_millis(100))),
            }
        };
        POOLS.into_iter().map(history).collect()
    }
}

/// Only an ack takes a message out of its queue: one that is neither there nor was heard has been acked all the same, and
/// its outcome only has to be there by now.
fn acked(sent: &Sent, acks: &BTreeMap<Place, Heard>) -> Command {
    let place = (sent.pool.to_owned(), sent.command.sequence);
    let heard = acks.get(&place).and_then(|heard| heard.acked);
    Command { acked: heard.or(Some(Acked { events: u64::MAX, dead: u64::MAX })), ..sent.command.clone() }
}

/// How each line of `lists_agree` ends.
pub(crate) const DISAGREE: &str = "only in one of records and scheduler's list";

/// What the checker does not ask for, since one command alone does not: whoever lives and wants to be is in the scheduler's
/// list, and nobody else.
pub(crate) fn lists_agree(history: &History, listed: &[String]) -> Vec<String> {
    let records = history.records();
    let live: BTreeSet<&str> = records
        .values()
        .filter(|record| !record.is_final() && record.registers())
        .map(|record| record.worker())
        .collect();
    let listed: BTreeSet<&str> = listed.iter().map(String::as_str).collect();
    let differ = live.symmetric_difference(&listed);
    differ.map(|worker| format!("{worker}: {DISAGREE}")).collect()
}
