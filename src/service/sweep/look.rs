//! What a sweep knows before it decides anything: the provider's list, the scheduler's list, the records, in this order.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::listing::Listing;
use crate::domain::{Claimed, RegistrationStatus, Slot, State, Worker, WorkerId, WorkerType};
use crate::journal::{Entry, PoolEntry};
use crate::provider::Instance;

/// A worker that was lost sooner than this had not come to stay: its place is not filled again at once.
const SHORT_LIFE: SignedDuration = SignedDuration::from_mins(10);

/// All that a plan is made from.
#[derive(Debug, Clone)]
pub struct Look {
    /// When the provider had given its list.
    pub now: Timestamp,
    /// Whether the pool's workers are made or found: what is found has no instances to compare.
    pub worker_type: WorkerType,
    /// What the provider has made and not removed. Listed before the records are read: an instance is made after its
    /// worker's claim, so that a claim which is not seen afterwards was not there.
    pub listing: Listing,
    /// The instances of it whose workers have no live record, at least, and in a pool with a size all of them. Of a long list
    /// they are listed a second time, after the records are read: none is here that was not in the first list.
    pub instances: Vec<Instance>,
    /// The newest event of every worker that a rule asks about; in a pool with a size of every live one.
    pub records: BTreeMap<WorkerId, Known>,
    /// How many events were read of other workers: they are sound, or have ended and nothing is left of them anywhere.
    pub others: usize,
    /// Whom the scheduler knows. Asked before the records are read, too: a worker that ends in between is in the list and
    /// not the other way round.
    pub scheduler: SchedulerList,
    /// The size that the pool was given.
    pub size: Option<PoolEntry>,
    /// Proof that the log is not the one that the instances were made under.
    pub rolled_back: Option<String>,
}

impl Look {
    /// Workers that have not ended.
    #[must_use]
    pub fn live(&self) -> usize {
        self.records.values().filter(|known| known.is_live()).count() + self.listing.sound()
    }

    /// Whether the log tells of a worker that has not ended.
    pub(super) fn is_live(&self, worker_id: &WorkerId) -> bool {
        self.records.get(worker_id).is_some_and(Known::is_live) || self.listing.is_sound(worker_id)
    }
}

/// What the scheduler says of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchedulerList {
    /// These workers, each with the epoch under which it was registered.
    Of(BTreeMap<WorkerId, u64>),
    /// It keeps no list, or nobody registers workers.
    None,
    /// It did not say.
    Away(String),
}

impl SchedulerList {
    /// The epoch under which a worker is listed, as far as there is a list.
    pub(in crate::service) fn epoch_of(&self, worker_id: &WorkerId) -> Option<u64> {
        match self {
            Self::Of(listed) => listed.get(worker_id).copied(),
            Self::None | Self::Away(_) => None,
        }
    }
}

/// A worker's newest event, as much of it as a plan needs: a pool may have a million of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    /// Where it stands.
    pub state: State,
    /// The fence.
    pub epoch: u64,
    /// The event's place in the log: an act is done only while it is the newest.
    pub sequence: u64,
    /// The provider's id, once it exists.
    pub instance_id: Option<Box<str>>,
    /// Another provider has made it than the pool has now.
    pub elsewhere: bool,
    /// How far the scheduler has been told.
    pub registration: RegistrationStatus,
    /// The scheduler has refused it for good.
    pub refused: bool,
    /// Its claim.
    pub claim: Claimed,
    /// It could not be made, or did not last: its provider said so, enlist itself gave its command up, or it was lost soon.
    pub unmade: bool,
    /// When it was claimed.
    pub created_at: Timestamp,
    /// When the event was written.
    pub updated_at: Timestamp,
    /// The queue message that the event was written for.
    pub message: Option<u64>,
    /// The place in the pool that it fills, where the pool's size asked for it.
    pub slot: Option<Slot>,
}

impl Known {
    /// What a plan needs of an event, in a pool whose instances are of `provider`.
    pub(super) fn of(entry: Entry, provider: &str) -> Self {
        let claim = Claimed { sequence: entry.claim().unwrap_or(entry.sequence), at: entry.worker.created_at };
        let Entry { worker, sequence, writer } = entry;
        let elsewhere = worker.provider != provider;
        let Worker { state, epoch, instance_id, registration, created_at, updated_at, command_id, ended_by, .. } =
            worker;
        // What enlist gives up, as `exhausted` or `quota`, it ends in the name of the command that was to make it.
        let given_up = || ended_by.is_some_and(|ended| ended.command_id.as_ref() == Some(&command_id));
        let short = updated_at.duration_since(created_at) < SHORT_LIFE;
        Self {
            unmade: match state {
                State::Failed => true,
                State::Terminated => given_up(),
                State::Lost => short,
                _ => false,
            },
            state,
            epoch,
            sequence,
            elsewhere,
            instance_id: instance_id.map(String::into_boxed_str),
            registration: registration.status,
            refused: registration.error.is_some_and(|fault| fault.critical),
            created_at,
            updated_at,
            claim,
            message: writer.message,
            slot: Slot::of(&command_id),
        }
    }

    /// The worker has not ended.
    #[must_use]
    pub fn is_live(&self) -> bool {
        !self.state.is_final()
    }

    /// The worker counts towards its pool's size.
    #[must_use]
    pub fn counts(&self) -> bool {
        self.state.counts()
    }

    /// The worker is there and the scheduler has been told, or is not to be.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        match self.state {
            State::Registered | State::RegistrationFailed => true,
            State::Provisioned => self.registration == RegistrationStatus::Disabled,
            State::Provisioning | State::Terminating | State::Terminated | State::Failed | State::Lost => false,
        }
    }

    /// The scheduler may have given the worker something to do.
    #[must_use]
    pub fn may_have_work(&self) -> bool {
        match self.state {
            State::Registered => true,
            // Who provisions without a scheduler has a use for the worker.
            State::Provisioned => self.registration == RegistrationStatus::Disabled,
            State::Provisioning
            | State::RegistrationFailed
            | State::Terminating
            | State::Terminated
            | State::Failed
            | State::Lost => false,
        }
    }
}
