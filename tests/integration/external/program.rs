//! An external provider in a task of the test, which can be told to do one thing wrong.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::{Client, Message, Subscriber};
use enlist::config::ExternalConfig;
use enlist::domain::{ErrorClass, WorkerKey};
use enlist::provider::null::NullProvider;
use enlist::provider::{Instance, LaunchRequest, ProviderError, WorkerProvider as _};
use enlist::wire::provider::{
    CreateRequest, Created, DeleteRequest, Deleted, Failure, InstanceRecord, InstancesPage, InstancesRequest,
    ProviderReply,
};
use futures_util::StreamExt as _;
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// What a program does that it should not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    None,
    /// None either: the first create takes longer than silence is borne, and there are heartbeats.
    Slow,
    /// The first create is done and not answered.
    FirstAnswerLost,
    /// A create hands out another command's instance.
    TakesOthers,
    /// Refuses what it does not know.
    Strict,
    SilentOnNonsense,
    BeginsLate,
    NoFilter,
    NoLimit,
    FirstPageOnly,
    DeletesAny,
    /// What the request said of its epoch.
    Forgets,
}

/// See the module. Its instances live as long as it does.
pub(crate) struct Program {
    state: Arc<State>,
    task: JoinHandle<()>,
}

struct State {
    config: ExternalConfig,
    flaw: Flaw,
    home: NullProvider,
    asked: Mutex<BTreeMap<String, usize>>,
}

impl Program {
    /// Listens, and returns once the server knows it.
    pub(crate) async fn start(client: &Client, config: &ExternalConfig, flaw: Flaw) -> Self {
        let (config, asked) = (config.clone(), Mutex::default());
        Self::over(client, Arc::new(State { config, flaw, home: super::home(), asked })).await
    }

    async fn over(client: &Client, state: Arc<State>) -> Self {
        let requests = client.queue_subscribe(state.config.subject("*"), "programs".into()).await.unwrap();
        client.flush().await.unwrap();
        let task = tokio::spawn(serve(client.clone(), requests, Arc::clone(&state)));
        Self { state, task }
    }

    /// From here on nobody answers.
    pub(crate) async fn stop(&self) {
        self.task.abort();
        while !self.task.is_finished() {
            tokio::task::yield_now().await;
        }
    }

    /// The same program started again: it has its instances still.
    pub(crate) async fn again(self, client: &Client) -> Self {
        Self::over(client, Arc::clone(&self.state)).await
    }

