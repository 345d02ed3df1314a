//! When the scheduler is asked again: the only place that knows the `backoff` crate.
//!
//! That crate is no longer maintained (RUSTSEC-2025-0012). Only its arithmetic is used, in `pauses`: another source of
//! growing durations there, and it is replaced. The jitter is drawn here, from a chance that the caller gives.

use std::time::Duration;

use backoff::SystemClock;
use backoff::backoff::Backoff;
use backoff::exponential::{ExponentialBackoff, ExponentialBackoffBuilder};
use futures_util::FutureExt as _;
use jiff::Timestamp;
use tokio::time::{Instant, sleep, timeout};

use super::{RegisterWorker, RegistrationError, UnregisterWorker, WorkerRegistrationPort};
use crate::domain::RegistrationFault;

/// A busy scheduler is not asked again sooner, whatever it says: `retry_after_ms: 0` must not become a hot loop.
const SHORTEST_BUSY: Duration = Duration::from_millis(50);
/// Less than this is no time for one more try.
const SHORTEST_LAST: Duration = Duration::from_millis(50);

/// How a worker is registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistrationConfig {
    /// Whether the scheduler is told at all.
    pub enabled: bool,
    /// Tries after the first.
    pub max_retries: u32,
    /// All tries together.
    pub timeout: Duration,
}

impl Default for RegistrationConfig {
    fn default() -> Self {
        Self { enabled: true, max_retries: 3, timeout: Duration::from_secs(30) }
    }
}

/// How a registration ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// Requests sent that count as tries.
    pub attempts: u32,
    /// Why the scheduler has not accepted it; `None` where it has.
    pub error: Option<RegistrationError>,
}

impl Registered {
    /// The error as it goes into the record.
    #[must_use]
    pub fn fault(&self) -> Option<RegistrationFault> {
        self.error.as_ref().map(RegistrationError::fault)
    }
}

/// How an unregistration ended. The worker goes in each case; only after `Done` has the scheduler let it go.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Unregistered {
    /// The scheduler does not know the worker any more.
    Done,
    /// It was still draining when its grace was over, or nobody wanted to wait for that.
    StillBusy,
    /// The scheduler was away for longer than anybody wanted to wait, or refused: the sweep unregisters later.
    Unreachable(RegistrationFault),
}

/// What sends one register request: a scheduler, or what stands before it.
pub trait Register: Sync {
    /// Asks the scheduler to take the worker.
    fn register(&self, request: &RegisterWorker) -> impl Future<Output = Result<(), RegistrationError>> + Send;
}

impl<R: WorkerRegistrationPort> Register for R {
    async fn register(&self, request: &RegisterWorker) -> Result<(), RegistrationError> {
        self.register_worker(request).await
    }
}

/// Registers a worker: a first try and up to `max_retries` more, all within `config.timeout`.
///
/// The caller has seen that registration is enabled. A refusal ends it at once; a busy scheduler is waited for and not
/// counted. It also ends as soon as the next request could only be sent after the time-out: a slot is not held for a
/// wait that cannot help. `on_attempt` sees the end of every request, busy ones too; `now` is read for `expires_at`, so
/// that a request which is still queued somewhere when its try is over can be told by the scheduler.
pub async fn register<R: Register>(
    port: &R,
    mut request: RegisterWorker,
    config: &RegistrationConfig,
    try_timeout: Duration,
    now: impl Fn() -> Timestamp,
    chance: impl Fn() -> f64,
    mut on_attempt: impl FnMut(&Result<(), RegistrationError>),
) -> Registered {
    let deadline = Instant::now() + config.timeout;
    let mut pauses = pauses();
    let mut attempts = 0;
    loop {
        let wait = try_timeout.min(left(deadline));
        request.attempt = attempts + 1;
        request.expires_at = now().checked_add(wait).unwrap_or(Timestamp::MAX);
        let answer = ask(wait, port.register(&request)).await;
        on_attempt(&answer);
        let Err(error) = answer else { return Registered { attempts: attempts + 1, error: None } };
        let pause = match &error {
            RegistrationError::Busy { retry_after } => Some((*retry_after).max(SHORTEST_BUSY)),
            RegistrationError::Rejected { .. } => {
                attempts += 1;
                None
            }
            RegistrationError::Unavailable { .. } | RegistrationError::Unreadable(_) => {
                attempts += 1;
                (attempts <= config.max_retries).then(|| next(&mut pauses, chance()))
            }
        };
        match pause.filter(|pause| *pause < left(deadline)) {
            Some(pause) => sleep(pause).await,
            None => return Registered { attempts, error: Some(error) },
        }
    }
}

