//! A scheduler that does as it is told and keeps a journal of what it was asked.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use async_nats::{Client, Message, Subscriber};
use enlist::domain::Prefix;
use enlist::wire::scheduler::{ListRequest, RegisterRequest, UnregisterRequest};
use futures_util::StreamExt as _;
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What the scheduler answers to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Accept,
    Reject,
    /// Ask again in so many milliseconds.
    Busy(u64),
    /// Nothing.
    Silent,
    /// What is no JSON.
    Unreadable,
}

/// What the scheduler was asked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Asked {
    Register(RegisterRequest),
    Unregister(UnregisterRequest),
}

/// See the module. Accepts all until told otherwise, and keeps no list that can be asked for until it is told to.
pub(crate) struct Scheduler {
    client: Client,
    register: String,
    unregister: String,
    list: String,
    state: Arc<Mutex<State>>,
    news: Arc<Notify>,
    listening: Mutex<Listening>,
}

#[derive(Default)]
struct Listening {
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

struct State {
    register: Script,
    unregister: Script,
    journal: Vec<Asked>,
    /// Whom it has accepted and not let go: pool, worker and the epoch.
    members: BTreeMap<(String, String), u64>,
    /// Workers on one page of its list.
    page: usize,
}

impl State {
    fn registered(&mut self, request: RegisterRequest) -> Answer {
        let answer = self.register.next();
        if answer == Answer::Accept {
            self.members.insert((request.pool.to_string(), request.worker_id.to_string()), request.epoch);
        }
        self.journal.push(Asked::Register(request));
        answer
    }

    fn unregistered(&mut self, request: UnregisterRequest) -> Answer {
        let answer = self.unregister.next();
        if answer == Answer::Accept {
            self.members.remove(&(request.pool.to_string(), request.worker_id.to_string()));
        }
        self.journal.push(Asked::Unregister(request));
        answer
    }

    /// A page of the list: the wire form by hand, as below.
    fn listed(&self, request: &ListRequest) -> String {
        let after = request.after.clone().unwrap_or_default();
        let wanted = |pool: &str| request.pool.as_ref().is_none_or(|asked| asked.as_str() == pool);
        let name = |(pool, worker): &(String, String)| format!("{pool}/{worker}");
        let mut left = self.members.iter().filter(|(key, _)| wanted(&key.0) && name(key) > after);
        let page: Vec<_> = left.by_ref().take(self.page).collect();
        let next = if left.next().is_some() { page.last().map(|(key, _)| name(key)) } else { None };
        let workers: Vec<_> = page
            .into_iter()
            .map(|((pool, worker), epoch)| json!({"worker_id": worker, "pool": pool, "epoch": epoch}))
            .collect();
        json!({"workers": workers, "next": next}).to_string()
    }
}

/// These answers first, then always the last one.
struct Script {
    first: VecDeque<Answer>,
    then: Answer,
}

impl Script {
    fn new(first: &[Answer], then: Answer) -> Self {
        Self { first: first.iter().copied().collect(), then }
    }

    fn next(&mut self) -> Answer {
        self.first.pop_front().unwrap_or(self.then)
    }
}

impl Scheduler {
    pub(super) async fn listen(client: &Client, prefix: &Prefix, news: Arc<Notify>) -> Self {
        let accepts = || Script::new(&[], Answer::Accept);
        let scheduler = Self {
            client: client.clone(),
            register: format!("sched.{prefix}.register"),
            unregister: format!("sched.{prefix}.unregister"),
            list: format!("sched.{prefix}.list"),
            state: Arc::new(Mutex::new(State {
                register: accepts(),
                unregister: accepts(),
                journal: Vec::new(),
                members: BTreeMap::new(),
                page: 7,
            })),
            news,
            listening: Mutex::default(),
        };
        scheduler.come().await;
        scheduler
    }

    /// Answers register requests with these, then always with the last.
    pub(crate) fn on_register(&self, first: &[Answer], then: Answer) {
        self.state.lock().unwrap().register = Script::new(first, then);
    }

    /// Answers unregister requests with these, then always with the last.
    pub(crate) fn on_unregister(&self, first: &[Answer], then: Answer) {
        self.state.lock().unwrap().unregister = Script::new(first, then);
    }

    /// From here on nobody listens, and the server knows it.
    pub(crate) async fn leave(&self) {
        let Listening { stop, tasks } = std::mem::take(&mut *self.listening.lock().unwrap());
        stop.cancel();
        for task in tasks {
            task.await.unwrap();
        }
        self.known_to_the_server().await;
    }

