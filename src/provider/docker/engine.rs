//! The calls of the engine that the provider needs, each with its time limit, and what the engine's refusals mean.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{ContainerCreateBody, ContainerSummary};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, CreateImageOptionsBuilder, ListContainersOptionsBuilder, LogsOptionsBuilder,
    RemoveContainerOptionsBuilder, StopContainerOptionsBuilder,
};
use futures_util::{StreamExt, TryStreamExt};

use crate::domain::ErrorClass;
use crate::provider::ProviderError;

/// How long one call may take; a container's start is the slowest of them.
const CALL: Duration = Duration::from_secs(120);

/// How long a pull may be silent. Its whole length is the pool's launch time-out, which is the caller's.
const PULL_SILENCE: Duration = Duration::from_secs(300);

/// Added to a stop's grace: the engine answers only after the grace and the kill that follows it.
const STOP_MARGIN: Duration = Duration::from_secs(30);

/// Why a call came to nothing.
#[derive(Debug)]
pub(super) enum Fault {
    /// The engine answered, and refused: its status, its words.
    Refused { status: u16, words: String },
    /// No answer that could be read.
    Failed(ProviderError),
}

impl Fault {
    /// Whether the engine said that the thing is not there.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// Whether the engine said that something else stands in the way: a name in use, a removal under way, a container
    /// that runs.
    pub(super) fn is_conflict(&self) -> bool {
        matches!(self, Self::Refused { status: 409, .. })
    }

    /// What is told to the caller where the flow has no better reading of the status.
    pub(super) fn into_error(self) -> ProviderError {
        let (status, words) = match self {
            Self::Refused { status, words } => (status, words),
            Self::Failed(error) => return error,
        };
        let class = match status {
            400 => ErrorClass::InvalidSpec,
            401 | 403 => ErrorClass::Unauthorized,
            404 => ErrorClass::NotFound,
            409 => ErrorClass::Conflict,
            429 => ErrorClass::Throttled,
            // What a proxy says for an engine that is away, and the engine itself while it shuts down.
            502 | 503 => ErrorClass::Unavailable,
            504 => ErrorClass::Timeout,
            _ => ErrorClass::Internal,
        };
        ProviderError::new(class, format!("docker engine answered {status}: {words}"))
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let failed = |class, text: String| Self::Failed(ProviderError::new(class, format!("docker engine: {text}")));
        match error {
            Error::DockerResponseServerError { status_code, message } => {
                Self::Refused { status: status_code, words: message }
            }
            Error::RequestTimeoutError => failed(ErrorClass::Timeout, "no answer in time".to_owned()),
            Error::SocketNotFoundError(path) => failed(ErrorClass::Unavailable, format!("no socket at {path}")),
            Error::HyperLegacyError { err } if err.is_connect() => failed(ErrorClass::Unavailable, with_causes(&err)),
            // The connection broke after the request had gone out: whether it was carried out is not known.
            Error::HyperLegacyError { err } => failed(ErrorClass::Timeout, with_causes(&err)),
            Error::HyperResponseError { err } => failed(ErrorClass::Timeout, with_causes(&err)),
            Error::IOError { err } => failed(ErrorClass::Timeout, err.to_string()),
            // These quote the answer's text, and an answer may hold a container's environment.
            Error::JsonDataError { .. } | Error::JsonSerdeError { .. } => {
                failed(ErrorClass::Internal, "an answer that cannot be read".to_owned())
            }
            other => failed(ErrorClass::Internal, other.to_string()),
        }
    }
}

/// An error and its causes in one line: the outermost alone says "client error (Connect)", which helps nobody.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// Where the engine listens.
#[derive(Debug, Clone)]
enum Host {
    Unix(String),
    Tcp(String),
}

/// One Docker engine. Connections are made by the call: an engine that is away now is found when it is back.
#[derive(Debug, Clone)]
pub(super) struct Engine {
    host: Host,
}

impl Engine {
    /// Reads the address; nothing is connected.
    pub(super) fn new(host: &str) -> Result<Self, ProviderError> {
        let path = host.strip_prefix("unix://").or_else(|| host.starts_with('/').then_some(host));
        let address = host.strip_prefix("tcp://").or_else(|| host.strip_prefix("http://"));
        let host = match (path, address) {
            (Some(path), _) if path.starts_with('/') => Host::Unix(path.to_owned()),
            (_, Some(address)) if !address.is_empty() => Host::Tcp(address.trim_end_matches('/').to_owned()),
            _ => {
                let message =
                    format!("docker host {host:?} is not of the form unix:///path, tcp://address:port or http://…");
                return Err(ProviderError::new(ErrorClass::InvalidSpec, message));
            }
        };
        Ok(Self { host })
    }

