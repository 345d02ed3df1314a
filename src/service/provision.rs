//! A provision, top to bottom: claim, create, created, register, outcome.

use std::pin::pin;

use futures_util::FutureExt as _;
use futures_util::future::{Either, ready, select};

use super::claim::Position;
use super::hold::{Hold, HoldError};
use super::{DynamicWorkerConfig, Ending, Stop, WorkerManagementService};
use crate::crash::{self, CrashPoint};
use crate::domain::{
    EndedBy, ErrorClass, Reason, Refusal, RegistrationStatus, State, Step, TraceContext, Worker, WorkerType,
};
use crate::journal::{Journal, ReadError};
use crate::mutant::{self, Mutant};
use crate::provider::{Instance, ProviderError, WorkerProvider};
use crate::registration::{RegisterWorker, Registered, RegistrationConfig, WorkerRegistrationPort};

impl<P: WorkerProvider, R: WorkerRegistrationPort, J: Journal> WorkerManagementService<P, R, J> {
    /// One try of a provision. Safe to call again, and at once from several replicas: see [`Ending`].
    ///
    /// `message` is the queue message that carries the command, `None` for a call without a queue.
    pub async fn provision(
        &self,
        order: &DynamicWorkerConfig,
        registration: &RegistrationConfig,
        message: Option<u64>,
    ) -> Ending {
        self.try_provision(order, registration, message).await.into()
    }

    async fn try_provision(
        &self,
        order: &DynamicWorkerConfig,
        registration: &RegistrationConfig,
        message: Option<u64>,
    ) -> Result<Worker, Stop> {
        crash::point(CrashPoint::ProvisionReceived);
        let wanted = registration.enabled && self.registration.is_some();
        let mut hold = match self.claim(order, wanted, message).await? {
            Position::Settled(worker) => return Ok(worker),
            Position::Held(hold) => hold,
        };
        if hold.worker().state == State::Provisioning {
            crash::point(CrashPoint::Claimed);
            // Another try of the message can have refused it: the pool was full, or the command had expired. Under a name of
            // its own the refusal stood in the claim's way; under another it is looked for, where there can be one.
            let refusable = self.config.max_workers.is_some() || order.expires_at.is_some();
            if hold.worker().worker_type == WorkerType::Static || (order.worker_id.is_some() && refusable) {
                Box::pin(self.not_refused(&mut hold, order)).await?;
            }
            self.admit(&mut hold).await?;
            let Some(instance) = self.create(&mut hold, order).await? else {
                return Ok(hold.into_worker());
            };
            crash::point(CrashPoint::Created);
            let told = self.created(&mut hold, instance, registration).await?;
            self.outcome(&mut hold, told).await?;
            return Ok(hold.into_worker());
        }
        // A replica died between `provisioned` and the outcome: the instance is there, the scheduler may have been told.
        let told = Box::pin(self.register(RegisterWorker::of(hold.worker(), hold.trace()), registration)).await;
        self.outcome(&mut hold, Some(told)).await?;
        Ok(hold.into_worker())
    }

    /// Writes `provisioned`, and beside it asks the scheduler for the first time: the request carries the event's own
    /// rev, and if the event loses its race the registration is taken back before anything else.
    pub(super) async fn created(
        &self,
        hold: &mut Hold,
        instance: Instance,
        registration: &RegistrationConfig,
    ) -> Result<Option<Registered>, Stop> {
        let Instance { instance_id, endpoint, capabilities, .. } = instance;
        let step = Step::Created { instance_id: instance_id.clone(), endpoint, capabilities };
        let (next, told) = {
            let next = hold.after(step, self.now())?;
            let told = if next.registration.status == RegistrationStatus::Disabled {
                Either::Left(ready(None))
            } else {
                let announced = RegisterWorker::of(&next, hold.trace());
                // Boxed: without it every command in hand would carry the room for it from its claim on.
                Either::Right(Box::pin(self.register(announced, registration)).map(Some))
            };
            (next, told)
        };
        let both = match select(pin!(hold.store(&self.journal, next)), told).await {
            Either::Left((Ok(()), told)) => {
                crash::point(CrashPoint::CreatedStored);
                Ok(told.await)
            }
            // The request under way is dropped here and taken back below.
            Either::Left((Err(error), _)) => Err(error),
            Either::Right((told, stored)) => stored.await.map(|()| told),
        };
        match both {
            Ok(told) => Ok(told),
            Err(error) => self.or_undo(hold, Err(error), Some(&instance_id)).await.map(|()| None),
        }
    }

