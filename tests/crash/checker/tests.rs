//! Hand-made histories that a wrong build would leave behind, one for each rule: a check that cannot fail is none.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Acked, Asked, Command, DeadLetter, Event, History, Kind, Step, violations};

const SOON: &str = "2026-01-02T03:04:05Z";

/// The events of a worker: its states, each with its epoch.
pub(super) fn life(worker: &str, command: &str, states: &[(&str, u64)]) -> Vec<Value> {
    let mut rev = 0;
    let told = |state: &str| match state {
        "registered" | "terminating" | "terminated" => "registered",
        "registration_failed" => "failed",
        _ => "pending",
    };
    let event = |(state, epoch): &(&str, u64)| {
        rev += 1;
        let mut data = json!({
            "pool": "p", "worker_id": worker, "worker_type": "dynamic", "state": state, "rev": rev, "epoch": epoch,
            "command_id": command, "spec_hash": "h", "provider": "null", "capabilities": {},
            "registration": { "status": told(state), "attempts": 1 }, "attempts": 0,
            "created_at": SOON, "updated_at": SOON,
        });
        if *state != "provisioning" {
            data["instance_id"] = json!(format!("i-{worker}"));
        }
        if state.starts_with("terminat") {
            data["ended_by"] = json!({ "command_id": "t-1", "reason": "done" });
        }
        data
    };
    states.iter().map(event).collect()
}

pub(super) fn envelope(data: &Value) -> Value {
    let text = |name: &str| data[name].as_str().unwrap().to_owned();
    let (worker, state) = (text("worker_id"), text("state"));
    json!({
        "specversion": "1.0", "id": format!("p.{worker}.{}", data["rev"]), "source": "/enlist/f",
        "type": format!("enlist.worker.{state}.v1"), "subject": format!("p/{worker}"), "time": SOON,
        "datacontenttype": "application/json", "data": data,
    })
}

/// Puts events into the log; sequences go on by one.
pub(super) fn log(history: &mut History, events: Vec<Value>) {
    for data in events {
        let (worker, state) = (data["worker_id"].as_str().unwrap(), data["state"].as_str().unwrap());
        history.events.push(Event {
            sequence: history.events.len() as u64 + 1,
            subject: format!("f.events.p.{worker}.{state}"),
            content_type: "application/cloudevents+json".into(),
            body: envelope(&data),
        });
    }
    history.view = history.shown();
}

pub(super) fn command(history: &mut History, verb: &'static str, id: Option<&str>, worker: Option<&str>) {
    let sequence = history.commands.len() as u64 + 1;
    let body = json!({ "command_id": id, "verb": verb }).to_string();
    let (id, worker) = (id.map(Into::into), worker.map(Into::into));
    let acked = Some(Acked { events: 99, dead: 99 });
    history.commands.push(Command { sequence, verb, id, worker, body, acked });
}

pub(super) fn letter(history: &mut History, of: usize, reason: &str) {
    let Command { sequence, verb, id, body, .. } = history.commands[of].clone();
    let headers = [
        ("Enlist-Reason", reason.to_owned()),
        ("Enlist-Detail", "for people".to_owned()),
        ("Enlist-Subject", format!("f.cmd.p.{verb}")),
        ("Enlist-Sequence", sequence.to_string()),
        ("Enlist-Deliveries", "1".to_owned()),
    ];
    history.dead.push(DeadLetter {
        sequence: history.dead.len() as u64 + 1,
        subject: format!("f.dead.p.{verb}.{}", id.as_deref().unwrap_or("_")),
        headers: headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        body,
    });
}

pub(super) fn asked(kind: Kind, worker: &str, epoch: u64, steps: usize) -> Asked {
    Asked { kind, worker: worker.into(), epoch, steps }
}

pub(super) fn made(worker: &str) -> Step {
    Step::Made { worker: worker.into(), instance: format!("i-{worker}") }
}

pub(super) fn gone(worker: &str) -> Step {
    Step::Gone { worker: worker.into() }
}

