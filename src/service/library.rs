//! The library's front door: the same path, for callers that have no queue.

use std::collections::{BTreeMap, HashSet};

use futures_util::StreamExt;
use futures_util::stream;

use super::sweep::{Act, Order, SweepError, SweepPoolConfig, SweepReport};
use super::{DynamicWorkerConfig, Ending, ResizePoolConfig, Stop, TerminateWorkerConfig, WorkerManagementService};
use crate::domain::{
    Capabilities, CommandId, PoolRecord, Refusal, Registration, RegistrationFault, RegistrationStatus, State, Worker,
    WorkerFault, WorkerId,
};
use crate::journal::{Entry, Journal, Scanned};
use crate::provider::WorkerProvider;
use crate::registration::{RegistrationConfig, WorkerRegistrationPort};

/// Workers of one pool that are made at once.
const POOL_CONCURRENCY: usize = 16;

/// What a caller can count on of a worker that was provisioned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerStatus {
    /// The scheduler has accepted it.
    Registered,
    /// It is there; the scheduler was not told, or has not accepted it.
    Ready,
}

/// A worker that is there.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerProvisioned {
    /// Its name in its pool.
    pub worker_id: WorkerId,
    /// Registered, or only ready.
    pub status: WorkerStatus,
    /// What it offers.
    pub capabilities: Capabilities,
    /// `pool`, `provider`, `worker_type`, `command_id`, and `instance_id` and `endpoint` where there are such.
    pub metadata: BTreeMap<String, String>,
    /// The scheduler's side, with the error of a registration that failed.
    pub registration: Registration,
}

/// The workers of a pool that was pre-warmed.
#[derive(Debug)]
pub struct PoolProvisioned {
    /// The size on record, which sweeps keep from now on; or why it could not be recorded, and then nothing was made.
    pub record: Result<PoolRecord, WorkerManagementError>,
    /// One result for each worker that the pool lacked when the size was recorded, in order.
    pub workers: Vec<Result<WorkerProvisioned, WorkerManagementError>>,
}

/// Why a call of the library did not do as asked.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum WorkerManagementError {
    /// The provider could not make the worker, for good.
    #[error("worker {worker_id} could not be made: {}: {}", fault.class.as_str(), fault.message)]
    Failed {
        /// The worker.
        worker_id: WorkerId,
        /// The provider's answer.
        fault: WorkerFault,
    },
    /// The scheduler has refused the worker for good. The worker is there and stays.
    #[error("worker {} is there, but the scheduler has refused it: {}: {}", worker.worker_id, fault.code, fault.message)]
    RegistrationRejected {
        /// The worker that stays.
        worker: Box<WorkerProvisioned>,
        /// The scheduler's answer.
        fault: RegistrationFault,
    },
    /// The worker was terminated, or lost, before or while it was asked for.
    #[error("worker {worker_id} is {}", state.as_str())]
    Ended {
        /// The worker.
        worker_id: WorkerId,
        /// Its final state.
        state: State,
    },
    /// The call cannot be carried out as it is.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Provider or journal were in the way. What has been done is recorded: call again with the same command id to go on.
    #[error("not finished, call again with the same command id to go on: {0}")]
    Unfinished(String),
    /// Another call, perhaps in another process, has the worker in hand.
    #[error("another call has the worker in hand")]
    Superseded,
}

impl<P: WorkerProvider, R: WorkerRegistrationPort, J: Journal> WorkerManagementService<P, R, J> {
    /// Provisions a worker and registers it as the service's settings say.
    ///
    /// A registration that fails does not fail the call: the worker is there, its status is [`WorkerStatus::Ready`], and
    /// the registration's error stands beside it. Only a refusal for good is an error, and even then the worker stays.
    pub async fn provision_worker(
        &self,
        config: &DynamicWorkerConfig,
    ) -> Result<WorkerProvisioned, WorkerManagementError> {
        self.provision_worker_with_config(config, &self.config.registration()).await
    }

