//! Every program of `examples/`, run as its reader would run it, against a real broker and a real replica.
#![allow(clippy::unwrap_used)]

#[path = "crash/replica.rs"]
mod replica;

/// The one broker harness, which lives with the integration tests.
#[path = "integration"]
mod integration {
    pub(crate) mod broker;
}

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use integration::broker::Broker;
use replica::Replica;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::OnceCell;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);

/// A fleet of its own on the shared broker: a pool `load`, and a scheduler's subjects under its prefix.
struct Fleet {
    prefix: String,
    broker: Arc<Broker>,
    client: Client,
    replica: Replica,
    dir: TempDir,
}

impl Fleet {
    async fn new(more: &str) -> Self {
        let prefix = format!("e{}", &uuid::Uuid::new_v4().simple().to_string()[..12]);
        let (broker, dir) = (Broker::shared().await, TempDir::with_prefix("enlist-examples-").unwrap());
        let settings = dir.path().join("enlist.toml");
        let text = format!(
            "prefix = \"{prefix}\"\n[nats]\nurl = \"{}\"\n[http]\nlisten = \"127.0.0.1:0\"\n[sweep]\ninterval = \"12h\"\n\
             [scheduler]\nregister = \"{prefix}.sched.register\"\nunregister = \"{prefix}.sched.unregister\"\n\
             list = \"{prefix}.sched.list\"\n[pools.load]\nprovider = \"null\"\n{more}",
            broker.url()
        );
        std::fs::write(&settings, text).unwrap();
        let replica = Replica::start(&settings, None).await;
        let client = async_nats::connect(broker.url()).await.unwrap();
        Self { prefix, broker, client, replica, dir }
    }

    /// An example, with its arguments, not yet waited for.
    fn start(&self, mut program: Command, args: &[&str]) -> Program {
        let mut child = program
            .args(args)
            .env("NATS_URL", self.broker.url())
            .env("ENLIST_PREFIX", &self.prefix)
            .env("ENLIST_TMUX", &self.prefix)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Program { child, lines }
    }

    /// A verb of enlist's own: its exit code, and what it says on standard output.
    async fn enlist(&self, args: &[&str]) -> (Option<i32>, String) {
        let mut enlist = Command::new(env!("CARGO_BIN_EXE_enlist"));
        enlist.arg("--config").arg(self.dir.path().join("enlist.toml")).args(args).stdin(Stdio::null());
        let said = timeout(PATIENCE, enlist.kill_on_drop(true).output()).await.expect("an end").unwrap();
        let text = String::from_utf8(said.stdout).unwrap() + &String::from_utf8(said.stderr).unwrap();
        (said.status.code(), text)
    }
}

struct Program {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Program {
    async fn line(&mut self) -> String {
        timeout(PATIENCE, self.lines.next_line()).await.expect("a line").unwrap().expect("another line")
    }

    async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Its exit code, and what is left of what it says.
    async fn end(mut self) -> (Option<i32>, String) {
        let mut said = String::new();
        while let Some(line) = timeout(PATIENCE, self.lines.next_line()).await.expect("an end").unwrap() {
            said += &(line + "\n");
        }
        (self.child.wait().await.unwrap().code(), said)
    }
}

/// An example in Rust. `cargo test` has built it, unless it was asked for this file alone.
async fn rust(name: &str) -> Command {
    static BUILT: OnceCell<PathBuf> = OnceCell::const_new();
    let built = BUILT.get_or_init(async || {
        let profile = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().to_owned();
        let newest = |path: &Path| std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
        let own = newest(&std::env::current_exe().unwrap());
        let all = ["publish", "subscribe", "scheduler"].map(|name| newest(&profile.join("examples").join(name)));
        let old = Duration::from_secs(600);
        if all.iter().any(|one| one.is_none_or(|one| own.is_some_and(|own| one + old < own))) {
            let mut cargo = Command::new(env!("CARGO"));
            cargo.args(["build", "--locked", "--examples", "--features", "crash-points"]);
            let built = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null()).output().await.unwrap();
            assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        }
        profile.join("examples")
    });
    Command::new(built.await.join(name))
}

/// An example in Python; `None`, and a word of it, where there is no Python for it.
fn python(name: &str) -> Option<Command> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join(".venv/bin/python");
    let mut command = Command::new(&python);
    command.arg(root.join("examples/python").join(name));
    here(python.exists(), &format!("{name} needs .venv/bin/python, which `make venv` brings")).then_some(command)
}

