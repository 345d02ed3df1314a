//! One consumer of one pool: asks for as many commands as there is room for, and gives each a task of its own.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use async_nats::Message;
use futures_util::poll;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::yield_now;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::Worker;
use super::slots::{Room, Slots};
use crate::bus::connection::Link;
use crate::bus::delivery::{Delivery, Desk, PROGRESS_EVERY, Settled, Verdict};
use crate::bus::portion::portion;
use crate::bus::pull::{Pulled, Puller};
use crate::bus::streams::ACK_WAIT;
use crate::domain::{CommandId, Lane};
use crate::handle::{self, Handled, Handler};
use crate::journal::Journal;
use crate::provider::WorkerProvider;
use crate::registration::WorkerRegistrationPort;
use crate::service::{Gate, Passage};
use crate::telemetry::{Health, PoolSignals};

/// A queue that shows no backlog holds room for so many commands at most, so that idle pools do not starve a busy one.
const MOST_IDLE: usize = 16;
const SHORTEST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The server confirms within a round trip; where it is away there is nothing to hand back.
const LONGEST_HAND_BACK: Duration = Duration::from_secs(1);

/// A replica that stops does not wait longer than this for the record's word of a command that it gives up.
const LONGEST_WORD: Duration = Duration::from_secs(2);

/// How soon a command is looked at again whose dead letters could not be read.
const UNKNOWN: Duration = Duration::from_secs(1);

/// What a queue is made of.
pub struct QueueContext<P: WorkerProvider, R: WorkerRegistrationPort, J: Journal> {
    /// Carries commands out.
    pub handler: Arc<Handler<P, R, J>>,
    /// Settles them.
    pub desk: Arc<Desk>,
    /// The replica.
    pub worker: Worker,
    /// Told of each command.
    pub signals: Arc<PoolSignals>,
    /// Told whether commands can be pulled.
    pub health: Arc<Health>,
    /// The connection: what had been asked for is lost with it.
    pub link: watch::Receiver<Link>,
}

/// One consumer of one pool.
pub struct Queue<P: WorkerProvider, R: WorkerRegistrationPort, J: Journal> {
    context: Arc<QueueContext<P, R, J>>,
    lane: Lane,
    slots: Slots,
    /// How many commands it asks for while there is no backlog.
    idle: usize,
    /// How many commands it would have come at once: grows with the backlog.
    batch: usize,
    /// Room taken for what has been asked for.
    reserved: Option<Room>,
    /// Closed while the provider fails what this lane asks for.
    gate: Gate,
    /// For the one command that tries a provider which has failed.
    trial: Arc<Semaphore>,
}

impl<P: WorkerProvider, R: WorkerRegistrationPort, J: Journal> Queue<P, R, J> {
    /// The queue of `lane`, which works on as many commands at once as there are slots.
    #[must_use]
    pub fn new(context: Arc<QueueContext<P, R, J>>, lane: Lane, slots: Slots) -> Self {
        // Within its share, so that an idle pool takes no room from a busy one.
        let idle = slots.share().min(MOST_IDLE);
        let gate = match lane {
            Lane::Provision => context.handler.service().gate(&context.desk.pool),
            Lane::Terminate | Lane::Control => Gate::open(),
        };
        let trial = Arc::new(Semaphore::new(1));
        Self { context, lane, slots, idle, batch: idle, reserved: None, gate, trial }
    }

    /// Pulls until told to stop. Any error ends only the present subscription; the next is made after a pause. A lane that
    /// is held off counts as pulled: the replica is of use, and nobody has to be told but the pool's own metric.
    pub async fn run(mut self) {
        let context = Arc::clone(&self.context);
        let stop = context.worker.stop.clone();
        let mut pause = SHORTEST_PAUSE;
        while !stop.is_cancelled() {
            let begun = Instant::now();
            let ended = self.pull().await;
            self.reserved = None;
            if let Err(why) = ended {
                self.pulling(false);
                if begun.elapsed() > LONGEST_PAUSE {
                    pause = SHORTEST_PAUSE;
                }
                tracing::info!(pool = %context.desk.pool, lane = self.lane.as_str(), %why, "the queue is asked again in a moment");
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)) => {}
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
        self.pulling(false);
    }

