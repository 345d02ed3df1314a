//! A fleet of a test's own: its prefix on a broker, its settings, a scripted scheduler, replicas, and eyes on all of it.

mod browser;
mod care;
mod child;
mod record;
mod scheduler;

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::{self, message::PublishMessage};
use bytes::Bytes;
use enlist::bus::subjects::Subjects;
use enlist::config::{Config, ConfigFile, Flags, Source};
use enlist::domain::{CommandId, Pool, Prefix, Verb, WorkerId};
use enlist::provider::any::AnyProvider;
use enlist::provider::{Instance, WorkerProvider};
use enlist::replica::Replica;
use enlist::wire::command::{ProvisionCommand, RegistrationOverrides, SpecOverrides, TerminateCommand};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use tempfile::TempDir;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::broker::Broker;
pub(crate) use browser::Browser;
pub(crate) use care::{ON_DEMAND, Tool, WORK, claim, size};
pub(crate) use child::{Child, Said, page, says};
pub(crate) use record::Event;
pub(crate) use scheduler::{Answer, Asked, Scheduler};

/// After this long a test says what it waited for in vain.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A pool that makes nothing, and whose instances every replica and the test itself see.
pub(crate) const LOAD: &str = "[pools.load]\nprovider = \"null\"\nstate_file = \"{dir}/null\"\n";

/// See the module.
pub(crate) struct World {
    pub(crate) prefix: Prefix,
    pub(crate) subjects: Subjects,
    pub(crate) client: Client,
    pub(crate) jetstream: jetstream::Context,
    pub(crate) scheduler: Scheduler,
    url: String,
    file: String,
    dir: TempDir,
    /// The one writer of a pipe, which nobody writes into: a worker that reads it ends when this world does.
    _life: File,
    /// Something has happened in this fleet.
    news: Arc<Notify>,
    // Last, so that it goes last.
    pub(crate) broker: Arc<Broker>,
}

impl World {
    /// A fleet on the shared broker. `{dir}` in the settings is a folder of this world's own.
    pub(crate) async fn new(file: &str) -> Self {
        Self::on(Broker::shared().await, file).await
    }

    /// A fleet on a broker of its own, which can be taken away.
    pub(crate) async fn alone(file: &str) -> Self {
        Self::on(Arc::new(Broker::process().await), file).await
    }

    pub(crate) async fn on(broker: Arc<Broker>, file: &str) -> Self {
        let url = broker.url().to_owned();
        Self::on_as(broker, url, async_nats::ConnectOptions::new(), file).await
    }

