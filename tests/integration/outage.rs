//! What goes away comes back: the broker, a replica, and how long a command in hand is kept alive.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::time::Instant;

use crate::world::{Answer, LOAD, World, provision};

/// Each of these commands has one outcome and one instance, and nothing else is there.
async fn hold_one_outcome_each(world: &World, commands: usize) {
    let mut outcomes = BTreeMap::<String, usize>::new();
    for event in world.log().await {
        if ["registered", "registration_failed"].contains(&event.worker.state.as_str()) {
            *outcomes.entry(event.worker.command_id.to_string()).or_default() += 1;
        }
    }
    assert_eq!(outcomes.len(), commands, "{}", world.story().await);
    assert!(outcomes.values().all(|number| *number == 1), "{outcomes:?}");
    assert!(world.dead().await.is_empty());
    assert_eq!(world.instances("load").await.len(), commands);
    world.hold_the_log().await;
}

async fn registered(world: &World) -> usize {
    world.log().await.iter().filter(|event| event.worker.state.as_str() == "registered").count()
}

#[tokio::test]
async fn a_broker_that_dies_in_the_middle_of_fifty_provisions_costs_none_of_them() {
    let world = World::alone(&format!("{LOAD}delay = \"100ms\"\nconcurrency = 8\n")).await;
    let _replica = world.replica().await;
    for n in 0..50 {
        world.send("load", &provision(&format!("c-{n}"), &format!("w-{n}"))).await;
    }
    world.until("some of them to be there", async || (registered(&world).await >= 5).then_some(())).await;
    world.broker.restart().await;
    world.settled().await;
    hold_one_outcome_each(&world, 50).await;
}

