//! A refusal that no other try of the command gets past: it is a record before it is a dead letter.
//!
//! A try may stand still between its look and its claim for any time, and a claim may be on its way to the log for minutes.
//! Where a refusal leaves nothing in the log, nothing is in their way: the command would have a dead letter and a worker.

use super::claim::Claiming;
use super::hold::Hold;
use super::{DynamicWorkerConfig, Stop, WorkerManagementService};
use crate::domain::{Reason, Refusal, Worker, WorkerId, WorkerKey, asked_by_size};
use crate::journal::{AppendError, Journal};
use crate::provider::WorkerProvider;
use crate::registration::WorkerRegistrationPort;

impl<P: WorkerProvider, R: WorkerRegistrationPort, J: Journal> WorkerManagementService<P, R, J> {
    /// Ends a command that nobody has begun and that may not begin. `None` where someone was quicker: look again.
    pub(super) async fn refuse(
        &self,
        claim: Claiming<'_>,
        key: &WorkerKey,
        refusal: &Refusal,
    ) -> Result<Option<Stop>, Stop> {
        Self::waits_for_room(claim.order, refusal)?;
        if let Some(hosts) = self.provider.inventory() {
            return self.refuse_host(claim, &hosts, refusal).await.map(Some);
        }
        let at = Self::refusal_of(claim.order);
        let stands = if at == *key {
            self.write_refusal(claim, &at, refusal).await?
        } else {
            // A name that the publisher has chosen is not used up by it: another command may have it once there is room.
            self.refused_beside(claim, refusal, std::slice::from_ref(&key.worker_id)).await?
        };
        Ok(stands.then(|| refusal.clone().into()))
    }

    /// In a pool of hosts the record stands under the name that a made worker would have: whichever host another try of the
    /// command claims, it looks there before it goes on ([`Self::not_refused`]). A claim that came first is found here.
    pub(super) async fn refuse_host(
        &self,
        claim: Claiming<'_>,
        hosts: &[WorkerId],
        refusal: &Refusal,
    ) -> Result<Stop, Stop> {
        Self::waits_for_room(claim.order, refusal)?;
        if self.refused_beside(claim, refusal, hosts).await? {
            return Ok(refusal.clone().into());
        }
        Err(Stop::Wait("another try of the command has a host"))
    }

    /// Records a refusal beside the names that the command could have claimed. Whether it stands: not where another try of
    /// the command was quicker with one of them.
    async fn refused_beside(&self, claim: Claiming<'_>, refusal: &Refusal, names: &[WorkerId]) -> Result<bool, Stop> {
        // Not the first where another try of this command has written it, or this one before.
        let _first = self.write_refusal(claim, &Self::refusal_of(claim.order), refusal).await?;
        for name in names {
            let head = self.journal.head(&WorkerKey::new(claim.order.pool.clone(), name.clone())).await?;
            if head.is_some_and(|head| head.worker.command_id == claim.order.command_id) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What a pool's size asks for waits for room: refused, it would be asked for again under the same id, and end twice.
    fn waits_for_room(order: &DynamicWorkerConfig, refusal: &Refusal) -> Result<(), Stop> {
        if refusal.reason == Reason::Quota && asked_by_size(&order.command_id) {
            return Err(Stop::Wait("the pool is full"));
        }
        Ok(())
    }

    /// Gives a host, or a chosen name, back where another try has refused its command.
    pub(super) async fn not_refused(&self, hold: &mut Hold, order: &DynamicWorkerConfig) -> Result<(), Stop> {
        match self.refused_before(order).await? {
            Some(refusal) => self.close(hold, refusal).await,
            None => Ok(()),
        }
    }

    /// What the record says of a refusal of a command that does not name its worker by itself.
    pub(super) async fn refused_before(&self, order: &DynamicWorkerConfig) -> Result<Option<Refusal>, Stop> {
        let head = self.journal.head(&Self::refusal_of(order)).await?;
        Ok(head.and_then(|head| Self::closed_by_enlist(order, &head.worker)))
    }

    fn refusal_of(order: &DynamicWorkerConfig) -> WorkerKey {
        WorkerKey::new(order.pool.clone(), WorkerId::derived(&order.pool, &order.command_id))
    }

    /// Whether the record is this one: not where an event stood there before.
    async fn write_refusal(&self, claim: Claiming<'_>, key: &WorkerKey, refusal: &Refusal) -> Result<bool, Stop> {
        // No scheduler is to be told of it.
        let claim = Claiming { registration: false, ..claim };
        let worker = Worker::refused(self.claim_for(claim, key), refusal.reason, self.now());
        match Hold::open(&self.journal, worker, 0, self.writer_in(claim.order.trace.as_ref(), claim.message)).await {
            Ok(_) => Ok(true),
            Err(AppendError::Conflict) => Ok(false),
            Err(AppendError::Unavailable(why)) => Err(Stop::Later(why)),
        }
    }
}
