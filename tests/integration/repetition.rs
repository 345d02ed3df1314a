//! One command, one outcome, however often it comes and however many replicas there are.

use std::collections::BTreeSet;

use enlist::domain::Reason;

use crate::world::{LOAD, World, provision, terminate};

#[tokio::test]
async fn the_same_command_many_times_at_once_makes_one_worker() {
    let world = World::new(&format!("{LOAD}delay = \"200ms\"\n")).await;
    let (_one, _two) = (world.replica().await, world.replica().await);
    for _ in 0..8 {
        world.send("load", &provision("c-1", "w-1")).await;
    }
    world.settled().await;
    let states = world.states("w-1").await;
    assert_eq!(states.iter().filter(|state| **state == "registered").count(), 1, "{}", world.story().await);
    assert_eq!(world.instances("load").await.len(), 1);
    assert!(world.dead().await.is_empty());
    world.hold_the_log().await;
}

#[tokio::test]
async fn the_same_command_long_after_changes_nothing() {
    let world = World::new(LOAD).await;
    world.replica().await;
    world.send("load", &provision("c-1", "w-1")).await;
    world.settled().await;
    let before = world.log().await.len();
    world.send("load", &provision("c-1", "w-1")).await;
    world.settled().await;
    world.send("load", &terminate("c-2", "w-1")).await;
    world.settled().await;
    let after = world.log().await.len();
    world.send("load", &provision("c-1", "w-1")).await;
    world.settled().await;
    assert_eq!((before, after, world.log().await.len()), (3, 5, 5), "no second worker, no second outcome");
    assert!(world.instances("load").await.is_empty() && world.dead().await.is_empty());
    assert_eq!(world.scheduler.registers().len(), 1);
}

#[tokio::test]
async fn a_pool_takes_as_many_as_it_may_and_refuses_the_rest() {
    let world = World::new(&format!("{LOAD}max_workers = 50\n")).await;
    let _replicas = (world.replica().await, world.replica().await, world.replica().await);
    for n in 0..200 {
        world.send("load", &provision(&format!("c-{n}"), &format!("w-{n}"))).await;
    }
    world.settled().await;
    let (log, dead) = (world.log().await, world.dead().await);
    let registered: BTreeSet<_> = log
        .iter()
        .filter(|event| event.worker.state.as_str() == "registered")
        .map(|event| event.worker.command_id.to_string())
        .collect();
    let refused: BTreeSet<_> = dead.iter().map(|dead| dead.subject.rsplit('.').next().unwrap().to_owned()).collect();
    assert_eq!((registered.len(), dead.len(), world.instances("load").await.len()), (50, 150, 50));
    assert!(dead.iter().all(|dead| dead.reason() == Reason::Quota));
    assert_eq!(registered.union(&refused).count(), 200, "each command has one outcome");
    world.hold_the_log().await;
}

#[tokio::test]
async fn a_pool_takes_as_many_as_it_may_though_a_replica_is_killed_while_it_fills() {
    let world = World::new(&format!("{LOAD}max_workers = 50\ndelay = \"100ms\"\nconcurrency = 8\n")).await;
    let replicas = (world.child().await, world.child().await, world.child().await);
    for n in 0..200 {
        world.send("load", &provision(&format!("c-{n}"), &format!("w-{n}"))).await;
    }
    world.until("some workers", async || (world.instances("load").await.len() >= 20).then_some(())).await;
    replicas.0.kill().await;
    world.settled().await;
    let (live, dead) = (world.live().await, world.dead().await);
    let refused: BTreeSet<_> = dead.iter().map(|dead| dead.subject.rsplit('.').next().unwrap().to_owned()).collect();
    let taken: BTreeSet<_> = live.values().map(|worker| worker.command_id.to_string()).collect();
    assert_eq!((live.len(), world.instances("load").await.len(), refused.len()), (50, 50, 150));
    assert!(dead.len() == 150 && dead.iter().all(|dead| dead.reason() == Reason::Quota));
    assert_eq!(taken.union(&refused).count(), 200, "each command has one outcome");
    world.hold_the_log().await;
}

