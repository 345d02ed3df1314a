//! `enlist provision`: one worker, or many, asked of a pool.

mod set;

use clap::Args;

use super::many::{Many, send_all};
use super::orders::{self, Order};
use super::send::{SendArgs, id_below, new_base, new_id, send, understood};
use super::{Exit, Misused, ended};
use crate::config::Config;
use crate::domain::{CommandId, CorrelationId, Pool, WorkerId};
use crate::wire::command::ProvisionCommand;

/// Arguments of `provision`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  enlist provision demo                                   named by its command
  enlist provision demo --id ada --wait                   named, and waited for
  enlist provision demo --set env.MODE=fast --set cpus=2  if it is allowed
  enlist provision demo --set 'command=[\"sleep\",\"60\"]'
  enlist provision load --count 1000 --wait               a thousand

Keys of --set: image, command (a JSON array), env.NAME, labels.NAME, cpus, memory_mb, gpus, registration.enabled, \
registration.max_retries, registration.timeout_ms. What the pool's `allow` does not list is refused as not_allowed.")]
pub(super) struct ProvisionArgs {
    /// The pool
    pool: Pool,
    /// The worker's id; of several workers what their ids begin with [default: derived from the command's]
    #[arg(long, value_name = "WORKER")]
    id: Option<WorkerId>,
    /// An override of the pool's template
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// So many workers, each by a command of its own
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    count: Option<u32>,
    /// Copied into every event of the workers
    #[arg(long, value_name = "TEXT")]
    correlation_id: Option<CorrelationId>,
    #[command(flatten)]
    send: SendArgs,
}

pub(super) async fn run(config: Config, args: &ProvisionArgs) -> Exit {
    ended(provision(&config, args).await)
}

async fn provision(config: &Config, args: &ProvisionArgs) -> anyhow::Result<bool> {
    let ProvisionArgs { pool, id, set, count, correlation_id, send: SendArgs { command_id, wait } } = args;
    let mut command = ProvisionCommand {
        command_id: command_id.clone().unwrap_or_else(if count.is_some() { new_base } else { new_id }),
        worker_id: id.clone(),
        spec: <_>::default(),
        registration: <_>::default(),
        expires_at: None,
        correlation_id: correlation_id.clone(),
    };
    for text in set {
        // Read here and not by clap, which repeats what it does not take: it may hold a secret.
        set::read(text).map_err(|error| Misused(format!("--set: {error}")))?.apply(&mut command);
    }
    let command = understood(ProvisionCommand::decode(&command.encode()))?;
    // Where the settings tell of a static pool, its outcome is looked for among its hosts.
    let hosts = config.pools.get(pool).and_then(|settings| settings.provider.hosts());
    let ordered = |command: &ProvisionCommand| {
        let order = Order::provision(pool.clone(), command);
        if hosts.is_some() { order.in_pool_of(hosts.clone()) } else { order }
    };
    let Some(count) = *count else {
        let orders = orders::connect(config, "enlist provision").await?;
        return send(&orders, &ordered(&command), *wait).await;
    };
    // The longest names first: what cannot be sent whole is not begun.
    let base = command.command_id.clone();
    one_of(&command, &base, count)?;
    let commands = (1..=count).filter_map(|n| Some(ordered(&one_of(&command, &base, n).ok()?)));
    let orders = orders::connect(config, "enlist provision").await?;
    send_all(&orders, Many { pool, verb: "provision", base: &base, total: count as usize, wait: *wait }, commands).await
}

/// The n-th of several commands.
fn one_of(command: &ProvisionCommand, base: &CommandId, n: u32) -> Result<ProvisionCommand, Misused> {
    let worker_id = match &command.worker_id {
        None => None,
        Some(id) => Some(WorkerId::new(format!("{id}-{n}")).map_err(|error| Misused(format!("--id: {error}")))?),
    };
    Ok(ProvisionCommand { command_id: id_below(base, n)?, worker_id, ..command.clone() })
}
