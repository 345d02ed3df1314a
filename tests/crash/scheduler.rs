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
    book: Arc<Mutex<Book>>,
    task: JoinHandle<()>,
}

/// What it has written down.
struct Book {
    told: watch::Sender<Vec<Asked>>,
    /// The highest epoch of each worker that it was asked about.
    seen: BTreeMap<String, u64>,
    /// Who is registered, and under which epoch.
    listed: BTreeMap<String, u64>,
    /// Requests of a kind that it lets pass without an answer.
    silences: VecDeque<Kind>,
}

impl Book {
    fn answer(&mut self, kind: Kind, body: &Value, steps: usize) -> Option<&'static str> {
        let worker = body["worker_id"].as_str().expect("a worker").to_owned();
        let epoch = body["epoch"].as_u64().expect("an epoch");
        let seen = self.seen.entry(worker.clone()).or_default();
        let fresh = epoch >= *seen;
        let status = match kind {
            Kind::Register if !fresh => "already",
            Kind::Unregister if *seen == 0 => "unknown",
            Kind::Register | Kind::Unregister | Kind::Forgot => "accepted",
        };
        *seen = epoch.max(*seen);
        match kind {
            Kind::Register if fresh => drop(self.listed.insert(worker.clone(), epoch)),
            Kind::Unregister if fresh => drop(self.listed.remove(&worker)),
            Kind::Register | Kind::Unregister | Kind::Forgot => {}
        }
        self.told.send_modify(|journal| journal.push(Asked { kind, worker, epoch, steps }));
        let passed_over = self.silences.front() == Some(&kind) && self.silences.pop_front().is_some();
        (!passed_over).then_some(status)
    }

    fn list(&self, pool: &str) -> Value {
        let listed = self.listed.iter();
        let workers: Vec<Value> =
            listed.map(|(worker, epoch)| json!({ "worker_id": worker, "pool": pool, "epoch": epoch })).collect();
        json!({ "workers": workers })
    }
}

impl Scheduler {
    pub(crate) async fn start(client: Client, prefix: &str, pool: &'static str, home: Home) -> Self {
        let mut requests = client.subscribe(subject(prefix, "*")).await.expect("subscribed");
        // What comes back to us has passed the broker after the subscription.
        client.publish(subject(prefix, "here"), "".into()).await.expect("sent");
        requests.next().await.expect("the broker listens");
        let (told, journal) = watch::channel(Vec::new());
        let empty = Book { told, seen: BTreeMap::new(), listed: BTreeMap::new(), silences: VecDeque::new() };
        let book = Arc::new(Mutex::new(empty));
        let written = book.clone();
        let task = tokio::spawn(async move {
            while let Some(message) = requests.next().await {
                let Some(inbox) = message.reply else { continue };
                let body: Value = serde_json::from_slice(&message.payload).expect("a request in JSON");
                let steps = home.steps().len();
                let reply = {
                    let mut book = written.lock().expect("no panic under this lock");
                    let status = |status: &'static str| json!({ "status": status });
                    match message.subject.rsplit('.').next() {
                        Some("register") => book.answer(Kind::Register, &body, steps).map(status),
                        Some("unregister") => book.answer(Kind::Unregister, &body, steps).map(status),
                        _ => Some(book.list(pool)),
                    }
                };
                if let Some(reply) = reply {
                    let _ = client.publish(inbox, reply.to_string().into()).await;
                }
            }
        });
        Self { journal, book, task }
    }

    /// The next request of this kind gets no answer.
    pub(crate) fn pass_over(&self, kind: Kind) {
        self.book.lock().expect("no panic under this lock").silences.push_back(kind);
    }

    /// Loses a worker from its list, as one does that was put back to an older state.
    pub(crate) fn forget(&self, worker: &str) {
        let mut book = self.book.lock().expect("no panic under this lock");
        let epoch = book.listed.remove(worker).expect("it is listed");
        book.seen.remove(worker);
        let forgot = Asked { kind: Kind::Forgot, worker: worker.to_owned(), epoch, steps: 0 };
        book.told.send_modify(|journal| journal.push(forgot));
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
