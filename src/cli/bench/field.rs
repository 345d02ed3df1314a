//! Where a run takes place: fresh streams under a prefix of their own, a full queue, an instant scheduler.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream;
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Run, bare};
use crate::bus::connection::{self, Connection};
use crate::bus::streams;
use crate::bus::subjects::Subjects;
use crate::config::{Config, ManageStreams, NullConfig, PoolConfig, ProviderConfig};
use crate::domain::{CommandId, Pool, Prefix, Verb, WorkerSpec};
use crate::registration::RegistrationConfig;
use crate::replica::Replica;
use crate::wire::command::ProvisionCommand;

/// A scheduler that takes its time.
const LONG_REPLY: Duration = Duration::from_secs(30);
/// As many as hardly ever are all in use at half of the highest rate.
const SLOTS_WHEN_PACED: usize = 256;
const LONGEST_RUN: Duration = Duration::from_secs(300);

/// A broker to measure on.
pub(super) struct Field {
    pub(super) config: Config,
    /// The pool that is worked off.
    pub(super) load: Pool,
    /// The one that has a command now and then, where two are looked at.
    pub(super) trickle: Pool,
    connection: Connection,
    pub(super) subjects: Subjects,
    /// The scheduler takes its time for the first pool's workers.
    holds_replies: Arc<AtomicBool>,
    scheduler: Option<std::thread::JoinHandle<()>>,
    scheduler_stop: CancellationToken,
}

impl Field {
    /// Takes a prefix that nobody has, and starts the scheduler on a thread and a connection of its own.
    pub(super) async fn open(config: &Config) -> anyhow::Result<Self> {
        // About as short as one in use: it stands a dozen times in what an event makes the server write, and longer ones cost.
        let prefix = Prefix::new(format!("b{:08x}", rand::random::<u32>()))?;
        let (load, trickle) = (Pool::new("load")?, Pool::new("trickle")?);
        let mut config = config.clone();
        config.prefix = prefix.clone();
        config.manage_streams = ManageStreams::Create;
        config.http.listen = ([127, 0, 0, 1], 0).into();
        config.scheduler.register = format!("{prefix}.scheduler.register");
        config.scheduler.unregister = format!("{prefix}.scheduler.unregister");
        config.scheduler.list = format!("{prefix}.scheduler.list");
        let connection = connection::connect(&config.nats, "enlist bench").await?;
        let scheduler_stop = CancellationToken::new();
        let holds_replies = Arc::new(AtomicBool::new(false));
        let scheduler = scheduler(config.clone(), load.clone(), Arc::clone(&holds_replies), scheduler_stop.clone())?;
        let (subjects, scheduler) = (Subjects::new(&prefix), Some(scheduler));
        Ok(Self { config, load, trickle, connection, subjects, holds_replies, scheduler, scheduler_stop })
    }

    pub(super) fn server_version(&self) -> String {
        self.connection.client.server_info().version
    }

    /// The product: a replica with `in_hand` slots works the queue off.
    pub(super) async fn enlist(&self, commands: usize, in_hand: usize, registration: bool) -> anyhow::Result<Run> {
        self.fresh(commands).await?;
        self.worked_off(commands, in_hand, registration, std::future::ready(Ok(()))).await
    }

    /// The same with commands that come one by one, so many a second.
    pub(super) async fn paced(&self, commands: usize, rate: f64, registration: bool) -> anyhow::Result<Run> {
        self.fresh(0).await?;
        self.worked_off(commands, SLOTS_WHEN_PACED, registration, self.send(commands, rate)).await
    }

