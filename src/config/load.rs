//! From everything that can be set to a `Config`, or to all that is wrong with it. A pure function of its source.

use std::time::Duration;

use super::env::Source;
use super::file::{self, Places};
use super::kind::{self, Raw};
use super::origin::{Mistake, Setting, Settings};
use super::reader::{Reader, Section};
use super::{
    Config, HttpConfig, LimitsConfig, ManageStreams, ProvidersConfig, SchedulerConfig, SweepConfig, check, context,
    nats, pools,
};
use crate::domain::Prefix;
use crate::registration::RegistrationConfig;

/// Settings to start with, and where each came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// Every effective setting with its origin, for `check-config`.
    pub origins: Settings,
}

/// The most work in hand: the broker hands out no more of one consumer at once.
const MOST_AT_ONCE: u64 = 20_000;

/// Reads the settings: file, then `nats` context, then environment, then flags, the later over the earlier.
pub fn load(source: &Source<'_>) -> Result<Loaded, Vec<Mistake>> {
    let places = source.file.as_ref().map(|file| Places::new(&file.name, &file.text));
    let document = match (&source.file, &places) {
        (Some(file), Some(places)) => Some(file::parse(places, &file.text)?),
        _ => None,
    };
    let (context, no_context) = match context::read(source) {
        Ok(context) => (context, None),
        Err(mistake) => (None, Some(mistake)),
    };
    let reader = Reader::new(&source.env, places, context);
    if let Some(Mistake { origin, setting, problem }) = no_context {
        reader.mistake(origin, setting, problem);
    }
    let config = read(source, &reader, &Section::root(&reader, document.as_ref()));
    let (settings, mistakes) = reader.finish();
    if mistakes.is_empty() { Ok(Loaded { config, origins: Settings(settings) }) } else { Err(mistakes) }
}

fn read<'r>(source: &Source<'_>, reader: &'r Reader<'r>, root: &Section<'r>) -> Config {
    let flags = &source.flags;
    let prefix = root.setting("prefix").env("ENLIST_PREFIX").flag("--prefix", flags.prefix.as_deref());
    let prefix = prefix.or("enlist", kind::token("prefix", Prefix::PATTERN));
    let replicas = |raw: Raw<'_>| match kind::whole::<usize>("1, 3 or 5", 1..=5)(raw)? {
        2 | 4 => raw.wrong("1, 3 or 5"),
        replicas => Ok(replicas),
    };
    let replicas = root.setting("replicas").env("ENLIST_REPLICAS").or("1", replicas);
    let manage =
        [("create", ManageStreams::Create), ("update", ManageStreams::Update), ("never", ManageStreams::Never)];
    let manage = root.setting("manage_streams").env("ENLIST_MANAGE_STREAMS").or("create", kind::one_of(&manage));
    let nats = nats::read(&root.section("nats"), flags.nats_url.as_deref());
    let http = http(&root.section("http"));
    let limits = limits(&root.section("limits"));
    let providers = providers(&root.section("providers"));
    let scheduler = scheduler(&root.section("scheduler"));
    let registration = registration(&root.section("registration"), None);
    let sweep = sweep(&root.section("sweep"));
    let pools = pools::read(&root.section("pools"), &registration);
    root.finish();
    let config =
        Config { prefix, replicas, manage_streams: manage, nats, http, limits, providers, scheduler, sweep, pools };
    check::check(reader, root, &config, flags.pools_optional);
    config
}

fn http(section: &Section<'_>) -> HttpConfig {
    let listen = |raw: Raw<'_>| match raw.text().and_then(|text| text.parse().ok()) {
        Some(address) => Ok(address),
        None => raw.wrong("an address and port such as \"127.0.0.1:8088\" or \"[::]:8088\""),
    };
    let listen = section.setting("listen").env("ENLIST_HTTP_LISTEN").or("127.0.0.1:8088", listen);
    let token = section.setting("token").env("ENLIST_HTTP_TOKEN").secret().optional(kind::bearer);
    let token_file = section.setting("token_file").env("ENLIST_HTTP_TOKEN_FILE").optional(kind::path);
    if token.is_some() && token_file.is_some() {
        let (origin, name) = (section.reader.origin("http.token_file"), "http.token_file");
        section.reader.mistake(origin, name, "found token and token_file, expected one of them".to_owned());
    }
    section.finish();
    HttpConfig { listen, token, token_file }
}

/// A number of things in hand at once.
pub(super) fn concurrency(raw: Raw<'_>) -> kind::Parsed<usize> {
    kind::whole("a whole number from 1 to 20000", 1..=MOST_AT_ONCE)(raw)
}

