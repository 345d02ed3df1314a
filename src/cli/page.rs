//! What a person reads at the terminal: one line a step of a worker.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{IsTerminal as _, Stdout, Write as _, stdout};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::orders::Told;
use crate::config;
use crate::domain::{Pool, PoolRecord, PoolState, RegistrationStatus, State, Worker, WorkerKey};
use crate::text::cut;
use crate::wire::dead_letter::DeadLetter;

/// Standard output, and what has been seen of each worker: a step's line says how long the step took.
pub(super) struct Page {
    out: Stdout,
    unread: AtomicBool,
    /// Of the longest name so far: what comes below it stands in line with it.
    width: AtomicUsize,
    colour: bool,
    zone: TimeZone,
    pub(super) workers: BTreeMap<WorkerKey, Worker>,
    /// The newest own event of each pool that has been told.
    pools: BTreeMap<Pool, u64>,
}

/// How a line's state is set off where colours may be used.
#[derive(Clone, Copy)]
pub(super) enum Tone {
    Plain,
    Good,
    Passing,
    Bad,
}

impl Tone {
    /// What a terminal is told before the text.
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Good => "\x1b[32m",
            Self::Passing => "\x1b[36m",
            Self::Bad => "\x1b[31m",
        }
    }
}

/// How a state is set off, by its name.
pub(super) fn tone_of(state: &str) -> Tone {
    State::from_token(state).map_or(Tone::Plain, tone)
}

fn tone(state: State) -> Tone {
    match state {
        State::Provisioning | State::Provisioned | State::Terminating => Tone::Passing,
        State::Registered => Tone::Good,
        State::RegistrationFailed | State::Failed | State::Lost => Tone::Bad,
        State::Terminated => Tone::Plain,
    }
}

impl Page {
    pub(super) fn new() -> Self {
        let colour = stdout().is_terminal() && config::colour_wanted();
        Self {
            out: stdout(),
            unread: AtomicBool::new(false),
            width: AtomicUsize::new(16),
            colour,
            zone: TimeZone::system(),
            workers: BTreeMap::new(),
            pools: BTreeMap::new(),
        }
    }

    /// A line as it is. A reader that has gone away is no failure.
    pub(super) fn say(&self, text: impl AsRef<str>) {
        if writeln!(&self.out, "{}", text.as_ref()).is_err() {
            self.unread.store(true, Ordering::Relaxed);
        }
    }

    /// Whether a line could not be written: who has no other task than to write them may end.
    pub(super) fn is_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed)
    }

    /// A line that heads what follows.
    pub(super) fn head(&self, text: impl AsRef<str>) {
        let text = text.as_ref();
        self.say(if self.colour { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() });
    }

    pub(super) fn told(&mut self, told: &Told) {
        match told {
            Told::Event(worker) => self.event(worker),
            Told::Pool(record) => self.pool(record),
            Told::Dead { command_id, pool, letter } => {
                let name = command_id.as_ref().map_or("a command without an id", |id| id.as_str());
                let DeadLetter { refusal, .. } = &**letter;
                let what = format!("command {name}: {}: {}", refusal.reason.as_str(), refusal.detail);
                self.line(Timestamp::now(), pool, Tone::Bad, "dead letter", &what);
            }
        }
    }

    fn event(&mut self, worker: &Worker) {
        let before = self.workers.insert(worker.key(), worker.clone());
        // The record of a poll that the feed has told already.
        if before.as_ref().is_some_and(|before| before.rev >= worker.rev) {
            return;
        }
        let key = worker.key().to_string();
        let what = what(worker, before.as_ref(), true);
        self.line(worker.updated_at, &key, tone(worker.state), worker.state.as_str(), &what);
    }

    fn pool(&mut self, record: &PoolRecord) {
        let PoolRecord { pool, state, rev, size, actual, command_id, correlation_id: _, updated_at } = record;
        if self.pools.insert(pool.clone(), *rev).is_some_and(|before| before >= *rev) {
            return;
        }
        let (tone, what) = match state {
            PoolState::Sizing => (Tone::Passing, format!("size {size}, {actual} live, for command {command_id}")),
            PoolState::Sized if *size == 0 => (Tone::Good, format!("size 0, none left, for command {command_id}")),
            PoolState::Sized => (Tone::Good, format!("size {size}, all there, for command {command_id}")),
        };
        self.line(*updated_at, pool.as_str(), tone, state.as_str(), &what);
    }

    fn line(&self, at: Timestamp, whom: &str, tone: Tone, state: &str, what: &str) {
        let time = at.to_zoned(self.zone.clone()).strftime("%H:%M:%S%.3f");
        let (dim, on, off) = if self.colour { ("\x1b[2m", tone.code(), "\x1b[0m") } else { ("", "", "") };
        // What others wrote must not reach the terminal as it is.
        let (whom, what) = (cut(whom, 80), cut(what, 400));
        let length = whom.chars().count();
        let width = self.width.fetch_max(length, Ordering::Relaxed).max(length);
        self.say(format!("  {dim}{time}{off}  {whom:<width$}  {on}{state:<19}{off}  {what}"));
    }

    /// Every worker that has been seen, one a line.
    pub(super) fn table(&self) {
        let rows: Vec<[String; 5]> = self.workers.values().map(row).collect();
        let heads = ["POOL", "WORKER", "STATE", "INSTANCE", "LABELS"].map(str::to_owned);
        let width =
            |n: usize| rows.iter().chain([&heads]).map(|row: &[String; 5]| row[n].chars().count()).max().unwrap_or(0);
        let widths = [0, 1, 2, 3].map(width);
        for (n, row) in std::iter::once(&heads).chain(&rows).enumerate() {
            let mut line = String::from(" ");
            for (cell, width) in row.iter().zip(widths.into_iter().chain([0])) {
                let _ = write!(line, " {cell:width$} ");
            }
            if n == 0 { self.head(line.trim_end()) } else { self.say(line.trim_end()) }
        }
    }
}

