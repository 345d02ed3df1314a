//! The first phase: one event, compare-and-set, makes a worker this command's; or tells what became of it before.

use super::hold::Hold;
use super::{DynamicWorkerConfig, Stop, WorkerManagementService};
use crate::crash::{self, CrashPoint};
use crate::domain::{
    Claim, MAX_IDLE_TRIES, Reason, Refusal, RegistrationStatus, State, Step, Worker, WorkerId, WorkerKey, WorkerType,
};
use crate::journal::{AppendError, Entry, Journal};
use crate::mutant::{self, Mutant};
use crate::provider::WorkerProvider;
use crate::registration::WorkerRegistrationPort;

/// How often a claim may lose to a claim that is gone when it looks.
const ROUNDS: usize = 8;

/// A command on its way to a worker.
#[derive(Clone, Copy)]
pub(super) struct Claiming<'a> {
    pub(super) order: &'a DynamicWorkerConfig,
    pub(super) registration: bool,
    pub(super) message: Option<u64>,
}

/// Where a provision stands once its worker's head is known.
pub(super) enum Position {
    /// This try goes on with it.
    Held(Hold),
    /// Its outcome is stored already.
    Settled(Worker),
}

impl<P: WorkerProvider, R: WorkerRegistrationPort, J: Journal> WorkerManagementService<P, R, J> {
    pub(super) async fn claim(
        &self,
        order: &DynamicWorkerConfig,
        registration: bool,
        message: Option<u64>,
    ) -> Result<Position, Stop> {
        let claim = Claiming { order, registration, message };
        match (self.provider.inventory(), &order.worker_id) {
            (None, Some(id)) => self.claim_named(claim, id.clone()).await,
            (None, None) => {
                let id = WorkerId::derived(&order.pool, &order.command_id);
                self.claim_named(claim, id).await
            }
            (Some(hosts), Some(id)) if hosts.contains(id) => self.claim_named(claim, id.clone()).await,
            (Some(_), Some(id)) => {
                let detail = format!("worker_id: found {:?}, expected a host of pool {}", id.as_str(), order.pool);
                Err(Refusal::new(Reason::Invalid, detail).into())
            }
            (Some(hosts), None) => Box::pin(self.claim_host(claim, hosts)).await,
        }
    }

    /// Claims one name. Most names are free, so the write comes first and the head is read only when it is refused.
    async fn claim_named(&self, claim: Claiming<'_>, id: WorkerId) -> Result<Position, Stop> {
        let order = claim.order;
        let key = WorkerKey::new(order.pool.clone(), id);
        if order.worker_id.is_none() {
            tracing::Span::current().record("worker_id", tracing::field::display(&key.worker_id));
        }
        let may_start = self.may_start(order).await?;
        if may_start.is_ok() {
            match self.open(claim, &key, None).await {
                Ok(hold) => return Ok(Position::Held(hold)),
                Err(AppendError::Conflict) => {}
                Err(AppendError::Unavailable(why)) => return Err(Stop::Later(why)),
            }
        }
        // Rare, and larger than the way above: not carried along by every command in hand.
        Box::pin(self.claim_taken(claim, key, may_start)).await
    }

    /// Claims a name that is not free, or for a command that may not begin: what is there comes first.
    async fn claim_taken(
        &self,
        claim: Claiming<'_>,
        key: WorkerKey,
        may_start: Result<(), Refusal>,
    ) -> Result<Position, Stop> {
        for _ in 0..ROUNDS {
            let after = match self.journal.head(&key).await? {
                None => None,
                Some(head) => match self.resume(claim, head).await? {
                    Resumed::At(position) => return Ok(position),
                    Resumed::Free(head) => Some(head),
                },
            };
            match &may_start {
                Ok(()) => match self.open(claim, &key, after.as_ref()).await {
                    Ok(hold) => return Ok(Position::Held(hold)),
                    Err(AppendError::Conflict) => {}
                    Err(AppendError::Unavailable(why)) => return Err(Stop::Later(why)),
                },
                // Nobody has begun it, and it may not begin.
                Err(refusal) => {
                    if let Some(stop) = self.refuse(claim, &key, refusal).await? {
                        return Err(stop);
                    }
                }
            }
        }
        Err(Stop::Later("the worker's name is being fought over".into()))
    }

