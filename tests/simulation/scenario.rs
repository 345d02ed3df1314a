//! One run: replicas, a publisher and ill luck; then calm, and everything comes to rest.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use enlist::domain::{Pool, PoolState, RegistrationStatus, State, Verb, WorkerId, WorkerKey};
use enlist::handle::sweep::{INTERVAL_ID, interval_number};
use enlist::mutant::{self, Mutant};
use serde_json::json;
use tokio::time::{sleep, sleep_until};

use super::commands;
use super::history;
use super::replica::{REPLICAS, give_out, keep_up};
use super::world::World;

/// So long things go wrong.
const STORMY: Duration = Duration::from_secs(20 * 60);
/// So long after that all must be at rest. A scheduler that has not accepted a worker is asked again after as long as the
/// worker has been there.
const PATIENCE: Duration = Duration::from_secs(3 * 3600);

/// What became of a run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) seed: u64,
    pub(crate) violations: Vec<String>,
    pub(crate) lines: Vec<String>,
    pub(crate) fingerprint: u64,
}

/// Runs a seed. With `record` the whole history is kept.
pub(crate) fn run(seed: u64, mutant: Option<Mutant>, record: bool) -> Run {
    mutant::set(mutant);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let run = runtime.block_on(async {
        let world = World::new(seed, STORMY, record);
        tokio::select! {
            biased;
            () = world.failed.notified() => {}
            () = play(&world) => {}
        }
        // The replicas hold the world, and it them.
        for replica in 0..REPLICAS {
            world.replicas.lock().unwrap().crash(replica);
        }
        let (lines, fingerprint) = world.diary();
        Run { seed, violations: world.ask(|judge| judge.violations.clone()), lines, fingerprint }
    });
    drop(runtime);
    mutant::set(None);
    run
}

async fn play(world: &Arc<World>) {
    world.tell(|| format!("{:?}", world.weather));
    tokio::spawn(keep_up(Arc::clone(world)));
    for pool in world.queues.keys() {
        tokio::spawn(give_out(Arc::clone(world), pool.clone()));
    }
    tokio::spawn(ask_for_sweeps(Arc::clone(world)));
    tokio::spawn(trouble(Arc::clone(world)));
    let began = tokio::time::Instant::now();
    for sending in commands::plan(world) {
        sleep_until(began + sending.at).await;
        let known = sending.known_as.as_deref();
        let (sequence, _) = world.queues[&sending.pool].publish(sending.verb, known, sending.body.clone());
        let (pool, verb, body) = (&sending.pool, sending.verb.as_str(), &sending.body);
        world.tell(|| format!("{pool}: {verb} {sequence} is sent: {}", String::from_utf8_lossy(body)));
    }
    sleep_until(began + STORMY).await;
    world.tell(|| "calm".to_owned());
    let unrest = loop {
        sleep(Duration::from_secs(20)).await;
        match unrest(world) {
            None => break None,
            Some(_) if world.elapsed() < STORMY + PATIENCE => {}
            unrest => break unrest,
        }
    };
    world.judged(|_| unrest.map_or(Ok(()), |what| Err(format!("not at rest: {what}"))));
    for violation in history::violations(world) {
        world.judged(|_| Err(violation));
    }
}

async fn ask_for_sweeps(world: Arc<World>) {
    loop {
        sleep(Duration::from_secs(60)).await;
        for settings in &world.settings {
            let number = interval_number(world.now(), settings.sweep.interval);
            let id = format!("{INTERVAL_ID}{number}");
            let body = Bytes::from(json!({ "command_id": id }).to_string());
            let queue = &world.queues[&settings.pool];
            queue.publish(Verb::Sweep, Some(&id), body.clone());
            if world.fails(world.weather.queue, 0.1) {
                // Another replica's, which misses the window.
                queue.publish(Verb::Sweep, None, body);
            }
        }
    }
}

