//! Starts that cannot be: one clear message and the exit code of section 6.

use std::collections::BTreeMap;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

use crate::broker::{Broker, free_port};
use crate::world::{Child, LOAD, World};

/// A start against `url`: the exit code, and what was said beside the log.
async fn start_against(url: &str) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("enlist.toml");
    std::fs::write(&path, "[pools.load]\nprovider = \"null\"\n").unwrap();
    let env =
        BTreeMap::from([("NATS_URL", url), ("ENLIST_HTTP_LISTEN", "127.0.0.1:0")].map(|(n, v)| (n.into(), v.into())));
    let (code, said) = Child::spawn(&path, env).exit().await;
    let plain: Vec<&str> = said.lines().filter(|line| !line.starts_with('{')).collect();
    assert_eq!(plain.len(), 1, "one clear message: {said}");
    (code, plain[0].to_owned())
}

/// What greets like a nats-server and answers a ping, and can do nothing else.
async fn greeter(info: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (read, mut write) = stream.into_split();
            write.write_all(format!("INFO {info}\r\n").as_bytes()).await.unwrap();
            let mut lines = BufReader::new(read).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if line.starts_with("PING") && write.write_all(b"PONG\r\n").await.is_err() {
                    break;
                }
            }
        }
    });
    url
}

#[tokio::test]
async fn a_nats_that_cannot_be_reached_ends_the_start_with_69() {
    // Port 1 needs privileges to listen on, so that nobody does.
    let (code, said) = start_against("nats://bob:hunter2@127.0.0.1:1").await;
    assert_eq!(code, Some(69), "{said}");
    assert!(said.contains("cannot connect to NATS at nats://***@127.0.0.1:1") && !said.contains("hunter2"), "{said}");
}

#[tokio::test]
async fn credentials_that_do_not_fit_end_the_start_with_69() {
    let broker = Broker::process_with(&["--user", "a", "--pass", "b"]).await;
    let (code, said) = start_against(&broker.url().replace("nats://", "nats://a:wrong@")).await;
    assert_eq!(code, Some(69), "{said}");
    assert!(said.contains("authorization") && !said.contains("wrong"), "{said}");
}

#[tokio::test]
async fn credentials_in_the_url_are_used() {
    let broker = Broker::process_with(&["--user", "a", "--pass", "b@c"]).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("enlist.toml");
    std::fs::write(&path, "[pools.load]\nprovider = \"null\"\n").unwrap();
    let url = broker.url().replace("nats://", "nats://a:b%40c@");
    let env = [("NATS_URL", &*url), ("ENLIST_HTTP_LISTEN", "127.0.0.1:0")].map(|(n, v)| (n.into(), v.into()));
    let mut child = Child::spawn(&path, env.into());
    child.line("taking commands").await;
    child.terminate();
    assert_eq!(child.exit().await.0, Some(0));
}

#[tokio::test]
async fn a_server_that_is_too_old_ends_the_start_with_69() {
    let url = greeter(r#"{"server_id":"A","server_name":"a","version":"2.12.7","proto":1,"headers":true,"jetstream":true,"max_payload":1048576}"#).await;
    let (code, said) = start_against(&url).await;
    assert_eq!(code, Some(69), "{said}");
    assert!(said.contains("is 2.12.7; enlist needs 2.12.8 or later"), "{said}");
}

#[tokio::test]
async fn a_server_without_jetstream_ends_the_start_with_69() {
    let url = greeter(
        r#"{"server_id":"A","server_name":"a","version":"2.15.1","proto":1,"headers":true,"max_payload":1048576}"#,
    )
    .await;
    let (code, said) = start_against(&url).await;
    assert_eq!(code, Some(69), "{said}");
    assert!(said.contains("has no JetStream"), "{said}");
}

/// Starts a replica as a user who may not publish to `denied`.
async fn start_without(denied: &str) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nats.conf");
    let user = format!(r#"{{ user: a, password: b, permissions: {{ publish: {{ deny: ["{denied}"] }} }} }}"#);
    std::fs::write(&path, format!("authorization {{ users = [{user}] }}")).unwrap();
    let broker = Broker::process_with(&["-c", path.to_str().unwrap()]).await;
    start_against(&broker.url().replace("nats://", "nats://a:b@")).await
}

#[tokio::test]
async fn a_missing_permission_ends_the_start_and_is_named() {
    let (code, said) = start_without("$JS.API.STREAM.CREATE.>").await;
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("cannot create stream ENLIST_EVENTS") && said.contains("$JS.API.STREAM.CREATE"), "{said}");
}

#[tokio::test]
async fn a_permission_that_only_commands_need_is_missed_at_the_start_too() {
    for denied in ["enlist.log.>", "enlist.dead.>", "enlist.cmd.>", "$JS.ACK.>", "$JS.API.STREAM.PURGE.>"] {
        let (code, said) = start_without(denied).await;
        assert_eq!(code, Some(78), "{said}");
        let subject = denied.trim_end_matches('>');
        assert!(said.contains(&format!("cannot publish to {subject}")) && said.contains("Permissions"), "{said}");
    }
}

#[tokio::test]
async fn brokers_without_a_leader_are_away_and_nobody_s_mistake() {
    let [own, other] = [free_port(), free_port()].map(|port| format!("nats://127.0.0.1:{port}"));
    // The other one of this cluster is never there.
    let flags = ["--cluster_name", "alone", "--cluster", &own, "--routes", &other];
    let broker = Broker::process_with(&flags).await;
    let (code, said) = start_against(broker.url()).await;
    assert_eq!(code, Some(69), "{said}");
    assert!(said.contains("cannot look up stream ENLIST_EVENTS"), "{said}");
}

/// Whoever has it may go, and systemd starts nothing again after 78.
#[tokio::test]
async fn an_address_in_use_ends_the_start_with_69() {
    let world = World::new(LOAD).await;
    let first = world.replica().await;
    let mut env = world.env();
    env.insert("ENLIST_HTTP_LISTEN".into(), first.address().to_string());
    std::fs::write(world.path("second.toml"), LOAD.replace("{dir}", "/tmp")).unwrap();
    let (code, said) = Child::spawn(&world.path("second.toml"), env).exit().await;
    assert_eq!(code, Some(69), "{said}");
    assert!(said.contains("[http] listen, or ENLIST_HTTP_LISTEN"), "{said}");
}
