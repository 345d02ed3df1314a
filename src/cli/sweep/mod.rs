//! `enlist sweep`: has pools swept by their replicas; or looks at what a sweep would do; or sweeps from here.

mod dry_run;

use clap::Args;

use super::orders::{self, Order};
use super::page::Page;
use super::pools::{Tended, meant, tended};
use super::send::{new_id, taken};
use super::table::table;
use super::{Exit, ended};
use crate::config::Config;
use crate::domain::Pool;
use crate::service::sweep::{Act, SweepPoolConfig, SweepReport};
use crate::telemetry::SweepAct;
use crate::wire::command::SweepCommand;

/// What is told of an act that waits for a second look.
const SEEN_ONCE: &str = "seen once: the next sweep decides";

/// Arguments of `sweep`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  enlist sweep                              a replica sweeps each pool now
  enlist sweep demo --dry-run               what a sweep would do
  enlist sweep demo --max-terminations 100  from here, after a dry run")]
pub(super) struct SweepArgs {
    /// The pools [default: every pool of the settings]
    #[arg(value_name = "POOL")]
    pools: Vec<Pool>,
    /// Look from here, and print what a sweep would do; nothing is done
    #[arg(long)]
    dry_run: bool,
    /// Sweep from here, now, with this limit for each pool in place of the setting
    #[arg(long, value_name = "N")]
    max_terminations: Option<usize>,
}

impl SweepArgs {
    /// The replicas do it, so that no settings are needed but how NATS is reached.
    pub(super) fn only_asks(&self) -> bool {
        !self.dry_run && self.max_terminations.is_none()
    }
}

/// Puts a sweep into the queue of each pool.
pub(super) async fn ask(config: Config, args: &SweepArgs) -> Exit {
    ended(try_ask(&config, &args.pools).await)
}

async fn try_ask(config: &Config, pools: &[Pool]) -> anyhow::Result<bool> {
    let pools = meant(config, pools)?;
    let orders = orders::connect(config, "enlist sweep").await?;
    let page = Page::new();
    let mut good = true;
    for pool in pools {
        let order = Order::sweep(pool, &SweepCommand { command_id: new_id() });
        match orders.send(&order).await {
            Ok(stored) => page.say(format!("{}; its replica logs what it does", taken(&order, &stored))),
            Err(error) => {
                good = false;
                eprintln!("enlist: {error}");
            }
        }
    }
    Ok(good)
}

/// Looks, or sweeps, from here.
pub(super) async fn here(config: Config, args: &SweepArgs) -> Exit {
    ended(try_here(&config, args).await)
}

async fn try_here(config: &Config, args: &SweepArgs) -> anyhow::Result<bool> {
    let SweepArgs { pools, dry_run, max_terminations } = args;
    let orders = orders::connect(config, "enlist sweep").await?;
    let page = Page::new();
    let (tended, mut good) = tended(config, &orders, pools)?;
    for mut tended in tended {
        if let Some(limit) = max_terminations {
            // Who names a limit has looked at what would go.
            tended.sweep.max_terminations = *limit;
            tended.sweep.trust_ended = true;
        }
        good &= if *dry_run { dry_run::run(&page, &orders, &tended).await } else { sweep(&page, &tended).await };
    }
    Ok(good)
}

/// Two sweeps in a row, the second of which acts upon what both have seen. Whether all that was to go has gone.
async fn sweep(page: &Page, Tended { pool, service, sweep, queue, place }: &Tended) -> bool {
    let swept = async |config: &SweepPoolConfig| {
        let report = service.sweep_pool(config, None, Some(&queue.backlog)).await;
        report.map_err(|error| page.say(format!("{pool}: not looked at to the end, nothing is done: {error}"))).ok()
    };
    let Some(first) = swept(sweep).await else { return false };
    if let Some(why) = first.frozen {
        page.say(format!("{pool}: FROZEN, nothing is removed: {why}"));
        return false;
    }
    let (instances, marked) = (first.instances, first.suspects.len());
    page.say(format!(
        "{pool}: instances {instances} ({place}); a first sweep has marked {marked}, a second one looks again"
    ));
    let Some(report) = swept(sweep).await else { return false };
    let SweepReport { instances: _, live: _, mut done, undone, suspects, put_off, frozen, orders, size_rev, took: _ } =
        report;
    // What the size asks for is sent once, as the second sweep has it.
    for (act, count) in first.done.into_iter().filter(|(act, _)| !is_asked(*act)) {
        *done.entry(act).or_default() += count;
    }
    let rows = undone.iter().map(|(act, why)| row(act, format!("not done: {why}")));
    let rows: Vec<_> = rows.chain(suspects.iter().map(suspect)).collect();
    if !rows.is_empty() {
        page.say(table(["ACTION", "WORKER", "REASON"], rows));
    }
    let words: Vec<String> = done.iter().map(|(act, count)| format!("{} {count}", act.as_str())).collect();
    let words = if words.is_empty() { "nothing".to_owned() } else { words.join(", ") };
    page.say(format!("{pool}: done: {words}"));
    if put_off > 0 {
        page.say(format!("{pool}: {put_off} more removals are left to the next sweeps"));
    }
    if let Some(why) = &frozen {
        page.say(format!("{pool}: FROZEN, nothing is removed: {why}"));
    }
    let sent = queue.send(orders, size_rev).await;
    if let Err(why) = &sent {
        page.say(format!("{pool}: what its size asks for is left to the next sweep: {why}"));
    }
    frozen.is_none() && sent.is_ok() && !undone.iter().any(|(act, _)| removes(act))
}

/// Whether it goes the way of commands.
fn is_asked(act: SweepAct) -> bool {
    matches!(act, SweepAct::Provision | SweepAct::Terminate)
}

/// Whether the brake counts it.
fn removes(act: &Act) -> bool {
    match act {
        Act::RemoveOrphan { .. } | Act::Lose { .. } => true,
        Act::ReportOrphan { .. }
        | Act::FinishLost { .. }
        | Act::Register { .. }
        | Act::Unregister { .. }
        | Act::Finish { .. }
        | Act::Ask(_)
        | Act::Purge { .. } => false,
    }
}

fn row(act: &Act, reason: String) -> [String; 3] {
    [act.kind().as_str().to_owned(), act.subject().to_owned(), reason]
}

fn suspect(act: &Act) -> [String; 3] {
    row(act, format!("{}; {SEEN_ONCE}", act.reason()))
}
