//! What only the null provider promises.

use std::io::Write;
use std::time::Duration;

use enlist::config::NullConfig;
use enlist::domain::ErrorClass;
use enlist::provider::WorkerProvider;
use enlist::provider::null::NullProvider;

use crate::world::{World, key, pool, prefix, request, sleeper};

#[tokio::test]
async fn a_line_that_a_kill_tore_is_dropped_and_everything_before_it_kept() {
    let world = World::new();
    let file = world.path("null");
    let replica =
        || NullProvider::new(&prefix("fleet"), NullConfig { state_file: Some(file.clone()), ..NullConfig::default() });
    let before = replica();
    let first = before.create_worker(&request(sleeper())).await.unwrap();
    std::fs::OpenOptions::new()
        .append(true)
        .open(&file)
        .unwrap()
        .write_all(br#"{"fleet":"fleet","gone":{"po"#)
        .unwrap();

    let after = replica();
    assert_eq!(after.find_worker(&key()).await.unwrap(), Some(first.clone()));
    after.terminate_worker(&key(), Some(&first.instance_id), Duration::ZERO).await.unwrap();
    assert_eq!(before.list_workers(&pool("pool-a")).await.unwrap(), [], "the other replica sees what came after");
    assert_eq!(replica().list_workers(&pool("pool-a")).await.unwrap(), []);
}

#[tokio::test]
async fn a_create_that_is_to_fail_makes_nothing() {
    let provider = NullProvider::new(&prefix("fleet"), NullConfig { failure_rate: 1.0, ..NullConfig::default() });
    let fault = provider.create_worker(&request(sleeper())).await.unwrap_err();
    assert_eq!(fault.class, ErrorClass::Internal);
    assert_eq!(provider.find_worker(&key()).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_create_takes_as_long_as_the_settings_say() {
    let delay = Duration::from_secs(3);
    let provider = NullProvider::new(&prefix("fleet"), NullConfig { delay, ..NullConfig::default() });
    let start = tokio::time::Instant::now();
    provider.create_worker(&request(sleeper())).await.unwrap();
    assert_eq!(start.elapsed(), delay);
}
