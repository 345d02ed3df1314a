//! Commands as they come off the queue: plain JSON, or a structured `CloudEvent` whose `data` is the command.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::explain::{Field, Mistakes, check, shown, tree};
use super::{read, table, to_json};
use crate::domain::{CommandId, CorrelationId, Labels, Reason, Refusal, SpecHash, Verb, WorkerId};

/// The largest command, in bytes; the queue's own limit too.
pub const MAX_BYTES: usize = 64 * 1024;
/// The deepest nesting of a command's JSON, its outermost object being the first level.
pub const MAX_DEPTH: usize = 16;

/// `enlist.cmd.<pool>.provision`: make a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ProvisionCommand {
    /// The command's name; the same name again makes no second worker.
    pub command_id: CommandId,
    /// The worker's name, where the publisher chooses it; otherwise it is derived from pool and command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_id: Option<WorkerId>,
    /// Overrides of the pool's template.
    #[serde(default, deserialize_with = "read::object", skip_serializing_if = "SpecOverrides::is_empty")]
    #[cfg_attr(test, schemars(with = "Option<SpecOverrides>"))]
    pub spec: SpecOverrides,
    /// Overrides of the pool's registration.
    #[serde(default, deserialize_with = "read::object", skip_serializing_if = "RegistrationOverrides::is_empty")]
    #[cfg_attr(test, schemars(with = "Option<RegistrationOverrides>"))]
    pub registration: RegistrationOverrides,
    /// Not to be started later than this.
    #[serde(default, deserialize_with = "read::expires_at", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<String>", regex(pattern = read::RFC3339)))]
    pub expires_at: Option<Timestamp>,
    /// Copied into every event of the worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<CorrelationId>,
}

/// What a command may set of a worker's specification; each only if the pool's `allow` lists it.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SpecOverrides {
    /// Container image.
    #[serde(default, deserialize_with = "read::image", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(regex(pattern = read::IMAGE)))]
    pub image: Option<String>,
    /// Program and arguments.
    #[serde(default, deserialize_with = "read::command", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(length(min = 1), inner(regex(pattern = read::NO_NUL)), extend("prefixItems" = [{ "minLength": 1 }])))]
    pub command: Option<Vec<String>>,
    /// Environment. Names that steer a loader, a shell, a runtime or enlist itself are `not_allowed`, whatever the pool
    /// allows. May hold secrets: never logged, never in an event.
    #[serde(default, deserialize_with = "read::env", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(extend(
        "maxProperties" = read::MAX_ENV,
        "propertyNames" = { "pattern": read::ENV_NAME },
        "additionalProperties" = { "type": "string", "pattern": read::NO_NUL }
    )))]
    pub env: Option<BTreeMap<String, String>>,
    /// Labels.
    #[serde(default, deserialize_with = "read::labels", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(extend(
        "maxProperties" = read::MAX_LABELS,
        "propertyNames" = { "pattern": read::LABEL_KEY },
        "additionalProperties" = { "type": "string", "maxLength": 256, "pattern": read::PRINTABLE }
    )))]
    pub labels: Option<Labels>,
    /// Cores, fractions allowed.
    #[serde(default, deserialize_with = "read::cpus", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(range(min = 0.001, max = 1_000_000)))]
    pub cpus: Option<f64>,
    /// Memory in MiB, written without a fraction.
    #[serde(default, deserialize_with = "read::memory_mb", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(range(min = 1, max = 1_073_741_824)))]
    pub memory_mb: Option<u64>,
    /// Whole accelerators, written without a fraction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(range(min = 0, max = u32::MAX)))]
    pub gpus: Option<u32>,
}

/// What a command may set of its registration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RegistrationOverrides {
    /// Whether the scheduler is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Tries after the first.
    #[serde(default, deserialize_with = "read::max_retries", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(range(min = 0, max = 100)))]
    pub max_retries: Option<u32>,
    /// All tries together, in milliseconds.
    #[serde(default, deserialize_with = "read::timeout_ms", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(range(min = 1, max = read::DAY_MS)))]
    pub timeout_ms: Option<u64>,
}

