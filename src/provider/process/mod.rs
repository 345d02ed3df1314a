//! Workers as child processes of this host, which outlive the replica that started them.

mod group;
mod home;
mod launch;
mod proc;

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use process_wrap::tokio::ChildWrapper;
use rustix::process::Signal;
use tokio::sync::watch;
use uuid::Uuid;

use super::off_thread::off_thread;
use super::recorded::Recorded;
use super::{Instance, LaunchRequest, ProviderError, WorkerProvider};
use crate::crash::{self, CrashPoint};
use crate::domain::{ErrorClass, Pool, Prefix, WorkerKey};
use group::Group;
pub use home::Exit;
use home::{Home, Record, Slot};
use proc::Born;

/// Starts, finds and ends processes. Replicas on one host share its state folder, and need to see the same processes:
/// in containers, share the pid namespace too. Clones are the same provider.
///
/// A worker lives as long as the process that was started for it, the leader of its session. What it wrote is in `log`; how
/// it ended is in `exit` if the replica that started it was there to see it: only a parent is told an exit status, so an
/// adopted worker's end leaves none. All of it goes with the terminate. Cores, memory and accelerators of the specification
/// are what the worker is said to offer; nothing here enforces them.
#[derive(Debug, Clone)]
pub struct ProcessProvider {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    home: Home,
    passed_on: Vec<(&'static str, OsString)>,
    boot: OnceLock<String>,
    /// The children whose exit status this replica will be told, by instance id. Nothing is decided by it.
    children: Mutex<HashMap<String, watch::Receiver<bool>>>,
}

impl ProcessProvider {
    /// The provider of a fleet, with its state below `state_dir`, which is made by the first create.
    #[must_use]
    pub fn new(prefix: &Prefix, state_dir: impl AsRef<Path>) -> Self {
        // Worked out once: the folder stays the same one if the replica's working directory should change.
        let state_dir = std::path::absolute(&state_dir).unwrap_or_else(|_| PathBuf::from(state_dir.as_ref()));
        let inner = Inner {
            home: Home::new(prefix, &state_dir),
            passed_on: launch::passed_on(),
            boot: OnceLock::new(),
            children: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Waits until an instance that this replica started has ended and its exit status is written; any other instance is
    /// not waited for.
    pub async fn ended(&self, instance_id: &str) {
        if let Some(mut reaped) = self.inner.child(instance_id) {
            let _ = reaped.wait_for(|reaped| *reaped).await;
        }
    }

    /// How a worker's process ended, if the replica that started it saw that, until its terminate.
    pub async fn exit(&self, key: &WorkerKey) -> Result<Option<Exit>, ProviderError> {
        let key = key.clone();
        self.blocking(move |inner| inner.home.exit(&key)).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Inner>) -> Result<T, ProviderError> + Send + 'static,
    ) -> Result<T, ProviderError> {
        let inner = self.inner.clone();
        off_thread(move || work(&inner)).await
    }
}

impl WorkerProvider for ProcessProvider {
    fn name(&self) -> &'static str {
        "process"
    }

    async fn create_worker(&self, request: &LaunchRequest) -> Result<Instance, ProviderError> {
        let request = request.clone();
        self.blocking(move |inner| inner.create(&request)).await
    }

    async fn terminate_worker(
        &self,
        key: &WorkerKey,
        instance_id: Option<&str>,
        grace: Duration,
    ) -> Result<(), ProviderError> {
        loop {
            let (wanted, meant) = (key.clone(), instance_id.map(str::to_owned));
            let found = self.blocking(move |inner| inner.look_to_end(&wanted, meant.as_deref())).await?;
            let Some((ending, group)) = found else { return Ok(()) };
            if let Some(group) = group {
                // The lock is not held meanwhile: a grace may be long, and list and find have to answer.
                let reaped = self.inner.child(&ending);
                Arc::new(group).end(grace, reaped).await?;
            }
            let wanted = key.clone();
            if self.blocking(move |inner| inner.forget(&wanted, &ending)).await? {
                return Ok(());
            }
        }
    }

    async fn find_worker(&self, key: &WorkerKey) -> Result<Option<Instance>, ProviderError> {
        let key = key.clone();
        self.blocking(move |inner| inner.find(&key)).await
    }

