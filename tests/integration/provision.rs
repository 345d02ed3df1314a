//! From a provision to its outcome: the events, what the scheduler hears, and what is tried again.

use enlist::domain::{CorrelationId, ErrorClass, Reason, RegistrationStatus, Verb, WorkerId};
use enlist::wire::command::{ProvisionCommand, RegistrationOverrides};
use serde_json::json;

use crate::world::{Answer, LOAD, World, nameless, provision};

fn with_retries(command: ProvisionCommand, max_retries: u32) -> ProvisionCommand {
    let registration = RegistrationOverrides { max_retries: Some(max_retries), ..RegistrationOverrides::default() };
    ProvisionCommand { registration, ..command }
}

#[tokio::test]
async fn a_provision_becomes_three_events_that_say_all() {
    let world = World::new(&format!("{LOAD}cpus = 2.5\nmemory_mb = 64\nlabels = {{ zone = \"a\" }}\n")).await;
    let _replica = world.replica().await;
    let correlation_id = Some(CorrelationId::new("thread 1").unwrap());
    world.send("load", &ProvisionCommand { correlation_id, ..provision("c-1", "w-1") }).await;
    world.settled().await;

    let events = world.history("w-1").await;
    let instance = world.instances("load").await.remove(0);
    for (n, (event, state)) in events.iter().zip(["provisioning", "provisioned", "registered"]).enumerate() {
        let (json, rev) = (&event.json, n + 1);
        assert_eq!(event.subject, format!("{}.events.load.w-1.{state}", world.prefix));
        assert_eq!(event.headers.get("Content-Type").unwrap().as_str(), "application/cloudevents+json");
        assert_eq!(json["specversion"], "1.0");
        assert_eq!(json["id"], format!("load.w-1.{rev}"));
        assert_eq!(json["source"], format!("/enlist/{}", world.prefix));
        assert_eq!(json["type"], format!("enlist.worker.{state}.v1"));
        assert_eq!((&json["subject"], &json["datacontenttype"]), (&json!("load/w-1"), &json!("application/json")));
        let data = &json["data"];
        assert_eq!(json["time"], data["updated_at"]);
        assert_eq!(
            (&data["pool"], &data["worker_id"], &data["worker_type"]),
            (&json!("load"), &json!("w-1"), &json!("dynamic"))
        );
        assert_eq!((&data["state"], &data["rev"], &data["epoch"]), (&json!(state), &json!(rev), &json!(1)));
        assert_eq!((&data["command_id"], &data["correlation_id"]), (&json!("c-1"), &json!("thread 1")));
        assert_eq!((&data["provider"], &data["attempts"]), (&json!("null"), &json!(0)));
        assert_eq!(data["capabilities"], json!({"cpus": 2.5, "memory_mb": 64, "labels": {"zone": "a"}}));
        assert_eq!(data["created_at"], events[0].json["data"]["created_at"]);
        assert!(data["spec_hash"].is_string() && data.get("ended_by").is_none() && data.get("error").is_none());
        let made = if n > 0 { json!(instance.instance_id) } else { serde_json::Value::Null };
        assert_eq!(data["instance_id"], made);
    }
    assert_eq!(events.len(), 3);
    assert_eq!(events[1].json["data"]["registration"], json!({"status": "pending", "attempts": 0}));
    assert_eq!(events[2].json["data"]["registration"], json!({"status": "registered", "attempts": 1}));
    assert!(world.dead().await.is_empty());
}

#[tokio::test]
async fn the_scheduler_hears_of_the_worker_once_and_in_full() {
    let world = World::new(&format!("{LOAD}cpus = 2.0\n")).await;
    let _replica = world.replica().await;
    world.send("load", &provision("c-1", "w-1")).await;
    world.settled().await;
    let heard = world.scheduler.registers();
    let worker = world.history("w-1").await.remove(1).worker;
    assert_eq!(heard.len(), 1);
    assert_eq!(
        (&heard[0].worker_id, &heard[0].pool, heard[0].worker_type),
        (&worker.worker_id, &worker.pool, worker.worker_type)
    );
    assert_eq!((&heard[0].instance_id, &heard[0].capabilities), (&worker.instance_id, &worker.capabilities));
    assert_eq!((heard[0].epoch, heard[0].rev, heard[0].attempt), (1, 2, 1));
    assert!(heard[0].expires_at > worker.updated_at);
}

#[tokio::test]
async fn a_worker_without_a_name_gets_the_one_that_the_contract_derives() {
    let world = World::new(LOAD).await;
    let _replica = world.replica().await;
    world.send("load", &nameless("c-1")).await;
    world.settled().await;
    // base32(sha256("load/c-1")), lower case, the first 26 characters.
    let name = WorkerId::derived(&"load".parse().unwrap(), &"c-1".parse().unwrap());
    assert_eq!(world.states(name.as_str()).await, ["provisioning", "provisioned", "registered"]);
}