/// What goes wrong by itself.
async fn trouble(world: Arc<World>) {
    let mut strays = 0;
    loop {
        sleep(world.seconds(1, 20)).await;
        if world.is_calm() {
            return;
        }
        let replica = world.dice().below(REPLICAS);
        if world.fails(world.weather.crashes, 0.05) {
            world.tell(|| format!("r{replica} is killed"));
            world.replicas.lock().unwrap().crash(replica);
        } else if world.fails(world.weather.crashes, 0.03) {
            world.tell(|| format!("r{replica} is told to stop"));
            world.replicas.lock().unwrap().drain(replica);
        }
        if world.fails(world.weather.pauses, 0.05) {
            let length = world.seconds(1, 300);
            world.tell(|| format!("r{replica} stands still for {length:?}"));
            world.replicas.lock().unwrap().pause(replica, tokio::time::Instant::now() + length);
        }
        let parts =
            [("log", world.weather.log), ("provider", world.weather.provider), ("scheduler", world.weather.scheduler)];
        for (part, kind) in parts {
            if world.fails(kind, 0.01) {
                let length = world.seconds(1, 200);
                world.tell(|| format!("the {part} is away for {length:?}"));
                world.take_away(part, length);
            }
        }
        if world.fails(world.weather.scheduler, 0.01) {
            world.tell(|| "the scheduler forgets everything".to_owned());
            world.forget();
        }
        if world.fails(world.weather.provider, 0.05) {
            let nth = world.dice().below(1000);
            if let Some(key) = world.book.lock().unwrap().end(nth) {
                world.tell(|| format!("{key}: its instance ends by itself"));
            }
        }
        if world.fails(world.weather.provider, 0.02) && strays < 3 {
            strays += 1;
            stray(&world, strays);
        }
    }
}

/// Somebody makes an instance by hand; and sometimes a command names its worker.
fn stray(world: &Arc<World>, number: usize) {
    let pool = Pool::new("big").unwrap();
    if world.ask(|judge| judge.heads(&pool).next().is_none()) {
        return;
    }
    let key = WorkerKey::new(pool.clone(), WorkerId::new(format!("stray-{number}")).unwrap());
    world.tell(|| format!("{key}: an instance that nobody has asked for"));
    world.book.lock().unwrap().stray(key.clone(), world);
    if world.dice().hits(0.5) {
        let body = json!({ "command_id": format!("for-stray-{number}"), "worker_id": key.worker_id });
        world.later(world.seconds(0, 200), move |world| {
            world.queues[&pool].publish(Verb::Provision, None, Bytes::from(body.to_string()));
        });
    }
}

/// Why all is not yet at rest.
fn unrest(world: &World) -> Option<String> {
    if world.is_landing() || !world.replicas.lock().unwrap().is_idle() {
        return Some("something is under way".to_owned());
    }
    world.settings.iter().find_map(|settings| {
        let pool = &settings.pool;
        let (verb, body) = match world.queues[pool].left().first().and_then(|left| world.queues[pool].body(*left)) {
            Some((verb, body)) => (verb.as_str(), body),
            None => return unsettled(world, pool),
        };
        Some(format!("{pool}: still in the queue: {verb} {}", String::from_utf8_lossy(&body)))
    })
}

fn unsettled(world: &World, pool: &Pool) -> Option<String> {
    let alive: BTreeSet<(WorkerId, String)> = {
        let book = world.book.lock().unwrap();
        let of_pool = book.all_alive().filter(|instance| instance.key.pool == *pool);
        of_pool.map(|instance| (instance.key.worker_id.clone(), instance.instance_id.clone())).collect()
    };
    let (listed, _) = world.scheduler().page(Some(pool), None, usize::MAX);
    let listed: BTreeSet<WorkerId> = listed.into_iter().map(|one| one.worker_id).collect();
    let hosts = world.settings(pool).hosts.is_some();
    world.ask(|judge| {
        let (mut counted, mut known) = (0, BTreeSet::new());
        for worker in judge.heads(pool).map(|head| &head.worker).filter(|worker| !worker.state.is_final()) {
            let (id, state) = (&worker.worker_id, worker.state);
            let instance = worker.instance_id.clone().unwrap_or_default();
            let ready = match state {
                State::Registered => listed.contains(id),
                // It is offered less and less often, and for good not at all where it was refused.
                State::RegistrationFailed => {
                    listed.contains(id) || worker.registration.error.as_ref().is_some_and(|fault| fault.critical)
                }
                State::Provisioned => worker.registration.status == RegistrationStatus::Disabled,
                _ => false,
            };
            if !ready {
                return Some(format!("{pool}/{id} is {} and listed: {}", state.as_str(), listed.contains(id)));
            }
            if !hosts && !alive.contains(&(id.clone(), instance)) {
                return Some(format!("{pool}/{id} is {} and has no instance", state.as_str()));
            }
            known.insert(id.clone());
            counted += 1;
        }
        if let Some((id, instance)) = alive.iter().find(|(id, _)| !known.contains(id)) {
            return Some(format!("{pool}/{id}: {instance} lives and has no live record"));
        }
        if let Some(id) = listed.iter().find(|id| !known.contains(*id)) {
            return Some(format!("{pool}/{id} is in the scheduler's list and has no live record"));
        }
        let size = judge.pool_events.iter().rev().map(|entry| &entry.record).find(|record| record.pool == *pool)?;
        if size.state == PoolState::Sizing || counted != size.size {
            return Some(format!("{pool} is to have {} workers and has {counted}, {:?}", size.size, size.state));
        }
        None
    })
}
