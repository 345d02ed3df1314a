//! `get` and `list`: the fleet as the server's own projection has it. For reading; it may trail the log.

use futures_util::StreamExt as _;

use super::answer::{Answer, Failure, Reply};
use crate::bus::orders::Orders;
use crate::bus::stored;
use crate::bus::view::{Filter, View};
use crate::domain::WorkerKey;
use crate::wire::scheduler::Unreadable;
use crate::wire::service::{GetRequest, WorkersReply, WorkersRequest};

/// A page ends early where it would be longer than this: a message has its limit, 1 MiB unless the server says otherwise.
const MOST_BYTES: usize = 512 * 1024;

#[derive(Clone)]
pub(super) struct Reader {
    orders: Orders,
    view: View,
}

impl Reader {
    pub(super) fn new(orders: &Orders, domain: Option<&str>) -> Self {
        let view = View::new(orders.connection.client.clone(), orders.subjects.clone(), domain);
        Self { orders: orders.clone(), view }
    }

    pub(super) async fn get(&self, body: &[u8]) -> Answer {
        let GetRequest { pool, worker_id } = GetRequest::decode(body).map_err(unreadable)?;
        let key = WorkerKey::new(pool, worker_id);
        let Orders { requests, subjects, api_prefix, .. } = &self.orders;
        let found = stored::last(requests, api_prefix, &subjects.view_stream(), &subjects.view_of(&key)).await;
        match found.map_err(|error| Failure::away(&error))? {
            Some(stored) => Ok(Reply::event(stored.body)),
            None => Err(Failure::new(404, format!("no worker {key} is on record"))),
        }
    }

    pub(super) async fn list(&self, body: &[u8]) -> Answer {
        let WorkersRequest { pool, states, after, limit } = WorkersRequest::decode(body).map_err(unreadable)?;
        let filter = Filter { pool, states, after: after.unwrap_or_default(), ..Filter::default() };
        let mut found = self.view.workers(filter);
        let (mut reply, mut last, mut bytes) = (WorkersReply { workers: Vec::new(), next: None }, 0, 0);
        while let Some(worker) = found.next().await {
            let (worker, place) = worker.map_err(|error| Failure::away(&error))?;
            bytes += WorkersReply::size_of(&worker);
            // One more than fits is seen, so that the last page says that it is.
            if reply.workers.len() == limit as usize || (bytes > MOST_BYTES && !reply.workers.is_empty()) {
                reply.next = Some(last);
                break;
            }
            reply.workers.push(worker);
            last = place;
        }
        Ok(Reply::json(reply.encode()))
    }
}

fn unreadable(Unreadable(why): Unreadable) -> Failure {
    Failure::new(400, why)
}
