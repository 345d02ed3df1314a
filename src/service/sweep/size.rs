//! What a pool's size asks for: which workers are to be made, and which are to go.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;

use super::act::{Act, Order};
use super::look::{Known, Look};
use super::plan::Rules;
use super::signed;
use crate::domain::{Slot, WorkerId, WorkerType, command_for_host, command_to_end};
use crate::mutant::{self, Mutant};

/// A place whose workers keep failing is filled at least so often.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// The workers of a pool, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// Not final, those on their way out too: what `max_workers` limits.
    pub live: usize,
    /// There, or being made, and not on their way out: what a size is compared with.
    pub counted: usize,
    /// There, and the scheduler told.
    pub ready: usize,
}

impl Count {
    /// Counts the workers of a pool.
    #[must_use]
    pub fn of(records: &BTreeMap<WorkerId, Known>) -> Self {
        let number = |which: fn(&Known) -> bool| records.values().filter(|known| which(known)).count();
        Self { live: number(Known::is_live), counted: number(Known::counts), ready: number(Known::is_ready) }
    }

    /// The pool has this size: so many workers, all of them ready, and none on its way out.
    #[must_use]
    pub fn is(&self, size: usize) -> bool {
        self.live == size && (self.ready == size || mutant::on(Mutant::SizedEarly))
    }
}

/// What brings the pool to its size; nothing where it has none.
#[must_use]
pub fn plan_size(look: &Look, rules: &Rules) -> Vec<Act> {
    acts(look, rules, &HashSet::new())
}

/// The same, where `lost` are about to be lost, and count no more.
pub(super) fn acts(look: &Look, rules: &Rules, lost: &HashSet<WorkerId>) -> Vec<Act> {
    let Some(size) = look.size.as_ref().map(|entry| entry.record.size as usize) else { return Vec::new() };
    let count = Count::of(&look.records);
    let counted = count.counted - lost.len();
    if counted > size {
        return surplus(&look.records, lost, counted - size);
    }
    let room = rules.max_workers.map_or(usize::MAX, |max| max.saturating_sub(count.live));
    let missing = (size - counted).min(room);
    match (&rules.inventory, look.worker_type) {
        (Some(hosts), _) => hosts_for(hosts, &look.records, missing),
        (None, WorkerType::Dynamic) => slots_for(look, rules, missing),
        (None, WorkerType::Static) => Vec::new(),
    }
}

/// Those that the scheduler does not have go first, since they do no work, and of all others the newest.
fn surplus(records: &BTreeMap<WorkerId, Known>, lost: &HashSet<WorkerId>, number: usize) -> Vec<Act> {
    let mut candidates: Vec<_> =
        records.iter().filter(|(worker_id, known)| known.counts() && !lost.contains(*worker_id)).collect();
    candidates.sort_by_key(|(worker_id, known)| {
        (known.may_have_work(), Reverse((known.created_at, known.claim.sequence)), *worker_id)
    });
    let going = candidates.into_iter().take(number);
    going
        .map(|(worker_id, known)| {
            Act::Ask(Order::Terminate {
                command_id: command_to_end(worker_id, known.epoch),
                worker_id: worker_id.clone(),
            })
        })
        .collect()
}

/// The first free hosts, each under a name that says which of its allocations is meant.
fn hosts_for(hosts: &[WorkerId], records: &BTreeMap<WorkerId, Known>, missing: usize) -> Vec<Act> {
    let free = hosts.iter().filter(|host| records.get(*host).is_none_or(|known| !known.is_live()));
    free.take(missing)
        .map(|host| {
            let after = records.get(host).map_or(0, |known| known.sequence);
            let command_id = command_for_host(host, after);
            Act::Ask(Order::Provision { command_id, worker_id: Some(host.clone()) })
        })
        .collect()
}

/// What became of a place's workers so far.
#[derive(Default)]
struct Place {
    taken: bool,
    /// Where its newest worker ended.
    after: u64,
    /// Its workers that could not be made since one could.
    failures: u32,
    failed_at: Option<Timestamp>,
}

/// The first free places.
fn slots_for(look: &Look, rules: &Rules, missing: usize) -> Vec<Act> {
    if missing == 0 {
        return Vec::new();
    }
    let mut of_slots: Vec<(Slot, &Known)> =
        look.records.values().filter_map(|known| known.slot.map(|slot| (slot, known))).collect();
    of_slots.sort_by_key(|(slot, known)| (slot.number, known.sequence));
    let mut places: HashMap<u32, Place> = HashMap::new();
    for (slot, known) in of_slots {
        let place = places.entry(slot.number).or_default();
        // A place whose worker is about to be lost is taken for one more sweep: where it ends is not known yet.
        place.taken |= known.is_live();
        place.after = place.after.max(known.sequence);
        (place.failures, place.failed_at) =
            if known.unmade { (place.failures + 1, Some(known.updated_at)) } else { (0, None) };
    }
    let empty = Place::default();
    (0..)
        .map(|number| (number, places.get(&number).unwrap_or(&empty)))
        .filter(|(_, place)| !place.taken)
        // Also those that wait are counted: a place that keeps failing is not made good by one that has not failed yet.
        .take(missing)
        .filter(|(_, place)| place.may_be_filled(rules.interval, look.now))
        .map(|(number, place)| {
            let command_id = Slot { number, after: place.after }.command_id();
            Act::Ask(Order::Provision { command_id, worker_id: None })
        })
        .collect()
}

impl Place {
    /// At once after a first failure, then after a pause that doubles: a worker that cannot be made is not asked for in
    /// every sweep.
    fn may_be_filled(&self, interval: Duration, now: Timestamp) -> bool {
        let Some(failed_at) = self.failed_at.filter(|_| self.failures > 1) else { return true };
        let pause = interval.saturating_mul(1 << (self.failures - 1).min(16)).min(LONGEST_PAUSE.max(interval));
        let pause = signed(pause);
        now.duration_since(failed_at) >= pause - pause / 10
    }
}
