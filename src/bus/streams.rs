//! The streams and consumers of a fleet: made where they are missing, compared where they are there, never deleted.

pub mod inspect;

use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::context::{
    ConsumerInfoErrorKind, CreateStreamErrorKind, GetStreamError, GetStreamErrorKind,
};
use async_nats::jetstream::stream::{
    self, ConsumerErrorKind, DiscardPolicy, Republish, RetentionPolicy, StorageType, SubjectTransform,
};
use async_nats::jetstream::{self, ErrorCode};
use serde_json::Value;

use super::connection::Connection;
use super::subjects::Subjects;
use crate::config::ManageStreams;
use crate::domain::{Lane, Pool, Verb};

/// How long a delivered command may stand without a sign of life before another replica gets it.
pub const ACK_WAIT: Duration = Duration::from_secs(30);
/// The largest command.
const MAX_COMMAND: i32 = 64 * 1024;
/// The code of what a server cannot do now.
const UNAVAILABLE: usize = 503;
const MAX_ACK_PENDING: i64 = 20_000;
const EVENTS_PER_SUBJECT: i64 = 64;
const DEAD_MAX_AGE: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long the server knows a command's message id.
pub const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// Why the objects are not as they have to be.
#[derive(Debug, thiserror::Error)]
pub enum StreamsError {
    /// One is there and differs.
    #[error("{kind} {name} is not as enlist needs it:\n{differences}\n{remedy}")]
    Differs {
        /// `stream` or `consumer`.
        kind: &'static str,
        /// Its name.
        name: String,
        /// One line a difference.
        differences: String,
        /// What to do.
        remedy: &'static str,
    },
    /// One is missing, and we are told not to make it.
    #[error("{kind} {name} is missing and manage_streams is \"never\"; make it, or set manage_streams = \"create\"")]
    Missing {
        /// `stream` or `consumer`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// No answer, or none yet: the brokers have no leader, or are too busy. Later it may be done.
    #[error("cannot {action}: {cause}")]
    Away {
        /// What was asked.
        action: String,
        /// The client's words.
        cause: String,
    },
    /// The server did not do it.
    #[error("cannot {action}: {cause}{complaint}")]
    Server {
        /// What was asked.
        action: String,
        /// The client's words.
        cause: String,
        /// What the server complained about, say a missing permission.
        complaint: String,
    },
}

/// Makes or checks everything under the fleet's prefix for these pools.
pub async fn ensure(
    connection: &Connection,
    domain: Option<&str>,
    subjects: &Subjects,
    pools: impl IntoIterator<Item = &Pool>,
    replicas: usize,
    manage: ManageStreams,
) -> Result<(), StreamsError> {
    let context = context(connection, domain);
    let keeper = Keeper { context, connection, manage, since: Instant::now() };
    keeper.stream(events(subjects, replicas)).await?;
    keeper.stream(view(subjects, replicas)).await?;
    keeper.stream(dead(subjects, replicas)).await?;
    for pool in pools {
        keeper.stream(commands(subjects, pool, replicas)).await?;
        for lane in Lane::ALL {
            keeper.consumer(&subjects.command_stream(pool), consumer(subjects, pool, lane)).await?;
        }
    }
    Ok(())
}

/// A `JetStream` context on this connection.
#[must_use]
pub fn context(connection: &Connection, domain: Option<&str>) -> jetstream::Context {
    match domain {
        Some(domain) => jetstream::with_domain(connection.client.clone(), domain),
        None => jetstream::new(connection.client.clone()),
    }
}

/// The subjects of the server's API start with this.
#[must_use]
pub fn api_prefix(domain: Option<&str>) -> String {
    domain.map_or_else(|| "$JS.API".to_owned(), |domain| format!("$JS.{domain}.API"))
}

fn base(name: String, replicas: usize) -> stream::Config {
    stream::Config {
        name,
        storage: StorageType::File,
        num_replicas: replicas,
        allow_direct: true,
        duplicate_window: DUPLICATE_WINDOW,
        ..stream::Config::default()
    }
}

fn commands(subjects: &Subjects, pool: &Pool, replicas: usize) -> stream::Config {
    stream::Config {
        // No others: an unknown pool or verb gets no PubAck, so its publisher knows at once.
        subjects: Verb::ALL.map(|verb| subjects.command(pool, verb)).to_vec(),
        retention: RetentionPolicy::WorkQueue,
        discard: DiscardPolicy::New,
        max_message_size: MAX_COMMAND,
        description: Some(format!("commands for pool {pool}")),
        ..base(subjects.command_stream(pool), replicas)
    }
}

fn events(subjects: &Subjects, replicas: usize) -> stream::Config {
    stream::Config {
        subjects: vec![subjects.log_all()],
        subject_transform: Some(SubjectTransform { source: subjects.log_all(), destination: subjects.log_transform() }),
        republish: Some(Republish {
            source: subjects.events_republished(),
            destination: subjects.events_republished(),
            headers_only: false,
        }),
        max_messages_per_subject: EVENTS_PER_SUBJECT,
        deny_delete: true,
        description: Some("the record: every event of every worker".into()),
        ..base(subjects.event_stream(), replicas)
    }
}

fn view(subjects: &Subjects, replicas: usize) -> stream::Config {
    stream::Config {
        max_messages_per_subject: 1,
        sources: Some(vec![stream::Source {
            name: subjects.event_stream(),
            subject_transforms: vec![SubjectTransform {
                source: subjects.events_all(),
                destination: subjects.view_transform(),
            }],
            ..stream::Source::default()
        }]),
        description: Some("the newest event of each worker; made by the server, nobody writes it".into()),
        ..base(subjects.view_stream(), replicas)
    }
}

fn dead(subjects: &Subjects, replicas: usize) -> stream::Config {
    stream::Config {
        subjects: vec![subjects.dead_all()],
        max_age: DEAD_MAX_AGE,
        description: Some("commands that were not carried out, and why".into()),
        ..base(subjects.dead_stream(), replicas)
    }
}

fn consumer(subjects: &Subjects, pool: &Pool, lane: Lane) -> pull::Config {
    let name = lane.as_str();
    let mut filters: Vec<String> = lane.verbs().iter().map(|verb| subjects.command(pool, *verb)).collect();
    let (filter_subject, filter_subjects) =
        if filters.len() == 1 { (filters.remove(0), Vec::new()) } else { (String::new(), filters) };
    pull::Config {
        durable_name: Some(name.to_owned()),
        // The server fills it in, and it would be a difference at the next start.
        name: Some(name.to_owned()),
        filter_subject,
        filter_subjects,
        ack_policy: AckPolicy::Explicit,
        ack_wait: ACK_WAIT,
        max_deliver: -1,
        max_ack_pending: MAX_ACK_PENDING,
        ..pull::Config::default()
    }
}

struct Keeper<'a> {
    context: jetstream::Context,
    connection: &'a Connection,
    manage: ManageStreams,
    /// What the server complained about before says nothing about these streams.
    since: Instant,
}

