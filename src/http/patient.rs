//! A listener whose connections are given up where their reader has stopped reading, or asks for nothing; there are so many
//! at once, and no more.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

/// How long a reader may take nothing of what there is for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the head of the first request may take.
const FIRST_HEAD: Duration = Duration::from_secs(10);
/// How long a connection may be silent both ways later on: longer than any answer takes, and than a stream of news has
/// nothing to say.
const SILENCE: Duration = Duration::from_secs(90);
/// Connections at once. Those that come beyond them wait with the system.
const CONNECTIONS: usize = 512;

/// See the module.
pub(super) struct Patient {
    listener: TcpListener,
    places: Arc<Semaphore>,
}

impl Patient {
    pub(super) fn new(listener: TcpListener) -> Self {
        Self::with_places(listener, CONNECTIONS)
    }

    fn with_places(listener: TcpListener, most: usize) -> Self {
        Self { listener, places: Arc::new(Semaphore::new(most)) }
    }
}

impl Listener for Patient {
    type Io = Watched<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        // Nobody closes it.
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        let (stream, address) = Listener::accept(&mut self.listener).await;
        (Watched::new(stream, place), address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection, since when it cannot be written to, and until when something has to come or go.
pub(super) struct Watched<T> {
    stream: T,
    stalled: Option<Pin<Box<Sleep>>>,
    silent: Pin<Box<Sleep>>,
    /// How much of the blank line at the end of the first request's head has come.
    blank: usize,
    _place: Option<OwnedSemaphorePermit>,
}

/// The end of a request's head.
const BLANK: &[u8] = b"\r\n\r\n";

impl<T> Watched<T> {
    fn new(stream: T, place: Option<OwnedSemaphorePermit>) -> Self {
        Self { stream, stalled: None, silent: Box::pin(sleep(FIRST_HEAD)), blank: 0, _place: place }
    }

    /// Takes note of what has come. Before the first head is whole, that it trickles in is no progress.
    fn heard(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.blank == BLANK.len() {
                break;
            }
            let fits = BLANK[self.blank] == *byte;
            self.blank = if fits { self.blank + 1 } else { usize::from(*byte == b'\r') };
        }
        self.is_used();
    }

    fn is_used(&mut self) {
        if self.blank == BLANK.len() {
            self.silent.as_mut().reset(Instant::now() + SILENCE);
        }
    }

    /// What a write has come to: one that has to wait too long is an error, which ends the connection.
    fn judged<R>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if written.is_ready() {
            self.stalled = None;
            self.is_used();
            return written;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(PATIENCE)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if Pin::new(&mut self.stream).poll_read(context, buffer)?.is_ready() {
            self.heard(&buffer.filled()[before..]);
            return Poll::Ready(Ok(()));
        }
        ready!(self.silent.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judged(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.judged(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.judged(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.judged(context, shut)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_stops_reading_is_given_up_and_one_that_is_slow_is_not() {
        let (stream, mut reader) = duplex(4);
        let mut watched = Watched::new(stream, None);
        let writing = tokio::spawn(async move { (watched.write_all(b"12345678").await, watched) });
        sleep(PATIENCE / 2).await;
        let mut some = [0; 4];
        reader.read_exact(&mut some).await.unwrap();
        let (written, mut watched) = writing.await.unwrap();
        assert!(written.is_ok());
        let error = watched.write_all(b"90").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_asks_for_nothing_is_given_up_and_one_that_has_asked_may_be_silent_for_longer() {
        let mut some = [0; 64];
        let (stream, _peer) = duplex(64);
        let begun = Instant::now();
        let error = Watched::new(stream, None).read(&mut some).await.unwrap_err();
        assert_eq!((error.kind(), begun.elapsed()), (io::ErrorKind::TimedOut, FIRST_HEAD));

        for (parts, patience) in [(["GET / HTTP/1.1\r\n", "a: b\r\n"], FIRST_HEAD), (["GET /\r\n\r", "\n"], SILENCE)] {
            let (stream, mut peer) = duplex(64);
            let (mut watched, begun) = (Watched::new(stream, None), Instant::now());
            for part in parts {
                peer.write_all(part.as_bytes()).await.unwrap();
                assert_eq!(watched.read(&mut some).await.unwrap(), part.len());
            }
            watched.read(&mut some).await.unwrap_err();
            assert_eq!(begun.elapsed(), patience, "{parts:?}");
        }
    }

    #[tokio::test]
    async fn one_connection_too_many_waits_until_another_goes() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut patient = Patient::with_places(listener, 1);
        let address = patient.local_addr().unwrap();
        let _peers = (TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap());
        let (first, _) = patient.accept().await;
        assert!(tokio::time::timeout(Duration::from_millis(50), patient.accept()).await.is_err());
        drop(first);
        patient.accept().await;
    }
}
