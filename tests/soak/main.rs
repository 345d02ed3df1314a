//! What only time brings to light: `make soak` and `make leaks`. Without `--ignored` only their parts are tested.
#![allow(clippy::unwrap_used)]

mod chaos;
mod cluster;
mod ears;
mod fleet;
mod leaks;
mod orders;
mod proxy;
mod publisher;
mod reading;
mod report;
mod samples;
mod scheduler;
mod soak;

// What the walk over crash points has, and these share: above all the one checker.
#[path = "../crash/book.rs"]
mod book;
#[path = "../crash/checker/mod.rs"]
mod checker;
#[path = "../crash/home.rs"]
mod home;
#[path = "../crash/replica.rs"]
mod replica;
#[path = "../crash/stored.rs"]
mod stored;
#[path = "../crash/watch.rs"]
mod watch;

/// The one broker harness, which lives with the integration tests.
#[path = "../integration"]
mod integration {
    pub(crate) mod broker;
}

use std::time::Duration;

/// How long a run is to take: `ENLIST_MINUTES`.
fn minutes(default: u64) -> Duration {
    let asked = std::env::var("ENLIST_MINUTES").ok().filter(|text| !text.is_empty());
    let asked = asked.map(|text| text.parse().expect("ENLIST_MINUTES is a number"));
    Duration::from_secs(60 * asked.unwrap_or(default))
}

/// Past libtest's capture: who waits for an hour wants to see how it goes.
fn say(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{text}");
}
