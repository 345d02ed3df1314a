//! The fleet as readers see it, on a real broker.

use std::collections::{BTreeMap, BTreeSet};

use async_nats::jetstream::message::PublishMessage;
use enlist::bus::batch::BatchError;
use enlist::bus::streams;
use enlist::bus::subjects::Subjects;
use enlist::bus::view::{Filter, Record, View};
use enlist::domain::{Pool, Prefix, State, Worker, WorkerId, WorkerKey};
use enlist::wire::event;
use futures_util::{StreamExt as _, TryStreamExt as _};

use crate::world::{LOAD, World, provision, size, terminate};

const TWO: &str = "[sweep]\ninterval = \"12h\"\n[pools.other]\nprovider = \"null\"\nlabels = { zone = \"b\" }\n";

fn pool(name: &str) -> Pool {
    Pool::new(name).unwrap()
}

impl World {
    fn reader(&self) -> View {
        View::new(self.client.clone(), self.subjects.clone(), None)
    }

    async fn listed(&self, filter: Filter) -> Vec<Worker> {
        self.reader().workers(filter).map_ok(|(worker, _)| worker).try_collect().await.unwrap()
    }

    /// Waits until the view has caught up: it shows so many workers.
    async fn shown(&self, filter: &Filter, number: usize) -> BTreeMap<String, Worker> {
        self.until(&format!("{number} workers in the view"), async || {
            let listed = self.listed(filter.clone()).await;
            let by_name: BTreeMap<_, _> =
                listed.into_iter().map(|worker| (worker.worker_id.to_string(), worker)).collect();
            (by_name.len() == number).then_some(by_name)
        })
        .await
    }

    /// Events of workers that nobody has made, straight into the log: as many as no test could wait for.
    async fn forge(&self, like: &Worker, names: impl Iterator<Item = String>, state: State, rev: u64) {
        let mut acks = Vec::new();
        for name in names {
            let worker = Worker { worker_id: WorkerId::new(&name).unwrap(), state, rev, ..like.clone() };
            let body = event::encode(&self.prefix, &worker, None);
            let message = PublishMessage::build().header(event::WRITER, "forger").payload(body.into());
            acks.push(self.jetstream.send_publish(self.subjects.log(&worker.key(), state), message).await.unwrap());
            if acks.len() == 500 {
                for ack in acks.drain(..) {
                    ack.await.unwrap();
                }
            }
        }
        for ack in acks {
            ack.await.unwrap();
        }
    }
}

#[tokio::test]
async fn workers_are_listed_by_pool_state_and_label() {
    let world = World::new(&format!("{TWO}{LOAD}allow = [\"labels\"]\n")).await;
    let _replica = world.replica().await;
    for worker in ["w-1", "w-2"] {
        world.send("load", &provision(&format!("c-{worker}"), worker)).await;
        world.reaches(worker, "registered").await;
    }
    world.send("other", &provision("c-3", "w-3")).await;
    world.reaches("w-3", "registered").await;
    world.send("load", &terminate("c-4", "w-2")).await;
    world.reaches("w-2", "terminated").await;
    let names = |workers: BTreeMap<String, Worker>| workers.into_keys().collect::<Vec<_>>();

    assert_eq!(names(world.shown(&Filter::default(), 3).await), ["w-1", "w-2", "w-3"]);
    let of_pool = Filter { pool: Some(pool("load")), ..Filter::default() };
    assert_eq!(names(world.shown(&of_pool, 2).await), ["w-1", "w-2"]);
    let ended = Filter { states: vec![State::Terminated, State::Failed], ..Filter::default() };
    assert_eq!(names(world.shown(&ended, 1).await), ["w-2"]);
    let labelled = Filter { labels: [("zone".to_owned(), "b".to_owned())].into(), ..Filter::default() };
    assert_eq!(names(world.shown(&labelled, 1).await), ["w-3"]);
    let nobody = Filter { labels: [("zone".to_owned(), "c".to_owned())].into(), ..Filter::default() };
    assert_eq!(world.listed(nobody).await, []);
}

