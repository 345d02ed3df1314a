//! Room for commands in hand: a share for every pool of a replica, and the rest for whoever comes first.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// One pool's room in one lane. A pool whose provider hangs can take all that is common, and never another's share.
#[derive(Debug)]
pub struct Slots(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Commands of this pool at once, wherever their room comes from.
    most: usize,
    /// So many of them never wait for another pool.
    share: usize,
    common: Arc<Semaphore>,
    taken: Mutex<Taken>,
    freed: Notify,
}

/// What a pool has in hand. Only what is beyond its share counts against the common room, whichever was taken first: a
/// pool that shrinks to its share holds nothing that another could use.
#[derive(Debug, Default)]
struct Taken {
    number: usize,
    common: Option<OwnedSemaphorePermit>,
}

/// Room for some commands; given back when dropped.
#[derive(Debug)]
pub(super) struct Room {
    shared: Arc<Shared>,
    number: usize,
}

impl Slots {
    /// The slots of pools that have room for `total` commands together, in the order of `most`, which says how many each
    /// may have at once. Half of the total is shared out evenly. Every pool has one slot at least, so that a total below
    /// the number of pools is exceeded: a pool without any would never be served, and a fleet that grows by a pool shall
    /// start all the same.
    #[must_use]
    pub fn shared_out(total: usize, most: &[usize]) -> Vec<Self> {
        let even = (total / (2 * most.len().max(1))).max(1);
        let shares: usize = most.iter().map(|most| even.min(*most)).sum();
        let common = Arc::new(Semaphore::new(total.saturating_sub(shares)));
        most.iter().map(|most| Self::new(*most, even.min(*most), Arc::clone(&common))).collect()
    }

    /// Slots that nobody else can take.
    #[must_use]
    pub fn alone(number: usize) -> Self {
        Self::new(number, number, Arc::new(Semaphore::new(0)))
    }

    fn new(most: usize, share: usize, common: Arc<Semaphore>) -> Self {
        Self(Arc::new(Shared { most, share, common, taken: Mutex::default(), freed: Notify::new() }))
    }

    /// Commands of this pool at once.
    pub(super) fn most(&self) -> usize {
        self.0.most
    }

    /// So many commands never wait for another pool.
    pub(super) fn share(&self) -> usize {
        self.0.share
    }

    /// Commands in hand or asked for.
    pub(super) fn taken(&self) -> usize {
        self.0.taken().number
    }

    /// Commands for which there is room now.
    pub(super) fn free(&self) -> usize {
        let Shared { most, share, common, taken: _, freed: _ } = &*self.0;
        let number = self.0.taken().number;
        (share.saturating_sub(number) + common.available_permits()).min(most - number)
    }

    /// Waits until a command of this pool has ended.
    pub(super) async fn freed(&self) {
        self.0.freed.notified().await;
    }

    /// Waits for room for one command, in the share or the common room, wherever it comes first; then takes what else is
    /// free, up to `most`. Keeps its place among those that wait for the common room. What is dropped half-way has taken
    /// nothing. One at a time, hence `mut`.
    pub(super) async fn take(&mut self, most: usize) -> Room {
        let mut common = pin!(Arc::clone(&self.0.common).acquire_owned());
        loop {
            if let Some(room) = self.take_free(most) {
                return room;
            }
            let may_have_more = self.0.taken().number < self.0.most;
            tokio::select! {
                biased;
                // Kept by the notifier if it comes before this waits for it.
                () = self.freed() => {}
                permit = &mut common, if may_have_more => {
                    #[allow(clippy::expect_used, reason = "no code closes it")]
                    let mut room = self.0.take(1, Some(permit.expect("never closed")));
                    if let Some(more) = self.take_free(most.saturating_sub(1)) {
                        room.merge(more);
                    }
                    return room;
                }
            }
        }
    }

    /// What is free now, up to `most`; the share first.
    pub(super) fn take_free(&self, most: usize) -> Option<Room> {
        let number = most.min(self.free());
        let of_share = self.0.share.saturating_sub(self.0.taken().number).min(number);
        let beyond = u32::try_from(number - of_share).ok()?;
        let (number, common) = match beyond {
            0 => (of_share, None),
            // Another pool may just have been quicker, then it is the share alone.
            _ => match Arc::clone(&self.0.common).try_acquire_many_owned(beyond) {
                Ok(common) => (number, Some(common)),
                Err(_) => (of_share, None),
            },
        };
        (number > 0).then(|| self.0.take(number, common))
    }
}

impl Shared {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(self: &Arc<Self>, number: usize, common: Option<OwnedSemaphorePermit>) -> Room {
        let mut taken = self.taken();
        taken.number += number;
        match (&mut taken.common, common) {
            (Some(had), Some(more)) => had.merge(more),
            (had @ None, more) => *had = more,
            (Some(_), None) => {}
        }
        self.return_common(&mut taken);
        Room { shared: Arc::clone(self), number }
    }

    fn give_back(&self, number: usize) {
        let mut taken = self.taken();
        taken.number -= number;
        self.return_common(&mut taken);
        drop(taken);
        self.freed.notify_one();
    }