/// `a` came and went, `b` was taken over and stays, `c` was refused, and one command could not be read.
pub(super) fn good() -> History {
    let mut history = History { prefix: "f".into(), pool: "p".into(), ..History::default() };
    command(&mut history, "provision", Some("c-a"), Some("a"));
    command(&mut history, "provision", Some("c-b"), Some("b"));
    command(&mut history, "terminate", Some("t-1"), Some("a"));
    command(&mut history, "provision", Some("c-c"), Some("c"));
    command(&mut history, "provision", None, None);
    let path = [("provisioning", 1), ("provisioned", 1), ("registered", 1), ("terminating", 2), ("terminated", 2)];
    log(&mut history, life("a", "c-a", &path));
    log(
        &mut history,
        life("b", "c-b", &[("provisioning", 1), ("provisioning", 2), ("provisioned", 2), ("registered", 2)]),
    );
    letter(&mut history, 3, "not_allowed");
    letter(&mut history, 4, "malformed");
    history.provider = vec![made("a"), made("b"), gone("a")];
    history.alive = vec![("b".into(), "i-b".into())];
    history.scheduler = vec![
        asked(Kind::Register, "a", 1, 1),
        asked(Kind::Register, "b", 2, 2),
        asked(Kind::Unregister, "a", 2, 2),
        // A register that a dead replica sent before: the fence keeps it out.
        asked(Kind::Register, "a", 1, 3),
    ];
    history
}

/// Sets a field of the worker in one event, by its place in the log.
fn set(history: &mut History, at: usize, field: &str, value: Value) {
    history.events[at].body["data"][field] = value;
}

/// Replaces the events of worker `b`, and makes the attributes fit.
fn retell(history: &mut History, states: &[(&str, u64)]) {
    history.events.truncate(5);
    log(history, life("b", "c-b", states));
}

#[test]
fn a_history_that_holds_has_no_violation() {
    assert_eq!(violations(&good()), Vec::<String>::new());
}

#[test]
fn a_host_that_is_allocated_again_is_no_violation() {
    let mut history = good();
    command(&mut history, "provision", Some("c-d"), Some("a"));
    log(&mut history, life("a", "c-d", &[("provisioning", 3), ("provisioned", 3), ("registered", 3)]));
    for (at, rev) in [(9, 6), (10, 7), (11, 8)] {
        set(&mut history, at, "rev", json!(rev));
        history.events[at].body["id"] = json!(format!("p.a.{rev}"));
        set(&mut history, at, "created_at", json!("2026-02-02T03:04:05Z"));
    }
    for event in history.events.iter_mut().filter(|event| event.worker() == "a") {
        event.body["data"]["worker_type"] = json!("static");
    }
    history.view = history.shown();
    history.provider = vec![made("b")];
    history.scheduler.push(asked(Kind::Register, "a", 3, 3));
    assert_eq!(violations(&history), Vec::<String>::new());
    history.scheduler.push(asked(Kind::Register, "a", 2, 3));
    assert_eq!(violations(&history)[0], "a: a register with epoch 2 after `terminating`");
}

#[test]
fn a_provision_that_enlist_closes_has_its_dead_letter_for_its_outcome() {
    let mut history = good();
    command(&mut history, "provision", Some("c-d"), Some("d"));
    let mut events = life("d", "c-d", &[("provisioning", 1), ("terminating", 2), ("terminated", 2)]);
    for event in &mut events[1..] {
        event["ended_by"] = json!({ "command_id": "c-d", "reason": "exhausted" });
    }
    log(&mut history, events);
    let lost = violations(&history);
    assert!(lost[0].starts_with("provision c-d: outcomes [], dead letters []; expected 1"), "{lost:?}");
    letter(&mut history, 5, "exhausted");
    assert_eq!(violations(&history), Vec::<String>::new());
    history.dead[2].headers.insert("Enlist-Reason".into(), "quota".into());
    assert_eq!(violations(&history), ["dead letter 3 (f.dead.p.provision.c-d): its worker did not end as quota"]);
}

#[test]
fn a_provision_that_had_no_room_in_one_content_may_have_it_in_another() {
    let mut history = good();
    command(&mut history, "provision", Some("c-d"), Some("d"));
    letter(&mut history, 5, "quota");
    command(&mut history, "terminate", Some("t-d"), Some("d"));
    let mut events = life("d", "c-d", &[("provisioning", 1), ("terminating", 2), ("terminated", 2)]);
    for event in &mut events[1..] {
        event["ended_by"] = json!({ "command_id": "t-d" });
    }
    log(&mut history, events);
    assert_eq!(violations(&history), Vec::<String>::new(), "its claim came late");
    command(&mut history, "provision", Some("c-d"), Some("d"));
    history.commands[7].body = "{}".into();
    assert_eq!(violations(&history), Vec::<String>::new(), "it is the other's");
}

#[test]
fn a_command_that_comes_twice_has_one_outcome_and_another_content_one_more() {
    let mut history = good();
    command(&mut history, "provision", Some("c-a"), Some("a"));
    assert_eq!(violations(&history), Vec::<String>::new());
    history.commands[5].body = "{}".into();
    assert_eq!(violations(&history).len(), 1, "{:?}", violations(&history));
    letter(&mut history, 5, "conflict");
    assert_eq!(violations(&history), Vec::<String>::new());
}

