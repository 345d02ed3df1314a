//! `enlist dev`: all of it on this machine, to see how it works; nothing of it stays.

mod broker;
mod folder;
mod script;

use std::collections::{BTreeSet, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::away::tell_away;
use super::demo_scheduler::{DemoOptions, DemoScheduler};
use super::orders::{self, News, Order, Orders, Told};
use super::page::Page;
use super::{Exit, GlobalArgs};
use crate::bus::connection::{self, ConnectError, Link};
use crate::config::{Config, Loaded, NatsConfig, Origin};
use crate::domain::{CommandId, Pool, State, WorkerId, WorkerKey};
use crate::replica::{Replica, StartError};
use crate::telemetry::{install_metrics, register_all};
use broker::Server;
use folder::RunFolder;
use script::{Ask, Names, Step};

/// The pools where no settings file is given.
pub(super) const POOLS: &str = include_str!("demo.toml");
/// What the log tells unless asked for more: the page tells refusals and failures already.
pub(super) const QUIET: &str = "warn,async_nats=error,enlist::telemetry=error,enlist::link=error";
/// How long one command of the demo may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the workers may take to end, all together.
const FAREWELL: Duration = Duration::from_secs(20);

/// Shows the demo, then stays up until SIGTERM, SIGINT or SIGHUP, unless it is for `once`.
pub(super) async fn run(loaded: Loaded, args: &GlobalArgs, once: bool) -> Exit {
    let stop = match Stop::listen() {
        Ok(stop) => stop,
        Err(error) => {
            eprintln!("enlist: signals cannot be listened for: {error}");
            return Exit::Failed;
        }
    };
    // Told to stop before it was done: with `once` that is not what was asked for.
    let stopped = if once { Exit::Failed } else { Exit::Done };
    let started = tokio::select! {
        biased;
        () = stop.asked.cancelled() => return stopped,
        started = Dev::start(loaded, args) => started,
    };
    let mut dev = match started {
        Ok(dev) => dev,
        Err(error) => {
            eprintln!("enlist: {error:#}");
            return exit_code(&error);
        }
    };
    let drain_asked = dev.replica.drain_asked();
    let exit = tokio::select! {
        biased;
        () = stop.asked.cancelled() => stopped,
        () = drain_asked.cancelled() => stopped,
        exit = dev.play(once) => exit,
    };
    tokio::select! {
        () = dev.end() => exit,
        () = stop.again.cancelled() => {
            eprintln!("enlist: told twice to stop: workers may be left, the next `enlist dev` here ends them");
            Exit::Failed
        }
    }
}

fn exit_code(error: &anyhow::Error) -> Exit {
    if let Some(error) = error.downcast_ref::<StartError>() {
        return super::run::exit_code(error);
    }
    if error.is::<ConnectError>() || error.is::<NoBroker>() { Exit::Unavailable } else { Exit::Failed }
}

/// Marks that there is no broker, and none could be started.
#[derive(Debug, thiserror::Error)]
#[error("enlist dev needs a broker")]
struct NoBroker;

/// The first signal asks for an end in good order, the second for an end.
struct Stop {
    asked: CancellationToken,
    again: CancellationToken,
}

impl Stop {
    fn listen() -> std::io::Result<Self> {
        let stop = Self { asked: CancellationToken::new(), again: CancellationToken::new() };
        let (asked, again) = (stop.asked.clone(), stop.again.clone());
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        tokio::spawn(async move {
            for told in [asked, again] {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                    _ = hangup.recv() => {}
                }
                told.cancel();
            }
        });
        Ok(stop)
    }
}

/// Everything that runs for one demo. The broker comes before the folder that it writes to, as they are dropped in this
/// order.
struct Dev {
    page: Page,
    orders: Orders,
    news: News,
    names: Names,
    steps: Vec<Step>,
    main_pool: Option<Pool>,
    /// What the demo has sent: on a broker that is not this run's own, only these workers are its to end.
    sent: BTreeSet<CommandId>,
    made: HashMap<CommandId, WorkerId>,
    /// Flags by which another command of this machine reaches the same broker.
    reach: Vec<String>,
    nats_url: String,
    replica: Replica,
    scheduler: CancellationToken,
    server: Option<Server>,
    folder: RunFolder,
}

