//! Makers of workers, behind one contract about repetition.

pub mod any;
pub mod contract;
pub mod docker;
pub mod external;
pub mod null;
mod off_thread;
pub mod process;
mod recorded;
pub mod static_hosts;

use std::future::Future;
use std::time::Duration;

use jiff::Timestamp;

use crate::domain::{
    Capabilities, Claimed, CommandId, ErrorClass, Labels, Pool, SpecHash, TraceContext, WorkerFault, WorkerId,
    WorkerKey, WorkerSpec, WorkerType,
};

/// What a provider is asked to make.
#[derive(Debug, Clone)]
pub struct LaunchRequest {
    /// The key of the instance: the same key never makes a second one.
    pub key: WorkerKey,
    /// The command that asks.
    pub command_id: CommandId,
    /// Fingerprint of that command's content.
    pub spec_hash: SpecHash,
    /// The fence under which the call is made.
    pub epoch: u64,
    /// The worker's claim. The instance keeps it, so that a log that does not reach so far, or has
    /// another worker's event there, is known to have been rolled back.
    pub claim: Claimed,
    /// What to make.
    pub spec: WorkerSpec,
    /// The trace that the command is part of: the worker finds it in its environment, where it has one.
    pub trace: Option<TraceContext>,
}

/// An instance as its provider knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Instance {
    /// Which worker it is.
    pub key: WorkerKey,
    /// The provider's own id: another instance of the same key has another one.
    pub instance_id: String,
    /// How to reach it, where there is a way.
    pub endpoint: Option<String>,
    /// What it offers, where the provider knows better than the specification.
    pub capabilities: Option<Capabilities>,
    /// The command that made it, read back from the provider.
    pub command_id: CommandId,
    /// That command's fingerprint, read back from the provider.
    pub spec_hash: SpecHash,
    /// The epoch under which it was made.
    pub epoch: u64,
    /// Its worker's claim, read back from the provider; `None` where an older version made it.
    pub claim: Option<Claimed>,
    /// The worker's own labels, read back from the provider.
    pub labels: Labels,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Why a provider did not do as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", class.as_str())]
pub struct ProviderError {
    /// What kind of failure, and so what to do about it.
    pub class: ErrorClass,
    /// The provider's own words; foreign text, so callers escape and cut it.
    pub message: String,
}

impl ProviderError {
    /// An error of a class.
    pub fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        Self { class, message: message.into() }
    }

    /// As it goes into the record.
    #[must_use]
    pub fn fault(&self) -> WorkerFault {
        WorkerFault {
            class: self.class,
            message: crate::text::cut(&self.message, 500),
            retryable: self.class.retryable(),
        }
    }
}

/// Makes and removes workers.
///
/// The contract, which one suite holds against every provider:
/// - `create_worker` called again with the same key returns the instance made the first time, also by another replica
///   and after a crash half-way, as long as command and fingerprint agree; otherwise it fails with `conflict` and
///   touches nothing. An instance that is adopted so stays as it was made, with the epoch and the claim of the first call.
///   Any number of concurrent calls with one key make one instance. A call that fails with a class that
///   is final leaves nothing behind.
/// - An instance that ended by itself is no instance: it is neither found nor listed. Its traces may stay until
///   `terminate_worker`, and until then its key still belongs to its command: the same command makes a new instance with
///   another id, another command is a `conflict`.
/// - `terminate_worker` returns `Ok` only when no instance of the key is left; one that was never there is `Ok`. With an
///   instance id it touches no other live instance: where another one lives under the key, that one is left alone and the
///   call fails with `conflict`. It may be called any number of times, at once too.
/// - `list_workers` is complete for this fleet and pool, or an error; and so is what `scan_workers` tells.
///
/// A provider whose `worker_type` is `Static` makes nothing, and what is allocated stands in the record alone: there
/// `create_worker` hands out the named host whoever asks, `terminate_worker` is always `Ok`, and nothing is ever found or
/// listed. What it has, its `inventory` says; the sweep compares lists for dynamic workers only.
pub trait WorkerProvider: Send + Sync + 'static {
    /// Its name in settings, events and metrics.
    fn name(&self) -> &'static str;

    /// Whether its workers are made or found.
    fn worker_type(&self) -> WorkerType {
        WorkerType::Dynamic
    }

    /// The only names that it can provide, in the order of preference; `None` where any name will do.
    fn inventory(&self) -> Option<Vec<WorkerId>> {
        None
    }

    /// Makes the instance, or finds the one that was made before.
    fn create_worker(&self, request: &LaunchRequest) -> impl Future<Output = Result<Instance, ProviderError>> + Send;

    /// Removes the instance: asks it to end, waits up to `grace`, then ends it.
    fn terminate_worker(
        &self,
        key: &WorkerKey,
        instance_id: Option<&str>,
        grace: Duration,
    ) -> impl Future<Output = Result<(), ProviderError>> + Send;

    /// The instance of a key, if there is one.
    fn find_worker(&self, key: &WorkerKey) -> impl Future<Output = Result<Option<Instance>, ProviderError>> + Send;

    /// Every instance of this fleet and pool.
    fn list_workers(&self, pool: &Pool) -> impl Future<Output = Result<Vec<Instance>, ProviderError>> + Send;

    /// The same, one by one: a provider whose list comes in parts never holds it whole. After an error, what was told of is
    /// not all.
    fn scan_workers(
        &self,
        pool: &Pool,
        take: &mut (dyn FnMut(Instance) + Send),
    ) -> impl Future<Output = Result<(), ProviderError>> + Send {
        async move {
            self.list_workers(pool).await?.into_iter().for_each(take);
            Ok(())
        }
    }
}
