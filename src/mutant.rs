//! Wrong variants of the protocol, for the simulation to catch; without the feature `mutants` each is `false`.

/// What is done wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// A command is acked when it comes, and carried out then.
    AckBeforeRecord,
    /// A command that is refused is acked before its dead letter is stored.
    AckBeforeDeadLetter,
    /// An event is stored whatever came before it.
    NoExpectedSequence,
    /// A refused write, 10164 too, is taken as lost without a look at the head.
    RefusedIsLost,
    /// A write without an answer is taken as stored.
    UnavailableIsStored,
    /// A command that waits for another to end is acked.
    WaitIsDone,
    /// A copy of a command takes its worker from a try that is alive.
    CopyTakesOver,
    /// A takeover keeps the epoch.
    SameEpoch,
    /// A try that ended without a word is not counted.
    DeathsUncounted,
    /// A worker that another command has made is taken as this command's.
    OthersWorkerIsOurs,
    /// A command id that comes again with another content is taken as the same command.
    ContentNotCompared,
    /// A redelivery takes the first free host without looking for the one that it has.
    SecondHost,
    /// The pool's limit is only looked at, and not held once the claim has its place.
    NotAdmitted,
    /// A claim beyond the limit is left as it is when its command is refused.
    RefusedWithoutRecord,
    /// A provision whose worker was terminated meanwhile leaves what it has made.
    NothingTakenBack,
    /// The outcome is `registered`, whatever the scheduler has said.
    AlwaysRegistered,
    /// A register request is repeated without a look at the record.
    RegisteredUnfenced,
    /// The scheduler is told after the instance is gone.
    UnregisteredLast,
    /// `terminated` is stored before the instance is removed.
    TerminatedBeforeRemoval,
    /// An orphan without a record is removed without one.
    NoTombstone,
    /// A sweep reads the records before the provider's list.
    RecordsFirst,
    /// What a second list of a long one's orphans has beside them is not left out.
    SecondListWhole,
    /// A worker is written off without asking the provider for it once more.
    LostUnasked,
    /// The events of a worker go as soon as it has ended.
    PurgedEarly,
    /// A pool has its size as soon as so many workers are being made.
    SizedEarly,
}

impl Mutant {
    /// Every variant, in the order of a command's way.
    pub const ALL: [Self; 25] = [
        Self::AckBeforeRecord,
        Self::AckBeforeDeadLetter,
        Self::NoExpectedSequence,
        Self::RefusedIsLost,
        Self::UnavailableIsStored,
        Self::WaitIsDone,
        Self::CopyTakesOver,
        Self::SameEpoch,
        Self::DeathsUncounted,
        Self::OthersWorkerIsOurs,
        Self::ContentNotCompared,
        Self::SecondHost,
        Self::NotAdmitted,
        Self::RefusedWithoutRecord,
        Self::NothingTakenBack,
        Self::AlwaysRegistered,
        Self::RegisteredUnfenced,
        Self::UnregisteredLast,
        Self::TerminatedBeforeRemoval,
        Self::NoTombstone,
        Self::RecordsFirst,
        Self::SecondListWhole,
        Self::LostUnasked,
        Self::PurgedEarly,
        Self::SizedEarly,
    ];
}

#[cfg(feature = "mutants")]
thread_local! {
    static PRESENT: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

/// Makes this thread go wrong in one way, or in none.
#[cfg(feature = "mutants")]
pub fn set(mutant: Option<Mutant>) {
    PRESENT.set(mutant);
}

/// Whether this thread is to go wrong in this way.
#[cfg(feature = "mutants")]
#[must_use]
pub fn on(mutant: Mutant) -> bool {
    PRESENT.get() == Some(mutant)
}

/// Never, in a build without the feature.
#[cfg(not(feature = "mutants"))]
#[inline]
#[must_use]
pub const fn on(_: Mutant) -> bool {
    false
}