    async fn list_workers(&self, pool: &Pool) -> Result<Vec<Instance>, ProviderError> {
        let pool = pool.clone();
        self.blocking(move |inner| inner.list(&pool)).await
    }
}

impl Inner {
    fn create(self: &Arc<Self>, request: &LaunchRequest) -> Result<Instance, ProviderError> {
        launch::validate(&request.spec)?;
        let slot = self.home.make(&request.key)?;
        if let Some(record) = record(&slot)? {
            record.intent.claimed_by(request)?;
            if let Some(instance) = self.adopt(&slot, &record)? {
                return Ok(instance);
            }
        }
        self.start(slot, request)
    }

    /// The recorded instance, if it lives. Where it does not, what it left of its group is killed, because a new instance
    /// must not run beside the remains of the old one.
    fn adopt(&self, slot: &Slot, record: &Record) -> Result<Option<Instance>, ProviderError> {
        let Some(group) = self.group(record)? else { return Ok(None) };
        if group.leader.is_live(&group.boot).map_err(|fault| proc_trouble(&fault))? {
            if record.born.is_none() {
                slot.reopen()?.write_born(&group.leader)?;
            }
            return Ok(Some(record.intent.instance()));
        }
        group.signal(Signal::KILL).map_err(|fault| proc_trouble(&fault))?;
        Ok(None)
    }

    fn start(self: &Arc<Self>, slot: Slot, request: &LaunchRequest) -> Result<Instance, ProviderError> {
        let intent = Recorded::new(request, format!("p-{}", Uuid::new_v4().simple()), Timestamp::now());
        let started = self.start_in(&slot, request, &intent);
        let child = match started {
            Ok(child) => child,
            Err(fault) => {
                // The start's own fault is the news; a folder that stays holds no process and does no harm.
                let _ = slot.remove();
                return Err(fault);
            }
        };
        self.await_exit(intent.key(), intent.instance_id.clone(), child);
        Ok(intent.instance())
    }

    fn start_in(
        &self,
        slot: &Slot,
        request: &LaunchRequest,
        intent: &Recorded,
    ) -> Result<Box<dyn ChildWrapper>, ProviderError> {
        let boot = self.boot()?;
        let log = slot.log()?;
        // Written before the spawn: a crash between the two leaves a name to search /proc for, never a process that
        // nobody knows.
        let file = slot.write_intent(intent)?;
        crash::point(CrashPoint::ProcessIntentWritten);
        let mut child = launch::spawn(request, intent, &self.passed_on, log)?;
        crash::point(CrashPoint::ProcessSpawned);
        let recorded = match child.id().and_then(|pid| i32::try_from(pid).ok()) {
            Some(pid) => {
                Born::now(pid, boot).map_err(|fault| proc_trouble(&fault)).and_then(|born| file.write_born(&born))
            }
            None => Err(ProviderError::new(ErrorClass::Internal, "the new process has no pid")),
        };
        if let Err(fault) = recorded {
            // Not yet waited for, so its pid is still its own and this hits no other process.
            let _ = child.start_kill();
            return Err(fault);
        }
        Ok(child)
    }

    /// Takes the exit status when it comes, so that no zombie stays, and writes it down.
    fn await_exit(self: &Arc<Self>, key: WorkerKey, instance_id: String, mut child: Box<dyn ChildWrapper>) {
        let (reaped, watched) = watch::channel(false);
        self.children().insert(instance_id.clone(), watched);
        let inner = self.clone();
        tokio::spawn(async move {
            let status = child.wait().await;
            let written = {
                let (inner, instance_id) = (inner.clone(), instance_id.clone());
                off_thread(move || match status {
                    Ok(status) => inner.write_exit(&key, instance_id, status),
                    Err(fault) => Err(proc_trouble(&fault)),
                })
                .await
            };
            if let Err(fault) = written {
                tracing::warn!(%instance_id, fault = %fault.fault().message, "exit status of a worker not recorded");
            }
            reaped.send_replace(true);
            inner.children().remove(&instance_id);
        });
    }

    fn write_exit(&self, key: &WorkerKey, instance_id: String, status: ExitStatus) -> Result<(), ProviderError> {
        let Some(slot) = self.home.open(key)? else { return Ok(()) };
        // Another instance may have the folder by now.
        if slot.record()?.is_some_and(|record| record.intent.instance_id == instance_id) {
            let (code, signal) = (status.code(), status.signal());
            slot.write_exit(&Exit { instance_id, code, signal, at: Timestamp::now() })?;
        }
        Ok(())
    }