impl Keeper<'_> {
    async fn stream(&self, wanted: stream::Config) -> Result<(), StreamsError> {
        let name = wanted.name.clone();
        let found = match self.context.get_stream(&name).await {
            Ok(stream) => stream.cached_info().config.clone(),
            Err(error) if not_found(error.kind(), ErrorCode::STREAM_NOT_FOUND) => {
                if self.manage == ManageStreams::Never {
                    return Err(StreamsError::Missing { kind: "stream", name });
                }
                // Another replica that starts at the same time may be quicker; the same configuration is no error.
                return match self.context.create_stream(wanted).await {
                    Ok(_) => Ok(()),
                    Err(error) => {
                        let refused = match error.kind() {
                            CreateStreamErrorKind::JetStream(error) => Some(error),
                            _ => None,
                        };
                        Err(self.server(format!("create stream {name}"), &error, refused.as_ref()))
                    }
                };
            }
            Err(error) => return Err(self.not_looked_up(&name, &error)),
        };
        let differences = differences(&wanted, &found);
        if differences.is_empty() {
            return Ok(());
        }
        if self.manage != ManageStreams::Update {
            return Err(differs("stream", name, &differences, UPDATABLE));
        }
        // Nothing is ever deleted to make it fit: what the server does not update stops the start.
        match self.context.update_stream(wanted).await {
            Ok(_) => Ok(()),
            Err(error) => {
                tracing::error!(stream = %name, %error, "the server does not update it");
                Err(differs("stream", name, &differences, NOT_UPDATABLE))
            }
        }
    }

    async fn consumer(&self, stream: &str, wanted: pull::Config) -> Result<(), StreamsError> {
        let name = wanted.durable_name.clone().unwrap_or_default();
        let shown = format!("{name} on {stream}");
        let handle = self.context.get_stream(stream).await.map_err(|error| self.not_looked_up(stream, &error))?;
        let found = match handle.consumer_info(&name).await {
            Ok(info) => info.config,
            Err(error) if missing(&error.kind()) => {
                if self.manage == ManageStreams::Never {
                    return Err(StreamsError::Missing { kind: "consumer", name: shown });
                }
                return match handle.create_consumer(wanted).await {
                    Ok(_) => Ok(()),
                    Err(error) => {
                        let refused = match error.kind() {
                            ConsumerErrorKind::JetStream(error) => Some(error),
                            _ => None,
                        };
                        Err(self.server(format!("create consumer {shown}"), &error, refused.as_ref()))
                    }
                };
            }
            Err(error) => {
                let refused = match error.kind() {
                    ConsumerInfoErrorKind::JetStream(error) => Some(error),
                    _ => None,
                };
                return Err(self.server(format!("look up consumer {shown}"), &error, refused.as_ref()));
            }
        };
        let wanted_full = async_nats::jetstream::consumer::IntoConsumerConfig::into_consumer_config(wanted.clone());
        let differences = differences(&wanted_full, &found);
        if differences.is_empty() {
            return Ok(());
        }
        if self.manage != ManageStreams::Update {
            return Err(differs("consumer", shown, &differences, UPDATABLE));
        }
        match handle.create_consumer(wanted).await {
            Ok(_) => Ok(()),
            Err(error) => {
                tracing::error!(consumer = %shown, %error, "the server does not update it");
                Err(differs("consumer", shown, &differences, NOT_UPDATABLE))
            }
        }
    }

    fn not_looked_up(&self, stream: &str, error: &GetStreamError) -> StreamsError {
        let refused = match error.kind() {
            GetStreamErrorKind::JetStream(error) => Some(error),
            _ => None,
        };
        self.server(format!("look up stream {stream}"), error, refused.as_ref())
    }

    /// What the server has refused needs an operator; what it has not answered, or cannot do now, needs time.
    fn server(
        &self,
        action: String,
        error: &dyn std::fmt::Display,
        refused: Option<&jetstream::Error>,
    ) -> StreamsError {
        let (complaint, cause) = (self.connection.complaint_since(self.since), error.to_string());
        if complaint.is_none() && refused.is_none_or(|error| error.code() == UNAVAILABLE) {
            return StreamsError::Away { action, cause };
        }
        let complaint = complaint.map(|text| format!("; the server said: {text}")).unwrap_or_default();
        StreamsError::Server { action, cause, complaint }
    }
}

