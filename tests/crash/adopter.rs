//! A process that adopts what has no record, so that it can die over it.

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use enlist::bus::connection;
use enlist::bus::requests::Requests;
use enlist::bus::subjects::Subjects;
use enlist::config::{Flags, from_process};
use enlist::crash::CrashPoint;
use enlist::journal::nats::NatsJournal;
use enlist::registration::nats::NatsScheduler;
use enlist::replica::parts;
use rustix::process::Signal;
use tokio::process::Command;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);
const SETTINGS: &str = "ENLIST_ADOPTER_SETTINGS";

/// Starts the process below, which is to die at this point.
pub(crate) async fn adopt_and_die(settings: &Path, point: CrashPoint) -> Result<(), String> {
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args(["--exact", "adopter::the_process_that_adopts", "--ignored", "--nocapture"]);
    command.env(SETTINGS, settings).env("ENLIST_CRASH_AT", format!("{point:?}"));
    let ran = timeout(PATIENCE, command.stdin(Stdio::null()).kill_on_drop(true).output()).await;
    let ended = ran.map_err(|_| "adopting has no end".to_owned())?.expect("this binary");
    if ended.status.signal() == Some(Signal::ABORT.as_raw()) {
        return Ok(());
    }
    let said = [ended.stdout, ended.stderr].concat();
    Err(format!("adopting ended otherwise ({}):\n{}", ended.status, String::from_utf8_lossy(&said)))
}

#[tokio::test]
#[ignore = "a process of the walk's, not a test of its own"]
async fn the_process_that_adopts() {
    let Some(settings) = std::env::var_os(SETTINGS).map(PathBuf::from) else { return };
    let config = from_process(Some(&settings), None, Flags::default()).unwrap().config;
    let connection = connection::connect(&config.nats, "the walk's adopter").await.unwrap();
    let requests = Requests::start(connection.client.clone()).await.unwrap();
    let journal = NatsJournal::new(requests.clone(), Subjects::new(&config.prefix), None, []);
    let scheduler = NatsScheduler::new(requests, &config.scheduler);
    for (pool, settings) in &config.pools {
        let service = parts::service(&config, pool, settings, journal.clone(), scheduler.clone()).unwrap();
        let adoptions = service.adopt(&parts::sweep(&config, pool, settings), false).await.unwrap();
        assert!(!adoptions.is_empty(), "nothing was without a record");
    }
}
