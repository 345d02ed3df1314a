//! Three replicas beside one on the same broker; and with a provider that takes its time, more slots.

use std::time::{Duration, Instant};

use enlist::domain::Verb;
use tokio::time::sleep;

use crate::broker::Broker;
use crate::fill::Fleet;
use crate::replica::{Process, settings};
use crate::wanted;

pub(crate) async fn measure(number: usize) {
    let mut bare = Vec::new();
    for _ in 0..3 {
        let (one, three) = (rate(number, 1, "concurrency = 256").await, rate(number, 3, "concurrency = 256").await);
        println!("  null provider: one replica {one:.0}/s, three {three:.0}/s: {:.2} of it", three / one);
        bare.push(three / one);
    }
    for slots in [16, 64] {
        let pool = format!("delay = \"20ms\"\nconcurrency = {slots}");
        let (one, three) = (rate(number / 20, 1, &pool).await, rate(number / 20, 3, &pool).await);
        println!(
            "  20 ms a create, {slots} slots each: one replica {one:.0}/s, three {three:.0}/s: {:.2} of it",
            three / one
        );
    }
}

/// Commands a second until the queue is empty.
async fn rate(commands: usize, replicas: usize, pool: &str) -> f64 {
    let broker = Broker::start(&wanted("NATS_SERVER"));
    let fleet = Fleet::new(broker.url()).await;
    let _scheduler = Process::start(broker.url(), &settings(""), &["demo-scheduler"]);
    let replicas: Vec<_> = (0..replicas).map(|_| Process::start(broker.url(), &settings(pool), &["run"])).collect();
    // The queue is filled while nobody is measured: what has been done by then does not count.
    fleet.commands(commands).await;
    let (began, there) = (Instant::now(), fleet.left(Verb::Provision).await);
    while fleet.left(Verb::Provision).await > 0 {
        sleep(Duration::from_millis(2)).await;
    }
    #[allow(clippy::cast_precision_loss)]
    let rate = there as f64 / began.elapsed().as_secs_f64();
    drop(replicas);
    rate
}
