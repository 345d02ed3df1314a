//! What the streams of a fleet hold, read back from the broker.

use std::collections::BTreeMap;

use async_nats::HeaderMap;
use async_nats::jetstream::message::StreamMessage;
use enlist::domain::{PoolRecord, Reason, Worker};
use enlist::wire::dead_letter::DeadLetter;
use enlist::wire::event;
use serde_json::Value;

use super::World;

/// An event in the log.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) sequence: u64,
    pub(crate) subject: String,
    pub(crate) headers: HeaderMap,
    /// The whole `CloudEvent`.
    pub(crate) json: Value,
    pub(crate) worker: Worker,
}

/// A dead letter in its stream.
#[derive(Debug, Clone)]
pub(crate) struct Dead {
    pub(crate) subject: String,
    pub(crate) letter: DeadLetter,
}

impl Dead {
    pub(crate) fn reason(&self) -> Reason {
        self.letter.refusal.reason
    }

    pub(crate) fn detail(&self) -> &str {
        &self.letter.refusal.detail
    }
}

impl World {
    /// Every event of every worker of the fleet, in the order of the log.
    pub(crate) async fn log(&self) -> Vec<Event> {
        let stored = self.stored(&self.subjects.event_stream(), None).await;
        let of_a_pool = |message: &StreamMessage| message.subject.split('.').nth(3) == Some("_");
        let workers = stored.unwrap_or_default().into_iter().filter(|message| is_event(message) && !of_a_pool(message));
        workers.map(read).collect()
    }

    /// Every event of a pool's own, in order.
    pub(crate) async fn sizes(&self, pool: &str) -> Vec<PoolRecord> {
        let filter = format!("{}.events.{pool}._.*", self.prefix);
        let stored = self.stored(&self.subjects.event_stream(), Some(&filter)).await.unwrap_or_default();
        stored.into_iter().filter(is_event).map(|message| event::decode_pool(&message.payload).unwrap()).collect()
    }

    /// How every worker of the fleet stands, by name; in this world no two pools use one worker id.
    pub(crate) async fn workers(&self) -> BTreeMap<String, Worker> {
        self.log().await.into_iter().map(|event| (event.worker.worker_id.to_string(), event.worker)).collect()
    }

    /// The workers of the fleet that have not ended.
    pub(crate) async fn live(&self) -> BTreeMap<String, Worker> {
        let mut workers = self.workers().await;
        workers.retain(|_, worker| !worker.state.is_final());
        workers
    }

    /// Every event of one worker; in this world no two pools use one worker id.
    pub(crate) async fn history(&self, worker: &str) -> Vec<Event> {
        let filter = format!("{}.events.*.{worker}.*", self.prefix);
        let stored = self.stored(&self.subjects.event_stream(), Some(&filter)).await;
        stored.unwrap_or_default().into_iter().filter(is_event).map(read).collect()
    }

