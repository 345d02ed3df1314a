//! From a terminate to its outcome, beside whatever else goes on with the worker.

use std::time::Duration;

use enlist::domain::Reason;
use enlist::wire::command::TerminateCommand;
use tokio::time::Instant;

use crate::world::{Answer, Asked, LOAD, World, provision, terminate};

/// A fleet with one worker, `w-1`, that is registered.
async fn one_worker(file: &str) -> World {
    let world = World::new(file).await;
    world.replica().await;
    world.send("load", &provision("c-1", "w-1")).await;
    world.settled().await;
    world
}

const WHOLE_LIFE: [&str; 5] = ["provisioning", "provisioned", "registered", "terminating", "terminated"];

#[tokio::test]
async fn a_terminate_tells_the_scheduler_and_removes_the_instance() {
    let world = one_worker(LOAD).await;
    let instance_id = world.instances("load").await.remove(0).instance_id;
    let command =
        TerminateCommand { reason: Some("scaled in".into()), grace_ms: Some(1_500), ..terminate("c-2", "w-1") };
    world.send("load", &command).await;
    world.settled().await;

    assert_eq!(world.states("w-1").await, WHOLE_LIFE);
    let events = world.history("w-1").await;
    for event in &events[3..] {
        let ended_by = event.worker.ended_by.as_ref().unwrap();
        assert_eq!(ended_by.command_id.as_ref().unwrap().as_str(), "c-2");
        assert_eq!((ended_by.reason.as_deref(), event.worker.epoch), (Some("scaled in"), 2));
        assert_eq!((event.worker.command_id.as_str(), event.worker.instance_id.as_ref()), ("c-1", Some(&instance_id)));
    }
    let heard = world.scheduler.unregisters();
    assert_eq!(heard.len(), 1);
    assert_eq!((heard[0].worker_id.as_str(), heard[0].pool.as_str(), heard[0].epoch), ("w-1", "load", 2));
    assert_eq!((heard[0].reason.as_str(), heard[0].grace_ms), ("scaled in", 1_500));
    assert_eq!(heard[0].instance_id.as_ref(), Some(&instance_id));
    assert!(world.instances("load").await.is_empty() && world.dead().await.is_empty());
    world.hold_the_log().await;
}

#[tokio::test]
async fn the_instance_stays_until_the_scheduler_has_let_the_worker_go() {
    let world = one_worker(LOAD).await;
    world.scheduler.on_unregister(&[], Answer::Busy(10));
    world.send("load", &TerminateCommand { grace_ms: Some(3_600_000), ..terminate("c-2", "w-1") }).await;
    world
        .until("the scheduler to be asked again", async || (world.scheduler.unregisters().len() > 2).then_some(()))
        .await;
    assert_eq!(world.states("w-1").await, WHOLE_LIFE[..4]);
    assert_eq!(world.instances("load").await.len(), 1);
    world.scheduler.on_unregister(&[], Answer::Accept);
    world.settled().await;
    assert_eq!(world.states("w-1").await, WHOLE_LIFE);
    assert!(world.instances("load").await.is_empty());
}

#[tokio::test]
async fn a_worker_that_does_not_drain_goes_at_the_end_of_its_grace() {
    let world = one_worker(LOAD).await;
    world.scheduler.on_unregister(&[], Answer::Busy(20));
    world.send("load", &TerminateCommand { grace_ms: Some(300), ..terminate("c-2", "w-1") }).await;
    world.settled().await;
    assert_eq!(world.states("w-1").await, WHOLE_LIFE);
    assert!(world.scheduler.unregisters().len() > 1, "it was asked again");
    assert!(world.instances("load").await.is_empty());
}

#[tokio::test]
async fn force_skips_the_drain() {
    let world = one_worker(LOAD).await;
    world.scheduler.on_unregister(&[], Answer::Busy(3_600_000));
    world.send("load", &TerminateCommand { force: true, ..terminate("c-2", "w-1") }).await;
    world.settled().await;
    assert_eq!(world.states("w-1").await, WHOLE_LIFE);
    assert_eq!(world.scheduler.unregisters().len(), 1);
}

