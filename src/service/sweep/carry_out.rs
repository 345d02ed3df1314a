//! How the acts of a plan are done: each looks at its worker's newest event first, and lets go where that is another one
//! than the plan was made from.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use tokio::time::Instant;

use super::super::hold::{Hold, HoldError};
use super::super::{Stop, WorkerManagementService};
use super::act::{Act, Why};
use super::report::SweepReport;
use super::{Backlog, SweepPoolConfig};
use crate::crash::{self, CrashPoint};
use crate::domain::{EndedBy, ErrorClass, RegistrationStatus, State, Step, Worker, WorkerFault, WorkerId, WorkerKey};
use crate::journal::{AppendError, Entry, Journal, PurgeError, ReadError};
use crate::mutant::{self, Mutant};
use crate::provider::{Instance, ProviderError, WorkerProvider};
use crate::registration::{
    RegisterWorker, Registered, RegistrationConfig, RegistrationError, UnregisterWorker, WorkerRegistrationPort,
};
use crate::telemetry::OrphanAction;

/// Acts of one sweep that are done at once.
const AT_ONCE: usize = 16;
/// Acts that are not begun so long after the first are left to the next sweep: thousands of them that each wait for a
/// time-out would keep the pool's other sweeps and sizes waiting for hours.
const LONGEST: Duration = Duration::from_secs(300);
const NO_SCHEDULER: &str = "the scheduler answers nobody, or is busy";

/// Why an act was not done, or not to its end. The next sweep looks again.
#[derive(Debug)]
enum Left {
    /// Someone else has the worker in hand, or what looked wrong is right.
    Changed(&'static str),
    /// Something is in the way.
    Hindered(String),
    /// It was not begun, as what hindered others would hinder it too.
    Untried(&'static str),
}

impl From<Stop> for Left {
    fn from(stop: Stop) -> Self {
        Self::Hindered(stop.to_string())
    }
}

impl From<ProviderError> for Left {
    fn from(error: ProviderError) -> Self {
        Self::Hindered(error.to_string())
    }
}

impl From<ReadError> for Left {
    fn from(error: ReadError) -> Self {
        Self::Hindered(error.to_string())
    }
}

impl From<PurgeError> for Left {
    fn from(error: PurgeError) -> Self {
        Self::Hindered(error.to_string())
    }
}

impl From<HoldError> for Left {
    fn from(error: HoldError) -> Self {
        match error {
            HoldError::Lost => Self::Changed(MEANWHILE),
            HoldError::Away(why) => Self::Hindered(why),
            HoldError::Refused(refused) => Self::Hindered(refused.to_string()),
        }
    }
}

const MEANWHILE: &str = "its record has changed since";

/// One sweep's acts, as they are done.
struct Doing<'a, P: WorkerProvider, R: WorkerRegistrationPort, J: Journal> {
    service: &'a WorkerManagementService<P, R, J>,
    config: &'a SweepPoolConfig,
    message: Option<u64>,
    backlog: Option<&'a Backlog>,
    /// The scheduler has not answered, or was busy all along: the others need not wait for it as well.
    scheduler_away: AtomicBool,
}

impl<P: WorkerProvider, R: WorkerRegistrationPort, J: Journal> WorkerManagementService<P, R, J> {
    /// Does what is planned, some at a time, and puts it into the report.
    pub(super) async fn carry_out(
        &self,
        config: &SweepPoolConfig,
        acts: Vec<Act>,
        message: Option<u64>,
        backlog: Option<&Backlog>,
        report: &mut SweepReport,
    ) {
        let doing = &Doing { service: self, config, message, backlog, scheduler_away: AtomicBool::new(false) };
        let signals = self.signals(&config.pool);
        let until = Instant::now() + LONGEST;
        let mut done = stream::iter(acts)
            .map(|act| async move {
                let late = Instant::now() > until && !matches!(act, Act::Ask(_));
                let result =
                    if late { Err(Left::Untried("the sweep has taken long enough")) } else { doing.act(&act).await };
                (act, result)
            })
            .buffer_unordered(AT_ONCE);
        while let Some((act, result)) = done.next().await {
            let kind = act.kind();
            match result {
                Ok(()) => {
                    *report.done.entry(kind).or_default() += 1;
                    signals.sweep().did(kind, act.subject(), &act.reason());
                    if let Act::Ask(order) = act {
                        report.orders.push(order);
                    }
                }
                Err(left) => {
                    let why = match left {
                        Left::Untried(why) => {
                            signals.sweep().untried(kind, act.subject(), why);
                            why.to_owned()
                        }
                        Left::Changed(why) => {
                            signals.sweep().left(kind, act.subject(), why);
                            why.to_owned()
                        }
                        Left::Hindered(why) => {
                            signals.sweep().left(kind, act.subject(), &why);
                            why
                        }
                    };
                    report.undone.push((act, why));
                }
            }
        }
    }
}

impl<P: WorkerProvider, R: WorkerRegistrationPort, J: Journal> Doing<'_, P, R, J> {
    async fn act(&self, act: &Act) -> Result<(), Left> {
        match act {
            Act::RemoveOrphan { instance, record: None } if mutant::on(Mutant::NoTombstone) => {
                let Instance { key, instance_id, .. } = &**instance;
                Ok(self.service.provider.terminate_worker(key, Some(instance_id), Duration::ZERO).await?)
            }
            Act::RemoveOrphan { instance, record: None } => self.remove_unrecorded(instance).await,
            Act::RemoveOrphan { instance, record: Some(sequence) } => self.remove_ended(instance, *sequence).await,
            Act::ReportOrphan { instance } => {
                self.orphan(instance, OrphanAction::Reported);
                Ok(())
            }
            Act::Lose { worker_id, sequence } => self.lose(worker_id, *sequence).await,
            Act::FinishLost { worker_id, sequence } => {
                let entry = self.still(worker_id, *sequence).await?;
                self.after_loss(&self.hold(entry)).await;
                Ok(())
            }
            Act::Register { worker_id, sequence, why } => self.register(worker_id, *sequence, *why).await,
            Act::Unregister { worker_id, epoch, record } => self.unregister(worker_id, *epoch, *record).await,
            Act::Finish { worker_id, sequence, state: _ } => self.finish(worker_id, *sequence).await,
            // It goes the way of commands: see the report.
            Act::Ask(_) => Ok(()),
            Act::Purge { worker_id, sequence } => {
                let entry = self.still(worker_id, *sequence).await?;
                Ok(self.service.journal.purge(&entry.worker.key(), *sequence).await?)
            }
        }
    }

