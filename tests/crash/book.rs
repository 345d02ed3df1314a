//! What a scheduler of a test keeps: whom it has, the epochs it has seen, and a journal of all that it was asked.

// One harness for several test binaries; not each uses all of it.
#![allow(dead_code)]

use std::collections::{BTreeMap, VecDeque};

use serde_json::{Value, json};
use tokio::sync::watch;

use crate::checker::{Asked, Kind};

/// What it has written down.
#[derive(Debug, Default)]
pub(crate) struct Book {
    told: watch::Sender<Vec<Asked>>,
    /// The highest epoch of each worker that it was asked about.
    seen: BTreeMap<String, u64>,
    /// Who is registered, and under which epoch.
    listed: BTreeMap<String, u64>,
    /// Requests of a kind that it lets pass without an answer.
    silences: VecDeque<Kind>,
}

impl Book {
    /// Writes a request down, and gives the status of its answer unless it is passed over.
    pub(crate) fn answer(&mut self, kind: Kind, body: &Value, steps: usize) -> Option<&'static str> {
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

    pub(crate) fn list(&self, pool: &str) -> Value {
        let listed = self.listed.iter();
        let workers: Vec<Value> =
            listed.map(|(worker, epoch)| json!({ "worker_id": worker, "pool": pool, "epoch": epoch })).collect();
        json!({ "workers": workers })
    }

    /// Whom it has.
    pub(crate) fn listed(&self) -> Vec<String> {
        self.listed.keys().cloned().collect()
    }

    /// The next request of this kind gets no answer.
    pub(crate) fn pass_over(&mut self, kind: Kind) {
        self.silences.push_back(kind);
    }

    /// Loses a worker from its list, as one does that was put back to an older state.
    pub(crate) fn forget(&mut self, worker: &str) {
        let epoch = self.listed.remove(worker).expect("it is listed");
        self.seen.remove(worker);
        let forgot = Asked { kind: Kind::Forgot, worker: worker.to_owned(), epoch, steps: 0 };
        self.told.send_modify(|journal| journal.push(forgot));
    }

    /// The journal, as it grows.
    pub(crate) fn follow(&self) -> watch::Receiver<Vec<Asked>> {
        self.told.subscribe()
    }
}
