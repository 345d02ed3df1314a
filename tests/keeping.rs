//! The library keeps the truth without a broker: sweep, size and adoption on the journal in memory.
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use enlist::config::{NullConfig, StaticHost};
use enlist::domain::{Capabilities, CommandId, Pool, PoolState, Prefix, State, WorkerId, WorkerKey, WorkerSpec};
use enlist::journal::{Journal, MemoryJournal};
use enlist::provider::null::NullProvider;
use enlist::provider::process::ProcessProvider;
use enlist::provider::static_hosts::StaticProvider;
use enlist::provider::{Instance, WorkerProvider};
use enlist::registration::memory::MemoryScheduler;
use enlist::registration::{ListedWorker, RegisterWorker, RegistrationError, UnregisterWorker, WorkerRegistrationPort};
use enlist::service::sweep::{SweepPoolConfig, SweepReport};
use enlist::service::{Clock, ResizePoolConfig, Resizing};
use enlist::telemetry::SweepAct;
use enlist::{
    DynamicWorkerConfig, TerminateWorkerConfig, WorkerManagementConfig, WorkerManagementService, WorkerProvisioned,
};
use jiff::Timestamp;

type Service = WorkerManagementService<NullProvider, MemoryScheduler>;

/// A clock that a test turns.
#[derive(Clone)]
struct Hands(Arc<Mutex<Timestamp>>);

impl Hands {
    fn turn(&self, by: Duration) {
        let mut at = self.0.lock().unwrap();
        *at = at.checked_add(by).unwrap();
    }

    fn clock(&self) -> Clock {
        let hands = self.clone();
        Arc::new(move || *hands.0.lock().unwrap())
    }
}

struct Fleet {
    service: Service,
    scheduler: MemoryScheduler,
    hands: Hands,
    config: SweepPoolConfig,
}

fn pool() -> Pool {
    Pool::new("web").unwrap()
}

impl Fleet {
    fn new() -> Self {
        Self::on(NullProvider::new(&Prefix::new("test").unwrap(), NullConfig::default()), MemoryScheduler::new())
    }

    fn on(provider: NullProvider, scheduler: MemoryScheduler) -> Self {
        let hands = Hands(Arc::new(Mutex::new(Timestamp::now())));
        let config = SweepPoolConfig::new(pool(), WorkerSpec::default());
        let service = WorkerManagementService::new_with_registration(
            provider,
            scheduler.clone(),
            WorkerManagementConfig::default(),
        );
        Self { service: service.with_clock(hands.clock()), scheduler, hands, config }
    }

    async fn provision(&self) -> WorkerProvisioned {
        let config = DynamicWorkerConfig::new(pool(), WorkerSpec::default());
        self.service.provision_worker(&config).await.unwrap()
    }

    async fn sweep(&self) -> SweepReport {
        self.hands.turn(Duration::from_secs(60));
        self.service.sweep(&self.config).await.unwrap()
    }

    async fn instances(&self) -> Vec<Instance> {
        self.service.provider().list_workers(&pool()).await.unwrap()
    }

    /// Takes an instance away as its own end would.
    async fn kill(&self, worker: &WorkerId) {
        let key = WorkerKey::new(pool(), worker.clone());
        self.service.provider().terminate_worker(&key, None, Duration::ZERO).await.unwrap();
    }

    async fn state(&self, worker: &WorkerId) -> State {
        let key = WorkerKey::new(pool(), worker.clone());
        self.service.journal().head(&key).await.unwrap().unwrap().worker.state
    }

    async fn listed(&self) -> usize {
        self.scheduler.list_workers(&pool()).await.unwrap().unwrap().len()
    }
}