    /// How often something was asked of it.
    pub(crate) fn asked(&self, request: &str) -> usize {
        self.state.asked.lock().unwrap().get(request).copied().unwrap_or_default()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(client: Client, mut requests: Subscriber, state: Arc<State>) {
    while let Some(message) = requests.next().await {
        tokio::spawn(answer(client.clone(), message, Arc::clone(&state)));
    }
}

async fn answer(client: Client, message: Message, state: Arc<State>) {
    let request = message.subject.rsplit('.').next().unwrap().to_owned();
    let number = {
        let mut asked = state.asked.lock().unwrap();
        let number = asked.entry(request.clone()).or_default();
        *number += 1;
        *number
    };
    if state.flaw == Flaw::Slow && request == "create" && number == 1 {
        for _ in 0..6 {
            sleep(state.config.answer_timeout / 4).await;
            reply(&client, &message, ProviderReply::<Deleted>::Working.encode()).await;
        }
    }
    let body = &message.payload;
    let answered = match request.as_str() {
        "create" => state.told(body, |request| state.create(request)).await,
        "delete" => state.told(body, |request| state.delete(request)).await,
        _ => state.told(body, |request| state.list(request)).await,
    };
    let lost = state.flaw == Flaw::FirstAnswerLost && request == "create" && number == 1;
    if let Some(answered) = answered.filter(|_| !lost) {
        reply(&client, &message, answered).await;
    }
}

async fn reply(client: &Client, message: &Message, body: Vec<u8>) {
    client.publish(message.reply.clone().unwrap(), body.into()).await.unwrap();
}

impl State {
    /// The answer's bytes; `None` for silence.
    async fn told<Q, T, F>(&self, body: &[u8], act: impl FnOnce(Q) -> F) -> Option<Vec<u8>>
    where
        Q: DeserializeOwned + Serialize,
        T: Serialize + DeserializeOwned,
        F: Future<Output = Result<T, ProviderError>>,
    {
        let invalid = || ProviderError::new(ErrorClass::InvalidSpec, "cannot be read");
        let read = serde_json::from_slice::<Q>(body).map_err(|_| invalid());
        let answer = match read {
            Err(_) if self.flaw == Flaw::SilentOnNonsense => return None,
            Err(error) => Err(error),
            Ok(request) if self.flaw == Flaw::Strict && has_more(body, &request) => Err(invalid()),
            Ok(request) => act(request).await,
        };
        Some(match answer {
            Ok(done) => ProviderReply::Done(done).encode(),
            Err(ProviderError { class, message }) => {
                ProviderReply::<T>::Failed { error: Failure { class, message } }.encode()
            }
        })
    }

    async fn create(&self, request: CreateRequest) -> Result<Created, ProviderError> {
        let CreateRequest { fleet, pool, worker_id, command_id, spec_hash, epoch, claim, spec, expires_at } = request;
        if expires_at < Timestamp::now() && self.flaw != Flaw::BeginsLate {
            return Err(ProviderError::new(ErrorClass::Unavailable, "expired"));
        }
        let key = WorkerKey::new(pool, worker_id);
        let home = self.home.of_fleet(&fleet);
        if self.flaw == Flaw::TakesOthers
            && let Some(instance) = home.find_worker(&key).await?
        {
            return Ok(Created { instance: self.record(instance) });
        }
        let request = LaunchRequest { key, command_id, spec_hash, epoch, claim, spec, trace: None };
        Ok(Created { instance: self.record(home.create_worker(&request).await?) })
    }

    async fn delete(&self, request: DeleteRequest) -> Result<Deleted, ProviderError> {
        let DeleteRequest { fleet, pool, worker_id, instance_id, grace_ms } = request;
        let meant = instance_id.as_deref().filter(|_| self.flaw != Flaw::DeletesAny);
        let (key, grace) = (WorkerKey::new(pool, worker_id), Duration::from_millis(grace_ms));
        self.home.of_fleet(&fleet).terminate_worker(&key, meant, grace).await.map(|()| Deleted {})
    }

    async fn list(&self, request: InstancesRequest) -> Result<InstancesPage, ProviderError> {
        let InstancesRequest { fleet, pool, worker_id, limit, after } = request;
        let mut all: Vec<_> =
            self.home.of_fleet(&fleet).list_workers(&pool).await?.into_iter().map(|one| self.record(one)).collect();
        all.sort_by(|a, b| a.worker_id.cmp(&b.worker_id));
        let wanted = worker_id.filter(|_| self.flaw != Flaw::NoFilter);
        all.retain(|one| wanted.as_ref().is_none_or(|wanted| *wanted == one.worker_id));
        all.retain(|one| after.as_ref().is_none_or(|after| one.worker_id.as_str() > after.as_str()));
        let limit = if self.flaw == Flaw::NoLimit { all.len() } else { limit as usize };
        let more = all.len() > limit && self.flaw != Flaw::FirstPageOnly;
        all.truncate(limit);
        let next = all.last().filter(|_| more).map(|last| last.worker_id.to_string());
        Ok(InstancesPage { instances: all, next })
    }

    fn record(&self, instance: Instance) -> InstanceRecord {
        let Instance { key, instance_id, command_id, spec_hash, epoch, claim, labels, created_at, .. } = instance;
        InstanceRecord {
            pool: key.pool,
            worker_id: key.worker_id,
            instance_id,
            endpoint: Some("far.example:1".to_owned()),
            capabilities: None,
            command_id,
            spec_hash,
            epoch: if self.flaw == Flaw::Forgets { 0 } else { epoch },
            claim: claim.unwrap(),
            labels,
            created_at,
        }
    }
}

/// Whether the body has fields that its type does not know.
fn has_more<Q: Serialize>(body: &[u8], request: &Q) -> bool {
    fn fields(value: &Value) -> usize {
        match value {
            Value::Object(object) => object.len() + object.values().map(fields).sum::<usize>(),
            _ => 0,
        }
    }
    fields(&serde_json::from_slice(body).unwrap()) > fields(&serde_json::to_value(request).unwrap())
}