fn here(found: bool, needed: &str) -> bool {
    if !found {
        let must = ["CI", "MAKELEVEL"].iter().any(|name| std::env::var_os(name).is_some());
        assert!(!must, "{needed}");
        // Past libtest's capture: what was not tested must be seen.
        std::io::Write::write_all(&mut std::io::stderr(), format!("SKIPPED: {needed}\n").as_bytes()).unwrap();
    }
    found
}

async fn publishes(fleet: &Fleet, program: Command, unknown: Command) {
    let (code, said) = fleet.start(program, &["load"]).end().await;
    assert_eq!(code, Some(0), "{said}\n{}", fleet.replica.log());
    let lines: Vec<_> = said.lines().collect();
    assert!(lines[0].contains("is in the queue, number "), "{said}");
    assert!(lines[1].starts_with("w-") && lines[1].ends_with(" is registered"), "{said}");
    let (code, said) = fleet.start(unknown, &["nowhere"]).end().await;
    assert_eq!((code, said.as_str()), (Some(1), ""));
}

/// A scheduler for the examples that are none.
async fn accepting(fleet: &Fleet) {
    use futures_util::StreamExt as _;
    let client = fleet.client.clone();
    let mut asked = client.subscribe(format!("{}.sched.*", fleet.prefix)).await.unwrap();
    client.flush().await.unwrap();
    tokio::spawn(async move {
        while let Some(request) = asked.next().await {
            let accepted = r#"{"status":"accepted","workers":[]}"#;
            client.publish(request.reply.unwrap(), accepted.into()).await.unwrap();
        }
    });
}

#[tokio::test]
async fn a_command_is_published_and_its_outcome_awaited_in_rust() {
    let fleet = Fleet::new("").await;
    accepting(&fleet).await;
    publishes(&fleet, rust("publish").await, rust("publish").await).await;
}

#[tokio::test]
async fn a_command_is_published_and_its_outcome_awaited_in_python() {
    let (Some(program), Some(again)) = (python("publish.py"), python("publish.py")) else { return };
    let fleet = Fleet::new("").await;
    accepting(&fleet).await;
    publishes(&fleet, program, again).await;
}

/// Some events, a kill, some more that nobody hears, and a start: each is told once.
async fn misses_nothing(fleet: &Fleet, first: Command, second: Command) {
    let provision = async |worker: &str| {
        let (code, said) = fleet.enlist(&["provision", "load", "--id", worker, "--wait"]).await;
        assert_eq!(code, Some(0), "{said}");
    };
    let mut subscriber = fleet.start(first, &["audit"]);
    provision("w-1").await;
    let mut told = Vec::new();
    for _ in 0..3 {
        told.push(subscriber.line().await);
    }
    subscriber.kill().await;
    provision("w-2").await;
    let mut subscriber = fleet.start(second, &["audit"]);
    // What was told and not yet acked when it was killed comes once more.
    while told.len() < 7 && !told.last().is_some_and(|last| last.ends_with("load/w-2 registered")) {
        told.push(subscriber.line().await);
    }
    told.dedup();
    let expected: Vec<String> = ["w-1", "w-2"]
        .iter()
        .flat_map(|worker| ["provisioning", "provisioned", "registered"].map(|state| format!("load/{worker} {state}")))
        .zip(1..)
        .map(|(event, sequence)| format!("{sequence} {event}"))
        .collect();
    assert_eq!(told, expected);
    subscriber.kill().await;
}

#[tokio::test]
async fn a_subscriber_that_was_away_misses_nothing_in_rust() {
    let fleet = Fleet::new("").await;
    accepting(&fleet).await;
    misses_nothing(&fleet, rust("subscribe").await, rust("subscribe").await).await;
}

#[tokio::test]
async fn a_subscriber_that_was_away_misses_nothing_in_python() {
    let (Some(first), Some(second)) = (python("subscribe.py"), python("subscribe.py")) else { return };
    let fleet = Fleet::new("").await;
    accepting(&fleet).await;
    misses_nothing(&fleet, first, second).await;
}