#[tokio::test]
async fn who_is_well_and_who_has_ended_and_left_nothing_behind_is_counted_and_not_held() {
    let fleet = Fleet::new();
    let (ended, lives) = (fleet.provision().await, fleet.provision().await);
    let terminate = TerminateWorkerConfig::new(pool(), ended.worker_id.clone());
    fleet.service.terminate_worker(&terminate).await.unwrap();

    let (look, plan) = fleet.service.plan_sweep(&fleet.config).await.unwrap();
    assert!(look.records.is_empty() && look.instances.is_empty(), "{look:?}");
    assert!(look.listing.is_sound(&lives.worker_id) && look.live() == 1);
    assert_eq!(look.others, 2);
    assert!(plan.acts.is_empty() && plan.frozen.is_none(), "{plan:?}");

    // Once it is to be purged a rule asks about it.
    fleet.hands.turn(fleet.config.retention + Duration::from_secs(1));
    let (look, plan) = fleet.service.plan_sweep(&fleet.config).await.unwrap();
    assert!(look.records.contains_key(&ended.worker_id) && look.others == 1);
    assert_eq!(plan.acts.len(), 1, "{plan:?}");
}

#[tokio::test]
async fn a_healthy_pool_is_left_alone() {
    let fleet = Fleet::new();
    for _ in 0..5 {
        fleet.provision().await;
    }
    let before = fleet.service.journal().entries().len();
    for _ in 0..3 {
        let report = fleet.sweep().await;
        assert!(report.done.is_empty() && report.undone.is_empty() && report.frozen.is_none(), "{report:?}");
    }
    assert_eq!(fleet.service.journal().entries().len(), before);
}

#[tokio::test]
async fn a_worker_without_its_instance_is_written_off_by_the_second_sweep_and_unregistered() {
    let fleet = Fleet::new();
    let worker = fleet.provision().await.worker_id;
    fleet.kill(&worker).await;
    assert_eq!(fleet.sweep().await.suspects.len(), 1);
    assert_eq!((fleet.state(&worker).await, fleet.listed().await), (State::Registered, 1));
    assert_eq!(fleet.sweep().await.count(SweepAct::WriteOff), 1);
    assert_eq!((fleet.state(&worker).await, fleet.listed().await), (State::Lost, 0));
}

#[tokio::test]
async fn an_instance_that_outlived_its_record_is_removed_by_the_second_sweep_once_it_is_old_enough() {
    let fleet = Fleet::new();
    fleet.provision().await;
    let worker = fleet.provision().await;
    let terminate = TerminateWorkerConfig::new(pool(), worker.worker_id.clone());
    let made = fleet.instances().await.into_iter().find(|made| made.key.worker_id == worker.worker_id).unwrap();
    fleet.service.terminate_worker(&terminate).await.unwrap();
    // The provider makes it after all.
    let request = enlist::provider::LaunchRequest {
        key: made.key.clone(),
        command_id: made.command_id.clone(),
        spec_hash: made.spec_hash.clone(),
        epoch: made.epoch,
        claim: made.claim.unwrap(),
        spec: WorkerSpec::default(),
        trace: None,
    };
    fleet.service.provider().create_worker(&request).await.unwrap();
    for _ in 0..3 {
        fleet.sweep().await;
    }
    assert_eq!(fleet.instances().await.len(), 2, "younger than its grace");
    fleet.hands.turn(Duration::from_secs(300));
    fleet.sweep().await;
    assert_eq!(fleet.sweep().await.count(SweepAct::RemoveOrphan), 1);
    assert_eq!(fleet.instances().await.len(), 1);
    assert_eq!(fleet.state(&worker.worker_id).await, State::Terminated, "nothing comes after a final event");
}

#[tokio::test]
async fn a_scheduler_that_forgets_is_told_again() {
    let fleet = Fleet::new();
    let (one, two) = (fleet.provision().await.worker_id, fleet.provision().await.worker_id);
    let provider = fleet.service.provider().clone();
    let journal = fleet.service.journal().clone();
    let forgetful = Fleet::on(provider, MemoryScheduler::new());
    let service = forgetful.service.with_journal(journal);
    let report = service.sweep(&forgetful.config).await.unwrap();
    assert_eq!(report.count(SweepAct::Register), 2, "{report:?} {one} {two}");
    assert_eq!(forgetful.scheduler.registered(), 2);
}

