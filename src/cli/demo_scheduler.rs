//! A scheduler to try things out with: answers on NATS out of memory, and forgets everything when it ends.

use std::pin::pin;
use std::time::Duration;

use anyhow::{Context as _, bail};
use async_nats::{Client, Message, Subscriber};
use futures_util::StreamExt;
use futures_util::stream::{SelectAll, select_all};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::Exit;
use crate::bus::connection;
use crate::config::{Config, SchedulerConfig};
use crate::domain::{Pool, WorkerId, WorkerKey};
use crate::registration::{MemoryScheduler, RegisterWorker, UnregisterWorker};
use crate::wire::scheduler::{
    ListReply, ListRequest, Listed, RegisterReply, RegisterRequest, UnregisterReply, UnregisterRequest,
};

/// Workers on one page of the list.
pub const PAGE: usize = 500;
/// Keeps a second demo from answering the same request. Each has a list of its own all the same: run one.
const QUEUE: &str = "enlist-demo-scheduler";
/// How long the last replies may take to leave when it is told to stop.
const FLUSH: Duration = Duration::from_secs(2);

/// How the demo scheduler behaves.
#[derive(Debug, Clone, Default)]
pub struct DemoOptions {
    /// Where it keeps its workers, and how long those drain.
    pub scheduler: MemoryScheduler,
    /// Refuses every register with this code.
    pub reject: Option<String>,
}

/// Runs the verb: answers until SIGTERM or SIGINT.
pub(super) async fn run(config: Config) -> Exit {
    let connection = match connection::connect(&config.nats, "enlist demo-scheduler").await {
        Ok(connection) => connection,
        Err(error) => {
            eprintln!("enlist: {error}");
            return Exit::Unavailable;
        }
    };
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    tokio::spawn(async move {
        super::told_to_stop().await;
        stop.cancel();
    });
    match serve(connection.client, &config.scheduler, DemoOptions::default(), shutdown).await {
        Ok(()) => Exit::Done,
        Err(error) => {
            eprintln!("enlist: {error:#}");
            Exit::Unavailable
        }
    }
}

/// Listens and answers until `shutdown`.
pub async fn serve(
    client: Client,
    subjects: &SchedulerConfig,
    options: DemoOptions,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let Some(demo) = shutdown.run_until_cancelled(DemoScheduler::listen(client, subjects, options)).await else {
        return Ok(());
    };
    demo?.run(shutdown).await
}

/// A demo scheduler that the broker already sends requests to.
pub struct DemoScheduler {
    client: Client,
    options: DemoOptions,
    requests: SelectAll<futures_util::stream::BoxStream<'static, (Verb, Message)>>,
}

#[derive(Debug, Clone, Copy)]
enum Verb {
    Register,
    Unregister,
    List,
}

impl DemoScheduler {
    /// Subscribes, and returns once the broker knows it.
    pub async fn listen(client: Client, subjects: &SchedulerConfig, options: DemoOptions) -> anyhow::Result<Self> {
        let SchedulerConfig { register, unregister, list, try_timeout: _, unregister_timeout: _ } = subjects;
        let mut requests = Vec::new();
        for (verb, subject) in [(Verb::Register, register), (Verb::Unregister, unregister), (Verb::List, list)] {
            let subscriber: Subscriber = client
                .queue_subscribe(subject.clone(), QUEUE.to_owned())
                .await
                .with_context(|| format!("cannot listen on {subject:?}"))?;
            requests.push(subscriber.map(move |message| (verb, message)).boxed());
        }
        // A flush only empties the client's buffer. What comes back to us has passed the broker after the subscriptions.
        let inbox = client.new_inbox();
        let mut round = client.subscribe(inbox.clone()).await?;
        client.publish(inbox, bytes::Bytes::new()).await?;
        round.next().await.context("the connection was closed")?;
        tracing::info!(register, unregister, list, "the demo scheduler listens");
        Ok(Self { client, options, requests: select_all(requests) })
    }