async fn schedules(fleet: &Fleet, program: Command) {
    let root = format!("{}.sched", fleet.prefix);
    let mut scheduler = fleet.start(program, &[&root]);
    assert_eq!(scheduler.line().await, "ready");
    let list = async || -> Value {
        let reply = fleet.client.request(format!("{root}.list"), r#"{"pool":"load"}"#.into()).await.unwrap();
        serde_json::from_slice(&reply.payload).unwrap()
    };
    let (code, said) = fleet.enlist(&["provision", "load", "--id", "w-1", "--wait"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(" registered "), "{said}");
    assert_eq!(list().await, json!({ "workers": [{ "pool": "load", "worker_id": "w-1", "epoch": 1 }] }));
    // A replica that has lost the worker meanwhile tells nothing new.
    let late = json!({ "worker_id": "w-1", "pool": "load", "worker_type": "dynamic", "capabilities": {}, "epoch": 0,
        "rev": 2, "attempt": 1, "expires_at": "2030-01-01T00:00:00Z" });
    let reply = fleet.client.request(format!("{root}.register"), late.to_string().into()).await.unwrap();
    assert_eq!(
        reply.payload,
        r#"{"status":"already"}"#.replace(':', if reply.payload.contains(&b' ') { ": " } else { ":" })
    );
    let (code, said) = fleet.enlist(&["terminate", "load", "w-1", "--wait"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(list().await, json!({ "workers": [] }));
    scheduler.kill().await;
}

#[tokio::test]
async fn a_scheduler_takes_workers_and_lets_them_go_in_rust() {
    let fleet = Fleet::new("").await;
    schedules(&fleet, rust("scheduler").await).await;
}

#[tokio::test]
async fn a_scheduler_takes_workers_and_lets_them_go_in_python() {
    let Some(program) = python("scheduler.py") else { return };
    schedules(&Fleet::new("").await, program).await;
}

/// Ends the tmux server of a test with it.
struct Tmux(String);

impl Drop for Tmux {
    fn drop(&mut self) {
        let _ = std::process::Command::new("tmux").args(["-L", &self.0, "kill-server"]).stderr(Stdio::null()).status();
    }
}

#[tokio::test]
async fn a_provider_in_python_makes_tmux_sessions_and_passes_the_check() {
    let tmux = std::process::Command::new("tmux").arg("-V").output().is_ok();
    let Some(program) = python("tmux_provider.py") else { return };
    if !here(tmux, "tmux_provider.py needs tmux") {
        return;
    }
    let name = format!("t{}", &uuid::Uuid::new_v4().simple().to_string()[..12]);
    let pool = format!(
        "[pools.far]\nprovider = \"nats\"\nname = \"{name}\"\ncommand = [\"sleep\", \"600\"]\n\
         env = {{ GREETING = \"it's $HOME\" }}\nregistration = {{ enabled = false }}\n"
    );
    let fleet = Fleet::new(&pool).await;
    let _tmux = Tmux(fleet.prefix.clone());
    let (code, said) = fleet.enlist(&["provider-check", &name]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("BROKEN  it answers, and lists an empty pool: unavailable"), "{said}");

    let mut provider = fleet.start(program, &[&name]);
    assert_eq!(provider.line().await, "ready");
    let (code, said) = fleet.enlist(&["provider-check", &name]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("24 hold, 0 broken, 1 waived"), "{said}");

    let (code, said) = fleet.enlist(&["provider-check", &name, "--", "no-such-program"]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("BROKEN  it makes what it is asked for, and removes it: create: invalid_spec"), "{said}");

    let (code, said) = fleet.enlist(&["provision", "far", "--id", "w-1", "--wait"]).await;
    assert_eq!(code, Some(0), "{said}\n{}", fleet.replica.log());
    let tmux = |args: &[&str]| {
        let said = std::process::Command::new("tmux").args(["-L", &fleet.prefix]).args(args).output().unwrap();
        String::from_utf8(said.stdout).unwrap()
    };
    let session = format!("{}_far_w-1", fleet.prefix);
    assert_eq!(tmux(&["list-sessions", "-F", "#{session_name}"]).trim(), session);
    let environment = tmux(&["show-environment", "-t", &session]);
    assert!(environment.contains("GREETING=it's $HOME\n"), "{environment}");
    assert!(!tmux(&["show-environment", "-g"]).contains("NATS_URL"), "its own environment goes to no worker");

    // Another run of it knows what this one has made.
    provider.kill().await;
    let mut provider = fleet.start(python("tmux_provider.py").unwrap(), &[&name]);
    assert_eq!(provider.line().await, "ready");
    let (code, said) = fleet.enlist(&["terminate", "far", "w-1", "--wait"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(tmux(&["list-sessions", "-F", "#{session_name}"]), "");
    provider.kill().await;
}

#[test]
fn every_example_is_short() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    for folder in [root.clone(), root.join("python")] {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                let most = if path.ends_with("tmux_provider.py") { 100 } else { 60 };
                let lines = std::fs::read_to_string(&path).unwrap().lines().count();
                assert!(lines < most, "{} has {lines} lines", path.display());
            }
        }
    }
}
