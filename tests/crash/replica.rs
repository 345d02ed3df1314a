//! A replica as a process of its own, so that it can die as one.

// One harness for two test binaries; not each uses all of it.
#![allow(dead_code)]

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
        // An abort is what is asked for here, and nobody reads its core.
        let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
        let mut command = Command::new(env!("CARGO_BIN_EXE_enlist"));
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
                log.push_str(&line);
                log.push('\n');
            }
        });
        let replica = Self { child, guard, log, reader };
        // Without that line its log has ended, which for one that is to die may be as it should.
        let ready = timeout(PATIENCE, taking).await.is_ok_and(|ready| ready.is_ok());
        assert!(ready || point.is_some(), "a replica did not start:\n{}", replica.log());
        replica
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().expect("no panic under this lock").clone()
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