    async fn worked_off(
        &self,
        commands: usize,
        in_hand: usize,
        registration: bool,
        sending: impl Future<Output = anyhow::Result<()>>,
    ) -> anyhow::Result<Run> {
        let mut config = self.config.clone();
        config.limits.concurrency = in_hand;
        config.pools = [(self.load.clone(), pool(in_hand, registration, Duration::ZERO))].into();
        let (told, mut ends) = tokio::sync::mpsc::unbounded_channel();
        let watch = Arc::new(move |verb: Verb, took: Duration| {
            // A replica sweeps its pool at every full minute, which is none of the commands that are counted.
            if verb == Verb::Provision {
                let _ = told.send(took);
            }
        });
        let replica = Replica::start_watched(&config, None, Some(watch)).await?;
        // The connection and the check of the streams are not measured, as they are not for the bare sequence; the first
        // pull goes out when this thread next waits.
        let (begun, cpu) = (Instant::now(), cpu());
        let mut each = Vec::with_capacity(commands);
        let all = async {
            while each.len() < commands {
                let Some(took) = ends.recv().await else { break };
                each.push(took);
            }
            Ok(())
        };
        let both = async { tokio::try_join!(all, sending) };
        tokio::time::timeout(LONGEST_RUN, both).await.context("the queue was not worked off in time")??;
        let run = finished(begun, cpu, each, commands);
        replica.drain().await;
        self.check(commands, if registration { 3 } else { 2 }).await?;
        Ok(run)
    }

    /// Publishes commands at a rate, each millisecond those that are due.
    async fn send(&self, commands: usize, rate: f64) -> anyhow::Result<()> {
        let subject = self.subjects.command(&self.load, Verb::Provision);
        let mut tick = tokio::time::interval(Duration::from_millis(1));
        let (begun, mut sent) = (Instant::now(), 0);
        while sent < commands {
            tick.tick().await;
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small number")]
            let due = ((begun.elapsed().as_secs_f64() * rate) as usize).min(commands);
            for n in sent..due {
                self.connection.client.publish(subject.clone(), command(n)?.encode().into()).await?;
            }
            sent = due;
        }
        Ok(())
    }

    /// The same writes and requests with nothing of the product in between.
    pub(super) async fn bare(&self, commands: usize, in_hand: usize) -> anyhow::Result<Run> {
        self.fresh(commands).await?;
        let (begun, cpu) = (Instant::now(), cpu());
        let register = self.config.scheduler.register.clone();
        let each = bare::run(&self.connection, &self.subjects, &self.load, register, commands, in_hand).await?;
        let run = finished(begun, cpu, each, commands);
        self.check(commands, 3).await?;
        Ok(run)
    }

    /// Streams without a message but for a queue that holds all commands.
    async fn fresh(&self, commands: usize) -> anyhow::Result<()> {
        self.streams(&[&self.load]).await?;
        self.fill(&self.load, commands).await
    }

    /// Streams without a message.
    pub(super) async fn streams(&self, pools: &[&Pool]) -> anyhow::Result<()> {
        self.remove().await;
        let domain = self.config.nats.domain.as_deref();
        let pools = pools.iter().copied();
        streams::ensure(&self.connection, domain, &self.subjects, pools, self.config.replicas, ManageStreams::Create)
            .await?;
        Ok(())
    }

    /// Puts so many provisions into a pool's queue.
    pub(super) async fn fill(&self, pool: &Pool, commands: usize) -> anyhow::Result<()> {
        let context = self.context();
        let subject = self.subjects.command(pool, Verb::Provision);
        stream::iter(0..commands)
            .map(|n| {
                let (context, subject) = (context.clone(), subject.clone());
                async move {
                    context.publish(subject, command(n)?.encode().into()).await?.await.map_err(anyhow::Error::from)
                }
            })
            .buffer_unordered(512)
            .try_for_each(|_| std::future::ready(Ok(())))
            .await
            .context("filling the queue")
    }

    /// A run that lost or doubled anything is no measurement.
    async fn check(&self, commands: usize, events_each: usize) -> anyhow::Result<()> {
        let context = self.context();
        let events = context.get_stream(self.subjects.event_stream()).await?.cached_info().state.messages;
        let left = self.left(&self.load).await?;
        let wanted = commands * events_each;
        anyhow::ensure!(events == wanted as u64, "{events} events are stored, expected {wanted}");
        anyhow::ensure!(left == 0, "{left} commands are left in the queue");
        Ok(())
    }

    /// Commands in a pool's queue.
    pub(super) async fn left(&self, pool: &Pool) -> anyhow::Result<u64> {
        Ok(self.context().get_stream(self.subjects.command_stream(pool)).await?.cached_info().state.messages)
    }

