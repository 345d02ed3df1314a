//! The story's acceptance criteria, held by the library without a broker.
#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use enlist::config::NullConfig;
use enlist::config::StaticHost;
use enlist::domain::{
    Capabilities, EndedBy, ErrorClass, Pool, PoolRecord, PoolState, Prefix, Reason, RegistrationStatus, State, Worker,
    WorkerId, WorkerKey, WorkerSpec,
};
use enlist::journal::{
    AppendError, Entry, EventOf, Journal, MemoryJournal, PoolEntry, PurgeError, ReadError, Scan, Scanned, Writer,
};
use enlist::provider::null::NullProvider;
use enlist::provider::static_hosts::StaticProvider;
use enlist::provider::{Instance, LaunchRequest, ProviderError, WorkerProvider};
use enlist::registration::memory::{Asked, MemoryScheduler};
use enlist::registration::{
    ListedWorker, RegisterWorker, RegistrationConfig, RegistrationError, UnregisterWorker, WorkerRegistrationPort,
};
use enlist::service::Ending;
use enlist::{
    DynamicWorkerConfig, TerminateWorkerConfig, WorkerManagementConfig, WorkerManagementError, WorkerManagementService,
    WorkerStatus,
};
use futures_util::FutureExt;

fn null() -> NullProvider {
    NullProvider::new(&Prefix::new("test").unwrap(), NullConfig::default())
}

/// A scheduler that answers as it is told, then accepts.
#[derive(Clone, Default)]
struct Scripted {
    answers: Arc<Mutex<VecDeque<RegistrationError>>>,
    registered: Arc<Mutex<Vec<RegisterWorker>>>,
}

impl Scripted {
    fn answering(answers: impl IntoIterator<Item = RegistrationError>) -> Self {
        Self { answers: Arc::new(Mutex::new(answers.into_iter().collect())), registered: Arc::default() }
    }
}

impl WorkerRegistrationPort for Scripted {
    async fn register_worker(&self, request: &RegisterWorker) -> Result<(), RegistrationError> {
        self.registered.lock().unwrap().push(request.clone());
        match self.answers.lock().unwrap().pop_front() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    async fn unregister_worker(&self, _: &UnregisterWorker) -> Result<(), RegistrationError> {
        Ok(())
    }

    async fn list_workers(&self, _: &Pool) -> Result<Option<Vec<ListedWorker>>, RegistrationError> {
        Ok(None)
    }
}

fn away() -> RegistrationError {
    RegistrationError::Unavailable { code: "no_responders", message: "nobody listens".into() }
}

fn rejected() -> RegistrationError {
    RegistrationError::Rejected { code: "banned".into(), message: "not this one".into() }
}

#[test]
fn ac_1_the_defaults_are_those_of_the_story() {
    let config = WorkerManagementConfig::default();
    assert!(config.registration_enabled);
    assert_eq!((config.registration_max_retries, config.registration_timeout), (3, Duration::from_secs(30)));
}

#[tokio::test]
async fn ac_1_a_service_without_registration_makes_workers_that_are_ready() {
    let service = WorkerManagementService::new(null(), WorkerManagementConfig::default());
    let worker = service.provision_worker(&DynamicWorkerConfig::default()).await.unwrap();
    assert_eq!(worker.status, WorkerStatus::Ready);
    assert_eq!(worker.registration.status, RegistrationStatus::Disabled);
}

#[tokio::test]
async fn ac_1_registration_can_be_turned_off_by_configuration() {
    let scheduler = Scripted::default();
    let config = WorkerManagementConfig { registration_enabled: false, ..WorkerManagementConfig::default() };
    let service = WorkerManagementService::new_with_registration(null(), scheduler.clone(), config);
    let worker = service.provision_worker(&DynamicWorkerConfig::default()).await.unwrap();
    assert_eq!(worker.status, WorkerStatus::Ready);
    assert!(scheduler.registered.lock().unwrap().is_empty());
}

#[tokio::test]
async fn ac_2_a_provisioned_worker_is_registered_before_the_call_returns() {
    let scheduler = Scripted::default();
    let service =
        WorkerManagementService::new_with_registration(null(), scheduler.clone(), WorkerManagementConfig::default());
    let worker = service.provision_worker(&DynamicWorkerConfig::default()).await.unwrap();
    assert_eq!(worker.status, WorkerStatus::Registered);
    let told = scheduler.registered.lock().unwrap();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].worker_id, worker.worker_id);
    assert!(told[0].instance_id.is_some(), "the scheduler is told of a worker that is there");
    let states: Vec<State> = service.journal().entries().iter().map(|entry| entry.worker.state).collect();
    assert_eq!(states, [State::Provisioning, State::Provisioned, State::Registered]);
}

