//! Instances, records and the scheduler's list: in step at the end, and in the right order on the way.

use std::collections::{BTreeMap, BTreeSet};

use super::{Event, History, Kind, Step};

pub(super) fn one_instance_lives_at_a_time(history: &History, found: &mut Vec<String>) {
    let mut live: BTreeMap<&str, &str> = BTreeMap::new();
    for step in &history.provider {
        match step {
            Step::Made { worker, instance } => {
                if let Some(other) = live.insert(worker, instance) {
                    found.push(format!("{worker}: {instance} was made while {other} lived"));
                }
            }
            Step::Vanished { worker, .. } => drop(live.remove(worker.as_str())),
            Step::Gone { worker } => {
                if live.remove(worker.as_str()).is_none() {
                    found.push(format!("{worker}: an instance was removed that was never made"));
                }
            }
        }
    }
    let mut workers = BTreeSet::new();
    for (worker, instance) in &history.alive {
        if !workers.insert(worker) {
            found.push(format!("{worker}: {instance} is a second instance at the end"));
        }
    }
}

pub(super) fn what_lives_is_what_the_record_says(history: &History, found: &mut Vec<String>) {
    let alive: BTreeMap<&str, &str> =
        history.alive.iter().map(|(worker, instance)| (worker.as_str(), instance.as_str())).collect();
    let (records, listed) = (history.records(), listed(history));
    for (worker, record) in &records {
        let (state, instance) = (record.state(), record.text("instance_id"));
        match alive.get(worker) {
            Some(alive) if record.is_final() => {
                found.push(format!("{worker}: {state}, and its instance {alive} lives"));
            }
            Some(alive) if *alive != instance => {
                found.push(format!("{worker}: {state} as {instance:?}, and {alive} lives"));
            }
            None if !record.is_final() && !record.is_static() => {
                found.push(format!("{worker}: {state}, and no instance lives"));
            }
            Some(_) | None => {}
        }
        match listed.get(worker) {
            None if record.state() == "registered" => {
                found.push(format!("{worker}: registered, and missing from the scheduler's list"));
            }
            Some(_) if record.state() != "registered" && record.registers() => {
                found.push(format!("{worker}: {state}, and in the scheduler's list"));
            }
            Some(_) if !record.registers() => found.push(format!("{worker}: in the scheduler's list against its wish")),
            Some(epoch) if *epoch > record.number("epoch") => {
                found.push(format!("{worker}: listed under epoch {epoch}, its record has {}", record.number("epoch")));
            }
            Some(_) | None => {}
        }
    }
    for (worker, instance) in alive.iter().filter(|(worker, _)| !records.contains_key(*worker)) {
        found.push(format!("{worker}: its instance {instance} lives and it has no record"));
    }
    for worker in listed.keys().filter(|worker| !records.contains_key(*worker)) {
        found.push(format!("{worker}: in the scheduler's list without a record"));
    }
    for event in &history.events {
        let (command, reason) = event.ended_by();
        let asked = |id: &str| {
            let mut terminates = history.commands.iter().filter(|sent| sent.verb == "terminate");
            terminates.any(|sent| sent.id.as_deref() == Some(id) && sent.worker.as_deref() == Some(event.worker()))
        };
        let ended = event.state() == "terminating" || event.state() == "terminated";
        let orphan = reason == "orphan" && history.stray(event.worker()).is_some();
        if ended && !asked(command) && !event.closed_by_enlist() && !orphan {
            found.push(format!("{}: ended by {command:?} ({reason:?}), and nobody asked for it", event.worker()));
        }
    }
    for step in &history.provider {
        let Step::Gone { worker } = step else { continue };
        if records.get(worker.as_str()).is_none_or(|record| !record.is_final() && record.state() != "terminating") {
            found.push(format!("{worker}: its instance was removed and its record lives"));
        }
    }
}

/// The scheduler's list, as one that keeps to the fence has it: worker and epoch.
fn listed(history: &History) -> BTreeMap<&str, u64> {
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    let mut listed = BTreeMap::new();
    for asked in &history.scheduler {
        if asked.kind == Kind::Forgot {
            seen.remove(asked.worker.as_str());
            listed.remove(asked.worker.as_str());
            continue;
        }
        let seen = seen.entry(&asked.worker).or_default();
        if asked.epoch < *seen {
            continue;
        }
        *seen = asked.epoch;
        match asked.kind {
            Kind::Register => drop(listed.insert(asked.worker.as_str(), asked.epoch)),
            Kind::Unregister | Kind::Forgot => drop(listed.remove(asked.worker.as_str())),
        }
    }
    listed
}

/// Whether a terminate has waited for the scheduler as long as it has to, where that was away.
fn waited(history: &History, worker: &str) -> bool {
    let Some(patience) = history.unregister_timeout else { return false };
    let at = |state: &str| {
        let mut of_worker = history.events.iter().filter(|event| event.worker() == worker);
        let event = of_worker.find(|event| event.state() == state)?;
        event.text("updated_at").parse::<jiff::Timestamp>().ok()
    };
    let [Some(begun), Some(ended)] = ["terminating", "terminated"].map(at) else { return false };
    ended.duration_since(begun) >= jiff::SignedDuration::try_from(patience).expect("not so long")
}

pub(super) fn the_scheduler_is_told_in_order(history: &History, found: &mut Vec<String>) {
    let mut ends: BTreeMap<&str, Vec<(u64, u64)>> = BTreeMap::new();
    for allocation in history.allocations() {
        let end = allocation.iter().find(|event| event.state() == "terminating");
        if let Some(end) = end {
            // A host's next allocation has epochs of its own.
            let last = allocation.last().filter(|last| last.is_static()).map_or(u64::MAX, |last| last.number("epoch"));
            ends.entry(end.worker()).or_default().push((end.number("epoch"), last));
        }
    }
    for asked in history.scheduler.iter().filter(|asked| asked.kind == Kind::Register) {
        let of_worker = ends.get(asked.worker.as_str()).map_or(&[][..], Vec::as_slice);
        if of_worker.iter().any(|(end, last)| (*end..=*last).contains(&asked.epoch)) {
            found.push(format!("{}: a register with epoch {} after `terminating`", asked.worker, asked.epoch));
        }
    }
    let wants: BTreeSet<&str> = history.events.iter().filter(|event| event.registers()).map(Event::worker).collect();
    for asked in &history.scheduler {
        if !wants.contains(asked.worker.as_str()) {
            found.push(format!("{}: the scheduler was told of it against its wish", asked.worker));
        }
    }
    for (at, step) in history.provider.iter().enumerate() {
        let Step::Gone { worker } = step else { continue };
        // What had come when this step had not yet been made.
        let before = || history.scheduler.iter().filter(|asked| asked.worker == *worker && asked.steps <= at);
        // Of an orphan it may know, whoever made it.
        let orphan = || history.stray(worker).is_some();
        let known = orphan() || before().any(|asked| asked.kind == Kind::Register);
        let fence = ends.get(worker.as_str()).and_then(|ends| ends.first()).map_or(0, |(end, _)| *end);
        let told = before().any(|asked| asked.kind == Kind::Unregister && asked.epoch >= fence);
        if known && !told && !waited(history, worker) {
            found.push(format!("{worker}: its instance was removed before it was unregistered"));
        }
    }
}
