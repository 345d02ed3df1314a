//! A provider over a network: slow, of every class of failure, with creates that come about after they were given up, and
//! instances that end by themselves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use enlist::domain::{CommandId, ErrorClass, Pool, SpecHash, WorkerId, WorkerKey, WorkerType};
use enlist::provider::{Instance, LaunchRequest, ProviderError, WorkerProvider};
use tokio::time::{Instant, sleep};

use super::checker::Stray;
use super::hand::HAND;
use super::pools::POISON;
use super::world::World;

/// What a replica sees of the provider of one pool; a static pool's has hosts and makes nothing.
#[derive(Clone)]
pub(crate) struct SimProvider {
    pub(crate) world: Arc<World>,
    pub(crate) hosts: Option<Vec<WorkerId>>,
}

/// What the provider has made.
#[derive(Debug, Default)]
pub(crate) struct Book {
    made: BTreeMap<WorkerKey, Made>,
    strays: Vec<Instance>,
    number: u64,
}

#[derive(Debug)]
struct Made {
    instance: Instance,
    /// It has not ended by itself. Its traces stay, and its key with them.
    alive: bool,
    /// A list may trail.
    listed_from: Instant,
}

impl Book {
    /// The id of the instance that lives under a key.
    pub(crate) fn alive(&self, key: &WorkerKey) -> Option<String> {
        self.made.get(key).filter(|made| made.alive).map(|made| made.instance.instance_id.clone())
    }

    pub(crate) fn all_alive(&self) -> impl Iterator<Item = &Instance> {
        self.made.values().filter(|made| made.alive).map(|made| &made.instance)
    }

    fn make(&mut self, request: &LaunchRequest, world: &World) -> Result<(Instance, bool), ProviderError> {
        let LaunchRequest { key, command_id, spec_hash, epoch, claim, spec, trace: _ } = request;
        if let Some(found) = self.made.get(key) {
            let instance = &found.instance;
            if instance.command_id != *command_id || instance.spec_hash != *spec_hash {
                return Err(ProviderError::new(ErrorClass::Conflict, "another command's"));
            }
            if found.alive {
                return Ok((instance.clone(), false));
            }
        }
        self.number += 1;
        let instance = Instance {
            key: key.clone(),
            instance_id: format!("i-{}", self.number),
            endpoint: None,
            capabilities: None,
            command_id: command_id.clone(),
            spec_hash: spec_hash.clone(),
            epoch: *epoch,
            claim: Some(*claim),
            labels: spec.labels.clone(),
            created_at: world.now(),
        };
        let trails = world.fails(world.weather.provider, 0.05);
        let listed_from = Instant::now() + if trails { world.seconds(1, 150) } else { Duration::ZERO };
        self.made.insert(key.clone(), Made { instance: instance.clone(), alive: true, listed_from });
        Ok((instance, true))
    }

    /// Puts an instance there that no command has asked for.
    pub(crate) fn stray(&mut self, key: WorkerKey, world: &World) {
        self.number += 1;
        let instance = Instance {
            key: key.clone(),
            instance_id: format!("i-{}", self.number),
            endpoint: None,
            capabilities: None,
            command_id: CommandId::new("stray").unwrap(),
            spec_hash: SpecHash::of(b"stray"),
            epoch: 1,
            claim: None,
            labels: <_>::default(),
            created_at: world.now().checked_sub(Duration::from_secs(3600)).unwrap(),
        };
        self.strays.push(instance.clone());
        self.made.insert(key, Made { instance, alive: true, listed_from: Instant::now() });
    }

    /// Those of a pool, for the checker.
    pub(crate) fn strays(&self, pool: &Pool) -> Vec<Stray> {
        let of_pool = self.strays.iter().filter(|instance| instance.key.pool == *pool);
        let stray = |instance: &Instance| Stray {
            worker: instance.key.worker_id.to_string(),
            instance: instance.instance_id.clone(),
            command: instance.command_id.to_string(),
        };
        of_pool.map(stray).collect()
    }

    /// An instance ends by itself.
    pub(crate) fn end(&mut self, nth: usize) -> Option<WorkerKey> {
        let alive: Vec<WorkerKey> = self.all_alive().map(|instance| instance.key.clone()).collect();
        let key = alive.get(nth % alive.len().max(1))?;
        self.made.get_mut(key)?.alive = false;
        Some(key.clone())
    }

    fn remove(&mut self, key: &WorkerKey, instance_id: Option<&str>) -> Result<Option<String>, ProviderError> {
        let Some(found) = self.made.get(key) else { return Ok(None) };
        if found.alive && instance_id.is_some_and(|id| id != found.instance.instance_id) {
            return Err(ProviderError::new(ErrorClass::Conflict, "another instance lives under the name"));
        }
        let removed = self.made.remove(key).filter(|made| made.alive);
        Ok(removed.map(|made| made.instance.instance_id))
    }
}

fn make(world: &World, request: &LaunchRequest) -> Result<Instance, ProviderError> {
    let (instance, new) = world.book.lock().unwrap().make(request, world)?;
    if new {
        world.tell(|| {
            format!("provider: {} is made as {} for epoch {}", request.key, instance.instance_id, request.epoch)
        });
        let living: Vec<WorkerKey> = world.book.lock().unwrap().all_alive().map(|one| one.key.clone()).collect();
        world.judged(|judge| judge.made(&request.key, &living));
    }
    Ok(instance)
}

