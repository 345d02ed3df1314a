//! One request to an external provider: heartbeats until the answer, and an end to every wait.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, HeaderMap, StatusCode, Subscriber};
use futures_util::StreamExt as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout};

use crate::bus::trace;
use crate::config::ExternalConfig;
use crate::domain::{ErrorClass, TraceContext};
use crate::provider::ProviderError;
use crate::wire::provider::{Failure, ProviderReply};

/// Asks one provider.
#[derive(Debug, Clone)]
pub(super) struct Asking {
    client: Client,
    config: Arc<ExternalConfig>,
    /// How long signs of life are taken for some.
    at_most: Option<Duration>,
}

impl Asking {
    pub(super) fn new(client: Client, config: ExternalConfig) -> Self {
        Self { client, config: Arc::new(config), at_most: None }
    }

    /// The same, for who has no end to the wait of his own: a provider may beat for ever.
    pub(super) fn at_most(self, at_most: Duration) -> Self {
        Self { at_most: Some(at_most), ..self }
    }

    /// Sends a request, and waits for its answer for as long as the provider shows a sign of life in time. Dropping the
    /// future gives the answer up, and not what was asked for.
    pub(super) async fn ask<T: Serialize + DeserializeOwned>(
        &self,
        request: &str,
        body: Vec<u8>,
    ) -> Result<T, ProviderError> {
        self.ask_within(None, request, body).await
    }

    /// The same as a part of a trace.
    pub(super) async fn ask_within<T: Serialize + DeserializeOwned>(
        &self,
        trace: Option<&TraceContext>,
        request: &str,
        body: Vec<u8>,
    ) -> Result<T, ProviderError> {
        let (subject, patience) = (self.config.subject(request), self.config.answer_timeout);
        let error = |class, message: String| ProviderError::new(class, format!("{subject}: {message}"));
        let mut replies =
            self.send(&subject, trace, body, patience).await.map_err(|(class, said)| error(class, said))?;
        let begun = Instant::now();
        loop {
            if let Some(at_most) = self.at_most.filter(|at_most| begun.elapsed() >= *at_most) {
                return Err(error(ErrorClass::Timeout, format!("heartbeats, and no answer within {at_most:?}")));
            }
            let silent =
                || error(ErrorClass::Timeout, format!("neither an answer nor a heartbeat within {patience:?}"));
            let reply = timeout(patience, replies.next()).await.map_err(|_| silent())?;
            let Some(reply) = reply else {
                return Err(error(ErrorClass::Timeout, "the connection was closed before the answer".to_owned()));
            };
            if reply.status == Some(StatusCode::NO_RESPONDERS) {
                return Err(error(ErrorClass::Unavailable, "nobody answers there".to_owned()));
            }
            match ProviderReply::<T>::decode(&reply.payload) {
                Ok(ProviderReply::Working) => {}
                Ok(ProviderReply::Done(answer)) => return Ok(answer),
                Ok(ProviderReply::Failed { error: Failure { class, message } }) => {
                    return Err(ProviderError::new(class, message));
                }
                // It has done something, and nobody can tell what.
                Err(unreadable) => return Err(error(ErrorClass::Internal, unreadable.to_string())),
            }
        }
    }

    /// An inbox of the request's own: `Requests` hands out a request's first reply only, and this one may have many.
    async fn send(
        &self,
        subject: &str,
        trace: Option<&TraceContext>,
        body: Vec<u8>,
        patience: Duration,
    ) -> Result<Subscriber, (ErrorClass, String)> {
        let mut headers = HeaderMap::new();
        trace::put(&mut headers, trace);
        let inbox = self.client.new_inbox();
        let listening = timeout(patience, self.client.subscribe(inbox.clone())).await;
        let replies = listening
            .map_err(|_| (ErrorClass::Unavailable, "the connection to NATS takes nothing".to_owned()))?
            .map_err(|error| (ErrorClass::Unavailable, error.to_string()))?;
        // From here on it may go out, even late: the client keeps what it is given while the connection is down.
        let sent = self.client.publish_with_reply_and_headers(subject.to_owned(), inbox, headers, body.into());
        match timeout(patience, sent).await {
            Ok(Ok(())) => Ok(replies),
            Ok(Err(error)) => Err((ErrorClass::Internal, format!("not sendable: {error}"))),
            Err(_) => Err((ErrorClass::Timeout, "the connection to NATS takes nothing".to_owned())),
        }
    }
}
