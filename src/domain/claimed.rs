//! Which claim a worker is of, as its instance keeps it.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A claim by its place in the log and its time. A log that was put back to an older copy may come to the same place with
/// the same command once more, and never at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Claimed {
    /// Where in the log.
    pub sequence: u64,
    /// When.
    pub at: Timestamp,
}

impl fmt::Display for Claimed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.sequence, self.at)
    }
}

/// A text that is no claim.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("found {0:?}, expected a number and a time, such as 7@2026-01-01T00:00:00Z")]
pub struct NoClaim(String);

impl FromStr for Claimed {
    type Err = NoClaim;

    fn from_str(text: &str) -> Result<Self, NoClaim> {
        let parts = || {
            let (sequence, at) = text.split_once('@')?;
            Some(Self { sequence: sequence.parse().ok()?, at: at.parse().ok()? })
        };
        parts().ok_or_else(|| NoClaim(text.chars().take(80).collect()))
    }
}

impl TryFrom<String> for Claimed {
    type Error = NoClaim;

    fn try_from(text: String) -> Result<Self, NoClaim> {
        text.parse()
    }
}

impl From<Claimed> for String {
    fn from(claim: Claimed) -> Self {
        claim.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_read_back_as_it_was_written() {
        let claim = Claimed { sequence: 7, at: "2026-01-01T00:00:00.123456789Z".parse().unwrap() };
        assert_eq!(claim.to_string().parse(), Ok(claim));
        assert!("7".parse::<Claimed>().is_err() && "x@2026-01-01T00:00:00Z".parse::<Claimed>().is_err());
    }
}
