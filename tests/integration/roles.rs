//! The configuration that `enlist auth init` writes: each role can do its work under it, and nothing else.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_nats::jetstream::{self, consumer};
use async_nats::{Client, ConnectOptions, Event, HeaderMap};
use enlist::config::ExternalConfig;
use futures_util::StreamExt as _;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::broker::Broker;
use crate::external::{Flaw, Program};
use crate::world::{Child, says};

const PATIENCE: Duration = Duration::from_secs(30);

const SETTINGS: &str = r#"
[http]
listen = "127.0.0.1:0"
[sweep]
interval = "12h"
[pools.load]
provider = "null"
state_file = "{dir}/null"
max_workers = 50
[pools.other]
provider = "null"
[pools.full]
provider = "null"
max_workers = 1
[pools.ext]
provider = "nats"
name = "made"
command = ["sleep", "600"]
[pools.far]
provider = "nats"
name = "made"
subject_prefix = "elsewhere"
command = ["sleep", "600"]
"#;

/// A fleet on a server of its own, under the configuration as it was written.
struct Guarded {
    dir: TempDir,
    broker: Broker,
}

impl Guarded {
    async fn new() -> Self {
        let dir = TempDir::with_prefix("enlist-roles-").unwrap();
        let settings = SETTINGS.replace("{dir}", dir.path().to_str().unwrap());
        std::fs::write(dir.path().join("enlist.toml"), settings).unwrap();
        let auth = dir.path().join("auth");
        let args = ["auth", "init", "--dir", auth.to_str().unwrap()];
        let (code, said) = says(&dir.path().join("enlist.toml"), BTreeMap::new(), &args).await;
        assert_eq!(code, Some(0), "{said}");
        assert!(!said.contains("SU"), "no seed is shown: {said}");
        let (code, said) = says(&dir.path().join("enlist.toml"), BTreeMap::new(), &args).await;
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("nothing is overwritten"), "{said}");
        // The harness says where the store is, and the server takes that once only.
        let written = std::fs::read_to_string(auth.join("nats-server.conf")).unwrap();
        let (own, rest): (Vec<_>, Vec<_>) = written.lines().partition(|line| line.starts_with("jetstream {"));
        assert_eq!(own.len(), 1, "{written}");
        std::fs::write(dir.path().join("nats.conf"), rest.join("\n")).unwrap();
        let broker = Broker::process_with(&["-c", dir.path().join("nats.conf").to_str().unwrap()]).await;
        Self { dir, broker }
    }

    fn key(&self, role: &str) -> PathBuf {
        self.dir.path().join("auth").join(format!("{role}.nk"))
    }

    fn settings(&self) -> PathBuf {
        self.dir.path().join("enlist.toml")
    }

    /// What a role's environment sets.
    fn env(&self, role: &str) -> BTreeMap<String, String> {
        [
            ("NATS_URL", self.broker.url().to_owned()),
            ("NATS_NKEY", self.key(role).to_str().unwrap().to_owned()),
            ("NATS_INBOX_PREFIX", format!("_INBOX_{role}")),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// A verb as a role runs it: it has to succeed, and the server has nothing to complain about.
    async fn done(&self, role: &str, args: &[&str]) -> String {
        let mut env = self.env(role);
        // With what a verb keeps to itself, or tells in words of its own.
        env.insert("ENLIST_LOG".to_owned(), "warn,async_nats=error".to_owned());
        let (code, said) = timeout(2 * PATIENCE, says(&self.settings(), env, args)).await.expect("an end");
        assert_eq!(code, Some(0), "{role} {args:?}: {said}");
        assert!(!said.contains("ermission"), "{role} {args:?}: {said}");
        said
    }

    /// A verb as a role runs it that may not: its exit code, and what it has said.
    async fn tries(&self, role: &str, args: &[&str]) -> (Option<i32>, String) {
        timeout(PATIENCE, says(&self.settings(), self.env(role), args)).await.expect("an end")
    }

    async fn client(&self, role: &str) -> Role {
        let seed = std::fs::read_to_string(self.key(role)).unwrap();
        let (tell, complaints) = mpsc::unbounded_channel();
        let client = ConnectOptions::with_nkey(seed.trim().to_owned())
            .custom_inbox_prefix(format!("_INBOX_{role}"))
            .event_callback(move |event| {
                if let Event::ServerError(error) = event {
                    let _ = tell.send(error.to_string());
                }
                std::future::ready(())
            })
            .connect(self.broker.url())
            .await
            .unwrap();
        Role { name: role.to_owned(), client, complaints }
    }
}

struct Role {
    name: String,
    client: Client,
    complaints: mpsc::UnboundedReceiver<String>,
}

impl Role {
    /// The server says that this may not be published, and where.
    async fn may_not_publish(&mut self, subject: &str) {
        self.client.publish(subject.to_owned(), "{}".into()).await.unwrap();
        self.complained("Publish", subject).await;
    }

    async fn may_not_subscribe(&mut self, subject: &str) {
        let _heard = self.client.subscribe(subject.to_owned()).await.unwrap();
        self.complained("Subscription", subject).await;
    }

    async fn complained(&mut self, what: &str, subject: &str) {
        let said = timeout(PATIENCE, self.complaints.recv()).await;
        let said = said.unwrap_or_else(|_| panic!("{} may: {what} {subject}", self.name)).unwrap();
        let (said, what, subject) = (said.to_lowercase(), what.to_lowercase(), subject.to_lowercase());
        assert!(said.contains(&what) && said.contains(&format!("\"{subject}\"")), "{what} {subject}: {said}");
    }

    /// Whatever it has done was permitted.
    fn has_no_complaint(&mut self) {
        let said = self.complaints.try_recv().ok();
        assert_eq!(said, None, "{}", self.name);
    }
}

/// A scheduler that accepts everybody, as the role of one.
async fn demo_scheduler(guarded: &Guarded) -> tokio::process::Child {
    use tokio::io::AsyncBufReadExt as _;
    let mut process = tokio::process::Command::new(env!("CARGO_BIN_EXE_enlist"))
        .args(["demo-scheduler", "--log-format", "json"])
        .env_clear()
        .envs(guarded.env("scheduler"))
        .current_dir(guarded.dir.path())
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = tokio::io::BufReader::new(process.stderr.take().unwrap()).lines();
    let listens = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            assert!(!line.contains("ermission"), "{line}");
            if line.contains("listens") {
                return;
            }
        }
        panic!("it has ended");
    };
    timeout(PATIENCE, listens).await.expect("a scheduler");
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    process
}

