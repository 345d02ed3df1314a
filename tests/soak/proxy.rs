//! A TCP proxy between a replica and a broker, and what a network does to those two: it is slow, stands still, or breaks.

use std::io;
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

const CHUNK: usize = 64 << 10;

/// How what is sent fares, as long as it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weather {
    Clear,
    /// Each chunk takes so much longer, in both directions.
    Delay(Duration),
    /// Nothing comes through, not even an end; what was sent arrives when it is over, as TCP has it.
    Blackhole,
}

/// What happens to the connections that there are. Those that come after are sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Break {
    /// Both ends are told by a reset.
    Reset,
    /// The broker's end is closed; the replica's end stays open, and whatever it says is heard by nobody.
    HalfOpen,
}

/// One way from a replica to a broker. It is gone with this value.
pub(crate) struct Link {
    port: u16,
    weather: watch::Sender<Weather>,
    breaks: watch::Sender<Option<Break>>,
    listener: JoinHandle<()>,
}

impl Link {
    /// A way to this port of this host, whether anyone listens there yet or not.
    pub(crate) async fn to(broker: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port for the proxy");
        let port = listener.local_addr().expect("its address").port();
        let (weather, breaks) = (watch::Sender::new(Weather::Clear), watch::Sender::new(None));
        let (sky, news) = (weather.subscribe(), breaks.subscribe());
        let listener = tokio::spawn(async move {
            // Dropped with the listener, and all connections with it.
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                let mut news = news.clone();
                news.mark_unchanged();
                connections.spawn(carry(near, broker, sky.clone(), news));
            }
        });
        Self { port, weather, breaks, listener }
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub(crate) fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    pub(crate) fn break_now(&self, how: Break) {
        self.breaks.send_replace(Some(how));
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

/// One connection, from its first byte to its end.
async fn carry(
    mut near: TcpStream,
    broker: u16,
    mut weather: watch::Receiver<Weather>,
    mut news: watch::Receiver<Option<Break>>,
) {
    let connected = async {
        passable(&mut weather).await;
        TcpStream::connect(("127.0.0.1", broker)).await
    };
    let mut far = tokio::select! {
        how = broken(&mut news) => return end(&near, how),
        far = connected => match far {
            Ok(far) => far,
            // As if the port itself had refused.
            Err(_) => return end(&near, Break::Reset),
        },
    };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let how = {
        let ((from_near, to_near), (from_far, to_far)) = (near.split(), far.split());
        tokio::select! {
            how = broken(&mut news) => how,
            _ = pump(from_near, to_far, weather.clone()) => return,
            _ = pump(from_far, to_near, weather) => return,
        }
    };
    match how {
        Break::Reset => {
            end(&near, how);
            end(&far, how);
        }
        Break::HalfOpen => {
            drop(far);
            // Until the replica gives it up, or the next break comes over it.
            let mut nobody = tokio::io::sink();
            tokio::select! {
                how = broken(&mut news) => end(&near, how),
                _ = tokio::io::copy(&mut near, &mut nobody) => {}
            }
        }
    }
}

async fn broken(news: &mut watch::Receiver<Option<Break>>) -> Break {
    match news.changed().await.map(|()| *news.borrow_and_update()) {
        Ok(Some(how)) => how,
        // The link is gone, and this task is about to be.
        Ok(None) | Err(_) => std::future::pending().await,
    }
}

/// With no lingering a close is a reset.
fn end(stream: &TcpStream, how: Break) {
    if how == Break::Reset {
        let _ = set_socket_linger(stream, Some(Duration::ZERO));
    }
}

async fn passable(weather: &mut watch::Receiver<Weather>) {
    let _ = weather.wait_for(|weather| *weather != Weather::Blackhole).await;
}

async fn pump(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, mut weather: watch::Receiver<Weather>) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = from.read(&mut chunk).await;
        let now = *weather.borrow();
        if let Weather::Delay(by) = now {
            sleep(by).await;
        }
        // An end is not seen through a black hole either.
        passable(&mut weather).await;
        match read? {
            0 => return Ok(()),
            length => to.write_all(&chunk[..length]).await?,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, timeout};

    use super::*;

    const SHORT: Duration = Duration::from_millis(300);

    /// A broker that says back what it hears, and tells of each connection that has ended.
    async fn echo() -> (u16, tokio::sync::mpsc::UnboundedReceiver<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (ended, ends) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let ended = ended.clone();
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                    let _ = ended.send(());
                });
            }
        });
        (port, ends)
    }

    async fn connected(link: &Link) -> TcpStream {
        let mut stream = TcpStream::connect(("127.0.0.1", link.port)).await.unwrap();
        said_back(&mut stream).await.unwrap();
        stream
    }

    async fn said_back(stream: &mut TcpStream) -> io::Result<()> {
        stream.write_all(b"ping").await?;
        let mut heard = [0; 4];
        stream.read_exact(&mut heard).await?;
        assert_eq!(&heard, b"ping");
        Ok(())
    }

    #[tokio::test]
    async fn a_slow_link_carries_everything_later() {
        let link = Link::to(echo().await.0).await;
        let mut stream = connected(&link).await;
        link.set(Weather::Delay(SHORT));
        let sent = Instant::now();
        said_back(&mut stream).await.unwrap();
        assert!(sent.elapsed() >= SHORT * 2, "there and back took {:?}", sent.elapsed());
    }

    #[tokio::test]
    async fn nothing_comes_through_a_black_hole_until_it_is_over() {
        let link = Link::to(echo().await.0).await;
        let mut stream = connected(&link).await;
        link.set(Weather::Blackhole);
        assert!(timeout(SHORT, said_back(&mut stream)).await.is_err(), "it came through");
        let mut late = TcpStream::connect(("127.0.0.1", link.port)).await.unwrap();
        assert!(timeout(SHORT, said_back(&mut late)).await.is_err(), "a new connection came through");
        link.set(Weather::Clear);
        for mut stream in [stream, late] {
            let mut heard = [0; 4];
            stream.read_exact(&mut heard).await.unwrap();
            assert_eq!(&heard, b"ping", "what was sent into it arrives");
        }
    }

    #[tokio::test]
    async fn an_end_is_not_seen_through_a_black_hole() {
        let (port, mut ends) = echo().await;
        let link = Link::to(port).await;
        let stream = connected(&link).await;
        link.set(Weather::Blackhole);
        drop(stream);
        assert!(timeout(SHORT, ends.recv()).await.is_err(), "the broker has seen it");
        link.set(Weather::Clear);
        ends.recv().await.unwrap();
    }

    #[tokio::test]
    async fn a_reset_is_told_to_both_ends_and_the_next_connection_is_sound() {
        let (port, mut ends) = echo().await;
        let link = Link::to(port).await;
        let mut stream = connected(&link).await;
        link.break_now(Break::Reset);
        let error = stream.read(&mut [0; 4]).await.expect_err("an error");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        ends.recv().await.unwrap();
        connected(&link).await;
    }

    #[tokio::test]
    async fn a_half_open_connection_is_ended_for_the_broker_alone() {
        let (port, mut ends) = echo().await;
        let link = Link::to(port).await;
        let mut stream = connected(&link).await;
        link.break_now(Break::HalfOpen);
        ends.recv().await.unwrap();
        assert!(timeout(SHORT, said_back(&mut stream)).await.is_err(), "it heard an answer or an end");
        connected(&link).await;
    }

    #[tokio::test]
    async fn a_broker_that_is_away_is_away_through_the_proxy_and_comes_back() {
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = gone.local_addr().unwrap().port();
        drop(gone);
        let link = Link::to(port).await;
        let mut stream = TcpStream::connect(("127.0.0.1", link.port)).await.unwrap();
        assert!(said_back(&mut stream).await.is_err());
        let back = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let mut stream = TcpStream::connect(("127.0.0.1", link.port)).await.unwrap();
        let (mut far, _) = back.accept().await.unwrap();
        far.write_all(b"here").await.unwrap();
        stream.read_exact(&mut [0; 4]).await.unwrap();
    }
}
