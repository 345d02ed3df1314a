//! A pool comes to the size that it was given, and keeps it.

use std::collections::{BTreeMap, BTreeSet};

use enlist::domain::PoolState::{self, Sized, Sizing};
use enlist::domain::Reason;
use enlist::wire::command::PoolCommand;
use jiff::{SignedDuration, Timestamp};

use crate::world::{Answer, Event, LOAD, ON_DEMAND, WORK, World, provision, size};

/// The pool's own events: state, size, live workers then, and whose it is.
async fn sizes(world: &World, pool: &str) -> Vec<(PoolState, u32, u32, String)> {
    let records = world.sizes(pool).await;
    for (n, record) in records.iter().enumerate() {
        assert_eq!(record.rev, n as u64 + 1, "revs have no gap");
    }
    records
        .into_iter()
        .map(|record| (record.state, record.size, record.actual, record.command_id.to_string()))
        .collect()
}

/// A pool is given a size, and has it.
async fn resize(world: &World, pool: &str, command_id: &str, number: u32) {
    world.send(pool, &size(command_id, number)).await;
    world.settled().await;
    let last = world.sizes(pool).await.pop().unwrap();
    assert_eq!((last.state, last.size, last.actual), (Sized, number, number), "{}", world.story().await);
}

/// How many workers were live at once, at most.
fn most_at_once(log: &[Event]) -> usize {
    let mut live = BTreeSet::new();
    let counted = log.iter().map(|Event { worker, .. }| {
        if worker.state.is_final() {
            live.remove(&worker.worker_id)
        } else {
            live.insert(&worker.worker_id)
        };
        live.len()
    });
    counted.max().unwrap_or(0)
}

#[tokio::test]
async fn a_pool_comes_to_its_size_once_however_often_the_command_comes() {
    let world = World::new(&format!("{ON_DEMAND}{WORK}")).await;
    world.scheduler.list().await;
    let child = world.child().await;
    resize(&world, "work", "s-1", 5).await;
    let expected = [(Sizing, 5, 0, "s-1".to_owned()), (Sized, 5, 5, "s-1".to_owned())];
    assert_eq!(sizes(&world, "work").await, expected);
    let workers = world.workers().await;
    assert!(workers.values().all(|worker| worker.state.as_str() == "registered"));
    assert!(workers.keys().eq(world.processes().keys()) && workers.keys().eq(world.scheduler.members().keys()));
    let before = world.log().await.len();
    for _ in 0..3 {
        world.send("work", &size("s-1", 5)).await;
    }
    world.settled().await;
    world.sweeps("work", 3).await;
    world.settled().await;
    assert_eq!((sizes(&world, "work").await.len(), world.log().await.len(), workers.len()), (2, before, 5));
    assert!(world.dead().await.is_empty());
    world.counted(&child, "work", "pool", "sized", 4).await;
    world.send("work", &size("s-1", 6)).await;
    world.settled().await;
    assert_eq!(world.only_dead().await.reason(), Reason::Conflict);
    assert_eq!(world.processes().len(), 5);
}

#[tokio::test]
async fn a_pool_grows_and_shrinks_from_its_newest_workers_and_is_emptied() {
    let world = World::new(&format!("{ON_DEMAND}{LOAD}")).await;
    world.scheduler.list().await;
    let _replica = world.replica().await;
    resize(&world, "load", "s-1", 3).await;
    let first: BTreeSet<String> = world.live().await.into_keys().collect();
    resize(&world, "load", "s-2", 8).await;
    let live: BTreeSet<String> = world.live().await.into_keys().collect();
    assert!(live.len() == 8 && live.is_superset(&first));
    resize(&world, "load", "s-3", 3).await;
    assert_eq!(world.live().await.into_keys().collect::<BTreeSet<_>>(), first, "the newest have gone");
    assert!(world.scheduler.members().into_keys().eq(first) && world.scheduler.unregisters().len() == 5);
    let gone = world.workers().await.into_values().filter(|worker| worker.state.is_final());
    assert!(gone.into_iter().all(|worker| worker.ended_by.unwrap().reason.as_deref() == Some("size")));
    resize(&world, "load", "s-4", 0).await;
    assert!(world.live().await.is_empty() && world.instances("load").await.is_empty());
    assert!(world.scheduler.members().is_empty());
    world.sweeps("load", 3).await;
    world.settled().await;
    assert!(world.live().await.is_empty(), "it stays empty");
    resize(&world, "load", "s-5", 4).await;
    assert_eq!(world.instances("load").await.len(), 4);
    world.hold_the_log().await;
}