/// What lists the fleet, its log or its dead letters, as the operator and through the replica.
async fn reads_in_batches(guarded: &Guarded) {
    let said = guarded.done("operator", &["ls"]).await;
    assert!(said.contains("other"), "{said}");
    for args in [&["show", "load", "w-1"][..], &["top", "--once"], &["dead", "ls"]] {
        guarded.done("operator", args).await;
    }
    watches_from_the_log(guarded).await;
    let operator = guarded.client("operator").await;
    let answer = operator.client.request("enlist.srv.list", r#"{"limit":10}"#.into()).await.unwrap();
    let answer = String::from_utf8_lossy(&answer.payload).into_owned();
    assert!(answer.contains("w-1"), "{answer}");
}

/// Who sweeps or adopts from here reads all of a pool's log, as a replica does.
async fn looks_as_a_replica_or_is_told_why(guarded: &Guarded) {
    for args in [&["sweep", "load", "--dry-run"][..], &["adopt", "load", "--dry-run"]] {
        let (code, said) = says(&guarded.settings(), guarded.env("operator"), args).await;
        assert!(code == Some(1) && said.contains("ENLIST_EVENTS") && said.contains("what a replica is"), "{said}");
        assert!(!said.contains("the event log cannot be read"), "{said}");
        let (code, said) = says(&guarded.settings(), guarded.env("replica"), args).await;
        assert!(code == Some(0), "{said}");
    }
}

async fn watches_from_the_log(guarded: &Guarded) {
    use tokio::io::AsyncBufReadExt as _;
    let mut process = tokio::process::Command::new(env!("CARGO_BIN_EXE_enlist"))
        .args(["watch", "--after", "0", "-o", "ndjson"])
        .env_clear()
        .envs(guarded.env("operator"))
        .current_dir(guarded.dir.path())
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = tokio::io::BufReader::new(process.stdout.take().unwrap()).lines();
    let first = timeout(PATIENCE, lines.next_line()).await.expect("an event").unwrap().expect("no end");
    assert!(first.contains("provisioning"), "{first}");
}

/// A provision that its pool had no room for is put back by the replica's role, which alone may take its record away; the
/// pool's publisher can read the letter.
async fn replays_what_was_refused(guarded: &Guarded) {
    guarded.done("publisher-full", &["provision", "full", "--id", "f-1", "--wait"]).await;
    let mut publisher = guarded.client("publisher-full").await;
    let mut letters = publisher.client.subscribe("enlist.dead.full.*.*").await.unwrap();
    publisher.client.flush().await.unwrap();
    let command = r#"{"command_id":"c-full"}"#;
    publisher.client.publish("enlist.cmd.full.provision", command.into()).await.unwrap();
    timeout(PATIENCE, letters.next()).await.expect("a letter").unwrap();
    // A subscriber hears of it before it is stored.
    let subject = "$JS.API.DIRECT.GET.ENLIST_DEAD.enlist.dead.full.provision.c-full";
    let stored = async {
        loop {
            let answer = publisher.client.request(subject, "".into()).await.unwrap();
            if answer.status.is_none() {
                break answer;
            }
        }
    };
    let letter = timeout(PATIENCE, stored).await.expect("a stored letter");
    assert_eq!(letter.payload.as_ref(), command.as_bytes());
    publisher.has_no_complaint();

    guarded.done("publisher-full", &["terminate", "full", "f-1", "--wait"]).await;
    let args = ["dead", "replay", "--pool", "full", "--yes"];
    let (code, said) = says(&guarded.settings(), guarded.env("operator"), &args).await;
    assert_eq!(code, Some(1), "only the replica's role may purge: {said}");
    let said = guarded.done("replica", &args).await;
    assert!(said.contains("the record that refused it"), "{said}");
    guarded.done("operator", &["dead", "ls", "full"]).await;
}

#[tokio::test]
async fn each_role_can_do_its_work_under_the_written_configuration() {
    let guarded = Guarded::new().await;
    let _scheduler = demo_scheduler(&guarded).await;
    let mut provider = guarded.client("provider-made").await;
    let answer_timeout = Duration::from_secs(5);
    let made = ExternalConfig { name: "made".into(), subject_prefix: "provider".into(), answer_timeout };
    let _program = Program::start(&provider.client, &made, Flaw::None).await;
    // One key for both of its prefixes.
    let far = ExternalConfig { subject_prefix: "elsewhere".into(), ..made };
    let _far = Program::start(&provider.client, &far, Flaw::None).await;
    let mut replica = Child::spawn(&guarded.settings(), guarded.env("replica"));
    replica.line("taking commands").await;

    let mut subscriber = guarded.client("subscriber").await;
    let mut feed = subscriber.client.subscribe("enlist.events.*.*.*").await.unwrap();
    subscriber.client.flush().await.unwrap();

    let publisher = "publisher-load";
    guarded.done(publisher, &["provision", "load", "--id", "w-1", "--wait"]).await;
    guarded.done(publisher, &["terminate", "load", "w-1", "--wait"]).await;
    // Over before it is asked for: the record is looked up.
    guarded.done(publisher, &["terminate", "load", "w-1", "--wait"]).await;
    // Refused before it is asked for, and so long ago that the broker takes it for a new one: the letter is looked up.
    let sender = guarded.client(publisher).await;
    let mut letters = sender.client.subscribe("enlist.dead.load.*.*").await.unwrap();
    let body = r#"{"command_id":"r-1","spec":{"image":"x"}}"#;
    sender.client.publish("enlist.cmd.load.provision", body.into()).await.unwrap();
    timeout(PATIENCE, letters.next()).await.expect("a dead letter").unwrap();
    let again = ["provision", "load", "--command-id", "r-1", "--set", "image=x", "--wait"];
    let (code, said) =
        timeout(PATIENCE, says(&guarded.settings(), guarded.env(publisher), &again)).await.expect("an end");
    assert!(code == Some(1) && said.contains("not_allowed") && !said.contains("ermission"), "{said}");
    guarded.done(publisher, &["pool", "load", "1"]).await;
    // Whether a size was overtaken only the log tells, which a publisher does not read.
    guarded.done("operator", &["pool", "load", "2", "--wait"]).await;
    guarded.done("publisher-ext", &["provision", "ext", "--id", "far-1", "--wait"]).await;
    guarded.done("publisher-ext", &["terminate", "ext", "far-1", "--wait"]).await;
    guarded.done("publisher-far", &["provision", "far", "--wait"]).await;
    guarded.done("operator", &["sweep"]).await;
    guarded.done("operator", &["provision", "other", "--wait"]).await;
    // Those who look themselves do it as the replica does.
    guarded.done("replica", &["sweep", "load", "ext", "far", "--dry-run"]).await;
    guarded.done("replica", &["adopt", "load", "ext", "far", "--dry-run"]).await;
    reads_in_batches(&guarded).await;
    looks_as_a_replica_or_is_told_why(&guarded).await;
    replays_what_was_refused(&guarded).await;

    let first = timeout(PATIENCE, feed.next()).await.expect("an event").unwrap();
    assert_eq!(first.subject.as_str(), "enlist.events.load.w-1.provisioning");
    let context = jetstream::new(subscriber.client.clone());
    let stream = context.get_stream("ENLIST_EVENTS").await.unwrap();
    let config = consumer::pull::Config { durable_name: Some("audit".into()), ..Default::default() };
    let durable = stream.create_consumer(config).await.unwrap();
    let mut messages = durable.fetch().max_messages(5).messages().await.unwrap();
    while let Some(message) = messages.next().await {
        message.unwrap().double_ack().await.unwrap();
    }
    let view = context.get_key_value("enlist_workers").await.unwrap();
    assert!(view.get("load.w-1").await.unwrap().is_some());
    subscriber.has_no_complaint();
    provider.has_no_complaint();

    replica.terminate();
    let (code, said) = replica.exit().await;
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("ermission"), "{said}");
}