#[tokio::test]
async fn none_of_many_is_missed_and_a_reader_can_go_on_from_any_place() {
    let world = World::new(&format!("{TWO}{LOAD}")).await;
    let _replica = world.replica().await;
    world.send("load", &provision("c-1", "w-1")).await;
    let like = world.reaches("w-1", "registered").await.worker;
    // More than four batches, each twice as large as the one before.
    let number = 20_000;
    world.forge(&like, (0..number).map(|n| format!("m-{n}")), State::Registered, 3).await;
    world.shown(&Filter::default(), number + 1).await;

    let half = 5_000;
    let mut workers = world.reader().workers(Filter::default());
    let mut seen = BTreeSet::new();
    let mut place = 0;
    while seen.len() < half {
        let (worker, at) = workers.next().await.unwrap().unwrap();
        assert!(at > place, "in the order of their places");
        place = at;
        seen.insert(worker.worker_id.to_string());
    }
    // Those that change while they are listed move to the end of the view, and are told again there.
    let changed = 100;
    world.forge(&like, (0..changed).map(|n| format!("m-{n}")), State::Lost, 4).await;
    let lost = Filter { states: vec![State::Lost], ..Filter::default() };
    world.shown(&lost, changed).await;
    let mut rest = Vec::new();
    while let Some(worker) = workers.next().await {
        rest.push(worker.unwrap().0);
    }
    assert_eq!(rest.iter().filter(|worker| worker.state == State::Lost).count(), changed);
    assert_eq!(rest.len(), number + 1 - half + changed);

    let on = Filter { after: place, ..Filter::default() };
    assert_eq!(world.listed(on).await, rest, "from the place where the other stopped");
    seen.extend(rest.iter().map(|worker| worker.worker_id.to_string()));
    assert_eq!(seen.len(), number + 1);
}

#[tokio::test]
async fn a_worker_s_history_and_its_pool_s_are_read_in_order() {
    let world = World::new(&format!("{TWO}{LOAD}")).await;
    let _replica = world.replica().await;
    world.send("load", &provision("c-1", "w-1")).await;
    world.reaches("w-1", "registered").await;
    world.send("load", &terminate("c-2", "w-1")).await;
    world.reaches("w-1", "terminated").await;
    world.send_raw("load", enlist::domain::Verb::Pool, size("c-3", 1).encode()).await;
    world.until("the size", async || (world.sizes("load").await.len() == 2).then_some(())).await;

    let history = world.reader().history(&WorkerKey::new(pool("load"), WorkerId::new("w-1").unwrap())).await.unwrap();
    let log = world.history("w-1").await;
    let expected: Vec<_> = log.iter().map(|event| (event.sequence, event.worker.clone())).collect();
    let found: Vec<_> = history
        .iter()
        .map(|seen| match &seen.record {
            Record::Worker(worker) => (seen.sequence, (**worker).clone()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(found, expected);
    let own = world.reader().pool_history(&pool("load")).await.unwrap();
    assert!(own.iter().all(|seen| matches!(&seen.record, Record::Pool(record) if record.size == 1)), "{own:?}");
    assert_eq!(own.len(), 2);
    world
        .until("the pool's own record in the view", async || {
            let records: Vec<_> = world.reader().records(Some(&pool("load")), 0).try_collect().await.unwrap();
            records.iter().any(|seen| matches!(&seen.record, Record::Pool(_))).then_some(())
        })
        .await;
    let nobody = WorkerKey::new(pool("load"), WorkerId::new("nobody").unwrap());
    assert_eq!(world.reader().history(&nobody).await.unwrap(), []);
}

#[tokio::test]
async fn what_is_heard_live_is_what_the_log_has_behind_the_same_place() {
    let world = World::new(&format!("{TWO}{LOAD}")).await;
    let _replica = world.replica().await;
    world.send("load", &provision("c-0", "w-0")).await;
    let place = world.reaches("w-0", "registered").await.sequence;
    let mut live = world.reader().live(Some(&pool("load"))).await.unwrap();
    world.send("other", &provision("c-1", "w-1")).await;
    world.reaches("w-1", "registered").await;
    world.send("load", &provision("c-2", "w-2")).await;
    world.reaches("w-2", "registered").await;
    let mut heard = Vec::new();
    while heard.len() < 3 {
        heard.push(live.next().await.unwrap());
    }
    let logged: Vec<_> = world.reader().events_after(Some(&pool("load")), place).try_collect().await.unwrap();
    assert_eq!(heard, logged);
    let all: Vec<_> = world.reader().events_after(None, place).try_collect().await.unwrap();
    assert_eq!(all.len(), 6);
}

#[tokio::test]
async fn a_fleet_that_is_not_there_is_told_from_an_empty_one() {
    let world = World::new(LOAD).await;
    let nowhere = View::new(world.client.clone(), Subjects::new(&Prefix::new("nowhere").unwrap()), None);
    let error = nowhere.workers(Filter::default()).next().await.unwrap().unwrap_err();
    assert!(matches!(error, BatchError::NobodyThere { .. }), "{error}");
    assert!(error.to_string().contains("KV_nowhere_workers"), "{error}");

    let _replica = world.replica().await;
    assert_eq!(streams::api_prefix(None), "$JS.API");
    assert_eq!(world.listed(Filter::default()).await, []);
}
