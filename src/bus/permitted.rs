//! What a replica may do on its server, tried before it takes a command.

use std::time::{Duration, Instant};

use async_nats::{HeaderMap, HeaderValue, header};
use bytes::Bytes;

use super::connection::Connection;
use super::requests::{RequestError, Requests};
use super::stored;
use super::streams::StreamsError;
use super::subjects::Subjects;
use crate::domain::{Pool, Verb};

/// No stream has come so far: a write that expects it is refused, and nothing is stored.
const NO_SEQUENCE: u64 = 1 << 60;
/// A server that says no says it to the connection, and the request itself is never answered.
const WITHIN: Duration = Duration::from_secs(1);

/// Something that a user has to be allowed to publish, with a body that changes nothing.
#[derive(Debug, Clone)]
pub struct Need {
    /// Where.
    pub subject: String,
    /// What; nothing stands for a write that no stream takes.
    pub body: Bytes,
}

/// What the start does not need and commands and sweeps will.
pub fn needed<'p>(subjects: &Subjects, api_prefix: &str, pools: impl IntoIterator<Item = &'p Pool>) -> Vec<Need> {
    let mut needed = Vec::new();
    for pool in pools {
        let nothing = |kind: &str| format!("{}.{kind}.{pool}._.permitted", subjects.prefix());
        let mut writes = vec![nothing("log"), subjects.dead_below(format_args!("{pool}._.permitted"))];
        writes.extend([Verb::Provision, Verb::Terminate, Verb::Sweep].map(|verb| subjects.command(pool, verb)));
        writes.push(format!("$JS.ACK.{}.permitted", subjects.command_stream(pool)));
        needed.extend(writes.into_iter().map(|subject| Need { subject, body: Bytes::new() }));
        for stream in [subjects.event_stream(), subjects.view_stream()] {
            let query = format!("{{\"filter\":\"{}\",\"seq\":1}}", nothing("events"));
            needed.push(Need { subject: format!("{api_prefix}.STREAM.PURGE.{stream}"), body: query.into() });
        }
    }
    needed
}

/// What the server says where it does not allow one of them.
pub async fn refused(connection: &Connection, requests: &Requests, need: &Need, within: Duration) -> Option<String> {
    let Need { subject, body } = need;
    let begun = Instant::now();
    let sent = requests.send(subject.clone(), Some(headers(body)), body.clone(), within);
    match connection.unless_refused(begun, &[subject], sent).await {
        Ok(Ok(_) | Err(RequestError::NoResponders)) => None,
        Ok(Err(_)) => connection.refused_since(begun, &[subject]),
        Err(said) => Some(said),
    }
}

fn headers(body: &Bytes) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if body.is_empty() {
        headers.insert(header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, HeaderValue::from(NO_SEQUENCE));
    }
    headers
}

/// Tries what the start does not need and commands and sweeps will: writes to the log, to the dead letters and to the
/// queues, acks, and purges. Nothing is changed by it: the writes expect a sequence that no stream has, and the purges are
/// of a subject that no event has.
pub async fn permitted(
    connection: &Connection,
    requests: &Requests,
    subjects: &Subjects,
    api_prefix: &str,
    pools: impl IntoIterator<Item = &Pool>,
) -> Result<(), StreamsError> {
    let begun = Instant::now();
    let tried = needed(subjects, api_prefix, pools).into_iter().map(|Need { subject, body }| async move {
        match requests.send(subject.clone(), Some(headers(&body)), body, WITHIN).await {
            // Refused by the stream, or no consumer of that name: it has got there.
            Ok(_) | Err(RequestError::NoResponders) => Ok(()),
            Err(error) => match connection.complaint_since(begun) {
                Some(text) => {
                    let (action, complaint) = (format!("publish to {subject}"), format!("; the server said: {text}"));
                    Err(StreamsError::Server { action, cause: error.to_string(), complaint })
                }
                // A stream between two leaders, or someone who listens to acks and answers none: nothing was forbidden.
                None => Ok(()),
            },
        }
    });
    futures_util::future::try_join_all(tried).await.map(|_| ())
}

/// Whether the server lets us listen to subjects like these, tried with one each that nobody else uses. What it says where it
/// does not.
pub async fn may_listen(
    connection: &Connection,
    requests: &Requests,
    subjects: &Subjects,
    api_prefix: &str,
    tried: impl IntoIterator<Item = String>,
) -> Result<(), String> {
    let stream = subjects.event_stream();
    let info = format!("{api_prefix}.STREAM.INFO.{stream}");
    for subject in tried {
        let begun = Instant::now();
        let Ok(_listening) = connection.client.subscribe(subject.clone()).await else {
            return Err("the connection is closed".to_owned());
        };
        // A server that says no says it before it answers what is asked next, and the client tells of it a moment later.
        for _ in 0..2 {
            let asked = stored::last_sequence(requests, api_prefix, &stream);
            let asked = connection.unless_refused(begun, &[&subject, &info], asked).await;
            if let Some(complaint) = connection.refused_since(begun, &[&subject]) {
                return Err(complaint);
            }
            asked?.map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}