#[tokio::test(start_paused = true)]
async fn ac_2_ac_3_a_registration_that_fails_leaves_the_worker_and_the_call_succeeds() {
    let scheduler = Scripted::answering((0..4).map(|_| away()));
    let service =
        WorkerManagementService::new_with_registration(null(), scheduler.clone(), WorkerManagementConfig::default());
    let config = DynamicWorkerConfig::default();
    let worker = service.provision_worker(&config).await.unwrap();
    assert_eq!(worker.status, WorkerStatus::Ready, "a worker that the scheduler does not know is not `Registered`");
    assert_eq!(worker.registration.status, RegistrationStatus::Failed);
    assert_eq!(worker.registration.attempts, 4, "the first try and three more");
    let fault = worker.registration.error.unwrap();
    assert_eq!((fault.code.as_str(), fault.critical), ("no_responders", false));
    assert_eq!(service.provider().list_workers(&config.pool).await.unwrap().len(), 1);
}

#[tokio::test]
async fn ac_2_static_workers_are_registered_too() {
    let hosts = ["edge-1", "edge-2"].map(|id| StaticHost {
        id: WorkerId::new(id).unwrap(),
        endpoint: Some(format!("{id}:22")),
        capabilities: Capabilities { cpus: Some(8.0), ..Capabilities::default() },
    });
    let scheduler = Scripted::default();
    let provider = StaticProvider::new(hosts.to_vec());
    let service =
        WorkerManagementService::new_with_registration(provider, scheduler.clone(), WorkerManagementConfig::default());
    let config = DynamicWorkerConfig::default();
    let worker = service.provision_worker(&config).await.unwrap();
    assert_eq!((worker.worker_id.as_str(), worker.status), ("edge-1", WorkerStatus::Registered));
    assert_eq!(worker.metadata["endpoint"], "edge-1:22");
    assert_eq!(worker.capabilities.cpus, Some(8.0));
    assert_eq!(
        service.provision_worker(&config).await.unwrap().worker_id,
        worker.worker_id,
        "the same command, the same host"
    );
    let second = service.provision_worker(&DynamicWorkerConfig::default()).await.unwrap();
    assert_eq!(second.worker_id.as_str(), "edge-2");
    let full = service.provision_worker(&DynamicWorkerConfig::default()).await.unwrap_err();
    assert!(full.to_string().starts_with("quota"), "{full}");
    service.terminate_worker(&TerminateWorkerConfig::new(config.pool.clone(), worker.worker_id.clone())).await.unwrap();
    let again = service.provision_worker(&DynamicWorkerConfig::default()).await.unwrap();
    assert_eq!(again.worker_id, worker.worker_id, "terminate frees the host");
    let history =
        service.journal().history(&enlist::domain::WorkerKey::new(config.pool, again.worker_id)).await.unwrap();
    let revs: Vec<u64> = history.iter().map(|entry| entry.worker.rev).collect();
    assert_eq!(revs, (1..=history.len() as u64).collect::<Vec<_>>(), "rev goes on over allocations, without a gap");
}

#[tokio::test]
async fn ac_3_a_critical_refusal_reaches_the_caller_and_the_worker_stays() {
    let scheduler = Scripted::answering([rejected()]);
    let service =
        WorkerManagementService::new_with_registration(null(), scheduler.clone(), WorkerManagementConfig::default());
    let config = DynamicWorkerConfig::default();
    let error = service.provision_worker(&config).await.unwrap_err();
    let WorkerManagementError::RegistrationRejected { worker, fault } = error else { panic!("{error}") };
    assert_eq!((fault.code.as_str(), fault.critical), ("banned", true));
    assert_eq!(scheduler.registered.lock().unwrap().len(), 1, "a refusal is not tried again");
    let instances = service.provider().list_workers(&config.pool).await.unwrap();
    assert_eq!(instances[0].key.worker_id, worker.worker_id);
}

#[tokio::test(start_paused = true)]
async fn ac_4_the_call_with_its_own_configuration_overrides_retries() {
    let scheduler = Scripted::answering((0..9).map(|_| away()));
    let service =
        WorkerManagementService::new_with_registration(null(), scheduler.clone(), WorkerManagementConfig::default());
    let registration = RegistrationConfig { max_retries: 1, ..RegistrationConfig::default() };
    let worker = service.provision_worker_with_config(&DynamicWorkerConfig::default(), &registration).await.unwrap();
    assert_eq!(worker.registration.attempts, 2);
}

