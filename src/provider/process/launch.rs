//! Starts a worker's process in a session of its own, and says in which class a start that failed belongs.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;

use process_wrap::tokio::{ChildWrapper, CommandWrap, ProcessSession};
use rustix::fs::{Access, access};
use rustix::io::Errno;

use crate::domain::{ErrorClass, TraceContext, WorkerSpec};
use crate::provider::recorded::Recorded;
use crate::provider::{LaunchRequest, ProviderError};

/// What of the replica's own environment its workers get. The rest may hold the replica's secrets.
const PASSED_ON: [&str; 4] = ["PATH", "HOME", "LANG", "TMPDIR"];

/// The part of this process's environment that workers get.
pub(super) fn passed_on() -> Vec<(&'static str, OsString)> {
    PASSED_ON.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))).collect()
}

/// Refuses what no process can be made of, before anything is written.
pub(super) fn validate(spec: &WorkerSpec) -> Result<(), ProviderError> {
    let refuse = |text: String| Err(ProviderError::new(ErrorClass::InvalidSpec, text));
    // Cores, memory and accelerators are told to the scheduler and not enforced here; labels are only recorded.
    let WorkerSpec { image, command, env, labels: _, cpus: _, memory_mb: _, gpus: _ } = spec;
    if command.first().is_none_or(String::is_empty) {
        return refuse("command: found none, expected a program and its arguments".to_owned());
    }
    if let Some(image) = image {
        return refuse(format!("image: found {image:?}, expected none, since a process has no image"));
    }
    if let Some(name) = env.keys().find(|name| name.is_empty() || name.contains(['=', '\0'])) {
        return refuse(format!("env: found the name {name:?}, expected a name without '=' and NUL"));
    }
    if let Some(name) = env.iter().find_map(|(name, value)| value.contains('\0').then_some(name)) {
        return refuse(format!("env: the value of {name:?} has a NUL in it"));
    }
    Ok(())
}

/// Starts the process. It has no stdin, writes to the log, and is the leader of its session and process group.
pub(super) fn spawn(
    request: &LaunchRequest,
    intent: &Recorded,
    passed_on: &[(&'static str, OsString)],
    log: File,
) -> Result<Box<dyn ChildWrapper>, ProviderError> {
    let Some((program, arguments)) = request.spec.command.split_first() else {
        return Err(ProviderError::new(ErrorClass::InvalidSpec, "command: found none"));
    };
    let path = resolve(program, &request.spec, passed_on)?;
    let errors = log.try_clone().map_err(|fault| refused(program, &fault))?;
    let mut command = CommandWrap::with_new(path, |command| {
        command
            .arg0(program)
            .args(arguments)
            .env_clear()
            .envs(passed_on.iter().map(|(name, value)| (name, value)))
            // Before the specification, which may set the same variables.
            .envs(request.trace.iter().flat_map(TraceContext::environment))
            .envs(&request.spec.env)
            // Last, so that no specification can take the name away by which a crash finds its process again.
            .env("ENLIST_INSTANCE", &intent.instance_id)
            .env("ENLIST_POOL", intent.pool.as_str())
            .env("ENLIST_WORKER_ID", intent.worker_id.as_str())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors);
    });
    command.wrap(ProcessSession);
    let child = command.spawn().map_err(|fault| refused(program, &fault))?;
    // The wrapper's own wait would block a thread until the whole group has ended; ours waits for the leader alone.
    Ok(child.into_inner())
}

/// The program's path, looked up here in the `PATH` that the worker will have: left to the child, every folder before the
/// right one costs an exec that does not succeed, and the answer names no reason.
fn resolve(program: &str, spec: &WorkerSpec, passed_on: &[(&'static str, OsString)]) -> Result<PathBuf, ProviderError> {
    if program.contains('/') {
        return Ok(PathBuf::from(program));
    }
    let own = spec.env.get("PATH").map(OsString::from);
    let path = own.or_else(|| passed_on.iter().find(|(name, _)| *name == "PATH").map(|(_, path)| path.clone()));
    let path = path.unwrap_or_else(|| OsString::from("/usr/local/bin:/usr/bin:/bin"));
    let folders = std::env::split_paths(&path).filter(|folder| folder.is_absolute());
    let mut found = folders.map(|folder| folder.join(program));
    found.find(|path| path.is_file() && access(path, Access::EXEC_OK).is_ok()).ok_or_else(|| {
        let text = format!("command: found {program:?}, expected a program in one of the folders of PATH, or a path");
        ProviderError::new(ErrorClass::InvalidSpec, text)
    })
}

/// The class of a lack of room, if that is what the fault is.
pub(super) fn lack(fault: &io::Error) -> Option<ErrorClass> {
    let code = Errno::from_raw_os_error(fault.raw_os_error()?);
    let room = [Errno::AGAIN, Errno::NOMEM, Errno::MFILE, Errno::NFILE, Errno::NOSPC, Errno::DQUOT];
    room.contains(&code).then_some(ErrorClass::InsufficientCapacity)
}

fn refused(program: &str, fault: &io::Error) -> ProviderError {
    let class = lack(fault).unwrap_or(match fault.kind() {
        io::ErrorKind::NotFound
        | io::ErrorKind::PermissionDenied
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::IsADirectory
        | io::ErrorKind::InvalidInput
        | io::ErrorKind::InvalidFilename
        | io::ErrorKind::ArgumentListTooLong => ErrorClass::InvalidSpec,
        _ if fault.raw_os_error() == Some(Errno::NOEXEC.raw_os_error()) => ErrorClass::InvalidSpec,
        _ => ErrorClass::Internal,
    });
    ProviderError::new(class, format!("command: cannot start {program:?}: {fault}"))
}
