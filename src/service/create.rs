//! The provider's part: make the instance, or learn why not and what now.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::hold::Hold;
use super::{DynamicWorkerConfig, Stop, WorkerManagementService};
use crate::domain::{ErrorClass, MAX_IDLE_TRIES, Pool, Standing, Step, Worker};
use crate::journal::Journal;
use crate::provider::{Instance, LaunchRequest, ProviderError, WorkerProvider};
use crate::registration::WorkerRegistrationPort;
use crate::telemetry::{Operation, ProviderOutcome};

/// A provider has so long for a removal, however short its time for a launch is.
const SHORTEST_REMOVAL: Duration = Duration::from_secs(60);

impl<P: WorkerProvider, R: WorkerRegistrationPort, J: Journal> WorkerManagementService<P, R, J> {
    /// Asks the provider. `None` where the worker has failed for good, which is then the record.
    pub(super) async fn create(&self, hold: &mut Hold, order: &DynamicWorkerConfig) -> Result<Option<Instance>, Stop> {
        let worker = hold.worker();
        let request = LaunchRequest {
            key: worker.key(),
            command_id: worker.command_id.clone(),
            spec_hash: worker.spec_hash.clone(),
            epoch: worker.epoch,
            claim: hold.claim(),
            spec: order.spec.clone(),
        };
        let begun = Instant::now();
        let made =
            timeout(self.config.launch_timeout, self.provider.create_worker(&request)).await.unwrap_or_else(|_| {
                // The instance may come to be after all: the next try looks it up by its key.
                let message = format!("not made within launch_timeout ({:?})", self.config.launch_timeout);
                Err(ProviderError::new(ErrorClass::Timeout, message))
            });
        self.told(&order.pool, Operation::Create, &made, begun.elapsed());
        match made {
            Ok(instance) => Ok(Some(instance)),
            Err(error) => Box::pin(self.not_created(hold, error)).await.map(|()| None),
        }
    }

    /// `Ok` where the worker has failed for good, which is then the record.
    async fn not_created(&self, hold: &mut Hold, error: ProviderError) -> Result<(), Stop> {
        match error.class.standing() {
            Standing::Final => {
                let stored = hold.advance(&self.journal, Step::Fail(error.fault()), self.now()).await;
                self.or_undo(hold, stored, None).await?;
                if hold.worker().epoch > 1 {
                    // An earlier try may have come further than this one, and died before it could write so.
                    self.undo(hold.worker(), None).await?;
                }
                Ok(())
            }
            Standing::Counted if hold.worker().attempts + 1 >= MAX_IDLE_TRIES => {
                self.stalled(hold, &error, true).await?;
                let refusal = Self::exhausted(hold.worker());
                self.close(hold, refusal).await
            }
            Standing::Counted => {
                self.stalled(hold, &error, true).await?;
                Err(error.into())
            }
            Standing::Patient => {
                self.stalled(hold, &error, false).await?;
                Err(error.into())
            }
        }
    }

    /// Makes a failure that will be tried again part of the record, so that the next try, and whoever watches, knows.
    pub(super) async fn stalled(&self, hold: &mut Hold, error: &ProviderError, counted: bool) -> Result<(), Stop> {
        let step = Step::Stalled { fault: error.fault(), counted };
        let stored = hold.advance(&self.journal, step, self.now()).await;
        self.or_undo(hold, stored, None).await
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
        let patience = grace + self.config.launch_timeout.max(SHORTEST_REMOVAL);
        let removed =
            timeout(patience, self.provider.terminate_worker(&worker.key(), instance_id, grace)).await.unwrap_or_else(
                |_| Err(ProviderError::new(ErrorClass::Timeout, format!("not removed within {patience:?}"))),
            );
        self.told(&worker.pool, Operation::Terminate, &removed, begun.elapsed());
        removed
    }

    fn told<T>(&self, pool: &Pool, operation: Operation, result: &Result<T, ProviderError>, took: Duration) {
        let (outcome, error) = match result {
            Ok(_) => (ProviderOutcome::Ok, None),
            Err(error) => (ProviderOutcome::from(error.class), Some(error.message.as_str())),
        };
        self.signals(pool).provider_call(operation, outcome, took, error);
    }
}
