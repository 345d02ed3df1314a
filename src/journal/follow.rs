//! Keeps a pool's [`Census`] from its events on the server: what the pool's limit and its gauges are read from.
//!
//! A pool with a limit is followed, event by event, since its limit is held by it. A pool without one is counted now and
//! then for its gauges: following costs the broker a fifth of its commands a second. While somebody watches it is followed
//! all the same.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream;
use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use async_nats::jetstream::stream::{LastRawMessageErrorKind, Stream};
use futures_util::StreamExt;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::{Census, ReadError, WRITER, Writer};
use crate::bus::foreign;
use crate::bus::subjects::Subjects;
use crate::domain::{Pool, WorkerId, WorkerKey};

/// How long a decision waits for the feed to catch up.
const PATIENCE: Duration = Duration::from_secs(10);
const RESTART: Duration = Duration::from_millis(500);
/// So often it is looked whether the log still is the one that is followed.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A pool without a limit is counted so often, and never for more than a twentieth of the time.
const COUNT_EVERY: Duration = Duration::from_secs(15);

/// A pool's census, kept by a task of its own for as long as a handle is left.
#[derive(Debug, Clone)]
pub struct Follower(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    census: Arc<Mutex<Census>>,
    /// The log is known up to here; 0 until the first snapshot is complete.
    known: watch::Receiver<Option<u64>>,
    watched: watch::Sender<bool>,
    doubted: Arc<Notify>,
    task: AbortHandle,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Follower {
    /// Begins to follow a pool, or to count it now and then; returns at once, the first snapshot comes in meanwhile.
    #[must_use]
    pub fn start(context: jetstream::Context, subjects: Subjects, pool: Pool, limited: bool) -> Self {
        let (watched, _) = watch::channel(false);
        let census = Arc::new(Mutex::new(Census::default()));
        let (known, seen) = watch::channel(None);
        let doubted = Arc::new(Notify::new());
        let feed =
            Feed { context, subjects, pool, limited, watched: watched.subscribe(), doubted: Arc::clone(&doubted) };
        let task = tokio::spawn(follow(feed, Arc::clone(&census), known)).abort_handle();
        Self(Arc::new(Shared { census, known: seen, watched, doubted, task }))
    }

    /// Somebody watches, or nobody does any more.
    pub fn watch(&self, watched: bool) {
        self.0.watched.send_replace(watched);
    }

    /// Whether the pool has been counted once.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.0.known.borrow().is_some() || self.look(Census::sequence) > 0
    }

    /// Looks at the census as it is now.
    pub fn look<T>(&self, look: impl FnOnce(&Census) -> T) -> T {
        look(&lock(&self.0.census))
    }

    /// Live workers, counted once the log is known up to `sequence`.
    pub(super) async fn live(&self, sequence: u64) -> Result<usize, ReadError> {
        self.reached(sequence).await?;
        Ok(self.look(Census::live))
    }

    pub(super) async fn admits(&self, id: &WorkerId, sequence: u64, max: usize) -> Result<bool, ReadError> {
        self.reached(sequence).await?;
        if let Some(admitted) = self.look(|census| census.admits(id, max)) {
            return Ok(admitted);
        }
        // Its claim is there: it has ended since, and its next write will tell, or what is followed is another log.
        self.0.doubted.notify_one();
        Err(ReadError(format!("the pool's feed knows nothing of the claim at event {sequence}")))
    }

    async fn reached(&self, sequence: u64) -> Result<(), ReadError> {
        let mut known = self.0.known.clone();
        let reached = known.wait_for(|known| known.is_some_and(|known| known >= sequence));
        match timeout(PATIENCE, reached).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(ReadError(format!("the pool's feed has not come up to event {sequence}"))),
        }
    }
}

struct Feed {
    context: jetstream::Context,
    subjects: Subjects,
    pool: Pool,
    /// Followed on after the snapshot.
    limited: bool,
    watched: watch::Receiver<bool>,
    doubted: Arc<Notify>,
}

