//! Full queues and logs, without anybody having worked for them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Instant;

use async_nats::jetstream::Context;
use async_nats::jetstream::context::PublishError;
use async_nats::{HeaderMap, Subscriber, jetstream};
use bytes::Bytes;
use enlist::bus::streams;
use enlist::bus::subjects::Subjects;
use enlist::config::{ConfigFile, Flags, ManageStreams, Source};
use enlist::domain::{
    Capabilities, Claim, Claimed, CommandId, Pool, Prefix, SpecHash, Step, Verb, Worker, WorkerFault, WorkerId,
    WorkerType,
};
use enlist::domain::{ErrorClass, WorkerKey};
use enlist::journal::WRITER;
use enlist::wire::event;
use enlist::wire::provider::{InstanceRecord, InstancesPage, InstancesRequest, ProviderReply};
use enlist::wire::scheduler::{ListReply, ListRequest, Listed};
use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;

use crate::replica::settings;

/// Publishes on their way at once.
const IN_FLIGHT: usize = 1000;
/// Workers on a page of the scheduler's list: a tenth of the largest message.
const LISTED_AT_ONCE: usize = 2000;

fn instance_id(n: usize) -> String {
    format!("n-{n:032x}")
}

/// Of a live worker, and of its command.
fn name(n: usize) -> String {
    format!("c-{n:08}")
}

/// Which of so many are on the page that begins at `after`, and where the next one does.
fn page(after: Option<String>, limit: usize, number: usize) -> (Range<usize>, Option<String>) {
    let first = after.map_or(0, |after| after.parse().expect("a next of ours"));
    let end = number.min(first + limit);
    (first..end, (end < number).then(|| end.to_string()))
}

/// Subject, headers, body.
type Message = (String, HeaderMap, Bytes);

/// A broker with a fleet's streams.
pub(crate) struct Fleet {
    pub(crate) context: Context,
    pub(crate) subjects: Subjects,
    pub(crate) pool: Pool,
    prefix: Prefix,
}

impl Fleet {
    pub(crate) async fn new(url: &str) -> Self {
        let prefix = Prefix::new("enlist").expect("a prefix");
        let (subjects, pool) = (Subjects::new(&prefix), Pool::new("load").expect("a pool"));
        let file = ConfigFile { name: "scale".to_owned(), text: format!("{}\n[nats]\nurl = \"{url}\"", settings("")) };
        let (env, flags) = (BTreeMap::new(), Flags::default());
        let source = Source { file: Some(file), env, flags, read: &|_| Err(std::io::ErrorKind::NotFound.into()) };
        let config = enlist::config::load(&source).unwrap_or_else(|mistakes| panic!("{mistakes:?}")).config;
        let connection = enlist::bus::connection::connect(&config.nats, "scale").await.expect("the broker answers");
        let made = streams::ensure(&connection, None, &subjects, [&pool], 1, ManageStreams::Create).await;
        made.expect("the streams");
        let context = jetstream::new(connection.client);
        Self { context, subjects, pool, prefix }
    }

    /// So many provisions in the queue.
    pub(crate) async fn commands(&self, number: usize) {
        let subject = self.subjects.command(&self.pool, Verb::Provision);
        let body = |n: usize| format!("{{\"command_id\":\"c-{n:08}\"}}").into();
        self.publish((0..number).map(|n| vec![(subject.clone(), HeaderMap::new(), body(n))])).await;
    }

    /// So many workers that live and are registered, with all three events of each.
    pub(crate) async fn live(&self, number: usize) {
        self.live_from(0, number).await;
    }

    /// The same, where the first so many are there.
    pub(crate) async fn live_from(&self, first: usize, number: usize) {
        let now = Timestamp::now();
        self.publish((first..number).map(|n| {
            let claimed = self.claimed(&name(n), now);
            let step = Step::Created { instance_id: instance_id(n), endpoint: None, capabilities: None };
            let created = step.apply(Some(&claimed), now).expect("created");
            let registered = Step::Registered { attempts: 1 }.apply(Some(&created), now).expect("registered");
            [claimed, created, registered].iter().map(|worker| self.event(worker)).collect()
        }))
        .await;
    }

    /// Serves the instances of the first so many, as a provider in another program does: with a page made when it is asked for.
    pub(crate) async fn provide(self, number: usize) {
        let requests = self.listen("provider.bench.list").await;
        tokio::spawn(async move { self.tell(number, requests).await });
    }

    async fn tell(&self, number: usize, mut requests: Subscriber) {
        let now = Timestamp::now();
        while let Some(request) = requests.next().await {
            let asked: InstancesRequest = serde_json::from_slice(&request.payload).expect("a request for instances");
            let (page, next) = page(asked.after, asked.limit as usize, number);
            let instances = page.map(|n| self.instance(n, now)).collect();
            let page = ProviderReply::Done(InstancesPage { instances, next });
            let answer = serde_json::to_vec(&page).expect("JSON").into();
            self.context.client().publish(request.reply.expect("a reply subject"), answer).await.expect("answered");
        }
    }

