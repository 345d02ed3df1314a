//! A pool's size: stored first, then asked for worker by worker, then said to be reached.

use super::sweep::{Act, Count, Look, Order, Records, SweepPoolConfig, another_log, plan_size};
use super::{Stop, WorkerManagementService};
use crate::crash::{self, CrashPoint};
use crate::domain::{CommandId, CorrelationId, Pool, PoolRecord, PoolState, Reason, Refusal, TraceContext};
use crate::journal::{AppendError, Journal, PoolEntry};
use crate::provider::WorkerProvider;
use crate::registration::WorkerRegistrationPort;

use jiff::{SignedDuration, Timestamp};

/// How often the pool's record may change under a command before it comes back later.
const ROUNDS: usize = 8;
/// How far the clocks of the server and of replicas may be apart.
const CLOCKS: SignedDuration = SignedDuration::from_secs(5);

/// A pool to be brought to a size.
#[derive(Debug, Clone, PartialEq)]
pub struct ResizePoolConfig {
    /// The pool.
    pub pool: Pool,
    /// The command that asks.
    pub command_id: CommandId,
    /// The wanted number of workers.
    pub size: u32,
    /// Copied into the pool's events.
    pub correlation_id: Option<CorrelationId>,
    /// Not to be started later than this.
    pub expires_at: Option<Timestamp>,
    /// When its queue took it; a queue that was made anew counts its messages from 1, and the time tells.
    pub asked_at: Option<Timestamp>,
    /// The trace that the command is part of.
    pub trace: Option<TraceContext>,
}

/// Where a change of size stands.
#[derive(Debug, Clone, PartialEq)]
pub enum Resizing {
    /// The pool has had the size; that is on record.
    Sized(PoolRecord),
    /// A later command has taken this one's place.
    Overtaken,
    /// The size is on record, and these commands bring the pool nearer to it. Look again when they are under way.
    Ordered {
        /// The commands.
        orders: Vec<Order>,
        /// Of which event of the pool's own they are.
        rev: u64,
    },
}

impl<P: WorkerProvider, R: WorkerRegistrationPort, J: Journal> WorkerManagementService<P, R, J> {
    /// One try of a change of size. Safe to call again, and at once from several replicas: what it asks for has the same
    /// names from whoever works it out.
    ///
    /// `message` is the queue message that carries the command, `None` for a call without a queue.
    pub async fn resize_pool(
        &self,
        order: &ResizePoolConfig,
        sweep: &SweepPoolConfig,
        message: Option<u64>,
    ) -> Result<Resizing, Stop> {
        for _ in 0..ROUNDS {
            let head = match self.journal.pool_head(&order.pool).await? {
                Some(head) if head.record.command_id == order.command_id => {
                    Self::same_size(order, &head.record)?;
                    head
                }
                head => {
                    if let Some(resizing) = self.resized_before(order, head.as_ref(), message).await? {
                        return Ok(resizing);
                    }
                    match self.sizing(order, head.as_ref(), message).await? {
                        Some(head) => head,
                        // Another size came first: look again.
                        None => continue,
                    }
                }
            };
            crash::point(CrashPoint::SizingStored);
            if head.record.state == PoolState::Sized {
                return Ok(Resizing::Sized(head.record));
            }
            if let Some(resizing) = self.bring_to_size(head, sweep, message).await? {
                return Ok(resizing);
            }
        }
        Err(Stop::Later("the pool's record keeps changing".into()))
    }

    fn same_size(order: &ResizePoolConfig, record: &PoolRecord) -> Result<(), Refusal> {
        if record.size == order.size && record.correlation_id == order.correlation_id {
            return Ok(());
        }
        let (id, before, now) = (&order.command_id, record.size, order.size);
        let detail = format!("command_id: {id} came before with another content (size {before}, now {now})");
        Err(Refusal::new(Reason::Conflict, detail))
    }

    /// What became of a command that has been here before, or that a later one has overtaken on its way.
    async fn resized_before(
        &self,
        order: &ResizePoolConfig,
        head: Option<&PoolEntry>,
        message: Option<u64>,
    ) -> Result<Option<Resizing>, Stop> {
        let Some(head) = head else { return Ok(None) };
        let history = self.journal.pool_history(&order.pool).await?;
        // Up to the head that was read: what has come since may be another try of this very command.
        let mut before = history.iter().rev().filter(|entry| entry.sequence <= head.sequence);
        if let Some(entry) = before.find(|entry| entry.record.command_id == order.command_id) {
            Self::same_size(order, &entry.record)?;
            return Ok(Some(match entry.record.state {
                PoolState::Sized => Resizing::Sized(entry.record.clone()),
                PoolState::Sizing => Resizing::Overtaken,
            }));
        }
        // The queue says which of two commands is the later one, whichever came to a replica first.
        let later = matches!((head.writer.message, message), (Some(theirs), Some(ours)) if theirs > ours);
        // But it was asked for after that was written: the queue has been made anew, and counts from 1 again.
        let of_this_queue = order.asked_at.is_none_or(|asked| asked.duration_since(head.record.updated_at) < CLOCKS);
        Ok((later && of_this_queue).then_some(Resizing::Overtaken))
    }

