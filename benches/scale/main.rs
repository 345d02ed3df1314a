//! enlist at scale, against the broker alone where there is something to compare: `make bench-scale`.
//!
//! Each part starts a broker of its own. `PARTS` names some of them, `NUMBER` is how many workers, commands and records there
//! are (1,000,000). Times are this machine's; what is asserted is only that nothing was lost.

#[path = "../floor/broker.rs"]
mod broker;
mod fill;
mod list;
mod processes;
mod queue;
mod ready;
mod replica;
mod replicas;
mod sweep;

use std::ffi::OsString;

const PARTS: &str = "queue,ready,list,sweep,replicas,processes";

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let number = match std::env::var("NUMBER") {
        Ok(number) => number.parse().expect("NUMBER: a number"),
        Err(_) => 1_000_000,
    };
    let parts = std::env::var("PARTS").unwrap_or_else(|_| PARTS.to_owned());
    for part in parts.split(',') {
        println!("{part}:");
        match part {
            "queue" => queue::measure(number).await,
            "ready" => ready::measure(number).await,
            "list" => list::measure(number).await,
            "sweep" => sweep::measure(number).await,
            "replicas" => replicas::measure(number / 50).await,
            "processes" => processes::measure(500).await,
            other => panic!("PARTS: found {other:?}, expected some of {PARTS}"),
        }
    }
}

fn wanted(name: &str) -> OsString {
    std::env::var_os(name).unwrap_or_else(|| panic!("{name} is not set: run this by `make bench-scale`"))
}
