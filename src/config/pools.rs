//! `[pools.<name>]`: an operator's templates for workers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::kind::{self, Parsed, Raw};
use super::load::{Base, concurrency, registration};
use super::reader::Section;
use super::show;
use super::{ExternalConfig, NullConfig, Override, PoolConfig, ProviderConfig, StaticHost};
use crate::domain::{Capabilities, Pool, WorkerId, WorkerSpec};

/// Settings that mean something to some providers only: where they stand in a pool of another, they are a mistake, as
/// they would do nothing.
const ONLY_FOR: [(&str, &[&str]); 10] = [
    ("image", &["docker", "null", "nats"]),
    ("command", &["process", "docker", "null", "nats"]),
    ("env", &["process", "docker", "null", "nats"]),
    ("hosts", &["static"]),
    ("delay", &["null"]),
    ("failure_rate", &["null"]),
    ("state_file", &["null"]),
    ("name", &["nats"]),
    ("subject_prefix", &["nats"]),
    ("answer_timeout", &["nats"]),
];

pub(super) fn read(pools: &Section<'_>, base: &Base) -> BTreeMap<Pool, PoolConfig> {
    let mut read = BTreeMap::new();
    for (key, span, node) in pools.entries() {
        let origin = pools.reader.at(&span);
        let name = pools.name(key);
        let section = Section::new(pools.reader, name.clone(), Some(node), origin.clone());
        let config = section.exists().then(|| pool(&section, base)).flatten();
        match (Pool::new(key), config) {
            (Ok(pool), Some(config)) => drop(read.insert(pool, config)),
            (Ok(_), None) => {}
            (Err(_), _) => {
                let found = show::quoted(key);
                let problem = format!("found {found} (key), expected a pool name of the form {}", Pool::PATTERN);
                pools.reader.mistake(origin, name, problem);
            }
        }
    }
    read
}

fn pool(section: &Section<'_>, base: &Base) -> Option<PoolConfig> {
    let names = ["process", "docker", "static", "null", "nats"].map(|name| (name, name));
    let expected = "\"process\", \"docker\", \"static\", \"null\" or \"nats\"";
    let provider = section.setting("provider").required(expected, kind::one_of(&names));
    let template = template(section);
    let hosts = hosts(section);
    let null = null(section);
    let external = external(section);
    let max_workers = section.setting("max_workers").optional(at_least_one);
    let concurrency = section.setting("concurrency").or("256", concurrency);
    let overrides = Override::ALL.map(|field| (field.as_str(), field));
    let allow = kind::list("an array of names such as [\"env\", \"labels\"]", kind::one_of(&overrides));
    let allow: BTreeSet<_> = section.setting("allow").optional(allow).unwrap_or_default().into_iter().collect();
    let registration = registration(&section.section("registration"), Some(base)).config;
    let launch_timeout = kind::duration_from(Duration::from_millis(1), "1ms");
    let launch_timeout = section.setting("launch_timeout").or("5m", launch_timeout);
    let grace = section.setting("grace").or("10s", kind::duration);
    if let Some(provider) = provider {
        fits(section, provider);
    }
    section.finish();
    let provider = match provider? {
        "process" => ProviderConfig::Process,
        "docker" => ProviderConfig::Docker,
        "static" => ProviderConfig::Static { hosts },
        "nats" => ProviderConfig::Nats(external?),
        _ => ProviderConfig::Null(null),
    };
    Some(PoolConfig { provider, template, max_workers, concurrency, allow, registration, launch_timeout, grace })
}

fn at_least_one(raw: Raw<'_>) -> Parsed<usize> {
    kind::whole("a whole number of at least 1", 1..=u64::from(u32::MAX))(raw)
}

fn template(section: &Section<'_>) -> WorkerSpec {
    let argument = |raw: Raw<'_>| match raw.text() {
        Some(text) if !text.contains('\0') => Ok(text.to_owned()),
        _ => raw.wrong("a text"),
    };
    let command = kind::list("an array of texts such as [\"sleep\", \"infinity\"]", argument);
    let env = kind::texts(
        "a table of texts such as { KEY = \"value\" }",
        "the name of a variable, without = and blanks",
        |name| !name.is_empty() && !name.contains(['=', '\0']) && !name.contains(char::is_whitespace),
    );
    WorkerSpec {
        image: section.setting("image").optional(kind::text),
        command: section.setting("command").optional(command).unwrap_or_default(),
        env: section.setting("env").secret().optional(env).unwrap_or_default(),
        labels: section.setting("labels").optional(labels).unwrap_or_default(),
        cpus: section.setting("cpus").optional(cpus),
        memory_mb: section.setting("memory_mb").optional(memory_mb),
        gpus: section.setting("gpus").optional(gpus),
    }
}

fn labels(raw: Raw<'_>) -> Parsed<BTreeMap<String, String>> {
    let good = |name: &str| !name.trim().is_empty() && !name.contains(char::is_control);
    kind::texts("a table of texts such as { zone = \"a\" }", "a label's name", good)(raw)
}

