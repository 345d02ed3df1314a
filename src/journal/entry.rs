//! What the log holds: events, whose they are, and who wrote them.

use std::sync::Arc;

use crate::domain::{Pool, PoolRecord, State, TraceContext, Worker, WorkerKey};

/// Who writes: one name for each try of a command, so that a write whose answer was lost can be told from another's, and
/// the queue message that the try works on, so that a redelivery of that very message can be told from a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writer {
    /// The try.
    pub name: Arc<str>,
    /// The message's sequence in its pool's queue; `None` for a call without a queue.
    pub message: Option<u64>,
    /// The place of the worker's claim in the log: the first event of its present allocation. `None` in the claim itself,
    /// which cannot know it, and in what older versions wrote.
    pub claim: Option<u64>,
    /// The trace that it writes for, in headers of its own.
    pub trace: Option<TraceContext>,
}

impl Writer {
    /// As it stands in an event's header: `name/message/claim`, what is not there left empty or off the end.
    #[must_use]
    pub fn to_header(&self) -> String {
        let Self { name, message, claim, trace: _ } = self;
        match (message, claim) {
            (None, None) => name.to_string(),
            (Some(message), None) => format!("{name}/{message}"),
            (None, Some(claim)) => format!("{name}//{claim}"),
            (Some(message), Some(claim)) => format!("{name}/{message}/{claim}"),
        }
    }

    /// Reads [`Self::to_header`] back; the trace stands in headers of its own.
    #[must_use]
    pub fn from_header(text: &str) -> Self {
        let mut parts = text.splitn(3, '/');
        let name = parts.next().unwrap_or_default().into();
        let mut number = || parts.next().and_then(|part| part.parse().ok());
        Self { name, message: number(), claim: number(), trace: None }
    }
}

/// A worker's event as the log holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The worker as of this event.
    pub worker: Worker,
    /// The event's place in the log; what the next write is compared against.
    pub sequence: u64,
    /// Who wrote it.
    pub writer: Writer,
}

impl Entry {
    /// The place of the worker's claim in the log. `None` where neither this event nor its writer tells, as with those of
    /// older versions.
    #[must_use]
    pub fn claim(&self) -> Option<u64> {
        let claims = self.worker.state == State::Provisioning;
        self.writer.claim.or_else(|| claims.then_some(self.sequence))
    }
}

/// A pool's own event as the log holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolEntry {
    /// The pool as of this event.
    pub record: PoolRecord,
    /// The event's place in the log; what the next write is compared against.
    pub sequence: u64,
    /// Who wrote it.
    pub writer: Writer,
}

/// One event on the way through a pool's log.
// Handed over one at a time and never kept: a box for each would only be an allocation for each.
#[allow(clippy::large_enum_variant)]
#[derive(Debug, Clone, PartialEq)]
pub enum Scanned {
    /// A worker's.
    Worker(Entry),
    /// The pool's own.
    Pool(PoolEntry),
}

/// How far a scan has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scan {
    /// Sequence of the log's newest event, of whatever pool, when the scan began; 0 for an empty log.
    pub last: u64,
}

/// Whose event it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EventOf {
    /// A worker's.
    Worker(WorkerKey),
    /// A pool's own.
    Pool(Pool),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_is_read_back_from_its_header() {
        for (message, claim, header) in
            [(None, None, "r.1"), (Some(7), None, "r.1/7"), (None, Some(9), "r.1//9"), (Some(7), Some(9), "r.1/7/9")]
        {
            let writer = Writer { name: "r.1".into(), message, claim, trace: None };
            assert_eq!(writer.to_header(), header);
            assert_eq!(Writer::from_header(header), writer);
        }
    }

    #[test]
    fn what_cannot_be_read_of_a_writer_is_not_there() {
        let name = |name: &str| Writer { name: name.into(), message: None, claim: None, trace: None };
        assert_eq!(Writer::from_header(""), name(""));
        assert_eq!(Writer::from_header("r.1/x/y"), name("r.1"));
        assert_eq!(Writer::from_header("r.1//"), name("r.1"));
    }
}
