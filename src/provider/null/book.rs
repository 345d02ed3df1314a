//! Which instances there are, and what a call changes about them: no IO.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::domain::{Pool, Prefix, WorkerId, WorkerKey};
use crate::provider::recorded::Recorded;
use crate::provider::{Instance, LaunchRequest, ProviderError};

/// Every instance of every fleet that shares a home.
#[derive(Debug, Default)]
pub(super) struct Book {
    // Boxed: a table that grows has room for twice as many as it holds, and for as long as it is copied the old one beside it.
    fleets: HashMap<Prefix, HashMap<WorkerKey, Box<Recorded>>>,
}

/// One change.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Entry {
    Made(Recorded),
    Gone { pool: Pool, worker_id: WorkerId },
}

/// The answer to a call and the change that makes it true, if one is needed.
pub(super) type Planned<T> = Result<(T, Option<Entry>), ProviderError>;

impl Book {
    pub(super) fn create(
        &self,
        fleet: &Prefix,
        request: &LaunchRequest,
        id: String,
        now: Timestamp,
    ) -> Planned<Instance> {
        if let Some(found) = self.get(fleet, &request.key) {
            found.claimed_by(request)?;
            return Ok((found.instance(), None));
        }
        let made = Recorded::new(request, id, now);
        Ok((made.instance(), Some(Entry::Made(made))))
    }

    pub(super) fn terminate(&self, fleet: &Prefix, key: WorkerKey, instance_id: Option<&str>) -> Planned<()> {
        let Some(found) = self.get(fleet, &key) else { return Ok(((), None)) };
        found.meant_by(instance_id)?;
        let WorkerKey { pool, worker_id } = key;
        Ok(((), Some(Entry::Gone { pool, worker_id })))
    }

    pub(super) fn find(&self, fleet: &Prefix, key: &WorkerKey) -> Option<Instance> {
        self.get(fleet, key).map(Recorded::instance)
    }

    pub(super) fn list(&self, fleet: &Prefix, pool: &Pool) -> Vec<Instance> {
        let all = self.fleets.get(fleet).into_iter().flat_map(HashMap::values);
        all.filter(|found| found.pool == *pool).map(|found| found.instance()).collect()
    }

    pub(super) fn apply(&mut self, fleet: Prefix, entry: Entry) {
        let instances = self.fleets.entry(fleet).or_default();
        match entry {
            Entry::Made(made) => drop(instances.insert(made.key(), Box::new(made))),
            Entry::Gone { pool, worker_id } => drop(instances.remove(&WorkerKey::new(pool, worker_id))),
        }
    }

    fn get(&self, fleet: &Prefix, key: &WorkerKey) -> Option<&Recorded> {
        self.fleets.get(fleet)?.get(key).map(Box::as_ref)
    }
}
