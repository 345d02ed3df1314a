//! The only reader of files and environment; composes each component's own settings.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::domain::{Capabilities, Pool, Prefix, WorkerId, WorkerSpec};

/// Everything that can be set, validated and with every default filled in.
#[derive(Debug, Clone)]
pub struct Config {
    /// First token of every subject.
    pub prefix: Prefix,
    /// Replication of streams: 1, 3 or 5.
    pub replicas: usize,
    /// Who makes the streams.
    pub manage_streams: ManageStreams,
    /// The broker.
    pub nats: NatsConfig,
    /// The http listener.
    pub http: HttpConfig,
    /// How much at once.
    pub limits: LimitsConfig,
    /// Providers' own settings.
    pub providers: ProvidersConfig,
    /// The scheduler's subjects.
    pub scheduler: SchedulerConfig,
    /// The sweep.
    pub sweep: SweepConfig,
    /// Pools by name.
    pub pools: BTreeMap<Pool, PoolConfig>,
}

/// Who makes and changes the NATS objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ManageStreams {
    /// Made where missing; one that differs stops the start.
    Create,
    /// Made where missing, updated where it differs and can be.
    Update,
    /// Only checked.
    Never,
}

/// How the broker is reached. Secrets are kept in [`Secret`], which never shows them.
#[derive(Debug, Clone)]
pub struct NatsConfig {
    /// One or more URLs, separated by commas.
    pub url: String,
    /// Credentials file (JWT and seed); read again at each connect.
    pub creds: Option<PathBuf>,
    /// nkey seed file; read again at each connect.
    pub nkey: Option<PathBuf>,
    /// User.
    pub user: Option<String>,
    /// Password, given in place.
    pub password: Option<Secret>,
    /// Password file; read again at each connect.
    pub password_file: Option<PathBuf>,
    /// Token.
    pub token: Option<Secret>,
    /// CA certificates, PEM.
    pub tls_ca: Option<PathBuf>,
    /// Client certificate, PEM.
    pub tls_cert: Option<PathBuf>,
    /// Client key, PEM.
    pub tls_key: Option<PathBuf>,
    /// JetStream domain.
    pub domain: Option<String>,
    /// Prefix of inboxes; `_INBOX` if unset.
    pub inbox_prefix: Option<String>,
}

/// A text that never shows in `Debug` or `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The secret itself, for the one place that sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[hidden]")
    }
}

/// The http listener.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// Address of `/livez`, `/readyz`, `/metrics`.
    pub listen: SocketAddr,
}

/// How much at once.
#[derive(Debug, Clone)]
pub struct LimitsConfig {
    /// Provisions in hand at once in this replica, all pools together. Terminates have slots of their own.
    pub concurrency: usize,
    /// How long a drain may take.
    pub drain: Duration,
}

/// Providers' own settings.
#[derive(Debug, Clone)]
pub struct ProvidersConfig {
    /// Folder of the process provider; replicas on one host share it.
    pub process_state_dir: PathBuf,
    /// The Docker engine.
    pub docker_host: String,
}

/// The scheduler's subjects and patience.
#[derive(Debug, Clone)]
pub struct SchedulerConfig {
    /// Subject of `register`.
    pub register: String,
    /// Subject of `unregister`.
    pub unregister: String,
    /// Subject of `list`.
    pub list: String,
    /// How long one request waits for its reply (5 s).
    pub try_timeout: Duration,
    /// By how much a scheduler that cannot be reached delays a terminate (30 s).
    pub unregister_timeout: Duration,
}

/// The sweep.
#[derive(Debug, Clone)]
pub struct SweepConfig {
    /// Time between sweeps.
    pub interval: Duration,
    /// Younger instances are nobody's orphan.
    pub grace: Duration,
    /// Whether orphans are removed, or only reported.
    pub terminate_orphans: bool,
    /// Removals a sweep, or 5 % of the pool, whichever is larger.
    pub max_terminations: usize,
    /// How long events of final workers are kept.
    pub retention: Duration,
}

/// An operator's template for workers.
#[derive(Debug, Clone)]
pub struct PoolConfig {
    /// What makes its workers.
    pub provider: ProviderConfig,
    /// What a worker is, before a command's overrides.
    pub template: WorkerSpec,
    /// Live workers at most; `None` for no limit.
    pub max_workers: Option<usize>,
    /// Provisions of this pool in hand at once in this replica.
    pub concurrency: usize,
    /// What a command may override.
    pub allow: BTreeSet<Override>,
    /// Registration, with the pool's own settings laid over `[registration]`.
    pub registration: crate::registration::RegistrationConfig,
    /// How long the provider may take to make a worker.
    pub launch_timeout: Duration,
    /// How long a worker may take to end.
    pub grace: Duration,
}

/// A field of a worker's specification that a pool may let commands set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Override {
    Image,
    Command,
    Env,
    Labels,
    Cpus,
    MemoryMb,
    Gpus,
}

/// A pool's provider and what only that one needs.
#[derive(Debug, Clone)]
pub enum ProviderConfig {
    /// Child processes of this host.
    Process,
    /// Containers of one Docker engine.
    Docker,
    /// Hosts that were there before.
    Static {
        /// The inventory, in the order of preference.
        hosts: Vec<StaticHost>,
    },
    /// Makes nothing.
    Null(NullConfig),
}

/// A host of a static pool.
#[derive(Debug, Clone, PartialEq)]
pub struct StaticHost {
    /// Its worker id.
    pub id: WorkerId,
    /// How to reach it.
    pub endpoint: Option<String>,
    /// What it offers.
    pub capabilities: Capabilities,
}

/// The provider that makes nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NullConfig {
    /// How long a create takes.
    pub delay: Duration,
    /// Share of creates that fail with `internal`, from 0 to 1.
    pub failure_rate: f64,
    /// Where its instances are kept, for replicas that share them; in memory if unset.
    pub state_file: Option<PathBuf>,
}

impl Override {
    /// The name in settings and commands.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Command => "command",
            Self::Env => "env",
            Self::Labels => "labels",
            Self::Cpus => "cpus",
            Self::MemoryMb => "memory_mb",
            Self::Gpus => "gpus",
        }
    }
}
