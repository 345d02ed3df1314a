//! From a container that is there to a worker that runs, or to nothing.

use std::time::Duration;

use tokio::time::Instant;

use super::container::{Phase, Seen};
use super::engine::{Engine, Fault};
use super::retryable;
use crate::domain::{ErrorClass, Prefix};
use crate::provider::{Instance, ProviderError};

/// How long a start waits for proof that the worker's program runs; without proof either way it is believed.
const PROOF: Duration = Duration::from_secs(2);

/// Time between two looks for it.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Exit codes by which an init says that it could not execute the program it was given.
const NOT_EXECUTED: [i64; 2] = [126, 127];

/// Starts a container by its exact id, sees the program run, and reads the container back.
///
/// Also called for one that another call has made: starting twice is one start. `None` where there is none to be started.
pub(super) async fn start(engine: &Engine, fleet: &Prefix, id: &str) -> Result<Option<Instance>, ProviderError> {
    match engine.start(id).await {
        Ok(()) => {}
        Err(fault) if fault.is_not_found() || fault.is_conflict() => return Ok(None),
        Err(Fault::Failed(error)) => return Err(error),
        Err(Fault::Refused { status, words }) => {
            // Without force, so that a container which another call started meanwhile stays, and is read back below.
            if removed(engine, id).await? {
                return Err(not_started(status, words));
            }
        }
    }
    if let Some(code) = failed_exec(engine, id).await? {
        // Read before the container goes, and its log with it.
        let words = engine.words_of_init(id).await.unwrap_or_default();
        if removed(engine, id).await? {
            return Err(not_executed(code, &words));
        }
    }
    let listed = engine.list("id", vec![id.to_owned()]).await.map_err(Fault::into_error)?;
    let found = listed.into_iter().find(|found| found.id.as_deref() == Some(id));
    let seen = found.map(|found| Seen::read(fleet, found)).transpose()?.flatten();
    // One that has run and ended by now was made as asked: that its worker is gone is for the sweep to see.
    let seen = seen.filter(|seen| matches!(seen.phase, Phase::Live | Phase::Ended));
    seen.map(|seen| Some(seen.instance)).ok_or_else(|| vanished(id))
}

/// Removes a container that does not run; whether it is gone.
///
/// Called before the failure is told: told first, a crash between the two would leave a container that no command asks
/// for any more.
async fn removed(engine: &Engine, id: &str) -> Result<bool, ProviderError> {
    match engine.remove(id, false).await {
        Ok(()) => Ok(true),
        Err(fault) if fault.is_not_found() => Ok(true),
        Err(fault) if fault.is_conflict() => Ok(false),
        Err(fault) => Err(retryable(fault)),
    }
}

/// The exit code of a container whose program could not be executed; `None` where the program runs or has run.
///
/// The engine starts the container's init and is content. Only the init finds out that there is no such program, a
/// moment later, and ends: without this look each command with a mistyped program would be a worker made and lost.
/// The proof of life is a process beside the init with another command line: until it executes the program, the init's
/// child still has the init's own.
async fn failed_exec(engine: &Engine, id: &str) -> Result<Option<i64>, ProviderError> {
    let deadline = Instant::now() + PROOF;
    while Instant::now() < deadline {
        match engine.processes(id).await {
            Ok(processes) if processes.windows(2).any(|pair| pair[0] != pair[1]) => return Ok(None),
            Err(fault) if fault.is_not_found() => return Err(vanished(id)),
            Err(fault) if fault.is_conflict() => {
                let code = engine.exit_code(id).await.map_err(Fault::into_error)?;
                return Ok(code.filter(|code| NOT_EXECUTED.contains(code)));
            }
            Err(Fault::Failed(error)) => return Err(error),
            // The init alone as yet, or a container about to end whose processes cannot be listed any more.
            Ok(_) | Err(Fault::Refused { .. }) => {}
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(None)
}

/// A container that could not be started: the fault of its specification where the engine says so.
fn not_started(status: u16, words: String) -> ProviderError {
    // The engine answers 500 here, though trying again makes no accelerator.
    if words.contains("could not select device driver") {
        return ProviderError::new(ErrorClass::InvalidSpec, format!("docker cannot start the container: {words}"));
    }
    let error = Fault::Refused { status, words }.into_error();
    ProviderError { message: format!("cannot start the container: {}", error.message), ..error }
}

fn not_executed(code: i64, words: &str) -> ProviderError {
    let message = format!("cannot start the container: its program cannot be executed (exit code {code}): {words}");
    ProviderError::new(ErrorClass::InvalidSpec, message)
}

/// A container that goes on the way is not made again: a terminate that came in between must win.
pub(super) fn vanished(id: &str) -> ProviderError {
    ProviderError::new(ErrorClass::Internal, format!("docker container {id} was removed while it was being started"))
}
