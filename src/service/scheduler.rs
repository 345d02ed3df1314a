//! What the scheduler is told on the way of a command, and what becomes of its answers.

use std::time::Duration;

use super::WorkerManagementService;
use super::fenced::Fenced;
use crate::domain::{TraceContext, Worker};
use crate::journal::Journal;
use crate::provider::WorkerProvider;
use crate::registration::retry::{self, Unregistered};
use crate::registration::{
    RegisterWorker, Registered, RegistrationConfig, RegistrationError, UnregisterWorker, WorkerRegistrationPort,
};

impl<P: WorkerProvider, R: WorkerRegistrationPort, J: Journal> WorkerManagementService<P, R, J> {
    /// Tells the scheduler that the worker goes. Whatever it answers, the terminate goes on; the sweep tells it again
    /// where it could not be reached.
    pub(super) async fn unregister(&self, worker: &Worker, trace: Option<&TraceContext>, grace: Duration, force: bool) {
        let reason = worker.ended_by.as_ref().and_then(|ended| ended.reason.clone());
        let request = UnregisterWorker {
            worker_id: worker.worker_id.clone(),
            pool: worker.pool.clone(),
            instance_id: worker.instance_id.clone(),
            epoch: worker.epoch,
            reason: reason.unwrap_or_else(|| "terminate".into()),
            grace,
            trace: trace.cloned(),
        };
        self.unregister_as(&request, force).await;
    }

    /// Whether the scheduler has let the worker go, or is about to.
    pub(super) async fn unregister_as(&self, request: &UnregisterWorker, force: bool) -> bool {
        let Some(port) = &self.registration else { return true };
        let (try_timeout, patience) = (self.config.scheduler_try_timeout, self.config.unregister_timeout);
        let signals = self.signals(&request.pool);
        let on_attempt = |answer: &Result<(), RegistrationError>| signals.scheduler_asked(answer);
        let UnregisterWorker { pool, worker_id, .. } = request;
        match retry::unregister(port, request, try_timeout, patience, force, || self.chance(), on_attempt).await {
            Unregistered::Done => true,
            Unregistered::StillBusy => {
                tracing::info!(%pool, %worker_id, "still draining at the end of its grace");
                true
            }
            Unregistered::Unreachable(fault) => {
                tracing::warn!(
                    %pool, %worker_id, code = %fault.code, error = %fault.message,
                    "the scheduler was not told that the worker goes"
                );
                false
            }
        }
    }

    /// Tells the scheduler that the worker is there, as often as the settings say.
    pub(super) async fn register(&self, request: RegisterWorker, config: &RegistrationConfig) -> Registered {
        let Some(port) = &self.registration else { return Registered { attempts: 0, error: None } };
        let (signals, worker_id) = (self.signals(&request.pool), request.worker_id.clone());
        let port = Fenced::new(port, &self.journal);
        let begun = tokio::time::Instant::now();
        let mut attempt = 0;
        let on_attempt = |answer: &Result<(), RegistrationError>| {
            attempt += 1;
            if !port.overtaken() {
                signals.registration_attempt(&worker_id, attempt, answer);
            }
        };
        let (now, chance) = (|| self.now(), || self.chance());
        let told =
            retry::register(&port, request, config, self.config.scheduler_try_timeout, now, chance, on_attempt).await;
        signals.registration_took(begun.elapsed());
        told
    }
}
