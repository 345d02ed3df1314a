//! The spans of a command: itself, each call of its provider, each request to the scheduler.
//!
//! Log lines carry the command's span. Those below it are for the export, and in the log only at `debug`.

use futures_util::FutureExt as _;
use tracing::{Instrument as _, Span, debug_span, field, info_span};

use super::labels::{AttemptOutcome, Operation, ProviderOutcome};
use super::otlp;
use crate::domain::{CommandId, Pool, TraceContext, Verb, WorkerId};
use crate::provider::ProviderError;
use crate::registration::RegistrationError;

/// What every log line of a command carries, and the trace that everything after it is part of: the command's own, by way
/// of this span where spans are exported. A provision's worker id is filled in with its claim.
#[must_use]
pub fn command_span(
    pool: &Pool,
    verb: Verb,
    command_id: &CommandId,
    worker_id: Option<&WorkerId>,
    trace: Option<&TraceContext>,
) -> (Span, Option<TraceContext>) {
    // Whole at once: for a field that is recorded later the log reads its own JSON back and writes it anew.
    let worker_id = worker_id.map(field::display);
    let span = info_span!("command", %pool, verb = verb.as_str(), %command_id, worker_id);
    let trace = trace.map(|trace| otlp::join(&span, trace));
    (span, trace)
}

/// One call of a provider in a span of its own.
// Like the next one, and `retry::ask`, no `async fn`: that would have the room for its argument twice.
pub fn in_provider_span<T>(
    operation: Operation,
    call: impl Future<Output = Result<T, ProviderError>>,
) -> impl Future<Output = Result<T, ProviderError>> {
    let span = debug_span!("provider", operation = operation.as_str());
    call.instrument(span.clone()).inspect(move |answer| {
        if let Err(error) = answer {
            otlp::failed(&span, ProviderOutcome::from(error.class).as_str());
        }
    })
}

/// One request to the scheduler in a span of its own.
pub fn in_scheduler_span(
    request: &'static str,
    answer: impl Future<Output = Result<(), RegistrationError>>,
) -> impl Future<Output = Result<(), RegistrationError>> {
    let span = debug_span!("scheduler", request);
    answer.instrument(span.clone()).inspect(move |answer| {
        if answer.is_err() {
            otlp::failed(&span, AttemptOutcome::from(answer).as_str());
        }
    })
}
