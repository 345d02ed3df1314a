//! An hour of time-outs, reconnects and dead letters at speed leaves memory, descriptors and tasks where they were.

use std::net::SocketAddr;
use std::time::Duration;

use async_nats::{Client, Message, jetstream};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::integration::broker::Broker;
use crate::proxy::{Break, Link, Weather};
use crate::replica::Replica;
use crate::samples::{Sample, slope};
use crate::{minutes, say};

const PREFIX: &str = "leaks";
const POOL: &str = "p";
/// In each, a provision, a terminate and one or two commands that are none: some 7,000 commands a minute.
const TICK: Duration = Duration::from_millis(30);
/// A worker lives for so many ticks. Its registration has failed by then, and few are there to be offered again: a sweep
/// would wait for the scheduler once for each of them.
const LIFE: u64 = 40;
const CUT_EVERY: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Long enough for each kind of cut twice, and for the backlog that a half-open connection leaves.
const WARM_UP: Duration = Duration::from_secs(150);
const PATIENCE: Duration = Duration::from_secs(240);
/// What may be allocated at the end and was not at the first rest: tables do not shrink that have had to grow at a peak. A
/// leak of ten bytes for each time-out or dead letter would come to some 6 MiB in an hour.
const MOST_GROWTH_KIB: u64 = 1 << 10;
/// What the system counts is more: the allocator keeps pages of which a part was used at a peak, and how high the peaks are
/// is chance, since a cut decides how many commands lie waiting. It must not go on growing.
const MOST_RSS_KIB: u64 = 64 << 10;

type Figure = fn(&Sample) -> u64;

#[tokio::test]
#[ignore = "an hour: `make leaks`"]
async fn an_hour_of_trouble_leaves_memory_descriptors_and_tasks_where_they_were() {
    let length = minutes(60);
    let broker = Broker::process().await;
    let port = broker.url().rsplit(':').next().and_then(|port| port.parse().ok()).expect("its port");
    let link = Link::to(port).await;
    let client = async_nats::connect(broker.url()).await.expect("the broker answers");
    let _scheduler = silent_scheduler(&client).await;
    let folder = TempDir::with_prefix("enlist-leaks-").expect("a folder");
    let path = folder.path().join("enlist.toml");
    std::fs::write(&path, settings(&link.url())).expect("the settings");
    let (replica, taking) = Replica::spawn(&path, None);
    timeout(PATIENCE, taking).await.expect("it starts").expect("it takes commands");
    let (pid, http) = (replica.pid(), replica.http());
    let began = Instant::now();
    let mut trouble = Trouble::new(client, &link);
    say(&format!("a replica with pid {pid}: warm-up {WARM_UP:?}, then {length:?}\n{}", Sample::HEAD));

    trouble.go_on(WARM_UP, pid, http, began, &mut Vec::new()).await;
    let before = at_rest(&trouble, pid, http, began).await;
    say(&format!("{before}  at rest, warmed up"));
    let mut samples = Vec::new();
    trouble.go_on(length, pid, http, began, &mut samples).await;
    let after = at_rest(&trouble, pid, http, began).await;
    say(&format!("{after}  at rest, at the end"));

    let figures: [(&str, Figure); 5] = [
        ("rss KiB", |sample| sample.rss_kib),
        ("heap KiB", |sample| sample.heap_kib),
        ("descriptors", |sample| sample.descriptors),
        ("threads", |sample| sample.threads),
        ("tasks", |sample| sample.tasks),
    ];
    for (name, figure) in figures {
        let (from, to, slope) = (figure(&before), figure(&after), slope(&samples, figure));
        say(&format!("{name}: {from} at rest before, {to} after; {slope:+.1} an hour under load"));
    }
    let (timeouts, letters) = (after.timeouts - before.timeouts, after.dead_letters - before.dead_letters);
    let Trouble { cuts, .. } = trouble;
    say(&format!("time-outs {timeouts}, dead letters {letters}, cuts {cuts}"));
    replica.drained().await.expect("a drain in good order");
    assert!(timeouts > 0 && letters > 0, "nothing went wrong, which was the point");
    assert!(
        after.descriptors <= before.descriptors,
        "descriptors: {} and then {}",
        before.descriptors,
        after.descriptors
    );
    assert!(after.tasks <= before.tasks, "tasks: {} and then {}", before.tasks, after.tasks);
    assert!(before.heap_kib > 0, "the replica is of a build that does not count what it allocates");
    let growth = after.heap_kib.saturating_sub(before.heap_kib);
    assert!(growth <= MOST_GROWTH_KIB, "{growth} KiB more are allocated, at most {MOST_GROWTH_KIB} are chance");
    let rss = after.rss_kib;
    assert!(
        rss <= MOST_RSS_KIB,
        "{rss} KiB are resident, at most {MOST_RSS_KIB} are what the allocator keeps of peaks"
    );
}

