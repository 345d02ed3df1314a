//! The log over a network: slow, answers get lost, writes land minutes later, and it refuses where nobody has won.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use enlist::domain::{Pool, PoolRecord, Worker, WorkerKey};
use enlist::journal::decide::{Head, Published, decide};
use enlist::journal::{
    AppendError, Entry, EventOf, Journal, MemoryJournal, PoolEntry, PurgeError, ReadError, Scan, Scanned, Writer,
};
use futures_util::FutureExt as _;
use tokio::time::sleep;

use super::hand::HAND;
use super::world::World;

const PATIENCE: Duration = Duration::from_secs(5);

/// What a replica sees of the log.
#[derive(Clone)]
pub(crate) struct SimJournal(pub(crate) Arc<World>);

/// What is written.
#[derive(Clone)]
enum Record {
    Worker(Box<Worker>),
    Pool(PoolRecord),
}

/// The log itself does not wait.
fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("the log in memory does not wait")
}

/// Stores a write at this moment, and holds the rules against it.
fn store(world: &World, record: &Record, after: u64, writer: &Writer, by: Option<u64>) -> Result<u64, AppendError> {
    match record {
        Record::Worker(worker) => {
            let before = now(world.log.head(&worker.key())).unwrap();
            let sequence = now(world.log.append(worker, after, writer))?;
            let entry = Entry { worker: (**worker).clone(), sequence, writer: writer.clone() };
            world.tell(|| {
                let Worker { rev, epoch, attempts, .. } = **worker;
                let message = writer.message;
                let (key, state, error) =
                    (worker.key(), worker.state.as_str(), worker.error.as_ref().map(|e| &e.message));
                format!(
                    "log {sequence}: {key} {state}, rev {rev} epoch {epoch} attempts {attempts}, for {message:?} {error:?}"
                )
            });
            let instance = world.book.lock().unwrap().alive(&worker.key());
            world.judged(|judge| judge.event(before.as_ref(), entry, by, instance.as_deref(), world));
            Ok(sequence)
        }
        Record::Pool(record) => {
            let sequence = now(world.log.append_pool(record, after, writer))?;
            let entry = PoolEntry { record: record.clone(), sequence, writer: writer.clone() };
            world.tell(|| format!("log {sequence}: {} {:?} {}", record.pool, record.state, record.size));
            world.judged(|judge| judge.pool_event(entry));
            Ok(sequence)
        }
    }
}

impl SimJournal {
    async fn publish(&self, record: &Record, after: u64, writer: &Writer) -> Published {
        let world = &self.0;
        let by = HAND.try_with(|hand| hand.number).ok();
        let unknown = || Published::Unknown("no answer".to_owned());
        let stored = |world: &World| match store(world, record, after, writer, by) {
            Ok(sequence) => Published::Stored(sequence),
            Err(_) => Published::Refused,
        };
        if world.is_away("log") {
            sleep(PATIENCE).await;
            return unknown();
        }
        if world.fails(world.weather.log, 0.01) {
            // Nobody has won, and it is refused all the same.
            world.travel().await;
            world.tell(|| format!("log: a write after {after} is refused, whoever has won"));
            return Published::Refused;
        }
        if world.fails(world.weather.log, 0.01) {
            // Stored, and the answer is lost.
            world.travel().await;
            let _ = stored(world);
            sleep(PATIENCE).await;
            return unknown();
        }
        if world.fails(world.weather.log, 0.01) {
            let (record, writer) = (record.clone(), writer.clone());
            let after_all = world.seconds(1, 240);
            world.later(after_all, move |world| {
                let _ = store(world, &record, after, &writer, by);
            });
            sleep(PATIENCE).await;
            return unknown();
        }
        world.travel().await;
        let published = stored(world);
        world.travel().await;
        published
    }

    async fn write(&self, record: Record, after: u64, writer: &Writer) -> Result<u64, AppendError> {
        let head = || async {
            Ok(match &record {
                Record::Worker(ours) => {
                    let head = self.head(&ours.key()).await?;
                    let is_ours = |head: &Entry| {
                        head.worker.rev == ours.rev && head.worker.epoch == ours.epoch && head.writer == *writer
                    };
                    Head { ours: head.as_ref().is_some_and(is_ours), sequence: head.map_or(0, |head| head.sequence) }
                }
                Record::Pool(ours) => {
                    let head = self.pool_head(&ours.pool).await?;
                    let is_ours = |head: &PoolEntry| head.record.rev == ours.rev && head.writer == *writer;
                    Head { ours: head.as_ref().is_some_and(is_ours), sequence: head.map_or(0, |head| head.sequence) }
                }
            })
        };
        match self.publish(&record, after, writer).await {
            Published::Stored(sequence) => Ok(sequence),
            other => {
                let publish = || self.publish(&record, after, writer);
                decide(after, other, publish, head, || self.0.dice().unit()).await
            }
        }
    }

