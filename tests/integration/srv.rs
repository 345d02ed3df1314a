//! A replica as a NATS service: found, asked, and answered with what becomes of a command.

use std::time::Duration;

use async_nats::{HeaderMap, Message};
use enlist::domain::Worker;
use enlist::wire::command::SpecOverrides;
use enlist::wire::event;
use enlist::wire::service::{DrainReply, WorkersReply};
#[cfg(feature = "crash-points")]
use futures_util::FutureExt as _;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::broker::Broker;
use crate::world::{Command, LOAD, World, nameless, provision, terminate};

impl World {
    /// The answer of a service to a request under this fleet's prefix.
    async fn ask(&self, endpoint: &str, body: impl Into<bytes::Bytes>) -> Message {
        let request = async_nats::Request::new().payload(body.into()).timeout(Some(Duration::from_secs(30)));
        let subject = format!("{}.srv.{endpoint}", self.prefix);
        self.client.send_request(subject, request).await.unwrap_or_else(|error| panic!("{endpoint}: {error}"))
    }

    /// A command as a request, and the worker that it is answered with.
    async fn order(&self, pool: &str, command: &impl Command) -> Worker {
        let answer = self.ask(&format!("{}.{pool}", command.verb().as_str()), command.body()).await;
        assert_eq!(failure(&answer), None);
        event::decode(&answer.payload).unwrap()
    }

    /// A command as a request, and the service error that it is answered with.
    async fn refused(&self, pool: &str, command: &impl Command) -> (u16, String) {
        let answer = self.ask(&format!("{}.{pool}", command.verb().as_str()), command.body()).await;
        failure(&answer).unwrap_or_else(|| panic!("{:?}", answer.payload))
    }

    /// What this fleet's replicas say of themselves.
    async fn services(&self, verb: &str, many: usize) -> Vec<Value> {
        let inbox = self.client.new_inbox();
        let mut answers = self.client.subscribe(inbox.clone()).await.unwrap();
        self.client.publish_with_reply(format!("$SRV.{verb}.enlist"), inbox, "".into()).await.unwrap();
        let mut ours = Vec::new();
        while ours.len() < many {
            let answer = timeout(Duration::from_secs(10), answers.next()).await.expect("an answer").unwrap();
            let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
            if verb == "STATS" || answer["metadata"]["prefix"] == self.prefix.as_str() {
                ours.push(answer);
            }
        }
        ours
    }
}

/// Code and text of a service error.
fn failure(answer: &Message) -> Option<(u16, String)> {
    let headers = answer.headers.as_ref()?;
    let code = headers.get("Nats-Service-Error-Code")?.as_str().parse().unwrap();
    assert!(answer.payload.is_empty());
    Some((code, headers.get("Nats-Service-Error").unwrap().to_string()))
}

fn header(headers: Option<&HeaderMap>, name: &str) -> String {
    headers.and_then(|headers| headers.get(name)).map(ToString::to_string).unwrap_or_default()
}

#[tokio::test]
async fn a_replica_is_found_as_a_service_with_its_endpoints() {
    let world = World::new(&format!("{LOAD}[pools.other]\nprovider = \"null\"\n")).await;
    let replica = world.replica().await;
    let pong = world.services("PING", 1).await.remove(0);
    assert_eq!((&pong["name"], &pong["version"]), (&json!("enlist"), &json!(env!("CARGO_PKG_VERSION"))));
    assert_eq!(pong["metadata"], json!({"prefix": world.prefix.as_str(), "pools": "load,other"}));
    let id = replica.instance_id().unwrap();
    assert_eq!(pong["id"], id);
    let info = world.services("INFO", 1).await.remove(0);
    let mut subjects: Vec<_> = info["endpoints"].as_array().unwrap().iter().map(|one| one["subject"].clone()).collect();
    subjects.sort_by_key(ToString::to_string);
    let drain = format!("drain.{id}");
    let expected = [&*drain, "get", "list", "provision.load", "provision.other", "terminate.load", "terminate.other"];
    assert_eq!(subjects, expected.map(|one| json!(format!("{}.srv.{one}", world.prefix))));
}

