//! What one pool of one fleet left behind.

use std::collections::BTreeMap;

use serde_json::Value;

/// Everything that is known once all is quiet.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    pub(crate) prefix: String,
    pub(crate) pool: String,
    /// The pool's part of the log, in the order of the stream.
    pub(crate) events: Vec<Event>,
    pub(crate) dead: Vec<DeadLetter>,
    /// Every message that was published, copies too.
    pub(crate) commands: Vec<Command>,
    /// What the provider made and removed, in order.
    pub(crate) provider: Vec<Step>,
    /// Instances that are there at the end: worker and instance id.
    pub(crate) alive: Vec<(String, String)>,
    /// What the scheduler was asked, in the order of arrival.
    pub(crate) scheduler: Vec<Asked>,
    /// What still lies in the pool's queue: subject and body.
    pub(crate) left: Vec<String>,
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
    /// Its place in its queue.
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

/// A change that the provider made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Made { worker: String, instance: String },
    Gone { worker: String },
}

/// A request to the scheduler.
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
        command == self.text("command_id") && matches!(reason, "exhausted" | "quota")
    }

    /// Left by a terminate where there was no worker.
    pub(crate) fn never_was(&self) -> bool {
        self.state() == "terminated" && self.ended_by().1 == "unknown"
    }
}

impl History {
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
        writeln!(f, "  alive: {:?}", self.alive)
    }
}