    /// Allocates the first free host; the claim is the allocation. A host that this command has had before is found
    /// first, so that a redelivery does not take a second one.
    async fn claim_host(&self, claim: Claiming<'_>, hosts: Vec<WorkerId>) -> Result<Position, Stop> {
        let order = claim.order;
        let mut free = Vec::new();
        for id in &hosts {
            let key = WorkerKey::new(order.pool.clone(), id.clone());
            let history = self.journal.history(&key).await?;
            if history.iter().any(|entry| entry.worker.command_id == order.command_id)
                && !mutant::on(Mutant::SecondHost)
            {
                return self.claim_named(claim, key.worker_id).await;
            }
            if history.last().is_none_or(|head| head.worker.state.is_final()) {
                free.push((key, history.into_iter().last()));
            }
        }
        if let Err(refusal) = self.may_start(order).await? {
            return Err(self.refuse_host(claim, &hosts, &refusal).await?);
        }
        for (key, head) in free {
            match self.open(claim, &key, head.as_ref()).await {
                Ok(hold) => return Ok(Position::Held(hold)),
                // Another command was quicker: try the next host. Or another copy of this one, which has its host then.
                Err(AppendError::Conflict) => {
                    let head = self.journal.head(&key).await?;
                    if head.is_some_and(|head| head.worker.command_id == order.command_id) {
                        return self.claim_named(claim, key.worker_id).await;
                    }
                }
                Err(AppendError::Unavailable(why)) => return Err(Stop::Later(why)),
            }
        }
        let refusal = Refusal::new(Reason::Quota, format!("pool {} has no free host", order.pool));
        Err(self.refuse_host(claim, &hosts, &refusal).await?)
    }

    /// Whether a command that nobody has begun may begin: it has not expired and the pool has room. The room is only
    /// looked at here; [`Self::admit`] holds the limit once the claim has its place in the log.
    async fn may_start(&self, order: &DynamicWorkerConfig) -> Result<Result<(), Refusal>, Stop> {
        if let Err(refusal) = self.not_expired(order.expires_at) {
            return Ok(Err(refusal));
        }
        if self.provider.inventory().is_some()
            && let Some(refusal) = Box::pin(self.refused_before(order)).await?
        {
            return Ok(Err(refusal));
        }
        if let Some(max) = self.config.max_workers
            && self.journal.is_full(&order.pool, max).await?
        {
            return Ok(Err(Self::pool_is_full(order.pool.as_str(), max)));
        }
        Ok(Ok(()))
    }

    /// Written before the provider is called: a crash between the two leaves a claim to resume, never an instance that
    /// nobody knows.
    async fn open(&self, claim: Claiming<'_>, key: &WorkerKey, head: Option<&Entry>) -> Result<Hold, AppendError> {
        let worker = Step::Claim(Box::new(self.claim_for(claim, key)))
            .apply(head.map(|entry| &entry.worker), self.now())
            .map_err(|_| AppendError::Conflict)?;
        let writer = self.writer_in(claim.order.trace.as_ref(), claim.message);
        Hold::open(&self.journal, worker, head.map_or(0, |entry| entry.sequence), writer).await
    }

    pub(super) fn claim_for(&self, claim: Claiming<'_>, key: &WorkerKey) -> Claim {
        let Claiming { order, registration, .. } = claim;
        Claim {
            pool: key.pool.clone(),
            worker_id: key.worker_id.clone(),
            worker_type: self.provider.worker_type(),
            command_id: order.command_id.clone(),
            correlation_id: order.correlation_id.clone(),
            spec_hash: order.spec_hash.clone(),
            provider: self.provider.name().to_owned(),
            capabilities: order.spec.capabilities(),
            registration,
        }
    }

    /// What a command finds that is not the first to come to its worker.
    async fn resume(&self, claim: Claiming<'_>, head: Entry) -> Result<Resumed, Stop> {
        let Claiming { order, message, .. } = claim;
        let worker = &head.worker;
        if worker.command_id != order.command_id {
            return self.resume_beside_another(claim, head).await;
        }
        Self::same_content(order, worker)?;
        match worker.state {
            State::Registered | State::RegistrationFailed => Ok(Resumed::At(Position::Settled(head.worker))),
            State::Provisioned if worker.registration.status == RegistrationStatus::Disabled => {
                Ok(Resumed::At(Position::Settled(head.worker)))
            }
            State::Provisioning | State::Provisioned => self.take_over(claim, head).await,
            State::Terminating => match Self::closed_by_enlist(order, worker) {
                Some(_) if !self.may_take_over(&head, message) => {
                    Err(Stop::Wait("another copy of the command is in hand"))
                }
                Some(refusal) => {
                    let mut hold = Hold::resume(head, self.writer_in(order.trace.as_ref(), message));
                    let stored = hold.advance(&self.journal, Step::TakeOver, self.now()).await;
                    self.or_undo(&hold, stored, None).await?;
                    self.close(&mut hold, refusal).await?;
                    Ok(Resumed::At(Position::Settled(hold.into_worker())))
                }
                None => Err(Stop::Wait("the worker is being terminated")),
            },
            State::Terminated | State::Failed | State::Lost => {
                // A try that died in the middle of a create may have left an instance, or a registration, behind a
                // terminate that found nothing to remove.
                self.undo(worker, order.trace.as_ref(), None).await?;
                match Self::closed_by_enlist(order, worker) {
                    Some(refusal) => Err(refusal.into()),
                    None => Ok(Resumed::At(Position::Settled(head.worker))),
                }
            }
        }
    }

