//! The provider of a pool, whichever kind its settings name.

use std::time::Duration;

use async_nats::Client;

use super::docker::DockerProvider;
use super::external::ExternalProvider;
use super::null::NullProvider;
use super::process::ProcessProvider;
use super::static_hosts::StaticProvider;
use super::{Instance, LaunchRequest, ProviderError, WorkerProvider};
use crate::config::{Config, PoolConfig, ProviderConfig};
use crate::domain::{Pool, WorkerId, WorkerKey, WorkerType};

/// One of the providers. An enum and not a `dyn`, so that the trait may have async methods.
#[derive(Debug, Clone)]
pub enum AnyProvider {
    /// Child processes of this host.
    Process(ProcessProvider),
    /// Containers of one Docker engine.
    Docker(DockerProvider),
    /// Hosts that were there before.
    Static(StaticProvider),
    /// Makes nothing.
    Null(NullProvider),
    /// Somebody else's program, reached over NATS.
    Nats(ExternalProvider),
}

impl AnyProvider {
    /// The provider that a pool's settings name. Nothing is contacted yet.
    pub fn for_pool(config: &Config, pool: &PoolConfig, client: &Client) -> Result<Self, ProviderError> {
        Ok(match &pool.provider {
            ProviderConfig::Process => {
                Self::Process(ProcessProvider::new(&config.prefix, &config.providers.process_state_dir))
            }
            ProviderConfig::Docker => {
                Self::Docker(DockerProvider::connect(&config.prefix, &config.providers.docker_host)?)
            }
            ProviderConfig::Static { hosts } => Self::Static(StaticProvider::new(hosts.clone())),
            ProviderConfig::Null(null) => Self::Null(NullProvider::new(&config.prefix, null.clone())),
            ProviderConfig::Nats(external) => {
                Self::Nats(ExternalProvider::new(&config.prefix, client.clone(), external, pool.launch_timeout))
            }
        })
    }
}

/// Does the same with whichever provider it is; a new kind is added here once, and to no method.
macro_rules! each {
    ($any:expr, $provider:ident => $call:expr) => {
        match $any {
            AnyProvider::Process($provider) => $call,
            AnyProvider::Docker($provider) => $call,
            AnyProvider::Static($provider) => $call,
            AnyProvider::Null($provider) => $call,
            AnyProvider::Nats($provider) => $call,
        }
    };
}

/// The same for calls. A process or a container is worth an allocation; without it every command in hand would have room
/// for the largest provider's call, whichever its own is.
macro_rules! call {
    ($any:expr, $provider:ident => $call:expr) => {
        match $any {
            AnyProvider::Process($provider) => Box::pin($call).await,
            AnyProvider::Docker($provider) => Box::pin($call).await,
            AnyProvider::Static($provider) => $call.await,
            AnyProvider::Null($provider) => $call.await,
            AnyProvider::Nats($provider) => Box::pin($call).await,
        }
    };
}

impl WorkerProvider for AnyProvider {
    fn name(&self) -> &'static str {
        each!(self, provider => provider.name())
    }

    fn worker_type(&self) -> WorkerType {
        each!(self, provider => provider.worker_type())
    }

    fn inventory(&self) -> Option<Vec<WorkerId>> {
        each!(self, provider => provider.inventory())
    }

    async fn create_worker(&self, request: &LaunchRequest) -> Result<Instance, ProviderError> {
        call!(self, provider => provider.create_worker(request))
    }

    async fn terminate_worker(
        &self,
        key: &WorkerKey,
        instance_id: Option<&str>,
        grace: Duration,
    ) -> Result<(), ProviderError> {
        call!(self, provider => provider.terminate_worker(key, instance_id, grace))
    }

    async fn find_worker(&self, key: &WorkerKey) -> Result<Option<Instance>, ProviderError> {
        call!(self, provider => provider.find_worker(key))
    }

    async fn list_workers(&self, pool: &Pool) -> Result<Vec<Instance>, ProviderError> {
        call!(self, provider => provider.list_workers(pool))
    }

    async fn scan_workers(&self, pool: &Pool, take: &mut (dyn FnMut(Instance) + Send)) -> Result<(), ProviderError> {
        call!(self, provider => provider.scan_workers(pool, take))
    }
}
