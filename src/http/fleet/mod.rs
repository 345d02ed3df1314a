//! What the fleet page shows: kept while somebody looks at it, and not at all otherwise.
//!
//! The log is read twice a second from where the look before has ended: nothing is missed, no consumer is made, and where
//! nothing has happened the server is asked for a number. How many workers are in which state is the census of each pool,
//! which is counted by the event and never listed.

mod book;
mod keep;
mod pulse;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, watch};
use tokio_util::sync::CancellationToken;

pub use keep::{FleetParts, Served};

/// Readers at once: a browser has one a tab.
const READERS: usize = 32;
/// Frames that a reader may trail behind: some ten seconds.
const FRAMES: usize = 128;
/// Events that a reader who comes is given, in frames.
const FRAMES_OF_EVENTS: usize = 8;

/// A cheap handle.
#[derive(Clone)]
pub struct Fleet(Arc<Shared>);

struct Shared {
    slots: Arc<Semaphore>,
    readers: watch::Sender<usize>,
    shown: Mutex<Shown>,
    frames: broadcast::Sender<Arc<str>>,
    stop: CancellationToken,
}

/// What a reader who comes now is given.
#[derive(Default)]
struct Shown {
    parts: BTreeMap<&'static str, Arc<str>>,
    events: Vec<Arc<str>>,
}

impl Fleet {
    /// Begins to wait for readers, until `stop`.
    #[must_use]
    pub fn start(parts: FleetParts, stop: CancellationToken) -> Self {
        let shared = Shared {
            slots: Arc::new(Semaphore::new(READERS)),
            readers: watch::channel(0).0,
            shown: Mutex::default(),
            frames: broadcast::channel(FRAMES).0,
            stop: stop.clone(),
        };
        let fleet = Self(Arc::new(shared));
        let keeping = keep::keep(parts, fleet.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = keeping => {}
            }
        });
        fleet
    }

    /// A reader; `None` where there are too many.
    pub(super) fn read(&self) -> Option<Reader> {
        let slot = Arc::clone(&self.0.slots).try_acquire_owned().ok()?;
        let shown = lock(&self.0.shown);
        // Under the lock, so that no frame falls between what is there and what comes.
        let frames = self.0.frames.subscribe();
        let mut first: Vec<_> = shown.parts.values().chain(&shown.events).cloned().collect();
        drop(shown);
        first.reverse();
        self.0.readers.send_modify(|readers| *readers += 1);
        Some(Reader { fleet: self.clone(), first, frames, _slot: slot })
    }

    /// Shows a part anew, where it is another than before.
    fn show(&self, name: &'static str, value: &Value) {
        let frame = frame(name, value);
        let mut shown = lock(&self.0.shown);
        if shown.parts.get(name).is_none_or(|before| *before != frame) {
            shown.parts.insert(name, Arc::clone(&frame));
            let _ = self.0.frames.send(frame);
        }
    }

    /// Shows new events.
    fn tell(&self, events: &Value) {
        let frame = frame("events", events);
        let mut shown = lock(&self.0.shown);
        shown.events.push(Arc::clone(&frame));
        if shown.events.len() > FRAMES_OF_EVENTS {
            shown.events.remove(0);
        }
        let _ = self.0.frames.send(frame);
    }

    /// Forgets all of it: who comes later is shown what is so then.
    fn forget(&self) {
        *lock(&self.0.shown) = Shown::default();
    }
}

/// A server-sent event: JSON has no line breaks of its own.
fn frame(name: &str, value: &Value) -> Arc<str> {
    format!("event: {name}\ndata: {value}\n\n").into()
}

/// Somebody who looks at the page.
pub(super) struct Reader {
    fleet: Fleet,
    /// What was there when it came, the last first.
    first: Vec<Arc<str>>,
    frames: broadcast::Receiver<Arc<str>>,
    _slot: OwnedSemaphorePermit,
}

impl Reader {
    /// The next frame. `None` at the end of the replica, and for one that reads too slowly: it may come again.
    pub(super) async fn next(&mut self) -> Option<Arc<str>> {
        if let Some(frame) = self.first.pop() {
            return Some(frame);
        }
        tokio::select! {
            () = self.fleet.0.stop.cancelled() => None,
            frame = self.frames.recv() => frame.ok(),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.fleet.0.readers.send_modify(|readers| *readers -= 1);
    }
}

/// What is shown is whole between any two statements, so poison says nothing.
fn lock(shown: &Mutex<Shown>) -> MutexGuard<'_, Shown> {
    shown.lock().unwrap_or_else(PoisonError::into_inner)
}
