//! Deaths of those who look after a pool: over a sweep, a size, an adoption.

use enlist::crash::CrashPoint;
use serde_json::json;

use crate::adopter::adopt_and_die;
use crate::checker::Kind;
use crate::commands::{provisions, terminate};
use crate::fleet::{Fleet, PATIENCE, POOL, Settings};
use crate::home::Provider;
use crate::replica::Replica;

/// Sweeps after the last trouble: two see it, one mends it, and one finds that all is well.
const ROUNDS: usize = 4;

/// A name that is free in every pool, also in one of hosts.
const STUCK: &str = "h-4";

/// So little that a record which nobody moves is known for one soon.
const SHORT: Settings = Settings {
    pool: "launch_timeout = \"5s\"\ngrace = \"1s\"\nregistration = { timeout = \"2s\" }",
    sweep: "interval = \"1s\"\ngrace = \"0s\"",
    scheduler: "try_timeout = \"1s\"\nunregister_timeout = \"1s\"",
    lists: true,
};

/// What those go by who come after the trouble.
fn settings(point: CrashPoint, provider: Provider) -> Settings {
    match point {
        // A scheduler without a list: what a dead sweep has not told it, only the same sweep come again can tell.
        CrashPoint::LostStored | CrashPoint::LostUnregistered => Settings { lists: false, ..SHORT },
        CrashPoint::StuckTakenOver | CrashPoint::AdoptionClaimed => SHORT,
        CrashPoint::Offered if provider == Provider::Process => SHORT,
        CrashPoint::ViewPurged => {
            Settings { sweep: "interval = \"1s\"\ngrace = \"0s\"\nretention = \"1s\"", ..Settings::default() }
        }
        _ => Settings::default(),
    }
}

/// A pool of some workers, something that goes wrong with it, and a replica that dies over mending it. Another one mends it
/// to the end, and brings the pool to a size.
pub(crate) async fn walk(url: String, prefix: String, point: CrashPoint, provider: Provider) -> Vec<String> {
    // Who makes the trouble does not sweep by the clock, or it would mend what the next one is to die over.
    let calm = Settings { sweep: Settings::default().sweep, ..settings(point, provider) };
    let mut fleet = Fleet::with(&url, &prefix, provider, calm).await;
    match survive(&mut fleet, point, provider).await {
        Ok(()) => fleet.violations().await,
        Err(why) => vec![why],
    }
}

async fn survive(fleet: &mut Fleet, point: CrashPoint, provider: Provider) -> Result<(), String> {
    Box::pin(die(fleet, point, provider)).await?;
    let healthy = fleet.replica(None).await;
    let mended = mend(fleet, point, provider).await.map_err(|why| format!("{why}\nits log:\n{}", healthy.log()));
    let drained = healthy.drained().await;
    mended.and(drained)
}

/// What every pool has before its trouble: workers of commands, one that has ended, and as many more as `size` asks for.
async fn grown(fleet: &mut Fleet, size: Option<u32>) -> Result<Replica, String> {
    let replica = fleet.replica(None).await;
    provisions(fleet).await;
    fleet.settled().await?;
    terminate(fleet).await;
    if let Some(size) = size {
        fleet.size("z-one", size).await;
    }
    let settled = fleet.settled().await;
    settled.map_err(|why| format!("{why}\nits log:\n{}", replica.log()))?;
    Ok(replica)
}

/// The first replica goes in peace; those that come now go by other settings.
async fn retired(fleet: &Fleet, first: Replica, after: Settings) -> Result<(), String> {
    first.drained().await?;
    fleet.configure(after);
    Ok(())
}

