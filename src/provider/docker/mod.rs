//! Workers as containers of one Docker engine.

mod container;
mod engine;
mod start;

use std::time::Duration;

use tokio::time::Instant;

use self::container::{FLEET, POOL, Phase, Seen, body, has_name, name};
use self::engine::{Engine, Fault};
use super::{Instance, LaunchRequest, ProviderError, WorkerProvider};
use crate::domain::{ErrorClass, Pool, Prefix, WorkerKey};

/// How long a container that is being made or removed by somebody else is waited for.
const SETTLING: Duration = Duration::from_secs(30);

/// Time between two looks while waiting.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Makes workers as containers of one Docker engine.
///
/// The engine itself is the only record: a container's name is unique, so the engine, and not this process, sees to it
/// that a key has one instance; its labels say whose it is. A container counts as an instance while it is made, runs or
/// is paused. One that has ended does not: it stays for its logs until the worker is terminated, or until the command
/// that made it asks again and gets a new one.
#[derive(Debug, Clone)]
pub struct DockerProvider {
    fleet: Prefix,
    engine: Engine,
}

/// Who holds the name of a key.
enum Holder {
    Nobody,
    Ours(Box<Seen>),
    /// A container that is not a worker of this fleet, with its id.
    Foreign(String),
}

impl DockerProvider {
    /// A provider for the fleet of `prefix` on the engine at `host` (`unix:///path`, `tcp://address:port`).
    ///
    /// Only the address is read: each call connects by itself, so an engine that is away does not hinder the start.
    pub fn connect(prefix: &Prefix, host: &str) -> Result<Self, ProviderError> {
        Ok(Self { fleet: prefix.clone(), engine: Engine::new(host)? })
    }

    async fn holder(&self, key: &WorkerKey) -> Result<Holder, ProviderError> {
        let name = name(&self.fleet, key);
        // The filter is a regular expression, and only the dot of our names means something in it.
        let pattern = format!("^/?{}$", name.replace('.', "\\."));
        let listed = self.engine.list("name", vec![pattern]).await.map_err(Fault::into_error)?;
        // Looked for once more here: a proxy that drops the filter would hand us every container of the engine, and the
        // first of them is not the one to remove.
        let Some(found) = listed.into_iter().find(|found| has_name(found, &name)) else {
            return Ok(Holder::Nobody);
        };
        let id = found.id.clone().unwrap_or_default();
        Ok(Seen::read(&self.fleet, found)?.map_or(Holder::Foreign(id), |seen| Holder::Ours(Box::new(seen))))
    }

    async fn start(&self, id: &str) -> Result<Option<Instance>, ProviderError> {
        start::start(&self.engine, &self.fleet, id).await
    }

    /// Makes the container, with its image pulled where it is absent; `None` where the name is taken.
    async fn make(&self, request: &LaunchRequest) -> Result<Option<String>, ProviderError> {
        let name = name(&self.fleet, &request.key);
        let body = body(&self.fleet, request)?;
        let image = body.image.clone().unwrap_or_default();
        match self.engine.create(&name, body.clone()).await {
            Err(fault) if fault.is_not_found() => {
                self.engine.pull(&image).await.map_err(|fault| not_pulled(&image, fault))?;
            }
            answer => return made(answer),
        }
        match self.engine.create(&name, body).await {
            Err(fault) if fault.is_not_found() => Err(not_pulled(&image, fault)),
            answer => made(answer),
        }
    }

    /// Removes one container and nothing else: asks it to end, then ends it.
    async fn end(&self, seen: &Seen, grace: Duration) -> Result<(), ProviderError> {
        let id = seen.instance.instance_id.as_str();
        if seen.phase == Phase::Live && !grace.is_zero() {
            match self.engine.stop(id, grace).await {
                // A refusal is no reason to stop here: the removal by force below has its own answer.
                Ok(()) | Err(Fault::Refused { .. }) => {}
                Err(Fault::Failed(error)) => return Err(error),
            }
        }
        match self.engine.remove(id, true).await {
            Ok(()) => Ok(()),
            // Gone, or on its way: somebody else removes it. The caller looks again.
            Err(fault) if fault.is_not_found() || fault.is_conflict() => Ok(()),
            Err(fault) => Err(retryable(fault)),
        }
    }
}

