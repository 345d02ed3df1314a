//! Commands from the publisher's side: how one is sent, and how its one outcome is waited for.

mod order;

use std::time::{Duration, Instant};

use async_nats::{HeaderValue, Message, SubscribeError};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{BoxStream, SelectAll, select_all};
use tokio::time::sleep;

use super::commands::{self, PutError};
use super::connection::Connection;
use super::foreign;
use super::requests::{RequestError, Requests};
use super::stored::{self, ReadStoredError, Stored};
use super::streams;
use super::subjects::Subjects;
use crate::domain::{CommandId, Pool, Prefix, Verb, Worker, WorkerKey};
use crate::text::cut;
use crate::wire::dead_letter::DeadLetter;
use crate::wire::event;
use crate::wire::publish::{ApiError, PubAck};

pub use order::{Order, Told};

/// How long one who may not be there is waited for.
const ASKED: Duration = Duration::from_secs(1);
/// How soon the record is looked at beside the feed: an outcome that was there before the command brings no event.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Looks that found nothing are less and less often repeated.
const LOOK_AT_LEAST_EVERY: Duration = Duration::from_secs(16);

/// Why the broker has not taken a command.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// There is no such queue.
    #[error(
        "no pool {pool} is served under prefix {prefix} at {url}: a replica makes a pool's queue when it starts \
         (enlist run), from its own settings"
    )]
    NoPool {
        /// The pool.
        pool: Pool,
        /// The fleet.
        prefix: Prefix,
        /// The broker, without credentials.
        url: String,
    },
    /// This identity may not.
    #[error(
        "the broker has not said that it took the command, and has complained: {0}; is this the identity, and the inbox \
         prefix, of one who may?"
    )]
    NotPermitted(String),
    /// The server says no.
    #[error("the broker has not taken the command: {0}")]
    Refused(#[from] ApiError),
    /// It may have been taken all the same.
    #[error("the broker has not said that it took the command: {0}; send it again with the same --command-id")]
    Unanswered(#[from] RequestError),
}

/// Subscriptions to events and dead letters, as one.
pub struct News(SelectAll<BoxStream<'static, Message>>);

impl News {
    /// The next that can be read; `None` when the connection is closed for good.
    pub async fn next(&mut self) -> Option<Told> {
        loop {
            let message = self.0.next().await?;
            if let Some(told) = read(message) {
                return Some(told);
            }
        }
    }
}

/// What another version wrote is passed over, and what is no event.
fn read(message: Message) -> Option<Told> {
    let Message { subject, payload, headers, .. } = message;
    let headers = headers.unwrap_or_default();
    if subject.split('.').nth(1) == Some("events") {
        if foreign::in_copy(&headers) {
            return None;
        }
        return match Subjects::read_owner(&subject)? {
            (_, Some(_)) => event::decode(&payload).ok().map(|worker| Told::Event(Box::new(worker))),
            (_, None) => event::decode_pool(&payload).ok().map(|record| Told::Pool(Box::new(record))),
        };
    }
    read_dead(&subject, |name| headers.get(name).map(HeaderValue::as_str), payload)
}

/// `None` for what another version wrote, and for what is no event.
fn read_worker(stored: &Stored) -> Option<Worker> {
    if stored.is_foreign() { None } else { event::decode(&stored.body).ok() }
}

fn read_dead<'h>(subject: &str, header: impl Fn(&'static str) -> Option<&'h str>, body: Bytes) -> Option<Told> {
    let mut tokens = subject.split('.').skip(2);
    let pool = tokens.next()?.to_owned();
    let command_id = tokens.nth(1).and_then(|token| CommandId::new(token).ok()).filter(|id| id.as_str() != "_");
    let letter = DeadLetter::decode(header, body).ok()?;
    Some(Told::Dead { command_id, pool, letter: Box::new(letter) })
}

/// What has become of a command that the broker had before.
#[derive(Debug)]
pub enum Before {
    /// It is in its queue.
    Waits,
    /// It has ended.
    Ended(Told),
    /// It was another one, under the same id.
    Another,
}

/// A publisher of commands.
#[derive(Clone)]
pub struct Orders {
    /// Its connection.
    pub connection: Connection,
    /// Its requests.
    pub requests: Requests,
    /// Names.
    pub subjects: Subjects,
    /// `$JS.API`, or that of a domain.
    pub api_prefix: String,
    /// Where the connection leads, without credentials.
    pub url: String,
    /// Whether the view is asked and not the log.
    by_view: bool,
}

impl Orders {
    /// A publisher on this connection; `url` is where it leads, without credentials.
    #[must_use]
    pub fn new(
        connection: Connection,
        requests: Requests,
        subjects: Subjects,
        domain: Option<&str>,
        url: String,
    ) -> Self {
        let api_prefix = streams::api_prefix(domain);
        Self { connection, requests, subjects, api_prefix, url, by_view: false }
    }