    /// Answers until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let mut stop = pin!(shutdown.cancelled());
        loop {
            let (verb, message) = tokio::select! {
                biased;
                () = &mut stop => break,
                next = self.requests.next() => match next {
                    Some(next) => next,
                    None => bail!("the connection was closed"),
                },
            };
            let Some(inbox) = message.reply else { continue };
            let Some(body) = self.options.answer(verb, &message.payload, Timestamp::now()) else { continue };
            // While the connection is down the client's queue fills up and this waits: it must still be possible to stop.
            tokio::select! {
                biased;
                () = &mut stop => break,
                sent = self.client.publish(inbox, body.into()) => match sent {
                    Ok(()) => {}
                    Err(error) if error.kind() == async_nats::client::PublishErrorKind::Send => return Err(error.into()),
                    Err(error) => tracing::warn!(%error, "a reply was not sent"),
                },
            }
        }
        let _ = tokio::time::timeout(FLUSH, self.client.flush()).await;
        Ok(())
    }
}

impl DemoOptions {
    /// The body of the reply; `None` where nobody waits for one.
    fn answer(&self, verb: Verb, body: &[u8], now: Timestamp) -> Option<Vec<u8>> {
        match verb {
            Verb::Register => match RegisterRequest::decode(body) {
                Ok(request) => self.register(request, now).map(|reply| reply.encode()),
                Err(error) => Some(invalid(error.to_string())),
            },
            Verb::Unregister => Some(match UnregisterRequest::decode(body) {
                Ok(request) => self.unregister(request).encode(),
                Err(error) => invalid(error.to_string()),
            }),
            Verb::List => Some(match ListRequest::decode(body) {
                Ok(request) => self.list(&request).unwrap_or_else(invalid),
                Err(error) => invalid(error.to_string()),
            }),
        }
    }

    fn register(&self, request: RegisterRequest, now: Timestamp) -> Option<RegisterReply> {
        let request = RegisterWorker::from(request);
        let RegisterWorker { pool, worker_id, epoch, expires_at, .. } = &request;
        if *expires_at < now {
            // It lay in a queue while the connection was down; its worker may be gone since, and nobody reads the answer.
            // Told aloud, because clocks that disagree look just like this.
            tracing::warn!(%pool, %worker_id, %expires_at, %now, "a register came too late and was passed over");
            return None;
        }
        if let Some(code) = &self.reject {
            let message = "this demo scheduler was told to refuse".to_owned();
            return Some(RegisterReply::Rejected { code: code.clone(), message });
        }
        let reply = self.scheduler.register(&request);
        if reply == RegisterReply::Accepted {
            tracing::info!(%pool, %worker_id, epoch, "a worker joined");
        }
        Some(reply)
    }

    fn unregister(&self, request: UnregisterRequest) -> UnregisterReply {
        let request = UnregisterWorker::from(request);
        let reply = self.scheduler.unregister(&request);
        if reply == UnregisterReply::Accepted {
            let UnregisterWorker { pool, worker_id, epoch, reason, .. } = &request;
            tracing::info!(%pool, %worker_id, epoch, reason = crate::text::cut(reason, 200), "a worker left");
        }
        reply
    }

    fn list(&self, request: &ListRequest) -> Result<Vec<u8>, String> {
        let ListRequest { pool, after } = request;
        let after = match after.as_deref() {
            Some(text) => Some(cursor(text).ok_or("after: is not the next of an earlier page")?),
            None => None,
        };
        let (page, more) = self.scheduler.page(pool.as_ref(), after.as_ref(), PAGE);
        let next = page.last().filter(|_| more).map(|last| format!("{}/{}", last.pool, last.worker_id));
        Ok(ListReply { workers: page.into_iter().map(Listed::from).collect(), next }.encode())
    }
}

/// Where a page ended, as it was told in `next`.
fn cursor(text: &str) -> Option<WorkerKey> {
    let (pool, worker_id) = text.split_once('/')?;
    Some(WorkerKey::new(Pool::new(pool).ok()?, WorkerId::new(worker_id).ok()?))
}

/// The same for every verb: an asker that knows no `rejected` there cannot read it, which is true as well.
fn invalid(message: impl Into<String>) -> Vec<u8> {
    RegisterReply::Rejected { code: "invalid".to_owned(), message: message.into() }.encode()
}
