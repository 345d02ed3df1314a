//! A provider that fails every create is left alone for a while, and nobody else is.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use enlist::config::NullConfig;
use enlist::domain::{CommandId, ErrorClass, Pool, Prefix, State, WorkerFault, WorkerKey, WorkerSpec};
use enlist::journal::MemoryJournal;
use enlist::provider::null::NullProvider;
use enlist::provider::{Instance, LaunchRequest, ProviderError, WorkerProvider};
use enlist::registration::memory::MemoryScheduler;
use enlist::service::Passage;
use enlist::{
    DynamicWorkerConfig, TerminateWorkerConfig, WorkerManagementConfig, WorkerManagementError, WorkerManagementService,
};
use futures_util::FutureExt as _;
use tokio::time::{Instant, advance};

/// Fails creates as it is told, and counts them.
#[derive(Clone)]
struct Failing {
    null: NullProvider,
    class: Arc<Mutex<Option<ErrorClass>>>,
    creates: Arc<AtomicUsize>,
}

impl Failing {
    fn with(class: ErrorClass) -> Self {
        let null = NullProvider::new(&Prefix::new("test").unwrap(), NullConfig::default());
        Self { null, class: Arc::new(Mutex::new(Some(class))), creates: Arc::default() }
    }

    fn mend(&self) {
        *self.class.lock().unwrap() = None;
    }

    fn creates(&self) -> usize {
        self.creates.load(Ordering::Relaxed)
    }
}

impl WorkerProvider for Failing {
    fn name(&self) -> &'static str {
        "failing"
    }

    async fn create_worker(&self, request: &LaunchRequest) -> Result<Instance, ProviderError> {
        self.creates.fetch_add(1, Ordering::Relaxed);
        // Long enough for another call to come in between.
        tokio::task::yield_now().await;
        let class = *self.class.lock().unwrap();
        match class {
            Some(class) => Err(ProviderError::new(class, "the data centre is on fire")),
            None => self.null.create_worker(request).await,
        }
    }

    async fn terminate_worker(&self, key: &WorkerKey, id: Option<&str>, grace: Duration) -> Result<(), ProviderError> {
        self.null.terminate_worker(key, id, grace).await
    }

    async fn find_worker(&self, key: &WorkerKey) -> Result<Option<Instance>, ProviderError> {
        self.null.find_worker(key).await
    }

    async fn list_workers(&self, pool: &Pool) -> Result<Vec<Instance>, ProviderError> {
        self.null.list_workers(pool).await
    }
}

type Service = WorkerManagementService<Failing, MemoryScheduler, MemoryJournal>;

fn service(provider: &Failing) -> Service {
    WorkerManagementService::new(provider.clone(), WorkerManagementConfig::default())
}

fn order(pool: &str, command: &str) -> DynamicWorkerConfig {
    let id = CommandId::new(command).unwrap();
    DynamicWorkerConfig::for_command(Pool::new(pool).unwrap(), id, WorkerSpec::default())
}

async fn unfinished(service: &Service, command: &str) {
    let error = service.provision_worker(&order("web", command)).await.unwrap_err();
    assert!(matches!(error, WorkerManagementError::Unfinished(_)), "{error}");
}

/// What the newest event says went wrong.
fn told(service: &Service) -> WorkerFault {
    service.journal().entries().last().unwrap().worker.error.clone().unwrap()
}

#[tokio::test(start_paused = true)]
async fn while_a_pool_holds_off_its_provider_is_not_called_and_the_event_says_why() {
    for class in [ErrorClass::Unavailable, ErrorClass::InsufficientCapacity, ErrorClass::Throttled] {
        let provider = Failing::with(class);
        let service = service(&provider);
        unfinished(&service, "c-1").await;
        let first = told(&service);
        assert_eq!(first.class, class);
        assert!(
            first.message.starts_with("the data centre is on fire; pool web holds off for ")
                && (first.message.ends_with(" 5 s") || first.message.ends_with(" 6 s")),
            "{first:?}"
        );
        unfinished(&service, "c-2").await;
        let second = told(&service);
        assert_eq!((second.class, second.retryable), (ErrorClass::Unavailable, true));
        assert!(
            second.message.starts_with("pool web holds off for another ")
                && second.message.ends_with(" s: the data centre is on fire"),
            "{second:?}"
        );
        assert_eq!(service.journal().entries().last().unwrap().worker.attempts, 0, "no fault of the command's");
        assert_eq!(provider.creates(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_used_up_quota_fails_its_command_and_holds_off_the_next() {
    let provider = Failing::with(ErrorClass::QuotaExceeded);
    let service = service(&provider);
    let error = service.provision_worker(&order("web", "c-1")).await.unwrap_err();
    assert!(matches!(error, WorkerManagementError::Failed { .. }), "{error}");
    unfinished(&service, "c-2").await;
    assert_eq!(provider.creates(), 1);
}

#[tokio::test(start_paused = true)]
async fn after_it_one_create_is_tried_and_its_success_lets_all_through() {
    let provider = Failing::with(ErrorClass::Unavailable);
    let service = service(&provider);
    unfinished(&service, "c-1").await;
    advance(Duration::from_secs(6)).await;
    let orders = ["c-2", "c-3", "c-4"].map(|command| order("web", command));
    provider.mend();
    let all = futures_util::future::join_all(orders.iter().map(|order| service.provision_worker(order))).await;
    assert_eq!((all.iter().filter(|made| made.is_ok()).count(), provider.creates()), (1, 2), "{all:?}");
    for order in &orders {
        service.provision_worker(order).await.unwrap();
    }
    assert_eq!(provider.creates(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_trial_that_its_caller_gives_up_makes_room_for_the_next() {
    let provider = Failing::with(ErrorClass::Unavailable);
    let service = service(&provider);
    unfinished(&service, "c-1").await;
    advance(Duration::from_secs(6)).await;
    provider.mend();
    assert!(service.provision_worker(&order("web", "c-2")).now_or_never().is_none(), "in the provider's hands");
    service.provision_worker(&order("web", "c-3")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn terminates_and_other_pools_are_never_held_off() {
    let provider = Failing::with(ErrorClass::Unavailable);
    let service = service(&provider);
    provider.mend();
    let worker = service.provision_worker(&order("web", "c-1")).await.unwrap();
    *provider.class.lock().unwrap() = Some(ErrorClass::Unavailable);
    unfinished(&service, "c-2").await;
    provider.mend();
    service.terminate_worker(&TerminateWorkerConfig::new(Pool::new("web").unwrap(), worker.worker_id)).await.unwrap();
    assert_eq!(service.journal().entries().last().unwrap().worker.state, State::Terminated);
    service.provision_worker(&order("other", "c-3")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_gate_of_a_queue_shuts_lets_one_through_and_opens() {
    let provider = Failing::with(ErrorClass::Unavailable);
    let service = service(&provider);
    let mut gate = service.gate(&Pool::new("web").unwrap());
    assert_eq!(gate.passes().now_or_never(), Some(Passage::All));
    unfinished(&service, "c-1").await;
    gate.turned().now_or_never().unwrap();
    let begun = Instant::now();
    assert_eq!(gate.passes().await, Passage::One);
    let waited = begun.elapsed();
    assert!(waited >= Duration::from_secs(5) && waited < Duration::from_secs(7), "{waited:?}");
    provider.mend();
    service.provision_worker(&order("web", "c-2")).await.unwrap();
    gate.turned().now_or_never().unwrap();
    assert_eq!(gate.passes().now_or_never(), Some(Passage::All));
}
