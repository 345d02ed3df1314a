//! `enlist top`: the fleet at a glance, kept up to date; how it is gathered here, how it is shown in `screen.rs` and `table.rs`.

mod screen;
mod table;

use std::collections::{BTreeMap, VecDeque};
use std::io::IsTerminal as _;
use std::time::Duration;

use clap::Args;
use futures_util::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::orders::{self, Orders, no_fleet, view};
use super::output::{Format, OutputArgs, Sheet, printed, since, span};
use super::{Exit, Misused, told_to_stop};
use crate::bus::feed::{Feed, Heard};
use crate::bus::queues::queues;
use crate::bus::view::{Record, Seen};
use crate::config::Config;
use crate::domain::{Pool, State};
use screen::{Key, Screen};

/// The fleet is counted so often, and for no more than a fifth of the time.
const COUNT_EVERY: Duration = Duration::from_secs(2);
const SHARE: u32 = 5;
const DRAWN_EVERY: Duration = Duration::from_millis(250);
/// What rates are told of.
const MINUTE: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(2);

/// Arguments of `top`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  enlist top
  enlist top --once              once, as a table
  enlist top --once -o json

Keys: q, Esc or Ctrl-C ends it.")]
pub(super) struct TopArgs {
    /// Print it once, and end
    #[arg(long)]
    once: bool,
    /// The form of what --once prints
    #[command(flatten)]
    output: OutputArgs,
}

/// A pool at a glance.
#[derive(Debug, Clone, Default, Serialize)]
struct Glance {
    /// The size that it is to hold, where it holds one.
    size: Option<u32>,
    live: u64,
    states: BTreeMap<&'static str, u64>,
    /// Commands in its queue, those in hand too; `None` where that cannot be read.
    queued: Option<u64>,
    /// How long the oldest of them has been there.
    oldest_ms: Option<u64>,
}

/// What has been counted, and what has been heard since the start.
#[derive(Default)]
struct Fleet {
    pools: BTreeMap<Pool, Glance>,
    /// When each event of the last minute came, and its state.
    heard: VecDeque<(Instant, State)>,
    newest: VecDeque<Seen>,
    away: bool,
}

impl Fleet {
    fn hear(&mut self, seen: Seen) {
        if let Record::Worker(worker) = &seen.record {
            self.heard.push_back((Instant::now(), worker.state));
        }
        while self.heard.front().is_some_and(|(at, _)| at.elapsed() > MINUTE) {
            self.heard.pop_front();
        }
        self.newest.push_back(seen);
        if self.newest.len() > 200 {
            self.newest.pop_front();
        }
    }

    /// Events of a state within the last minute.
    fn rate(&self, state: State) -> usize {
        self.heard.iter().filter(|(at, heard)| *heard == state && at.elapsed() <= MINUTE).count()
    }
}

pub(super) async fn run(config: Config, args: &TopArgs) -> Exit {
    printed(top(&config, args).await)
}

async fn top(config: &Config, args: &TopArgs) -> anyhow::Result<bool> {
    let TopArgs { once, output: OutputArgs { output } } = args;
    let terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    if !(*once || terminal) {
        let misused = "a live view needs a terminal: --once prints it once, `enlist watch` follows events";
        return Err(Misused(misused.to_owned()).into());
    }
    let orders = orders::connect(config, "enlist top").await?;
    let pools = count(&orders).await?;
    if *once {
        return print(&pools, *output);
    }
    let feed = Feed::begin(view(&orders), &orders.connection, &orders.requests, None, None).await;
    let feed = feed.map_err(|error| no_fleet(&orders, &error))?;
    live(&orders, feed, Fleet { pools, ..Fleet::default() }).await
}

/// Until somebody ends it. The terminal is given back however that happens.
async fn live(orders: &Orders, mut feed: Feed, mut fleet: Fleet) -> anyhow::Result<bool> {
    let mut stop = std::pin::pin!(told_to_stop());
    let mut screen = Screen::open()?;
    let mut keys = crossterm::event::EventStream::new();
    let (tell, mut counted) = mpsc::channel(1);
    // Beside the screen: a large fleet takes longer to count than to draw. Ends with the runtime, or with its reader.
    tokio::spawn(keep_counting(orders.clone(), tell));
    let mut ticks = interval(DRAWN_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let drawn = tokio::select! {
            () = &mut stop => return Ok(true),
            key = keys.next() => match key.map(|key| key.map(|key| screen::key(&key))) {
                Some(Ok(Key::End)) | None => return Ok(true),
                Some(Ok(Key::Draw)) => true,
                Some(Ok(Key::None)) => false,
                Some(Err(error)) => return Err(error.into()),
            },
            heard = feed.next() => {
                match heard {
                    Some(Heard::Event(seen)) => fleet.hear(seen),
                    Some(Heard::Away) => fleet.away = true,
                    Some(Heard::Back | Heard::Gap(_)) => fleet.away = false,
                    None => anyhow::bail!("the connection was closed"),
                }
                // At the next tick, and not at each of a thousand events.
                false
            }
            Some(pools) = counted.recv() => {
                fleet.pools = pools;
                false
            }
            _ = ticks.tick() => true,
        };
        if drawn {
            screen.draw(orders, &fleet)?;
        }
    }
}