    /// Makes the size the record: from here on every sweep keeps it, whatever becomes of this replica.
    async fn sizing(
        &self,
        order: &ResizePoolConfig,
        head: Option<&PoolEntry>,
        message: Option<u64>,
    ) -> Result<Option<PoolEntry>, Stop> {
        self.not_expired(order.expires_at)?;
        self.can_have(order.size)?;
        let Records { workers, .. } = self.records(&order.pool, |_, known| known.is_live().then(Vec::new)).await?;
        let record = PoolRecord {
            pool: order.pool.clone(),
            state: PoolState::Sizing,
            rev: head.map_or(0, |head| head.record.rev) + 1,
            size: order.size,
            actual: count(Count::of(&workers).live),
            command_id: order.command_id.clone(),
            correlation_id: order.correlation_id.clone(),
            updated_at: self.now(),
        };
        let writer = self.writer_in(order.trace.as_ref(), message);
        match self.journal.append_pool(&record, head.map_or(0, |head| head.sequence), &writer).await {
            Ok(sequence) => Ok(Some(PoolEntry { record, sequence, writer })),
            Err(AppendError::Conflict) => Ok(None),
            Err(AppendError::Unavailable(why)) => Err(Stop::Later(why)),
        }
    }

    /// A size that the pool can never have is refused: it would be worked at for ever.
    fn can_have(&self, size: u32) -> Result<(), Refusal> {
        let hosts = self.provider.inventory().map(|hosts| (hosts.len(), "hosts of the pool"));
        let limits = [self.config.max_workers.map(|max| (max, "max_workers")), hosts];
        for (most, what) in limits.into_iter().flatten() {
            if size as usize > most {
                let detail = format!("size: found {size}, expected at most {most} ({what})");
                return Err(Refusal::new(Reason::Quota, detail));
            }
        }
        Ok(())
    }

    /// What is still to be asked for; or the word that the pool has its size. `None` where another size came first.
    async fn bring_to_size(
        &self,
        head: PoolEntry,
        sweep: &SweepPoolConfig,
        message: Option<u64>,
    ) -> Result<Option<Resizing>, Stop> {
        match self.sized(&head).await? {
            NowSized::Yes(record) => return Ok(Some(Resizing::Sized(record))),
            NowSized::Overtaken => return Ok(None),
            NowSized::NotYet => {}
        }
        // Only now the provider: a size that is reached needs no look at it.
        let look = self.look_at(sweep, true).await.map_err(|error| Stop::Later(error.to_string()))?;
        if let Some(why) = another_log(&look, sweep.trust_ended) {
            // Workers without a record would not be counted, and be made a second time.
            return Err(Stop::Later(format!("the pool is not brought to its size: {why}")));
        }
        let rev = head.record.rev;
        let look = Look { size: Some(head), ..look };
        let acts = plan_size(&look, &self.rules(sweep, message));
        let orders = acts.into_iter().filter_map(|act| match act {
            Act::Ask(order) => Some(order),
            _ => None,
        });
        Ok(Some(Resizing::Ordered { orders: orders.collect(), rev }))
    }

    /// Makes it the record that the pool has its size, where it has. It has the place in the queue that its `sizing` has: a
    /// copy of the command, which came later, would make a size that was asked for between the two look like an older one.
    pub(super) async fn sized(&self, head: &PoolEntry) -> Result<NowSized, Stop> {
        let Records { workers, .. } =
            self.records(&head.record.pool, |_, known| known.is_live().then(Vec::new)).await?;
        let counted = Count::of(&workers);
        if !counted.is(head.record.size as usize) {
            return Ok(NowSized::NotYet);
        }
        let record = PoolRecord {
            state: PoolState::Sized,
            rev: head.record.rev + 1,
            actual: count(counted.live),
            updated_at: self.now(),
            ..head.record.clone()
        };
        let writer = self.writer_in(head.writer.trace.as_ref(), head.writer.message);
        match self.journal.append_pool(&record, head.sequence, &writer).await {
            Ok(_) => {
                crash::point(CrashPoint::SizedStored);
                Ok(NowSized::Yes(record))
            }
            Err(AppendError::Conflict) => Ok(NowSized::Overtaken),
            Err(AppendError::Unavailable(why)) => Err(Stop::Later(why)),
        }
    }
}

/// Whether a pool has the size on record.
pub(super) enum NowSized {
    Yes(PoolRecord),
    NotYet,
    /// Another size was recorded meanwhile.
    Overtaken,
}

fn count(workers: usize) -> u32 {
    u32::try_from(workers).unwrap_or(u32::MAX)
}
