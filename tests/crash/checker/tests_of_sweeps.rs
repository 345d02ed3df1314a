//! Histories of a pool that was swept and given a size: one that holds, and for each rule one that breaks it.

use serde_json::{Value, json};

use super::tests::{Wrong, asked, command, gone, good, letter, life, log, made, missed};
use super::{Acked, Event, History, Kind, Step, Stray, violations};

const SOON: &str = "2026-01-02T03:04:05Z";

/// `l` was lost, `s` was an orphan, `u` is purged; a size of 7 was overtaken by one of 2, for which enlist asked for `w`.
fn tended() -> History {
    let mut history = good();
    command(&mut history, "provision", Some("c-l"), Some("l"));
    command(&mut history, "provision", Some("c-u"), Some("u"));
    command(&mut history, "terminate", Some("t-1"), Some("u"));
    size(&mut history, "z-0", 7);
    size(&mut history, "z-1", 2);
    command(&mut history, "sweep", Some("s-1"), None);
    command(&mut history, "provision", Some("enlist-size-0-0"), Some("w"));
    let own = history.commands.last_mut().unwrap();
    (own.sequence, own.acked) = (0, None);
    let path = [("provisioning", 1), ("provisioned", 1), ("registered", 1)];
    log(&mut history, life("l", "c-l", &[&path[..], &[("lost", 1)]].concat()));
    log(&mut history, life("w", "enlist-size-0-0", &path));
    log(&mut history, orphan(&[("terminating", 2), ("terminated", 2)]));
    log(&mut history, life("u", "c-u", &[&path[..], &[("terminating", 2), ("terminated", 2)]].concat()));
    history.purged = history.events.iter().filter(|event| event.worker() == "u").map(|event| event.sequence).collect();
    sizing(&mut history, "z-0", "sizing", 7, 1);
    sizing(&mut history, "z-1", "sizing", 2, 1);
    sizing(&mut history, "z-1", "sized", 2, 2);
    history.strays = vec![Stray { worker: "s".into(), instance: "i-s".into(), command: "c-s".into() }];
    let vanished = Step::Vanished { worker: "l".into(), instance: "i-l".into() };
    history.provider.extend([made("l"), made("s"), made("u"), vanished, gone("s"), gone("u"), made("w")]);
    history.alive.push(("w".into(), "i-w".into()));
    history.scheduler.extend([
        asked(Kind::Register, "l", 1, 4),
        asked(Kind::Register, "u", 1, 6),
        asked(Kind::Unregister, "l", 1, 7),
        asked(Kind::Unregister, "s", 2, 7),
        asked(Kind::Unregister, "u", 2, 7),
        asked(Kind::Register, "w", 1, 10),
        // What it forgets it is told again.
        asked(Kind::Forgot, "w", 1, 0),
        asked(Kind::Register, "w", 1, 10),
    ]);
    history.view = history.shown();
    history
}

fn size(history: &mut History, id: &'static str, size: u64) {
    command(history, "pool", Some(id), None);
    history.commands.last_mut().unwrap().body = json!({ "command_id": id, "size": size }).to_string();
}

/// The events of `s`, whose record begins with its end.
fn orphan(states: &[(&str, u64)]) -> Vec<Value> {
    let mut events = life("s", "c-s", states);
    for event in events.iter_mut().filter(|event| !event["ended_by"].is_null()) {
        event["ended_by"] = json!({ "reason": "orphan" });
    }
    events
}

fn sizing(history: &mut History, id: &str, state: &str, size: u64, actual: u64) {
    let rev = history.sizes.len() as u64 + 1;
    let data = json!({
        "pool": "p", "state": state, "rev": rev, "size": size, "actual": actual, "command_id": id, "updated_at": SOON,
    });
    history.sizes.push(Event {
        sequence: 60 + rev,
        subject: format!("f.events.p._.{state}"),
        content_type: "application/cloudevents+json".into(),
        body: json!({
            "specversion": "1.0", "id": format!("p._.{rev}"), "source": "/enlist/f",
            "type": format!("enlist.pool.{state}.v1"), "subject": "p/_", "time": SOON,
            "datacontenttype": "application/json", "data": data,
        }),
    });
}

/// Sets a field of the pool's record in one event, by its place.
fn set(history: &mut History, at: usize, field: &str, value: Value) {
    history.sizes[at].body["data"][field] = value;
}

fn without(history: &mut History, worker: &str) {
    history.events.retain(|event| event.worker() != worker);
}

