//! A replica as a process of its own, so that it can die as one.

// One harness for several test binaries; not each uses all of it.
#![allow(dead_code)]

use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child as Guard, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use enlist::crash::CrashPoint;
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, setrlimit};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Longer than any death or drain takes on a busy machine: three ack waits.
const PATIENCE: Duration = Duration::from_secs(90);
/// Of a log that goes on for an hour only the newest part is kept.
const LONGEST_LOG: usize = 16 << 20;

/// A running replica. Dropping it kills it; so does the end of the test binary.
pub(crate) struct Replica {
    child: Child,
    guard: Guard,
    log: Arc<Mutex<String>>,
    reader: JoinHandle<()>,
}

impl Replica {
    /// Starts one, to die at `point` if one is given, and returns once it takes commands.
    pub(crate) async fn start(settings: &Path, point: Option<CrashPoint>) -> Self {
        let (replica, taking) = Self::spawn(settings, point);
        // Without that line its log has ended, which for one that is to die may be as it should.
        let ready = timeout(PATIENCE, taking).await.is_ok_and(|ready| ready.is_ok());
        assert!(ready || point.is_some(), "a replica did not start:\n{}", replica.log());
        replica
    }

    /// Starts one that may end by itself, as it does where it finds no broker, and tells once it takes commands.
    /// `ENLIST_BINARY` names another build than this one.
    pub(crate) fn spawn(settings: &Path, point: Option<CrashPoint>) -> (Self, oneshot::Receiver<()>) {
        // An abort is what is asked for here, and nobody reads its core.
        let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
        let binary = std::env::var_os("ENLIST_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_enlist").into());
        let mut command = Command::new(binary);
        command.arg("--config").arg(settings).arg("run").env_clear();
        for name in ["PATH", "HOME", "ENLIST_LOG", "LLVM_PROFILE_FILE"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        if let Some(point) = point {
            command.env("ENLIST_CRASH_AT", format!("{point:?}"));
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the binary of this build");
        let guard = guard(&child);
        let mut lines = BufReader::new(child.stderr.take().expect("its log")).lines();
        let (ready, taking) = oneshot::channel::<()>();
        let log: Arc<Mutex<String>> = Arc::default();
        let written = log.clone();
        let reader = tokio::spawn(async move {
            let mut ready = Some(ready);
            while let Ok(Some(line)) = lines.next_line().await {
                if line.contains("taking commands") {
                    let _ = ready.take().map(|ready| ready.send(()));
                }
                let mut log = written.lock().expect("no panic under this lock");
                if log.len() > LONGEST_LOG {
                    let half = log.as_bytes()[..LONGEST_LOG / 2].iter().rposition(|byte| *byte == b'\n');
                    log.drain(..=half.unwrap_or_default());
                }
                log.push_str(&line);
                log.push('\n');
            }
        });
        (Self { child, guard, log, reader }, taking)
    }

    /// While it has not been waited for.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Where its pages are, once it takes commands.
    pub(crate) fn http(&self) -> SocketAddr {
        let log = self.log();
        let line = log.lines().find(|line| line.contains("taking commands")).expect("it takes commands");
        let line: serde_json::Value = serde_json::from_str(line).expect("a line in JSON");
        line["http"].as_str().and_then(|text| text.parse().ok()).expect("an address")
    }

    /// How it has ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("its state")
    }

    /// Kills it, and gives its log.
    pub(crate) async fn killed(mut self) -> String {
        let _ = self.child.kill().await;
        let _ = timeout(PATIENCE, &mut self.reader).await;
        self.log()
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().expect("no panic under this lock").clone()
    }

    /// Its log, as it grows.
    pub(crate) fn log_so_far(&self) -> Arc<Mutex<String>> {
        self.log.clone()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        kill_process(pid.expect("it runs"), signal).expect("it takes a signal");
    }

    /// Waits for its death by abort, and says what became of it instead.
    pub(crate) async fn died(mut self) -> Result<(), String> {
        let Ok(ended) = timeout(PATIENCE, self.child.wait()).await else {
            return Err(format!("did not die:\n{}", self.log()));
        };
        let ended: ExitStatus = ended.expect("its end");
        let _ = (&mut self.reader).await;
        if ended.signal() == Some(Signal::ABORT.as_raw()) {
            return Ok(());
        }
        Err(format!("ended otherwise ({ended}):\n{}", self.log()))
    }

    /// Tells it to stop, and waits until it has finished what is in hand.
    pub(crate) async fn drained(mut self) -> Result<(), String> {
        self.signal(Signal::TERM);
        let Ok(ended) = timeout(PATIENCE, self.child.wait()).await else {
            return Err(format!("did not drain:\n{}", self.log()));
        };
        let ended = ended.expect("its end");
        if ended.success() { Ok(()) } else { Err(format!("drained with {ended}:\n{}", self.log())) }
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        // Killed before the guard is let go, which else would take the pid for a running one.
        let _ = self.child.start_kill();
        if let Some(mut pipe) = self.guard.stdin.take() {
            let _ = std::io::Write::write_all(&mut pipe, b"\n");
        }
        let _ = self.guard.wait();
    }
}

/// Kills the replica where the pipe closes without a word, because the test binary is gone.
fn guard(child: &Child) -> Guard {
    std::process::Command::new("sh")
        .args(["-c", r#"read -r _ || kill -KILL "$1""#, "guard", &child.id().expect("a pid").to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a shell to guard the replica")
}
