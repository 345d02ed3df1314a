//! The whole of what is known of a worker: the body of each event, and the newest event is the record.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Capabilities, CommandId, CorrelationId, ErrorClass, Pool, SpecHash, WorkerId, WorkerKey};

/// Whether enlist made the worker or found it there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum WorkerType {
    /// Made by a provider.
    Dynamic,
    /// A host that was there before.
    Static,
}

impl WorkerType {
    /// The name on the wire and in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dynamic => "dynamic",
            Self::Static => "static",
        }
    }
}

/// Where a worker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Claimed; the provider may or may not have been called.
    Provisioning,
    /// The instance exists.
    Provisioned,
    /// The scheduler has accepted it.
    Registered,
    /// The instance exists, the scheduler has not accepted it.
    RegistrationFailed,
    /// On its way out.
    Terminating,
    /// Gone because someone asked.
    Terminated,
    /// Never came to be.
    Failed,
    /// Gone though nobody asked.
    Lost,
}

impl State {
    /// Every state, in the order of a worker's life.
    pub const ALL: [Self; 8] = [
        Self::Provisioning,
        Self::Provisioned,
        Self::Registered,
        Self::RegistrationFailed,
        Self::Terminating,
        Self::Terminated,
        Self::Failed,
        Self::Lost,
    ];

    /// Nothing comes after a final state (but for a static worker's next allocation).
    #[must_use]
    pub fn is_final(self) -> bool {
        match self {
            Self::Terminated | Self::Failed | Self::Lost => true,
            Self::Provisioning
            | Self::Provisioned
            | Self::Registered
            | Self::RegistrationFailed
            | Self::Terminating => false,
        }
    }

    /// The worker counts towards its pool's size: it is there, or is being made, and is not on its way out.
    #[must_use]
    pub fn counts(self) -> bool {
        match self {
            Self::Provisioning | Self::Provisioned | Self::Registered | Self::RegistrationFailed => true,
            Self::Terminating | Self::Terminated | Self::Failed | Self::Lost => false,
        }
    }

    /// The token in subjects, event types and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Provisioning => "provisioning",
            Self::Provisioned => "provisioned",
            Self::Registered => "registered",
            Self::RegistrationFailed => "registration_failed",
            Self::Terminating => "terminating",
            Self::Terminated => "terminated",
            Self::Failed => "failed",
            Self::Lost => "lost",
        }
    }

    /// Reads the token of a subject.
    #[must_use]
    pub fn from_token(token: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == token)
    }
}

/// How far the scheduler has been told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum RegistrationStatus {
    /// Nobody wants it told.
    Disabled,
    /// Not yet.
    Pending,
    /// Accepted.
    Registered,
    /// Given up, or refused.
    Failed,
}

/// Why the scheduler has not accepted a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RegistrationFault {
    /// The scheduler's code, or ours: `no_responders`, `timeout`, `unreadable`, `busy`, `disconnected`.
    pub code: String,
    /// For people.
    pub message: String,
    /// The scheduler refused it: not tried again.
    pub critical: bool,
}

/// The scheduler's side of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Registration {
    /// How far it has come.
    pub status: RegistrationStatus,
    /// Register requests sent so far; waits for a busy scheduler are not counted.
    pub attempts: u32,
    /// The last refusal or failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<RegistrationFault>,
}

impl Registration {
    /// The scheduler is to be told, or not.
    #[must_use]
    pub fn wanted(enabled: bool) -> Self {
        let status = if enabled { RegistrationStatus::Pending } else { RegistrationStatus::Disabled };
        Self { status, attempts: 0, error: None }
    }
}

/// Who ended a worker and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct EndedBy {
    /// The command that asked for it; absent where enlist itself did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command_id: Option<CommandId>,
    /// The command's words, or enlist's: `unknown`, `orphan`, `exhausted`, `quota`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The last failure of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct WorkerFault {
    /// Its class.
    pub class: ErrorClass,
    /// For people; foreign text, escaped and cut.
    pub message: String,
    /// Whether another try may succeed.
    pub retryable: bool,
}

/// A worker as of one event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Worker {
    /// Its pool.
    pub pool: Pool,
    /// Its name in the pool.
    pub worker_id: WorkerId,
    /// Made, or found.
    pub worker_type: WorkerType,
    /// Where it stands.
    pub state: State,
    /// Number of this event: 1, 2, 3 … without a gap.
    pub rev: u64,
    /// The fence: +1 each time another replica, or another try, takes the worker over.
    pub epoch: u64,
    /// The command that made it.
    pub command_id: CommandId,
    /// That command's own thread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<CorrelationId>,
    /// Fingerprint of that command's content.
    pub spec_hash: SpecHash,
    /// Who ended it, once terminating.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_by: Option<EndedBy>,
    /// The provider that makes it.
    pub provider: String,
    /// The provider's own id, once it exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    /// How to reach it, where there is a way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// What it offers.
    pub capabilities: Capabilities,
    /// The scheduler's side.
    pub registration: Registration,
    /// The last failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<WorkerFault>,
    /// Tries of the present step that ended without progress.
    pub attempts: u32,
    /// When it was claimed.
    #[cfg_attr(test, schemars(with = "String", extend("format" = "date-time")))]
    #[serde(serialize_with = "crate::text::moment")]
    pub created_at: Timestamp,
    /// When this event was written.
    #[cfg_attr(test, schemars(with = "String", extend("format" = "date-time")))]
    #[serde(serialize_with = "crate::text::moment")]
    pub updated_at: Timestamp,
}

impl Worker {
    /// Pool and worker id.
    #[must_use]
    pub fn key(&self) -> WorkerKey {
        WorkerKey::new(self.pool.clone(), self.worker_id.clone())
    }
}
