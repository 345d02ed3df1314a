//! A scheduler that keeps a journal: what it was asked, in which order, and how far the provider had come by then.

use std::sync::{Arc, Mutex};

use async_nats::Client;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::book::Book;
use crate::checker::{Asked, Kind};
use crate::home::Home;

/// Answers on `<prefix>.scheduler.…` until it is dropped.
pub(crate) struct Scheduler {
    journal: watch::Receiver<Vec<Asked>>,
    book: Arc<Mutex<Book>>,
    task: JoinHandle<()>,
}

impl Scheduler {
    pub(crate) async fn start(client: Client, prefix: &str, pool: &'static str, home: Home) -> Self {
        let mut requests = client.subscribe(subject(prefix, "*")).await.expect("subscribed");
        // What comes back to us has passed the broker after the subscription.
        client.publish(subject(prefix, "here"), "".into()).await.expect("sent");
        requests.next().await.expect("the broker listens");
        let book = Book::default();
        let journal = book.follow();
        let book = Arc::new(Mutex::new(book));
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
        self.book.lock().expect("no panic under this lock").pass_over(kind);
    }

    /// Loses a worker from its list, as one does that was put back to an older state.
    pub(crate) fn forget(&self, worker: &str) {
        self.book.lock().expect("no panic under this lock").forget(worker);
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
