//! A fleet under a prefix of its own: one pool, its scheduler, and everything that can be learned about it from outside.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use async_nats::jetstream::{self, consumer::pull};
use async_nats::{Client, HeaderMap};
use enlist::crash::CrashPoint;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::checker::{Acked, Command, DeadLetter, Event, History, violations};
use crate::home::{Home, Provider};
use crate::replica::Replica;
use crate::scheduler::{Scheduler, subject};

const POOL: &str = "p";
/// All of a walk's ack waits and delays, and a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct Fleet {
    prefix: String,
    client: Client,
    context: jetstream::Context,
    folder: TempDir,
    home: Home,
    pub(crate) scheduler: Scheduler,
    commands: Vec<Command>,
    acks: watch::Receiver<BTreeMap<u64, Acked>>,
    watcher: JoinHandle<()>,
}

impl Fleet {
    pub(crate) async fn new(url: &str, prefix: &str, provider: Provider) -> Self {
        Self::with(url, prefix, provider, "").await
    }

    /// A fleet whose pool has more settings.
    pub(crate) async fn with(url: &str, prefix: &str, provider: Provider, more: &str) -> Self {
        let client = async_nats::connect(url).await.expect("the broker answers");
        let context = jetstream::new(client.clone());
        let folder = TempDir::with_prefix("enlist-crash-").expect("a folder");
        let home = Home::new(provider, folder.path());
        let scheduler = Scheduler::start(client.clone(), prefix, home.clone()).await;
        let [register, unregister, list] = ["register", "unregister", "list"].map(|verb| subject(prefix, verb));
        let settings = format!(
            "prefix = \"{prefix}\"\n[nats]\nurl = \"{url}\"\n[http]\nlisten = \"127.0.0.1:0\"\n\
             [providers.process]\nstate_dir = \"{}\"\n[sweep]\ninterval = \"12h\"\n\
             [scheduler]\nregister = \"{register}\"\nunregister = \"{unregister}\"\nlist = \"{list}\"\n\
             [pools.{POOL}]\n{}{more}\n",
            folder.path().join("state").display(),
            home.settings(),
        );
        std::fs::write(folder.path().join("enlist.toml"), settings).expect("the settings");
        let (acks, watcher) = watch_acks(client.clone(), prefix).await;
        Self { prefix: prefix.into(), client, context, folder, home, scheduler, commands: Vec::new(), acks, watcher }
    }

    fn settings(&self) -> PathBuf {
        self.folder.path().join("enlist.toml")
    }

    pub(crate) async fn replica(&self, point: Option<CrashPoint>) -> Replica {
        Replica::start(&self.settings(), point).await
    }

    /// Sends a provision under a worker id of its own, or of the contract's choice.
    pub(crate) async fn provision(&mut self, id: &str, worker: Option<&str>, more: &Value) {
        let derived = || {
            let pool = enlist::domain::Pool::new(POOL).expect("a pool");
            let command = enlist::domain::CommandId::new(id).expect("a command id");
            enlist::domain::WorkerId::derived(&pool, &command).to_string()
        };
        let mut body = json!({ "command_id": id, "correlation_id": "a walk" });
        if let Some(worker) = worker {
            body["worker_id"] = json!(worker);
        }
        for (name, value) in more.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        let worker = worker.map_or_else(derived, str::to_owned);
        self.send("provision", Some(id), Some(worker), body.to_string()).await;
    }

