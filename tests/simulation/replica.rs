//! A replica: the product's own handlers, and around them what `worker` and `bus::delivery` do with a message.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use enlist::WorkerManagementService;
use enlist::bus::delivery::{PROGRESS_EVERY, Verdict};
use enlist::bus::streams::ACK_WAIT;
use enlist::domain::{CommandId, Pool, Refusal, Verb, WorkerKey};
use enlist::handle::{self, Handler, OwnQueue};
use enlist::mutant::{self, Mutant};
use enlist::telemetry::Outcome;
use enlist::wire::command::{self, PoolCommand, ProvisionCommand, TerminateCommand};
use futures_util::FutureExt as _;
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::dead::{Letter, Posted};
use super::hand::{HAND, Hand, Pausable};
use super::journal::SimJournal;
use super::pools::Settings;
use super::provider::SimProvider;
use super::queue::Given;
use super::scheduler::SimScheduler;
use super::world::World;

pub(crate) const REPLICAS: usize = 3;
const ACK_TRIES: usize = 3;
const PATIENCE: Duration = Duration::from_secs(5);

type SimHandler = Handler<SimProvider, SimScheduler, SimJournal>;

/// The replicas of a run.
#[derive(Default)]
pub(crate) struct Replicas {
    slots: Vec<Slot>,
    deliveries: u64,
}

#[derive(Default)]
struct Slot {
    /// None while it is down.
    handlers: Option<BTreeMap<Pool, Arc<SimHandler>>>,
    hands: Vec<(Arc<Hand>, AbortHandle)>,
    paused_until: Option<Instant>,
    /// When one that is down comes up again.
    up_at: Option<Instant>,
}

impl Replicas {
    pub(crate) fn paused_until(&self, replica: usize) -> Option<Instant> {
        self.slots[replica].paused_until
    }

    pub(crate) fn pause(&mut self, replica: usize, until: Instant) {
        self.slots[replica].paused_until = Some(until);
    }

    /// Drops all that it has in hand, each where it waits.
    pub(crate) fn crash(&mut self, replica: usize) {
        let slot = &mut self.slots[replica];
        slot.handlers = None;
        slot.paused_until = None;
        for (_, task) in slot.hands.drain(..) {
            task.abort();
        }
    }

    /// Tells all that it has in hand to give up.
    pub(crate) fn drain(&mut self, replica: usize) {
        let slot = &mut self.slots[replica];
        slot.handlers = None;
        for (hand, _) in slot.hands.drain(..) {
            hand.abandon.cancel();
        }
    }

    pub(crate) fn is_idle(&mut self) -> bool {
        self.slots.iter_mut().all(|slot| {
            slot.hands.retain(|(_, task)| !task.is_finished());
            slot.hands.iter().all(|(hand, _)| hand.verb == Verb::Sweep)
        })
    }
}

/// Starts replicas, and those anew that went down.
pub(crate) async fn keep_up(world: Arc<World>) {
    loop {
        for replica in 0..REPLICAS {
            let mut replicas = world.replicas.lock().unwrap();
            if replicas.slots.len() == replica {
                replicas.slots.push(Slot::default());
            }
            let slot = &mut replicas.slots[replica];
            if slot.handlers.is_some() {
                continue;
            }
            let up_at = *slot.up_at.get_or_insert_with(|| Instant::now() + world.seconds(0, 20));
            if up_at <= Instant::now() || world.elapsed().is_zero() {
                slot.up_at = None;
                slot.handlers =
                    Some(world.settings.iter().map(|one| (one.pool.clone(), handler(&world, one))).collect());
            }
        }
        for queue in world.queues.values() {
            queue.news.notify_one();
        }
        sleep(Duration::from_secs(2)).await;
    }
}