    /// Listens again.
    pub(crate) async fn come(&self) {
        let stop = CancellationToken::new();
        let register = self.client.subscribe(self.register.clone()).await.unwrap();
        let unregister = self.client.subscribe(self.unregister.clone()).await.unwrap();
        let register = tokio::spawn(self.answer(register, stop.clone(), |state, asked| {
            body(state.registered(RegisterRequest::decode(asked).ok()?))
        }));
        let unregister = tokio::spawn(self.answer(unregister, stop.clone(), |state, asked| {
            body(state.unregistered(UnregisterRequest::decode(asked).ok()?))
        }));
        *self.listening.lock().unwrap() = Listening { stop, tasks: vec![register, unregister] };
        self.known_to_the_server().await;
    }

    /// From here on it can also be asked for its list, and what it says nobody understands.
    pub(crate) async fn list_in_riddles(&self) -> tokio::task::JoinHandle<()> {
        let (client, mut asked) = (self.client.clone(), self.client.subscribe(self.list.clone()).await.unwrap());
        client.flush().await.unwrap();
        tokio::spawn(async move {
            while let Some(asked) = asked.next().await {
                client.publish(asked.reply.unwrap(), "who knows?".into()).await.unwrap();
            }
        })
    }

    /// From here on it can also be asked for its list, which comes in pages.
    pub(crate) async fn list(&self) {
        let list = self.client.subscribe(self.list.clone()).await.unwrap();
        let stop = self.listening.lock().unwrap().stop.clone();
        let answers = self.answer(list, stop, |state, asked| Some(state.listed(&ListRequest::decode(asked).ok()?)));
        self.listening.lock().unwrap().tasks.push(tokio::spawn(answers));
        self.known_to_the_server().await;
    }

    /// So many workers on each page of its list.
    pub(crate) fn pages_of(&self, number: usize) {
        self.state.lock().unwrap().page = number;
    }

    /// Loses its memory, as a restart without a store would.
    pub(crate) fn forget(&self) {
        self.state.lock().unwrap().members.clear();
    }

    /// Knows a worker that nobody has told it of.
    pub(crate) fn dream_of(&self, pool: &str, worker: &str) {
        self.state.lock().unwrap().members.insert((pool.to_owned(), worker.to_owned()), 1);
    }

    /// The workers of its list, and under which epoch each of them.
    pub(crate) fn members(&self) -> BTreeMap<String, u64> {
        let state = self.state.lock().unwrap();
        state.members.iter().map(|((_, worker), epoch)| (worker.clone(), *epoch)).collect()
    }

    /// The server reads a connection in order: once it answers this, it has read what came before.
    async fn known_to_the_server(&self) {
        let nobody = self.client.request(format!("{}.nobody", self.register), "".into()).await;
        assert!(nobody.is_err());
    }

    /// Everything that it was asked, in order.
    pub(crate) fn journal(&self) -> Vec<Asked> {
        self.state.lock().unwrap().journal.clone()
    }

    pub(crate) fn registers(&self) -> Vec<RegisterRequest> {
        let only = |asked| if let Asked::Register(request) = asked { Some(request) } else { None };
        self.journal().into_iter().filter_map(only).collect()
    }

    pub(crate) fn unregisters(&self) -> Vec<UnregisterRequest> {
        let only = |asked| if let Asked::Unregister(request) = asked { Some(request) } else { None };
        self.journal().into_iter().filter_map(only).collect()
    }

    fn answer(
        &self,
        mut requests: Subscriber,
        stop: CancellationToken,
        next: fn(&mut State, &[u8]) -> Option<String>,
    ) -> impl Future<Output = ()> + use<> {
        let (client, state, news) = (self.client.clone(), Arc::clone(&self.state), Arc::clone(&self.news));
        async move {
            while let Some(Some(Message { reply, payload, .. })) = stop.run_until_cancelled(requests.next()).await {
                let answer = next(&mut state.lock().unwrap(), &payload);
                if let (Some(reply), Some(body)) = (reply, answer) {
                    client.publish(reply, body.into()).await.unwrap();
                }
                news.notify_waiters();
            }
            let _ = requests.unsubscribe().await;
        }
    }
}

/// The wire form, by hand: the contract's, not that of enlist's own types.
fn body(answer: Answer) -> Option<String> {
    match answer {
        Answer::Accept => Some(r#"{"status":"accepted"}"#.into()),
        Answer::Reject => Some(r#"{"status":"rejected","code":"banned","message":"not here"}"#.into()),
        Answer::Busy(after) => Some(format!(r#"{{"status":"busy","retry_after_ms":{after}}}"#)),
        Answer::Silent => None,
        Answer::Unreadable => Some("yes, gladly".into()),
    }
}
