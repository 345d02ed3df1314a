//! A provider in a program of its own, in any language: three requests over NATS.

pub mod conformance;
mod request;

use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use async_nats::Client;
use jiff::{SignedDuration, Timestamp};

use super::{Instance, LaunchRequest, ProviderError, WorkerProvider};
use crate::config::ExternalConfig;
use crate::domain::{ErrorClass, Pool, Prefix, WorkerId, WorkerKey};
use crate::wire::provider::{
    CreateRequest, Created, DeleteRequest, Deleted, InstanceRecord, InstancesPage, InstancesRequest,
};
use request::Asking;

/// Instances on a page at most: some 400 bytes each, and a message has room for a megabyte.
const PAGE: u32 = 500;
/// Pages of one list at most: a provider whose `next` goes round in circles must not hold a sweep for ever.
const MAX_PAGES: usize = 10_000;
/// Pages in a row at most that tell nothing new, for the same reason.
const MAX_EMPTY: usize = 100;

/// A provider that answers on `<subject_prefix>.<name>.create`, `.delete` and `.list`. Clones are the same provider.
#[derive(Debug, Clone)]
pub struct ExternalProvider {
    fleet: Prefix,
    asking: Asking,
    launch_timeout: Duration,
}

impl ExternalProvider {
    /// The provider of a fleet. Nothing is asked yet. After `launch_timeout` nobody waits for an instance.
    #[must_use]
    pub fn new(fleet: &Prefix, client: Client, config: &ExternalConfig, launch_timeout: Duration) -> Self {
        Self { fleet: fleet.clone(), asking: Asking::new(client, config.clone()), launch_timeout }
    }

    async fn page(
        &self,
        pool: &Pool,
        worker_id: Option<&WorkerId>,
        after: Option<String>,
    ) -> Result<InstancesPage, ProviderError> {
        let (fleet, pool, worker_id) = (self.fleet.clone(), pool.clone(), worker_id.cloned());
        let request = InstancesRequest { fleet, pool, worker_id, limit: PAGE, after };
        self.asking.ask::<InstancesPage>("list", request.encode()).await
    }

    /// Every page of a list; `take` says of each instance whether it is new.
    async fn pages(&self, pool: &Pool, mut take: impl FnMut(Instance) -> bool + Send) -> Result<(), ProviderError> {
        let (mut after, mut number, mut empty) = (None, 0, 0);
        for _ in 0..MAX_PAGES {
            let InstancesPage { instances, next } = self.page(pool, None, after.clone()).await?;
            let before = number;
            for instance in instances.into_iter().map(known) {
                // Left out, it would be nobody's to see: a list is complete and right, or an error.
                if instance.key.pool != *pool {
                    return Err(strange("list", &instance, &format!("workers of pool {pool}")));
                }
                number += usize::from(take(instance));
            }
            empty = if number == before { empty + 1 } else { 0 };
            after = match next.filter(|next| !next.is_empty()) {
                None => return Ok(()),
                next if next == after || empty > MAX_EMPTY => break,
                next => next,
            };
        }
        let message = format!("list: its pages have no end ({number} instances so far)");
        Err(ProviderError::new(ErrorClass::Internal, message))
    }
}

