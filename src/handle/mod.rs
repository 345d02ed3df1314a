//! One file a verb: a command's bytes in, the service's answer out as a verdict on the message.

mod own_queue;
mod pool;
mod provision;
pub mod sweep;
mod terminate;

use crate::bus::delivery::Verdict;
use crate::config::PoolConfig;
use crate::domain::{CommandId, Pool, State, TraceContext, Verb, nak_delay, wait_delay};
use crate::journal::Journal;
use crate::mutant::{self, Mutant};
use crate::provider::WorkerProvider;
use crate::registration::WorkerRegistrationPort;
use crate::service::sweep::SweepPoolConfig;
use crate::service::{Ending, WorkerManagementService};
use crate::telemetry::Outcome;
use crate::text::cut;
use crate::wire::command::Undecodable;

pub use own_queue::{OwnQueue, Put, Waiting};

/// Handles the commands of one pool.
#[derive(Debug)]
pub struct Handler<P: WorkerProvider, R: WorkerRegistrationPort, J: Journal> {
    service: WorkerManagementService<P, R, J>,
    pool: Pool,
    config: PoolConfig,
    sweep: SweepPoolConfig,
    queue: OwnQueue,
}

/// What the queue says of a command's message.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// Its place in its queue.
    pub sequence: u64,
    /// How often the server has delivered it; not exact, and only spreads retries.
    pub deliveries: u64,
    /// When it was stored there, by the server's clock.
    pub stored_at: jiff::Timestamp,
    /// The trace that the command is part of.
    pub trace: Option<&'a TraceContext>,
}

/// A command that was handled.
#[derive(Debug)]
pub struct Handled {
    /// What becomes of its message.
    pub verdict: Verdict,
    /// How the command ended; `None` while it has not.
    pub outcome: Option<Outcome>,
}

impl<P: WorkerProvider, R: WorkerRegistrationPort, J: Journal> Handler<P, R, J> {
    /// A handler for the pool of `sweep`, whose template and permissions are in `config` and whose commands come from
    /// `queue`.
    #[must_use]
    pub fn new(
        service: WorkerManagementService<P, R, J>,
        config: PoolConfig,
        sweep: SweepPoolConfig,
        queue: OwnQueue,
    ) -> Self {
        Self { service, pool: sweep.pool.clone(), config, sweep, queue }
    }

    /// The service behind it.
    pub fn service(&self) -> &WorkerManagementService<P, R, J> {
        &self.service
    }

    /// Leaves word in the worker's record that a command is given up because the replica stops.
    pub async fn let_go(&self, verb: Verb, body: &[u8], message: Message<'_>) {
        let key = match verb {
            Verb::Provision => self.provisions(body),
            Verb::Terminate => self.terminates(body),
            Verb::Pool | Verb::Sweep => None,
        };
        if let Some(key) = key {
            self.service.let_go(&key, message.sequence).await;
        }
    }

    /// Carries one command out.
    pub async fn handle(&self, verb: Verb, body: &[u8], message: Message<'_>) -> Handled {
        match verb {
            Verb::Provision => self.provision(body, message).await,
            // Boxed, so that a provision in hand does not carry the room for a terminate along.
            Verb::Terminate => Box::pin(self.terminate(body, message)).await,
            Verb::Pool => Box::pin(self.pool(body, message)).await,
            Verb::Sweep => Box::pin(self.sweep(body, message)).await,
        }
    }
}

/// What a pool's size asked for and asks for no more: nobody else has sent it, and nobody waits for its outcome.
fn withdrawn(command_id: &CommandId) -> Handled {
    tracing::debug!(%command_id, "the pool's size asks for it no more");
    Handled { verdict: Verdict::Done, outcome: None }
}

fn undecodable(undecodable: Undecodable) -> Handled {
    let Undecodable { command_id, refusal } = undecodable;
    Handled { verdict: Verdict::DeadLetter { command_id, refusal }, outcome: Some(Outcome::DeadLetter) }
}

/// What becomes of a command's message; `chance`, from 0 to 1, spreads those that come again.
fn settled(command_id: CommandId, ending: Ending, message: Message<'_>, chance: f64) -> Handled {
    let tries = u32::try_from(message.deliveries).unwrap_or(u32::MAX);
    match ending {
        Ending::Done(worker) => Handled { verdict: Verdict::Done, outcome: outcome(worker.state) },
        Ending::Refused(refusal) => undecodable(Undecodable { command_id: Some(command_id), refusal }),
        Ending::Later(why) => {
            let after = nak_delay(tries, chance);
            tracing::debug!(%command_id, why = cut(&why, 500), after_ms = after.as_millis(), "tried again later");
            Handled { verdict: Verdict::Retry(after), outcome: None }
        }
        Ending::Wait(_) if mutant::on(Mutant::WaitIsDone) => Handled { verdict: Verdict::Done, outcome: None },
        Ending::Wait(why) => {
            tracing::debug!(%command_id, why, "looked at again soon");
            Handled { verdict: Verdict::Retry(wait_delay(tries, chance)), outcome: None }
        }
        Ending::Superseded => Handled { verdict: Verdict::Leave, outcome: None },
    }
}

fn outcome(state: State) -> Option<Outcome> {
    match state {
        State::Provisioned => Some(Outcome::Provisioned),
        State::Registered => Some(Outcome::Registered),
        State::RegistrationFailed => Some(Outcome::RegistrationFailed),
        State::Terminated => Some(Outcome::Terminated),
        State::Failed => Some(Outcome::Failed),
        State::Lost => Some(Outcome::Lost),
        State::Provisioning | State::Terminating => None,
    }
}
