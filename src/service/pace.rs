//! How a pool's creates are paced while its provider fails them: none for a while, then one, then all again.

use std::time::Duration;

use tokio::time::Instant;

use crate::domain::ErrorClass;

const FIRST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(300);
/// By how much a hold-off is longer at most, so that replicas do not come back in step.
const JITTER: f64 = 0.2;

/// The pace of one pool in one service. Another replica has its own and finds out for itself.
#[derive(Debug, Default)]
pub(super) struct Pace {
    hold_off: Option<HoldOff>,
    /// Hold-offs so far, grown ones too: tells which calls were in hand when the newest began.
    number: u64,
}

#[derive(Debug)]
struct HoldOff {
    until: Instant,
    /// Its length without the jitter, to be doubled.
    window: Duration,
    /// The error that began it.
    why: String,
    /// Its time is over and one create is being tried.
    trying: bool,
}

/// A create that may be asked of the provider.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call(u64);

/// Why a create may not be asked of the provider now.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct HeldOff {
    /// For how long; `None` where the one create that may be is in hand.
    pub left: Option<Duration>,
    /// The provider's last error.
    pub why: String,
}

impl Pace {
    /// Whether a create may be asked now.
    pub(super) fn call(&mut self, now: Instant) -> Result<Call, HeldOff> {
        if let Some(HoldOff { until, why, trying, .. }) = &mut self.hold_off {
            let left = until.saturating_duration_since(now);
            if *trying || !left.is_zero() {
                return Err(HeldOff { left: (!left.is_zero()).then_some(left), why: why.clone() });
            }
            *trying = true;
        }
        Ok(Call(self.number))
    }

    /// A create has succeeded: the hold-off is over. Says whether there was one.
    pub(super) fn succeeded(&mut self) -> bool {
        self.hold_off.take().is_some()
    }

    /// A create has failed: the pool holds off where the next one would fail as well. Says for how long where a hold-off
    /// begins or grows by it; the failures of calls that were in hand when it began do not make it longer. `chance` is a
    /// number from 0 to 1.
    pub(super) fn failed(
        &mut self,
        call: Call,
        class: ErrorClass,
        why: &str,
        now: Instant,
        chance: f64,
    ) -> Option<Duration> {
        let window = match &self.hold_off {
            _ if !class.holds_off() => None,
            None => Some(FIRST),
            Some(held) => (call.0 == self.number).then(|| (held.window * 2).min(LONGEST)),
        };
        let Some(window) = window else {
            self.given_up(call);
            return None;
        };
        let length = window.mul_f64(1.0 + JITTER * chance.clamp(0.0, 1.0));
        self.number += 1;
        self.hold_off = Some(HoldOff { until: now + length, window, why: why.to_owned(), trying: false });
        Some(length)
    }

    /// A create has ended and says nothing about the next one.
    pub(super) fn given_up(&mut self, call: Call) {
        if let Some(held) = self.hold_off.as_mut().filter(|_| call.0 == self.number) {
            held.trying = false;
        }
    }

    /// From when on creates may be tried one at a time; `None` where nothing holds them off.
    pub(super) fn until(&self) -> Option<Instant> {
        self.hold_off.as_ref().map(|held| held.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AWAY: ErrorClass = ErrorClass::Unavailable;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    /// A pace that holds off from `now` on, for 5 s.
    fn held(now: Instant) -> Pace {
        let mut pace = Pace::default();
        let call = pace.call(now).unwrap();
        assert_eq!(pace.failed(call, AWAY, "gone", now, 0.0), Some(seconds(5)));
        pace
    }

    #[test]
    fn a_failed_create_holds_the_next_off_for_five_seconds_and_each_further_one_doubles_it() {
        let mut now = Instant::now();
        let mut pace = held(now);
        let mut lengths = Vec::new();
        for _ in 0..8 {
            let left = pace.call(now).unwrap_err().left.unwrap();
            now += left;
            let call = pace.call(now).unwrap();
            lengths.push(pace.failed(call, AWAY, "gone", now, 0.0).unwrap().as_secs());
        }
        assert_eq!(lengths, [10, 20, 40, 80, 160, 300, 300, 300]);
    }

    #[test]
    fn a_hold_off_is_never_shorter_than_its_window_and_a_fifth_longer_at_most() {
        let now = Instant::now();
        let length = |chance| {
            let mut pace = Pace::default();
            let call = pace.call(now).unwrap();
            pace.failed(call, AWAY, "gone", now, chance).unwrap()
        };
        assert_eq!((length(0.0), length(1.0), length(9.0)), (seconds(5), seconds(6), seconds(6)));
    }

    #[test]
    fn calls_that_were_in_hand_when_it_began_do_not_make_it_longer() {
        let now = Instant::now();
        let mut pace = Pace::default();
        let calls = [(); 3].map(|()| pace.call(now).unwrap());
        assert!(pace.failed(calls[0], AWAY, "gone", now, 0.0).is_some());
        assert!(pace.failed(calls[1], AWAY, "gone", now, 0.0).is_none());
        let trial = pace.call(now + seconds(5)).unwrap();
        assert!(pace.failed(calls[2], AWAY, "gone", now + seconds(6), 0.0).is_none(), "late, and no trial");
        assert!(pace.call(now + seconds(6)).is_err(), "the trial is still in hand");
        assert_eq!(pace.failed(trial, AWAY, "gone", now + seconds(7), 0.0), Some(seconds(10)));
    }

    #[test]
    fn after_a_hold_off_one_create_is_tried_and_its_success_opens_the_pool() {
        let now = Instant::now();
        let mut pace = held(now);
        assert_eq!(pace.call(now + seconds(4)).unwrap_err(), HeldOff { left: Some(seconds(1)), why: "gone".into() });
        pace.call(now + seconds(5)).unwrap();
        assert_eq!(pace.call(now + seconds(5)).unwrap_err(), HeldOff { left: None, why: "gone".into() });
        assert!(pace.succeeded() && pace.until().is_none());
        assert!(pace.call(now + seconds(5)).is_ok() && pace.call(now + seconds(5)).is_ok());
        assert!(!pace.succeeded(), "there was no hold-off");
    }

    #[test]
    fn a_trial_that_ends_otherwise_makes_room_for_another() {
        let now = Instant::now();
        let later = now + seconds(5);
        let mut pace = held(now);
        let trial = pace.call(later).unwrap();
        assert!(pace.failed(trial, ErrorClass::InvalidSpec, "no such image", later, 0.0).is_none());
        let trial = pace.call(later).unwrap();
        pace.given_up(trial);
        assert!(pace.call(later).is_ok());
    }

    #[test]
    fn a_trial_of_an_older_hold_off_makes_no_room_in_a_newer_one() {
        let now = Instant::now();
        let mut pace = held(now);
        let old = pace.call(now + seconds(5)).unwrap();
        assert!(pace.succeeded(), "a call that was in hand all along");
        let call = pace.call(now + seconds(6)).unwrap();
        pace.failed(call, AWAY, "gone again", now + seconds(6), 0.0);
        let _trial = pace.call(now + seconds(11)).unwrap();
        pace.given_up(old);
        assert!(pace.call(now + seconds(11)).is_err());
    }

    #[test]
    fn errors_that_are_a_command_s_own_hold_nobody_off() {
        let now = Instant::now();
        let mut pace = Pace::default();
        for class in [ErrorClass::InvalidSpec, ErrorClass::Conflict, ErrorClass::Timeout, ErrorClass::Internal] {
            let call = pace.call(now).unwrap();
            assert!(pace.failed(call, class, "", now, 0.0).is_none());
        }
        assert!(pace.until().is_none());
    }
}
