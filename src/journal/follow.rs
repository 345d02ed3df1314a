//! Follows one pool's events on the server and keeps its [`Census`]: what the pool's limit and its gauges are read from.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::jetstream::consumer::{DeliverPolicy, push};
use async_nats::jetstream::{self};
use futures_util::StreamExt;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::{Census, ReadError};
use crate::bus::subjects::Subjects;
use crate::domain::{Pool, WorkerId};

/// How long a decision waits for the feed to catch up.
const PATIENCE: Duration = Duration::from_secs(10);
const RESTART: Duration = Duration::from_millis(500);

/// A pool's census, kept by a task of its own for as long as a handle is left.
#[derive(Debug, Clone)]
pub struct Follower(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    census: Arc<Mutex<Census>>,
    /// The log is known up to here; 0 until the first snapshot is complete.
    known: watch::Receiver<Option<u64>>,
    task: AbortHandle,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Follower {
    /// Begins to follow a pool; returns at once, the first snapshot comes in meanwhile.
    #[must_use]
    pub fn start(context: jetstream::Context, subjects: Subjects, pool: Pool) -> Self {
        let census = Arc::new(Mutex::new(Census::default()));
        let (known, seen) = watch::channel(None);
        let task = tokio::spawn(follow(context, subjects, pool, Arc::clone(&census), known)).abort_handle();
        Self(Arc::new(Shared { census, known: seen, task }))
    }

    /// Looks at the census as it is now.
    pub fn look<T>(&self, look: impl FnOnce(&Census) -> T) -> T {
        look(&lock(&self.0.census))
    }

    pub(super) async fn live(&self) -> Result<usize, ReadError> {
        self.reached(0).await?;
        Ok(self.look(Census::live))
    }

    pub(super) async fn admits(&self, id: &WorkerId, sequence: u64, max: usize) -> Result<bool, ReadError> {
        self.reached(sequence).await?;
        Ok(self.look(|census| census.admits(id, max)))
    }

    async fn reached(&self, sequence: u64) -> Result<(), ReadError> {
        let mut known = self.0.known.clone();
        let reached = known.wait_for(|known| known.is_some_and(|known| known >= sequence));
        match tokio::time::timeout(PATIENCE, reached).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(ReadError(format!("the pool's feed has not come up to event {sequence}"))),
        }
    }
}

async fn follow(
    context: jetstream::Context,
    subjects: Subjects,
    pool: Pool,
    census: Arc<Mutex<Census>>,
    known: watch::Sender<Option<u64>>,
) {
    loop {
        // A feed that broke may have missed a purge as well: begin again with a fresh snapshot.
        if let Err(error) = once(&context, &subjects, &pool, &census, &known).await {
            tracing::debug!(%pool, %error, "the pool's feed is made anew");
        }
        known.send_replace(None);
        tokio::time::sleep(RESTART).await;
    }
}

async fn once(
    context: &jetstream::Context,
    subjects: &Subjects,
    pool: &Pool,
    census: &Mutex<Census>,
    known: &watch::Sender<Option<u64>>,
) -> Result<(), async_nats::Error> {
    let stream = context.get_stream(subjects.event_stream()).await?;
    let config = push::OrderedConfig {
        deliver_subject: context.client().new_inbox(),
        filter_subject: subjects.events_of_pool(pool),
        headers_only: true,
        // The last of each state of each worker, in the order of the log: enough to tell who is live.
        deliver_policy: DeliverPolicy::LastPerSubject,
        ..push::OrderedConfig::default()
    };
    let consumer = stream.create_consumer(config).await?;
    let mut left = consumer.cached_info().num_pending;
    *lock(census) = Census::default();
    if left == 0 {
        known.send_replace(Some(0));
    }
    let mut messages = consumer.messages().await?;
    while let Some(message) = messages.next().await {
        let message = message?;
        let sequence = message.info()?.stream_sequence;
        if let Some((worker, state)) = Subjects::read_event(&message.subject) {
            lock(census).observe(&worker, state, sequence);
        }
        left = left.saturating_sub(1);
        if left == 0 {
            known.send_replace(Some(sequence));
        }
    }
    Ok(())
}

/// A census is whole between any two statements, so poison says nothing.
fn lock(census: &Mutex<Census>) -> MutexGuard<'_, Census> {
    census.lock().unwrap_or_else(PoisonError::into_inner)
}
