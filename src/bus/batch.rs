//! Stored messages in the order of their stream, many to a request, from whichever server has a copy.
//!
//! No consumer is made: it costs the server nothing between two batches, and needs the right to read alone. A batch that
//! breaks off is asked for again from where it broke.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use async_nats::client::PublishErrorKind;
use async_nats::{Client, HeaderMap, Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt as _, unfold};
use jiff::Timestamp;
use serde_json::json;
use tokio::time::error::Elapsed;
use tokio::time::{sleep, timeout};

use super::connection::Connection;

/// Messages of the first batch, which may be all that is wanted, and bytes for each. From batch to batch they double: the
/// server counts what is pending once a batch, by a look at every subject.
const FEW: usize = 1024;
const BYTES_EACH: usize = 512;
/// Two batches are held here at most.
const MANY: usize = 16 * 1024;
/// Until the first message of a batch, and from each to the next.
const PATIENCE: Duration = Duration::from_secs(10);
/// A stream between two leaders answers nobody for a moment.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(250);

const SUBJECT: &str = "Nats-Subject";
const SEQUENCE: &str = "Nats-Sequence";
const TIME: &str = "Nats-Time-Stamp";
const BEFORE: &str = "Nats-Last-Sequence";
const PENDING: &str = "Nats-Num-Pending";

/// A message as its stream holds it.
#[derive(Debug, Clone)]
pub struct Copied {
    /// Its subject.
    pub subject: String,
    /// Its place.
    pub sequence: u64,
    /// When the server stored it.
    pub time: Timestamp,
    /// Its headers, and those that the server has put beside them.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// A stream cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Nobody serves it: there is no such stream, it has no leader, or it lacks `allow_direct`.
    #[error(
        "stream {stream} does not answer: there is none of this name, or it lacks allow_direct, or has no leader now"
    )]
    NobodyThere {
        /// Its name.
        stream: String,
    },
    /// No answer. Where a right is missing the server answers nobody.
    #[error(
        "stream {stream} gives no answer in time: publishing to {subject} may be forbidden, or its server too busy"
    )]
    TimedOut {
        /// Its name.
        stream: String,
        /// What was published to.
        subject: String,
    },
    /// A right is missing, as the server has told the connection.
    #[error("stream {stream} may not be read: {complaint}")]
    Forbidden {
        /// Its name.
        stream: String,
        /// The server's words.
        complaint: String,
    },
    /// The connection was closed.
    #[error("the connection is closed")]
    Disconnected,
    /// The server's answer is an error, or makes no sense.
    #[error("stream {stream} cannot be read: {cause}")]
    Refused {
        /// Its name.
        stream: String,
        /// The server's words.
        cause: String,
    },
}

/// A walk along a stream. It ends where nothing was left behind the last batch when the server sent it.
#[derive(Debug)]
pub struct Batches {
    client: Client,
    /// Where the server's complaints are heard of; without, a missing right is a silence.
    connection: Option<Connection>,
    stream: String,
    subject: String,
    filter: String,
    /// One inbox for each batch under this: what comes late of a batch that was given up reaches nobody.
    inbox: String,
    replies: Option<Subscriber>,
    batch: u64,
    /// Messages of the next batch.
    size: usize,
    /// Where the next batch begins.
    from: u64,
    asked: bool,
    asked_at: Instant,
    ended: bool,
    ready: VecDeque<Copied>,
}

/// How a batch ended.
enum Ended {
    /// All of it has come.
    Whole,
    /// It is to be asked for again.
    Broken(BatchError),
}

impl Batches {
    /// A walk over the messages on a filter from a sequence on. Nothing is asked for yet.
    #[must_use]
    pub fn new(client: Client, api_prefix: &str, stream: String, filter: String, from: u64) -> Self {
        Self {
            subject: format!("{api_prefix}.DIRECT.GET.{stream}"),
            inbox: client.new_inbox(),
            client,
            connection: None,
            stream,
            filter,
            replies: None,
            batch: 0,
            size: FEW,
            from: from.max(1),
            asked: false,
            asked_at: Instant::now(),
            ended: false,
            ready: VecDeque::new(),
        }
    }

    /// The same, which ends as soon as the server says on this connection that a right is missing.
    #[must_use]
    pub fn heeding(self, connection: Option<Connection>) -> Self {
        if let Some(connection) = &connection {
            connection.tries(&self.subject);
        }
        Self { connection, ..self }
    }

