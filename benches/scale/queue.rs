//! Memory while a long queue is worked off with 256 in hand: it must not depend on the queue, nor grow.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::broker::Broker;
use crate::fill::Fleet;
use crate::replica::{Process, settings};
use crate::wanted;

const WATCHED: Duration = Duration::from_secs(60);

pub(crate) async fn measure(number: usize) {
    let broker = Broker::start(&wanted("NATS_SERVER"));
    let fleet = Fleet::new(broker.url()).await;
    fleet.commands(number).await;
    let _scheduler = Process::start(broker.url(), &settings(""), &["demo-scheduler"]);
    let replica = Process::start(broker.url(), &settings("concurrency = 256"), &["run"]);
    let began = Instant::now();
    let mut each = Vec::new();
    while began.elapsed() < WATCHED {
        sleep(Duration::from_secs(1)).await;
        each.push(replica.memory().0);
    }
    let done = number as u64 - fleet.left().await;
    let median = |part: &[f64]| {
        let mut part = part.to_vec();
        part.sort_by(f64::total_cmp);
        part[part.len() / 2]
    };
    let third = each.len() / 3;
    println!(
        "  {done} of {number} commands in {WATCHED:?}; resident {:.1} MiB in the first third, {:.1} in the last, {:.1} at most",
        median(&each[..third]),
        median(&each[2 * third..]),
        replica.memory().1
    );
}
