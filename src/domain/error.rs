//! The classes of failure, and the one question an error has to answer: what now?

use serde::{Deserialize, Serialize};

/// What kind of failure a provider reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// The specification cannot be made by this provider.
    InvalidSpec,
    /// The provider does not accept our credentials.
    Unauthorized,
    /// Something that the specification names is not there.
    NotFound,
    /// An instance of that name exists and belongs to another command or specification.
    Conflict,
    /// The provider has no room now.
    InsufficientCapacity,
    /// A quota of the provider's is used up.
    QuotaExceeded,
    /// The provider asks for fewer calls.
    Throttled,
    /// The provider cannot be reached.
    Unavailable,
    /// The outcome is unknown: look the instance up, never create blindly.
    Timeout,
    /// Anything else that went wrong at the provider.
    Internal,
}

/// What to do about a failed step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Trying again cannot help: the step has failed.
    Final,
    /// Try again, and count it: five of these without progress exhaust the command.
    Counted,
    /// Try again for as long as it takes: the fault lies outside the command.
    Patient,
}

impl ErrorClass {
    /// What a failure of this class asks for.
    #[must_use]
    pub fn standing(self) -> Standing {
        match self {
            Self::InvalidSpec | Self::Unauthorized | Self::NotFound | Self::Conflict | Self::QuotaExceeded => {
                Standing::Final
            }
            Self::Timeout | Self::Internal => Standing::Counted,
            Self::InsufficientCapacity | Self::Throttled | Self::Unavailable => Standing::Patient,
        }
    }

    /// Whether another try may succeed.
    #[must_use]
    pub fn retryable(self) -> bool {
        match self.standing() {
            Standing::Final => false,
            Standing::Counted | Standing::Patient => true,
        }
    }

    /// Whether a create that fails so tells that the next ones would fail as well, whatever they ask for.
    #[must_use]
    pub fn holds_off(self) -> bool {
        match self {
            Self::InsufficientCapacity | Self::QuotaExceeded | Self::Throttled | Self::Unavailable => true,
            Self::InvalidSpec
            | Self::Unauthorized
            | Self::NotFound
            | Self::Conflict
            | Self::Timeout
            | Self::Internal => false,
        }
    }

    /// The name on the wire and in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidSpec => "invalid_spec",
            Self::Unauthorized => "unauthorized",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::InsufficientCapacity => "insufficient_capacity",
            Self::QuotaExceeded => "quota_exceeded",
            Self::Throttled => "throttled",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Internal => "internal",
        }
    }
}
