//! `provision` and `terminate` as requests: put on the pool's queue like any command, and answered with its outcome.
//!
//! Whoever carries the command out knows nothing of the request. So nothing is lost if this replica dies while it waits, or
//! if the caller goes away: the same request again, with the same command id, is answered with the same outcome.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::answer::{Answer, Failure, Reply};
use crate::bus::orders::{Before, Order, Orders, Told};
use crate::bus::streams::ACK_WAIT;
use crate::config::{Config, PoolConfig};
use crate::domain::{Pool, Reason, Refusal, TraceContext, Verb, WorkerId};
use crate::wire::command::{ProvisionCommand, TerminateCommand};
use crate::wire::event;

/// A command's way may lead over two replicas that die.
const DETOURS: Duration = Duration::from_secs(2 * ACK_WAIT.as_secs());

/// What the requests of one pool are answered by.
#[derive(Clone)]
pub(super) struct Counter {
    orders: Orders,
    pool: Pool,
    /// The hosts of a static pool.
    hosts: Option<Vec<WorkerId>>,
    launch_timeout: Duration,
    registration_timeout: Duration,
    unregister_timeout: Duration,
    grace: Duration,
}

impl Counter {
    pub(super) fn new(orders: Orders, config: &Config, pool: &Pool, settings: &PoolConfig) -> Self {
        Self {
            orders,
            pool: pool.clone(),
            hosts: settings.provider.hosts(),
            launch_timeout: settings.launch_timeout,
            registration_timeout: settings.registration.timeout,
            unregister_timeout: config.scheduler.unregister_timeout,
            grace: settings.grace,
        }
    }

    pub(super) async fn answer(&self, verb: Verb, body: Bytes, trace: Option<TraceContext>) -> Answer {
        // What no queue has to carry is refused here, with the words that its dead letter would have.
        let refused = |error: crate::wire::command::Undecodable| Failure::from(error.refusal);
        match verb {
            Verb::Provision => {
                let command = ProvisionCommand::decode(&body).map_err(refused)?;
                let registration =
                    command.registration.timeout_ms.map_or(self.registration_timeout, Duration::from_millis);
                let order = Order::provision(self.pool.clone(), &command);
                self.carry_out(order.as_it_came(body).in_trace(trace), self.launch_timeout + registration).await
            }
            Verb::Terminate => {
                let command = TerminateCommand::decode(&body).map_err(refused)?;
                // The scheduler may be busy for as long, and so may the provider.
                let grace = 2 * command.grace_ms.map_or(self.grace, Duration::from_millis);
                let order = Order::terminate(self.pool.clone(), &command);
                self.carry_out(order.as_it_came(body).in_trace(trace), self.unregister_timeout + grace).await
            }
            Verb::Pool | Verb::Sweep => Err(Failure::new(404, "no such endpoint")),
        }
    }

    async fn carry_out(&self, order: Order, usual: Duration) -> Answer {
        let order = order.in_pool_of(self.hosts.clone());
        // Before the command, so that nothing is missed.
        let mut news = self.orders.news_of(&order).await.map_err(|error| Failure::away(&error))?;
        let stored = self.orders.send(&order).await?;
        if stored.duplicate {
            let before = self.orders.before(&order, stored.sequence).await;
            match before.map_err(|error| Failure::away(&error))? {
                Before::Waits => {}
                Before::Ended(told) => return self.outcome(told),
                Before::Another => {
                    let detail = format!("command_id: {} came before with another content", order.command_id);
                    return Err(Refusal::new(Reason::Conflict, detail).into());
                }
            }
        }
        let patience = usual + DETOURS;
        match timeout(patience, self.orders.outcome(&order, &mut news, |_| {})).await {
            Ok(Some(told)) => self.outcome(told),
            Ok(None) => Err(Failure::new(503, "the connection is closed; ask again with the same command_id")),
            Err(_) => {
                let text = format!(
                    "no outcome within {} s; it goes on, and the same command_id asks for it again",
                    patience.as_secs()
                );
                Err(Failure::new(504, text))
            }
        }
    }

    fn outcome(&self, told: Told) -> Answer {
        let prefix = self.orders.subjects.prefix();
        match told {
            Told::Event(worker) => Ok(Reply::event(event::encode(prefix, &worker, None))),
            Told::Pool(record) => Ok(Reply::event(event::encode_pool(prefix, &record, None))),
            Told::Dead { letter, .. } => Err(letter.refusal.into()),
        }
    }
}
