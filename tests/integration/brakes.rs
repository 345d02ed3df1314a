//! When the log, or a list, cannot be what it was, a sweep touches nothing: not one living worker ends, not one is
//! unregistered, and it says so.

use std::collections::BTreeMap;
use std::fs;

use rustix::process::Pid;

use crate::world::{Child, LOAD, ON_DEMAND, Tool, WORK, World, provision, terminate};

/// Everybody who lives, and whom the scheduler has.
#[derive(Debug, PartialEq)]
struct Herd {
    processes: BTreeMap<String, Pid>,
    members: BTreeMap<String, u64>,
}

impl Herd {
    fn of(world: &World) -> Self {
        Self { processes: world.processes(), members: world.scheduler.members() }
    }
}

/// A fleet of real processes on a broker of its own, with a scheduler that has a list.
async fn fleet(settings: &str) -> (World, Child) {
    let world = World::alone(&format!("{ON_DEMAND}{settings}{WORK}")).await;
    world.scheduler.list().await;
    let child = world.child().await;
    (world, child)
}

/// More workers, all of them registered.
async fn grow(world: &World, pool: &str, names: &str, number: usize) {
    for n in 0..number {
        world.send(pool, &provision(&format!("c-{names}-{n}"), &format!("{names}-{n}"))).await;
    }
    world.settled().await;
}

/// Four sweeps, which freeze and harm nobody.
async fn nobody_is_harmed(world: &World, child: &Child, herd: &Herd) {
    let before = world.log().await.len();
    for _ in 0..4 {
        world.sweep("work").await;
        assert_eq!(&Herd::of(world), herd, "{}", world.story().await);
        world.frozen(child, "work").await;
    }
    assert!(world.scheduler.unregisters().is_empty());
    assert_eq!(world.log().await.len(), before, "{}", world.story().await);
}

/// An operator has the records rebuilt, and the sweep thaws. Nobody is harmed by that either.
async fn adopted(world: &World, child: &Child, herd: &Herd) {
    let Tool { service, sweep, .. } = world.tool("work").await;
    let known = world.live().await.len();
    let planned = service.adopt(&sweep, true).await.unwrap().workers;
    assert!(planned.iter().all(|adoption| adoption.adopted.is_none()));
    assert_eq!(known + planned.len(), herd.processes.len());
    let adoptions = service.adopt(&sweep, false).await.unwrap().workers;
    assert_eq!(adoptions.len(), planned.len());
    for adoption in adoptions {
        let worker = adoption.adopted.unwrap().unwrap();
        assert_eq!((worker.state.as_str(), worker.instance_id), ("registered", Some(adoption.instance.instance_id)));
        let before = herd.members[worker.worker_id.as_str()];
        assert!(worker.epoch > before, "the scheduler ignores what is not above {before}");
    }
    world.sweeps("work", 3).await;
    world.thawed(child, "work").await;
    assert_eq!(world.processes(), herd.processes, "{}", world.story().await);
    assert!(world.scheduler.members().keys().eq(herd.members.keys()) && world.scheduler.unregisters().is_empty());
    assert!(world.live().await.keys().eq(herd.processes.keys()));
    assert!(service.adopt(&sweep, false).await.unwrap().workers.is_empty(), "adopted once is enough");
    world.hold_the_log().await;
}

/// A replica goes, the streams are deleted, and a replica makes them anew.
async fn streams_anew(world: &World, child: Child) -> Child {
    child.terminate();
    child.exit().await;
    let names: Vec<String> = {
        use futures_util::TryStreamExt as _;
        world.jetstream.stream_names().try_collect().await.unwrap()
    };
    for name in names {
        world.jetstream.delete_stream(name).await.unwrap();
    }
    world.child().await
}

#[tokio::test]
async fn a_log_that_was_made_anew_costs_no_worker_its_life() {
    let (world, child) = fleet("").await;
    grow(&world, "work", "w", 12).await;
    let herd = Herd::of(&world);
    let child = streams_anew(&world, child).await;
    nobody_is_harmed(&world, &child, &herd).await;
    adopted(&world, &child, &herd).await;
}

#[tokio::test]
async fn a_log_that_was_made_anew_and_has_events_again_costs_no_worker_its_life() {
    let (world, child) = fleet("").await;
    // So few that no number gives it away.
    grow(&world, "work", "w", 5).await;
    let child = streams_anew(&world, child).await;
    grow(&world, "work", "new", 8).await;
    let herd = Herd::of(&world);
    assert_eq!(herd.processes.len(), 13);
    nobody_is_harmed(&world, &child, &herd).await;
    adopted(&world, &child, &herd).await;
}

