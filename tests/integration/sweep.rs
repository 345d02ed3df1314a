//! A sweep mends what does not agree: provider, scheduler and log, each of them real.

use std::collections::BTreeSet;
use std::time::Duration;

use async_nats::Message;
use enlist::domain::{CommandId, EndedBy, RegistrationStatus, Step, Worker};
use enlist::journal::{Journal, Writer};
use enlist::wire::command::SweepCommand;
use futures_util::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use tokio::time::timeout;

use crate::world::{Answer, LOAD, ON_DEMAND, Tool, WORK, World, claim, provision, terminate};

async fn with_workers(file: &str, pool: &str, workers: &[&str]) -> World {
    let world = World::new(file).await;
    let replica = world.replica().await;
    for worker in workers {
        world.send(pool, &provision(&format!("c-{worker}"), worker)).await;
    }
    world.settled().await;
    replica.drain().await;
    world
}

#[tokio::test]
async fn an_instance_without_a_record_is_removed_by_the_second_sweep_that_sees_it() {
    let world = with_workers(&format!("{ON_DEMAND}{WORK}"), "work", &["w-1", "w-2"]).await;
    world.scheduler.list().await;
    let child = world.child().await;
    world.stray("work", "stray").await;
    world.sweep("work").await;
    assert_eq!(world.processes().len(), 3, "seen once is not seen enough");
    assert!(world.history("stray").await.is_empty());
    world.sweep("work").await;
    assert_eq!(world.states("stray").await, ["terminating", "terminated"]);
    let last = world.history("stray").await.pop().unwrap().worker;
    assert_eq!(last.ended_by.unwrap().reason.as_deref(), Some("orphan"));
    assert_eq!(world.processes().into_keys().collect::<Vec<_>>(), ["w-1", "w-2"]);
    let counted = r#"enlist_orphans_total{pool="work",action="terminated"}"#;
    assert_eq!(child.metric(counted).await.as_deref(), Some("1"));
    world.thawed(&child, "work").await;
    world.sweeps("work", 2).await;
    assert_eq!((world.processes().len(), world.states("stray").await.len()), (2, 2), "that was all");
    world.hold_the_log().await;
}

#[tokio::test]
async fn a_young_instance_is_nobodys_orphan() {
    let world = with_workers(&format!("[sweep]\ninterval = \"24h\"\ngrace = \"1h\"\n{LOAD}"), "load", &["w-1"]).await;
    let _replica = world.replica().await;
    world.stray("load", "stray").await;
    world.sweeps("load", 4).await;
    assert_eq!(world.instances("load").await.len(), 2);
    assert!(world.history("stray").await.is_empty());
}

