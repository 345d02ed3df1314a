//! The parts of one pool, made from the settings: what a replica runs, and what the verbs that look after a pool use.

use std::sync::Arc;

use async_nats::Client;
use bytes::Bytes;

use super::StartError;
use crate::bus::commands;
use crate::bus::delivery::Desk;
use crate::config::{Config, HttpConfig, PoolConfig, is_token};
use crate::domain::{Pool, Verb};
use crate::handle::OwnQueue;
use crate::journal::ReadError;
use crate::journal::nats::NatsJournal;
use crate::provider::any::AnyProvider;
use crate::registration::nats::NatsScheduler;
use crate::service::sweep::SweepPoolConfig;
use crate::service::{WorkerManagementConfig, WorkerManagementService};

/// A pool's service on NATS.
pub type PoolService = WorkerManagementService<AnyProvider, NatsScheduler, NatsJournal>;

/// The service of a pool. Nothing is contacted yet.
pub fn service(
    config: &Config,
    pool: &Pool,
    settings: &PoolConfig,
    client: &Client,
    journal: NatsJournal,
    scheduler: NatsScheduler,
) -> Result<PoolService, StartError> {
    let provider = AnyProvider::for_pool(config, settings, client)
        .map_err(|error| StartError::Provider { pool: pool.clone(), error })?;
    let management = management(config, settings);
    Ok(WorkerManagementService::new_with_registration(provider, scheduler, management).with_journal(journal))
}

fn management(config: &Config, pool: &PoolConfig) -> WorkerManagementConfig {
    WorkerManagementConfig {
        registration_enabled: pool.registration.enabled,
        registration_max_retries: pool.registration.max_retries,
        registration_timeout: pool.registration.timeout,
        scheduler_try_timeout: config.scheduler.try_timeout,
        unregister_timeout: config.scheduler.unregister_timeout,
        launch_timeout: pool.launch_timeout,
        grace: pool.grace,
        max_workers: pool.max_workers,
    }
}

/// How a pool is swept.
#[must_use]
pub fn sweep(config: &Config, pool: &Pool, settings: &PoolConfig) -> SweepPoolConfig {
    SweepPoolConfig {
        pool: pool.clone(),
        spec: settings.template.clone(),
        registration: settings.registration.clone(),
        grace: config.sweep.grace,
        remove_orphans: config.sweep.terminate_orphans,
        max_terminations: config.sweep.max_terminations,
        retention: config.sweep.retention,
        interval: config.sweep.interval,
        trust_ended: false,
    }
}

/// What the fleet page asks for, if it asks for anything.
pub(super) fn http_token(http: &HttpConfig) -> Result<Option<String>, StartError> {
    let Some(path) = &http.token_file else { return Ok(http.token.as_ref().map(|token| token.expose().to_owned())) };
    let unusable = |cause: String| StartError::Token { path: path.display().to_string(), cause };
    let text = std::fs::read_to_string(path).map_err(|error| unusable(error.to_string()))?;
    let token = text.trim();
    if !is_token(token) {
        return Err(unusable(
            "it holds no token of 16 characters or more, letters, digits and signs, no blanks".into(),
        ));
    }
    Ok(Some(token.to_owned()))
}

/// The way back into the queue that a desk's commands come from.
#[must_use]
pub fn own_queue(desk: &Arc<Desk>) -> OwnQueue {
    let (putting, asking, counting) = (Arc::clone(desk), Arc::clone(desk), Arc::clone(desk));
    OwnQueue {
        put: Arc::new(move |verb: Verb, message_id: String, body: Bytes| {
            let desk = Arc::clone(&putting);
            Box::pin(async move {
                let subject = desk.subjects.command(&desk.pool, verb);
                let put = commands::put(&desk.requests, subject, &message_id, body, None).await;
                put.map(|_| ()).map_err(|error| error.to_string())
            })
        }),
        backlog: Arc::new(move |message: u64| {
            let desk = Arc::clone(&asking);
            Box::pin(async move { commands::holds(&desk, message).await.map_err(|error| ReadError(error.to_string())) })
        }),
        waiting: Arc::new(move |verb: Verb| {
            let desk = Arc::clone(&counting);
            Box::pin(async move { commands::waiting(&desk, verb).await.map_err(|error| error.to_string()) })
        }),
    }
}
