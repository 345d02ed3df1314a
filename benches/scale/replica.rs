//! enlist as a process, watched from outside.

use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::time::sleep;

use crate::wanted;

/// Ends with the value.
pub(crate) struct Process {
    child: Child,
    /// Where it serves its pages, if it does.
    pub(crate) http: Option<SocketAddr>,
    _folder: TempDir,
}

impl Process {
    /// `enlist <verb>` with these settings.
    pub(crate) fn start(url: &str, settings: &str, verb: &[&str]) -> Self {
        let folder = TempDir::with_prefix("enlist-scale-").expect("a folder");
        let path = folder.path().join("enlist.toml");
        std::fs::write(&path, settings).expect("the settings");
        let mut child = Command::new(wanted("ENLIST_BINARY"))
            .arg("--config")
            .arg(&path)
            .args(["--nats-url", url, "--log-format", "json"])
            .args(verb)
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("enlist runs");
        let mut log = BufReader::new(child.stderr.take().expect("its log")).lines();
        let mut http = None;
        if verb == ["run"] {
            for line in log.by_ref() {
                let line = line.expect("a line");
                if line.contains("taking commands") {
                    let at = line.split("\"http\":\"").nth(1).and_then(|rest| rest.split('"').next());
                    http = at.and_then(|at| at.parse().ok());
                    break;
                }
            }
        }
        std::thread::spawn(move || log.for_each(drop));
        Self { child, http, _folder: folder }
    }

    /// Resident memory now, and the most so far, in MiB.
    pub(crate) fn memory(&self) -> (f64, f64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0");
            line.split_whitespace().next().and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
        };
        (field("VmRSS:"), field("VmHWM:"))
    }

    /// Waits until `/readyz` says yes.
    pub(crate) async fn ready(&self) {
        let http = self.http.expect("it serves pages");
        while !is_ready(http) {
            sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_ready(http: SocketAddr) -> bool {
    page(http, "/readyz").starts_with("HTTP/1.1 200")
}

/// A page with its head.
pub(crate) fn page(http: SocketAddr, path: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut text = String::new();
    if let Ok(mut stream) = TcpStream::connect(http) {
        let _ = write!(stream, "GET {path} HTTP/1.1\r\nHost: {http}\r\nConnection: close\r\n\r\n");
        let _ = stream.read_to_string(&mut text);
    }
    text
}

/// Settings for a null pool named `load`; `more` is of the pool.
pub(crate) fn settings(more: &str) -> String {
    settings_of("null", more)
}

/// The same for a pool of another provider.
pub(crate) fn settings_of(provider: &str, more: &str) -> String {
    format!(
        "[http]\nlisten = \"127.0.0.1:0\"\n[sweep]\ninterval = \"12h\"\n[pools.load]\nprovider = \"{provider}\"\n{more}\n"
    )
}

/// How long something took, for a person.
pub(crate) fn seconds(began: Instant) -> String {
    format!("{:.2} s", began.elapsed().as_secs_f64())
}
