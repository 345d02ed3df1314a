//! From the start of a replica to its readiness, with many live workers in the log.

use std::time::Instant;

use enlist::domain::Verb;

use crate::broker::Broker;
use crate::fill::Fleet;
use crate::replica::{Process, seconds, settings};
use crate::wanted;

pub(crate) async fn measure(number: usize) {
    let broker = Broker::start(&wanted("NATS_SERVER"));
    let fleet = Fleet::new(broker.url()).await;
    fleet.live(number).await;
    let _scheduler = Process::start(broker.url(), &settings(""), &["demo-scheduler"]);
    for (what, more) in [("no limit", ""), ("max_workers", "max_workers = 10000000")] {
        let began = Instant::now();
        let replica = Process::start(broker.url(), &settings(more), &["run"]);
        replica.ready().await;
        println!("  {what}: ready after {}, with {:.1} MiB", seconds(began), replica.memory().0);
        fleet.commands(1).await;
        while fleet.left(Verb::Provision).await > 0 {}
        println!("  {what}: a command done after {}, with {:.1} MiB at most", seconds(began), replica.memory().1);
    }
}
