//! Removes a record that is of no use any more: its entry in the view, then its events.

use super::NatsJournal;
use crate::bus::stored::{self, ReadStoredError, Stored};
use crate::crash::{self, CrashPoint};
use crate::journal::EventOf;

/// Where a message that the server has taken from another stream stood there.
const SOURCE: &str = "Nats-Stream-Source";

impl NatsJournal {
    pub(super) async fn purge_of(&self, owner: &EventOf, upto: u64) -> Result<(), ReadStoredError> {
        let (requests, api_prefix, subjects) = (&self.requests, &self.api_prefix, &self.subjects);
        let (entry, events) = match owner {
            EventOf::Worker(key) => (subjects.view_of(key), subjects.events_of(key)),
            EventOf::Pool(pool) => (subjects.own_view_of(pool), subjects.own_events_of(pool)),
        };
        let view = subjects.view_stream();
        // An entry that is newer than what goes is of a host's next allocation. One that comes between the look and the
        // purge has a higher sequence than the one that was looked at, and stays.
        if let Some(shown) = stored::last(requests, api_prefix, &view, &entry).await?
            && place_in_log(&shown)? <= upto
        {
            stored::purge(requests, api_prefix, &view, &entry, shown.sequence).await?;
        }
        // Dying here leaves the events: the next purge finds them, and nothing in the view.
        crash::point(CrashPoint::ViewPurged);
        stored::purge(requests, api_prefix, &self.stream, &events, upto).await
    }
}

/// Which event of the log an entry of the view shows: `<stream> <sequence> <filters> …`, as the server writes it.
fn place_in_log(shown: &Stored) -> Result<u64, ReadStoredError> {
    let source = shown.header(SOURCE).unwrap_or_default();
    let sequence = source.split(' ').nth(1).and_then(|sequence| sequence.parse().ok());
    sequence.ok_or_else(|| {
        let what = format!("{SOURCE} of {}: found {source:?}, expected a stream and a sequence", shown.subject);
        ReadStoredError::Unreadable(what)
    })
}
