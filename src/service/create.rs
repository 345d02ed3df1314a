//! The provider's part: make the instance, or learn why not and what now.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use super::gate::Turn;
use super::hold::Hold;
use super::pace::HeldOff;
use super::{DynamicWorkerConfig, Stop, WorkerManagementService};
use crate::domain::{Claimed, ErrorClass, MAX_IDLE_TRIES, Standing, Step};
use crate::journal::Journal;
use crate::provider::{Instance, LaunchRequest, ProviderError, WorkerProvider};
use crate::registration::WorkerRegistrationPort;
use crate::telemetry::Operation;
use crate::text::cut;

/// Of an error's own words, so that what is added is not cut off.
const MOST_SAID: usize = 400;

impl<P: WorkerProvider, R: WorkerRegistrationPort, J: Journal> WorkerManagementService<P, R, J> {
    /// Asks the provider. `None` where the worker has failed for good, which is then the record.
    pub(super) async fn create(&self, hold: &mut Hold, order: &DynamicWorkerConfig) -> Result<Option<Instance>, Stop> {
        let worker = hold.worker();
        let request = LaunchRequest {
            key: worker.key(),
            command_id: worker.command_id.clone(),
            spec_hash: worker.spec_hash.clone(),
            epoch: worker.epoch,
            claim: Claimed { sequence: hold.claim(), at: worker.created_at },
            spec: order.spec.clone(),
            trace: hold.trace().cloned(),
        };
        let paced = self.of(&order.pool, |pool| Arc::clone(&pool.paced));
        let trial = match paced.call() {
            Ok(trial) => trial,
            Err(held_off) => return Err(Box::pin(self.held_off(hold, held_off)).await),
        };
        let patience = self.config.launch_timeout;
        // An instance that is late may come to be after all: the next try looks it up by its key.
        let late = || format!("not made within launch_timeout ({patience:?})");
        // Pinned here: handed on by value, every command in hand would have the room for it twice.
        let call = pin!(self.provider.create_worker(&request));
        let made = self.ask(&order.pool, Operation::Create, patience, call, late).await;
        match (trial.ended(&made, self.chance()), &made) {
            (Turn::None, _) => {}
            (Turn::Opens, _) => self.signals(&order.pool).holds_off(None),
            (Turn::HoldsOff(length), made) => {
                let why = made.as_ref().err().map_or("", |error| &error.message);
                self.signals(&order.pool).holds_off(Some((length, why)));
            }
        }
        match made {
            Ok(instance) => Ok(Some(instance)),
            Err(mut error) => {
                if let Some(left) = paced.left().filter(|_| error.class.holds_off()) {
                    let (pool, said) = (&order.pool, cut(&error.message, MOST_SAID));
                    error.message = format!("{said}; pool {pool} holds off for {}", in_seconds(left));
                }
                Box::pin(self.not_created(hold, error)).await.map(|()| None)
            }
        }
    }

    /// Nothing is asked of a provider that fails every create. It is no fault of the command's, and does not count.
    async fn held_off(&self, hold: &mut Hold, HeldOff { left, why }: HeldOff) -> Stop {
        let pool = hold.worker().pool.clone();
        let message = match left {
            Some(left) => format!("pool {pool} holds off for another {}: {why}", in_seconds(left)),
            None => format!("pool {pool} tries another create first: {why}"),
        };
        let error = ProviderError::new(ErrorClass::Unavailable, message);
        match self.stalled(hold, &error, false).await {
            Ok(()) => error.into(),
            Err(stop) => stop,
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
                    self.undo(hold.worker(), hold.trace(), None).await?;
                }
                Ok(())
            }
            Standing::Counted if hold.worker().attempts + 1 >= MAX_IDLE_TRIES => {
                self.stalled(hold, &error, true).await?;
                let refusal = Self::exhausted(hold.worker());
                self.close(hold, refusal).await
            }
            standing @ (Standing::Counted | Standing::Patient) => {
                self.stalled(hold, &error, standing == Standing::Counted).await?;
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
}

/// For people: whole seconds, upwards.
fn in_seconds(duration: Duration) -> String {
    format!("{} s", duration.as_millis().div_ceil(1000))
}
