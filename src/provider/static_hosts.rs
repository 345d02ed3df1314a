//! Hosts that were there before: the record of the claim is the allocation, and nothing is made or removed.

use std::time::Duration;

use jiff::Timestamp;

use super::{Instance, LaunchRequest, ProviderError, WorkerProvider};
use crate::config::StaticHost;
use crate::domain::{ErrorClass, Pool, WorkerId, WorkerKey, WorkerType};

/// The inventory of one static pool.
///
/// It has no memory. Two commands cannot have one host, because the compare-and-set of the claim comes before the call;
/// a second book of allocations here could only disagree with the first.
#[derive(Debug, Clone)]
pub struct StaticProvider {
    hosts: Vec<StaticHost>,
}

impl StaticProvider {
    /// The provider of these hosts, in the order of preference.
    #[must_use]
    pub fn new(hosts: Vec<StaticHost>) -> Self {
        Self { hosts }
    }
}

impl WorkerProvider for StaticProvider {
    fn name(&self) -> &'static str {
        "static"
    }

    fn worker_type(&self) -> WorkerType {
        WorkerType::Static
    }

    fn inventory(&self) -> Option<Vec<WorkerId>> {
        Some(self.hosts.iter().map(|host| host.id.clone()).collect())
    }

    async fn create_worker(&self, request: &LaunchRequest) -> Result<Instance, ProviderError> {
        let LaunchRequest { key, command_id, spec_hash, epoch, claim, spec: _, trace: _ } = request;
        let Some(host) = self.hosts.iter().find(|host| host.id == key.worker_id) else {
            return Err(ProviderError::new(
                ErrorClass::NotFound,
                format!("{} is none of the {} hosts of pool {}", key.worker_id, self.hosts.len(), key.pool),
            ));
        };
        Ok(Instance {
            key: key.clone(),
            instance_id: host.id.to_string(),
            endpoint: host.endpoint.clone(),
            capabilities: Some(host.capabilities.clone()),
            command_id: command_id.clone(),
            spec_hash: spec_hash.clone(),
            epoch: *epoch,
            claim: Some(*claim),
            labels: host.capabilities.labels.clone(),
            created_at: Timestamp::now(),
        })
    }

    async fn terminate_worker(&self, _: &WorkerKey, _: Option<&str>, _: Duration) -> Result<(), ProviderError> {
        Ok(())
    }

    async fn find_worker(&self, _: &WorkerKey) -> Result<Option<Instance>, ProviderError> {
        Ok(None)
    }

    async fn list_workers(&self, _: &Pool) -> Result<Vec<Instance>, ProviderError> {
        Ok(Vec::new())
    }
}