    /// Writes the outcome; with registration off it is `provisioned`, which stands already.
    pub(super) async fn outcome(&self, hold: &mut Hold, told: Option<Registered>) -> Result<(), Stop> {
        if let Some(told) = told {
            let (attempts, fault) = (told.attempts, told.fault());
            crash::point(CrashPoint::Registered);
            let step = match fault.clone().filter(|_| !mutant::on(Mutant::AlwaysRegistered)) {
                None => Step::Registered { attempts },
                Some(fault) => Step::RegistrationFailed { attempts, fault },
            };
            let stored = hold.advance(&self.journal, step, self.now()).await;
            let instance_id = hold.worker().instance_id.clone();
            self.or_undo(hold, stored, instance_id.as_deref()).await?;
            // Told only once the outcome is the record, so that counter and log agree with it.
            let signals = self.signals(&hold.worker().pool);
            match &fault {
                None => signals.worker_registered(hold.worker()),
                Some(fault) => signals.registration_failed(hold.worker(), fault),
            }
        }
        crash::point(CrashPoint::OutcomeStored);
        Ok(())
    }

    /// What a refused write means on the way of a provision. Whoever wrote in between either goes on with the same
    /// command, and then this try has nothing left to do, or ends the worker, and then what this try has made must go.
    pub(super) async fn or_undo(
        &self,
        hold: &Hold,
        stored: Result<(), HoldError>,
        instance_id: Option<&str>,
    ) -> Result<(), Stop> {
        match stored {
            Ok(()) => Ok(()),
            // Rare, and larger than the way above: not carried along by every command in hand.
            Err(HoldError::Lost) => Box::pin(self.overtaken(hold, instance_id)).await,
            Err(HoldError::Away(_)) if mutant::on(Mutant::UnavailableIsStored) => Ok(()),
            Err(HoldError::Away(why)) => Err(Stop::Later(why)),
            Err(HoldError::Refused(refused)) => Err(Stop::Later(refused.to_string())),
        }
    }

    async fn overtaken(&self, hold: &Hold, instance_id: Option<&str>) -> Result<(), Stop> {
        let Some(head) = self.journal.head(&hold.worker().key()).await? else {
            return Err(Stop::Later("the worker's events are gone from the log".into()));
        };
        let passed_on = || {
            if hold.is_passed_on_to(&head) { Stop::Superseded } else { Stop::Wait("another command has the worker") }
        };
        if head.worker.command_id != hold.worker().command_id {
            return Err(passed_on());
        }
        match head.worker.state {
            State::Terminating | State::Terminated | State::Failed | State::Lost => {
                self.undo(&head.worker, hold.trace(), instance_id).await?;
                // Not acked before the final event is stored: the next delivery finds it, or waits on.
                Err(Stop::Wait("the worker was terminated while it was being provisioned"))
            }
            State::Provisioning | State::Provisioned | State::Registered | State::RegistrationFailed => {
                Err(passed_on())
            }
        }
    }