    /// The states of one worker, in order.
    pub(crate) async fn states(&self, worker: &str) -> Vec<&'static str> {
        self.history(worker).await.iter().map(|event| event.worker.state.as_str()).collect()
    }

    /// Every dead letter of the fleet.
    pub(crate) async fn dead(&self) -> Vec<Dead> {
        let stored = self.stored(&self.subjects.dead_stream(), None).await.unwrap_or_default();
        let read = |message: StreamMessage| {
            let headers = message.headers;
            let letter =
                DeadLetter::decode(|name| headers.get(name).map(async_nats::HeaderValue::as_str), message.payload);
            Dead { subject: message.subject.to_string(), letter: letter.unwrap() }
        };
        stored.into_iter().map(read).collect()
    }

    /// The one dead letter of the fleet, which has none other.
    pub(crate) async fn only_dead(&self) -> Dead {
        let mut dead = self.dead().await;
        assert_eq!(dead.len(), 1, "{}", self.story().await);
        dead.remove(0)
    }

    /// A worker's entry in the view.
    pub(crate) async fn view(&self, pool: &str, worker: &str) -> Option<Worker> {
        let bucket = self.jetstream.get_key_value(self.subjects.view_bucket()).await.ok()?;
        let entry = bucket.get(format!("{pool}.{worker}")).await.ok()??;
        Some(event::decode(&entry).unwrap())
    }

    /// All that happened, for a test that has failed.
    pub(crate) async fn story(&self) -> String {
        let mut lines = Vec::new();
        for Event { sequence, worker, .. } in self.log().await {
            let (error, ended_by) = (worker.error.map(|error| error.message), worker.ended_by);
            lines.push(format!(
                "  event {sequence}: {}.{} rev {} epoch {} {} of {}, attempts {}, {error:?}, {ended_by:?}, {:?}",
                worker.pool,
                worker.worker_id,
                worker.rev,
                worker.epoch,
                worker.state.as_str(),
                worker.command_id,
                worker.attempts,
                worker.registration,
            ));
        }
        lines.extend(self.dead().await.iter().map(|Dead { subject, letter }| format!("  {subject}: {letter:?}")));
        lines.extend(self.scheduler.journal().iter().map(|asked| format!("  scheduler: {asked:?}")));
        for pool in self.config().pools.keys() {
            lines.push(format!("  left in the queue of {pool}: {:?}", self.left(pool.as_str()).await));
        }
        lines.join("\n")
    }

    /// Holds section 9.3 of the contract over every worker of the log: revs without a gap, epochs that never fall,
    /// and nothing after a final state.
    pub(crate) async fn hold_the_log(&self) {
        let mut workers = BTreeMap::<_, Vec<Worker>>::new();
        for event in self.log().await {
            workers.entry(event.worker.key()).or_default().push(event.worker);
        }
        for (key, events) in workers {
            for (n, worker) in events.iter().enumerate() {
                assert_eq!(worker.rev, n as u64 + 1, "revs of {key} have no gap\n{}", self.story().await);
                let Some(before) = n.checked_sub(1).map(|n| &events[n]) else { continue };
                assert!(worker.epoch >= before.epoch, "epochs of {key} never fall");
                let reused = worker.worker_type.as_str() == "static";
                assert!(reused || !before.state.is_final(), "nothing of {key} after its end\n{}", self.story().await);
            }
        }
    }

    /// Places in the log of what is no event of this worker, though it stands on a subject of the worker's.
    pub(crate) async fn rubbish(&self, pool: &str, worker: &str) -> Vec<u64> {
        let filter = format!("{}.events.{pool}.{worker}.*", self.prefix);
        let stored = self.stored(&self.subjects.event_stream(), Some(&filter)).await.unwrap_or_default();
        stored.iter().filter(|message| !is_event(message)).map(|message| message.sequence).collect()
    }

    /// A stream's messages, all or those on `filter`; `None` while the broker does not answer.
    async fn stored(&self, stream: &str, filter: Option<&str>) -> Option<Vec<StreamMessage>> {
        let stream = self.jetstream.get_stream(stream).await.ok()?;
        let mut messages: Vec<StreamMessage> = Vec::new();
        loop {
            let from = messages.last().map_or(1, |message| message.sequence + 1);
            let next = stream.get_first_raw_message_by_subject(filter.unwrap_or(">"), from).await;
            match next {
                Ok(message) => messages.push(message),
                Err(error)
                    if error.kind() == async_nats::jetstream::stream::LastRawMessageErrorKind::NoMessageFound =>
                {
                    return Some(messages);
                }
                Err(_) => return None,
            }
        }
    }
}

/// Written by enlist, and not an answer of the server's, which somebody has sent to a subject of the log.
fn is_event(message: &StreamMessage) -> bool {
    message.headers.get(event::WRITER).is_some() && message.headers.get("Nats-Stream").is_none()
}

fn read(message: StreamMessage) -> Event {
    Event {
        sequence: message.sequence,
        subject: message.subject.to_string(),
        headers: message.headers,
        json: serde_json::from_slice(&message.payload).unwrap(),
        worker: event::decode(&message.payload).unwrap(),
    }
}
