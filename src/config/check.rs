//! What no value shows alone: mistakes between one setting and another.

use super::reader::{Reader, Section};
use super::{Config, DEFAULT_FILE, ProviderConfig};

pub(super) fn check(reader: &Reader<'_>, root: &Section<'_>, config: &Config, pools_optional: bool) {
    if !pools_optional {
        some_pool(reader, root);
    }
    docker_host(reader, config);
    scheduler_apart(reader, config);
    providers_apart(reader, config);
}

/// A replica without pools would stand there, ready, and do nothing.
fn some_pool(reader: &Reader<'_>, root: &Section<'_>) {
    let pools = root.section("pools");
    let wrong_already = root.raw("pools").is_some() && !pools.exists();
    if pools.entries().is_empty() && !wrong_already {
        let file = match &reader.places {
            Some(places) => places.name().to_owned(),
            None => format!("a file named by --config or ENLIST_CONFIG, or in ./{DEFAULT_FILE}"),
        };
        let problem = format!("found no pool, expected a table [pools.<name>] at least in {file}");
        reader.mistake(pools.origin.clone(), "pools", problem);
    }
}

/// Looked at only where a pool needs it: `DOCKER_HOST` belongs to other programs as well.
fn docker_host(reader: &Reader<'_>, config: &Config) {
    let host = &config.providers.docker_host;
    let needed = config.pools.values().any(|pool| matches!(pool.provider, ProviderConfig::Docker));
    let known = ["unix://", "tcp://", "http://"];
    if needed && !known.iter().any(|scheme| host.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty())) {
        let name = "providers.docker.host";
        let found = super::show::quoted(&super::show::url(host));
        let problem = format!("found {found}, expected unix:///path/of/socket, tcp://host:port or http://host:port");
        reader.mistake(reader.origin(name), name, problem);
    }
}

/// A request to the scheduler must not land in enlist's own streams, which would answer it with a receipt.
fn scheduler_apart(reader: &Reader<'_>, config: &Config) {
    let scheduler = &config.scheduler;
    let subjects =
        [("register", &scheduler.register), ("unregister", &scheduler.unregister), ("list", &scheduler.list)];
    for (n, (key, subject)) in subjects.iter().enumerate() {
        let name = format!("scheduler.{key}");
        let found = super::show::quoted(subject);
        if is_own(config, subject) {
            let problem = format!("found {found}, expected a subject outside of enlist's own {}.>", config.prefix);
            reader.mistake(reader.origin(&name), name, problem);
        } else if let Some((other, _)) = subjects[..n].iter().find(|(_, other)| other == subject) {
            let problem = format!("found {found}, expected another subject than that of scheduler.{other}");
            reader.mistake(reader.origin(&name), name, problem);
        }
    }
}

/// Nor must a request to a provider.
fn providers_apart(reader: &Reader<'_>, config: &Config) {
    for (pool, settings) in &config.pools {
        let ProviderConfig::Nats(external) = &settings.provider else { continue };
        if is_own(config, &external.subject("list")) {
            let name = format!("pools.{pool}.subject_prefix");
            let found = super::show::quoted(&external.subject_prefix);
            let problem = format!("found {found}, expected a subject outside of enlist's own {}.>", config.prefix);
            reader.mistake(reader.origin(&name), name, problem);
        }
    }
}

/// Whether a subject is one of enlist's own.
fn is_own(config: &Config, subject: &str) -> bool {
    ["cmd", "log", "events", "dead", "srv"]
        .iter()
        .any(|branch| subject.starts_with(&format!("{}.{branch}.", config.prefix)))
}
