//! A state folder of its own, replicas over it, and things to make.

use std::path::PathBuf;

use enlist::domain::{CommandId, Pool, Prefix, SpecHash, WorkerId, WorkerKey, WorkerSpec};
use enlist::provider::LaunchRequest;
use enlist::provider::process::ProcessProvider;
use tempfile::TempDir;

pub(crate) struct World {
    dir: TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn replica(&self) -> ProcessProvider {
        self.replica_of("fleet")
    }

    pub(crate) fn replica_of(&self, fleet: &str) -> ProcessProvider {
        ProcessProvider::new(&prefix(fleet), self.path("state"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The folder of the worker that every request here asks for.
    pub(crate) fn folder(&self) -> PathBuf {
        self.path("state/fleet/pool-a/worker-1")
    }

    /// A named pipe, by which a worker tells the test one line at the very moment that it is so.
    pub(crate) fn pipe(&self) -> PathBuf {
        let path = self.path("pipe");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        path
    }
}

/// The line that a worker writes into a pipe.
pub(crate) async fn line_of(pipe: PathBuf) -> String {
    let text = tokio::task::spawn_blocking(move || std::fs::read_to_string(pipe).unwrap()).await.unwrap();
    text.trim().to_owned()
}

pub(crate) fn prefix(name: &str) -> Prefix {
    Prefix::new(name).unwrap()
}

pub(crate) fn pool(name: &str) -> Pool {
    Pool::new(name).unwrap()
}

pub(crate) fn key() -> WorkerKey {
    WorkerKey::new(pool("pool-a"), WorkerId::new("worker-1").unwrap())
}

pub(crate) fn running(command: &[&str]) -> WorkerSpec {
    WorkerSpec {
        command: command.iter().map(ToString::to_string).collect(),
        labels: [("zone".to_owned(), "a b=c".to_owned())].into(),
        ..WorkerSpec::default()
    }
}

pub(crate) fn sleeper() -> WorkerSpec {
    running(&["sleep", "120"])
}

/// A shell that knows the pipe as `$PIPE`.
pub(crate) fn shell(script: &str, pipe: &std::path::Path) -> WorkerSpec {
    let env = [("PIPE".to_owned(), pipe.to_str().unwrap().to_owned())].into();
    WorkerSpec { env, ..running(&["sh", "-c", script]) }
}

pub(crate) fn request(spec: WorkerSpec) -> LaunchRequest {
    LaunchRequest {
        key: key(),
        command_id: CommandId::new("c-1").unwrap(),
        spec_hash: SpecHash::of(b"content"),
        epoch: 1,
        claim: "3@2026-01-01T00:00:00Z".parse().unwrap(),
        spec,
        trace: None,
    }
}
