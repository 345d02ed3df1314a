//! Single messages of a stream, read and purged by requests that always go to its leader.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::requests::Requests;
use crate::wire::publish::ApiError;

const PATIENCE: Duration = Duration::from_secs(5);
/// `JSNoMessageFoundErr` of nats-server.
const NO_MESSAGE: u64 = 10037;
/// What it says of a delete of what is not there: `JSStreamMsgDeleteFailedF`, `JSSequenceNotFoundErrF`.
const GONE: [u64; 2] = [10057, 10043];

/// A message as its stream holds it.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its subject.
    pub subject: String,
    /// Its place.
    pub sequence: u64,
    /// Its body.
    pub body: Bytes,
    headers: String,
}

impl Stored {
    /// The value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key == name).then(|| value.trim())
        })
    }
}

/// A request about stored messages has no good answer.
#[derive(Debug, thiserror::Error)]
pub enum ReadStoredError {
    /// No answer.
    #[error(transparent)]
    Request(#[from] super::requests::RequestError),
    /// The server's answer is an error.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The answer makes no sense.
    #[error("the server's answer cannot be read: {0}")]
    Unreadable(String),
}

/// The newest message on a subject, which may be a filter.
pub async fn last(
    requests: &Requests,
    api_prefix: &str,
    stream: &str,
    subject: &str,
) -> Result<Option<Stored>, ReadStoredError> {
    get(requests, api_prefix, stream, json!({ "last_by_subj": subject })).await
}

/// The first message on a subject at or after a sequence.
pub async fn next(
    requests: &Requests,
    api_prefix: &str,
    stream: &str,
    subject: &str,
    from: u64,
) -> Result<Option<Stored>, ReadStoredError> {
    get(requests, api_prefix, stream, json!({ "seq": from, "next_by_subj": subject })).await
}

/// The message at a sequence.
pub async fn at(
    requests: &Requests,
    api_prefix: &str,
    stream: &str,
    sequence: u64,
) -> Result<Option<Stored>, ReadStoredError> {
    if sequence == 0 {
        // The server would take it for a query without a sequence.
        return Ok(None);
    }
    get(requests, api_prefix, stream, json!({ "seq": sequence })).await
}

/// The sequence of a stream's newest message, whether it is still there or not; 0 where there never was one.
pub async fn last_sequence(requests: &Requests, api_prefix: &str, stream: &str) -> Result<u64, ReadStoredError> {
    Ok(state(requests, api_prefix, stream, Bytes::new()).await?.last_seq)
}

/// How many messages a stream holds on one subject.
pub async fn count(
    requests: &Requests,
    api_prefix: &str,
    stream: &str,
    subject: &str,
) -> Result<usize, ReadStoredError> {
    let query = json!({ "subjects_filter": subject }).to_string();
    Ok(state(requests, api_prefix, stream, query.into()).await?.subjects.values().sum())
}

/// What is asked of `STREAM.INFO`.
#[derive(Deserialize)]
struct State {
    last_seq: u64,
    /// Not there where nothing was asked about subjects, or none matches.
    #[serde(default)]
    subjects: HashMap<String, usize>,
}

async fn state(requests: &Requests, api_prefix: &str, stream: &str, query: Bytes) -> Result<State, ReadStoredError> {
    #[derive(Deserialize)]
    struct Answer {
        state: Option<State>,
        error: Option<ApiError>,
    }
    let answer: Answer = ask(requests, format!("{api_prefix}.STREAM.INFO.{stream}"), query).await?;
    match (answer.state, answer.error) {
        (Some(state), _) => Ok(state),
        (None, Some(error)) => Err(error.into()),
        (None, None) => Err(ReadStoredError::Unreadable("neither state nor error".into())),
    }
}

/// Removes the messages on a subject, which may be a filter, up to and including a sequence. None there is no error.
pub async fn purge(
    requests: &Requests,
    api_prefix: &str,
    stream: &str,
    subject: &str,
    upto: u64,
) -> Result<(), ReadStoredError> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        success: bool,
        error: Option<ApiError>,
    }
    // The server keeps what stands at `seq`, and what comes after.
    let query = json!({ "filter": subject, "seq": upto.saturating_add(1) }).to_string();
    let answer: Answer = ask(requests, format!("{api_prefix}.STREAM.PURGE.{stream}"), query.into()).await?;
    match (answer.success, answer.error) {
        (_, Some(error)) => Err(error.into()),
        (true, None) => Ok(()),
        (false, None) => Err(ReadStoredError::Unreadable("neither success nor error".into())),
    }
}

/// Removes the message at a sequence. It is no error that it is gone.
pub async fn delete(requests: &Requests, api_prefix: &str, stream: &str, sequence: u64) -> Result<(), ReadStoredError> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        success: bool,
        error: Option<ApiError>,
    }
    let query = json!({ "seq": sequence, "no_erase": true }).to_string();
    let answer: Answer = ask(requests, format!("{api_prefix}.STREAM.MSG.DELETE.{stream}"), query.into()).await?;
    match (answer.success, answer.error) {
        (true, _) => Ok(()),
        (false, Some(error)) if GONE.contains(&error.err_code) => Ok(()),
        (false, Some(error)) => Err(error.into()),
        (false, None) => Err(ReadStoredError::Unreadable("neither success nor error".into())),
    }
}

async fn ask<T: DeserializeOwned>(requests: &Requests, subject: String, query: Bytes) -> Result<T, ReadStoredError> {
    let reply = requests.send(subject, None, query, PATIENCE).await?;
    serde_json::from_slice(&reply.payload).map_err(|error| ReadStoredError::Unreadable(error.to_string()))
}

async fn get(
    requests: &Requests,
    api_prefix: &str,
    stream: &str,
    query: Value,
) -> Result<Option<Stored>, ReadStoredError> {
    #[derive(Deserialize)]
    struct Answer {
        message: Option<Raw>,
        error: Option<ApiError>,
    }
    #[derive(Deserialize)]
    struct Raw {
        subject: String,
        seq: u64,
        #[serde(default)]
        data: String,
        #[serde(default)]
        hdrs: String,
    }
    let subject = format!("{api_prefix}.STREAM.MSG.GET.{stream}");
    let answer: Answer = ask(requests, subject, query.to_string().into()).await?;
    let unreadable = |error: &dyn std::fmt::Display| ReadStoredError::Unreadable(error.to_string());
    match (answer.message, answer.error) {
        (Some(Raw { subject, seq, data, hdrs }), _) => {
            let decode = |text: &str| data_encoding::BASE64.decode(text.as_bytes()).map_err(|error| unreadable(&error));
            let headers = String::from_utf8_lossy(&decode(&hdrs)?).into_owned();
            Ok(Some(Stored { subject, sequence: seq, body: decode(&data)?.into(), headers }))
        }
        (None, Some(error)) if error.err_code == NO_MESSAGE => Ok(None),
        (None, Some(error)) => Err(error.into()),
        (None, None) => Err(ReadStoredError::Unreadable("neither message nor error".into())),
    }
}