#[tokio::test]
async fn a_provision_is_answered_with_its_outcome_and_a_second_time_with_the_same() {
    let world = World::new(LOAD).await;
    let _replicas = (world.replica().await, world.replica().await);
    let command = nameless("c-1");
    let answer = world.ask("provision.load", command.body()).await;
    assert_eq!(header(answer.headers.as_ref(), "Content-Type"), "application/cloudevents+json");
    let outcome = event::decode(&answer.payload).unwrap();
    assert_eq!((outcome.state.as_str(), outcome.command_id.as_str()), ("registered", "c-1"));
    world.settled().await;
    assert_eq!(world.order("load", &command).await, outcome);
    let ended = world.order("load", &terminate("c-2", outcome.worker_id.as_str())).await;
    assert_eq!(ended.state.as_str(), "terminated");
    assert_eq!(world.order("load", &command).await, outcome, "what came after its outcome is no concern of it");
    assert_eq!(world.order("load", &terminate("c-2", outcome.worker_id.as_str())).await, ended);
    assert_eq!(world.order("load", &terminate("c-3", outcome.worker_id.as_str())).await, ended, "it found it ended");
    world.settled().await;
    assert_eq!(world.log().await.len(), 5, "{}", world.story().await);
}

#[tokio::test]
async fn another_content_under_the_same_id_is_a_conflict() {
    let world = World::new(LOAD).await;
    let _replica = world.replica().await;
    world.order("load", &provision("c-1", "w-1")).await;
    let (code, text) = world.refused("load", &provision("c-1", "w-2")).await;
    assert!(code == 409 && text.starts_with("conflict: "), "{code} {text}");
    let (code, text) = world.refused("load", &terminate("c-1", "w-1")).await;
    assert!(code == 409 && text.starts_with("conflict: "), "{code} {text}");
    assert_eq!(world.states("w-1").await.last(), Some(&"registered"));
}

