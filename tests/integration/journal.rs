//! The log on a real server: scans, purges, and what becomes of the view, a pool's own record, and the order of claims.

use enlist::bus::pass::{Pass, Passed};
use enlist::bus::requests::Requests;
use enlist::domain::{
    Capabilities, Claim, CommandId, EndedBy, Pool, PoolRecord, PoolState, SpecHash, Step, WorkerId, WorkerKey,
    WorkerType,
};
use enlist::journal::follow::Follower;
use enlist::journal::nats::NatsJournal;
use enlist::journal::{AppendError, Entry, EventOf, Journal, PoolEntry, Scanned, Writer};
use jiff::Timestamp;

use crate::world::{LOAD, World};

#[derive(Debug, Clone, Copy)]
enum Ended {
    InGoodOrder,
    Killed,
}

/// A fleet's log, which nobody but the test writes.
struct Log {
    world: World,
    journal: NatsJournal,
}

impl Log {
    async fn new() -> Self {
        Self::of(World::new(LOAD).await).await
    }

    async fn of(world: World) -> Self {
        // It makes the streams, and has nothing else to do.
        drop(world.replica().await);
        let requests = Requests::start(world.client.clone()).await.unwrap();
        let journal = NatsJournal::new(requests, world.subjects.clone(), None, []);
        Self { world, journal }
    }

    async fn claim(&self, key: &WorkerKey) -> Entry {
        let head = self.journal.head(key).await.unwrap();
        self.write(key, Step::Claim(Box::new(claim(key))), head, None).await
    }

    /// The next event of a worker, which tells the place of its claim.
    async fn step(&self, key: &WorkerKey, step: Step) -> Entry {
        let head = self.journal.head(key).await.unwrap().unwrap();
        let claim = head.claim();
        self.write(key, step, Some(head), claim).await
    }