fn handler(world: &Arc<World>, settings: &Settings) -> Arc<SimHandler> {
    let provider = SimProvider { world: Arc::clone(world), hosts: settings.hosts.clone() };
    let (time, chance) = (Arc::downgrade(world), Arc::downgrade(world));
    let service = WorkerManagementService::new_with_registration(
        provider,
        SimScheduler(Arc::clone(world)),
        settings.config.clone(),
    )
    .with_journal(SimJournal(Arc::clone(world)))
    .with_clock(Arc::new(move || time.upgrade().unwrap().now()))
    .with_chance(Arc::new(move || chance.upgrade().unwrap().dice().unit()));
    let (putting, asking) = ((Arc::clone(world), settings.pool.clone()), (Arc::clone(world), settings.pool.clone()));
    let counting = (Arc::clone(world), settings.pool.clone());
    let queue = OwnQueue {
        put: Arc::new(move |verb, id: String, body| {
            let (world, pool) = putting.clone();
            Box::pin(async move {
                world.travel().await;
                let lost = world.fails(world.weather.queue, 0.03);
                if world.fails(world.weather.queue, 0.03) {
                    sleep(PATIENCE).await;
                    return Err("no answer".to_owned());
                }
                // Two that miss the window by a hair are two messages.
                let seen = world.fails(world.weather.queue, 0.05);
                let known = if seen { None } else { Some(id.as_str()) };
                let (sequence, new) = world.queues[&pool].publish(verb, known, body);
                if new {
                    world.tell(|| format!("{pool}: {} {id} is sent as {sequence}", verb.as_str()));
                }
                world.travel().await;
                if lost { Err("the answer was lost".to_owned()) } else { Ok(()) }
            })
        }),
        backlog: Arc::new(move |message| {
            let (world, pool) = asking.clone();
            Box::pin(async move {
                world.travel().await;
                if world.fails(world.weather.queue, 0.03) {
                    sleep(PATIENCE).await;
                    return Err(enlist::journal::ReadError("no answer".to_owned()));
                }
                Ok(world.queues[&pool].holds(message))
            })
        }),
        waiting: Arc::new(move |verb| {
            let (world, pool) = counting.clone();
            Box::pin(async move {
                world.travel().await;
                Ok(world.queues[&pool].waiting(verb))
            })
        }),
    };
    Arc::new(Handler::new(service, settings.template.clone(), settings.sweep.clone(), queue))
}

/// Gives the messages of a pool to whichever replica is there.
pub(crate) async fn give_out(world: Arc<World>, pool: Pool) {
    loop {
        let queue = &world.queues[&pool];
        for given in queue.give() {
            hand_over(&world, &pool, given);
        }
        let next = queue.next_due().unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
        tokio::select! {
            biased;
            () = queue.news.notified() => {}
            () = sleep_until(next) => {}
        }
    }
}

fn hand_over(world: &Arc<World>, pool: &Pool, given: Given) {
    let mut replicas = world.replicas.lock().unwrap();
    let up: Vec<usize> = (0..replicas.slots.len()).filter(|at| replicas.slots[*at].handlers.is_some()).collect();
    if up.is_empty() {
        world.queues[pool].due_in(given.sequence, Duration::from_secs(1));
        return;
    }
    let replica = *world.dice().of(&up);
    replicas.deliveries += 1;
    let hand = Arc::new(Hand {
        replica,
        number: replicas.deliveries,
        pool: pool.clone(),
        verb: given.verb,
        message: given.sequence,
        deliveries: given.deliveries,
        abandon: CancellationToken::new(),
        paused_until: <_>::default(),
        looked: <_>::default(),
    });
    world.tell(|| format!("{hand} begins"));
    if world.fails(world.weather.queue, 0.02) {
        // The server gives it out a second time, though it is being worked on.
        world.queues[pool].due_in(given.sequence, world.seconds(0, 5));
    }
    let slot = &mut replicas.slots[replica];
    let handler = Arc::clone(&slot.handlers.as_ref().unwrap()[pool]);
    let (inner_world, inner_hand) = (Arc::clone(world), Arc::clone(&hand));
    let inner = HAND.scope(Arc::clone(&hand), async move {
        let done = AssertUnwindSafe(carry_out(&inner_world, &inner_hand, &handler, given.body)).catch_unwind().await;
        if done.is_err() {
            inner_world.judged(|_| Err("a task panicked".to_owned()));
        }
    });
    let pausable = Pausable { world: Arc::clone(world), hand: Arc::clone(&hand), inner: Box::pin(inner), still: None };
    let task = tokio::spawn(pausable).abort_handle();
    slot.hands.retain(|(_, task)| !task.is_finished());
    slot.hands.push((hand, task));
}

