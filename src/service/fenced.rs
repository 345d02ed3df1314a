//! The way to the scheduler for as long as a worker is ours: no register request goes out again after its `terminating`.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::domain::{State, WorkerKey};
use crate::journal::Journal;
use crate::mutant::{self, Mutant};
use crate::registration::retry::Register;
use crate::registration::{RegisterWorker, RegistrationError, WorkerRegistrationPort};

/// A scheduler that is asked a second time, and each time after, only if the worker's record still has our epoch.
///
/// The first request is not held up by a look at the record: it goes out beside the event that makes it true.
#[derive(Debug)]
pub(super) struct Fenced<'a, R, J> {
    port: &'a R,
    journal: &'a J,
    asked: AtomicBool,
    overtaken: AtomicBool,
}

impl<'a, R, J> Fenced<'a, R, J> {
    pub(super) fn new(port: &'a R, journal: &'a J) -> Self {
        Self { port, journal, asked: AtomicBool::new(false), overtaken: AtomicBool::new(false) }
    }

    /// Whether the worker was no longer ours when it was looked at.
    pub(super) fn overtaken(&self) -> bool {
        self.overtaken.load(Ordering::Relaxed)
    }
}

impl<R: WorkerRegistrationPort, J: Journal> Fenced<'_, R, J> {
    /// A record that cannot be read decides nothing: the scheduler compares epochs too.
    async fn is_ours(&self, request: &RegisterWorker) -> bool {
        let key = WorkerKey::new(request.pool.clone(), request.worker_id.clone());
        match self.journal.head(&key).await {
            Ok(Some(head)) => {
                let worker = head.worker;
                worker.epoch == request.epoch && !worker.state.is_final() && worker.state != State::Terminating
            }
            Ok(None) | Err(_) => true,
        }
    }
}

impl<R: WorkerRegistrationPort, J: Journal> Register for Fenced<'_, R, J> {
    async fn register(&self, request: &RegisterWorker) -> Result<(), RegistrationError> {
        let again = self.asked.swap(true, Ordering::Relaxed) && !mutant::on(Mutant::RegisteredUnfenced);
        // Boxed, as it is rare.
        if again && !Box::pin(self.is_ours(request)).await {
            self.overtaken.store(true, Ordering::Relaxed);
            // Ends the asking. It never reaches the record: the write of the outcome is refused.
            let message = "the worker is another's, or ending".to_owned();
            return Err(RegistrationError::Rejected { code: "overtaken".to_owned(), message });
        }
        self.port.register_worker(request).await
    }
}
