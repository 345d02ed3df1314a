//! The only reader of files and environment; composes each component's own settings.

mod check;
mod context;
mod env;
mod file;
mod kind;
mod load;
mod nats;
mod origin;
mod pools;
mod reader;
mod show;
#[cfg(test)]
mod tests;
pub(crate) mod time;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::domain::{Capabilities, Pool, Prefix, WorkerId, WorkerSpec, WorkerType};

pub use env::{
    ConfigFile, DEFAULT_FILE, Flags, LogSettings, Source, SpanExport, Tools, colour_wanted, from_environment,
    from_process, log_settings, span_export, tools,
};
pub(crate) use kind::is_token;
pub(crate) use kind::{SUBJECT, is_subject};
pub use load::{Loaded, load};
pub use origin::{ConfigError, Mistake, Origin, Setting, Settings};

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
#[derive(Clone)]
pub struct NatsConfig {
    /// One or more URLs, separated by commas. May carry a password: only [`NatsConfig::shown_url`] may be shown.
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

impl NatsConfig {
    /// The URLs with any password or token in them replaced by `***`: for logs and errors.
    #[must_use]
    pub fn shown_url(&self) -> String {
        show::url(&self.url)
    }
}

impl std::fmt::Debug for NatsConfig {
    /// The URL may carry a password, so it shows without.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            url: _,
            creds,
            nkey,
            user,
            password,
            password_file,
            token,
            tls_ca,
            tls_cert,
            tls_key,
            domain,
            inbox_prefix,
        } = self;
        f.debug_struct("NatsConfig")
            .field("url", &self.shown_url())
            .field("creds", creds)
            .field("nkey", nkey)
            .field("user", user)
            .field("password", password)
            .field("password_file", password_file)
            .field("token", token)
            .field("tls_ca", tls_ca)
            .field("tls_cert", tls_cert)
            .field("tls_key", tls_key)
            .field("domain", domain)
            .field("inbox_prefix", inbox_prefix)
            .finish()
    }
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
    /// Address of `/livez`, `/readyz`, `/metrics` and the fleet page.
    pub listen: SocketAddr,
    /// What the fleet page asks for, given in place.
    pub token: Option<Secret>,
    /// The same, in a file.
    pub token_file: Option<PathBuf>,
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

impl Override {
    /// Every field, in the order of a specification.
    pub const ALL: [Self; 7] =
        [Self::Image, Self::Command, Self::Env, Self::Labels, Self::Cpus, Self::MemoryMb, Self::Gpus];

    /// The field's name in settings and commands.
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
    /// Somebody else's program, reached over NATS.
    Nats(ExternalConfig),
}

impl ProviderConfig {
    /// Its name in settings, events and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Docker => "docker",
            Self::Static { .. } => "static",
            Self::Null(_) => "null",
            Self::Nats(_) => "nats",
        }
    }

    /// The hosts of a static pool, which are its workers.
    #[must_use]
    pub fn hosts(&self) -> Option<Vec<WorkerId>> {
        match self {
            Self::Static { hosts } => Some(hosts.iter().map(|host| host.id.clone()).collect()),
            Self::Process | Self::Docker | Self::Null(_) | Self::Nats(_) => None,
        }
    }

    /// Whether its workers are made or found.
    #[must_use]
    pub fn worker_type(&self) -> WorkerType {
        match self {
            Self::Process | Self::Docker | Self::Null(_) | Self::Nats(_) => WorkerType::Dynamic,
            Self::Static { .. } => WorkerType::Static,
        }
    }
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

/// A provider that answers requests on `<subject_prefix>.<name>.create`, `.delete` and `.list`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalConfig {
    /// Which one.
    pub name: String,
    /// Before its name.
    pub subject_prefix: String,
    /// Without an answer or a heartbeat for so long it is taken for dead.
    pub answer_timeout: Duration,
}

impl ExternalConfig {
    /// The subject of one of its three requests.
    #[must_use]
    pub fn subject(&self, request: &str) -> String {
        format!("{}.{}.{request}", self.subject_prefix, self.name)
    }
}
