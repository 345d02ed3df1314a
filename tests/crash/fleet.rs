//! A fleet under a prefix of its own: one pool, its scheduler, and all that can be done to it from outside.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use async_nats::jetstream;
use async_nats::{Client, HeaderMap};
use enlist::crash::CrashPoint;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::checker::{Acked, Command, Stray, violations};
use crate::home::{Home, Provider};
use crate::replica::Replica;
use crate::scheduler::{Scheduler, subject};
use crate::watch::{Acks, Feed, derived, watch_acks};

pub(crate) const POOL: &str = "p";
/// All of a walk's ack waits and delays, and a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct Fleet {
    pub(crate) prefix: String,
    url: String,
    pub(crate) client: Client,
    pub(crate) context: jetstream::Context,
    folder: TempDir,
    pub(crate) home: Home,
    pub(crate) scheduler: Scheduler,
    pub(crate) commands: Vec<Command>,
    pub(crate) strays: Vec<Stray>,
    /// Places of events that nobody is to know of any more.
    pub(crate) forgotten: BTreeSet<u64>,
    pub(crate) acks: watch::Receiver<Acks>,
    watcher: JoinHandle<()>,
    pub(crate) feed: Feed,
    provider: Provider,
}

/// What of a fleet's settings is not the same for all.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) pool: &'static str,
    pub(crate) sweep: &'static str,
    pub(crate) scheduler: &'static str,
    /// Whether its scheduler answers `list`.
    pub(crate) lists: bool,
}

impl Default for Settings {
    /// Swept only when it is told to be.
    fn default() -> Self {
        Self { pool: "", sweep: "interval = \"12h\"\ngrace = \"0s\"", scheduler: "", lists: true }
    }
}

impl Fleet {
    pub(crate) async fn new(url: &str, prefix: &str, provider: Provider) -> Self {
        Self::with(url, prefix, provider, Settings::default()).await
    }

    pub(crate) async fn with(url: &str, prefix: &str, provider: Provider, settings: Settings) -> Self {
        let client = async_nats::connect(url).await.expect("the broker answers");
        let context = jetstream::new(client.clone());
        let folder = TempDir::with_prefix("enlist-crash-").expect("a folder");
        let home = Home::new(provider, folder.path());
        let scheduler = Scheduler::start(client.clone(), prefix, POOL, home.clone()).await;
        let (acks, watcher) = watch_acks(client.clone(), prefix, POOL).await;
        let feed = Feed::start(&client, prefix, POOL).await;
        let fleet = Self {
            prefix: prefix.to_owned(),
            url: url.to_owned(),
            client,
            context,
            folder,
            home,
            scheduler,
            commands: Vec::new(),
            strays: Vec::new(),
            forgotten: BTreeSet::new(),
            acks,
            watcher,
            feed,
            provider,
        };
        fleet.configure(settings);
        fleet
    }

    /// What replicas go by that start from now on.
    pub(crate) fn configure(&self, settings: Settings) {
        let list = if settings.lists { "list" } else { "nobody.list" };
        let prefix = &self.prefix;
        let [register, unregister, list] = ["register", "unregister", list].map(|verb| subject(prefix, verb));
        let Settings { pool, sweep, scheduler: more, lists: _ } = settings;
        let text = format!(
            "prefix = \"{prefix}\"\n[nats]\nurl = \"{}\"\n[http]\nlisten = \"127.0.0.1:0\"\n\
             [providers.process]\nstate_dir = \"{}\"\n[sweep]\n{sweep}\n\
             [scheduler]\nregister = \"{register}\"\nunregister = \"{unregister}\"\nlist = \"{list}\"\n{more}\n\
             [pools.{POOL}]\n{}{pool}\n",
            self.url,
            self.home.state().display(),
            self.home.settings(),
        );
        std::fs::write(self.settings(), text).expect("the settings");
    }

    pub(crate) fn settings(&self) -> PathBuf {
        self.folder.path().join("enlist.toml")
    }

    pub(crate) async fn replica(&self, point: Option<CrashPoint>) -> Replica {
        Replica::start(&self.settings(), point).await
    }

    /// Sends a provision under a worker id of its own, or of the contract's choice.
    pub(crate) async fn provision(&mut self, id: &str, worker: Option<&str>, more: &Value) {
        let mut body = json!({ "command_id": id, "correlation_id": "a walk" });
        if let Some(worker) = worker {
            body["worker_id"] = json!(worker);
        }
        for (name, value) in more.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        let worker = match (worker, self.provider) {
            (Some(worker), _) => Some(worker.to_owned()),
            (None, Provider::Null | Provider::Process) => Some(derived(POOL, id)),
            // Whichever host is free.
            (None, Provider::Static) => None,
        };
        self.send("provision", Some(id), worker, body.to_string()).await;
    }

    pub(crate) async fn terminate(&mut self, id: &str, worker: &str) {
        let body = json!({ "command_id": id, "worker_id": worker, "reason": "the walk asks for it" });
        self.send("terminate", Some(id), Some(worker.to_owned()), body.to_string()).await;
    }

    /// Gives the pool a size.
    pub(crate) async fn size(&mut self, id: &str, size: u32) {
        let body = json!({ "command_id": id, "size": size, "correlation_id": "a size" });
        self.send("pool", Some(id), None, body.to_string()).await;
    }

