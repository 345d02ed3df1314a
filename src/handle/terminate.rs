//! `terminate`: to the service.

use std::time::Duration;

use tracing::Instrument as _;

use super::{Handled, Handler, Message, settled, undecodable, withdrawn};
use crate::domain::{Verb, WorkerKey, ended_by_size};
use crate::journal::Journal;
use crate::provider::WorkerProvider;
use crate::registration::WorkerRegistrationPort;
use crate::service::TerminateWorkerConfig;
use crate::telemetry::command_span;
use crate::wire::command::TerminateCommand;

impl<P: WorkerProvider, R: WorkerRegistrationPort, J: Journal> Handler<P, R, J> {
    pub(super) async fn terminate(&self, body: &[u8], message: Message<'_>) -> Handled {
        let command = match TerminateCommand::decode(body) {
            Ok(command) => command,
            Err(error) => return undecodable(error),
        };
        if ended_by_size(&command.command_id)
            && self.service.is_withdrawn(&self.worker_to_end(&command), &command.command_id).await
        {
            return withdrawn(&command.command_id);
        }
        let spec_hash = command.content_hash();
        let TerminateCommand { command_id, worker_id, reason, grace_ms, force, expires_at, correlation_id } = command;
        let (span, trace) = command_span(&self.pool, Verb::Terminate, &command_id, Some(&worker_id), message.trace);
        let order = TerminateWorkerConfig {
            pool: self.pool.clone(),
            worker_id,
            command_id: command_id.clone(),
            spec_hash,
            reason,
            grace: grace_ms.map(Duration::from_millis),
            force,
            correlation_id,
            expires_at,
            trace,
        };
        let ending = self.service.terminate(&order, Some(message.sequence)).instrument(span).await;
        settled(command_id, ending, message, self.service.chance())
    }

    /// The worker that a command is about, where its bytes tell.
    pub(super) fn terminates(&self, body: &[u8]) -> Option<WorkerKey> {
        Some(self.worker_to_end(&TerminateCommand::decode(body).ok()?))
    }

    fn worker_to_end(&self, command: &TerminateCommand) -> WorkerKey {
        WorkerKey::new(self.pool.clone(), command.worker_id.clone())
    }
}
