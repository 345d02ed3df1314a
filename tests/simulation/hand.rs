//! A delivery in a replica's hands: known to everything that its task calls, and stopped from outside.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use enlist::domain::{Pool, Verb, WorkerKey};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::world::World;

tokio::task_local! {
    pub(crate) static HAND: Arc<Hand>;
}

/// One delivery of one message.
#[derive(Debug)]
pub(crate) struct Hand {
    pub(crate) replica: usize,
    /// No other delivery of the run has it.
    pub(crate) number: u64,
    pub(crate) pool: Pool,
    pub(crate) verb: Verb,
    pub(crate) message: u64,
    pub(crate) deliveries: u64,
    pub(crate) abandon: CancellationToken,
    pub(crate) paused_until: Mutex<Option<Instant>>,
    /// Workers whose record was looked at since they were last offered to the scheduler.
    pub(crate) looked: Mutex<BTreeMap<WorkerKey, bool>>,
}

impl Hand {
    pub(crate) fn pause(&self, until: Instant) {
        *self.paused_until.lock().unwrap() = Some(until);
    }
}

impl fmt::Display for Hand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { replica, number, pool, verb, message, deliveries, .. } = self;
        write!(f, "r{replica} #{number} ({pool} {} {message}/{deliveries})", verb.as_str())
    }
}

/// A task that is not polled while its replica, or it alone, stands still.
pub(crate) struct Pausable<F> {
    pub(crate) world: Arc<World>,
    pub(crate) hand: Arc<Hand>,
    pub(crate) inner: Pin<Box<F>>,
    pub(crate) still: Option<Pin<Box<Sleep>>>,
}

impl<F: Future<Output = ()>> Future for Pausable<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(still) = &mut self.still {
                ready!(still.as_mut().poll(cx));
                self.still = None;
            }
            let replica = self.world.replicas.lock().unwrap().paused_until(self.hand.replica);
            let own = *self.hand.paused_until.lock().unwrap();
            match replica.max(own).filter(|until| *until > Instant::now()) {
                Some(until) => self.still = Some(Box::pin(sleep_until(until))),
                None => return self.inner.as_mut().poll(cx),
            }
        }
    }
}
