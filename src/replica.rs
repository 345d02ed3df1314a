//! One replica: the parts wired together, started, watched and drained.

pub mod parts;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::bus::connection::{self, ConnectError, Connection, Link};
use crate::bus::delivery::Desk;
use crate::bus::orders::Orders;
use crate::bus::permitted::permitted;
use crate::bus::requests::Requests;
use crate::bus::streams::{self, StreamsError};
use crate::bus::subjects::Subjects;
use crate::bus::turns::Turns;
use crate::bus::view::View;
use crate::config::Config;
use crate::domain::{Lane, Pool};
use crate::handle::Handler;
use crate::http::fleet::{Fleet, FleetParts, Served};
use crate::http::guard::Guard;
use crate::http::{self, HttpState, Page};
use crate::journal::follow::Follower;
use crate::journal::nats::NatsJournal;
use crate::provider::{ProviderError, WorkerProvider};
use crate::registration::nats::NatsScheduler;
use crate::srv::Api;
use crate::telemetry::{Health, PoolSignals, PrometheusHandle, nats_connected, tasks_alive};
use crate::worker::{CONTROL_SLOTS, Queue, QueueContext, Slots, Watch, Worker, ask_for_sweeps};

/// How often the gauges of live workers and of tasks are set.
const GAUGES_EVERY: Duration = Duration::from_secs(1);

/// A broker that is away may be back by then, and what waits for it in the client's queue still gets through.
const LONGEST_FLUSH: Duration = Duration::from_secs(5);
/// The flush, and before it the word in the record of each command that is given back.
const LONGEST_FAREWELL: Duration = Duration::from_secs(7);

/// Why a replica did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No usable broker.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The fleet's objects on the broker are not as they have to be.
    #[error(transparent)]
    Streams(#[from] StreamsError),
    /// The broker does not let us listen.
    #[error("cannot subscribe: {0}")]
    Subscribe(#[from] async_nats::SubscribeError),
    /// A provider cannot be set up.
    #[error("pool {pool}: {error}")]
    Provider {
        /// The pool.
        pool: Pool,
        /// Why.
        error: ProviderError,
    },
    /// The token of the fleet page cannot be read from its file.
    #[error("cannot use {path} (http.token_file): {cause}")]
    Token {
        /// The file.
        path: String,
        /// Why not.
        cause: String,
    },
    /// The http address cannot be listened on.
    #[error("cannot listen on {address}: {error}; name another address: [http] listen, or ENLIST_HTTP_LISTEN")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        error: std::io::Error,
    },
}

/// A running replica.
pub struct Replica {
    worker: Worker,
    health: Arc<Health>,
    connection: Connection,
    http: CancellationToken,
    address: std::net::SocketAddr,
    drain: Duration,
    /// `None` where the server does not permit it.
    api: Option<Api>,
    drain_asked: CancellationToken,
}

impl Replica {
    /// Connects, makes or checks the streams, and begins to take commands.
    pub async fn start(config: &Config, metrics: Option<PrometheusHandle>) -> Result<Self, StartError> {
        Self::start_watched(config, metrics, None).await
    }

