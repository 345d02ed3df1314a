//! The pages over a real socket, without a broker.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::domain::Lane;
use crate::domain::Pool;
use crate::telemetry::install_metrics;

/// A server on a port of its own.
struct Server {
    address: std::net::SocketAddr,
    health: Arc<Health>,
    pool: Pool,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<io::Result<()>>,
}

impl Server {
    async fn start(metrics: Option<PrometheusHandle>) -> Self {
        let pool = Pool::new("web").unwrap();
        let health = Arc::new(Health::new([&pool]));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let state = HttpState { health: health.clone(), metrics, page: None };
        let task = tokio::spawn(serve(listener, state, shutdown.clone()));
        Self { address, health, pool, shutdown, task }
    }

    /// Status and body.
    async fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }
}

#[tokio::test]
async fn readyz_turns_from_503_to_200_and_back_and_says_why() {
    let server = Server::start(None).await;
    let (status, body) = server.get("/readyz").await;
    assert_eq!(status, 503);
    assert!(
        body.contains(r#""ready":false"#) && body.contains(r#"{"name":"connected","needed":true,"ok":false}"#),
        "{body}"
    );
    server.health.set_connected(true);
    for lane in Lane::ALL {
        server.health.set_pulling(&server.pool, lane, true);
    }
    assert_eq!(server.get("/readyz").await.0, 200);
    server.health.set_draining();
    let (status, body) = server.get("/readyz").await;
    assert!(status == 503 && body.contains(r#"{"name":"not draining","needed":true,"ok":false}"#), "{body}");
    assert_eq!(server.get("/livez").await, (200, "ok\n".to_owned()), "a replica that drains is alive");
}

#[tokio::test]
async fn pages_answer_and_unknown_ones_are_not_found() {
    let handle = install_metrics();
    crate::telemetry::nats_connected(true);
    let server = Server::start(Some(handle)).await;
    assert!(server.get("/").await.1.contains("/readyz"));
    assert_eq!(server.get("/favicon.ico").await.0, 404);
    let (status, body) = server.get("/metrics").await;
    assert!(status == 200 && body.contains("enlist_nats_connected 1"), "{body}");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_never_reads_does_not_hold_up_the_end() {
    let server = Server::start(None).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: lo").await.unwrap();
    server.shutdown.cancel();
    assert!(server.task.await.unwrap().is_ok());
}
