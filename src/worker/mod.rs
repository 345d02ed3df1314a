//! Where commands come in and are settled, and nowhere else: pull, permits, one task a message, settle, drain.

mod queue;
mod slots;
mod ticker;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::domain::Verb;

pub use queue::{Queue, QueueContext};
pub use slots::Slots;
pub use ticker::ask_for_sweeps;

/// Commands about one pool as a whole in hand at once. They are few, and each asks much of provider and scheduler.
pub const CONTROL_SLOTS: usize = 4;

/// Told of each command that has come to its end, and how long it was in hand.
pub type Watch = Arc<dyn Fn(Verb, Duration) + Send + Sync>;

/// The tasks of one replica.
#[derive(Clone)]
pub struct Worker {
    /// One for each command in hand, and one for each queue.
    pub tasks: TaskTracker,
    /// Stop taking on.
    pub stop: CancellationToken,
    /// Stop what is in hand as well.
    pub abandon: CancellationToken,
    /// For who measures; `None` in production.
    pub watch: Option<Watch>,
}

impl Worker {
    /// A replica that takes on commands.
    #[must_use]
    pub fn new(watch: Option<Watch>) -> Self {
        Self { tasks: TaskTracker::new(), stop: CancellationToken::new(), abandon: CancellationToken::new(), watch }
    }

    /// Stops pulling, and waits up to `patience` for what is in hand.
    pub async fn drain(&self, patience: Duration) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(patience, self.tasks.wait()).await.is_err() {
            tracing::warn!(left = self.tasks.len(), "the drain is over; what is left goes back to its queue");
        }
    }

    /// Gives what is still in hand back to the queue. What is cut off half-way is where a crash would have left it, and is
    /// taken over like one.
    pub async fn give_back(&self) {
        self.abandon.cancel();
        self.tasks.wait().await;
    }
}