#[tokio::test]
async fn a_pool_keeps_its_size_and_gives_it_up() {
    let fleet = Fleet::new();
    let config = DynamicWorkerConfig::new(pool(), WorkerSpec::default());
    let made = fleet.service.create_pool(&config, 5).await;
    assert_eq!(made.record.unwrap().state, PoolState::Sized);
    let lost = made.workers[2].as_ref().unwrap().worker_id.clone();
    fleet.kill(&lost).await;
    fleet.sweep().await;
    let report = fleet.sweep().await;
    assert_eq!((report.count(SweepAct::WriteOff), report.count(SweepAct::Provision)), (1, 1), "{report:?}");
    assert_eq!((fleet.instances().await.len(), fleet.listed().await), (5, 5));
    let smaller = DynamicWorkerConfig::new(pool(), WorkerSpec::default());
    fleet.service.create_pool(&smaller, 2).await;
    let report = fleet.sweep().await;
    assert_eq!(report.count(SweepAct::Terminate), 3, "{report:?}");
    assert_eq!((fleet.instances().await.len(), fleet.listed().await), (2, 2));
    assert!(fleet.sweep().await.done.is_empty());
}

#[tokio::test]
async fn of_a_place_no_more_is_held_than_its_worker_and_what_failed_since_one_could_be_made() {
    let fleet = Fleet::new();
    let config = DynamicWorkerConfig::new(pool(), WorkerSpec::default());
    fleet.service.create_pool(&config, 1).await.record.unwrap();
    let worker = async || {
        let (look, _) = fleet.service.plan_sweep(&fleet.config).await.unwrap();
        let live: Vec<_> = look.records.iter().filter(|(_, known)| known.is_live()).map(|(id, _)| id.clone()).collect();
        (look, live)
    };
    let end = async |live: &[WorkerId]| {
        let terminate = TerminateWorkerConfig::new(pool(), live[0].clone());
        fleet.service.terminate_worker(&terminate).await.unwrap();
    };
    // The first had no place yet.
    end(&worker().await.1).await;
    fleet.sweep().await;
    for ended in 2..5 {
        end(&worker().await.1).await;
        let (look, live) = worker().await;
        assert_eq!((look.records.len(), live.len()), (1, 0), "the place goes on from the newest: {look:?}");
        fleet.sweep().await;
        let (look, live) = worker().await;
        assert_eq!((look.records.len(), live.len(), look.others), (1, 1, ended), "{look:?}");
    }
    // Once they are to be purged a rule asks about them.
    fleet.hands.turn(fleet.config.retention + Duration::from_secs(1));
    let report = fleet.sweep().await;
    assert_eq!(report.count(SweepAct::Purge), 4, "{report:?}");
}

#[tokio::test]
async fn a_log_that_is_gone_freezes_the_sweep_and_adoption_thaws_it() {
    let fleet = Fleet::new();
    for _ in 0..20 {
        fleet.provision().await;
    }
    let provider = fleet.service.provider().clone();
    let scheduler = fleet.scheduler.clone();
    let after = Fleet { scheduler: scheduler.clone(), ..Fleet::on(provider, scheduler) };
    after.hands.turn(Duration::from_secs(3600));
    for _ in 0..4 {
        let report = after.sweep().await;
        assert!(report.frozen.is_some() && report.done.is_empty(), "{report:?}");
    }
    // New work on the new log does not make it the old one.
    after.provision().await;
    for _ in 0..4 {
        let frozen = after.sweep().await.frozen.unwrap();
        assert!(frozen.contains("put back to an older copy or made anew"), "{frozen}");
    }
    assert_eq!((after.instances().await.len(), after.listed().await), (21, 21));
    let adopted = after.service.adopt(&after.config, false).await.unwrap();
    assert_eq!(adopted.workers.len(), 20);
    assert!(
        adopted.workers.iter().all(|one| one.adopted.as_ref().unwrap().as_ref().unwrap().state == State::Registered)
    );
    let report = after.sweep().await;
    assert!(report.frozen.is_none() && report.done.is_empty(), "{report:?}");
    assert_eq!((report.live, after.instances().await.len(), after.listed().await), (21, 21, 21));
    assert!(after.service.adopt(&after.config, false).await.unwrap().workers.is_empty(), "again it does nothing");
}

