//! Pulling from a durable consumer: as many messages as there are free slots, and no more.
//!
//! The client's own stream of messages keeps a buffer of its own, so that messages wait with their ack clock running, and
//! does not ask again for seconds after a hiccup. Here each request names its number, and what has been asked for and has
//! not come is known at every moment.

use std::time::Duration;

use async_nats::{Client, Message, StatusCode, Subject, Subscriber};
use futures_util::StreamExt;
use tokio::time::{Instant, timeout_at};

/// How long a request stands at the server: short, so that a lost one is not missed for long.
const EXPIRES: Duration = Duration::from_secs(8);
/// After this long without a word about a request it is taken for lost.
const LOST: Duration = Duration::from_secs(10);
const PENDING: &str = "Nats-Pending-Messages";

/// A consumer's messages.
pub struct Puller {
    client: Client,
    api: Subject,
    inbox: String,
    messages: Subscriber,
    /// Asked for and not come.
    outstanding: usize,
    asked_at: Instant,
    /// The consumer has answered.
    answered: bool,
}

/// What a wait brought.
#[derive(Debug)]
pub enum Pulled {
    /// A command.
    Message(Box<Message>),
    /// So many of those asked for will not come: ask again.
    Unfilled(usize),
    /// The consumer cannot be asked: it has no leader, or is gone. Wait a little before asking again.
    Refused(String),
    /// The connection's subscription has ended.
    Closed,
}

impl Puller {
    /// Subscribes to an inbox for the messages of `consumer`. Nothing is asked for yet.
    pub async fn new(
        client: Client,
        api_prefix: &str,
        stream: &str,
        consumer: &str,
    ) -> Result<Self, async_nats::SubscribeError> {
        let inbox = client.new_inbox();
        let messages = client.subscribe(inbox.clone()).await?;
        let api = format!("{api_prefix}.CONSUMER.MSG.NEXT.{stream}.{consumer}").into();
        Ok(Self { client, api, inbox, messages, outstanding: 0, asked_at: Instant::now(), answered: false })
    }

    /// Messages that have been asked for and have not come.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// Asks for `number` more messages. The first request does not stand at the server, so that its answer tells at once
    /// that the consumer is there.
    pub async fn ask(&mut self, number: usize) -> Result<(), async_nats::PublishError> {
        let body = if self.answered {
            format!("{{\"batch\":{number},\"expires\":{}}}", EXPIRES.as_nanos())
        } else {
            format!("{{\"batch\":{number},\"no_wait\":true}}")
        };
        self.client.publish_with_reply(self.api.clone(), self.inbox.clone(), body.into()).await?;
        self.outstanding += number;
        self.asked_at = Instant::now();
        Ok(())
    }

    /// Wants nothing more. What the server has sent already still comes, then [`Pulled::Closed`].
    pub async fn close(&mut self) -> Result<(), async_nats::UnsubscribeError> {
        self.messages.drain().await
    }

    /// The next message, or the news that some will not come. Safe to drop half-way.
    pub async fn next(&mut self) -> Pulled {
        loop {
            let message = if self.outstanding == 0 {
                self.messages.next().await
            } else {
                match timeout_at(self.asked_at + LOST, self.messages.next()).await {
                    Ok(message) => message,
                    // The request, or its end, was lost with a connection or a leader.
                    Err(_) => return Pulled::Unfilled(std::mem::take(&mut self.outstanding)),
                }
            };
            let Some(message) = message else { return Pulled::Closed };
            match message.status {
                None => {
                    self.answered = true;
                    self.outstanding = self.outstanding.saturating_sub(1);
                    return Pulled::Message(Box::new(message));
                }
                Some(StatusCode::IDLE_HEARTBEAT) => {}
                Some(StatusCode::TIMEOUT | StatusCode::NOT_FOUND) => {
                    self.answered = true;
                    let left = message
                        .headers
                        .as_ref()
                        .and_then(|headers| headers.get(PENDING)?.as_str().parse().ok())
                        .unwrap_or(self.outstanding)
                        .min(self.outstanding);
                    self.outstanding -= left;
                    return Pulled::Unfilled(left);
                }
                Some(status) => {
                    self.outstanding = 0;
                    let why = message.description.as_deref().unwrap_or("no reason given");
                    return Pulled::Refused(format!("{status}: {why}"));
                }
            }
        }
    }
}
