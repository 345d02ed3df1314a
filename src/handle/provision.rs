//! `provision`: the pool's template with the command's permitted overrides, to the service.

use std::time::Duration;

use tracing::Instrument as _;

use super::{Handled, Handler, Message, settled, undecodable, withdrawn};
use crate::config::{Override, PoolConfig};
use crate::domain::{Reason, Refusal, Verb, WorkerKey, WorkerSpec, asked_by_size, steering, steers};
use crate::journal::Journal;
use crate::provider::WorkerProvider;
use crate::registration::{RegistrationConfig, WorkerRegistrationPort};
use crate::service::{DynamicWorkerConfig, Ending};
use crate::telemetry::command_span;
use crate::wire::command::{ProvisionCommand, RegistrationOverrides, SpecOverrides};

impl<P: WorkerProvider, R: WorkerRegistrationPort, J: Journal> Handler<P, R, J> {
    pub(super) async fn provision(&self, body: &[u8], message: Message<'_>) -> Handled {
        let command = match ProvisionCommand::decode(body) {
            Ok(command) => command,
            Err(error) => return undecodable(error),
        };
        if asked_by_size(&command.command_id)
            && let Some(key) = self.worker_of(&command)
            && Box::pin(self.service.is_withdrawn(&key, &command.command_id)).await
        {
            return withdrawn(&command.command_id);
        }
        let spec_hash = command.content_hash();
        let ProvisionCommand { command_id, worker_id, spec, registration, expires_at, correlation_id } = command;
        let ending = match merged(&self.config, spec) {
            Err(refusal) => Ending::Refused(refusal),
            Ok(spec) => {
                let (span, trace) =
                    command_span(&self.pool, Verb::Provision, &command_id, worker_id.as_ref(), message.trace);
                let order = DynamicWorkerConfig {
                    pool: self.pool.clone(),
                    worker_id,
                    command_id: command_id.clone(),
                    spec_hash,
                    spec,
                    correlation_id,
                    expires_at,
                    trace,
                };
                let registration = registered(&self.config.registration, &registration);
                // Boxed here, where it is whole: the runtime and what is around it would move all of it several times.
                Box::pin(self.service.provision(&order, &registration, Some(message.sequence))).instrument(span).await
            }
        };
        settled(command_id, ending, message, self.service.chance())
    }
}

impl<P: WorkerProvider, R: WorkerRegistrationPort, J: Journal> Handler<P, R, J> {
    /// The worker that a command is about, where its bytes tell.
    pub(super) fn provisions(&self, body: &[u8]) -> Option<WorkerKey> {
        self.worker_of(&ProvisionCommand::decode(body).ok()?)
    }

    fn worker_of(&self, command: &ProvisionCommand) -> Option<WorkerKey> {
        let ProvisionCommand { command_id, worker_id, .. } = command;
        let mut order = DynamicWorkerConfig::for_command(self.pool.clone(), command_id.clone(), WorkerSpec::default());
        order.worker_id.clone_from(worker_id);
        self.service.worker_of(&order)
    }
}

/// The pool's template with the command's overrides over it. `env` and `labels` are merged name by name, the rest is
/// replaced.
fn merged(config: &PoolConfig, overrides: SpecOverrides) -> Result<WorkerSpec, Refusal> {
    let SpecOverrides { image, command, env, labels, cpus, memory_mb, gpus } = overrides;
    let mut spec = config.template.clone();
    let permit = |wanted: bool, what: Override, field: &str| {
        if !wanted || config.allow.contains(&what) {
            return Ok(());
        }
        let allowed: Vec<&str> = config.allow.iter().map(|one| one.as_str()).collect();
        let detail = format!("spec.{field}: the pool allows only [{}] to be set by a command", allowed.join(", "));
        Err(Refusal::new(Reason::NotAllowed, detail))
    };
    permit(image.is_some(), Override::Image, "image")?;
    permit(command.is_some(), Override::Command, "command")?;
    permit(env.is_some(), Override::Env, "env")?;
    permit(labels.is_some(), Override::Labels, "labels")?;
    permit(cpus.is_some(), Override::Cpus, "cpus")?;
    permit(memory_mb.is_some(), Override::MemoryMb, "memory_mb")?;
    permit(gpus.is_some(), Override::Gpus, "gpus")?;
    let found: Vec<&str> = env.iter().flatten().map(|(name, _)| name.as_str()).filter(|name| steers(name)).collect();
    if !found.is_empty() {
        return Err(Refusal::new(Reason::NotAllowed, steering(&found)));
    }
    spec.image = image.or(spec.image);
    spec.command = command.unwrap_or(spec.command);
    spec.env.extend(env.unwrap_or_default());
    spec.labels.extend(labels.unwrap_or_default());
    spec.cpus = cpus.or(spec.cpus);
    spec.memory_mb = memory_mb.or(spec.memory_mb);
    spec.gpus = gpus.or(spec.gpus);
    Ok(spec)
}

fn registered(pool: &RegistrationConfig, overrides: &RegistrationOverrides) -> RegistrationConfig {
    let RegistrationOverrides { enabled, max_retries, timeout_ms } = overrides;
    RegistrationConfig {
        enabled: enabled.unwrap_or(pool.enabled),
        max_retries: max_retries.unwrap_or(pool.max_retries),
        timeout: timeout_ms.map_or(pool.timeout, Duration::from_millis),
    }
}