#[tokio::test]
async fn who_forces_does_not_wait_for_a_drain_that_another_has_begun() {
    let world = one_worker(LOAD).await;
    world.scheduler.on_unregister(&[], Answer::Busy(50));
    world.send("load", &TerminateCommand { grace_ms: Some(10_000), ..terminate("c-2", "w-1") }).await;
    world.reaches("w-1", "terminating").await;
    world.send("load", &TerminateCommand { force: true, ..terminate("c-3", "w-1") }).await;
    let begun = Instant::now();
    world.reaches("w-1", "terminated").await;
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    // The one that was overtaken does not lie there until its ack wait is over.
    world.settled().await;
    assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
    let ends = world.states("w-1").await.iter().filter(|state| **state == "terminated").count();
    assert_eq!((ends, world.dead().await.len()), (1, 0));
    world.hold_the_log().await;
}

#[tokio::test]
async fn a_scheduler_that_is_away_delays_a_terminate_by_unregister_timeout_at_most() {
    let settings = "[scheduler]\ntry_timeout = \"50ms\"\nunregister_timeout = \"200ms\"\n";
    for away in [true, false] {
        let world = one_worker(&format!("{settings}{LOAD}")).await;
        world.scheduler.on_unregister(&[], Answer::Silent);
        if away {
            world.scheduler.leave().await;
        }
        let begun = Instant::now();
        world.send("load", &terminate("c-2", "w-1")).await;
        world.settled().await;
        assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
        assert_eq!(world.states("w-1").await, WHOLE_LIFE);
        assert!(world.instances("load").await.is_empty());
    }
}

#[tokio::test]
async fn a_worker_whose_registration_failed_is_unregistered_all_the_same() {
    let world = World::new(LOAD).await;
    world.scheduler.on_register(&[], Answer::Reject);
    world.replica().await;
    world.send("load", &provision("c-1", "w-1")).await;
    world.settled().await;
    world.send("load", &terminate("c-2", "w-1")).await;
    world.settled().await;
    assert_eq!(
        world.states("w-1").await,
        ["provisioning", "provisioned", "registration_failed", "terminating", "terminated"]
    );
    assert_eq!(world.scheduler.unregisters().len(), 1);
}

#[tokio::test]
async fn a_worker_that_was_never_announced_is_not_unregistered() {
    let world = one_worker(&format!("{LOAD}registration = {{ enabled = false }}\n")).await;
    world.send("load", &terminate("c-2", "w-1")).await;
    world.settled().await;
    assert_eq!(world.states("w-1").await, ["provisioning", "provisioned", "terminating", "terminated"]);
    assert!(world.scheduler.journal().is_empty());
}

#[tokio::test]
async fn a_terminate_that_comes_first_stands_in_the_provision_s_way() {
    let world = World::new(LOAD).await;
    world.replica().await;
    world.send("load", &terminate("c-2", "w-1")).await;
    world.settled().await;
    let only = world.history("w-1").await.remove(0).worker;
    assert_eq!((only.state.as_str(), only.ended_by.unwrap().reason.as_deref()), ("terminated", Some("unknown")));
    assert!(world.dead().await.is_empty());
    world.send("load", &provision("c-1", "w-1")).await;
    world.settled().await;
    let dead = world.only_dead().await;
    assert_eq!((dead.reason(), dead.subject.rsplit('.').next()), (Reason::Conflict, Some("c-1")));
    assert_eq!(world.states("w-1").await, ["terminated"]);
    assert!(world.instances("load").await.is_empty() && world.scheduler.journal().is_empty());
}