    /// Reads what the leader has at a moment of the read; or fails.
    async fn read<T>(&self, what: impl FnOnce(&MemoryJournal) -> T) -> Result<T, ReadError> {
        let world = &self.0;
        let away = world.is_away("log");
        if away || world.fails(world.weather.reads, 0.01) {
            sleep(if away { PATIENCE } else { world.between(Duration::ZERO, PATIENCE) }).await;
            return Err(ReadError("no answer".to_owned()));
        }
        // The answer may be on its way for longer than the question was.
        if world.dice().hits(0.5) {
            world.travel().await;
            return Ok(what(&world.log));
        }
        let read = what(&world.log);
        world.travel().await;
        if world.fails(world.weather.reads, 0.01) {
            sleep(world.between(Duration::ZERO, PATIENCE)).await;
        }
        Ok(read)
    }
}

impl Journal for SimJournal {
    async fn append(&self, worker: &Worker, after: u64, writer: &Writer) -> Result<u64, AppendError> {
        self.write(Record::Worker(Box::new(worker.clone())), after, writer).await
    }

    async fn head(&self, key: &WorkerKey) -> Result<Option<Entry>, ReadError> {
        let head = self.read(|log| now(log.head(key)).unwrap()).await;
        let ending = |head: &Option<Entry>| {
            head.as_ref().is_some_and(|head| {
                head.worker.state.is_final() || head.worker.state == enlist::domain::State::Terminating
            })
        };
        // One that could not be read decides nothing.
        let going = head.as_ref().is_ok_and(ending);
        let _ = HAND.try_with(|hand| hand.looked.lock().unwrap().insert(key.clone(), !going));
        head
    }

    async fn history(&self, key: &WorkerKey) -> Result<Vec<Entry>, ReadError> {
        self.read(|log| now(log.history(key)).unwrap()).await
    }

    /// The feed trails: a pool that is full may look as if it were not, and never the other way round.
    async fn is_full(&self, pool: &Pool, max: usize) -> Result<bool, ReadError> {
        let trails = self.0.fails(self.0.weather.reads, 0.2);
        let full = self.read(|log| now(log.is_full(pool, max)).unwrap()).await?;
        Ok(full && !trails)
    }

    async fn admits(&self, key: &WorkerKey, sequence: u64, max: usize) -> Result<bool, ReadError> {
        self.read(|log| now(log.admits(key, sequence, max)).unwrap()).await
    }

    async fn scan<F: FnMut(Scanned) + Send>(&self, pool: &Pool, mut take: F) -> Result<Scan, ReadError> {
        let world = &self.0;
        let (scan, seen) = self
            .read(|log| {
                let mut seen = Vec::new();
                (now(log.scan(pool, |event| seen.push(event))).unwrap(), seen)
            })
            .await?;
        if world.fails(world.weather.reads, 0.05) {
            sleep(world.seconds(1, 20)).await;
        }
        seen.into_iter().for_each(&mut take);
        Ok(scan)
    }

    async fn event_at(&self, sequence: u64) -> Result<Option<EventOf>, ReadError> {
        self.read(|log| now(log.event_at(sequence)).unwrap()).await
    }

    async fn purge(&self, key: &WorkerKey, upto: u64) -> Result<(), PurgeError> {
        let world = &self.0;
        if world.is_away("log") || world.fails(world.weather.log, 0.05) {
            sleep(PATIENCE).await;
            return Err(PurgeError("no answer".to_owned()));
        }
        world.travel().await;
        world.tell(|| format!("log: {key} is purged up to {upto}"));
        let at = world.now();
        let retention = world.settings(&key.pool).sweep.retention;
        world.judged(|judge| judge.purge(key, at, retention));
        now(world.log.purge(key, upto)).unwrap();
        Ok(())
    }

    async fn pool_head(&self, pool: &Pool) -> Result<Option<PoolEntry>, ReadError> {
        self.read(|log| now(log.pool_head(pool)).unwrap()).await
    }

    async fn pool_history(&self, pool: &Pool) -> Result<Vec<PoolEntry>, ReadError> {
        self.read(|log| now(log.pool_history(pool)).unwrap()).await
    }

    async fn append_pool(&self, record: &PoolRecord, after: u64, writer: &Writer) -> Result<u64, AppendError> {
        self.write(Record::Pool(record.clone()), after, writer).await
    }
}