#[tokio::test]
async fn a_pool_without_registration_ends_at_provisioned() {
    let world = World::new(&format!("{LOAD}registration = {{ enabled = false }}\n")).await;
    let _replica = world.replica().await;
    world.send("load", &provision("c-1", "w-1")).await;
    world.settled().await;
    assert_eq!(world.states("w-1").await, ["provisioning", "provisioned"]);
    assert_eq!(world.history("w-1").await[1].worker.registration.status, RegistrationStatus::Disabled);
    assert!(world.scheduler.journal().is_empty());
}

#[tokio::test]
async fn a_command_can_turn_registration_off_and_on() {
    let world =
        World::new(&format!("{LOAD}[pools.quiet]\nprovider = \"null\"\nregistration = {{ enabled = false }}\n")).await;
    let _replica = world.replica().await;
    let registration = |enabled| RegistrationOverrides { enabled: Some(enabled), ..RegistrationOverrides::default() };
    world.send("load", &ProvisionCommand { registration: registration(false), ..provision("c-1", "w-1") }).await;
    world.send("quiet", &ProvisionCommand { registration: registration(true), ..provision("c-2", "w-2") }).await;
    world.settled().await;
    assert_eq!(world.states("w-1").await, ["provisioning", "provisioned"]);
    assert_eq!(world.states("w-2").await, ["provisioning", "provisioned", "registered"]);
    assert_eq!(world.scheduler.registers().len(), 1);
}

#[tokio::test]
async fn a_scheduler_that_comes_to_its_senses_is_told_until_it_accepts() {
    let world = World::new(LOAD).await;
    world.scheduler.on_register(&[Answer::Unreadable, Answer::Unreadable], Answer::Accept);
    let _replica = world.replica().await;
    world.send("load", &provision("c-1", "w-1")).await;
    world.settled().await;
    let attempts: Vec<u32> = world.scheduler.registers().iter().map(|heard| heard.attempt).collect();
    assert_eq!(attempts, [1, 2, 3]);
    let last = world.history("w-1").await.pop().unwrap().worker;
    assert_eq!((last.state.as_str(), last.registration.attempts), ("registered", 3));
}

#[tokio::test]
async fn retries_end_and_the_worker_stays_with_the_last_error_counted_and_logged() {
    for (answer, code) in [(Answer::Unreadable, "unreadable"), (Answer::Silent, "timeout")] {
        let world = World::new(&format!("[scheduler]\ntry_timeout = \"50ms\"\n{LOAD}")).await;
        world.scheduler.on_register(&[], answer);
        let mut child = world.child().await;
        world.send("load", &with_retries(provision("c-1", "w-1"), 2)).await;
        world.settled().await;
        assert_eq!(world.states("w-1").await, ["provisioning", "provisioned", "registration_failed"]);
        let registration = world.history("w-1").await.pop().unwrap().worker.registration;
        let error = registration.error.unwrap();
        assert_eq!((registration.status, registration.attempts), (RegistrationStatus::Failed, 3));
        assert_eq!((error.code.as_str(), error.critical), (code, false));
        assert_eq!(world.scheduler.registers().len(), 3, "one try and two more");
        assert_eq!(world.instances("load").await.len(), 1, "the worker stays");
        assert!(world.dead().await.is_empty());
        let failed = r#"worker_provisioning_registration_failed_total{worker_type="dynamic",pool="load"}"#;
        assert_eq!(child.metric(failed).await.as_deref(), Some("1"));
        let line = child.line("registration failed").await;
        for part in [r#""level":"WARN""#, r#""worker_id":"w-1""#, code] {
            assert!(line.contains(part), "{part} is missing from {line}");
        }
    }
}

#[tokio::test]
async fn a_scheduler_that_nobody_runs_fails_the_registration_and_not_the_provision() {
    let world = World::new(LOAD).await;
    world.scheduler.leave().await;
    let _replica = world.replica().await;
    world.send("load", &with_retries(provision("c-1", "w-1"), 1)).await;
    world.settled().await;
    let registration = world.reaches("w-1", "registration_failed").await.worker.registration;
    assert_eq!((registration.attempts, registration.error.unwrap().code.as_str()), (2, "no_responders"));
    assert_eq!(world.instances("load").await.len(), 1);
}