    async fn pull(&mut self) -> Result<(), String> {
        let context = Arc::clone(&self.context);
        let desk = &context.desk;
        let mut link = context.link.clone();
        let passage = tokio::select! {
            () = context.worker.stop.cancelled() => return Ok(()),
            passage = self.gate.passes() => passage,
        };
        // What is published while the connection is down would only fill the client's queue.
        tokio::select! {
            () = context.worker.stop.cancelled() => return Ok(()),
            up = link.wait_for(|link| *link == Link::Up) => if up.is_err() { return Err("the connection is closed".into()) },
        }
        link.mark_unchanged();
        let client = desk.requests.client().clone();
        let mut puller = Puller::new(client, &desk.api_prefix, &desk.stream, self.lane.as_str())
            .await
            .map_err(|error| error.to_string())?;
        let mut handed_out = 0;
        loop {
            match passage {
                Passage::All => self.ask(&mut puller).await?,
                Passage::One => self.ask_for_one(&mut puller).await?,
            }
            let news = tokio::select! {
                biased;
                () = context.worker.stop.cancelled() => {
                    self.hand_back(&mut puller).await;
                    return Ok(());
                }
                () = self.gate.turned() => {
                    self.hand_back(&mut puller).await;
                    return Ok(());
                }
                changed = link.changed() => {
                    // The server has forgotten what it was asked for.
                    let what = if changed.is_ok() { *link.borrow() } else { Link::Down };
                    return Err(format!("the connection is {what:?}"));
                }
                news = async {
                    if handed_out >= portion(self.slots.taken()) {
                        yield_now().await;
                        handed_out = 0;
                    }
                    puller.next().await
                } => news,
                () = self.slots.freed() => continue,
            };
            match news {
                Pulled::Message(message) => {
                    self.pulling(true);
                    self.take(*message, puller.outstanding(), passage).await;
                    handed_out += 1;
                }
                Pulled::Unfilled(number) => {
                    self.pulling(true);
                    self.batch = (self.batch / 2).max(self.idle);
                    drop(self.reserved.as_mut().and_then(|room| room.split(number.min(room.size()))));
                }
                Pulled::Refused(why) => return Err(why),
                Pulled::Closed => return Err("the subscription has ended".into()),
            }
        }
    }

    /// Asks for more once half of a batch could come; a full pipeline sends one request for many messages.
    async fn ask(&mut self, puller: &mut Puller) -> Result<(), String> {
        if self.reserved.as_ref().is_none_or(|room| room.size() == 0) {
            // Nothing asked for: wait for room, which is back-pressure, then take what is free.
            let room = tokio::select! {
                () = self.context.worker.stop.cancelled() => return Ok(()),
                room = self.slots.take(self.batch) => room,
            };
            return self.ask_for(puller, room).await;
        }
        let short = self.batch.saturating_sub(puller.outstanding());
        if short * 2 < self.batch {
            return Ok(());
        }
        let free = short.min(self.slots.free());
        if free * 16 < self.batch {
            return Ok(());
        }
        match self.slots.take_free(free) {
            Some(room) => self.ask_for(puller, room).await,
            None => Ok(()),
        }
    }

    /// Asks for one command where none is asked for or in hand that tries the provider.
    async fn ask_for_one(&mut self, puller: &mut Puller) -> Result<(), String> {
        let asked = self.reserved.as_ref().is_some_and(|room| room.size() > 0);
        if asked || self.trial.available_permits() == 0 {
            return Ok(());
        }
        let room = tokio::select! {
            () = self.context.worker.stop.cancelled() => return Ok(()),
            room = self.slots.take(1) => room,
        };
        self.ask_for(puller, room).await
    }

    async fn ask_for(&mut self, puller: &mut Puller, room: Room) -> Result<(), String> {
        let number = room.size();
        match &mut self.reserved {
            Some(reserved) => reserved.merge(room),
            None => self.reserved = Some(room),
        }
        puller.ask(number).await.map_err(|error| error.to_string())
    }

    fn pulling(&self, yes: bool) {
        self.context.health.set_pulling(&self.context.desk.pool, self.lane, yes);
    }

    async fn take(&mut self, message: Message, outstanding: usize, passage: Passage) {
        let Some(delivery) = Delivery::new(Arc::clone(&self.context.desk), message) else { return };
        if outstanding == 0 {
            // All that was asked for has come: there may be a backlog.
            self.batch = (self.batch * 2).min(self.slots.most());
        }
        let Some(room) = self.reserved.as_mut().and_then(|room| room.split(1)) else {
            // It answers a request that had been given up for lost, and there is no room set aside for it.
            let _ = delivery.settle(Verdict::Retry(Duration::ZERO)).await;
            return;
        };
        let trial = match passage {
            Passage::All => None,
            Passage::One => Arc::clone(&self.trial).try_acquire_owned().ok(),
        };
        let seat = Seat { _trial: trial, _room: room };
        let context = Arc::clone(&self.context);
        self.context.worker.tasks.spawn(async move { carry_out(&context, delivery, seat).await });
    }

    /// What has come for requests under way goes straight back, so that another replica need not wait for it. The server
    /// is told first that nothing more is wanted: else it would give what goes back to these same requests again.
    async fn hand_back(&mut self, puller: &mut Puller) {
        if puller.close().await.is_err() {
            return;
        }
        let until = Instant::now() + LONGEST_HAND_BACK;
        loop {
            match tokio::time::timeout_at(until, puller.next()).await {
                Ok(Pulled::Message(message)) => {
                    if let Some(delivery) = Delivery::new(Arc::clone(&self.context.desk), *message) {
                        let _ = delivery.settle(Verdict::Retry(Duration::ZERO)).await;
                    }
                }
                Ok(Pulled::Unfilled(_)) => {}
                Ok(Pulled::Refused(_) | Pulled::Closed) | Err(_) => return,
            }
        }
    }
}

