//! The log as a NATS stream: one publish is one event, compared and set by the server.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{HeaderMap, HeaderName, HeaderValue, header};

use super::follow::Follower;
use super::{AppendError, Entry, Journal, ReadError, Writer};
use crate::bus::requests::{RequestError, Requests};
use crate::bus::stored::{self, Stored};
use crate::bus::streams::api_prefix;
use crate::bus::subjects::Subjects;
use crate::domain::{Pool, Prefix, Worker, WorkerKey};
use crate::wire::event;
use crate::wire::publish::PubAck;

/// The header that names the writer of an event.
pub const WRITER: &str = "Enlist-Writer";
const WRITER_HEADER: HeaderName = HeaderName::from_static(WRITER);
const CONTENT_TYPE: HeaderName = HeaderName::from_static("Content-Type");
const EXPECTED_SUBJECT: HeaderName = HeaderName::from_static("Nats-Expected-Last-Subject-Sequence-Subject");
const PATIENCE: Duration = Duration::from_secs(5);
/// A leader election takes seconds; a command in hand waits for it rather than go through its queue again.
const TRIES: u32 = 8;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// The stream `ENLIST_EVENTS`.
#[derive(Debug, Clone)]
pub struct NatsJournal {
    requests: Requests,
    subjects: Subjects,
    prefix: Prefix,
    api_prefix: Arc<str>,
    stream: Arc<str>,
    pools: Arc<HashMap<Pool, Follower>>,
}

impl NatsJournal {
    /// The log of a fleet. `pools` are followed, so that their live workers can be counted.
    #[must_use]
    pub fn new(
        requests: Requests,
        subjects: Subjects,
        domain: Option<&str>,
        pools: impl IntoIterator<Item = (Pool, Follower)>,
    ) -> Self {
        Self {
            prefix: subjects.prefix().clone(),
            stream: subjects.event_stream().into(),
            api_prefix: api_prefix(domain).into(),
            requests,
            subjects,
            pools: Arc::new(pools.into_iter().collect()),
        }
    }

    async fn publish(&self, worker: &Worker, after: u64, writer: &Writer) -> Published {
        let key = worker.key();
        let mut headers = HeaderMap::new();
        headers.insert(header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, HeaderValue::from(after));
        headers.insert(EXPECTED_SUBJECT, self.subjects.events_of(&key));
        headers.insert(CONTENT_TYPE, event::CONTENT_TYPE);
        headers.insert(WRITER_HEADER, writer.to_header());
        let body = event::encode(&self.prefix, worker, None);
        let subject = self.subjects.log(&key, worker.state);
        match self.requests.send(subject, Some(headers), body.into(), PATIENCE).await {
            Ok(reply) => match PubAck::read(&reply.payload) {
                Ok(ack) => Published::Stored(ack.sequence),
                Err(error) if error.is_wrong_last_sequence() => Published::Refused,
                Err(error) => Published::Unknown(error.to_string()),
            },
            Err(error @ (RequestError::NoResponders | RequestError::TimedOut | RequestError::Disconnected)) => {
                Published::Unknown(error.to_string())
            }
            Err(error @ RequestError::Unsendable(_)) => Published::Unknown(error.to_string()),
        }
    }

    /// What became of a write that was not simply stored, by the worker's head; and the same write again while that tells
    /// that nobody has won.
    async fn decide(
        &self,
        worker: &Worker,
        after: u64,
        writer: &Writer,
        mut published: Published,
    ) -> Result<u64, AppendError> {
        let mut tries = 1;
        loop {
            let why = match published {
                Published::Stored(sequence) => return Ok(sequence),
                Published::Refused => "the compare-and-set was not decided".to_owned(),
                Published::Unknown(error) => error,
            };
            let why = match self.head(&worker.key()).await {
                // The same event by the same writer: the answer was lost, the write was not.
                Ok(Some(head))
                    if head.worker.rev == worker.rev && head.worker.epoch == worker.epoch && head.writer == *writer =>
                {
                    return Ok(head.sequence);
                }
                Ok(head) if head.as_ref().map_or(0, |head| head.sequence) != after => {
                    return Err(AppendError::Conflict);
                }
                // Nothing is stored, or not yet: the same write may be tried again.
                Ok(_) => why,
                Err(ReadError(error)) => error,
            };
            if tries == TRIES {
                return Err(AppendError::Unavailable(why));
            }
            let window = FIRST_PAUSE.saturating_mul(1 << tries).min(LONGEST_PAUSE);
            tokio::time::sleep(window.mul_f64(rand::random())).await;
            tries += 1;
            published = self.publish(worker, after, writer).await;
        }
    }

    fn follower(&self, pool: &Pool) -> Result<&Follower, ReadError> {
        self.pools.get(pool).ok_or_else(|| ReadError(format!("pool {pool} is not followed by this replica")))
    }
}

enum Published {
    Stored(u64),
    /// 10071 or 10164: the head tells.
    Refused,
    /// It may be stored, now or later: the head tells.
    Unknown(String),
}

impl Journal for NatsJournal {
    async fn append(&self, worker: &Worker, after: u64, writer: &Writer) -> Result<u64, AppendError> {
        match self.publish(worker, after, writer).await {
            Published::Stored(sequence) => Ok(sequence),
            // Rare, and larger than the way above: not carried along by every command in hand.
            refused => Box::pin(self.decide(worker, after, writer, refused)).await,
        }
    }

    async fn head(&self, key: &WorkerKey) -> Result<Option<Entry>, ReadError> {
        let filter = self.subjects.events_of(key);
        let stored = stored::last(&self.requests, &self.api_prefix, &self.stream, &filter).await;
        stored.map_err(|error| ReadError(error.to_string()))?.as_ref().map(entry).transpose()
    }

    async fn history(&self, key: &WorkerKey) -> Result<Vec<Entry>, ReadError> {
        let filter = self.subjects.events_of(key);
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let from = entries.last().map_or(1, |entry| entry.sequence + 1);
            let stored = stored::next(&self.requests, &self.api_prefix, &self.stream, &filter, from).await;
            match stored.map_err(|error| ReadError(error.to_string()))? {
                Some(stored) => entries.push(entry(&stored)?),
                None => return Ok(entries),
            }
        }
    }

    async fn is_full(&self, pool: &Pool, max: usize) -> Result<bool, ReadError> {
        let follower = self.follower(pool)?;
        if follower.live(0).await? < max {
            return Ok(false);
        }
        // The feed may trail the log, and who has just seen a worker terminated must not be told that the pool is full.
        let filter = self.subjects.events_of_pool(pool);
        let newest = stored::last(&self.requests, &self.api_prefix, &self.stream, &filter).await;
        let newest = newest.map_err(|error| ReadError(error.to_string()))?.map_or(0, |stored| stored.sequence);
        Ok(follower.live(newest).await? >= max)
    }

    async fn admits(&self, key: &WorkerKey, sequence: u64, max: usize) -> Result<bool, ReadError> {
        self.follower(&key.pool)?.admits(&key.worker_id, sequence, max).await
    }
}

fn entry(stored: &Stored) -> Result<Entry, ReadError> {
    let worker = event::decode(&stored.body)
        .map_err(|error| ReadError(format!("event {} on {}: {error}", stored.sequence, stored.subject)))?;
    let writer = Writer::from_header(stored.header(WRITER).unwrap_or_default());
    Ok(Entry { worker, sequence: stored.sequence, writer })
}
