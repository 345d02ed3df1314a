//! Keeps what the page shows up to date while there are readers.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::{self, BoxStream};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::Fleet;
use super::book::Book;
use super::pulse::Pulse;
use crate::bus::batch::{BatchError, Batches, Copied};
use crate::bus::orders::Orders;
use crate::bus::stored::{self, ReadStoredError, Stored};
use crate::bus::subjects::Subjects;
use crate::bus::view::{Record, Seen, View};
use crate::domain::{Pool, State, Verb, Worker, WorkerKey};
use crate::journal::follow::Follower;
use crate::telemetry::Health;
use crate::wire::event;

const LOOK_EVERY: Duration = Duration::from_millis(500);
/// What changes slowly, or is dear to ask for, is asked for less often.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// A look that takes longer has broken; the first one reads far more.
const PATIENCE: Duration = Duration::from_secs(8);
const PATIENCE_AT_FIRST: Duration = Duration::from_secs(25);
/// A page that is loaded again finds all of it still there.
const LINGER: Duration = Duration::from_secs(30);
/// Events that are read back from the end of the log, first and at most; the plots tell where they begin.
const BACK: u64 = 250;
const BACK_AT_MOST: u64 = 16_000;
/// So few events are read one by one: for a batch the server counts all subjects of the log.
const FEW: u64 = 200;
/// Failed registrations that are held while they are read back: the newest.
const FAILING_AT_MOST: usize = 5000;
/// Dead letters that are read back.
const DEAD: u64 = 200;
/// Pools of others whose workers are counted.
const OTHERS: usize = 64;

/// What the page is made from.
pub struct FleetParts {
    /// Reads and asks.
    pub orders: Orders,
    /// Reads the log.
    pub view: View,
    /// Counts the pools of others.
    pub context: jetstream::Context,
    /// The pools of this replica.
    pub pools: Vec<Served>,
    /// How this replica is.
    pub health: Arc<Health>,
    /// Its id as a service.
    pub instance_id: Option<String>,
    /// Whether anybody who reaches the page sees it.
    pub open: bool,
}

/// A pool of this replica.
pub struct Served {
    /// Its name.
    pub pool: Pool,
    /// Its provider.
    pub provider: &'static str,
    /// Its limit.
    pub max_workers: Option<usize>,
    /// Its census.
    pub follower: Follower,
}

/// Why a look did not see all.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error(transparent)]
    Stored(#[from] ReadStoredError),
    #[error("the log gives no answer in time")]
    Late(#[from] tokio::time::error::Elapsed),
}

/// Waits for readers, serves them for as long as there are any, and waits again.
pub(super) async fn keep(parts: FleetParts, fleet: Fleet) {
    let mut readers = fleet.0.readers.subscribe();
    while readers.wait_for(|readers| *readers > 0).await.is_ok() {
        parts.pools.iter().for_each(|served| served.follower.watch(true));
        Keeper {
            parts: &parts,
            fleet: &fleet,
            book: None,
            others: BTreeMap::new(),
            waiting: BTreeMap::new(),
            rests: None,
        }
        .serve()
        .await;
        parts.pools.iter().for_each(|served| served.follower.watch(false));
        fleet.forget();
    }
}

struct Keeper<'a> {
    parts: &'a FleetParts,
    fleet: &'a Fleet,
    /// `None` until the log could be read.
    book: Option<Book>,
    /// Pools that other replicas serve, as far as events tell of them.
    others: BTreeMap<Pool, Follower>,
    /// Provisions and terminates in the queues.
    waiting: BTreeMap<Pool, (usize, usize)>,
    /// Until then the log is not read, as reading it costs the server much.
    rests: Option<Instant>,
}

