//! The scheduler's port over NATS, against the demo scheduler and against ones that misbehave.

use std::time::Duration;

use async_nats::Client;
use bytes::Bytes;
use enlist::bus::requests::Requests;
use enlist::cli::demo_scheduler::{DemoOptions, DemoScheduler, PAGE};
use enlist::config::SchedulerConfig;
use enlist::domain::{Capabilities, Pool, WorkerId, WorkerType};
use enlist::registration::memory::Asked;
use enlist::registration::{
    MemoryScheduler, NatsScheduler, RegisterWorker, RegistrationError, UnregisterWorker, WorkerRegistrationPort,
};
use futures_util::StreamExt;
use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::broker::Broker;

/// A server, a connection to it, and the port under test.
struct World {
    client: Client,
    requests: Requests,
    subjects: SchedulerConfig,
    port: NatsScheduler,
    _server: Broker,
}

impl World {
    async fn new() -> Self {
        let server = Broker::process().await;
        let client = async_nats::connect(server.url()).await.unwrap();
        let requests = Requests::start(client.clone()).await.unwrap();
        let subjects = SchedulerConfig {
            register: "scheduler.workers.register".to_owned(),
            unregister: "scheduler.workers.unregister".to_owned(),
            list: "scheduler.workers.list".to_owned(),
            try_timeout: Duration::from_secs(5),
            unregister_timeout: Duration::from_secs(30),
        };
        let port = NatsScheduler::new(requests.clone(), &subjects);
        Self { client, requests, subjects, port, _server: server }
    }

    /// Runs a demo scheduler until the guard is dropped.
    async fn demo(&self, options: DemoOptions) -> DropGuard {
        let demo = DemoScheduler::listen(self.client.clone(), &self.subjects, options).await.unwrap();
        let shutdown = CancellationToken::new();
        tokio::spawn(demo.run(shutdown.clone()));
        shutdown.drop_guard()
    }

    /// A scheduler that answers everything on a subject with these bodies in turn, the last one for ever.
    async fn scripted(&self, subject: &str, bodies: &'static [&'static str]) {
        let mut requests = self.client.subscribe(subject.to_owned()).await.unwrap();
        let client = self.client.clone();
        tokio::spawn(async move {
            let mut bodies = bodies.iter().copied().chain(std::iter::repeat(*bodies.last().unwrap()));
            while let Some(request) = requests.next().await {
                client.publish(request.reply.unwrap(), bodies.next().unwrap().into()).await.unwrap();
            }
        });
    }

    async fn raw(&self, subject: &str, body: &'static str) -> String {
        let reply = self.requests.send(subject, None, Bytes::from(body), Duration::from_secs(20)).await.unwrap();
        String::from_utf8(reply.payload.to_vec()).unwrap()
    }
}

fn pool() -> Pool {
    Pool::new("gpu").unwrap()
}

fn register(id: &str, epoch: u64) -> RegisterWorker {
    RegisterWorker {
        worker_id: WorkerId::new(id).unwrap(),
        pool: pool(),
        worker_type: WorkerType::Dynamic,
        instance_id: Some("i-1".to_owned()),
        endpoint: None,
        capabilities: Capabilities { cpus: Some(2.0), ..Capabilities::default() },
        epoch,
        rev: 2,
        attempt: 1,
        expires_at: Timestamp::now().checked_add(SignedDuration::from_secs(60)).unwrap(),
        trace: None,
    }
}

fn unregister(id: &str, epoch: u64) -> UnregisterWorker {
    UnregisterWorker {
        worker_id: WorkerId::new(id).unwrap(),
        pool: pool(),
        instance_id: Some("i-1".to_owned()),
        epoch,
        reason: "scaled in".to_owned(),
        grace: Duration::from_millis(1_500),
        trace: None,
    }
}

#[tokio::test]
async fn a_worker_joins_is_listed_and_leaves_and_the_scheduler_reads_what_was_sent() {
    let world = World::new().await;
    let scheduler = MemoryScheduler::new().with_journal();
    let _demo = world.demo(DemoOptions { scheduler: scheduler.clone(), reject: None }).await;
    let (joins, leaves) = (register("w-1", 3), unregister("w-1", 3));
    for _ in 0..2 {
        world.port.register_worker(&joins).await.unwrap();
    }
    let listed = world.port.list_workers(&pool()).await.unwrap().unwrap();
    assert_eq!((listed.len(), listed[0].epoch), (1, 3));
    for _ in 0..2 {
        world.port.unregister_worker(&leaves).await.unwrap();
    }
    assert_eq!(world.port.list_workers(&pool()).await.unwrap(), Some(Vec::new()));
    let (join, leave) = (Asked::Register(joins), Asked::Unregister(leaves));
    assert_eq!(scheduler.journal(), [join.clone(), join, leave.clone(), leave]);
    assert_eq!(world.requests.waiting(), 0);
}