#[tokio::test]
async fn ac_4_every_worker_of_a_new_pool_is_registered() {
    let scheduler = MemoryScheduler::new().with_journal();
    let service =
        WorkerManagementService::new_with_registration(null(), scheduler.clone(), WorkerManagementConfig::default());
    let config = DynamicWorkerConfig::new(Pool::new("warm").unwrap(), WorkerSpec::default());
    let pool = service.create_pool(&config, 20).await;
    assert!(pool.workers.iter().all(|worker| worker.as_ref().unwrap().status == WorkerStatus::Registered));
    assert_eq!(scheduler.registered(), 20);
    assert_eq!(pool.record.unwrap().state, PoolState::Sized);
    let again = service.create_pool(&config, 20).await;
    assert!(again.record.is_ok() && again.workers.iter().all(Result::is_ok));
    assert_eq!(service.provider().list_workers(&config.pool).await.unwrap().len(), 20, "no second of any");
    let other = service.create_pool(&config, 22).await;
    assert!(matches!(other.record, Err(WorkerManagementError::Refused(refusal)) if refusal.reason == Reason::Conflict));
    assert!(other.workers.is_empty(), "the same command id with another size makes nothing");
}

#[tokio::test]
async fn ac_5_a_terminate_unregisters_first_and_then_removes() {
    let scheduler = MemoryScheduler::new().with_journal();
    let service =
        WorkerManagementService::new_with_registration(null(), scheduler.clone(), WorkerManagementConfig::default());
    let config = DynamicWorkerConfig::default();
    let worker = service.provision_worker(&config).await.unwrap();
    let terminate = TerminateWorkerConfig::new(config.pool.clone(), worker.worker_id.clone());
    service.terminate_worker(&terminate).await.unwrap();
    assert_eq!(scheduler.registered(), 0);
    assert!(service.provider().list_workers(&config.pool).await.unwrap().is_empty());
    let states: Vec<State> = service.journal().entries().iter().map(|entry| entry.worker.state).collect();
    assert_eq!(states[3..], [State::Terminating, State::Terminated]);
    assert!(matches!(scheduler.journal().last(), Some(Asked::Unregister(request)) if request.epoch == 2));
    service.terminate_worker(&terminate).await.unwrap();
    assert_eq!(service.journal().entries().len(), 5, "a terminate of what is gone writes nothing");
}

#[tokio::test]
async fn the_same_command_again_makes_no_second_worker() {
    let service = WorkerManagementService::new(null(), WorkerManagementConfig::default());
    let config = DynamicWorkerConfig::default();
    let first = service.provision_worker(&config).await.unwrap();
    assert_eq!(service.provision_worker(&config).await.unwrap(), first);
    assert_eq!(service.journal().entries().len(), 2);
    let other = DynamicWorkerConfig { spec_hash: enlist::domain::SpecHash::of(b"another content"), ..config.clone() };
    let error = service.provision_worker(&other).await.unwrap_err();
    assert!(error.to_string().starts_with("conflict"), "{error}");
}

#[tokio::test]
async fn a_terminate_before_its_provision_stands_in_its_way() {
    let service = WorkerManagementService::new(null(), WorkerManagementConfig::default());
    let id = WorkerId::new("late").unwrap();
    let config = DynamicWorkerConfig { worker_id: Some(id.clone()), ..DynamicWorkerConfig::default() };
    service.terminate_worker(&TerminateWorkerConfig::new(config.pool.clone(), id)).await.unwrap();
    let error = service.provision_worker(&config).await.unwrap_err();
    assert!(error.to_string().starts_with("conflict"), "{error}");
    assert!(service.provider().list_workers(&config.pool).await.unwrap().is_empty());
}

#[tokio::test]
async fn fifty_slots_are_given_to_fifty_of_two_hundred() {
    let config = WorkerManagementConfig { max_workers: Some(50), ..WorkerManagementConfig::default() };
    let provider = null();
    let journal = MemoryJournal::new();
    let replicas: Vec<_> = (0..3)
        .map(|_| Arc::new(WorkerManagementService::new(provider.clone(), config.clone()).with_journal(journal.clone())))
        .collect();
    let tasks: Vec<_> = (0..200)
        .map(|n| {
            let service = Arc::clone(&replicas[n % 3]);
            tokio::spawn(async move { service.provision_worker(&DynamicWorkerConfig::default()).await })
        })
        .collect();
    let mut made = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(_) => made += 1,
            Err(error) => assert!(error.to_string().starts_with("quota"), "{error}"),
        }
    }
    assert_eq!(made, 50);
    assert_eq!(provider.list_workers(&Pool::new("default").unwrap()).await.unwrap().len(), 50);
}

