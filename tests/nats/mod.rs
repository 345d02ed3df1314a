//! A nats-server of a test's own, killed with it.
#![allow(dead_code, unreachable_pub)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A running server, or one that was stopped and keeps its port.
pub struct Server {
    child: Option<Child>,
    port: u16,
}

impl Server {
    /// Starts one on a free port.
    pub fn start() -> Self {
        let (child, port) = launch("-1");
        Self { child: Some(child), port }
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Kills it.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts it again on its port.
    pub fn start_again(&mut self) {
        self.stop();
        self.child = Some(launch(&self.port.to_string()).0);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// `NATS_SERVER`, else the `PATH`, else the virtual environment of the repository.
fn binary() -> PathBuf {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/nats-server");
    let on_path =
        || std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join("nats-server")).find(|f| f.is_file());
    std::env::var_os("NATS_SERVER").map(PathBuf::from).or_else(on_path).unwrap_or(beside)
}

/// Waits for the line that says it is ready; its log is read to the end, so that the pipe never fills.
fn launch(port: &str) -> (Child, u16) {
    let binary = binary();
    let mut child = Command::new(&binary)
        .args(["-a", "127.0.0.1", "-p", port])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}; set NATS_SERVER", binary.display()));
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let mut port = 0;
    for line in lines.by_ref() {
        if let Some((_, address)) = line.split_once("Listening for client connections on ") {
            port = address.rsplit_once(':').unwrap().1.parse().unwrap();
        }
        if line.contains("Server is ready") {
            break;
        }
    }
    assert_ne!(port, 0, "nats-server did not start");
    std::thread::spawn(move || lines.for_each(drop));
    (child, port)
}