    fn key(&self, worker_id: &WorkerId) -> WorkerKey {
        WorkerKey::new(self.config.pool.clone(), worker_id.clone())
    }

    /// The worker's newest event, if it still is the one that the plan was made from.
    async fn still(&self, worker_id: &WorkerId, sequence: u64) -> Result<Entry, Left> {
        match self.service.journal.head(&self.key(worker_id)).await? {
            Some(entry) if entry.sequence == sequence => Ok(entry),
            Some(_) | None => Err(Left::Changed(MEANWHILE)),
        }
    }

    fn hold(&self, entry: Entry) -> Hold {
        Hold::resume(entry, self.service.writer(self.message))
    }

    fn orphan(&self, instance: &Instance, action: OrphanAction) {
        self.service.signals(&self.config.pool).sweep().orphan(&instance.key.worker_id, &instance.instance_id, action);
    }

    /// An instance that the log knows nothing of. The record that says so is written first: whoever would claim the name
    /// at this moment either was before us, and then nothing is removed, or finds it taken.
    async fn remove_unrecorded(&self, instance: &Instance) -> Result<(), Left> {
        let Self { service, config, .. } = self;
        let claim = service.claim_of(instance, &config.spec, service.registration.is_some());
        let ended_by = EndedBy { command_id: None, reason: Some("orphan".to_owned()) };
        let (epoch, instance_id) = (instance.epoch.saturating_add(1), instance.instance_id.clone());
        let worker = Worker::unrecorded(claim, epoch, instance_id, ended_by, service.now());
        let mut hold = match Hold::open(&service.journal, worker, 0, service.writer(self.message)).await {
            Ok(hold) => hold,
            Err(AppendError::Conflict) => return Err(Left::Changed("it has a record now")),
            Err(AppendError::Unavailable(why)) => return Err(Left::Hindered(why)),
        };
        crash::point(CrashPoint::OrphanMarked);
        self.orphan(instance, OrphanAction::Terminated);
        Ok(service.finish(&mut hold, service.config.grace, false).await?)
    }

