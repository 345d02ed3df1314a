//! Memory while a long queue is worked off with 256 in hand: it must not depend on the queue, nor grow.
//!
//! The null provider remembers its instances as long as they live, so two fleets are watched: one that only grows, and one
//! whose workers are terminated as soon as they are registered, where nothing is left to remember.

use std::time::{Duration, Instant};

use enlist::domain::Verb;
use futures_util::StreamExt as _;
use tokio::time::sleep;

use crate::broker::Broker;
use crate::fill::Fleet;
use crate::replica::{Process, settings};
use crate::wanted;

const WATCHED: Duration = Duration::from_secs(60);

pub(crate) async fn measure(number: usize) {
    for short_lived in [true, false] {
        let broker = Broker::start(&wanted("NATS_SERVER"));
        let fleet = Fleet::new(broker.url()).await;
        fleet.commands(number).await;
        let _scheduler = Process::start(broker.url(), &settings(""), &["demo-scheduler"]);
        let replica = Process::start(broker.url(), &settings("concurrency = 256"), &["run"]);
        let watching = watch(&replica, number, short_lived);
        if short_lived {
            tokio::select! {
                () = watching => {}
                () = terminate_each(&fleet) => unreachable!("events come until the broker ends"),
            }
        } else {
            watching.await;
        }
        let (provisions, terminates) = (fleet.left(Verb::Provision).await, fleet.left(Verb::Terminate).await);
        println!("    {provisions} provisions and {terminates} terminates are left in the queue");
    }
}

async fn watch(replica: &Process, number: usize, short_lived: bool) {
    let began = Instant::now();
    let mut each = Vec::new();
    while began.elapsed() < WATCHED {
        sleep(Duration::from_secs(1)).await;
        each.push(replica.memory().0);
    }
    let median = |part: &[f64]| {
        let mut part = part.to_vec();
        part.sort_by(f64::total_cmp);
        part[part.len() / 2]
    };
    let third = each.len() / 3;
    println!(
        "  {number} commands, workers {}, {WATCHED:?}: resident {:.1} MiB in the first third, {:.1} in the last, {:.1} at most",
        if short_lived { "terminated at once" } else { "that stay" },
        median(&each[..third]),
        median(&each[2 * third..]),
        replica.memory().1
    );
}

/// Publishes a terminate for each worker that is registered.
async fn terminate_each(fleet: &Fleet) {
    let client = fleet.context.client();
    let mut registered = client.subscribe(fleet.registered()).await.expect("the feed");
    let subject = fleet.subjects.command(&fleet.pool, Verb::Terminate);
    while let Some(event) = registered.next().await {
        let worker = event.subject.split('.').nth_back(1).expect("a worker's token").to_owned();
        let body = format!("{{\"command_id\":\"t-{worker}\",\"worker_id\":\"{worker}\"}}");
        client.publish(subject.clone(), body.into()).await.expect("sent");
    }
}
