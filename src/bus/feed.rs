//! Events as they come, and over a cut of the connection: what was published meanwhile is read from the log.

use std::time::Instant;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tokio::sync::watch;

use super::batch::BatchError;
use super::connection::{Connection, Link};
use super::requests::Requests;
use super::standing::standing;
use super::view::{Seen, View};
use crate::domain::Pool;

/// What is heard.
#[derive(Debug)]
pub enum Heard {
    /// An event, each once and in the order of the log.
    Event(Seen),
    /// The connection is down; it is being made anew.
    Away,
    /// It is up again, and what came meanwhile is on its way.
    Back,
    /// What came meanwhile cannot be read, say for want of the right to; the feed goes on with what comes from now on.
    Gap(BatchError),
}

/// Events of all pools, or of one, for as long as somebody asks.
pub struct Feed {
    view: View,
    pool: Option<Pool>,
    link: watch::Receiver<Link>,
    live: BoxStream<'static, Seen>,
    /// A walk over the log, before anything live is looked at.
    back: Option<BoxStream<'static, Result<Seen, BatchError>>>,
    /// What has come live and showed that something is missing before it.
    held: Option<Seen>,
    /// The place of the newest event that was told, or of the log's newest when the feed began.
    last: Option<u64>,
    /// Whether the log may be read.
    readable: bool,
    /// Whether it was told that the connection is down.
    away: bool,
}

impl Feed {
    /// Begins to listen. With `after`, all that the log has behind that place comes first. Without a fleet, or without the
    /// right to listen, nothing would ever come, and that is told at once.
    pub async fn begin(
        view: View,
        connection: &Connection,
        requests: &Requests,
        pool: Option<Pool>,
        after: Option<u64>,
    ) -> Result<Self, BatchError> {
        let mut link = connection.link.clone();
        link.mark_unchanged();
        // Listened to before the log is asked where it stands: what is stored between the two comes live.
        let (begun, stream, filter) = (Instant::now(), view.event_stream(), view.events_filter(pool.as_ref()));
        connection.tries(&filter);
        let live = view.live(pool.as_ref()).await?;
        let mut last = after;
        // A server that says no says it before it answers what is asked next, and the client tells of it a moment later.
        for _ in 0..2 {
            let stands = standing(connection, requests, view.api_prefix(), &stream).await;
            if let Some(complaint) = connection.refused_since(begun, &[&filter]) {
                return Err(BatchError::Forbidden { stream, complaint: crate::text::cut(&complaint, 300) });
            }
            match stands {
                Ok(sequence) => last = last.or(Some(sequence)),
                Err(error @ BatchError::NobodyThere { .. }) => return Err(error),
                // Where the log stands need not be known to hear what comes.
                Err(_) => break,
            }
        }
        let back = after.map(|after| view.events_after(pool.as_ref(), after));
        Ok(Self { view, pool, link, live, back, held: None, last, readable: true, away: false })
    }

    /// The place of the newest event that was told.
    #[must_use]
    pub fn last(&self) -> Option<u64> {
        self.last
    }

    /// The next; `None` when the connection is closed for good.
    pub async fn next(&mut self) -> Option<Heard> {
        loop {
            if let Some(back) = &mut self.back {
                match back.next().await {
                    Some(Ok(seen)) if self.is_new(&seen) => return Some(self.told(seen)),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => {
                        (self.back, self.readable) = (None, false);
                        return Some(Heard::Gap(error));
                    }
                    None => self.back = None,
                }
                continue;
            }
            if let Some(held) = self.held.take().filter(|held| self.is_new(held)) {
                return Some(self.told(held));
            }
            tokio::select! {
                biased;
                changed = self.link.changed() => {
                    changed.ok()?;
                    match *self.link.borrow_and_update() {
                        Link::Up => {}
                        Link::Down => {
                            self.away = true;
                            return Some(Heard::Away);
                        }
                        Link::LameDuck => continue,
                    }
                    // Also where nobody saw it go down: it may have been for a moment.
                    self.catch_up();
                    if std::mem::take(&mut self.away) {
                        return Some(Heard::Back);
                    }
                }
                seen = self.live.next() => {
                    let seen = seen?;
                    if !self.is_new(&seen) {
                        continue;
                    }
                    // Of all pools the places have no gap: where there is one, the client had no room for what is missing.
                    if self.pool.is_none() && self.last.is_some_and(|last| seen.sequence > last + 1) && self.readable {
                        self.catch_up();
                        self.held = Some(seen);
                        continue;
                    }
                    return Some(self.told(seen));
                }
            }
        }
    }

    fn catch_up(&mut self) {
        if let Some(last) = self.last
            && self.readable
        {
            self.back = Some(self.view.events_after(self.pool.as_ref(), last));
        }
    }

    fn is_new(&self, seen: &Seen) -> bool {
        self.last.is_none_or(|last| seen.sequence > last)
    }

    fn told(&mut self, seen: Seen) -> Heard {
        self.last = Some(seen.sequence);
        Heard::Event(seen)
    }
}