/// The server answers nobody whom it does not let: what it says to the connection is told, once, and not waited out.
async fn reads_nothing_and_is_told_why(guarded: &Guarded) {
    let whole = "$JS.API.DIRECT.GET.KV_enlist_workers";
    let refused = [
        ("publisher-load", &["ls", "load"][..], whole),
        ("publisher-load", &["show", "load", "w-1"], "$JS.API.DIRECT.GET.ENLIST_EVENTS"),
        ("publisher-load", &["dead", "ls", "load"], "$JS.API.DIRECT.GET.ENLIST_DEAD"),
        ("publisher-load", &["dead", "purge", "--all", "--yes"], "$JS.API.STREAM.INFO.ENLIST_DEAD"),
        ("publisher-load", &["top", "--once"], "$JS.API.STREAM.NAMES"),
        ("scheduler", &["watch", "load"], "enlist.events.load.*.*"),
    ];
    for (role, args, subject) in refused {
        let (code, said) = guarded.tries(role, args).await;
        let (told, doctor) = (format!("\"{subject}\""), "`enlist doctor`");
        assert!(code == Some(1) && said.contains(&told) && said.contains(doctor), "{role} {args:?}: {said}");
        assert!(!said.contains("POOL") && !said.contains("in time"), "{role} {args:?}: {said}");
    }
}

