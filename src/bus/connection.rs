//! The connection: how it is made, kept, and proved to be to a server that can do what is asked of it.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_nats::{Client, Event};
use tokio::sync::watch;

use super::identity::authenticated;
use crate::config::NatsConfig;

/// The oldest nats-server with which the guarantees hold.
pub const OLDEST_SERVER: (u64, u64, u64) = (2, 12, 8);

/// A dead peer is noticed after two pings without an answer; the client's default would take two to three minutes.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const LONGEST_RECONNECT_DELAY: Duration = Duration::from_secs(10);
/// A server that does not let us says so to the connection alone, and within a round trip.
const LISTENED_EVERY: Duration = Duration::from_millis(10);
/// Complaints that are kept: what comes of one request, and of those beside it.
const KEPT: usize = 16;

/// What has become of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// Usable.
    Up,
    /// The client is reconnecting.
    Down,
    /// The server is about to go: stop taking on, it will reconnect elsewhere.
    LameDuck,
}

/// A connection to the broker.
#[derive(Debug, Clone)]
pub struct Connection {
    /// The client.
    pub client: Client,
    /// Its state, as it changes.
    pub link: watch::Receiver<Link>,
    /// Why the newest try to connect anew came to nothing; `None` once one has.
    pub trouble: watch::Receiver<Option<String>>,
    /// How often the server has complained of what was not only tried.
    pub complained: watch::Receiver<u64>,
    complaints: Arc<Mutex<Complaints>>,
}

/// What the server has told this connection of what it does not like.
#[derive(Debug, Default)]
struct Complaints {
    /// The newest errors, say missing permissions, and when they were told; the last one stands last.
    told: VecDeque<(Instant, String)>,
    /// Where a refusal is a piece of news and not a mistake.
    tried: Vec<String>,
}

impl Complaints {
    /// Whether this one is no surprise.
    fn tell(&mut self, text: String) -> bool {
        let expected = self.is_tried(&text);
        if self.told.len() == KEPT {
            self.told.pop_front();
        }
        self.told.push_back((Instant::now(), text));
        expected
    }

    fn is_tried(&self, text: &str) -> bool {
        self.tried.iter().any(|subject| text.contains(subject))
    }
}

impl Connection {
    /// The server's last complaint, for an error message about a request that was not answered.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        self.complaints().told.back().map(|(_, text)| text.clone())
    }

    /// The same, where it was made after `begun`: an old one says nothing about a request of now.
    #[must_use]
    pub fn complaint_since(&self, begun: Instant) -> Option<String> {
        self.complaints().told.back().filter(|(at, _)| *at >= begun).map(|(_, text)| text.clone())
    }

    /// Those of the server's newest complaints that are no answer to a mere try.
    #[must_use]
    pub fn unexpected(&self) -> Vec<String> {
        let complaints = self.complaints();
        let told = complaints.told.iter().map(|(_, text)| text);
        told.filter(|text| !complaints.is_tried(text)).cloned().collect()
    }

    /// What the server has said since `begun` against one of these subjects, whatever it has said of others.
    #[must_use]
    pub fn refused_since(&self, begun: Instant, subjects: &[&str]) -> Option<String> {
        let complaints = self.complaints();
        let mut newest = complaints.told.iter().rev().take_while(|(at, _)| *at >= begun);
        newest.find(|(_, text)| subjects.iter().any(|subject| text.contains(subject))).map(|(_, text)| text.clone())
    }

    /// What comes of something that is asked for, or what the server has said since `begun` against one of these subjects:
    /// whom it does not let it never answers.
    pub async fn unless_refused<T>(
        &self,
        begun: Instant,
        subjects: &[&str],
        asked: impl Future<Output = T>,
    ) -> Result<T, String> {
        let mut asked = pin!(asked);
        loop {
            if let Ok(done) = tokio::time::timeout(LISTENED_EVERY, asked.as_mut()).await {
                return Ok(done);
            }
            if let Some(said) = self.refused_since(begun, subjects) {
                return Err(said);
            }
        }
    }

    /// From now on it is no news if the server does not let us publish there: there is another way, or whoever asks tells of
    /// it.
    pub fn tries(&self, subject: &str) {
        let tried = &mut self.complaints().tried;
        if !tried.iter().any(|known| known == subject) {
            tried.push(subject.to_owned());
        }
    }

    fn complaints(&self) -> MutexGuard<'_, Complaints> {
        self.complaints.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why there is no usable broker.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No server answers there, or it does not let us in.
    #[error("cannot connect to NATS at {url}: {cause}; is a nats-server running there, and do the credentials fit?")]
    Unreachable {
        /// Where, without credentials.
        url: String,
        /// The client's words.
        cause: String,
    },
    /// A file of the settings cannot be read.
    #[error("cannot use {path} ({setting}): {cause}")]
    Credentials {
        /// Which file.
        path: String,
        /// Where it is named.
        setting: &'static str,
        /// Why not.
        cause: String,
    },
    /// The server is too old.
    #[error("nats-server at {url} is {found}; enlist needs 2.12.8 or later (2.14 or 2.15 advised)")]
    TooOld {
        /// Where, without credentials.
        url: String,
        /// Its version.
        found: String,
    },
    /// The server has no `JetStream`.
    #[error("nats-server at {url} has no JetStream; start it with -js, or with a jetstream block in its configuration")]
    NoJetStream {
        /// Where, without credentials.
        url: String,
    },
}