impl WorkerProvider for ExternalProvider {
    fn name(&self) -> &'static str {
        "nats"
    }

    async fn create_worker(&self, request: &LaunchRequest) -> Result<Instance, ProviderError> {
        // An earlier try may have been heard and not answered: what it made is looked up before anything is asked for
        // again, so that a provider that forgets is not asked to make a second one.
        if request.epoch > 1
            && let Some(instance) = self.find_worker(&request.key).await?
        {
            return agreed(instance, request);
        }
        let LaunchRequest { key, command_id, spec_hash, epoch, claim, spec, trace } = request.clone();
        let patience = SignedDuration::try_from(self.launch_timeout).unwrap_or(SignedDuration::MAX);
        let body = CreateRequest {
            fleet: self.fleet.clone(),
            pool: key.pool,
            worker_id: key.worker_id,
            command_id,
            spec_hash,
            epoch,
            claim,
            spec,
            expires_at: Timestamp::now().checked_add(patience).unwrap_or(Timestamp::MAX),
        };
        let Created { instance } = self.asking.ask_within(trace.as_ref(), "create", body.encode()).await?;
        let instance = known(instance);
        if instance.key == request.key {
            agreed(instance, request)
        } else {
            Err(strange("create", &instance, &request.key.to_string()))
        }
    }

    async fn terminate_worker(
        &self,
        key: &WorkerKey,
        instance_id: Option<&str>,
        grace: Duration,
    ) -> Result<(), ProviderError> {
        let body = DeleteRequest {
            fleet: self.fleet.clone(),
            pool: key.pool.clone(),
            worker_id: key.worker_id.clone(),
            instance_id: instance_id.map(str::to_owned),
            grace_ms: u64::try_from(grace.as_millis()).unwrap_or(u64::MAX),
        };
        match self.asking.ask::<Deleted>("delete", body.encode()).await {
            Ok(Deleted {}) => Ok(()),
            Err(error) if error.class == ErrorClass::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn find_worker(&self, key: &WorkerKey) -> Result<Option<Instance>, ProviderError> {
        let InstancesPage { instances, next } = self.page(&key.pool, Some(&key.worker_id), None).await?;
        let ours = |instance: &Instance| instance.key == *key;
        match instances.into_iter().map(known).find(ours) {
            // It does not know the filter, and tells of all.
            None if next.is_some() => {
                let mut found = None;
                let mut take = |instance| found = found.take().or_else(|| Some(instance).filter(ours));
                self.scan_workers(&key.pool, &mut take).await?;
                Ok(found)
            }
            found => Ok(found),
        }
    }

    async fn list_workers(&self, pool: &Pool) -> Result<Vec<Instance>, ProviderError> {
        let mut all = BTreeMap::new();
        // What changes while it is listed may come twice: as it was told of last.
        self.pages(pool, |instance| {
            all.insert((instance.key.worker_id.clone(), instance.instance_id.clone()), instance).is_none()
        })
        .await?;
        Ok(all.into_values().collect())
    }

    async fn scan_workers(&self, pool: &Pool, take: &mut (dyn FnMut(Instance) + Send)) -> Result<(), ProviderError> {
        // What comes twice is told of once. Fingerprints: the list is not held for this.
        let (hashes, mut told) = (RandomState::new(), HashSet::new());
        self.pages(pool, |instance| {
            let is_new = told.insert(hashes.hash_one((&instance.key.worker_id, &instance.instance_id)));
            if is_new {
                take(instance);
            }
            is_new
        })
        .await
    }
}

/// Only the command that asked may have the instance for its own.
fn agreed(instance: Instance, request: &LaunchRequest) -> Result<Instance, ProviderError> {
    if instance.command_id == request.command_id && instance.spec_hash == request.spec_hash {
        return Ok(instance);
    }
    let message = format!("{} belongs to command {}, not to {}", request.key, instance.command_id, request.command_id);
    Err(ProviderError::new(ErrorClass::Conflict, message))
}

fn strange(verb: &str, found: &Instance, expected: &str) -> ProviderError {
    ProviderError::new(ErrorClass::Internal, format!("{verb}: found {} in the answer, expected {expected}", found.key))
}

fn known(record: InstanceRecord) -> Instance {
    let InstanceRecord {
        pool,
        worker_id,
        instance_id,
        endpoint,
        capabilities,
        command_id,
        spec_hash,
        epoch,
        claim,
        labels,
        created_at,
    } = record;
    Instance {
        key: WorkerKey::new(pool, worker_id),
        instance_id,
        endpoint,
        capabilities,
        command_id,
        spec_hash,
        epoch,
        claim: Some(claim),
        labels,
        created_at,
    }
}
