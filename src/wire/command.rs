//! Commands as they come off the queue: plain JSON, or a structured CloudEvent whose `data` is the command.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::domain::{CommandId, CorrelationId, Labels, Refusal, SpecHash, WorkerId};

/// The largest command, in bytes; the queue's own limit too.
pub const MAX_BYTES: usize = 64 * 1024;
/// The deepest nesting of a command's JSON.
pub const MAX_DEPTH: usize = 16;

/// `enlist.cmd.<pool>.provision`.
#[derive(Debug, Clone, PartialEq)]
pub struct ProvisionCommand {
    /// The command's name.
    pub command_id: CommandId,
    /// The worker's name, where the publisher chooses it.
    pub worker_id: Option<WorkerId>,
    /// Overrides of the pool's template.
    pub spec: SpecOverrides,
    /// Overrides of the pool's registration.
    pub registration: RegistrationOverrides,
    /// Not to be started later than this.
    pub expires_at: Option<Timestamp>,
    /// Copied into every event.
    pub correlation_id: Option<CorrelationId>,
}

/// What a command may set of a worker's specification; each only if the pool's `allow` lists it.
#[derive(Clone, Default, PartialEq)]
pub struct SpecOverrides {
    /// Image.
    pub image: Option<String>,
    /// Program and arguments.
    pub command: Option<Vec<String>>,
    /// Environment.
    pub env: Option<BTreeMap<String, String>>,
    /// Labels.
    pub labels: Option<Labels>,
    /// Cores.
    pub cpus: Option<f64>,
    /// MiB.
    pub memory_mb: Option<u64>,
    /// Accelerators.
    pub gpus: Option<u32>,
}

/// What a command may set of its registration.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RegistrationOverrides {
    /// Whether the scheduler is told.
    pub enabled: Option<bool>,
    /// Tries after the first.
    pub max_retries: Option<u32>,
    /// All tries together, in milliseconds.
    pub timeout_ms: Option<u64>,
}

/// `enlist.cmd.<pool>.terminate`.
#[derive(Debug, Clone, PartialEq)]
pub struct TerminateCommand {
    /// The command's name.
    pub command_id: CommandId,
    /// The worker to remove.
    pub worker_id: WorkerId,
    /// Why.
    pub reason: Option<String>,
    /// How long it may take to end, in milliseconds.
    pub grace_ms: Option<u64>,
    /// Skip the scheduler's drain.
    pub force: bool,
    /// Not to be started later than this.
    pub expires_at: Option<Timestamp>,
    /// Copied into the worker's events where it has none of its own.
    pub correlation_id: Option<CorrelationId>,
}

/// A command that cannot be read, with its id where that much could be read.
#[derive(Debug, Clone, PartialEq)]
pub struct Undecodable {
    /// For the dead letter's subject.
    pub command_id: Option<CommandId>,
    /// `malformed` or `invalid`, and why.
    pub refusal: Refusal,
}

impl ProvisionCommand {
    /// Reads a command. Never panics, whatever the bytes.
    pub fn decode(body: &[u8]) -> Result<Self, Undecodable> {
        let _ = body;
        todo!()
    }

    /// Fingerprint of everything in it: the same command id with another fingerprint is a conflict.
    #[must_use]
    pub fn content_hash(&self) -> SpecHash {
        todo!()
    }
}

impl TerminateCommand {
    /// Reads a command. Never panics, whatever the bytes.
    pub fn decode(body: &[u8]) -> Result<Self, Undecodable> {
        let _ = body;
        todo!()
    }

    /// Fingerprint of everything in it.
    #[must_use]
    pub fn content_hash(&self) -> SpecHash {
        todo!()
    }
}

impl std::fmt::Debug for SpecOverrides {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SpecOverrides")
    }
}