impl Dev {
    async fn start(loaded: Loaded, args: &GlobalArgs) -> anyhow::Result<Self> {
        let Loaded { mut config, origins } = loaded;
        let origin = |name: &str| origins.get(name).map_or(Origin::Default, |setting| setting.origin.clone());
        let page = Page::new();
        let state_dir = config.providers.process_state_dir.clone();
        let left = folder::clean_up(&state_dir).await;
        if left > 0 {
            page.say(format!("ended {left} workers of a run that was killed"));
        }
        let folder = RunFolder::make(&state_dir)
            .with_context(|| format!("no folder for this run in {} (ENLIST_STATE_DIR)", state_dir.display()))?;
        let server = if origin("nats.url") == Origin::Default {
            let server = Server::start(folder.path(), |text| page.say(text)).await.context(NoBroker)?;
            page.say(&server.told);
            config.nats = anonymous(&server.url);
            // Its records go with it, so its workers must as well.
            config.providers.process_state_dir = folder.workers();
            Some(server)
        } else {
            page.say(format!("the broker at {}, which is not this run's own", config.nats.shown_url()));
            None
        };
        if origin("http.listen") == Origin::Default {
            config.http.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        }
        let mut reach = reach(&config, server.is_some(), &origin("nats.url"), args);
        if origin("prefix") == Origin::Flag("--prefix") {
            reach.extend(["--prefix".to_owned(), config.prefix.to_string()]);
        }
        let orders = orders::connect(&config, "enlist dev").await?;
        let scheduler = CancellationToken::new();
        page.say(demo_scheduler(&config, &orders, scheduler.clone()).await?);
        let metrics = install_metrics();
        register_all(&config);
        let news = orders.all_news().await?;
        let replica = Replica::start(&config, Some(metrics)).await?;
        let pools: Vec<&str> = config.pools.keys().map(Pool::as_str).collect();
        let (pools, http) = (pools.join(" and "), replica.address());
        page.say(format!("enlist takes commands for pools {pools}; see the fleet at http://{http}/"));
        let mut names = Names::new(server.is_some());
        let steps = script::steps(&config, &mut names);
        Ok(Self {
            page,
            orders,
            news,
            names,
            steps,
            main_pool: script::main_pool(&config).map(|(pool, _)| pool.clone()),
            sent: BTreeSet::new(),
            made: HashMap::new(),
            reach,
            nats_url: config.nats.shown_url(),
            replica,
            scheduler,
            server,
            folder,
        })
    }

    /// The demo, then whatever comes. Returns at the end of the demo where that is all, or when the broker is gone.
    async fn play(&mut self, once: bool) -> Exit {
        let mut missing = Vec::new();
        for Step { told, ask } in std::mem::take(&mut self.steps) {
            if let Err(why) = self.step(&told, ask).await {
                self.page.say(format!("  {why}"));
                missing.push(why);
            }
        }
        self.page.head("\nthe fleet");
        self.page.table();
        if !missing.is_empty() {
            self.page.head("\nwithout an outcome");
            for why in &missing {
                self.page.say(format!("  {why}"));
            }
        }
        if once {
            return if missing.is_empty() { Exit::Done } else { Exit::Failed };
        }
        self.what_next();
        let connection = self.orders.connection.clone();
        let mut link = connection.link.clone();
        let mut away = pin!(tell_away(&connection, |line| eprintln!("{line}")));
        loop {
            tokio::select! {
                told = self.news.next() => match told {
                    Some(told) => self.page.told(&told),
                    None => return Exit::Unavailable,
                },
                // One that is not ours may come back, and is waited for.
                Ok(_) = link.wait_for(|link| *link == Link::Down), if self.server.is_some() => {
                    eprintln!("enlist: the broker is gone; it wrote to {}", self.folder.path().display());
                    return Exit::Unavailable;
                }
                never = &mut away, if self.server.is_none() => match never {},
            }
        }
    }

    /// Sends one command and tells what becomes of it; an error says that nothing came in time.
    async fn step(&mut self, told: &str, ask: Ask) -> Result<(), String> {
        match ask {
            Ask::Provision(order) => {
                self.announce(&order, told);
                if let Told::Event(worker) = self.carry_out(&order).await? {
                    self.made.insert(order.command_id, worker.worker_id);
                }
                Ok(())
            }
            Ask::Again(order) => {
                self.announce(&order, told);
                match self.orders.send(&order).await {
                    Ok(stored) if stored.duplicate => {
                        self.page.say("  the broker has it already; nothing is done twice");
                        Ok(())
                    }
                    Ok(_) => Err(format!("command {}: stored a second time", order.command_id)),
                    Err(error) => Err(format!("command {}: {error}", order.command_id)),
                }
            }
            Ask::TerminateOf { provision, pool, command_id } => {
                let Some(worker_id) = self.made.get(&provision).cloned() else { return Ok(()) };
                let order = script::terminate(pool, worker_id, command_id, "the demo is done with it");
                self.announce(&order, told);
                self.carry_out(&order).await.map(|_| ())
            }
        }
    }

    fn announce(&self, order: &Order, told: &str) {
        let subject = self.orders.subjects.command(&order.pool, order.verb);
        self.page.head(format!("\n{subject}  {}: {told}", order.command_id));
    }

    async fn carry_out(&mut self, order: &Order) -> Result<Told, String> {
        let Self { page, orders, news, sent, .. } = self;
        sent.insert(order.command_id.clone());
        orders.send(order).await.map_err(|error| format!("command {}: {error}", order.command_id))?;
        match timeout(PATIENCE, orders.outcome(order, news, |told| page.told(told))).await {
            Ok(Some(told)) => Ok(told),
            Ok(None) => Err(format!("command {}: the connection was closed", order.command_id)),
            Err(_) => Err(format!("command {}: no outcome within {PATIENCE:?}", order.command_id)),
        }
    }