async fn follow(mut feed: Feed, shared: Arc<Mutex<Census>>, known: watch::Sender<Option<u64>>) {
    loop {
        let begun = Instant::now();
        let ended = feed.once(&shared, &known).await;
        known.send_replace(None);
        let pause = match ended {
            Ok(()) if !feed.limited && !*feed.watched.borrow() => COUNT_EVERY.max(begun.elapsed() * 20),
            // A feed that broke may have missed a purge as well: begin again with a fresh snapshot.
            Ok(()) => RESTART,
            Err(error) => {
                tracing::debug!(pool = %feed.pool, %error, "the pool's feed is made anew");
                RESTART
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // One that is followed already breaks off for a reason, and waits for its pause.
            Ok(_) = feed.watched.wait_for(|watched| *watched), if pause > RESTART => {}
        }
    }
}

impl Feed {
    async fn once(&self, shared: &Mutex<Census>, known: &watch::Sender<Option<u64>>) -> Result<(), async_nats::Error> {
        let Self { context, subjects, pool, limited, watched, doubted } = self;
        let connects = self.connects();
        let stream = context.get_stream(subjects.event_stream()).await?;
        // Pulled: what the server pushes of a large pool would all lie here at once, a hundred megabytes of it.
        let config = pull::OrderedConfig {
            filter_subject: subjects.events_of_pool(pool),
            headers_only: true,
            // The last of each state of each worker, in the order of the log: enough to tell who is live.
            deliver_policy: DeliverPolicy::LastPerSubject,
            ..pull::OrderedConfig::default()
        };
        let consumer = stream.create_consumer(config).await?;
        let mut left = consumer.cached_info().num_pending;
        // Readers keep the old census until the new one is whole.
        let mut census = Census::default();
        let mut messages = consumer.messages().await?;
        let (mut upto, mut hidden) = (0, HashSet::new());
        while left > 0 {
            // What was purged since it was counted does not come.
            let Ok(Some(message)) = timeout(PATIENCE, messages.next()).await else { return Ok(()) };
            let message = message?;
            upto = take(&mut census, &message)?;
            if foreign::in_log(message.headers.as_ref()) {
                hidden.extend(Subjects::read_event(&message.subject).map(|(worker, _)| worker));
            }
            left -= 1;
        }
        // What is no event hides the one below it from the snapshot, and from nothing that comes later.
        for worker in hidden {
            self.reread(&stream, &mut census, worker, upto).await?;
        }
        *lock(shared) = census;
        known.send_replace(Some(upto));
        let mut watched = watched.clone();
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if !*limited && !*watched.borrow_and_update() {
                return Ok(());
            }
            let message = tokio::select! {
                message = messages.next() => match message {
                    None => return Ok(()),
                    message => message,
                },
                Ok(()) = watched.changed(), if !*limited => continue,
                _ = look.tick() => None,
                () = doubted.notified() => None,
            };
            let Some(message) = message else {
                if self.connects() != connects || is_another(&stream, upto).await {
                    return Ok(());
                }
                continue;
            };
            upto = take(&mut lock(shared), &message?)?;
            known.send_replace(Some(upto));
        }
    }

    /// How often the connection has come up.
    fn connects(&self) -> u64 {
        self.context.client().statistics().connects.load(Ordering::Relaxed)
    }

    /// Takes in all that the log has of a worker up to a place.
    async fn reread(
        &self,
        stream: &Stream,
        census: &mut Census,
        worker: WorkerId,
        upto: u64,
    ) -> Result<(), async_nats::Error> {
        let filter = self.subjects.events_of(&WorkerKey::new(self.pool.clone(), worker));
        let mut from = 1;
        while from <= upto {
            let message = match stream.get_first_raw_message_by_subject(&filter, from).await {
                Ok(message) if message.sequence <= upto => message,
                Ok(_) => break,
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => break,
                Err(error) => return Err(error.into()),
            };
            observe(census, &message.subject, message.sequence, Some(&message.headers));
            from = message.sequence + 1;
        }
        Ok(())
    }
}

/// Whether the log is not the one any more that was known up to a place. The client takes a feed up again where it was cut
/// off, be it in a log that has not come so far: its first events would be missing for good.
async fn is_another(stream: &Stream, upto: u64) -> bool {
    stream
        .get_info()
        .await
        .is_ok_and(|now| now.created != stream.cached_info().created || now.state.last_sequence < upto)
}

fn take(census: &mut Census, message: &jetstream::Message) -> Result<u64, async_nats::Error> {
    let sequence = message.info()?.stream_sequence;
    observe(census, &message.subject, sequence, message.headers.as_ref());
    Ok(sequence)
}

/// Counts a message, if it is an event of a worker.
fn observe(census: &mut Census, subject: &str, sequence: u64, headers: Option<&HeaderMap>) {
    if let Some((worker, state)) = Subjects::read_event(subject)
        && !foreign::in_log(headers)
    {
        let writer = headers.and_then(|headers| headers.get(WRITER));
        let claim = writer.and_then(|writer| Writer::from_header(writer.as_str()).claim);
        census.observe(&worker, state, sequence, claim);
    }
}

/// A census is whole between any two statements, so poison says nothing.
fn lock(census: &Mutex<Census>) -> MutexGuard<'_, Census> {
    census.lock().unwrap_or_else(PoisonError::into_inner)
}