    /// The same, with each command's end told to `watch`.
    pub async fn start_watched(
        config: &Config,
        metrics: Option<PrometheusHandle>,
        watch: Option<Watch>,
    ) -> Result<Self, StartError> {
        let listener = TcpListener::bind(config.http.listen)
            .await
            .map_err(|error| StartError::Listen { address: config.http.listen, error })?;
        let address =
            listener.local_addr().map_err(|error| StartError::Listen { address: config.http.listen, error })?;
        let guard = Guard::new(address, parts::http_token(&config.http)?.as_deref());
        if guard.is_open() {
            tracing::warn!(%address, "anybody who reaches this address sees the fleet page: set http.token or http.token_file");
        }
        let connection = connection::connect(&config.nats, "enlist").await?;
        let subjects = Subjects::new(&config.prefix);
        let domain = config.nats.domain.as_deref();
        streams::ensure(&connection, domain, &subjects, config.pools.keys(), config.replicas, config.manage_streams)
            .await?;
        let requests = Requests::start(connection.client.clone()).await?;
        let api_prefix = streams::api_prefix(domain);
        permitted(&connection, &requests, &subjects, &api_prefix, config.pools.keys()).await?;
        let jetstream = streams::context(&connection, domain);
        let scheduler = NatsScheduler::new(requests.clone(), &config.scheduler);
        let health = Arc::new(Health::new(config.pools.keys()));
        let worker = Worker::new(watch);
        let most: Vec<usize> = config.pools.values().map(|pool| pool.concurrency).collect();
        let provisions = Slots::shared_out(config.limits.concurrency, &most);
        // Slots of their own: they never wait for a provision's.
        let terminates = Slots::shared_out(config.limits.concurrency, &most);
        let (mut gauges, mut desks, mut served) = (Vec::new(), Vec::new(), Vec::new());
        let turns = Turns::of(config.pools.len());
        let slots = provisions.into_iter().zip(terminates);
        for (((pool, pool_config), (provisions, terminates)), turns) in config.pools.iter().zip(slots).zip(turns) {
            // What goes to the scheduler takes no turn: one that is slow for a pool would hold up the pool's record.
            let requests = requests.in_turn(turns);
            let limited = pool_config.max_workers.is_some();
            let follower = Follower::start(jetstream.clone(), subjects.clone(), pool.clone(), limited);
            let journal =
                NatsJournal::new(requests.clone(), subjects.clone(), domain, [(pool.clone(), follower.clone())]);
            let service = parts::service(config, pool, pool_config, &connection.client, journal, scheduler.clone())?;
            let signals = PoolSignals::new(pool, service.provider().name(), service.provider().worker_type());
            let signals = Arc::new(signals.telling(Arc::clone(&health)));
            let (provider, max_workers) = (service.provider().name(), pool_config.max_workers);
            served.push(Served { pool: pool.clone(), provider, max_workers, follower: follower.clone() });
            gauges.push((Arc::clone(&signals), follower));
            let service = service.with_signals(pool, Arc::clone(&signals));
            let desk = Arc::new(Desk {
                requests,
                subjects: subjects.clone(),
                pool: pool.clone(),
                stream: subjects.command_stream(pool),
                api_prefix: api_prefix.clone(),
            });
            let sweep = parts::sweep(config, pool, pool_config);
            let handler = Handler::new(service, pool_config.clone(), sweep, parts::own_queue(&desk));
            desks.push(Arc::clone(&desk));
            let context = Arc::new(QueueContext {
                handler: Arc::new(handler),
                desk,
                worker: worker.clone(),
                signals,
                health: Arc::clone(&health),
                link: connection.link.clone(),
            });
            let lanes = [
                (Lane::Provision, provisions),
                (Lane::Terminate, terminates),
                (Lane::Control, Slots::alone(CONTROL_SLOTS)),
            ];
            for (lane, slots) in lanes {
                worker.tasks.spawn(Queue::new(Arc::clone(&context), lane, slots).run());
            }
        }
        worker.tasks.spawn(ask_for_sweeps(desks, config.sweep.interval, worker.stop.clone()));
        let http = CancellationToken::new();
        tokio::spawn(watch_link(connection.clone(), Arc::clone(&health), http.clone()));
        tokio::spawn(keep_gauges(gauges, http.clone()));
        let drain_asked = CancellationToken::new();
        let orders = Orders::new(connection.clone(), requests, subjects, domain, config.nats.shown_url());
        let api = Api::start(orders.clone(), config, drain_asked.clone()).await;
        let view = View::new(connection.client.clone(), orders.subjects.clone(), domain);
        let parts = FleetParts {
            orders,
            view: view.clone(),
            context: jetstream,
            pools: served,
            health: Arc::clone(&health),
            instance_id: api.as_ref().map(|api| api.instance_id().to_owned()),
            open: guard.is_open(),
        };
        let page = Some(Arc::new(Page::new(guard, Fleet::start(parts, http.clone()), view)));
        let state = HttpState { metrics, health: Arc::clone(&health), page };
        tokio::spawn(http::serve(listener, state, http.clone()));
        Ok(Self { worker, health, connection, http, address, drain: config.limits.drain, api, drain_asked })
    }

    /// Where the http listener is; the port is the system's choice where the setting says 0.
    #[must_use]
    pub fn address(&self) -> std::net::SocketAddr {
        self.address
    }

    /// What `/readyz` tells.
    #[must_use]
    pub fn health(&self) -> &Arc<Health> {
        &self.health
    }

    /// Its id as a NATS service; `None` where the server does not permit it to be one.
    #[must_use]
    pub fn instance_id(&self) -> Option<&str> {
        self.api.as_ref().map(Api::instance_id)
    }

    /// Cancelled when somebody asks for a drain over NATS. Whoever holds the replica then drains it.
    #[must_use]
    pub fn drain_asked(&self) -> CancellationToken {
        self.drain_asked.clone()
    }

    /// Stops taking commands, finishes those in hand within `limits.drain`, gives back the rest, and closes.
    pub async fn drain(self) {
        self.health.set_draining();
        if let Some(api) = &self.api {
            api.close();
        }
        self.worker.drain(self.drain).await;
        let farewell = async {
            self.worker.give_back().await;
            if let Some(api) = self.api {
                api.end().await;
            }
            // What has been published, acks and naks above all, is to reach the server before the connection goes.
            let _ = tokio::time::timeout(LONGEST_FLUSH, self.connection.client.flush()).await;
        };
        // An ack whose broker has just gone is tried for 15 s: one clock for all of it, so that whoever has given the drain
        // its time need not kill.
        let _ = tokio::time::timeout(LONGEST_FAREWELL, farewell).await;
        self.http.cancel();
    }
}

async fn watch_link(mut connection: Connection, health: Arc<Health>, stop: CancellationToken) {
    loop {
        let link = *connection.link.borrow_and_update();
        match link {
            Link::Up => {
                health.set_connected(true);
                nats_connected(true);
            }
            Link::Down => {
                health.set_connected(false);
                nats_connected(false);
            }
            // The client reconnects to another server by itself; forcing it now keeps the wait short.
            Link::LameDuck => {
                let _ = connection.client.force_reconnect().await;
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = connection.link.changed() => if changed.is_err() { return },
        }
    }
}

async fn keep_gauges(pools: Vec<(Arc<PoolSignals>, Follower)>, stop: CancellationToken) {
    let mut tick = tokio::time::interval(GAUGES_EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        tasks_alive(tokio::runtime::Handle::current().metrics().num_alive_tasks());
        #[cfg(feature = "heap-metric")]
        crate::telemetry::heap_allocated(crate::heap::allocated());
        for (signals, follower) in &pools {
            follower.look(|census| census.by_state().for_each(|(state, count)| signals.workers(state, count)));
        }
    }
}
