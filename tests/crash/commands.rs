//! Deaths on the way of a command.

use enlist::crash::CrashPoint;
use serde_json::json;

use crate::fleet::{Fleet, Settings};
use crate::home::Provider;

/// A replica dies at the point; another finishes what is left, a copy of a command and a terminate of a worker that never
/// was among it.
pub(crate) async fn walk(url: String, prefix: String, point: CrashPoint, provider: Provider) -> Vec<String> {
    let mut fleet = Fleet::new(&url, &prefix, provider).await;
    match survive(&mut fleet, point).await {
        Ok(()) => fleet.violations().await,
        Err(why) => vec![why],
    }
}

async fn survive(fleet: &mut Fleet, point: CrashPoint) -> Result<(), String> {
    die(fleet, point).await?;
    fleet.again("c-one").await;
    fleet.terminate("t-never", "never").await;
    let healthy = fleet.replica(None).await;
    let settled = fleet.settled().await.map_err(|why| format!("{why}\nits log:\n{}", healthy.log()));
    let drained = healthy.drained().await;
    settled.and(drained)
}

/// The replicas of a fleet that die, one after the other, and what they are sent.
async fn die(fleet: &mut Fleet, point: CrashPoint) -> Result<(), String> {
    match point {
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
        _ => {
            let replica = fleet.replica(Some(point)).await;
            provisions(fleet).await;
            replica.died().await?;
            terminate(fleet).await;
        }
    }
    Ok(())
}

pub(crate) async fn provisions(fleet: &mut Fleet) {
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

pub(crate) async fn terminate(fleet: &mut Fleet) {
    fleet.terminate("t-two", "two").await;
}

/// A command finds its pool full, and its replica dies over the refusal. When it comes again there is room; what was
/// refused stays refused.
pub(crate) async fn walk_with_room_freed(
    url: String,
    prefix: String,
    point: CrashPoint,
    provider: Provider,
) -> Vec<String> {
    let settings = Settings { pool: "max_workers = 3", ..Settings::default() };
    let mut fleet = Fleet::with(&url, &prefix, provider, settings).await;
    match room_freed(&mut fleet, point).await {
        Ok(()) => fleet.violations().await,
        Err(why) => vec![why],
    }
}

async fn room_freed(fleet: &mut Fleet, point: CrashPoint) -> Result<(), String> {
    let first = fleet.replica(None).await;
    provisions(fleet).await;
    fleet.settled().await?;
    first.drained().await?;
    let second = fleet.replica(Some(point)).await;
    fleet.provision("c-over", None, &json!({})).await;
    second.died().await?;
    let healthy = fleet.replica(None).await;
    terminate(fleet).await;
    let settled = fleet.settled().await.map_err(|why| format!("{why}\nits log:\n{}", healthy.log()));
    let drained = healthy.drained().await;
    settled.and(drained)
}
