//! A nats-server for one run, set up as the floor sets up its own.

use std::ffi::OsStr;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Ends with the value, and its store with it.
pub(crate) struct Broker {
    child: Child,
    url: String,
    _store: TempDir,
}

impl Broker {
    #[allow(clippy::disallowed_methods, reason = "nothing else is to run meanwhile")]
    pub(crate) fn start(binary: &OsStr) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
        let store = TempDir::with_prefix("enlist-bench-").expect("a folder");
        let path = store.path().join("nats.conf");
        let text = format!(
            "listen: 127.0.0.1:{port}\njetstream {{ store_dir: \"{}\", max_mem: 8G, max_file: 40G }}\n",
            store.path().display()
        );
        std::fs::write(&path, text).expect("its settings");
        let child = Command::new(binary)
            .arg("-c")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nats-server runs");
        let broker = Self { child, url: format!("nats://127.0.0.1:{port}"), _store: store };
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(began.elapsed() < Duration::from_secs(10), "nats-server does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        // As the floor waits for its own.
        std::thread::sleep(Duration::from_millis(150));
        broker
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
