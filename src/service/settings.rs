//! What the service is told: once for all workers, and for each of them.

use std::time::Duration;

use jiff::Timestamp;

use crate::domain::{CommandId, CorrelationId, Pool, SpecHash, TraceContext, WorkerId, WorkerSpec};
use crate::registration::RegistrationConfig;

/// Settings of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerManagementConfig {
    /// Whether workers are registered with the scheduler (`REGISTRATION_ENABLED`).
    pub registration_enabled: bool,
    /// Register requests after the first (`REGISTRATION_MAX_RETRIES`).
    pub registration_max_retries: u32,
    /// All register requests of one worker together (`REGISTRATION_TIMEOUT`).
    pub registration_timeout: Duration,
    /// How long one request to the scheduler waits for its reply.
    pub scheduler_try_timeout: Duration,
    /// By how much a scheduler that cannot be reached delays a terminate.
    pub unregister_timeout: Duration,
    /// How long the provider may take to make a worker.
    pub launch_timeout: Duration,
    /// How long a worker may take to end, where its terminate does not say.
    pub grace: Duration,
    /// Live workers of a pool at most.
    pub max_workers: Option<usize>,
}

impl Default for WorkerManagementConfig {
    fn default() -> Self {
        Self {
            registration_enabled: true,
            registration_max_retries: 3,
            registration_timeout: Duration::from_secs(30),
            scheduler_try_timeout: Duration::from_secs(5),
            unregister_timeout: Duration::from_secs(30),
            launch_timeout: Duration::from_secs(300),
            grace: Duration::from_secs(10),
            max_workers: None,
        }
    }
}

impl WorkerManagementConfig {
    pub(super) fn registration(&self) -> RegistrationConfig {
        RegistrationConfig {
            enabled: self.registration_enabled,
            max_retries: self.registration_max_retries,
            timeout: self.registration_timeout,
        }
    }
}

/// One worker to be provisioned.
#[derive(Debug, Clone, PartialEq)]
pub struct DynamicWorkerConfig {
    /// The pool it belongs to.
    pub pool: Pool,
    /// Its name; derived from pool and command, or the first free host, where it has none.
    pub worker_id: Option<WorkerId>,
    /// The command that asks: the same id again makes no second worker.
    pub command_id: CommandId,
    /// Fingerprint of the command's whole content; the same id with another one is a conflict.
    pub spec_hash: SpecHash,
    /// What to make.
    pub spec: WorkerSpec,
    /// Copied into every event of the worker.
    pub correlation_id: Option<CorrelationId>,
    /// Not to be started later than this.
    pub expires_at: Option<Timestamp>,
    /// The trace that the command is part of; no part of its content.
    pub trace: Option<TraceContext>,
}

impl DynamicWorkerConfig {
    /// A worker of `pool` under a new command id, with the specification `spec`.
    #[must_use]
    pub fn new(pool: Pool, spec: WorkerSpec) -> Self {
        Self::for_command(pool, new_command_id(), spec)
    }

    /// A worker of `pool` for a command that has an id already: called again, it goes on where the last call stopped.
    #[must_use]
    pub fn for_command(pool: Pool, command_id: CommandId, spec: WorkerSpec) -> Self {
        let WorkerSpec { image, command, env, labels, cpus, memory_mb, gpus } = &spec;
        let canonical = format!("{:?}", (image, command, env, labels, cpus, memory_mb, gpus));
        let spec_hash = SpecHash::of(canonical.as_bytes());
        Self { pool, worker_id: None, command_id, spec_hash, spec, correlation_id: None, expires_at: None, trace: None }
    }
}

impl Default for DynamicWorkerConfig {
    /// A worker of the pool `default` that asks for nothing in particular, under a new command id.
    fn default() -> Self {
        #[allow(clippy::unwrap_used, reason = "a literal of the right form")]
        Self::new(Pool::new("default").unwrap(), WorkerSpec::default())
    }
}

/// A new command id: 32 hex digits.
fn new_command_id() -> CommandId {
    #[allow(clippy::unwrap_used, reason = "hex digits are of the right form")]
    CommandId::new(uuid::Uuid::new_v4().simple().to_string()).unwrap()
}

/// One worker to be removed.
#[derive(Debug, Clone, PartialEq)]
pub struct TerminateWorkerConfig {
    /// Its pool.
    pub pool: Pool,
    /// Its name.
    pub worker_id: WorkerId,
    /// The command that asks.
    pub command_id: CommandId,
    /// Fingerprint of that command's content.
    pub spec_hash: SpecHash,
    /// Why, for the record.
    pub reason: Option<String>,
    /// How long it may take to end; the service's own setting if unset.
    pub grace: Option<Duration>,
    /// Skip the scheduler's drain.
    pub force: bool,
    /// Copied into the record of a worker that never was.
    pub correlation_id: Option<CorrelationId>,
    /// Not to be started later than this.
    pub expires_at: Option<Timestamp>,
    /// The trace that the command is part of; no part of its content.
    pub trace: Option<TraceContext>,
}

impl TerminateWorkerConfig {
    /// Ends `worker_id` of `pool` under a new command id.
    #[must_use]
    pub fn new(pool: Pool, worker_id: WorkerId) -> Self {
        let command_id = new_command_id();
        let spec_hash = SpecHash::of(worker_id.as_str().as_bytes());
        Self {
            pool,
            worker_id,
            command_id,
            spec_hash,
            reason: None,
            grace: None,
            force: false,
            correlation_id: None,
            expires_at: None,
            trace: None,
        }
    }
}
