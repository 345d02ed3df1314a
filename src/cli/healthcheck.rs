//! `enlist healthcheck`: asks this host's enlist whether it is ready; for images that have no other program to ask with.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::text::cut;

/// Below the image's own limit for a check, so that the answer is ours and not a kill.
const PATIENCE: Duration = Duration::from_secs(3);

/// Whether the enlist that listens at `addr` (the setting `http.listen`) answers `/readyz` with 200; else why it is not taken
/// for ready.
pub(super) async fn run(addr: SocketAddr) -> Result<(), String> {
    let addr = reachable(addr);
    let why = match timeout(PATIENCE, ask(addr)).await {
        Ok(Ok(status)) if status == "200" => return Ok(()),
        Ok(Ok(status)) => format!("says {status}"),
        Ok(Err(error)) => format!("gives no answer: {error}"),
        Err(_) => format!("gives no answer within {} s", PATIENCE.as_secs()),
    };
    Err(format!("not ready: http://{addr}/readyz (http.listen) {why}"))
}

/// An address that listens everywhere is asked at home.
fn reachable(mut addr: SocketAddr) -> SocketAddr {
    match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => addr.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => addr.set_ip(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    addr
}

async fn ask(addr: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect(addr).await?;
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    // `HTTP/1.1 200`: the status is all that is asked for.
    let mut status = [0; 12];
    stream.read_exact(&mut status).await?;
    let status = status.strip_prefix(b"HTTP/1.1 ").ok_or_else(|| io::Error::other("that is no HTTP/1.1"))?;
    Ok(cut(&String::from_utf8_lossy(status), 3))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// Answers one request with `status`, at an address that is told back.
    async fn answering(status: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 1024];
            let read = stream.read(&mut request).await.unwrap();
            assert!(request[..read].starts_with(b"GET /readyz HTTP/1.1\r\n"));
            stream.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes()).await.unwrap();
        });
        addr
    }

    #[tokio::test]
    async fn only_an_answer_of_200_is_healthy() {
        assert_eq!(run(answering("200 OK").await).await, Ok(()));
        let told = run(answering("503 Service Unavailable").await).await.unwrap_err();
        assert!(told.starts_with("not ready: http://127.0.0.1:") && told.ends_with(" says 503"), "{told}");
    }

    #[tokio::test]
    async fn nobody_there_is_not_healthy() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        drop(listener);
        let told = run(addr).await.unwrap_err();
        assert!(told.contains(" gives no answer: "), "{told}");
    }

    #[tokio::test]
    async fn one_that_listens_everywhere_is_asked_at_home() {
        let port = answering("200 OK").await.port();
        assert_eq!(run(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await, Ok(()));
        assert_eq!(reachable("[::]:80".parse().unwrap()), "[::1]:80".parse().unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_never_answers_is_not_healthy() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let told = run(listener.local_addr().unwrap()).await.unwrap_err();
        assert!(told.ends_with(" gives no answer within 3 s"), "{told}");
    }
}