/// As `worker::queue::carry_out` does it.
async fn carry_out(world: &Arc<World>, hand: &Hand, handler: &SimHandler, body: bytes::Bytes) {
    let queue = &world.queues[&hand.pool];
    let begun = Instant::now();
    if mutant::on(Mutant::AckBeforeRecord) {
        ack(world, hand, &body).await;
    }
    if hand.deliveries > 1 {
        match is_buried(world, hand, &body).await {
            Ok(false) => {}
            Ok(true) => return ack(world, hand, &body).await,
            Err(()) => return queue.due_in(hand.message, Duration::from_secs(1)),
        }
    }
    let stored_at = world.time_of(queue.sent_at(hand.message));
    let message = handle::Message { sequence: hand.message, deliveries: hand.deliveries, stored_at, trace: None };
    let mut ours_until = begun + ACK_WAIT;
    let handled = {
        let mut handling = std::pin::pin!(handler.handle(hand.verb, &body, message));
        let mut tick = interval_at(begun + PROGRESS_EVERY, PROGRESS_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                handled = within(ours_until, handling.as_mut()) => match handled {
                    Some(handled) => break Some(handled),
                    None => return world.tell(|| format!("{hand} stood still for too long")),
                },
                _ = tick.tick() => {
                    ours_until = Instant::now() + ACK_WAIT;
                    if !world.fails(world.weather.queue, 0.05) {
                        queue.due_in(hand.message, ACK_WAIT);
                    }
                }
                () = hand.abandon.cancelled() => break None,
            }
        }
    };
    let Some(handled) = handled else {
        world.tell(|| format!("{hand} is given up"));
        let _ = tokio::time::timeout(Duration::from_secs(2), handler.let_go(hand.verb, &body, message)).await;
        return queue.due_in(hand.message, Duration::ZERO);
    };
    world.tell(|| format!("{hand} ends: {:?}", handled.verdict));
    if hand.verb == Verb::Sweep && matches!(handled.outcome, Some(Outcome::Frozen)) {
        world.judged(|_| Err(format!("{}: a sweep froze, and nobody has touched the log", hand.pool)));
    }
    if hand.verb == Verb::Provision {
        let living: Vec<(WorkerKey, String)> = {
            let book = world.book.lock().unwrap();
            book.all_alive().map(|one| (one.key.clone(), one.instance_id.clone())).collect()
        };
        let done = matches!(handled.verdict, Verdict::Done);
        world.judged(|judge| judge.over((hand.pool.clone(), hand.message), hand.number, done, &living));
    }
    world.stumble().await;
    match handled.verdict {
        Verdict::Done => ack(world, hand, &body).await,
        Verdict::DeadLetter { command_id, refusal } => {
            let burying = std::pin::pin!(bury(world, hand, command_id, refusal, &body));
            let _ = within(ours_until, burying).await;
        }
        Verdict::Retry(after) => {
            if !world.fails(world.weather.queue, 0.05) {
                queue.due_in(hand.message, after);
            }
        }
        Verdict::Leave => world.judged(|judge| judge.left(hand.number)),
    }
}

/// As `worker::queue` has it: a try that stood still for too long is not polled again.
async fn within<F: Future>(until: Instant, mut future: Pin<&mut F>) -> Option<F::Output> {
    poll_fn(|cx| if Instant::now() < until { future.as_mut().poll(cx).map(Some) } else { Poll::Ready(None) }).await
}

