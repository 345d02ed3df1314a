//! The service, its handlers and its sweep in a world that does everything to them that a network can do, in virtual
//! time, and every choice out of one seed: 3 replicas, 200 commands, crashes and pauses anywhere.
//!
//! `SEED=<n> make simulate` plays one run again and prints its history.
#![allow(clippy::unwrap_used)]

mod commands;
mod dead;
mod dice;
mod hand;
mod history;
mod journal;
mod judge;
mod pools;
mod provider;
mod queue;
mod replica;
mod scenario;
mod scheduler;
mod world;

use scenario::run;

#[test]
fn nothing_is_violated_whatever_goes_wrong() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (from, seeds) = match number("SEED") {
        Some(seed) => (seed, 1),
        None => (number("FROM").unwrap_or(0), number("SEEDS").unwrap_or(200)),
    };
    let started = std::time::Instant::now();
    for seed in from..from + seeds {
        let one = run(seed, None, number("SEED").is_some());
        if number("SEED").is_some() {
            for line in &one.lines {
                println!("{line}");
            }
        }
        if !one.violations.is_empty() {
            println!("SEED={seed} {:?}", one.violations);
        }
    }
    println!("{:?}", started.elapsed());
}
