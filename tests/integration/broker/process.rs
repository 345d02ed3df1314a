//! A nats-server as a child process, under a shell that ends it when this process is gone.

use std::io::Write as _;
use std::net::TcpListener;
use std::ops::Range;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

/// Waits for a line or the pipe's end, whichever is first; a line asks for an end in good order. The server's standard
/// input is not the pipe (a shell gives its background jobs none), so that nothing but the shell reads it.
const GUARD: &str =
    r#""$@" & server=$!; if read -r _; then kill -TERM $server; else kill -KILL $server; fi; wait $server"#;

/// Below the folder that the server is given.
const STORE: &str = "jetstream";

/// One server: its port and its store outlive a kill.
pub(super) struct Server {
    binary: PathBuf,
    flags: Vec<String>,
    name: String,
    port: u16,
    store: TempDir,
    guard: Option<Child>,
}

impl Server {
    pub(super) async fn start(binary: PathBuf, flags: &[&str]) -> Self {
        let store = TempDir::with_prefix("enlist-nats-").expect("a folder for the store");
        let port = free_port();
        let name = format!("test-{}-{port}", std::process::id());
        let flags = flags.iter().map(ToString::to_string).collect();
        let mut server = Self { binary, flags, name, port, store, guard: None };
        server.run().await;
        server
    }

    pub(super) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Starts the server, and returns when it answers.
    pub(super) async fn run(&mut self) {
        assert!(self.guard.is_none(), "the broker runs already");
        let log = self.store.path().join("log");
        let guard = Command::new("sh")
            .args(["-c", GUARD, "guard"])
            .arg(&self.binary)
            .args(["-a", "127.0.0.1", "-p", &self.port.to_string(), "-n", &self.name, "-js", "-sd"])
            .arg(self.store.path())
            .arg("-l")
            .arg(&log)
            .args(&self.flags)
            // A group of its own: an interrupt at the terminal ends the test binary, and the guard then ends the server.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell to guard the server");
        self.guard = Some(guard);
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.answers().await {
            if Instant::now() > deadline {
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                panic!("{} does not answer at port {}:\n{said}", self.binary.display(), self.port);
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Whether the one that greets at this port is this server, and not another test's.
    async fn answers(&self) -> bool {
        let greeting = async {
            let stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line).await?;
            std::io::Result::Ok(line)
        };
        let expected = format!(r#""server_name":"{}""#, self.name);
        matches!(timeout(Duration::from_secs(1), greeting).await, Ok(Ok(line)) if line.contains(&expected))
    }

    pub(super) fn kill(&mut self) {
        self.end(false);
    }

    pub(super) fn stop(&mut self) {
        self.end(true);
    }

    /// The store of a server that does not run.
    pub(super) fn copy_out(&self) -> TempDir {
        let copy = TempDir::with_prefix("enlist-nats-").expect("a folder for the copy");
        copy_all(&self.store.path().join(STORE), &copy.path().join(STORE));
        copy
    }

    /// Replaces the store of a server that does not run.
    pub(super) fn copy_in(&self, copy: &Path) {
        let store = self.store.path().join(STORE);
        std::fs::remove_dir_all(&store).expect("the store");
        copy_all(&copy.join(STORE), &store);
    }

    fn end(&mut self, in_good_order: bool) {
        let Some(mut guard) = self.guard.take() else { return };
        let mut pipe = guard.stdin.take();
        if let Some(pipe) = pipe.as_mut().filter(|_| in_good_order) {
            let _ = pipe.write_all(b"end\n");
        }
        drop(pipe);
        let _ = guard.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy_all(&from, &to);
        } else {
            std::fs::copy(&from, &to).expect("a copy");
        }
    }
}

/// Below the range from which the kernel takes the ports of outgoing connections: else a client that knocks at the port
/// of a broker that is away could be given that very port, and keep the broker from coming back.
pub(super) fn free_port() -> u16 {
    const RANGE: Range<u16> = 12_000..30_000;
    static TRIED: AtomicUsize = AtomicUsize::new(0);
    // Test binaries that run at once start at places of their own.
    let start = std::process::id() as usize;
    let next = || start.wrapping_add(TRIED.fetch_add(1, Ordering::Relaxed)) % RANGE.len();
    RANGE
        .filter_map(|_| RANGE.clone().nth(next()))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port on loopback")
}