#[tokio::test]
async fn a_log_that_was_purged_and_has_events_again_costs_no_worker_its_life() {
    let (world, child) = fleet("").await;
    // So few that no number gives it away.
    grow(&world, "work", "w", 5).await;
    let log = world.jetstream.get_stream(world.subjects.event_stream()).await.unwrap();
    log.purge().await.unwrap();
    grow(&world, "work", "new", 1).await;
    let herd = Herd::of(&world);
    assert_eq!(herd.processes.len(), 6);
    nobody_is_harmed(&world, &child, &herd).await;
    adopted(&world, &child, &herd).await;
}

#[tokio::test]
async fn a_log_that_is_made_anew_under_a_replica_does_not_raise_its_pool_s_limit() {
    let world = World::alone(&format!("{ON_DEMAND}{LOAD}max_workers = 3\n")).await;
    let _child = world.child().await;
    // What the replica knows is further on than the new log will come, and nobody lives in it.
    for round in 0..5 {
        grow(&world, "load", &format!("old-{round}"), 3).await;
        for n in 0..3 {
            world.send("load", &terminate(&format!("t-{round}-{n}"), &format!("old-{round}-{n}"))).await;
        }
        world.settled().await;
    }
    world.log_anew().await;
    for n in 0..10 {
        world.send("load", &provision(&format!("c-new-{n}"), &format!("new-{n}"))).await;
    }
    world.settled().await;
    assert_eq!(world.live().await.len(), 3, "{}", world.story().await);
    assert_eq!(world.dead().await.len(), 7);
}

#[tokio::test]
async fn a_broker_that_was_put_back_to_a_copy_costs_no_worker_its_life() {
    let (world, child) = fleet("").await;
    grow(&world, "work", "old", 10).await;
    let copy = world.broker.copy().await;
    world.readiness(&child, 200).await;
    grow(&world, "work", "late", 20).await;
    let herd = Herd::of(&world);
    assert_eq!((herd.processes.len(), herd.members.len()), (30, 30));
    world.broker.put_back(&copy).await;
    world.readiness(&child, 200).await;
    nobody_is_harmed(&world, &child, &herd).await;
    adopted(&world, &child, &herd).await;
}

#[tokio::test]
async fn a_log_that_was_put_back_by_so_little_that_no_number_tells_costs_no_worker_its_life() {
    let (world, child) = fleet("").await;
    grow(&world, "work", "old", 20).await;
    let copy = world.broker.copy().await;
    world.readiness(&child, 200).await;
    grow(&world, "work", "late", 2).await;
    let herd = Herd::of(&world);
    world.broker.put_back(&copy).await;
    world.readiness(&child, 200).await;
    nobody_is_harmed(&world, &child, &herd).await;
    adopted(&world, &child, &herd).await;
}

#[tokio::test]
async fn a_log_that_was_put_back_and_has_grown_past_its_old_end_costs_no_worker_its_life() {
    let (world, child) = fleet("").await;
    grow(&world, "work", "old", 10).await;
    let copy = world.broker.copy().await;
    world.readiness(&child, 200).await;
    grow(&world, "work", "late", 3).await;
    world.broker.put_back(&copy).await;
    world.readiness(&child, 200).await;
    grow(&world, "work", "later", 6).await;
    let herd = Herd::of(&world);
    assert_eq!(herd.processes.len(), 19);
    nobody_is_harmed(&world, &child, &herd).await;
    adopted(&world, &child, &herd).await;
}

#[tokio::test]
async fn a_log_that_was_put_back_to_an_earlier_life_of_the_same_name_costs_no_worker_its_life() {
    let (world, child) = fleet("retention = \"1s\"\n").await;
    grow(&world, "work", "old", 3).await;
    world.send("work", &terminate("t-1", "old-0")).await;
    world.settled().await;
    let copy = world.broker.copy().await;
    world.readiness(&child, 200).await;
    let forgotten = async || {
        world.sweep("work").await;
        world.history("old-0").await.is_empty().then_some(())
    };
    world.until("the name to be free again", forgotten).await;
    grow(&world, "work", "old", 1).await;
    let herd = Herd::of(&world);
    assert_eq!((herd.processes.len(), herd.members.len()), (3, 3));
    let told = world.scheduler.unregisters();
    world.broker.put_back(&copy).await;
    world.readiness(&child, 200).await;
    for _ in 0..4 {
        world.sweep("work").await;
        assert_eq!(Herd::of(&world), herd, "{}", world.story().await);
        world.frozen(&child, "work").await;
    }
    assert_eq!(world.scheduler.unregisters(), told);
}

