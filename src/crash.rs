//! Points between two effects at which a test lets a replica die; empty in every build without `crash-points`.

/// Every point between two effects on the way of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashPoint {
    /// A provision is in hand, nothing is written.
    ProvisionReceived,
    /// The claim is stored, the provider has not been called.
    Claimed,
    /// A takeover is stored, the provider has not been called again.
    TakenOver,
    /// The process provider has written what it is about to start, and has not started it.
    ProcessIntentWritten,
    /// The process runs, its pid is written nowhere.
    ProcessSpawned,
    /// The instance exists, its event is not stored.
    Created,
    /// `provisioned` is stored; a register request may be under way.
    CreatedStored,
    /// The scheduler has answered, the outcome is not stored.
    Registered,
    /// The outcome is stored, the command is not acked.
    OutcomeStored,
    /// A terminate is in hand, nothing is written.
    TerminateReceived,
    /// `terminating` is stored, the scheduler has not been told.
    TerminatingStored,
    /// The scheduler has been told, the instance still runs.
    Unregistered,
    /// The instance is gone, its final event is not stored.
    Removed,
    /// `terminated` is stored, the command is not acked.
    TerminatedStored,
    /// A provision finds its worker ended: the scheduler has been told once more, the instance has not been looked for.
    UndoUnregistered,
    /// A command is refused, its dead letter is not stored.
    Refused,
    /// The dead letter is stored, the command is not acked.
    DeadLetterStored,
    /// An orphan's record says `terminating`, its instance still runs.
    OrphanMarked,
    /// `lost` is stored, the scheduler has not been told.
    LostStored,
    /// The scheduler has been told of a lost worker, its instance's traces are still there.
    LostUnregistered,
    /// The scheduler was asked once more to take a worker, the answer is not stored.
    Offered,
    /// The sweep has taken a worker over that nobody moved on, and has done nothing yet.
    StuckTakenOver,
    /// The view's entry of a worker that ended long ago is gone, its events are not.
    ViewPurged,
    /// A sweep's acts are done, what the pool's size asks for is not sent.
    Swept,
    /// Commands that the pool's size asks for are sent, the sweep or size command is not acked.
    OrdersSent,
    /// A pool's size is stored, nobody has been asked for.
    SizingStored,
    /// `sized` is stored, the command is not acked.
    SizedStored,
    /// An adopted instance has a claim, and not yet its `provisioned`.
    AdoptionClaimed,
    /// A dead letter is to be replayed: the record of the refusal is gone, the command is not stored again.
    RefusalPurged,
    /// The command of a dead letter is stored again, the letter is still there.
    Replayed,
}

impl CrashPoint {
    /// Every point at which a replica can die, for the test that walks them.
    pub const ALL: [Self; 28] = [
        Self::ProvisionReceived,
        Self::Claimed,
        Self::TakenOver,
        Self::ProcessIntentWritten,
        Self::ProcessSpawned,
        Self::Created,
        Self::CreatedStored,
        Self::Registered,
        Self::OutcomeStored,
        Self::TerminateReceived,
        Self::TerminatingStored,
        Self::Unregistered,
        Self::Removed,
        Self::TerminatedStored,
        Self::UndoUnregistered,
        Self::Refused,
        Self::DeadLetterStored,
        Self::OrphanMarked,
        Self::LostStored,
        Self::LostUnregistered,
        Self::Offered,
        Self::StuckTakenOver,
        Self::ViewPurged,
        Self::Swept,
        Self::OrdersSent,
        Self::SizingStored,
        Self::SizedStored,
        Self::AdoptionClaimed,
    ];
}

/// Ends the process here, without a word, where the environment variable `ENLIST_CRASH_AT` names this point.
#[inline]
pub fn point(here: CrashPoint) {
    #[cfg(feature = "crash-points")]
    {
        use std::sync::LazyLock;
        static AT: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("ENLIST_CRASH_AT").ok());
        if AT.as_deref() == Some(format!("{here:?}").as_str()) {
            std::process::abort();
        }
    }
    #[cfg(not(feature = "crash-points"))]
    let _ = here;
}
