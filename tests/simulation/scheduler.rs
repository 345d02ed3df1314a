//! A scheduler over a network: slow, busy, away, now and then against a worker, and forgetful. It keeps to the fence.

use std::sync::Arc;
use std::time::Duration;

use enlist::domain::{Pool, WorkerKey};
use enlist::registration::{ListedWorker, RegisterWorker, RegistrationError, UnregisterWorker, WorkerRegistrationPort};
use enlist::wire::scheduler::UnregisterReply;
use tokio::time::sleep;

use super::hand::HAND;
use super::world::World;

const TOO_LONG: Duration = Duration::from_secs(60);

/// What a replica sees of the scheduler.
#[derive(Clone)]
pub(crate) struct SimScheduler(pub(crate) Arc<World>);

/// What becomes of a request.
enum Fate {
    Arrives,
    NeverArrives,
    ArrivesUnheard,
    ArrivesLate,
    Answered(RegistrationError),
    ArrivesGarbled,
}

impl SimScheduler {
    fn fate(&self) -> Fate {
        let world = &self.0;
        if world.is_away("scheduler") {
            let message = "away".to_owned();
            return Fate::Answered(RegistrationError::Unavailable { code: "no_responders", message });
        }
        if !world.fails(world.weather.scheduler, 0.1) {
            return Fate::Arrives;
        }
        match world.dice().below(6) {
            0 => Fate::NeverArrives,
            1 => Fate::ArrivesUnheard,
            2 => Fate::ArrivesLate,
            3 => Fate::ArrivesGarbled,
            4 => {
                let message = "not now".to_owned();
                Fate::Answered(RegistrationError::Unavailable { code: "no_responders", message })
            }
            _ => Fate::Answered(RegistrationError::Busy { retry_after: Duration::from_millis(700) }),
        }
    }

    async fn ask<T: Send + 'static>(
        &self,
        apply: impl Fn(&World) -> T + Clone + Send + 'static,
    ) -> Result<T, RegistrationError> {
        let world = &self.0;
        let fate = self.fate();
        world.travel().await;
        match fate {
            Fate::Arrives => {
                let answer = apply(world);
                world.travel().await;
                Ok(answer)
            }
            Fate::NeverArrives => {
                sleep(TOO_LONG).await;
                Err(gone())
            }
            Fate::ArrivesUnheard => {
                apply(world);
                sleep(TOO_LONG).await;
                Err(gone())
            }
            Fate::ArrivesLate => {
                world.later(world.seconds(1, 180), move |world| drop(apply(world)));
                sleep(TOO_LONG).await;
                Err(gone())
            }
            Fate::ArrivesGarbled => {
                apply(world);
                Err(RegistrationError::Unreadable("garbled".to_owned()))
            }
            Fate::Answered(error) => Err(error),
        }
    }
}

fn gone() -> RegistrationError {
    RegistrationError::Unavailable { code: "timeout", message: "no answer".to_owned() }
}

impl WorkerRegistrationPort for SimScheduler {
    async fn register_worker(&self, request: &RegisterWorker) -> Result<(), RegistrationError> {
        let world = &self.0;
        let key = WorkerKey::new(request.pool.clone(), request.worker_id.clone());
        let looked = HAND.try_with(|hand| hand.looked.lock().unwrap().insert(key.clone(), false)).ok().flatten();
        let (epoch, attempt) = (request.epoch, request.attempt);
        world.tell(|| format!("scheduler: asked to take {key}, epoch {epoch}, try {attempt}"));
        world.judged(|judge| judge.offered(&key, epoch, attempt, looked == Some(true)));
        if world.fails(world.weather.scheduler, 0.01) {
            world.travel().await;
            return Err(RegistrationError::Rejected { code: "no".to_owned(), message: "not this one".to_owned() });
        }
        let sent = request.clone();
        self.ask(move |world| drop(world.scheduler().register(&sent))).await?;
        world.judged(|judge| judge.accepted(&key, epoch));
        Ok(())
    }

    async fn unregister_worker(&self, request: &UnregisterWorker) -> Result<(), RegistrationError> {
        let world = &self.0;
        let key = WorkerKey::new(request.pool.clone(), request.worker_id.clone());
        world.tell(|| format!("scheduler: asked to let {key} go, epoch {}", request.epoch));
        world.judged(|judge| judge.let_go(&key));
        let sent = request.clone();
        match self.ask(move |world| world.scheduler().unregister(&sent)).await? {
            UnregisterReply::Accepted | UnregisterReply::Unknown => Ok(()),
            UnregisterReply::Busy { retry_after_ms } => {
                Err(RegistrationError::Busy { retry_after: Duration::from_millis(retry_after_ms.unwrap_or(500)) })
            }
        }
    }

    async fn list_workers(&self, pool: &Pool) -> Result<Option<Vec<ListedWorker>>, RegistrationError> {
        let world = &self.0;
        if world.is_away("scheduler") || world.fails(world.weather.scheduler, 0.05) {
            return Err(gone());
        }
        world.travel().await;
        let (listed, _) = world.scheduler().page(Some(pool), None, usize::MAX);
        world.travel().await;
        Ok(Some(listed))
    }
}
