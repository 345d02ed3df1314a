//! Reading single messages of a stream, always from its leader.

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::requests::Requests;
use crate::wire::publish::ApiError;

const PATIENCE: Duration = Duration::from_secs(5);
/// `JSNoMessageFoundErr` of nats-server.
const NO_MESSAGE: u64 = 10037;

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

/// A message could not be read.
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
    get(requests, api_prefix, stream, json!({ "seq": sequence })).await
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
    let reply = requests.send(subject, None, query.to_string().into(), PATIENCE).await?;
    let unreadable = |error: &dyn std::fmt::Display| ReadStoredError::Unreadable(error.to_string());
    let answer: Answer = serde_json::from_slice(&reply.payload).map_err(|error| unreadable(&error))?;
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
