//! The one transition table: from a worker and a step to the worker after it, or a typed refusal.

use jiff::Timestamp;

use super::{
    Capabilities, CommandId, CorrelationId, EndedBy, Pool, Reason, Registration, RegistrationFault, RegistrationStatus,
    SpecHash, State, Worker, WorkerFault, WorkerId, WorkerType,
};
use crate::mutant::{self, Mutant};

/// One step of a worker's life.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// A command takes a free name.
    Claim(Box<Claim>),
    /// Another replica, or another try, goes on with it. A try that ended without a word counts as one without progress.
    TakeOver,
    /// The present step failed and will be tried again; `counted` says whether the command is to blame.
    Stalled {
        /// What went wrong.
        fault: WorkerFault,
        /// Whether it counts towards exhaustion.
        counted: bool,
    },
    /// The provider has made the instance.
    Created {
        /// The provider's id.
        instance_id: String,
        /// How to reach it.
        endpoint: Option<String>,
        /// What the provider found it to offer, where it knows better than the specification.
        capabilities: Option<Capabilities>,
    },
    /// The scheduler has accepted it.
    Registered {
        /// Requests that this try sent.
        attempts: u32,
    },
    /// The scheduler has not accepted it.
    RegistrationFailed {
        /// Requests that this try sent.
        attempts: u32,
        /// The last answer.
        fault: RegistrationFault,
    },
    /// It cannot be made.
    Fail(WorkerFault),
    /// Someone wants it gone.
    Terminate(EndedBy),
    /// It is gone.
    Terminated,
    /// The instance is gone though nobody asked.
    Lost,
}

/// What a claim fixes about a worker.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    /// Its pool.
    pub pool: Pool,
    /// Its name.
    pub worker_id: WorkerId,
    /// Made, or found.
    pub worker_type: WorkerType,
    /// The command that claims it.
    pub command_id: CommandId,
    /// That command's thread.
    pub correlation_id: Option<CorrelationId>,
    /// Fingerprint of that command.
    pub spec_hash: SpecHash,
    /// The provider.
    pub provider: String,
    /// What it will offer.
    pub capabilities: Capabilities,
    /// Whether the scheduler is to be told.
    pub registration: bool,
}

/// A step that the worker's state does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a worker that is {from} cannot be {step}")]
pub struct TransitionRefused {
    /// The state it is in, `new` for none.
    pub from: &'static str,
    /// The step that was asked for.
    pub step: &'static str,
}

impl Step {
    fn name(&self) -> &'static str {
        match self {
            Self::Claim(_) => "claimed",
            Self::TakeOver => "taken over",
            Self::Stalled { .. } => "stalled",
            Self::Created { .. } => "provisioned",
            Self::Registered { .. } => "registered",
            Self::RegistrationFailed { .. } => "refused by the scheduler",
            Self::Fail(_) => "failed",
            Self::Terminate(_) => "terminating",
            Self::Terminated => "terminated",
            Self::Lost => "lost",
        }
    }

    /// The worker after this step. Total: every pair of state and step either has a successor here or is refused.
    pub fn apply(self, before: Option<&Worker>, now: Timestamp) -> Result<Worker, TransitionRefused> {
        use State::{Failed, Lost, Provisioned, Provisioning, Registered, RegistrationFailed, Terminated, Terminating};
        let refused = TransitionRefused { from: before.map_or("new", |w| w.state.as_str()), step: self.name() };
        let Some(worker) = before else {
            return match self {
                Self::Claim(claim) => Ok(claim.open(None, Provisioning, now)),
                _ => Err(refused),
            };
        };
        let mut next = worker.clone();
        next.rev += 1;
        next.updated_at = now;
        match (worker.state, self) {
            // A host can be allocated again; a made worker's name is not used twice.
            (Terminated | Failed | Lost, Self::Claim(claim)) if worker.worker_type == WorkerType::Static => {
                next = claim.open(Some(worker), Provisioning, now);
            }
            (Provisioning | Provisioned | Terminating, Self::TakeOver) => {
                next.epoch = next.epoch.saturating_add(u64::from(!mutant::on(Mutant::SameEpoch)));
                // A try that reported its failure has been counted already, or was not to be.
                next.attempts += u32::from(worker.error.is_none() && !mutant::on(Mutant::DeathsUncounted));
                next.error = None;
            }
            (Provisioning | Provisioned | Terminating, Self::Stalled { fault, counted }) => {
                next.attempts += u32::from(counted);
                next.error = Some(fault);
            }
            (Provisioning, Self::Created { instance_id, endpoint, capabilities }) => {
                next.enter(Provisioned);
                next.instance_id = Some(instance_id);
                next.endpoint = endpoint;
                next.capabilities = capabilities.unwrap_or(next.capabilities);
            }
            (Provisioned | RegistrationFailed, Self::Registered { attempts }) => {
                next.enter(Registered);
                next.registration = Registration {
                    status: RegistrationStatus::Registered,
                    attempts: worker.registration.attempts + attempts,
                    error: None,
                };
            }
            (Provisioned | RegistrationFailed, Self::RegistrationFailed { attempts, fault }) => {
                next.enter(RegistrationFailed);
                next.registration = Registration {
                    status: RegistrationStatus::Failed,
                    attempts: worker.registration.attempts + attempts,
                    error: Some(fault),
                };
            }
            (Provisioning, Self::Fail(fault)) => {
                next.enter(Failed);
                next.error = Some(fault);
            }
            (Provisioning | Provisioned | Registered | RegistrationFailed, Self::Terminate(ended_by)) => {
                next.enter(Terminating);
                next.epoch = next.epoch.saturating_add(1);
                next.ended_by = Some(ended_by);
            }
            (Terminating, Self::Terminated) => next.enter(Terminated),
            (Provisioned | Registered | RegistrationFailed, Self::Lost) => next.enter(Lost),
            (
                Provisioning | Provisioned | Registered | RegistrationFailed | Terminating | Terminated | Failed | Lost,
                _,
            ) => return Err(refused),
        }
        Ok(next)
    }
}

