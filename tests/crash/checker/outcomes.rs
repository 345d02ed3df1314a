//! Commands: each with one outcome, none lost, none left, none acked before its outcome is stored.

use std::collections::{BTreeMap, BTreeSet};

use super::sizes::asked_by_size;
use super::sizes::outcomes_of_pool;
use super::{Acked, Command, DeadLetter, Event, History};

const REASONS: [&str; 7] = ["malformed", "invalid", "not_allowed", "conflict", "expired", "quota", "exhausted"];

pub(super) fn every_event_is_of_a_command_that_was_sent(history: &History, found: &mut Vec<String>) {
    let mut workers: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for event in &history.events {
        let (id, worker) = (event.text("command_id"), event.worker());
        if history.stray(worker).is_some_and(|stray| stray.command == id) {
            continue;
        }
        // In a pool of hosts it stands under a name that is no host's.
        if event.refused() {
            continue;
        }
        let verb = if event.never_was() { "terminate" } else { "provision" };
        let mut sent = history.commands.iter().filter(|sent| sent.verb == verb && sent.id.as_deref() == Some(id));
        if !sent.any(|sent| sent.worker.as_deref().is_none_or(|named| named == worker)) {
            found.push(format!("{worker}: event {} names the {verb} {id:?}, which nobody sent", event.sequence));
        }
        if verb == "provision" {
            workers.entry(id).or_default().insert(worker);
        }
    }
    for (id, workers) in workers.into_iter().filter(|(_, workers)| workers.len() > 1) {
        found.push(format!("command {id}: made more than one worker: {workers:?}"));
    }
}

pub(super) fn every_command_has_one_outcome(history: &History, found: &mut Vec<String>) {
    let lives = Lives::of(history);
    let mut groups: BTreeMap<(&str, &str), Vec<&Command>> = BTreeMap::new();
    for command in &history.commands {
        if let Some(id) = &command.id {
            groups.entry((command.verb, id)).or_default().push(command);
            continue;
        }
        let sequence = command.sequence.to_string();
        let letters = history.dead.iter().filter(|letter| letter.header("Enlist-Sequence") == sequence).count();
        if letters != 1 {
            found.push(format!("the unreadable command {sequence}: {letters} dead letters, expected 1"));
        }
    }
    for ((verb, id), copies) in groups {
        let letters = letters(history, verb, id);
        let contents: BTreeSet<&str> = copies.iter().map(|command| command.body.as_str()).collect();
        for content in &contents {
            let number = letters.iter().filter(|letter| letter.body == *content).count();
            if number > 1 {
                found.push(format!("{verb} {id}: {number} dead letters of one command"));
            }
        }
        let outcomes = match verb {
            "provision" => outcomes_of_provision(&lives, id),
            "pool" => outcomes_of_pool(history, &copies),
            "sweep" => {
                if !letters.is_empty() {
                    found.push(format!("sweep {id}: a dead letter, and its outcome is a line of the log"));
                }
                continue;
            }
            // The worker stays on its way out, and its end is then the sweep's doing.
            _ if letters.iter().any(|letter| letter.header("Enlist-Reason") == "exhausted") => Vec::new(),
            _ => outcomes_of_terminate(&lives, &copies, !letters.is_empty()),
        };
        // What a pool's size asked for and asks for no more is dropped: nobody waits for it.
        let withdrawn = asked_by_size(id) && outcomes.is_empty() && letters.is_empty();
        if outcomes.len() + letters.len() != contents.len() && !withdrawn {
            let told: Vec<_> = outcomes.iter().map(|event| format!("{} ({})", event.state(), event.sequence)).collect();
            let reasons: Vec<_> = letters.iter().map(|letter| letter.header("Enlist-Reason")).collect();
            let wanted = contents.len();
            found.push(format!("{verb} {id}: outcomes {told:?}, dead letters {reasons:?}; expected {wanted} in all"));
        }
    }
}

fn letters<'a>(history: &'a History, verb: &str, id: &str) -> Vec<&'a DeadLetter> {
    let subject = format!("{}.dead.{}.{verb}.{id}", history.prefix, history.pool);
    history.dead.iter().filter(|letter| letter.subject == subject).collect()
}

/// What the workers went through, put in order once: a soak has thousands of commands, and each is looked up.
struct Lives<'a> {
    history: &'a History,
    /// Each allocation by the command that made it.
    made_by: BTreeMap<&'a str, Vec<Vec<&'a Event>>>,
    workers: BTreeMap<&'a str, Vec<&'a Event>>,
}

impl<'a> Lives<'a> {
    fn of(history: &'a History) -> Self {
        let mut made_by: BTreeMap<&str, Vec<Vec<&Event>>> = BTreeMap::new();
        for allocation in history.allocations() {
            made_by.entry(allocation[0].text("command_id")).or_default().push(allocation);
        }
        Self { history, made_by, workers: history.workers() }
    }
}

/// The events that end a provision. A registration that succeeds later is no second outcome, nor is an end that came after.
fn outcomes_of_provision<'a>(lives: &Lives<'a>, id: &str) -> Vec<&'a Event> {
    let mut outcomes = Vec::new();
    for allocation in lives.made_by.get(id).into_iter().flatten() {
        if came_late(allocation, id) && is_refused(lives.history, id) {
            continue;
        }
        let mut before: Option<&Event> = None;
        for event in allocation.iter().copied().filter(|event| !event.never_was()) {
            let is_outcome = match event.state() {
                "registered" | "registration_failed" => {
                    before.is_none_or(|before| before.state() != "registration_failed")
                }
                "provisioned" => !event.registers(),
                "failed" => true,
                "terminated" => outcomes.is_empty() && !event.closed_by_enlist(),
                "lost" => outcomes.is_empty(),
                _ => false,
            };
            if is_outcome {
                outcomes.push(event);
            }
            before = Some(event);
        }
    }
    outcomes
}