impl Keeper<'_> {
    async fn serve(&mut self) {
        let mut tick = interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut left, mut asked) = (None, None::<Instant>);
        // The pools are counted already, and what is read first takes a while where there is much of it.
        self.show(None);
        loop {
            tick.tick().await;
            if *self.fleet.0.readers.borrow() > 0 {
                left = None;
            } else if left.get_or_insert_with(Instant::now).elapsed() > LINGER {
                return;
            }
            let ask = asked.is_none_or(|asked| asked.elapsed() >= ASK_EVERY);
            if ask {
                asked = Some(Instant::now());
                self.fleet.show("beat", &json!({ "now": Timestamp::now().as_millisecond() }));
            }
            let patience = if self.book.is_none() { PATIENCE_AT_FIRST } else { PATIENCE };
            let looked = timeout(patience, self.look(ask)).await.map_err(LookError::from).and_then(|looked| looked);
            self.show(looked.err());
        }
    }

    /// Reads what is new since the last look.
    async fn look(&mut self, ask: bool) -> Result<(), LookError> {
        let now = Timestamp::now();
        if ask {
            self.ask().await?;
        }
        if self.book.is_none() {
            self.book = Some(self.look_back(now).await?);
        }
        let Some(book) = &mut self.book else { return Ok(()) };
        if self.rests.is_none_or(|until| Instant::now() >= until) {
            let begun = Instant::now();
            let in_batches = self.parts.read_on(book, now).await?;
            self.rests = in_batches.then(|| Instant::now() + 4 * begun.elapsed());
        }
        let own = |pool: &Pool| self.parts.pools.iter().any(|served| served.pool == *pool);
        for pool in &book.seen {
            if self.others.len() < OTHERS && !own(pool) && !self.others.contains_key(pool) {
                let (context, subjects) = (self.parts.context.clone(), self.parts.orders.subjects.clone());
                let follower = Follower::start(context, subjects, pool.clone(), false);
                follower.watch(true);
                self.others.insert(pool.clone(), follower);
            }
        }
        Ok(())
    }

    /// What is in the queues; and whether the log is still the one that was read.
    async fn ask(&mut self) -> Result<(), LookError> {
        let Orders { requests, subjects, api_prefix, .. } = &self.parts.orders;
        let counts = self.parts.pools.iter().map(|Served { pool, .. }| async move {
            let count = |verb| {
                let (stream, subject) = (subjects.command_stream(pool), subjects.command(pool, verb));
                async move { stored::count(requests, api_prefix, &stream, &subject).await }
            };
            Ok::<_, ReadStoredError>((pool.clone(), (count(Verb::Provision).await?, count(Verb::Terminate).await?)))
        });
        self.waiting = join_all(counts).await.into_iter().collect::<Result<_, _>>()?;
        let last = stored::last_sequence(requests, api_prefix, &subjects.event_stream()).await?;
        if self.book.as_ref().is_some_and(|book| book.last > last) {
            self.book = None;
        }
        Ok(())
    }

    /// The end of the log, a quarter of an hour of it if there is not too much, and what stands longer than that.
    async fn look_back(&self, now: Timestamp) -> Result<Book, LookError> {
        let FleetParts { orders, view, pools, .. } = self.parts;
        let Orders { requests, subjects, api_prefix, .. } = orders;
        let last = stored::last_sequence(requests, api_prefix, &subjects.event_stream()).await?;
        let last_dead = stored::last_sequence(requests, api_prefix, &subjects.dead_stream()).await?;
        let mut back = BACK;
        let (events, whole) = loop {
            let mut events = Vec::new();
            let mut tail = view.events_after(None, last.saturating_sub(back));
            while let Some(seen) = tail.next().await {
                events.push(seen?);
            }
            let oldest = events.first().map_or(i64::MIN, |seen| seen.time.as_second());
            let whole = back >= last || oldest < Pulse::begins(now);
            if whole || back >= BACK_AT_MOST {
                break (events, whole);
            }
            back *= 8;
        };
        let mut book = Book::new(last, last_dead.saturating_sub(DEAD));
        for worker in self.failing().await? {
            book.fails(worker.0, worker.1, worker.2);
        }
        for Served { pool, .. } in pools {
            let own = subjects.own_events_of(pool);
            if let Some(own) = stored::last(requests, api_prefix, &subjects.event_stream(), &own).await?
                && !own.is_foreign()
                && let Ok(record) = event::decode_pool(&own.body)
            {
                book.sizes.insert(pool.clone(), record);
            }
        }
        if let Some(oldest) = events.first().filter(|_| !whole) {
            book.pulse.is_whole_since(oldest.time);
        }
        for seen in events {
            book.take(seen, now);
        }
        Ok(book)
    }

    /// Workers whose registration has failed and that have not moved on since.
    async fn failing(&self) -> Result<Vec<(u64, Timestamp, Worker)>, LookError> {
        let Orders { requests, subjects, api_prefix, .. } = &self.parts.orders;
        let mut newest = BTreeMap::new();
        let filter = subjects.events_in(State::RegistrationFailed);
        let mut failures = self.parts.walk(subjects.event_stream(), filter, 1);
        let mut kept = VecDeque::new();
        while let Some(copied) = failures.next().await {
            keep_newest(&mut kept, copied?, FAILING_AT_MOST);
        }
        for copied in kept {
            if let Ok(worker) = event::decode(&copied.body) {
                newest.insert(worker.key(), (copied.sequence, copied.time, worker));
            }
        }
        let stream = subjects.event_stream();
        let standing = newest.into_iter().map(|(key, found): (WorkerKey, _)| {
            let (stream, filter) = (stream.clone(), subjects.events_of(&key));
            async move {
                let head = stored::last(requests, api_prefix, &stream, &filter).await?;
                Ok::<_, ReadStoredError>(head.filter(|head| head.sequence == found.0).map(|_| found))
            }
        });
        // A few at a time: commands have the broker before a page does.
        let standing: Vec<_> = stream::iter(standing).buffered(16).collect().await;
        Ok(standing.into_iter().filter_map(Result::transpose).collect::<Result<_, _>>()?)
    }

    fn show(&mut self, error: Option<LookError>) {
        let now = Timestamp::now();
        let FleetParts { orders, health, instance_id, open, .. } = self.parts;
        let wrong: Vec<_> = health
            .conditions()
            .into_iter()
            .filter(|condition| !condition.holds)
            .map(|condition| condition.name)
            .collect();
        self.fleet.show(
            "fleet",
            &json!({
                "prefix": orders.subjects.prefix().as_str(), "version": env!("CARGO_PKG_VERSION"),
                "instance": instance_id, "open": open, "ready": health.ready(), "wrong": wrong,
                "trouble": error.map(|error| error.to_string()),
            }),
        );
        self.fleet.show("pools", &self.pools());
        let Some(book) = &mut self.book else { return };
        self.fleet.show("plots", &book.pulse.shown(now));
        self.fleet.show("failing", &book.failing());
        self.fleet.show("dead", &book.dead());
        if let Some(news) = book.news() {
            self.fleet.tell(&news);
        }
    }

    fn pools(&self) -> Value {
        let shown = |pool: &Pool, follower: &Follower, served: Option<&Served>| {
            let states = follower.look(|census| {
                census.by_state().map(|(state, count)| (state.as_str().to_owned(), json!(count))).collect()
            });
            let size = self.book.as_ref().and_then(|book| book.sizes.get(pool));
            let (provision, terminate) = self.waiting.get(pool).copied().unwrap_or_default();
            json!({
                "pool": pool.as_str(), "served": served.is_some(),
                "provider": served.map(|served| served.provider), "max": served.and_then(|served| served.max_workers),
                "known": follower.is_known(), "states": Value::Object(states),
                "size": size.map(|record| json!({ "size": record.size, "state": record.state.as_str() })),
                "waiting": { "provision": provision, "terminate": terminate },
            })
        };
        let own = self.parts.pools.iter().map(|served| shown(&served.pool, &served.follower, Some(served)));
        let others = self.others.iter().map(|(pool, follower)| shown(pool, follower, None));
        own.chain(others).collect()
    }
}

