//! One signal a fact worth telling: each writes its log line and its counter together, so that they cannot disagree.
//!
//! The series of a pool are looked up once, when its signals are made: a command costs a few atomic additions and no
//! look-up. Without a recorder all of it does nothing. No line carries a payload or an environment.

use std::sync::Arc;
use std::time::Duration;

use ::metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use tracing::{debug, info, warn};

use super::health::Health;
use super::labels::{AttemptOutcome, Operation, Outcome, ProviderOutcome};
use super::metrics::{
    COMMAND_SECONDS, COMMANDS, DEAD_LETTERS, HOLD_OFF, IN_FLIGHT, NATS_CONNECTED, REDELIVERIES, REGISTRATION_FAILED,
    Shared, TASKS, WORKERS,
};
use super::sweep::SweepSignals;
use crate::domain::{Pool, Reason, Refusal, RegistrationFault, State, Verb, Worker, WorkerId, WorkerType};
use crate::registration::RegistrationError;

/// What is told of one pool. Made once, after the recorder is installed, and shared.
pub struct PoolSignals {
    pool: Pool,
    provider: &'static str,
    verbs: Vec<VerbSeries>,
    registration_failed: Counter,
    dead_letters: Vec<Counter>,
    workers: Vec<Gauge>,
    sweep: SweepSignals,
    hold_off: Gauge,
    shared: Shared,
    /// Told whether scheduler and provider answer.
    health: Option<Arc<Health>>,
}

struct VerbSeries {
    /// By `Outcome`; those that the verb does not have are no series.
    outcomes: Vec<Counter>,
    seconds: Histogram,
    redeliveries: Counter,
    in_flight: Gauge,
}

impl PoolSignals {
    /// The signals of a pool, its series at 0.
    #[must_use]
    pub fn new(pool: &Pool, provider: &'static str, worker_type: WorkerType) -> Self {
        let name = || pool.to_string();
        let worker_type = worker_type.as_str();
        let dead_letter = |reason: Reason| counter!(DEAD_LETTERS, "pool" => name(), "reason" => reason.as_str());
        Self {
            pool: pool.clone(),
            provider,
            verbs: Verb::ALL.iter().map(|verb| VerbSeries::new(pool, *verb)).collect(),
            registration_failed: counter!(REGISTRATION_FAILED, "worker_type" => worker_type, "pool" => name()),
            dead_letters: Reason::ALL.into_iter().map(dead_letter).collect(),
            workers: State::ALL.iter().map(|s| gauge!(WORKERS, "pool" => name(), "state" => s.as_str())).collect(),
            sweep: SweepSignals::new(pool),
            hold_off: gauge!(HOLD_OFF, "pool" => name()),
            shared: Shared::new(provider),
            health: None,
        }
    }

    /// The same, and `/readyz` tells of scheduler and provider what is seen here.
    #[must_use]
    pub fn telling(self, health: Arc<Health>) -> Self {
        let sweep = self.sweep.telling(Arc::clone(&health));
        Self { health: Some(health), sweep, ..self }
    }

    /// What its sweeps tell.
    #[must_use]
    pub fn sweep(&self) -> &SweepSignals {
        &self.sweep
    }

    /// A command has come to its end.
    pub fn command_done(&self, verb: Verb, outcome: Outcome, took: Duration) {
        debug_assert!(verb.outcomes().contains(&outcome), "{verb:?} cannot end as {outcome:?}");
        let series = &self.verbs[verb as usize];
        series.outcomes[outcome as usize].increment(1);
        series.seconds.record(took.as_secs_f64());
        debug!(pool = %self.pool, verb = verb.as_str(), outcome = outcome.as_str(), seconds = took.as_secs_f64(), "command done");
    }

    /// A command is in hand, until the guard is dropped.
    pub fn in_flight(&self, verb: Verb) -> InFlight {
        let gauge = self.verbs[verb as usize].in_flight.clone();
        gauge.increment(1.0);
        InFlight(gauge)
    }

