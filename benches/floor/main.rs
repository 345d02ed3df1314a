//! enlist beside the bare sequence of the same writes, as another program has it: `make bench`.
//!
//! Each run is a process of its own with a broker of its own, and the two take turns, so that whatever else the machine does
//! falls on both. Only the ratios say anything; their spread says how much.
//!
//! With `FLOOR_PYTHON`, a Python that has `benches/requirements.txt`, the base sequence of the floor in two Python libraries
//! takes its turns too.

mod broker;
mod python;
mod spread;

use std::ffi::OsString;
use std::process::Command;

use serde_json::Value;

use broker::Broker;
use spread::Spread;

/// The writes, the request and the ack that the contract asks for, with republish and the projection.
const YARDSTICK: &str = "es3+rep+src";

/// What a run found, a command each: time in microseconds.
#[derive(Debug, Clone, Copy)]
struct Figures {
    rate: f64,
    p50: f64,
    p95: f64,
    cpu: f64,
    rss: f64,
}

fn main() {
    let number = |name: &str, otherwise: usize| match std::env::var(name) {
        Ok(value) => value.parse().unwrap_or_else(|_| panic!("{name}: found {value:?}, expected a number")),
        Err(_) => otherwise,
    };
    let (repeats, commands) = (number("REPEATS", 7), number("COMMANDS", 20_000));
    let in_hand: Vec<usize> = match std::env::var("IN_HAND") {
        Ok(list) => list.split(',').map(|one| one.parse().expect("IN_HAND: numbers with commas between")).collect(),
        Err(_) => vec![1, 64, 256],
    };
    println!("{commands} provisions a run, one sixth of them at 1 in hand; null provider, instant scheduler");
    println!("{} against {YARDSTICK} of the floor, {repeats} runs each in turn; median [least-most]", spread::SUBJECT);
    println!("{}", spread::HEAD);
    for in_hand in in_hand {
        let commands = if in_hand == 1 { commands / 6 } else { commands };
        let (mut ours, mut floor) = (Vec::new(), Vec::new());
        for turn in 0..repeats {
            // Neither always comes first.
            if turn % 2 == 0 {
                floor.push(run_floor(commands, in_hand));
                ours.push(run_enlist(commands, in_hand));
            } else {
                ours.push(run_enlist(commands, in_hand));
                floor.push(run_floor(commands, in_hand));
            }
        }
        println!("{}", Spread::of(in_hand, &ours, &floor));
    }
    if let Some(python) = std::env::var_os("FLOOR_PYTHON") {
        python::compare(&python, repeats);
    }
}

/// A variable that `make` sets.
fn wanted(name: &str) -> OsString {
    std::env::var_os(name).unwrap_or_else(|| panic!("{name} is not set: run this by `make bench`"))
}

fn run_enlist(commands: usize, in_hand: usize) -> Figures {
    let broker = Broker::start(&wanted("NATS_SERVER"));
    let (commands, in_hand) = (commands.to_string(), in_hand.to_string());
    let output = Command::new(wanted("ENLIST_BINARY"))
        .args(["--nats-url", broker.url(), "bench", "--json", "--repeats", "1"])
        .args(["--commands", &commands, "--concurrency", &in_hand])
        .output()
        .expect("enlist runs");
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "enlist bench: {errors}");
    let run: Value = serde_json::from_str(text.trim()).expect("one line of JSON");
    let figure = |name: &str| run[name].as_f64().unwrap_or_else(|| panic!("no {name} in {run}"));
    Figures {
        rate: figure("commands") / figure("seconds"),
        p50: figure("p50_us"),
        p95: figure("p95_us"),
        cpu: figure("cpu_us"),
        rss: figure("rss_mib"),
    }
}

/// The floor starts its own broker and prints one line of figures below a head.
fn run_floor(commands: usize, in_hand: usize) -> Figures {
    let output = Command::new(wanted("FLOOR_BINARY"))
        .arg("seq")
        .args([format!("variants={YARDSTICK}"), format!("conc={in_hand}"), "reps=1".to_owned()])
        // It takes a sixth at 1 in hand by itself.
        .arg(format!("n={}", if in_hand == 1 { 6 * commands } else { commands }))
        .output()
        .expect("the floor runs");
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && !errors.contains("CHECK"), "the floor: {errors}");
    let line = text.lines().find(|line| line.contains(YARDSTICK)).expect("the floor's line");
    // sync, storage, variant, concurrency, rate, [least-most], p50, p95, p99, server, client, scheduler, others, memory.
    let words: Vec<&str> = line.split_whitespace().collect();
    let figure = |at: usize| words[at].parse().unwrap_or_else(|_| panic!("word {at} is no number: {line}"));
    Figures { rate: figure(4), p50: figure(6), p95: figure(7), cpu: figure(10), rss: figure(14) }
}