#[tokio::test]
async fn a_list_is_read_page_by_page_to_its_end() {
    let world = World::new().await;
    let scheduler = MemoryScheduler::new();
    for number in 0..=2 * PAGE {
        let _ = scheduler.register(&register(&format!("w-{number}"), 1));
    }
    let _ = scheduler.register(&RegisterWorker { pool: Pool::new("other").unwrap(), ..register("w-1", 1) });
    let _demo = world.demo(DemoOptions { scheduler, reject: None }).await;
    assert_eq!(world.port.list_workers(&pool()).await.unwrap().unwrap().len(), 2 * PAGE + 1);
}

#[tokio::test]
async fn a_scheduler_without_a_list_is_none_and_one_that_is_away_is_unavailable() {
    let world = World::new().await;
    assert_eq!(world.port.list_workers(&pool()).await, Ok(None));
    for answer in [
        world.port.register_worker(&register("w-1", 1)).await,
        world.port.unregister_worker(&unregister("w-1", 1)).await,
    ] {
        assert!(matches!(answer, Err(RegistrationError::Unavailable { code: "no_responders", .. })), "{answer:?}");
    }
}

#[tokio::test]
async fn a_scheduler_that_does_not_answer_in_time_is_a_time_out() {
    let world = World::new().await;
    let _silent = world.client.subscribe("scheduler.workers.>").await.unwrap();
    let impatient = SchedulerConfig { try_timeout: Duration::from_millis(50), ..world.subjects.clone() };
    let port = NatsScheduler::new(world.requests.clone(), &impatient);
    let answer = port.register_worker(&register("w-1", 1)).await;
    assert!(matches!(answer, Err(RegistrationError::Unavailable { code: "timeout", .. })), "{answer:?}");
    assert!(port.list_workers(&pool()).await.is_err(), "silence is not the same as having no list");
    assert_eq!(world.requests.waiting(), 0);
}

#[tokio::test]
async fn a_refusal_keeps_its_code_and_a_drain_its_wait() {
    let world = World::new().await;
    let scheduler = MemoryScheduler::new().with_drain(Duration::from_secs(3_600));
    let _ = scheduler.register(&register("w-1", 1));
    let _demo = world.demo(DemoOptions { scheduler, reject: Some("banned".to_owned()) }).await;
    let refused = world.port.register_worker(&register("w-2", 1)).await.unwrap_err();
    assert_eq!((refused.fault().code.as_str(), refused.fault().critical), ("banned", true));
    let busy = world.port.unregister_worker(&unregister("w-1", 1)).await;
    assert!(matches!(busy, Err(RegistrationError::Busy { retry_after }) if retry_after > Duration::from_secs(3_000)));
}