fn edge() -> StaticProvider {
    let id = WorkerId::new("edge-1").unwrap();
    StaticProvider::new(vec![StaticHost { id, endpoint: None, capabilities: Capabilities::default() }])
}

#[tokio::test]
async fn a_command_that_comes_again_after_its_host_went_to_another_has_had_its_outcome() {
    let service = WorkerManagementService::new(edge(), WorkerManagementConfig::default());
    let named = |id: Option<WorkerId>| DynamicWorkerConfig { worker_id: id, ..DynamicWorkerConfig::default() };
    for first in [named(None), named(WorkerId::new("edge-1").ok())] {
        let worker = service.provision_worker(&first).await.unwrap();
        let terminate = TerminateWorkerConfig::new(first.pool.clone(), worker.worker_id);
        service.terminate_worker(&terminate).await.unwrap();
        let second = named(None);
        let worker = service.provision_worker(&second).await.unwrap();
        let before = service.journal().entries();

        let again = service.provision_worker(&first).await.unwrap_err();
        assert!(matches!(again, WorkerManagementError::Ended { state: State::Terminated, .. }), "{again}");
        service.terminate_worker(&terminate).await.unwrap();
        assert_eq!(service.journal().entries(), before, "the second command's worker stays as it is");
        service.terminate_worker(&TerminateWorkerConfig::new(second.pool, worker.worker_id)).await.unwrap();
    }
}

#[tokio::test]
async fn a_command_that_enlist_has_ended_is_refused_again_whoever_has_its_host_now() {
    let service = WorkerManagementService::new(edge(), WorkerManagementConfig::default());
    let (first, second) = (DynamicWorkerConfig::default(), DynamicWorkerConfig::default());
    let worker = service.provision_worker(&first).await.unwrap();
    service.terminate_worker(&TerminateWorkerConfig::new(first.pool.clone(), worker.worker_id.clone())).await.unwrap();
    let key = WorkerKey::new(first.pool.clone(), worker.worker_id);
    let mut head = service.journal().head(&key).await.unwrap().unwrap();
    // As it stands where two commands have claimed hosts and there was room for one.
    let by_enlist = EndedBy { command_id: Some(first.command_id.clone()), reason: Some("quota".into()) };
    head.worker.ended_by = Some(by_enlist);
    service.journal().append(&head.worker, head.sequence, &head.writer).await.unwrap();
    service.provision_worker(&second).await.unwrap();
    let again = service.provision_worker(&first).await.unwrap_err();
    assert!(again.to_string().starts_with("quota"), "{again}");
}

/// Makes instances and then, as it is told, never answers, or does not remove them.
#[derive(Clone)]
struct Wayward {
    null: NullProvider,
    silent: Arc<AtomicBool>,
    stuck: Arc<AtomicBool>,
}

impl Wayward {
    fn new() -> Self {
        Self { null: null(), silent: Arc::default(), stuck: Arc::default() }
    }
}

impl WorkerProvider for Wayward {
    fn name(&self) -> &'static str {
        "wayward"
    }

    async fn create_worker(&self, request: &LaunchRequest) -> Result<Instance, ProviderError> {
        let made = self.null.create_worker(request).await;
        if self.silent.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        made
    }

    async fn terminate_worker(&self, key: &WorkerKey, id: Option<&str>, grace: Duration) -> Result<(), ProviderError> {
        if self.stuck.load(Ordering::Relaxed) {
            return Err(ProviderError::new(ErrorClass::Internal, "device or resource busy"));
        }
        self.null.terminate_worker(key, id, grace).await
    }

    async fn find_worker(&self, key: &WorkerKey) -> Result<Option<Instance>, ProviderError> {
        self.null.find_worker(key).await
    }

    async fn list_workers(&self, pool: &Pool) -> Result<Vec<Instance>, ProviderError> {
        self.null.list_workers(pool).await
    }
}