#[tokio::test]
async fn five_hundred_workers_survive_a_broker_that_was_put_back_to_a_copy() {
    let world = World::alone(&format!("{ON_DEMAND}{LOAD}")).await;
    world.scheduler.list().await;
    let child = world.child().await;
    grow(&world, "load", "old", 500).await;
    let copy = world.broker.copy().await;
    world.readiness(&child, 200).await;
    grow(&world, "load", "late", 20).await;
    let members = world.scheduler.members();
    world.broker.put_back(&copy).await;
    world.readiness(&child, 200).await;
    for _ in 0..4 {
        world.sweep("load").await;
        world.frozen(&child, "load").await;
    }
    assert_eq!((world.instances("load").await.len(), members.len()), (520, 520));
    assert!(world.scheduler.members() == members && world.scheduler.unregisters().is_empty());
    let Tool { service, sweep, .. } = world.tool("load").await;
    assert_eq!(service.adopt(&sweep, false).await.unwrap().workers.len(), 20);
    world.sweeps("load", 3).await;
    world.thawed(&child, "load").await;
    assert_eq!((world.instances("load").await.len(), world.live().await.len()), (520, 520));
    assert!(world.scheduler.members().keys().eq(members.keys()) && world.scheduler.unregisters().is_empty());
}

#[tokio::test]
async fn more_orphans_than_may_go_at_once_all_stay() {
    let (world, child) = fleet("max_terminations = 2\n").await;
    grow(&world, "work", "w", 10).await;
    for n in 0..3 {
        world.stray("work", &format!("stray-{n}")).await;
    }
    let herd = Herd::of(&world);
    assert_eq!((herd.processes.len(), herd.members.len()), (13, 10));
    world.sweep("work").await;
    world.thawed(&child, "work").await;
    for _ in 0..3 {
        world.sweep("work").await;
        world.frozen(&child, "work").await;
    }
    assert_eq!((Herd::of(&world), world.live().await.len()), (herd, 10));
    // One of them is removed by hand: what is left is not too much.
    world.kill_worker("stray-0").await;
    world.sweeps("work", 2).await;
    world.thawed(&child, "work").await;
    assert_eq!(world.processes().len(), 10);
}

#[tokio::test]
async fn a_provider_that_has_lost_its_memory_loses_nobody() {
    let (world, child) = fleet("").await;
    grow(&world, "work", "w", 12).await;
    let herd = Herd::of(&world);
    let (state, away) = (world.path("state"), world.path("elsewhere"));
    fs::rename(&state, &away).unwrap();
    world.sweep("work").await;
    for _ in 0..4 {
        world.sweep("work").await;
        assert_eq!(Herd::of(&world), herd, "{}", world.story().await);
        world.frozen(&child, "work").await;
    }
    let _ = fs::remove_dir_all(&state);
    fs::rename(&away, &state).unwrap();
    world.sweep("work").await;
    world.thawed(&child, "work").await;
    world.sweep("work").await;
    assert_eq!((Herd::of(&world), world.log().await.len()), (herd, 36));
}

#[tokio::test]
async fn a_provider_whose_list_fails_ends_the_sweep() {
    let (world, child) = fleet("").await;
    grow(&world, "work", "w", 3).await;
    let herd = Herd::of(&world);
    let (state, away) = (world.path("state"), world.path("elsewhere"));
    fs::rename(&state, &away).unwrap();
    fs::write(&state, "no folder").unwrap();
    world.sweeps("work", 4).await;
    world.counted(&child, "work", "sweep", "failed", 4).await;
    assert_eq!((Herd::of(&world), world.log().await.len()), (herd, 9), "{}", world.story().await);
    fs::remove_file(&state).unwrap();
    fs::rename(&away, &state).unwrap();
    world.kill_worker("w-1").await;
    world.sweep("work").await;
    assert_eq!(world.states("w-1").await.len(), 3, "what was not seen then is seen once now");
    world.sweep("work").await;
    assert_eq!(world.states("w-1").await.last(), Some(&"lost"));
}

#[tokio::test]
async fn a_scheduler_that_lists_strangers_is_not_told_to_let_them_all_go() {
    let (world, child) = fleet("max_terminations = 2\n").await;
    grow(&world, "work", "w", 10).await;
    for n in 0..3 {
        world.scheduler.dream_of("work", &format!("stranger-{n}"));
    }
    world.sweeps("work", 4).await;
    world.frozen(&child, "work").await;
    assert!(world.scheduler.members().len() == 13 && world.scheduler.unregisters().is_empty());
}

#[tokio::test]
async fn a_broker_that_is_killed_and_comes_back_freezes_nothing() {
    let (world, child) = fleet("").await;
    grow(&world, "work", "w", 5).await;
    let herd = Herd::of(&world);
    world.broker.restart().await;
    world.readiness(&child, 200).await;
    world.sweeps("work", 4).await;
    world.thawed(&child, "work").await;
    assert_eq!((Herd::of(&world), world.log().await.len()), (herd, 15));
}
