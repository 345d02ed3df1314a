//! A nats-server for one run of `enlist dev`: found, checked, started, and ended with it.

use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::bus::connection::{OLDEST_SERVER, version};
use crate::config::tools;

/// What is run where there is no nats-server, but a Docker engine. The alpine image, for its shell.
const IMAGE: &str = "nats:2.15.1-alpine";

/// Waits for a line or the pipe's end, whichever is first; a line asks for an end in good order. The pipe ends when this
/// process does, whatever ended it, so that no broker is left behind.
const GUARD: &str =
    r#""$@" & server=$!; if read -r _; then kill -TERM $server; else kill -KILL $server; fi; wait $server"#;

/// Where the nats-server of a run comes from.
enum Kind {
    Binary(PathBuf),
    Docker,
}

/// A running nats-server. Dropping it ends it too, only less politely.
pub(super) struct Server {
    guard: Child,
    pub(super) url: String,
    /// For people: what runs, and where it keeps its store.
    pub(super) told: String,
}

#[derive(Deserialize)]
struct Greeting {
    server_name: String,
    version: String,
}

impl Server {
    /// Finds one and starts it, with its store and its log in `folder`.
    pub(super) async fn start(folder: &Path, say: impl Fn(&str)) -> anyhow::Result<Self> {
        let kind = find().await?;
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let name = format!("enlist-dev-{port}");
        let log = folder.join("nats-server.log");
        let store = folder.join("nats");
        let (mut command, patience, what, place) = match &kind {
            Kind::Binary(path) => {
                let mut command = guarded();
                command.arg(path).args(["-a", "127.0.0.1", "-p", &port.to_string(), "-n", &name, "-js", "-sd"]);
                command.arg(&store);
                (command, Duration::from_secs(10), path.display().to_string(), store.display().to_string())
            }
            Kind::Docker => {
                say(&format!("no nats-server here: starting a container of {IMAGE}, pulled first if it has to be"));
                let mut command = Command::new("docker");
                command.args(["run", "--rm", "-i", "--name", &name, "--entrypoint", "sh"]);
                command.args(["-p", &format!("127.0.0.1:{port}:4222"), IMAGE, "-c", GUARD, "guard"]);
                command.args(["nats-server", "-n", &name, "-js", "-sd", "/data"]);
                (command, Duration::from_secs(180), format!("container {name}"), "the container".to_owned())
            }
        };
        let written = File::create(&log).with_context(|| log.display().to_string())?;
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(written);
        // A group of its own: an interrupt at the terminal is for this process, which then ends the broker last.
        let guard = command.process_group(0).spawn().with_context(|| format!("cannot start {what}"))?;
        let mut server = Self { guard, url: format!("nats://127.0.0.1:{port}"), told: String::new() };
        let Some(version) = server.answers(port, &name, patience).await else {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            let last: Vec<String> = said.lines().rev().take(5).map(|line| crate::text::cut(line, 200)).collect();
            let last = last.into_iter().rev().fold(String::new(), |text, line| text + "\n  " + &line);
            bail!("{what} does not answer at {}; the last that it said:{last}", server.url)
        };
        server.told = format!("nats-server {version} ({what}) at {}, its store in {place}", server.url);
        Ok(server)
    }

    /// Its version, once it greets; `None` where it ended or took too long. The name tells it from another program's
    /// server that was quicker to take the port.
    async fn answers(&mut self, port: u16, name: &str, patience: Duration) -> Option<String> {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline && matches!(self.guard.try_wait(), Ok(None)) {
            if let Ok(Ok(greeting)) = timeout(Duration::from_secs(1), greeting(port)).await
                && greeting.server_name == name
            {
                return Some(greeting.version);
            }
            sleep(Duration::from_millis(20)).await;
        }
        None
    }

    /// Ends it in good order.
    pub(super) async fn stop(mut self) {
        if let Some(mut pipe) = self.guard.stdin.take() {
            let _ = pipe.write_all(b"end\n").await;
            // Closed: should the line be lost, the end of the pipe is enough.
            drop(pipe);
        }
        let _ = timeout(Duration::from_secs(10), self.guard.wait()).await;
    }
}

fn guarded() -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", GUARD, "guard"]);
    command
}

async fn greeting(port: u16) -> io::Result<Greeting> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).await?;
    let json = line.strip_prefix("INFO ").unwrap_or_default();
    serde_json::from_str(json).map_err(io::Error::other)
}

/// `NATS_SERVER`, then PATH, then what `make venv` brings, then Docker; one that is too old is passed over.
async fn find() -> anyhow::Result<Kind> {
    let tools = tools();
    if let Some(named) = tools.nats_server {
        return match of(&named).await {
            Ok(()) => Ok(Kind::Binary(named)),
            Err(why) => bail!("NATS_SERVER: {why}"),
        };
    }
    let mut passed_over = String::new();
    let on_path = tools.path.into_iter().map(|folder| folder.join("nats-server"));
    for path in on_path.chain([PathBuf::from(".venv/bin/nats-server")]).filter(|path| path.is_file()) {
        match of(&path).await {
            Ok(()) => return Ok(Kind::Binary(path)),
            Err(why) => {
                let _ = write!(passed_over, "\n  passed over: {why}");
            }
        }
    }
    let engine = Command::new("docker").args(["version", "--format", "{{.Server.Version}}"]).output();
    if matches!(timeout(Duration::from_secs(5), engine).await, Ok(Ok(answer)) if answer.status.success()) {
        return Ok(Kind::Docker);
    }
    let (major, minor, patch) = OLDEST_SERVER;
    bail!(
        "no broker to start. One of these brings one:\n  \
         make venv                       puts a nats-server into .venv (needs Python)\n  \
         install nats-server             {major}.{minor}.{patch} or later, on PATH or named by NATS_SERVER\n  \
         start Docker                    then a container of {IMAGE} is used\n\
         or name one that runs already: --nats-url, NATS_URL, --context{passed_over}"
    )
}

/// Whether a binary is a nats-server that is new enough; else why not.
async fn of(binary: &Path) -> Result<(), String> {
    let shown = binary.display();
    let asked = Command::new(binary).arg("--version").stdin(Stdio::null()).output();
    let answer = match timeout(Duration::from_secs(10), asked).await {
        Ok(Ok(answer)) => String::from_utf8_lossy(&answer.stdout).into_owned(),
        Ok(Err(error)) => return Err(format!("{shown}: {error}")),
        Err(_) => return Err(format!("{shown} does not say its version")),
    };
    let found =
        answer.trim().strip_prefix("nats-server: v").and_then(|text| version(text).map(|parsed| (text, parsed)));
    let (major, minor, patch) = OLDEST_SERVER;
    match found {
        Some((_, parsed)) if parsed >= OLDEST_SERVER => Ok(()),
        Some((text, _)) => Err(format!("{shown} is {text}, enlist needs {major}.{minor}.{patch} or later")),
        None => Err(format!("{shown} does not say the version of a nats-server")),
    }
}
