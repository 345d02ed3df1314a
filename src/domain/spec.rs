//! What a worker is made of: the pool's template with the command's permitted overrides laid over it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Names and values that travel with a worker.
pub type Labels = BTreeMap<String, String>;

/// A worker's specification after the pool's template and the command's overrides have been merged.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct WorkerSpec {
    /// Container image, for providers that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Program and arguments; empty means the image's own.
    #[serde(default)]
    pub command: Vec<String>,
    /// Environment of the worker. May hold secrets: never logged, never in an event.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Labels of the worker.
    #[serde(default)]
    pub labels: Labels,
    /// Cores, fractions allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<f64>,
    /// Memory in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u64>,
    /// Whole accelerators.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpus: Option<u32>,
}

impl std::fmt::Debug for WorkerSpec {
    /// Environment values may be secrets, so only their names show.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { image, command, env, labels, cpus, memory_mb, gpus } = self;
        f.debug_struct("WorkerSpec")
            .field("image", image)
            .field("command", &command.first())
            .field("env", &env.keys().collect::<Vec<_>>())
            .field("labels", labels)
            .field("cpus", cpus)
            .field("memory_mb", memory_mb)
            .field("gpus", gpus)
            .finish()
    }
}

impl WorkerSpec {
    /// What the scheduler is told that this worker can do.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        Capabilities { cpus: self.cpus, memory_mb: self.memory_mb, gpus: self.gpus, labels: self.labels.clone() }
    }
}

/// What a worker offers to the scheduler.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Capabilities {
    /// Cores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<f64>,
    /// Memory in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u64>,
    /// Whole accelerators.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpus: Option<u32>,
    /// The worker's labels.
    #[serde(default)]
    pub labels: Labels,
}

/// Fingerprint of a command's content: the same command id with another fingerprint is a conflict.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct SpecHash(String);

impl SpecHash {
    /// The first 128 bits of SHA-256 over the canonical content, in lower-case hex.
    #[must_use]
    pub fn of(canonical: &[u8]) -> Self {
        Self(data_encoding::HEXLOWER.encode(&Sha256::digest(canonical)[..16]))
    }

    /// A fingerprint that was read back from where it had been written, say a provider's label.
    #[must_use]
    pub fn from_recorded(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The fingerprint as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
