//! `enlist doctor`, `enlist drain` and `enlist top`: what an operator asks first.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_nats::jetstream::stream;
use enlist::bus::connection;
use enlist::bus::queues::queues;
use enlist::bus::requests::Requests;
use enlist::domain::{Pool, Verb};
use futures_util::{StreamExt as _, TryStreamExt as _};
use serde_json::Value;

use crate::broker::Broker;
use crate::world::{LOAD, World, provision};

const BY_HAND: &str = "[sweep]\ninterval = \"12h\"\n";

/// A broker whose user `weak` may do all but these, and whose user `strong` may do everything.
fn users(deny: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nats.conf");
    let users = format!(
        "authorization {{ users = [ {{ user: strong, password: s }},\n\
         {{ user: weak, password: w, permissions: {{ publish: {{ allow: \">\", deny: [{deny}] }} }} }} ] }}\n"
    );
    std::fs::write(&path, users).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (dir, path)
}

impl World {
    /// The lines of `enlist doctor`, by check, and its exit code.
    async fn examined(&self, args: &[&str]) -> (Option<i32>, Vec<Value>) {
        let said = self.run(&[&["doctor", "-o", "json"], args].concat()).await;
        let lines: Vec<Value> = serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {said:?}"));
        (said.code, lines)
    }
}

/// Those that do not say "ok", in short.
fn bad(lines: &[Value]) -> Vec<String> {
    let bad = lines.iter().filter(|line| line["result"] != "ok");
    bad.map(|line| format!("{} {}", line["result"].as_str().unwrap(), line["check"].as_str().unwrap())).collect()
}

#[tokio::test]
async fn a_healthy_fleet_is_told_so() {
    let world = World::new(&format!("{BY_HAND}{LOAD}")).await;
    world.scheduler.list().await;
    let _replica = world.replica().await;
    let (code, lines) = world.examined(&[]).await;
    assert_eq!((code, bad(&lines)), (Some(0), vec![]), "{lines:#?}");
    let told = |part: &str| lines.iter().any(|line| line["check"].as_str().unwrap().contains(part));
    for part in [
        "server version",
        "disk space",
        "clocks",
        "duplicate window",
        "stream",
        "consumer",
        "may publish to",
        "may subscribe to",
        "scheduler at",
        "provider null of pool load",
        "replicas of pool load",
    ] {
        assert!(told(part), "{part} is missing: {lines:#?}");
    }
    let said = world.run(&["doctor"]).await;
    assert!(said.code == Some(0) && said.out.contains("checks are well\n"), "{said:?}");
}

#[tokio::test]
async fn a_view_that_was_made_from_an_earlier_log_is_told() {
    let world = World::new(&format!("{BY_HAND}{LOAD}")).await;
    world.scheduler.list().await;
    let replica = world.replica().await;
    world.send("load", &provision("c-1", "w-1")).await;
    let shown = async || world.view("load", "w-1").await.filter(|shown| shown.state.as_str() == "registered");
    world.until("the view to have come so far", shown).await;
    world.log_anew().await;
    let view = world.subjects.view_stream();
    let (code, lines) = world.examined(&[]).await;
    assert_eq!((code, bad(&lines)), (Some(1), vec![format!("fail log of {view}")]), "{lines:#?}");
    // As the remedy says.
    world.jetstream.delete_stream(view).await.unwrap();
    drop(replica);
    let _replica = world.replica().await;
    assert_eq!(bad(&world.examined(&[]).await.1), Vec::<String>::new());
    world.send("load", &provision("c-2", "w-2")).await;
    world.until("the new log's workers in the view", async || world.view("load", "w-2").await).await;
}

#[tokio::test]
async fn what_is_missing_is_told_with_a_remedy() {
    let world = World::new(&format!("{BY_HAND}{LOAD}")).await;
    world.scheduler.leave().await;
    let (code, lines) = world.examined(&[]).await;
    assert_eq!(code, Some(1), "{lines:#?}");
    let bad = bad(&lines);
    let view = format!("fail stream {}", world.subjects.view_stream());
    for expected in [view.as_str(), &format!("fail scheduler at sched.{}.register", world.prefix)] {
        assert!(bad.iter().any(|line| line == expected), "{expected}: {bad:#?}");
    }
    assert!(lines.iter().all(|line| (line["result"] == "ok") == line.get("remedy").is_none()), "{lines:#?}");

    let said = world.run(&["doctor", "--nats-url", "nats://127.0.0.1:1"]).await;
    assert!(said.code == Some(1) && said.out.contains("FAIL") && said.out.contains("--nats-url"), "{said:?}");
}