#[tokio::test]
async fn a_pool_whose_provider_was_changed_keeps_what_the_old_one_has_made() {
    let fleet = Fleet::new();
    let (one, two) = (fleet.provision().await.worker_id, fleet.provision().await.worker_id);
    let nowhere = std::env::temp_dir().join(format!("enlist-{}", uuid::Uuid::new_v4()));
    let process = ProcessProvider::new(&Prefix::new("test").unwrap(), nowhere);
    let changed = WorkerManagementService::new_with_registration(
        process,
        fleet.scheduler.clone(),
        WorkerManagementConfig::default(),
    )
    .with_journal(fleet.service.journal().clone());
    for _ in 0..3 {
        let report = changed.sweep(&fleet.config).await.unwrap();
        assert!(report.frozen.unwrap().contains("another provider") && report.done.is_empty());
    }
    let terminate = TerminateWorkerConfig::new(pool(), one.clone());
    let error = changed.terminate_worker(&terminate).await.unwrap_err().to_string();
    assert!(error.contains("provider null has made the worker, and the pool has process now"), "{error}");
    assert_eq!((fleet.state(&one).await, fleet.listed().await), (State::Registered, 2), "nothing has begun");

    // Put back, it goes on.
    fleet.service.terminate_worker(&terminate).await.unwrap();
    assert_eq!((fleet.instances().await.len(), fleet.listed().await), (1, 1));
    // Or a person says that what it ran is gone.
    let trusted = SweepPoolConfig { trust_ended: true, ..fleet.config.clone() };
    assert_eq!(changed.sweep(&trusted).await.unwrap().count(SweepAct::WriteOff), 1);
    assert_eq!((fleet.state(&two).await, fleet.listed().await), (State::Lost, 0));
}

/// Takes all that the log has of the workers that there are out of it.
async fn purge(fleet: &Fleet) {
    for entry in fleet.service.journal().entries() {
        fleet.service.journal().purge(&entry.worker.key(), entry.sequence).await.unwrap();
    }
}

#[tokio::test]
async fn a_log_that_was_purged_freezes_the_sweep_however_old_its_workers_are() {
    for age in [Duration::ZERO, 30 * 24 * Duration::from_secs(3600)] {
        let fleet = Fleet::new();
        for _ in 0..3 {
            fleet.provision().await;
        }
        fleet.hands.turn(age);
        purge(&fleet).await;
        fleet.hands.turn(fleet.config.grace);
        fleet.provision().await;
        for _ in 0..3 {
            let report = fleet.sweep().await;
            assert!(report.frozen.unwrap().contains("gone before its time") && report.done.is_empty());
        }
        assert_eq!((fleet.instances().await.len(), fleet.listed().await), (4, 4));
    }
}

#[tokio::test]
async fn an_instance_whose_worker_was_purged_long_after_its_end_is_an_orphan_beside_an_older_worker() {
    let fleet = Fleet::new();
    fleet.provision().await;
    let away = fleet.provision().await;
    let key = WorkerKey::new(pool(), away.worker_id.clone());
    let sequence = fleet.service.journal().head(&key).await.unwrap().unwrap().sequence;
    fleet.service.journal().purge(&key, sequence).await.unwrap();
    fleet.hands.turn(fleet.config.retention);
    fleet.sweep().await;
    assert_eq!(fleet.sweep().await.count(SweepAct::RemoveOrphan), 1);
    assert_eq!(fleet.instances().await.len(), 1);
}

