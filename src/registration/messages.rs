//! From what the port is asked to what goes over the wire, and back.

use std::time::Duration;

use super::{ListedWorker, RegisterWorker, UnregisterWorker};
use crate::wire::scheduler::{Listed, RegisterRequest, UnregisterRequest};

impl From<&RegisterWorker> for RegisterRequest {
    fn from(worker: &RegisterWorker) -> Self {
        let RegisterWorker {
            worker_id,
            pool,
            worker_type,
            instance_id,
            endpoint,
            capabilities,
            epoch,
            rev,
            attempt,
            expires_at,
            trace: _,
        } = worker;
        Self {
            worker_id: worker_id.clone(),
            pool: pool.clone(),
            worker_type: *worker_type,
            instance_id: instance_id.clone(),
            endpoint: endpoint.clone(),
            capabilities: capabilities.clone(),
            epoch: *epoch,
            rev: *rev,
            attempt: *attempt,
            expires_at: *expires_at,
        }
    }
}

impl From<&UnregisterWorker> for UnregisterRequest {
    fn from(worker: &UnregisterWorker) -> Self {
        let UnregisterWorker { worker_id, pool, instance_id, epoch, reason, grace, trace: _ } = worker;
        Self {
            worker_id: worker_id.clone(),
            pool: pool.clone(),
            instance_id: instance_id.clone(),
            epoch: *epoch,
            reason: reason.clone(),
            grace_ms: u64::try_from(grace.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

impl From<ListedWorker> for Listed {
    fn from(worker: ListedWorker) -> Self {
        let ListedWorker { worker_id, pool, epoch } = worker;
        Self { worker_id, pool, epoch }
    }
}

impl From<RegisterRequest> for RegisterWorker {
    fn from(request: RegisterRequest) -> Self {
        let RegisterRequest {
            worker_id,
            pool,
            worker_type,
            instance_id,
            endpoint,
            capabilities,
            epoch,
            rev,
            attempt,
            expires_at,
        } = request;
        Self {
            worker_id,
            pool,
            worker_type,
            instance_id,
            endpoint,
            capabilities,
            epoch,
            rev,
            attempt,
            expires_at,
            trace: None,
        }
    }
}

impl From<UnregisterRequest> for UnregisterWorker {
    fn from(request: UnregisterRequest) -> Self {
        let UnregisterRequest { worker_id, pool, instance_id, epoch, reason, grace_ms } = request;
        Self { worker_id, pool, instance_id, epoch, reason, grace: Duration::from_millis(grace_ms), trace: None }
    }
}
