//! What a provider has listed, as a sweep holds it: a pool may have a million instances. Of one whose worker's record is live
//! no rule asks more than whether it is listed, and of most of these workers no more than how many they are.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use super::look::{Known, SchedulerList};
use crate::domain::{RegistrationStatus, State, WorkerId};
use crate::provider::Instance;

/// Instances of a list that are held whole until the records are read: some five megabytes. Of a longer list those without a
/// live record are listed once more. Few, where wrong variants are looked for, so that both ways are walked.
const MOST_HELD: usize = if cfg!(feature = "mutants") { 3 } else { 10_000 };

/// A provider's list as fingerprints of 64 bits, of a worker's name and of its instance's, and what its workers' records
/// say.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    hashes: RandomState,
    number: usize,
    live: usize,
    sound: usize,
    workers: HashMap<u64, Listed>,
    /// What else was listed under a worker's name, which no list that is right has: it must not hide the first.
    twins: HashSet<(u64, u64)>,
}

/// What is listed of one worker, and what its newest event says.
#[derive(Debug, Clone, Copy)]
struct Listed {
    instance_id: u64,
    has_twin: bool,
    live: bool,
    sound: bool,
}

impl Listing {
    /// Takes an instance of the list.
    pub(super) fn take(&mut self, instance: &Instance) {
        self.number += 1;
        let (name, instance_id) = self.fingerprint(&instance.key.worker_id, &instance.instance_id);
        match self.workers.entry(name) {
            Entry::Vacant(place) => {
                place.insert(Listed { instance_id, has_twin: false, live: false, sound: false });
            }
            Entry::Occupied(mut listed) => {
                listed.get_mut().has_twin = true;
                self.twins.insert((name, instance_id));
            }
        }
    }

    /// How many instances were listed.
    #[must_use]
    pub fn number(&self) -> usize {
        self.number
    }

    /// How many workers are sound.
    #[must_use]
    pub fn sound(&self) -> usize {
        self.sound
    }

    /// Whether the worker is sound, by its newest event that was judged.
    #[must_use]
    pub fn is_sound(&self, worker_id: &WorkerId) -> bool {
        self.of(worker_id).is_some_and(|listed| listed.sound)
    }

    /// Whether an instance of the worker is listed.
    pub(super) fn has(&self, worker_id: &WorkerId) -> bool {
        self.of(worker_id).is_some()
    }

    /// Whether this very instance is listed.
    pub(super) fn has_instance(&self, worker_id: &WorkerId, instance_id: &str) -> bool {
        let (name, instance_id) = self.fingerprint(worker_id, instance_id);
        let first = self.workers.get(&name).is_some_and(|listed| listed.instance_id == instance_id);
        first || self.twins.contains(&(name, instance_id))
    }

    /// Whether this very instance is listed, and its worker has no live record.
    pub(super) fn has_stray(&self, instance: &Instance) -> bool {
        let worker_id = &instance.key.worker_id;
        let is_live = self.of(worker_id).is_some_and(|listed| listed.live);
        !is_live && self.has_instance(worker_id, &instance.instance_id)
    }

    fn of(&self, worker_id: &WorkerId) -> Option<&Listed> {
        self.workers.get(&self.hashes.hash_one(worker_id))
    }

    fn fingerprint(&self, worker_id: &WorkerId, instance_id: &str) -> (u64, u64) {
        (self.hashes.hash_one(worker_id), self.hashes.hash_one(instance_id))
    }

    /// Takes a worker's event, and says whether the worker is sound: as its record says, in this list and in the
    /// scheduler's, so that no rule of the plan has anything to do about it in a pool without a size. A later event of the
    /// same worker is judged anew.
    pub(super) fn judge(
        &mut self,
        worker_id: &WorkerId,
        known: &Known,
        scheduler: &SchedulerList,
        sized: bool,
    ) -> bool {
        let instance_id = known.instance_id.as_deref().map(|id| self.hashes.hash_one(id));
        let Some(listed) = self.workers.get_mut(&self.hashes.hash_one(worker_id)) else { return false };
        let agreed = match (known.state, scheduler) {
            (State::Registered, SchedulerList::Of(all)) => all.contains_key(worker_id),
            (State::Registered, SchedulerList::None | SchedulerList::Away(_)) => true,
            (State::Provisioned, _) => known.registration == RegistrationStatus::Disabled,
            _ => false,
        };
        let its_own = !listed.has_twin && instance_id == Some(listed.instance_id);
        let (live, sound) = (known.is_live(), !sized && agreed && its_own && !known.elsewhere && known.slot.is_none());
        self.live = self.live - usize::from(listed.live) + usize::from(live);
        self.sound = self.sound - usize::from(listed.sound) + usize::from(sound);
        (listed.live, listed.sound) = (live, sound);
        sound
    }
}

/// A list that is being read, and its instances as long as they are few.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) listing: Listing,
    instances: Vec<Instance>,
    most: usize,
}

impl Held {
    /// In a pool with a size the claims of all instances are asked about: they are held, however many they are.
    pub(super) fn new(sized: bool) -> Self {
        Self::up_to(if sized { usize::MAX } else { MOST_HELD })
    }

    pub(super) fn up_to(most: usize) -> Self {
        Self { listing: Listing::default(), instances: Vec::new(), most }
    }

    pub(super) fn take(&mut self, instance: Instance) {
        self.listing.take(&instance);
        if self.listing.number <= self.most {
            self.instances.push(instance);
        } else {
            self.instances = Vec::new();
        }
    }

    /// The list, and of its instances those that have no live record, maybe with others that are not of sound workers; `None`
    /// where they have to be listed once more.
    pub(super) fn strays(self) -> (Listing, Option<Vec<Instance>>) {
        let Self { listing, mut instances, most } = self;
        let known = listing.number <= most || listing.live == listing.workers.len();
        instances.retain(|instance| !listing.is_sound(&instance.key.worker_id));
        (listing, known.then_some(instances))
    }
}