async fn ack(world: &Arc<World>, hand: &Hand, body: &bytes::Bytes) {
    // What a pool's size asked for may be dropped, as long as it has not begun.
    let by_size =
        std::str::from_utf8(body).is_ok_and(|body| body.contains("\"enlist-size-") || body.contains("\"enlist-end-"));
    let stored = is_stored(world, hand, body) || by_size;
    world.judged(|_| if stored { Ok(()) } else { Err(format!("{hand} is acked before its outcome is stored")) });
    for _ in 0..ACK_TRIES {
        let (pool, message) = (hand.pool.clone(), hand.message);
        let arrive = move |world: &Arc<World>| {
            let (events, dead) = (world.ask(super::judge::Judge::last), world.dead.lock().unwrap().last());
            world.queues[&pool].ack(message, events, dead);
        };
        if world.fails(world.weather.queue, 0.05) {
            // Lost, or late.
            if world.dice().hits(0.5) {
                world.later(world.seconds(1, 240), arrive);
            }
            sleep(PATIENCE).await;
            continue;
        }
        world.travel().await;
        arrive(world);
        if world.fails(world.weather.queue, 0.03) {
            sleep(PATIENCE).await;
            continue;
        }
        return;
    }
}

async fn is_buried(world: &World, hand: &Hand, body: &bytes::Bytes) -> Result<bool, ()> {
    let Some(id) = command::id_of(hand.verb, body) else { return Ok(false) };
    world.travel().await;
    if world.fails(world.weather.queue, 0.02) {
        return Err(());
    }
    let dead = world.dead.lock().unwrap();
    let newest = dead.newest(&hand.pool, hand.verb, id.as_str());
    Ok(newest.is_some_and(|letter| letter.body == *body && letter.message == hand.message))
}

/// As `bus::delivery` stores a dead letter and acks then.
async fn bury(world: &Arc<World>, hand: &Hand, id: Option<CommandId>, refusal: Refusal, body: &bytes::Bytes) {
    if mutant::on(Mutant::AckBeforeDeadLetter) {
        ack(world, hand, body).await;
    }
    let name = id.as_ref().map_or("_", CommandId::as_str).to_owned();
    let letter = Letter {
        sequence: 0,
        pool: hand.pool.clone(),
        verb: hand.verb,
        id: name.clone(),
        refusal,
        message: hand.message,
        deliveries: hand.deliveries,
        body: body.clone(),
    };
    let mut newest = 0;
    for _ in 0..ACK_TRIES {
        world.travel().await;
        if world.fails(world.weather.queue, 0.02) {
            sleep(PATIENCE).await;
            continue;
        }
        let posted = world.dead.lock().unwrap().post(letter.clone(), id.is_some().then_some(newest));
        if let Posted::Stored = posted {
            world.tell(|| format!("{hand} is refused: {}", letter.refusal));
            if let Ok(command) = ProvisionCommand::decode(body)
                && hand.verb == Verb::Provision
            {
                let content = command.content_hash();
                world.judged(|judge| judge.refused(&hand.pool, &command.command_id, content));
            }
        }
        world.travel().await;
        match posted {
            Posted::Stored | Posted::Duplicate if world.fails(world.weather.queue, 0.02) => sleep(PATIENCE).await,
            Posted::Stored | Posted::Duplicate => return ack(world, hand, body).await,
            Posted::WrongLast => {
                let found = world.dead.lock().unwrap().newest(&hand.pool, hand.verb, &name).cloned();
                let Some(found) = found else { continue };
                if found.body == *body {
                    return ack(world, hand, body).await;
                }
                newest = found.sequence;
            }
        }
    }
    world.queues[&hand.pool].due_in(hand.message, Duration::from_secs(1));
}

/// Whether a command's outcome, or its dead letter, is stored at this moment.
fn is_stored(world: &World, hand: &Hand, body: &bytes::Bytes) -> bool {
    let Hand { pool, verb, .. } = hand;
    if *verb == Verb::Sweep || world.dead.lock().unwrap().of(pool).any(|letter| letter.body == *body) {
        return true;
    }
    world.ask(|judge| match verb {
        Verb::Provision => ProvisionCommand::decode(body)
            .is_ok_and(|command| judge.has_outcome(pool, &command.command_id, &command.content_hash())),
        Verb::Terminate => TerminateCommand::decode(body)
            .is_ok_and(|command| judge.has_ended(&WorkerKey::new(pool.clone(), command.worker_id))),
        Verb::Pool => {
            PoolCommand::decode(body).is_ok_and(|command| judge.is_sized_or_overtaken(pool, &command.command_id))
        }
        Verb::Sweep => true,
    })
}