#[tokio::test]
async fn events_of_workers_that_ended_long_ago_go() {
    let fleet = Fleet::new();
    let worker = fleet.provision().await.worker_id;
    fleet.service.terminate_worker(&TerminateWorkerConfig::new(pool(), worker.clone())).await.unwrap();
    assert!(fleet.sweep().await.done.is_empty());
    fleet.hands.turn(Duration::from_secs(8 * 24 * 3600));
    assert_eq!(fleet.sweep().await.count(SweepAct::Purge), 1);
    assert!(fleet.service.journal().entries().is_empty());
}

#[tokio::test]
async fn a_static_pool_has_a_size_too() {
    let hosts = (0..4).map(|n| StaticHost {
        id: WorkerId::new(format!("edge-{n}")).unwrap(),
        endpoint: None,
        capabilities: Capabilities::default(),
    });
    let scheduler = MemoryScheduler::new();
    let service = WorkerManagementService::new_with_registration(
        StaticProvider::new(hosts.collect()),
        scheduler.clone(),
        WorkerManagementConfig::default(),
    )
    .with_journal(MemoryJournal::new());
    let config = DynamicWorkerConfig::new(pool(), WorkerSpec::default());
    assert!(service.create_pool(&config, 5).await.record.is_err(), "there are four");
    let config = DynamicWorkerConfig::new(pool(), WorkerSpec::default());
    assert_eq!(service.create_pool(&config, 3).await.record.unwrap().state, PoolState::Sized);
    let sweep = SweepPoolConfig::new(pool(), WorkerSpec::default());
    let host = WorkerId::new("edge-1").unwrap();
    service.terminate_worker(&TerminateWorkerConfig::new(pool(), host)).await.unwrap();
    assert_eq!(scheduler.registered(), 2);
    for expected in [1, 0, 0] {
        assert_eq!(service.sweep(&sweep).await.unwrap().count(SweepAct::Provision), expected);
        assert_eq!(scheduler.registered(), 3);
    }
}

/// Another fleet's log: what the provider has and what the scheduler knows stay, the records are gone.
fn without_log(fleet: &Fleet) -> Fleet {
    let after = Fleet::on(fleet.service.provider().clone(), fleet.scheduler.clone());
    after.hands.turn(Duration::from_secs(3600));
    after
}

#[tokio::test]
async fn a_terminate_ends_an_instance_whose_record_is_lost() {
    let fleet = Fleet::new();
    let (one, two) = (fleet.provision().await.worker_id, fleet.provision().await.worker_id);
    let after = without_log(&fleet);
    after.service.terminate_worker(&TerminateWorkerConfig::new(pool(), one.clone())).await.unwrap();
    let states: Vec<State> = after.service.journal().entries().iter().map(|entry| entry.worker.state).collect();
    assert_eq!(states, [State::Terminating, State::Terminated]);
    assert_eq!((after.instances().await.len(), after.listed().await), (1, 1));
    assert_eq!(after.instances().await[0].key.worker_id, two);
}

#[tokio::test]
async fn a_pool_whose_log_is_lost_is_not_brought_to_a_size_before_it_is_adopted() {
    let fleet = Fleet::new();
    for _ in 0..3 {
        fleet.provision().await;
    }
    let after = without_log(&fleet);
    let five = DynamicWorkerConfig::new(pool(), WorkerSpec::default());
    assert!(after.service.create_pool(&five, 5).await.record.is_err(), "three are there and have no record");
    assert_eq!(after.instances().await.len(), 3);
    after.service.adopt(&after.config, false).await.unwrap();
    assert_eq!(after.service.create_pool(&five, 5).await.record.unwrap().state, PoolState::Sized);
    assert_eq!(after.instances().await.len(), 5);
}