#[tokio::test]
async fn a_limit_that_was_lowered_while_a_replica_died_leaves_no_instance_behind() {
    let (provider, journal) = (Wayward::new(), MemoryJournal::new());
    let service = |max_workers| {
        let config = WorkerManagementConfig { max_workers, ..WorkerManagementConfig::default() };
        WorkerManagementService::new(provider.clone(), config).with_journal(journal.clone())
    };
    let (first, second) = (DynamicWorkerConfig::default(), DynamicWorkerConfig::default());
    let high = service(Some(2));
    high.provision_worker(&first).await.unwrap();
    provider.silent.store(true, Ordering::Relaxed);
    assert!(high.provision_worker(&second).now_or_never().is_none(), "it dies between the instance and its event");
    provider.silent.store(false, Ordering::Relaxed);
    assert_eq!(provider.list_workers(&first.pool).await.unwrap().len(), 2);

    let refused = service(Some(1)).provision_worker(&second).await.unwrap_err();
    assert!(refused.to_string().starts_with("quota"), "{refused}");
    assert_eq!(provider.list_workers(&first.pool).await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_terminate_that_was_exhausted_stands_in_no_later_one_s_way() {
    let provider = Wayward::new();
    let service = WorkerManagementService::new(provider.clone(), WorkerManagementConfig::default());
    let config = DynamicWorkerConfig::default();
    let worker = service.provision_worker(&config).await.unwrap();
    let terminate = |force| TerminateWorkerConfig {
        force,
        ..TerminateWorkerConfig::new(config.pool.clone(), worker.worker_id.clone())
    };
    provider.stuck.store(true, Ordering::Relaxed);
    let first = terminate(false);
    let mut endings = Vec::new();
    while !matches!(endings.last(), Some(Ending::Refused(_))) {
        assert!(endings.len() < 9, "{endings:?}");
        endings.push(service.terminate(&first, Some(1)).await);
    }
    assert_eq!(endings.len(), 5);
    assert!(matches!(service.terminate(&first, Some(1)).await, Ending::Refused(_)), "its own tries are used up");
    let still_stuck = service.terminate(&terminate(true), Some(2)).await;
    assert!(matches!(still_stuck, Ending::Refused(_)), "{still_stuck:?}");
    provider.stuck.store(false, Ordering::Relaxed);
    let mended = service.terminate(&terminate(true), Some(3)).await;
    assert!(matches!(&mended, Ending::Done(worker) if worker.state == State::Terminated), "{mended:?}");
    assert!(provider.list_workers(&config.pool).await.unwrap().is_empty());
}

/// A log whose pools cannot be judged, as when their feed trails.
struct Blind(MemoryJournal, Arc<AtomicBool>);

impl Journal for Blind {
    async fn append(&self, worker: &Worker, after: u64, writer: &Writer) -> Result<u64, AppendError> {
        self.0.append(worker, after, writer).await
    }

    async fn head(&self, key: &WorkerKey) -> Result<Option<Entry>, ReadError> {
        self.0.head(key).await
    }

    async fn history(&self, key: &WorkerKey) -> Result<Vec<Entry>, ReadError> {
        self.0.history(key).await
    }

    async fn is_full(&self, pool: &Pool, max: usize) -> Result<bool, ReadError> {
        self.0.is_full(pool, max).await
    }

    async fn admits(&self, key: &WorkerKey, sequence: u64, max: usize) -> Result<bool, ReadError> {
        if self.1.load(Ordering::Relaxed) {
            return Err(ReadError("the pool's feed trails".into()));
        }
        self.0.admits(key, sequence, max).await
    }

    async fn scan<F: FnMut(Scanned) + Send>(&self, pool: &Pool, take: F) -> Result<Scan, ReadError> {
        self.0.scan(pool, take).await
    }

    async fn event_at(&self, sequence: u64) -> Result<Option<EventOf>, ReadError> {
        self.0.event_at(sequence).await
    }

    async fn purge(&self, key: &WorkerKey, upto: u64) -> Result<(), PurgeError> {
        self.0.purge(key, upto).await
    }

    async fn pool_head(&self, pool: &Pool) -> Result<Option<PoolEntry>, ReadError> {
        self.0.pool_head(pool).await
    }

    async fn pool_history(&self, pool: &Pool) -> Result<Vec<PoolEntry>, ReadError> {
        self.0.pool_history(pool).await
    }

    async fn append_pool(&self, record: &PoolRecord, after: u64, writer: &Writer) -> Result<u64, AppendError> {
        self.0.append_pool(record, after, writer).await
    }
}

#[tokio::test]
async fn a_feed_that_trails_exhausts_no_command() {
    let blind = Arc::new(AtomicBool::new(true));
    let config = WorkerManagementConfig { max_workers: Some(5), ..WorkerManagementConfig::default() };
    let service =
        WorkerManagementService::new(null(), config).with_journal(Blind(MemoryJournal::new(), Arc::clone(&blind)));
    let config = DynamicWorkerConfig::default();
    for _ in 0..9 {
        let error = service.provision_worker(&config).await.unwrap_err();
        assert!(matches!(error, WorkerManagementError::Unfinished(_)), "{error}");
    }
    blind.store(false, Ordering::Relaxed);
    assert_eq!(service.provision_worker(&config).await.unwrap().status, WorkerStatus::Ready);
}
