//! How much happened in the last quarter of an hour, and how long it took: a ring of steps of ten seconds.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::domain::{RegistrationStatus, State, Worker};

/// Seconds of a step.
const STEP: i64 = 10;
/// Fifteen minutes of them.
const STEPS: i64 = 90;
/// Durations kept of a step: enough for its percentiles.
const SAMPLES: usize = 512;

/// See the module. Bounded, whatever happens in a fleet.
pub(super) struct Pulse {
    ring: Vec<Step>,
    /// Before this second not everything was taken in.
    whole_since: Option<i64>,
}

#[derive(Clone, Default)]
struct Step {
    /// Its place in time; the slot is used again a quarter of an hour later.
    number: i64,
    ready: u32,
    failed: u32,
    ended: u32,
    refused: u32,
    millis: Vec<u32>,
}

impl Pulse {
    pub(super) fn new() -> Self {
        Self { ring: vec![Step::default(); usize::try_from(STEPS).unwrap_or_default()], whole_since: None }
    }

    /// The earliest moment of which anything is kept.
    pub(super) fn begins(now: Timestamp) -> i64 {
        (now.as_second().div_euclid(STEP) - STEPS + 1) * STEP
    }

    /// What came before `at` was too much to be read back.
    pub(super) fn is_whole_since(&mut self, at: Timestamp) {
        self.whole_since = self.whole_since.max(Some(at.as_second()));
    }

    /// Takes in an event that was stored at `at`; `first` where its worker's registration had not failed before.
    pub(super) fn observe(&mut self, worker: &Worker, at: Timestamp, now: Timestamp, first: bool) {
        let Some(step) = self.step(at, now) else { return };
        match worker.state {
            State::Registered if first => step.ready += 1,
            State::Provisioned if worker.registration.status == RegistrationStatus::Disabled => step.ready += 1,
            State::RegistrationFailed if first => step.failed += 1,
            State::Failed | State::Lost => {
                step.failed += 1;
                return;
            }
            // The first event of all: the record of a command that was refused, or of a worker that never was.
            State::Terminated if worker.rev > 1 => {
                step.ended += 1;
                return;
            }
            _ => return,
        }
        let millis = worker.updated_at.as_millisecond() - worker.created_at.as_millisecond();
        if step.millis.len() < SAMPLES {
            step.millis.push(u32::try_from(millis.max(0)).unwrap_or(u32::MAX));
        }
    }

    /// A command was refused.
    pub(super) fn refused(&mut self, at: Timestamp, now: Timestamp) {
        if let Some(step) = self.step(at, now) {
            step.refused += 1;
        }
    }

    fn step(&mut self, at: Timestamp, now: Timestamp) -> Option<&mut Step> {
        let number = at.as_second().div_euclid(STEP);
        if at.as_second() < Self::begins(now) {
            return None;
        }
        let slot = self.ring.get_mut(usize::try_from(number.rem_euclid(STEPS)).ok()?)?;
        if slot.number != number {
            *slot = Step { number, ..Step::default() };
        }
        Some(slot)
    }

    /// Every step up to now, the oldest first.
    pub(super) fn shown(&self, now: Timestamp) -> Value {
        let first = Self::begins(now).div_euclid(STEP);
        let steps: Vec<Step> = (first..first + STEPS)
            .map(|number| {
                let slot = usize::try_from(number.rem_euclid(STEPS)).ok().and_then(|slot| self.ring.get(slot));
                slot.filter(|step| step.number == number).cloned().unwrap_or_default()
            })
            .collect();
        let counts = |count: fn(&Step) -> u32| steps.iter().map(count).collect::<Vec<_>>();
        let share = |percent: usize| steps.iter().map(|step| percentile(&step.millis, percent)).collect::<Vec<_>>();
        json!({
            "step": STEP,
            "from": first * STEP,
            "whole_since": self.whole_since.filter(|since| *since > first * STEP),
            "ready": counts(|step| step.ready),
            "failed": counts(|step| step.failed),
            "ended": counts(|step| step.ended),
            "refused": counts(|step| step.refused),
            "p50": share(50),
            "p95": share(95),
        })
    }
}

fn percentile(millis: &[u32], percent: usize) -> Option<u32> {
    let mut sorted = millis.to_vec();
    sorted.sort_unstable();
    let last = sorted.len().checked_sub(1)?;
    sorted.get((sorted.len() * percent / 100).min(last)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_forgotten_after_a_quarter_of_an_hour() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let mut pulse = Pulse::new();
        pulse.refused(at(1000), at(1005));
        pulse.refused(at(1009), at(1010));
        pulse.refused(at(1009), at(5000));
        let shown = pulse.shown(at(1010));
        assert_eq!(shown["refused"].as_array().unwrap().len(), 90);
        assert_eq!((&shown["refused"][88], &shown["refused"][89]), (&json!(2), &json!(0)));
        assert_eq!(shown["from"], 120);
        assert_eq!(pulse.shown(at(1000 + 890))["refused"][0], 2);
        pulse.refused(at(1000 + 900), at(1000 + 900));
        let shown = pulse.shown(at(1000 + 900));
        assert_eq!((&shown["refused"][0], &shown["refused"][89]), (&json!(0), &json!(1)));
    }

    #[test]
    fn what_was_not_read_back_is_told_of_until_the_plots_begin_behind_it() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let mut pulse = Pulse::new();
        assert_eq!(pulse.shown(at(1000))["whole_since"], json!(null));
        pulse.is_whole_since(at(1000));
        pulse.is_whole_since(at(995));
        assert_eq!(pulse.shown(at(1010))["whole_since"], json!(1000));
        assert_eq!(pulse.shown(at(1000 + 890))["whole_since"], json!(null), "all that is shown is whole");
    }

    #[test]
    fn percentiles_are_those_of_what_came() {
        assert_eq!(percentile(&[], 50), None);
        assert_eq!(percentile(&[7], 95), Some(7));
        assert_eq!(percentile(&[4, 1, 3, 2], 50), Some(3));
        assert_eq!(percentile(&(0..100).collect::<Vec<_>>(), 95), Some(95));
    }
}