    /// The same for one who need not be permitted to read the log: what has become of an order is looked up in the view.
    #[must_use]
    pub fn by_view(self) -> Self {
        Self { by_view: true, ..self }
    }

    /// Everything that the fleet tells from now on.
    pub async fn all_news(&self) -> Result<News, SubscribeError> {
        self.news([self.subjects.events_all(), self.subjects.dead_all()]).await
    }

    /// What can become of one order.
    pub async fn news_of(&self, order: &Order) -> Result<News, SubscribeError> {
        let Order { verb, pool, command_id, worker_id, .. } = order;
        let dead = match verb {
            // What becomes of the commands that a size asks for is of interest too.
            Verb::Pool => self.subjects.dead_of_pool(pool),
            verb => self.subjects.dead(pool, *verb, Some(command_id)),
        };
        let events = match worker_id {
            Some(worker_id) => self.subjects.events_of(&WorkerKey::new(pool.clone(), worker_id.clone())),
            None => self.subjects.events_of_pool(pool),
        };
        self.news([events, dead]).await
    }

    /// What can become of any command of a pool.
    pub async fn news_of_pool(&self, pool: &Pool) -> Result<News, SubscribeError> {
        self.news([self.subjects.events_of_pool(pool), self.subjects.dead_of_pool(pool)]).await
    }

    async fn news(&self, subjects: [String; 2]) -> Result<News, SubscribeError> {
        let mut feeds = Vec::new();
        for subject in subjects {
            feeds.push(self.connection.client.subscribe(subject).await?.boxed());
        }
        // What is published from now on comes after the subscriptions, on this very connection.
        Ok(News(select_all(feeds)))
    }

    /// Sends an order; returns when the broker has stored it.
    pub async fn send(&self, order: &Order) -> Result<PubAck, NotTaken> {
        let subject = self.subjects.command(&order.pool, order.verb);
        let begun = Instant::now();
        let (id, trace) = (order.command_id.as_str(), order.trace.as_ref());
        let put = commands::put(&self.requests, subject.clone(), id, order.body.clone(), trace);
        // A server that says no says it to the connection, and the command itself is never answered.
        let put = self.connection.unless_refused(begun, &[&subject], put).await;
        match put.map_err(|complaint| NotTaken::NotPermitted(cut(&complaint, 300)))? {
            Ok(stored) => Ok(stored),
            Err(PutError::Request(RequestError::NoResponders)) => Err(NotTaken::NoPool {
                pool: order.pool.clone(),
                prefix: self.subjects.prefix().clone(),
                url: self.url.clone(),
            }),
            Err(PutError::Request(error)) => match self.unheard() {
                Some(complaint) => Err(NotTaken::NotPermitted(cut(&complaint, 300))),
                None => Err(error.into()),
            },
            Err(PutError::Refused(error)) => Err(error.into()),
        }
    }

    /// What the server has said, whenever that was, against our hearing any answer.
    fn unheard(&self) -> Option<String> {
        self.connection.complaint().filter(|complaint| complaint.contains(self.requests.inbox()))
    }

    /// Waits for what becomes of an order that was sent after `news` was subscribed to, handing on all that it
    /// hears. `None` when the connection is closed.
    pub async fn outcome(&self, order: &Order, news: &mut News, mut heard: impl FnMut(&Told)) -> Option<Told> {
        let mut pause = LOOK_EVERY;
        let look = sleep(pause);
        tokio::pin!(look);
        loop {
            let told = tokio::select! {
                told = news.next() => told?,
                () = &mut look => {
                    // Not yet, or neither can be asked just now.
                    let Some(told) = self.looked_up(order).await else {
                        pause = (pause * 2).min(LOOK_AT_LEAST_EVERY);
                        look.set(sleep(pause));
                        continue;
                    };
                    told
                }
            };
            heard(&told);
            if told.ends(order) {
                return Some(told);
            }
        }
    }

    /// What has become of an order whose id the broker had before, at `sequence` of the pool's queue.
    pub async fn before(&self, order: &Order, sequence: u64) -> Result<Before, ReadStoredError> {
        let Self { requests, subjects, api_prefix, .. } = self;
        let queue = subjects.command_stream(&order.pool);
        if let Some(waiting) = stored::at(requests, api_prefix, &queue, sequence).await? {
            return Ok(if order.is(&waiting.body) { Before::Waits } else { Before::Another });
        }
        // Acked, and so its outcome is stored.
        if let Some(told) = self.ended(order).await? {
            return Ok(Before::Ended(told));
        }
        // Its worker's name, or its host, may be another command's since.
        for key in order.candidates() {
            if let Some(worker) = self.first_end(order, &key).await? {
                return Ok(Before::Ended(Told::Event(Box::new(worker))));
            }
        }
        Ok(Before::Another)
    }

