//! Who does what to whom, and when: all of it from one seed.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::cluster::SERVERS;
use crate::fleet::{POOLS, REPLICAS};
use crate::proxy::{Break, Weather};
use crate::scheduler::Mood;

/// One deed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    /// SIGKILL; another one takes its place after a while.
    KillReplica {
        replica: usize,
        away: Duration,
    },
    /// SIGSTOP, and SIGCONT after a while.
    StopReplica {
        replica: usize,
        long: Duration,
    },
    /// SIGKILL; it comes back with the store that it had.
    KillBroker {
        broker: usize,
        away: Duration,
    },
    /// Between a replica and one broker, or all of them.
    Weather {
        replica: usize,
        broker: Option<usize>,
        weather: Weather,
        long: Duration,
    },
    Break {
        replica: usize,
        how: Break,
    },
    Mood {
        mood: Mood,
        long: Duration,
    },
    /// The scheduler loses a worker, whichever.
    Forget {
        pool: &'static str,
        pick: usize,
    },
    /// An instance is gone, whichever, and nobody asked.
    Vanish {
        pool: &'static str,
        pick: usize,
    },
}

type Draw = fn(&mut StdRng) -> Deed;

/// The deeds of a run, in the order of their times. Nothing lasts longer than the run.
pub(crate) fn plan(seed: u64, length: Duration) -> Vec<(Duration, Deed)> {
    let mut chance = StdRng::seed_from_u64(seed);
    let mut plan = Vec::new();
    // What happens every so many milliseconds, on the average.
    let kinds: [(u64, Draw); 8] = [
        (2_400, kill_replica),
        (25_000, stop_replica),
        (30_000, kill_broker),
        (6_000, weather),
        (8_000, a_break),
        (25_000, mood),
        (4_000, |chance| Deed::Forget { pool: pool(chance), pick: chance.random_range(0..10_000) }),
        (15_000, |chance| Deed::Vanish { pool: pool(chance), pick: chance.random_range(0..10_000) }),
    ];
    for (every, deed) in kinds {
        let mut at = Duration::ZERO;
        loop {
            at += Duration::from_millis(chance.random_range(every / 2..every * 3 / 2));
            if at >= length {
                break;
            }
            plan.push((at, deed(&mut chance)));
        }
    }
    plan.sort_by_key(|(at, _)| *at);
    for (at, deed) in &mut plan {
        if let Deed::KillReplica { away: long, .. }
        | Deed::StopReplica { long, .. }
        | Deed::KillBroker { away: long, .. }
        | Deed::Weather { long, .. }
        | Deed::Mood { long, .. } = deed
        {
            *long = (*long).min(length.saturating_sub(*at));
        }
    }
    plan
}

fn kill_replica(chance: &mut StdRng) -> Deed {
    let away = millis(chance, 50, 1_500);
    Deed::KillReplica { replica: chance.random_range(0..REPLICAS), away }
}

/// Sometimes for longer than the ack wait.
fn stop_replica(chance: &mut StdRng) -> Deed {
    let long = if chance.random_bool(0.3) { millis(chance, 31_000, 45_000) } else { millis(chance, 1_000, 15_000) };
    Deed::StopReplica { replica: chance.random_range(0..REPLICAS), long }
}

fn kill_broker(chance: &mut StdRng) -> Deed {
    Deed::KillBroker { broker: chance.random_range(0..SERVERS), away: millis(chance, 200, 8_000) }
}

fn weather(chance: &mut StdRng) -> Deed {
    let weather = match chance.random_range(0..3) {
        0 => Weather::Blackhole,
        _ => Weather::Delay(millis(chance, 20, 700)),
    };
    let broker = chance.random_bool(0.6).then(|| chance.random_range(0..SERVERS));
    Deed::Weather { replica: chance.random_range(0..REPLICAS), broker, weather, long: millis(chance, 2_000, 15_000) }
}

fn a_break(chance: &mut StdRng) -> Deed {
    let how = if chance.random_bool(0.3) { Break::HalfOpen } else { Break::Reset };
    Deed::Break { replica: chance.random_range(0..REPLICAS), how }
}

fn mood(chance: &mut StdRng) -> Deed {
    let mood = match chance.random_range(0..4) {
        0 => Mood::Silent,
        1 => Mood::Away,
        // Some of it is too late for one try.
        _ => Mood::Slow(millis(chance, 100, 3_000)),
    };
    Deed::Mood { mood, long: millis(chance, 3_000, 15_000) }
}

fn pool(chance: &mut StdRng) -> &'static str {
    POOLS[chance.random_range(0..POOLS.len())]
}

fn millis(chance: &mut StdRng, from: u64, to: u64) -> Duration {
    Duration::from_millis(chance.random_range(from..to))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN_MINUTES: Duration = Duration::from_secs(600);

    #[test]
    fn a_seed_always_makes_the_same_plan_and_another_seed_another() {
        assert_eq!(plan(7, TEN_MINUTES), plan(7, TEN_MINUTES));
        assert_ne!(plan(7, TEN_MINUTES), plan(8, TEN_MINUTES));
    }

    #[test]
    fn ten_minutes_see_two_hundred_kills_and_every_kind_of_deed_and_all_is_over_in_time() {
        let plan = plan(7, TEN_MINUTES);
        let kills = plan.iter().filter(|(_, deed)| matches!(deed, Deed::KillReplica { .. } | Deed::KillBroker { .. }));
        assert!(kills.count() >= 200);
        for (at, deed) in &plan {
            let long = match deed {
                Deed::KillReplica { away: long, .. }
                | Deed::StopReplica { long, .. }
                | Deed::KillBroker { away: long, .. }
                | Deed::Weather { long, .. }
                | Deed::Mood { long, .. } => *long,
                Deed::Break { .. } | Deed::Forget { .. } | Deed::Vanish { .. } => Duration::ZERO,
            };
            assert!(*at + long <= TEN_MINUTES, "{deed:?}");
        }
        let kinds: std::collections::HashSet<_> = plan.iter().map(|(_, deed)| std::mem::discriminant(deed)).collect();
        assert_eq!(kinds.len(), 8);
    }
}