#[tokio::test]
async fn readiness_follows_the_broker_and_the_drain() {
    let world = World::alone(LOAD).await;
    let child = world.child().await;
    world.readiness(&child, 200).await;
    world.broker.kill().await;
    world.readiness(&child, 503).await;
    assert_eq!(child.page("/livez").await.0, 200, "alive all the same");
    world.broker.start_again().await;
    world.readiness(&child, 200).await;

    // A command in hand holds the drain up for as long as the test wants to look at it.
    world.scheduler.on_register(&[], Answer::Busy(20));
    world.send("load", &provision("c-1", "w-1")).await;
    world.reaches("w-1", "provisioned").await;
    child.terminate();
    world.readiness(&child, 503).await;
    let (_, body) = child.page("/readyz").await;
    assert!(body.contains(r#"{"name":"not draining","needed":true,"ok":false}"#), "{body}");
    world.scheduler.on_register(&[], Answer::Accept);
    let (code, said) = child.exit().await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(world.states("w-1").await, ["provisioning", "provisioned", "registered"]);
}

#[tokio::test]
async fn readyz_tells_whether_the_scheduler_answers_and_stays_ready_without_it() {
    let world = World::new(LOAD).await;
    let child = world.child().await;
    world.scheduler.leave().await;
    world.send("load", &provision("c-1", "w-1")).await;
    world.reaches("w-1", "registration_failed").await;
    let (status, body) = child.page("/readyz").await;
    assert_eq!(status, 200, "taking every replica out of service would not bring the scheduler back");
    assert!(body.contains(r#"{"name":"scheduler answers","needed":false,"ok":false}"#), "{body}");
    world.scheduler.come().await;
    world.send("load", &provision("c-2", "w-2")).await;
    world.reaches("w-2", "registered").await;
    let (_, body) = child.page("/readyz").await;
    assert!(body.contains(r#"{"name":"scheduler answers","needed":false,"ok":true}"#), "{body}");
}

#[tokio::test]
async fn two_replicas_share_the_work_and_one_that_is_told_to_end_loses_nothing() {
    let world = World::new(&format!("{LOAD}delay = \"50ms\"\nconcurrency = 4\n")).await;
    let (one, _two) = (world.child().await, world.child().await);
    for n in 0..100 {
        world.send("load", &provision(&format!("c-{n}"), &format!("w-{n}"))).await;
    }
    world.until("some of them to be there", async || (registered(&world).await >= 20).then_some(())).await;
    one.terminate();
    let (code, said) = one.exit().await;
    assert_eq!(code, Some(0), "{said}");
    world.settled().await;
    hold_one_outcome_each(&world, 100).await;
    let log = world.log().await;
    let writers: BTreeSet<&str> =
        log.iter().filter_map(|event| event.headers.get("Enlist-Writer")?.as_str().split('.').next()).collect();
    assert_eq!(writers.len(), 2, "both had a part in it");
    assert!(log.iter().all(|event| event.worker.epoch == 1), "what was in hand was finished, not taken over");
}

#[tokio::test]
async fn what_a_drain_cannot_finish_goes_back_and_another_replica_goes_on_with_it_at_once() {
    let world =
        World::new(&format!("[limits]\ndrain = \"100ms\"\n{LOAD}registration = {{ timeout = \"10m\" }}\n")).await;
    world.scheduler.on_register(&[], Answer::Busy(20));
    let first = world.child().await;
    world.send("load", &provision("c-1", "w-1")).await;
    world.reaches("w-1", "provisioned").await;
    first.terminate();
    let (code, said) = first.exit().await;
    assert_eq!((code, world.left("load").await), (Some(0), Some(1)), "{said}");
    world.scheduler.on_register(&[], Answer::Accept);
    let begun = Instant::now();
    let _second = world.replica().await;
    world.settled().await;
    assert!(begun.elapsed() < Duration::from_secs(20), "no ack wait is sat out: {:?}", begun.elapsed());
    let last = world.reaches("w-1", "registered").await.worker;
    // Claimed, provisioned, let go, taken over, registered.
    assert_eq!((last.epoch, last.rev), (2, 5));
    let taken_over = &world.history("w-1").await[3].worker;
    assert_eq!(taken_over.attempts, 0, "a drain is not the command's fault");
    hold_one_outcome_each(&world, 1).await;
}

#[tokio::test]
async fn a_scheduler_that_is_away_for_good_costs_no_provision() {
    let world = World::new(&format!("{LOAD}registration = {{ max_retries = 0 }}\n")).await;
    world.scheduler.leave().await;
    let _replica = world.replica().await;
    for n in 0..20 {
        world.send("load", &provision(&format!("c-{n}"), &format!("w-{n}"))).await;
    }
    world.settled().await;
    hold_one_outcome_each(&world, 20).await;
    world.scheduler.come().await;
    world.send("load", &provision("c-20", "w-20")).await;
    world.reaches("w-20", "registered").await;
}

/// As long as it has to be: the first sign of life is due after a third of the ack wait, which is 10 s.
#[tokio::test]
async fn a_long_provider_call_is_kept_alive_by_progress_acks() {
    let world = World::new(&format!("{LOAD}delay = \"11s\"\n")).await;
    let acks = format!("$JS.ACK.{}.provision.>", world.subjects.command_stream(&"load".parse().unwrap()));
    let mut acks = world.client.subscribe(acks).await.unwrap();
    let _replica = world.replica().await;
    world.send("load", &provision("c-1", "w-1")).await;
    let mut bodies = Vec::new();
    while bodies.last().is_none_or(|body| body != "+ACK") {
        let ack = tokio::time::timeout(Duration::from_secs(60), acks.next()).await.expect("an ack").unwrap();
        bodies.push(String::from_utf8(ack.payload.to_vec()).unwrap());
    }
    assert_eq!(bodies, ["+WPI", "+ACK"]);
    hold_one_outcome_each(&world, 1).await;
}

const METRICS: [&str; 16] = [
    "worker_provisioning_registration_failed_total",
    "enlist_commands_total",
    "enlist_command_seconds",
    "enlist_provider_seconds",
    "enlist_registration_attempts_total",
    "enlist_registration_seconds",
    "enlist_redeliveries_total",
    "enlist_commands_in_flight",
    "enlist_workers",
    "enlist_orphans_total",
    "enlist_dead_letters_total",
    "enlist_sweep_frozen",
    "enlist_pool_holdoff_seconds",
    "enlist_nats_connected",
    "enlist_tasks",
    "enlist_build_info",
];

#[tokio::test]
async fn every_metric_is_there_at_0_from_the_start_and_moves() {
    let world = World::new(LOAD).await;
    let child = world.child().await;
    let (status, text) = child.page("/metrics").await;
    assert_eq!(status, 200);
    for name in METRICS {
        let mut series = text.lines().filter(|line| line.starts_with(name)).peekable();
        assert!(series.peek().is_some(), "{name} is missing from\n{text}");
        let moved = ["enlist_nats_connected", "enlist_tasks", "enlist_build_info"].contains(&name);
        assert!(series.all(|line| moved || line.ends_with(" 0")), "{name} is not at 0 in\n{text}");
    }
    world.send("load", &provision("c-1", "w-1")).await;
    world.send_raw("load", enlist::domain::Verb::Provision, "nonsense").await;
    for (series, value) in [
        (r#"enlist_commands_total{pool="load",verb="provision",outcome="registered"}"#, "1"),
        (r#"enlist_commands_total{pool="load",verb="provision",outcome="dead_letter"}"#, "1"),
        (r#"enlist_dead_letters_total{pool="load",reason="malformed"}"#, "1"),
        (r#"enlist_registration_attempts_total{outcome="accepted"}"#, "1"),
        (r#"enlist_workers{pool="load",state="registered"}"#, "1"),
        (r#"enlist_commands_in_flight{pool="load",verb="provision"}"#, "0"),
        ("enlist_nats_connected", "1"),
    ] {
        world.until(series, async || child.metric(series).await.filter(|found| found == value)).await;
    }
}

#[tokio::test]
async fn a_drain_does_not_wait_for_sweeps_that_cannot_be_asked_for() {
    let pools = [0, 1, 2, 3, 4, 5, 6, 7].map(|n| format!("[pools.p-{n}]\nprovider = \"null\"\n"));
    let world = World::alone(&format!("[sweep]\ninterval = \"100ms\"\n{}", pools.concat())).await;
    let mut child = world.child_that_logs("info,enlist::worker=debug").await;
    world.broker.kill().await;
    child.line("the sweep was not asked for").await;
    child.terminate();
    let (code, said) = child.exit().await;
    assert_eq!(code, Some(0), "{said}");
    // Each of the other pools would take the five seconds that a broker which is away is given, and then say so: the one whose
    // turn was when the replica was told to stop may have.
    let asked = said.matches("the sweep was not asked for").count();
    assert!(asked <= 2, "{said}");
}
