//! One write of the log, of whichever record: published, compared and set by the server.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::{HeaderMap, HeaderName, HeaderValue, header};

use super::{NatsJournal, read};
use crate::bus::requests::RequestError;
use crate::bus::stored::Stored;
use crate::bus::trace;
use crate::domain::{PoolRecord, TraceContext, Worker};
use crate::journal::decide::{Head, Published, decide};
use crate::journal::{AppendError, Entry, PoolEntry, ReadError, WRITER, Writer};
use crate::wire::event;
use crate::wire::publish::PubAck;

const WRITER_HEADER: HeaderName = HeaderName::from_static(WRITER);
const CONTENT_TYPE: HeaderName = HeaderName::from_static("Content-Type");
const EXPECTED_SUBJECT: HeaderName = HeaderName::from_static("Nats-Expected-Last-Subject-Sequence-Subject");
const PATIENCE: Duration = Duration::from_secs(5);

/// What is written: a worker's record, or a pool's own.
#[derive(Debug, Clone, Copy)]
pub(super) enum Record<'a> {
    Worker(&'a Worker),
    Pool(&'a PoolRecord),
}

/// One write, which may be sent any number of times.
#[derive(Debug, Clone, Copy)]
pub(super) struct Write<'a> {
    pub(super) record: Record<'a>,
    /// The event that it follows; 0 for none.
    pub(super) after: u64,
    pub(super) writer: &'a Writer,
}

impl Write<'_> {
    /// Whether a stored event is this very write: the same event by the same writer, whose answer was lost.
    fn is(&self, head: &Stored) -> Result<bool, ReadError> {
        match self.record {
            Record::Worker(ours) => {
                let Entry { worker, writer, sequence: _ } = read::entry(head)?;
                Ok(worker.rev == ours.rev && worker.epoch == ours.epoch && writer == *self.writer)
            }
            Record::Pool(ours) => {
                let PoolEntry { record, writer, sequence: _ } = read::pool_entry(head)?;
                Ok(record.rev == ours.rev && writer == *self.writer)
            }
        }
    }
}

impl NatsJournal {
    pub(super) async fn write(&self, write: Write<'_>) -> Result<u64, AppendError> {
        match self.publish(write, write.after).await {
            Published::Stored(sequence) => Ok(sequence),
            // Rare, and larger than the way above: not carried along by every command in hand.
            refused => {
                // Refused because of a message that is no event, nobody has lost: the event that this write follows is still the
                // head, and the next try names the place of that message. Taken for a conflict it would be one for ever: the
                // head would be the one that the caller knows, read again and again.
                let fence = AtomicU64::new(write.after);
                let publish = || self.publish(write, fence.load(Ordering::Relaxed));
                let head = || self.head_of(write, &fence);
                Box::pin(decide(write.after, refused, publish, head, rand::random)).await
            }
        }
    }

    /// The one filter of a record's compare-and-set.
    fn filter(&self, record: Record<'_>) -> String {
        match record {
            Record::Worker(worker) => self.subjects.events_of(&worker.key()),
            Record::Pool(record) => self.subjects.own_events_of(&record.pool),
        }
    }

    /// `fence` is the place of the newest message on the record's filter, which the server compares with.
    async fn publish(&self, Write { record, after: _, writer }: Write<'_>, fence: u64) -> Published {
        let mut headers = HeaderMap::new();
        headers.insert(header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, HeaderValue::from(fence));
        headers.insert(EXPECTED_SUBJECT, self.filter(record));
        headers.insert(CONTENT_TYPE, event::CONTENT_TYPE);
        headers.insert(WRITER_HEADER, writer.to_header());
        trace::put(&mut headers, writer.trace.as_ref());
        let parent = writer.trace.as_ref().map(TraceContext::traceparent);
        let (subject, body) = match record {
            Record::Worker(worker) => {
                (self.subjects.log(&worker.key(), worker.state), event::encode(&self.prefix, worker, parent))
            }
            Record::Pool(record) => {
                (self.subjects.pool_log(&record.pool, record.state), event::encode_pool(&self.prefix, record, parent))
            }
        };
        match self.requests.send(subject, Some(headers), body.into(), PATIENCE).await {
            Ok(reply) => match PubAck::read(&reply.payload) {
                Ok(ack) => Published::Stored(ack.sequence),
                Err(error) if error.is_wrong_last_sequence() => Published::Refused,
                Err(error) => Published::Unknown(error.to_string()),
            },
            Err(error @ (RequestError::NoResponders | RequestError::TimedOut | RequestError::Disconnected)) => {
                Published::Unknown(error.to_string())
            }
            Err(error @ RequestError::Unsendable(_)) => Published::Unknown(error.to_string()),
        }
    }

    /// The record's head, as the decision about a write needs it.
    async fn head_of(&self, write: Write<'_>, fence: &AtomicU64) -> Result<Head, ReadError> {
        let newest = self.head_on(&self.filter(write.record)).await?;
        fence.store(newest.fence, Ordering::Relaxed);
        let ours = newest.event.as_ref().map_or(Ok(false), |event| write.is(event))?;
        Ok(Head { sequence: newest.event.map_or(0, |event| event.sequence), ours })
    }
}