    /// How an order has ended, as far as is known where one looks beside the feed.
    pub async fn looked_up(&self, order: &Order) -> Option<Told> {
        if self.by_view { self.seen(order).await } else { self.ended(order).await.ok().flatten() }
    }

    /// How an order has ended, by the log and the dead letters.
    pub async fn ended(&self, order: &Order) -> Result<Option<Told>, ReadStoredError> {
        let Self { requests, subjects, api_prefix, .. } = self;
        for key in order.candidates() {
            // Where the newest cannot be read the events below it may tell.
            if self.record(&key).await?.is_some_and(|newest| !order.is_behind(&newest)) {
                continue;
            }
            if let Some(worker) = self.first_end(order, &key).await? {
                return Ok(Some(Told::Event(Box::new(worker))));
            }
        }
        let subject = subjects.dead(&order.pool, order.verb, Some(&order.command_id));
        let letter = stored::last(requests, api_prefix, &subjects.dead_stream(), &subject).await?;
        let told = letter.and_then(|letter| {
            let body = letter.body.clone();
            read_dead(&subject, |name| letter.header(name), body)
        });
        Ok(told.filter(|told| told.ends(order)))
    }

    /// The event by which an order has ended: what came after it is no concern of the command's. A terminate that found its
    /// worker ended has the end that it found.
    async fn first_end(&self, order: &Order, key: &WorkerKey) -> Result<Option<Worker>, ReadStoredError> {
        let Self { requests, subjects, api_prefix, .. } = self;
        let (stream, filter) = (subjects.event_stream(), subjects.events_of(key));
        let (mut from, mut last) = (1, None);
        while let Some(stored) = stored::next(requests, api_prefix, &stream, &filter, from).await? {
            from = stored.sequence + 1;
            let Some(worker) = read_worker(&stored) else { continue };
            let ends = order.ended_as(&worker);
            let by_it = worker.ended_by.as_ref().and_then(|by| by.command_id.as_ref()) == Some(&order.command_id);
            if ends && (order.verb == Verb::Provision || by_it) {
                return Ok(Some(worker));
            }
            last = ends.then_some(worker);
        }
        Ok(last)
    }

    /// Whether somebody answers requests on a subject, whatever the answer.
    pub async fn is_answered(&self, subject: &str) -> bool {
        let asked = self.requests.send(subject.to_owned(), None, Bytes::from_static(b"{}"), ASKED);
        asked.await.is_ok()
    }

    /// The worker as the log has it; `None` too where this version cannot read it.
    async fn record(&self, key: &WorkerKey) -> Result<Option<Worker>, ReadStoredError> {
        let filter = self.subjects.events_of(key);
        let last = stored::last(&self.requests, &self.api_prefix, &self.subjects.event_stream(), &filter).await?;
        Ok(last.as_ref().and_then(read_worker))
    }

    /// How an order has ended as far as the view and the dead letters show, of which a publisher may be permitted to read
    /// its own pool's part, and of the log nothing.
    async fn seen(&self, order: &Order) -> Option<Told> {
        let Self { subjects, .. } = self;
        for key in order.candidates() {
            let Some(reply) = self.newest(&subjects.view_stream(), &subjects.view_of(&key)).await else { break };
            let shown = reply.headers.filter(|headers| !foreign::in_copy(headers));
            match shown.map(|_| event::decode(&reply.payload)) {
                Some(Ok(worker)) if order.ended_as(&worker) => return Some(Told::Event(Box::new(worker))),
                Some(Ok(_) | Err(_)) | None => {}
            }
        }
        // A command that was refused before is not refused twice: no letter comes of it any more.
        let subject = subjects.dead(&order.pool, order.verb, Some(&order.command_id));
        let Message { payload, headers, .. } = self.newest(&subjects.dead_stream(), &subject).await?;
        let headers = headers.unwrap_or_default();
        let told = read_dead(&subject, |name| headers.get(name).map(HeaderValue::as_str), payload);
        told.filter(|told| told.ends(order))
    }

    /// The newest message on a subject, asked for in the one form that permissions can tell subjects apart by. Where there
    /// is none, the answer has neither body nor headers of ours.
    async fn newest(&self, stream: &str, subject: &str) -> Option<Message> {
        let asked = format!("{}.DIRECT.GET.{stream}.{subject}", self.api_prefix);
        self.requests.send(asked, None, Bytes::new(), ASKED).await.ok()
    }
}