async fn die(fleet: &mut Fleet, point: CrashPoint, provider: Provider) -> Result<(), String> {
    let after = settings(point, provider);
    match point {
        CrashPoint::OrphanMarked => {
            let first = grown(fleet, Some(3)).await?;
            stray(fleet).await?;
            // A claim that is gone before its time would freeze the sweep.
            fleet.home.backdate(POOL, &fleet.prefix, "stray");
            retired(fleet, first, after).await?;
            sweep_and_die(fleet, point, 2).await
        }
        CrashPoint::LostStored | CrashPoint::LostUnregistered => {
            let first = grown(fleet, Some(3)).await?;
            retired(fleet, first, after).await?;
            fleet.vanish(&fleet.worker_of("c-one"));
            // Swept by the clock.
            fleet.replica(Some(point)).await.died().await
        }
        CrashPoint::Offered if provider == Provider::Process => {
            let first = grown(fleet, None).await?;
            // The scheduler is silent when the worker comes.
            fleet.scheduler.pass_over(Kind::Register);
            fleet.provision("c-late", Some("late"), &json!({ "registration": { "max_retries": 0 } })).await;
            fleet.settled().await?;
            retired(fleet, first, after).await?;
            fleet.replica(Some(point)).await.died().await
        }
        CrashPoint::Offered => {
            let first = grown(fleet, Some(3)).await?;
            retired(fleet, first, after).await?;
            fleet.scheduler.forget(&one(fleet).await);
            sweep_and_die(fleet, point, 1).await
        }
        CrashPoint::StuckTakenOver => {
            let first = grown(fleet, None).await?;
            retired(fleet, first, after).await?;
            match provider {
                // Without an instance, with one, and on the way out.
                Provider::Null => stick(fleet, CrashPoint::Claimed, "c-stuck").await?,
                Provider::Process => stick(fleet, CrashPoint::Created, "c-stuck").await?,
                Provider::Static => stick(fleet, CrashPoint::Unregistered, "t-stuck").await?,
            }
            fleet.replica(Some(point)).await.died().await
        }
        CrashPoint::ViewPurged => {
            let first = grown(fleet, Some(4)).await?;
            // Two places are given up, and taken again when all that is left of them is long past.
            fleet.size("z-fewer", 2).await;
            // Of hosts the last record stays, of a name that is none it does not.
            fleet.terminate("t-elsewhere", "elsewhere").await;
            fleet.settled().await?;
            retired(fleet, first, after).await?;
            fleet.replica(Some(point)).await.died().await
        }
        CrashPoint::Swept => {
            one_short(fleet).await?;
            sweep_and_die(fleet, point, 1).await
        }
        CrashPoint::OrdersSent if provider == Provider::Null => {
            one_short(fleet).await?;
            sweep_and_die(fleet, point, 1).await
        }
        CrashPoint::AdoptionClaimed => {
            let first = grown(fleet, None).await?;
            stray(fleet).await?;
            retired(fleet, first, after).await?;
            adopt_and_die(&fleet.settings(), POOL, point).await
        }
        // The points of a size.
        _ => {
            let first = grown(fleet, None).await?;
            retired(fleet, first, after).await?;
            let replica = fleet.replica(Some(point)).await;
            fleet.size("z-one", 4).await;
            replica.died().await
        }
    }
}

/// A worker that nobody moves on: its replica is dead, and its command is gone from the queue.
async fn stick(fleet: &mut Fleet, at: CrashPoint, command: &str) -> Result<(), String> {
    let replica = fleet.replica(Some(at)).await;
    fleet.provision("c-stuck", Some(STUCK), &json!({})).await;
    if command == "t-stuck" {
        fleet.settled().await?;
        fleet.terminate("t-stuck", STUCK).await;
    }
    replica.died().await?;
    fleet.take_out(command).await;
    Ok(())
}

/// The worker of the command that names none.
async fn one(fleet: &Fleet) -> String {
    let history = fleet.history().await;
    let made = history.events.iter().find(|event| event.text("command_id") == "c-one");
    made.expect("its worker").worker().to_owned()
}

/// A worker is provisioned, and its record is lost.
async fn stray(fleet: &mut Fleet) -> Result<(), String> {
    fleet.provision("c-stray", Some("stray"), &json!({})).await;
    fleet.settled().await?;
    fleet.lose_record("c-stray").await;
    Ok(())
}

/// One of four is terminated, and nobody has asked for another yet.
async fn one_short(fleet: &mut Fleet) -> Result<(), String> {
    let first = grown(fleet, Some(4)).await?;
    let one = one(fleet).await;
    fleet.terminate("t-one", &one).await;
    fleet.settled().await?;
    first.drained().await
}

async fn sweep_and_die(fleet: &mut Fleet, point: CrashPoint, sweeps: usize) -> Result<(), String> {
    let replica = fleet.replica(Some(point)).await;
    for number in 1..=sweeps {
        fleet.sweep(&format!("s-deadly-{number}")).await;
    }
    replica.died().await
}

/// What is left is done by a healthy replica; then all is quiet, and the pool is brought to a size that it does not have.
async fn mend(fleet: &mut Fleet, point: CrashPoint, provider: Provider) -> Result<(), String> {
    fleet.again("c-one").await;
    fleet.terminate("t-never", "never").await;
    match point {
        CrashPoint::StuckTakenOver => {
            let state = match provider {
                Provider::Null => "failed",
                Provider::Process => "registered",
                Provider::Static => "terminated",
            };
            fleet.feed.event(STUCK, state, PATIENCE).await?;
        }
        CrashPoint::AdoptionClaimed => fleet.feed.event("stray", "registered", PATIENCE).await?,
        CrashPoint::Offered if provider == Provider::Process => {
            fleet.feed.event("late", "registered", PATIENCE).await?;
        }
        _ => {}
    }
    fleet.settled().await?;
    if point == CrashPoint::ViewPurged && provider == Provider::Static {
        // Also of a host that ended long ago the scheduler remembers the epochs.
        fleet.provision("c-two-again", Some("two"), &json!({})).await;
        fleet.settled().await?;
    }
    for number in 1..=ROUNDS {
        fleet.sweep(&format!("s-{number}")).await;
        fleet.settled().await?;
    }
    // Who ends is purged in a moment where so little is kept, and then its place is filled under the same name.
    let grows = provider == Provider::Process || point == CrashPoint::ViewPurged;
    fleet.size("z-last", if grows { 5 } else { 2 }).await;
    fleet.settled().await
}