/// `enlist.cmd.<pool>.terminate`: remove a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TerminateCommand {
    /// The command's name.
    pub command_id: CommandId,
    /// The worker to remove.
    pub worker_id: WorkerId,
    /// Why, for the record and the scheduler.
    #[serde(default, deserialize_with = "read::reason", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(length(max = 200)))]
    pub reason: Option<String>,
    /// How long it may take to end, in milliseconds; the pool's grace if absent.
    #[serde(default, deserialize_with = "read::grace_ms", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(range(min = 0, max = read::DAY_MS)))]
    pub grace_ms: Option<u64>,
    /// Skip the scheduler's drain.
    #[serde(default, deserialize_with = "read::force", skip_serializing_if = "std::ops::Not::not")]
    #[cfg_attr(test, schemars(with = "Option<bool>"))]
    pub force: bool,
    /// Not to be started later than this.
    #[serde(default, deserialize_with = "read::expires_at", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<String>", regex(pattern = read::RFC3339)))]
    pub expires_at: Option<Timestamp>,
    /// Copied into the worker's events where it has none of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<CorrelationId>,
}

/// `enlist.cmd.<pool>.pool`: how many workers the pool keeps ready.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PoolCommand {
    /// The command's name.
    pub command_id: CommandId,
    /// The pre-warmed number of workers; 0 empties the pool.
    #[serde(deserialize_with = "read::size")]
    #[cfg_attr(test, schemars(range(min = 0, max = read::MAX_SIZE)))]
    pub size: u32,
    /// Not to be started later than this.
    #[serde(default, deserialize_with = "read::expires_at", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<String>", regex(pattern = read::RFC3339)))]
    pub expires_at: Option<Timestamp>,
    /// Copied into the pool's events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<CorrelationId>,
}

/// `enlist.cmd.<pool>.sweep`: compare the records with what is there, now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SweepCommand {
    /// The command's name.
    pub command_id: CommandId,
}

/// A command that cannot be read, with its id where that much could be read.
#[derive(Debug, Clone, PartialEq)]
pub struct Undecodable {
    /// For the dead letter's subject.
    pub command_id: Option<CommandId>,
    /// `malformed` or `invalid`, and why.
    pub refusal: Refusal,
}

/// What the four commands have in common.
trait Command: Serialize + DeserializeOwned {
    const VERB: &'static str;
    const FIELDS: &'static [Field];
}

macro_rules! command {
    ($name:ident, $verb:literal, $fields:expr) => {
        impl Command for $name {
            const VERB: &'static str = $verb;
            const FIELDS: &'static [Field] = $fields;
        }

        impl $name {
            /// Reads a command. Never panics, whatever the bytes.
            pub fn decode(body: &[u8]) -> Result<Self, Undecodable> {
                decode(body)
            }

            /// The body to publish.
            #[must_use]
            pub fn encode(&self) -> Vec<u8> {
                to_json(self, 512)
            }

            /// Fingerprint of everything in it: the same command id with another fingerprint is a conflict. How the
            /// content was written (order, blanks, null or absent, the zone of a time) makes no difference.
            #[must_use]
            pub fn content_hash(&self) -> SpecHash {
                content_hash(self)
            }
        }
    };
}

command!(ProvisionCommand, "provision", table::PROVISION);
command!(TerminateCommand, "terminate", table::TERMINATE);
command!(PoolCommand, "pool", table::POOL);
command!(SweepCommand, "sweep", table::SWEEP);

/// The id of a command, where that much can be read.
#[must_use]
pub fn id_of(verb: Verb, body: &[u8]) -> Option<CommandId> {
    let read = match verb {
        Verb::Provision => ProvisionCommand::decode(body).map(|command| command.command_id),
        Verb::Terminate => TerminateCommand::decode(body).map(|command| command.command_id),
        Verb::Pool => PoolCommand::decode(body).map(|command| command.command_id),
        Verb::Sweep => SweepCommand::decode(body).map(|command| command.command_id),
    };
    read.map_or_else(|undecodable| undecodable.command_id, Some)
}

/// The fingerprint of a command's content, where it can be read.
#[must_use]
pub fn hash_of(verb: Verb, body: &[u8]) -> Option<SpecHash> {
    match verb {
        Verb::Provision => ProvisionCommand::decode(body).ok().map(|command| command.content_hash()),
        Verb::Terminate => TerminateCommand::decode(body).ok().map(|command| command.content_hash()),
        Verb::Pool => PoolCommand::decode(body).ok().map(|command| command.content_hash()),
        Verb::Sweep => SweepCommand::decode(body).ok().map(|command| command.content_hash()),
    }
}

