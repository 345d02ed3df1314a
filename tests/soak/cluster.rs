//! Three nats-servers that are one: each with its own store, all of them with every stream.

use std::time::Duration;

use async_nats::{Client, ConnectOptions, jetstream};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use crate::integration::broker::{Broker, free_port};

pub(crate) const SERVERS: usize = 3;
/// Until there is a leader, and streams can be placed on all three.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Cluster {
    brokers: Vec<Broker>,
    /// Each held by whoever has killed its broker, until that is back.
    deaths: [Mutex<()>; SERVERS],
}

impl Cluster {
    /// Returns once a stream of three replicas can be made.
    pub(crate) async fn start() -> Self {
        let ports: Vec<u16> = (0..SERVERS).map(|_| free_port()).collect();
        let routes: Vec<String> = ports.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
        let all = routes.join(",");
        let mut brokers = Vec::new();
        for route in &routes {
            // What a server tells its clients of the others would lead them around the proxies.
            let flags = [
                "--cluster_name",
                "soak",
                "--cluster",
                route,
                "--routes",
                &all,
                "--no_advertise",
                "--connect_retries",
                "120",
            ];
            brokers.push(Broker::process_with(&flags).await);
        }
        let cluster = Self { brokers, deaths: Default::default() };
        cluster.has_a_leader().await;
        cluster
    }

    /// A client of all three, that tries until it is connected.
    pub(crate) async fn client(&self) -> Client {
        let urls: Vec<&str> = self.brokers.iter().map(Broker::url).collect();
        connect(&urls).await
    }

    /// A client of this one alone: what it hears goes on when the others die.
    pub(crate) async fn client_of(&self, server: usize) -> Client {
        connect(&[self.brokers[server].url()]).await
    }

    pub(crate) fn port(&self, server: usize) -> u16 {
        self.brokers[server].url().rsplit(':').next().and_then(|port| port.parse().ok()).expect("its port")
    }

    /// Kills one for a while. One that is dead already is killed once more when it is back.
    pub(crate) async fn kill(&self, server: usize, away: Duration) {
        let _death = self.deaths[server].lock().await;
        let broker = &self.brokers[server];
        broker.kill().await;
        sleep(away).await;
        broker.start_again().await;
    }

    async fn has_a_leader(&self) {
        let context = jetstream::new(self.client().await);
        let probe = jetstream::stream::Config {
            name: "PROBE".to_owned(),
            subjects: vec!["probe".to_owned()],
            num_replicas: SERVERS,
            ..jetstream::stream::Config::default()
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            match context.get_or_create_stream(probe.clone()).await {
                Ok(_) => break,
                Err(error) => assert!(Instant::now() < deadline, "the cluster does not come to be: {error}"),
            }
            sleep(Duration::from_millis(200)).await;
        }
        context.delete_stream("PROBE").await.expect("the probe");
    }
}

async fn connect(urls: &[&str]) -> Client {
    let options = ConnectOptions::new()
        .retry_on_initial_connect()
        .ping_interval(Duration::from_secs(5))
        .reconnect_delay_callback(|_| Duration::from_millis(250))
        .subscription_capacity(1 << 20)
        // Said by the replicas already; here it only stands between the figures.
        .event_callback(|_| std::future::ready(()));
    let servers: Vec<&str> = urls.to_vec();
    options.connect(servers).await.expect("a client")
}
