//! The whole on three brokers, three replicas and three pools, with everything going wrong at once for minutes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::chaos::{self, Deed};
use crate::checker::{History, violations};
use crate::cluster::Cluster;
use crate::ears::Ears;
use crate::fleet::{Fleet, POOLS, PREFIX, SIZED};
use crate::orders::{self, size_of};
use crate::proxy::Weather;
use crate::publisher::{Publisher, Sent};
use crate::reading::{DISAGREE, Stage, lists_agree};
use crate::report;
use crate::scheduler::{Mood, Scheduler};
use crate::{minutes, say};

/// Until all is at rest after the last trouble. What was put off waits for up to five minutes, and a worker that was not
/// registered for as long as it has been there; all else for an ack wait or two.
const REST: Duration = Duration::from_secs(8 * 60);
/// What stays wrong for so long, with the lists agreeing, stays wrong.
const STUCK: Duration = Duration::from_secs(90);
const LAST_SIZE: u64 = 17;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "ten minutes: `make soak`"]
async fn whatever_crashes_each_command_has_one_outcome_and_everything_agrees_in_the_end() {
    let length = minutes(10);
    let seed = std::env::var("ENLIST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(rand::random);
    say(&format!("soak: {length:?} with ENLIST_SEED={seed}"));
    let (deeds, orders) = (chaos::plan(seed, length), orders::plan(seed, length));
    say(&format!("{} commands; {}", orders.len(), report::deeds(&deeds)));

    let cluster = Arc::new(Cluster::start().await);
    let client = cluster.client().await;
    let mut fleet = Fleet::start(&cluster).await;
    let homes = fleet.homes.iter().map(|(pool, home)| ((*pool).to_owned(), home.clone()));
    let scheduler = Scheduler::start(cluster.client().await, PREFIX, homes);
    let ears = Ears::open(&cluster, PREFIX, &POOLS).await;
    let publisher = Publisher::new(client.clone());
    queues_are_there(&client).await;

    let began = Instant::now();
    let sending = async {
        for (number, (at, order)) in orders.into_iter().enumerate() {
            sleep_until(began + at).await;
            publisher.send(number, order).await;
        }
    };
    tokio::join!(sending, trouble(&deeds, began, &cluster, &fleet, &scheduler));
    sleep_until(began + length).await;
    fleet.all_is_well();
    scheduler.set(Mood::Well);
    publisher.done().await;
    say(&format!("{:?}: the trouble is over", began.elapsed()));

    let calm = Instant::now();
    publisher.send(usize::MAX, size_of(SIZED, "z-last", LAST_SIZE)).await;
    publisher.done().await;
    let stage = Stage { client: &client, fleet: &fleet, scheduler: &scheduler, ears: &ears };
    let (mut histories, mut wrong) = at_rest(&stage, &publisher).await;
    let sent = publisher.sent();
    say(&report::figures(&histories, &sent, &ears.acks()));
    say(&format!("  time to rest: {:.1?}", calm.elapsed()));
    if wrong.is_empty() {
        for (number, pool) in POOLS.into_iter().enumerate() {
            publisher.send(usize::MAX - 1 - number, size_of(pool, &format!("z-empty-{pool}"), 0)).await;
        }
        publisher.done().await;
        (histories, wrong) = at_rest(&stage, &publisher).await;
        for pool in POOLS {
            let home = fleet.home(pool);
            wrong.extend(home.alive().into_iter().map(|left| format!("{pool}: {left:?} is left in an empty pool")));
            wrong.extend(home.left_over().into_iter().map(|left| format!("{pool}: {left} is left over")));
        }
    }
    wrong.extend(fleet.drained().await);
    say(&format!("  replicas: {}", fleet.lives(report::ends)));
    if !wrong.is_empty() {
        let folder = keep_evidence(seed, &wrong, &histories, &fleet);
        let first = wrong.iter().take(40).cloned().collect::<Vec<_>>().join("\n");
        panic!("{} violations with ENLIST_SEED={seed}, all of it in {}:\n{first}", wrong.len(), folder.display());
    }
}

/// Made by the first replica that finds a leader.
async fn queues_are_there(client: &async_nats::Client) {
    let context = async_nats::jetstream::new(client.clone());
    let deadline = Instant::now() + Duration::from_secs(60);
    for pool in POOLS {
        while let Err(error) = context.get_stream(format!("{}_CMD_{pool}", PREFIX.to_uppercase())).await {
            assert!(Instant::now() < deadline, "no queue of {pool}: {error}");
            sleep(Duration::from_millis(200)).await;
        }
    }
}

/// Does everything of the plan at its time, and returns when the last of it is over.
async fn trouble(
    plan: &[(Duration, Deed)],
    began: Instant,
    cluster: &Arc<Cluster>,
    fleet: &Fleet,
    scheduler: &Scheduler,
) {
    // What ends a deed: brokers that come back, and skies that clear.
    let mut ends = JoinSet::new();
    let (later, mut due) = tokio::sync::mpsc::unbounded_channel();
    for (at, deed) in plan {
        loop {
            tokio::select! {
                biased;
                Some(deed) = due.recv() => undo(deed, fleet, scheduler),
                () = sleep_until(began + *at) => break,
            }
        }
        let long = match *deed {
            Deed::KillReplica { replica, away } => {
                fleet.kill(replica, away);
                continue;
            }
            Deed::StopReplica { replica, long } => {
                fleet.stop(replica, long);
                continue;
            }
            Deed::KillBroker { broker, away } => {
                let cluster = cluster.clone();
                ends.spawn(async move { cluster.kill(broker, away).await });
                continue;
            }
            Deed::Break { replica, how } => {
                fleet.break_now(replica, how);
                continue;
            }
            Deed::Forget { pool, pick } => {
                scheduler.forget_one(pool, pick);
                continue;
            }
            Deed::Vanish { pool, pick } => {
                fleet.home(pool).vanish_one(pool, PREFIX, pick);
                continue;
            }
            Deed::Weather { replica, broker, weather, long } => {
                fleet.weather(replica, broker, weather);
                long
            }
            Deed::Mood { mood, long } => {
                scheduler.set(mood);
                long
            }
        };
        let (later, deed) = (later.clone(), *deed);
        ends.spawn(async move {
            sleep(long).await;
            let _ = later.send(deed);
        });
    }
    drop(later);
    while let Some(deed) = due.recv().await {
        undo(deed, fleet, scheduler);
    }
    while let Some(ended) = ends.join_next().await {
        ended.expect("a broker comes back");
    }
}

fn undo(deed: Deed, fleet: &Fleet, scheduler: &Scheduler) {
    match deed {
        Deed::Weather { replica, broker, .. } => fleet.weather(replica, broker, Weather::Clear),
        Deed::Mood { .. } => scheduler.set(Mood::Well),
        _ => {}
    }
}

/// Waits until nothing is wrong with anything, and tells what still is when the time is over.
async fn at_rest(stage: &Stage<'_>, publisher: &Publisher) -> (Vec<History>, Vec<String>) {
    let deadline = Instant::now() + REST;
    let (mut before, mut since) = (Vec::new(), Instant::now());
    loop {
        let last_look = Instant::now() > deadline || since.elapsed() > STUCK;
        let left: usize = stage.left().await.values().map(Vec::len).sum();
        if left == 0 || last_look {
            let (histories, wrong) = look(stage, &publisher.sent()).await;
            if wrong.is_empty() || last_look {
                return (histories, wrong);
            }
            say(&format!("  not at rest yet: {} lines, the first is {}", wrong.len(), wrong[0]));
            if wrong != before || wrong.iter().any(|line| line.contains(DISAGREE)) {
                (before, since) = (wrong, Instant::now());
            }
        } else {
            say(&format!("  not at rest yet: {left} commands in the queues"));
            since = Instant::now();
        }
        sleep(Duration::from_secs(5)).await;
    }
}

async fn look(stage: &Stage<'_>, sent: &[Sent]) -> (Vec<History>, Vec<String>) {
    let histories = stage.histories(sent).await;
    let mut wrong = Vec::new();
    for history in &histories {
        let pool = &history.pool;
        let found = violations(history).into_iter().chain(lists_agree(history, &stage.scheduler.listed(pool)));
        wrong.extend(found.map(|line| format!("{pool}: {line}")));
    }
    (histories, wrong)
}

/// Everything that is known, in files that stay.
fn keep_evidence(seed: u64, wrong: &[String], histories: &[History], fleet: &Fleet) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("soak-{seed}"));
    std::fs::create_dir_all(&folder).expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).expect("a file");
    write("violations", &wrong.join("\n"));
    for history in histories {
        write(&history.pool, &history.to_string());
    }
    fleet.lives(|lives| {
        for life in lives {
            write(&life.name, &format!("{}\n{}", life.log, life.end));
        }
    });
    folder
}
