//! `enlist provision` and `enlist terminate`: one command each, put on its pool's queue.

use std::cell::Cell;
use std::pin::pin;
use std::time::Duration;

use clap::Args;
use tokio::time::timeout;

use super::orders::{self, Order, Told};
use super::page::Page;
use super::{Exit, ended};
use crate::config::Config;
use crate::domain::{CommandId, Pool, State, WorkerId};
use crate::wire::command::{ProvisionCommand, TerminateCommand};
use crate::wire::publish::PubAck;

/// After this long a person is told why nothing happens.
pub(super) const SILENCE: Duration = Duration::from_secs(5);

/// What every verb that sends a command takes.
#[derive(Args)]
pub(super) struct SendArgs {
    /// The command's id; the same id again does nothing twice [default: a new one]
    #[arg(long, value_name = "ID")]
    pub(super) command_id: Option<CommandId>,
    /// Wait for the outcome, and end with 1 where the command was not carried out
    #[arg(long)]
    pub(super) wait: bool,
}

/// Arguments of `provision`.
#[derive(Args)]
pub(super) struct ProvisionArgs {
    /// The pool
    pool: Pool,
    /// The worker's id [default: derived from the command's]
    #[arg(long, value_name = "WORKER")]
    id: Option<WorkerId>,
    #[command(flatten)]
    send: SendArgs,
}

/// Arguments of `terminate`.
#[derive(Args)]
pub(super) struct TerminateArgs {
    /// The pool
    pool: Pool,
    /// The worker
    #[arg(value_name = "WORKER")]
    id: WorkerId,
    #[command(flatten)]
    send: SendArgs,
}

pub(super) async fn provision(config: Config, args: &ProvisionArgs) -> Exit {
    let ProvisionArgs { pool, id, send: SendArgs { command_id, wait } } = args;
    let command = ProvisionCommand {
        command_id: command_id.clone().unwrap_or_else(new_id),
        worker_id: id.clone(),
        spec: <_>::default(),
        registration: <_>::default(),
        expires_at: None,
        correlation_id: None,
    };
    send(&config, &Order::provision(pool.clone(), &command), *wait).await
}

pub(super) async fn terminate(config: Config, args: &TerminateArgs) -> Exit {
    let TerminateArgs { pool, id, send: SendArgs { command_id, wait } } = args;
    let command = TerminateCommand {
        command_id: command_id.clone().unwrap_or_else(new_id),
        worker_id: id.clone(),
        reason: None,
        grace_ms: None,
        force: false,
        expires_at: None,
        correlation_id: None,
    };
    send(&config, &Order::terminate(pool.clone(), &command), *wait).await
}

/// 122 bits of chance: no two publishers meet.
pub(super) fn new_id() -> CommandId {
    CommandId::new(uuid::Uuid::new_v4().simple().to_string()).expect("hexadecimal digits are a command id")
}

async fn send(config: &Config, order: &Order, wait: bool) -> Exit {
    ended(try_send(config, order, wait).await)
}

/// The line that says that the broker has the command.
pub(super) fn taken(order: &Order, stored: &PubAck) -> String {
    let place = if stored.duplicate {
        "was in the queue before".to_owned()
    } else {
        format!("is in the queue, number {}", stored.sequence)
    };
    format!("{} {}: command {} {place}", order.verb.as_str(), order.pool, order.command_id)
}

/// Whether the command was carried out, or at least stored where nobody waits for it.
async fn try_send(config: &Config, order: &Order, wait: bool) -> anyhow::Result<bool> {
    let orders = orders::connect(config, &format!("enlist {}", order.verb.as_str())).await?;
    // Before the command, so that nothing is missed.
    let news = if wait { Some(orders.news_of(order).await?) } else { None };
    let stored = orders.send(order).await?;
    let mut page = Page::new();
    page.say(taken(order, &stored));
    let Some(mut news) = news else { return Ok(true) };
    let silent = Cell::new(true);
    let heard = |told: &Told| {
        if told.concerns(order) {
            silent.set(false);
            page.told(told);
        }
    };
    let mut outcome = pin!(orders.outcome(order, &mut news, heard));
    let soon = timeout(SILENCE, &mut outcome).await;
    if soon.is_err() && silent.get() {
        eprintln!("enlist: no replica has begun with it yet (enlist run); still waiting");
    }
    let told = match soon {
        Ok(told) => told,
        Err(_) => outcome.await,
    };
    match told {
        Some(Told::Event(worker)) => Ok(match worker.state {
            State::Failed | State::Lost | State::Terminated => order.verb == crate::domain::Verb::Terminate,
            _ => true,
        }),
        Some(Told::Pool(_) | Told::Dead { .. }) => Ok(false),
        None => anyhow::bail!("the connection was closed before the outcome was known"),
    }
}
