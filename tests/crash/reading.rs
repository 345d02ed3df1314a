//! Everything that can be learned about a fleet from outside, once all is quiet.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::message::StreamMessage;
use futures_util::StreamExt;
use serde_json::Value;
use tokio::time::{Instant, timeout};

use crate::checker::{Command, DeadLetter, Event, History};
use crate::fleet::{Fleet, PATIENCE, POOL};
use crate::watch::state;

/// The view may trail the log for so long.
const LONGEST_TRAIL: Duration = Duration::from_secs(15);

impl Fleet {
    pub(crate) async fn history(&self) -> History {
        let upper = self.prefix.to_uppercase();
        let header = |message: &async_nats::Message, name: &str| {
            let value = message.headers.as_ref().and_then(|headers| headers.get(name));
            value.map(ToString::to_string).unwrap_or_default()
        };
        let last = state(&self.client, &format!("{upper}_EVENTS")).await["last_seq"].as_u64().unwrap_or_default();
        let (mut events, own) = {
            let heard = self.feed.upto(last, PATIENCE).await;
            (heard.events.clone(), heard.own.clone())
        };
        events.retain(|sequence, _| !self.forgotten.contains(sequence));
        let kept: BTreeSet<u64> = self.stored(&format!("{upper}_EVENTS")).await.into_iter().map(|(at, _)| at).collect();
        let purged = events.keys().copied().filter(|sequence| !kept.contains(sequence)).collect();
        let unheard: Vec<_> = kept.iter().filter(|sequence| !events.contains_key(sequence)).collect();
        assert!(unheard.is_empty(), "the log has events that nobody was told of: {unheard:?}");
        let (sizes, events): (Vec<Event>, Vec<Event>) =
            events.into_values().partition(|event| event.subject.split('.').nth(3) == Some("_"));
        let mut dead = Vec::new();
        for (sequence, message) in self.stored(&format!("{upper}_DEAD")).await {
            let names = ["Reason", "Detail", "Subject", "Sequence", "Deliveries"].map(|name| format!("Enlist-{name}"));
            let headers = names.map(|name| (name.clone(), header(&message, &name))).into();
            let body = String::from_utf8_lossy(&message.payload).into_owned();
            dead.push(DeadLetter { sequence, subject: message.subject.to_string(), headers, body });
        }
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
        let mut view = BTreeMap::new();
        for message in self.kept(&format!("KV_{}_workers", self.prefix)).await.into_values() {
            let Some(worker) = message.subject.rsplit('.').next().filter(|token| *token != "_") else { continue };
            // Without a body it is a mark that one was deleted.
            let body: Value = serde_json::from_slice(&message.payload).unwrap_or_default();
            view.insert(worker.to_owned(), body["id"].as_str().unwrap_or_default().to_owned());
        }
        view
    }

    /// Every message of a stream with its sequence, through a consumer of our own.
    async fn stored(&self, name: &str) -> Vec<(u64, async_nats::Message)> {
        let stream = self.context.get_stream(name).await.expect("the stream");
        let number = state(&self.client, name).await["messages"].as_u64().expect("a number");
        if number == 0 {
            return Vec::new();
        }
        let consumer = stream.create_consumer(pull::OrderedConfig::default()).await.expect("a consumer");
        let messages = consumer.messages().await.expect("messages");
        let read = messages.take(usize::try_from(number).expect("not so many")).map(|message| {
            let message = message.expect("a message");
            let sequence = message.info().expect("its place").stream_sequence;
            (sequence, message.message)
        });
        timeout(PATIENCE, read.collect()).await.expect("as many messages as the stream says")
    }

    /// What a stream has at this moment, by its place, without a consumer.
    async fn kept(&self, name: &str) -> BTreeMap<u64, StreamMessage> {
        let state = state(&self.client, name).await;
        let mut kept = BTreeMap::new();
        if state["messages"].as_u64().unwrap_or_default() == 0 {
            return kept;
        }
        let stream = self.context.get_stream(name).await.expect("the stream");
        let [first, last] = ["first_seq", "last_seq"].map(|name| state[name].as_u64().expect("a number"));
        for sequence in first..=last {
            if let Ok(message) = stream.get_raw_message(sequence).await {
                kept.insert(sequence, message);
            }
        }
        kept
    }

    /// What lies in the pool's queue: subject and body by its place.
    pub(crate) async fn queued(&self) -> BTreeMap<u64, String> {
        let kept = self.kept(&self.queue()).await.into_iter();
        kept.map(|(at, message)| (at, format!("{} {}", message.subject, String::from_utf8_lossy(&message.payload))))
            .collect()
    }

    /// The same, but for the sweeps that every interval asks for.
    async fn left(&self) -> Vec<String> {
        let sweep = format!("{}.cmd.{POOL}.sweep {{\"command_id\":\"sweep-", self.prefix);
        self.queued().await.into_values().filter(|left| !left.starts_with(&sweep)).collect()
    }
}
