//! The metrics: their names, their descriptions, and every series at 0 from the start, so that a rate never begins with
//! a gap and an alert on a series can be written before it ever moves.

use std::time::Duration;

use ::metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};

pub use metrics_exporter_prometheus::PrometheusHandle;

use super::labels::{AttemptOutcome, Operation, ProviderOutcome};
use super::signal::PoolSignals;
use crate::config::Config;

pub(super) const REGISTRATION_FAILED: &str = "worker_provisioning_registration_failed_total";
pub(super) const COMMANDS: &str = "enlist_commands_total";
pub(super) const COMMAND_SECONDS: &str = "enlist_command_seconds";
pub(super) const PROVIDER_SECONDS: &str = "enlist_provider_seconds";
pub(super) const REGISTRATION_ATTEMPTS: &str = "enlist_registration_attempts_total";
pub(super) const REGISTRATION_SECONDS: &str = "enlist_registration_seconds";
pub(super) const REDELIVERIES: &str = "enlist_redeliveries_total";
pub(super) const IN_FLIGHT: &str = "enlist_commands_in_flight";
pub(super) const WORKERS: &str = "enlist_workers";
pub(super) const ORPHANS: &str = "enlist_orphans_total";
pub(super) const DEAD_LETTERS: &str = "enlist_dead_letters_total";
pub(super) const SWEEP_ACTS: &str = "enlist_sweep_acts_total";
pub(super) const SWEEP_FROZEN: &str = "enlist_sweep_frozen";
pub(super) const HOLD_OFF: &str = "enlist_pool_holdoff_seconds";
pub(super) const NATS_CONNECTED: &str = "enlist_nats_connected";
pub(super) const TASKS: &str = "enlist_tasks";
#[cfg(feature = "heap-metric")]
pub(super) const HEAP_BYTES: &str = "enlist_heap_bytes";
const BUILD_INFO: &str = "enlist_build_info";

/// From a command over a fast path in memory to a machine that takes minutes to boot.
const BUCKETS: [f64; 16] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// How often histograms are folded into their buckets; the exporter never does it by itself, and its memory would grow.
const UPKEEP: Duration = Duration::from_secs(5);

/// Installs the recorder of this process and keeps it up for as long as the runtime lives; the handle renders it. Must
/// come before the first `PoolSignals`, which keep the series they were made with.
///
/// # Panics
///
/// Outside of a tokio runtime, and when a recorder is installed already: two would each have half of the truth.
#[must_use]
pub fn install_metrics() -> PrometheusHandle {
    let recorder = builder().build_recorder();
    let handle = recorder.handle();
    assert!(::metrics::set_global_recorder(recorder).is_ok(), "one recorder a process");
    let upkeep = handle.clone();
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(UPKEEP);
        loop {
            ticks.tick().await;
            upkeep.run_upkeep();
        }
    });
    handle
}

fn builder() -> PrometheusBuilder {
    [COMMAND_SECONDS, PROVIDER_SECONDS, REGISTRATION_SECONDS].into_iter().fold(
        PrometheusBuilder::new(),
        |builder, name| {
            builder.set_buckets_for_metric(Matcher::Full(name.to_owned()), &BUCKETS).expect("there are buckets")
        },
    )
}

/// Describes every metric and makes every series of these settings, at 0.
pub fn register_all(config: &Config) {
    describe();
    for (pool, settings) in &config.pools {
        let _ = PoolSignals::new(pool, settings.provider.name(), settings.provider.worker_type());
    }
    gauge!(NATS_CONNECTED).set(0.0);
    gauge!(TASKS).set(0.0);
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}

fn describe() {
    describe_counter!(REGISTRATION_FAILED, "Workers that the scheduler did not accept");
    describe_counter!(COMMANDS, "Commands that have ended, by outcome");
    describe_histogram!(COMMAND_SECONDS, Unit::Seconds, "From a command's arrival here to its end");
    describe_histogram!(PROVIDER_SECONDS, Unit::Seconds, "Calls of providers");
    describe_counter!(REGISTRATION_ATTEMPTS, "Register requests to the scheduler, by answer");
    describe_histogram!(REGISTRATION_SECONDS, Unit::Seconds, "All tries to register one worker together");
    describe_counter!(REDELIVERIES, "Commands that came again");
    describe_gauge!(IN_FLIGHT, "Commands in hand in this replica");
    describe_gauge!(WORKERS, "Workers by state, as the newest sweep in this replica found them");
    describe_counter!(ORPHANS, "Instances without a record, by what was done about them");
    describe_counter!(DEAD_LETTERS, "Commands that will not be carried out, by reason");
    describe_counter!(SWEEP_ACTS, "What sweeps of this replica have done, by act");
    describe_gauge!(SWEEP_FROZEN, "1 while the sweep removes nothing because too much would go");
    describe_gauge!(HOLD_OFF, Unit::Seconds, "How long creates are held off because the provider fails them, 0 if not");
    describe_gauge!(NATS_CONNECTED, "1 while connected");
    describe_gauge!(TASKS, "Tasks of this replica's runtime");
    describe_gauge!(BUILD_INFO, "Always 1; the version is the label");
}

/// The series that know no pool, made once a `PoolSignals`.
pub(super) struct Shared {
    pub(super) attempts: Vec<::metrics::Counter>,
    pub(super) registration_seconds: ::metrics::Histogram,
    /// By operation, then outcome.
    pub(super) provider_seconds: Vec<Vec<::metrics::Histogram>>,
}

impl Shared {
    pub(super) fn new(provider: &'static str) -> Self {
        let attempt = |outcome: &AttemptOutcome| counter!(REGISTRATION_ATTEMPTS, "outcome" => outcome.as_str());
        let call = |operation: &Operation| {
            let ended = |outcome: &ProviderOutcome| {
                let (operation, outcome) = (operation.as_str(), outcome.as_str());
                histogram!(PROVIDER_SECONDS, "provider" => provider, "operation" => operation, "outcome" => outcome)
            };
            ProviderOutcome::ALL.iter().map(ended).collect()
        };
        Self {
            attempts: AttemptOutcome::ALL.iter().map(attempt).collect(),
            registration_seconds: histogram!(REGISTRATION_SECONDS),
            provider_seconds: Operation::ALL.iter().map(call).collect(),
        }
    }
}

#[cfg(test)]
pub(super) fn recorder_for_tests() -> metrics_exporter_prometheus::PrometheusRecorder {
    builder().build_recorder()
}
