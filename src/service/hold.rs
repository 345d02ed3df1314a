//! A worker in hand: its newest event as we know it, and the only way to write the next one.

use jiff::Timestamp;

use crate::domain::{Step, TraceContext, TransitionRefused, Worker};
use crate::journal::{AppendError, Entry, Journal, Writer};

/// A worker whose newest event this try has written or read. It stays ours until a write is refused.
#[derive(Debug)]
pub(super) struct Hold {
    worker: Worker,
    sequence: u64,
    /// From the claim on it carries the claim's place, so that each event of the worker tells it.
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
    // No `async fn`, like `store`: that would have the room for its arguments twice.
    pub(super) fn open<J: Journal>(
        journal: &J,
        worker: Worker,
        sequence: u64,
        writer: Writer,
    ) -> impl Future<Output = Result<Self, AppendError>> + Send {
        let mut hold = Self { worker, sequence, writer: Writer { claim: None, ..writer } };
        async move {
            hold.sequence = journal.append(&hold.worker, hold.sequence, &hold.writer).await?;
            hold.writer.claim = Some(hold.sequence);
            Ok(hold)
        }
    }

    /// Takes up what another try, perhaps of another replica, has left. The next write is the claim to it. Who goes on for
    /// no trace of its own goes on in that of the record.
    pub(super) fn resume(entry: Entry, mut writer: Writer) -> Self {
        writer.claim = entry.claim();
        let Entry { worker, sequence, writer: before } = entry;
        writer.trace = writer.trace.or(before.trace);
        Self { worker, sequence, writer }
    }

    pub(super) fn worker(&self) -> &Worker {
        &self.worker
    }

    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The place of the worker's claim in the log. Where an older version has written all that we know of the worker, the
    /// newest event stands for it: it is this worker's too, and no younger than anything that comes of it.
    pub(super) fn claim(&self) -> u64 {
        self.writer.claim.unwrap_or(self.sequence)
    }

    /// Whether it is another try of this very message that has written `head`. Where it is not, nobody else settles the
    /// message, and it has to come back.
    pub(super) fn is_passed_on_to(&self, head: &Entry) -> bool {
        self.writer.message == head.writer.message
    }

    /// The trace that this try is part of.
    pub(super) fn trace(&self) -> Option<&TraceContext> {
        self.writer.trace.as_ref()
    }

    pub(super) fn into_worker(self) -> Worker {
        self.worker
    }

    /// The worker after `step`, not yet written.
    pub(super) fn after(&self, step: Step, now: Timestamp) -> Result<Worker, TransitionRefused> {
        step.apply(Some(&self.worker), now)
    }

    /// Makes `next` the record. On `Ok` it is as durable as the journal; on `Away` only the head tells.
    #[allow(clippy::manual_async_fn, reason = "that would have the room for `next` twice")]
    pub(super) fn store<J: Journal>(
        &mut self,
        journal: &J,
        next: Worker,
    ) -> impl Future<Output = Result<(), HoldError>> + Send {
        async move {
            self.sequence = journal.append(&next, self.sequence, &self.writer).await?;
            self.worker = next;
            Ok(())
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Capabilities, Claim, CommandId, Pool, SpecHash, WorkerId, WorkerKey, WorkerType};
    use crate::journal::MemoryJournal;

    fn writer(name: &str) -> Writer {
        Writer { name: name.into(), message: Some(7), claim: None, trace: None }
    }

    fn claim(command: &str, head: Option<&Worker>) -> Worker {
        let claim = Claim {
            pool: Pool::new("edge").unwrap(),
            worker_id: WorkerId::new("edge-1").unwrap(),
            worker_type: WorkerType::Static,
            command_id: CommandId::new(command).unwrap(),
            correlation_id: None,
            spec_hash: SpecHash::of(b"1"),
            provider: "static".into(),
            capabilities: Capabilities::default(),
            registration: false,
        };
        Step::Claim(Box::new(claim)).apply(head, Timestamp::UNIX_EPOCH).unwrap()
    }

    async fn claims(journal: &MemoryJournal, key: &WorkerKey) -> Vec<Option<u64>> {
        journal.history(key).await.unwrap().into_iter().map(|entry| entry.writer.claim).collect()
    }

    #[tokio::test]
    async fn every_event_after_a_claim_tells_its_place_and_a_new_allocation_has_a_new_one() {
        let (journal, now) = (MemoryJournal::new(), Timestamp::UNIX_EPOCH);
        let first = claim("c-1", None);
        let key = first.key();
        let hold = Hold::open(&journal, first, 0, writer("r.1")).await.unwrap();
        assert_eq!(hold.claim(), 1);

        // Taken over twice before it is made: the second try reads the place from the first one's event.
        for name in ["r.2", "r.3"] {
            let head = journal.head(&key).await.unwrap().unwrap();
            let mut hold = Hold::resume(head, writer(name));
            hold.advance(&journal, Step::TakeOver, now).await.unwrap();
            assert_eq!(hold.claim(), 1);
        }
        let mut hold = Hold::resume(journal.head(&key).await.unwrap().unwrap(), writer("r.4"));
        hold.advance(&journal, Step::Fail(fault()), now).await.unwrap();
        assert_eq!(claims(&journal, &key).await, [None, Some(1), Some(1), Some(1)]);

        let head = journal.head(&key).await.unwrap().unwrap();
        // Even by a writer that has had the host before.
        let used = Writer { claim: Some(1), ..writer("r.5") };
        let again = claim("c-2", Some(&head.worker));
        let mut hold = Hold::open(&journal, again, head.sequence, used).await.unwrap();
        hold.advance(&journal, Step::TakeOver, now).await.unwrap();
        assert_eq!(hold.claim(), 5);
        assert_eq!(claims(&journal, &key).await[4..], [None, Some(5)]);
    }

    #[tokio::test]
    async fn the_highest_epoch_does_not_fall_to_none_when_its_worker_is_taken_over() {
        let (journal, now) = (MemoryJournal::new(), Timestamp::UNIX_EPOCH);
        // As a scheduler may have it whose list adoption has believed.
        let highest = Worker { epoch: u64::MAX, ..claim("c-1", None) };
        let mut hold = Hold::open(&journal, highest, 0, writer("r.1")).await.unwrap();
        hold.advance(&journal, Step::TakeOver, now).await.unwrap();
        assert_eq!(hold.worker().epoch, u64::MAX);
    }

    fn fault() -> crate::domain::WorkerFault {
        crate::domain::WorkerFault {
            class: crate::domain::ErrorClass::InvalidSpec,
            message: "no".into(),
            retryable: false,
        }
    }
}
