//! Each event for itself, and each worker's events one after the other.

use super::{Event, History};

pub(super) fn attributes_are_those_of_the_contract(history: &History, found: &mut Vec<String>) {
    let History { prefix, pool, .. } = history;
    for event in &history.events {
        let (worker, state, rev) = (event.worker(), event.state(), event.number("rev"));
        let body = &event.body;
        let is = |name: &str| body[name].as_str().unwrap_or_default();
        let wanted = [
            ("the message's subject", event.subject.as_str(), format!("{prefix}.events.{pool}.{worker}.{state}")),
            ("Content-Type", event.content_type.as_str(), "application/cloudevents+json".to_owned()),
            ("specversion", is("specversion"), "1.0".to_owned()),
            ("id", is("id"), format!("{pool}.{worker}.{rev}")),
            ("source", is("source"), format!("/enlist/{prefix}")),
            ("type", is("type"), format!("enlist.worker.{state}.v1")),
            ("subject", is("subject"), format!("{pool}/{worker}")),
            ("datacontenttype", is("datacontenttype"), "application/json".to_owned()),
            ("data.pool", event.text("pool"), pool.clone()),
        ];
        for (name, is, wanted) in wanted {
            if is != wanted {
                found.push(format!("event {}: {name} is {is:?}, expected {wanted:?}", event.sequence));
            }
        }
        for (name, text) in
            [("time", is("time")), ("created_at", event.text("created_at")), ("updated_at", event.text("updated_at"))]
        {
            if text.parse::<jiff::Timestamp>().is_err() || !text.ends_with('Z') {
                found.push(format!("event {}: {name} is {text:?}, expected a time in UTC", event.sequence));
            }
        }
        let told = event.data("registration")["status"].as_str().unwrap_or_default();
        let fits = match state {
            "registered" => told == "registered",
            "registration_failed" => told == "failed",
            "provisioning" | "provisioned" => matches!(told, "disabled" | "pending"),
            _ => true,
        };
        if !fits {
            found.push(format!("event {}: {worker} is {state} and its registration {told:?}", event.sequence));
        }
        let exists = matches!(state, "provisioned" | "registered" | "registration_failed");
        if exists && event.text("instance_id").is_empty() {
            found.push(format!("event {}: {worker} is {state} without an instance_id", event.sequence));
        }
        if matches!(state, "terminating" | "terminated") && event.data("ended_by").is_null() {
            found.push(format!("event {}: {worker} is {state} and nobody has ended it", event.sequence));
        }
    }
}

pub(super) fn revs_have_no_gap(history: &History, found: &mut Vec<String>) {
    for (worker, events) in history.workers() {
        let revs: Vec<u64> = events.iter().map(|event| event.number("rev")).collect();
        if revs != (1..=revs.len() as u64).collect::<Vec<_>>() {
            found.push(format!("{worker}: revs are {revs:?}, expected 1, 2, 3 without a gap"));
        }
    }
}

pub(super) fn epochs_never_fall(history: &History, found: &mut Vec<String>) {
    for (worker, events) in history.workers() {
        let epochs: Vec<u64> = events.iter().map(|event| event.number("epoch")).collect();
        let grows = epochs.windows(2).all(|pair| pair[1] == pair[0] || pair[1] == pair[0] + 1);
        // Who was there before its record begins above what the scheduler may have seen.
        let first = if history.stray(worker).is_some_and(|stray| stray.command == events[0].text("command_id")) {
            epochs[0].max(2)
        } else {
            1
        };
        if epochs.first() != Some(&first) || !grows {
            found.push(format!("{worker}: epochs are {epochs:?}, expected to begin at 1 and to grow one by one"));
        }
        for pair in events.windows(2) {
            // Nobody else may write with the fence that the owner before still holds.
            let begins = pair[1].state() == "terminating" && pair[0].state() != "terminating";
            if begins && pair[1].number("epoch") == pair[0].number("epoch") {
                found.push(format!("{worker}: terminating under the epoch {} that it had", pair[1].number("epoch")));
            }
        }
    }
}

pub(super) fn states_follow_each_other(history: &History, found: &mut Vec<String>) {
    for (worker, events) in history.workers() {
        let mut before: Option<&Event> = None;
        for event in events {
            if !may_follow(before, event) {
                let before = before.map_or("nothing", Event::state);
                let (sequence, state) = (event.sequence, event.state());
                found.push(format!("{worker}: {state} after {before} (event {sequence})"));
            }
            before = Some(event);
        }
    }
}

fn may_follow(before: Option<&Event>, event: &Event) -> bool {
    let Some(before) = before else {
        let orphan = event.state() == "terminating" && event.ended_by().1 == "orphan";
        return event.state() == "provisioning" || event.never_was() || event.refused() || orphan;
    };
    let next: &[&str] = match before.state() {
        "provisioning" => &["provisioning", "provisioned", "terminating", "failed", "lost"],
        "provisioned" => &["provisioned", "registered", "registration_failed", "terminating", "lost"],
        "registered" => &["terminating", "lost"],
        "registration_failed" => &["registered", "registration_failed", "terminating", "lost"],
        "terminating" => &["terminating", "terminated"],
        // A host can be provisioned again, by another command.
        _ if before.is_static() && before.data("command_id") != event.data("command_id") => &["provisioning"],
        _ => &[],
    };
    next.contains(&event.state())
}

pub(super) fn an_allocation_keeps_what_made_it(history: &History, found: &mut Vec<String>) {
    for events in history.allocations() {
        for field in ["created_at", "command_id", "spec_hash", "correlation_id", "worker_type", "provider"] {
            let first = events[0].data(field);
            if let Some(other) = events.iter().find(|event| event.data(field) != first) {
                let (worker, now) = (other.worker(), other.data(field));
                found.push(format!("{worker}: {field} was {first} and is {now} (event {})", other.sequence));
            }
        }
        let mut instances: Vec<_> =
            events.iter().map(|event| event.text("instance_id")).filter(|id| !id.is_empty()).collect();
        instances.dedup();
        if instances.len() > 1 {
            found.push(format!("{}: its instance changes: {instances:?}", events[0].worker()));
        }
    }
}