    /// Provisions a worker and registers it as `registration` says.
    pub async fn provision_worker_with_config(
        &self,
        config: &DynamicWorkerConfig,
        registration: &RegistrationConfig,
    ) -> Result<WorkerProvisioned, WorkerManagementError> {
        provisioned(finished(self.provision(config, registration, None).await)?)
    }

    /// Pre-warms a pool to `size` workers: makes those that are missing, like `config`, each registered, some at a time. The
    /// size is recorded first, so that [`Self::sweep`] keeps it: it replaces what is lost, and ends what is above. Called
    /// again with the same command id it makes those that are missing. The workers' command ids are that of `config` with
    /// `-0`, `-1` … behind it.
    pub async fn create_pool(&self, config: &DynamicWorkerConfig, size: u32) -> PoolProvisioned {
        let order = ResizePoolConfig {
            pool: config.pool.clone(),
            command_id: config.command_id.clone(),
            size,
            correlation_id: config.correlation_id.clone(),
            expires_at: config.expires_at,
            asked_at: None,
            trace: config.trace.clone(),
        };
        let sweep = SweepPoolConfig::new(config.pool.clone(), config.spec.clone());
        if let Err(stop) = self.resize_pool(&order, &sweep, None).await {
            return PoolProvisioned { record: Err(stop.into()), workers: Vec::new() };
        }
        let missing = match self.missing(&order).await {
            Ok(missing) => missing,
            Err(error) => return PoolProvisioned { record: Err(error), workers: Vec::new() },
        };
        let registration = &self.config.registration();
        let workers = stream::iter(0..missing)
            .map(|n| async move {
                let command_id = CommandId::new(format!("{}-{n}", config.command_id))
                    .map_err(|error| Refusal::new(crate::domain::Reason::Invalid, error.to_string()))?;
                let one = DynamicWorkerConfig { command_id, worker_id: None, ..config.clone() };
                self.provision_worker_with_config(&one, registration).await
            })
            .buffered(POOL_CONCURRENCY)
            .collect()
            .await;
        PoolProvisioned { record: self.size_of(&order, &sweep).await, workers }
    }

    /// How many workers the pool lacks, those left out that this very call made before: they are found by their names.
    async fn missing(&self, order: &ResizePoolConfig) -> Result<u32, WorkerManagementError> {
        let own = format!("{}-", order.command_id);
        let mut others = HashSet::new();
        let take = |scanned| {
            let Scanned::Worker(Entry { worker, .. }) = scanned else { return };
            let is_own = worker.command_id.as_str().strip_prefix(&own).is_some_and(|n| n.parse::<u32>().is_ok());
            if worker.state.counts() && !is_own {
                others.insert(worker.worker_id);
            } else {
                others.remove(&worker.worker_id);
            }
        };
        let scanned = self.journal.scan(&order.pool, take).await;
        scanned.map_err(|error| WorkerManagementError::Unfinished(error.to_string()))?;
        Ok(order.size.saturating_sub(u32::try_from(others.len()).unwrap_or(u32::MAX)))
    }

    /// The pool's record after all that was asked for was tried.
    async fn size_of(
        &self,
        order: &ResizePoolConfig,
        sweep: &SweepPoolConfig,
    ) -> Result<PoolRecord, WorkerManagementError> {
        // Writes `sized` where the pool has it by now.
        self.resize_pool(order, sweep, None).await?;
        match self.journal.pool_head(&order.pool).await {
            Ok(Some(entry)) => Ok(entry.record),
            Ok(None) => Err(WorkerManagementError::Unfinished("the pool's record is gone from the log".into())),
            Err(error) => Err(WorkerManagementError::Unfinished(error.to_string())),
        }
    }

