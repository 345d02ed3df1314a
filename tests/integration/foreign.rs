//! NATS holds no permission against where an answer goes: what somebody has the server store in the log is no event, and in
//! nobody's way.

use std::time::Duration;

use async_nats::HeaderMap;
use enlist::bus::requests::Requests;
use enlist::domain::{Pool, Reason, WorkerId, WorkerKey};
use enlist::journal::Journal as _;
use enlist::journal::follow::Follower;
use enlist::journal::nats::NatsJournal;
use enlist::provider::WorkerProvider as _;
use enlist::wire::event;

use crate::world::{LOAD, ON_DEMAND, World, provision, size, terminate};

fn key(pool: &str, worker: &str) -> WorkerKey {
    WorkerKey::new(Pool::new(pool).unwrap(), WorkerId::new(worker).unwrap())
}

impl World {
    /// Publishes with a subject of the log as the reply's, and waits until the answer stands there.
    async fn answered_in_the_log(&self, asked: String, pool: &str, worker: &str, state: &str) {
        let before = self.rubbish(pool, worker).await.len();
        let reply = format!("{}.log.{pool}.{worker}.{state}", self.prefix);
        self.client.publish_with_reply(asked, reply, "{}".into()).await.unwrap();
        let stored = async || (self.rubbish(pool, worker).await.len() > before).then_some(());
        self.until(&format!("an answer on a subject of {worker}"), stored).await;
    }

    /// What any publisher can do: a command, which is refused, and its `PubAck` in the log.
    async fn puback(&self, pool: &str, worker: &str, state: &str) {
        self.answered_in_the_log(format!("{}.cmd.{pool}.provision", self.prefix), pool, worker, state).await;
    }

    async fn registered(&self, pool: &str, worker: &str) {
        self.send(pool, &provision(&format!("c-{worker}"), worker)).await;
        self.reaches(worker, "registered").await;
    }

    async fn log_of(&self, followed: impl IntoIterator<Item = (Pool, Follower)>) -> NatsJournal {
        let requests = Requests::start(self.client.clone()).await.unwrap();
        NatsJournal::new(requests, self.subjects.clone(), None, followed)
    }
}

#[tokio::test]
async fn a_worker_is_ended_though_an_answer_stands_on_its_subject() {
    let world = World::new(&format!("{ON_DEMAND}{LOAD}")).await;
    let _replica = world.replica().await;
    world.registered("load", "w-1").await;
    world.puback("load", "w-1", "registered").await;
    world.answered_in_the_log("$JS.API.INFO".to_owned(), "load", "w-1", "terminating").await;

    world.send("load", &terminate("c-end", "w-1")).await;
    world.reaches("w-1", "terminated").await;
    world.settled().await;
    assert_eq!(
        world.states("w-1").await,
        ["provisioning", "provisioned", "registered", "terminating", "terminated"],
        "{}",
        world.story().await
    );
    assert!(world.instances("load").await.is_empty());
    world.hold_the_log().await;
}

#[tokio::test]
async fn a_name_that_only_an_answer_stands_on_is_free() {
    let edge = "[pools.edge]\nprovider = \"static\"\nhosts = [{ id = \"edge-1\" }]\n";
    let world = World::new(&format!("{ON_DEMAND}{LOAD}{edge}")).await;
    let _replica = world.replica().await;
    world.puback("load", "w-1", "provisioning").await;
    world.registered("load", "w-1").await;

    // A host that has been had before, and is found by its history.
    world.puback("edge", "edge-1", "terminated").await;
    world.send("edge", &crate::world::nameless("c-2")).await;
    world.reaches("edge-1", "registered").await;
    world.send("edge", &terminate("c-3", "edge-1")).await;
    world.reaches("edge-1", "terminated").await;
    world.puback("edge", "edge-1", "terminated").await;
    world.send("edge", &crate::world::nameless("c-4")).await;
    world.reaches("edge-1", "registered").await;
    world.settled().await;
    assert!(world.dead().await.iter().all(|dead| dead.reason() == Reason::Invalid), "{}", world.story().await);
    world.hold_the_log().await;
}

#[tokio::test]
async fn a_terminate_of_a_worker_that_never_was_is_not_held_up_by_an_answer() {
    let world = World::new(&format!("{ON_DEMAND}{LOAD}")).await;
    let _replica = world.replica().await;
    world.puback("load", "w-1", "registered").await;
    world.send("load", &terminate("c-1", "w-1")).await;
    let ended = world.reaches("w-1", "terminated").await;
    assert_eq!(ended.worker.rev, 1);
}

#[tokio::test]
async fn a_sweep_goes_on_past_answers_and_clears_away_what_stands_alone() {
    let world = World::new(&format!("{ON_DEMAND}{LOAD}")).await;
    let _replica = world.replica().await;
    world.registered("load", "w-1").await;
    world.registered("load", "w-2").await;
    world.registered("load", "w-3").await;
    world.send("load", &terminate("c-end", "w-3")).await;
    world.reaches("w-3", "terminated").await;
    // The newest of one that lives, of one that has ended, of none at all, and of the pool.
    for (worker, state) in [("w-1", "registered"), ("w-3", "terminated"), ("ghost", "registered"), ("_", "sized")] {
        world.puback("load", worker, state).await;
    }
    // No worker can have such a name, and no event such a state.
    world.puback("load", "NOBODY", "registered").await;
    world.puback("load", "w-1", "rubbish").await;
    world.provider("load").terminate_worker(&key("load", "w-2"), None, Duration::ZERO).await.unwrap();

    world.sweeps("load", 2).await;
    let states: Vec<_> = world.workers().await.into_iter().map(|(id, worker)| (id, worker.state.as_str())).collect();
    let expected = [("w-1", "registered"), ("w-2", "lost"), ("w-3", "terminated")];
    assert_eq!(states, expected.map(|(id, state)| (id.to_owned(), state)), "{}", world.story().await);
    for nobody in ["ghost", "_"] {
        assert!(world.rubbish("load", nobody).await.is_empty(), "{nobody}");
    }
    world.hold_the_log().await;
}