#[tokio::test]
async fn adoption_raises_a_size_that_an_older_log_tells() {
    let fleet = Fleet::new();
    for _ in 0..6 {
        fleet.provision().await;
    }
    let after = without_log(&fleet);
    // What an older copy has: a size, and two of the workers.
    let old = DynamicWorkerConfig::new(pool(), WorkerSpec::default());
    let _ = after.service.create_pool(&old, 2).await;
    let would = after.service.adopt(&after.config, true).await.unwrap();
    assert_eq!((would.raised, would.workers.len()), (Some((2, 6)), 6));
    assert_eq!(after.service.adopt(&after.config, false).await.unwrap().raised, Some((2, 6)));
    for _ in 0..3 {
        let report = after.sweep().await;
        assert!(report.done.is_empty() && report.frozen.is_none(), "{report:?}");
    }
    assert_eq!(after.instances().await.len(), 6);
    let record = after.service.journal().pool_head(&pool()).await.unwrap().unwrap().record;
    assert_eq!((record.state, record.size, record.actual), (PoolState::Sized, 6, 6));
}

#[tokio::test]
async fn a_copy_of_a_size_that_ends_it_does_not_overtake_the_size_that_was_asked_for_in_between() {
    let fleet = Fleet::new();
    let resize = async |command_id: &str, size, message| {
        let command_id = CommandId::new(command_id).unwrap();
        let order = ResizePoolConfig {
            pool: pool(),
            command_id,
            size,
            correlation_id: None,
            expires_at: None,
            asked_at: None,
            trace: None,
        };
        fleet.service.resize_pool(&order, &fleet.config, Some(message)).await.unwrap()
    };
    assert!(matches!(resize("s-1", 1, 5).await, Resizing::Ordered { .. }));
    fleet.provision().await;
    assert!(matches!(resize("s-1", 1, 9).await, Resizing::Sized(_)), "by its copy");
    assert!(matches!(resize("s-2", 2, 8).await, Resizing::Ordered { .. }), "came after the first and before its copy");
    assert_eq!(resize("s-0", 3, 4).await, Resizing::Overtaken);
}

/// Has no time for anybody.
struct Busy;

impl WorkerRegistrationPort for Busy {
    async fn register_worker(&self, _: &RegisterWorker) -> Result<(), RegistrationError> {
        Err(RegistrationError::Busy { retry_after: Duration::from_secs(1) })
    }

    async fn unregister_worker(&self, _: &UnregisterWorker) -> Result<(), RegistrationError> {
        Ok(())
    }

    async fn list_workers(&self, _: &Pool) -> Result<Option<Vec<ListedWorker>>, RegistrationError> {
        Ok(None)
    }
}

#[tokio::test(start_paused = true)]
async fn a_sweep_does_not_wait_for_a_busy_scheduler_worker_by_worker() {
    let provider = NullProvider::new(&Prefix::new("test").unwrap(), NullConfig::default());
    let hands = Hands(Arc::new(Mutex::new(Timestamp::now())));
    let service = WorkerManagementService::new_with_registration(provider, Busy, WorkerManagementConfig::default())
        .with_clock(hands.clock());
    let orders: Vec<DynamicWorkerConfig> =
        (0..100).map(|_| DynamicWorkerConfig::new(pool(), WorkerSpec::default())).collect();
    futures_util::future::join_all(orders.iter().map(|order| service.provision_worker(order))).await;
    let config = SweepPoolConfig::new(pool(), WorkerSpec::default());
    hands.turn(config.interval);
    let report = service.sweep(&config).await.unwrap();
    assert_eq!(report.undone.len(), 100);
    // The time-out of one registration, which is 30 s, and that of those that had begun by its end.
    assert!(report.took < Duration::from_secs(61), "{:?}", report.took);
}
