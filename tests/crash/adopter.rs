//! `enlist adopt` as a process of its own, so that it can die as one.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use enlist::crash::CrashPoint;
use rustix::process::Signal;
use tokio::process::Command;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);

/// Adopts what has no record in a pool, to die at this point.
pub(crate) async fn adopt_and_die(settings: &Path, pool: &str, point: CrashPoint) -> Result<(), String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_enlist"));
    command.arg("--config").arg(settings).args(["adopt", pool]).env("ENLIST_CRASH_AT", format!("{point:?}"));
    let ran = timeout(PATIENCE, command.stdin(Stdio::null()).kill_on_drop(true).output()).await;
    let ended = ran.map_err(|_| "adopting has no end".to_owned())?.expect("the binary of this build");
    if ended.status.signal() == Some(Signal::ABORT.as_raw()) {
        return Ok(());
    }
    let said = [ended.stdout, ended.stderr].concat();
    Err(format!("adopting ended otherwise ({}):\n{}", ended.status, String::from_utf8_lossy(&said)))
}
