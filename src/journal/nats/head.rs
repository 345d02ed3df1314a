//! A record's head: its newest event, under whatever the server was made to store above it.

use super::{NatsJournal, read};
use crate::bus::foreign;
use crate::bus::stored::Stored;
use crate::journal::ReadError;
use crate::text::cut;

/// See the module.
pub(super) struct Newest {
    /// The place of the newest message, which the server compares a write with; 0 where there is none.
    pub(super) fence: u64,
    /// The newest event.
    pub(super) event: Option<Stored>,
}

impl NatsJournal {
    /// Reads a record's head, from the leader.
    pub(super) async fn head_on(&self, filter: &str) -> Result<Newest, ReadError> {
        let Some(newest) = self.newest(filter).await? else { return Ok(Newest { fence: 0, event: None }) };
        let Stored { subject, sequence: fence, .. } = &newest;
        if !newest.is_foreign() {
            return Ok(Newest { fence: *fence, event: Some(newest) });
        }
        tracing::warn!(subject = cut(subject, 200), sequence = fence, "passed over in the log: {}", foreign::NO_EVENT);
        let event = self.every(filter, |event| Ok(event.clone())).await?.pop();
        if event.is_none() {
            self.clear(&newest).await;
        }
        // The event may be newer than the look before.
        let fence = event.as_ref().map_or(*fence, |event| event.sequence.max(*fence));
        Ok(Newest { fence, event })
    }

    /// There is no record, and what stands in its place is of no worth: gone, it costs no further look and does not show in
    /// the view. Single messages of the log cannot be removed. Where it cannot be done, writes and readers do without.
    async fn clear(&self, newest: &Stored) {
        let Ok(owner) = read::whose(&newest.subject, newest.sequence) else { return };
        if let Err(error) = self.purge_of(&owner, newest.sequence).await {
            tracing::warn!(subject = cut(&newest.subject, 200), %error, "what is no event could not be purged");
        }
    }
}