    /// A command came again.
    pub fn redelivered(&self, verb: Verb, deliveries: u64) {
        self.verbs[verb as usize].redeliveries.increment(1);
        debug!(pool = %self.pool, verb = verb.as_str(), deliveries, "command redelivered");
    }

    /// A command will not be carried out; its dead letter is stored.
    pub fn dead_letter(&self, verb: Verb, command_id: &str, refusal: &Refusal) {
        let Refusal { reason, detail } = refusal;
        self.dead_letters[*reason as usize].increment(1);
        let command_id = crate::text::cut(command_id, 64);
        warn!(pool = %self.pool, verb = verb.as_str(), command_id, reason = reason.as_str(), detail, "command refused");
    }

    /// A worker is there and the scheduler has accepted it.
    pub fn worker_registered(&self, worker: &Worker) {
        debug!(pool = %self.pool, worker_id = %worker.worker_id, epoch = worker.epoch, "worker registered");
    }

    /// A worker is there and the scheduler has not accepted it. The provision has succeeded all the same.
    pub fn registration_failed(&self, worker: &Worker, fault: &RegistrationFault) {
        let RegistrationFault { code, message, critical } = fault;
        self.registration_failed.increment(1);
        let (code, error) = (crate::text::cut(code, 64), crate::text::cut(message, 500));
        warn!(
            pool = %self.pool, worker_id = %worker.worker_id, worker_type = worker.worker_type.as_str(),
            attempts = worker.registration.attempts, code, error, critical, "registration failed, the worker stays"
        );
    }

    /// One register request has its answer.
    pub fn registration_attempt(&self, worker_id: &WorkerId, attempt: u32, result: &Result<(), RegistrationError>) {
        self.shared.attempts[AttemptOutcome::from(result) as usize].increment(1);
        self.scheduler_asked(result);
        if let Err(error) = result {
            let error = crate::text::cut(&error.to_string(), 500);
            debug!(pool = %self.pool, %worker_id, attempt, error, "register request not accepted");
        }
    }

    /// A request of either kind has its answer, or none.
    pub fn scheduler_asked(&self, result: &Result<(), RegistrationError>) {
        if let Some(health) = &self.health {
            health.set_scheduler(!matches!(result, Err(RegistrationError::Unavailable { .. })));
        }
    }

    /// All tries to register one worker together.
    pub fn registration_took(&self, took: Duration) {
        self.shared.registration_seconds.record(took.as_secs_f64());
    }

    /// A call of the provider has ended; `error` is the provider's own text where it failed.
    pub fn provider_call(&self, operation: Operation, outcome: ProviderOutcome, took: Duration, error: Option<&str>) {
        self.shared.provider_seconds[operation as usize][outcome as usize].record(took.as_secs_f64());
        if let Some(health) = &self.health {
            let away = matches!(outcome, ProviderOutcome::Unavailable | ProviderOutcome::Timeout);
            health.set_provider(&self.pool, !away);
        }
        let (pool, provider, operation) = (&self.pool, self.provider, operation.as_str());
        match error {
            None => debug!(%pool, provider, operation, seconds = took.as_secs_f64(), "provider called"),
            Some(error) => {
                let error = crate::text::cut(error, 500);
                warn!(%pool, provider, operation, outcome = outcome.as_str(), error, "provider call failed");
            }
        }
    }

    /// The pool asks its provider for nothing for so long, and why; or it does again.
    pub fn holds_off(&self, hold_off: Option<(Duration, &str)>) {
        self.hold_off.set(hold_off.map_or(0.0, |(length, _)| length.as_secs_f64()));
        let pool = &self.pool;
        if let Some((length, error)) = hold_off {
            let error = crate::text::cut(error, 500);
            warn!(%pool, seconds = length.as_secs_f64(), error, "the provider fails creates: the pool holds off");
        } else {
            info!(%pool, "a create has succeeded: the pool holds off no more");
        }
    }

    /// How many workers a sweep found in a state.
    pub fn workers(&self, state: State, count: usize) {
        // Above 2^53 a gauge would be off by one.
        #[allow(clippy::cast_precision_loss)]
        self.workers[state as usize].set(count as f64);
    }
}

