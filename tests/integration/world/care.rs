//! What looks after a pool, as a test needs it: sweeps on demand, instances that nobody ordered, real processes.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::sync::Arc;

use async_nats::jetstream::stream::LastRawMessageErrorKind;
use enlist::bus::connection;
use enlist::bus::delivery::Desk;
use enlist::bus::requests::Requests;
use enlist::bus::streams;
use enlist::domain::{
    Capabilities, Claim, Claimed, CommandId, EndedBy, Pool, Verb, Worker, WorkerId, WorkerKey, WorkerType,
};
use enlist::handle::OwnQueue;
use enlist::journal::nats::NatsJournal;
use enlist::journal::{Journal, Writer};
use enlist::provider::{Instance, LaunchRequest, WorkerProvider};
use enlist::registration::nats::NatsScheduler;
use enlist::replica::parts::{self, PoolService};
use enlist::service::sweep::SweepPoolConfig;
use enlist::wire::command::{PoolCommand, SweepCommand};
use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process};

use super::{Child, Command, World, provision};

/// No sweep comes by itself, and nobody is too young for one.
pub(crate) const ON_DEMAND: &str = "[sweep]\ninterval = \"24h\"\ngrace = \"0s\"\n";

/// A pool of real processes. They end with their world, however that ends: see [`World::life`].
pub(crate) const WORK: &str = "[pools.work]\nprovider = \"process\"\ncommand = [\"cat\", \"{dir}/life\"]\n";

/// A pool without a replica: its service, how it is swept, and its queue.
pub(crate) struct Tool {
    pub(crate) service: PoolService,
    pub(crate) sweep: SweepPoolConfig,
    pub(crate) queue: OwnQueue,
}

impl World {
    /// Asks for a sweep, and waits until it is through.
    pub(crate) async fn sweep(&self, pool: &str) {
        let command = SweepCommand { command_id: CommandId::new(uuid::Uuid::new_v4().to_string()).unwrap() };
        let subject = format!("{}.cmd.{pool}.sweep", self.prefix);
        let sequence = self.try_send(&subject, command.encode().into()).await.unwrap();
        self.until("a sweep to be through", async || (!self.queued(pool, sequence).await?).then_some(())).await;
    }

    /// So many sweeps, one after the other.
    pub(crate) async fn sweeps(&self, pool: &str, number: usize) {
        for _ in 0..number {
            self.sweep(pool).await;
        }
    }

    /// Whether a message is still in a pool's queue; `None` while the broker does not say.
    pub(crate) async fn queued(&self, pool: &str, sequence: u64) -> Option<bool> {
        let name = self.subjects.command_stream(&pool.parse().unwrap());
        match self.jetstream.get_stream(name).await.ok()?.get_raw_message(sequence).await {
            Ok(_) => Some(true),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Some(false),
            Err(_) => None,
        }
    }

    /// Takes a message out of a pool's queue, as an operator could.
    pub(crate) async fn unqueue(&self, pool: &str, sequence: u64) {
        let name = self.subjects.command_stream(&pool.parse().unwrap());
        assert!(self.jetstream.get_stream(name).await.unwrap().delete_message(sequence).await.unwrap());
    }

    /// The log is removed, and made anew.
    pub(crate) async fn log_anew(&self) {
        let config = self.config();
        let connection = connection::connect(&config.nats, "an operator").await.unwrap();
        self.jetstream.delete_stream(self.subjects.event_stream()).await.unwrap();
        let manage = config.manage_streams;
        streams::ensure(&connection, None, &self.subjects, config.pools.keys(), 1, manage).await.unwrap();
    }

    /// An instance whose record is gone: its worker was claimed, and its events have been purged.
    pub(crate) async fn stray(&self, pool: &str, worker: &str) -> Instance {
        let Tool { service, .. } = self.tool(pool).await;
        let nobody = EndedBy { command_id: None, reason: None };
        let claim = Worker::unrecorded(claim(pool, worker), 1, "none".to_owned(), nobody, Timestamp::now());
        let writer = Writer { name: "gone".into(), message: None, claim: None, trace: None };
        let at = service.journal().append(&claim, 0, &writer).await.unwrap();
        service.journal().purge(&claim.key(), at).await.unwrap();
        self.instance(pool, worker, at).await
    }

    /// An instance that the provider has made behind everybody's back, for a claim at this place of the log.
    pub(crate) async fn instance(&self, pool: &str, worker: &str, at: u64) -> Instance {
        let Claim { pool, worker_id, command_id, spec_hash, .. } = claim(pool, worker);
        let provider = self.provider(pool.as_str());
        let spec = self.config().pools[&pool].template.clone();
        let key = WorkerKey::new(pool, worker_id);
        let claim = Claimed { sequence: at, at: Timestamp::UNIX_EPOCH };
        let request = LaunchRequest { key, command_id, spec_hash, epoch: 1, claim, spec, trace: None };
        provider.create_worker(&request).await.unwrap()
    }

