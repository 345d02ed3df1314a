//! Which workers of one pool are live, and in which order they were claimed: a fold over the log's subjects.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::domain::{State, WorkerId};

/// The live workers of one pool. Ids are kept as 64-bit hashes: some 20 bytes a worker.
#[derive(Debug, Default)]
pub struct Census {
    live: HashMap<u64, (u64, State)>,
    by_state: [usize; State::ALL.len()],
    sequence: u64,
}

fn fingerprint(id: &WorkerId) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

impl Census {
    /// Takes one event in, in the order of the log. `claim` is the place that the event says its worker's claim has: a
    /// snapshot holds only the newest event of each state, and so not the claim of a worker that was taken over while it
    /// was being provisioned. Without it the event is the claim, or an older version's.
    pub fn observe(&mut self, id: &WorkerId, state: State, sequence: u64, claim: Option<u64>) {
        self.sequence = self.sequence.max(sequence);
        let key = fingerprint(id);
        if state.is_final() {
            if let Some((_, old)) = self.live.remove(&key) {
                self.by_state[old as usize] -= 1;
            }
            return;
        }
        let slot = self.live.entry(key).or_insert_with(|| {
            self.by_state[state as usize] += 1;
            (claim.unwrap_or(sequence), state)
        });
        self.by_state[slot.1 as usize] -= 1;
        self.by_state[state as usize] += 1;
        slot.1 = state;
    }

    /// The log is known up to here.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Workers that are not final.
    #[must_use]
    pub fn live(&self) -> usize {
        self.live.len()
    }

    /// Whether this worker is among the first `max` live ones, in the order of their claims; `None` where it is not live.
    #[must_use]
    pub fn admits(&self, id: &WorkerId, max: usize) -> Option<bool> {
        let (own, _) = self.live.get(&fingerprint(id))?;
        Some(self.live.len() <= max || self.live.values().filter(|(sequence, _)| sequence < own).count() < max)
    }

    /// Live workers by state; final states are not counted, since they leave the fleet.
    pub fn by_state(&self) -> impl Iterator<Item = (State, usize)> + '_ {
        State::ALL.into_iter().filter(|state| !state.is_final()).map(|state| (state, self.by_state[state as usize]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_counts_from_its_claim_to_its_final_event() {
        let id = |n: &str| WorkerId::new(n).unwrap();
        let mut census = Census::default();
        census.observe(&id("a"), State::Provisioning, 1, None);
        census.observe(&id("b"), State::Provisioning, 2, None);
        census.observe(&id("a"), State::Provisioned, 3, Some(1));
        assert_eq!(
            (census.live(), census.admits(&id("a"), 1), census.admits(&id("b"), 1)),
            (2, Some(true), Some(false))
        );
        assert_eq!(census.by_state().find(|(s, _)| *s == State::Provisioned), Some((State::Provisioned, 1)));
        census.observe(&id("a"), State::Terminated, 4, Some(1));
        assert_eq!((census.live(), census.admits(&id("b"), 1), census.sequence()), (1, Some(true), 4));
        assert_eq!(census.admits(&id("a"), 1), None);
    }

    #[test]
    fn a_worker_that_was_taken_over_keeps_the_place_of_its_claim() {
        let id = |n: &str| WorkerId::new(n).unwrap();
        let mut census = Census::default();
        // A snapshot: the claim of `a`, at 1, is no longer in it.
        census.observe(&id("b"), State::Provisioning, 2, None);
        census.observe(&id("a"), State::Provisioning, 3, Some(1));
        assert_eq!((census.admits(&id("a"), 1), census.admits(&id("b"), 1)), (Some(true), Some(false)));
    }

    #[test]
    fn a_host_that_is_allocated_again_goes_to_the_end_of_the_order() {
        let id = |n: &str| WorkerId::new(n).unwrap();
        let mut census = Census::default();
        census.observe(&id("a"), State::Registered, 3, Some(1));
        census.observe(&id("b"), State::Registered, 4, Some(2));
        census.observe(&id("a"), State::Terminated, 5, Some(1));
        census.observe(&id("a"), State::Provisioning, 6, None);
        census.observe(&id("a"), State::Provisioned, 7, Some(6));
        assert_eq!((census.admits(&id("a"), 1), census.admits(&id("b"), 1)), (Some(false), Some(true)));
    }
}