#[tokio::test]
async fn a_refusal_is_a_service_error_with_the_reason_of_its_dead_letter() {
    let world = World::new(&format!("{LOAD}max_workers = 1\n")).await;
    let _replica = world.replica().await;
    world.order("load", &provision("c-1", "w-1")).await;
    let full = nameless("c-2");
    for _ in 0..2 {
        let answer = world.ask("provision.load", full.body()).await;
        assert_eq!(failure(&answer).unwrap().0, 429, "{answer:?}");
        assert_eq!(header(answer.headers.as_ref(), "Enlist-Reason"), "quota");
        world.settled().await;
    }
    let spec = SpecOverrides { image: Some("busybox".into()), ..SpecOverrides::default() };
    let (code, text) =
        world.refused("load", &enlist::wire::command::ProvisionCommand { spec, ..nameless("c-3") }).await;
    assert!(code == 403 && text.starts_with("not_allowed: spec.image"), "{code} {text}");
    world.settled().await;
    assert_eq!(world.dead().await.len(), 2, "as every refused command has one");
    let answer = world.ask("provision.load", r#"{"command_id":"c-4","wroker_id":"w"}"#).await;
    let (code, text) = failure(&answer).unwrap();
    assert!(code == 400 && text.contains("wroker_id"), "{code} {text}");
    let (code, text) = failure(&world.ask("provision.load", "{").await).unwrap();
    assert!(code == 400 && text.starts_with("malformed"), "{code} {text}");
    assert_eq!(world.dead().await.len(), 2, "what cannot be read is not queued");
}

#[tokio::test]
async fn a_caller_that_goes_away_loses_nothing() {
    let world = World::new(&format!("{LOAD}delay = \"200ms\"\n")).await;
    let _replica = world.replica().await;
    let subject = format!("{}.srv.provision.load", world.prefix);
    world
        .client
        .publish_with_reply(subject.clone(), "nobody.listens", provision("c-1", "w-1").body().into())
        .await
        .unwrap();
    world.client.publish(subject, provision("c-2", "w-2").body().into()).await.unwrap();
    world.reaches("w-1", "registered").await;
    world.reaches("w-2", "registered").await;
    assert_eq!(world.order("load", &provision("c-1", "w-1")).await.state.as_str(), "registered");
}

#[tokio::test]
async fn a_host_that_was_chosen_is_found_again() {
    let hosts = r#"hosts = [{ id = "a" }, { id = "b" }, { id = "c" }]"#;
    let world = World::new(&format!("[pools.edge]\nprovider = \"static\"\n{hosts}\n")).await;
    let _replica = world.replica().await;
    let first = world.order("edge", &nameless("c-1")).await;
    let second = world.order("edge", &nameless("c-2")).await;
    assert_ne!(first.worker_id, second.worker_id);
    world.settled().await;
    assert_eq!(world.order("edge", &nameless("c-2")).await, second);
    assert_eq!(world.order("edge", &nameless("c-1")).await, first);
}

#[tokio::test]
async fn an_outcome_is_found_though_its_host_is_another_command_s_since() {
    let world = World::new("[pools.edge]\nprovider = \"static\"\nhosts = [{ id = \"a\" }]\n").await;
    let _replica = world.replica().await;
    let first = world.order("edge", &nameless("c-1")).await;
    world.order("edge", &terminate("t-1", "a")).await;
    let second = world.order("edge", &nameless("c-2")).await;
    assert_eq!((first.worker_id.as_str(), second.worker_id.as_str()), ("a", "a"));
    world.settled().await;
    assert_eq!(world.order("edge", &nameless("c-1")).await, first);
    // The same from the command line, which knows the hosts by the settings and asks the view.
    let said = world.run(&["provision", "edge", "--command-id", "c-2", "--wait"]).await;
    assert_eq!(said.code, Some(0), "{said:?}");
}

#[cfg(feature = "crash-points")]
#[tokio::test]
async fn a_replica_that_dies_while_it_waits_loses_nothing() {
    let world = World::new(LOAD).await;
    let doomed = world.doomed(enlist::crash::CrashPoint::OutcomeStored).await;
    let mut lost = world.client.subscribe("lost.>").await.unwrap();
    let subject = format!("{}.srv.provision.load", world.prefix);
    let reply = format!("lost.{}", world.prefix);
    world.client.publish_with_reply(subject, reply.clone(), provision("c-1", "w-1").body().into()).await.unwrap();
    let (code, said) = doomed.exit().await;
    assert_eq!(code, None, "{said}");
    let _other = world.replica().await;
    let outcome = world.order("load", &provision("c-1", "w-1")).await;
    assert_eq!((outcome.state.as_str(), outcome.rev), ("registered", 3));
    assert_eq!(world.states("w-1").await, ["provisioning", "provisioned", "registered"]);
    // The first caller heard it from the dying replica, or nothing; never anything else.
    if let Some(Some(heard)) = lost.next().now_or_never() {
        assert_eq!(event::decode(&heard.payload).unwrap(), outcome);
    }
}

#[tokio::test]
async fn workers_are_read_one_by_one_and_page_by_page() {
    let world = World::new(LOAD).await;
    let _replica = world.replica().await;
    for n in 0..7 {
        world.order("load", &provision(&format!("c-{n}"), &format!("w-{n}"))).await;
    }
    world.order("load", &terminate("c-7", "w-3")).await;
    let get = world.until("the view to have it", async || {
        let answer = world.ask("get", r#"{"pool":"load","worker_id":"w-3"}"#).await;
        failure(&answer).is_none().then(|| event::decode(&answer.payload).unwrap()).filter(|one| one.state.is_final())
    });
    assert_eq!(get.await.worker_id.as_str(), "w-3");
    let (code, text) = failure(&world.ask("get", r#"{"pool":"load","worker_id":"w-9"}"#).await).unwrap();
    assert!(code == 404 && text.contains("load/w-9"), "{code} {text}");

    let (mut names, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let query = json!({"pool": "load", "states": ["registered"], "limit": 4, "after": after});
        let page = WorkersReply::decode(&world.ask("list", query.to_string()).await.payload).unwrap();
        names.extend(page.workers.iter().map(|worker| worker.worker_id.to_string()));
        (after, pages) = (page.next, pages + 1);
        if after.is_none() {
            break;
        }
    }
    assert_eq!((names, pages), (["w-0", "w-1", "w-2", "w-4", "w-5", "w-6"].map(String::from).to_vec(), 2));
    let all = WorkersReply::decode(&world.ask("list", "").await.payload).unwrap();
    assert_eq!((all.workers.len(), all.next), (7, None));
    for bad in [r#"{"limit":0}"#, r#"{"stats":["lost"]}"#, r#"{"states":["gone"]}"#, "[]", r#"{"pool":"A B"}"#] {
        assert_eq!(failure(&world.ask("list", bad).await).unwrap().0, 400, "{bad}");
    }
}

#[tokio::test]
async fn a_drain_that_is_asked_for_is_answered_and_ends_one_replica_as_a_signal_would() {
    let world = World::new(&format!("{LOAD}delay = \"300ms\"\n")).await;
    let first = world.child().await;
    let id = world.services("PING", 1).await.remove(0)["id"].as_str().unwrap().to_owned();
    let other = world.replica().await;
    let command = provision("c-1", "w-1");
    let (asked, said) = tokio::join!(world.order("load", &command), async {
        world.reaches("w-1", "provisioning").await;
        DrainReply::decode(&world.ask(&format!("drain.{id}"), "").await.payload).unwrap()
    });
    assert_eq!((asked.state.as_str(), said), ("registered", DrainReply { instance_id: id, within_ms: 30_000 }));
    let (code, log) = first.exit().await;
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("asked over NATS to drain"), "{log}");
    assert_eq!(world.order("load", &provision("c-2", "w-2")).await.state.as_str(), "registered");
    assert!(!other.drain_asked().is_cancelled());
}

#[tokio::test]
async fn requests_that_wait_when_a_replica_drains_are_told_to_ask_another() {
    let world = World::new(&format!("{LOAD}delay = \"1h\"\n")).await;
    let mut config = world.config();
    config.limits.drain = Duration::from_millis(200);
    let replica = world.replica_of(&config).await;
    let command = nameless("c-1");
    let asking = world.refused("load", &command);
    let draining = async {
        world.until("a claim", async || world.log().await.pop()).await;
        replica.drain().await;
    };
    let ((code, text), ()) = tokio::join!(asking, draining);
    assert!(code == 503 && text.contains("same command_id"), "{code} {text}");
}

#[tokio::test]
async fn a_replica_that_may_not_be_a_service_takes_commands_and_says_so_once() {
    for denied in ["$SRV.>", "*.srv.>"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nats.conf");
        let users = format!(
            r#"{{ user: a, password: b, permissions: {{ subscribe: {{ deny: ["{denied}"] }} }} }}, {{ user: t, password: t }}"#
        );
        // Who comes without a name, as the test itself does, may do all.
        std::fs::write(&path, format!("authorization {{ users = [{users}] }}\nno_auth_user: t\n")).unwrap();
        let broker = std::sync::Arc::new(Broker::process_with(&["-c", path.to_str().unwrap()]).await);
        let world = World::on(broker, LOAD).await;
        let url = world.broker.url().replace("nats://", "nats://a:b@");
        let mut child = world.child_with(&[("NATS_URL", &url)]).await;
        let line = child.line("no NATS service").await;
        assert!(line.contains("Permissions Violation for Subscription"), "{line}");
        world.send("load", &provision("c-1", "w-1")).await;
        world.reaches("w-1", "registered").await;
        child.terminate();
        let (code, log) = child.exit().await;
        assert_eq!((code, log.matches("no NATS service").count()), (Some(0), 1), "{log}");
    }
}
