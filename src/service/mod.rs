//! The path from a command to its outcome, and the library's front door to it.

mod adopt;
mod claim;
mod create;
mod ending;
mod fenced;
mod gate;
mod hold;
mod instances;
mod let_go;
mod library;
mod pace;
mod per_pool;
mod provision;
mod refuse;
mod resize;
mod scheduler;
mod settings;
pub mod sweep;
mod terminate;
mod wanted;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::bus::streams::ACK_WAIT;
use crate::domain::{Pool, Reason, Refusal, TraceContext};
use crate::journal::{Entry, Journal, MemoryJournal, Writer};
use crate::mutant::{self, Mutant};
use crate::provider::WorkerProvider;
use crate::registration::WorkerRegistrationPort;
use crate::registration::memory::MemoryScheduler;
use crate::telemetry::PoolSignals;

pub use adopt::{Adoption, Adoptions};
pub use ending::{Ending, Stop};
pub use gate::{Gate, Passage};
pub use library::{PoolProvisioned, WorkerManagementError, WorkerProvisioned, WorkerStatus};
use per_pool::PerPool;
pub use resize::{ResizePoolConfig, Resizing};
pub use settings::{DynamicWorkerConfig, TerminateWorkerConfig, WorkerManagementConfig};

/// Tells the time; an argument, so that simulation can turn it.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Draws a number from 0 to 1, from which every pause takes its jitter; an argument for the same reason.
pub type Chance = Arc<dyn Fn() -> f64 + Send + Sync>;

/// Provisions workers, tells the scheduler, and writes every step into the journal.
///
/// Each step is written before the next is begun, compared and set against the worker's newest event. Whoever calls
/// again with the same command id, in this process or another, goes on where the last try stopped.
///
/// ```
/// use enlist::config::NullConfig;
/// use enlist::domain::Prefix;
/// use enlist::provider::null::NullProvider;
/// use enlist::registration::memory::MemoryScheduler;
/// use enlist::{DynamicWorkerConfig, WorkerManagementConfig, WorkerManagementService, WorkerStatus};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), enlist::WorkerManagementError> {
/// let fleet = Prefix::new("example").expect("a valid prefix");
/// let service = WorkerManagementService::new_with_registration(
///     NullProvider::new(&fleet, NullConfig::default()),
///     MemoryScheduler::default(),
///     WorkerManagementConfig::default(),
/// );
/// let worker = service.provision_worker(&DynamicWorkerConfig::default()).await?;
/// assert_eq!(worker.status, WorkerStatus::Registered);
/// # Ok(()) }
/// ```
pub struct WorkerManagementService<P: WorkerProvider, R: WorkerRegistrationPort, J: Journal = MemoryJournal> {
    provider: P,
    registration: Option<R>,
    journal: J,
    config: WorkerManagementConfig,
    clock: Clock,
    chance: Chance,
    /// Names this replica in [`Writer`]s; another process, or this one restarted, has another.
    replica: Arc<str>,
    tries: AtomicU64,
    pools: RwLock<HashMap<Pool, PerPool>>,
}

impl<P: WorkerProvider> WorkerManagementService<P, MemoryScheduler> {
    /// A service that tells no scheduler.
    #[must_use]
    pub fn new(provider: P, config: WorkerManagementConfig) -> Self {
        Self::build(provider, None, config)
    }
}

impl<P: WorkerProvider, R: WorkerRegistrationPort> WorkerManagementService<P, R> {
    /// A service that registers every worker with the scheduler behind `registration`.
    #[must_use]
    pub fn new_with_registration(provider: P, registration: R, config: WorkerManagementConfig) -> Self {
        Self::build(provider, Some(registration), config)
    }

    fn build(provider: P, registration: Option<R>, config: WorkerManagementConfig) -> Self {
        Self {
            provider,
            registration,
            journal: MemoryJournal::new(),
            config,
            clock: Arc::new(whole_milliseconds),
            chance: Arc::new(rand::random),
            replica: uuid::Uuid::new_v4().simple().to_string()[..10].into(),
            tries: AtomicU64::new(0),
            pools: RwLock::default(),
        }
    }
}

impl<P: WorkerProvider, R: WorkerRegistrationPort, J: Journal> WorkerManagementService<P, R, J> {
    /// The same service on another journal.
    #[must_use]
    pub fn with_journal<K: Journal>(self, journal: K) -> WorkerManagementService<P, R, K> {
        let Self { provider, registration, journal: _, config, clock, chance, replica, tries, pools } = self;
        WorkerManagementService { provider, registration, journal, config, clock, chance, replica, tries, pools }
    }