fn row(worker: &Worker) -> [String; 5] {
    let labels: Vec<String> = worker
        .capabilities
        .labels
        .iter()
        .map(|(name, value)| format!("{}={}", cut(name, 20), cut(value, 20)))
        .collect();
    let instance = worker.instance_id.as_deref().map_or("-".to_owned(), short);
    [
        worker.pool.to_string(),
        worker.worker_id.to_string(),
        worker.state.as_str().to_owned(),
        instance,
        labels.join(","),
    ]
}

/// An instance id is unique long before its end.
pub(super) fn short(id: &str) -> String {
    cut(id, 14)
}

/// What the event adds to its state, for people; how long after the one before it came only where that is wanted.
pub(super) fn what(worker: &Worker, before: Option<&Worker>, timed: bool) -> String {
    let since = before.filter(|_| timed).map(|before| worker.updated_at.duration_since(before.updated_at).as_millis());
    let after = since.map_or(String::new(), |millis| format!(" after {millis} ms"));
    // The same state again: a try that ended without progress, or another owner.
    if let (Some(before), Some(error)) = (before, &worker.error)
        && before.state == worker.state
    {
        return format!("try {}: {}: {}", worker.attempts, error.class.as_str(), error.message);
    }
    if before.is_some_and(|before| before.state == worker.state && before.epoch < worker.epoch) {
        return format!("taken over, epoch {}", worker.epoch);
    }
    let registration = &worker.registration;
    match worker.state {
        State::Provisioning => format!("for command {}", worker.command_id),
        State::Provisioned => {
            let instance = worker.instance_id.as_deref().map_or("-".to_owned(), short);
            let alone =
                if registration.status == RegistrationStatus::Disabled { ", no registration wanted" } else { "" };
            format!("{} {instance}{after}{alone}", worker.provider)
        }
        State::Registered => match registration.attempts {
            0 | 1 => format!("with the scheduler{after}"),
            tries => format!("with the scheduler{after}, at try {tries}"),
        },
        State::RegistrationFailed => {
            let error = registration.error.as_ref();
            let why = error.map_or(String::new(), |error| format!(": {}: {}", error.code, error.message));
            format!("tries: {}{why}; the worker stays", registration.attempts)
        }
        State::Terminating => {
            let ended = worker.ended_by.as_ref();
            let whom = ended.and_then(|ended| ended.command_id.as_ref());
            let whom = whom.map_or("by enlist itself".to_owned(), |id| format!("for command {id}"));
            let why = ended.and_then(|ended| ended.reason.as_deref());
            why.map_or(whom.clone(), |why| format!("{whom}: {why}"))
        }
        State::Terminated => match worker.ended_by.as_ref().and_then(|ended| ended.reason.as_deref()) {
            Some("unknown") => "it never was".to_owned(),
            _ => format!("gone{after}"),
        },
        State::Failed => {
            worker.error.as_ref().map_or(String::new(), |error| format!("{}: {}", error.class.as_str(), error.message))
        }
        State::Lost => "gone though nobody asked".to_owned(),
    }
}
