//! Real replicas die at every point between two effects, others take over, and one checker looks at what is left.
#![allow(clippy::unwrap_used)]

mod checker;
mod fleet;
mod home;
mod replica;
mod scheduler;
mod slow;

/// The one broker harness, which lives with the integration tests.
#[path = "../integration"]
mod integration {
    pub(crate) mod broker;
}

use std::sync::Arc;

use enlist::crash::CrashPoint;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use fleet::Fleet;
use home::Provider;
use integration::broker::Broker;

/// A walk mostly waits for the ack wait of a dead replica's command, so that many go on at once.
const AT_ONCE: usize = 24;

/// The replicas of a fleet that die, one after the other, and what they are sent.
async fn die(fleet: &mut Fleet, point: CrashPoint) -> Result<(), String> {
    match point {
        CrashPoint::ProvisionReceived
        | CrashPoint::Claimed
        | CrashPoint::ProcessIntentWritten
        | CrashPoint::ProcessSpawned
        | CrashPoint::Created
        | CrashPoint::CreatedStored
        | CrashPoint::Registered
        | CrashPoint::OutcomeStored => {
            let replica = fleet.replica(Some(point)).await;
            provisions(fleet).await;
            replica.died().await?;
            terminate(fleet).await;
        }
        CrashPoint::TakenOver => {
            let first = fleet.replica(Some(CrashPoint::Claimed)).await;
            provisions(fleet).await;
            first.died().await?;
            fleet.replica(Some(point)).await.died().await?;
            terminate(fleet).await;
        }
        CrashPoint::UndoUnregistered => {
            let first = fleet.replica(Some(CrashPoint::Created)).await;
            // Alone, so that this is the one whose instance is made and not recorded.
            provision_two(fleet).await;
            first.died().await?;
            let second = fleet.replica(Some(point)).await;
            other_provisions(fleet).await;
            terminate(fleet).await;
            second.died().await?;
        }
        CrashPoint::TerminateReceived
        | CrashPoint::TerminatingStored
        | CrashPoint::Unregistered
        | CrashPoint::Removed
        | CrashPoint::TerminatedStored => {
            let replica = fleet.replica(Some(point)).await;
            provisions(fleet).await;
            fleet.settled().await?;
            terminate(fleet).await;
            replica.died().await?;
        }
        CrashPoint::Refused | CrashPoint::DeadLetterStored => {
            let replica = fleet.replica(Some(point)).await;
            provisions(fleet).await;
            fleet.provision("c-refused", None, &json!({ "spec": { "image": "not:allowed" } })).await;
            fleet.noise().await;
            replica.died().await?;
            terminate(fleet).await;
        }
    }
    Ok(())
}

async fn provisions(fleet: &mut Fleet) {
    provision_two(fleet).await;
    other_provisions(fleet).await;
}

async fn provision_two(fleet: &mut Fleet) {
    fleet.provision("c-two", Some("two"), &json!({})).await;
}

async fn other_provisions(fleet: &mut Fleet) {
    fleet.provision("c-one", None, &json!({})).await;
    fleet.provision("c-quiet", Some("quiet"), &json!({ "registration": { "enabled": false } })).await;
}

async fn terminate(fleet: &mut Fleet) {
    fleet.terminate("t-two", "two").await;
}

/// A replica dies at the point; another finishes what is left, a copy of a command and a terminate of a worker that never
/// was among it.
async fn survive(fleet: &mut Fleet, point: CrashPoint) -> Result<(), String> {
    die(fleet, point).await?;
    fleet.again("c-one").await;
    fleet.terminate("t-never", "never").await;
    let healthy = fleet.replica(None).await;
    let settled = fleet.settled().await.map_err(|why| format!("{why}\nits log:\n{}", healthy.log()));
    let drained = healthy.drained().await;
    settled.and(drained)
}

async fn walk(url: &str, number: usize, point: CrashPoint, provider: Provider) -> Vec<String> {
    let prefix = format!("walk-{number}-{}", if provider == Provider::Null { "null" } else { "process" });
    let mut fleet = Fleet::new(url, &prefix, provider).await;
    match survive(&mut fleet, point).await {
        Ok(()) => fleet.violations().await,
        Err(why) => vec![why],
    }
}

#[tokio::test]
async fn every_crash_point_is_survived() {
    let broker = Broker::shared().await;
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut walks = JoinSet::new();
    let mut points: Vec<_> = CrashPoint::ALL.into_iter().enumerate().collect();
    // The ones with two deaths take two ack waits: they begin first.
    points.sort_by_key(|(_, point)| !matches!(point, CrashPoint::TakenOver | CrashPoint::UndoUnregistered));
    for (number, point) in points {
        for provider in [Provider::Null, Provider::Process] {
            let of_process = matches!(point, CrashPoint::ProcessIntentWritten | CrashPoint::ProcessSpawned);
            if of_process && provider == Provider::Null {
                continue;
            }
            let (room, url) = (room.clone(), broker.url().to_owned());
            walks.spawn(async move {
                let _room = room.acquire().await;
                (point, provider, walk(&url, number, point, provider).await)
            });
        }
    }
    let (mut walked, mut failed) = (0, Vec::new());
    while let Some(walk) = walks.join_next().await {
        let (point, provider, violations) = walk.unwrap();
        walked += 1;
        if !violations.is_empty() {
            failed.push(format!("{point:?}, {provider:?}:\n  {}", violations.join("\n  ")));
        }
    }
    assert!(failed.is_empty(), "{} of {walked} walks:\n{}", failed.len(), failed.join("\n"));
    assert_eq!(walked, CrashPoint::ALL.len() * 2 - 2);
}
