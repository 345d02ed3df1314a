//! How one try of a command ends. What becomes of the command's message follows from it and from nothing else.

use crate::domain::{Refusal, TransitionRefused, Worker};
use crate::journal::ReadError;
use crate::provider::ProviderError;

/// How one try of a command ended.
#[derive(Debug)]
#[must_use]
pub enum Ending {
    /// The outcome is stored, by this try or an earlier one.
    Done(Box<Worker>),
    /// The command will not be carried out.
    Refused(Refusal),
    /// It is to be tried again after a while.
    Later(String),
    /// Another command, or another copy of this one, has the worker in hand and is about to end the matter.
    Wait(&'static str),
    /// Another try of this very message has the worker in hand; that one settles it.
    Superseded,
}

/// Why a try stopped before an outcome; the error of every phase.
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    /// The command will not be carried out.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It is to be tried again after a while.
    #[error("{0}")]
    Later(String),
    /// Someone else is about to end the matter: look again soon.
    #[error("{0}")]
    Wait(&'static str),
    /// Another try has the worker in hand.
    #[error("another try of this command has the worker in hand")]
    Superseded,
}

impl From<ReadError> for Stop {
    fn from(error: ReadError) -> Self {
        Self::Later(error.to_string())
    }
}

/// The record is not as this try took it to be: the next one reads it anew.
impl From<TransitionRefused> for Stop {
    fn from(refused: TransitionRefused) -> Self {
        Self::Later(refused.to_string())
    }
}

impl From<ProviderError> for Stop {
    fn from(error: ProviderError) -> Self {
        Self::Later(error.to_string())
    }
}

impl Ending {
    /// The other way round, for who has a use for the worker.
    pub(super) fn into_result(self) -> Result<Worker, Stop> {
        match self {
            Self::Done(worker) => Ok(*worker),
            Self::Refused(refusal) => Err(Stop::Refused(refusal)),
            Self::Later(why) => Err(Stop::Later(why)),
            Self::Wait(why) => Err(Stop::Wait(why)),
            Self::Superseded => Err(Stop::Superseded),
        }
    }
}

impl From<Result<Worker, Stop>> for Ending {
    fn from(result: Result<Worker, Stop>) -> Self {
        match result {
            Ok(worker) => Self::Done(Box::new(worker)),
            Err(Stop::Refused(refusal)) => Self::Refused(refusal),
            Err(Stop::Later(why)) => Self::Later(why),
            Err(Stop::Wait(why)) => Self::Wait(why),
            Err(Stop::Superseded) => Self::Superseded,
        }
    }
}
