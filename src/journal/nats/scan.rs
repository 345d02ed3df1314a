//! How a pool stands, in one pass over the newest events of its workers: as large as the pool, and never held as a whole.

use std::collections::HashSet;
use std::time::Duration;

use async_nats::Message;
use tokio::time::timeout;

use super::{NatsJournal, read};
use crate::bus::foreign;
use crate::bus::pass::{Pass, Passed};
use crate::bus::stored;
use crate::domain::Pool;
use crate::journal::{EventOf, Journal, ReadError, Scan, Scanned};

/// A pass that brings no event for so long has broken.
const STALLED: Duration = Duration::from_secs(30);

impl NatsJournal {
    pub(super) async fn scan_pool<F: FnMut(Scanned) + Send>(
        &self,
        pool: &Pool,
        mut take: F,
    ) -> Result<Scan, ReadError> {
        let last = stored::last_sequence(&self.requests, &self.api_prefix, &self.stream).await;
        let last = last.map_err(|error| ReadError(error.to_string()))?;
        let filter = self.subjects.events_of_pool(pool);
        // The pass ends at the pool's newest event as the leader knows it. The consumer may live on a server that trails,
        // and by what that one has pending the pass would end too soon.
        let mut end = self.newest_sequence(&filter).await?;
        if end == 0 {
            return Ok(Scan { last });
        }
        let pass = Pass::begin(&self.requests, &self.api_prefix, &self.stream, &filter).await;
        let mut pass = pass.map_err(|error| ReadError(error.to_string()))?;
        let (mut reached, mut hidden) = (0, HashSet::new());
        while reached < end {
            let message = timeout(STALLED, self.next_message(&mut pass, &filter, reached, &mut end)).await;
            let Some((message, sequence)) =
                message.map_err(|_| ReadError(format!("the pool's events stop at {reached}, before {end}")))??
            else {
                break;
            };
            let (subject, headers) = (&message.subject, message.headers.as_ref());
            if foreign::in_log(headers) {
                // On a subject that no record has it hides nothing.
                hidden.extend(read::whose(subject, sequence).ok());
            } else {
                take(read::delivered(subject, sequence, headers, &message.payload)?);
            }
            reached = sequence;
        }
        // The pass has brought the newest message of each subject: what is no event has hidden the one below it.
        for owner in hidden {
            let head = match owner {
                EventOf::Worker(key) => self.head(&key).await?.map(Scanned::Worker),
                EventOf::Pool(pool) => self.pool_head(&pool).await?.map(Scanned::Pool),
            };
            head.map(&mut take);
        }
        Ok(Scan { last })
    }

    /// The pass's next message, and its place; `None` where all that the log has before `end` has come.
    async fn next_message(
        &self,
        pass: &mut Pass,
        filter: &str,
        reached: u64,
        end: &mut u64,
    ) -> Result<Option<(Box<Message>, u64)>, ReadError> {
        while reached < *end {
            match pass.next().await.map_err(|error| ReadError(error.to_string()))? {
                Passed::Message(message, sequence) => return Ok(Some((message, sequence))),
                // The event that was to be the last may have been purged meanwhile.
                Passed::Quiet => *end = self.newest_sequence(filter).await?.min(*end),
            }
        }
        Ok(None)
    }
}