    /// An instance that outlived its worker's record, say one that a provider made after it had said that it would not.
    /// Nothing comes after a final event and nobody can claim the name again, so there is no race to be fenced.
    async fn remove_ended(&self, instance: &Instance, sequence: u64) -> Result<(), Left> {
        let service = self.service;
        let entry = self.still(&instance.key.worker_id, sequence).await?;
        if !entry.worker.state.is_final() {
            return Err(Left::Changed("it has a live record"));
        }
        self.orphan(instance, OrphanAction::Terminated);
        let grace = service.config.grace;
        if entry.worker.registration.status != RegistrationStatus::Disabled {
            service.unregister(&entry.worker, entry.writer.trace.as_ref(), grace, true).await;
        }
        Ok(service.remove_instance(&entry.worker, Some(&instance.instance_id), grace).await?)
    }

    /// Written off only after the provider has said once more, asked for this one instance, that it is not there.
    async fn lose(&self, worker_id: &WorkerId, sequence: u64) -> Result<(), Left> {
        let service = self.service;
        let entry = self.still(worker_id, sequence).await?;
        let found = service.find_instance(&entry.worker.key()).await?;
        if found.is_some_and(|found| Some(found.instance_id) == entry.worker.instance_id)
            && !mutant::on(Mutant::LostUnasked)
        {
            return Err(Left::Changed("its instance was found after all"));
        }
        let mut hold = self.hold(entry);
        hold.advance(&service.journal, Step::Lost, service.now()).await?;
        crash::point(CrashPoint::LostStored);
        // A replica that dies here leaves the rest to the redelivery of its sweep, and to what the scheduler lists.
        self.after_loss(&hold).await;
        Ok(())
    }

    /// The scheduler is told that a lost worker will do no more, and what its instance has left behind is cleared away.
    async fn after_loss(&self, hold: &Hold) {
        let worker = hold.worker();
        if worker.registration.status != RegistrationStatus::Disabled {
            self.service.unregister(worker, hold.trace(), Duration::ZERO, true).await;
        }
        crash::point(CrashPoint::LostUnregistered);
        if let Err(error) = self.service.remove_instance(worker, worker.instance_id.as_deref(), Duration::ZERO).await {
            tracing::debug!(worker_id = %worker.worker_id, %error, "a lost instance's traces stay");
        }
    }