#[tokio::test]
async fn a_pool_that_shrinks_waits_for_a_scheduler_that_drains_until_the_grace_is_over() {
    let world = World::new(&format!("{ON_DEMAND}{LOAD}grace = \"600ms\"\n")).await;
    let _replica = world.replica().await;
    resize(&world, "load", "s-1", 2).await;
    world.scheduler.on_unregister(&[], Answer::Busy(100));
    resize(&world, "load", "s-2", 1).await;
    let asked = world.scheduler.unregisters().len();
    assert!((4..=8).contains(&asked), "asked {asked} times in 600 ms");
    world.scheduler.on_unregister(&[Answer::Busy(10); 2], Answer::Accept);
    resize(&world, "load", "s-3", 0).await;
    assert_eq!(world.scheduler.unregisters().len() - asked, 3, "it has drained before its grace is over");
}

#[tokio::test]
async fn a_later_size_overtakes_an_earlier_one_and_both_are_done() {
    let world = World::new(&format!("{ON_DEMAND}{LOAD}delay = \"3s\"\n")).await;
    let _replica = world.replica().await;
    world.send("load", &size("s-1", 6)).await;
    world.until("the first to be under way", async || (world.log().await.len() >= 6).then_some(())).await;
    resize(&world, "load", "s-2", 2).await;
    let expected = [(Sizing, 6, "s-1"), (Sizing, 2, "s-2"), (Sized, 2, "s-2")];
    let all = sizes(&world, "load").await;
    assert!(all.iter().map(|(state, size, _, id)| (*state, *size, id.as_str())).eq(expected), "{all:?}");
    assert_eq!((world.live().await.len(), world.instances("load").await.len()), (2, 2));
    // The first again: it has had its outcome.
    world.send("load", &size("s-1", 6)).await;
    world.settled().await;
    assert_eq!(sizes(&world, "load").await.len(), 3);
    // And with another size.
    world.send("load", &size("s-1", 7)).await;
    world.settled().await;
    assert_eq!(world.only_dead().await.reason(), Reason::Conflict);
    world.hold_the_log().await;
}

#[tokio::test]
async fn a_size_that_cannot_be_is_refused_and_changes_nothing() {
    let world = World::new(&format!("{ON_DEMAND}{LOAD}max_workers = 4\n")).await;
    let _replica = world.replica().await;
    world.send("load", &size("s-1", 5)).await;
    let past = Some(Timestamp::now() - SignedDuration::from_secs(1));
    world.send("load", &PoolCommand { expires_at: past, ..size("s-2", 2) }).await;
    world.settled().await;
    let reasons: BTreeMap<String, Reason> =
        world.dead().await.iter().map(|dead| (dead.subject.clone(), dead.reason())).collect();
    let subject = |id: &str| format!("{}.dead.load.pool.{id}", world.prefix);
    assert_eq!(reasons, BTreeMap::from([(subject("s-1"), Reason::Quota), (subject("s-2"), Reason::Expired)]));
    assert!(world.sizes("load").await.is_empty() && world.log().await.is_empty());
    resize(&world, "load", "s-3", 4).await;
}

