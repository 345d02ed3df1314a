//! Sweeps of pools with many records: of workers that have ended and are not purged yet, and of live ones, each with the
//! instance that a provider of another program tells of, and in the list of the scheduler.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::broker::Broker;
use crate::fill::Fleet;
use crate::replica::{Process, page, seconds, settings, settings_of};
use crate::wanted;

pub(crate) async fn measure(number: usize) {
    for what in ["ended", "live"] {
        let broker = Broker::start(&wanted("NATS_SERVER"));
        let fleet = Fleet::new(broker.url()).await;
        let provider = if what == "ended" {
            fleet.ended(number).await;
            settings("")
        } else {
            fleet.live(number).await;
            Fleet::new(broker.url()).await.provide(number).await;
            Fleet::new(broker.url()).await.schedule(number).await;
            settings_of("nats", "name = \"bench\"\ncommand = [\"nothing\"]")
        };
        let replica = Process::start(broker.url(), &provider, &["run"]);
        let (http, before) = (replica.http.expect("its pages"), replica.memory().0);
        let began = Instant::now();
        let subject = format!("enlist.cmd.{}.sweep", fleet.pool);
        let body = "{\"command_id\":\"s-scale\"}";
        fleet.context.publish(subject, body.into()).await.expect("sent").await.expect("stored");
        while !page(http, "/metrics")
            .contains("enlist_commands_total{pool=\"load\",verb=\"sweep\",outcome=\"swept\"} 1")
        {
            sleep(Duration::from_millis(50)).await;
        }
        println!(
            "  {number} records of {what} workers: {}, {before:.1} MiB before, {:.1} at most",
            seconds(began),
            replica.memory().1
        );
    }
}
