//! What a provider has listed, as a sweep holds it. Next to all of a pool's instances are what their workers' records say,
//! and of these nothing is asked but how many they are: they are counted, and not held.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use super::look::{Known, SchedulerList};
use crate::domain::{RegistrationStatus, State, WorkerId};
use crate::provider::Instance;

/// Instances of a list that are held whole until the records are read. What a longer list has that is not as its record
/// says is listed once more.
const MOST_HELD: usize = 10_000;

/// A provider's list, by fingerprints: one of 64 bits for a worker's name, and one for its instance's.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    hashes: RandomState,
    number: usize,
    sound: usize,
    workers: HashMap<u64, Listed>,
    /// What else was listed under a worker's name, which no list that is right has.
    more: HashSet<(u64, u64)>,
}

/// What is listed of one worker.
#[derive(Debug, Clone, Copy)]
struct Listed {
    instance_id: u64,
    /// More is listed under the name: whoever decides about it has to see it.
    more: bool,
    sound: bool,
}

impl Listing {
    /// Takes an instance of the list.
    pub(super) fn take(&mut self, instance: &Instance) {
        self.number += 1;
        let (name, instance_id) = self.fingerprint(instance);
        match self.workers.entry(name) {
            Entry::Vacant(place) => drop(place.insert(Listed { instance_id, more: false, sound: false })),
            Entry::Occupied(mut listed) => {
                listed.get_mut().more = true;
                self.more.insert((name, instance_id));
            }
        }
    }

    fn fingerprint(&self, instance: &Instance) -> (u64, u64) {
        (self.hashes.hash_one(&instance.key.worker_id), self.hashes.hash_one(instance.instance_id.as_str()))
    }

    /// Whether this very instance is listed, and not of a sound worker.
    pub(super) fn has_unsound(&self, instance: &Instance) -> bool {
        let (name, instance_id) = self.fingerprint(instance);
        let first = self.workers.get(&name).is_some_and(|listed| !listed.sound && listed.instance_id == instance_id);
        first || self.more.contains(&(name, instance_id))
    }

    /// How many instances were listed.
    #[must_use]
    pub fn number(&self) -> usize {
        self.number
    }

    /// How many of them are of sound workers.
    #[must_use]
    pub fn sound(&self) -> usize {
        self.sound
    }

    /// Whether the worker is sound, as of its newest event that was judged.
    #[must_use]
    pub fn is_sound(&self, worker_id: &WorkerId) -> bool {
        self.of(worker_id).is_some_and(|listed| listed.sound)
    }

    /// Whether an instance of the worker is listed.
    pub(super) fn has(&self, worker_id: &WorkerId) -> bool {
        self.of(worker_id).is_some()
    }

    fn of(&self, worker_id: &WorkerId) -> Option<&Listed> {
        self.workers.get(&self.hashes.hash_one(worker_id))
    }

    /// Whether a worker is sound in a pool without a size: it is as its record says, in the provider's list and in the
    /// scheduler's, so that no rule of the plan has anything to do about it. A later event of the same worker is judged anew.
    pub(super) fn judge(&mut self, worker_id: &WorkerId, known: &Known, scheduler: &SchedulerList) -> bool {
        let Some(listed) = self.workers.get_mut(&self.hashes.hash_one(worker_id)) else { return false };
        let told = match (known.state, scheduler) {
            (State::Registered, SchedulerList::Of(all)) => all.contains_key(worker_id),
            (State::Registered, SchedulerList::None | SchedulerList::Away(_)) => true,
            (State::Provisioned, _) => known.registration == RegistrationStatus::Disabled,
            _ => false,
        };
        let instance_id = known.instance_id.as_deref().map(|id| self.hashes.hash_one(id));
        let own = !listed.more && instance_id == Some(listed.instance_id);
        let sound = told && own && !known.elsewhere && known.slot.is_none();
        self.sound = self.sound - usize::from(listed.sound) + usize::from(sound);
        listed.sound = sound;
        sound
    }
}

/// The instances of a list that is being read, as long as they are few.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) listing: Listing,
    instances: Vec<Instance>,
    most: usize,
}

impl Held {
    /// `all`: of each instance more is asked than whether it is sound.
    pub(super) fn new(all: bool) -> Self {
        Self::most(if all { usize::MAX } else { MOST_HELD })
    }

    pub(super) fn most(most: usize) -> Self {
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

    /// The list, and its instances that are not of sound workers; `None` where they have to be listed once more.
    pub(super) fn unsound(self) -> (Listing, Option<Vec<Instance>>) {
        let Self { listing, mut instances, most } = self;
        if listing.number > most && listing.sound < listing.number {
            return (listing, None);
        }
        instances.retain(|instance| listing.has_unsound(instance));
        (listing, Some(instances))
    }
}