    /// Answers for a scheduler that has the first so many.
    pub(crate) async fn schedule(self, number: usize) {
        let requests = self.listen("scheduler.workers.list").await;
        tokio::spawn(async move { self.list(number, requests).await });
    }

    /// Whoever asks from now on is heard.
    async fn listen(&self, subject: &'static str) -> Subscriber {
        let client = self.context.client();
        let requests = client.subscribe(subject).await.expect("subscribed");
        client.flush().await.expect("the broker answers");
        requests
    }

    async fn list(&self, number: usize, mut requests: Subscriber) {
        while let Some(request) = requests.next().await {
            let asked: ListRequest = serde_json::from_slice(&request.payload).expect("a request for workers");
            let (page, next) = page(asked.after, LISTED_AT_ONCE, number);
            let worker_id = |n| WorkerId::new(name(n)).expect("a worker id");
            let listed = |n| Listed { worker_id: worker_id(n), pool: self.pool.clone(), epoch: 1 };
            let reply = ListReply { workers: page.map(listed).collect(), next };
            let answer = serde_json::to_vec(&reply).expect("JSON").into();
            self.context.client().publish(request.reply.expect("a reply subject"), answer).await.expect("answered");
        }
    }

    fn instance(&self, n: usize, now: Timestamp) -> InstanceRecord {
        let worker = self.claimed(&name(n), now);
        InstanceRecord {
            instance_id: instance_id(n),
            // The place of each worker's claim is not known here, and of a live worker nobody asks for it.
            claim: Claimed { sequence: 0, at: now },
            pool: worker.pool,
            worker_id: worker.worker_id,
            command_id: worker.command_id,
            spec_hash: worker.spec_hash,
            epoch: worker.epoch,
            created_at: now,
            endpoint: None,
            capabilities: None,
            labels: BTreeMap::default(),
        }
    }

    /// So many workers that could not be made, with both events of each.
    pub(crate) async fn ended(&self, number: usize) {
        let now = Timestamp::now();
        let fault =
            WorkerFault { class: ErrorClass::InvalidSpec, message: "no such image".to_owned(), retryable: false };
        self.publish((0..number).map(|n| {
            let claimed = self.claimed(&format!("e-{n:08}"), now);
            let failed = Step::Fail(fault.clone()).apply(Some(&claimed), now).expect("failed");
            [claimed, failed].iter().map(|worker| self.event(worker)).collect()
        }))
        .await;
    }

    fn claimed(&self, name: &str, now: Timestamp) -> Worker {
        let claim = Claim {
            pool: self.pool.clone(),
            worker_id: WorkerId::new(name).expect("a worker id"),
            worker_type: WorkerType::Dynamic,
            command_id: CommandId::new(name).expect("a command id"),
            correlation_id: None,
            spec_hash: SpecHash::of(name.as_bytes()),
            provider: "nats".to_owned(),
            capabilities: Capabilities::default(),
            registration: true,
        };
        Step::Claim(Box::new(claim)).apply(None, now).expect("claimed")
    }

    fn event(&self, worker: &Worker) -> Message {
        let mut headers = HeaderMap::new();
        headers.insert("Content-Type", event::CONTENT_TYPE);
        headers.insert(WRITER, "0123456789.0/1");
        let key = WorkerKey::new(worker.pool.clone(), worker.worker_id.clone());
        (self.subjects.log(&key, worker.state), headers, event::encode(&self.prefix, worker, None).into())
    }

    /// Many at once, and those that belong together one after the other.
    async fn publish(&self, together: impl Iterator<Item = Vec<Message>>) {
        let began = Instant::now();
        let sent = stream::iter(together)
            .map(|messages| async move {
                let number = messages.len() as u64;
                for (subject, headers, body) in messages {
                    self.context.publish_with_headers(subject, headers, body).await?.await?;
                }
                Ok::<_, PublishError>(number)
            })
            .buffer_unordered(IN_FLIGHT)
            .try_fold(0, |sum, number| async move { Ok(sum + number) })
            .await
            .expect("stored");
        println!("  {sent} messages stored in {:.0} s", began.elapsed().as_secs_f64());
    }

    /// Commands of a verb that are not settled yet.
    pub(crate) async fn left(&self, verb: Verb) -> u64 {
        let queue = self.context.get_stream(self.subjects.command_stream(&self.pool)).await.expect("the queue");
        let subject = self.subjects.command(&self.pool, verb);
        let counts = queue.info_with_subjects(subject).await.expect("its subjects");
        counts.map(|count| count.expect("a count").1 as u64).collect::<Vec<_>>().await.into_iter().sum()
    }

    /// The feed of workers that the scheduler has.
    pub(crate) fn registered(&self) -> String {
        format!("{}.events.{}.*.registered", self.prefix, self.pool)
    }
}
