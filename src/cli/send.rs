//! What verbs that send a command have in common; and one command, sent and waited for.

use std::cell::Cell;
use std::io::{BufRead as _, IsTerminal as _, stderr, stdin};
use std::pin::pin;
use std::time::Duration;

use clap::Args;
use tokio::time::timeout;

use super::away::tell_away;
use super::orders::{Order, Orders, Told};
use super::page::Page;
use super::{Misused, told_to_stop};
use crate::domain::{CommandId, State, Verb};
use crate::wire::command::Undecodable;
use crate::wire::publish::PubAck;

/// After this long a person is told why nothing happens.
pub(super) const SILENCE: Duration = Duration::from_secs(5);

/// What every verb that sends a command takes.
#[derive(Args)]
pub(super) struct SendArgs {
    /// The command's id; the same id again does nothing twice. Of several commands what their ids begin with [default: a new one]
    #[arg(long, value_name = "ID")]
    pub(super) command_id: Option<CommandId>,
    /// Wait for the outcome, and end with 1 where the command was not carried out
    #[arg(long)]
    pub(super) wait: bool,
}

/// 122 bits of chance: no two publishers meet.
pub(super) fn new_id() -> CommandId {
    CommandId::new(uuid::Uuid::new_v4().simple().to_string()).expect("hexadecimal digits are a command id")
}

/// What the ids of several commands begin with: short enough that a worker's id fits behind it.
pub(super) fn new_base() -> CommandId {
    CommandId::new(&new_id().as_str()[..16]).expect("hexadecimal digits are a command id")
}

/// The id of one of several commands.
pub(super) fn id_below(base: &CommandId, end: impl std::fmt::Display) -> Result<CommandId, Misused> {
    CommandId::new(format!("{base}-{end}")).map_err(|_| {
        Misused(format!("--command-id {base} is too long: with -{end} behind it it has more than 64 characters"))
    })
}

/// A command that a replica would refuse is refused here.
pub(super) fn understood<T>(decoded: Result<T, Undecodable>) -> Result<T, Misused> {
    decoded.map_err(|undecodable| Misused(undecodable.refusal.detail))
}

/// Whether a person agrees; where nobody is there to ask, `without` says what would have been done.
pub(super) fn asked(without: &str, question: &str) -> anyhow::Result<bool> {
    if !stdin().is_terminal() || !stderr().is_terminal() {
        return Err(Misused(format!("{without}, and no terminal is there to ask: say --yes")).into());
    }
    eprint!("{question} [y/N] ");
    let mut answer = String::new();
    stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
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

/// What is said where somebody waits no longer.
pub(super) fn left(order: &Order) -> String {
    format!(
        "enlist: not waited for any more: command {} stays in the queue and is carried out all the same; \
         the same with --command-id {} waits again",
        order.command_id, order.command_id
    )
}

/// Whether the command was carried out, or at least stored where nobody waits for it.
pub(super) async fn send(orders: &Orders, order: &Order, wait: bool) -> anyhow::Result<bool> {
    let mut stop = pin!(told_to_stop());
    // Before the command, so that nothing is missed.
    let news = if wait { Some(orders.news_of(order).await?) } else { None };
    let stored = orders.send(order).await?;
    let mut page = Page::new();
    page.say(taken(order, &stored));
    let Some(mut news) = news else { return Ok(true) };
    // It may have ended before, and then nothing is told of it any more.
    if stored.duplicate
        && let Ok(Some(told)) = orders.ended(order).await
    {
        page.told(&told);
        return Ok(is_good(order.verb, &told));
    }
    let silent = Cell::new(true);
    let heard = |told: &Told| {
        if told.concerns(order) {
            silent.set(false);
            page.told(told);
        }
    };
    let waited = async {
        let mut outcome = pin!(orders.outcome(order, &mut news, heard));
        let soon = timeout(SILENCE, &mut outcome).await;
        if soon.is_err() && silent.get() {
            eprintln!("enlist: no replica has begun with it yet (enlist run); still waiting");
        }
        match soon {
            Ok(told) => told,
            Err(_) => outcome.await,
        }
    };
    let told = tokio::select! {
        told = waited => told,
        () = &mut stop => {
            eprintln!("{}", left(order));
            return Ok(false);
        }
        never = tell_away(&orders.connection, |line| eprintln!("{line}")) => match never {},
    };
    match told {
        Some(told) => Ok(is_good(order.verb, &told)),
        None => anyhow::bail!("the connection was closed before the outcome was known"),
    }
}

/// Whether a command that ended so was carried out.
pub(super) fn is_good(verb: Verb, told: &Told) -> bool {
    match told {
        Told::Event(worker) => match worker.state {
            State::Failed | State::Lost | State::Terminated => verb == Verb::Terminate,
            State::Provisioning
            | State::Provisioned
            | State::Registered
            | State::RegistrationFailed
            | State::Terminating => true,
        },
        Told::Pool(_) | Told::Dead { .. } => false,
    }
}
