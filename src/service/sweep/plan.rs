//! The plan of a sweep: from what was looked at to what is to be done. No IO, no clock, no chance.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::act::{Act, Why};
use super::brake::{another_log, another_provider, too_many};
use super::look::{Known, Look, SchedulerList};
use super::{signed, size};
use crate::domain::{RegistrationStatus, State, WorkerId, WorkerType};
use crate::mutant::{self, Mutant};
use crate::provider::Instance;

/// Purges of one sweep at most: the rest is for the next ones.
pub(super) const MOST_PURGES: usize = 1000;
/// A worker that the scheduler has not accepted is offered to it at least so often.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// What a pool's settings say of its sweep.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Younger instances are nobody's orphan.
    pub grace: Duration,
    /// Whether orphans are removed, or only reported.
    pub remove_orphans: bool,
    /// Removals a sweep, or 5 % of the pool, whichever is larger. More than this, and than 10 % of the pool, is too much.
    pub max_terminations: usize,
    /// How long events of final workers are kept.
    pub retention: Duration,
    /// Time between sweeps.
    pub interval: Duration,
    /// A record that is not moved for longer than this is moved by nobody.
    pub stuck_after: Duration,
    /// Live workers at most.
    pub max_workers: Option<usize>,
    /// The hosts of a static pool, in the order of preference.
    pub inventory: Option<Vec<WorkerId>>,
    /// A person has looked: what the log says of workers that have ended is held to be true, whatever speaks against it, and
    /// so is a list of another provider.
    pub trust_ended: bool,
    /// The sweep's own message: what it has begun before, and died over, it goes on with at once.
    pub message: Option<u64>,
}

/// What looked wrong once. It is acted upon only when the next sweep finds it again: a list may be a moment old.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Sighting {
    /// An instance without a live record.
    Orphan(WorkerId, String),
    /// A live record, of this epoch, without its instance.
    Gone(WorkerId, u64),
}

/// Everything that the newest sweep of a replica has seen wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sightings(HashSet<Sighting>);

/// What is to be done, and what the next sweep has to know.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// In this order.
    pub acts: Vec<Act>,
    /// Seen for the first time: nothing is done about it yet.
    pub suspects: Vec<Act>,
    /// Why nothing is removed.
    pub frozen: Option<String>,
    /// For the next plan.
    pub sightings: Sightings,
    /// Removals that are put off, since a sweep makes only so many.
    pub put_off: usize,
}

/// What has to be done about a pool. What a rule asks of a worker to whom nothing has happened is to be asked in
/// [`Listing::judge`](super::Listing) too: a look need not hold such a worker.
#[must_use]
pub fn plan(look: &Look, rules: &Rules, before: &Sightings) -> Plan {
    let mut plan = Plan::default();
    let Removals { removals, reports } = removals(look, rules, before, &mut plan);
    let live = look.live();
    plan.frozen = another_log(look, rules.trust_ended)
        .or_else(|| another_provider(look, rules.trust_ended))
        .or_else(|| too_many(look, rules, &removals, live));
    if plan.frozen.is_some() {
        registrations(look, rules, &mut plan);
        return plan;
    }
    let most = rules.max_terminations.max(live / 20);
    plan.put_off = removals.len().saturating_sub(most);
    // Those that cannot be removed must not take the places of all others for ever: each sweep begins elsewhere.
    let turn = usize::try_from(look.now.as_second()).unwrap_or(0);
    let first = if plan.put_off > 0 { turn % removals.len() } else { 0 };
    plan.acts.extend(removals.iter().cycle().skip(first).take(most.min(removals.len())).cloned());
    let lost: HashSet<WorkerId> = plan.acts.iter().filter_map(Act::loses).cloned().collect();
    plan.acts.extend(reports);
    scheduler_strays(look, &mut plan);
    unfinished(look, rules, &lost, &mut plan);
    registrations(look, rules, &mut plan);
    plan.acts.extend(size::acts(look, rules, &lost));
    purges(look, rules, &mut plan);
    plan
}

/// What was seen before and is still so.
#[derive(Default)]
struct Removals {
    /// Orphans and lost workers that are to go.
    removals: Vec<Act>,
    /// Orphans that are only told, each time anew.
    reports: Vec<Act>,
}

/// Orphans and lost workers that were seen before; what is seen for the first time is only remembered.
fn removals(look: &Look, rules: &Rules, before: &Sightings, plan: &mut Plan) -> Removals {
    let mut confirmed = Removals::default();
    if look.worker_type == WorkerType::Static {
        return confirmed;
    }
    for (instance, record) in orphans(look) {
        if passed(instance.created_at, look.now) <= signed(rules.grace) {
            continue;
        }
        let sighting = Sighting::Orphan(instance.key.worker_id.clone(), instance.instance_id.clone());
        let (instance, record) = (Box::new(instance.clone()), record.map(|known| known.sequence));
        if !plan.confirms(sighting, before) {
            plan.suspects.push(Act::RemoveOrphan { instance, record });
        } else if rules.remove_orphans {
            confirmed.removals.push(Act::RemoveOrphan { instance, record });
        } else {
            confirmed.reports.push(Act::ReportOrphan { instance });
        }
    }
    for (worker_id, known) in &look.records {
        let Some(instance_id) = known.instance_id.as_deref().filter(|_| known.counts()) else { continue };
        if look.listing.has_instance(worker_id, instance_id) {
            continue;
        }
        let act = Act::Lose { worker_id: worker_id.clone(), sequence: known.sequence };
        if plan.confirms(Sighting::Gone(worker_id.clone(), known.epoch), before) {
            confirmed.removals.push(act);
        } else {
            plan.suspects.push(act);
        }
    }
    confirmed
}