/// Of what comes in order, the newest are kept.
fn keep_newest<T>(kept: &mut VecDeque<T>, one: T, most: usize) {
    if kept.len() == most {
        kept.pop_front();
    }
    kept.push_back(one);
}

/// An event as the log holds it; `None` for what this version cannot read, and for what is no event.
fn seen(stored: &Stored) -> Option<Seen> {
    if stored.is_foreign() {
        return None;
    }
    let record = match Subjects::read_owner(&stored.subject)? {
        (_, Some(_)) => Record::Worker(Box::new(event::decode(&stored.body).ok()?)),
        (_, None) => Record::Pool(Box::new(event::decode_pool(&stored.body).ok()?)),
    };
    let time = match &record {
        Record::Worker(worker) => worker.updated_at,
        Record::Pool(record) => record.updated_at,
        Record::Unreadable(..) => return None,
    };
    Some(Seen { sequence: stored.sequence, time, record })
}

impl FleetParts {
    /// Takes in what the log and the dead letters have behind the book. Whether it took batches.
    async fn read_on(&self, book: &mut Book, now: Timestamp) -> Result<bool, LookError> {
        let Orders { requests, subjects, api_prefix, .. } = &self.orders;
        let log = subjects.event_stream();
        let newest = stored::last_sequence(requests, api_prefix, &log).await?;
        let many = newest > book.last + FEW;
        if many {
            let mut events = self.view.events_after(None, book.last);
            while let Some(seen) = events.next().await {
                book.take(seen?, now);
            }
        } else {
            let places = stream::iter(book.last + 1..=newest);
            let mut events = places.map(|place| stored::at(requests, api_prefix, &log, place)).buffered(16).boxed();
            while let Some(found) = events.next().await {
                if let Some(seen) = found?.as_ref().and_then(seen) {
                    book.take(seen, now);
                }
            }
        }
        book.last = book.last.max(newest);
        let newest = stored::last_sequence(requests, api_prefix, &subjects.dead_stream()).await?;
        if newest < book.last_dead {
            // The stream was made anew, and counts from the beginning.
            book.last_dead = 0;
        }
        if newest > book.last_dead {
            let mut dead = self.dead_after(book.last_dead);
            while let Some(letter) = dead.next().await {
                book.bury(letter?, now);
            }
            book.last_dead = book.last_dead.max(newest);
        }
        book.unread_dead = false;
        Ok(many)
    }

    fn walk(&self, stream: String, filter: String, from: u64) -> BoxStream<'static, Result<Copied, BatchError>> {
        let Orders { connection, api_prefix, .. } = &self.orders;
        Batches::new(connection.client.clone(), api_prefix, stream, filter, from).stream()
    }

    fn dead_after(&self, after: u64) -> BoxStream<'static, Result<Copied, BatchError>> {
        let subjects = &self.orders.subjects;
        self.walk(subjects.dead_stream(), subjects.dead_all(), after + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_in_their_order() {
        let mut kept = VecDeque::new();
        (0..7).for_each(|one| keep_newest(&mut kept, one, 3));
        assert_eq!(kept, [4, 5, 6]);
    }
}