#[tokio::test]
async fn replies_that_cannot_be_read_are_unreadable_and_never_a_success() {
    let world = World::new().await;
    world.scripted("scheduler.workers.>", &["", "accepted", "{}", r#"{"status":"perhaps"}"#, r#"["accepted"]"#]).await;
    for _ in 0..5 {
        let answer = world.port.register_worker(&register("w-1", 1)).await;
        assert!(matches!(answer, Err(RegistrationError::Unreadable(_))), "{answer:?}");
    }
    assert!(matches!(world.port.unregister_worker(&unregister("w-1", 1)).await, Err(RegistrationError::Unreadable(_))));
    assert!(matches!(world.port.list_workers(&pool()).await, Err(RegistrationError::Unreadable(_))));
}

#[tokio::test]
async fn a_list_that_goes_round_in_circles_ends_as_unreadable() {
    let world = World::new().await;
    world.scripted("scheduler.workers.list", &[r#"{"workers":[],"next":"a"}"#]).await;
    assert!(matches!(world.port.list_workers(&pool()).await, Err(RegistrationError::Unreadable(_))));
}

#[tokio::test]
async fn a_list_that_begins_again_and_again_ends_as_unreadable_long_before_its_pages_are_counted_out() {
    let world = World::new().await;
    let mut asked = world.client.subscribe("scheduler.workers.list").await.unwrap();
    let client = world.client.clone();
    let scheduler = tokio::spawn(async move {
        let mut pages = 0;
        while let Some(request) = asked.next().await {
            pages += 1;
            let page =
                format!(r#"{{"workers":[{{"worker_id":"a","pool":"gpu","epoch":{pages}}}],"next":"{}"}}"#, pages % 2);
            client.publish(request.reply.unwrap(), page.into()).await.unwrap();
            if pages == 1_000 {
                break;
            }
        }
    });
    assert!(matches!(world.port.list_workers(&pool()).await, Err(RegistrationError::Unreadable(_))));
    scheduler.abort();
}

#[tokio::test]
async fn a_worker_that_is_listed_twice_has_the_higher_epoch() {
    let world = World::new().await;
    let page = r#"{"workers":[{"worker_id":"a","pool":"gpu","epoch":3},{"worker_id":"a","pool":"gpu","epoch":1}]}"#;
    world.scripted("scheduler.workers.list", Box::leak(Box::new([page]))).await;
    let listed = world.port.list_workers(&pool()).await.unwrap().unwrap();
    assert_eq!(listed.iter().map(|worker| (worker.worker_id.as_str(), worker.epoch)).collect::<Vec<_>>(), [("a", 3)]);
}

#[tokio::test]
async fn another_pool_s_workers_in_the_list_are_passed_over() {
    let world = World::new().await;
    let page = r#"{"workers":[{"worker_id":"a","pool":"gpu","epoch":1},{"worker_id":"b","pool":"cpu","epoch":1}]}"#;
    world.scripted("scheduler.workers.list", Box::leak(Box::new([page]))).await;
    let listed = world.port.list_workers(&pool()).await.unwrap().unwrap();
    assert_eq!(listed.iter().map(|worker| worker.worker_id.as_str()).collect::<Vec<_>>(), ["a"]);
}

#[tokio::test]
async fn the_demo_scheduler_survives_anything_that_is_sent_to_it() {
    let world = World::new().await;
    let scheduler = MemoryScheduler::new();
    let _demo = world.demo(DemoOptions { scheduler: scheduler.clone(), reject: None }).await;
    for verb in ["register", "unregister", "list"] {
        let subject = format!("scheduler.workers.{verb}");
        world.client.publish(subject.clone(), "nobody waits".into()).await.unwrap();
        for body in ["", "\u{1b}[31m", "[]", "{", r#"{"worker_id":"NO","pool":"*"}"#, r#"{"after":"x"}"#] {
            let reply = world.raw(&subject, body).await;
            assert!(reply.contains(r#""status":"rejected","code":"invalid""#), "{verb} {body:?}: {reply}");
        }
    }
    world.port.register_worker(&register("w-1", 1)).await.unwrap();
    assert_eq!(scheduler.registered(), 1);
}

#[tokio::test]
async fn a_register_that_comes_after_its_end_is_passed_over() {
    let world = World::new().await;
    let scheduler = MemoryScheduler::new();
    let _demo = world.demo(DemoOptions { scheduler: scheduler.clone(), reject: None }).await;
    let hasty = SchedulerConfig { try_timeout: Duration::from_millis(50), ..world.subjects.clone() };
    let late = RegisterWorker { expires_at: Timestamp::UNIX_EPOCH, ..register("w-1", 1) };
    let answer = NatsScheduler::new(world.requests.clone(), &hasty).register_worker(&late).await;
    assert!(matches!(answer, Err(RegistrationError::Unavailable { code: "timeout", .. })), "{answer:?}");
    assert_eq!(world.port.list_workers(&pool()).await, Ok(Some(Vec::new())));
    assert_eq!(scheduler.registered(), 0);
}

#[tokio::test]
async fn the_demo_scheduler_ends_when_it_is_told_to() {
    let world = World::new().await;
    let demo = DemoScheduler::listen(world.client.clone(), &world.subjects, DemoOptions::default()).await.unwrap();
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(demo.run(shutdown.clone()));
    world.port.register_worker(&register("w-1", 1)).await.unwrap();
    shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(20), running).await.unwrap().unwrap().unwrap();
    assert_eq!(world.port.list_workers(&pool()).await, Ok(None), "nobody listens any more");
}
