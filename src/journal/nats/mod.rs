//! The log as a NATS stream: one publish is one event, compared and set by the server.

mod append;
mod head;
mod purge;
mod read;
mod scan;

use std::collections::HashMap;
use std::sync::Arc;

use super::follow::Follower;
use super::{AppendError, Entry, EventOf, Journal, PoolEntry, PurgeError, ReadError, Scan, Scanned, Writer};
use crate::bus::requests::Requests;
use crate::bus::stored::{self, Stored};
use crate::bus::streams::api_prefix;
use crate::bus::subjects::Subjects;
use crate::domain::{Pool, PoolRecord, Prefix, Worker, WorkerKey};
use append::{Record, Write};

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

    /// The newest message on a filter, read from the leader: an event, or what hides one.
    async fn newest(&self, filter: &str) -> Result<Option<Stored>, ReadError> {
        let stored = stored::last(&self.requests, &self.api_prefix, &self.stream, filter).await;
        stored.map_err(|error| ReadError(error.to_string()))
    }

    /// Its place; 0 where there is none.
    async fn newest_sequence(&self, filter: &str) -> Result<u64, ReadError> {
        Ok(self.newest(filter).await?.map_or(0, |stored| stored.sequence))
    }

    /// Every kept event on a filter, oldest first.
    async fn every<T>(
        &self,
        filter: &str,
        read: impl Fn(&Stored) -> Result<T, ReadError>,
    ) -> Result<Vec<T>, ReadError> {
        let (mut found, mut from) = (Vec::new(), 1);
        loop {
            let stored = stored::next(&self.requests, &self.api_prefix, &self.stream, filter, from).await;
            match stored.map_err(|error| ReadError(error.to_string()))? {
                Some(stored) => {
                    from = stored.sequence + 1;
                    if !stored.is_foreign() {
                        found.push(read(&stored)?);
                    }
                }
                None => return Ok(found),
            }
        }
    }

    fn follower(&self, pool: &Pool) -> Result<&Follower, ReadError> {
        self.pools.get(pool).ok_or_else(|| ReadError(format!("pool {pool} is not followed by this replica")))
    }
}

impl Journal for NatsJournal {
    async fn append(&self, worker: &Worker, after: u64, writer: &Writer) -> Result<u64, AppendError> {
        self.write(Write { record: Record::Worker(worker), after, writer }).await
    }

    async fn head(&self, key: &WorkerKey) -> Result<Option<Entry>, ReadError> {
        self.head_on(&self.subjects.events_of(key)).await?.event.as_ref().map(read::entry).transpose()
    }

    async fn history(&self, key: &WorkerKey) -> Result<Vec<Entry>, ReadError> {
        self.every(&self.subjects.events_of(key), read::entry).await
    }

    async fn is_full(&self, pool: &Pool, max: usize) -> Result<bool, ReadError> {
        let follower = self.follower(pool)?;
        if follower.live(0).await? < max {
            return Ok(false);
        }
        // The feed may trail the log, and who has just seen a worker terminated must not be told that the pool is full.
        let newest = self.newest_sequence(&self.subjects.events_of_pool(pool)).await?;
        Ok(follower.live(newest).await? >= max)
    }

    async fn admits(&self, key: &WorkerKey, sequence: u64, max: usize) -> Result<bool, ReadError> {
        self.follower(&key.pool)?.admits(&key.worker_id, sequence, max).await
    }

    async fn scan<F: FnMut(Scanned) + Send>(&self, pool: &Pool, take: F) -> Result<Scan, ReadError> {
        Box::pin(self.scan_pool(pool, take)).await
    }

    async fn event_at(&self, sequence: u64) -> Result<Option<EventOf>, ReadError> {
        let stored = stored::at(&self.requests, &self.api_prefix, &self.stream, sequence).await;
        let stored = stored.map_err(|error| ReadError(error.to_string()))?;
        let event = stored.filter(|stored| !stored.is_foreign());
        event.map(|Stored { subject, .. }| read::whose(&subject, sequence)).transpose()
    }

    async fn purge(&self, key: &WorkerKey, upto: u64) -> Result<(), PurgeError> {
        self.purge_of(&EventOf::Worker(key.clone()), upto).await.map_err(|error| PurgeError(error.to_string()))
    }

    async fn pool_head(&self, pool: &Pool) -> Result<Option<PoolEntry>, ReadError> {
        self.head_on(&self.subjects.own_events_of(pool)).await?.event.as_ref().map(read::pool_entry).transpose()
    }

    async fn pool_history(&self, pool: &Pool) -> Result<Vec<PoolEntry>, ReadError> {
        self.every(&self.subjects.own_events_of(pool), read::pool_entry).await
    }

    async fn append_pool(&self, record: &PoolRecord, after: u64, writer: &Writer) -> Result<u64, AppendError> {
        self.write(Write { record: Record::Pool(record), after, writer }).await
    }
}
