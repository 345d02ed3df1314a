//! Processes a second, beside a bare loop that makes a folder, writes a file before and after, and spawns into a session.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use enlist::domain::{Claimed, CommandId, Pool, Prefix, SpecHash, WorkerId, WorkerKey, WorkerSpec};
use enlist::provider::process::ProcessProvider;
use enlist::provider::{LaunchRequest, WorkerProvider};
use futures_util::{StreamExt, stream};
use jiff::Timestamp;
use process_wrap::tokio::{ChildWrapper, CommandWrap, ProcessSession};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const REPEATS: usize = 7;
/// Creates at once; both run their blocking parts on the same threads.
const AT_ONCE: usize = 16;

pub(crate) async fn measure(number: usize) {
    let mut ratios = Vec::new();
    for _ in 0..REPEATS {
        let (ours, bare) = (provider(number).await, bare(number).await);
        println!(
            "  {number} processes, {AT_ONCE} at once: enlist {ours:.0}/s, bare {bare:.0}/s: takes {:.2} times as long",
            bare / ours
        );
        ratios.push(bare / ours);
    }
    ratios.sort_by(f64::total_cmp);
    println!("  median {:.2} [{:.2}-{:.2}]", ratios[REPEATS / 2], ratios[0], ratios[REPEATS - 1]);
}

async fn provider(number: usize) -> f64 {
    let folder = TempDir::with_prefix("enlist-scale-").expect("a folder");
    let provider = ProcessProvider::new(&Prefix::new("scale").expect("a prefix"), folder.path());
    let pool = Pool::new("p").expect("a pool");
    let began = Instant::now();
    let made: Vec<_> = stream::iter(0..number)
        .map(|n| {
            let (provider, pool) = (provider.clone(), pool.clone());
            async move {
                let name = format!("w-{n}");
                let request = LaunchRequest {
                    key: WorkerKey::new(pool, WorkerId::new(&*name).expect("a name")),
                    command_id: CommandId::new(&*name).expect("an id"),
                    spec_hash: SpecHash::of(name.as_bytes()),
                    epoch: 1,
                    claim: Claimed { sequence: n as u64 + 1, at: Timestamp::now() },
                    trace: None,
                    spec: WorkerSpec { command: vec!["/bin/sleep".into(), "600".into()], ..WorkerSpec::default() },
                };
                provider.create_worker(&request).await.expect("made");
                request.key
            }
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let rate = rate(number, began);
    for key in made {
        provider.terminate_worker(&key, None, Duration::ZERO).await.expect("ended");
    }
    rate
}

async fn bare(number: usize) -> f64 {
    let folder = TempDir::with_prefix("enlist-scale-").expect("a folder");
    let began = Instant::now();
    let children: Vec<_> = stream::iter(0..number)
        .map(|n| {
            let path = folder.path().join(n.to_string());
            let handle = tokio::runtime::Handle::current();
            async move {
                let spawned = tokio::task::spawn_blocking(move || {
                    let _runtime = handle.enter();
                    spawn(&path)
                });
                spawned.await.expect("spawned")
            }
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let rate = rate(number, began);
    for child in children {
        let pid = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)).expect("a pid");
        let _ = kill_process(pid, Signal::KILL);
        let _ = child.into_inner().wait().await;
    }
    rate
}

/// What any maker of processes does that is to find them again after its own death.
fn spawn(path: &Path) -> Box<dyn ChildWrapper> {
    fs::create_dir(path).expect("a folder");
    let log = fs::File::create(path.join("log")).expect("a log");
    let errors = log.try_clone().expect("the log again");
    fs::write(path.join("state"), "0".repeat(300)).expect("a state file");
    let mut command = CommandWrap::with_new("/bin/sleep", |command| {
        command.arg("600").env_clear().stdin(Stdio::null()).stdout(log).stderr(errors);
    });
    command.wrap(ProcessSession);
    let child = command.spawn().expect("spawned");
    fs::write(path.join("pid"), child.id().unwrap_or(0).to_string()).expect("its pid");
    child
}

#[allow(clippy::cast_precision_loss)]
fn rate(number: usize, began: Instant) -> f64 {
    number as f64 / began.elapsed().as_secs_f64()
}