    /// All of them.
    #[must_use]
    pub fn stream(self) -> BoxStream<'static, Result<Copied, BatchError>> {
        unfold(self, |mut batches| async move { Some((batches.next().await?, batches)) }).boxed()
    }

    /// The next message.
    pub async fn next(&mut self) -> Option<Result<Copied, BatchError>> {
        while self.ready.is_empty() && !self.ended {
            if let Err(error) = self.fill().await {
                self.ended = true;
                return Some(Err(error));
            }
        }
        self.ready.pop_front().map(Ok)
    }

    /// Takes in one batch, and asks for the one after it, which the server sends while this one is looked at.
    async fn fill(&mut self) -> Result<(), BatchError> {
        let mut tries = 0;
        loop {
            if !self.asked {
                self.ask().await?;
            }
            match self.take_in().await? {
                Ended::Whole if self.ended => return Ok(()),
                Ended::Whole => return self.ask().await,
                Ended::Broken(error) => {
                    tries += 1;
                    if tries == TRIES {
                        return Err(error);
                    }
                    sleep(PAUSE * tries).await;
                    self.asked = false;
                    // What came before it broke is whole; the reader need not wait for the rest.
                    if !self.ready.is_empty() {
                        return Ok(());
                    }
                }
            }
        }
    }

    async fn ask(&mut self) -> Result<(), BatchError> {
        self.asked_at = Instant::now();
        if self.replies.is_none() {
            let subscribed = timeout(PATIENCE, self.client.subscribe(format!("{}.*", self.inbox))).await;
            self.replies = Some(subscribed.map_err(|_| self.timed_out())?.map_err(|_| BatchError::Disconnected)?);
        }
        self.batch += 1;
        self.asked = true;
        let (messages, bytes) = (self.size, self.size * BYTES_EACH);
        self.size = (2 * self.size).min(MANY);
        let query = json!({ "seq": self.from, "next_by_subj": self.filter, "batch": messages, "max_bytes": bytes });
        let reply_to = format!("{}.{}", self.inbox, self.batch);
        let sent =
            timeout(PATIENCE, self.client.publish_with_reply(self.subject.clone(), reply_to, query.to_string().into()))
                .await;
        sent.map_err(|_| self.timed_out())?.map_err(|error| match error.kind() {
            PublishErrorKind::Send => BatchError::Disconnected,
            PublishErrorKind::MaxPayloadExceeded | PublishErrorKind::InvalidSubject => self.refused(error),
        })
    }

    async fn take_in(&mut self) -> Result<Ended, BatchError> {
        let mut before = None;
        loop {
            let message = match self.heard().await? {
                Ok(Some(message)) => message,
                Ok(None) => return Err(BatchError::Disconnected),
                Err(_) => return Ok(Ended::Broken(self.timed_out())),
            };
            if message.subject.rsplit('.').next().and_then(|token| token.parse().ok()) != Some(self.batch) {
                continue;
            }
            let headers = message.headers.unwrap_or_default();
            match message.status {
                None | Some(StatusCode::OK) => {}
                Some(StatusCode::NO_RESPONDERS) => {
                    return Ok(Ended::Broken(BatchError::NobodyThere { stream: self.stream.clone() }));
                }
                Some(StatusCode::NOT_FOUND) => {
                    self.ended = true;
                    return Ok(Ended::Whole);
                }
                // The end of the batch, with the last sequence that was sent, and how many messages are left behind it.
                Some(status) if status.as_u16() == 204 => {
                    let (last, left) = (number(&headers, BEFORE), number(&headers, PENDING));
                    if before.is_some() && last != before {
                        return Ok(Ended::Broken(self.refused("a part of the batch has not come")));
                    }
                    self.ended = left == Some(0) || before.is_none();
                    return Ok(Ended::Whole);
                }
                Some(status) => {
                    let words = message.description.unwrap_or_default();
                    return Err(self.refused(format!("{status} {}", crate::text::cut(&words, 200))));
                }
            }
            let Some(copied) = copied(headers, message.payload) else {
                return Err(self.refused("a message without its place"));
            };
            // The server tells what it has sent before: where that has not come, the client had no room for it.
            if before.is_some() && number(&copied.headers, BEFORE) != before {
                return Ok(Ended::Broken(self.refused("a part of the batch has not come")));
            }
            before = Some(copied.sequence);
            self.from = copied.sequence + 1;
            self.ready.push_back(copied);
        }
    }

    /// The next message of any batch.
    async fn heard(&mut self) -> Result<Result<Option<Message>, Elapsed>, BatchError> {
        let Self { connection, replies: Some(replies), asked_at, subject, inbox, stream, .. } = self else {
            return Err(BatchError::Disconnected);
        };
        let next = timeout(PATIENCE, replies.next());
        let Some(connection) = connection else { return Ok(next.await) };
        let heard = connection.unless_refused(*asked_at, &[subject.as_str(), inbox.as_str()], next).await;
        heard.map_err(|complaint| BatchError::Forbidden {
            stream: stream.clone(),
            complaint: crate::text::cut(&complaint, 300),
        })
    }

    fn timed_out(&self) -> BatchError {
        BatchError::TimedOut { stream: self.stream.clone(), subject: self.subject.clone() }
    }

    fn refused(&self, cause: impl std::fmt::Display) -> BatchError {
        BatchError::Refused { stream: self.stream.clone(), cause: cause.to_string() }
    }
}

/// The server's own header stands last: a copy that was stored has brought those of its original.
fn number(headers: &HeaderMap, name: &'static str) -> Option<u64> {
    headers.get_last(name)?.as_str().parse().ok()
}

fn copied(headers: HeaderMap, body: Bytes) -> Option<Copied> {
    let subject = headers.get_last(SUBJECT)?.to_string();
    let sequence = number(&headers, SEQUENCE)?;
    let time = headers.get_last(TIME)?.as_str().parse().ok()?;
    Some(Copied { subject, sequence, time, headers, body })
}