#[tokio::test]
async fn a_pool_comes_to_its_size_though_an_answer_stands_on_its_own_subject() {
    let world = World::new(&format!("{ON_DEMAND}{LOAD}")).await;
    let _replica = world.replica().await;
    for (command, workers) in [("c-1", 2), ("c-2", 1)] {
        world.puback("load", "_", "sizing").await;
        world.puback("load", "_", "sized").await;
        world.send("load", &size(command, workers)).await;
        world.settled().await;
        let last = world.sizes("load").await.pop().unwrap();
        assert_eq!(
            (last.state.as_str(), last.size, last.actual),
            ("sized", workers, workers),
            "{}",
            world.story().await
        );
    }
}

#[tokio::test]
async fn a_pool_with_a_limit_counts_its_workers_whatever_hides_their_events() {
    let world = World::new(&format!("{ON_DEMAND}{LOAD}max_workers = 2\n")).await;
    let replica = world.replica().await;
    world.registered("load", "w-1").await;
    world.registered("load", "w-2").await;
    world.send("load", &terminate("c-end", "w-1")).await;
    world.reaches("w-1", "terminated").await;
    // To who follows the pool from here on, w-1 would look alive, and w-2 be nobody but for its older events.
    for (worker, state) in [
        ("w-1", "terminated"),
        ("w-2", "provisioning"),
        ("w-2", "provisioned"),
        ("w-2", "registered"),
        ("ghost", "registered"),
    ] {
        world.puback("load", worker, state).await;
    }
    let limited = |journal: NatsJournal| async move {
        let pool = Pool::new("load").unwrap();
        (journal.is_full(&pool, 1).await.unwrap(), journal.is_full(&pool, 2).await.unwrap())
    };
    let follower = Follower::start(world.jetstream.clone(), world.subjects.clone(), Pool::new("load").unwrap(), true);
    let journal = world.log_of([(Pool::new("load").unwrap(), follower)]).await;
    assert_eq!(limited(journal.clone()).await, (true, false), "one is live");
    // The one that has followed it all along goes on too.
    world.registered("load", "w-3").await;
    assert_eq!(limited(journal).await, (true, true), "two are");
    world.send("load", &provision("c-4", "w-4")).await;
    let refused = async || world.dead().await.into_iter().find(|dead| dead.reason() == Reason::Quota);
    world.until("a refusal", refused).await;
    drop(replica);
}

#[tokio::test]
async fn a_copy_that_the_server_has_made_of_an_event_is_none() {
    let world = World::new(&format!("{ON_DEMAND}{LOAD}")).await;
    let _replica = world.replica().await;
    world.registered("load", "w-1").await;
    let log = world.log_of([]).await;
    let (stands, history) = (log.head(&key("load", "w-1")).await.unwrap(), world.history("w-1").await);
    // An event that a copy is made of as it is: with what it expects in its headers the server would refuse the copy.
    let mut headers = HeaderMap::new();
    headers.insert(event::WRITER, "r.1");
    let body = event::encode(&world.prefix, &history[0].worker, None);
    world
        .client
        .publish_with_headers(format!("{}.log.load.other.lost", world.prefix), headers, body.into())
        .await
        .unwrap();
    let copied =
        format!("$JS.API.DIRECT.GET.{}.{}.events.load.other.lost", world.subjects.event_stream(), world.prefix);
    let original = async || (world.history("other").await.len() == 1).then_some(());
    world.until("the original", original).await;
    let reply = format!("{}.log.load.w-1.lost", world.prefix);
    world.client.publish_with_reply(copied, reply, "".into()).await.unwrap();
    let place = world.until("the copy", async || world.rubbish("load", "w-1").await.pop()).await;

    assert_eq!(log.head(&key("load", "w-1")).await.unwrap(), stands);
    assert_eq!(log.history(&key("load", "w-1")).await.unwrap().len(), history.len());
    assert_eq!(log.event_at(place).await.unwrap(), None);
    // Readers have a copy of the copy, in whose headers the original's stand first.
    let (code, said) = world.enlist(&["show", "load", "w-1"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(&format!("event {place} on ")) && said.contains("no event of enlist"), "{said}");
    assert!(said.contains("registered for "), "{said}");
}

#[tokio::test]
async fn people_are_told_what_stands_in_a_worker_s_place() {
    let world = World::new(&format!("{ON_DEMAND}{LOAD}")).await;
    let _replica = world.replica().await;
    world.registered("load", "w-1").await;
    world.registered("load", "w-2").await;
    world.puback("load", "w-1", "registered").await;
    let (code, said) = world.enlist(&["show", "load", "w-1"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("registered for ") && said.contains("no event of enlist"), "{said}");
    let told = async || {
        let (code, said) = world.enlist(&["ls", "load"]).await;
        (code == Some(0) && said.contains("w-2") && said.contains("no event of enlist")).then_some(())
    };
    world.until("the view to show it", told).await;
    // The next event mends the view.
    world.send("load", &terminate("c-end", "w-1")).await;
    world.reaches("w-1", "terminated").await;
    world
        .until("the view to be mended", async || {
            let (_, said) = world.enlist(&["ls", "load"]).await;
            (said.contains("terminated") && !said.contains("no event")).then_some(())
        })
        .await;
}