fn cpus(raw: Raw<'_>) -> Parsed<f64> {
    kind::number("a number of cores above 0", |n| n > 0.0)(raw)
}

fn memory_mb(raw: Raw<'_>) -> Parsed<u64> {
    kind::whole("a whole number of MiB of at least 1", 1..=1 << 40)(raw)
}

fn gpus(raw: Raw<'_>) -> Parsed<u32> {
    kind::whole("a whole number", 0..=u64::from(u32::MAX))(raw)
}

fn null(section: &Section<'_>) -> NullConfig {
    NullConfig {
        delay: section.setting("delay").optional(kind::duration).unwrap_or_default(),
        failure_rate: {
            let share = kind::number("a share from 0 to 1", |n| (0.0..=1.0).contains(&n));
            section.setting("failure_rate").optional(share).unwrap_or_default()
        },
        state_file: section.setting("state_file").optional(kind::path),
    }
}

/// `None` where it has no name, which `fits` tells where it needs one.
fn external(section: &Section<'_>) -> Option<ExternalConfig> {
    let name = section.setting("name").optional(kind::token::<Pool>("name of a provider", Pool::PATTERN));
    let subject_prefix = section.setting("subject_prefix").optional(kind::subject);
    let answer_timeout = kind::duration_from(Duration::from_millis(100), "100ms");
    let answer_timeout = section.setting("answer_timeout").optional(answer_timeout);
    Some(ExternalConfig {
        name: name?.to_string(),
        subject_prefix: subject_prefix.unwrap_or_else(|| "provider".to_owned()),
        answer_timeout: answer_timeout.unwrap_or(Duration::from_secs(10)),
    })
}

/// The inventory of a static pool. One line of it all is listed: it may be long.
fn hosts(section: &Section<'_>) -> Vec<StaticHost> {
    let Some((origin, node)) = section.raw("hosts") else { return Vec::new() };
    let (reader, name) = (section.reader, section.name("hosts"));
    let Some(array) = node.get_ref().as_array() else {
        let found = crate::text::cut(&show::value(node.get_ref()), 80);
        let expected = "expected an array of tables such as [{ id = \"edge-1\" }]";
        reader.mistake(origin, name, format!("found {found} ({}), {expected}", node.get_ref().type_str()));
        return Vec::new();
    };
    let mut seen = BTreeMap::new();
    let mut hosts = Vec::with_capacity(array.len());
    for (n, node) in array.iter().enumerate() {
        let place = reader.at(&node.span());
        let part = Section::new(reader, format!("{name}[{n}]"), Some(node), place.clone()).quiet();
        if !part.exists() {
            continue;
        }
        let id: Option<WorkerId> =
            part.setting("id").required("the host's worker id", kind::token("worker id", WorkerId::PATTERN));
        let endpoint = part.setting("endpoint").optional(kind::text);
        let capabilities = Capabilities {
            cpus: part.setting("cpus").optional(cpus),
            memory_mb: part.setting("memory_mb").optional(memory_mb),
            gpus: part.setting("gpus").optional(gpus),
            labels: part.setting("labels").optional(labels).unwrap_or_default(),
        };
        part.finish();
        let Some(id) = id else { continue };
        if let Some(first) = seen.insert(id.clone(), n) {
            let problem = format!("found \"{id}\" again, expected another id than that of hosts[{first}]");
            reader.mistake(place, part.name("id"), problem);
        }
        hosts.push(StaticHost { id, endpoint, capabilities });
    }
    let names: Vec<_> = hosts.iter().map(|host: &StaticHost| host.id.as_str()).collect();
    reader.note(name, crate::text::cut(&format!("{}: {}", names.len(), names.join(", ")), 200), origin);
    hosts
}

/// What a provider needs must be there, and what it does not know must not.
fn fits(section: &Section<'_>, provider: &str) {
    let reader = section.reader;
    for (key, providers) in ONLY_FOR {
        if let Some((origin, _)) = section.raw(key).filter(|_| !providers.contains(&provider)) {
            let problem = format!("means nothing to provider \"{provider}\", only to {}", providers.join(", "));
            reader.mistake(origin, section.name(key), problem);
        }
    }
    let needed = match provider {
        "docker" => Some(("image", "an image, as provider \"docker\" needs one")),
        "process" => {
            Some(("command", "a command such as [\"sleep\", \"infinity\"], as provider \"process\" needs one"))
        }
        "static" => Some(("hosts", "a host at least such as [{ id = \"edge-1\" }], as provider \"static\" makes none")),
        "nats" => Some(("name", "a name such as \"tmux\", under which the provider answers")),
        _ => None,
    };
    let Some((key, expected)) = needed else { return };
    match section.raw(key) {
        None => {
            reader.mistake(section.origin.clone(), section.name(key), format!("found nothing, expected {expected}"));
        }
        Some((origin, node)) if node.get_ref().as_array().is_some_and(|array| array.is_empty()) => {
            reader.mistake(origin, section.name(key), format!("found [] (array), expected {expected}"));
        }
        Some(_) => {}
    }
}
