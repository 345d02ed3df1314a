//! Room for commands in hand, shared by the queues of a replica.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// So many commands at once.
#[derive(Debug)]
pub struct Slots {
    all: Arc<Semaphore>,
}

/// Room for some commands; given back when dropped.
#[derive(Debug)]
pub(super) struct Room {
    shared: OwnedSemaphorePermit,
    own: OwnedSemaphorePermit,
}

impl Slots {
    /// Room for `number` commands.
    #[must_use]
    pub fn new(number: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(number)) }
    }

    /// Waits for room for one command, then takes what else is free, up to `most`. The pool's own room is asked first,
    /// so that a full pool does not hold room that another could use.
    pub(super) async fn take(&self, own: &Arc<Semaphore>, most: usize) -> Room {
        // Neither semaphore is ever closed.
        let first_own = Arc::clone(own).acquire_owned().await;
        let first_shared = Arc::clone(&self.all).acquire_owned().await;
        #[allow(clippy::expect_used, reason = "no code closes these semaphores")]
        let mut room = Room { shared: first_shared.expect("never closed"), own: first_own.expect("never closed") };
        let more = most.saturating_sub(1).min(own.available_permits()).min(self.all.available_permits());
        if let Some(more) = self.try_take(own, more) {
            room.merge(more);
        }
        room
    }

    /// Commands for which there is room now.
    pub(super) fn free(&self) -> usize {
        self.all.available_permits()
    }

    /// Room for `number` commands if there is so much.
    pub(super) fn try_take(&self, own: &Arc<Semaphore>, number: usize) -> Option<Room> {
        let number = u32::try_from(number).ok().filter(|number| *number > 0)?;
        let own = Arc::clone(own).try_acquire_many_owned(number).ok()?;
        let shared = Arc::clone(&self.all).try_acquire_many_owned(number).ok()?;
        Some(Room { shared, own })
    }
}

impl Room {
    pub(super) fn size(&self) -> usize {
        self.own.num_permits()
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.shared.merge(other.shared);
        self.own.merge(other.own);
    }

    /// Takes room for `number` commands out of this one.
    pub(super) fn split(&mut self, number: usize) -> Option<Self> {
        let own = self.own.split(number)?;
        let shared = self.shared.split(number)?;
        Some(Self { shared, own })
    }
}