    /// Compares what the provider has, what the scheduler knows and what the journal says, and mends the differences; and
    /// brings the pool to its size, where it has one. Called now and then it keeps all of them true: what looks wrong is
    /// acted upon when two calls have seen it.
    pub async fn sweep(&self, config: &SweepPoolConfig) -> Result<SweepReport, SweepError> {
        let mut report = self.sweep_pool(config, None, None).await?;
        let orders: Vec<Order> = std::mem::take(&mut report.orders);
        let mut done = stream::iter(orders)
            .map(|order| async move {
                let ending = self.carry_out_order(config, &order).await;
                (order, ending)
            })
            .buffer_unordered(POOL_CONCURRENCY);
        while let Some((order, ending)) = done.next().await {
            if let Err(error) = finished(ending) {
                report.undone.push((Act::Ask(order), error.to_string()));
            }
        }
        drop(done);
        Ok(report)
    }

    async fn carry_out_order(&self, config: &SweepPoolConfig, order: &Order) -> Ending {
        match order {
            Order::Provision { command_id, worker_id } => {
                let order =
                    DynamicWorkerConfig::for_command(config.pool.clone(), command_id.clone(), config.spec.clone());
                let order = DynamicWorkerConfig { worker_id: worker_id.clone(), ..order };
                self.provision(&order, &config.registration, None).await
            }
            Order::Terminate { command_id, worker_id } => {
                let order = TerminateWorkerConfig {
                    command_id: command_id.clone(),
                    reason: Some(Order::REASON.to_owned()),
                    ..TerminateWorkerConfig::new(config.pool.clone(), worker_id.clone())
                };
                self.terminate(&order, None).await
            }
        }
    }

    /// Tells the scheduler that a worker goes, waits for its drain, then removes the worker.
    pub async fn terminate_worker(&self, config: &TerminateWorkerConfig) -> Result<(), WorkerManagementError> {
        finished(self.terminate(config, None).await).map(|_| ())
    }
}

fn finished(ending: Ending) -> Result<Worker, WorkerManagementError> {
    Ok(ending.into_result()?)
}

impl From<Stop> for WorkerManagementError {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Refused(refusal) => Self::Refused(refusal),
            Stop::Later(why) => Self::Unfinished(why),
            Stop::Wait(_) | Stop::Superseded => Self::Superseded,
        }
    }
}

fn provisioned(worker: Worker) -> Result<WorkerProvisioned, WorkerManagementError> {
    let status = match worker.state {
        State::Registered => WorkerStatus::Registered,
        State::Provisioning | State::Provisioned | State::RegistrationFailed => WorkerStatus::Ready,
        State::Failed => {
            let fault = worker.error.unwrap_or(WorkerFault {
                class: crate::domain::ErrorClass::Internal,
                message: String::new(),
                retryable: false,
            });
            return Err(WorkerManagementError::Failed { worker_id: worker.worker_id, fault });
        }
        State::Terminating | State::Terminated | State::Lost => {
            return Err(WorkerManagementError::Ended { worker_id: worker.worker_id, state: worker.state });
        }
    };
    let critical = match (&worker.registration.status, &worker.registration.error) {
        (RegistrationStatus::Failed, Some(fault)) if fault.critical => Some(fault.clone()),
        _ => None,
    };
    let there = WorkerProvisioned {
        metadata: metadata(&worker),
        worker_id: worker.worker_id,
        status,
        capabilities: worker.capabilities,
        registration: worker.registration,
    };
    match critical {
        None => Ok(there),
        Some(fault) => Err(WorkerManagementError::RegistrationRejected { worker: Box::new(there), fault }),
    }
}

fn metadata(worker: &Worker) -> BTreeMap<String, String> {
    let mut metadata = BTreeMap::from([
        ("pool".to_owned(), worker.pool.to_string()),
        ("provider".to_owned(), worker.provider.clone()),
        ("worker_type".to_owned(), worker.worker_type.as_str().to_owned()),
        ("command_id".to_owned(), worker.command_id.to_string()),
    ]);
    let optional = [("instance_id", &worker.instance_id), ("endpoint", &worker.endpoint)];
    metadata.extend(optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?))));
    metadata
}