    /// Takes back what a provision may have done to a worker that is ending or has ended: the scheduler first, under
    /// the ending's own epoch, then the instance. The other side does the same; both are idempotent.
    pub(super) async fn undo(
        &self,
        ending: &Worker,
        trace: Option<&TraceContext>,
        instance_id: Option<&str>,
    ) -> Result<(), Stop> {
        if mutant::on(Mutant::NothingTakenBack) {
            return Ok(());
        }
        // A registration that is on record was on record before the terminate, which takes it back itself; but until that has
        // removed the instance, it may not have come so far.
        let told = match ending.registration.status {
            RegistrationStatus::Disabled => false,
            RegistrationStatus::Pending => true,
            RegistrationStatus::Registered | RegistrationStatus::Failed => ending.state == State::Terminating,
        };
        if told {
            self.unregister(ending, trace, self.config.grace, true).await;
            crash::point(CrashPoint::UndoUnregistered);
        }
        self.remove_instance(ending, instance_id, self.config.grace).await?;
        Ok(())
    }

    /// Ends a worker for a reason of enlist's own, and the command with a dead letter. The record says which command
    /// and why, so that whoever finds it after a crash between the two sends the dead letter.
    pub(super) async fn close(&self, hold: &mut Hold, refusal: Refusal) -> Result<(), Stop> {
        let order = EndedBy {
            command_id: Some(hold.worker().command_id.clone()),
            reason: Some(refusal.reason.as_str().to_owned()),
        };
        if hold.worker().state != State::Terminating {
            let stored = hold.advance(&self.journal, Step::Terminate(order), self.now()).await;
            let instance_id = hold.worker().instance_id.clone();
            self.or_undo(hold, stored, instance_id.as_deref()).await?;
        }
        match self.finish(hold, self.config.grace, true).await {
            // The instance that cannot be removed is the sweep's from here on; the command ends as its record says.
            Ok(()) | Err(Stop::Refused(_)) => Err(Stop::Refused(refusal)),
            Err(other) => Err(other),
        }
    }

    /// Holds the pool's limit: of all live workers, the first `max_workers` in the order of the log stay.
    async fn admit(&self, hold: &mut Hold) -> Result<(), Stop> {
        let Some(max) = self.config.max_workers else { return Ok(()) };
        match self.journal.admits(&hold.worker().key(), hold.sequence(), max).await {
            Ok(true) => Ok(()),
            Ok(false) if mutant::on(Mutant::NotAdmitted) => Ok(()),
            Ok(false) => Box::pin(self.not_admitted(hold, max)).await,
            Err(error) => Box::pin(self.not_judged(hold, error)).await,
        }
    }

    /// Makes it part of the record that the try ended for no fault of the command's: the next one would count it otherwise,
    /// and a feed that trails for a minute would exhaust every command of the pool.
    async fn not_judged(&self, hold: &mut Hold, error: ReadError) -> Result<(), Stop> {
        self.stalled(hold, &ProviderError::new(ErrorClass::Unavailable, error.to_string()), false).await?;
        Err(error.into())
    }

    async fn not_admitted(&self, hold: &mut Hold, max: usize) -> Result<(), Stop> {
        let refusal = Self::pool_is_full(hold.worker().pool.as_str(), max);
        if mutant::on(Mutant::RefusedWithoutRecord) {
            return Err(Stop::Refused(refusal));
        }
        if hold.worker().epoch > 1 {
            // An earlier try may have been admitted, say under a higher limit, and have made an instance before it died.
            return self.close(hold, refusal).await;
        }
        let step = Step::Terminate(EndedBy {
            command_id: Some(hold.worker().command_id.clone()),
            reason: Some(Reason::Quota.as_str().to_owned()),
        });
        let stored = hold.advance(&self.journal, step, self.now()).await;
        self.or_undo(hold, stored, None).await?;
        let stored = hold.advance(&self.journal, Step::Terminated, self.now()).await;
        self.or_undo(hold, stored, None).await?;
        Err(Stop::Refused(refusal))
    }

    pub(super) fn pool_is_full(pool: &str, max: usize) -> Refusal {
        Refusal::new(Reason::Quota, format!("pool {pool} is full: max_workers is {max}, and as many are live"))
    }
}
