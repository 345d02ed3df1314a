//! How long to wait before a command is looked at again, and how often it may stand still.

use std::time::Duration;

/// A command that ended its replica, or made no progress, this often is exhausted.
pub const MAX_IDLE_TRIES: u32 = 5;

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(300);

/// Delay before redelivery number `tries` (from 1 on): full jitter over a window that doubles from 0.5 s to 5 min.
///
/// `chance` is a number from 0 to 1 that the caller draws. The window starts at 0.5 s and no delay is shorter than
/// a tenth of it, so that a hot loop cannot come about by luck.
#[must_use]
pub fn nak_delay(tries: u32, chance: f64) -> Duration {
    let window = FIRST.saturating_mul(1 << tries.saturating_sub(1).min(10)).min(LONGEST);
    window.mul_f64(chance.clamp(0.1, 1.0))
}

/// Delay before a command is looked at again that waits for another one to end: from 0.1 s on, up to 5 s.
#[must_use]
pub fn wait_delay(tries: u32, chance: f64) -> Duration {
    let window = Duration::from_millis(250).saturating_mul(tries.clamp(1, 20));
    window.mul_f64(chance.clamp(0.4, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_five_minutes_and_never_vanish() {
        assert_eq!(nak_delay(1, 1.0), Duration::from_millis(500));
        assert_eq!(nak_delay(2, 1.0), Duration::from_secs(1));
        assert_eq!(nak_delay(200, 1.0), Duration::from_secs(300));
        assert!(nak_delay(1, 0.0) >= Duration::from_millis(50));
    }
}
