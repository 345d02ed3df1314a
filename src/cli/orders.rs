//! Commands from the publisher's side: how one is sent, and how its one outcome is waited for.

use std::time::Duration;

use async_nats::{HeaderValue, Message};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{BoxStream, SelectAll, select_all};
use tokio::time::{MissedTickBehavior, interval};

use crate::bus::commands::{self, PutError};
use crate::bus::connection::{self, Connection};
use crate::bus::requests::{RequestError, Requests};
use crate::bus::streams;
use crate::bus::subjects::Subjects;
use crate::config::Config;
use crate::domain::{
    CommandId, Pool, PoolRecord, PoolState, Prefix, RegistrationStatus, State, Verb, Worker, WorkerId, WorkerKey,
};
use crate::text::cut;
use crate::wire::command::{PoolCommand, ProvisionCommand, SweepCommand, TerminateCommand};
use crate::wire::dead_letter::DeadLetter;
use crate::wire::event;
use crate::wire::publish::{ApiError, PubAck};

/// How long one who may not be there is waited for.
const ASKED: Duration = Duration::from_secs(1);
/// How often the record is looked at beside the feed: an outcome that was there before the command brings no event.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A command as it is sent.
pub(super) struct Order {
    pub(super) verb: Verb,
    pub(super) pool: Pool,
    pub(super) command_id: CommandId,
    /// The worker, where it is known before the outcome is.
    pub(super) worker_id: Option<WorkerId>,
    body: Vec<u8>,
}

impl Order {
    pub(super) fn provision(pool: Pool, command: &ProvisionCommand) -> Self {
        let ProvisionCommand { command_id, worker_id, .. } = command;
        let (command_id, worker_id, body) = (command_id.clone(), worker_id.clone(), command.encode());
        Self { verb: Verb::Provision, pool, command_id, worker_id, body }
    }

    pub(super) fn terminate(pool: Pool, command: &TerminateCommand) -> Self {
        let TerminateCommand { command_id, worker_id, .. } = command;
        let (command_id, worker_id, body) = (command_id.clone(), Some(worker_id.clone()), command.encode());
        Self { verb: Verb::Terminate, pool, command_id, worker_id, body }
    }

    pub(super) fn pool(pool: Pool, command: &PoolCommand) -> Self {
        Self { verb: Verb::Pool, pool, command_id: command.command_id.clone(), worker_id: None, body: command.encode() }
    }

    pub(super) fn sweep(pool: Pool, command: &SweepCommand) -> Self {
        Self {
            verb: Verb::Sweep,
            pool,
            command_id: command.command_id.clone(),
            worker_id: None,
            body: command.encode(),
        }
    }

    /// Whether this record is how the command has ended.
    pub(super) fn ended_as(&self, worker: &Worker) -> bool {
        if worker.pool != self.pool {
            return false;
        }
        match self.verb {
            Verb::Provision => worker.command_id == self.command_id && has_outcome(worker),
            Verb::Terminate => self.worker_id.as_ref() == Some(&worker.worker_id) && worker.state.is_final(),
            Verb::Pool | Verb::Sweep => false,
        }
    }
}

fn has_outcome(worker: &Worker) -> bool {
    match worker.state {
        State::Provisioning | State::Terminating => false,
        State::Provisioned => worker.registration.status == RegistrationStatus::Disabled,
        State::Registered | State::RegistrationFailed | State::Terminated | State::Failed | State::Lost => true,
    }
}

