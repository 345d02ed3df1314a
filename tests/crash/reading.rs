//! Everything that can be learned about a fleet from outside, once all is quiet.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::checker::{Command, Event, History};
use crate::fleet::{Fleet, PATIENCE, POOL};
use crate::stored::{dead_letter, entry, is_of_an_interval, kept, queued, stored};
use crate::watch::state;

/// The view may trail the log for so long.
const LONGEST_TRAIL: Duration = Duration::from_secs(15);

impl Fleet {
    pub(crate) async fn history(&self) -> History {
        let upper = self.prefix.to_uppercase();
        let last = state(&self.client, &format!("{upper}_EVENTS")).await["last_seq"].as_u64().unwrap_or_default();
        let (mut events, own) = {
            let heard = self.feed.upto(last, PATIENCE).await;
            (heard.events.clone(), heard.own.clone())
        };
        events.retain(|sequence, _| !self.forgotten.contains(sequence));
        let kept = stored(&self.client, &format!("{upper}_EVENTS")).await;
        let kept: BTreeSet<u64> = kept.into_iter().map(|(at, _)| at).collect();
        let purged = events.keys().copied().filter(|sequence| !kept.contains(sequence)).collect();
        let unheard: Vec<_> = kept.iter().filter(|sequence| !events.contains_key(sequence)).collect();
        assert!(unheard.is_empty(), "the log has events that nobody was told of: {unheard:?}");
        let (sizes, events): (Vec<Event>, Vec<Event>) =
            events.into_values().partition(|event| event.subject.split('.').nth(3) == Some("_"));
        let dead = stored(&self.client, &format!("{upper}_DEAD")).await;
        let dead = dead.iter().map(|(sequence, message)| dead_letter(*sequence, message)).collect();
        let acks = self.acks.borrow().clone();
        let acked = |sent: &Command| sent.acked.or_else(|| acks.get(&sent.sequence).copied());
        let commands = self.commands.iter().cloned().map(|sent| Command { acked: acked(&sent), ..sent });
        let commands = commands.chain(own).collect();
        let (prefix, pool) = (self.prefix.clone(), POOL.to_owned());
        let (provider, alive, scheduler) = (self.home.steps(), self.home.alive(), self.scheduler.journal());
        let (strays, left) = (self.strays.clone(), self.left().await);
        let mut history = History {
            prefix,
            pool,
            events,
            sizes,
            purged,
            view: BTreeMap::new(),
            dead,
            commands,
            strays,
            provider,
            alive,
            scheduler,
            left,
            unregister_timeout: None,
        };
        // The view is made after the log, by the server.
        let deadline = Instant::now() + LONGEST_TRAIL;
        loop {
            history.view = self.view().await;
            if history.shown() == history.view || Instant::now() > deadline {
                return history;
            }
        }
    }

    /// The bucket's entries of workers, each by the event's id.
    async fn view(&self) -> BTreeMap<String, String> {
        let kept = kept(&self.client, &format!("KV_{}_workers", self.prefix)).await;
        kept.into_values().filter_map(|message| entry(&message.subject, &message.payload)).collect()
    }

    /// What lies in the pool's queue: subject and body by its place.
    pub(crate) async fn queued(&self) -> BTreeMap<u64, String> {
        queued(&self.client, &self.prefix, POOL).await
    }

    /// The same, but for the sweeps that every interval asks for.
    async fn left(&self) -> Vec<String> {
        let of_interval = |left: &String| is_of_an_interval(left, &self.prefix, POOL);
        self.queued().await.into_values().filter(|left| !of_interval(left)).collect()
    }
}