impl SpecOverrides {
    /// Nothing is overridden.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl RegistrationOverrides {
    /// Nothing is overridden.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl std::fmt::Debug for SpecOverrides {
    /// Values of the environment and arguments may be secrets, so only names show.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { image, command, env, labels, cpus, memory_mb, gpus } = self;
        f.debug_struct("SpecOverrides")
            .field("image", image)
            .field("command", &command.as_ref().and_then(|words| words.first()))
            .field("env", &env.as_ref().map(|env| env.keys().collect::<Vec<_>>()))
            .field("labels", labels)
            .field("cpus", cpus)
            .field("memory_mb", memory_mb)
            .field("gpus", gpus)
            .finish()
    }
}

/// The verb goes in, so that a terminate does not pass for the provision whose id it took.
fn content_hash<T: Command>(command: &T) -> SpecHash {
    let mut canonical = T::VERB.as_bytes().to_vec();
    canonical.push(b'\n');
    canonical.extend(to_json(command, 512));
    SpecHash::of(&canonical)
}

/// One pass where all is well and the command is plain; everything else is read again, at leisure, to say what is wrong.
fn decode<T: Command>(body: &[u8]) -> Result<T, Undecodable> {
    if body.len() > MAX_BYTES {
        return Err(malformed(format!("the whole command: found {} bytes, expected at most {MAX_BYTES}", body.len())));
    }
    if deeper_than(body, MAX_DEPTH) {
        return Err(malformed(format!("nested deeper than {MAX_DEPTH} levels")));
    }
    // A derived reader takes an array for a struct too.
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{')
        && let Ok(command) = serde_json::from_slice(body)
    {
        return Ok(command);
    }
    reread(body)
}

/// The command in a `CloudEvent`, or every mistake of what was sent.
fn reread<T: Command>(body: &[u8]) -> Result<T, Undecodable> {
    let mut mistakes = Mistakes::default();
    std::str::from_utf8(body).map_err(|error| malformed(format!("not UTF-8: {error}")))?;
    let sent = tree(body, &mut mistakes).map_err(|error| malformed(format!("not JSON: {error}")))?;
    let Value::Object(object) = &sent else {
        return Err(invalid(None, format!("found {}, expected an object", shown(&sent))));
    };
    let (object, path) = match object.get("specversion") {
        None => (object, ""),
        Some(version) => {
            if version != "1.0" {
                mistakes.add("specversion", format_args!("found {}", shown(version)), "\"1.0\"");
            }
            match object.get("data") {
                Some(Value::Object(data)) => (data, "data"),
                Some(other) => {
                    mistakes.add("data", format_args!("found {}", shown(other)), "the command, an object");
                    return Err(invalid(None, mistakes.into_detail()));
                }
                None => {
                    mistakes.add("data", "missing", "the command, an object");
                    return Err(invalid(None, mistakes.into_detail()));
                }
            }
        }
    };
    let command_id = object.get("command_id").and_then(Value::as_str).and_then(|id| CommandId::new(id).ok());
    check(T::FIELDS, object, path, &mut mistakes);
    if !mistakes.is_empty() {
        return Err(invalid(command_id, mistakes.into_detail()));
    }
    // The reader's own words are kept back: they could quote a value that is nobody's business.
    T::deserialize(Value::Object(object.clone()))
        .map_err(|_| invalid(command_id, format!("does not read as a {} command", T::VERB)))
}

/// Whether the brackets outside of strings nest deeper than `max`. A scan of bytes, so that no depth costs any stack.
fn deeper_than(body: &[u8], max: usize) -> bool {
    let (mut depth, mut in_string, mut bytes) = (0_usize, false, body.iter());
    while let Some(byte) = bytes.next() {
        match (in_string, byte) {
            (true, b'\\') => {
                bytes.next();
            }
            (_, b'"') => in_string = !in_string,
            (false, b'{' | b'[') => {
                depth += 1;
                if depth > max {
                    return true;
                }
            }
            (false, b'}' | b']') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

fn malformed(detail: impl AsRef<str>) -> Undecodable {
    Undecodable { command_id: None, refusal: Refusal::new(Reason::Malformed, detail) }
}

fn invalid(command_id: Option<CommandId>, detail: impl AsRef<str>) -> Undecodable {
    Undecodable { command_id, refusal: Refusal::new(Reason::Invalid, detail) }
}