/// Whether a dead letter is all that a command came to. One with several contents may have been refused in one, for want of
/// room, and have made its worker in another.
fn is_refused(history: &History, id: &str) -> bool {
    let letters = letters(history, "provision", id);
    let sent = history.commands.iter().filter(|sent| sent.verb == "provision" && sent.id.as_deref() == Some(id));
    let contents: BTreeSet<&str> = sent.map(|command| command.body.as_str()).collect();
    let for_now = letters.iter().any(|letter| matches!(letter.header("Enlist-Reason"), "quota" | "expired"));
    for_now && letters.len() >= contents.len()
}

/// A claim that was on its way for so long that its command had been refused: nobody worked on it, so nothing was made, and
/// whoever found it has ended it.
fn came_late(allocation: &[&Event], id: &str) -> bool {
    let idle = |event: &&Event| matches!(event.state(), "provisioning" | "terminating" | "terminated" | "failed");
    allocation.iter().all(|event| idle(event) && event.ended_by().0 != id)
}

/// The worker's final event, which may be another terminate's unless this one was refused.
fn outcomes_of_terminate<'a>(lives: &Lives<'a>, copies: &[&Command], refused: bool) -> Vec<&'a Event> {
    let (id, worker) = (copies[0].id.as_deref().unwrap_or_default(), copies[0].worker.as_deref().unwrap_or_default());
    let ends = || lives.workers.get(worker).into_iter().flatten().copied().filter(|event| event.is_final());
    let own: Vec<_> = ends().filter(|end| end.ended_by().0 == id).collect();
    if own.is_empty() && !refused { ends().take(1).collect() } else { own }
}

pub(super) fn dead_letters_say_what_they_are(history: &History, found: &mut Vec<String>) {
    for letter in &history.dead {
        let mut wrong =
            |what: String| found.push(format!("dead letter {} ({}): {what}", letter.sequence, letter.subject));
        let sequence = letter.header("Enlist-Sequence");
        let named = |command: &&Command| match (command.sequence, &command.id) {
            (0, Some(id)) => letter.subject.ends_with(&format!(".{}.{id}", command.verb)),
            (place, _) => place.to_string() == sequence,
        };
        let Some(command) = history.commands.iter().find(named) else {
            wrong(format!("Enlist-Sequence is {sequence:?}, which is no command's"));
            continue;
        };
        let (prefix, pool, verb) = (&history.prefix, &history.pool, command.verb);
        let id = command.id.as_deref().unwrap_or("_");
        if letter.subject != format!("{prefix}.dead.{pool}.{verb}.{id}") {
            wrong(format!("is of the {verb} {id}"));
        }
        if letter.body != command.body {
            wrong("its body is not the command's".to_owned());
        }
        let subject = letter.header("Enlist-Subject");
        if subject != format!("{prefix}.cmd.{pool}.{verb}") {
            wrong(format!("Enlist-Subject is {subject:?}"));
        }
        let reason = letter.header("Enlist-Reason");
        if !REASONS.contains(&reason) {
            wrong(format!("Enlist-Reason is {reason:?}, expected one of {REASONS:?}"));
        }
        if letter.header("Enlist-Detail").is_empty() {
            wrong("Enlist-Detail says nothing".to_owned());
        }
        let deliveries = letter.header("Enlist-Deliveries");
        if deliveries.parse::<u64>().unwrap_or_default() == 0 {
            wrong(format!("Enlist-Deliveries is {deliveries:?}"));
        }
        let closed: Vec<_> = history.events.iter().filter(|event| event.text("command_id") == id).collect();
        let last = closed.last().map(|event| event.worker());
        let closed: Vec<_> = closed.into_iter().filter(|event| Some(event.worker()) == last).collect();
        if matches!(reason, "exhausted" | "quota")
            && closed.last().is_some_and(|record| record.is_final() && record.ended_by().1 != reason)
            && !came_late(&closed, id)
        {
            wrong(format!("its worker did not end as {reason}"));
        }
    }
}

pub(super) fn nothing_is_left_and_nothing_was_acked_early(history: &History, found: &mut Vec<String>) {
    let lives = Lives::of(history);
    for left in &history.left {
        found.push(format!("still in the queue: {left}"));
    }
    for command in history.commands.iter().filter(|command| command.sequence != 0) {
        let (verb, sequence) = (command.verb, command.sequence);
        let id = command.id.as_deref().unwrap_or("_");
        let Some(Acked { events, dead }) = command.acked else {
            found.push(format!("{verb} {id}: message {sequence} was never acked"));
            continue;
        };
        let letters = history.dead.iter().filter(|letter| letter.body == command.body).map(|letter| letter.sequence);
        let stored = match verb {
            "provision" => outcomes_of_provision(&lives, id),
            "pool" => outcomes_of_pool(history, &[command]),
            "sweep" => continue,
            _ => outcomes_of_terminate(&lives, &[command], false),
        };
        let by_event = stored.iter().any(|event| event.sequence <= events);
        let by_letter = letters.min().is_some_and(|letter| letter <= dead);
        // What a pool's size asked for may be dropped, and asked for again later.
        if !by_event && !by_letter && !asked_by_size(id) {
            found.push(format!("{verb} {id}: message {sequence} was acked before its outcome was stored"));
        }
    }
}

impl DeadLetter {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}