impl Plan {
    /// Whether the sweep before has seen the same; the next one will know of it in any case.
    fn confirms(&mut self, sighting: Sighting, before: &Sightings) -> bool {
        let seen = before.0.contains(&sighting);
        self.sightings.0.insert(sighting);
        seen
    }
}

/// Instances without a live record, the oldest first.
fn orphans(look: &Look) -> Vec<(&Instance, Option<&Known>)> {
    let mut orphans: Vec<_> = look
        .instances
        .iter()
        .map(|instance| (instance, look.records.get(&instance.key.worker_id)))
        .filter(|(_, record)| record.is_none_or(|known| !known.is_live()))
        .collect();
    orphans.sort_by(|(a, _), (b, _)| (a.created_at, &a.key.worker_id).cmp(&(b.created_at, &b.key.worker_id)));
    orphans
}

/// Workers in the scheduler's list that have ended, or never were.
fn scheduler_strays(look: &Look, plan: &mut Plan) {
    let SchedulerList::Of(listed) = &look.scheduler else { return };
    for (worker_id, epoch) in listed {
        if look.is_live(worker_id) {
            continue;
        }
        let record = look.records.get(worker_id);
        let epoch = record.map_or(*epoch, |known| known.epoch.max(*epoch));
        let record = record.map(|known| known.sequence);
        plan.acts.push(Act::Unregister { worker_id: worker_id.clone(), epoch, record });
    }
}

/// Records that nobody moves any more, and what this very sweep began before it died.
fn unfinished(look: &Look, rules: &Rules, lost: &HashSet<WorkerId>, plan: &mut Plan) {
    let all = look.records.iter().filter(|(worker_id, _)| !lost.contains(*worker_id));
    for (worker_id, known) in all {
        let own = rules.message.is_some() && known.message == rules.message;
        let stood = passed(known.updated_at, look.now) > signed(rules.stuck_after);
        let open = match known.state {
            State::Provisioning | State::Terminating => true,
            State::Provisioned => known.registration == RegistrationStatus::Pending,
            State::Lost if own => {
                plan.acts.push(Act::FinishLost { worker_id: worker_id.clone(), sequence: known.sequence });
                false
            }
            State::Registered | State::RegistrationFailed | State::Terminated | State::Failed | State::Lost => false,
        };
        if open && (own || stood) {
            let act = Act::Finish { worker_id: worker_id.clone(), sequence: known.sequence, state: known.state };
            plan.acts.push(act);
        }
    }
}

/// Workers that are there and that the scheduler does not have.
fn registrations(look: &Look, rules: &Rules, plan: &mut Plan) {
    if matches!(look.scheduler, SchedulerList::Away(_)) {
        return;
    }
    for (worker_id, known) in &look.records {
        // Nobody is told of what is not there.
        let there = look.worker_type == WorkerType::Static
            || known
                .instance_id
                .as_deref()
                .is_some_and(|instance_id| look.listing.has_instance(worker_id, instance_id));
        let why = match known.state {
            State::RegistrationFailed if there && !known.refused && due(known, rules, look.now) => Why::Failed,
            State::Registered if there => match &look.scheduler {
                SchedulerList::Of(listed) if !listed.contains_key(worker_id) => Why::Missing,
                SchedulerList::Of(_) | SchedulerList::None | SchedulerList::Away(_) => continue,
            },
            _ => continue,
        };
        plan.acts.push(Act::Register { worker_id: worker_id.clone(), sequence: known.sequence, why });
    }
}

/// A worker is offered again after as long as it had been there the last time: less and less often.
fn due(known: &Known, rules: &Rules, now: Timestamp) -> bool {
    let age = passed(known.created_at, known.updated_at);
    let pause = age.max(signed(rules.interval)).min(signed(LONGEST_PAUSE.max(rules.interval)));
    // A tick of the sweep's own clock that comes a moment early is meant.
    passed(known.updated_at, now) >= pause - pause / 10
}

/// Workers whose end is long past, and of whom nothing is left anywhere. The newest record of a place stays, be it a host or
/// one of the pool's size: the next worker there goes on from it. Without it that worker would begin below the epochs that
/// the scheduler has seen of the host, or under the very name that the first worker of the place had.
fn purges(look: &Look, rules: &Rules, plan: &mut Plan) {
    let hosts: HashSet<&WorkerId> = rules.inventory.iter().flatten().collect();
    let mut newest: HashMap<u32, u64> = HashMap::new();
    for (slot, known) in look.records.values().filter_map(|known| known.slot.map(|slot| (slot, known))) {
        let newest = newest.entry(slot.number).or_default();
        *newest = known.sequence.max(*newest);
    }
    let is_newest = |known: &Known| known.slot.is_some_and(|slot| newest.get(&slot.number) == Some(&known.sequence));
    let past = look.records.iter().filter(|(worker_id, known)| {
        let listed = match &look.scheduler {
            SchedulerList::Of(listed) => listed.contains_key(*worker_id),
            SchedulerList::None => false,
            SchedulerList::Away(_) => true,
        };
        !known.is_live()
            && !listed
            && !look.listing.has(worker_id)
            && !hosts.contains(*worker_id)
            && !is_newest(known)
            && is_past(known, look.now, rules.retention)
    });
    plan.acts.extend(
        past.take(MOST_PURGES)
            .map(|(worker_id, known)| Act::Purge { worker_id: worker_id.clone(), sequence: known.sequence }),
    );
}

/// The worker ended longer ago than its events are kept.
pub(super) fn is_past(known: &Known, now: Timestamp, retention: Duration) -> bool {
    !known.is_live() && (mutant::on(Mutant::PurgedEarly) || passed(known.updated_at, now) > signed(retention))
}

fn passed(from: Timestamp, to: Timestamp) -> SignedDuration {
    to.duration_since(from)
}
