//! A scheduler that keeps a journal: what it was asked, in which order, and how far the provider had come by then.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use async_nats::Client;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::checker::{Asked, Kind};
use crate::home::Home;

/// Answers on `<prefix>.scheduler.…` until it is dropped.
pub(crate) struct Scheduler {
    journal: watch::Receiver<Vec<Asked>>,
    /// Requests of a kind that it lets pass without an answer.
    silences: Arc<Mutex<VecDeque<Kind>>>,
    task: JoinHandle<()>,
}

impl Scheduler {
    pub(crate) async fn start(client: Client, prefix: &str, home: Home) -> Self {
        let mut requests = client.subscribe(subject(prefix, "*")).await.expect("subscribed");
        // What comes back to us has passed the broker after the subscription.
        client.publish(subject(prefix, "here"), "".into()).await.expect("sent");
        requests.next().await.expect("the broker listens");
        let (told, journal) = watch::channel(Vec::new());
        let silences: Arc<Mutex<VecDeque<Kind>>> = Arc::default();
        let silent = silences.clone();
        let task = tokio::spawn(async move {
            let mut seen: BTreeMap<String, u64> = BTreeMap::new();
            while let Some(message) = requests.next().await {
                let Some(inbox) = message.reply else { continue };
                let body: Value = serde_json::from_slice(&message.payload).expect("a request in JSON");
                let kind = match message.subject.rsplit('.').next() {
                    Some("register") => Kind::Register,
                    Some("unregister") => Kind::Unregister,
                    _ => {
                        let _ = client.publish(inbox, json!({ "workers": [] }).to_string().into()).await;
                        continue;
                    }
                };
                let worker = body["worker_id"].as_str().expect("a worker").to_owned();
                let epoch = body["epoch"].as_u64().expect("an epoch");
                let steps = home.steps().len();
                let known = seen.entry(worker.clone()).or_default();
                let status = match kind {
                    Kind::Register if epoch < *known => "already",
                    Kind::Unregister if *known == 0 => "unknown",
                    Kind::Register | Kind::Unregister => "accepted",
                };
                *known = epoch.max(*known);
                let passed_over = {
                    let mut silent = silent.lock().expect("no panic under this lock");
                    silent.front() == Some(&kind) && silent.pop_front().is_some()
                };
                told.send_modify(|journal| journal.push(Asked { kind, worker, epoch, steps }));
                if !passed_over {
                    let _ = client.publish(inbox, json!({ "status": status }).to_string().into()).await;
                }
            }
        });
        Self { journal, silences, task }
    }

    /// The next request of this kind gets no answer.
    pub(crate) fn pass_over(&self, kind: Kind) {
        self.silences.lock().expect("no panic under this lock").push_back(kind);
    }

    /// Waits until a request of this kind has come.
    pub(crate) async fn asked(&self, kind: Kind) {
        let mut journal = self.journal.clone();
        journal.wait_for(|journal| journal.iter().any(|asked| asked.kind == kind)).await.expect("it still answers");
    }

    pub(crate) fn journal(&self) -> Vec<Asked> {
        self.journal.borrow().clone()
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) fn subject(prefix: &str, verb: &str) -> String {
    format!("{prefix}.scheduler.{verb}")
}
