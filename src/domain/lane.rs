//! The lanes of a pool: what waits in one consumer never waits for what is in another.

use super::Verb;

/// One consumer of a pool's queue, pulled by a task of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// Workers to be made.
    Provision,
    /// Workers to be removed.
    Terminate,
    /// The pool as a whole.
    Control,
}

impl Lane {
    /// Every lane.
    pub const ALL: [Self; 3] = [Self::Provision, Self::Terminate, Self::Control];

    /// The name of its consumer.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Provision => "provision",
            Self::Terminate => "terminate",
            Self::Control => "control",
        }
    }

    /// The verbs whose commands its consumer gives out.
    #[must_use]
    pub fn verbs(self) -> &'static [Verb] {
        match self {
            Self::Provision => &[Verb::Provision],
            Self::Terminate => &[Verb::Terminate],
            Self::Control => &[Verb::Pool, Verb::Sweep],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_has_one_lane() {
        let mut verbs = Lane::ALL.map(Lane::verbs).concat();
        verbs.sort_unstable();
        assert_eq!(verbs, Verb::ALL);
    }

    #[test]
    fn every_lane_is_where_its_number_says() {
        assert!(Lane::ALL.iter().enumerate().all(|(n, lane)| *lane as usize == n));
    }
}
