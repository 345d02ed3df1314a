//! The contract from the other side: a client and a scheduler in Python, which know nothing of this code.
#![allow(clippy::unwrap_used)]

#[path = "crash/replica.rs"]
mod replica;

/// The one broker harness, which lives with the integration tests.
#[path = "integration"]
mod integration {
    pub(crate) mod broker;
}

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use integration::broker::Broker;
use replica::Replica;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::timeout;

const PREFIX: &str = "foreign";
/// Longer than the client's own patience with each single step.
const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test]
async fn an_independent_client_and_scheduler_find_what_the_contract_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join(".venv/bin/python");
    if !python.exists() {
        let must = ["CI", "MAKELEVEL"].iter().any(|name| std::env::var_os(name).is_some());
        assert!(!must, "{} is missing: tests/venv makes it", python.display());
        // Past libtest's capture: what was not tested must be seen.
        let note = "SKIPPED: the independent client needs .venv/bin/python, which `make venv` brings\n";
        std::io::Write::write_all(&mut std::io::stderr(), note.as_bytes()).unwrap();
        return;
    }
    let broker = Broker::shared().await;
    let folder = TempDir::with_prefix("enlist-python-").unwrap();
    let settings = folder.path().join("enlist.toml");
    std::fs::write(&settings, text(broker.url())).unwrap();
    let replica = Replica::start(&settings, None).await;
    let client = Command::new(&python)
        .arg(root.join("tests/python/client.py"))
        .args([broker.url(), PREFIX])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let said = timeout(PATIENCE, client.wait_with_output()).await.expect("the client comes to an end").unwrap();
    assert!(
        said.status.success(),
        "{}\n{}\nthe replica's log:\n{}",
        String::from_utf8_lossy(&said.stdout),
        String::from_utf8_lossy(&said.stderr),
        replica.log()
    );
    replica.drained().await.unwrap();
}

fn text(url: &str) -> String {
    format!(
        r#"
prefix = "{PREFIX}"
[nats]
url = "{url}"
[http]
listen = "127.0.0.1:0"
[sweep]
interval = "12h"
[scheduler]
register = "{PREFIX}.scheduler.register"
unregister = "{PREFIX}.scheduler.unregister"
list = "{PREFIX}.scheduler.list"
[pools.py]
provider = "null"
allow = ["labels"]
[pools.tiny]
provider = "null"
max_workers = 1
[pools.edge]
provider = "static"
hosts = [{{ id = "edge-1", endpoint = "10.0.0.11:22", cpus = 8 }}]
"#
    )
}
