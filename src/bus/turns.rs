//! Whose request goes out next where several pools share a connection.
//!
//! The server answers in the order in which it is asked. A pool with hundreds of writes on their way would have every other
//! pool wait behind them, step by step: so while more than one pool is at work, each has only so many on their way that
//! the connection is kept busy, and the rest wait here, where they are in nobody's way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

/// Requests of one pool on their way while another pool is at work.
const MOST: usize = 16;
/// A pool that has sent nothing for so long is not at work.
const IDLE: Duration = Duration::from_secs(1);

/// One pool's turns.
#[derive(Debug, Clone)]
pub struct Turns(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    pool: usize,
    on_their_way: Semaphore,
    crowd: Arc<Crowd>,
}

#[derive(Debug)]
struct Crowd {
    since: Instant,
    /// When each pool last sent something, in milliseconds after `since` and one more; 0 where it never has.
    sent: Vec<AtomicU64>,
}

impl Turns {
    /// The turns of so many pools that share a connection.
    #[must_use]
    pub fn of(pools: usize) -> Vec<Self> {
        let sent = (0..pools).map(|_| AtomicU64::new(0)).collect();
        let crowd = Arc::new(Crowd { since: Instant::now(), sent });
        let turns = |pool| Shared { pool, on_their_way: Semaphore::new(MOST), crowd: Arc::clone(&crowd) };
        (0..pools).map(|pool| Self(Arc::new(turns(pool)))).collect()
    }

    /// Waits for a turn; `None` where no other pool is at work, and none is needed.
    pub(super) async fn next(&self) -> Option<SemaphorePermit<'_>> {
        let Shared { pool, on_their_way, crowd } = &*self.0;
        if crowd.has_others(*pool) { on_their_way.acquire().await.ok() } else { None }
    }
}

impl Crowd {
    /// Whether another pool is at work; this one is from now on.
    fn has_others(&self, pool: usize) -> bool {
        let now = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        self.sent[pool].store(now, Ordering::Relaxed);
        let at_work = |sent: &AtomicU64| match sent.load(Ordering::Relaxed) {
            0 => false,
            sent => u128::from(now.saturating_sub(sent)) < IDLE.as_millis(),
        };
        self.sent.iter().enumerate().any(|(other, sent)| other != pool && at_work(sent))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pool_alone_needs_no_turn_and_beside_another_has_so_many() {
        let [busy, other] = <[Turns; 2]>::try_from(Turns::of(2)).unwrap();
        for _ in 0..2 * MOST {
            assert!(busy.next().await.is_none());
        }
        let _theirs = other.next().await.unwrap();
        let mut mine: Vec<_> = futures_util::future::join_all((0..MOST).map(|_| busy.next())).await;
        assert!(mine.iter().all(Option::is_some) && busy.next().now_or_never().is_none());
        assert!(other.next().await.is_some(), "the other has turns of its own");
        mine.pop();
        assert!(busy.next().now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_pool_that_has_sent_nothing_for_a_second_is_nobody_to_wait_for() {
        let [busy, other] = <[Turns; 2]>::try_from(Turns::of(2)).unwrap();
        assert!(other.next().await.is_none());
        assert!(busy.next().await.is_some());
        tokio::time::advance(IDLE).await;
        assert!(busy.next().await.is_none());
    }
}
