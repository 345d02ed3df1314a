//! Requests to an external provider and its answers.
//!
//! Both sides pass over fields that they do not know: the two are upgraded on different days.

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::scheduler::{Unreadable, message, read};
use super::to_json;
use crate::domain::{
    Capabilities, Claimed, CommandId, ErrorClass, Labels, Pool, Prefix, SpecHash, WorkerId, WorkerSpec,
};

/// Asks for a worker. The same fleet, pool and worker id never makes a second instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CreateRequest {
    /// The fleet: one provider may serve several.
    pub fleet: Prefix,
    /// The worker's pool.
    pub pool: Pool,
    /// Its name in the pool.
    pub worker_id: WorkerId,
    /// The command that asks; kept with the instance.
    pub command_id: CommandId,
    /// Fingerprint of that command's content; kept with the instance.
    pub spec_hash: SpecHash,
    /// The fence under which this is asked; kept with the instance.
    pub epoch: u64,
    /// The place of the worker's claim in the log; kept with the instance.
    #[cfg_attr(test, schemars(with = "String"))]
    pub claim: Claimed,
    /// What to make.
    pub spec: WorkerSpec,
    /// After this moment nobody waits for the instance: a create that is begun later makes an orphan.
    #[cfg_attr(test, schemars(with = "String", extend("format" = "date-time")))]
    pub expires_at: Timestamp,
}

/// Asks for an instance's end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DeleteRequest {
    /// The fleet.
    pub fleet: Prefix,
    /// The worker's pool.
    pub pool: Pool,
    /// Its name in the pool.
    pub worker_id: WorkerId,
    /// The instance that is meant: another one under the name is a `conflict`. Whichever there is, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    /// How long it may take to end by itself, in milliseconds.
    pub grace_ms: u64,
}

/// Asks which instances a pool has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct InstancesRequest {
    /// The fleet.
    pub fleet: Prefix,
    /// The pool.
    pub pool: Pool,
    /// Of this worker only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_id: Option<WorkerId>,
    /// Instances on a page at most.
    #[cfg_attr(test, schemars(range(min = 1)))]
    pub limit: u32,
    /// The `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// An answer to any of the three.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum ProviderReply<T> {
    /// Not the answer but a heartbeat: it is being worked on, and another reply will follow on the same subject.
    Working,
    /// It is as was asked.
    Done(T),
    /// It is not.
    Failed {
        /// Why.
        error: Failure,
    },
}

/// Why a provider has not done as it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Failure {
    /// What kind of failure, and so what is done about it.
    pub class: ErrorClass,
    /// The provider's words; no secrets, as they go into the record.
    #[serde(default)]
    pub message: String,
}

/// The instance was made, or was there already.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Created {
    /// It.
    pub instance: InstanceRecord,
}

/// No instance of the name is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Deleted {}

/// A page of instances.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct InstancesPage {
    /// The instances that run.
    pub instances: Vec<InstanceRecord>,
    /// Where the next page begins; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// An instance as its provider tells it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct InstanceRecord {
    /// The worker's pool.
    pub pool: Pool,
    /// Its name in the pool.
    pub worker_id: WorkerId,
    /// The provider's own id: another instance of the same name has another one.
    #[cfg_attr(test, schemars(length(min = 1)))]
    pub instance_id: String,
    /// How to reach it, where there is a way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// What it offers, where the provider knows better than the specification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
    /// As the create said.
    pub command_id: CommandId,
    /// As the create said.
    pub spec_hash: SpecHash,
    /// As the create said.
    pub epoch: u64,
    /// As the create said.
    #[cfg_attr(test, schemars(with = "String"))]
    pub claim: Claimed,
    /// As the create said.
    #[serde(default)]
    pub labels: Labels,
    /// When it was made.
    #[cfg_attr(test, schemars(with = "String", extend("format" = "date-time")))]
    pub created_at: Timestamp,
}

message!(CreateRequest, "create request");
message!(DeleteRequest, "delete request");
message!(InstancesRequest, "list request");

impl<T: Serialize + DeserializeOwned> ProviderReply<T> {
    /// The body to send.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        to_json(self, 512)
    }

    /// Reads a body. Never panics, whatever the bytes.
    pub fn decode(body: &[u8]) -> Result<Self, Unreadable> {
        read("answer of the provider", body)
    }
}