    /// Whether the scheduler takes its time for the workers of the first pool.
    pub(super) fn hold_replies(&self, hold: bool) {
        self.holds_replies.store(hold, Ordering::Relaxed);
    }

    /// Removes what the bench has made, and nothing else: its prefix is its own.
    async fn remove(&self) {
        let context = self.context();
        let queues = [&self.load, &self.trickle].map(|pool| self.subjects.command_stream(pool));
        let subjects = &self.subjects;
        let records = [subjects.view_stream(), subjects.event_stream(), subjects.dead_stream()];
        for name in queues.into_iter().chain(records) {
            let _ = context.delete_stream(name).await;
        }
    }

    pub(super) async fn close(mut self) {
        self.remove().await;
        self.scheduler_stop.cancel();
        if let Some(scheduler) = self.scheduler.take() {
            let _ = tokio::task::spawn_blocking(move || scheduler.join()).await;
        }
    }

    fn context(&self) -> jetstream::Context {
        streams::context(&self.connection, self.config.nats.domain.as_deref())
    }
}

pub(super) fn command(n: usize) -> anyhow::Result<ProvisionCommand> {
    Ok(ProvisionCommand {
        command_id: CommandId::new(format!("c-{n:08}"))?,
        worker_id: Some(crate::domain::WorkerId::new(format!("c-{n:08}"))?),
        spec: crate::wire::command::SpecOverrides::default(),
        registration: crate::wire::command::RegistrationOverrides::default(),
        expires_at: None,
        correlation_id: None,
    })
}

pub(super) fn pool(concurrency: usize, registration: bool, delay: Duration) -> PoolConfig {
    PoolConfig {
        provider: ProviderConfig::Null(NullConfig { delay, ..NullConfig::default() }),
        template: WorkerSpec { cpus: Some(2.0), memory_mb: Some(4096), ..WorkerSpec::default() },
        max_workers: None,
        concurrency,
        allow: [].into(),
        registration: RegistrationConfig { enabled: registration, ..RegistrationConfig::default() },
        launch_timeout: Duration::from_secs(300),
        grace: Duration::from_secs(10),
    }
}

fn finished(begun: Instant, cpu_before: Duration, mut each: Vec<Duration>, commands: usize) -> Run {
    let took = begun.elapsed();
    each.sort_unstable();
    let cpu = cpu().saturating_sub(cpu_before) / u32::try_from(commands.max(1)).unwrap_or(u32::MAX);
    Run { took, each, cpu }
}

/// Processor time of the calling thread, which turns everything but the scheduler.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Accepts every worker at once, on a thread of its own, so that it costs neither side anything but its requests.
fn scheduler(
    config: Config,
    held: Pool,
    holds: Arc<AtomicBool>,
    stop: CancellationToken,
) -> anyhow::Result<std::thread::JoinHandle<()>> {
    let (up, is_up) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let answered = super::super::block_on(async {
            let connection = connection::connect(&config.nats, "enlist bench scheduler").await?;
            let client = connection.client;
            let mut requests = client.subscribe(config.scheduler.register.clone()).await?;
            client.flush().await?;
            let _ = up.send(());
            let accepted = bytes::Bytes::from_static(b"{\"status\":\"accepted\"}");
            let held = format!("\"pool\":\"{held}\"");
            while let Some(Some(request)) = stop.run_until_cancelled(requests.next()).await {
                let Some(reply) = request.reply else { continue };
                if holds.load(Ordering::Relaxed) && contains(&request.payload, held.as_bytes()) {
                    let (client, accepted) = (client.clone(), accepted.clone());
                    tokio::spawn(async move {
                        tokio::time::sleep(LONG_REPLY).await;
                        client.publish(reply, accepted).await
                    });
                } else {
                    client.publish(reply, accepted.clone()).await?;
                }
            }
            anyhow::Ok(())
        });
        if let Err(error) = answered {
            eprintln!("enlist: the bench's scheduler: {error:#}");
        }
    });
    is_up.recv().context("the bench's scheduler did not start")?;
    Ok(thread)
}

fn contains(body: &[u8], part: &[u8]) -> bool {
    body.windows(part.len()).any(|window| window == part)
}