/// A limit, so that the replica follows the log; a scheduler that has `register` and `unregister` and no list. What is kept of
/// a worker outlives an ack wait: a provision that a cut has held up so long must find that its terminate came first.
fn settings(url: &str) -> String {
    format!(
        "prefix = \"{PREFIX}\"\n[nats]\nurl = \"{url}\"\n[http]\nlisten = \"127.0.0.1:0\"\n\
         [scheduler]\nregister = \"{PREFIX}.scheduler.register\"\nunregister = \"{PREFIX}.scheduler.unregister\"\n\
         list = \"{PREFIX}.nobody.list\"\ntry_timeout = \"200ms\"\nunregister_timeout = \"300ms\"\n\
         [registration]\nmax_retries = 1\ntimeout = \"500ms\"\n\
         [sweep]\ninterval = \"1s\"\ngrace = \"1s\"\nretention = \"60s\"\n\
         [pools.{POOL}]\nprovider = \"null\"\nmax_workers = 100000\n"
    )
}

/// Hears every request and answers none.
async fn silent_scheduler(client: &Client) -> JoinHandle<()> {
    let mut requests = client.subscribe(format!("{PREFIX}.scheduler.*")).await.expect("subscribed");
    client.flush().await.expect("flushed");
    tokio::spawn(async move { while requests.next().await.is_some() {} })
}

struct Trouble<'a> {
    client: Client,
    link: &'a Link,
    /// Ticks so far.
    ticks: u64,
    cuts: u64,
}

impl<'a> Trouble<'a> {
    fn new(client: Client, link: &'a Link) -> Self {
        Self { client, link, ticks: 0, cuts: 0 }
    }

    /// Commands and cuts for so long, with a look every ten seconds.
    async fn go_on(&mut self, long: Duration, pid: u32, http: SocketAddr, began: Instant, samples: &mut Vec<Sample>) {
        let until = Instant::now() + long;
        let [mut ticks, mut cuts, mut looks] = [TICK, CUT_EVERY, LOOK_EVERY].map(interval);
        for timer in [&mut ticks, &mut cuts, &mut looks] {
            timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
            timer.reset();
        }
        while Instant::now() < until {
            tokio::select! {
                _ = ticks.tick() => self.tick().await,
                _ = cuts.tick() => self.cut(),
                _ = looks.tick() => {
                    let sample = Sample::take(began.elapsed(), pid, http).await;
                    say(&sample.to_string());
                    samples.push(sample);
                    self.forget().await;
                }
            }
        }
        self.link.set(Weather::Clear);
        // Those that still live.
        for number in self.ticks.saturating_sub(LIFE)..self.ticks {
            self.end(number).await;
        }
        self.ticks += LIFE;
    }

    async fn tick(&mut self) {
        let number = self.ticks;
        self.ticks += 1;
        self.send("provision", json!({ "command_id": format!("c-{number}"), "worker_id": format!("w-{number}") }))
            .await;
        if let Some(old) = number.checked_sub(LIFE) {
            self.end(old).await;
        }
        for kind in [number % 6, 6 + number % 2] {
            self.nonsense(number, kind).await;
        }
    }

    async fn end(&self, number: u64) {
        let (command, worker) = (format!("t-{number}"), format!("w-{number}"));
        self.send(
            "terminate",
            json!({ "command_id": command, "worker_id": worker, "force": number.is_multiple_of(2) }),
        )
        .await;
    }

    /// A command that becomes a dead letter, or every second time none.
    async fn nonsense(&self, number: u64, kind: u64) {
        let id = format!("x-{number}-{kind}");
        let deep = format!("{{\"command_id\":{}{}}}", "[".repeat(20), "]".repeat(20));
        let (verb, body) = match kind {
            0 => ("provision", "{".to_owned()),
            1 => ("terminate", json!({ "command_id": id }).to_string()),
            2 => ("provision", json!({ "command_id": id, "colour": "red" }).to_string()),
            3 => ("provision", deep),
            4 => ("pool", json!({ "command_id": id, "size": -1 }).to_string()),
            5 => ("provision", json!({ "command_id": id, "worker_id": "No Name" }).to_string()),
            6 => ("provision", json!({ "command_id": id, "spec": { "image": "not:allowed" } }).to_string()),
            _ => return,
        };
        self.publish(verb, body).await;
    }

