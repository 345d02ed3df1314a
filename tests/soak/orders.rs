//! Which commands are sent, and when: all of it from the same seed.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::fleet::{FREE, POOLS, PROCESS, SIZED};
use crate::watch::derived;

/// What is published.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Order {
    pub(crate) pool: &'static str,
    pub(crate) verb: &'static str,
    /// `None` where it cannot be read.
    pub(crate) id: Option<String>,
    pub(crate) worker: Option<String>,
    pub(crate) body: String,
}

/// Time between two provisions or other commands, on the average. With the terminates of those that are made, some nine
/// commands a second.
const EVERY: u64 = 190;
const SIZES_EVERY: u64 = 20_000;
const LARGEST_SIZE: u64 = 40;

/// The commands of a run, in the order of their times.
pub(crate) fn plan(seed: u64, length: Duration) -> Vec<(Duration, Order)> {
    // Not the numbers that the deeds are drawn from.
    let mut writer = Writer { chance: StdRng::seed_from_u64(!seed), plan: Vec::new(), length };
    let mut at = Duration::ZERO;
    for number in 0.. {
        at += writer.pause(EVERY);
        if at >= length {
            break;
        }
        writer.next(at, number);
    }
    let mut at = Duration::ZERO;
    for number in 0.. {
        let size = writer.chance.random_range(0..LARGEST_SIZE);
        writer.put(at, size_of(SIZED, &format!("z-{number}"), size));
        at += writer.pause(SIZES_EVERY);
        if at >= length {
            break;
        }
    }
    writer.plan.sort_by_key(|(at, _)| *at);
    writer.plan
}

pub(crate) fn size_of(pool: &'static str, id: &str, size: u64) -> Order {
    order(pool, "pool", id, None, &json!({ "command_id": id, "size": size }))
}

fn order(pool: &'static str, verb: &'static str, id: &str, worker: Option<String>, body: &Value) -> Order {
    Order { pool, verb, id: Some(id.to_owned()), worker, body: body.to_string() }
}

struct Writer {
    chance: StdRng,
    plan: Vec<(Duration, Order)>,
    length: Duration,
}

impl Writer {
    fn pause(&mut self, mean: u64) -> Duration {
        Duration::from_millis(self.chance.random_range(0..2 * mean))
    }

    fn put(&mut self, at: Duration, order: Order) {
        if at < self.length {
            self.plan.push((at, order));
        }
    }

    fn next(&mut self, at: Duration, number: u64) {
        let pool = self.pool();
        match self.chance.random_range(0..100) {
            0..80 => self.worker(at, pool, number),
            80..88 => self.again(at),
            88..91 => {
                let (id, worker) = (format!("t-never-{number}"), format!("never-{number}"));
                let body = json!({ "command_id": id, "worker_id": worker });
                self.put(at, order(pool, "terminate", &id, Some(worker), &body));
            }
            91..93 => self.refused(at, pool, &format!("r-{number}"), "spec", &json!({ "image": "not:allowed" })),
            93..95 => self.refused(at, pool, &format!("e-{number}"), "expires_at", &json!("2020-01-01T00:00:00Z")),
            95..97 => self.refused(at, pool, &format!("i-{number}"), "colour", &json!("red")),
            97 => {
                let id = format!("s-{number}");
                self.put(at, order(pool, "sweep", &id, None, &json!({ "command_id": id })));
            }
            _ => {
                // So that no two of them are the same bytes.
                let body = format!("{{{number}");
                self.put(at, Order { pool, verb: "provision", id: None, worker: None, body });
            }
        }
    }

    /// A provision, and mostly its terminate: at once, soon, or late.
    fn worker(&mut self, at: Duration, pool: &'static str, number: u64) {
        let id = format!("c-{number}");
        let mut body = json!({ "command_id": id, "correlation_id": "a soak" });
        let worker = if self.chance.random_bool(0.5) {
            let worker = format!("w-{number}");
            body["worker_id"] = json!(worker);
            worker
        } else {
            derived(pool, &id)
        };
        match self.chance.random_range(0..10) {
            0 => body["registration"] = json!({ "enabled": false }),
            1 => body["registration"] = json!({ "max_retries": 0 }),
            _ => {}
        }
        self.put(at, order(pool, "provision", &id, Some(worker.clone()), &body));
        // A pool with a limit would soon be full of those that stay.
        if self.chance.random_bool(if pool == PROCESS { 0.03 } else { 0.1 }) {
            return;
        }
        let after = match self.chance.random_range(0..10) {
            0..2 => self.chance.random_range(0..300),
            2..8 => self.chance.random_range(1_000..20_000),
            _ => self.chance.random_range(20_000..60_000),
        };
        let id = format!("t-{number}");
        let force = self.chance.random_bool(0.2);
        let body = json!({ "command_id": id, "worker_id": worker, "force": force });
        self.put(at + Duration::from_millis(after), order(pool, "terminate", &id, Some(worker), &body));
    }

    /// One of the last commands once more, as from a publisher that has heard no PubAck; or its id with another content. Of
    /// a pool with a limit no provision: a copy that comes when there is room again is carried out, though the first one
    /// was refused.
    fn again(&mut self, at: Duration) {
        let may_come_again = |then: &Duration, order: &Order| {
            *then <= at && order.verb != "sweep" && (order.pool, order.verb) != (PROCESS, "provision")
        };
        let before: Vec<_> = self.plan.iter().filter(|(then, order)| may_come_again(then, order)).collect();
        let Some(last) = before.len().checked_sub(1) else { return };
        let mut order = before[last - self.chance.random_range(0..=last.min(100))].1.clone();
        if order.verb == "provision" && order.id.is_some() && self.chance.random_bool(0.2) {
            let mut body: Value = serde_json::from_str(&order.body).expect("JSON");
            body["correlation_id"] = json!("another content");
            order.body = body.to_string();
        }
        self.put(at, order);
    }

    fn refused(&mut self, at: Duration, pool: &'static str, id: &str, field: &str, value: &Value) {
        let body = json!({ "command_id": id, field: value });
        self.put(at, order(pool, "provision", id, Some(derived(pool, id)), &body));
    }

    fn pool(&mut self) -> &'static str {
        let [process, free] = [35, 80];
        match self.chance.random_range(0..100) {
            number if number < process => PROCESS,
            number if number < free => FREE,
            _ => SIZED,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN_MINUTES: Duration = Duration::from_secs(600);

    #[test]
    fn a_seed_always_sends_the_same_commands() {
        assert_eq!(plan(7, TEN_MINUTES), plan(7, TEN_MINUTES));
        assert_ne!(plan(7, TEN_MINUTES), plan(8, TEN_MINUTES));
    }

    #[test]
    fn ten_minutes_see_five_thousand_commands_of_every_verb_in_every_pool() {
        let plan = plan(7, TEN_MINUTES);
        assert!(plan.len() >= 5_000, "{}", plan.len());
        for pool in POOLS {
            for verb in ["provision", "terminate", "sweep"] {
                assert!(plan.iter().any(|(_, order)| (order.pool, order.verb) == (pool, verb)), "{verb} in {pool}");
            }
        }
        assert!(plan.iter().any(|(_, order)| order.verb == "pool"));
    }
}
