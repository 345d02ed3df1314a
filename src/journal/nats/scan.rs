//! How a pool stands, in one pass over the newest events of its workers: as large as the pool, and never held as a whole.

use std::time::Duration;

use tokio::time::timeout;

use super::{NatsJournal, read};
use crate::bus::pass::{Pass, Passed};
use crate::bus::stored;
use crate::domain::Pool;
use crate::journal::{ReadError, Scan, Scanned};

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
        let mut reached = 0;
        while reached < end {
            let event = timeout(STALLED, self.next_event(&mut pass, &filter, reached, &mut end)).await;
            let Some((event, sequence)) =
                event.map_err(|_| ReadError(format!("the pool's events stop at {reached}, before {end}")))??
            else {
                break;
            };
            take(event);
            reached = sequence;
        }
        Ok(Scan { last })
    }

    /// The pass's next event; `None` where all that the log has before `end` has come.
    async fn next_event(
        &self,
        pass: &mut Pass,
        filter: &str,
        reached: u64,
        end: &mut u64,
    ) -> Result<Option<(Scanned, u64)>, ReadError> {
        while reached < *end {
            match pass.next().await.map_err(|error| ReadError(error.to_string()))? {
                Passed::Message(message, sequence) => {
                    let (headers, body) = (message.headers.as_ref(), &message.payload);
                    return Ok(Some((read::delivered(&message.subject, sequence, headers, body)?, sequence)));
                }
                // The event that was to be the last may have been purged meanwhile.
                Passed::Quiet => *end = self.newest_sequence(filter).await?.min(*end),
            }
        }
        Ok(None)
    }
}
