//! The values that labels can have: a closed set each, so that no command can make a series of its own.

use crate::domain::{ErrorClass, Verb};
use crate::registration::RegistrationError;

macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident => $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// Every value.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The label's text.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }
    };
}

label!(
    /// How a command ended. One that will be tried again has not.
    Outcome {
        /// The scheduler has the worker.
        Registered => "registered",
        /// The worker is there, the scheduler has not accepted it.
        RegistrationFailed => "registration_failed",
        /// The worker is there, and nobody wants the scheduler told.
        Provisioned => "provisioned",
        /// The worker could not be made.
        Failed => "failed",
        /// The worker is gone.
        Terminated => "terminated",
        /// The worker had been lost when the command came.
        Lost => "lost",
        /// The pool has its size.
        Sized => "sized",
        /// A later size took the place of this one.
        Overtaken => "overtaken",
        /// The sweep is through.
        Swept => "swept",
        /// The sweep found too much to remove, and removed nothing.
        Frozen => "frozen",
        /// It will not be carried out.
        DeadLetter => "dead_letter",
    }
);

label!(
    /// A call of a provider.
    Operation {
        /// `create_worker`.
        Create => "create",
        /// `terminate_worker`.
        Terminate => "terminate",
        /// `find_worker`.
        Find => "find",
        /// `list_workers`.
        List => "list",
    }
);

label!(
    /// How a call of a provider ended: `ok` or the class of its error.
    #[allow(missing_docs)]
    ProviderOutcome {
        Ok => "ok",
        InvalidSpec => "invalid_spec",
        Unauthorized => "unauthorized",
        NotFound => "not_found",
        Conflict => "conflict",
        InsufficientCapacity => "insufficient_capacity",
        QuotaExceeded => "quota_exceeded",
        Throttled => "throttled",
        Unavailable => "unavailable",
        Timeout => "timeout",
        Internal => "internal",
    }
);

label!(
    /// How one register request ended.
    AttemptOutcome {
        /// Accepted, now or before.
        Accepted => "accepted",
        /// Refused for good.
        Rejected => "rejected",
        /// Asked to wait.
        Busy => "busy",
        /// No responder, no answer in time, no connection.
        Unavailable => "unavailable",
        /// An answer that cannot be read.
        Unreadable => "unreadable",
    }
);

label!(
    /// What was done about an orphan.
    OrphanAction {
        /// Removed.
        Terminated => "terminated",
        /// Left, as `sweep.orphans` asks.
        Reported => "reported",
    }
);

label!(
    /// What a sweep has done.
    SweepAct {
        /// An instance without a live record was removed.
        RemoveOrphan => "remove_orphan",
        /// The same was left, as `sweep.orphans` asks.
        ReportOrphan => "report_orphan",
        /// A worker whose instance is gone became `lost`.
        WriteOff => "write_off",
        /// The scheduler was asked to take a worker.
        Register => "register",
        /// The scheduler was told that a worker is no more.
        Unregister => "unregister",
        /// A record that nobody moved any more was taken over.
        Finish => "finish",
        /// The pool's size asked for a worker more.
        Provision => "provision",
        /// The pool's size asked for a worker fewer.
        Terminate => "terminate",
        /// The events of a worker that ended long ago went.
        Purge => "purge",
    }
);

impl Verb {
    /// How commands of this verb can end.
    #[must_use]
    pub fn outcomes(self) -> &'static [Outcome] {
        use Outcome::{
            DeadLetter, Failed, Frozen, Lost, Overtaken, Provisioned, Registered, RegistrationFailed, Sized, Swept,
            Terminated,
        };
        match self {
            Self::Provision => &[Registered, RegistrationFailed, Provisioned, Failed, Terminated, Lost, DeadLetter],
            Self::Terminate => &[Terminated, Failed, Lost, DeadLetter],
            Self::Pool => &[Sized, Overtaken, DeadLetter],
            Self::Sweep => &[Swept, Frozen, Failed, DeadLetter],
        }
    }
}

impl From<ErrorClass> for ProviderOutcome {
    fn from(class: ErrorClass) -> Self {
        match class {
            ErrorClass::InvalidSpec => Self::InvalidSpec,
            ErrorClass::Unauthorized => Self::Unauthorized,
            ErrorClass::NotFound => Self::NotFound,
            ErrorClass::Conflict => Self::Conflict,
            ErrorClass::InsufficientCapacity => Self::InsufficientCapacity,
            ErrorClass::QuotaExceeded => Self::QuotaExceeded,
            ErrorClass::Throttled => Self::Throttled,
            ErrorClass::Unavailable => Self::Unavailable,
            ErrorClass::Timeout => Self::Timeout,
            ErrorClass::Internal => Self::Internal,
        }
    }
}

impl From<&Result<(), RegistrationError>> for AttemptOutcome {
    fn from(result: &Result<(), RegistrationError>) -> Self {
        match result {
            Ok(()) => Self::Accepted,
            Err(RegistrationError::Rejected { .. }) => Self::Rejected,
            Err(RegistrationError::Busy { .. }) => Self::Busy,
            Err(RegistrationError::Unavailable { .. }) => Self::Unavailable,
            Err(RegistrationError::Unreadable(_)) => Self::Unreadable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_providers_outcome_is_called_as_its_error_class_is() {
        let classes = [ErrorClass::InvalidSpec, ErrorClass::QuotaExceeded, ErrorClass::Timeout, ErrorClass::Internal];
        assert!(classes.into_iter().all(|class| ProviderOutcome::from(class).as_str() == class.as_str()));
    }
}