    async fn write(&self, key: &WorkerKey, step: Step, head: Option<Entry>, claim: Option<u64>) -> Entry {
        let worker = step.apply(head.as_ref().map(|head| &head.worker), Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(worker.key(), *key);
        let writer = Writer { claim, ..writer("r.1") };
        let sequence = self.journal.append(&worker, head.map_or(0, |head| head.sequence), &writer).await.unwrap();
        Entry { worker, sequence, writer }
    }

    /// From its claim to its end.
    async fn lived(&self, key: &WorkerKey) -> Entry {
        self.claim(key).await;
        self.step(key, created()).await;
        self.step(key, Step::Terminate(EndedBy { command_id: None, reason: None })).await;
        self.step(key, Step::Terminated).await
    }

    async fn scanned(&self, pool: &str) -> (Vec<Scanned>, u64) {
        let mut seen = Vec::new();
        let scan = self.journal.scan(&Pool::new(pool).unwrap(), |event| seen.push(event)).await.unwrap();
        (seen, scan.last)
    }

    /// Waits until the view shows a worker as this event has it.
    async fn shows(&self, entry: &Entry) {
        let key = entry.worker.key();
        let shown = async || {
            let shown = self.world.view(key.pool.as_str(), key.worker_id.as_str()).await?;
            (shown == entry.worker).then_some(())
        };
        self.world.until(&format!("the view to show {key} at {}", entry.sequence), shown).await;
    }

    /// Whether the view has it, once the view has caught up with the log.
    async fn is_shown(&self, key: &WorkerKey) -> bool {
        // The view is filled in the order of the log.
        let marker = self.claim(&worker("load", &format!("marker-{}", self.journal_length().await))).await;
        self.shows(&marker).await;
        self.world.view(key.pool.as_str(), key.worker_id.as_str()).await.is_some()
    }

    async fn journal_length(&self) -> u64 {
        self.journal.scan(&Pool::new("load").unwrap(), |_| {}).await.unwrap().last
    }

    async fn restart(&self, ended: Ended) {
        match ended {
            Ended::InGoodOrder => self.world.broker.stop().await,
            Ended::Killed => self.world.broker.kill().await,
        }
        self.world.broker.start_again().await;
        self.world.until("the log to be back", async || self.journal.event_at(1).await.ok()).await;
    }
}

fn worker(pool: &str, id: &str) -> WorkerKey {
    WorkerKey::new(Pool::new(pool).unwrap(), WorkerId::new(id).unwrap())
}

fn writer(name: &str) -> Writer {
    Writer { name: name.into(), message: Some(1), claim: None, trace: None }
}

/// Of a host, which can be allocated again.
fn claim(key: &WorkerKey) -> Claim {
    Claim {
        pool: key.pool.clone(),
        worker_id: key.worker_id.clone(),
        worker_type: WorkerType::Static,
        command_id: CommandId::new("c-1").unwrap(),
        correlation_id: None,
        spec_hash: SpecHash::of(b"1"),
        provider: "static".into(),
        capabilities: Capabilities::default(),
        registration: false,
    }
}

fn created() -> Step {
    Step::Created { instance_id: "i-1".into(), endpoint: None, capabilities: None }
}

fn size(pool: &str, rev: u64, state: PoolState) -> PoolRecord {
    PoolRecord {
        pool: Pool::new(pool).unwrap(),
        state,
        rev,
        size: 3,
        actual: 0,
        command_id: CommandId::new("c-1").unwrap(),
        correlation_id: None,
        updated_at: Timestamp::UNIX_EPOCH,
    }
}

fn newest_of(seen: &[Scanned], key: &WorkerKey) -> Option<Entry> {
    let workers = seen.iter().filter_map(|event| match event {
        Scanned::Worker(entry) => Some(entry),
        Scanned::Pool(_) => None,
    });
    workers.filter(|entry| entry.worker.key() == *key).max_by_key(|entry| entry.sequence).cloned()
}

#[tokio::test]
async fn a_scan_sees_every_worker_of_its_pool_as_it_stands_and_no_other_pool() {
    let log = Log::new().await;
    let (a, b) = (worker("load", "a"), worker("load", "b"));
    log.claim(&a).await;
    log.claim(&b).await;
    let size = size("load", 1, PoolState::Sizing);
    let sized = log.journal.append_pool(&size, 0, &writer("r.1")).await.unwrap();
    let a_stands = log.step(&a, created()).await;
    let b_stands = log.step(&b, Step::TakeOver).await;
    let elsewhere = log.claim(&worker("other", "a")).await;

    let (seen, last) = log.scanned("load").await;
    assert_eq!(last, elsewhere.sequence, "of whatever pool");
    assert_eq!((newest_of(&seen, &a), newest_of(&seen, &b)), (Some(a_stands), Some(b_stands)));
    let own = Scanned::Pool(PoolEntry { record: size, sequence: sized, writer: writer("r.1") });
    assert!(seen.contains(&own), "{seen:?}");
    let places: Vec<u64> = seen
        .iter()
        .map(|event| match event {
            Scanned::Worker(entry) => entry.sequence,
            Scanned::Pool(entry) => entry.sequence,
        })
        .collect();
    assert!(places.is_sorted() && !places.contains(&elsewhere.sequence), "{places:?}");
}

#[tokio::test]
async fn a_scan_of_an_empty_pool_ends_at_once() {
    let log = Log::new().await;
    assert_eq!(log.scanned("load").await, (vec![], 0));
    let elsewhere = log.claim(&worker("other", "a")).await;
    assert_eq!(log.scanned("load").await, (vec![], elsewhere.sequence));
}

#[tokio::test]
async fn a_scan_of_many_workers_sees_each_while_the_log_goes_on() {
    let log = Log::new().await;
    let keys: Vec<WorkerKey> = (0..3000).map(|n| worker("load", &format!("w-{n}"))).collect();
    for some in keys.chunks(100) {
        futures_util::future::join_all(some.iter().map(|key| log.claim(key))).await;
    }
    let (scanned, ()) = futures_util::future::join(log.scanned("load"), async {
        for key in &keys[..200] {
            log.step(key, created()).await;
        }
    })
    .await;
    let seen: std::collections::HashSet<WorkerKey> = scanned
        .0
        .iter()
        .map(|event| match event {
            Scanned::Worker(entry) => entry.worker.key(),
            Scanned::Pool(_) => panic!("the pool has no event of its own"),
        })
        .collect();
    assert_eq!(seen.len(), keys.len());
}

#[tokio::test]
async fn a_pass_whose_consumer_is_gone_is_an_error_and_one_without_news_is_quiet() {
    let log = Log::new().await;
    log.claim(&worker("load", "a")).await;
    let (requests, stream) =
        (Requests::start(log.world.client.clone()).await.unwrap(), log.world.subjects.event_stream());
    let mut pass = Pass::begin(&requests, "$JS.API", &stream, &log.world.subjects.events_all()).await.unwrap();
    assert!(matches!(pass.next().await, Ok(Passed::Message(_, 1))));
    assert!(matches!(pass.next().await, Ok(Passed::Quiet)));
    let stream = log.world.jetstream.get_stream(&stream).await.unwrap();
    let names: Vec<String> = futures_util::TryStreamExt::try_collect(stream.consumer_names()).await.unwrap();
    for name in names {
        stream.delete_consumer(&name).await.unwrap();
    }
    let ended = async {
        loop {
            if let Err(error) = pass.next().await {
                return error;
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), ended).await.expect("not waited for without end");
}

#[tokio::test]
async fn a_place_in_the_log_tells_whose_event_it_has() {
    let log = Log::new().await;
    let (a, b) = (worker("load", "a"), worker("other", "b"));
    log.lived(&a).await;
    log.claim(&b).await;
    log.journal.append_pool(&size("other", 1, PoolState::Sizing), 0, &writer("r.1")).await.unwrap();
    let at = async |sequence| log.journal.event_at(sequence).await.unwrap();
    assert_eq!(at(1).await, Some(EventOf::Worker(a.clone())));
    assert_eq!(at(5).await, Some(EventOf::Worker(b)));
    assert_eq!(at(6).await, Some(EventOf::Pool(Pool::new("other").unwrap())));
    assert_eq!((at(0).await, at(7).await), (None, None));
    log.journal.purge(&a, 4).await.unwrap();
    assert_eq!(at(1).await, None);
}

#[tokio::test]
async fn a_purged_worker_is_gone_from_log_and_view_and_the_view_goes_on() {
    let log = Log::new().await;
    let (gone, stays) = (worker("load", "gone"), worker("load", "stays"));
    let stands = log.claim(&stays).await;
    let end = log.lived(&gone).await;
    log.shows(&end).await;
    log.journal.purge(&gone, end.sequence).await.unwrap();
    assert_eq!(log.journal.history(&gone).await.unwrap(), []);
    assert!(!log.is_shown(&gone).await);
    assert_eq!(newest_of(&log.scanned("load").await.0, &gone), None);
    log.shows(&stands).await;
    let next = log.step(&stays, created()).await;
    log.shows(&next).await;
    log.journal.purge(&gone, end.sequence).await.unwrap();
    log.journal.purge(&worker("load", "never-was"), 1000).await.unwrap();
    // The name is free again.
    let again = log.claim(&gone).await;
    assert_eq!(again.worker.rev, 1);
    log.shows(&again).await;
}

#[tokio::test]
async fn a_purge_leaves_what_is_newer_in_log_and_view() {
    let log = Log::new().await;
    let host = worker("load", "host");
    let end = log.lived(&host).await;
    let again = log.claim(&host).await;
    log.shows(&again).await;
    log.journal.purge(&host, end.sequence).await.unwrap();
    assert_eq!(log.journal.history(&host).await.unwrap(), std::slice::from_ref(&again));
    log.shows(&again).await;
    let next = log.step(&host, created()).await;
    log.shows(&next).await;
}

#[tokio::test]
async fn a_purged_worker_stays_gone_from_the_view_when_the_server_comes_back() {
    let log = Log::of(World::alone(LOAD).await).await;
    let stays: Vec<WorkerKey> = (0..3).map(|n| worker("load", &format!("stays-{n}"))).collect();
    let mut stand = Vec::new();
    for key in &stays {
        log.claim(key).await;
        stand.push(log.step(key, created()).await);
    }
    // The newest of the log, so that the view's own memory of how far it has come goes with its entry.
    let gone: Vec<WorkerKey> = (0..3).map(|n| worker("load", &format!("gone-{n}"))).collect();
    for key in &gone {
        let end = log.lived(key).await;
        log.shows(&end).await;
        log.journal.purge(key, end.sequence).await.unwrap();
    }
    log.restart(Ended::InGoodOrder).await;
    for key in &gone {
        assert!(!log.is_shown(key).await, "{key} is back");
    }
    for entry in &stand {
        log.shows(entry).await;
    }
    let next = log.step(&stays[0], Step::Terminate(EndedBy { command_id: None, reason: None })).await;
    log.shows(&next).await;
}

#[tokio::test]
async fn a_view_that_was_emptied_fills_again_when_the_server_comes_back() {
    let log = Log::of(World::alone(LOAD).await).await;
    let gone = worker("load", "gone");
    let end = log.lived(&gone).await;
    log.shows(&end).await;
    log.journal.purge(&gone, end.sequence).await.unwrap();
    log.restart(Ended::InGoodOrder).await;
    assert!(!log.is_shown(&gone).await);
    let again = log.claim(&gone).await;
    log.shows(&again).await;
}

#[tokio::test]
async fn a_purge_that_got_no_further_than_the_view_is_finished_by_the_next() {
    let log = Log::of(World::alone(LOAD).await).await;
    let stand = log.claim(&worker("load", "stays")).await;
    let gone = worker("load", "gone");
    let end = log.lived(&gone).await;
    log.shows(&end).await;
    let view = log.world.jetstream.get_stream(log.world.subjects.view_stream()).await.unwrap();
    view.purge().filter(log.world.subjects.view_of(&gone)).await.unwrap();
    log.restart(Ended::InGoodOrder).await;
    assert!(!log.is_shown(&gone).await, "the server does not fill the view with what it has had already");
    assert_eq!(newest_of(&log.scanned("load").await.0, &gone), Some(end.clone()), "the next purge finds it");
    log.journal.purge(&gone, end.sequence).await.unwrap();
    assert_eq!(newest_of(&log.scanned("load").await.0, &gone), None);
    log.shows(&stand).await;
}

/// A server that is killed reads its newest file of messages again. It finds there that the newest entry was purged, but
/// not that the one before had made way for it, and so shows the worker's last event but one. The log, where nothing makes
/// way, stays purged.
#[tokio::test]
async fn what_a_killed_server_shows_again_of_a_purged_worker_is_purged_again() {
    let log = Log::of(World::alone(LOAD).await).await;
    let stand = log.claim(&worker("load", "stays")).await;
    let gone = worker("load", "gone");
    let end = log.lived(&gone).await;
    log.shows(&end).await;
    log.journal.purge(&gone, end.sequence).await.unwrap();
    log.restart(Ended::Killed).await;
    assert_eq!(log.journal.history(&gone).await.unwrap(), []);
    assert_eq!(log.journal.event_at(end.sequence).await.unwrap(), None);
    log.journal.purge(&gone, end.sequence).await.unwrap();
    assert!(!log.is_shown(&gone).await);
    log.shows(&stand).await;
}

#[tokio::test]
async fn a_pool_s_own_record_is_compared_and_set_like_a_worker_s() {
    let log = Log::new().await;
    let (journal, pool) = (&log.journal, Pool::new("load").unwrap());
    assert_eq!(journal.pool_head(&pool).await.unwrap(), None);
    let (sizing, sized) = (size("load", 1, PoolState::Sizing), size("load", 2, PoolState::Sized));
    let first = journal.append_pool(&sizing, 0, &writer("r.1")).await.unwrap();
    // A worker's event, and another pool's, are not in its way.
    log.claim(&worker("load", "a")).await;
    journal.append_pool(&size("other", 1, PoolState::Sizing), 0, &writer("r.1")).await.unwrap();
    assert_eq!(journal.append_pool(&sizing, 0, &writer("r.2")).await, Err(AppendError::Conflict));
    assert_eq!(journal.append_pool(&sizing, 0, &writer("r.1")).await, Ok(first), "the very same write is stored");
    let second = journal.append_pool(&sized, first, &writer("r.1")).await.unwrap();
    let entry = |record, sequence| PoolEntry { record, sequence, writer: writer("r.1") };
    assert_eq!(journal.pool_head(&pool).await.unwrap(), Some(entry(sized.clone(), second)));
    assert_eq!(journal.pool_history(&pool).await.unwrap(), [entry(sizing, first), entry(sized, second)]);
}

#[tokio::test]
async fn who_begins_to_follow_later_sees_a_worker_that_was_taken_over_at_its_claim() {
    let log = Log::new().await;
    let (a, b) = (worker("load", "a"), worker("load", "b"));
    log.claim(&a).await;
    log.claim(&b).await;
    let newest = log.step(&a, Step::TakeOver).await;
    let (context, subjects) = (log.world.jetstream.clone(), log.world.subjects.clone());
    let follower = Follower::start(context, subjects, a.pool.clone(), true);
    let journal = {
        let requests = Requests::start(log.world.client.clone()).await.unwrap();
        NatsJournal::new(requests, log.world.subjects.clone(), None, [(a.pool.clone(), follower)])
    };
    assert!(journal.admits(&a, newest.sequence, 1).await.unwrap());
    assert!(!journal.admits(&b, newest.sequence, 1).await.unwrap());
}
