//! `sweep`: compares the records with the world, and sends what the pool's size asks for.

use std::time::Duration;

use tracing::Instrument as _;

use super::{Handled, Handler, Message, undecodable};
use crate::bus::delivery::Verdict;
use crate::crash::{self, CrashPoint};
use crate::domain::{CommandId, Verb};
use crate::journal::Journal;
use crate::provider::WorkerProvider;
use crate::registration::WorkerRegistrationPort;
use crate::service::sweep::SweepError;
use crate::telemetry::{Outcome, command_span};
use crate::wire::command::SweepCommand;

/// Before the number of the interval, in the id of a sweep that enlist itself has asked for.
pub const INTERVAL_ID: &str = "sweep-";
/// So many intervals later a newer sweep is due, and does all that this one would.
const STALE: u64 = 2;
/// So far away from the present interval a number means something else: an operator's own count, or another interval.
const OTHER: u64 = 10_000;
/// How soon a sweep is tried again that found another one under way.
const UNDER_WAY: Duration = Duration::from_secs(5);

impl<P: WorkerProvider, R: WorkerRegistrationPort, J: Journal> Handler<P, R, J> {
    /// A sweep has no outcome but its log line, and is not tried again: the next one looks at everything anew. It comes
    /// again only when its replica died over it.
    pub(super) async fn sweep(&self, body: &[u8], message: Message<'_>) -> Handled {
        let SweepCommand { command_id } = match SweepCommand::decode(body) {
            Ok(command) => command,
            Err(error) => return undecodable(error),
        };
        let done = |outcome| Handled { verdict: Verdict::Done, outcome };
        // One that comes again had been begun: what its replica has left half done is this sweep's own to finish.
        if message.deliveries == 1 && self.is_stale(&command_id) {
            tracing::debug!(pool = %self.pool, %command_id, "a newer sweep does what this one would");
            return done(None);
        }
        // Workers keep the traces of their own commands.
        let (span, _) = command_span(&self.pool, Verb::Sweep, &command_id, None, message.trace);
        let swept = self.service.sweep_pool(&self.sweep, Some(message.sequence), Some(&self.queue.backlog));
        let report = match swept.instrument(span).await {
            Ok(report) => report,
            // The one that is under way looks at the same things. What comes again has something of its own to finish, and
            // what a person asked for is to look at what is there after it was asked.
            Err(SweepError::UnderWay) if message.deliveries == 1 && self.is_of_an_interval(&command_id) => {
                return done(None);
            }
            Err(SweepError::UnderWay) => return Handled { verdict: Verdict::Retry(UNDER_WAY), outcome: None },
            Err(SweepError::Provider(_) | SweepError::Journal(_) | SweepError::Size(_)) => {
                return done(Some(Outcome::Failed));
            }
        };
        crash::point(CrashPoint::Swept);
        if let Err(why) = self.queue.send(report.orders, report.size_rev).await {
            tracing::info!(pool = %self.pool, why, "what the pool's size asks for is left to the next sweep");
        }
        crash::point(CrashPoint::OrdersSent);
        done(Some(if report.frozen.is_some() { Outcome::Frozen } else { Outcome::Swept }))
    }

    /// Sweeps that have piled up while nobody took them would all find the same.
    fn is_stale(&self, command_id: &CommandId) -> bool {
        self.intervals_ago(command_id).is_some_and(|ago| ago > STALE)
    }

    fn is_of_an_interval(&self, command_id: &CommandId) -> bool {
        self.intervals_ago(command_id).is_some()
    }

    /// How long ago enlist itself asked for it, where it did.
    fn intervals_ago(&self, command_id: &CommandId) -> Option<u64> {
        let number = command_id.as_str().strip_prefix(INTERVAL_ID)?.parse::<u64>().ok()?;
        let now = interval_number(self.service.now(), self.sweep.interval);
        // A clock that is a little ahead of ours is no other one.
        let ago = if number > now && number - now <= STALE { 0 } else { now.checked_sub(number)? };
        (ago < OTHER).then_some(ago)
    }
}

/// How many intervals have passed since 1970: the same for every replica, so that one sweep is asked for once.
#[must_use]
pub fn interval_number(now: jiff::Timestamp, interval: std::time::Duration) -> u64 {
    let passed = u128::try_from(now.as_nanosecond()).unwrap_or(0);
    u64::try_from(passed / interval.as_nanos().max(1)).unwrap_or(u64::MAX)
}