#[tokio::test]
async fn a_terminate_during_a_slow_provision_wins_and_both_commands_have_their_outcome() {
    let world = World::new(&format!("{LOAD}delay = \"1s\"\n")).await;
    world.replica().await;
    world.send("load", &provision("c-1", "w-1")).await;
    world.reaches("w-1", "provisioning").await;
    world.send("load", &terminate("c-2", "w-1")).await;
    world.settled().await;
    assert_eq!(world.states("w-1").await, ["provisioning", "terminating", "terminated"]);
    assert!(world.instances("load").await.is_empty(), "what was made meanwhile is gone");
    assert!(world.dead().await.is_empty());
    // The first register request goes out beside the event that lost, and is taken back.
    let last = world.scheduler.journal().pop().unwrap();
    assert!(matches!(&last, Asked::Unregister(last) if last.epoch == 2), "the last word is an unregister: {last:?}");
    world.hold_the_log().await;
}

#[tokio::test]
async fn a_terminate_while_the_scheduler_is_being_told_leaves_nobody_registered() {
    let world = World::new(LOAD).await;
    world.scheduler.on_register(&[], Answer::Busy(20));
    world.replica().await;
    world.send("load", &provision("c-1", "w-1")).await;
    world.until("a register request", async || (!world.scheduler.registers().is_empty()).then_some(())).await;
    world.reaches("w-1", "provisioned").await;
    world.send("load", &TerminateCommand { force: true, ..terminate("c-2", "w-1") }).await;
    world.reaches("w-1", "terminated").await;
    world.scheduler.on_register(&[], Answer::Accept);
    world.settled().await;
    assert_eq!(world.states("w-1").await, ["provisioning", "provisioned", "terminating", "terminated"]);
    assert!(world.instances("load").await.is_empty() && world.dead().await.is_empty());
    let last = world.scheduler.journal().pop().unwrap();
    assert!(matches!(&last, Asked::Unregister(last) if last.epoch == 2), "the last word is an unregister: {last:?}");
}

#[tokio::test]
async fn a_worker_that_is_gone_is_not_registered_any_more() {
    let world = World::new(&format!("{LOAD}registration = {{ timeout = \"10m\" }}\n")).await;
    world.scheduler.on_register(&[], Answer::Busy(20));
    world.replica().await;
    world.send("load", &provision("c-1", "w-1")).await;
    world.reaches("w-1", "provisioned").await;
    world.send("load", &TerminateCommand { force: true, ..terminate("c-2", "w-1") }).await;
    world.reaches("w-1", "terminated").await;
    // Busy for ever: only the worker's end can end the asking before the registration's time-out, and that is longer than this
    // test waits. Nor does it lie there until its ack wait is over.
    let terminated = Instant::now();
    world.settled().await;
    assert!(terminated.elapsed() < Duration::from_secs(10), "the provision was still asking");
    assert_eq!(world.states("w-1").await, ["provisioning", "provisioned", "terminating", "terminated"]);
    assert!(world.dead().await.is_empty() && world.instances("load").await.is_empty());
}

#[tokio::test]
async fn terminates_at_once_and_long_after_end_a_worker_once() {
    let world = one_worker(LOAD).await;
    world.replica().await;
    for n in 0..8 {
        world.send("load", &terminate(&format!("t-{}", n / 2), "w-1")).await;
    }
    world.settled().await;
    let states = world.states("w-1").await;
    assert_eq!(states.iter().filter(|state| **state == "terminated").count(), 1, "{}", world.story().await);
    world.send("load", &terminate("t-9", "w-1")).await;
    world.settled().await;
    assert_eq!(world.states("w-1").await, states, "its outcome is there already");
    assert!(world.dead().await.is_empty() && world.instances("load").await.is_empty());
    world.hold_the_log().await;
}

#[tokio::test]
async fn terminates_go_through_while_provisions_take_every_slot() {
    let world = World::new(&format!("[limits]\nconcurrency = 2\n{LOAD}delay = \"1h\"\n")).await;
    world.replica().await;
    for n in 0..10 {
        world.send("load", &provision(&format!("c-{n}"), &format!("w-{n}"))).await;
    }
    world.until("no slot to be left", async || (world.log().await.len() == 2).then_some(())).await;
    world.send("load", &terminate("t-1", "w-never")).await;
    world.reaches("w-never", "terminated").await;
    assert_eq!(world.left("load").await, Some(10), "the provisions are still there");
}
