//! Many commands at once: sent side by side, their outcomes counted, and told what was sent and what was not.

use std::collections::{BTreeMap, HashMap};
use std::io::{IsTerminal as _, stderr};
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::away::tell_away;
use super::orders::{News, NotTaken, Order, Orders, Told};
use super::output::{say, span};
use super::send::{SILENCE, is_good};
use super::told_to_stop;
use crate::config::colour_wanted;
use crate::domain::{CommandId, Pool, Verb, WorkerId};
use crate::text::cut;
use crate::wire::publish::PubAck;

/// Commands on their way to the broker at once.
const SIDE_BY_SIDE: usize = 256;
/// After so long without any news the records are looked at, so many at once.
const LOOK_EVERY: Duration = Duration::from_secs(3);
const LOOKS: usize = 500;
/// What went wrong is told of so many commands one by one.
const TOLD: usize = 10;

/// What is sent.
pub(super) struct Many<'a> {
    pub(super) pool: &'a Pool,
    pub(super) verb: &'static str,
    /// What the ids of the commands begin with.
    pub(super) base: &'a CommandId,
    pub(super) total: usize,
    pub(super) wait: bool,
}

/// Commands without an outcome, and how those ended that have one.
#[derive(Default)]
struct Tally {
    /// By command; in here before it is sent, as its outcome may be heard before the broker's answer is.
    pending: HashMap<CommandId, Order>,
    /// A terminate's outcome names the worker alone.
    by_worker: HashMap<WorkerId, CommandId>,
    sent: usize,
    /// Of them those that were in the queue before.
    known: usize,
    ended: usize,
    ends: BTreeMap<String, usize>,
    bad: usize,
}

/// Sends commands and, where that is wanted, waits for every outcome. Whether all of it came to be.
pub(super) async fn send_all(
    orders: &Orders,
    many: Many<'_>,
    commands: impl Iterator<Item = Order>,
) -> anyhow::Result<bool> {
    let wait = many.wait;
    let mut stop = pin!(told_to_stop());
    let begun = Instant::now();
    // Before the commands, so that nothing is missed.
    let mut news = if wait { Some(orders.news_of_pool(many.pool).await?) } else { None };
    let mut commands = commands.fuse();
    let (mut tally, mut under_way, mut failed) = (Tally::default(), FuturesUnordered::new(), None);
    let bar = bar(&many);
    let mut away = pin!(tell_away(&orders.connection, |line| bar.suspend(|| eprintln!("{line}"))));
    let (mut interrupted, mut silent, mut heard) = (false, true, Instant::now());
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        while !interrupted && failed.is_none() && under_way.len() < SIDE_BY_SIDE {
            let Some(order) = commands.next() else { break };
            if wait {
                tally.begin(&order);
            }
            under_way.push(async move { (orders.send(&order).await, order.command_id) });
        }
        if under_way.is_empty() && (!wait || interrupted || tally.pending.is_empty()) {
            break;
        }
        tokio::select! {
            Some((sent, command_id)) = under_way.next() => match sent {
                Ok(stored) => tally.stored(stored),
                Err(error) => {
                    tally.forget(&command_id);
                    failed = failed.or(Some(error));
                }
            },
            told = next(&mut news) => {
                let told = told.ok_or_else(|| anyhow::anyhow!("the connection was closed before every outcome was known"))?;
                (heard, silent) = (Instant::now(), false);
                tally.told(&told, &bar);
            }
            _ = looks.tick(), if wait => {
                if heard.elapsed() < LOOK_EVERY {
                    continue;
                }
                tokio::select! {
                    () = look(orders, &mut tally, &bar) => {}
                    // A broker that is away answers no look for a while.
                    () = &mut stop, if !interrupted => {
                        interrupted = true;
                        continue;
                    }
                }
                if silent && begun.elapsed() > SILENCE && tally.sent > 0 && !tally.pending.is_empty() {
                    silent = false;
                    bar.suspend(|| eprintln!("enlist: no replica has begun yet (enlist run); still waiting"));
                }
            }
            () = &mut stop, if !interrupted => interrupted = true,
            never = &mut away => match never {},
        }
        bar.set_position((if wait { tally.ended } else { tally.sent }) as u64);
        bar.set_message(format!("{} sent", tally.sent));
    }
    bar.finish_and_clear();
    Ok(tell(&tally, &many, begun.elapsed(), interrupted, failed))
}

/// What is heard; for ever silent where nobody listens.
async fn next(news: &mut Option<News>) -> Option<Told> {
    match news {
        Some(news) => news.next().await,
        None => std::future::pending().await,
    }
}