#[tokio::test]
async fn a_place_that_is_given_up_is_taken_again() {
    let world = World::new(&format!("{LOAD}max_workers = 1\n")).await;
    world.replica().await;
    for (command, worker) in [("c-1", "w-1"), ("c-2", "w-2")] {
        world.send("load", &provision(command, worker)).await;
        world.settled().await;
    }
    assert_eq!(world.only_dead().await.reason(), Reason::Quota);
    world.send("load", &terminate("c-3", "w-1")).await;
    world.settled().await;
    world.send("load", &provision("c-4", "w-4")).await;
    world.settled().await;
    assert_eq!(world.states("w-4").await, ["provisioning", "provisioned", "registered"]);
}

const EDGE: &str = "[pools.edge]\nprovider = \"static\"\nhosts = [\
    { id = \"edge-1\", endpoint = \"10.0.0.11:22\", cpus = 8, labels = { zone = \"a\" } }, { id = \"edge-2\" }]\n";

#[tokio::test]
async fn a_static_pool_gives_its_first_free_host() {
    let world = World::new(EDGE).await;
    world.replica().await;
    for n in 1..=3 {
        world.send("edge", &crate::world::nameless(&format!("c-{n}"))).await;
        world.settled().await;
    }
    let first = world.history("edge-1").await.pop().unwrap().worker;
    assert_eq!(
        (first.state.as_str(), first.command_id.as_str(), first.worker_type.as_str()),
        ("registered", "c-1", "static")
    );
    assert_eq!((first.endpoint.as_deref(), first.capabilities.cpus), (Some("10.0.0.11:22"), Some(8.0)));
    assert_eq!(world.history("edge-2").await.pop().unwrap().worker.command_id.as_str(), "c-2");
    let dead = world.only_dead().await;
    assert_eq!((dead.reason(), dead.subject.rsplit('.').next()), (Reason::Quota, Some("c-3")));
    assert_eq!(world.scheduler.registers()[0].endpoint.as_deref(), Some("10.0.0.11:22"));
}

#[tokio::test]
async fn a_host_that_is_freed_serves_another_command_and_its_revs_go_on() {
    let world = World::new(EDGE).await;
    world.replica().await;
    world.send("edge", &provision("c-1", "edge-1")).await;
    world.settled().await;
    world.send("edge", &terminate("c-2", "edge-1")).await;
    world.settled().await;
    world.send("edge", &crate::world::nameless("c-3")).await;
    world.settled().await;
    let events = world.history("edge-1").await;
    let seen: Vec<_> =
        events.iter().map(|event| (event.worker.rev, event.worker.epoch, event.worker.state.as_str())).collect();
    assert_eq!(
        seen,
        [
            (1, 1, "provisioning"),
            (2, 1, "provisioned"),
            (3, 1, "registered"),
            (4, 2, "terminating"),
            (5, 2, "terminated"),
            (6, 3, "provisioning"),
            (7, 3, "provisioned"),
            (8, 3, "registered"),
        ]
    );
    let last = &events[7].worker;
    assert!(last.command_id.as_str() == "c-3" && last.ended_by.is_none());
    // The first command again: it has had its outcome, and the host is another's now.
    world.send("edge", &provision("c-1", "edge-1")).await;
    world.settled().await;
    assert_eq!(world.history("edge-1").await.len(), 8);
}

#[tokio::test]
async fn one_command_at_once_on_two_replicas_takes_one_host() {
    let world = World::new(EDGE).await;
    let (_one, _two) = (world.replica().await, world.replica().await);
    for _ in 0..6 {
        world.send("edge", &crate::world::nameless("c-1")).await;
    }
    world.settled().await;
    let hosts: BTreeSet<_> = world.log().await.iter().map(|event| event.worker.worker_id.to_string()).collect();
    assert_eq!(hosts.len(), 1, "{}", world.story().await);
    assert!(world.dead().await.is_empty());
}

#[tokio::test]
async fn a_name_that_is_no_host_is_invalid() {
    let world = World::new(EDGE).await;
    world.replica().await;
    world.send("edge", &provision("c-1", "edge-9")).await;
    world.settled().await;
    assert_eq!(world.only_dead().await.reason(), Reason::Invalid);
    assert!(world.log().await.is_empty());
}
