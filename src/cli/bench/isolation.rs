//! Whether a pool stands in another's way: the time of a trickle's commands, alone and beside a pool that does its worst.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::StreamExt as _;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::field::{Field, command, pool};
use super::{at, ms};
use crate::bus::connection;
use crate::bus::subjects::Subjects;
use crate::config::Config;
use crate::domain::{Pool, Verb};
use crate::replica::Replica;

/// Twenty commands a second.
const EVERY: Duration = Duration::from_millis(50);
/// Commands of the trickle in one run: a flood of 50,000 is over soon.
const NUMBER: usize = 80;
/// What a worker takes to be made.
const DELAY: Duration = Duration::from_millis(20);
/// Longer than any run.
const HANGING: Duration = Duration::from_secs(600);
/// Not measured: the first commands of a replica find everything cold.
const WARM_UP: usize = 10;
/// After this long a command that has no outcome is taken for stuck.
const LONGEST: Duration = Duration::from_secs(60);

/// What the other pool does meanwhile.
#[derive(Debug, Clone, Copy)]
enum Beside {
    Nothing,
    Flood,
    HangingProvider,
    SlowScheduler,
}

impl Beside {
    const ALL: [Self; 4] = [Self::Nothing, Self::Flood, Self::HangingProvider, Self::SlowScheduler];

    fn told(self) -> &'static str {
        match self {
            Self::Nothing => "alone",
            Self::Flood => "beside a flood",
            Self::HangingProvider => "beside a provider that hangs",
            Self::SlowScheduler => "beside a scheduler that takes 30 s",
        }
    }

    /// Commands in the other pool's queue.
    fn commands(self, flood: usize) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Flood => flood,
            // More than can be in hand.
            Self::HangingProvider | Self::SlowScheduler => 5_000.min(flood),
        }
    }

    fn delay(self) -> Duration {
        match self {
            Self::Nothing | Self::Flood | Self::SlowScheduler => DELAY,
            Self::HangingProvider => HANGING,
        }
    }
}

/// Prints a table; the samples of all `repeats` count together, as a p99 of one run would be its second worst.
pub(super) async fn measure(field: &Field, flood: usize, repeats: usize) -> anyhow::Result<()> {
    println!(
        "a pool with 20 commands a second, from publish to outcome, beside another with {flood} in its queue; both take \
         {} ms to make a worker; {repeats} runs of {NUMBER} commands",
        DELAY.as_millis()
    );
    let mut samples = Beside::ALL.map(|beside| (beside, Vec::new(), 0.0_f64));
    for _ in 0..repeats {
        for (beside, each, best) in &mut samples {
            let (times, rate) = run(field, *beside, flood).await.with_context(|| beside.told())?;
            each.extend(times);
            *best = best.max(rate);
        }
    }
    println!("{:<36} {:>8} {:>8}  {:>6} {:>6}  {:>8}", "", "p50 ms", "p99 ms", "p50 x", "p99 x", "other/s");
    let mut alone = None;
    for (beside, mut each, rate) in samples {
        each.sort_unstable();
        let (p50, p99) = (ms(at(&each, 0.5)), ms(at(&each, 0.99)));
        let (of_p50, of_p99) = *alone.get_or_insert((p50, p99));
        println!(
            "{:<36} {p50:>8.1} {p99:>8.1}  {:>6.2} {:>6.2}  {rate:>8.0}",
            beside.told(),
            p50 / of_p50,
            p99 / of_p99
        );
    }
    Ok(())
}

/// The times of the trickle, and how many commands a second the other pool had done meanwhile.
async fn run(field: &Field, beside: Beside, flood: usize) -> anyhow::Result<(Vec<Duration>, f64)> {
    let Field { subjects, load, trickle, .. } = field;
    field.streams(&[load, trickle]).await?;
    field.fill(load, beside.commands(flood)).await?;
    field.hold_replies(matches!(beside, Beside::SlowScheduler));
    let mut config = field.config.clone();
    config.limits.drain = Duration::from_millis(100);
    config.pools = [(load.clone(), pool(256, true, beside.delay())), (trickle.clone(), pool(256, true, DELAY))].into();
    let (replica, begun) = (Replica::start(&config, None).await?, Instant::now());
    // On a thread and a connection of its own, so that it measures the replica and not itself.
    let (subjects, pool) = (subjects.clone(), trickle.clone());
    let each = tokio::task::spawn_blocking(move || super::super::block_on(send(config, subjects, pool))).await??;
    let left = field.left(load).await?;
    #[allow(clippy::cast_precision_loss)]
    let rate = (beside.commands(flood) as u64).saturating_sub(left) as f64 / begun.elapsed().as_secs_f64();
    replica.drain().await;
    anyhow::ensure!(
        left > 0 || matches!(beside, Beside::Nothing),
        "the flood was over before the trickle: more --flood is needed"
    );
    Ok((each, rate))
}

/// Sends the trickle, and says how long each command took until its outcome was heard of.
async fn send(config: Config, subjects: Subjects, pool: Pool) -> anyhow::Result<Vec<Duration>> {
    let client = connection::connect(&config.nats, "enlist bench trickle").await?.client;
    let mut outcomes = client.subscribe(format!("{}.events.{pool}.*.registered", subjects.prefix())).await?;
    client.flush().await?;
    let subject = subjects.command(&pool, Verb::Provision);
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sent = HashMap::new();
    let mut each = Vec::with_capacity(NUMBER);
    let all = WARM_UP + NUMBER;
    while each.len() < all {
        tokio::select! {
            _ = tick.tick(), if sent.len() < all => {
                let command = command(sent.len())?;
                sent.insert(command.command_id.to_string(), Instant::now());
                client.publish(subject.clone(), command.encode().into()).await?;
            }
            outcome = timeout(LONGEST, outcomes.next()) => {
                let subject = outcome.context("a command has no outcome")?.context("the subscription has ended")?.subject;
                let begun = subject.split('.').nth_back(1).and_then(|worker| sent.get(worker));
                each.push(begun.context("an outcome of nobody's command")?.elapsed());
            }
        }
    }
    Ok(each.split_off(WARM_UP))
}
