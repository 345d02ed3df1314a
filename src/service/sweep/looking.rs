//! How a sweep looks: in an order in which no moment between two lists makes a healthy worker look sick.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::timeout;

use super::look::{Known, Look, SchedulerList};
use super::{SweepError, SweepPoolConfig, WorkerManagementService};
use crate::domain::{Pool, WorkerId, WorkerType};
use crate::journal::{EventOf, Journal, PoolEntry, ReadError, Scan, Scanned};
use crate::mutant::{self, Mutant};
use crate::provider::{Instance, WorkerProvider};
use crate::registration::{RegistrationError, WorkerRegistrationPort};

/// Instances whose place in the log is looked up: one that another's event has is proof enough.
const MOST_PLACES: usize = 32;
/// A scheduler has so long for its list, however many pages it has.
const LONGEST_LIST: Duration = Duration::from_secs(60);

impl<P: WorkerProvider, R: WorkerRegistrationPort, J: Journal> WorkerManagementService<P, R, J> {
    /// Looks at a pool. Nothing is changed.
    pub(in crate::service) async fn look(&self, config: &SweepPoolConfig) -> Result<Look, SweepError> {
        let SweepPoolConfig { pool, trust_ended, .. } = config;
        let first = if mutant::on(Mutant::RecordsFirst) { Some(self.records(pool).await?) } else { None };
        let instances = self.list_instances(pool).await?;
        let now = self.now();
        let scheduler = self.list_scheduler(pool).await;
        let (records, size, scan) = match first {
            Some(first) => first,
            None => self.records(pool).await?,
        };
        let worker_type = self.provider.worker_type();
        let rolled_back = self.rolled_back(&instances, &records, scan, *trust_ended).await?;
        Ok(Look { now, worker_type, instances, records, scheduler, size, rolled_back })
    }

    /// Every worker's newest event, and the pool's own.
    pub(in crate::service) async fn records(
        &self,
        pool: &Pool,
    ) -> Result<(HashMap<WorkerId, Known>, Option<PoolEntry>, Scan), ReadError> {
        let (mut records, mut size) = (HashMap::new(), None);
        let take = |scanned| match scanned {
            // In the order of the log: a later event takes an earlier one's place.
            Scanned::Worker(entry) => drop(records.insert(entry.worker.worker_id.clone(), Known::from(entry))),
            Scanned::Pool(entry) => size = Some(entry),
        };
        let scan = self.journal.scan(pool, take).await?;
        Ok((records, size, scan))
    }

    pub(in crate::service) async fn list_scheduler(&self, pool: &Pool) -> SchedulerList {
        let Some(port) = &self.registration else { return SchedulerList::None };
        let listed = timeout(LONGEST_LIST, port.list_workers(pool)).await.unwrap_or_else(|_| {
            let message = format!("its list had no end after {LONGEST_LIST:?}");
            Err(RegistrationError::Unavailable { code: "timeout", message })
        });
        match listed {
            Ok(None) => SchedulerList::None,
            Ok(Some(listed)) => {
                SchedulerList::Of(listed.into_iter().map(|worker| (worker.worker_id, worker.epoch)).collect())
            }
            Err(error) => SchedulerList::Away(error.to_string()),
        }
    }

    /// Proof that the log has been put back to an older copy, or made anew: each instance carries the place of its claim in
    /// the log, and the log that it was made under has that very claim there for as long as the worker's events are kept.
    async fn rolled_back(
        &self,
        instances: &[Instance],
        records: &HashMap<WorkerId, Known>,
        scan: Scan,
        trust_ended: bool,
    ) -> Result<Option<String>, ReadError> {
        if self.provider.worker_type() == WorkerType::Static {
            return Ok(None);
        }
        // Also those under whose name the log has another instance's end: an older copy may hold what was purged, and its
        // name used again, before the instance was made.
        let unrecorded = instances.iter().filter(|instance| {
            records.get(&instance.key.worker_id).is_none_or(|known| {
                !trust_ended && !known.is_live() && known.instance_id.as_deref() != Some(instance.instance_id.as_str())
            })
        });
        let mut places: Vec<(u64, &Instance)> =
            unrecorded.filter_map(|instance| instance.claim.map(|claim| (claim.sequence, instance))).collect();
        // The newest first: they are the first that an older copy lacks.
        places.sort_by_key(|(claim, _)| std::cmp::Reverse(*claim));
        let said = |claim: u64, instance: &Instance, what: String| {
            let (worker, id) = (&instance.key.worker_id, &instance.instance_id);
            Some(format!(
                "instance {id} of {worker} was claimed by event {claim} of the log, and {what}: the log was put back to an older copy or made anew"
            ))
        };
        for (claim, instance) in places.into_iter().take(MOST_PLACES) {
            if claim > scan.last {
                return Ok(said(claim, instance, format!("the log ends at {}", scan.last)));
            }
            match self.journal.event_at(claim).await? {
                Some(EventOf::Worker(key)) if key == instance.key => {}
                Some(EventOf::Worker(key)) => return Ok(said(claim, instance, format!("that is an event of {key}"))),
                Some(EventOf::Pool(other)) => {
                    return Ok(said(claim, instance, format!("that is an event of pool {other}")));
                }
                // Purged, or fallen off the end of its subject.
                None => {}
            }
        }
        Ok(None)
    }
}
