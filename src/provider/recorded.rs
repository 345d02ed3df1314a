//! An instance as the providers without an engine of their own write it down.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Instance, LaunchRequest, ProviderError};
use crate::domain::{Claimed, CommandId, ErrorClass, Labels, Pool, SpecHash, WorkerId, WorkerKey};

/// One instance on one line of JSON. It holds no environment: that may be secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Recorded {
    pub(super) instance_id: String,
    pub(super) pool: Pool,
    pub(super) worker_id: WorkerId,
    pub(super) command_id: CommandId,
    pub(super) spec_hash: SpecHash,
    pub(super) epoch: u64,
    /// Not there in what older versions wrote.
    #[serde(default)]
    pub(super) claim: Option<Claimed>,
    pub(super) labels: Labels,
    pub(super) created_at: Timestamp,
}

impl Recorded {
    /// What a request asks for, under the id that it will have.
    pub(super) fn new(request: &LaunchRequest, instance_id: String, created_at: Timestamp) -> Self {
        let LaunchRequest { key, command_id, spec_hash, epoch, claim, spec, trace: _ } = request;
        Self {
            instance_id,
            pool: key.pool.clone(),
            worker_id: key.worker_id.clone(),
            command_id: command_id.clone(),
            spec_hash: spec_hash.clone(),
            epoch: *epoch,
            claim: Some(*claim),
            labels: spec.labels.clone(),
            created_at,
        }
    }

    pub(super) fn key(&self) -> WorkerKey {
        WorkerKey::new(self.pool.clone(), self.worker_id.clone())
    }

    pub(super) fn instance(&self) -> Instance {
        let Self { instance_id, pool, worker_id, command_id, spec_hash, epoch, claim, labels, created_at } =
            self.clone();
        Instance {
            key: WorkerKey::new(pool, worker_id),
            instance_id,
            endpoint: None,
            capabilities: None,
            command_id,
            spec_hash,
            epoch,
            claim,
            labels,
            created_at,
        }
    }

    /// Whether a request may have this instance for its own: only the command that made it may, with the same content.
    pub(super) fn claimed_by(&self, request: &LaunchRequest) -> Result<(), ProviderError> {
        let what = if self.command_id != request.command_id {
            format!("command {}, not to {}", self.command_id, request.command_id)
        } else if self.spec_hash != request.spec_hash {
            format!("specification {}, not to {}", self.spec_hash.as_str(), request.spec_hash.as_str())
        } else {
            return Ok(());
        };
        Err(ProviderError::new(ErrorClass::Conflict, format!("{} belongs to {what}", request.key)))
    }

    /// Whether a terminate means this instance: an id that is not this one's must not end it.
    pub(super) fn meant_by(&self, instance_id: Option<&str>) -> Result<(), ProviderError> {
        match instance_id {
            Some(meant) if meant != self.instance_id => Err(ProviderError::new(
                ErrorClass::Conflict,
                format!("{} is instance {} now, not {meant}", self.key(), self.instance_id),
            )),
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_older_version_wrote_is_read_without_a_claim() {
        let line = r#"{"instance_id":"n-1","pool":"p","worker_id":"w","command_id":"c-1","spec_hash":"x","epoch":1,
            "labels":{},"created_at":"1970-01-01T00:00:00Z"}"#;
        let old: Recorded = serde_json::from_str(line).unwrap();
        assert_eq!(old.instance().claim, None);
        let claim: Option<Claimed> = "7@2026-01-01T00:00:00Z".parse().ok();
        let new = serde_json::to_string(&Recorded { claim, ..old }).unwrap();
        assert_eq!(serde_json::from_str::<Recorded>(&new).unwrap().instance().claim, claim);
    }
}
