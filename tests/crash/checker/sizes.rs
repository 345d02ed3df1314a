//! The pool's own record: its events, and the commands that they are of.

use super::{Command, Event, History};

pub(super) fn pool_events_are_those_of_the_contract(history: &History, found: &mut Vec<String>) {
    let History { prefix, pool, .. } = history;
    for event in &history.sizes {
        let (state, rev) = (event.state(), event.number("rev"));
        let is = |name: &str| event.body[name].as_str().unwrap_or_default();
        let wanted = [
            ("the message's subject", event.subject.as_str(), format!("{prefix}.events.{pool}._.{state}")),
            ("Content-Type", event.content_type.as_str(), "application/cloudevents+json".to_owned()),
            ("specversion", is("specversion"), "1.0".to_owned()),
            ("id", is("id"), format!("{pool}._.{rev}")),
            ("source", is("source"), format!("/enlist/{prefix}")),
            ("type", is("type"), format!("enlist.pool.{state}.v1")),
            ("subject", is("subject"), format!("{pool}/_")),
            ("datacontenttype", is("datacontenttype"), "application/json".to_owned()),
            ("data.pool", event.text("pool"), pool.clone()),
        ];
        for (name, is, wanted) in wanted {
            if is != wanted {
                found.push(format!("pool event {}: {name} is {is:?}, expected {wanted:?}", event.sequence));
            }
        }
        for (name, text) in [("time", is("time")), ("updated_at", event.text("updated_at"))] {
            if text.parse::<jiff::Timestamp>().is_err() || !text.ends_with('Z') {
                found.push(format!("pool event {}: {name} is {text:?}, expected a time in UTC", event.sequence));
            }
        }
    }
}

pub(super) fn pool_events_follow_each_other(history: &History, found: &mut Vec<String>) {
    let revs: Vec<u64> = history.sizes.iter().map(|event| event.number("rev")).collect();
    if revs != (1..=revs.len() as u64).collect::<Vec<_>>() {
        found.push(format!("the pool: revs are {revs:?}, expected 1, 2, 3 without a gap"));
    }
    let mut before: Option<&Event> = None;
    for event in &history.sizes {
        let sequence = event.sequence;
        let of_same = |field: &str| before.is_some_and(|before| before.data(field) == event.data(field));
        match event.state() {
            "sizing" if of_same("command_id") => {
                found.push(format!("the pool: sized anew by the command that has sized it (event {sequence})"));
            }
            "sizing" => {}
            "sized" => {
                let sizing = before.is_some_and(|before| before.state() == "sizing");
                if !sizing || !["command_id", "size", "correlation_id"].into_iter().all(of_same) {
                    found.push(format!("the pool: sized by a command that was not sizing it (event {sequence})"));
                }
                let (size, actual) = (event.number("size"), event.number("actual"));
                if size != actual {
                    found.push(format!("the pool: sized at {size} with {actual} workers (event {sequence})"));
                }
            }
            other => found.push(format!("the pool: {other:?} is no state of a pool (event {sequence})")),
        }
        before = Some(event);
    }
}

pub(super) fn every_size_was_asked_for(history: &History, found: &mut Vec<String>) {
    for event in &history.sizes {
        let (id, size) = (event.text("command_id"), event.data("size"));
        let asks = |sent: &&Command| sent.verb == "pool" && sent.id.as_deref() == Some(id);
        if !history.commands.iter().filter(asks).any(|sent| sent.field("size") == *size) {
            found.push(format!("the pool: size {size} by {id:?}, which nobody sent (event {})", event.sequence));
        }
    }
    let ids = history.commands.iter().filter_map(|sent| sent.id.as_deref());
    for id in ids.filter(|id| asked_by_size(id) && history.sizes.is_empty()) {
        found.push(format!("{id} was sent for a pool without a size"));
    }
}

/// A command that enlist sends to itself, so that a pool comes to its size.
pub(super) fn asked_by_size(id: &str) -> bool {
    id.starts_with("enlist-size-") || id.starts_with("enlist-end-")
}

/// The events that end a `pool` command: its own `sized`, or else the `sizing` of a later command.
pub(super) fn outcomes_of_pool<'a>(history: &'a History, copies: &[&Command]) -> Vec<&'a Event> {
    let id = copies[0].id.as_deref().unwrap_or_default();
    let own = || history.sizes.iter().filter(|event| event.text("command_id") == id);
    let sized: Vec<_> = own().filter(|event| event.state() == "sized").collect();
    if !sized.is_empty() {
        return sized;
    }
    let last = copies.iter().map(|sent| sent.sequence).max().unwrap_or_default();
    let begun = own().map(|event| event.sequence).max().unwrap_or_default();
    let later = |event: &&Event| {
        let by = event.text("command_id");
        let mut senders = history.commands.iter().filter(|sent| sent.verb == "pool" && sent.id.as_deref() == Some(by));
        by != id && event.sequence > begun && senders.any(|sent| sent.sequence > last || begun > 0)
    };
    history.sizes.iter().filter(|event| event.state() == "sizing").filter(later).take(1).collect()
}

pub(super) fn the_pool_has_its_size(history: &History, found: &mut Vec<String>) {
    let Some(last) = history.sizes.last() else { return };
    let (size, state) = (last.number("size"), last.state());
    if state != "sized" {
        found.push(format!("the pool: still {state} at the end, to {size}"));
    }
    let live: Vec<_> = history.records().into_values().filter(|record| !record.is_final()).map(Event::worker).collect();
    if live.len() as u64 != size {
        found.push(format!("the pool: its size is {size}, and {live:?} live"));
    }
}