/// What the server says against it stands in words of ours alone, and against a thousand commands as against one.
async fn sends_nothing_and_is_told_why(guarded: &Guarded) {
    for count in ["1", "9"] {
        let args = ["provision", "other", "--count", count, "--wait"];
        let (code, said) = guarded.tries("publisher-load", &args).await;
        let why = "and has complained: nats: Permissions Violation for Publish to \"enlist.cmd.other.provision\"";
        assert!(code == Some(1) && said.contains(why), "{args:?}: {said}");
        assert!(!said.contains('{') && !said.contains("no replica has begun"), "{args:?}: {said}");
        assert!(said.matches("the broker complains: ").count() <= 5, "{args:?}: {said}");
    }
}

#[tokio::test]
async fn what_is_not_a_role_s_work_is_refused() {
    let guarded = Guarded::new().await;
    let mut replica = Child::spawn(&guarded.settings(), guarded.env("replica"));
    replica.line("taking commands").await;
    reads_nothing_and_is_told_why(&guarded).await;
    sends_nothing_and_is_told_why(&guarded).await;

    let everybody_else = ["publisher-load", "subscriber", "scheduler", "operator", "provider-made"];
    for name in everybody_else {
        let mut role = guarded.client(name).await;
        for subject in [
            "enlist.log.load.w-1.registered",
            "enlist.events.load.w-1.registered",
            "$KV.enlist_workers.load.w-1",
            "enlist.dead.load.provision.c-1",
            "$JS.API.STREAM.PURGE.ENLIST_EVENTS",
            "$JS.API.STREAM.PURGE.ENLIST_CMD_load",
            "$JS.API.STREAM.PURGE.KV_enlist_workers",
            "$JS.API.STREAM.DELETE.ENLIST_EVENTS",
            "$JS.API.STREAM.UPDATE.ENLIST_CMD_load",
            "$JS.API.STREAM.CREATE.MINE",
            "$JS.API.STREAM.MSG.DELETE.ENLIST_EVENTS",
            "$JS.API.CONSUMER.MSG.NEXT.ENLIST_CMD_other.provision",
            "$JS.API.CONSUMER.DELETE.ENLIST_CMD_load.provision",
            "$JS.API.CONSUMER.CREATE.ENLIST_CMD_other",
            // A push consumer on these could deliver to the log.
            "$JS.API.CONSUMER.CREATE.KV_enlist_workers",
            "$JS.API.CONSUMER.CREATE.KV_enlist_workers.mine",
            "$JS.API.CONSUMER.CREATE.ENLIST_DEAD.mine",
            "$JS.ACK.ENLIST_CMD_load.provision.1.1.1.1.1",
            "scheduler.workers.register",
            "provider.made.create",
            "_INBOX_replica.x",
        ] {
            role.may_not_publish(subject).await;
        }
        for subject in [">", "enlist.cmd.>", "enlist.cmd.other.provision", "_INBOX_replica.>", "_INBOX.>"] {
            role.may_not_subscribe(subject).await;
        }
    }
    for name in ["publisher-load", "subscriber", "scheduler", "provider-made"] {
        let mut role = guarded.client(name).await;
        for subject in [
            "enlist.cmd.other.provision",
            "enlist.cmd.load.sweep",
            "$JS.API.STREAM.MSG.GET.ENLIST_CMD_other",
            "$JS.API.STREAM.MSG.GET.ENLIST_CMD_load",
            "$JS.API.STREAM.PURGE.ENLIST_DEAD",
            "enlist.srv.drain.one",
        ] {
            role.may_not_publish(subject).await;
        }
    }
    let settings = guarded.settings();
    let (code, said) = says(&settings, guarded.env("scheduler"), &["provision", "load", "--wait"]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("has complained: ") && said.contains("enlist.cmd.load.provision"), "{said}");
    let mut publisher = guarded.client("publisher-load").await;
    publisher.may_not_subscribe("enlist.events.other.*.*").await;
    publisher.may_not_publish("$JS.API.DIRECT.GET.KV_enlist_workers.$KV.enlist_workers.other.w-1").await;
    publisher.may_not_publish("$JS.API.DIRECT.GET.ENLIST_DEAD.enlist.dead.other.provision.c-1").await;
    publisher.may_not_publish("$JS.API.DIRECT.GET.ENLIST_DEAD").await;
    let mut operator = guarded.client("operator").await;
    operator.may_not_publish("$JS.API.CONSUMER.CREATE.ENLIST_EVENTS.mine").await;
    // The log itself is not delivered to the log.
    let subscriber = guarded.client("subscriber").await;
    let query = r#"{"stream_name":"ENLIST_EVENTS","config":{"name":"mine","ack_policy":"none",
        "deliver_subject":"enlist.log.load.w-1.terminated"}}"#;
    let answer = subscriber.client.request("$JS.API.CONSUMER.CREATE.ENLIST_EVENTS.mine", query.into()).await.unwrap();
    let answer = String::from_utf8_lossy(&answer.payload).into_owned();
    assert!(answer.contains("forms a cycle"), "{answer}");
    let mut scheduler = guarded.client("scheduler").await;
    scheduler.may_not_subscribe("enlist.events.>").await;
    // The replica itself is one of its fleet, and not the server's master.
    let mut own = guarded.client("replica").await;
    for subject in
        ["enlist.events.load.w-1.registered", "$JS.API.STREAM.DELETE.ENLIST_EVENTS", "$JS.API.STREAM.CREATE.X"]
    {
        own.may_not_publish(subject).await;
    }
    own.may_not_subscribe("_INBOX_operator.>").await;
    replica.kill().await;

    // What the permissions let through the stream refuses: no roll-up, no time to live, nothing beyond a command's size.
    let context = jetstream::new(publisher.client.clone());
    for (name, value) in [("Nats-Rollup", "sub"), ("Nats-Rollup", "all"), ("Nats-TTL", "1s")] {
        let mut headers = HeaderMap::new();
        headers.insert(name, value);
        let sent = context.publish_with_headers("enlist.cmd.load.provision", headers, "{}".into()).await.unwrap();
        let error = sent.await.expect_err("it is refused");
        assert!(
            error.to_string().to_lowercase().contains(if name == "Nats-TTL" { "ttl" } else { "rollup" }),
            "{error:?}"
        );
    }
    publisher.has_no_complaint();
    let operator = guarded.client("operator").await;
    let queue = jetstream::new(operator.client).get_stream("ENLIST_CMD_load").await.unwrap();
    assert_eq!(queue.cached_info().state.messages, 0, "nothing of it is stored");
}

#[tokio::test]
async fn who_has_no_key_is_not_let_in() {
    let guarded = Guarded::new().await;
    assert!(async_nats::connect(guarded.broker.url()).await.is_err());
    let stranger = nkeys::KeyPair::new_from_raw(nkeys::KeyPairType::User, rand::random()).unwrap();
    let connected = ConnectOptions::with_nkey(stranger.seed().unwrap()).connect(guarded.broker.url()).await;
    assert!(connected.is_err());
    let written = std::fs::read_to_string(Path::new(&guarded.dir.path().join("auth/nats-server.conf"))).unwrap();
    let seeds = ["replica", "operator"].map(|role| std::fs::read_to_string(guarded.key(role)).unwrap());
    assert!(seeds.iter().all(|seed| seed.starts_with("SU") && !written.contains(seed.trim())));
}