    pub(crate) async fn terminate(&mut self, id: &str, worker: &str) {
        let body = json!({ "command_id": id, "worker_id": worker, "reason": "the walk asks for it" });
        self.send("terminate", Some(id), Some(worker.to_owned()), body.to_string()).await;
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

    /// Waits until every command is acked, and gone from its queue.
    pub(crate) async fn settled(&mut self) -> Result<(), String> {
        let sequences: Vec<u64> = self.commands.iter().map(|command| command.sequence).collect();
        let all = |acks: &BTreeMap<u64, Acked>| sequences.iter().all(|sequence| acks.contains_key(sequence));
        let waited = timeout(PATIENCE, self.acks.wait_for(all)).await.map(drop);
        if waited.is_err() {
            let open: Vec<_> = sequences.iter().filter(|sequence| !self.acks.borrow().contains_key(sequence)).collect();
            return Err(format!("no end within {PATIENCE:?}, messages {open:?} are open:\n{}", self.history().await));
        }
        // The ack has passed the broker; it takes the message away a moment later.
        let deadline = Instant::now() + PATIENCE;
        while state(&self.client, &self.queue()).await["messages"] != 0 && Instant::now() < deadline {}
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

    fn queue(&self) -> String {
        format!("{}_CMD_{POOL}", self.prefix.to_uppercase())
    }

    pub(crate) async fn history(&self) -> History {
        let upper = self.prefix.to_uppercase();
        let header = |message: &async_nats::Message, name: &str| {
            let value = message.headers.as_ref().and_then(|headers| headers.get(name));
            value.map(ToString::to_string).unwrap_or_default()
        };
        let mut events = Vec::new();
        for (sequence, message) in self.stored(&format!("{upper}_EVENTS")).await {
            let body = serde_json::from_slice(&message.payload).expect("an event in JSON");
            let (subject, content_type) = (message.subject.to_string(), header(&message, "Content-Type"));
            events.push(Event { sequence, subject, content_type, body });
        }
        let mut dead = Vec::new();
        for (sequence, message) in self.stored(&format!("{upper}_DEAD")).await {
            let names = ["Reason", "Detail", "Subject", "Sequence", "Deliveries"].map(|name| format!("Enlist-{name}"));
            let headers = names.map(|name| (name.clone(), header(&message, &name))).into();
            let body = String::from_utf8_lossy(&message.payload).into_owned();
            dead.push(DeadLetter { sequence, subject: message.subject.to_string(), headers, body });
        }
        let acks = self.acks.borrow().clone();
        let commands = self.commands.iter().cloned();
        let commands = commands.map(|sent| Command { acked: acks.get(&sent.sequence).copied(), ..sent }).collect();
        let (prefix, pool) = (self.prefix.clone(), POOL.to_owned());
        let (provider, alive, scheduler) = (self.home.steps(), self.home.alive(), self.scheduler.journal());
        History { prefix, pool, events, dead, commands, provider, alive, scheduler, left: self.left().await }
    }

    /// Every message of a stream with its sequence, through a consumer of our own.
    async fn stored(&self, name: &str) -> Vec<(u64, async_nats::Message)> {
        let stream = self.context.get_stream(name).await.expect("the stream");
        let number = state(&self.client, name).await["messages"].as_u64().expect("a number");
        if number == 0 {
            return Vec::new();
        }
        let consumer = stream.create_consumer(pull::OrderedConfig::default()).await.expect("a consumer");
        let messages = consumer.messages().await.expect("messages");
        let read = messages.take(usize::try_from(number).expect("not so many")).map(|message| {
            let message = message.expect("a message");
            let sequence = message.info().expect("its place").stream_sequence;
            (sequence, message.message)
        });
        timeout(PATIENCE, read.collect()).await.expect("as many messages as the stream says")
    }

    async fn left(&self) -> Vec<String> {
        let queue = self.context.get_stream(self.queue()).await.expect("the queue");
        let mut left = Vec::new();
        let state = state(&self.client, &self.queue()).await;
        let [first, last] = ["first_seq", "last_seq"].map(|name| state[name].as_u64().expect("a number"));
        for sequence in first..=last {
            if let Ok(message) = queue.get_raw_message(sequence).await {
                left.push(format!("{} {}", message.subject, String::from_utf8_lossy(&message.payload)));
            }
        }
        left
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

/// A stream's state, as the broker tells it; nulls where there is no stream yet.
async fn state(client: &Client, stream: &str) -> Value {
    let info = client.request(format!("$JS.API.STREAM.INFO.{stream}"), "".into()).await.expect("the broker answers");
    let mut info: Value = serde_json::from_slice(&info.payload).expect("JSON");
    info["state"].take()
}

/// Sees every ack on its way to the broker, and looks how far the outcomes went when it did.
async fn watch_acks(client: Client, prefix: &str) -> (watch::Receiver<BTreeMap<u64, Acked>>, JoinHandle<()>) {
    let upper = prefix.to_uppercase();
    let queue = format!("{upper}_CMD_{POOL}");
    // Both forms of an ack's subject: the longer one names domain and account first.
    let [short, long] = [format!("$JS.ACK.{queue}.>"), format!("$JS.ACK.*.*.{queue}.>")];
    let short = client.subscribe(short).await.expect("subscribed");
    let long = client.subscribe(long).await.expect("subscribed");
    let mut acks = futures_util::stream::select(short, long);
    client.flush().await.expect("flushed");
    let (told, seen) = watch::channel(BTreeMap::new());
    let watcher = tokio::spawn(async move {
        while let Some(message) = acks.next().await {
            let Some(sequence) = sequence_in(&message.subject, &queue).filter(|_| message.payload == "+ACK") else {
                continue;
            };
            let [events, dead] = ["EVENTS", "DEAD"].map(|name| format!("{upper}_{name}"));
            let [events, dead] = [state(&client, &events).await, state(&client, &dead).await];
            let number = |state: &Value| state["last_seq"].as_u64().unwrap_or_default();
            let acked = Acked { events: number(&events), dead: number(&dead) };
            told.send_modify(|acks: &mut BTreeMap<u64, Acked>| {
                acks.entry(sequence).or_insert(acked);
            });
        }
    });
    (seen, watcher)
}

/// The place in a stream from an ack subject: three tokens after the stream's name, in both of its forms.
fn sequence_in(reply: &str, stream: &str) -> Option<u64> {
    let mut tokens = reply.split('.').skip_while(|token| *token != stream);
    tokens.nth(3)?.parse().ok()
}
