//! Requests over one long-lived reply subscription; every wait has an end, and nothing is left behind by one.
//!
//! `async_nats::Client::request` leaves an entry in its multiplexer for ever when a request times out, so a scheduler that
//! is away for a day would be a leak. It also has no bound on the wait for the client's command channel, which fills up
//! while the connection is down. Both are mended here: the slot of a request is freed by its guard, however it ends.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use async_nats::client::PublishErrorKind;
use async_nats::{Client, HeaderMap, Message, StatusCode, Subject, SubscribeError, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, yield_now};

use super::portion::portion;
use super::turns::Turns;

/// Pause before a reply subscription that ended is made anew: it ends only while its client closes, so this must not spin.
const RESTART: Duration = Duration::from_millis(20);

/// Why a request has no reply.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum RequestError {
    /// Nobody listens on the subject: nothing was done.
    #[error("nobody listens on the subject")]
    NoResponders,
    /// No reply in time. The request may have been done, or may be done yet: what the client has queued while the
    /// connection is down goes out when it is back.
    #[error("no reply in time")]
    TimedOut,
    /// The client was closed, or its replies can no longer reach us; the request may have been done.
    #[error("the connection is closed")]
    Disconnected,
    /// It cannot be sent as it is (too large, or no valid subject): another try ends the same way.
    #[error("not sendable: {0}")]
    Unsendable(PublishErrorKind),
}

/// Sends requests and hands each reply to the one that waits for it. A cheap handle on shared state.
#[derive(Debug, Clone)]
pub struct Requests {
    shared: Arc<Shared>,
    /// Where this handle's requests wait for those of others.
    turns: Option<Turns>,
}

#[derive(Debug)]
struct Shared {
    client: Client,
    /// `<inbox>.`, before the token of a request.
    prefix: String,
    table: Arc<Mutex<Table>>,
    dispatcher: AbortHandle,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.dispatcher.abort();
    }
}

impl Requests {
    /// Subscribes to an inbox of its own and starts to hand out replies, until the client closes or the last handle is
    /// dropped.
    pub async fn start(client: Client) -> Result<Self, SubscribeError> {
        let prefix = format!("{}.", client.new_inbox());
        let subject = Subject::from(format!("{prefix}*"));
        let replies = client.subscribe(subject.clone()).await?;
        let table = Arc::new(Mutex::new(Table { open: true, ..Table::default() }));
        let dispatch = dispatch(client.clone(), subject, prefix.len(), replies, Arc::clone(&table));
        let dispatcher = tokio::spawn(dispatch).abort_handle();
        Ok(Self { shared: Arc::new(Shared { client, prefix, table, dispatcher }), turns: None })
    }

    /// A handle whose requests take turns with those of others.
    #[must_use]
    pub fn in_turn(&self, turns: Turns) -> Self {
        Self { shared: Arc::clone(&self.shared), turns: Some(turns) }
    }

    /// The client that the requests go out on.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.shared.client
    }

    /// What the subjects of its replies begin with.
    #[must_use]
    pub fn inbox(&self) -> &str {
        &self.shared.prefix
    }

    /// Requests that wait for their reply.
    #[must_use]
    pub fn waiting(&self) -> usize {
        lock(&self.shared.table).waiting()
    }

    /// Publishes a request and waits for its first reply. `timeout` covers both, and the wait for a turn; while the
    /// connection is down it is waited out, because a broker that restarts is back within it more often than not. Dropping
    /// the future gives the request up.
    pub async fn send(
        &self,
        subject: impl Into<Subject>,
        headers: Option<HeaderMap>,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<Message, RequestError> {
        let Shared { client, prefix, table, dispatcher: _ } = &*self.shared;
        let subject = subject.into();
        let (sender, reply) = oneshot::channel();
        let token = lock(table).insert(sender).ok_or(RequestError::Disconnected)?;
        // From here on the slot is freed however this ends: a reply, an error, a time-out, or the future dropped half-way.
        let _guard = Slotted { table, token };
        let reply_to = Subject::from(token.after(prefix));
        let answered = async {
            let _turn = match &self.turns {
                Some(turns) => turns.next().await,
                None => None,
            };
            match headers {
                Some(headers) => client.publish_with_reply_and_headers(subject, reply_to, headers, payload).await,
                None => client.publish_with_reply(subject, reply_to, payload).await,
            }
            .map_err(|error| match error.kind() {
                PublishErrorKind::Send => RequestError::Disconnected,
                kind @ (PublishErrorKind::MaxPayloadExceeded | PublishErrorKind::InvalidSubject) => {
                    RequestError::Unsendable(kind)
                }
            })?;
            reply.await.map_err(|_| RequestError::Disconnected)
        };
        let message = tokio::time::timeout(timeout, answered).await.map_err(|_| RequestError::TimedOut)??;
        if message.status == Some(StatusCode::NO_RESPONDERS) { Err(RequestError::NoResponders) } else { Ok(message) }
    }
}

/// Hands out replies until the client is closed; aborted when the last handle goes.
async fn dispatch(client: Client, subject: Subject, prefix: usize, mut replies: Subscriber, table: Arc<Mutex<Table>>) {
    let mut batch = Vec::new();
    loop {
        let mut most = portion(0);
        while next_batch(&mut replies, &mut batch, most).await {
            let is_full = batch.len() == most;
            most = hand_out(&mut batch, prefix, &mut lock(&table));
            if is_full {
                yield_now().await;
            }
        }
        // Replies to what is on its way now can be lost: whoever waits is told at once, rather than left to its time-out.
        lock(&table).close();
        tokio::time::sleep(RESTART).await;
        match client.subscribe(subject.clone()).await {
            Ok(again) => replies = again,
            Err(_) => return,
        }
        lock(&table).open = true;
    }
}