#[tokio::test]
async fn an_orphan_is_only_reported_where_the_settings_want_that() {
    let world = with_workers(&format!("{ON_DEMAND}orphans = \"report\"\n{WORK}"), "work", &["w-1"]).await;
    let child = world.child().await;
    world.stray("work", "stray").await;
    world.sweeps("work", 3).await;
    assert_eq!(world.processes().len(), 2);
    assert!(world.history("stray").await.is_empty());
    let count =
        async |action: &str| child.metric(&format!(r#"enlist_orphans_total{{pool="work",action="{action}"}}"#)).await;
    assert_eq!(count("reported").await.as_deref(), Some("2"), "by each sweep after the first");
    assert_eq!(count("terminated").await.as_deref(), Some("0"));
}

#[tokio::test]
async fn an_instance_that_outlived_its_record_is_removed_and_the_record_stays_as_it_is() {
    let world = with_workers(&format!("{ON_DEMAND}{LOAD}"), "load", &["w-1", "w-2"]).await;
    let _replica = world.replica().await;
    world.send("load", &terminate("t-1", "w-1")).await;
    world.settled().await;
    let before = world.history("w-1").await.len();
    world.instance("load", "w-1", world.history("w-1").await[0].sequence).await;
    world.sweeps("load", 2).await;
    assert_eq!(world.instances("load").await.len(), 1);
    assert_eq!(world.history("w-1").await.len(), before);
}

#[tokio::test]
async fn a_worker_whose_process_was_killed_is_lost_after_two_sweeps_and_unregistered() {
    let world = with_workers(&format!("{ON_DEMAND}{WORK}"), "work", &["w-1", "w-2"]).await;
    world.scheduler.list().await;
    let child = world.child().await;
    world.kill_worker("w-1").await;
    world.sweep("work").await;
    assert_eq!(world.states("w-1").await.last(), Some(&"registered"), "one sweep is not enough");
    assert!(world.scheduler.unregisters().is_empty());
    world.sweep("work").await;
    assert_eq!(world.states("w-1").await, ["provisioning", "provisioned", "registered", "lost"]);
    assert_eq!(world.scheduler.unregisters().len(), 1);
    assert_eq!(world.scheduler.members().into_keys().collect::<Vec<_>>(), ["w-2"]);
    world.sweeps("work", 2).await;
    assert_eq!(world.states("w-2").await.len(), 3, "the other one is left alone");
    assert_eq!((world.scheduler.unregisters().len(), world.scheduler.registers().len()), (1, 2));
    assert_eq!(child.metric(r#"enlist_workers{pool="work",state="lost"}"#).await.as_deref().unwrap_or("0"), "0");
    world.hold_the_log().await;
}

#[tokio::test]
async fn a_failed_registration_is_made_good_once_the_scheduler_is_there() {
    let world =
        World::new(&format!("[sweep]\ninterval = \"200ms\"\n{LOAD}registration = {{ max_retries = 0 }}\n")).await;
    world.scheduler.leave().await;
    let _replica = world.replica().await;
    world.send("load", &provision("c-1", "w-1")).await;
    world.reaches("w-1", "registration_failed").await;
    world.scheduler.come().await;
    world.scheduler.list().await;
    let registration = world.reaches("w-1", "registered").await.worker.registration;
    assert_eq!((registration.status, registration.error), (RegistrationStatus::Registered, None));
    assert_eq!(world.scheduler.registers().len(), 1);
    world.hold_the_log().await;
}

#[tokio::test]
async fn a_scheduler_that_stays_away_is_asked_less_and_less_often() {
    let world =
        World::new(&format!("[sweep]\ninterval = \"200ms\"\n{LOAD}registration = {{ max_retries = 0 }}\n")).await;
    world.scheduler.leave().await;
    let _replica = world.replica().await;
    world.send("load", &provision("c-1", "w-1")).await;
    let failed = world
        .until("six tries", async || {
            let mut log = world.history("w-1").await;
            log.retain(|event| event.worker.state.as_str() == "registration_failed");
            (log.len() >= 6).then_some(log)
        })
        .await;
    let age = |n: usize| failed[n].worker.updated_at.duration_since(failed[n].worker.created_at).as_secs_f64();
    for n in 1..failed.len() - 1 {
        assert!(age(n + 1) >= 1.85 * age(n), "its age at try {n} and the next: {} and {}", age(n), age(n + 1));
    }
}

#[tokio::test]
async fn a_scheduler_that_has_refused_a_worker_is_not_asked_again() {
    let world = World::new(&format!("[sweep]\ninterval = \"100ms\"\n{LOAD}")).await;
    world.scheduler.list().await;
    world.scheduler.on_register(&[], Answer::Reject);
    let _replica = world.replica().await;
    world.send("load", &provision("c-1", "w-1")).await;
    world.reaches("w-1", "registration_failed").await;
    world.sweeps("load", 4).await;
    assert_eq!((world.scheduler.registers().len(), world.history("w-1").await.len()), (1, 3));
}

#[tokio::test]
async fn workers_that_the_scheduler_has_forgotten_are_registered_again() {
    let workers: Vec<String> = (0..20).map(|n| format!("w-{n}")).collect();
    let names: Vec<&str> = workers.iter().map(String::as_str).collect();
    let world = with_workers(&format!("{ON_DEMAND}{LOAD}"), "load", &names).await;
    world.scheduler.list().await;
    let _replica = world.replica().await;
    let before = (world.scheduler.members(), world.log().await.len());
    world.scheduler.forget();
    world.sweep("load").await;
    assert_eq!((world.scheduler.members(), world.log().await.len()), before, "under the same epochs, and no new event");
    assert_eq!(world.scheduler.registers().len(), 40);
    world.sweeps("load", 2).await;
    assert_eq!((world.scheduler.registers().len(), world.scheduler.unregisters().len()), (40, 0));
}

#[tokio::test]
async fn a_scheduler_without_a_list_is_fine() {
    let world = with_workers(&format!("{ON_DEMAND}{LOAD}"), "load", &["w-1", "w-2"]).await;
    let child = world.child().await;
    world.scheduler.forget();
    world.sweeps("load", 3).await;
    assert_eq!((world.scheduler.registers().len(), world.scheduler.unregisters().len()), (2, 0));
    world.thawed(&child, "load").await;
    assert_eq!(world.log().await.len(), 6);
}

#[tokio::test]
async fn workers_of_the_schedulers_list_that_have_ended_or_never_were_are_unregistered() {
    let world = with_workers(&format!("{ON_DEMAND}{LOAD}"), "load", &["w-1", "w-2"]).await;
    world.scheduler.list().await;
    let _replica = world.replica().await;
    world.send("load", &terminate("t-2", "w-2")).await;
    world.settled().await;
    world.scheduler.dream_of("load", "w-2");
    world.scheduler.dream_of("load", "w-dream");
    world.scheduler.dream_of("another", "w-other");
    world.sweep("load").await;
    assert_eq!(world.scheduler.members().into_keys().collect::<Vec<_>>(), ["w-1", "w-other"]);
    let told = world.scheduler.unregisters();
    let epoch = |name: &str| told.iter().rfind(|asked| asked.worker_id.as_str() == name).map(|asked| asked.epoch);
    assert_eq!((told.len(), epoch("w-2"), epoch("w-dream")), (3, Some(2), Some(1)));
    assert!(world.history("w-dream").await.is_empty());
}

/// What a replica that died an hour ago has left in the log: a worker as it stood then.
async fn left_an_hour_ago(world: &World, worker: &str, message: u64, steps: Vec<Step>) {
    let Tool { service, .. } = world.tool("load").await;
    let then = Timestamp::now() - SignedDuration::from_hours(1);
    let (mut stood, mut after): (Option<Worker>, u64) = (None, 0);
    for step in [Step::Claim(Box::new(claim("load", worker)))].into_iter().chain(steps) {
        let next = step.apply(stood.as_ref(), then).unwrap();
        let writer =
            Writer { name: "gone".into(), message: Some(message), claim: (after > 0).then_some(1), trace: None };
        after = service.journal().append(&next, after, &writer).await.unwrap();
        stood = Some(next);
    }
}

fn ended_by(command: &str) -> Step {
    Step::Terminate(EndedBy { command_id: Some(CommandId::new(command).unwrap()), reason: None })
}

const IMPATIENT: &str = "launch_timeout = \"100ms\"\ngrace = \"100ms\"\nregistration = { timeout = \"100ms\" }\n";

#[tokio::test]
async fn records_that_nobody_moves_any_more_are_finished_and_those_with_a_command_in_the_queue_are_left_alone() {
    let world = World::new(&format!("{ON_DEMAND}{LOAD}{IMPATIENT}")).await;
    // Makes the streams, and goes before a command comes: what is queued stays there.
    world.replica().await.drain().await;
    let subject = format!("{}.cmd.load.provision", world.prefix);
    let queued = world.try_send(&subject, provision("c-w-queued", "w-queued").encode().into()).await.unwrap();
    let taken = world.try_send(&subject, provision("c-w-taken", "w-taken").encode().into()).await.unwrap();
    world.unqueue("load", taken).await;
    let (made, unsaid) = (world.stray("load", "w-made").await, world.stray("load", "w-unsaid").await);
    left_an_hour_ago(&world, "w-queued", queued, vec![]).await;
    left_an_hour_ago(&world, "w-taken", taken, vec![]).await;
    left_an_hour_ago(&world, "w-made", taken, vec![]).await;
    left_an_hour_ago(&world, "w-ending", taken, vec![created("n-gone"), ended_by("t-1")]).await;
    left_an_hour_ago(&world, "w-unsaid", taken, vec![created(&unsaid.instance_id)]).await;
    let Tool { service, sweep, queue } = world.tool("load").await;
    let report = service.sweep_pool(&sweep, None, Some(&queue.backlog)).await.unwrap();
    assert_eq!((report.frozen, report.undone.len()), (None, 1), "{}", world.story().await);
    let state = async |worker: &str| world.states(worker).await.pop().unwrap();
    assert_eq!(state("w-queued").await, "provisioning", "its command goes on with it");
    assert_eq!(state("w-taken").await, "failed");
    assert_eq!(state("w-ending").await, "terminated");
    assert_eq!(state("w-unsaid").await, "registered");
    let last = world.history("w-made").await.pop().unwrap().worker;
    assert_eq!((last.state.as_str(), last.instance_id), ("registered", Some(made.instance_id)));
    let _replica = world.replica().await;
    world.reaches("w-queued", "registered").await;
    world.hold_the_log().await;
}

fn created(instance_id: &str) -> Step {
    Step::Created { instance_id: instance_id.to_owned(), endpoint: None, capabilities: None }
}

#[tokio::test]
async fn what_ended_long_ago_is_forgotten_and_its_command_is_a_new_one() {
    let world = World::new(&format!("{ON_DEMAND}retention = \"1s\"\n{LOAD}")).await;
    world.scheduler.list().await;
    let _replica = world.replica().await;
    for worker in ["w-1", "w-2"] {
        world.send("load", &provision(&format!("c-{worker}"), worker)).await;
    }
    world.settled().await;
    world.send("load", &terminate("t-1", "w-1")).await;
    world.settled().await;
    world
        .until("w-1 to be forgotten", async || {
            world.sweep("load").await;
            let forgotten = world.history("w-1").await.is_empty() && world.view("load", "w-1").await.is_none();
            forgotten.then_some(())
        })
        .await;
    assert_eq!(world.view("load", "w-2").await.unwrap().state.as_str(), "registered");
    world.send("load", &provision("c-w-1", "w-1")).await;
    world.settled().await;
    let states = world.states("w-1").await;
    assert_eq!(states, ["provisioning", "provisioned", "registered"], "{}", world.story().await);
    assert_eq!((world.history("w-1").await[0].worker.rev, world.instances("load").await.len()), (1, 2));
    world.until("its entry in the view", async || world.view("load", "w-1").await).await;
}

#[cfg(feature = "crash-points")]
#[tokio::test]
async fn a_sweep_whose_replica_dies_half_way_is_finished_by_another_one() {
    let world = with_workers(&format!("{ON_DEMAND}{WORK}"), "work", &["w-1"]).await;
    let doomed = world.doomed(enlist::crash::CrashPoint::OrphanMarked).await;
    world.stray("work", "stray").await;
    world.sweep("work").await;
    world.send_raw("work", enlist::domain::Verb::Sweep, r#"{"command_id":"s-2"}"#).await;
    assert_eq!(doomed.exit().await.0, None, "it died over it");
    assert_eq!(world.states("stray").await, ["terminating"]);
    assert_eq!(world.processes().len(), 2, "marked, and not yet removed");
    let _others = (world.child().await, world.child().await);
    world.reaches("stray", "terminated").await;
    world.settled().await;
    assert_eq!(world.processes().into_keys().collect::<Vec<_>>(), ["w-1"]);
    world.hold_the_log().await;
}

#[tokio::test]
async fn replicas_ask_each_for_every_sweep_and_the_stream_takes_one() {
    let world = World::new(&format!("[sweep]\ninterval = \"1s\"\n{LOAD}")).await;
    let mut asked = world.client.subscribe(format!("{}.cmd.load.sweep", world.prefix)).await.unwrap();
    let replicas = [world.replica().await, world.replica().await, world.replica().await];
    let (mut requests, mut ids) = (0, BTreeSet::new());
    let mut hear = |message: Message| {
        // What a replica tries at its start is no sweep, and is refused.
        if let Ok(SweepCommand { command_id }) = SweepCommand::decode(&message.payload) {
            requests += 1;
            ids.insert(command_id.to_string());
        }
        ids.len()
    };
    while hear(timeout(Duration::from_secs(30), asked.next()).await.unwrap().unwrap()) < 4 {}
    for replica in replicas {
        replica.drain().await;
    }
    while let Ok(Some(message)) = timeout(Duration::from_millis(100), asked.next()).await {
        hear(message);
    }
    // A subscriber hears of a message before the stream has it.
    let stream = world.subjects.command_stream(&"load".parse().unwrap());
    let stored = async || Some(world.jetstream.get_stream(&stream).await.ok()?.cached_info().state.last_sequence);
    let taken = world.until("every sweep to be stored", async || stored().await.filter(|last| *last >= 4)).await;
    assert_eq!(taken, ids.len() as u64, "{requests} requests");
    assert!(requests >= 2 * ids.len(), "{requests} requests for {} sweeps: each replica asks", ids.len());
}
