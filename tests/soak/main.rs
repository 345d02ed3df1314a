//! What only time brings to light: `make soak` and `make leaks`. Without `--ignored` only their parts are tested.
#![allow(clippy::unwrap_used)]

mod leaks;
mod proxy;
mod samples;

#[path = "../crash/replica.rs"]
mod replica;

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