fn remove(world: &World, key: &WorkerKey, instance_id: Option<&str>) -> Result<(), ProviderError> {
    let removed = world.book.lock().unwrap().remove(key, instance_id)?;
    if let Some(id) = removed {
        world.tell(|| format!("provider: {key} is removed, {id}"));
        world.judged(|judge| judge.removed(key, &id));
    }
    Ok(())
}

impl SimProvider {
    fn away(&self) -> Result<(), ProviderError> {
        if self.world.is_away("provider") {
            return Err(ProviderError::new(ErrorClass::Unavailable, "away"));
        }
        Ok(())
    }

    fn any_failure(&self) -> ProviderError {
        let class = *self.world.dice().of(&[
            ErrorClass::InvalidSpec,
            ErrorClass::Unauthorized,
            ErrorClass::NotFound,
            ErrorClass::InsufficientCapacity,
            ErrorClass::QuotaExceeded,
            ErrorClass::Throttled,
            ErrorClass::Unavailable,
            ErrorClass::Internal,
            ErrorClass::Internal,
            ErrorClass::Timeout,
        ]);
        ProviderError::new(class, "so it says")
    }
}

impl WorkerProvider for SimProvider {
    fn name(&self) -> &'static str {
        if self.hosts.is_some() { "static" } else { "simulated" }
    }

    fn worker_type(&self) -> WorkerType {
        if self.hosts.is_some() { WorkerType::Static } else { WorkerType::Dynamic }
    }

    fn inventory(&self) -> Option<Vec<WorkerId>> {
        self.hosts.clone()
    }

    async fn create_worker(&self, request: &LaunchRequest) -> Result<Instance, ProviderError> {
        let world = &self.world;
        if self.hosts.is_some() {
            return Ok(Instance {
                key: request.key.clone(),
                instance_id: request.key.worker_id.to_string(),
                endpoint: None,
                capabilities: None,
                command_id: request.command_id.clone(),
                spec_hash: request.spec_hash.clone(),
                epoch: request.epoch,
                claim: Some(request.claim),
                labels: <_>::default(),
                created_at: world.now(),
            });
        }
        self.away()?;
        if request.spec.labels.contains_key(POISON)
            && let Ok(hand) = HAND.try_with(Arc::clone)
        {
            world.crash(&hand).await;
        }
        world.travel().await;
        if world.fails(world.weather.provider, 0.03) {
            return Err(self.any_failure());
        }
        if world.fails(world.weather.provider, 0.03) {
            // It comes about after all, when nobody waits for it any more.
            let request = request.clone();
            world.later(world.seconds(1, 240), move |world| drop(make(world, &request)));
            sleep(world.seconds(1, 80)).await;
            return Err(ProviderError::new(ErrorClass::Timeout, "no answer"));
        }
        let slow = world.fails(world.weather.provider, 0.1);
        let (before, after) = if slow { (world.seconds(0, 50), world.seconds(0, 30)) } else { <_>::default() };
        sleep(before + world.between(Duration::from_millis(10), Duration::from_secs(2))).await;
        world.stumble().await;
        let made = make(world, request);
        sleep(after).await;
        world.travel().await;
        if let (Ok(instance), Ok(hand)) = (&made, HAND.try_with(Arc::clone)) {
            let message = (hand.pool.clone(), hand.message);
            world.judged(|judge| judge.told(message, hand.number, &request.key, &instance.instance_id));
        }
        made
    }

    async fn terminate_worker(
        &self,
        key: &WorkerKey,
        instance_id: Option<&str>,
        grace: Duration,
    ) -> Result<(), ProviderError> {
        let world = &self.world;
        if self.hosts.is_some() {
            // Nothing is removed, but the moment is the same.
            world.travel().await;
            world.judged(|judge| judge.host_left(key));
            return Ok(());
        }
        self.away()?;
        world.travel().await;
        if world.fails(world.weather.provider, 0.03) {
            return Err(self.any_failure());
        }
        if world.fails(world.weather.provider, 0.03) {
            let (key, id) = (key.clone(), instance_id.map(str::to_owned));
            world.later(world.seconds(1, 240), move |world| drop(remove(world, &key, id.as_deref())));
            sleep(world.seconds(1, 80)).await;
            return Err(ProviderError::new(ErrorClass::Timeout, "no answer"));
        }
        sleep(world.between(Duration::ZERO, grace)).await;
        let removed = remove(world, key, instance_id);
        world.travel().await;
        removed
    }

    async fn find_worker(&self, key: &WorkerKey) -> Result<Option<Instance>, ProviderError> {
        self.away()?;
        self.world.travel().await;
        if self.world.fails(self.world.weather.provider, 0.03) {
            return Err(self.any_failure());
        }
        let book = self.world.book.lock().unwrap();
        Ok(book.made.get(key).filter(|made| made.alive).map(|made| made.instance.clone()))
    }

    async fn list_workers(&self, pool: &Pool) -> Result<Vec<Instance>, ProviderError> {
        let world = &self.world;
        if self.hosts.is_some() {
            return Ok(Vec::new());
        }
        self.away()?;
        world.travel().await;
        if world.fails(world.weather.provider, 0.03) {
            return Err(self.any_failure());
        }
        if world.fails(world.weather.provider, 0.1) {
            sleep(world.seconds(0, 30)).await;
        }
        let listed = {
            let book = world.book.lock().unwrap();
            let of_pool = book.made.values().filter(|made| made.alive && made.instance.key.pool == *pool);
            let listed = of_pool.filter(|made| made.listed_from <= Instant::now());
            listed.map(|made| made.instance.clone()).collect()
        };
        if world.fails(world.weather.provider, 0.1) {
            sleep(world.seconds(0, 30)).await;
        }
        world.travel().await;
        Ok(listed)
    }
}