    /// What a tool of the operator has of a pool.
    pub(crate) async fn tool(&self, pool: &str) -> Tool {
        let (config, pool) = (self.config(), Pool::new(pool).unwrap());
        let connection = connection::connect(&config.nats, "a tool").await.unwrap();
        let requests = Requests::start(connection.client.clone()).await.unwrap();
        let journal = NatsJournal::new(requests.clone(), self.subjects.clone(), None, HashMap::new());
        let scheduler = NatsScheduler::new(requests.clone(), &config.scheduler);
        let settings = &config.pools[&pool];
        let service = parts::service(&config, &pool, settings, &self.client, journal, scheduler).unwrap();
        let sweep = parts::sweep(&config, &pool, settings);
        let desk = Arc::new(Desk {
            requests,
            subjects: self.subjects.clone(),
            stream: self.subjects.command_stream(&pool),
            pool,
            api_prefix: streams::api_prefix(None),
        });
        Tool { service, sweep, queue: parts::own_queue(&desk) }
    }

    /// The processes of [`WORK`] that live, by worker: read from `/proc`, not from what the provider has written.
    pub(crate) fn processes(&self) -> BTreeMap<String, Pid> {
        let life = self.path("life").display().to_string();
        let mut found = BTreeMap::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
            let text = |name: &str| {
                fs::read(entry.path().join(name)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            };
            let (Ok(command), Ok(environment)) = (text("cmdline"), text("environ")) else { continue };
            // A process that has ended and was not waited for has no command line any more.
            if !command.split('\0').any(|word| word == life) {
                continue;
            }
            let worker = environment.split('\0').find_map(|variable| variable.strip_prefix("ENLIST_WORKER_ID="));
            found.insert(worker.unwrap_or_default().to_owned(), Pid::from_raw(pid).unwrap());
        }
        found
    }

    /// Kills a worker's process, so that it is gone when this returns.
    pub(crate) async fn kill_worker(&self, worker: &str) {
        let pid = self.processes()[worker];
        kill_process(pid, Signal::KILL).unwrap();
        // On its way out it loses its command line first, and only then its life.
        let gone = async || {
            let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
            let state = stat.ok().and_then(|stat| stat.rsplit_once(") ")?.1.chars().next());
            matches!(state, None | Some('Z' | 'X' | 'x')).then_some(())
        };
        self.until("a process to be gone", gone).await;
    }

    /// The sweep of a pool is frozen, and the replica says so on each of its pages.
    pub(crate) async fn frozen(&self, child: &Child, pool: &str) {
        let gauge = child.metric(&format!("enlist_sweep_frozen{{pool=\"{pool}\"}}")).await;
        assert_eq!(gauge.as_deref(), Some("1"), "{}", self.story().await);
        let (status, body) = child.page("/readyz").await;
        assert_eq!(status, 200, "it is told, and no reason to be out of service");
        let line = format!(r#"{{"name":"sweep of {pool} not frozen","needed":false,"ok":false}}"#);
        assert!(body.contains(&line), "{body}");
    }

    /// So many commands of a pool have come to this outcome: counted after the ack, so that it is waited for.
    pub(crate) async fn counted(&self, child: &Child, pool: &str, verb: &str, outcome: &str, number: u32) {
        let series = format!("enlist_commands_total{{pool=\"{pool}\",verb=\"{verb}\",outcome=\"{outcome}\"}}");
        let what = format!("{series} to be {number}");
        self.until(&what, async || (child.metric(&series).await? == number.to_string()).then_some(())).await;
    }

    /// The opposite.
    pub(crate) async fn thawed(&self, child: &Child, pool: &str) {
        let gauge = child.metric(&format!("enlist_sweep_frozen{{pool=\"{pool}\"}}")).await;
        assert_eq!(gauge.as_deref(), Some("0"), "{}", self.story().await);
    }
}

/// What the command of [`provision`] claims.
pub(crate) fn claim(pool: &str, worker: &str) -> Claim {
    let command_id = format!("c-{worker}");
    Claim {
        pool: Pool::new(pool).unwrap(),
        worker_id: WorkerId::new(worker).unwrap(),
        worker_type: WorkerType::Dynamic,
        spec_hash: provision(&command_id, worker).content_hash(),
        command_id: CommandId::new(command_id).unwrap(),
        correlation_id: None,
        provider: "null".into(),
        capabilities: Capabilities::default(),
        registration: true,
    }
}

impl Command for PoolCommand {
    fn verb(&self) -> Verb {
        Verb::Pool
    }

    fn body(&self) -> Vec<u8> {
        self.encode()
    }
}

/// A pool is to have a size.
pub(crate) fn size(command_id: &str, size: u32) -> PoolCommand {
    PoolCommand { command_id: CommandId::new(command_id).unwrap(), size, expires_at: None, correlation_id: None }
}