    /// Every container that the filters let through, whatever its state.
    pub(super) async fn list(&self, filter: &str, values: Vec<String>) -> Result<Vec<ContainerSummary>, Fault> {
        let filters = HashMap::from([(filter, values)]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        self.call(CALL, async |docker| docker.list_containers(Some(options)).await).await
    }

    /// Makes a container under a name and answers with its id.
    pub(super) async fn create(&self, name: &str, body: ContainerCreateBody) -> Result<String, Fault> {
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        self.call(CALL, async |docker| docker.create_container(Some(options), body).await).await.map(|made| made.id)
    }

    /// Starts a container; one that runs already is left as it is.
    pub(super) async fn start(&self, id: &str) -> Result<(), Fault> {
        self.call(CALL, async |docker| docker.start_container(id, None).await).await
    }

    /// The command lines of a container's processes; a conflict where it does not run.
    pub(super) async fn processes(&self, id: &str) -> Result<Vec<String>, Fault> {
        let top = self.call(CALL, async |docker| docker.top_processes(id, None).await).await?;
        // The command is the last column of `ps -ef`, whose columns the engine has by default.
        Ok(top.processes.into_iter().flatten().filter_map(|mut columns| columns.pop()).collect())
    }

    /// The exit code of a container that has ended.
    pub(super) async fn exit_code(&self, id: &str) -> Result<Option<i64>, Fault> {
        let ended = async |docker: Docker| match docker.wait_container(id, None).next().await {
            None => Ok(None),
            Some(Ok(ended)) => Ok(Some(ended.status_code)),
            Some(Err(Error::DockerContainerWaitError { code, .. })) => Ok(Some(code)),
            Some(Err(error)) => Err(error),
        };
        self.call(CALL, ended).await
    }

    /// What the container's init had to say about a program that it could not execute. Nothing else is taken from a
    /// worker's log, which may hold anything.
    pub(super) async fn words_of_init(&self, id: &str) -> Result<String, Fault> {
        let options = LogsOptionsBuilder::new().stderr(true).tail("5").build();
        let read = async |docker: Docker| docker.logs(id, Some(options)).try_collect::<Vec<_>>().await;
        let log = self.call(CALL, read).await?;
        let text: String = log.iter().map(ToString::to_string).collect();
        Ok(text.lines().find(|line| line.starts_with("[FATAL tini")).unwrap_or_default().to_owned())
    }

    /// Asks a container to end, and kills it after the grace.
    pub(super) async fn stop(&self, id: &str, grace: Duration) -> Result<(), Fault> {
        // The engine counts whole seconds, and 0 would kill at once where a little time was given.
        let seconds = grace.as_millis().div_ceil(1000).min(i32::MAX as u128);
        let options = StopContainerOptionsBuilder::new().t(i32::try_from(seconds).unwrap_or(i32::MAX)).build();
        self.call(grace.saturating_add(STOP_MARGIN), async |docker| docker.stop_container(id, Some(options)).await)
            .await
    }

    /// Removes a container with its anonymous volumes; one that runs only by force.
    pub(super) async fn remove(&self, id: &str, force: bool) -> Result<(), Fault> {
        let options = RemoveContainerOptionsBuilder::new().v(true).force(force).build();
        self.call(CALL, async |docker| docker.remove_container(id, Some(options)).await).await
    }

    /// Pulls an image. A stream that ends half-way, or falls silent, is a time-out: the next try goes on from the
    /// layers that are there.
    pub(super) async fn pull(&self, image: &str) -> Result<(), Fault> {
        let reference = with_tag(image);
        let docker = self.docker(PULL_SILENCE)?;
        let options = CreateImageOptionsBuilder::new().from_image(&reference).build();
        let mut progress = docker.create_image(Some(options), None, None);
        loop {
            match tokio::time::timeout(PULL_SILENCE, progress.next()).await {
                Ok(Some(Ok(_))) => {}
                // The stream began well and then told of a failure: as good as a refusal.
                Ok(Some(Err(Error::DockerStreamError { error }))) => {
                    return Err(Fault::Refused { status: 500, words: error });
                }
                Ok(Some(Err(error))) => return Err(error.into()),
                Ok(None) => return Ok(()),
                Err(_) => return Err(Error::RequestTimeoutError.into()),
            }
        }
    }

    /// A client for one call. Made anew each time, which opens no connection: the library pools none anyway, and it
    /// refuses to be made while the socket is not there. Paths go out without a version, so the engine answers in
    /// its own, whichever it is: nothing is negotiated, and an engine replaced by an older or newer one is no matter.
    fn docker(&self, limit: Duration) -> Result<Docker, Fault> {
        let docker = match &self.host {
            Host::Unix(path) => Docker::connect_with_unix(path, limit.as_secs(), bollard::API_DEFAULT_VERSION),
            Host::Tcp(address) => Docker::connect_with_http(address, limit.as_secs(), bollard::API_DEFAULT_VERSION),
        };
        docker.map_err(Fault::from)
    }

    /// One call within its limit. The library's own limit ends with the answer's first line; ours holds its body too.
    async fn call<T, F>(&self, limit: Duration, send: impl FnOnce(Docker) -> F) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let docker = self.docker(limit)?;
        match tokio::time::timeout(limit, send(docker)).await {
            Ok(answer) => answer.map_err(Fault::from),
            Err(_) => Err(Error::RequestTimeoutError.into()),
        }
    }
}