/// Outcomes that were there before their commands bring no news.
async fn look(orders: &Orders, tally: &mut Tally, bar: &ProgressBar) {
    let some: Vec<Order> = tally.pending.values().take(LOOKS).cloned().collect();
    let mut found =
        futures_util::stream::iter(&some).map(|order| orders.looked_up(order)).buffer_unordered(SIDE_BY_SIDE);
    while let Some(found) = found.next().await {
        if let Some(told) = found {
            tally.told(&told, bar);
        }
    }
}

impl Tally {
    fn begin(&mut self, order: &Order) {
        if let (Verb::Terminate, Some(worker)) = (order.verb, &order.worker_id) {
            self.by_worker.insert(worker.clone(), order.command_id.clone());
        }
        self.pending.insert(order.command_id.clone(), order.clone());
    }

    fn stored(&mut self, stored: PubAck) {
        self.sent += 1;
        self.known += usize::from(stored.duplicate);
    }

    fn forget(&mut self, command_id: &CommandId) {
        self.pending.remove(command_id);
    }

    fn told(&mut self, told: &Told, bar: &ProgressBar) {
        let command_id = match told {
            Told::Event(worker) if self.pending.contains_key(&worker.command_id) => Some(worker.command_id.clone()),
            Told::Event(worker) => self.by_worker.get(&worker.worker_id).cloned(),
            Told::Dead { command_id, .. } => command_id.clone(),
            Told::Pool(_) => None,
        };
        let Some(command_id) = command_id else { return };
        let Some(order) = self.pending.get(&command_id) else { return };
        if !told.ends(order) {
            return;
        }
        let (name, why) = match told {
            Told::Event(worker) => {
                let why = worker.error.as_ref().map(|error| format!("{}: {}", error.class.as_str(), error.message));
                (worker.state.as_str().to_owned(), why)
            }
            Told::Dead { letter, .. } => {
                let refusal = &letter.refusal;
                (format!("refused as {}", refusal.reason.as_str()), Some(refusal.detail.clone()))
            }
            Told::Pool(_) => return,
        };
        if !is_good(order.verb, told) {
            self.bad += 1;
            if self.bad <= TOLD {
                let why = why.map_or(String::new(), |why| format!(": {}", cut(&why, 400)));
                bar.suspend(|| eprintln!("enlist: command {command_id}: {name}{why}"));
            }
        }
        *self.ends.entry(name).or_default() += 1;
        self.ended += 1;
        self.pending.remove(&command_id);
    }
}

/// What a person is told at the end, and whether all of it came to be.
fn tell(tally: &Tally, many: &Many<'_>, took: Duration, interrupted: bool, failed: Option<NotTaken>) -> bool {
    let Many { pool, verb, base, total, wait } = many;
    let Tally { pending, by_worker: _, sent, known, ended: _, ends, bad } = tally;
    if *bad > TOLD {
        eprintln!("enlist: {} more were not carried out", bad - TOLD);
    }
    let whole = sent == total;
    let before = if *known > 0 { format!(", {known} of them from before") } else { String::new() };
    say(format_args!(
        "{verb} {pool}: {sent} of {total} commands are in the queue{before}; their ids begin with {base}-"
    ));
    if *wait {
        let mut words: Vec<String> = ends.iter().map(|(name, count)| format!("{name} {count}")).collect();
        if !pending.is_empty() {
            words.push(format!("without an outcome yet {}", pending.len()));
        }
        // Nothing was sent, and why not is told below.
        if !words.is_empty() {
            say(format_args!("{verb} {pool}: {} within {}", words.join(", "), span(took)));
        }
    }
    if let Some(error) = failed {
        eprintln!("enlist: {error}");
    }
    if !whole {
        eprintln!(
            "enlist: {} commands were not sent; the same with --command-id {base} sends them, and none twice",
            total - sent
        );
    }
    if interrupted && *wait && !pending.is_empty() {
        eprintln!("enlist: interrupted; what is in the queue is carried out all the same");
    }
    whole && *bad == 0 && pending.is_empty()
}

/// On standard error, where a terminal reads it.
fn bar(many: &Many<'_>) -> ProgressBar {
    let target = if stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(many.total as u64), target);
    let colour = if colour_wanted() { ".cyan" } else { "" };
    let template = format!("{{bar:30{colour}}} {{pos}} of {{len}}, {{msg}}, {{per_sec}}, {{eta}} left");
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style);
    }
    bar
}
