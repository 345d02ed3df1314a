//! A replica as a process of its own: the real binary, its log, its exit code, and its http pages.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);

/// Killed with the value that holds it.
pub(crate) struct Child {
    process: tokio::process::Child,
    lines: mpsc::UnboundedReceiver<String>,
    said: Vec<String>,
    address: Option<SocketAddr>,
}

impl Child {
    pub(crate) fn spawn(config: &Path, env: BTreeMap<String, String>) -> Self {
        Self::spawn_verb(config, env, &["run"])
    }

    /// Any verb, with the lines of both of its outputs.
    pub(super) fn spawn_verb(config: &Path, env: BTreeMap<String, String>, args: &[&str]) -> Self {
        let mut command = enlist(config, env);
        command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().unwrap();
        let (tell, lines) = mpsc::unbounded_channel();
        hear(process.stdout.take().unwrap(), tell.clone());
        hear(process.stderr.take().unwrap(), tell);
        Self { process, lines, said: Vec::new(), address: None }
    }

    /// Waits for the line that says where its pages are.
    pub(super) async fn listening(&mut self) {
        let line = self.line("taking commands").await;
        let line: Value = serde_json::from_str(&line).unwrap();
        self.address = Some(line["http"].as_str().unwrap().parse().unwrap());
    }

    /// Waits for a line of its log that contains `part`.
    pub(crate) async fn line(&mut self, part: &str) -> String {
        if let Some(line) = self.said.iter().find(|line| line.contains(part)) {
            return line.clone();
        }
        loop {
            match timeout(PATIENCE, self.lines.recv()).await {
                Ok(Some(line)) => {
                    self.said.push(line.clone());
                    if line.contains(part) {
                        return line;
                    }
                }
                ended => panic!("waited for {part:?} in vain ({ended:?}); it said:\n{}", self.said.join("\n")),
            }
        }
    }

    /// Waits until so many lines of its log contain `part`, and gives the last of them.
    pub(crate) async fn lines_with(&mut self, part: &str, number: usize) -> String {
        loop {
            if let Some(line) = self.said.iter().filter(|line| line.contains(part)).nth(number - 1) {
                return line.clone();
            }
            let line = timeout(PATIENCE, self.lines.recv()).await.expect("another line").expect("another line");
            self.said.push(line);
        }
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id().expect("it runs")
    }

    /// Where its pages are.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address.expect("a child that listens")
    }

    /// One of its pages: status and body.
    pub(crate) async fn page(&self, path: &str) -> (u16, String) {
        page(self.address(), path).await.expect("a page")
    }

    /// The value of a series on its metrics page.
    pub(crate) async fn metric(&self, series: &str) -> Option<String> {
        let (_, text) = self.page("/metrics").await;
        text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ').map(str::to_owned))
    }

    /// Asks it to end in good order.
    pub(crate) fn terminate(&self) {
        let pid = self.process.id().and_then(|id| Pid::from_raw(i32::try_from(id).unwrap())).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
    }

    /// Takes it away as a crash would.
    pub(crate) async fn kill(mut self) {
        self.process.kill().await.unwrap();
    }

    /// Its exit code (`None` where a signal ended it) and everything that it said.
    pub(crate) async fn exit(mut self) -> (Option<i32>, String) {
        let status = timeout(PATIENCE, self.process.wait()).await.expect("an end").unwrap();
        while let Some(line) = self.lines.recv().await {
            self.said.push(line);
        }
        (status.code(), self.said.join("\n"))
    }
}

/// Hands on each line.
fn hear(output: impl tokio::io::AsyncRead + Unpin + Send + 'static, tell: mpsc::UnboundedSender<String>) {
    let mut lines = BufReader::new(output).lines();
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            let _ = tell.send(line);
        }
    });
}

/// What a verb has said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// A verb that ends by itself, its two outputs apart.
pub(super) async fn run(config: &Path, env: BTreeMap<String, String>, args: &[&str]) -> Said {
    let output = timeout(PATIENCE, enlist(config, env).args(args).kill_on_drop(true).output()).await;
    let output = output.expect("an end").unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// A verb that ends by itself though what it prints has no reader.
pub(super) async fn run_unread(config: &Path, env: BTreeMap<String, String>, args: &[&str]) -> (Option<i32>, String) {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let child = spawn_into(writer, config, env, args);
    let output = timeout(PATIENCE, child.wait_with_output()).await.expect("an end").unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// A verb whose standard output nobody reads yet.
pub(super) fn spawn_unread(
    config: &Path,
    env: BTreeMap<String, String>,
    args: &[&str],
) -> (tokio::process::Child, std::io::PipeReader) {
    let (reader, writer) = std::io::pipe().unwrap();
    (spawn_into(writer, config, env, args), reader)
}

fn spawn_into(
    out: std::io::PipeWriter,
    config: &Path,
    env: BTreeMap<String, String>,
    args: &[&str],
) -> tokio::process::Child {
    enlist(config, env).args(args).stdout(out).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap()
}

/// A verb that ends by itself: its exit code, and what it has said, standard output first.
pub(crate) async fn says(config: &Path, env: BTreeMap<String, String>, args: &[&str]) -> (Option<i32>, String) {
    let verb = enlist(config, env).args(args).kill_on_drop(true).output();
    let output = timeout(PATIENCE, verb).await.expect("an end").unwrap();
    let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (output.status.code(), said)
}

/// The binary, in an environment of its own.
fn enlist(config: &Path, env: BTreeMap<String, String>) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_enlist"));
    command.args(["--log-format", "json", "--config"]).arg(config).env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).envs(env).stdin(Stdio::null());
    command
}

/// A page of a replica: status and body; `None` where nobody listens.
pub(crate) async fn page(at: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(at).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}