impl WorkerProvider for DockerProvider {
    fn name(&self) -> &'static str {
        "docker"
    }

    async fn create_worker(&self, request: &LaunchRequest) -> Result<Instance, ProviderError> {
        let deadline = Instant::now() + SETTLING;
        // A container that was seen and could not be started.
        let mut met = None;
        loop {
            // Looked at before anything is made: the image of an instance that runs may be gone from the engine, and
            // asking for it again would fail a command that has its worker.
            match self.holder(&request.key).await? {
                Holder::Foreign(id) => return Err(foreign(&self.fleet, &request.key, &id)),
                Holder::Ours(seen) if !seen.agrees_with(request) => return Err(taken(&seen)),
                Holder::Ours(seen) => match seen.phase {
                    Phase::Live => return Ok(seen.instance),
                    // Its maker died between create and start, or is about to start it.
                    Phase::Unstarted => {
                        let id = seen.instance.instance_id;
                        if let Some(instance) = self.start(&id).await? {
                            return Ok(instance);
                        }
                        // The engine lists a container a moment before it can be started, or after it was removed.
                        met = Some(id);
                    }
                    Phase::Ended => match self.engine.remove(&seen.instance.instance_id, false).await {
                        Ok(()) => {}
                        Err(fault) if fault.is_not_found() || fault.is_conflict() => {}
                        Err(fault) => return Err(retryable(fault)),
                    },
                    Phase::Leaving => {}
                },
                Holder::Nobody => {
                    if let Some(id) = met {
                        return Err(start::vanished(&id));
                    }
                    if let Some(id) = self.make(request).await? {
                        return self.start(&id).await?.ok_or_else(|| start::vanished(&id));
                    }
                    // The name is taken and nobody is seen to hold it: the engine reserves it before the container
                    // shows, and lets go of it after the container is gone.
                }
            }
            look_again(deadline, &request.key).await?;
        }
    }

    async fn terminate_worker(
        &self,
        key: &WorkerKey,
        instance_id: Option<&str>,
        grace: Duration,
    ) -> Result<(), ProviderError> {
        let mut deadline = None;
        loop {
            let seen = match self.holder(key).await? {
                Holder::Ours(seen) => seen,
                // A stranger under our name is no instance of the key, and not ours to touch.
                Holder::Nobody | Holder::Foreign(_) => return Ok(()),
            };
            if instance_id.is_some_and(|id| id != seen.instance.instance_id) {
                return if seen.is_instance() { Err(other_instance(&seen)) } else { Ok(()) };
            }
            self.end(&seen, grace).await?;
            look_again(*deadline.get_or_insert_with(|| Instant::now() + SETTLING), key).await?;
        }
    }

    async fn find_worker(&self, key: &WorkerKey) -> Result<Option<Instance>, ProviderError> {
        match self.holder(key).await? {
            Holder::Ours(seen) if seen.is_instance() => Ok(Some(seen.instance)),
            Holder::Ours(_) | Holder::Nobody | Holder::Foreign(_) => Ok(None),
        }
    }

    async fn list_workers(&self, pool: &Pool) -> Result<Vec<Instance>, ProviderError> {
        let labels = vec![format!("{FLEET}={}", self.fleet), format!("{POOL}={pool}")];
        let listed = self.engine.list("label", labels).await.map_err(Fault::into_error)?;
        let read = listed.into_iter().filter_map(|found| Seen::read(&self.fleet, found).transpose());
        let seen = read.collect::<Result<Vec<_>, _>>()?;
        let instances = seen.into_iter().filter(Seen::is_instance).map(|seen| seen.instance);
        Ok(instances.filter(|instance| instance.key.pool == *pool).collect())
    }
}

/// Waits a moment before the next look; after the deadline the key is given up for now.
async fn look_again(deadline: Instant, key: &WorkerKey) -> Result<(), ProviderError> {
    if Instant::now() >= deadline {
        let message = format!("docker: the container of {key} is being made or removed by another and does not settle");
        return Err(ProviderError::new(ErrorClass::Timeout, message));
    }
    tokio::time::sleep(LOOK_AGAIN).await;
    Ok(())
}

fn made(answer: Result<String, Fault>) -> Result<Option<String>, ProviderError> {
    match answer {
        Ok(id) => Ok(Some(id)),
        Err(fault) if fault.is_conflict() => Ok(None),
        Err(fault) => Err(fault.into_error()),
    }
}

/// An image that is neither here nor to be had. The engine answers 404 or 500 for a name that no registry knows, for
/// one that wants credentials, and for a registry out of reach alike, so the command is told and nobody waits.
fn not_pulled(image: &str, fault: Fault) -> ProviderError {
    match fault {
        Fault::Refused { words, .. } if words.contains("toomanyrequests") => {
            ProviderError::new(ErrorClass::Throttled, format!("image {image:?} cannot be pulled: {words}"))
        }
        Fault::Refused { words, .. } => {
            ProviderError::new(ErrorClass::InvalidSpec, format!("image {image:?} cannot be pulled: {words}"))
        }
        Fault::Failed(error) => error,
    }
}

/// A failed removal: something is left, so its class must not be final.
fn retryable(fault: Fault) -> ProviderError {
    let error = fault.into_error();
    if error.class.retryable() { error } else { ProviderError { class: ErrorClass::Internal, ..error } }
}

fn taken(seen: &Seen) -> ProviderError {
    let Instance { key, instance_id, command_id, .. } = &seen.instance;
    let message = format!(
        "docker container {instance_id} of {key} was made by command {command_id}, or from another specification"
    );
    ProviderError::new(ErrorClass::Conflict, message)
}

fn foreign(fleet: &Prefix, key: &WorkerKey, id: &str) -> ProviderError {
    let message = format!("docker container {id} has the name {} and is no worker of this fleet", name(fleet, key));
    ProviderError::new(ErrorClass::Conflict, message)
}

fn other_instance(seen: &Seen) -> ProviderError {
    let Instance { key, instance_id, .. } = &seen.instance;
    ProviderError::new(ErrorClass::Conflict, format!("{key} is another instance now: docker container {instance_id}"))
}
