//! What is sent in a run: commands of every kind, copies of some, others under the same names, and nonsense.

use std::time::Duration;

use bytes::Bytes;
use enlist::domain::{CommandId, Pool, Verb, WorkerId};
use serde_json::{Value, json};

use super::dice::Dice;
use super::pools::POISON;
use super::world::World;

/// Commands of a run, sweeps and what enlist itself asks for not counted.
pub(crate) const COMMANDS: usize = 200;
/// Within so long they are sent.
const WITHIN: Duration = Duration::from_secs(15 * 60);

/// A message on its way.
#[derive(Debug)]
pub(crate) struct Sending {
    pub(crate) at: Duration,
    pub(crate) pool: Pool,
    pub(crate) verb: Verb,
    /// `Nats-Msg-Id`, where its publisher sets it.
    pub(crate) known_as: Option<String>,
    pub(crate) body: Bytes,
}

struct Planner<'a> {
    world: &'a World,
    sendings: Vec<Sending>,
    /// Workers that were asked for, and when.
    workers: Vec<(Pool, WorkerId, Duration)>,
    number: usize,
    sized: bool,
}

/// Everything that is sent, in the order of time.
pub(crate) fn plan(world: &World) -> Vec<Sending> {
    let sized = world.dice().hits(0.6);
    let mut planner = Planner { world, sendings: Vec::new(), workers: Vec::new(), number: 0, sized };
    while planner.sendings.len() < COMMANDS {
        planner.next();
    }
    planner.sendings.sort_by_key(|sending| sending.at);
    planner.sendings
}

