//! Durations as people write them: `30s`, `5m`, `1h30m`, `250ms`, `7d`.

use std::time::Duration;

/// What a duration is expected to look like.
pub(crate) const EXPECTED: &str = "a duration such as \"30s\", \"5m\", \"1h30m\", \"250ms\" or \"7d\"";

/// Longer waits are a slip of the pen, and would overflow clocks further down.
const MOST: Duration = Duration::from_secs(3650 * 86_400);

/// The units, from the largest to the smallest, in milliseconds.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Reads a duration: whole numbers, each with its unit, from the larger unit to the smaller.
pub(crate) fn parse(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total: u64 = 0;
    let mut units = UNITS.as_slice();
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let place = units.iter().position(|(name, _)| *name == unit)?;
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(units[place].1)?)?;
        units = &units[place + 1..];
        rest = tail;
    }
    let duration = Duration::from_millis(total);
    (!text.is_empty() && duration <= MOST).then_some(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_numbers_with_units_from_large_to_small() {
        for (text, ms) in [
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("250ms", 250),
            ("7d", 604_800_000),
            ("1s500ms", 1500),
            ("0s", 0),
        ] {
            assert_eq!(parse(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "30", "s", "-1s", "1.5s", "5m1h", "1s1s", "1 s", "30S", "99999999999999999999s", "9999999d"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