impl Worker {
    /// Progress: the tries of the step before are forgotten.
    fn enter(&mut self, state: State) {
        self.state = state;
        self.attempts = 0;
        self.error = None;
    }

    /// The record of a worker that a terminate names and that never was: it stands in the way of a late provision.
    #[must_use]
    pub fn never_was(claim: Claim, now: Timestamp) -> Self {
        let ended_by = EndedBy { command_id: Some(claim.command_id.clone()), reason: Some("unknown".into()) };
        Self { ended_by: Some(ended_by), ..claim.open(None, State::Terminated, now) }
    }

    /// The record of a worker that was never begun, as its command was refused: it stands in the way of a claim that is late.
    #[must_use]
    pub fn refused(claim: Claim, reason: Reason, now: Timestamp) -> Self {
        let ended_by = EndedBy { command_id: Some(claim.command_id.clone()), reason: Some(reason.as_str().to_owned()) };
        Self { ended_by: Some(ended_by), ..claim.open(None, State::Terminated, now) }
    }

    /// The record of an instance that has none and is to go: whoever would claim its name finds it taken.
    #[must_use]
    pub fn unrecorded(claim: Claim, epoch: u64, instance_id: String, ended_by: EndedBy, now: Timestamp) -> Self {
        let open = claim.open(None, State::Terminating, now);
        Self { epoch, instance_id: Some(instance_id), ended_by: Some(ended_by), ..open }
    }

    /// The first record of an instance whose own was lost with the log, and which stays. `epoch` is above every one that
    /// the scheduler may have seen.
    #[must_use]
    pub fn adopted(claim: Claim, epoch: u64, created_at: Timestamp, now: Timestamp) -> Self {
        Self { epoch, created_at, ..claim.open(None, State::Provisioning, now) }
    }
}

impl Claim {
    fn open(self, before: Option<&Worker>, state: State, now: Timestamp) -> Worker {
        Worker {
            pool: self.pool,
            worker_id: self.worker_id,
            worker_type: self.worker_type,
            state,
            rev: before.map_or(0, |w| w.rev) + 1,
            epoch: before.map_or(0, |w| w.epoch).saturating_add(1),
            command_id: self.command_id,
            correlation_id: self.correlation_id,
            spec_hash: self.spec_hash,
            ended_by: None,
            provider: self.provider,
            instance_id: None,
            endpoint: None,
            capabilities: self.capabilities,
            registration: Registration::wanted(self.registration),
            error: None,
            attempts: 0,
            created_at: now,
            updated_at: now,
        }
    }
}
