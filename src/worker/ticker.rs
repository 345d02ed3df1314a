//! Asks for the sweeps: every replica for each of its pools in every interval, and the server takes one.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::bus::commands;
use crate::bus::delivery::Desk;
use crate::domain::{CommandId, Verb};
use crate::handle::sweep::{INTERVAL_ID, interval_number};
use crate::wire::command::SweepCommand;

/// Replicas whose clocks agree do not ask all at the same moment.
const SPREAD: Duration = Duration::from_secs(2);

/// Asks until told to stop. A replica that cannot ask leaves it to the others, and to the next interval.
pub async fn ask_for_sweeps(desks: Vec<Arc<Desk>>, interval: Duration, stop: CancellationToken) {
    loop {
        let spread = SPREAD.min(interval / 10).mul_f64(rand::random());
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(until_next(jiff::Timestamp::now(), interval) + spread) => {}
        }
        let number = interval_number(jiff::Timestamp::now(), interval);
        let Ok(command_id) = CommandId::new(format!("{INTERVAL_ID}{number}")) else { continue };
        tokio::select! {
            // Each request to a broker that is away takes its time, and a drain has none for it.
            () = stop.cancelled() => return,
            () = ask(&desks, command_id) => {}
        }
    }
}

async fn ask(desks: &[Arc<Desk>], command_id: CommandId) {
    let body = SweepCommand { command_id: command_id.clone() }.encode();
    for desk in desks {
        // De-duplicated by the id within the stream's window, so that no election is needed.
        let subject = desk.subjects.command(&desk.pool, Verb::Sweep);
        let put = commands::put(&desk.requests, subject, command_id.as_str(), body.clone().into(), None).await;
        if let Err(error) = put {
            tracing::debug!(pool = %desk.pool, %error, "the sweep was not asked for");
        }
    }
}

/// From now to the beginning of the next interval.
fn until_next(now: jiff::Timestamp, interval: Duration) -> Duration {
    let interval = interval.as_nanos().max(1);
    let passed = u128::try_from(now.as_nanosecond()).unwrap_or(0) % interval;
    Duration::from_nanos(u64::try_from(interval - passed).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sweeps_are_asked_for_at_the_same_moments_by_every_replica() {
        let at = |millis: i64| jiff::Timestamp::from_millisecond(millis).unwrap();
        let minute = Duration::from_secs(60);
        assert_eq!(until_next(at(90_000), minute), Duration::from_secs(30));
        assert_eq!(until_next(at(120_000), minute), minute);
        assert_eq!((interval_number(at(119_999), minute), interval_number(at(120_000), minute)), (1, 2));
    }
}
