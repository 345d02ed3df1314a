//! What a provider is asked beside a launch: the one instance, all of them, and the end of one.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::WorkerManagementService;
use crate::domain::{Claim, ErrorClass, Pool, Worker, WorkerKey, WorkerSpec};
use crate::journal::Journal;
use crate::provider::{Instance, ProviderError, WorkerProvider};
use crate::registration::WorkerRegistrationPort;
use crate::telemetry::{Operation, ProviderOutcome};

/// A provider has so long for an answer, however short its time for a launch is.
const SHORTEST: Duration = Duration::from_secs(60);

impl<P: WorkerProvider, R: WorkerRegistrationPort, J: Journal> WorkerManagementService<P, R, J> {
    fn patience(&self) -> Duration {
        self.config.launch_timeout.max(SHORTEST)
    }

    /// The instance of a worker, if there is one.
    pub(super) async fn find_instance(&self, key: &WorkerKey) -> Result<Option<Instance>, ProviderError> {
        let (begun, patience) = (Instant::now(), self.patience());
        let found = timeout(patience, self.provider.find_worker(key))
            .await
            .unwrap_or_else(|_| Err(ProviderError::new(ErrorClass::Timeout, format!("not found within {patience:?}"))));
        self.told(&key.pool, Operation::Find, &found, begun.elapsed());
        found
    }

    /// Every instance of a pool, or an error: half a list would make the other half look gone.
    pub(super) async fn list_instances(&self, pool: &Pool) -> Result<Vec<Instance>, ProviderError> {
        let (begun, patience) = (Instant::now(), self.patience());
        let listed = timeout(patience, self.provider.list_workers(pool)).await.unwrap_or_else(|_| {
            Err(ProviderError::new(ErrorClass::Timeout, format!("not listed within {patience:?}")))
        });
        self.told(pool, Operation::List, &listed, begun.elapsed());
        listed
    }

    /// Removes the instance of a worker that is ending, and no other instance of its name. The provider needs the grace and
    /// some time of its own; a call that hangs is not waited for.
    pub(super) async fn remove_instance(
        &self,
        worker: &Worker,
        instance_id: Option<&str>,
        grace: Duration,
    ) -> Result<(), ProviderError> {
        let begun = Instant::now();
        let patience = grace + self.patience();
        let removed =
            timeout(patience, self.provider.terminate_worker(&worker.key(), instance_id, grace)).await.unwrap_or_else(
                |_| Err(ProviderError::new(ErrorClass::Timeout, format!("not removed within {patience:?}"))),
            );
        self.told(&worker.pool, Operation::Terminate, &removed, begun.elapsed());
        removed
    }

    pub(super) fn told<T>(&self, pool: &Pool, operation: Operation, result: &Result<T, ProviderError>, took: Duration) {
        let (outcome, error) = match result {
            Ok(_) => (ProviderOutcome::Ok, None),
            Err(error) => (ProviderOutcome::from(error.class), Some(error.message.as_str())),
        };
        self.signals(pool).provider_call(operation, outcome, took, error);
    }

    /// What a claim of this instance would have said, as far as the instance itself tells.
    pub(super) fn claim_of(&self, instance: &Instance, spec: &WorkerSpec, registration: bool) -> Claim {
        let mut capabilities = instance.capabilities.clone().unwrap_or_else(|| spec.capabilities());
        capabilities.labels.clone_from(&instance.labels);
        Claim {
            pool: instance.key.pool.clone(),
            worker_id: instance.key.worker_id.clone(),
            worker_type: self.provider.worker_type(),
            command_id: instance.command_id.clone(),
            correlation_id: None,
            spec_hash: instance.spec_hash.clone(),
            provider: self.provider.name().to_owned(),
            capabilities,
            registration,
        }
    }
}
