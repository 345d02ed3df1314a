//! What all replicas of a run share: time, chance, faults, and the models of log, queue, provider and scheduler.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use enlist::domain::Pool;
use enlist::journal::MemoryJournal;
use enlist::registration::MemoryScheduler;
use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::dead::DeadLetters;
use super::dice::Dice;
use super::hand::{HAND, Hand};
use super::judge::Judge;
use super::pools::Settings;
use super::provider::Book;
use super::queue::Queue;
use super::replica::Replicas;

/// 2026-01-01: any time that is not 1970 will do.
const BEGINNING: i64 = 1_767_225_600;

/// How likely things are to go wrong in this run, each kind for itself: a run in which everything fails at once gets
/// nowhere, and one kind alone finds other mistakes than all together.
#[derive(Debug)]
pub(crate) struct Weather {
    pub(crate) log: f64,
    pub(crate) reads: f64,
    pub(crate) queue: f64,
    pub(crate) provider: f64,
    pub(crate) scheduler: f64,
    pub(crate) crashes: f64,
    pub(crate) pauses: f64,
}

impl Weather {
    fn of(dice: &mut Dice) -> Self {
        let mut kind = || *dice.of(&[0.0, 0.3, 1.0, 1.0, 3.0]);
        Self {
            log: kind(),
            reads: kind(),
            queue: kind(),
            provider: kind(),
            scheduler: kind(),
            crashes: kind(),
            pauses: kind(),
        }
    }
}

pub(crate) struct World {
    dice: Mutex<Dice>,
    began: Instant,
    /// From then on nothing fails any more.
    calm_from: Instant,
    pub(crate) weather: Weather,
    pub(crate) settings: Vec<Settings>,
    pub(crate) log: MemoryJournal,
    pub(crate) queues: BTreeMap<Pool, Queue>,
    pub(crate) dead: Mutex<DeadLetters>,
    pub(crate) book: Mutex<Book>,
    scheduler: Mutex<MemoryScheduler>,
    away: Mutex<BTreeMap<&'static str, Instant>>,
    pub(crate) replicas: Mutex<Replicas>,
    judge: Mutex<Judge>,
    /// Writes and calls that are still to land.
    landing: AtomicUsize,
    pub(crate) failed: Notify,
    diary: Mutex<Diary>,
}

/// What was, for comparison and for people.
#[derive(Debug, Default)]
struct Diary {
    lines: Option<Vec<String>>,
    fingerprint: u64,
}

impl World {
    pub(crate) fn new(seed: u64, stormy: Duration, record: bool) -> Arc<Self> {
        let mut dice = Dice::new(seed);
        let began = Instant::now();
        let weather = Weather::of(&mut dice);
        let settings = Settings::of(&mut dice);
        let queues = settings.iter().map(|one| (one.pool.clone(), Queue::default())).collect();
        let limits = settings.iter().filter_map(|one| Some((one.pool.clone(), one.config.max_workers?))).collect();
        Arc::new(Self {
            dice: Mutex::new(dice),
            began,
            calm_from: began + stormy,
            weather,
            settings,
            log: MemoryJournal::new(),
            queues,
            dead: Mutex::default(),
            book: Mutex::default(),
            scheduler: Mutex::new(new_scheduler()),
            away: Mutex::default(),
            replicas: Mutex::default(),
            judge: Mutex::new(Judge::new(limits)),
            landing: AtomicUsize::new(0),
            failed: Notify::new(),
            diary: Mutex::new(Diary { lines: record.then(Vec::new), fingerprint: 0 }),
        })
    }

