//! What the broker has stored, read message by message.

// One harness for several test binaries; not each uses all of it.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::message::StreamMessage;
use async_nats::{Client, Message, jetstream};
use futures_util::StreamExt;
use serde_json::Value;
use tokio::time::timeout;

use crate::checker::DeadLetter;
use crate::watch::{header, state};

/// For one whole stream.
const PATIENCE: Duration = Duration::from_secs(120);

/// Every message of a stream with its sequence, through a consumer of our own.
pub(crate) async fn stored(client: &Client, name: &str) -> Vec<(u64, Message)> {
    let stream = jetstream::new(client.clone()).get_stream(name).await.expect("the stream");
    let number = state(client, name).await["messages"].as_u64().expect("a number");
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
pub(crate) async fn kept(client: &Client, name: &str) -> BTreeMap<u64, StreamMessage> {
    let mut kept = BTreeMap::new();
    let state = state(client, name).await;
    if state["messages"].as_u64().unwrap_or_default() == 0 {
        return kept;
    }
    let stream = jetstream::new(client.clone()).get_stream(name).await.expect("the stream");
    let [first, last] = ["first_seq", "last_seq"].map(|name| state[name].as_u64().expect("a number"));
    for sequence in first..=last {
        if let Ok(message) = stream.get_raw_message(sequence).await {
            kept.insert(sequence, message);
        }
    }
    kept
}

/// What lies in a pool's queue: subject and body by its place.
pub(crate) async fn queued(client: &Client, prefix: &str, pool: &str) -> BTreeMap<u64, String> {
    let kept = kept(client, &format!("{}_CMD_{pool}", prefix.to_uppercase())).await.into_iter();
    kept.map(|(at, message)| (at, format!("{} {}", message.subject, String::from_utf8_lossy(&message.payload))))
        .collect()
}

/// Whether a line of the queue is one of those sweeps.
pub(crate) fn is_of_an_interval(queued: &str, prefix: &str, pool: &str) -> bool {
    queued.starts_with(&format!("{prefix}.cmd.{pool}.sweep {{\"command_id\":\"sweep-"))
}

pub(crate) fn dead_letter(sequence: u64, message: &Message) -> DeadLetter {
    let names = ["Reason", "Detail", "Subject", "Sequence", "Deliveries"].map(|name| format!("Enlist-{name}"));
    let headers = names.map(|name| (name.clone(), header(message, &name))).into();
    let body = String::from_utf8_lossy(&message.payload).into_owned();
    DeadLetter { sequence, subject: message.subject.to_string(), headers, body }
}

/// An entry of the view, by worker and event id; none where it is the pool's own.
pub(crate) fn entry(subject: &str, payload: &[u8]) -> Option<(String, String)> {
    let worker = subject.rsplit('.').next().filter(|token| *token != "_")?;
    // Without a body it is a mark that one was deleted.
    let body: Value = serde_json::from_slice(payload).unwrap_or_default();
    Some((worker.to_owned(), body["id"].as_str().unwrap_or_default().to_owned()))
}