    /// One more request for a worker that the scheduler does not have. What it says is written where it changes the record.
    async fn register(&self, worker_id: &WorkerId, sequence: u64, why: Why) -> Result<(), Left> {
        let service = self.service;
        if self.scheduler_away.load(Ordering::Relaxed) {
            return Err(Left::Untried(NO_SCHEDULER));
        }
        let entry = self.still(worker_id, sequence).await?;
        let mut hold = self.hold(entry);
        let told = self.offer(&hold).await;
        crash::point(CrashPoint::Offered);
        let (attempts, fault) = (told.attempts, told.fault());
        let left = fault.as_ref().map(|fault| Left::Hindered(fault.message.clone()));
        let step = match (why, fault) {
            // A worker whose registration is on record stays as it is: the record was right, the scheduler has forgotten.
            (Why::Missing, _) => {
                self.take_back_if_ended(hold.worker()).await?;
                return left.map_or(Ok(()), Err);
            }
            (Why::Failed, None) => Step::Registered { attempts },
            (Why::Failed, Some(fault)) => Step::RegistrationFailed { attempts, fault },
        };
        match hold.advance(&service.journal, step, service.now()).await {
            Ok(()) => left.map_or(Ok(()), Err),
            Err(HoldError::Lost) => {
                self.take_back_if_ended(hold.worker()).await?;
                Err(Left::Changed(MEANWHILE))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn offer(&self, hold: &Hold) -> Registered {
        let once = RegistrationConfig { enabled: true, max_retries: 0, ..self.config.registration.clone() };
        let told = self.service.register(RegisterWorker::of(hold.worker(), hold.trace()), &once).await;
        if told.error.as_ref().is_some_and(RegistrationError::is_away) {
            self.scheduler_away.store(true, Ordering::Relaxed);
        }
        told
    }

    /// A worker that ended while the scheduler was being asked to take it may be in its list now: it is taken back under
    /// the ending's own epoch. The next sweep would find it as well.
    async fn take_back_if_ended(&self, worker: &Worker) -> Result<(), Left> {
        let head = self.service.journal.head(&worker.key()).await?;
        if let Some(Entry { worker: now, writer, .. }) = head
            && (now.state == State::Terminating || now.state.is_final())
        {
            self.service.unregister(&now, writer.trace.as_ref(), Duration::ZERO, true).await;
        }
        Ok(())
    }

    async fn unregister(&self, worker_id: &WorkerId, epoch: u64, record: Option<u64>) -> Result<(), Left> {
        if self.scheduler_away.load(Ordering::Relaxed) {
            return Err(Left::Untried(NO_SCHEDULER));
        }
        let head = self.service.journal.head(&self.key(worker_id)).await?;
        // A host may have been given on, and a name been claimed, since the records were read.
        let same = match (&head, record) {
            (Some(head), Some(sequence)) => head.sequence == sequence && head.worker.state.is_final(),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        if !same {
            return Err(Left::Changed(MEANWHILE));
        }
        let request = UnregisterWorker {
            worker_id: worker_id.clone(),
            pool: self.config.pool.clone(),
            trace: head.as_ref().and_then(|head| head.writer.trace.clone()),
            instance_id: head.and_then(|head| head.worker.instance_id),
            epoch,
            reason: "gone".to_owned(),
            grace: Duration::ZERO,
        };
        if self.service.unregister_as(&request, true).await {
            return Ok(());
        }
        self.scheduler_away.store(true, Ordering::Relaxed);
        Err(Left::Hindered("the scheduler was not told".to_owned()))
    }

    /// Takes over what stands still. The command that had it in hand, or comes late, fails at its next write.
    async fn finish(&self, worker_id: &WorkerId, sequence: u64) -> Result<(), Left> {
        let service = self.service;
        let entry = self.still(worker_id, sequence).await?;
        // A command that still waits in its queue, say for a provider that is away, goes on with its worker itself.
        if let (Some(message), Some(backlog)) = (entry.writer.message, self.backlog)
            && self.message != Some(message)
            && backlog(message).await?
        {
            return Err(Left::Changed("its command is still in the queue"));
        }
        let state = entry.worker.state;
        let mut hold = self.hold(entry);
        hold.advance(&service.journal, Step::TakeOver, service.now()).await?;
        crash::point(CrashPoint::StuckTakenOver);
        match state {
            // Its grace is long over.
            State::Terminating => Ok(service.finish(&mut hold, service.config.grace, true).await?),
            State::Provisioned => {
                let told = self.offer(&hold).await;
                Ok(service.outcome(&mut hold, Some(told)).await?)
            }
            State::Provisioning => match service.find_instance(&hold.worker().key()).await? {
                Some(instance) if instance.command_id == hold.worker().command_id => {
                    let told = service.created(&mut hold, instance, &self.config.registration).await?;
                    Ok(service.outcome(&mut hold, told).await?)
                }
                // What it was to be, only its command knew. An instance that comes to be after all is an orphan.
                Some(_) | None => {
                    let fault = WorkerFault {
                        class: ErrorClass::Timeout,
                        message: "its command is gone from the queue, and it has no instance".to_owned(),
                        retryable: false,
                    };
                    Ok(hold.advance(&service.journal, Step::Fail(fault), service.now()).await?)
                }
            },
            State::Registered | State::RegistrationFailed | State::Terminated | State::Failed | State::Lost => {
                Err(Left::Changed(MEANWHILE))
            }
        }
    }
}
