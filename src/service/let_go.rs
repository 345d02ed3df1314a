//! A try that is given up while its replica drains: a word of it in the record, so that nobody takes it for a death.

use super::hold::Hold;
use super::{DynamicWorkerConfig, WorkerManagementService};
use crate::domain::{ErrorClass, RegistrationStatus, State, Step, WorkerFault, WorkerId, WorkerKey};
use crate::journal::Journal;
use crate::provider::WorkerProvider;
use crate::registration::WorkerRegistrationPort;

impl<P: WorkerProvider, R: WorkerRegistrationPort, J: Journal> WorkerManagementService<P, R, J> {
    /// The worker that a provision is about, where that can be told without its record.
    pub fn worker_of(&self, order: &DynamicWorkerConfig) -> Option<WorkerKey> {
        let id = match (&order.worker_id, self.provider.inventory()) {
            (Some(id), _) => id.clone(),
            (None, None) => WorkerId::derived(&order.pool, &order.command_id),
            // Whichever host was free.
            (None, Some(_)) => return None,
        };
        Some(WorkerKey::new(order.pool.clone(), id))
    }

    /// Records that the try of `message` ended for no fault of the command's: without it the next try would count this
    /// one as a death, and a few rolling restarts would exhaust a command whose worker takes long to make. If it cannot
    /// be written, it is counted: the command is the worse for it, the record is not.
    pub async fn let_go(&self, key: &WorkerKey, message: u64) {
        let Ok(Some(head)) = self.journal.head(key).await else { return };
        let ours = head.writer.message == Some(message) && head.worker.error.is_none();
        let open = match head.worker.state {
            State::Provisioning | State::Terminating => true,
            // Without a scheduler this is the outcome already, and there is only one.
            State::Provisioned => head.worker.registration.status != RegistrationStatus::Disabled,
            State::Registered | State::RegistrationFailed | State::Terminated | State::Failed | State::Lost => false,
        };
        if !(ours && open) {
            return;
        }
        let fault = WorkerFault {
            class: ErrorClass::Unavailable,
            message: "the replica that had it in hand was told to stop".into(),
            retryable: true,
        };
        let mut hold = Hold::resume(head, self.writer(Some(message)));
        let _ = hold.advance(&self.journal, Step::Stalled { fault, counted: false }, self.now()).await;
    }
}
