//! A terminate, top to bottom: terminating, unregister, remove, terminated.

use std::time::Duration;

use super::hold::{Hold, HoldError};
use super::{Ending, Stop, TerminateWorkerConfig, WorkerManagementService};
use crate::crash::{self, CrashPoint};
use crate::domain::{
    Capabilities, Claim, EndedBy, ErrorClass, MAX_IDLE_TRIES, RegistrationStatus, Standing, State, Step, Worker,
    WorkerKey, WorkerSpec, WorkerType,
};
use crate::journal::{Entry, Journal, Writer};
use crate::mutant::{self, Mutant};
use crate::provider::{Instance, ProviderError, WorkerProvider};
use crate::registration::WorkerRegistrationPort;

/// How often the head may change under a terminate before it comes back later.
const ROUNDS: usize = 8;

impl<P: WorkerProvider, R: WorkerRegistrationPort, J: Journal> WorkerManagementService<P, R, J> {
    /// One try of a terminate. Safe to call again, and at once from several replicas: see [`Ending`].
    ///
    /// `message` is the queue message that carries the command, `None` for a call without a queue.
    pub async fn terminate(&self, order: &TerminateWorkerConfig, message: Option<u64>) -> Ending {
        self.try_terminate(order, message).await.into()
    }

    async fn try_terminate(&self, order: &TerminateWorkerConfig, message: Option<u64>) -> Result<Worker, Stop> {
        crash::point(CrashPoint::TerminateReceived);
        let key = WorkerKey::new(order.pool.clone(), order.worker_id.clone());
        for _ in 0..ROUNDS {
            let stored = match self.journal.head(&key).await? {
                None => self.never_was(order, message).await?,
                Some(head) if head.worker.state.is_final() => return Ok(head.worker),
                Some(head) => match Box::pin(self.ended_before(order, &head)).await? {
                    Some(worker) => return Ok(worker),
                    None => self.terminating(order, head, message).await?,
                },
            };
            match stored {
                Ok(hold) if hold.worker().state.is_final() => return Ok(hold.into_worker()),
                Ok(mut hold) => {
                    crash::point(CrashPoint::TerminatingStored);
                    self.finish(&mut hold, order.grace.unwrap_or(self.config.grace), order.force).await?;
                    return Ok(hold.into_worker());
                }
                // A step of the provision, or another terminate, came first: look again.
                Err(HoldError::Lost) => {}
                Err(HoldError::Away(why)) => return Err(Stop::Later(why)),
                Err(HoldError::Refused(refused)) => return Err(Stop::Later(refused.to_string())),
            }
        }
        Err(Stop::Later("the worker's record keeps changing".into()))
    }

    /// Leaves a record where there is none, so that a provision that arrives later is refused: a final one, or, where the
    /// log has lost the record of an instance that lives, one of a worker on its way out.
    async fn never_was(
        &self,
        order: &TerminateWorkerConfig,
        message: Option<u64>,
    ) -> Result<Result<Hold, HoldError>, Stop> {
        self.not_expired(order.expires_at)?;
        let key = WorkerKey::new(order.pool.clone(), order.worker_id.clone());
        let worker = if let Some(instance) = self.find_instance(&key).await? {
            let claim = self.claim_of(&instance, &WorkerSpec::default(), self.registration.is_some());
            let ended_by = EndedBy { command_id: Some(order.command_id.clone()), reason: order.reason.clone() };
            let Instance { epoch, instance_id, .. } = instance;
            Worker::unrecorded(claim, epoch.saturating_add(1), instance_id, ended_by, self.now())
        } else {
            Worker::never_was(self.claim_of_none(key, order), self.now())
        };
        Ok(Hold::open(&self.journal, worker, 0, self.writer_in(order.trace.as_ref(), message))
            .await
            .map_err(HoldError::from))
    }

    fn claim_of_none(&self, key: WorkerKey, order: &TerminateWorkerConfig) -> Claim {
        let WorkerKey { pool, worker_id } = key;
        Claim {
            pool,
            worker_id,
            worker_type: self.provider.worker_type(),
            command_id: order.command_id.clone(),
            correlation_id: order.correlation_id.clone(),
            spec_hash: order.spec_hash.clone(),
            provider: self.provider.name().to_owned(),
            capabilities: Capabilities::default(),
            registration: false,
        }
    }

    /// What this very terminate has ended already, where the host has another worker by now: coming again, it must not end
    /// that one as well.
    async fn ended_before(&self, order: &TerminateWorkerConfig, head: &Entry) -> Result<Option<Worker>, Stop> {
        if head.worker.worker_type != WorkerType::Static {
            return Ok(None);
        }
        let by_order = |ended: &EndedBy| ended.command_id.as_ref() == Some(&order.command_id);
        let history = self.journal.history(&head.worker.key()).await?;
        let mut ended = history.into_iter().rev().map(|entry| entry.worker).filter(|worker| worker.state.is_final());
        Ok(ended.find(|worker| worker.ended_by.as_ref().is_some_and(by_order)))
    }

