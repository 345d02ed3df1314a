//! Why a command ends as a dead letter.

use std::fmt;

/// The reasons of dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Not JSON, too deep, too large.
    Malformed,
    /// A field is missing, unknown or out of its bounds.
    Invalid,
    /// An override that the pool does not allow.
    NotAllowed,
    /// The worker id belongs to another command, or is in use; or the command id came before with another content.
    Conflict,
    /// It started later than it allows.
    Expired,
    /// The pool is full.
    Quota,
    /// It ended its replica, or made no progress, five times.
    Exhausted,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 7] =
        [Self::Malformed, Self::Invalid, Self::NotAllowed, Self::Conflict, Self::Expired, Self::Quota, Self::Exhausted];

    /// The value of the header `Enlist-Reason`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Invalid => "invalid",
            Self::NotAllowed => "not_allowed",
            Self::Conflict => "conflict",
            Self::Expired => "expired",
            Self::Quota => "quota",
            Self::Exhausted => "exhausted",
        }
    }

    /// Reads the value of the header back.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name)
    }
}

/// A command that will not be carried out, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Refusal {
    /// The reason, for programs.
    pub reason: Reason,
    /// For people: which field, what was found, what was expected. Safe to log: foreign text is escaped and cut.
    pub detail: String,
}

impl Refusal {
    /// A refusal; `detail` is escaped and cut here.
    pub fn new(reason: Reason, detail: impl AsRef<str>) -> Self {
        Self { reason, detail: crate::text::cut(detail.as_ref(), 500) }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason.as_str(), self.detail)
    }
}