#[tokio::test]
async fn a_busy_scheduler_is_waited_for_and_not_counted() {
    let world = World::new(LOAD).await;
    world.scheduler.on_register(&[Answer::Busy(1); 6], Answer::Accept);
    let _replica = world.replica().await;
    world.send("load", &with_retries(provision("c-1", "w-1"), 0)).await;
    world.settled().await;
    let last = world.history("w-1").await.pop().unwrap().worker;
    assert_eq!((last.state.as_str(), last.registration.attempts), ("registered", 1));
    assert_eq!(world.scheduler.registers().len(), 7);
}

#[tokio::test]
async fn a_scheduler_that_stays_busy_fails_the_registration_at_its_time_out() {
    let world = World::new(&format!("{LOAD}registration = {{ timeout = \"300ms\" }}\n")).await;
    world.scheduler.on_register(&[], Answer::Busy(100));
    let _replica = world.replica().await;
    world.send("load", &provision("c-1", "w-1")).await;
    world.settled().await;
    let registration = world.reaches("w-1", "registration_failed").await.worker.registration;
    assert_eq!((registration.attempts, registration.error.unwrap().code.as_str()), (0, "busy"));
}

#[tokio::test]
async fn a_refusal_is_critical_and_ends_the_asking() {
    let world = World::new(LOAD).await;
    world.scheduler.on_register(&[], Answer::Reject);
    let _replica = world.replica().await;
    world.send("load", &provision("c-1", "w-1")).await;
    world.settled().await;
    let registration = world.reaches("w-1", "registration_failed").await.worker.registration;
    let error = registration.error.unwrap();
    assert_eq!((error.code.as_str(), error.message.as_str(), error.critical), ("banned", "not here", true));
    assert_eq!((registration.attempts, world.scheduler.registers().len()), (1, 1));
    assert_eq!(world.instances("load").await.len(), 1, "the worker stays");
}

#[tokio::test]
async fn a_program_that_is_not_there_fails_the_worker_for_good() {
    let world = World::new("[pools.work]\nprovider = \"process\"\ncommand = [\"/no/such/program\"]\n").await;
    let _replica = world.replica().await;
    world.send("work", &provision("c-1", "w-1")).await;
    world.settled().await;
    assert_eq!(world.states("w-1").await, ["provisioning", "failed"]);
    let error = world.history("w-1").await.pop().unwrap().worker.error.unwrap();
    assert_eq!((error.class, error.retryable), (ErrorClass::InvalidSpec, false), "{}", error.message);
    assert!(error.message.contains("/no/such/program"), "{}", error.message);
    assert!(world.dead().await.is_empty() && world.scheduler.journal().is_empty());
}

#[tokio::test]
async fn a_provider_that_fails_every_time_exhausts_the_command_and_leaves_nothing() {
    let world = World::new(&format!("{LOAD}failure_rate = 1.0\n")).await;
    let _replica = world.replica().await;
    world.send("load", &provision("c-1", "w-1")).await;
    world.settled().await;
    let dead = world.only_dead().await;
    assert_eq!((dead.reason(), dead.subject.rsplit('.').next()), (Reason::Exhausted, Some("c-1")));
    let log = world.history("w-1").await;
    let last = &log.last().unwrap().worker;
    assert_eq!(
        (last.state.as_str(), last.ended_by.as_ref().unwrap().reason.as_deref()),
        ("terminated", Some("exhausted"))
    );
    let tries = log.iter().filter(|event| event.worker.error.is_some()).count();
    assert_eq!(tries, 5, "{}", world.story().await);
    assert!(world.instances("load").await.is_empty() && world.scheduler.registers().is_empty());
    world.hold_the_log().await;
}

#[tokio::test]
async fn a_process_is_provisioned_and_lives() {
    let world = World::new("[pools.work]\nprovider = \"process\"\ncommand = [\"sleep\", \"120\"]\n").await;
    let _replica = world.replica().await;
    world.send("work", &provision("c-1", "w-1")).await;
    world.reaches("w-1", "registered").await;
    assert_eq!(world.instances("work").await.len(), 1);
    world.send("work", &crate::world::terminate("c-2", "w-1")).await;
    world.reaches("w-1", "terminated").await;
    assert!(world.instances("work").await.is_empty());
}

#[tokio::test]
async fn one_command_of_each_pool_waits_for_no_other_pool() {
    let world = World::new(&format!(
        "{LOAD}[pools.slow]\nprovider = \"null\"\ndelay = \"1h\"\nconcurrency = 4\n[limits]\nconcurrency = 64\n"
    ))
    .await;
    let _replica = world.replica().await;
    for n in 0..20 {
        world.send("slow", &provision(&format!("s-{n}"), &format!("slow-{n}"))).await;
    }
    world.until("the slow pool to be full", async || (world.log().await.len() == 4).then_some(())).await;
    world.send_raw("load", Verb::Provision, r#"{"command_id":"c-1","worker_id":"w-1"}"#).await;
    world.reaches("w-1", "registered").await;
}