#[tokio::test]
async fn a_right_that_is_missing_is_told_by_its_subject() {
    let (_dir, conf) = users("\"*.log.>\", \"$JS.API.CONSUMER.INFO.*.control\"");
    let broker = Arc::new(Broker::process_with(&["-c", &conf]).await);
    let [strong, weak] = ["strong:s@", "weak:w@"].map(|who| broker.url().replace("nats://", &format!("nats://{who}")));
    let me = async_nats::ConnectOptions::with_user_and_password("strong".into(), "s".into());
    let world = World::on_as(broker, strong, me, &format!("{BY_HAND}{LOAD}")).await;
    world.scheduler.list().await;
    let _replica = world.replica().await;
    let (code, lines) = world.examined(&["--nats-url", &weak]).await;
    let denied = format!("fail may publish to {}.log.load._.permitted", world.prefix);
    let unseen = format!("fail consumer control on {}", world.subjects.command_stream(&"load".parse().unwrap()));
    assert_eq!((code, bad(&lines)), (Some(1), vec![unseen, denied]), "{lines:#?}");
    for line in lines.iter().filter(|line| line["result"] == "fail") {
        let found = line["found"].as_str().unwrap().to_lowercase();
        assert!(found.contains("permissions violation") && !found.contains("timed out"), "waited for in vain: {line}");
    }
}

#[tokio::test]
async fn a_replica_is_drained_by_its_id() {
    let world = World::new(&format!("{BY_HAND}{LOAD}")).await;
    let said = world.run(&["drain"]).await;
    assert!(said.code == Some(0) && said.err.contains("no replica answers"), "{said:?}");
    let child = world.child().await;
    let said = world.run(&["drain", "-o", "json"]).await;
    let replicas: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(replicas.as_array().unwrap().len(), 1, "those of other fleets on the broker are not told: {said:?}");
    assert_eq!(replicas[0]["metadata"]["pools"], "load");
    let id = replicas[0]["id"].as_str().unwrap();
    // As of a variable that is not set: it would mean the one replica that there is.
    let said = world.run(&["drain", ""]).await;
    assert!(said.code == Some(64) && said.err.contains("a value is required for '[REPLICA]'"), "{said:?}");
    let said = world.run(&["drain", "nobody"]).await;
    assert!(said.code == Some(1) && said.err.contains("`enlist drain` lists them"), "{said:?}");
    let said = world.run(&["drain", &id[..8], "--wait"]).await;
    assert!(said.code == Some(0) && said.out.contains("drains") && said.out.contains("has gone after"), "{said:?}");
    let (code, said) = child.exit().await;
    assert_eq!(code, Some(0), "{said}");
}

#[tokio::test]
async fn pools_are_seen_at_a_glance() {
    let world = World::new(&format!("{BY_HAND}{LOAD}")).await;
    let replica = world.replica().await;
    world.send("load", &provision("c-1", "w-1")).await;
    world.reaches("w-1", "registered").await;
    world.settled().await;
    replica.drain().await;
    world.send("load", &provision("c-2", "w-2")).await;
    world
        .until("the worker in the view", async || {
            let said = world.run(&["top", "--once", "-o", "json"]).await;
            let pools: Value = serde_json::from_str(&said.out).unwrap();
            let pool = &pools[0];
            let seen = pool["pool"] == "load" && pool["states"]["registered"] == 1 && pool["live"] == 1;
            assert!(pool["queued"] == 1 && pool["oldest_ms"].is_u64(), "{said:?}");
            seen.then_some(())
        })
        .await;
    let said = world.run(&["top", "--once"]).await;
    assert!(said.code == Some(0) && said.out.starts_with("POOL  SIZE  LIVE"), "{said:?}");
    let said = world.run(&["top"]).await;
    assert!(said.code == Some(64) && said.err.contains("needs a terminal"), "{said:?}");
}

#[tokio::test]
async fn a_fleet_may_have_more_pools_than_the_server_names_at_once() {
    /// A page of `STREAM.NAMES` has 1,024 names.
    const POOLS: usize = 1030;
    let world = World::alone(LOAD).await;
    let of_pool = |n| {
        let pool = Pool::new(format!("p-{n}")).unwrap();
        let config = stream::Config {
            name: world.subjects.command_stream(&pool),
            subjects: vec![world.subjects.command(&pool, Verb::Provision)],
            storage: stream::StorageType::Memory,
            ..stream::Config::default()
        };
        world.jetstream.create_stream(config)
    };
    let made = futures_util::stream::iter(0..POOLS).map(of_pool).buffer_unordered(64);
    made.try_for_each(|_| std::future::ready(Ok(()))).await.unwrap();

    let connection = connection::connect(&world.config().nats, "test").await.unwrap();
    let requests = Requests::start(connection.client.clone()).await.unwrap();
    let pools = queues(&connection, &requests, &world.subjects, "$JS.API").await.unwrap();
    assert_eq!(pools.into_iter().collect::<BTreeSet<_>>().len(), POOLS);
}
