//! `get` and `list`: the fleet as the server's own projection has it. For reading; it may trail the log.

use super::answer::{Answer, Failure, Reply};
use crate::bus::orders::Orders;
use crate::bus::stored;
use crate::config::Config;
use crate::domain::WorkerKey;
use crate::wire::service::GetRequest;

#[derive(Clone)]
pub(super) struct Reader {
    orders: Orders,
}

impl Reader {
    pub(super) fn new(orders: &Orders, _config: &Config) -> Self {
        Self { orders: orders.clone() }
    }

    pub(super) async fn get(&self, body: &[u8]) -> Answer {
        let GetRequest { pool, worker_id } =
            GetRequest::decode(body).map_err(|error| Failure::new(400, error.to_string()))?;
        let key = WorkerKey::new(pool, worker_id);
        let Orders { requests, subjects, api_prefix, .. } = &self.orders;
        let found = stored::last(requests, api_prefix, &subjects.view_stream(), &subjects.view_of(&key)).await;
        match found.map_err(|error| Failure::away(&error))? {
            Some(stored) => Ok(Reply::event(stored.body)),
            None => Err(Failure::new(404, format!("no worker {key} is on record"))),
        }
    }
}