    async fn resume_beside_another(&self, claim: Claiming<'_>, head: Entry) -> Result<Resumed, Stop> {
        let order = claim.order;
        let worker = &head.worker;
        if worker.worker_type == WorkerType::Static {
            let history = self.journal.history(&worker.key()).await?;
            // This command had the host before, and its outcome with it, whoever has the host now. What has come since the
            // head was read is not looked at: another try of this command may have claimed the host, and has no outcome yet.
            let mut before = history.into_iter().rev().filter(|entry| entry.sequence <= head.sequence);
            if let Some(entry) = before.find(|entry| entry.worker.command_id == order.command_id) {
                Self::same_content(order, &entry.worker)?;
                // What enlist itself has ended has a dead letter for its outcome, and a replay has taken that one away.
                if let Some(refusal) = Self::closed_by_enlist(order, &entry.worker) {
                    return Err(refusal.into());
                }
                return Ok(Resumed::At(Position::Settled(entry.worker)));
            }
            if worker.state.is_final() {
                return Ok(Resumed::Free(head));
            }
        }
        if mutant::on(Mutant::OthersWorkerIsOurs) {
            return Ok(Resumed::At(Position::Settled(head.worker)));
        }
        let (state, by) = (worker.state.as_str(), &worker.command_id);
        let detail =
            format!("worker_id: {} belongs to command {by} and is {state}; expected a name that is free", worker.key());
        let refusal = Refusal::new(Reason::Conflict, detail);
        match self.provider.inventory() {
            // The host is free again some day.
            Some(hosts) => Err(self.refuse_host(claim, &hosts, &refusal).await?),
            None => Err(refusal.into()),
        }
    }

    fn same_content(order: &DynamicWorkerConfig, worker: &Worker) -> Result<(), Refusal> {
        if worker.spec_hash == order.spec_hash || mutant::on(Mutant::ContentNotCompared) {
            return Ok(());
        }
        let detail = format!(
            "command_id: {} came before with another content (fingerprint {}, now {})",
            order.command_id,
            worker.spec_hash.as_str(),
            order.spec_hash.as_str()
        );
        Err(Refusal::new(Reason::Conflict, detail))
    }

    /// The dead letter that a worker's record announces, where enlist itself has ended it.
    pub(super) fn closed_by_enlist(order: &DynamicWorkerConfig, worker: &Worker) -> Option<Refusal> {
        let ended_by = worker.ended_by.as_ref()?;
        if ended_by.command_id.as_ref() != Some(&order.command_id) {
            return None;
        }
        match ended_by.reason.as_deref() {
            Some("expired") => Some(Refusal::new(Reason::Expired, "it had expired before it could start")),
            Some("conflict") => Some(Refusal::new(Reason::Conflict, "the host was in use")),
            Some("quota") => Some(Refusal::new(Reason::Quota, format!("pool {} was full", worker.pool))),
            Some("exhausted") => Some(Self::exhausted(worker)),
            _ => None,
        }
    }

    pub(super) fn exhausted(worker: &Worker) -> Refusal {
        let last = worker.error.as_ref().map_or("its replica died", |fault| &fault.message);
        let detail = format!("tried {MAX_IDLE_TRIES} times without progress; the last time: {last}");
        Refusal::new(Reason::Exhausted, detail)
    }

    /// The epoch is the fence: whoever held the worker before fails at its next write.
    async fn take_over(&self, claim: Claiming<'_>, head: Entry) -> Result<Resumed, Stop> {
        let Claiming { order, message, .. } = claim;
        if !self.may_take_over(&head, message) {
            return Err(Stop::Wait("another copy of the command is in hand"));
        }
        let mut hold = Hold::resume(head, self.writer_in(order.trace.as_ref(), message));
        let next = hold.after(Step::TakeOver, self.now())?;
        if next.attempts >= MAX_IDLE_TRIES {
            let refusal = Self::exhausted(hold.worker());
            self.close(&mut hold, refusal).await?;
        }
        let stored = hold.store(&self.journal, next).await;
        self.or_undo(&hold, stored, None).await?;
        crash::point(CrashPoint::TakenOver);
        Ok(Resumed::At(Position::Held(hold)))
    }
}

enum Resumed {
    At(Position),
    /// The host is free again; this is its last event.
    Free(Entry),
}
