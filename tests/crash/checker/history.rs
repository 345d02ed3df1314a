//! What one pool of one fleet left behind.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

/// Everything that is known once all is quiet.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    pub(crate) prefix: String,
    pub(crate) pool: String,
    /// Every event of the pool's workers, as it came, also those that are purged by now.
    pub(crate) events: Vec<Event>,
    /// Every event of the pool's own.
    pub(crate) sizes: Vec<Event>,
    /// Places of events that the log has no more.
    pub(crate) purged: BTreeSet<u64>,
    /// The view: each worker's entry, by the event's id.
    pub(crate) view: BTreeMap<String, String>,
    pub(crate) dead: Vec<DeadLetter>,
    /// Every message that was published, copies too.
    pub(crate) commands: Vec<Command>,
    /// Instances that were made behind everybody's back.
    pub(crate) strays: Vec<Stray>,
    /// What the provider made and removed, in order.
    pub(crate) provider: Vec<Step>,
    /// Instances that are there at the end: worker and instance id.
    pub(crate) alive: Vec<(String, String)>,
    /// What the scheduler was asked, in the order of arrival.
    pub(crate) scheduler: Vec<Asked>,
    /// What still lies in the pool's queue: subject and body.
    pub(crate) left: Vec<String>,
    /// How long a terminate waits for the scheduler, if that may have been away.
    pub(crate) unregister_timeout: Option<Duration>,
}

/// A message of the log.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) sequence: u64,
    pub(crate) subject: String,
    pub(crate) content_type: String,
    pub(crate) body: Value,
}

/// A dead letter.
#[derive(Debug, Clone)]
pub(crate) struct DeadLetter {
    pub(crate) sequence: u64,
    pub(crate) subject: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

/// A message that was published.
#[derive(Debug, Clone)]
pub(crate) struct Command {
    /// Its place in its queue; 0 where enlist itself has sent it, which hears of its place alone.
    pub(crate) sequence: u64,
    pub(crate) verb: &'static str,
    /// `None` where it cannot be read.
    pub(crate) id: Option<String>,
    /// Named by it or derived from it.
    pub(crate) worker: Option<String>,
    pub(crate) body: String,
    pub(crate) acked: Option<Acked>,
}

/// How far log and dead letters went when a command's ack was seen: its outcome is not above that.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Acked {
    pub(crate) events: u64,
    pub(crate) dead: u64,
}

/// A change that the provider made, or that came over it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Made { worker: String, instance: String },
    Gone { worker: String },
    Vanished { worker: String, instance: String },
}

/// An instance that no record told of when it was made.
#[derive(Debug, Clone)]
pub(crate) struct Stray {
    pub(crate) worker: String,
    pub(crate) instance: String,
    pub(crate) command: String,
}

/// A request to the scheduler; or what it forgot.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) kind: Kind,
    pub(crate) worker: String,
    pub(crate) epoch: u64,
    /// How many steps the provider had made when it came.
    pub(crate) steps: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Register,
    Unregister,
    Forgot,
}

impl Command {
    /// A field of its body, `null` where it has none.
    pub(crate) fn field(&self, name: &str) -> Value {
        serde_json::from_str::<Value>(&self.body).map_or(Value::Null, |mut body| body[name].take())
    }
}

impl Event {
    /// A field of the worker, `null` where there is none.
    pub(crate) fn data(&self, field: &str) -> &Value {
        &self.body["data"][field]
    }

    pub(crate) fn text(&self, field: &str) -> &str {
        self.data(field).as_str().unwrap_or_default()
    }

    pub(crate) fn number(&self, field: &str) -> u64 {
        self.data(field).as_u64().unwrap_or_default()
    }

    pub(crate) fn state(&self) -> &str {
        self.text("state")
    }

    pub(crate) fn worker(&self) -> &str {
        self.text("worker_id")
    }

    pub(crate) fn is_static(&self) -> bool {
        self.text("worker_type") == "static"
    }

    pub(crate) fn is_final(&self) -> bool {
        matches!(self.state(), "terminated" | "failed" | "lost")
    }

    /// The scheduler is to be told of it.
    pub(crate) fn registers(&self) -> bool {
        self.data("registration")["status"] != "disabled"
    }