    /// What a terminate has to end: the instance and, where a process was ever started, its group.
    fn look_to_end(
        &self,
        key: &WorkerKey,
        instance_id: Option<&str>,
    ) -> Result<Option<(String, Option<Group>)>, ProviderError> {
        let Some(slot) = self.home.open(key)? else { return Ok(None) };
        let Some(record) = record(&slot)? else {
            slot.remove()?;
            return Ok(None);
        };
        let group = self.group(&record)?;
        if let Some(group) = &group
            && group.leader.is_live(&group.boot).map_err(|fault| proc_trouble(&fault))?
        {
            record.intent.meant_by(instance_id)?;
        }
        Ok(Some((record.intent.instance_id, group)))
    }

    /// Removes the folder of an instance that has ended; false where another instance has come into it.
    fn forget(&self, key: &WorkerKey, instance_id: &str) -> Result<bool, ProviderError> {
        let Some(slot) = self.home.open(key)? else { return Ok(true) };
        if slot.record()?.is_some_and(|record| record.intent.instance_id != instance_id) {
            return Ok(false);
        }
        slot.remove().map(|()| true)
    }

    fn find(&self, key: &WorkerKey) -> Result<Option<Instance>, ProviderError> {
        // Under the lock: what a create is just starting is not searched for in all of /proc.
        let Some(slot) = self.home.open(key)? else { return Ok(None) };
        let Some(record) = record(&slot)? else { return Ok(None) };
        let Some(group) = self.group(&record)? else { return Ok(None) };
        let live = group.leader.is_live(&group.boot).map_err(|fault| proc_trouble(&fault))?;
        Ok(live.then(|| record.intent.instance()))
    }

    fn list(&self, pool: &Pool) -> Result<Vec<Instance>, ProviderError> {
        let boot = self.boot()?;
        let mut instances = Vec::new();
        for key in self.home.keys(pool)? {
            let found = match self.home.glance(&key)? {
                Some(Record { intent, born: Some(born) }) => {
                    let live = born.is_live(boot).map_err(|fault| proc_trouble(&fault))?;
                    live.then(|| intent.instance())
                }
                // Just being started, or its replica was killed while it did: the lock tells.
                Some(Record { born: None, .. }) | None => self.find(&key)?,
            };
            instances.extend(found);
        }
        Ok(instances)
    }

    /// The processes of a record; `None` where none was ever started.
    fn group(&self, record: &Record) -> Result<Option<Group>, ProviderError> {
        let boot = self.boot()?;
        let instance_id = &record.intent.instance_id;
        let leader = match &record.born {
            Some(born) => Some(born.clone()),
            None => proc::search(instance_id, boot).map_err(|fault| proc_trouble(&fault))?,
        };
        Ok(leader.map(|leader| Group { instance_id: instance_id.clone(), leader, boot: boot.to_owned() }))
    }

    fn boot(&self) -> Result<&str, ProviderError> {
        if let Some(boot) = self.boot.get() {
            return Ok(boot);
        }
        let boot = proc::boot_id().map_err(|fault| proc_trouble(&fault))?;
        Ok(self.boot.get_or_init(|| boot))
    }

    fn child(&self, instance_id: &str) -> Option<watch::Receiver<bool>> {
        self.children().get(instance_id).cloned()
    }

    fn children(&self) -> std::sync::MutexGuard<'_, HashMap<String, watch::Receiver<bool>>> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is written of a worker, under its lock. A crash leaves half a first line only where there is no process yet: if one
/// runs all the same, somebody has cut its record off, and to take it for gone would leave it running for nobody.
fn record(slot: &Slot) -> Result<Option<Record>, ProviderError> {
    let record = slot.record()?;
    if record.is_none()
        && slot.is_torn()?
        && let Some(pid) = slot.writer().map_err(|fault| proc_trouble(&fault))?
    {
        let path = slot.path().join("instance");
        let text =
            format!("{}: cut off, and process {pid} writes to the log beside it: end it by hand", path.display());
        return Err(ProviderError::new(ErrorClass::Internal, text));
    }
    Ok(record)
}

fn proc_trouble(fault: &std::io::Error) -> ProviderError {
    let class = launch::lack(fault).unwrap_or(ErrorClass::Unavailable);
    ProviderError::new(class, format!("looking at processes: {fault}"))
}
