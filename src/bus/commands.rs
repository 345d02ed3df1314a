//! Putting commands into a pool's queue, and asking what is still there.

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;

use super::delivery::Desk;
use super::requests::{RequestError, Requests};
use super::stored::{self, ReadStoredError};
use super::trace;
use crate::domain::{TraceContext, Verb};
use crate::wire::publish::{ApiError, PubAck};

/// How long the server may take to say that it has a command.
const PATIENCE: Duration = Duration::from_secs(5);

/// A command is not in its queue, as far as the server has said.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// No answer. It may be there all the same.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The server has not taken it.
    #[error(transparent)]
    Refused(#[from] ApiError),
}

/// Stores a command on its subject: within the duplicate window the server takes one of a message id, whoever sends it.
/// It is part of `trace`, where there is one.
pub async fn put(
    requests: &Requests,
    subject: String,
    message_id: &str,
    body: Bytes,
    trace: Option<&TraceContext>,
) -> Result<PubAck, PutError> {
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Msg-Id", message_id);
    trace::put(&mut headers, trace);
    let reply = requests.send(subject, Some(headers), body, PATIENCE).await?;
    Ok(PubAck::read(&reply.payload)?)
}

/// Whether a message is still in the queue: it goes with its ack.
pub async fn holds(desk: &Desk, sequence: u64) -> Result<bool, ReadStoredError> {
    let Desk { requests, api_prefix, stream, .. } = desk;
    Ok(stored::at(requests, api_prefix, stream, sequence).await?.is_some())
}

/// How many commands of a verb are in the queue, those in hand too.
pub async fn waiting(desk: &Desk, verb: Verb) -> Result<usize, ReadStoredError> {
    let Desk { requests, subjects, pool, api_prefix, stream } = desk;
    stored::count(requests, api_prefix, stream, &subjects.command(pool, verb)).await
}
