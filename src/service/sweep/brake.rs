//! Why a sweep removes nothing: the log is not to be believed, or too much would go.

use super::act::Act;
use super::look::{Look, SchedulerList};
use super::plan::Rules;
use super::size::Count;
use crate::domain::{WorkerId, WorkerType};

/// Why the log cannot be the one that the pool's workers were made under, if so.
///
/// With `trust_ended`, which a person has said who has looked, what the log says of ended workers is believed.
#[must_use]
pub fn another_log(look: &Look, trust_ended: bool) -> Option<String> {
    let found = look.listing.number();
    if look.records.is_empty() && look.others == 0 && found > 0 {
        return Some(format!(
            "the log has no event of this pool, and its provider lists {found} instances: the log is not the one that they were made under"
        ));
    }
    let of_hosts = || if trust_ended { None } else { unknown_host(look) };
    look.rolled_back.clone().or_else(of_hosts).or_else(|| old_size(look))
}

/// Why the list cannot be of the pool's workers: the settings name another provider than the one that has made them. It
/// would write them off, and nobody would ever end what they run.
pub(super) fn another_provider(look: &Look, trusted: bool) -> Option<String> {
    let elsewhere = || look.records.iter().filter(|(_, known)| known.elsewhere && known.is_live());
    let (worker_id, _) = elsewhere().next().filter(|_| !trusted)?;
    Some(format!(
        "{} live workers, {worker_id} among them, were made by another provider than the settings name now",
        elsewhere().count()
    ))
}

/// A host has no instance that could tell. But its newest record is kept for good, and an ended one has an epoch above
/// all that the scheduler has seen of it: if not, the scheduler knows of a life of the host that the log does not.
fn unknown_host(look: &Look) -> Option<String> {
    let SchedulerList::Of(listed) = &look.scheduler else { return None };
    if look.worker_type != WorkerType::Static {
        return None;
    }
    let unknown = listed.iter().filter(|(worker_id, epoch)| match look.records.get(*worker_id) {
        None => true,
        Some(known) => !known.is_live() && known.epoch < **epoch,
    });
    let host = unknown.map(|(worker_id, _)| worker_id).min()?;
    Some(format!(
        "the scheduler lists host {host}, and the log does not know of it: the log was put back to an older copy or made anew"
    ))
}

/// Workers that were claimed a second time, by commands that came again after the log had been put back, or by adoption,
/// tell that it was; and a size that is older than the first of these claims may be one of the older copy. It makes good
/// what is missing, but it does not end what is above it.
fn old_size(look: &Look) -> Option<String> {
    let size = look.size.as_ref()?;
    let count = Count::of(&look.records);
    if count.counted <= size.record.size as usize {
        return None;
    }
    let claimed_again = look.instances.iter().filter_map(|instance| {
        let known = look.records.get(&instance.key.worker_id).filter(|known| known.counts())?;
        instance.claim.filter(|claim| *claim != known.claim).map(|_| known.claim.sequence)
    });
    let first = claimed_again.min()?;
    (size.sequence < first).then(|| {
        format!(
            "the size on record, {}, is older than what is there, {} workers: the log was put back to an older copy; set the size anew",
            size.record.size, count.counted
        )
    })
}

/// Why too much would go, if so.
pub(super) fn too_many(look: &Look, rules: &Rules, removals: &[Act], live: usize) -> Option<String> {
    // A worker that the log has never heard of is as good as an instance without a record: the log may be another one.
    let unknown = match &look.scheduler {
        SchedulerList::Of(listed) => {
            let known = |worker_id: &WorkerId| look.records.contains_key(worker_id) || look.listing.is_sound(worker_id);
            listed.keys().filter(|worker_id| !known(worker_id)).count()
        }
        SchedulerList::None | SchedulerList::Away(_) => 0,
    };
    let is_too_many = |going: usize| going > rules.max_terminations && going > live / 10;
    let lost = removals.iter().filter(|act| act.loses().is_some()).count();
    let orphans = removals.len() - lost;
    if is_too_many(removals.len()) {
        return Some(format!(
            "{orphans} orphans and {lost} workers without an instance would go, of {live} live ones: more than max_terminations ({}) and than 10 %",
            rules.max_terminations
        ));
    }
    is_too_many(unknown).then(|| {
        format!(
            "the scheduler lists {unknown} workers that the log has never heard of, beside {live} live ones: more than max_terminations ({}) and than 10 %",
            rules.max_terminations
        )
    })
}
