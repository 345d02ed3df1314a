//! `enlist bench`: how many commands a second this broker and this machine carry, beside the bare sequence of the same
//! writes in the same minutes. Read the ratio, not the numbers.

mod bare;
mod field;
mod isolation;

use std::time::Duration;

use clap::Args;

use self::field::Field;
use super::Exit;
use crate::config::Config;

/// What is measured.
#[derive(Args, Clone)]
pub(super) struct BenchArgs {
    /// Commands a run
    #[arg(long, default_value_t = 10_000)]
    commands: usize,
    /// Commands in hand at once, one row each
    #[arg(long, value_delimiter = ',', default_values_t = [64, 256])]
    concurrency: Vec<usize>,
    /// Runs of each kind; medians are printed
    #[arg(long, default_value_t = 3)]
    repeats: usize,
    /// One line of JSON for each run of enlist, and neither a table nor the bare sequence: for programs that compare
    #[arg(long, conflicts_with = "isolation")]
    json: bool,
    /// Measure instead how one pool's commands fare beside another pool that is flooded, hangs, or registers slowly
    #[arg(long)]
    isolation: bool,
    /// Commands in the other pool's queue
    #[arg(long, default_value_t = 50_000, requires = "isolation")]
    flood: usize,
}

/// One run.
pub(super) struct Run {
    /// From the first pull to the last ack.
    pub took: Duration,
    /// How long each command was in hand, sorted.
    pub each: Vec<Duration>,
    /// Processor time of this process a command, the scheduler's thread left out.
    pub cpu: Duration,
}

/// Runs the verb.
pub(super) async fn run(config: Config, args: BenchArgs) -> Exit {
    match measure(&config, &args).await {
        Ok(()) => Exit::Done,
        Err(error) => {
            eprintln!("enlist: {error:#}");
            Exit::Unavailable
        }
    }
}

async fn measure(config: &Config, args: &BenchArgs) -> anyhow::Result<()> {
    let BenchArgs { commands, concurrency, repeats, json, isolation, flood } = args;
    let field = Field::open(config).await?;
    if *isolation {
        let measured = isolation::measure(&field, *flood, *repeats).await;
        field.close().await;
        return measured;
    }
    if *json {
        let measured = lines(&field, args).await;
        field.close().await;
        return measured;
    }
    println!(
        "{commands} provisions a run, null provider, instant scheduler, nats-server {} at {}; medians of {repeats}",
        field.server_version(),
        config.nats.shown_url()
    );
    println!(
        "{:>7}  {:>10} {:>10} {:>6}  {:>8} {:>8} {:>8}  {:>9} {:>9}  {:>8}",
        "in hand", "enlist/s", "bare/s", "ratio", "p50 ms", "p95 ms", "p99 ms", "cpu us", "bare us", "RSS MiB"
    );
    let mut peak = 0.0_f64;
    for in_hand in concurrency {
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..*repeats {
            bare.push(field.bare(*commands, *in_hand).await?);
            ours.push(field.enlist(*commands, *in_hand, true).await?);
        }
        peak = row(*in_hand, *commands, &mut ours, &mut bare).max(peak);
    }
    let half = peak / 2.0;
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..*repeats {
        with.push(field.paced(*commands / 4, half, true).await?);
        without.push(field.paced(*commands / 4, half, false).await?);
    }
    let (with, without) = (median(&mut with), median(&mut without));
    println!(
        "registration at half of the highest rate, {half:.0}/s: p95 {:.2} ms with it, {:.2} ms without: it adds {:.2} ms",
        ms(with.at(0.95)),
        ms(without.at(0.95)),
        ms(with.at(0.95)) - ms(without.at(0.95))
    );
    field.close().await;
    Ok(())
}

/// Figures for a program, in the order of the runs; times in microseconds, memory in MiB.
async fn lines(field: &Field, args: &BenchArgs) -> anyhow::Result<()> {
    for _ in 0..args.repeats {
        for in_hand in &args.concurrency {
            let run = field.enlist(args.commands, *in_hand, true).await?;
            let us = |duration: Duration| duration.as_secs_f64() * 1e6;
            let line = serde_json::json!({
                "in_hand": in_hand,
                "commands": args.commands,
                "seconds": run.took.as_secs_f64(),
                "p50_us": us(run.at(0.5)),
                "p95_us": us(run.at(0.95)),
                "p99_us": us(run.at(0.99)),
                "cpu_us": us(run.cpu),
                "rss_mib": resident_mib(),
            });
            println!("{line}");
        }
    }
    Ok(())
}

/// Prints a row, and says how many commands a second enlist has done.
fn row(in_hand: usize, commands: usize, ours: &mut [Run], bare: &mut [Run]) -> f64 {
    let (ours, bare) = (median(ours), median(bare));
    #[allow(clippy::cast_precision_loss)]
    let rate = |run: &Run| commands as f64 / run.took.as_secs_f64();
    println!(
        "{in_hand:>7}  {:>10.0} {:>10.0} {:>6.2}  {:>8.2} {:>8.2} {:>8.2}  {:>9.1} {:>9.1}  {:>8.1}",
        rate(ours),
        rate(bare),
        rate(ours) / rate(bare),
        ms(ours.at(0.5)),
        ms(ours.at(0.95)),
        ms(ours.at(0.99)),
        ours.cpu.as_secs_f64() * 1e6,
        bare.cpu.as_secs_f64() * 1e6,
        resident_mib()
    );
    rate(ours)
}

/// The run in the middle, by time.
fn median(runs: &mut [Run]) -> &Run {
    runs.sort_by_key(|run| run.took);
    &runs[runs.len() / 2]
}

impl Run {
    fn at(&self, share: f64) -> Duration {
        at(&self.each, share)
    }
}

/// What so large a share of sorted times lies below.
fn at(sorted: &[Duration], share: f64) -> Duration {
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let at = (sorted.len() as f64 * share) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Resident memory of this process, from `/proc/self/status`; 0 where there is no such file.
fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok());
    kib.unwrap_or(0.0) / 1024.0
}
