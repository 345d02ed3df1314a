//! Each replica as a NATS service: `$SRV.PING|INFO|STATS`, and requests that are answered.

mod answer;
mod commands;
mod read;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Message;
use async_nats::service::endpoint::Endpoint;
use async_nats::service::{Service, ServiceExt as _};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bus::orders::Orders;
use crate::bus::permitted::may_listen;
use crate::bus::{stored, trace};
use crate::config::Config;
use crate::domain::{Pool, TraceContext, Verb};
use crate::wire::service::DrainReply;
use answer::{Answer, Failure, Reply, respond};
use commands::Counter;
use read::Reader;

/// The name of the service.
pub const NAME: &str = "enlist";
/// One of the replicas answers.
const QUEUE_GROUP: &str = "enlist";
/// Requests for outcomes that one pool's verb has waiting in one replica. Each is a task and two subscriptions.
const WAITING: usize = 256;
/// Reads at once. Each may hold a page of records.
const READING: usize = 16;

/// With a server that answers it takes some round trips.
const LONGEST_FAREWELL: Duration = Duration::from_secs(2);

/// A replica's side of the service.
pub struct Api {
    service: Service,
    instance_id: String,
    desk: Desk,
}

/// What the endpoints share.
#[derive(Clone)]
struct Desk {
    tasks: TaskTracker,
    /// Take no new requests.
    stop: CancellationToken,
    /// Answer those that still wait, with what is known: nothing.
    abandon: CancellationToken,
}

impl Api {
    /// Makes the replica a service. `None`, and one line in the log, where that is not permitted: commands are taken all the
    /// same. `drain` is cancelled when somebody asks for a drain.
    pub async fn start(orders: Orders, config: &Config, drain: CancellationToken) -> Option<Self> {
        match Self::try_start(orders, config, drain).await {
            Ok(api) => Some(api),
            Err(error) => {
                let prefix = &config.prefix;
                let needed = format!("subscribe to $SRV.> and {prefix}.srv.>");
                tracing::warn!(%error, needed, "no NATS service: requests are not answered, commands are taken");
                None
            }
        }
    }

    async fn try_start(orders: Orders, config: &Config, drain: CancellationToken) -> Result<Self, async_nats::Error> {
        let root = orders.subjects.service();
        let nobody = uuid::Uuid::new_v4().simple().to_string();
        let tried = [format!("$SRV.PING.{NAME}.{nobody}"), format!("{root}.drain.{nobody}")];
        may_listen(&orders.connection, &orders.requests, &orders.subjects, &orders.api_prefix, tried).await?;
        let pools: Vec<&str> = config.pools.keys().map(Pool::as_str).collect();
        let metadata = [("prefix", config.prefix.as_str()), ("pools", &pools.join(","))];
        let metadata: HashMap<_, _> = metadata.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let service = orders
            .connection
            .client
            .service_builder()
            .description("Provisions workers and enlists them with a scheduler")
            .metadata(metadata)
            .queue_group(QUEUE_GROUP)
            .start(NAME, env!("CARGO_PKG_VERSION"))
            .await?;
        let instance_id = service.info().await.id;
        let desk =
            Desk { tasks: TaskTracker::new(), stop: CancellationToken::new(), abandon: CancellationToken::new() };
        let group = service.group(&root);

        let reader = Reader::new(&orders, config.nats.domain.as_deref());
        let (get, list) = (reader.clone(), reader);
        desk.serve(group.endpoint_builder().name("get").add("get").await?, READING, move |body, _| {
            let reader = get.clone();
            async move { reader.get(&body).await }
        });
        desk.serve(group.endpoint_builder().name("list").add("list").await?, READING, move |body, _| {
            let reader = list.clone();
            async move { reader.list(&body).await }
        });
        for (pool, settings) in &config.pools {
            let counter = Counter::new(orders.clone(), config, pool, settings);
            for verb in [Verb::Provision, Verb::Terminate] {
                let name = format!("{}-{pool}", verb.as_str());
                let endpoint = group.endpoint_builder().name(name).add(format!("{}.{pool}", verb.as_str())).await?;
                let counter = counter.clone();
                desk.serve(endpoint, WAITING, move |body, trace| {
                    let counter = counter.clone();
                    async move { counter.answer(verb, body, trace).await }
                });
            }
        }

        let subject = format!("drain.{instance_id}");
        let endpoint = group.endpoint_builder().name("drain").add(subject).await?;
        let reply = DrainReply { instance_id: instance_id.clone(), within_ms: millis(config.limits.drain) };
        desk.serve_drain(endpoint, reply, drain);
        // An answer to what is asked now says that the server has heard of all of them. Without one the client tells it again.
        let _ = stored::last_sequence(&orders.requests, &orders.api_prefix, &orders.subjects.event_stream()).await;
        Ok(Self { service, instance_id, desk })
    }

    /// The id under which this replica is found.
    #[must_use]
    pub fn instance_id(&self) -> &str {
        &self.instance_id
    }

    /// Takes no new requests; another replica gets them. Those that wait are still answered.
    pub fn close(&self) {
        self.desk.stop.cancel();
        self.desk.tasks.close();
    }

    /// Tells those that still wait to ask another replica, and goes.
    pub async fn end(self) {
        self.close();
        self.desk.abandon.cancel();
        let farewell = async {
            self.desk.tasks.wait().await;
            let _ = self.service.stop().await;
        };
        // Without a connection nobody hears it, and the client would wait for one.
        let _ = tokio::time::timeout(LONGEST_FAREWELL, farewell).await;
    }
}

impl Desk {
    /// Answers the requests of an endpoint, each in a task of its own, `most` at once.
    fn serve<F, A>(&self, mut endpoint: Endpoint, most: usize, answer: F)
    where
        F: Fn(Bytes, Option<TraceContext>) -> A + Send + 'static,
        A: Future<Output = Answer> + Send + 'static,
    {
        let Self { tasks, stop, abandon } = self.clone();
        let slots = Arc::new(Semaphore::new(most));
        self.tasks.spawn(async move {
            loop {
                let request = tokio::select! {
                    () = stop.cancelled() => break,
                    request = endpoint.next() => match request {
                        Some(request) => request,
                        None => return,
                    },
                };
                let (slot, abandon) = (Arc::clone(&slots).try_acquire_owned(), abandon.clone());
                let Message { payload, headers, .. } = &request.message;
                let answering = slot.is_ok().then(|| answer(payload.clone(), trace::read(headers.as_ref())));
                tasks.spawn(async move {
                    let answer = match answering {
                        Some(answering) => tokio::select! {
                            answer = answering => answer,
                            () = abandon.cancelled() => {
                                Err(Failure::new(503, "this replica drains; ask again with the same command_id"))
                            }
                        },
                        None => Err(Failure::new(503, format!("{most} requests wait here already; ask again later"))),
                    };
                    respond(&request, answer).await;
                    drop(slot);
                });
            }
            let _ = endpoint.stop().await;
        });
    }

    fn serve_drain(&self, mut endpoint: Endpoint, reply: DrainReply, drain: CancellationToken) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => break,
                    request = endpoint.next() => match request {
                        Some(request) => {
                            respond(&request, Ok(Reply::json(reply.encode()))).await;
                            drain.cancel();
                        }
                        None => return,
                    },
                }
            }
            let _ = endpoint.stop().await;
        });
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