/// Gives each reply to the one that waits for it; says how many to hand out next.
fn hand_out(batch: &mut Vec<Message>, prefix: usize, table: &mut Table) -> usize {
    let next = portion(table.waiting());
    for message in batch.drain(..) {
        // What is not a token of ours, or no longer waited for, falls through: a late reply reaches nobody.
        let token = message.subject.get(prefix..).and_then(Token::read);
        if let Some(waiting) = token.and_then(|token| table.take(token)) {
            let _ = waiting.send(message);
        }
    }
    next
}

/// Waits for one message and takes along what else is there, up to `most`; false when there will be no more.
async fn next_batch(replies: &mut Subscriber, batch: &mut Vec<Message>, most: usize) -> bool {
    poll_fn(|context| {
        while batch.len() < most {
            match replies.poll_next_unpin(context) {
                Poll::Ready(Some(message)) => batch.push(message),
                Poll::Ready(None) => return Poll::Ready(!batch.is_empty()),
                Poll::Pending if batch.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(true)
    })
    .await
}

/// A slot and how often it had been used before: the next request in the same slot has another token, so that a reply
/// that comes after its request timed out is never taken for the next one's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Token(u64);

impl Token {
    fn new(generation: u32, index: u32) -> Self {
        Self(u64::from(generation) << 32 | u64::from(index))
    }

    /// Behind a prefix, as [`Self::read`] reads it; without a formatter, as every request has one.
    fn after(self, prefix: &str) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut name = String::with_capacity(prefix.len() + 16);
        name.push_str(prefix);
        let digits = (u64::BITS - self.0.leading_zeros()).div_ceil(4).max(1);
        for digit in (0..digits).rev() {
            name.push(char::from(DIGITS[(self.0 >> (4 * digit) & 0xf) as usize]));
        }
        name
    }

    fn read(text: &str) -> Option<Self> {
        u64::from_str_radix(text, 16).ok().map(Self)
    }

    #[allow(clippy::cast_possible_truncation)] // The halves are what is wanted.
    fn parts(self) -> (u32, u32) {
        ((self.0 >> 32) as u32, self.0 as u32)
    }
}

/// Who waits for which token.
#[derive(Debug, Default)]
struct Table {
    open: bool,
    slots: Vec<Slot>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    /// Taken by the reply; the slot itself is freed by the request's guard alone.
    sender: Option<oneshot::Sender<Message>>,
}

impl Table {
    fn waiting(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// `None` while replies cannot reach us.
    fn insert(&mut self, sender: oneshot::Sender<Message>) -> Option<Token> {
        if !self.open {
            return None;
        }
        if let Some(index) = self.free.pop() {
            let slot = &mut self.slots[index as usize];
            slot.sender = Some(sender);
            return Some(Token::new(slot.generation, index));
        }
        let index = u32::try_from(self.slots.len()).ok()?;
        self.slots.push(Slot { generation: 0, sender: Some(sender) });
        Some(Token::new(0, index))
    }

    fn take(&mut self, token: Token) -> Option<oneshot::Sender<Message>> {
        let (generation, index) = token.parts();
        self.slots.get_mut(index as usize).filter(|slot| slot.generation == generation)?.sender.take()
    }

    fn free(&mut self, token: Token) {
        let (_, index) = token.parts();
        let slot = &mut self.slots[index as usize];
        slot.sender = None;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index);
    }

    fn close(&mut self) {
        self.open = false;
        for slot in &mut self.slots {
            slot.sender = None;
        }
    }
}

struct Slotted<'a> {
    table: &'a Mutex<Table>,
    token: Token,
}

impl Drop for Slotted<'_> {
    fn drop(&mut self) {
        lock(self.table).free(self.token);
    }
}

/// Nothing panics under this lock, and a table is whole between any two statements: poison says nothing.
fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_used_again_has_another_token_and_the_old_one_reaches_nobody() {
        let mut table = Table { open: true, ..Table::default() };
        let first = table.insert(oneshot::channel().0).unwrap();
        table.free(first);
        let second = table.insert(oneshot::channel().0).unwrap();
        assert_eq!(first.parts().1, second.parts().1, "the slot is used again");
        assert!(table.take(first).is_none());
        assert!(table.take(second).is_some());
        assert!(table.take(second).is_none(), "a second reply to one request reaches nobody either");
        assert_eq!(table.waiting(), 1, "only the guard frees a slot, so that it is never freed twice");
        table.free(second);
        assert_eq!(table.waiting(), 0);
    }

    #[test]
    fn a_token_is_read_as_it_is_written() {
        for number in [0, 1, 0xf, 0x10, 0xabc, 1 << 32, u64::MAX] {
            let token = Token(number);
            assert_eq!(token.after("_INBOX.x."), format!("_INBOX.x.{number:x}"));
            assert_eq!(Token::read(&token.after("")), Some(token));
        }
    }

    #[test]
    fn tokens_that_are_not_ours_are_passed_over() {
        let mut table = Table { open: true, ..Table::default() };
        for text in ["", "x", "-1", "ffffffffffffffff", "10000000000000000"] {
            assert!(Token::read(text).and_then(|token| table.take(token)).is_none(), "{text:?}");
        }
    }

    #[test]
    fn a_closed_table_takes_no_request_and_drops_who_waits() {
        let mut table = Table { open: true, ..Table::default() };
        let (sender, mut reply) = oneshot::channel();
        let token = table.insert(sender).unwrap();
        table.close();
        assert_eq!(reply.try_recv().unwrap_err(), oneshot::error::TryRecvError::Closed);
        assert!(table.insert(oneshot::channel().0).is_none());
        table.free(token);
        assert_eq!(table.waiting(), 0);
    }
}
