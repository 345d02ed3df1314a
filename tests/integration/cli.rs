//! The verbs that look after pools, run as an operator runs them.

use std::time::Duration;

use enlist::domain::{Pool, WorkerId, WorkerKey};
use enlist::provider::WorkerProvider as _;
use tokio::time::timeout;

use crate::world::{LOAD, World, provision};

/// Nothing is swept but what a test asks for, and nothing is too young for it.
const BY_HAND: &str = "[sweep]\ninterval = \"12h\"\ngrace = \"0s\"\nmax_terminations = 1\n";

/// A pool with these workers, all registered, and no replica.
async fn pool_of(workers: &[&str]) -> World {
    pool_under("", workers).await
}

/// The same with more settings of the sweep.
async fn pool_under(sweep: &str, workers: &[&str]) -> World {
    let world = World::new(&format!("{BY_HAND}{sweep}{LOAD}max_workers = 10\n")).await;
    let replica = world.replica().await;
    for worker in workers {
        world.send("load", &provision(&format!("c-{worker}"), worker)).await;
        world.reaches(worker, "registered").await;
    }
    world.settled().await;
    replica.drain().await;
    world
}

impl World {
    /// The log no longer knows the worker.
    async fn forget(&self, worker: &str) {
        let stream = self.jetstream.get_stream(self.subjects.event_stream()).await.unwrap();
        stream.purge().filter(format!("{}.events.load.{worker}.*", self.prefix)).await.unwrap();
    }

    /// The worker's instance goes, and nobody is told.
    async fn break_down(&self, worker: &str) {
        let key = WorkerKey::new(Pool::new("load").unwrap(), WorkerId::new(worker).unwrap());
        self.provider("load").terminate_worker(&key, None, Duration::ZERO).await.unwrap();
    }

    async fn made(&self) -> Vec<String> {
        let mut workers: Vec<_> =
            self.instances("load").await.into_iter().map(|instance| instance.key.worker_id.to_string()).collect();
        workers.sort();
        workers
    }
}

#[tokio::test]
async fn a_dry_run_shows_an_orphan_and_does_nothing() {
    // A record that is gone sooner than this freezes the sweep.
    let world = pool_under("retention = \"1s\"\n", &["w-1", "w-2"]).await;
    world.forget("w-2").await;
    let said = world
        .until("the record to be old enough", async || {
            let (code, said) = world.enlist(&["sweep", "--dry-run"]).await;
            assert_eq!(code, Some(0), "{said}");
            (!said.contains("gone before its time")).then_some(said)
        })
        .await;
    let row = said.lines().find(|line| line.contains("remove_orphan")).unwrap_or_else(|| panic!("{said}"));
    assert!(row.contains("w-2") && row.contains("has no record"), "{said}");
    assert!(
        said.contains("load: instances 2 (null), live workers 1; the scheduler gives no list; no size\n"),
        "{said}"
    );
    assert_eq!(world.made().await, ["w-1", "w-2"]);
    assert_eq!(world.history("w-2").await.len(), 0);
}

#[tokio::test]
async fn what_a_dry_run_has_shown_a_sweep_from_here_does() {
    let world = pool_of(&["w-1", "w-2", "w-3"]).await;
    for worker in ["w-1", "w-2"] {
        world.break_down(worker).await;
    }
    let (code, said) = world.enlist(&["sweep", "load", "--dry-run"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("FROZEN, nothing is removed: 0 orphans and 2 workers without an instance"), "{said}");
    assert_eq!(said.matches("write_off").count(), 2, "who is to decide sees what is held back:\n{said}");
    let advice = said.lines().last().unwrap().split_once("enlist ").unwrap().1.to_owned();
    assert_eq!(advice, "sweep load --max-terminations 2");

    let (code, said) = world.enlist(&["sweep", "load", "--max-terminations", "1"]).await;
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(world.states("w-1").await.last(), Some(&"registered"), "{said}");

    let (code, said) = world.enlist(&advice.split(' ').collect::<Vec<_>>()).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("load: done: write_off 2\n"), "{said}");
    for worker in ["w-1", "w-2"] {
        assert_eq!(world.states(worker).await.last(), Some(&"lost"), "{said}");
    }
    assert_eq!(world.states("w-3").await.last(), Some(&"registered"), "{said}");
}

#[tokio::test]
async fn a_sweep_that_is_asked_for_is_done_by_a_replica() {
    let world = pool_of(&["w-1"]).await;
    let _replica = world.replica().await;
    world.break_down("w-1").await;
    for _ in 0..2 {
        let (code, said) = world.enlist(&["sweep"]).await;
        assert_eq!(code, Some(0), "{said}");
        assert!(said.starts_with("sweep load: command "), "{said}");
        world.settled().await;
    }
    world.reaches("w-1", "lost").await;
}

