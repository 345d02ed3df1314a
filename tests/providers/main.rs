//! Every provider is held to the one contract; then what only processes and only the null provider promise.
// An unwrap that fails is how a test says so.
#![allow(clippy::unwrap_used)]

mod null;
mod process;
mod world;

use std::time::Duration;

use enlist::config::{NullConfig, StaticHost};
use enlist::domain::{Capabilities, WorkerId};
use enlist::provider::contract::{Outcome, Subject, check};
use enlist::provider::null::NullProvider;
use enlist::provider::static_hosts::StaticProvider;
use enlist::provider::{WorkerProvider, any::AnyProvider};
use world::{World, pool, prefix, sleeper};

async fn hold<P: WorkerProvider>(replica: &dyn Fn() -> P, other_fleet: &dyn Fn() -> P) -> usize {
    let (pool, other_pool, spec) = (pool("pool-a"), pool("pool-b"), sleeper());
    let grace = Duration::from_secs(10);
    let subject = Subject { replica, other_fleet, pool: &pool, other_pool: &other_pool, spec: &spec, grace };
    let report = check(&subject).await;
    assert!(report.passed(), "{report}");
    assert!(replica().list_workers(&pool).await.unwrap().is_empty(), "the suite leaves something behind");
    report.checks.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Waived(_))).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_process_provider_holds_the_contract() {
    let world = World::new();
    let waived = hold(&|| world.replica(), &|| world.replica_of("other")).await;
    assert_eq!(waived, 1, "only the inventory is not asked of it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_provider_holds_the_contract_of_the_one_in_it() {
    let world = World::new();
    hold(&|| AnyProvider::Process(world.replica()), &|| AnyProvider::Process(world.replica_of("other"))).await;
}

#[tokio::test]
async fn the_null_provider_in_memory_holds_the_contract() {
    let home = NullProvider::new(&prefix("fleet"), NullConfig::default());
    let waived = hold(&|| home.clone(), &|| home.of_fleet(&prefix("other"))).await;
    assert_eq!(waived, 1, "only the inventory is not asked of it");
}

#[tokio::test]
async fn the_null_provider_in_a_file_holds_the_contract() {
    let world = World::new();
    let config = || NullConfig { state_file: Some(world.path("null")), ..NullConfig::default() };
    let fleet = |name| NullProvider::new(&prefix(name), config());
    let waived = hold(&|| fleet("fleet"), &|| fleet("other")).await;
    assert_eq!(waived, 1, "only the inventory is not asked of it");
}

#[tokio::test]
async fn the_static_provider_holds_what_can_be_asked_of_it() {
    let hosts = ["edge-2", "edge-1"].map(|id| StaticHost {
        id: WorkerId::new(id).unwrap(),
        endpoint: Some(format!("{id}.example:22")),
        capabilities: Capabilities { cpus: Some(8.0), ..Capabilities::default() },
    });
    let provider = StaticProvider::new(hosts.to_vec());
    assert_eq!(
        provider.inventory(),
        Some(hosts.iter().map(|host| host.id.clone()).collect()),
        "in order of preference"
    );
    let waived = hold(&|| provider.clone(), &|| provider.clone()).await;
    assert_eq!(waived, 9, "what needs a memory or an instance of its own is waived by name");
}
