//! A provider that makes nothing: for load tests and for trying out everything around a provider.

mod book;
mod ledger;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use super::off_thread::off_thread;
use super::{Instance, LaunchRequest, ProviderError, WorkerProvider};
use crate::config::NullConfig;
use crate::domain::{ErrorClass, Pool, Prefix, WorkerKey};
use book::{Book, Planned};
use ledger::Ledger;

/// Keeps instances by name only. Clones share one home, as replicas of a fleet do.
#[derive(Debug, Clone)]
pub struct NullProvider {
    prefix: Prefix,
    delay: Duration,
    failure_rate: f64,
    home: Arc<Home>,
}

/// Where instances are kept.
#[derive(Debug)]
enum Home {
    /// Gone with this replica.
    Memory(Mutex<Book>),
    /// Shared by replicas, and still there after a kill.
    File(Mutex<Ledger>),
}

impl NullProvider {
    /// The provider of a fleet. A state file is opened, and made where it is missing, by the first call.
    #[must_use]
    pub fn new(prefix: &Prefix, config: NullConfig) -> Self {
        let NullConfig { delay, failure_rate, state_file } = config;
        let home = match state_file {
            None => Home::Memory(Mutex::default()),
            Some(path) => Home::File(Mutex::new(Ledger::new(path))),
        };
        Self { prefix: prefix.clone(), delay, failure_rate, home: Arc::new(home) }
    }

    /// Another fleet's provider over the same home.
    #[must_use]
    pub fn of_fleet(&self, prefix: &Prefix) -> Self {
        Self { prefix: prefix.clone(), ..self.clone() }
    }

    /// Looks at the book and changes it in one step that no other call and no other replica comes into.
    async fn change<T: Send + 'static>(
        &self,
        plan: impl FnOnce(&Prefix, &Book) -> Planned<T> + Send + 'static,
    ) -> Result<T, ProviderError> {
        match &*self.home {
            Home::Memory(book) => {
                let mut book = book.lock().unwrap_or_else(PoisonError::into_inner);
                let (answer, entry) = plan(&self.prefix, &book)?;
                if let Some(entry) = entry {
                    book.apply(self.prefix.clone(), entry);
                }
                Ok(answer)
            }
            Home::File(_) => {
                let this = self.clone();
                off_thread(move || match &*this.home {
                    Home::File(ledger) => {
                        let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
                        ledger.change(&this.prefix, plan)
                    }
                    Home::Memory(_) => unreachable!("a home does not change its kind"),
                })
                .await
            }
        }
    }
}

impl WorkerProvider for NullProvider {
    fn name(&self) -> &'static str {
        "null"
    }

    async fn create_worker(&self, request: &LaunchRequest) -> Result<Instance, ProviderError> {
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
        // Drawn before anything is written, so that a failed create has made nothing.
        if self.failure_rate > 0.0 && rand::random::<f64>() < self.failure_rate {
            return Err(ProviderError::new(
                ErrorClass::Internal,
                "one of the failures that the pool's settings ask for",
            ));
        }
        let (request, id, now) = (request.clone(), format!("n-{:016x}", rand::random::<u64>()), Timestamp::now());
        self.change(move |fleet, book| book.create(fleet, &request, id, now)).await
    }

    async fn terminate_worker(
        &self,
        key: &WorkerKey,
        instance_id: Option<&str>,
        _grace: Duration,
    ) -> Result<(), ProviderError> {
        let (key, instance_id) = (key.clone(), instance_id.map(str::to_owned));
        self.change(move |fleet, book| book.terminate(fleet, key, instance_id.as_deref())).await
    }

    async fn find_worker(&self, key: &WorkerKey) -> Result<Option<Instance>, ProviderError> {
        let key = key.clone();
        self.change(move |fleet, book| Ok((book.find(fleet, &key), None))).await
    }

    async fn list_workers(&self, pool: &Pool) -> Result<Vec<Instance>, ProviderError> {
        let pool = pool.clone();
        self.change(move |fleet, book| Ok((book.list(fleet, &pool), None))).await
    }
}