#[tokio::test]
async fn an_instance_that_the_log_has_lost_is_adopted() {
    let world = pool_of(&["w-1", "w-2"]).await;
    world.forget("*").await;
    let (code, said) = world.enlist(&["sweep", "--dry-run"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("FROZEN") && said.contains("enlist adopt load --dry-run"), "{said}");
    let (code, said) = world.enlist(&["adopt", "--dry-run"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.ends_with("load: 2 without a record; nothing is done\n"), "{said}");
    assert_eq!(world.log().await.len(), 0);

    let (code, said) = world.enlist(&["adopt"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.ends_with("load: 2 adopted\n"), "{said}");
    for worker in ["w-1", "w-2"] {
        let last = world.history(worker).await.pop().unwrap().worker;
        assert_eq!((last.state.as_str(), last.epoch), ("registered", 2), "above the epoch that it was made under");
    }
    world.hold_the_log().await;
    let (code, said) = world.enlist(&["sweep", "--dry-run"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.ends_with("nothing to do now\n") && !said.contains("FROZEN"), "{said}");
    let (code, said) = world.enlist(&["adopt"]).await;
    assert_eq!((code, said.as_str()), (Some(0), "load: every instance has a record (null)\n"));
}

#[tokio::test]
async fn who_adopts_is_told_that_the_scheduler_does_not_say_whom_it_has() {
    let world = pool_of(&["w-1"]).await;
    let list = world.scheduler.list_in_riddles().await;
    let (code, said) = world.enlist(&["adopt"]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.starts_with("load: the scheduler's list could not be had: the scheduler's reply cannot"), "{said}");
    assert!(said.ends_with("\nload: every instance has a record (null)\n"), "{said}");

    world.forget("*").await;
    for (args, end) in [(&["adopt", "--dry-run"][..], "load: 1 without a record"), (&["adopt"], "load: 1 adopted\n")] {
        let (code, said) = world.enlist(args).await;
        assert_eq!(code, Some(1), "{args:?}: {said}");
        assert!(said.contains("could not be had") && said.contains("perhaps not above what the scheduler"), "{said}");
        assert!(said.contains(end), "{args:?}: {said}");
    }
    list.abort();
}

#[tokio::test]
async fn a_size_is_waited_for() {
    let world = pool_of(&["w-1"]).await;
    let _replica = world.replica().await;
    let (code, said) = world.enlist(&["pool", "load", "3", "--command-id", "three", "--wait"]).await;
    assert_eq!(code, Some(0), "{said}");
    let steps = ["sizing", "size 3, 1 live, for command three", "registered", "sized", "size 3, all there"];
    let mut rest = said.as_str();
    for step in steps {
        rest = rest.split_once(step).unwrap_or_else(|| panic!("`{step}` is missing, or too early:\n{said}")).1;
    }
    assert_eq!(world.made().await.len(), 3);

    let (code, said) = world.enlist(&["pool", "load", "3", "--command-id", "three", "--wait"]).await;
    assert_eq!(code, Some(0), "an outcome that is there already is one:\n{said}");
    let (code, said) = world.enlist(&["pool", "load", "11", "--wait"]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("quota: size: found 11, expected at most 10 (max_workers)"), "{said}");
}

#[tokio::test]
async fn a_size_that_another_overtakes_has_not_come_to_be() {
    let world = World::new(&format!("{BY_HAND}{LOAD}delay = \"1h\"\n")).await;
    let _replica = world.replica().await;
    let overtaking = async {
        world
            .until("the first size to be on record", async || {
                world.sizes("load").await.iter().any(|record| record.size == 5).then_some(())
            })
            .await;
        let (code, said) = world.enlist(&["pool", "load", "4", "--command-id", "later"]).await;
        assert_eq!(code, Some(0), "{said}");
    };
    let first = world.enlist(&["pool", "load", "5", "--command-id", "first", "--wait"]);
    let ((code, said), ()) = tokio::join!(first, overtaking);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.ends_with("pool load: command later has overtaken it, with size 4\n"), "{said}");
}

#[tokio::test]
async fn who_waits_for_a_size_and_then_no_longer_is_told_so_though_the_broker_is_away() {
    let world = World::alone(&format!("{BY_HAND}{LOAD}delay = \"1h\"\n")).await;
    let replica = world.replica().await;
    let mut waiting = world.verb(&["pool", "load", "3", "--command-id", "three", "--wait"]);
    waiting.line("sizing").await;
    waiting.line("no news of it for 10 s; `enlist sweep load --dry-run`").await;
    world.broker.stop().await;
    // It looks again and again, and now it looks in vain.
    waiting.line("enlist: the connection is down and is being made anew; still waiting").await;
    waiting.terminate();
    let (code, said) = timeout(Duration::from_secs(4), waiting.exit()).await.expect("an end at once");
    assert!(
        code == Some(1) && said.contains("command three stays in the queue and is carried out all the same"),
        "{said}"
    );
    drop(replica);
}

/// Seen from another process it is empty, whatever there is.
#[tokio::test]
async fn a_pool_in_its_replica_s_memory_is_not_judged_from_here() {
    let world = World::new(&format!("{BY_HAND}[pools.load]\nprovider = \"null\"\n")).await;
    let replica = world.replica().await;
    world.send("load", &provision("c-1", "w-1")).await;
    world.reaches("w-1", "registered").await;
    for args in [&["sweep", "load", "--dry-run"][..], &["sweep", "--max-terminations", "9"], &["adopt", "load"]] {
        let (code, said) = world.enlist(args).await;
        assert_eq!(code, Some(1), "{args:?}: {said}");
        assert!(said.contains("known to it only; `enlist sweep load` asks a replica"), "{args:?}: {said}");
        assert!(!said.contains("write_off") && !said.contains("instances 0"), "{args:?}: {said}");
    }
    assert_eq!(world.states("w-1").await.last(), Some(&"registered"));
    replica.drain().await;
}

#[tokio::test]
async fn a_verb_names_the_pool_that_the_settings_do_not_have() {
    let world = World::new(LOAD).await;
    for args in [["sweep", "nowhere", "--dry-run"], ["adopt", "nowhere", "--dry-run"]] {
        let (code, said) = world.enlist(&args).await;
        assert_eq!(code, Some(64), "{said}");
        assert!(said.contains("pool nowhere is not in the settings"), "{said}");
    }
}
