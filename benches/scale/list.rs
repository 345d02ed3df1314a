//! A listing of all workers, as a person or a program has it.

use std::process::{Command, Stdio};
use std::time::Instant;

use crate::broker::Broker;
use crate::fill::Fleet;
use crate::replica::seconds;
use crate::wanted;

pub(crate) async fn measure(number: usize) {
    let broker = Broker::start(&wanted("NATS_SERVER"));
    let fleet = Fleet::new(broker.url()).await;
    let mut there = 0;
    for all in [number / 10, number] {
        fleet.live_from(there, all).await;
        there = all;
        for output in ["table", "ndjson"] {
            let began = Instant::now();
            let mut listing = Command::new(wanted("ENLIST_BINARY"))
                .args(["--nats-url", broker.url(), "ls", "--output", output])
                .stdout(Stdio::piped())
                .spawn()
                .expect("enlist runs");
            let lines = std::io::BufRead::lines(std::io::BufReader::new(listing.stdout.take().expect("its output")));
            let (mut count, mut most) = (0, 0.0_f64);
            for line in lines {
                line.expect("a line");
                count += 1;
                if count % 10_000 == 0 {
                    most = most.max(resident_mib(listing.id()));
                }
            }
            let took = seconds(began);
            assert!(listing.wait().expect("its end").success() && count >= all, "{count} lines");
            println!("  enlist ls --output {output}: {all} workers in {took}, {most:.1} MiB");
        }
    }
}

fn resident_mib(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse().ok());
    kib.unwrap_or(0.0) / 1024.0
}