    pub(crate) fn dice(&self) -> MutexGuard<'_, Dice> {
        self.dice.lock().unwrap()
    }

    pub(crate) fn between(&self, least: Duration, most: Duration) -> Duration {
        self.dice().between(least, most)
    }

    pub(crate) fn seconds(&self, least: u64, most: u64) -> Duration {
        self.between(Duration::from_secs(least), Duration::from_secs(most))
    }

    /// Whether something that fails with this probability fails now.
    pub(crate) fn fails(&self, kind: f64, probability: f64) -> bool {
        !self.is_calm() && kind > 0.0 && self.dice().hits(probability * kind)
    }

    pub(crate) fn is_calm(&self) -> bool {
        Instant::now() >= self.calm_from
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.time_of(Instant::now())
    }

    pub(crate) fn time_of(&self, at: Instant) -> Timestamp {
        let since = at.duration_since(self.began);
        Timestamp::from_second(BEGINNING).unwrap().checked_add(since).unwrap()
    }

    pub(crate) fn elapsed(&self) -> Duration {
        Instant::now().duration_since(self.began)
    }

    /// A way there and back, and on it whatever can happen to the one who waits.
    pub(crate) async fn travel(&self) {
        let delay = self.between(Duration::from_millis(1), Duration::from_millis(12));
        sleep(delay).await;
        self.stumble().await;
    }

    /// The replica whose task this is dies or stands still here, now and then.
    pub(crate) async fn stumble(&self) {
        let Ok(hand) = HAND.try_with(Arc::clone) else { return };
        if self.fails(self.weather.crashes, 0.000_6) {
            self.crash(&hand).await;
        }
        if self.fails(self.weather.pauses, 0.000_6) {
            let length = self.seconds(1, 240);
            let whole = self.dice().hits(0.5);
            self.tell(|| format!("{hand} stands still for {length:?}{}", if whole { ", its replica too" } else { "" }));
            if whole {
                self.replicas.lock().unwrap().pause(hand.replica, Instant::now() + length);
            } else {
                hand.pause(Instant::now() + length);
            }
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// Ends the replica of this task; whatever it was about to do is never done.
    pub(crate) async fn crash(&self, hand: &Hand) {
        self.tell(|| format!("{hand} dies, and its replica with it"));
        self.replicas.lock().unwrap().crash(hand.replica);
        std::future::pending::<()>().await;
    }

    /// Does something later, though nobody waits for it any more.
    pub(crate) fn later(self: &Arc<Self>, after: Duration, what: impl FnOnce(&Arc<Self>) + Send + 'static) {
        let world = Arc::clone(self);
        self.landing.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            sleep(after).await;
            what(&world);
            world.landing.fetch_sub(1, Ordering::Relaxed);
        });
    }

    pub(crate) fn is_landing(&self) -> bool {
        self.landing.load(Ordering::Relaxed) > 0
    }

    /// Takes a part of the world away for a while.
    pub(crate) fn take_away(&self, part: &'static str, length: Duration) {
        self.away.lock().unwrap().insert(part, Instant::now() + length);
    }

    pub(crate) fn is_away(&self, part: &'static str) -> bool {
        !self.is_calm() && self.away.lock().unwrap().get(part).is_some_and(|until| Instant::now() < *until)
    }

    pub(crate) fn scheduler(&self) -> MemoryScheduler {
        self.scheduler.lock().unwrap().clone()
    }

    /// The scheduler comes back without its list.
    pub(crate) fn forget(&self) {
        *self.scheduler.lock().unwrap() = new_scheduler();
    }

    /// Something has happened, and these rules are held against it.
    pub(crate) fn judged(&self, what: impl FnOnce(&mut Judge) -> Result<(), String>) {
        let mut judge = self.judge.lock().unwrap();
        if let Err(violation) = what(&mut judge) {
            let (hours, by) = (self.elapsed(), HAND.try_with(|hand| format!(", by {hand}")).unwrap_or_default());
            self.tell(|| format!("VIOLATION: {violation}"));
            judge.violations.push(format!("at {:.3} s{by}: {violation}", hours.as_secs_f64()));
            self.failed.notify_one();
        }
    }

    pub(crate) fn ask<T>(&self, what: impl FnOnce(&Judge) -> T) -> T {
        what(&self.judge.lock().unwrap())
    }

    pub(crate) fn settings(&self, pool: &Pool) -> &Settings {
        self.settings.iter().find(|one| one.pool == *pool).unwrap()
    }

    /// One line of the history. Words are made only where somebody reads them.
    pub(crate) fn tell(&self, line: impl FnOnce() -> String) {
        let mut diary = self.diary.lock().unwrap();
        let at = u64::try_from(self.elapsed().as_millis()).unwrap();
        diary.fingerprint = (diary.fingerprint ^ at).wrapping_mul(0x0000_0100_0000_01B3);
        if let Some(lines) = &mut diary.lines {
            lines.push(format!("{:>12.3} {}", self.elapsed().as_secs_f64(), line()));
        }
    }

    pub(crate) fn diary(&self) -> (Vec<String>, u64) {
        let diary = self.diary.lock().unwrap();
        (diary.lines.clone().unwrap_or_default(), diary.fingerprint)
    }
}

fn new_scheduler() -> MemoryScheduler {
    MemoryScheduler::new().with_drain(Duration::from_secs(2))
}