impl Planner<'_> {
    fn dice<T>(&self, draw: impl FnOnce(&mut Dice) -> T) -> T {
        draw(&mut self.world.dice())
    }

    fn next(&mut self) {
        self.number += 1;
        let at = self.world.between(Duration::ZERO, WITHIN);
        let name = ["big", "big", "big", "few", "few", "edge"][self.dice(|dice| dice.below(6))];
        let pool = Pool::new(name).unwrap();
        let kind = self.dice(|dice| dice.below(100));
        match kind {
            0..=57 => self.provision(at, pool),
            58..=91 => self.terminate(at, pool),
            92..=94 => self.stranger(at, pool),
            95..=96 if self.sized => self.size(at, pool),
            _ => self.nonsense(at, pool),
        }
    }

    fn id(&self) -> String {
        format!("c-{}", self.number)
    }

    fn send(&mut self, at: Duration, pool: &Pool, verb: Verb, body: &Value) {
        let known_as = body["command_id"].as_str().filter(|_| self.dice(|dice| dice.hits(0.9))).map(str::to_owned);
        let body = Bytes::from(body.to_string());
        self.sendings.push(Sending { at, pool: pool.clone(), verb, known_as, body });
    }

    fn provision(&mut self, at: Duration, pool: Pool) {
        let mut body = json!({ "command_id": self.id() });
        let edge = pool.as_str() == "edge";
        let named = self.dice(|dice| dice.hits(if edge { 0.2 } else { 0.3 }));
        let worker = if named && edge {
            WorkerId::new(format!("edge-{}", self.dice(|dice| dice.below(6)))).unwrap()
        } else if named {
            WorkerId::new(format!("n-{}", self.number)).unwrap()
        } else {
            WorkerId::derived(&pool, &CommandId::new(self.id()).unwrap())
        };
        if named {
            body["worker_id"] = json!(worker);
        }
        if self.dice(|dice| dice.hits(0.1)) {
            body["registration"] = json!({ "enabled": false });
        }
        // One that is refused without a record may be sent again with luck: its copy is another matter than it.
        let copied = pool.as_str() == "big" && self.dice(|dice| dice.hits(0.15));
        if !copied && self.dice(|dice| dice.hits(0.05)) {
            let expires_at = self.world.now().checked_add(at + self.world.seconds(1, 40)).unwrap();
            body["expires_at"] = json!(expires_at);
        }
        if pool.as_str() == "big" && self.dice(|dice| dice.hits(0.01)) {
            body["spec"] = json!({ "labels": { POISON: "yes" } });
        }
        self.send(at, &pool, Verb::Provision, &body);
        if copied {
            let again = at + self.world.seconds(0, 300);
            self.send(again, &pool, Verb::Provision, &body);
        } else if self.dice(|dice| dice.hits(0.05)) {
            // The same id with another content.
            body["correlation_id"] = json!("another");
            self.send(at + self.world.seconds(0, 120), &pool, Verb::Provision, &body);
        }
        if self.dice(|dice| dice.hits(0.05)) && !edge {
            // Another command wants the same worker.
            let stranger = json!({ "command_id": format!("{}-other", self.id()), "worker_id": worker });
            self.send(at + self.world.seconds(0, 10), &pool, Verb::Provision, &stranger);
        }
        self.workers.push((pool, worker, at));
    }

    fn terminate(&mut self, at: Duration, pool: Pool) {
        let known: Vec<(WorkerId, Duration)> =
            self.workers.iter().filter(|(of, ..)| *of == pool).map(|(_, worker, at)| (worker.clone(), *at)).collect();
        let (worker, after) = if pool.as_str() == "edge" {
            (WorkerId::new(format!("edge-{}", self.dice(|dice| dice.below(5)))).unwrap(), at)
        } else if known.is_empty() {
            (WorkerId::new(format!("u-{}", self.number)).unwrap(), at)
        } else {
            let (worker, asked) = known[self.dice(|dice| dice.below(known.len()))].clone();
            // Beside the provision, before it or long after it.
            let wait = match self.dice(|dice| dice.below(4)) {
                0 => self.world.between(Duration::ZERO, Duration::from_millis(500)),
                1 => self.world.seconds(0, 30),
                _ => self.world.seconds(0, 400),
            };
            (worker, asked + wait)
        };
        let mut body = json!({ "command_id": self.id(), "worker_id": worker });
        if self.dice(|dice| dice.hits(0.2)) {
            body["force"] = json!(true);
        }
        if self.dice(|dice| dice.hits(0.3)) {
            body["grace_ms"] = json!(1_000);
        }
        // Where a host had ended already, the copy of a terminate would find and end its next worker.
        let copied = pool.as_str() != "edge" && self.dice(|dice| dice.hits(0.1));
        self.send(after, &pool, Verb::Terminate, &body);
        if copied {
            self.send(after + self.world.seconds(0, 120), &pool, Verb::Terminate, &body);
        }
    }

    /// A terminate of a worker that never was, and sometimes the provision after all.
    fn stranger(&mut self, at: Duration, pool: Pool) {
        let worker = format!("s-{}", self.number);
        let body = json!({ "command_id": self.id(), "worker_id": worker });
        self.send(at, &pool, Verb::Terminate, &body);
        if pool.as_str() != "edge" && self.dice(|dice| dice.hits(0.5)) {
            let late = json!({ "command_id": format!("{}-late", self.id()), "worker_id": worker });
            self.send(at + self.world.seconds(0, 20), &pool, Verb::Provision, &late);
        }
    }

    fn size(&mut self, at: Duration, pool: Pool) {
        let most = match self.world.settings(&pool) {
            settings if settings.hosts.is_some() => settings.hosts.as_ref().unwrap().len(),
            settings => settings.config.max_workers.unwrap_or(12),
        };
        let body = json!({ "command_id": self.id(), "size": self.dice(|dice| dice.below(most + 1)) });
        self.send(at, &pool, Verb::Pool, &body);
    }

    fn nonsense(&mut self, at: Duration, pool: Pool) {
        let body = match self.dice(|dice| dice.below(3)) {
            0 => json!({ "command_id": self.id(), "colour": "blue" }),
            1 => json!({ "command_id": self.id(), "spec": { "image": "busybox" } }),
            _ => json!("nonsense"),
        };
        self.send(at, &pool, Verb::Provision, &body);
    }
}
