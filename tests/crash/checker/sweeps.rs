//! What the sweeps did: nobody was lost, orphaned, registered or purged who should not have been.

use std::collections::{BTreeMap, BTreeSet};

use super::{Event, History, Kind, Step};

pub(super) fn only_what_is_gone_is_lost(history: &History, found: &mut Vec<String>) {
    let gone: BTreeSet<&str> = history
        .provider
        .iter()
        .filter_map(|step| match step {
            Step::Vanished { instance, .. } => Some(instance.as_str()),
            Step::Made { .. } | Step::Gone { .. } => None,
        })
        .collect();
    for event in history.events.iter().filter(|event| event.state() == "lost") {
        let (worker, instance) = (event.worker(), event.text("instance_id"));
        if !gone.contains(instance) {
            found.push(format!("{worker}: lost, and its instance {instance:?} was there"));
        }
    }
}

pub(super) fn only_strays_are_orphans(history: &History, found: &mut Vec<String>) {
    for events in history.allocations() {
        let Some(end) = events.iter().find(|event| event.ended_by().1 == "orphan") else { continue };
        let (worker, instance) = (end.worker(), end.text("instance_id"));
        if history.stray(worker).is_none_or(|stray| stray.instance != instance) {
            found.push(format!("{worker}: its instance {instance:?} was removed as an orphan, and had a record"));
        }
        if events[0].sequence != end.sequence {
            found.push(format!("{worker}: an orphan, and it had a record before event {}", end.sequence));
        }
    }
}

/// Nobody is registered again under an epoch that has been taken back.
pub(super) fn no_register_follows_an_unregister(history: &History, found: &mut Vec<String>) {
    let hosts: BTreeSet<&str> = history.events.iter().filter(|event| event.is_static()).map(Event::worker).collect();
    let mut taken_back: BTreeMap<&str, u64> = BTreeMap::new();
    for asked in &history.scheduler {
        let before = taken_back.get(asked.worker.as_str()).copied();
        match asked.kind {
            Kind::Unregister => {
                taken_back.insert(&asked.worker, before.unwrap_or(0).max(asked.epoch));
            }
            Kind::Register => {
                // A host's next allocation has higher epochs.
                let again = |epoch: u64| asked.epoch == epoch || asked.epoch > epoch && !hosts.contains(&*asked.worker);
                if let Some(epoch) = before.filter(|epoch| again(*epoch)) {
                    let (worker, now) = (&asked.worker, asked.epoch);
                    found.push(format!("{worker}: a register with epoch {now} after an unregister with {epoch}"));
                }
            }
            Kind::Forgot => {}
        }
    }
}

pub(super) fn the_view_shows_the_log(history: &History, found: &mut Vec<String>) {
    let shown = history.shown();
    for (worker, id) in &shown {
        match history.view.get(worker) {
            Some(entry) if entry == id => {}
            Some(entry) => found.push(format!("{worker}: the view has {entry:?}, and the newest event is {id:?}")),
            None => found.push(format!("{worker}: missing from the view")),
        }
    }
    for worker in history.view.keys().filter(|worker| !shown.contains_key(*worker)) {
        found.push(format!("{worker}: in the view without an event in the log"));
    }
}

pub(super) fn what_is_purged_is_gone_everywhere(history: &History, found: &mut Vec<String>) {
    let is_purged = |event: &&&Event| history.purged.contains(&event.sequence);
    for (worker, events) in history.workers() {
        let purged = events.iter().filter(is_purged).count();
        if purged == 0 {
            continue;
        }
        if purged < events.len() {
            let all = events.len();
            found.push(format!("{worker}: {purged} of its {all} events are purged"));
        }
        let last = events[events.len() - 1];
        if !last.is_final() {
            found.push(format!("{worker}: purged, and it was {}", last.state()));
        }
        if history.alive.iter().any(|(other, _)| other == worker) {
            found.push(format!("{worker}: purged, and its instance lives"));
        }
    }
    for event in history.sizes.iter().filter(|event| history.purged.contains(&event.sequence)) {
        found.push(format!("the pool's own event {} is purged", event.sequence));
    }
}