/// What cannot be counted just now stays as it was; the screen tells of the connection.
async fn keep_counting(orders: Orders, tell: mpsc::Sender<BTreeMap<Pool, Glance>>) {
    loop {
        let begun = Instant::now();
        if let Ok(pools) = count(&orders).await
            && tell.send(pools).await.is_err()
        {
            return;
        }
        sleep(COUNT_EVERY.max(begun.elapsed() * SHARE)).await;
    }
}

/// One pass over the view, and a question about each queue.
async fn count(orders: &Orders) -> anyhow::Result<BTreeMap<Pool, Glance>> {
    let mut pools: BTreeMap<Pool, Glance> = BTreeMap::new();
    let Orders { connection, requests, subjects, api_prefix, .. } = orders;
    let queues = queues(connection, requests, subjects, api_prefix).await;
    for pool in queues.map_err(|error| anyhow::anyhow!("{error}; `enlist doctor` tells all that is missing"))? {
        pools.entry(pool).or_default();
    }
    let mut records = orders::whole(orders, None);
    while let Some(seen) = records.try_next().await.map_err(|error| no_fleet(orders, &error))? {
        match seen.record {
            Record::Worker(worker) => {
                let glance = pools.entry(worker.pool).or_default();
                glance.live += u64::from(!worker.state.is_final());
                *glance.states.entry(worker.state.as_str()).or_default() += 1;
            }
            Record::Pool(record) => pools.entry(record.pool).or_default().size = Some(record.size),
            Record::Unreadable(..) => {}
        }
    }
    for (pool, glance) in &mut pools {
        let stream = orders.subjects.command_stream(pool);
        let Some(info) = info(orders, &stream).await else { continue };
        glance.queued = info["state"]["messages"].as_u64();
        if glance.queued.is_some_and(|queued| queued > 0) {
            let first: Option<Timestamp> = info["state"]["first_ts"].as_str().and_then(|at| at.parse().ok());
            let age = first.map(|first| since(first, Timestamp::now()).as_millis());
            glance.oldest_ms = age.and_then(|age| u64::try_from(age).ok());
        }
    }
    Ok(pools)
}

/// What the server tells of a stream; `None` where there is no right to ask, or no answer.
async fn info(orders: &Orders, stream: &str) -> Option<Value> {
    let subject = format!("{}.STREAM.INFO.{stream}", orders.api_prefix);
    let sent = orders.requests.send(subject.clone(), None, "{}".into(), PATIENCE);
    let reply = orders.connection.unless_refused(std::time::Instant::now(), &[&subject], sent).await.ok()?.ok()?;
    serde_json::from_slice(&reply.payload).ok()
}

/// The columns of a pool, here and on the screen.
const HEADS: [&str; 13] = [
    "POOL",
    "SIZE",
    "LIVE",
    "PROVISIONING",
    "PROVISIONED",
    "REGISTERED",
    "REG.FAILED",
    "TERMINATING",
    "TERMINATED",
    "FAILED",
    "LOST",
    "QUEUED",
    "OLDEST",
];

fn row(name: &str, glance: &Glance) -> [String; 13] {
    let Glance { size, live, states, queued, oldest_ms } = glance;
    let number = |number: Option<u64>| number.map_or("-".to_owned(), |number| number.to_string());
    let mut row = [const { String::new() }; 13];
    name.clone_into(&mut row[0]);
    row[1] = number(size.map(u64::from));
    row[2] = live.to_string();
    for (cell, state) in row[3..11].iter_mut().zip(State::ALL) {
        *cell = states.get(state.as_str()).copied().unwrap_or_default().to_string();
    }
    row[11] = number(*queued);
    row[12] = oldest_ms.map_or("-".to_owned(), |millis| span(Duration::from_millis(millis)));
    row
}

fn print(pools: &BTreeMap<Pool, Glance>, output: Format) -> anyhow::Result<bool> {
    #[derive(Serialize)]
    struct Line<'a> {
        pool: &'a Pool,
        #[serde(flatten)]
        glance: &'a Glance,
    }
    let mut sheet = Sheet::new(output, HEADS);
    for (pool, glance) in pools {
        sheet.row(|| row(pool.as_str(), glance), &Line { pool, glance })?;
    }
    sheet.end()?;
    Ok(true)
}