/// Unregisters a worker that is about to go.
///
/// While it drains the scheduler is asked again until `request.grace` is over, and a last time then; with `force` it is
/// not waited for. A scheduler that cannot be reached costs `patience` in all, however it comes and goes meanwhile.
pub async fn unregister<R: WorkerRegistrationPort>(
    port: &R,
    request: &UnregisterWorker,
    try_timeout: Duration,
    mut patience: Duration,
    force: bool,
    chance: impl Fn() -> f64,
    mut on_attempt: impl FnMut(&Result<(), RegistrationError>),
) -> Unregistered {
    let drained = Instant::now() + request.grace;
    let mut pauses = pauses();
    loop {
        let asked = Instant::now();
        let answer = ask(try_timeout.min(patience), port.unregister_worker(request)).await;
        on_attempt(&answer);
        match answer {
            Ok(()) => return Unregistered::Done,
            Err(RegistrationError::Busy { .. }) if force || left(drained).is_zero() => return Unregistered::StillBusy,
            Err(RegistrationError::Busy { retry_after }) => {
                pauses.reset();
                sleep(retry_after.max(SHORTEST_BUSY).min(left(drained))).await;
            }
            Err(error @ RegistrationError::Rejected { .. }) => return Unregistered::Unreachable(error.fault()),
            Err(error @ (RegistrationError::Unavailable { .. } | RegistrationError::Unreadable(_))) => {
                patience = patience.saturating_sub(asked.elapsed());
                if patience < SHORTEST_LAST {
                    return Unregistered::Unreachable(error.fault());
                }
                // However long the next pause would be, the time of a last try is left: a scheduler that is back before
                // the patience is over is told.
                let pause = next(&mut pauses, chance()).min(patience.saturating_sub(try_timeout.min(patience / 2)));
                patience = patience.saturating_sub(pause);
                sleep(pause).await;
            }
        }
    }
}

/// One request that ends in time, whatever the port does.
fn ask(
    wait: Duration,
    answer: impl Future<Output = Result<(), RegistrationError>>,
) -> impl Future<Output = Result<(), RegistrationError>> {
    timeout(wait, answer).map(move |answer| {
        answer.unwrap_or_else(|_| {
            let message = format!("no answer within {} ms", wait.as_millis());
            Err(RegistrationError::Unavailable { code: "timeout", message })
        })
    })
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// The windows of the pauses: 100 ms doubling up to 30 s.
fn pauses() -> ExponentialBackoff<SystemClock> {
    ExponentialBackoffBuilder::new()
        .with_initial_interval(Duration::from_millis(100))
        .with_randomization_factor(0.0)
        .with_multiplier(2.0)
        .with_max_interval(Duration::from_secs(30))
        .with_max_elapsed_time(None)
        .build()
}

/// Anywhere in the next window: full jitter. The crate says `None` only after an elapsed time, of which there is none here.
fn next(pauses: &mut impl Backoff, chance: f64) -> Duration {
    pauses.next_backoff().unwrap_or(Duration::from_secs(30)).mul_f64(chance.clamp(0.0, 1.0))
}

#[cfg(test)]
#[path = "retry_tests.rs"]
mod tests;