#[test]
fn a_terminate_that_has_waited_for_an_absent_scheduler_goes_on_without_it() {
    let mut history = good();
    history.unregister_timeout = Some(Duration::from_secs(8));
    history.scheduler[2].steps = 3;
    let early = "a: its instance was removed before it was unregistered";
    for (ended, told) in [("2026-01-02T03:04:12Z", vec![early]), ("2026-01-02T03:04:13Z", vec![])] {
        set(&mut history, 4, "updated_at", json!(ended));
        assert_eq!(violations(&history), told, "terminated at {ended}");
    }
}

pub(super) type Wrong = (&'static str, fn(&mut History));

/// What a wrong build would leave, and the line that tells of it.
const WRONG: [Wrong; 50] = [
    ("event 3: the message's subject is", |h| h.events[2].subject = "f.events.p.a.provisioned".into()),
    ("event 1: Content-Type is", |h| h.events[0].content_type = String::new()),
    ("event 1: specversion is", |h| h.events[0].body["specversion"] = json!("0.3")),
    ("event 2: id is", |h| h.events[1].body["id"] = json!("p.a.1")),
    ("event 1: source is", |h| h.events[0].body["source"] = json!("/enlist")),
    ("event 3: type is", |h| h.events[2].body["type"] = json!("enlist.worker.provisioned.v1")),
    ("event 1: subject is", |h| h.events[0].body["subject"] = json!("a")),
    ("event 1: datacontenttype is", |h| h.events[0].body["datacontenttype"] = Value::Null),
    ("event 1: data.pool is", |h| set(h, 0, "pool", json!("q"))),
    ("event 1: time is", |h| h.events[0].body["time"] = json!("yesterday")),
    ("event 1: updated_at is", |h| set(h, 0, "updated_at", json!("2026-01-02T03:04:05+01:00"))),
    ("a is registered and its registration \"pending\"", |h| set(h, 2, "registration", json!({ "status": "pending" }))),
    ("a is provisioned without an instance_id", |h| set(h, 1, "instance_id", Value::Null)),
    ("a is terminating and nobody has ended it", |h| set(h, 3, "ended_by", Value::Null)),
    ("b: revs are [1, 2, 4]", |h| drop(h.events.remove(7))),
    ("b: revs are [1, 2, 3, 4, 4]", |h| h.events.push(h.events[8].clone())),
    ("b: epochs are [1, 2, 1, 1]", |h| {
        retell(h, &[("provisioning", 1), ("provisioning", 2), ("provisioned", 1), ("registered", 1)]);
    }),
    ("b: epochs are [1, 3, 3, 3]", |h| {
        retell(h, &[("provisioning", 1), ("provisioning", 3), ("provisioned", 3), ("registered", 3)]);
    }),
    ("a: terminating under the epoch 1 that it had", |h| {
        set(h, 3, "epoch", json!(1));
        set(h, 4, "epoch", json!(1));
    }),
    ("b: registered after provisioning", |h| retell(h, &[("provisioning", 1), ("registered", 1)])),
    ("b: provisioned after registered", |h| {
        retell(h, &[("provisioning", 1), ("provisioned", 1), ("registered", 1), ("provisioned", 2)]);
    }),
    ("b: provisioned after nothing", |h| retell(h, &[("provisioned", 1), ("registered", 1)])),
    ("b: registered after registered", |h| {
        retell(h, &[("provisioning", 1), ("provisioned", 1), ("registered", 1), ("registered", 2)]);
    }),
    ("a: terminated after terminated", |h| {
        let mut data = h.events[4].body["data"].clone();
        data["rev"] = json!(6);
        log(h, vec![data]);
    }),
    ("b: provisioning after failed", |h| {
        retell(h, &[("provisioning", 1), ("failed", 1), ("provisioning", 2)]);
    }),
    ("b: created_at was", |h| set(h, 7, "created_at", json!("2027-01-02T03:04:05Z"))),
    ("b: spec_hash was", |h| set(h, 8, "spec_hash", json!("other"))),
    ("b: its instance changes", |h| set(h, 7, "instance_id", json!("i-before"))),
    ("names the provision \"c-x\", which nobody sent", |h| {
        log(h, life("x", "c-x", &[("provisioning", 1)]));
    }),
    ("event 6 names the provision \"c-b\", which nobody sent", |h| h.commands[1].worker = Some("other".into())),
    ("command c-b: made more than one worker", |h| {
        h.commands[1].worker = None;
        log(h, life("b2", "c-b", &[("provisioning", 1), ("failed", 1)]));
    }),
    ("provision c-b: outcomes [], dead letters []; expected 1", |h| h.events.truncate(8)),
    ("provision c-b: outcomes [\"registered (9)\"], dead letters [\"conflict\"]; expected 1", |h| {
        letter(h, 1, "conflict");
    }),
    ("provision c-c: 2 dead letters of one command", |h| letter(h, 3, "not_allowed")),
    ("the unreadable command 5: 0 dead letters", |h| drop(h.dead.pop())),
    ("terminate t-1: outcomes [], dead letters []", |h| h.events.retain(|event| event.state() != "terminated")),
    ("terminate t-1: outcomes [\"terminated (5)\"], dead letters [\"expired\"]", |h| letter(h, 2, "expired")),
    ("dead letter 1 (f.dead.p.provision.c-c): its body is not the command's", |h| h.dead[0].body = "{}".into()),
    ("dead letter 1 (f.dead.p.provision.c-c): Enlist-Reason is \"whim\"", |h| {
        h.dead[0].headers.insert("Enlist-Reason".into(), "whim".into());
    }),
    ("dead letter 1 (f.dead.p.provision.c-c): Enlist-Deliveries is", |h| {
        h.dead[0].headers.remove("Enlist-Deliveries");
    }),
    ("still in the queue: f.cmd.p.provision", |h| h.left.push("f.cmd.p.provision".into())),
    ("provision c-b: message 2 was never acked", |h| h.commands[1].acked = None),
    ("provision c-b: message 2 was acked before its outcome was stored", |h| {
        h.commands[1].acked = Some(Acked { events: 8, dead: 2 });
    }),
    ("b: i-b was made while i-b lived", |h| h.provider.push(made("b"))),
    ("b: i-c is a second instance at the end", |h| h.alive.push(("b".into(), "i-c".into()))),
    ("a: terminated, and its instance i-a lives", |h| h.alive.push(("a".into(), "i-a".into()))),
    ("b: registered, and no instance lives", |h| h.alive.clear()),
    ("b: registered, and missing from the scheduler's list", |h| drop(h.scheduler.remove(1))),
    ("a: terminated, and in the scheduler's list", |h| drop(h.scheduler.remove(2))),
    ("a: a register with epoch 2 after `terminating`", |h| h.scheduler.push(asked(Kind::Register, "a", 2, 3))),
];

const WRONG_TOO: [Wrong; 8] = [
    ("a: its instance was removed before it was unregistered", |h| h.scheduler[2].steps = 3),
    ("x: an instance was removed that was never made", |h| h.provider.push(gone("x"))),
    ("x: its instance i-x lives and it has no record", |h| h.alive.push(("x".into(), "i-x".into()))),
    ("x: in the scheduler's list without a record", |h| h.scheduler.push(asked(Kind::Register, "x", 1, 3))),
    ("b: listed under epoch 3, its record has 2", |h| h.scheduler.push(asked(Kind::Register, "b", 3, 3))),
    ("b: registered as \"i-b\", and i-z lives", |h| h.alive[0].1 = "i-z".into()),
    ("b: its instance was removed and its record lives", |h| h.provider.push(gone("b"))),
    ("a: ended by \"t-1\" (\"done\"), and nobody asked for it", |h| h.commands[2].worker = Some("z".into())),
];

/// Each wrong history of those that come from `good`, and that no rule catches.
pub(super) fn missed<'a>(good: fn() -> History, wrong: impl IntoIterator<Item = &'a Wrong>) -> String {
    let mut missed = Vec::new();
    for (line, spoil) in wrong {
        let mut history = good();
        spoil(&mut history);
        let told = violations(&history);
        if !told.iter().any(|told| told.contains(line)) {
            missed.push(format!("{line:?}: told was {told:#?}"));
        }
    }
    missed.join("\n")
}

#[test]
fn each_wrong_history_is_caught_by_its_rule() {
    let missed = missed(good, WRONG.iter().chain(&WRONG_TOO));
    assert!(missed.is_empty(), "{missed}");
}

#[test]
fn a_worker_that_wants_no_registration_is_told_to_nobody() {
    let mut history = good();
    for event in history.events.iter_mut().filter(|event| event.worker() == "b") {
        event.body["data"]["registration"]["status"] = json!("disabled");
    }
    let told = violations(&history);
    assert!(told.iter().any(|line| line == "b: the scheduler was told of it against its wish"), "{told:?}");
    assert!(told.iter().any(|line| line == "b: in the scheduler's list against its wish"), "{told:?}");
}
