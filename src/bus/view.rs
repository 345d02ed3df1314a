//! The fleet as readers see it: the server's own projection, a worker's history, and what happens from now on.
//!
//! For reading only: the projection may trail the log, and no decision rests on it alone.

use std::sync::Arc;

use async_nats::{Client, Message};
use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt as _};
use jiff::Timestamp;

use super::batch::{BatchError, Batches, Copied};
use super::connection::Connection;
use super::foreign;
use super::streams::api_prefix;
use super::subjects::Subjects;
use crate::domain::{Labels, Pool, PoolRecord, State, Worker, WorkerKey};
use crate::wire::event;

/// The place of an event in the log, in what the server republishes.
const SEQUENCE: &str = "Nats-Sequence";
const TIME: &str = "Nats-Time-Stamp";

/// Whose record it is.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// A worker's.
    Worker(Box<Worker>),
    /// A pool's own.
    Pool(Box<PoolRecord>),
    /// What this version cannot read, or is no event: the subject, and why.
    Unreadable(String, String),
}

/// A record, and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// Its place in what it was read from: the view, or the log. A reader may go on from the place after it.
    pub sequence: u64,
    /// When the server stored it there.
    pub time: Timestamp,
    /// What it says.
    pub record: Record,
}

/// Which workers are wanted. What is left empty does not matter.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of this pool.
    pub pool: Option<Pool>,
    /// In one of these states.
    pub states: Vec<State>,
    /// With all of these labels.
    pub labels: Labels,
    /// Whose entry stands behind this place of the view.
    pub after: u64,
}

impl Filter {
    /// Whether a worker is wanted; `after` is a matter of the place, and not looked at.
    #[must_use]
    pub fn takes(&self, worker: &Worker) -> bool {
        let Self { pool, states, labels, after: _ } = self;
        pool.as_ref().is_none_or(|pool| *pool == worker.pool)
            && (states.is_empty() || states.contains(&worker.state))
            && labels.iter().all(|(name, value)| worker.capabilities.labels.get(name) == Some(value))
    }
}

/// Reads a fleet. A cheap handle.
#[derive(Debug, Clone)]
pub struct View {
    client: Client,
    connection: Option<Connection>,
    subjects: Subjects,
    api_prefix: Arc<str>,
}

impl View {
    /// A reader on this connection.
    #[must_use]
    pub fn new(client: Client, subjects: Subjects, domain: Option<&str>) -> Self {
        Self::on(client, subjects, &api_prefix(domain))
    }

    /// The same; `api_prefix` is `$JS.API`, or that of a domain.
    #[must_use]
    pub fn on(client: Client, subjects: Subjects, api_prefix: &str) -> Self {
        Self { client, connection: None, subjects, api_prefix: api_prefix.into() }
    }

    /// The same for one who may lack a right, which the server tells the connection: it fails at once, where a replica, whose
    /// rights have been tried, is patient.
    #[must_use]
    pub fn heeding(self, connection: Connection) -> Self {
        Self { connection: Some(connection), ..self }
    }