    /// A fleet on a broker that asks who one is: what the settings' URL tells, and the test's own connection.
    pub(crate) async fn on_as(
        broker: Arc<Broker>,
        url: String,
        options: async_nats::ConnectOptions,
        file: &str,
    ) -> Self {
        let prefix = Prefix::new(format!("t{}", &uuid::Uuid::new_v4().simple().to_string()[..12])).unwrap();
        let client =
            options.reconnect_delay_callback(|_| Duration::from_millis(20)).connect(broker.url()).await.unwrap();
        let news = Arc::new(Notify::new());
        for subject in [format!("{prefix}.events.>"), format!("{prefix}.dead.>")] {
            let (mut feed, news) = (client.subscribe(subject).await.unwrap(), Arc::clone(&news));
            tokio::spawn(async move {
                use futures_util::StreamExt as _;
                while feed.next().await.is_some() {
                    news.notify_waiters();
                }
            });
        }
        let scheduler = Scheduler::listen(&client, &prefix, Arc::clone(&news)).await;
        let dir = tempfile::tempdir().unwrap();
        let life = dir.path().join("life");
        mknodat(CWD, &life, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let life = File::options().read(true).write(true).open(&life).unwrap();
        let file = file.replace("{dir}", dir.path().to_str().unwrap());
        Self {
            subjects: Subjects::new(&prefix),
            jetstream: jetstream::new(client.clone()),
            prefix,
            client,
            scheduler,
            url,
            file,
            dir,
            _life: life,
            news,
            broker,
        }
    }

    /// What this world sets beside its file: where things are.
    pub(crate) fn env(&self) -> BTreeMap<String, String> {
        let subject = |verb| format!("sched.{}.{verb}", self.prefix);
        [
            ("NATS_URL", self.url.clone()),
            ("ENLIST_PREFIX", self.prefix.to_string()),
            ("ENLIST_HTTP_LISTEN", "127.0.0.1:0".to_owned()),
            ("ENLIST_STATE_DIR", self.dir.path().join("state").to_str().unwrap().to_owned()),
            ("ENLIST_SCHEDULER_REGISTER", subject("register")),
            ("ENLIST_SCHEDULER_UNREGISTER", subject("unregister")),
            ("ENLIST_SCHEDULER_LIST", subject("list")),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// The settings, through the real loader.
    pub(crate) fn config(&self) -> Config {
        self.config_of(&self.file)
    }

    pub(crate) fn config_of(&self, file: &str) -> Config {
        let file = ConfigFile { name: "enlist.toml".into(), text: file.to_owned() };
        let read = |_: &std::path::Path| Err(std::io::ErrorKind::NotFound.into());
        let source = Source { file: Some(file), env: self.env(), flags: Flags::default(), read: &read };
        enlist::config::load(&source).unwrap_or_else(|mistakes| panic!("{mistakes:?}")).config
    }

    /// A replica in this process.
    pub(crate) async fn replica(&self) -> Replica {
        self.replica_of(&self.config()).await
    }

    pub(crate) async fn replica_of(&self, config: &Config) -> Replica {
        Replica::start(config, None).await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// A replica as a process of its own, not yet waited for.
    pub(crate) fn spawn(&self) -> Child {
        self.spawn_with(self.env())
    }

    fn spawn_with(&self, env: BTreeMap<String, String>) -> Child {
        Child::spawn(&self.config_file(), env)
    }

    /// A replica as a process of its own, taking commands, that also logs what `filter` lets through.
    pub(crate) async fn child_that_logs(&self, filter: &str) -> Child {
        self.child_with(&[("ENLIST_LOG", filter)]).await
    }

    /// A replica as a process of its own, taking commands, with more in its environment.
    pub(crate) async fn child_with(&self, more: &[(&str, &str)]) -> Child {
        let mut child = self.spawn_in(more);
        child.listening().await;
        child
    }

    /// The same, not yet waited for.
    pub(crate) fn spawn_in(&self, more: &[(&str, &str)]) -> Child {
        let more = more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.spawn_with(self.env().into_iter().chain(more).collect())
    }

    /// The settings as a file of this world's own folder.
    fn config_file(&self) -> std::path::PathBuf {
        let path = self.dir.path().join("enlist.toml");
        std::fs::write(&path, &self.file).unwrap();
        path
    }

    /// A verb as a script runs it: its exit code and both of its outputs.
    pub(crate) async fn run(&self, args: &[&str]) -> Said {
        child::run(&self.config_file(), self.env(), args).await
    }

    /// The same, with a standard output that nobody reads: its exit code and what it has complained about.
    pub(crate) async fn run_unread(&self, args: &[&str]) -> (Option<i32>, String) {
        child::run_unread(&self.config_file(), self.env(), args).await
    }

    /// A verb whose standard output nobody reads yet.
    pub(crate) fn unread(&self, args: &[&str]) -> (tokio::process::Child, std::io::PipeReader) {
        child::spawn_unread(&self.config_file(), self.env(), args)
    }

    /// The same, with a death at a point.
    #[cfg(feature = "crash-points")]
    pub(crate) async fn run_to(&self, point: enlist::crash::CrashPoint, args: &[&str]) -> Said {
        let mut env = self.env();
        env.insert("ENLIST_CRASH_AT".to_owned(), format!("{point:?}"));
        child::run(&self.config_file(), env, args).await
    }

    /// A verb that goes on until it is told to stop.
    pub(crate) fn verb(&self, args: &[&str]) -> Child {
        Child::spawn_verb(&self.config_file(), self.env(), args)
    }

    /// A verb as an operator runs it: its exit code, and what it has said on standard output and standard error.
    pub(crate) async fn enlist(&self, args: &[&str]) -> (Option<i32>, String) {
        child::says(&self.config_file(), self.env(), args).await
    }

    /// The same with other settings.
    pub(crate) async fn enlist_with(&self, settings: &std::path::Path, args: &[&str]) -> (Option<i32>, String) {
        child::says(settings, self.env(), args).await
    }

    /// A replica as a process of its own, taking commands, that dies at a point.
    #[cfg(feature = "crash-points")]
    pub(crate) async fn doomed(&self, point: enlist::crash::CrashPoint) -> Child {
        let mut env = self.env();
        env.insert("ENLIST_CRASH_AT".to_owned(), format!("{point:?}"));
        let mut child = self.spawn_with(env);
        child.listening().await;
        child
    }

    /// A replica as a process of its own, taking commands.
    pub(crate) async fn child(&self) -> Child {
        let mut child = self.spawn();
        child.listening().await;
        child
    }

    /// Waits until a process says that it is ready, or that it is not.
    pub(crate) async fn readiness(&self, child: &Child, status: u16) {
        let what = format!("/readyz to answer {status}");
        self.until(&what, async || (page(child.address(), "/readyz").await?.0 == status).then_some(())).await;
    }

    /// Publishes a command and hears from the server that it is stored.
    pub(crate) async fn send(&self, pool: &str, command: &impl Command) {
        self.send_raw(pool, command.verb(), command.body()).await;
    }

    /// Publishes any bytes as a command.
    pub(crate) async fn send_raw(&self, pool: &str, verb: Verb, body: impl Into<Bytes>) {
        self.try_send(&format!("{}.cmd.{pool}.{}", self.prefix, verb.as_str()), body.into()).await.unwrap();
    }

    /// Publishes any bytes on any subject; says what the server does not like.
    pub(crate) async fn try_send(&self, subject: &str, body: Bytes) -> Result<u64, String> {
        let sent = self.jetstream.send_publish(subject.to_owned(), PublishMessage::build().payload(body)).await;
        let ack = sent.map_err(|error| error.to_string())?.await.map_err(|error| error.to_string())?;
        Ok(ack.sequence)
    }

    /// Waits until `look` finds something: looks again at each event, dead letter and request to the scheduler, and
    /// between them, as not everything that can be looked at tells of itself.
    pub(crate) async fn until<T>(&self, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut tick = interval(Duration::from_millis(20));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if let Some(found) = look().await {
                return found;
            }
            assert!(Instant::now() < deadline, "waited for {what} in vain; this came:\n{}", self.story().await);
            tokio::select! {
                _ = tick.tick() => {}
                () = self.news.notified() => {}
            }
        }
    }

    /// Waits until every command of every pool is settled: its message is gone from its queue.
    pub(crate) async fn settled(&self) {
        let pools: Vec<Pool> = self.config().pools.into_keys().collect();
        self.until("empty queues", async || {
            for pool in &pools {
                if self.left(pool.as_str()).await? > 0 {
                    return None;
                }
            }
            Some(())
        })
        .await;
    }

    /// Waits until a worker's newest event has this state.
    pub(crate) async fn reaches(&self, worker: &str, state: &str) -> Event {
        self.until(&format!("{worker} to be {state}"), async || {
            self.history(worker).await.pop().filter(|event| event.worker.state.as_str() == state)
        })
        .await
    }

    /// Commands that are left in a pool's queue, delivered ones too; `None` while the broker does not say.
    pub(crate) async fn left(&self, pool: &str) -> Option<u64> {
        let name = self.subjects.command_stream(&pool.parse().unwrap());
        Some(self.jetstream.get_stream(name).await.ok()?.cached_info().state.messages)
    }

    /// The pool's provider as another replica would have it.
    pub(crate) fn provider(&self, pool: &str) -> AnyProvider {
        let config = self.config();
        AnyProvider::for_pool(&config, &config.pools[&Pool::new(pool).unwrap()], &self.client).unwrap()
    }

    /// What the provider has made and not removed.
    pub(crate) async fn instances(&self, pool: &str) -> Vec<Instance> {
        self.provider(pool).list_workers(&Pool::new(pool).unwrap()).await.unwrap()
    }

    /// A path in this world's own folder.
    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }
}

/// A command that can be published.
pub(crate) trait Command {
    fn verb(&self) -> Verb;
    fn body(&self) -> Vec<u8>;
}

impl Command for ProvisionCommand {
    fn verb(&self) -> Verb {
        Verb::Provision
    }

    fn body(&self) -> Vec<u8> {
        self.encode()
    }
}

impl Command for TerminateCommand {
    fn verb(&self) -> Verb {
        Verb::Terminate
    }

    fn body(&self) -> Vec<u8> {
        self.encode()
    }
}

/// A provision of a worker with a name.
pub(crate) fn provision(command_id: &str, worker_id: &str) -> ProvisionCommand {
    ProvisionCommand { worker_id: Some(WorkerId::new(worker_id).unwrap()), ..nameless(command_id) }
}

/// A provision that leaves the name to enlist.
pub(crate) fn nameless(command_id: &str) -> ProvisionCommand {
    ProvisionCommand {
        command_id: CommandId::new(command_id).unwrap(),
        worker_id: None,
        spec: SpecOverrides::default(),
        registration: RegistrationOverrides::default(),
        expires_at: None,
        correlation_id: None,
    }
}

/// A terminate with no wishes of its own.
pub(crate) fn terminate(command_id: &str, worker_id: &str) -> TerminateCommand {
    TerminateCommand {
        command_id: CommandId::new(command_id).unwrap(),
        worker_id: WorkerId::new(worker_id).unwrap(),
        reason: None,
        grace_ms: None,
        force: false,
        expires_at: None,
        correlation_id: None,
    }
}
