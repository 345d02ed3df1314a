//! What takes several ack waits: `make test-slow`.

use std::time::Duration;

use enlist::crash::CrashPoint;
use rustix::process::Signal;
use serde_json::json;

use crate::checker::Kind;
use crate::fleet::{Fleet, Settings};
use crate::home::Provider;
use crate::integration::broker::Broker;

/// The deaths at these points, a healthy replica, and the one outcome.
async fn exhausted(url: &str, prefix: &str, provider: Provider, deaths: [CrashPoint; 5]) -> Vec<String> {
    let mut fleet = Fleet::new(url, prefix, provider).await;
    for (number, point) in deaths.into_iter().enumerate() {
        let replica = fleet.replica(Some(point)).await;
        if number == 0 {
            fleet.provision("c-deadly", None, &json!({})).await;
        }
        if let Err(why) = replica.died().await {
            return vec![format!("death {number} at {point:?}: {why}")];
        }
    }
    let healthy = fleet.replica(None).await;
    // It carries the next one out as if nothing had been.
    fleet.provision("c-harmless", None, &json!({})).await;
    if let Err(why) = fleet.settled().await {
        return vec![format!("{why}\n{}", healthy.log())];
    }
    if let Err(why) = healthy.drained().await {
        return vec![why];
    }
    let history = fleet.history().await;
    let mut found = fleet.violations().await;
    let reasons: Vec<_> = history.dead.iter().map(|letter| letter.headers["Enlist-Reason"].as_str()).collect();
    if reasons != ["exhausted"] || history.alive.len() != 1 {
        found.push(format!("dead letters {reasons:?}, alive {:?}", history.alive));
    }
    found
}

#[tokio::test]
#[ignore = "five ack waits, which is two and a half minutes"]
async fn a_command_that_kills_its_replica_five_times_is_exhausted() {
    let broker = Broker::shared().await;
    let (taken_over, made) = (CrashPoint::TakenOver, CrashPoint::Created);
    let (bare, null, process) = tokio::join!(
        exhausted(
            broker.url(),
            "deadly-bare",
            Provider::Null,
            [CrashPoint::Claimed, taken_over, taken_over, taken_over, taken_over]
        ),
        exhausted(broker.url(), "deadly-made", Provider::Null, [made; 5]),
        // Spawned once, and adopted by all that come after.
        exhausted(
            broker.url(),
            "deadly-process",
            Provider::Process,
            [CrashPoint::ProcessSpawned, made, made, made, made]
        ),
    );
    let found: Vec<String> = [bare, null, process].concat();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Stopped in the middle of a create, and woken when another replica has made the worker.
async fn stopped_while_creating(url: &str) -> Result<Vec<String>, String> {
    let settings = Settings { pool: "delay = \"3s\"", ..Settings::default() };
    let mut fleet = Fleet::with(url, "stopped-create", Provider::Null, settings).await;
    let first = fleet.replica(None).await;
    let claimed = fleet.next_event("provisioning").await;
    fleet.provision("c-one", Some("one"), &json!({})).await;
    claimed.await.expect("an event");
    first.signal(Signal::STOP);
    let second = fleet.replica(None).await;
    fleet.settled().await?;
    first.signal(Signal::CONT);
    // All that it has in hand is over once it has drained.
    first.drained().await?;
    second.drained().await?;
    Ok(fleet.violations().await)
}

/// Stopped while the scheduler thinks, and woken when another replica has registered and a terminate removed the worker.
async fn stopped_while_registering(url: &str) -> Result<Vec<String>, String> {
    let mut fleet = Fleet::new(url, "stopped-register", Provider::Null).await;
    let first = fleet.replica(None).await;
    fleet.scheduler.pass_over(Kind::Register);
    fleet.provision("c-one", Some("one"), &json!({})).await;
    fleet.scheduler.asked(Kind::Register).await;
    first.signal(Signal::STOP);
    let second = fleet.replica(None).await;
    fleet.settled().await?;
    fleet.terminate("t-one", "one").await;
    fleet.settled().await?;
    first.signal(Signal::CONT);
    first.drained().await?;
    second.drained().await?;
    Ok(fleet.violations().await)
}

/// Stopped while the scheduler thinks about an unregister, and woken when another replica has ended the worker.
async fn stopped_while_terminating(url: &str) -> Result<Vec<String>, String> {
    let mut fleet = Fleet::new(url, "stopped-terminate", Provider::Process).await;
    let first = fleet.replica(None).await;
    fleet.provision("c-one", Some("one"), &json!({})).await;
    fleet.settled().await?;
    fleet.scheduler.pass_over(Kind::Unregister);
    fleet.terminate("t-one", "one").await;
    fleet.scheduler.asked(Kind::Unregister).await;
    first.signal(Signal::STOP);
    let second = fleet.replica(None).await;
    fleet.settled().await?;
    first.signal(Signal::CONT);
    first.drained().await?;
    second.drained().await?;
    Ok(fleet.violations().await)
}

#[tokio::test]
#[ignore = "waits for the ack wait of a replica that stands still"]
async fn a_replica_that_stood_still_loses_its_race_and_undoes_nothing_of_the_other_s() {
    let broker = Broker::shared().await;
    let all = Box::pin(async {
        tokio::join!(
            stopped_while_creating(broker.url()),
            stopped_while_registering(broker.url()),
            stopped_while_terminating(broker.url()),
        )
    });
    let (create, register, terminate) = tokio::time::timeout(Duration::from_secs(300), all).await.expect("an end");
    let mut found = Vec::new();
    for (what, result) in [("creating", create), ("registering", register), ("terminating", terminate)] {
        found.extend(result.unwrap_or_else(|why| vec![why]).into_iter().map(|line| format!("{what}: {line}")));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}
