//! What has to hold for this replica to be of use, as others have found it; `/readyz` tells it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::domain::{Lane, Pool};

/// Set by those who know, read by `/readyz`. Starts out not ready.
pub struct Health {
    connected: AtomicBool,
    draining: AtomicBool,
    scheduler: AtomicBool,
    pools: BTreeMap<Pool, PoolHealth>,
}

struct PoolHealth {
    /// By [`Lane`].
    pulling: [AtomicBool; Lane::ALL.len()],
    provider: AtomicBool,
    frozen: AtomicBool,
    /// The newest sweep has seen all that it looks at.
    seen: AtomicBool,
}

/// One thing that holds or does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// What holds, say `pulling web/provision`.
    pub name: String,
    /// Whether it does.
    pub holds: bool,
    /// Whether the replica is of no use without it. What is not needed is told all the same: a scheduler that is away
    /// makes every replica worse, and taking them all out of service would not bring it back.
    pub needed: bool,
}

impl Health {
    /// The health of a replica that serves these pools.
    pub fn new<'p>(pools: impl IntoIterator<Item = &'p Pool>) -> Self {
        let pool = |pool: &Pool| {
            let pulling = Lane::ALL.map(|_| AtomicBool::new(false));
            let (provider, frozen, seen) = (AtomicBool::new(true), AtomicBool::new(false), AtomicBool::new(true));
            let health = PoolHealth { pulling, provider, frozen, seen };
            (pool.clone(), health)
        };
        Self {
            connected: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            scheduler: AtomicBool::new(true),
            pools: pools.into_iter().map(pool).collect(),
        }
    }

    /// The connection to NATS stands, or does not.
    pub fn set_connected(&self, connected: bool) {
        self.connected.store(connected, Ordering::Relaxed);
    }

    /// A consumer of a pool is being pulled from, or is not.
    pub fn set_pulling(&self, pool: &Pool, lane: Lane, pulling: bool) {
        if let Some(pool) = self.pools.get(pool) {
            pool.pulling[lane as usize].store(pulling, Ordering::Relaxed);
        }
    }

    /// The replica finishes what it has and takes nothing new.
    pub fn set_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// The scheduler has answered the newest request, whatever it said, or has not.
    pub fn set_scheduler(&self, answers: bool) {
        self.scheduler.store(answers, Ordering::Relaxed);
    }

    /// The pool's provider could be reached the last time, or could not.
    pub fn set_provider(&self, pool: &Pool, reachable: bool) {
        if let Some(pool) = self.pools.get(pool) {
            pool.provider.store(reachable, Ordering::Relaxed);
        }
    }

    /// The pool's sweep removes nothing, as too much would go; or it does again.
    pub fn set_frozen(&self, pool: &Pool, frozen: bool) {
        if let Some(pool) = self.pools.get(pool) {
            pool.frozen.store(frozen, Ordering::Relaxed);
        }
    }

    /// The newest sweep of a pool could see log and provider, or could not.
    pub fn set_seen(&self, pool: &Pool, seen: bool) {
        if let Some(pool) = self.pools.get(pool) {
            pool.seen.store(seen, Ordering::Relaxed);
        }
    }

    /// Whether everything needed holds.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.conditions().iter().all(|condition| condition.holds || !condition.needed)
    }

    /// Every condition, needed ones first.
    #[must_use]
    pub fn conditions(&self) -> Vec<Condition> {
        let Self { connected, draining, scheduler, pools } = self;
        let is = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        let needed = |name: String, holds| Condition { name, holds, needed: true };
        let told = |name: String, holds| Condition { name, holds, needed: false };
        let mut all =
            vec![needed("connected".to_owned(), is(connected)), needed("not draining".to_owned(), !is(draining))];
        for (pool, PoolHealth { pulling, provider: _, frozen: _, seen: _ }) in pools {
            let lanes = Lane::ALL.iter().zip(pulling);
            all.extend(lanes.map(|(lane, flag)| needed(format!("pulling {pool}/{}", lane.as_str()), is(flag))));
        }
        all.push(told("scheduler answers".to_owned(), is(scheduler)));
        for (pool, PoolHealth { pulling: _, provider, frozen, seen }) in pools {
            all.push(told(format!("provider of {pool} reachable"), is(provider)));
            all.push(told(format!("sweep of {pool} sees log and provider"), is(seen)));
            all.push(told(format!("sweep of {pool} not frozen"), !is(frozen)));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_is_ready_when_it_is_connected_and_pulls_every_lane_and_does_not_drain() {
        let pool = Pool::new("web").unwrap();
        let health = Health::new([&pool]);
        health.set_connected(true);
        for lane in Lane::ALL {
            assert!(!health.ready(), "{lane:?} is not pulled yet");
            health.set_pulling(&pool, lane, true);
        }
        assert!(health.ready());
        health.set_scheduler(false);
        health.set_frozen(&pool, true);
        assert!(health.ready(), "told, but not a reason to take the replica out of service");
        health.set_draining();
        assert!(!health.ready());
    }
}
