//! `enlist watch`: what happens in the fleet, one line an event, over restarts of the broker too.

use std::pin::pin;

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use super::ls::state;
use super::orders::{self, Told, no_fleet, view};
use super::output::{Format, printed};
use super::page::Page;
use super::room::{aside, room, write};
use super::{Exit, told_to_stop};
use crate::bus::feed::{Feed, Heard};
use crate::bus::view::{Record, Seen};
use crate::config::Config;
use crate::domain::{Pool, PoolRecord, State, Worker};

/// Of so many workers at most the event before is remembered, for how long a step took.
const REMEMBERED: usize = 10_000;

/// Arguments of `watch`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  enlist watch                                    everything
  enlist watch demo --state failed,lost           what goes wrong in a pool
  enlist watch --after 0 -o ndjson                the whole log, then what comes

What is stored while the connection is down comes when it is up again, out of the log. Ctrl-C tells the place to go on from.")]
pub(super) struct WatchArgs {
    /// The pool [default: all]
    pool: Option<Pool>,
    /// Only workers that come to one of these states
    #[arg(long, value_name = "STATE", value_delimiter = ',', value_parser = state())]
    state: Vec<State>,
    /// Begin behind this place of the log; 0 is its beginning [default: what comes from now on]
    #[arg(long, value_name = "SEQUENCE")]
    after: Option<u64>,
    /// The form of what is printed
    #[arg(short, long, value_name = "FORM", default_value = "table", value_parser = endless)]
    output: Format,
}

/// An array would never be closed.
fn endless(text: &str) -> Result<Format, String> {
    match text {
        "table" => Ok(Format::Table),
        "ndjson" => Ok(Format::Ndjson),
        "json" => Err("a watch has no end, and so no one document: expected table or ndjson".to_owned()),
        _ => Err("expected table or ndjson".to_owned()),
    }
}

/// An event for programs.
#[derive(Serialize)]
struct Line<'a> {
    sequence: u64,
    stored_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    worker: Option<&'a Worker>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pool: Option<&'a PoolRecord>,
}

pub(super) async fn run(config: Config, args: &WatchArgs) -> Exit {
    printed(watch(&config, args).await)
}

async fn watch(config: &Config, args: &WatchArgs) -> anyhow::Result<bool> {
    let WatchArgs { pool, state, after, output } = args;
    // Before the first line: a signal from here on finds somebody who says where to go on.
    let mut stop = pin!(told_to_stop());
    let orders = orders::connect(config, "enlist watch").await?;
    let feed = Feed::begin(view(&orders), &orders.connection, &orders.requests, pool.clone(), *after);
    let mut feed = feed.await.map_err(|error| no_fleet(&orders, &error))?;
    let mut page = Page::new();
    // What has been said, which a reader that does not keep up leaves behind what has been heard.
    let mut said = feed.last();
    loop {
        let heard = tokio::select! {
            () = &mut stop => break,
            heard = feed.next() => heard,
        };
        match heard {
            Some(Heard::Event(seen)) if wanted(&seen, state) => {
                let saying = async {
                    match output {
                        Format::Table => {
                            room().await;
                            tell(&mut page, &seen);
                            Ok(())
                        }
                        Format::Json | Format::Ndjson => print(&seen).await,
                    }
                };
                tokio::select! {
                    () = &mut stop => break,
                    done = saying => done?,
                }
            }
            Some(Heard::Event(_)) => {}
            Some(Heard::Away) => aside("enlist: the connection is down; it is being made anew"),
            Some(Heard::Back) => aside("enlist: the connection is up again"),
            Some(Heard::Gap(error)) => aside(format_args!(
                "enlist: the log cannot be read, so what came while the connection was down is missing: {error}"
            )),
            None => anyhow::bail!("the connection was closed"),
        }
        said = feed.last();
        // As `head` does once it has what it wants.
        if page.is_unread() {
            break;
        }
    }
    if let Some(last) = said {
        let pool = pool.as_ref().map_or(String::new(), |pool| format!(" {pool}"));
        aside(format_args!("enlist: seen up to event {last}; `enlist watch{pool} --after {last}` goes on from there"));
    }
    Ok(true)
}

fn wanted(seen: &Seen, states: &[State]) -> bool {
    match &seen.record {
        Record::Worker(worker) => states.is_empty() || states.contains(&worker.state),
        Record::Pool(_) => states.is_empty(),
        Record::Unreadable(..) => true,
    }
}

fn tell(page: &mut Page, seen: &Seen) {
    match &seen.record {
        Record::Worker(worker) => {
            if page.workers.len() >= REMEMBERED {
                page.workers.clear();
            }
            page.told(&Told::Event(worker.clone()));
            if worker.state.is_final() {
                page.workers.remove(&worker.key());
            }
        }
        Record::Pool(record) => page.told(&Told::Pool(record.clone())),
        Record::Unreadable(subject, why) => {
            unreadable(seen, subject, why);
        }
    }
}

async fn print(seen: &Seen) -> std::io::Result<()> {
    let (worker, pool) = match &seen.record {
        Record::Worker(worker) => (Some(&**worker), None),
        Record::Pool(record) => (None, Some(&**record)),
        Record::Unreadable(subject, why) => {
            unreadable(seen, subject, why);
            return Ok(());
        }
    };
    let line = Line { sequence: seen.sequence, stored_at: seen.time, worker, pool };
    let mut line = serde_json::to_vec(&line)?;
    line.push(b'\n');
    write(&line).await
}

fn unreadable(seen: &Seen, subject: &str, why: &str) {
    aside(format_args!("enlist: event {} on {subject} cannot be read: {why}", seen.sequence));
}