    /// The same service on another clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The same service, its pauses drawn from another chance.
    #[must_use]
    pub fn with_chance(mut self, chance: Chance) -> Self {
        self.chance = chance;
        self
    }

    /// The same service, which tells what happens in `pool` by these signals.
    #[must_use]
    pub fn with_signals(self, pool: &Pool, signals: Arc<PoolSignals>) -> Self {
        self.pools.write().unwrap_or_else(PoisonError::into_inner).insert(pool.clone(), PerPool::new(signals));
        self
    }

    /// The journal.
    pub fn journal(&self) -> &J {
        &self.journal
    }

    /// The provider.
    pub fn provider(&self) -> &P {
        &self.provider
    }

    /// Tells when provisions of `pool` may be pulled: not while its provider fails them.
    pub fn gate(&self, pool: &Pool) -> Gate {
        self.of(pool, |pool| pool.paced.gate())
    }

    /// The time, as its clock has it.
    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// A number from 0 to 1.
    pub fn chance(&self) -> f64 {
        (self.chance)()
    }

    /// Whether a command that nobody has begun may begin now.
    fn not_expired(&self, expires_at: Option<Timestamp>) -> Result<(), Refusal> {
        let now = self.now();
        match expires_at {
            Some(at) if at < now => {
                let detail = format!("expires_at: found {at}, expected a time after {now}, when it would have started");
                Err(Refusal::new(Reason::Expired, detail))
            }
            _ => Ok(()),
        }
    }

    /// Names one try of one command.
    fn writer(&self, message: Option<u64>) -> Writer {
        let number = self.tries.fetch_add(1, Ordering::Relaxed);
        Writer { name: format!("{}.{number}", self.replica).into(), message, claim: None, trace: None }
    }

    /// The same for a command that is part of a trace.
    fn writer_in(&self, trace: Option<&TraceContext>, message: Option<u64>) -> Writer {
        Writer { trace: trace.cloned(), ..self.writer(message) }
    }

    /// Whether this try may go on with what another has left. A redelivery of the very message that the other works on
    /// may, since the server redelivers only what shows no sign of life. A copy of the command may not: the other is
    /// perhaps alive, and two that take the worker from one another in turn would end as `exhausted`. Only a record that
    /// has stood for longer than any step can take belongs to nobody.
    fn may_take_over(&self, head: &Entry, message: Option<u64>) -> bool {
        let stood = self.now().duration_since(head.worker.updated_at);
        message.is_none()
            || mutant::on(Mutant::CopyTakesOver)
            || head.writer.message == message
            || stood > signed(self.longest_step())
    }

    /// Longer than any step of a command can take, its redelivery included: a record that has stood for longer belongs to
    /// nobody.
    fn longest_step(&self) -> Duration {
        self.longest_step_in_hand() + 2 * ACK_WAIT
    }

    /// The same where nothing is in the queue to be redelivered.
    fn longest_step_in_hand(&self) -> Duration {
        let WorkerManagementConfig { registration_timeout, unregister_timeout, launch_timeout, grace, .. } =
            &self.config;
        // A terminate waits for the grace twice: while the scheduler drains the worker, and while its provider ends it.
        *registration_timeout + *unregister_timeout + *launch_timeout + 2 * *grace
    }

    /// Something of what is kept of a pool, which is made where nobody has asked before.
    fn of<T>(&self, pool: &Pool, pick: impl FnOnce(&PerPool) -> T) -> T {
        if let Some(known) = self.pools.read().unwrap_or_else(PoisonError::into_inner).get(pool) {
            return pick(known);
        }
        let signals = Arc::new(PoolSignals::new(pool, self.provider.name(), self.provider.worker_type()));
        let mut pools = self.pools.write().unwrap_or_else(PoisonError::into_inner);
        pick(pools.entry(pool.clone()).or_insert_with(|| PerPool::new(signals)))
    }

    fn signals(&self, pool: &Pool) -> Arc<PoolSignals> {
        self.of(pool, |pool| Arc::clone(&pool.signals))
    }
}

impl<P: WorkerProvider, R: WorkerRegistrationPort, J: Journal> std::fmt::Debug for WorkerManagementService<P, R, J> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerManagementService")
            .field("provider", &self.provider.name())
            .field("registration", &self.registration.is_some())
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// The time, as events have it, three times each. Steps take milliseconds and clocks of machines differ by as much: finer times
/// would tell nothing that the order of the log does not, and cost bytes.
fn whole_milliseconds() -> Timestamp {
    Timestamp::from_millisecond(Timestamp::now().as_millisecond()).unwrap_or_default()
}

/// A setting, as it is compared with the time between two moments.
fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}
