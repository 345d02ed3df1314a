//! A worker in hand: its newest event as we know it, and the only way to write the next one.

use jiff::Timestamp;

use crate::domain::{Step, TransitionRefused, Worker};
use crate::journal::{AppendError, Entry, Journal, Writer};

/// A worker whose newest event this try has written or read. It stays ours until a write is refused.
#[derive(Debug)]
pub(super) struct Hold {
    worker: Worker,
    sequence: u64,
    writer: Writer,
}

/// Why the next event could not be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum HoldError {
    #[error("another event was stored first")]
    Lost,
    #[error("{0}")]
    Away(String),
    #[error(transparent)]
    Refused(#[from] TransitionRefused),
}

impl From<AppendError> for HoldError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Conflict => Self::Lost,
            AppendError::Unavailable(why) => Self::Away(why),
        }
    }
}

impl Hold {
    /// Writes a worker's first event, or the first of a host's next allocation (after `sequence`).
    pub(super) async fn open<J: Journal>(
        journal: &J,
        worker: Worker,
        sequence: u64,
        writer: Writer,
    ) -> Result<Self, AppendError> {
        let sequence = journal.append(&worker, sequence, &writer).await?;
        Ok(Self { worker, sequence, writer })
    }

    /// Takes up what another try, perhaps of another replica, has left. The next write is the claim to it.
    pub(super) fn resume(entry: Entry, writer: Writer) -> Self {
        let Entry { worker, sequence, writer: _ } = entry;
        Self { worker, sequence, writer }
    }

    pub(super) fn worker(&self) -> &Worker {
        &self.worker
    }

    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Whether it is another try of this very message that has written `head`. Where it is not, nobody else settles the
    /// message, and it has to come back.
    pub(super) fn is_passed_on_to(&self, head: &Entry) -> bool {
        self.writer.message == head.writer.message
    }

    pub(super) fn into_worker(self) -> Worker {
        self.worker
    }

    /// The worker after `step`, not yet written.
    pub(super) fn after(&self, step: Step, now: Timestamp) -> Result<Worker, TransitionRefused> {
        step.apply(Some(&self.worker), now)
    }

    /// Makes `next` the record. On `Ok` it is as durable as the journal; on `Away` only the head tells.
    pub(super) async fn store<J: Journal>(&mut self, journal: &J, next: Worker) -> Result<(), HoldError> {
        self.sequence = journal.append(&next, self.sequence, &self.writer).await?;
        self.worker = next;
        Ok(())
    }

    /// Takes one step and makes it the record.
    pub(super) async fn advance<J: Journal>(
        &mut self,
        journal: &J,
        step: Step,
        now: Timestamp,
    ) -> Result<(), HoldError> {
        let next = self.after(step, now)?;
        self.store(journal, next).await
    }
}