    async fn send(&self, verb: &str, body: Value) {
        self.publish(verb, body.to_string()).await;
    }

    async fn publish(&self, verb: &str, body: String) {
        self.client.publish(format!("{PREFIX}.cmd.{POOL}.{verb}"), body.into()).await.expect("sent");
    }

    /// Mostly a reset; each minute a connection that is half-open, and a black hole.
    fn cut(&mut self) {
        self.cuts += 1;
        self.link.set(Weather::Clear);
        match self.cuts % 12 {
            0 => self.link.break_now(Break::HalfOpen),
            6 => self.link.set(Weather::Blackhole),
            9 => self.link.set(Weather::Delay(Duration::from_millis(100))),
            _ => self.link.break_now(Break::Reset),
        }
    }

    /// The broker need not keep the dead letters of an hour.
    async fn forget(&self) {
        let stream = jetstream::new(self.client.clone()).get_stream(format!("{}_DEAD", PREFIX.to_uppercase())).await;
        let _ = stream.expect("the dead letters").purge().await;
    }

    /// Which subjects a stream has, for whoever has to find out why.
    async fn subjects(&self, stream: &str) -> Value {
        let asked = json!({ "subjects_filter": ">" }).to_string();
        let reply = self.client.request(format!("$JS.API.STREAM.INFO.{stream}"), asked.into()).await;
        let mut info: Value = serde_json::from_slice(&reply.expect("an answer").payload).expect("JSON");
        info["state"]["subjects"].take()
    }

    /// Who is live in a log, by the names of its subjects.
    async fn workers(&self, log: &str) -> Vec<String> {
        let subjects = self.subjects(log).await;
        let subjects: Vec<&str> = subjects.as_object().into_iter().flatten().map(|(subject, _)| &**subject).collect();
        let has_begun = subjects.iter().filter_map(|subject| subject.strip_suffix(".provisioning"));
        let lives = has_begun.filter(|worker| !subjects.contains(&&*format!("{worker}.terminating")));
        lives.filter_map(|worker| worker.rsplit('.').next()).map(ToOwned::to_owned).collect()
    }

    async fn messages(&self, stream: &str) -> u64 {
        let reply: Message =
            self.client.request(format!("$JS.API.STREAM.INFO.{stream}"), "".into()).await.expect("an answer");
        let info: Value = serde_json::from_slice(&reply.payload).expect("JSON");
        info["state"]["messages"].as_u64().expect("a number")
    }
}

/// Waits until nothing is to be done and nothing is remembered, and takes the least of some looks: at any one of them a sweep
/// may be under way.
async fn at_rest(trouble: &Trouble<'_>, pid: u32, http: SocketAddr, began: Instant) -> Sample {
    let (queue, log) = (format!("{}_CMD_{POOL}", PREFIX.to_uppercase()), format!("{}_EVENTS", PREFIX.to_uppercase()));
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (queued, idle, events) =
            (trouble.messages(&queue).await, Sample::idle(http).await, trouble.messages(&log).await);
        // A sweep of each second may lie in the queue.
        if queued <= 1 && idle && events == 0 {
            break;
        }
        // A provision that two cuts in a row have held up has come after all that was known of its end.
        for worker in trouble.workers(&log).await.into_iter().filter(|_| idle && queued <= 1) {
            let id = format!("late-{}-{worker}", began.elapsed().as_secs());
            trouble.send("terminate", json!({ "command_id": id, "worker_id": worker })).await;
        }
        let left = format!("{queued} commands in the queue, idle is {idle}, {events} events are not purged");
        if Instant::now() > deadline {
            let letters = trouble.subjects(&format!("{}_DEAD", PREFIX.to_uppercase())).await;
            let subjects = trouble.subjects(&log).await;
            panic!("no rest within {PATIENCE:?}: {left}: {subjects}; dead letters {letters}");
        }
        sleep(Duration::from_secs(10)).await;
    }
    let mut least = Sample::take(began.elapsed(), pid, http).await;
    for _ in 0..20 {
        sleep(Duration::from_millis(500)).await;
        let sample = Sample::take(began.elapsed(), pid, http).await;
        least = Sample {
            rss_kib: least.rss_kib.min(sample.rss_kib),
            heap_kib: least.heap_kib.min(sample.heap_kib),
            descriptors: least.descriptors.min(sample.descriptors),
            threads: least.threads.min(sample.threads),
            tasks: least.tasks.min(sample.tasks),
            ..sample
        };
    }
    least
}
