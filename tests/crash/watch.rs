//! What passes the broker while a fleet is at work: acks, events as they come, and what enlist sends to itself.

// One harness for several test binaries; not each uses all of it.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::{Client, Message};
use futures_util::StreamExt;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::checker::{Acked, Command, Event};

/// Each message that was acked, and how far the outcomes went by then.
pub(crate) type Acks = BTreeMap<u64, Acked>;

/// Sees every ack on its way to the broker, and looks how far the outcomes went when it did.
pub(crate) async fn watch_acks(client: Client, prefix: &str, pool: &str) -> (watch::Receiver<Acks>, JoinHandle<()>) {
    let upper = prefix.to_uppercase();
    let queue = format!("{upper}_CMD_{pool}");
    // Both forms of an ack's subject: the longer one names domain and account first.
    let [short, long] = [format!("$JS.ACK.{queue}.>"), format!("$JS.ACK.*.*.{queue}.>")];
    let short = client.subscribe(short).await.expect("subscribed");
    let long = client.subscribe(long).await.expect("subscribed");
    let mut acks = futures_util::stream::select(short, long);
    client.flush().await.expect("flushed");
    let (told, seen) = watch::channel(Acks::new());
    let watcher = tokio::spawn(async move {
        while let Some(message) = acks.next().await {
            let Some(sequence) = sequence_in(&message.subject, &queue).filter(|_| message.payload == "+ACK") else {
                continue;
            };
            let [events, dead] = ["EVENTS", "DEAD"].map(|name| format!("{upper}_{name}"));
            let [events, dead] = [state(&client, &events).await, state(&client, &dead).await];
            let number = |state: &Value| state["last_seq"].as_u64().unwrap_or_default();
            let acked = Acked { events: number(&events), dead: number(&dead) };
            told.send_modify(|acks: &mut Acks| {
                acks.entry(sequence).or_insert(acked);
            });
        }
    });
    (seen, watcher)
}

/// The place in a stream from an ack subject: three tokens after the stream's name, in both of its forms.
pub(crate) fn sequence_in(reply: &str, stream: &str) -> Option<u64> {
    let mut tokens = reply.split('.').skip_while(|token| *token != stream);
    tokens.nth(3)?.parse().ok()
}

/// How often the message has been delivered: the token before that.
pub(crate) fn deliveries_in(reply: &str, stream: &str) -> Option<u64> {
    let mut tokens = reply.split('.').skip_while(|token| *token != stream);
    tokens.nth(2)?.parse().ok()
}

/// A stream's state, as the broker tells it; nulls where there is no stream yet.
pub(crate) async fn state(client: &Client, stream: &str) -> Value {
    let info = client.request(format!("$JS.API.STREAM.INFO.{stream}"), "".into()).await.expect("the broker answers");
    let mut info: Value = serde_json::from_slice(&info.payload).expect("JSON");
    info["state"].take()
}

/// Everything that came so far.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// Events by their place in the log: what is purged later is known all the same.
    pub(crate) events: BTreeMap<u64, Event>,
    /// What a pool's size has asked for, each command as often as it was sent.
    pub(crate) own: Vec<Command>,
}

/// Listens to a pool's events and to its queue's publishers.
pub(crate) struct Feed {
    heard: watch::Receiver<Heard>,
    listener: JoinHandle<()>,
}

impl Feed {
    pub(crate) async fn start(client: &Client, prefix: &str, pool: &str) -> Self {
        let events = client.subscribe(format!("{prefix}.events.{pool}.>")).await.expect("subscribed");
        let commands = client.subscribe(format!("{prefix}.cmd.{pool}.*")).await.expect("subscribed");
        client.flush().await.expect("flushed");
        let mut both = futures_util::stream::select(events, commands);
        let (told, heard) = watch::channel(Heard::default());
        let (of_events, pool) = (format!("{prefix}.events."), pool.to_owned());
        let listener = tokio::spawn(async move {
            while let Some(message) = both.next().await {
                told.send_modify(|heard| {
                    if message.subject.starts_with(&of_events) {
                        let event = event(&message);
                        heard.events.insert(event.sequence, event);
                    } else {
                        heard.own.extend(own(&message, &pool));
                    }
                });
            }
        });
        Self { heard, listener }
    }

    /// What has come, once it goes as far as the log does.
    pub(crate) async fn upto(&self, last: u64, patience: Duration) -> watch::Ref<'_, Heard> {
        self.until(patience, |heard| last == 0 || heard.events.keys().next_back().is_some_and(|newest| *newest >= last))
            .await
            .expect("the feed comes to the end of the log")
    }

    /// Waits until a worker has come to a state.
    pub(crate) async fn event(&self, worker: &str, state: &str, patience: Duration) -> Result<(), String> {
        let has = |heard: &Heard| heard.events.values().any(|event| event.worker() == worker && event.state() == state);
        self.until(patience, has).await.map(drop)
    }

    async fn until(&self, patience: Duration, is: impl FnMut(&Heard) -> bool) -> Result<watch::Ref<'_, Heard>, String> {
        // The borrow must be of this feed's own receiver, so that it may outlive the wait.
        let mut waiting = self.heard.clone();
        let waited = timeout(patience, waiting.wait_for(is)).await.map(drop);
        waited.map_err(|_| format!("not within {patience:?}"))?;
        Ok(self.heard.borrow())
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

pub(crate) fn header(message: &Message, name: &str) -> String {
    let value = message.headers.as_ref().and_then(|headers| headers.get(name));
    value.map(ToString::to_string).unwrap_or_default()
}

fn event(message: &Message) -> Event {
    Event {
        sequence: header(message, "Nats-Sequence").parse().expect("the server says where it stands"),
        subject: message.subject.to_string(),
        content_type: header(message, "Content-Type"),
        body: serde_json::from_slice(&message.payload).expect("an event in JSON"),
    }
}

/// A command of enlist's own, as far as it has an outcome.
pub(crate) fn own(message: &Message, pool: &str) -> Option<Command> {
    let verb = match message.subject.rsplit('.').next() {
        Some("provision") => "provision",
        Some("terminate") => "terminate",
        _ => return None,
    };
    let body = String::from_utf8_lossy(&message.payload).into_owned();
    let mut command = Command { sequence: 0, verb, id: None, worker: None, body, acked: None };
    let text = |value: Value| value.as_str().map(str::to_owned);
    let id = text(command.field("command_id")).filter(|id| id.starts_with("enlist-"))?;
    command.worker = text(command.field("worker_id")).or_else(|| Some(derived(pool, &id)));
    command.id = Some(id);
    Some(command)
}

/// The worker of a provision that names none, where any name will do.
pub(crate) fn derived(pool: &str, command: &str) -> String {
    let pool = enlist::domain::Pool::new(pool).expect("a pool");
    let command = enlist::domain::CommandId::new(command).expect("a command id");
    enlist::domain::WorkerId::derived(&pool, &command).to_string()
}