    /// `ended_by`: command and reason.
    pub(crate) fn ended_by(&self) -> (&str, &str) {
        let ended_by = self.data("ended_by");
        (ended_by["command_id"].as_str().unwrap_or_default(), ended_by["reason"].as_str().unwrap_or_default())
    }

    /// Ended by enlist itself, for the sake of the command that made it: the dead letter is that command's outcome.
    pub(crate) fn closed_by_enlist(&self) -> bool {
        let (command, reason) = self.ended_by();
        command == self.text("command_id") && matches!(reason, "exhausted" | "quota" | "expired" | "conflict")
    }

    /// Left by a provision that was refused before anybody had begun it.
    pub(crate) fn refused(&self) -> bool {
        self.state() == "terminated" && self.closed_by_enlist()
    }

    /// Left by a terminate where there was no worker.
    pub(crate) fn never_was(&self) -> bool {
        self.state() == "terminated" && self.ended_by().1 == "unknown"
    }
}

impl History {
    /// The instance that was there before the worker's record, if that was so.
    pub(crate) fn stray(&self, worker: &str) -> Option<&Stray> {
        self.strays.iter().find(|stray| stray.worker == worker)
    }

    /// The events of each worker, in the order of the log.
    pub(crate) fn workers(&self) -> BTreeMap<&str, Vec<&Event>> {
        let mut workers: BTreeMap<&str, Vec<&Event>> = BTreeMap::new();
        for event in &self.events {
            workers.entry(event.worker()).or_default().push(event);
        }
        workers
    }

    /// The events of each allocation: all of a dynamic worker's, and of a host those from one claim to the next.
    pub(crate) fn allocations(&self) -> Vec<Vec<&Event>> {
        let mut allocations = Vec::new();
        for events in self.workers().into_values() {
            let mut current: Vec<&Event> = Vec::new();
            for event in events {
                if current.last().is_some_and(|last| last.is_final() && event.is_static()) {
                    allocations.push(std::mem::take(&mut current));
                }
                current.push(event);
            }
            allocations.push(current);
        }
        allocations
    }

    /// What the view has to be: the newest event of each worker that the log still knows.
    pub(crate) fn shown(&self) -> BTreeMap<String, String> {
        let kept = self.records().into_values().filter(|record| !self.purged.contains(&record.sequence));
        kept.map(|record| (record.worker().to_owned(), record.body["id"].as_str().unwrap_or_default().to_owned()))
            .collect()
    }

    /// The record of each worker: its newest event.
    pub(crate) fn records(&self) -> BTreeMap<&str, &Event> {
        self.events.iter().map(|event| (event.worker(), event)).collect()
    }
}

/// One line for each thing that was, for whoever has to find out why a rule is broken.
impl std::fmt::Display for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for Command { sequence, verb, id, acked, .. } in &self.commands {
            writeln!(f, "  sent {sequence}: {verb} {}, {acked:?}", id.as_deref().unwrap_or("_"))?;
        }
        for event in &self.sizes {
            let [size, actual, rev] = ["size", "actual", "rev"].map(|name| event.number(name));
            let (sequence, state, id) = (event.sequence, event.state(), event.text("command_id"));
            writeln!(f, "  event {sequence}: the pool is {state}, rev {rev} size {size} actual {actual} by {id}")?;
        }
        for event in &self.events {
            let (sequence, worker, state) = (event.sequence, event.worker(), event.state());
            let [rev, epoch, attempts] = ["rev", "epoch", "attempts"].map(|name| event.number(name));
            let (time, error) = (event.text("updated_at"), event.data("error"));
            writeln!(
                f,
                "  event {sequence} {time}: {worker} {state}, rev {rev} epoch {epoch} attempts {attempts} {error}"
            )?;
        }
        for DeadLetter { sequence, subject, headers, .. } in &self.dead {
            writeln!(f, "  dead letter {sequence}: {subject} {headers:?}")?;
        }
        for (at, step) in self.provider.iter().enumerate() {
            writeln!(f, "  provider {at}: {step:?}")?;
        }
        for Asked { kind, worker, epoch, steps } in &self.scheduler {
            writeln!(f, "  scheduler: {kind:?} {worker} epoch {epoch}, after {steps} steps of the provider")?;
        }
        writeln!(f, "  alive: {:?}\n  view: {:?}\n  purged: {:?}", self.alive, self.view, self.purged)
    }
}
