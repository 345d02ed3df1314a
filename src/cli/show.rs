//! `enlist show`: a worker's record, and how it came to be what it is.

use std::io::{Write as _, stdout};

use clap::Args;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::Exit;
use super::orders::{self, no_fleet, view};
use super::output::{Format, OutputArgs, Sheet, at, print_json, printed, say, since, span};
use super::page::{self, what};
use crate::bus::view::{Record, Seen};
use crate::config::Config;
use crate::domain::{Pool, Worker, WorkerId, WorkerKey};
use crate::text::cut;

/// Arguments of `show`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  enlist show demo ada
  enlist show demo ada -o json | jq .worker.endpoint
  enlist show demo ada -o ndjson    one event a line, oldest first")]
pub(super) struct ShowArgs {
    /// The pool
    pool: Pool,
    /// The worker
    #[arg(value_name = "WORKER")]
    id: WorkerId,
    #[command(flatten)]
    output: OutputArgs,
}

/// A worker for programs.
#[derive(Serialize)]
struct Shown<'a> {
    worker: &'a Worker,
    events: Vec<Event<'a>>,
}

#[derive(Serialize)]
struct Event<'a> {
    /// Its place in the log.
    sequence: u64,
    /// When the server stored it.
    stored_at: Timestamp,
    /// The worker as of this event.
    worker: &'a Worker,
}

pub(super) async fn run(config: Config, args: &ShowArgs) -> Exit {
    printed(show(&config, args).await)
}

async fn show(config: &Config, args: &ShowArgs) -> anyhow::Result<bool> {
    let ShowArgs { pool, id, output: OutputArgs { output } } = args;
    let orders = orders::connect(config, "enlist show").await?;
    let key = WorkerKey::new(pool.clone(), id.clone());
    let history = view(&orders).history(&key).await.map_err(|error| no_fleet(&orders, &error))?;
    let events: Vec<Event<'_>> = history.iter().filter_map(event).collect();
    let Some(worker) = events.last().map(|event| event.worker) else {
        eprintln!(
            "enlist: worker {key} has no record: it never was, or has been purged (sweep.retention); \
             `enlist ls {pool}` lists whom there is, `enlist dead ls {pool}` the commands that were refused"
        );
        return Ok(false);
    };
    match output {
        Format::Json => print_json(&Shown { worker, events }, *output)?,
        Format::Ndjson => {
            for event in &events {
                print_json(event, *output)?;
            }
        }
        Format::Table => {
            let mut out = stdout().lock();
            for (name, value) in facts(worker, Timestamp::now()) {
                writeln!(out, "{name:<13} {}", cut(&value, 400))?;
            }
            writeln!(out)?;
            timeline(&events)?;
        }
    }
    Ok(true)
}

fn event(seen: &Seen) -> Option<Event<'_>> {
    match &seen.record {
        Record::Worker(worker) => Some(Event { sequence: seen.sequence, stored_at: seen.time, worker }),
        Record::Pool(_) => None,
        Record::Unreadable(subject, why) => {
            eprintln!("enlist: event {} on {subject} cannot be read: {why}", seen.sequence);
            None
        }
    }
}

fn facts(worker: &Worker, now: Timestamp) -> Vec<(&'static str, String)> {
    let offers = &worker.capabilities;
    let numbers = [
        offers.cpus.map(|cpus| format!("{cpus} cpus")),
        offers.memory_mb.map(|memory| format!("{memory} MiB")),
        offers.gpus.map(|gpus| format!("{gpus} gpus")),
    ];
    let numbers: Vec<String> = numbers.into_iter().flatten().collect();
    let labels: Vec<String> = offers.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let some = |text: Option<&str>| text.map(ToOwned::to_owned);
    let ended = worker.ended_by.as_ref().map(|ended| {
        let whom = ended.command_id.as_ref().map_or("enlist itself".to_owned(), |id| format!("command {id}"));
        ended.reason.as_ref().map_or(whom.clone(), |reason| format!("{whom}: {reason}"))
    });
    let all = [
        ("worker", Some(format!("{}, {}", worker.key(), worker.worker_type.as_str()))),
        ("state", Some(format!("{} for {}", worker.state.as_str(), span(since(worker.updated_at, now))))),
        ("created", Some(at(worker.created_at))),
        ("command", Some(worker.command_id.to_string())),
        ("correlation", worker.correlation_id.as_ref().map(ToString::to_string)),
        ("provider", Some(worker.provider.clone())),
        ("instance", some(worker.instance_id.as_deref())),
        ("endpoint", some(worker.endpoint.as_deref())),
        ("offers", (!numbers.is_empty()).then(|| numbers.join(", "))),
        ("labels", (!labels.is_empty()).then(|| labels.join(", "))),
        ("ended by", ended),
        ("error", worker.error.as_ref().map(|error| format!("{}: {}", error.class.as_str(), error.message))),
    ];
    all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// One line an event: when, how long after the one before, and what it says.
fn timeline(events: &[Event<'_>]) -> anyhow::Result<()> {
    let zone = TimeZone::system();
    let heads = ["TIME", "AFTER", "REV", "EPOCH", "STATE", "WHAT"];
    let mut sheet = Sheet::new(Format::Table, heads).painted(4, page::tone_of);
    let mut before: Option<&Worker> = None;
    for event in events {
        let worker = event.worker;
        let row = || {
            let after = before.map(|before| span(since(before.updated_at, worker.updated_at)));
            [
                worker.updated_at.to_zoned(zone.clone()).strftime("%m-%d %H:%M:%S%.3f").to_string(),
                after.unwrap_or_default(),
                worker.rev.to_string(),
                worker.epoch.to_string(),
                worker.state.as_str().to_owned(),
                what(worker, before, false),
            ]
        };
        sheet.row(row, event)?;
        before = Some(worker);
    }
    let (Some(first), Some(last)) = (events.first(), events.last()) else { return Ok(()) };
    sheet.end()?;
    if first.worker.rev > 1 {
        say("older events are gone: the log keeps the newest 64 of each state");
    } else if let Some(whole) =
        last.worker.state.is_final().then(|| since(first.worker.updated_at, last.worker.updated_at))
    {
        say(format_args!("{} from the first event to the last", span(whole)));
    }
    Ok(())
}
