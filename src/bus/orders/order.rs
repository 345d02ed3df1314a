//! One command as it is sent, and what can be heard of it.

use bytes::Bytes;

use crate::domain::{
    CommandId, EndedBy, Pool, PoolRecord, PoolState, Reason, RegistrationStatus, SpecHash, State, TraceContext, Verb,
    Worker, WorkerId, WorkerKey,
};
use crate::wire::command::{PoolCommand, ProvisionCommand, SweepCommand, TerminateCommand, hash_of};
use crate::wire::dead_letter::DeadLetter;

/// A command as it is sent.
#[derive(Debug, Clone)]
pub struct Order {
    /// What it asks for.
    pub verb: Verb,
    /// Of which pool.
    pub pool: Pool,
    /// Its id.
    pub command_id: CommandId,
    /// The worker, where it is known before the outcome is.
    pub worker_id: Option<WorkerId>,
    /// The workers that it may come to have, where the pool chooses one: the hosts of a static pool.
    hosts: Vec<WorkerId>,
    hash: SpecHash,
    pub(super) body: Bytes,
    pub(super) trace: Option<TraceContext>,
}

impl Order {
    /// A provision.
    #[must_use]
    pub fn provision(pool: Pool, command: &ProvisionCommand) -> Self {
        let (command_id, worker_id) = (command.command_id.clone(), command.worker_id.clone());
        Self::new(Verb::Provision, pool, command_id, worker_id, command.content_hash(), command.encode())
    }

    /// A terminate.
    #[must_use]
    pub fn terminate(pool: Pool, command: &TerminateCommand) -> Self {
        let (command_id, worker_id) = (command.command_id.clone(), Some(command.worker_id.clone()));
        Self::new(Verb::Terminate, pool, command_id, worker_id, command.content_hash(), command.encode())
    }

    /// A size.
    #[must_use]
    pub fn pool(pool: Pool, command: &PoolCommand) -> Self {
        Self::new(Verb::Pool, pool, command.command_id.clone(), None, command.content_hash(), command.encode())
    }

    /// A sweep.
    #[must_use]
    pub fn sweep(pool: Pool, command: &SweepCommand) -> Self {
        Self::new(Verb::Sweep, pool, command.command_id.clone(), None, command.content_hash(), command.encode())
    }

    fn new(
        verb: Verb,
        pool: Pool,
        command_id: CommandId,
        worker_id: Option<WorkerId>,
        hash: SpecHash,
        body: Vec<u8>,
    ) -> Self {
        Self { verb, pool, command_id, worker_id, hosts: Vec::new(), hash, body: body.into(), trace: None }
    }

    /// With the bytes that the command was read from: they are what its publisher has said.
    #[must_use]
    pub fn as_it_came(mut self, body: Bytes) -> Self {
        self.body = body;
        self
    }

    /// As a part of a trace.
    #[must_use]
    pub fn in_trace(self, trace: Option<TraceContext>) -> Self {
        Self { trace, ..self }
    }

    /// With what the pool's settings tell of the worker where the command names none: the pool makes it under a name of the
    /// command's own, or chooses one of `hosts`.
    #[must_use]
    pub fn in_pool_of(mut self, hosts: Option<Vec<WorkerId>>) -> Self {
        if self.worker_id.is_none() && self.verb == Verb::Provision {
            match hosts {
                Some(hosts) => self.hosts = hosts,
                None => self.worker_id = Some(WorkerId::derived(&self.pool, &self.command_id)),
            }
        }
        self
    }

    /// Whether this record is how the command has ended.
    #[must_use]
    pub fn ended_as(&self, worker: &Worker) -> bool {
        if worker.pool != self.pool {
            return false;
        }
        match self.verb {
            Verb::Provision => {
                worker.command_id == self.command_id && worker.spec_hash == self.hash && has_outcome(worker)
            }
            Verb::Terminate => self.worker_id.as_ref() == Some(&worker.worker_id) && worker.state.is_final(),
            Verb::Pool | Verb::Sweep => false,
        }
    }

    /// Whether this record could not be there without an end of the command, which may stand before it in the log.
    pub(super) fn is_behind(&self, worker: &Worker) -> bool {
        match self.verb {
            Verb::Provision => worker.command_id == self.command_id && worker.state != State::Provisioning,
            Verb::Terminate => true,
            Verb::Pool | Verb::Sweep => false,
        }
    }

    /// Whether a dead letter's body is this command, however it was written.
    pub(super) fn is(&self, body: &[u8]) -> bool {
        hash_of(self.verb, body).is_some_and(|hash| hash == self.hash)
    }

    /// The workers whose records may tell of it.
    pub(super) fn candidates(&self) -> Vec<WorkerKey> {
        let derived = || WorkerId::derived(&self.pool, &self.command_id);
        let ids = if self.hosts.is_empty() {
            vec![self.worker_id.clone().unwrap_or_else(derived)]
        } else {
            self.hosts.clone()
        };
        ids.into_iter().map(|id| WorkerKey::new(self.pool.clone(), id)).collect()
    }
}

fn has_outcome(worker: &Worker) -> bool {
    match worker.state {
        State::Provisioning | State::Terminating => false,
        State::Provisioned => worker.registration.status == RegistrationStatus::Disabled,
        State::Terminated => !is_refused(worker),
        State::Registered | State::RegistrationFailed | State::Failed | State::Lost => true,
    }
}

/// A record of a command that will not be carried out: the dead letter that follows is the outcome.
fn is_refused(worker: &Worker) -> bool {
    worker.ended_by.as_ref().is_some_and(|EndedBy { command_id, reason }| {
        command_id.as_ref() == Some(&worker.command_id) && reason.as_deref().and_then(Reason::from_name).is_some()
    })
}

/// What is heard about workers and commands.
#[derive(Debug, Clone)]
pub enum Told {
    /// A worker's newest record.
    Event(Box<Worker>),
    /// A pool's own newest record.
    Pool(Box<PoolRecord>),
    /// A command that will not be carried out.
    Dead {
        /// Its id, where it could be read.
        command_id: Option<CommandId>,
        /// The pool that it was for.
        pool: String,
        /// The letter.
        letter: Box<DeadLetter>,
    },
}

impl Told {
    /// Whether it is about the order or its worker.
    #[must_use]
    pub fn concerns(&self, order: &Order) -> bool {
        match self {
            // A size is a matter of the whole pool.
            Self::Event(worker) if order.verb == Verb::Pool => worker.pool == order.pool,
            Self::Dead { pool, .. } if order.verb == Verb::Pool => pool == order.pool.as_str(),
            Self::Pool(record) => order.verb == Verb::Pool && record.pool == order.pool,
            Self::Event(worker) => {
                worker.command_id == order.command_id || order.worker_id.as_ref() == Some(&worker.worker_id)
            }
            Self::Dead { .. } => self.ends(order),
        }
    }

    /// Whether this is how the order has ended.
    #[must_use]
    pub fn ends(&self, order: &Order) -> bool {
        match self {
            Self::Event(worker) => order.ended_as(worker),
            Self::Pool(record) => {
                record.pool == order.pool && record.command_id == order.command_id && record.state == PoolState::Sized
            }
            // A copy with another content has a dead letter under the same id.
            Self::Dead { command_id, pool, letter } => {
                command_id.as_ref() == Some(&order.command_id) && pool == order.pool.as_str() && order.is(&letter.body)
            }
        }
    }
}