    /// The newest record of every worker and pool, in the order in which they changed last; two batches are held at most,
    /// however many there are. A worker that changes meanwhile may come twice, the newer record later; none is missed.
    #[must_use]
    pub fn records(&self, pool: Option<&Pool>, after: u64) -> BoxStream<'static, Result<Seen, BatchError>> {
        let (stream, filter) = self.projection(pool);
        walk(self.batches(stream, filter, after.saturating_add(1)))
    }

    /// The newest record of each worker that is wanted, and its place in the view; see [`Self::records`].
    #[must_use]
    pub fn workers(&self, filter: Filter) -> BoxStream<'static, Result<(Worker, u64), BatchError>> {
        wanted(self.records(filter.pool.as_ref(), filter.after), filter)
    }

    /// Every kept event of one worker, oldest first.
    pub async fn history(&self, key: &WorkerKey) -> Result<Vec<Seen>, BatchError> {
        self.events(self.subjects.events_of(key), 1).collect::<Vec<_>>().await.into_iter().collect()
    }

    /// Every kept event of a pool's own, oldest first.
    pub async fn pool_history(&self, pool: &Pool) -> Result<Vec<Seen>, BatchError> {
        self.events(self.subjects.own_events_of(pool), 1).collect::<Vec<_>>().await.into_iter().collect()
    }

    /// The log's events behind a place, oldest first: of all pools, or of one.
    #[must_use]
    pub fn events_after(&self, pool: Option<&Pool>, after: u64) -> BoxStream<'static, Result<Seen, BatchError>> {
        self.events(self.events_filter(pool), after.saturating_add(1))
    }

    /// What is stored from now on, as the server republishes it: of all pools, or of one. What is published while the
    /// connection is down does not come; [`Self::events_after`] has it.
    pub async fn live(&self, pool: Option<&Pool>) -> Result<BoxStream<'static, Seen>, BatchError> {
        let subscribed = self.client.subscribe(self.events_filter(pool)).await;
        let messages = subscribed.map_err(|_| BatchError::Disconnected)?;
        Ok(messages.filter_map(|message| std::future::ready(republished(message))).boxed())
    }

    /// The stream that the view is, and the filter on it.
    pub(super) fn projection(&self, pool: Option<&Pool>) -> (String, String) {
        let filter = match pool {
            Some(pool) => self.subjects.view_of_pool(pool),
            // Counted by the server at once, where a longer filter is held against every subject.
            None => ">".to_owned(),
        };
        (self.subjects.view_stream(), filter)
    }

    /// The subjects of the server's API start with this.
    #[must_use]
    pub fn api_prefix(&self) -> &str {
        &self.api_prefix
    }

    /// The stream that is the record.
    #[must_use]
    pub fn event_stream(&self) -> String {
        self.subjects.event_stream()
    }

    pub(super) fn events_filter(&self, pool: Option<&Pool>) -> String {
        pool.map_or_else(|| self.subjects.events_all(), |pool| self.subjects.events_of_pool(pool))
    }

    fn events(&self, filter: String, from: u64) -> BoxStream<'static, Result<Seen, BatchError>> {
        walk(self.batches(self.subjects.event_stream(), filter, from))
    }

    pub(super) fn dead_letters(&self, pool: Option<&Pool>) -> Batches {
        let filter = pool.map_or_else(|| self.subjects.dead_all(), |pool| self.subjects.dead_of_pool(pool));
        self.batches(self.subjects.dead_stream(), filter, 1)
    }

    fn batches(&self, stream: String, filter: String, from: u64) -> Batches {
        let batches = Batches::new(self.client.clone(), &self.api_prefix, stream, filter, from);
        batches.heeding(self.connection.clone())
    }
}

/// The workers among records that a filter takes.
#[must_use]
pub fn wanted(
    records: BoxStream<'static, Result<Seen, BatchError>>,
    filter: Filter,
) -> BoxStream<'static, Result<(Worker, u64), BatchError>> {
    let take = move |seen| {
        std::future::ready(match seen {
            Ok(Seen { sequence, record: Record::Worker(worker), .. }) if filter.takes(&worker) => {
                Some(Ok((*worker, sequence)))
            }
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        })
    };
    records.filter_map(take).boxed()
}

fn walk(batches: Batches) -> BoxStream<'static, Result<Seen, BatchError>> {
    batches.stream().map(|copied| copied.map(seen)).boxed()
}

fn seen(copied: Copied) -> Seen {
    let Copied { subject, sequence, time, headers, body } = copied;
    Seen { sequence, time, record: read(subject, foreign::in_copy(&headers), &body) }
}

/// What anybody may have published on such a subject by hand has no place in the log, and is passed over.
fn republished(message: Message) -> Option<Seen> {
    let Message { subject, headers, payload, .. } = message;
    let headers = headers?;
    // The server's own stand last: a copy that was stored has brought those of its original.
    let sequence = headers.get_last(SEQUENCE)?.as_str().parse().ok()?;
    let time = headers.get_last(TIME)?.as_str().parse().ok()?;
    Some(Seen { sequence, time, record: read(subject.into_string(), foreign::in_copy(&headers), &payload) })
}

/// By the token of the worker, which stands last in the view, and last but one in an event.
pub(super) fn read(subject: String, is_foreign: bool, body: &Bytes) -> Record {
    if is_foreign {
        return Record::Unreadable(subject, foreign::NO_EVENT.to_owned());
    }
    let own = subject.split('.').nth_back(usize::from(!subject.starts_with("$KV."))) == Some(event::POOL_TOKEN);
    let read = if own {
        event::decode_pool(body).map(|record| Record::Pool(Box::new(record)))
    } else {
        event::decode(body).map(|worker| Record::Worker(Box::new(worker)))
    };
    read.unwrap_or_else(|error| Record::Unreadable(subject, error.0))
}