/// The reference with a tag: without one the engine would pull every tag that the repository has.
fn with_tag(image: &str) -> String {
    let name = image.rsplit('/').next().unwrap_or(image);
    if name.contains([':', '@']) { image.to_owned() } else { format!("{image}:latest") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// An engine that reads one request, answers with the given bytes and hangs up; what it read comes back.
    async fn answered(reply: &'static str) -> (Result<Vec<ContainerSummary>, Fault>, String) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let engine = Engine::new(&format!("tcp://{}", listener.local_addr().unwrap())).unwrap();
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let read = stream.read(&mut request).await.unwrap();
            stream.write_all(reply.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&request[..read]).into_owned()
        });
        let answer = engine.list("label", vec!["a=b".to_owned()]).await;
        (answer, served.await.unwrap())
    }

    fn class(answer: Result<Vec<ContainerSummary>, Fault>) -> ErrorClass {
        answer.unwrap_err().into_error().class
    }

    #[tokio::test]
    async fn calls_name_no_version_so_that_any_engine_answers() {
        let (answer, request) = answered("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]").await;
        assert!(answer.unwrap().is_empty());
        assert!(request.starts_with("GET /containers/json?all=true"), "{request}");
    }

    #[tokio::test]
    async fn an_engine_that_is_away_is_unavailable_and_one_that_hangs_up_is_a_time_out() {
        for host in ["unix:///nonexistent/docker.sock", "tcp://127.0.0.1:1"] {
            let answer = Engine::new(host).unwrap().list("label", Vec::new()).await;
            assert_eq!(class(answer), ErrorClass::Unavailable, "{host}");
        }
        assert_eq!(class(answered("").await.0), ErrorClass::Timeout);
    }

    #[tokio::test]
    async fn an_engine_in_trouble_is_internal_and_its_words_come_through() {
        let (answer, _) = answered(
            "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 30\r\n\r\n{\"message\":\"no space on disk\"}",
        )
        .await;
        let error = answer.unwrap_err().into_error();
        assert_eq!(error.class, ErrorClass::Internal);
        assert_eq!(error.message, "docker engine answered 500: no space on disk");
    }

    #[tokio::test]
    async fn an_answer_that_cannot_be_read_is_not_quoted() {
        let (answer, _) = answered("HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n[{\"Id\":\"hunt").await;
        let error = answer.unwrap_err().into_error();
        assert_eq!(error.class, ErrorClass::Internal);
        assert!(!error.message.contains("hunt"), "{error}");
    }

    #[test]
    fn a_host_of_another_kind_is_refused() {
        for bad in ["", "unix://", "unix://relative", "https://a:2376", "ssh://a", "tcp://"] {
            assert!(Engine::new(bad).is_err(), "{bad:?} must be refused");
        }
        for good in ["unix:///var/run/docker.sock", "/var/run/docker.sock", "tcp://10.0.0.1:2375", "http://a:2375/"] {
            assert!(Engine::new(good).is_ok(), "{good:?} must be read");
        }
    }

    #[test]
    fn an_image_without_a_tag_means_its_latest() {
        assert_eq!(with_tag("busybox"), "busybox:latest");
        assert_eq!(with_tag("localhost:5000/a"), "localhost:5000/a:latest");
        assert_eq!(with_tag("localhost:5000/a:1"), "localhost:5000/a:1");
        assert_eq!(with_tag("a@sha256:00"), "a@sha256:00");
    }
}