    fn what_next(&self) {
        let Self { page, orders, reach, nats_url, .. } = self;
        let Some(pool) = &self.main_pool else { return };
        let program = std::env::args().next().unwrap_or_else(|| "enlist".to_owned());
        let reach = reach.iter().fold(String::new(), |line, word| line + " " + word);
        let subject = orders.subjects.command(pool, crate::domain::Verb::Provision);
        page.head("\nthe next command is yours, from another terminal in this folder:");
        page.say(format!("  {program} provision {pool} --wait{reach}"));
        page.say("or with the nats command line:");
        page.say(format!("  nats pub {subject} '{{\"command_id\":\"mine-1\"}}' -s {nats_url}"));
        page.say("Ctrl-C ends all of it.\n");
    }

    /// Leaves nothing behind: the workers go the way of any other, then what served them does.
    async fn end(mut self) {
        let own = self.server.is_some();
        let live = |state: State| !state.is_final();
        let ours: Vec<WorkerKey> = self
            .page
            .workers
            .iter()
            .filter(|(_, worker)| live(worker.state) && (own || self.sent.contains(&worker.command_id)))
            .map(|(key, _)| key.clone())
            .collect();
        if !ours.is_empty() {
            self.page.head("\nthe end: the workers go first");
            let all_gone = self.end_workers(&ours);
            if timeout(FAREWELL, all_gone).await.is_err() {
                self.page.say(format!("not all of them are gone within {FAREWELL:?}"));
            }
        }
        let left = self.page.workers.iter().filter(|(_, worker)| live(worker.state));
        let (mine, others): (Vec<_>, Vec<_>) = left.partition(|(key, _)| ours.contains(key));
        let left = [(mine.len(), "of this run"), (others.len(), "of others")];
        let left: Vec<String> =
            left.iter().filter(|(number, _)| *number > 0).map(|(number, whose)| format!("{number} {whose}")).collect();
        if !left.is_empty() {
            self.page.say(format!("workers that live on: {}; enlist terminate ends them", left.join(", ")));
        }
        let Self { replica, scheduler, server, folder, .. } = self;
        replica.drain().await;
        scheduler.cancel();
        // What no terminate has reached: made and not told before the end came.
        folder.end_workers().await;
        if let Some(server) = server {
            server.stop().await;
        }
    }

    async fn end_workers(&mut self, ours: &[WorkerKey]) {
        for key in ours {
            let WorkerKey { pool, worker_id } = key.clone();
            let order = script::terminate(pool, worker_id, self.names.command(), "enlist dev ends");
            if let Err(error) = self.orders.send(&order).await {
                self.page.say(format!("  {key}: {error}"));
                return;
            }
        }
        let gone = |page: &Page, key| page.workers.get(key).is_none_or(|worker| worker.state.is_final());
        while !ours.iter().all(|key| gone(&self.page, key)) {
            let Some(told) = self.news.next().await else { return };
            self.page.told(&told);
        }
    }
}

/// A broker of our own asks for no credentials, and those of the settings are for another.
fn anonymous(url: &str) -> NatsConfig {
    NatsConfig {
        url: url.to_owned(),
        creds: None,
        nkey: None,
        user: None,
        password: None,
        password_file: None,
        token: None,
        tls_ca: None,
        tls_cert: None,
        tls_key: None,
        domain: None,
        inbox_prefix: None,
    }
}

/// What to add to a command so that it reaches the same broker: what the environment and the settings file of the folder
/// say holds for it too.
fn reach(config: &Config, own: bool, origin: &Origin, args: &GlobalArgs) -> Vec<String> {
    let mut words = Vec::new();
    if let Some(path) = &args.config {
        words.extend(["--config".to_owned(), path.display().to_string()]);
    }
    match origin {
        Origin::Context(_) if args.context.is_none() => {}
        Origin::Context(name) => words.extend(["--context".to_owned(), name.to_string()]),
        Origin::Default | Origin::Flag(_) => words.extend(["--nats-url".to_owned(), config.nats.shown_url()]),
        Origin::File { .. } | Origin::Env(_) => {}
    }
    debug_assert!(!own || words.contains(&"--nats-url".to_owned()), "a broker of our own is reached by its URL");
    words
}

/// A scheduler of our own, unless one answers: two would both answer, and the first answer counts.
async fn demo_scheduler(config: &Config, orders: &Orders, stop: CancellationToken) -> anyhow::Result<String> {
    let (register, list) = (&config.scheduler.register, &config.scheduler.list);
    if orders.is_answered(list).await {
        return Ok(format!("a scheduler answers at {list} already"));
    }
    let client = connection::connect(&config.nats, "enlist demo-scheduler").await?.client;
    let demo = DemoScheduler::listen(client, &config.scheduler, DemoOptions::default()).await?;
    tokio::spawn(demo.run(stop));
    Ok(format!("a demo scheduler accepts every worker at {register}"))
}
