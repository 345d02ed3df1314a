//! How a request is answered: a body, or a service error with a code like one of HTTP's.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::service::{Request, error::Error};
use bytes::Bytes;

use crate::bus::orders::NotTaken;
use crate::domain::{Reason, Refusal};
use crate::text::cut;
use crate::wire::dead_letter::{DETAIL, REASON};
use crate::wire::event;

/// While the connection is down the client's queue fills up; the caller has given up by then.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a request is answered with.
pub(super) type Answer = Result<Reply, Failure>;

/// A body and its form.
#[derive(Debug)]
pub(super) struct Reply {
    content_type: &'static str,
    body: Bytes,
}

impl Reply {
    pub(super) fn json(body: Vec<u8>) -> Self {
        Self { content_type: "application/json", body: body.into() }
    }

    pub(super) fn event(body: impl Into<Bytes>) -> Self {
        Self { content_type: event::CONTENT_TYPE, body: body.into() }
    }
}

/// A service error.
#[derive(Debug)]
pub(super) struct Failure {
    code: usize,
    text: String,
    refusal: Option<Refusal>,
}

impl Failure {
    pub(super) fn new(code: usize, text: impl AsRef<str>) -> Self {
        Self { code, text: cut(text.as_ref(), 600), refusal: None }
    }

    /// The log, the view or the queue cannot be asked.
    pub(super) fn away(error: &dyn std::fmt::Display) -> Self {
        Self::new(503, error.to_string())
    }
}

/// What a dead letter says.
impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal.reason {
            Reason::Malformed | Reason::Invalid => 400,
            Reason::NotAllowed => 403,
            Reason::Conflict => 409,
            Reason::Expired => 410,
            Reason::Quota => 429,
            Reason::Exhausted => 500,
        };
        Self { refusal: Some(refusal.clone()), ..Self::new(code, refusal.to_string()) }
    }
}

impl From<NotTaken> for Failure {
    fn from(error: NotTaken) -> Self {
        let code = match error {
            NotTaken::NoPool { .. } => 404,
            NotTaken::NotPermitted(_) => 403,
            NotTaken::Refused(_) | NotTaken::Unanswered(_) => 503,
        };
        Self::new(code, error.to_string())
    }
}

/// Sends the answer; one that nobody waits for any more reaches nobody.
pub(super) async fn respond(request: &Request, answer: Answer) {
    let mut headers = HeaderMap::new();
    let response = match answer {
        Ok(Reply { content_type, body }) => {
            headers.insert("Content-Type", content_type);
            Ok(body)
        }
        Err(Failure { code, text, refusal }) => {
            if let Some(Refusal { reason, detail }) = refusal {
                headers.insert(REASON, reason.as_str());
                headers.insert(DETAIL, cut(&detail, 600));
            }
            Err(Error { status: text, code })
        }
    };
    let sent = tokio::time::timeout(PATIENCE, request.respond_with_headers(response, headers)).await;
    if !matches!(sent, Ok(Ok(()))) {
        tracing::debug!(subject = %request.message.subject, "a request could not be answered");
    }
}
