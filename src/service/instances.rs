//! What a provider is asked beside a launch: the one instance, all of them, and the end of one.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::WorkerManagementService;
use crate::domain::{Claim, ErrorClass, Pool, Worker, WorkerKey, WorkerSpec};
use crate::journal::Journal;
use crate::provider::{Instance, ProviderError, WorkerProvider};
use crate::registration::WorkerRegistrationPort;
use crate::telemetry::{Operation, ProviderOutcome, in_provider_span};

/// A provider has so long for an answer, however short its time for a launch is.
const SHORTEST: Duration = Duration::from_secs(60);

impl<P: WorkerProvider, R: WorkerRegistrationPort, J: Journal> WorkerManagementService<P, R, J> {
    fn patience(&self) -> Duration {
        self.config.launch_timeout.max(SHORTEST)
    }

    /// One call of the provider: it ends in time, whatever the provider does, and is told.
    pub(super) async fn ask<T>(
        &self,
        pool: &Pool,
        operation: Operation,
        patience: Duration,
        call: impl Future<Output = Result<T, ProviderError>>,
        late: impl FnOnce() -> String,
    ) -> Result<T, ProviderError> {
        let begun = Instant::now();
        let answer = timeout(patience, in_provider_span(operation, call))
            .await
            .unwrap_or_else(|_| Err(ProviderError::new(ErrorClass::Timeout, late())));
        let (outcome, error) = match &answer {
            Ok(_) => (ProviderOutcome::Ok, None),
            Err(error) => (ProviderOutcome::from(error.class), Some(error.message.as_str())),
        };
        self.signals(pool).provider_call(operation, outcome, begun.elapsed(), error);
        answer
    }

    /// The instance of a worker, if there is one.
    pub(super) async fn find_instance(&self, key: &WorkerKey) -> Result<Option<Instance>, ProviderError> {
        let patience = self.patience();
        let call = self.provider.find_worker(key);
        self.ask(&key.pool, Operation::Find, patience, call, || format!("not found within {patience:?}")).await
    }

    /// Every instance of a pool, or an error: half a list would make the other half look gone.
    pub(super) async fn list_instances(&self, pool: &Pool) -> Result<Vec<Instance>, ProviderError> {
        let patience = self.patience();
        let call = self.provider.list_workers(pool);
        self.ask(pool, Operation::List, patience, call, || format!("not listed within {patience:?}")).await
    }

    /// The same, one by one: after an error, what was told of is not all.
    pub(super) async fn scan_instances(
        &self,
        pool: &Pool,
        take: &mut (dyn FnMut(Instance) + Send),
    ) -> Result<(), ProviderError> {
        let patience = self.patience();
        let call = self.provider.scan_workers(pool, take);
        self.ask(pool, Operation::List, patience, call, || format!("not listed within {patience:?}")).await
    }

    /// Removes the instance of a worker that is ending, and no other instance of its name. The provider needs the grace and
    /// some time of its own; a call that hangs is not waited for.
    pub(super) async fn remove_instance(
        &self,
        worker: &Worker,
        instance_id: Option<&str>,
        grace: Duration,
    ) -> Result<(), ProviderError> {
        let (key, patience) = (worker.key(), grace + self.patience());
        let call = self.provider.terminate_worker(&key, instance_id, grace);
        self.ask(&key.pool, Operation::Terminate, patience, call, || format!("not removed within {patience:?}")).await
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
