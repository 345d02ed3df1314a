//! `pool`: the wanted size, to the service; what the size asks for, back into the queue.

use std::time::Duration;

use tracing::Instrument as _;

use super::{Handled, Handler, Message, settled, undecodable};
use crate::bus::delivery::Verdict;
use crate::crash::{self, CrashPoint};
use crate::domain::Verb;
use crate::journal::Journal;
use crate::provider::WorkerProvider;
use crate::registration::WorkerRegistrationPort;
use crate::service::{Ending, ResizePoolConfig, Resizing, Stop};
use crate::telemetry::{Outcome, command_span};
use crate::wire::command::PoolCommand;

/// How soon it is looked at again whether the pool has its size.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A pool is counted for no more than so large a share of the time.
const SHARE: u32 = 10;

impl<P: WorkerProvider, R: WorkerRegistrationPort, J: Journal> Handler<P, R, J> {
    pub(super) async fn pool(&self, body: &[u8], message: Message<'_>) -> Handled {
        let command = match PoolCommand::decode(body) {
            Ok(command) => command,
            Err(error) => return undecodable(error),
        };
        let PoolCommand { command_id, size, expires_at, correlation_id } = command;
        let (span, trace) = command_span(&self.pool, Verb::Pool, &command_id, None, message.trace);
        let order = ResizePoolConfig {
            pool: self.pool.clone(),
            command_id: command_id.clone(),
            size,
            correlation_id,
            expires_at,
            asked_at: Some(message.stored_at),
            trace,
        };
        let begun = tokio::time::Instant::now();
        let resized = async {
            match self.service.resize_pool(&order, &self.sweep, Some(message.sequence)).await {
                Ok(Resizing::Ordered { orders, rev }) => {
                    self.queue.send(orders, rev).await.map_err(Stop::Later)?;
                    crash::point(CrashPoint::OrdersSent);
                    Ok(None)
                }
                Ok(Resizing::Sized(record)) => {
                    tracing::info!(pool = %record.pool, size = record.size, "the pool has its size");
                    Ok(Some(Outcome::Sized))
                }
                Ok(Resizing::Overtaken) => Ok(Some(Outcome::Overtaken)),
                Err(stop) => Err(stop),
            }
        };
        match resized.instrument(span).await {
            Ok(None) => {
                let again = (begun.elapsed() * SHARE).max(LOOK_EVERY);
                Handled { verdict: Verdict::Retry(again), outcome: None }
            }
            Ok(Some(outcome)) => Handled { verdict: Verdict::Done, outcome: Some(outcome) },
            Err(stop) => settled(command_id, Ending::from(Err(stop)), message, self.service.chance()),
        }
    }
}