impl VerbSeries {
    fn new(pool: &Pool, verb: Verb) -> Self {
        let (name, verb_name) = (|| pool.to_string(), verb.as_str());
        let ended = |outcome: &Outcome| {
            if verb.outcomes().contains(outcome) {
                counter!(COMMANDS, "pool" => name(), "verb" => verb_name, "outcome" => outcome.as_str())
            } else {
                Counter::noop()
            }
        };
        Self {
            outcomes: Outcome::ALL.iter().map(ended).collect(),
            seconds: histogram!(COMMAND_SECONDS, "pool" => name(), "verb" => verb_name),
            redeliveries: counter!(REDELIVERIES, "pool" => name(), "verb" => verb_name),
            in_flight: gauge!(IN_FLIGHT, "pool" => name(), "verb" => verb_name),
        }
    }
}

/// Counts a command as in hand for as long as it lives.
#[must_use]
pub struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// How many tasks the runtime has: more with each command in hand, and with none of them always about as many.
pub fn tasks_alive(number: usize) {
    #[allow(clippy::cast_precision_loss, reason = "not that many")]
    gauge!(TASKS).set(number as f64);
}

/// What is allocated and not freed.
#[cfg(feature = "heap-metric")]
pub fn heap_allocated(bytes: usize) {
    #[allow(clippy::cast_precision_loss, reason = "exact up to 8 PiB")]
    gauge!(super::metrics::HEAP_BYTES).set(bytes as f64);
}

