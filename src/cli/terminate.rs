//! `enlist terminate`: one worker's end, or that of all who are meant.

use std::time::Duration;

use clap::{ArgGroup, Args};
use futures_util::TryStreamExt as _;

use super::ls::WhichArgs;
use super::many::{Many, send_all};
use super::orders::{self, Order, Orders, no_fleet};
use super::output::say;
use super::send::{SendArgs, asked, id_below, new_base, new_id, send, understood};
use super::{Exit, ended};
use crate::bus::view::Filter;
use crate::config::{Config, time};
use crate::domain::{CommandId, Pool, State, WorkerId};
use crate::wire::command::TerminateCommand;

/// Arguments of `terminate`.
// As a group, so that the error names all of them.
#[derive(Args)]
#[command(override_usage = "\
enlist terminate [OPTIONS] <POOL> <WORKER>
       enlist terminate [OPTIONS] <POOL> <--all|--state <STATE>|--label <NAME=VALUE>>")]
#[command(group = ArgGroup::new("meant").required(true).multiple(true).args(["id", "all", "state", "label"]))]
#[command(after_help = "\
Examples:
  enlist terminate demo ada --wait
  enlist terminate demo ada --reason 'too old' --grace 1m
  enlist terminate demo --label zone=a --yes --wait  all with a label
  enlist terminate demo --state registration_failed  never accepted
  enlist terminate demo --all                        all, after a question

Where the pool holds a size, the next sweep makes others in their place: see `enlist pool`.")]
pub(super) struct TerminateArgs {
    /// The pool
    pool: Pool,
    /// The worker
    #[arg(value_name = "WORKER", conflicts_with_all = ["all", "state", "label"])]
    id: Option<WorkerId>,
    /// Every live worker of the pool
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    which: WhichArgs,
    /// Ask no question
    #[arg(short, long)]
    yes: bool,
    /// Why, for the record and the scheduler
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// How long it may take to end [default: the pool's]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    grace: Option<Duration>,
    /// Skip the scheduler's drain
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    send: SendArgs,
}

fn duration(text: &str) -> Result<Duration, String> {
    time::parse(text).ok_or_else(|| format!("expected {}", time::EXPECTED))
}

pub(super) async fn run(config: Config, args: &TerminateArgs) -> Exit {
    ended(terminate(&config, args).await)
}

async fn terminate(config: &Config, args: &TerminateArgs) -> anyhow::Result<bool> {
    let TerminateArgs { pool, id, all: _, which, yes, reason, grace, force, send: SendArgs { command_id, wait } } =
        args;
    let command = |command_id: CommandId, worker_id: WorkerId| {
        let grace_ms = grace.map(|grace| u64::try_from(grace.as_millis()).unwrap_or(u64::MAX));
        let (reason, force) = (reason.clone(), *force);
        let expires_at = None;
        let command =
            TerminateCommand { command_id, worker_id, reason, grace_ms, force, expires_at, correlation_id: None };
        understood(TerminateCommand::decode(&command.encode()))
    };
    if let Some(id) = id {
        let command = command(command_id.clone().unwrap_or_else(new_id), id.clone())?;
        let orders = orders::connect(config, "enlist terminate").await?;
        return send(&orders, &Order::terminate(pool.clone(), &command), *wait).await;
    }
    let base = command_id.clone().unwrap_or_else(new_base);
    let orders = orders::connect(config, "enlist terminate").await?;
    let meant = meant(&orders, pool, which).await?;
    if meant.is_empty() {
        say(format_args!("pool {pool} has no such live worker: nothing to do"));
        return Ok(true);
    }
    // The longest name: what cannot be sent whole is not begun.
    if let Some(longest) = meant.iter().max_by_key(|id| id.as_str().len()) {
        command(id_below(&base, longest)?, longest.clone())?;
    }
    if !*yes && !agreed(pool, meant.len())? {
        say("nothing is done");
        return Ok(false);
    }
    let total = meant.len();
    // Ids by worker: sent again after an interruption, nobody is asked twice.
    let commands = meant.into_iter().filter_map(|id| {
        let command = command(id_below(&base, &id).ok()?, id).ok()?;
        Some(Order::terminate(pool.clone(), &command))
    });
    send_all(&orders, Many { pool, verb: "terminate", base: &base, total, wait: *wait }, commands).await
}

/// The live workers that are meant, as the view has them; those on their way out are left to it.
async fn meant(orders: &Orders, pool: &Pool, which: &WhichArgs) -> anyhow::Result<Vec<WorkerId>> {
    let filter = which.filter(Some(pool));
    // All of the pool: one that is wanted no more has to be heard of, too.
    let mut workers = orders::workers(orders, Filter { pool: Some(pool.clone()), ..Filter::default() });
    let mut meant = std::collections::BTreeSet::new();
    while let Some((worker, _)) = workers.try_next().await.map_err(|error| no_fleet(orders, &error))? {
        // One that changed meanwhile comes again, and the later record holds.
        let live = !worker.state.is_final() && worker.state != State::Terminating;
        if live && filter.takes(&worker) {
            meant.insert(worker.worker_id);
        } else {
            meant.remove(&worker.worker_id);
        }
    }
    Ok(meant.into_iter().collect())
}

/// Asks, where there is somebody to ask.
fn agreed(pool: &Pool, number: usize) -> anyhow::Result<bool> {
    let what = if number == 1 { "1 worker".to_owned() } else { format!("{number} workers") };
    asked(&format!("{what} of pool {pool} would be terminated"), &format!("terminate {what} of pool {pool}?"))
}
