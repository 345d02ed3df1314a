//! The sweep: compares what the provider has, what the scheduler knows and what the log says, and mends the differences.
//!
//! Lists in, a plan out (`plan`), acts one by one (`carry_out`), and a report. Every act looks at the record once more and
//! writes before it does harm, so that two sweeps at once, or one that dies half-way, do no more than one that does not.

mod act;
mod brake;
#[cfg(test)]
mod brake_tests;
mod carry_out;
mod listing;
#[cfg(test)]
mod listing_tests;
mod look;
mod looking;
mod plan;
#[cfg(test)]
mod plan_tests;
mod report;
#[cfg(test)]
mod samples;
mod size;
#[cfg(test)]
mod size_tests;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::{WorkerManagementService, signed};
use crate::domain::{Pool, WorkerSpec};
use crate::journal::{AppendError, Journal, ReadError};
use crate::provider::{ProviderError, WorkerProvider};
use crate::registration::{RegistrationConfig, WorkerRegistrationPort};

pub(super) use looking::Records;

pub use act::{Act, Order, Why};
pub use brake::another_log;
pub use listing::Listing;
pub use look::{Known, Look, SchedulerList};
pub use plan::{Plan, Rules, Sightings, plan};
pub use report::SweepReport;
pub use size::{Count, plan_size};

/// Whether a message is still in the pool's queue, delivered or not.
pub type Backlog = Arc<dyn Fn(u64) -> BoxFuture<'static, Result<bool, ReadError>> + Send + Sync>;

/// How a pool is swept.
#[derive(Debug, Clone, PartialEq)]
pub struct SweepPoolConfig {
    /// The pool.
    pub pool: Pool,
    /// What its workers are, where its size asks for more.
    pub spec: WorkerSpec,
    /// How its workers are registered.
    pub registration: RegistrationConfig,
    /// Younger instances are nobody's orphan.
    pub grace: Duration,
    /// Whether orphans are removed, or only reported.
    pub remove_orphans: bool,
    /// Removals a sweep, or 5 % of the pool, whichever is larger; more than this, and than 10 %, freezes it.
    pub max_terminations: usize,
    /// How long events of final workers are kept.
    pub retention: Duration,
    /// Time between sweeps; a worker whose registration failed is not offered more often.
    pub interval: Duration,
    /// What the log says of workers that have ended is held to be true, though an instance was made under another log: set
    /// for a sweep that a person has looked at. Else it freezes the sweep.
    pub trust_ended: bool,
}

impl SweepPoolConfig {
    /// The usual settings for a pool whose workers are like `spec`.
    #[must_use]
    pub fn new(pool: Pool, spec: WorkerSpec) -> Self {
        Self {
            pool,
            spec,
            registration: RegistrationConfig::default(),
            grace: Duration::from_secs(300),
            remove_orphans: true,
            max_terminations: 10,
            retention: Duration::from_secs(7 * 24 * 3600),
            interval: Duration::from_secs(60),
            trust_ended: false,
        }
    }
}

/// Why a sweep, or an adoption, did nothing.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// Another one of this replica is at it: what waited behind a provider that hangs would hold up all else.
    #[error("another sweep of the pool is under way")]
    UnderWay,
    /// Half a list would make the other half look gone.
    #[error("the provider's list: {0}")]
    Provider(#[from] ProviderError),
    /// Without the records everything would look like an orphan.
    #[error(transparent)]
    Journal(#[from] ReadError),
    /// With the size of an older log on record, what is adopted would be ended again.
    #[error("the pool's size was not raised: {0}")]
    Size(#[from] AppendError),
}

impl<P: WorkerProvider, R: WorkerRegistrationPort, J: Journal> WorkerManagementService<P, R, J> {
    /// One sweep of a pool. What the pool's size asks for is in the report and not done yet: it goes the way of commands.
    ///
    /// `message` is the queue message that asks for it, and `backlog` tells which other messages are still in the queue.
    pub async fn sweep_pool(
        &self,
        config: &SweepPoolConfig,
        message: Option<u64>,
        backlog: Option<&Backlog>,
    ) -> Result<SweepReport, SweepError> {
        let begun = Instant::now();
        let memory = self.of(&config.pool, |pool| Arc::clone(&pool.sightings));
        // One sweep of a pool at a time in this replica; sweeps of other replicas are kept apart by each act's own write.
        let Ok(mut sightings) = memory.try_lock() else { return Err(SweepError::UnderWay) };
        let signals = self.signals(&config.pool);
        let look = match self.look(config).await {
            Ok(look) => look,
            Err(error) => {
                signals.sweep().failed(&error.to_string());
                return Err(error);
            }
        };
        let mut rules = self.rules(config, message);
        if backlog.is_some() {
            // Nothing is taken over whose message can still come again, so that no redelivery has to be waited for.
            rules.stuck_after = self.longest_step_in_hand();
        }
        let plan = plan(&look, &rules, &sightings);
        *sightings = plan.sightings.clone();
        let mut report = SweepReport::new(&look, &plan);
        drop(look);
        self.carry_out(config, plan.acts, message, backlog, &mut report).await;
        report.took = begun.elapsed();
        signals.sweep().swept(report.line(&report.done_in_words()));
        Ok(report)
    }

    /// What a sweep would do now: it looks twice, since what is seen once is not acted upon, and does nothing.
    pub async fn plan_sweep(&self, config: &SweepPoolConfig) -> Result<(Look, Plan), SweepError> {
        let rules = self.rules(config, None);
        let first = plan(&self.look(config).await?, &rules, &Sightings::default());
        let look = self.look(config).await?;
        let plan = plan(&look, &rules, &first.sightings);
        Ok((look, plan))
    }

    pub(super) fn rules(&self, config: &SweepPoolConfig, message: Option<u64>) -> Rules {
        Rules {
            grace: config.grace,
            remove_orphans: config.remove_orphans,
            max_terminations: config.max_terminations,
            retention: config.retention,
            interval: config.interval,
            stuck_after: self.longest_step(),
            max_workers: self.config.max_workers,
            inventory: self.provider.inventory(),
            trust_ended: config.trust_ended,
            message,
        }
    }
}