/// The connection to NATS has come or gone. Rare, so it looks its series up.
pub fn nats_connected(connected: bool) {
    gauge!(NATS_CONNECTED).set(if connected { 1.0 } else { 0.0 });
    if connected {
        info!("connected to NATS");
    } else {
        warn!("disconnected from NATS");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::CommandId;
    use crate::telemetry::metrics::{self, register_all};

    fn signals() -> PoolSignals {
        PoolSignals::new(&Pool::new("web").unwrap(), "docker", WorkerType::Dynamic)
    }

    #[test]
    fn every_label_is_where_its_number_says() {
        assert!(State::ALL.iter().enumerate().all(|(n, state)| *state as usize == n));
        assert!(Reason::ALL.iter().enumerate().all(|(n, reason)| *reason as usize == n));
        assert!(Outcome::ALL.iter().enumerate().all(|(n, outcome)| *outcome as usize == n));
    }

    #[test]
    fn every_series_is_there_at_0_before_anything_happens() {
        let recorder = metrics::recorder_for_tests();
        let handle = recorder.handle();
        let file = "[pools.web]\nprovider = \"docker\"\nimage = \"a\"\n[pools.edge]\nprovider = \"static\"\nhosts = [{ id = \"e\" }]\n";
        let source = crate::config::Source {
            file: Some(crate::config::ConfigFile { name: "enlist.toml".to_owned(), text: file.to_owned() }),
            env: std::collections::BTreeMap::new(),
            flags: crate::config::Flags::default(),
            read: &|_| Err(std::io::ErrorKind::NotFound.into()),
        };
        let config = crate::config::load(&source).unwrap().config;
        ::metrics::with_local_recorder(&recorder, || register_all(&config));
        let text = handle.render();
        for line in [
            "worker_provisioning_registration_failed_total{worker_type=\"dynamic\",pool=\"web\"} 0",
            "worker_provisioning_registration_failed_total{worker_type=\"static\",pool=\"edge\"} 0",
            "enlist_commands_total{pool=\"web\",verb=\"provision\",outcome=\"registered\"} 0",
            "enlist_commands_total{pool=\"web\",verb=\"terminate\",outcome=\"dead_letter\"} 0",
            "enlist_command_seconds_bucket{pool=\"web\",verb=\"provision\",le=\"0.001\"} 0",
            "enlist_command_seconds_count{pool=\"edge\",verb=\"sweep\"} 0",
            "enlist_provider_seconds_count{provider=\"docker\",operation=\"create\",outcome=\"timeout\"} 0",
            "enlist_registration_attempts_total{outcome=\"busy\"} 0",
            "enlist_registration_seconds_count 0",
            "enlist_redeliveries_total{pool=\"web\",verb=\"pool\"} 0",
            "enlist_commands_in_flight{pool=\"web\",verb=\"provision\"} 0",
            "enlist_workers{pool=\"edge\",state=\"registration_failed\"} 0",
            "enlist_orphans_total{pool=\"web\",action=\"terminated\"} 0",
            "enlist_dead_letters_total{pool=\"web\",reason=\"not_allowed\"} 0",
            "enlist_sweep_frozen{pool=\"web\"} 0",
            "enlist_pool_holdoff_seconds{pool=\"web\"} 0",
            "enlist_nats_connected 0",
            "enlist_tasks 0",
            concat!("enlist_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing from\n{text}");
        }
        assert!(!text.contains("verb=\"sweep\",outcome=\"registered\""), "no series that can never move");
    }

    #[test]
    fn a_failed_registration_is_counted_and_logged_with_worker_and_error() {
        let recorder = metrics::recorder_for_tests();
        let handle = recorder.handle();
        let log = Log::default();
        let subscriber =
            tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false).with_max_level(tracing::Level::WARN);
        let fault = RegistrationFault {
            code: "no_responders".to_owned(),
            message: "nobody\nthere".to_owned(),
            critical: false,
        };
        tracing::subscriber::with_default(subscriber.finish(), || {
            ::metrics::with_local_recorder(&recorder, || signals().registration_failed(&worker(), &fault));
        });
        let line = "worker_provisioning_registration_failed_total{worker_type=\"dynamic\",pool=\"web\"} 1";
        assert!(handle.render().contains(line));
        let told = log.text();
        for part in ["WARN", "worker_id=w-1", "code=\"no_responders\"", "nobody\\\\nthere", "pool=web"] {
            assert!(told.contains(part), "{part} is missing from {told}");
        }
        assert_eq!(told.lines().count(), 1, "foreign text makes no line of its own: {told}");
    }

    #[test]
    fn a_command_is_in_flight_for_as_long_as_its_guard_lives() {
        let recorder = metrics::recorder_for_tests();
        let handle = recorder.handle();
        ::metrics::with_local_recorder(&recorder, || {
            let signals = signals();
            let line = "enlist_commands_in_flight{pool=\"web\",verb=\"terminate\"}";
            let guard = signals.in_flight(Verb::Terminate);
            assert!(handle.render().contains(&format!("{line} 1")));
            drop(guard);
            assert!(handle.render().contains(&format!("{line} 0")));
        });
    }

    #[test]
    fn without_a_recorder_signals_do_nothing() {
        signals().command_done(Verb::Provision, Outcome::Registered, Duration::from_millis(1));
        signals().provider_call(Operation::Create, ProviderOutcome::Ok, Duration::ZERO, None);
    }

    fn worker() -> Worker {
        use crate::domain::{Capabilities, Registration, SpecHash};
        let at = jiff::Timestamp::UNIX_EPOCH;
        Worker {
            pool: Pool::new("web").unwrap(),
            worker_id: WorkerId::new("w-1").unwrap(),
            worker_type: WorkerType::Dynamic,
            state: State::RegistrationFailed,
            rev: 3,
            epoch: 1,
            command_id: CommandId::new("c-1").unwrap(),
            correlation_id: None,
            spec_hash: SpecHash::of(b""),
            ended_by: None,
            provider: "docker".to_owned(),
            instance_id: None,
            endpoint: None,
            capabilities: Capabilities::default(),
            registration: Registration::wanted(true),
            error: None,
            attempts: 0,
            created_at: at,
            updated_at: at,
        }
    }

    /// A log that a test can read.
    #[derive(Clone, Default)]
    struct Log(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

    impl Log {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl tracing_subscriber::fmt::MakeWriter<'_> for Log {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }
}