const WRONG: [Wrong; 44] = [
    ("l: lost, and its instance \"i-l\" was there", |h| drop(h.provider.remove(6))),
    ("s: its instance \"i-s\" was removed as an orphan, and had a record", |h| h.strays.clear()),
    ("s: its instance \"i-s\" was removed as an orphan, and had a record", |h| h.strays[0].instance = "i-z".into()),
    ("s: ended by \"\" (\"orphan\"), and nobody asked for it", |h| h.strays.clear()),
    ("s: an orphan, and it had a record before", |h| {
        without(h, "s");
        log(h, orphan(&[("provisioning", 2), ("terminating", 3), ("terminated", 3)]));
    }),
    ("s: epochs are [2, 2]", |h| h.strays.clear()),
    ("s: its instance was removed before it was unregistered", |h| {
        h.scheduler.retain(|asked| asked.worker != "s");
    }),
    ("l: a register with epoch 1 after an unregister with 1", |h| h.scheduler.push(asked(Kind::Register, "l", 1, 10))),
    ("u: a register with epoch 3 after an unregister with 2", |h| h.scheduler.push(asked(Kind::Register, "u", 3, 10))),
    ("l: lost, and in the scheduler's list", |h| h.scheduler.retain(|asked| asked.worker != "l" || asked.steps == 4)),
    ("u: terminated, and in the scheduler's list", |h| {
        h.scheduler.retain(|asked| asked.worker != "u" || asked.kind == Kind::Register);
    }),
    ("w: registered, and missing from the scheduler's list", |h| drop(h.scheduler.pop())),
    ("w: registration_failed, and in the scheduler's list", |h| {
        without(h, "w");
        log(h, life("w", "enlist-size-0-0", &[("provisioning", 1), ("provisioned", 1), ("registration_failed", 1)]));
    }),
    ("b: missing from the view", |h| drop(h.view.remove("b"))),
    ("b: the view has \"p.b.1\", and the newest event is", |h| drop(h.view.insert("b".into(), "p.b.1".into()))),
    ("u: in the view without an event in the log", |h| drop(h.view.insert("u".into(), "p.u.5".into()))),
    ("u: 4 of its 5 events are purged", |h| {
        h.purged.pop_first();
    }),
    ("b: purged, and it was registered", |h| h.purged.extend(6..=9)),
    ("u: purged, and its instance lives", |h| h.alive.push(("u".into(), "i-u".into()))),
    ("the pool's own event 62 is purged", |h| h.purged.extend([62])),
    ("pool event 61: the message's subject is", |h| h.sizes[0].subject = "f.events.p._.sized".into()),
    ("pool event 61: Content-Type is", |h| h.sizes[0].content_type = String::new()),
    ("pool event 61: specversion is", |h| h.sizes[0].body["specversion"] = json!("0.3")),
    ("pool event 62: id is", |h| h.sizes[1].body["id"] = json!("p._.1")),
    ("pool event 61: source is", |h| h.sizes[0].body["source"] = json!("/enlist")),
    ("pool event 63: type is", |h| h.sizes[2].body["type"] = json!("enlist.worker.sized.v1")),
    ("pool event 61: subject is", |h| h.sizes[0].body["subject"] = json!("p")),
    ("pool event 61: datacontenttype is", |h| h.sizes[0].body["datacontenttype"] = Value::Null),
    ("pool event 61: data.pool is", |h| set(h, 0, "pool", json!("q"))),
    ("pool event 61: updated_at is", |h| set(h, 0, "updated_at", json!("yesterday"))),
    ("the pool: revs are [1, 3]", |h| drop(h.sizes.remove(1))),
    ("the pool: sized by a command that was not sizing it (event 63)", |h| set(h, 2, "command_id", json!("z-0"))),
    ("the pool: sized by a command that was not sizing it (event 64)", |h| sizing(h, "z-1", "sized", 2, 2)),
    ("the pool: sized anew by the command that has sized it", |h| sizing(h, "z-1", "sizing", 2, 2)),
    ("the pool: \"grown\" is no state of a pool", |h| set(h, 2, "state", json!("grown"))),
    ("the pool: sized at 2 with 1 workers", |h| set(h, 2, "actual", json!(1))),
    ("the pool: size 9 by \"z-1\", which nobody sent", |h| set(h, 2, "size", json!(9))),
    ("enlist-size-0-0 was sent for a pool without a size", |h| h.sizes.clear()),
    ("the pool: still sizing at the end, to 2", |h| h.sizes.truncate(2)),
    ("the pool: its size is 2, and [\"b\"] live", |h| without(h, "w")),
    ("pool z-1: outcomes [], dead letters []", |h| h.sizes.truncate(2)),
    ("pool z-0: outcomes [], dead letters []", |h| h.sizes.truncate(1)),
    ("pool z-1: message 10 was acked before its outcome was stored", |h| {
        h.commands[9].acked = Some(Acked { events: 62, dead: 2 });
    }),
    ("sweep s-1: a dead letter", |h| letter(h, 10, "expired")),
];

#[test]
fn a_history_of_sweeps_and_sizes_that_holds_has_no_violation() {
    assert_eq!(violations(&tended()), Vec::<String>::new());
}

#[test]
fn each_wrong_history_of_sweeps_and_sizes_is_caught_by_its_rule() {
    let missed = missed(tended, &WRONG);
    assert!(missed.is_empty(), "{missed}");
}

#[test]
fn a_refused_size_has_its_dead_letter_for_its_outcome() {
    let mut history = tended();
    size(&mut history, "z-2", 1000);
    let lost = violations(&history);
    assert!(lost[0].starts_with("pool z-2: outcomes [], dead letters []; expected 1"), "{lost:?}");
    letter(&mut history, 12, "quota");
    assert_eq!(violations(&history), Vec::<String>::new());
}

#[test]
fn an_adopted_worker_begins_above_what_the_scheduler_has_seen() {
    let mut history = tended();
    let path = [("provisioning", 4), ("provisioned", 4), ("registered", 4)];
    log(&mut history, life("v", "c-v", &path));
    sizing(&mut history, "z-3", "sizing", 3, 3);
    sizing(&mut history, "z-3", "sized", 3, 3);
    size(&mut history, "z-3", 3);
    history.strays.push(Stray { worker: "v".into(), instance: "i-v".into(), command: "c-v".into() });
    history.provider.insert(0, made("v"));
    history.alive.push(("v".into(), "i-v".into()));
    history.scheduler.push(asked(Kind::Register, "v", 4, 11));
    for asked in &mut history.scheduler {
        asked.steps += usize::from(asked.worker != "v");
    }
    assert_eq!(violations(&history), Vec::<String>::new());
    history.strays.pop();
    assert!(violations(&history).iter().any(|line| line.starts_with("v: epochs are [4, 4, 4]")));
}
