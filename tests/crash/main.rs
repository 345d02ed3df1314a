//! Real replicas die at every point between two effects, others take over, and one checker looks at what is left.
#![allow(clippy::unwrap_used)]

mod adopter;
mod book;
mod checker;
mod commands;
mod fleet;
mod home;
mod reading;
mod replica;
mod scheduler;
mod slow;
mod stored;
mod tended;
mod watch;

/// The one broker harness, which lives with the integration tests.
#[path = "../integration"]
mod integration {
    pub(crate) mod broker;
}

use std::sync::Arc;

use enlist::crash::CrashPoint;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use home::Provider;
use integration::broker::Broker;

/// A walk mostly waits for the ack wait of a dead replica's command, so that many go on at once.
const AT_ONCE: usize = 32;

/// One replica's death, and what comes after: what the checker finds.
type Walk = BoxFuture<'static, Vec<String>>;

/// Every walk over a point, each with the provider under which it goes.
fn walks(url: &str, point: CrashPoint) -> Vec<(String, Walk)> {
    let mut walks: Vec<(String, Walk)> = Vec::new();
    let number = CrashPoint::ALL.iter().position(|other| *other == point).unwrap();
    for provider in [Provider::Null, Provider::Process, Provider::Static] {
        let name = format!("{point:?}-{}", provider.name());
        let prefix = format!("walk-{number}-{}", provider.name());
        let url = url.to_owned();
        match point {
            CrashPoint::ProcessIntentWritten | CrashPoint::ProcessSpawned if provider != Provider::Process => {}
            CrashPoint::ProvisionReceived
            | CrashPoint::Claimed
            | CrashPoint::ProcessIntentWritten
            | CrashPoint::ProcessSpawned
            | CrashPoint::Created
            | CrashPoint::CreatedStored
            | CrashPoint::Registered
            | CrashPoint::OutcomeStored
            | CrashPoint::TakenOver
            | CrashPoint::UndoUnregistered
            | CrashPoint::TerminateReceived
            | CrashPoint::TerminatingStored
            | CrashPoint::Unregistered
            | CrashPoint::Removed
            | CrashPoint::TerminatedStored => {
                walks.push((name, commands::walk(url, prefix, point, provider).boxed()));
            }
            CrashPoint::Refused | CrashPoint::DeadLetterStored => {
                if provider == Provider::Null {
                    let prefix = format!("{prefix}-full");
                    let room = commands::walk_with_room_freed(url.clone(), prefix, point, provider);
                    walks.push((format!("{name}, room freed"), room.boxed()));
                }
                walks.push((name, commands::walk(url, prefix, point, provider).boxed()));
            }
            // A host has no instance that could go, or that could be without a record.
            CrashPoint::OrphanMarked
            | CrashPoint::LostStored
            | CrashPoint::LostUnregistered
            | CrashPoint::AdoptionClaimed
                if provider == Provider::Static => {}
            CrashPoint::OrphanMarked
            | CrashPoint::LostStored
            | CrashPoint::LostUnregistered
            | CrashPoint::Offered
            | CrashPoint::StuckTakenOver
            | CrashPoint::ViewPurged
            | CrashPoint::Swept
            | CrashPoint::OrdersSent
            | CrashPoint::SizingStored
            | CrashPoint::SizedStored
            | CrashPoint::AdoptionClaimed => {
                walks.push((name, tended::walk(url, prefix, point, provider).boxed()));
            }
            // No replica dies there, but the verb `dead`: tests/integration/dead.rs has it.
            CrashPoint::RefusalPurged | CrashPoint::Replayed => {}
        }
    }
    walks
}

/// Those with two deaths take two ack waits: they begin first.
fn dies_twice(point: CrashPoint) -> bool {
    matches!(point, CrashPoint::TakenOver | CrashPoint::UndoUnregistered | CrashPoint::StuckTakenOver)
}

#[tokio::test]
async fn every_crash_point_is_survived() {
    let broker = Broker::shared().await;
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut points: Vec<_> = CrashPoint::ALL.into_iter().filter(|point| is_asked_for(*point)).collect();
    points.sort_by_key(|point| !dies_twice(*point));
    let mut running = JoinSet::new();
    for point in points {
        let walks = walks(broker.url(), point);
        assert!(!walks.is_empty(), "{point:?} is walked by nobody");
        for (name, walk) in walks {
            let room = room.clone();
            running.spawn(async move {
                let _room = room.acquire().await;
                (name, walk.await)
            });
        }
    }
    let (mut walked, mut failed) = (0, Vec::new());
    while let Some(walk) = running.join_next().await {
        let (name, violations) = walk.unwrap();
        walked += 1;
        if !violations.is_empty() {
            failed.push(format!("{name}:\n  {}", violations.join("\n  ")));
        }
    }
    assert!(failed.is_empty(), "{} of {walked} walks:\n{}", failed.len(), failed.join("\n"));
}

/// `ENLIST_WALK` names the points to be walked, for whoever looks for a fault; all without it.
fn is_asked_for(point: CrashPoint) -> bool {
    let name = format!("{point:?}");
    std::env::var("ENLIST_WALK").map_or(true, |points| points.split(',').any(|point| point == name))
}
