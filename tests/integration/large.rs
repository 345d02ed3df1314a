//! What one sweep of a large pool costs. Prints, and asserts no time: `cargo test --release --test integration large --
//! --ignored --nocapture --test-threads 1`.

use std::fs;
use std::time::{Duration, Instant};

use enlist::config::NullConfig;
use enlist::domain::{Pool, Prefix, WorkerSpec};
use enlist::provider::null::NullProvider;
use enlist::registration::memory::MemoryScheduler;
use enlist::service::sweep::SweepPoolConfig;
use enlist::{DynamicWorkerConfig, WorkerManagementConfig, WorkerManagementService};

use crate::world::{LOAD, ON_DEMAND, World, nameless};

const WORKERS: usize = 10_000;

/// A process's memory in MiB: now, and at most since it was last asked.
fn memory(process: &str) -> (f64, f64) {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1024.0
    };
    let seen = (of("VmRSS:"), of("VmHWM:"));
    // From here on the peak is measured anew.
    fs::write(format!("/proc/{process}/clear_refs"), "5").unwrap();
    seen
}

fn tell(home: &str, took: Duration, before: f64, peak: f64) {
    println!(
        "{home}: {WORKERS} instances against {WORKERS} records in {:.0} ms; {before:.1} MiB before, {peak:.1} MiB at the peak",
        took.as_secs_f64() * 1000.0
    );
}

#[tokio::test]
#[ignore = "makes ten thousand workers"]
async fn a_sweep_of_ten_thousand_workers_in_memory() {
    let fleet = Prefix::new("large").unwrap();
    let provider = NullProvider::new(&fleet, NullConfig::default());
    let scheduler = MemoryScheduler::default();
    let config = WorkerManagementConfig::default();
    let service = WorkerManagementService::new_with_registration(provider, scheduler, config);
    let pool = Pool::new("load").unwrap();
    for _ in 0..WORKERS {
        service.provision_worker(&DynamicWorkerConfig::new(pool.clone(), WorkerSpec::default())).await.unwrap();
    }
    let sweep = SweepPoolConfig::new(pool, WorkerSpec::default());
    for _ in 0..3 {
        let (before, _) = memory("self");
        let begun = Instant::now();
        let report = service.sweep_pool(&sweep, None, None).await.unwrap();
        let took = begun.elapsed();
        assert_eq!((report.instances, report.live, report.done.len(), report.frozen), (WORKERS, WORKERS, 0, None));
        tell("memory", took, before, memory("self").1);
    }
}

#[tokio::test]
#[ignore = "makes ten thousand workers"]
async fn a_sweep_of_ten_thousand_workers_on_a_server() {
    let world = World::alone(&format!("{ON_DEMAND}{LOAD}")).await;
    world.scheduler.list().await;
    world.scheduler.pages_of(1000);
    let mut child = world.child().await;
    for n in 0..WORKERS {
        world.send("load", &nameless(&format!("c-{n}"))).await;
    }
    world.settled().await;
    let process = child.pid().to_string();
    for n in 1..=3 {
        let (before, _) = memory(&process);
        world.sweep("load").await;
        let line = child.lines_with("\"swept\"", n).await;
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        let counted = (line["instances"].as_u64(), line["live"].as_u64(), line["done"].as_str());
        assert_eq!(counted, (Some(WORKERS as u64), Some(WORKERS as u64), Some("nothing")), "{line}");
        let took = Duration::from_secs_f64(line["seconds"].as_f64().unwrap());
        tell("nats-server", took, before, memory(&process).1);
    }
}
