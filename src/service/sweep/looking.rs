//! How a sweep looks: in an order in which no moment between two lists makes a healthy worker look sick.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::timeout;

use super::listing::{Held, Listing};
use super::look::{Known, Look, SchedulerList};
use super::plan::{MOST_PURGES, is_past};
use super::{SweepError, SweepPoolConfig, WorkerManagementService, signed};
use crate::domain::{Claimed, Pool, State, WorkerId, WorkerType};
use crate::journal::{EventOf, Journal, PoolEntry, ReadError, Scan, Scanned};
use crate::mutant::{self, Mutant};
use crate::provider::{Instance, ProviderError, WorkerProvider};
use crate::registration::{RegistrationError, WorkerRegistrationPort};

/// Instances whose place in the log is looked up: one that another's event has is proof enough.
const MOST_PLACES: usize = 32;
/// A scheduler has so long for its list, however many pages it has.
const LONGEST_LIST: Duration = Duration::from_secs(60);

/// What a worker's newest event is to a look: `None` where it is of no use, else the workers that are of none any more.
pub(in crate::service) type Use = Option<Vec<WorkerId>>;
const KEPT: Use = Some(Vec::new());

/// What is held of a pool's events.
pub(in crate::service) struct Records {
    /// The newest event of each worker that is of use.
    pub(in crate::service) workers: BTreeMap<WorkerId, Known>,
    /// How many events were of no use.
    pub(in crate::service) others: usize,
    /// The pool's own.
    pub(in crate::service) size: Option<PoolEntry>,
    /// The oldest claim, or event of the pool's own, that the log still tells of.
    pub(in crate::service) oldest: Option<u64>,
    pub(in crate::service) scan: Scan,
}

impl<P: WorkerProvider, R: WorkerRegistrationPort, J: Journal> WorkerManagementService<P, R, J> {
    /// Looks at a pool for a sweep. Nothing is changed.
    pub(super) async fn look(&self, config: &SweepPoolConfig) -> Result<Look, SweepError> {
        let sized = self.journal.pool_head(&config.pool).await?.is_some();
        self.look_at(config, sized).await
    }

    /// The same, where it is known whether the pool has a size: one that has may ask any of its workers to go.
    pub(in crate::service) async fn look_at(&self, config: &SweepPoolConfig, sized: bool) -> Result<Look, SweepError> {
        let pool = &config.pool;
        let first = if mutant::on(Mutant::RecordsFirst) { Some(self.records(pool, |_, _| KEPT).await?) } else { None };
        let mut held = Held::new(sized);
        self.scan_instances(pool, &mut |instance| held.take(instance)).await?;
        let now = self.now();
        let scheduler = self.list_scheduler(pool).await;
        let found = if let Some(first) = first {
            first
        } else {
            let (mut of_use, listing) = (self.of_use(config, now), &mut held.listing);
            let judged = |worker_id: &WorkerId, known: &Known| {
                if listing.judge(worker_id, known, &scheduler, sized) {
                    return None;
                }
                of_use(worker_id, known, listing.has(worker_id) || scheduler.epoch_of(worker_id).is_some())
            };
            self.records(pool, judged).await?
        };
        let (listing, strays) = held.strays();
        let instances = match strays {
            Some(instances) => instances,
            None => self.list_strays(pool, &listing).await?,
        };
        let worker_type = self.provider.worker_type();
        let rolled_back = self.rolled_back(config, now, &instances, &found).await?;
        let Records { workers: records, others, size, oldest: _, scan: _ } = found;
        // One that has come meanwhile is for the next sweep: it may ask those to go of whom only the number is left.
        let size = size.filter(|_| sized);
        Ok(Look { now, worker_type, listing, instances, records, others, scheduler, size, rolled_back })
    }

    /// Lists once more, and holds what was listed before and has no live record. Nothing that was made since the records were
    /// read comes in, and would look as if it had none. What went since is no orphan any more.
    async fn list_strays(&self, pool: &Pool, listing: &Listing) -> Result<Vec<Instance>, ProviderError> {
        let mut instances = Vec::new();
        let mut take = |instance: Instance| {
            if listing.has_stray(&instance) || mutant::on(Mutant::SecondListWhole) {
                instances.push(instance);
            }
        };
        self.scan_instances(pool, &mut take).await?;
        Ok(instances)
    }

