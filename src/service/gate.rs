//! What a pool's pace is to the service's calls, and to the queue that would pull for them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::pace::{Call, HeldOff, Pace};
use crate::provider::{Instance, ProviderError};

/// A pool's pace, shared by all who make its workers.
#[derive(Debug)]
pub(super) struct Paced {
    pace: Mutex<Pace>,
    /// [`Pace::until`], for who waits for it.
    until: watch::Sender<Option<Instant>>,
}

/// A create in hand. One that is dropped half-way makes room for the next trial.
#[derive(Debug)]
pub(super) struct Trial {
    paced: Arc<Paced>,
    call: Option<Call>,
}

/// What the end of a create has changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing.
    None,
    /// The pool holds off for so long from now on.
    HoldsOff(Duration),
    /// The pool holds off no more.
    Opens,
}

impl Paced {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { pace: Mutex::default(), until: watch::Sender::new(None) })
    }

    pub(super) fn gate(&self) -> Gate {
        Gate(self.until.subscribe())
    }

    /// Whether a create may be asked of the provider now.
    pub(super) fn call(self: &Arc<Self>) -> Result<Trial, HeldOff> {
        let call = self.pace().call(Instant::now())?;
        Ok(Trial { paced: Arc::clone(self), call: Some(call) })
    }

    /// For how long creates are held off still.
    pub(super) fn left(&self) -> Option<Duration> {
        Some(self.pace().until()?.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Trial {
    /// The provider has answered. `chance` is a number from 0 to 1.
    pub(super) fn ended(mut self, made: &Result<Instance, ProviderError>, chance: f64) -> Turn {
        let Some(call) = self.call.take() else { return Turn::None };
        let mut pace = self.paced.pace();
        let turn = match made {
            Ok(_) if pace.succeeded() => Turn::Opens,
            Ok(_) => Turn::None,
            Err(ProviderError { class, message }) => {
                pace.failed(call, *class, message, Instant::now(), chance).map_or(Turn::None, Turn::HoldsOff)
            }
        };
        if turn != Turn::None {
            self.paced.until.send_replace(pace.until());
        }
        turn
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        if let Some(call) = self.call.take() {
            self.paced.pace().given_up(call);
        }
    }
}

/// Tells a queue when to pull provisions.
#[derive(Debug, Clone)]
pub struct Gate(watch::Receiver<Option<Instant>>);

/// How many provisions may be pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    /// As many as there is room for.
    All,
    /// One at a time, as the provider has failed the last and may fail the next.
    One,
}

impl Gate {
    /// A gate that is always open, for commands that are never held off.
    #[must_use]
    pub fn open() -> Self {
        Self(watch::Sender::new(None).subscribe())
    }

    /// Waits until provisions may be pulled.
    pub async fn passes(&mut self) -> Passage {
        loop {
            let until = *self.0.borrow_and_update();
            let Some(until) = until else { return Passage::All };
            tokio::select! {
                () = sleep_until(until) => return Passage::One,
                () = self.turned() => {}
            }
        }
    }

    /// Waits until something else holds than when [`Self::passes`] said so.
    pub async fn turned(&mut self) {
        if self.0.changed().await.is_err() {
            // Nobody is left to close it.
            std::future::pending::<()>().await;
        }
    }
}