/// Connects, and checks that the server is new enough. Reconnects by itself from then on.
pub async fn connect(config: &NatsConfig, name: &str) -> Result<Connection, ConnectError> {
    let (up, link) = watch::channel(Link::Up);
    let (failed, trouble) = watch::channel(None);
    let (newest, complained) = watch::channel(0);
    let complaints = Arc::new(Mutex::new(Complaints::default()));
    let told = Arc::clone(&complaints);
    let mut options = authenticated(config)?
        .name(name)
        .ping_interval(PING_INTERVAL)
        .connection_timeout(CONNECT_TIMEOUT)
        .reconnect_delay_callback(|attempt| {
            let window = Duration::from_millis(100).saturating_mul(1 << attempt.min(7)).min(LONGEST_RECONNECT_DELAY);
            window.mul_f64(rand::random())
        })
        .event_callback(move |event| {
            let link = match &event {
                Event::Connected => Some(Link::Up),
                Event::Disconnected | Event::Closed => Some(Link::Down),
                Event::LameDuckMode => Some(Link::LameDuck),
                Event::Draining | Event::SlowConsumer(_) | Event::ServerError(_) | Event::ClientError(_) => None,
            };
            let expected = match &event {
                Event::ServerError(error) => {
                    told.lock().unwrap_or_else(PoisonError::into_inner).tell(error.to_string())
                }
                _ => false,
            };
            match &event {
                Event::ServerError(_) if expected => {
                    tracing::debug!(event = %crate::text::cut(&event.to_string(), 300), "nats");
                }
                // Under a name of their own: verbs tell of both in plain words.
                Event::ServerError(_) => {
                    tracing::warn!(target: "enlist::link", event = %crate::text::cut(&event.to_string(), 300), "nats");
                    newest.send_modify(|number| *number += 1);
                }
                Event::ClientError(error) => {
                    tracing::warn!(target: "enlist::link", event = %crate::text::cut(&event.to_string(), 300), "nats");
                    let why = error.to_string();
                    failed.send_replace(Some(crate::text::cut(why.strip_prefix("nats: ").unwrap_or(&why), 200)));
                }
                Event::SlowConsumer(_) => {
                    tracing::warn!(event = %crate::text::cut(&event.to_string(), 300), "nats");
                }
                _ => tracing::info!(%event, "nats"),
            }
            if let Some(link) = link {
                if link == Link::Up {
                    failed.send_replace(None);
                }
                up.send_replace(link);
            }
            std::future::ready(())
        });
    // The client says that a file is missing, and not which.
    let files =
        [(&config.tls_ca, "nats.tls_ca"), (&config.tls_cert, "nats.tls_cert"), (&config.tls_key, "nats.tls_key")];
    for (path, setting) in files.into_iter().filter_map(|(path, setting)| Some((path.as_ref()?, setting))) {
        if let Err(error) = std::fs::File::open(path) {
            let (path, cause) = (path.display().to_string(), error.to_string());
            return Err(ConnectError::Credentials { path, setting, cause });
        }
    }
    if let Some(ca) = &config.tls_ca {
        options = options.add_root_certificates(ca.clone()).require_tls(true);
    }
    if let (Some(cert), Some(key)) = (&config.tls_cert, &config.tls_key) {
        options = options.add_client_certificate(cert.clone(), key.clone());
    }
    if let Some(prefix) = &config.inbox_prefix {
        options = options.custom_inbox_prefix(prefix);
    }
    let url = shown(&config.url);
    let servers: Vec<String> = config.url.split(',').map(|url| nameless(url.trim())).collect();
    let client = options
        .connect(servers)
        .await
        .map_err(|error| ConnectError::Unreachable { url: url.clone(), cause: error.to_string() })?;
    let info = client.server_info();
    if version(&info.version).is_none_or(|found| found < OLDEST_SERVER) {
        return Err(ConnectError::TooOld { url, found: info.version });
    }
    if !info.jetstream {
        return Err(ConnectError::NoJetStream { url });
    }
    Ok(Connection { client, link, trouble, complained, complaints })
}

/// A URL without its credentials: the client passes over what stands there, and would carry it about.
fn nameless(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").map_or(("nats", url), |(scheme, rest)| (scheme, rest));
    format!("{scheme}://{}", rest.rsplit_once('@').map_or(rest, |(_, host)| host))
}

/// A URL list without its credentials, for people.
#[must_use]
pub fn shown(urls: &str) -> String {
    let hide = |url: &str| match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if scheme + 3 <= at => format!("{}://***@{}", &url[..scheme], &url[at + 1..]),
        (None, Some(at)) => format!("***@{}", &url[at + 1..]),
        _ => url.to_owned(),
    };
    urls.split(',').map(|url| hide(url.trim())).collect::<Vec<_>>().join(",")
}

/// The numbers of a version such as `2.14.0-RC.1`.
#[must_use]
pub fn version(text: &str) -> Option<(u64, u64, u64)> {
    let core = text.split(['-', '+']).next()?;
    let mut parts = core.split('.').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??, parts.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_url_has_no_credentials() {
        assert_eq!(shown("nats://bob:s3cret@a:4222, tls://b:4222"), "nats://***@a:4222,tls://b:4222");
        assert_eq!(shown("token@host"), "***@host");
        assert_eq!(shown("nats://a:p@ss@h"), "nats://***@h");
    }

    #[test]
    fn the_client_gets_no_credentials_in_a_url() {
        assert_eq!(nameless("nats://bob:p@ss@a:4222"), "nats://a:4222");
        assert_eq!(nameless("tls://b:4222"), "tls://b:4222");
        assert_eq!(nameless("t0ken@[::1]:4222"), "nats://[::1]:4222");
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(version("2.12.8"), Some((2, 12, 8)));
        assert_eq!(version("2.14.0-RC.1"), Some((2, 14, 0)));
        assert!(version("2.9.25").is_some_and(|found| found < OLDEST_SERVER));
        assert_eq!(version("weekly"), None);
    }
}