    /// The newest event of every worker that is of use, and the pool's own. A pool may have had a million workers since its
    /// events were last purged, and they are not all held at once.
    pub(in crate::service) async fn records(
        &self,
        pool: &Pool,
        mut of_use: impl FnMut(&WorkerId, &Known) -> Use + Send,
    ) -> Result<Records, ReadError> {
        let (mut workers, mut others, mut size) = (BTreeMap::new(), 0, None);
        let mut oldest = u64::MAX;
        let take = |scanned| match scanned {
            // In the order of the log: a later event takes an earlier one's place.
            Scanned::Worker(entry) => {
                let worker_id = entry.worker.worker_id.clone();
                let known = Known::of(entry, self.provider.name());
                oldest = oldest.min(known.claim.sequence);
                if let Some(no_more) = of_use(&worker_id, &known) {
                    workers.insert(worker_id, known);
                    for worker_id in no_more {
                        others += usize::from(workers.remove(&worker_id).is_some());
                    }
                } else {
                    workers.remove(&worker_id);
                    others += 1;
                }
            }
            Scanned::Pool(entry) => {
                oldest = oldest.min(entry.sequence);
                size = Some(entry);
            }
        };
        let scan = self.journal.scan(pool, take).await?;
        let oldest = Some(oldest).filter(|oldest| *oldest < u64::MAX);
        Ok(Records { workers, others, size, oldest, scan })
    }

    /// Whether a rule of the plan asks about a worker: not where it has ended, and nothing is left of it anywhere, and
    /// nothing comes after it. A place of the pool's size goes on from its newest worker, and waits by how many could not be
    /// made since one could: what ended before that one is of no use.
    fn of_use(
        &self,
        config: &SweepPoolConfig,
        now: Timestamp,
    ) -> impl FnMut(&WorkerId, &Known, bool) -> Use + use<P, R, J> {
        let retention = config.retention;
        let hosts: HashSet<WorkerId> = self.provider.inventory().into_iter().flatten().collect();
        let (mut past, mut of_places) = (0, HashMap::<u32, Vec<WorkerId>>::new());
        move |worker_id, known, is_listed| {
            let was_made = known.state != State::Provisioning && !known.unmade;
            let no_more = match known.slot.filter(|_| was_made) {
                Some(slot) => of_places.remove(&slot.number).unwrap_or_default(),
                None => Vec::new(),
            };
            // What was lost may be what this sweep has begun with before it died.
            let goes_on = known.is_live() || known.state == State::Lost;
            if goes_on || is_listed || hosts.contains(worker_id) {
                return Some(no_more);
            }
            let is_past = is_past(known, now, retention);
            if let Some(slot) = known.slot {
                // What is past is for the plan to purge, unless its place has none that is newer.
                if !is_past {
                    of_places.entry(slot.number).or_default().push(worker_id.clone());
                }
                return Some(no_more);
            }
            let goes = is_past && past < MOST_PURGES;
            past += usize::from(goes);
            goes.then_some(no_more)
        }
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

    /// Proof that the log has been purged, put back to an older copy, or made anew: each instance carries the place of its
    /// claim in the log, and the log that it was made under has that very claim there for as long as the worker's events
    /// are kept.
    async fn rolled_back(
        &self,
        config: &SweepPoolConfig,
        now: Timestamp,
        instances: &[Instance],
        found: &Records,
    ) -> Result<Option<String>, ReadError> {
        if self.provider.worker_type() == WorkerType::Static {
            return Ok(None);
        }
        let record = |instance: &Instance| found.workers.get(&instance.key.worker_id);
        // Also those under whose name the log has another instance's end: an older copy may hold what was purged, and its
        // name used again, before the instance was made.
        let unrecorded = instances.iter().filter(|instance| {
            record(instance).is_none_or(|known| {
                let other = known.instance_id.as_deref() != Some(instance.instance_id.as_str());
                !config.trust_ended && !known.is_live() && other
            })
        });
        let mut places: Vec<(Claimed, &Instance)> =
            unrecorded.filter_map(|instance| instance.claim.map(|claim| (claim, instance))).collect();
        // The newest first: they are the first that an older copy lacks.
        places.sort_by_key(|(claim, _)| std::cmp::Reverse(claim.sequence));
        for (claim, instance) in places.into_iter().take(MOST_PLACES) {
            let what = if claim.sequence > found.scan.last {
                format!("the log ends at {}", found.scan.last)
            } else {
                match self.journal.event_at(claim.sequence).await? {
                    Some(EventOf::Worker(key)) if key == instance.key => continue,
                    Some(EventOf::Worker(key)) => format!("that is an event of {key}"),
                    Some(EventOf::Pool(other)) => format!("that is an event of pool {other}"),
                    None if record(instance).is_none() && gone_early(claim, now, config, found) => {
                        "that is gone before its time".to_owned()
                    }
                    // Purged by a sweep, or fallen off the end of its subject.
                    None => continue,
                }
            };
            let (worker, id) = (&instance.key.worker_id, &instance.instance_id);
            return Ok(Some(format!(
                "instance {id} of {worker} was claimed by event {} of the log, and {what}: the log was purged, put back to an older copy or made anew",
                claim.sequence
            )));
        }
        Ok(None)
    }
}

/// Whether no sweep can have purged a claim that the log has no more. A sweep does so long after the worker's end, and never
/// in the order of the log: what lives, what has ended since, and a size stay behind.
fn gone_early(claim: Claimed, now: Timestamp, config: &SweepPoolConfig, found: &Records) -> bool {
    let is_young = now.duration_since(claim.at) <= signed(config.retention);
    is_young || found.oldest.is_none_or(|oldest| claim.sequence < oldest)
}
