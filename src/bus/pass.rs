//! One pass over a stream: the newest message of each subject, then what comes, by a consumer that lives as long as the pass.
//!
//! The client's own ordered consumer is made anew where it broke, and from then on delivers every message and not only the
//! newest ones. A pass has an end, so that an error is better: whoever wanted it begins again.

use std::time::Duration;

use async_nats::jetstream::{self, Message};
use async_nats::{Client, StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use super::requests::{RequestError, Requests};
use super::stored::ReadStoredError;
use crate::wire::publish::ApiError;

/// Before it answers, the server looks up the newest message of every subject: some ten seconds for a million on a machine
/// at rest, more than thirty on a busy one.
const PATIENCE: Duration = Duration::from_secs(120);
/// The server sends a sign of life where it has nothing else to send for so long.
const SIGN_OF_LIFE: Duration = Duration::from_secs(2);
/// After this the server removes the consumer of a pass that nobody listens to any more.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(5);
/// How many messages the consumer has sent, in a sign of life.
const SENT: &str = "Nats-Last-Consumer";
/// Where the server waits for an answer before it sends more, in a sign of life.
const STALLED: &str = "Nats-Consumer-Stalled";

/// See the module. Dropping it ends it.
#[derive(Debug)]
pub struct Pass {
    client: Client,
    context: jetstream::Context,
    messages: Subscriber,
    /// Messages that have come. The server numbers them, so that it shows if one is missing.
    count: u64,
    /// Messages that the server has still to send, and when it stored the last that came.
    left: u64,
    time: Timestamp,
}

/// What comes by a pass.
#[derive(Debug)]
pub enum Passed {
    /// A message, and its place in the stream.
    Message(Box<async_nats::Message>, u64),
    /// The server has sent no more than has come.
    Quiet,
}

/// Why a pass ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// It could not begin.
    #[error(transparent)]
    Begin(#[from] ReadStoredError),
    /// Messages are missing, or no more will come.
    #[error("the feed broke after {0} messages")]
    Broken(u64),
}

impl Pass {
    /// Begins a pass over the messages on a filter.
    pub async fn begin(requests: &Requests, api_prefix: &str, stream: &str, filter: &str) -> Result<Self, PassError> {
        #[derive(Deserialize)]
        struct Answer {
            error: Option<ApiError>,
            #[serde(default)]
            num_pending: u64,
        }
        let client = requests.client().clone();
        let inbox = client.new_inbox();
        let query = json!({ "stream_name": stream, "config": {
            "deliver_subject": inbox,
            "deliver_policy": "last_per_subject",
            "filter_subject": filter,
            "ack_policy": "none",
            "max_deliver": 1,
            "flow_control": true,
            "idle_heartbeat": nanos(SIGN_OF_LIFE),
            "inactive_threshold": nanos(FORGOTTEN_AFTER),
            "num_replicas": 1,
            "mem_storage": true,
        }});
        // Listened to before it is there: what it sends first must find us.
        let subscribed = tokio::time::timeout(PATIENCE, client.subscribe(inbox)).await;
        let messages = subscribed
            .map_err(|_| RequestError::TimedOut)
            .and_then(|subscribed| subscribed.map_err(|_| RequestError::Disconnected))
            .map_err(ReadStoredError::from)?;
        let subject = format!("{api_prefix}.CONSUMER.CREATE.{stream}");
        let reply = requests.send(subject, None, query.to_string().into(), PATIENCE).await;
        let reply = reply.map_err(ReadStoredError::from)?;
        let answer: Answer =
            serde_json::from_slice(&reply.payload).map_err(|error| ReadStoredError::Unreadable(error.to_string()))?;
        if let Some(error) = answer.error {
            return Err(ReadStoredError::from(error).into());
        }
        let (context, left, time) = (jetstream::new(client.clone()), answer.num_pending, Timestamp::UNIX_EPOCH);
        Ok(Self { context, client, messages, count: 0, left, time })
    }

    /// How many messages the server where the consumer lives had still to send when it sent the last one.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.left
    }

    /// When the last message that came was stored.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// The next message, or that there is none at the moment.
    pub async fn next(&mut self) -> Result<Passed, PassError> {
        loop {
            // Silence is no quiet: a consumer that is gone, as after a restart of its server, says nothing at all.
            let next = tokio::time::timeout(3 * SIGN_OF_LIFE, self.messages.next()).await;
            let Ok(Some(message)) = next else { return Err(self.broken()) };
            match message.status {
                None => return self.message(message),
                Some(StatusCode::IDLE_HEARTBEAT) => {
                    if self.sign_of_life(&message).await? {
                        return Ok(Passed::Quiet);
                    }
                }
                // Say that the consumer is gone.
                Some(_) => return Err(self.broken()),
            }
        }
    }

    fn message(&mut self, message: async_nats::Message) -> Result<Passed, PassError> {
        let message = Message { message, context: self.context.clone() };
        let (number, sequence) = match message.info() {
            Ok(info) => {
                self.left = info.pending;
                self.time = Timestamp::from_nanosecond(info.published.unix_timestamp_nanos()).unwrap_or_default();
                (info.consumer_sequence, info.stream_sequence)
            }
            Err(_) => return Err(PassError::Broken(self.count)),
        };
        if number != self.count + 1 {
            return Err(self.broken());
        }
        self.count = number;
        Ok(Passed::Message(Box::new(message.message), sequence))
    }

    /// Whether it says that nothing is on its way.
    async fn sign_of_life(&self, message: &async_nats::Message) -> Result<bool, PassError> {
        let header = |name| message.headers.as_ref().and_then(|headers| headers.get(name)).map(ToString::to_string);
        let asked = message.reply.as_ref().map(ToString::to_string).or_else(|| header(STALLED));
        if let Some(subject) = asked {
            // The answer says that all before it has come, and the server sends on.
            self.client.publish(subject, Bytes::new()).await.map_err(|_| self.broken())?;
            return Ok(false);
        }
        let sent: Option<u64> = header(SENT).and_then(|sent| sent.parse().ok());
        if sent == Some(self.count) { Ok(true) } else { Err(self.broken()) }
    }

    fn broken(&self) -> PassError {
        PassError::Broken(self.count)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