    /// Lets go of the common room that the pool has and does not need, as its share has room.
    fn return_common(&self, taken: &mut Taken) {
        let needed = taken.number.saturating_sub(self.share);
        if let Some(common) = &mut taken.common {
            drop(common.split(common.num_permits().saturating_sub(needed)));
        }
    }
}

impl Room {
    pub(super) fn size(&self) -> usize {
        self.number
    }

    pub(super) fn merge(&mut self, mut other: Self) {
        self.number += std::mem::take(&mut other.number);
    }

    /// Takes room for `number` commands out of this one.
    pub(super) fn split(&mut self, number: usize) -> Option<Self> {
        self.number = self.number.checked_sub(number)?;
        Some(Self { shared: Arc::clone(&self.shared), number })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if self.number > 0 {
            self.shared.give_back(self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Two pools: 8 slots of each one's own at most 100 in hand, 16 common.
    fn two() -> (Slots, Slots) {
        let mut slots = Slots::shared_out(32, &[100, 100]);
        let second = slots.pop().unwrap();
        (slots.pop().unwrap(), second)
    }

    #[test]
    fn a_pool_that_takes_all_it_can_leaves_the_others_their_shares() {
        let (mut greedy, mut late) = two();
        let all = greedy.take(1000).now_or_never().unwrap();
        assert_eq!(all.size(), 24);
        assert_eq!(late.take(1000).now_or_never().unwrap().size(), 8);
    }

    #[test]
    fn the_share_is_used_before_what_is_common() {
        let (mut first, mut second) = two();
        let _own = first.take(8).now_or_never().unwrap();
        assert_eq!(second.take(1000).now_or_never().unwrap().size(), 24, "the common room is untouched");
    }

    #[test]
    fn a_pool_that_shrinks_to_its_share_holds_nothing_that_is_common() {
        let (mut first, mut second) = two();
        let mut of_share = first.take(8).now_or_never().unwrap();
        let _common = first.take(16).now_or_never().unwrap();
        let _own = second.take(8).now_or_never().unwrap();
        assert!(second.take(1).now_or_never().is_none());
        drop(of_share.split(3));
        assert_eq!(second.take(16).now_or_never().unwrap().size(), 3);
    }

    #[tokio::test]
    async fn who_waits_is_served_by_its_own_share_and_by_the_common_room() {
        let (mut first, mut second) = two();
        let common = first.take(1000).await;
        let own = second.take(1000).await;
        let mut waits = Box::pin(second.take(4));
        assert!((&mut waits).now_or_never().is_none());
        drop(own);
        assert_eq!(waits.await.size(), 4, "its own share had room");
        let _own = second.take(1000).await;
        let mut waits = Box::pin(second.take(4));
        assert!((&mut waits).now_or_never().is_none());
        drop(common);
        assert_eq!(waits.await.size(), 4, "the common room had room");
    }

    #[tokio::test]
    async fn who_gives_up_waiting_has_taken_nothing() {
        let (mut first, mut second) = two();
        let common = first.take(1000).await;
        let _own = second.take(8).await;
        let mut waits = Box::pin(second.take(4));
        assert!((&mut waits).now_or_never().is_none());
        // The first free slot of the common room is the waiting one's now, and has not been fetched.
        drop(common);
        drop(waits);
        assert_eq!(first.take(1000).await.size(), 24);
    }

    #[test]
    fn a_total_below_the_number_of_pools_still_has_one_for_each() {
        let slots = Slots::shared_out(2, &[5, 5, 5]);
        let rooms: Vec<usize> = slots.iter().map(|slots| slots.take_free(9).unwrap().size()).collect();
        assert_eq!(rooms, [1, 1, 1]);
    }

    proptest! {
        /// Each step: a pool takes so many, or gives back its oldest.
        #[test]
        fn a_pool_gets_its_share_whatever_others_hold(
            total in 1_usize..64,
            most in vec(1_usize..40, 1..6),
            steps in vec((0_usize..6, 0_usize..50), 1..60),
        ) {
            let mut slots = Slots::shared_out(total, &most);
            let mut held: Vec<Vec<Room>> = most.iter().map(|_| Vec::new()).collect();
            let limit = total.max(most.len());
            for (pool, number) in steps {
                let pool = pool % most.len();
                let has: usize = held[pool].iter().map(Room::size).sum();
                let free = slots[pool].free();
                prop_assert!(free >= slots[pool].share().saturating_sub(has), "the share is there");
                if number == 0 && !held[pool].is_empty() {
                    held[pool].remove(0);
                } else {
                    let taken = slots[pool].take(number.max(1)).now_or_never();
                    prop_assert_eq!(taken.as_ref().map_or(0, Room::size), free.min(number.max(1)));
                    held[pool].extend(taken);
                }
                let sizes: Vec<usize> = held.iter().map(|rooms| rooms.iter().map(Room::size).sum()).collect();
                prop_assert!(sizes.iter().sum::<usize>() <= limit);
                prop_assert!(sizes.iter().zip(&most).all(|(size, most)| size <= most));
                let beyond: usize = sizes.iter().zip(&slots).map(|(n, slots)| n.saturating_sub(slots.share())).sum();
                let shares: usize = slots.iter().map(Slots::share).sum();
                let common = slots[0].0.common.available_permits();
                prop_assert_eq!(common + beyond, total.saturating_sub(shares), "no slot is lost, none is made");
            }
        }
    }
}