const UPDATABLE: &str = "enlist changes nothing that is there unless manage_streams = \"update\"";
const NOT_UPDATABLE: &str = "the server cannot update it, and enlist never deletes: move its messages away and delete it yourself, or use another prefix";

fn differs(kind: &'static str, name: String, differences: &[String], remedy: &'static str) -> StreamsError {
    StreamsError::Differs { kind, name, differences: differences.join("\n"), remedy }
}

fn not_found(kind: GetStreamErrorKind, code: ErrorCode) -> bool {
    matches!(kind, GetStreamErrorKind::JetStream(error) if error.error_code() == code)
}

fn missing(kind: &ConsumerInfoErrorKind) -> bool {
    match kind {
        ConsumerInfoErrorKind::NotFound => true,
        ConsumerInfoErrorKind::JetStream(error) => error.error_code() == ErrorCode::CONSUMER_NOT_FOUND,
        _ => false,
    }
}

/// What an operator may set beside enlist: it changes no guarantee.
const FREE: [&str; 9] = [
    "description",
    "metadata",
    "placement",
    "compression",
    "max_bytes",
    "consumer_limits",
    "allow_direct",
    "max_waiting",
    "first_seq",
];

/// One line for each field that differs; fields that neither side sets to anything but nothing are equal.
fn differences<T: serde::Serialize>(wanted: &T, found: &T) -> Vec<String> {
    let object = |value: &T| match serde_json::to_value(value) {
        Ok(Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    let (wanted, found) = (object(wanted), object(found));
    let names: std::collections::BTreeSet<&String> = wanted.keys().chain(found.keys()).collect();
    names
        .into_iter()
        .filter(|name| !FREE.contains(&name.as_str()))
        .filter_map(|name| {
            let (want, have) = (wanted.get(name).unwrap_or(&Value::Null), found.get(name).unwrap_or(&Value::Null));
            let same = same(want, have);
            (!same).then(|| format!("  {name}: found {have}, expected {want}"))
        })
        .collect()
}

fn same(want: &Value, have: &Value) -> bool {
    fn empty(value: &Value) -> bool {
        match value {
            Value::Null => true,
            Value::Bool(set) => !set,
            Value::Number(number) => number.as_i64().is_some_and(|n| n == 0 || n == -1),
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(fields) => fields.is_empty(),
        }
    }
    match (want, have) {
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => a.iter().all(|x| b.iter().any(|y| same(x, y))),
        (Value::Object(a), Value::Object(b)) => {
            let names: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            names.into_iter().all(|name| same(a.get(name).unwrap_or(&Value::Null), b.get(name).unwrap_or(&Value::Null)))
        }
        _ => want == have || (empty(want) && empty(have)),
    }
}
