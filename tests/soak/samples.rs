//! What a replica holds at a moment, read from outside: memory, descriptors, threads, tasks.

use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// One look at a replica.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sample {
    pub(crate) at: Duration,
    pub(crate) rss_kib: u64,
    /// What is allocated and not freed: none where the build does not count it.
    pub(crate) heap_kib: u64,
    pub(crate) descriptors: u64,
    pub(crate) threads: u64,
    pub(crate) tasks: u64,
    /// Register requests that nobody has answered in time, since the replica began.
    pub(crate) timeouts: u64,
    pub(crate) dead_letters: u64,
}

impl Sample {
    pub(crate) const HEAD: &str = "     s    rss KiB   heap KiB  descriptors  threads  tasks   time-outs  dead letters";

    /// Looks now. The page is asked for last: the connection it comes over is a descriptor of the replica, too.
    pub(crate) async fn take(at: Duration, pid: u32, http: SocketAddr) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the replica runs");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line of its status");
            line.split_whitespace().next().and_then(|word| word.parse().ok()).expect("a number")
        };
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors").count() as u64;
        let metrics = page(http).await;
        let sum = |series: &str| metrics.lines().filter(|line| line.starts_with(series)).map(value).sum();
        Self {
            at,
            rss_kib: field("VmRSS:"),
            heap_kib: sum("enlist_heap_bytes ") >> 10,
            descriptors,
            threads: field("Threads:"),
            tasks: sum("enlist_tasks "),
            timeouts: sum("enlist_registration_attempts_total{outcome=\"unavailable\"}"),
            dead_letters: sum("enlist_dead_letters_total"),
        }
    }

    /// Whether no command is in hand.
    pub(crate) async fn idle(http: SocketAddr) -> bool {
        let metrics = page(http).await;
        let of_commands = |line: &&str| line.starts_with("enlist_commands_in_flight") && !line.contains("\"sweep\"");
        metrics.lines().filter(of_commands).map(value).sum::<u64>() == 0
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, rss_kib, heap_kib, descriptors, threads, tasks, timeouts, dead_letters } = self;
        let at = at.as_secs();
        write!(
            f,
            "{at:6} {rss_kib:10} {heap_kib:10} {descriptors:12} {threads:8} {tasks:6} {timeouts:11} {dead_letters:13}"
        )
    }
}

/// How much a figure grows in an hour, by least squares.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn slope(samples: &[Sample], figure: impl Fn(&Sample) -> u64) -> f64 {
    let number = samples.len() as f64;
    let hours = |sample: &Sample| sample.at.as_secs_f64() / 3600.0;
    let mean_at = samples.iter().map(hours).sum::<f64>() / number;
    let mean = samples.iter().map(|sample| figure(sample) as f64).sum::<f64>() / number;
    let above = samples.iter().map(|sample| (hours(sample) - mean_at) * (figure(sample) as f64 - mean)).sum::<f64>();
    let below = samples.iter().map(|sample| (hours(sample) - mean_at).powi(2)).sum::<f64>();
    if below > 0.0 { above / below } else { 0.0 }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn value(line: &str) -> u64 {
    let (_, value) = line.rsplit_once(' ').expect("a series and its value");
    value.parse::<f64>().expect("a number") as u64
}

async fn page(http: SocketAddr) -> String {
    let get = async {
        let mut stream = TcpStream::connect(http).await?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: enlist\r\nConnection: close\r\n\r\n").await?;
        let mut page = String::new();
        stream.read_to_string(&mut page).await?;
        std::io::Result::Ok(page)
    };
    timeout(Duration::from_secs(30), get).await.expect("the page within 30 s").expect("the page")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slope_is_what_an_hour_adds() {
        let sample = |at: u64| Sample { at: Duration::from_secs(at), rss_kib: 100 + at / 36, ..Sample::default() };
        let samples: Vec<_> = (0..10).map(|number| sample(number * 36)).collect();
        assert!((slope(&samples, |sample| sample.rss_kib) - 100.0).abs() < 1e-6);
        assert!(slope(&samples[..1], |sample| sample.rss_kib).abs() < 1e-6);
    }
}
