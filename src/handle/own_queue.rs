//! The way from a handler back into the queue that its commands come from.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::domain::{CommandId, Verb, WorkerId};
use crate::service::sweep::{Backlog, Order};
use crate::wire::command::{ProvisionCommand, TerminateCommand};

/// Puts a command into the queue under a message id; returns when it is stored there, by this call or an earlier one with the
/// same message id.
pub type Put = Arc<dyn Fn(Verb, String, Bytes) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// Counts the commands of a verb that are in the queue, those in hand too.
pub type Waiting = Arc<dyn Fn(Verb) -> BoxFuture<'static, Result<usize, String>> + Send + Sync>;

/// While so many commands of a verb are in the queue, a pool's size asks for no more of them. What is asked for and not
/// begun is planned again by every sweep, under the same ids, and the server takes an id anew once its duplicate window is
/// over: without a limit the queue of a slow or failing provider would grow by the pool's size every two minutes.
const MOST_WAITING: usize = 500;

/// A pool's own queue. What a pool's size asks for goes through it like every other command, so that it is carried out
/// once, by any replica, whoever dies.
#[derive(Clone)]
pub struct OwnQueue {
    /// Puts a command in.
    pub put: Put,
    /// Tells whether a message is still there.
    pub backlog: Backlog,
    /// Tells how full it is.
    pub waiting: Waiting,
}

impl std::fmt::Debug for OwnQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OwnQueue").finish_non_exhaustive()
    }
}

impl OwnQueue {
    /// Sends what a pool's size asks for, as far as the queue is not full of it. What is not sent is planned again by the
    /// next sweep, under the same ids.
    ///
    /// `rev` is the event of the pool's own that the orders are of: what was dropped under one size may be asked for again
    /// under the next, within the window in which the server takes a message id once.
    pub async fn send(&self, orders: Vec<Order>, rev: u64) -> Result<(), String> {
        let (provisions, terminates): (Vec<_>, Vec<_>) =
            orders.into_iter().partition(|order| matches!(order, Order::Provision { .. }));
        for (verb, orders) in [(Verb::Provision, provisions), (Verb::Terminate, terminates)] {
            if orders.is_empty() {
                continue;
            }
            let room = MOST_WAITING.saturating_sub((self.waiting)(verb).await?);
            for order in orders.into_iter().take(room) {
                let (verb, command_id, body) = encoded(order);
                (self.put)(verb, format!("{command_id}@{rev}"), body.into()).await?;
            }
        }
        Ok(())
    }
}

fn encoded(order: Order) -> (Verb, CommandId, Vec<u8>) {
    match order {
        Order::Provision { command_id, worker_id } => {
            let body = provision(command_id.clone(), worker_id).encode();
            (Verb::Provision, command_id, body)
        }
        Order::Terminate { command_id, worker_id } => {
            let command = TerminateCommand {
                command_id: command_id.clone(),
                worker_id,
                reason: Some(Order::REASON.to_owned()),
                grace_ms: None,
                force: false,
                expires_at: None,
                correlation_id: None,
            };
            (Verb::Terminate, command_id, command.encode())
        }
    }
}

fn provision(command_id: CommandId, worker_id: Option<WorkerId>) -> ProvisionCommand {
    ProvisionCommand {
        command_id,
        worker_id,
        spec: <_>::default(),
        registration: <_>::default(),
        expires_at: None,
        correlation_id: None,
    }
}