#[tokio::test]
async fn a_lost_worker_of_a_pool_with_a_size_is_replaced() {
    let world = World::new(&format!("{ON_DEMAND}{WORK}")).await;
    world.scheduler.list().await;
    let _replica = world.replica().await;
    resize(&world, "work", "s-1", 4).await;
    let killed = world.processes().into_keys().next().unwrap();
    world.kill_worker(&killed).await;
    world.sweeps("work", 3).await;
    world.settled().await;
    let processes = world.processes();
    assert!(processes.len() == 4 && !processes.contains_key(&killed), "{}", world.story().await);
    assert!(world.live().await.keys().eq(processes.keys()) && world.scheduler.members().keys().eq(processes.keys()));
    assert_eq!(world.workers().await[&killed].state.as_str(), "lost");
    // One more than the size, by a command of its own: the next sweep takes the newest away.
    world.send("work", &provision("c-1", "one-more")).await;
    world.settled().await;
    world.sweep("work").await;
    world.settled().await;
    assert_eq!(world.processes(), processes);
    world.hold_the_log().await;
}

#[tokio::test]
async fn replicas_that_all_see_to_a_size_make_exactly_so_many_though_one_is_killed() {
    let world = World::new(&format!("[sweep]\ninterval = \"200ms\"\ngrace = \"0s\"\n{WORK}")).await;
    world.scheduler.list().await;
    let replicas = (world.child().await, world.child().await, world.child().await);
    world.send("work", &size("s-1", 30)).await;
    world.until("the first workers", async || (world.processes().len() >= 8).then_some(())).await;
    replicas.0.kill().await;
    world
        .until("the size", async || {
            let sized = world.sizes("work").await.pop().is_some_and(|record| record.state == Sized);
            sized.then_some(())
        })
        .await;
    world.settled().await;
    world.sweeps("work", 4).await;
    let (log, live) = (world.log().await, world.live().await);
    assert_eq!((live.len(), world.processes().len(), world.scheduler.members().len()), (30, 30, 30));
    assert!(live.keys().eq(world.processes().keys()) && live.keys().eq(world.scheduler.members().keys()));
    assert_eq!(most_at_once(&log), 30, "{}", world.story().await);
    assert!(world.dead().await.is_empty());
    world.hold_the_log().await;
}

#[tokio::test]
async fn a_static_pool_with_a_size_takes_so_many_hosts_and_gives_them_back() {
    let hosts = [0, 1, 2, 3, 4].map(|n| format!("{{ id = \"edge-{n}\" }}")).join(", ");
    let world = World::new(&format!("{ON_DEMAND}[pools.edge]\nprovider = \"static\"\nhosts = [{hosts}]\n")).await;
    world.scheduler.list().await;
    let _replica = world.replica().await;
    let names = |live: BTreeMap<String, _>| live.into_keys().collect::<Vec<_>>();
    resize(&world, "edge", "s-1", 3).await;
    assert_eq!(names(world.live().await), ["edge-0", "edge-1", "edge-2"]);
    resize(&world, "edge", "s-2", 1).await;
    assert_eq!(world.live().await.len(), 1);
    resize(&world, "edge", "s-3", 5).await;
    assert_eq!(world.scheduler.members().len(), 5);
    world.send("edge", &size("s-4", 6)).await;
    world.settled().await;
    assert_eq!(world.only_dead().await.reason(), Reason::Quota);
    resize(&world, "edge", "s-5", 0).await;
    assert!(world.live().await.is_empty() && world.scheduler.members().is_empty());
    world.sweeps("edge", 3).await;
    assert!(world.live().await.is_empty());
    // A host that was given back serves whoever asks.
    resize(&world, "edge", "s-6", 2).await;
    assert_eq!(names(world.live().await), ["edge-0", "edge-1"]);
    world.hold_the_log().await;
}

#[tokio::test]
async fn a_size_fills_the_queue_of_a_slow_provider_only_so_far() {
    let world = World::new(&format!("{ON_DEMAND}{LOAD}delay = \"1h\"\nconcurrency = 4\n")).await;
    let _replica = world.replica().await;
    world.send("load", &size("s-1", 1200)).await;
    // The command for the size is among them.
    let full = async || (world.left("load").await? == 501).then_some(());
    world.until("the queue to be as full as it may be", full).await;
    world.sweeps("load", 3).await;
    assert_eq!(world.left("load").await, Some(501));
}