fn limits(section: &Section<'_>) -> LimitsConfig {
    let concurrency = section.setting("concurrency").env("ENLIST_CONCURRENCY").or("1024", concurrency);
    let drain = section.setting("drain").env("ENLIST_DRAIN").or("30s", kind::duration);
    section.finish();
    LimitsConfig { concurrency, drain }
}

fn providers(section: &Section<'_>) -> ProvidersConfig {
    let process = section.section("process");
    let process_state_dir = process.setting("state_dir").env("ENLIST_STATE_DIR").or(".enlist", kind::path);
    process.finish();
    let docker = section.section("docker");
    let docker_host = docker.setting("host").env("DOCKER_HOST").or("unix:///var/run/docker.sock", kind::text);
    docker.finish();
    section.finish();
    ProvidersConfig { process_state_dir, docker_host }
}

fn scheduler(section: &Section<'_>) -> SchedulerConfig {
    let subject = |key: &'static str, env: &'static str, default: &'static str| {
        section.setting(key).env(env).or(default, kind::subject)
    };
    let register = subject("register", "ENLIST_SCHEDULER_REGISTER", "scheduler.workers.register");
    let unregister = subject("unregister", "ENLIST_SCHEDULER_UNREGISTER", "scheduler.workers.unregister");
    let list = subject("list", "ENLIST_SCHEDULER_LIST", "scheduler.workers.list");
    let positive = || kind::duration_from(Duration::from_millis(1), "1ms");
    let try_timeout = section.setting("try_timeout").env("ENLIST_SCHEDULER_TRY_TIMEOUT").or("5s", positive());
    let unregister_timeout = section.setting("unregister_timeout").env("ENLIST_SCHEDULER_UNREGISTER_TIMEOUT");
    let unregister_timeout = unregister_timeout.or("30s", kind::duration);
    section.finish();
    SchedulerConfig { register, unregister, list, try_timeout, unregister_timeout }
}

/// `[registration]`, with its settings as they are shown.
pub(super) struct Base {
    pub(super) config: RegistrationConfig,
    enabled: Setting,
    max_retries: Setting,
    timeout: Setting,
}

/// `[registration]`, or a pool's own over it. The environment stands for `[registration]`, so that a pool which says
/// otherwise keeps its word.
pub(super) fn registration(section: &Section<'_>, base: Option<&Base>) -> Base {
    let retries = || kind::whole("a whole number from 0 to 1000", 0..=1000);
    let timeout = || kind::duration_from(Duration::from_millis(1), "1ms");
    let (enabled, max_retries, time) =
        (section.setting("enabled"), section.setting("max_retries"), section.setting("timeout"));
    let config = match base {
        None => RegistrationConfig {
            enabled: enabled.env("REGISTRATION_ENABLED").or("true", kind::truth),
            max_retries: max_retries.env("REGISTRATION_MAX_RETRIES").or("3", retries()),
            timeout: time.env("REGISTRATION_TIMEOUT").or("30s", timeout()),
        },
        Some(base) => RegistrationConfig {
            enabled: enabled.or_value((&base.config.enabled, &base.enabled), kind::truth),
            max_retries: max_retries.or_value((&base.config.max_retries, &base.max_retries), retries()),
            timeout: time.or_value((&base.config.timeout, &base.timeout), timeout()),
        },
    };
    let shown = |key| section.reader.setting(&section.name(key));
    let base = Base { config, enabled: shown("enabled"), max_retries: shown("max_retries"), timeout: shown("timeout") };
    section.finish();
    base
}

fn sweep(section: &Section<'_>) -> SweepConfig {
    let interval = kind::duration_from(Duration::from_millis(100), "100ms");
    let interval = section.setting("interval").env("ENLIST_SWEEP_INTERVAL").or("1m", interval);
    let grace = section.setting("grace").env("ENLIST_SWEEP_GRACE").or("5m", kind::duration);
    let orphans = kind::one_of(&[("terminate", true), ("report", false)]);
    let terminate_orphans = section.setting("orphans").env("ENLIST_SWEEP_ORPHANS").or("terminate", orphans);
    let max_terminations = kind::whole("a whole number", 0..=u64::from(u32::MAX));
    let most = section.setting("max_terminations").env("ENLIST_SWEEP_MAX_TERMINATIONS");
    let max_terminations = most.or("10", max_terminations);
    let retention = kind::duration_from(Duration::from_secs(1), "1s");
    let retention = section.setting("retention").env("ENLIST_SWEEP_RETENTION").or("7d", retention);
    section.finish();
    SweepConfig { interval, grace, terminate_orphans, max_terminations, retention }
}
