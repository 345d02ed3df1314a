//! Rebuilding records from what the provider says of its instances, after the log was lost or put back to an older copy.

use std::collections::HashSet;

use super::hold::Hold;
use super::sweep::{Count, Known, Records, SchedulerList, SweepError, SweepPoolConfig};
use super::{Stop, WorkerManagementService};
use crate::crash::{self, CrashPoint};
use crate::domain::{CommandId, Pool, PoolRecord, PoolState, Worker, WorkerId};
use crate::journal::{AppendError, Journal, PoolEntry};
use crate::provider::{Instance, WorkerProvider};
use crate::registration::WorkerRegistrationPort;

/// What was adopted, or would be.
#[derive(Debug)]
pub struct Adoptions {
    /// The instances that had no record, by name.
    pub workers: Vec<Adoption>,
    /// The pool's size before and after: an older copy of the log has an older size, and the next sweep would end what is
    /// above it.
    pub raised: Option<(u32, u32)>,
    /// What the scheduler said. Without its list an epoch is above what the instance tells, and perhaps not above what the
    /// scheduler has seen.
    pub scheduler: SchedulerList,
}

/// An instance that has no record, and what became of it.
#[derive(Debug)]
pub struct Adoption {
    /// The instance.
    pub instance: Instance,
    /// The epoch that its record begins with.
    pub epoch: u64,
    /// Its record, or why it has none; `None` where nothing was to be done.
    pub adopted: Option<Result<Worker, String>>,
}

impl<P: WorkerProvider, R: WorkerRegistrationPort, J: Journal> WorkerManagementService<P, R, J> {
    /// Gives a record to every instance that has none, and registers it. With `dry_run` it only says which they are.
    ///
    /// A pool whose size on record is below the number of its workers has it raised first. An instance whose worker has
    /// ended is not adopted: it is an orphan. Called again, it goes on where it stopped: what has a record by then is left
    /// alone, and what was only claimed is finished by the sweep.
    pub async fn adopt(&self, config: &SweepPoolConfig, dry_run: bool) -> Result<Adoptions, SweepError> {
        let mut instances = self.list_instances(&config.pool).await?;
        let scheduler = self.list_scheduler(&config.pool).await;
        let listed_by_provider: HashSet<&WorkerId> = instances.iter().map(|instance| &instance.key.worker_id).collect();
        let of_use = |worker_id: &WorkerId, known: &Known| {
            (known.is_live() || listed_by_provider.contains(worker_id)).then(Vec::new)
        };
        let Records { workers: records, size, .. } = self.records(&config.pool, of_use).await?;
        instances.retain(|instance| !records.contains_key(&instance.key.worker_id));
        instances.sort_by(|a, b| a.key.worker_id.cmp(&b.key.worker_id));
        let all = Count::of(&records).counted + instances.len();
        let all = u32::try_from(all).unwrap_or(u32::MAX);
        let raised = match size {
            Some(size) if size.record.size < all && !instances.is_empty() => {
                let before = size.record.size;
                if !dry_run {
                    self.raise(size, all).await?;
                }
                Some((before, all))
            }
            Some(_) | None => None,
        };
        let mut workers = Vec::new();
        for instance in instances {
            let epoch = epoch_above(&instance, &scheduler);
            let adopted = if dry_run {
                None
            } else {
                Some(self.adopt_one(config, &instance, epoch).await.map_err(|stop| stop.to_string()))
            };
            workers.push(Adoption { instance, epoch, adopted });
        }
        if raised.is_some() && !dry_run {
            self.settle_size(&config.pool).await;
        }
        Ok(Adoptions { workers, raised, scheduler })
    }

    /// Says that the raised size is there. If it cannot be said, the size is held all the same.
    async fn settle_size(&self, pool: &Pool) {
        if let Ok(Some(head)) = self.journal.pool_head(pool).await
            && head.record.state == PoolState::Sizing
        {
            let _ = self.sized(&head).await;
        }
    }

    /// Written before anything is adopted: dying here leaves a size that is not reached, and a sweep that is frozen for as
    /// long as an instance has no record.
    async fn raise(&self, before: PoolEntry, size: u32) -> Result<(), AppendError> {
        let PoolEntry { record, sequence, .. } = before;
        let rev = record.rev + 1;
        #[allow(clippy::expect_used, reason = "of the right form by construction")]
        let command_id = CommandId::new(format!("enlist-adopt-{rev}")).expect("letters, digits and dashes");
        let state = PoolState::Sizing;
        let raised =
            PoolRecord { state, rev, size, command_id, correlation_id: None, updated_at: self.now(), ..record };
        self.journal.append_pool(&raised, sequence, &self.writer(None)).await.map(|_| ())
    }

    async fn adopt_one(&self, config: &SweepPoolConfig, instance: &Instance, epoch: u64) -> Result<Worker, Stop> {
        let wanted = config.registration.enabled && self.registration.is_some();
        let claim = self.claim_of(instance, &config.spec, wanted);
        let worker = Worker::adopted(claim, epoch, instance.created_at, self.now());
        let mut hold = match Hold::open(&self.journal, worker, 0, self.writer(None)).await {
            Ok(hold) => hold,
            Err(AppendError::Conflict) => return Err(Stop::Later("it has a record by now".to_owned())),
            Err(AppendError::Unavailable(why)) => return Err(Stop::Later(why)),
        };
        // Dying here leaves a claim with an instance: the sweep finds the two together and finishes them.
        crash::point(CrashPoint::AdoptionClaimed);
        let told = self.created(&mut hold, instance.clone(), &config.registration).await?;
        self.outcome(&mut hold, told).await?;
        Ok(hold.into_worker())
    }
}

/// Above all that the scheduler can have seen of the worker, as far as it tells: it ignores what is below.
fn epoch_above(instance: &Instance, scheduler: &SchedulerList) -> u64 {
    let listed = scheduler.epoch_of(&instance.key.worker_id);
    instance.epoch.max(listed.unwrap_or(0)).saturating_add(1)
}