/// Why the broker has not taken a command.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotTaken {
    #[error(
        "no pool {pool} is served under prefix {prefix} at {url}: a replica makes a pool's queue when it starts \
         (enlist run), from its own settings"
    )]
    NoPool { pool: Pool, prefix: Prefix, url: String },
    #[error(
        "the broker has not said that it took the command, and has complained: {0}; is this the identity, and the inbox \
         prefix, of one who may?"
    )]
    NotPermitted(String),
    #[error("the broker has not taken the command: {0}")]
    Refused(#[from] ApiError),
    #[error("the broker has not said that it took the command: {0}; send it again with the same --command-id")]
    Unanswered(#[from] RequestError),
}

/// What is heard about workers and commands.
pub(super) enum Told {
    /// A worker's newest record.
    Event(Box<Worker>),
    /// A pool's own newest record.
    Pool(Box<PoolRecord>),
    /// A command that will not be carried out.
    Dead { command_id: Option<CommandId>, pool: String, letter: Box<DeadLetter> },
}

impl Told {
    /// Whether it is about the order or its worker.
    pub(super) fn concerns(&self, order: &Order) -> bool {
        match self {
            // A size is a matter of the whole pool.
            Self::Event(worker) if order.verb == Verb::Pool => worker.pool == order.pool,
            Self::Dead { pool, .. } if order.verb == Verb::Pool => pool == order.pool.as_str(),
            Self::Pool(record) => order.verb == Verb::Pool && record.pool == order.pool,
            Self::Event(worker) => {
                worker.command_id == order.command_id || order.worker_id.as_ref() == Some(&worker.worker_id)
            }
            Self::Dead { .. } => self.ends(order),
        }
    }

    /// Whether this is how the order has ended.
    pub(super) fn ends(&self, order: &Order) -> bool {
        match self {
            Self::Event(worker) => order.ended_as(worker),
            Self::Pool(record) => {
                record.pool == order.pool && record.command_id == order.command_id && record.state == PoolState::Sized
            }
            Self::Dead { command_id, pool, .. } => {
                command_id.as_ref() == Some(&order.command_id) && pool == order.pool.as_str()
            }
        }
    }
}

/// Subscriptions to events and dead letters, as one.
pub(super) struct News(SelectAll<BoxStream<'static, Message>>);

impl News {
    /// The next that can be read; `None` when the connection is closed for good.
    pub(super) async fn next(&mut self) -> Option<Told> {
        loop {
            let message = self.0.next().await?;
            if let Some(told) = read(message) {
                return Some(told);
            }
        }
    }
}

/// What another version wrote is passed over.
fn read(message: Message) -> Option<Told> {
    let Message { subject, payload, headers, .. } = message;
    let mut tokens = subject.split('.').skip(1);
    if tokens.next() == Some("events") {
        return match Subjects::read_owner(&subject)? {
            (_, Some(_)) => event::decode(&payload).ok().map(|worker| Told::Event(Box::new(worker))),
            (_, None) => event::decode_pool(&payload).ok().map(|record| Told::Pool(Box::new(record))),
        };
    }
    let pool = tokens.next()?.to_owned();
    let command_id = tokens.nth(1).and_then(|token| CommandId::new(token).ok()).filter(|id| id.as_str() != "_");
    let headers = headers.unwrap_or_default();
    let letter = DeadLetter::decode(|name| headers.get(name).map(HeaderValue::as_str), payload).ok()?;
    Some(Told::Dead { command_id, pool, letter: Box::new(letter) })
}

/// A publisher of commands.
pub(super) struct Orders {
    pub(super) connection: Connection,
    pub(super) requests: Requests,
    pub(super) subjects: Subjects,
    pub(super) api_prefix: String,
    url: String,
}

impl Orders {
    pub(super) async fn connect(config: &Config, name: &str) -> anyhow::Result<Self> {
        let connection = connection::connect(&config.nats, name).await?;
        let requests = Requests::start(connection.client.clone()).await?;
        let subjects = Subjects::new(&config.prefix);
        let api_prefix = streams::api_prefix(config.nats.domain.as_deref());
        Ok(Self { connection, requests, subjects, api_prefix, url: config.nats.shown_url() })
    }

    /// Everything that the fleet tells from now on.
    pub(super) async fn all_news(&self) -> anyhow::Result<News> {
        self.news([self.subjects.events_all(), self.subjects.dead_all()]).await
    }

    /// What can become of one order.
    pub(super) async fn news_of(&self, order: &Order) -> anyhow::Result<News> {
        let dead = match order.verb {
            // What becomes of the commands that a size asks for is of interest too.
            Verb::Pool => self.subjects.dead_of_pool(&order.pool),
            verb => self.subjects.dead(&order.pool, verb, Some(&order.command_id)),
        };
        self.news([self.subjects.events_of_pool(&order.pool), dead]).await
    }

    async fn news(&self, subjects: [String; 2]) -> anyhow::Result<News> {
        let mut feeds = Vec::new();
        for subject in subjects {
            feeds.push(self.connection.client.subscribe(subject).await?.boxed());
        }
        // What is published from now on comes after the subscriptions, on this very connection.
        Ok(News(select_all(feeds)))
    }

    /// Sends an order; returns when the broker has stored it.
    pub(super) async fn send(&self, order: &Order) -> Result<PubAck, NotTaken> {
        let subject = self.subjects.command(&order.pool, order.verb);
        let put = commands::put(&self.requests, subject, order.command_id.as_str(), order.body.clone().into()).await;
        match put {
            Ok(stored) => Ok(stored),
            Err(PutError::Request(RequestError::NoResponders)) => Err(NotTaken::NoPool {
                pool: order.pool.clone(),
                prefix: self.subjects.prefix().clone(),
                url: self.url.clone(),
            }),
            // A server that says no says it to the connection, and the command itself is never answered.
            Err(PutError::Request(error)) => match self.connection.complaint() {
                Some(complaint) => Err(NotTaken::NotPermitted(cut(&complaint, 300))),
                None => Err(error.into()),
            },
            Err(PutError::Refused(error)) => Err(error.into()),
        }
    }

    /// Waits for what becomes of an order that was sent after `news` was subscribed to, handing on all that it
    /// hears. `None` when the connection is closed.
    pub(super) async fn outcome(&self, order: &Order, news: &mut News, mut heard: impl FnMut(&Told)) -> Option<Told> {
        let derived = || WorkerId::derived(&order.pool, &order.command_id);
        let key = WorkerKey::new(order.pool.clone(), order.worker_id.clone().unwrap_or_else(derived));
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        looks.tick().await;
        loop {
            let told = tokio::select! {
                told = news.next() => told?,
                record = async { looks.tick().await; self.record(&key).await } => match record {
                    Some(worker) if order.ended_as(&worker) => Told::Event(Box::new(worker)),
                    Some(_) | None => continue,
                },
            };
            heard(&told);
            if told.ends(order) {
                return Some(told);
            }
        }
    }

    /// Whether somebody answers requests on a subject, whatever the answer.
    pub(super) async fn is_answered(&self, subject: &str) -> bool {
        let asked = self.requests.send(subject.to_owned(), None, Bytes::from_static(b"{}"), ASKED);
        asked.await.is_ok()
    }

    /// The worker as the view has it; `None` too where it cannot be asked just now. Of the view a publisher may be
    /// permitted to read its own pool's part, and of the log only all.
    async fn record(&self, key: &WorkerKey) -> Option<Worker> {
        let Self { requests, subjects, api_prefix, .. } = self;
        let subject = format!("{api_prefix}.DIRECT.GET.{}.{}", subjects.view_stream(), subjects.view_of(key));
        let reply = requests.send(subject, None, Bytes::new(), ASKED).await.ok()?;
        event::decode(&reply.payload).ok()
    }
}