    /// Asks for a sweep.
    pub(crate) async fn sweep(&mut self, id: &str) {
        self.send("sweep", Some(id), None, json!({ "command_id": id }).to_string()).await;
    }

    /// The worker of a command that was sent.
    pub(crate) fn worker_of(&self, id: &str) -> String {
        let sent = self.commands.iter().find(|sent| sent.id.as_deref() == Some(id)).expect("sent before");
        sent.worker.clone().expect("its worker")
    }

    /// Ends a worker's instance, and tells nobody.
    pub(crate) fn vanish(&self, worker: &str) {
        self.home.vanish(POOL, &self.prefix, worker);
    }

    /// Takes a worker's events out of the log, and its entry out of the view, as an operator does by mistake. What is left
    /// is an instance that no record tells of.
    pub(crate) async fn lose_record(&mut self, id: &str) {
        let worker = self.worker_of(id);
        let history = self.history().await;
        self.forgotten
            .extend(history.events.iter().filter(|event| event.worker() == worker).map(|event| event.sequence));
        let view = format!("KV_{}_workers", self.prefix);
        let places = [
            (format!("{}_EVENTS", self.prefix.to_uppercase()), format!("{}.events.{POOL}.{worker}.*", self.prefix)),
            (view, format!("$KV.{}_workers.{POOL}.{worker}", self.prefix)),
        ];
        for (stream, filter) in places {
            let stream = self.context.get_stream(stream).await.expect("the stream");
            stream.purge().filter(filter).await.expect("it can be purged");
        }
        self.commands.retain(|sent| sent.id.as_deref() != Some(id));
        self.strays.push(Stray { instance: self.home.instance(&worker), worker, command: id.to_owned() });
    }

    /// Takes a command out of its queue, as an operator does who purges it: nobody will ever settle it.
    pub(crate) async fn take_out(&mut self, id: &str) {
        let queue = self.context.get_stream(self.queue()).await.expect("the queue");
        let sent = self.commands.iter_mut().find(|sent| sent.id.as_deref() == Some(id)).expect("sent before");
        queue.delete_message(sent.sequence).await.expect("it is still there");
        sent.acked = Some(Acked { events: u64::MAX, dead: u64::MAX });
    }

    /// Sends a provision that is none.
    pub(crate) async fn noise(&mut self) {
        self.send("provision", None, None, "{".to_owned()).await;
    }

    /// Sends a command once more, as a publisher does that has heard no PubAck and whose window is over.
    pub(crate) async fn again(&mut self, id: &str) {
        let sent = self.commands.iter().find(|sent| sent.id.as_deref() == Some(id)).expect("sent before").clone();
        self.send(sent.verb, Some(id), sent.worker, sent.body).await;
    }

    async fn send(&mut self, verb: &'static str, id: Option<&str>, worker: Option<String>, body: String) {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", format!("{}-{}", id.unwrap_or("noise"), self.commands.len()).as_str());
        let to = format!("{}.cmd.{POOL}.{verb}", self.prefix);
        let sent = self.context.publish_with_headers(to, headers, body.clone().into()).await.expect("sent");
        let sequence = sent.await.expect("stored").sequence;
        self.commands.push(Command { sequence, verb, id: id.map(str::to_owned), worker, body, acked: None });
    }

    /// Waits until every command is acked, and all that lay in the queue when this was asked is gone from it.
    pub(crate) async fn settled(&mut self) -> Result<(), String> {
        let open = self.commands.iter().filter(|command| command.acked.is_none()).map(|command| command.sequence);
        let mut open: BTreeSet<u64> = open.collect();
        // What enlist has sent itself is to be done, too.
        open.extend(self.queued().await.into_keys());
        let all = |acks: &Acks| open.iter().all(|sequence| acks.contains_key(sequence));
        let waited = timeout(PATIENCE, self.acks.wait_for(all)).await.map(drop);
        if waited.is_err() {
            open.retain(|sequence| !self.acks.borrow().contains_key(sequence));
            return Err(format!("no end within {PATIENCE:?}, messages {open:?} are open:\n{}", self.history().await));
        }
        // The ack has passed the broker; it takes the message away a moment later.
        let deadline = Instant::now() + PATIENCE;
        while self.queued().await.keys().any(|sequence| open.contains(sequence)) && Instant::now() < deadline {}
        Ok(())
    }

    /// The next event of this state, awaited from now on.
    pub(crate) async fn next_event(&self, state: &str) -> JoinHandle<()> {
        let subject = format!("{}.events.{POOL}.*.{state}", self.prefix);
        let mut events = self.client.subscribe(subject).await.expect("subscribed");
        self.client.flush().await.expect("flushed");
        tokio::spawn(async move { drop(events.next().await) })
    }

    /// What the checker finds now that all is quiet.
    pub(crate) async fn violations(&self) -> Vec<String> {
        let history = self.history().await;
        let mut found = violations(&history);
        if !found.is_empty() {
            found.push(format!("what was there:\n{history}"));
        }
        found
    }

    pub(crate) fn queue(&self) -> String {
        format!("{}_CMD_{POOL}", self.prefix.to_uppercase())
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}
