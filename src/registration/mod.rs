//! The scheduler, behind one contract: a single request each, repetition is the caller's.

pub mod memory;
mod messages;
pub mod nats;
pub mod retry;

use std::future::Future;
use std::time::Duration;

use jiff::Timestamp;

use crate::domain::{Capabilities, Pool, RegistrationFault, TraceContext, Worker, WorkerId, WorkerType};

pub use memory::MemoryScheduler;
pub use nats::NatsScheduler;
pub use retry::{Registered, RegistrationConfig, Unregistered};

/// What the scheduler is told of a new worker.
#[derive(Debug, Clone, PartialEq)]
pub struct RegisterWorker {
    /// Its name.
    pub worker_id: WorkerId,
    /// Its pool.
    pub pool: Pool,
    /// Made, or found.
    pub worker_type: WorkerType,
    /// The provider's id.
    pub instance_id: Option<String>,
    /// How to reach it.
    pub endpoint: Option<String>,
    /// What it offers.
    pub capabilities: Capabilities,
    /// The fence: a scheduler ignores a register below an epoch it has seen.
    pub epoch: u64,
    /// The event this is told from.
    pub rev: u64,
    /// Number of this try, from 1.
    pub attempt: u32,
    /// After this moment nobody waits for the answer.
    pub expires_at: Timestamp,
    /// The trace that the request is part of; told beside its body.
    pub trace: Option<TraceContext>,
}

/// What the scheduler is told of a worker that goes.
#[derive(Debug, Clone, PartialEq)]
pub struct UnregisterWorker {
    /// Its name.
    pub worker_id: WorkerId,
    /// Its pool.
    pub pool: Pool,
    /// The provider's id.
    pub instance_id: Option<String>,
    /// The fence.
    pub epoch: u64,
    /// Why it goes.
    pub reason: String,
    /// How long the worker may drain.
    pub grace: Duration,
    /// The trace that the request is part of; told beside its body.
    pub trace: Option<TraceContext>,
}

/// A worker in the scheduler's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedWorker {
    /// Its name.
    pub worker_id: WorkerId,
    /// Its pool.
    pub pool: Pool,
    /// The epoch under which it was registered.
    pub epoch: u64,
}

/// Why one request to the scheduler did not end the matter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistrationError {
    /// It was refused: not tried again.
    #[error("rejected by the scheduler, {code}: {message}")]
    Rejected {
        /// The scheduler's code.
        code: String,
        /// The scheduler's words; foreign text.
        message: String,
    },
    /// Ask again after a while; not counted as a try.
    #[error("the scheduler is busy for another {} ms", retry_after.as_millis())]
    Busy {
        /// How long the scheduler asks us to wait.
        retry_after: Duration,
    },
    /// Nobody answered: no responder, or no answer in time.
    #[error("the scheduler cannot be reached, {code}: {message}")]
    Unavailable {
        /// `no_responders`, `timeout` or `disconnected`.
        code: &'static str,
        /// For people.
        message: String,
    },
    /// The answer cannot be read.
    #[error("the scheduler's reply cannot be read: {0}")]
    Unreadable(String),
}

impl RegistrationError {
    /// Whether it says nothing about the worker: whoever is offered next would fare the same.
    #[must_use]
    pub fn is_away(&self) -> bool {
        match self {
            Self::Busy { .. } | Self::Unavailable { .. } => true,
            // A scheduler that answers, if only this one worker.
            Self::Rejected { .. } | Self::Unreadable(_) => false,
        }
    }

    /// As it goes into the record.
    #[must_use]
    pub fn fault(&self) -> RegistrationFault {
        let (code, message, critical) = match self {
            Self::Rejected { code, message } => (code.as_str(), message.clone(), true),
            Self::Busy { .. } => ("busy", self.to_string(), false),
            Self::Unavailable { code, message } => (*code, message.clone(), false),
            Self::Unreadable(message) => ("unreadable", message.clone(), false),
        };
        RegistrationFault { code: crate::text::cut(code, 64), message: crate::text::cut(&message, 500), critical }
    }
}

/// Tells the scheduler. One call is one request.
///
/// Registering again what is registered is `Ok`; unregistering what is unknown is `Ok`. An error other than `Rejected`
/// says nothing about what the scheduler did.
pub trait WorkerRegistrationPort: Send + Sync + 'static {
    /// Asks the scheduler to take the worker.
    fn register_worker(&self, request: &RegisterWorker) -> impl Future<Output = Result<(), RegistrationError>> + Send;

    /// Asks the scheduler to let the worker go; `Busy` while it still drains.
    fn unregister_worker(
        &self,
        request: &UnregisterWorker,
    ) -> impl Future<Output = Result<(), RegistrationError>> + Send;

    /// Every worker that the scheduler knows of a pool; `None` where the scheduler has no list.
    fn list_workers(
        &self,
        pool: &Pool,
    ) -> impl Future<Output = Result<Option<Vec<ListedWorker>>, RegistrationError>> + Send;
}

impl RegisterWorker {
    /// The same, as part of a trace.
    #[must_use]
    pub fn of(worker: &Worker, trace: Option<&TraceContext>) -> Self {
        Self { trace: trace.cloned(), ..Self::from(worker) }
    }
}

/// What the scheduler is told of this worker, but for the number and deadline of the try.
impl From<&Worker> for RegisterWorker {
    fn from(worker: &Worker) -> Self {
        Self {
            worker_id: worker.worker_id.clone(),
            pool: worker.pool.clone(),
            worker_type: worker.worker_type,
            instance_id: worker.instance_id.clone(),
            endpoint: worker.endpoint.clone(),
            capabilities: worker.capabilities.clone(),
            epoch: worker.epoch,
            rev: worker.rev,
            attempt: 1,
            expires_at: worker.updated_at,
            trace: None,
        }
    }
}