    /// Makes `terminating` the record under a new epoch: from here on no other try can bring the worker further up.
    async fn terminating(
        &self,
        order: &TerminateWorkerConfig,
        head: Entry,
        message: Option<u64>,
    ) -> Result<Result<Hold, HoldError>, Stop> {
        let (made_by, ours) = (&head.worker.provider, self.provider.name());
        if made_by != ours {
            // Ours would say that there is nothing to remove, and what the other has made would run on for nobody.
            return Err(Stop::Later(format!("provider {made_by} has made the worker, and the pool has {ours} now")));
        }
        let step = if head.worker.state == State::Terminating {
            // Who forces does not wait for another's drain: the epoch tells which of the two may write the end.
            if !order.force && !self.may_take_over(&head, message) {
                return Err(Stop::Wait("another command is terminating the worker"));
            }
            Step::TakeOver
        } else {
            self.not_expired(order.expires_at)?;
            Step::Terminate(EndedBy { command_id: Some(order.command_id.clone()), reason: order.reason.clone() })
        };
        // What another command has tried in vain does not exhaust this one: a terminate that is sent once the fault is
        // mended has a try at least.
        let tried_before = message.is_some() && head.writer.message == message;
        // Not what the record carries: that is the trace of the command that made the worker, or of another terminate.
        let head = Entry { writer: Writer { trace: order.trace.clone(), ..head.writer }, ..head };
        let mut hold = Hold::resume(head, self.writer(message));
        let next = hold.after(step, self.now())?;
        if tried_before && next.attempts >= MAX_IDLE_TRIES {
            return Err(Self::exhausted(hold.worker()).into());
        }
        let stored = hold.store(&self.journal, next).await;
        Ok(stored.map(|()| hold))
    }

    /// From `terminating` to `terminated`: the scheduler is told before the instance goes, so that it sends no work to
    /// what is about to end; or its patience is over.
    pub(super) async fn finish(&self, hold: &mut Hold, grace: Duration, force: bool) -> Result<(), Stop> {
        let registers = hold.worker().registration.status != RegistrationStatus::Disabled;
        if registers && !mutant::on(Mutant::UnregisteredLast) {
            self.unregister(hold.worker(), hold.trace(), grace, force).await;
        }
        crash::point(CrashPoint::Unregistered);
        let instance_id = hold.worker().instance_id.clone();
        if mutant::on(Mutant::TerminatedBeforeRemoval) {
            let _ = hold.advance(&self.journal, Step::Terminated, self.now()).await;
        }
        if let Err(error) = self.remove_all(hold.worker(), instance_id.as_deref(), grace).await {
            return self.not_removed(hold, error).await;
        }
        if registers && mutant::on(Mutant::UnregisteredLast) {
            self.unregister(hold.worker(), hold.trace(), grace, force).await;
        }
        crash::point(CrashPoint::Removed);
        match hold.advance(&self.journal, Step::Terminated, self.now()).await {
            Ok(()) => {}
            Err(HoldError::Lost) => return Err(self.lost(hold).await),
            Err(error) => return Err(Stop::Later(error.to_string())),
        }
        crash::point(CrashPoint::TerminatedStored);
        Ok(())
    }

    /// The instance on record; and where that one is gone and another lives under its name, the other, if it is this
    /// command's: a create that was given up has come about after the first instance had ended by itself. A stranger's is
    /// left to the sweep, for which it is an orphan once the record is final.
    async fn remove_all(
        &self,
        worker: &Worker,
        instance_id: Option<&str>,
        grace: Duration,
    ) -> Result<(), ProviderError> {
        let Err(error) = self.remove_instance(worker, instance_id, grace).await else { return Ok(()) };
        if error.class != ErrorClass::Conflict {
            return Err(error);
        }
        match self.find_instance(&worker.key()).await? {
            Some(other) if Some(&*other.instance_id) == instance_id => Err(error),
            Some(other) if other.command_id == worker.command_id => {
                self.remove_instance(worker, Some(&other.instance_id), grace).await
            }
            Some(_) | None => Ok(()),
        }
    }

    /// An instance that cannot be removed stays `terminating`: the record says why, and nothing ends it early.
    async fn not_removed(&self, hold: &mut Hold, error: ProviderError) -> Result<(), Stop> {
        let counted = match error.class.standing() {
            Standing::Final | Standing::Counted => true,
            Standing::Patient => false,
        };
        match hold.advance(&self.journal, Step::Stalled { fault: error.fault(), counted }, self.now()).await {
            Ok(()) if hold.worker().attempts >= MAX_IDLE_TRIES => Err(Self::exhausted(hold.worker()).into()),
            Err(HoldError::Lost) => Err(self.lost(hold).await),
            Ok(()) | Err(HoldError::Away(_) | HoldError::Refused(_)) => Err(error.into()),
        }
    }

    /// What becomes of a command whose worker another one ends: a redelivery of the same message settles it, but if it
    /// was another command, say one that forces, this one comes back for the final event.
    async fn lost(&self, hold: &Hold) -> Stop {
        match self.journal.head(&hold.worker().key()).await {
            Ok(Some(head)) if hold.is_passed_on_to(&head) => Stop::Superseded,
            Ok(_) => Stop::Wait("another command has the worker in hand"),
            Err(error) => error.into(),
        }
    }
}