/// A command's place in the replica, left however its task ends. The room goes last, as it tells the queue that there is
/// news.
struct Seat {
    _trial: Option<OwnedSemaphorePermit>,
    _room: Room,
}

/// A command from its delivery to its settling, with signs of life to the server all along.
async fn carry_out<P: WorkerProvider, R: WorkerRegistrationPort, J: Journal>(
    context: &QueueContext<P, R, J>,
    delivery: Delivery,
    seat: Seat,
) {
    let begun = Instant::now();
    let (verb, deliveries) = (delivery.verb(), delivery.deliveries());
    let _in_flight = context.signals.in_flight(verb);
    if deliveries > 1 {
        context.signals.redelivered(verb, deliveries);
        if let Some(verdict) = Box::pin(refused_before(&delivery)).await {
            let _ = Box::pin(delivery.settle(verdict)).await;
            return;
        }
    }
    let body = delivery.body().clone();
    let (sequence, stored_at, trace) = (delivery.sequence(), delivery.stored_at(), delivery.trace());
    let message = handle::Message { sequence, deliveries, stored_at, trace };
    let mut ours_until = begun + ACK_WAIT;
    let handled = {
        let progress = delivery.progress();
        // Boxed, as the settling below: a task is moved as a whole several times before it runs and once it has ended.
        let mut handling = Box::pin(context.handler.handle(verb, &body, message));
        let mut tick = interval_at(begun + PROGRESS_EVERY, PROGRESS_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                handled = within(ours_until, handling.as_mut()) => break handled.or(Some(LEFT)),
                _ = tick.tick() => {
                    Box::pin(progress.tell()).await;
                    ours_until = Instant::now() + ACK_WAIT;
                }
                // What is dropped here half-way is where a crash would have left it.
                () = context.worker.abandon.cancelled() => break None,
            }
        }
    };
    let Handled { verdict, outcome } = if let Some(handled) = handled {
        handled
    } else {
        let word = Box::pin(context.handler.let_go(verb, &body, message));
        let _ = tokio::time::timeout(LONGEST_WORD, word).await;
        Handled { verdict: Verdict::Retry(Duration::ZERO), outcome: None }
    };
    let (done, refused) = (matches!(verdict, Verdict::Done), matches!(verdict, Verdict::DeadLetter { .. }));
    let mut settling = Box::pin(delivery.settle(verdict));
    let settled = if done {
        // The outcome is stored and the work is done: the ack's way to the server overlaps with the next command's way here,
        // once the ack has gone ahead of the request for it, where its turn has come. Acks that wait are no more than the
        // commands of their few seconds, each of which has stored its outcome.
        let acked = poll!(settling.as_mut());
        drop(seat);
        match acked {
            Poll::Ready(settled) => settled,
            Poll::Pending => settling.await,
        }
    } else if refused {
        // A dead letter is no longer ours to store either, once another may have the command in hand.
        within(ours_until, settling.as_mut()).await.unwrap_or(Settled::Left)
    } else {
        settling.await
    };
    match (settled, outcome) {
        (Settled::Acked, Some(outcome)) => {
            context.signals.command_done(verb, outcome, begun.elapsed());
            if let Some(watch) = &context.worker.watch {
                watch(verb, begun.elapsed());
            }
        }
        (Settled::Buried { command_id, refusal, first: true }, Some(outcome)) => {
            context.signals.dead_letter(verb, command_id.as_ref().map_or("_", CommandId::as_str), &refusal);
            context.signals.command_done(verb, outcome, begun.elapsed());
        }
        (Settled::Acked | Settled::Buried { .. } | Settled::Delayed | Settled::Left, _) => {}
    }
}

/// A command whose try stood still for longer than the server waits for a sign of life: another replica has it by now.
const LEFT: Handled = Handled { verdict: Verdict::Leave, outcome: None };

/// What a future comes to, unless so much time has gone by that it is not to be polled again. A process that was stopped
/// and goes on knows nothing of what has come since: what it would claim or refuse now, another try may have refused or
/// claimed, and no compare-and-set is in the way where neither has left a record.
async fn within<F: Future>(until: Instant, mut future: Pin<&mut F>) -> Option<F::Output> {
    poll_fn(|cx| if Instant::now() < until { future.as_mut().poll(cx).map(Some) } else { Poll::Ready(None) }).await
}

/// What becomes of a command whose dead letter an earlier delivery has stored; `None` where none has.
async fn refused_before(delivery: &Delivery) -> Option<Verdict> {
    match delivery.is_buried().await {
        Ok(false) => None,
        Ok(true) => Some(Verdict::Done),
        Err(why) => {
            tracing::debug!(%why, "not known whether a command that comes again was refused");
            Some(Verdict::Retry(UNKNOWN))
        }
    }
}
