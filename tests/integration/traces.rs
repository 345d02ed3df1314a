//! A command's trace goes with it to the worker, to the scheduler and into the events; without one there is none.

use async_nats::jetstream::message::PublishMessage;
use async_nats::{HeaderMap, Subscriber};
use enlist::domain::{Step, TraceContext, Verb, Worker};
use enlist::journal::{Journal, Writer};
use futures_util::StreamExt as _;
use jiff::{SignedDuration, Timestamp};

#[cfg(feature = "crash-points")]
use crate::world::nameless;
use crate::world::{Command, Event, LOAD, ON_DEMAND, Tool, World, claim, provision, size, terminate};

const FIRST: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const SECOND: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
const STATE: &str = "congo=t61rcWkgMzE";

/// Workers that say what they find in their environment, and end with their world.
const TELLS: &str = "[pools.work]\nprovider = \"process\"\n\
    command = [\"sh\", \"-c\", \"echo $TRACEPARENT $TRACESTATE >{dir}/$ENLIST_WORKER_ID; exec cat {dir}/life\"]\n";

impl World {
    async fn send_in(&self, traceparent: &str, pool: &str, command: &impl Command) {
        let headers = HeaderMap::from_iter([("traceparent", traceparent), ("tracestate", STATE)].map(header));
        self.send_with(headers, pool, command.verb(), command.body()).await;
    }

    pub(crate) async fn send_with(&self, headers: HeaderMap, pool: &str, verb: Verb, body: Vec<u8>) {
        let message = PublishMessage::build().payload(body.into()).headers(headers);
        let subject = format!("{}.cmd.{pool}.{}", self.prefix, verb.as_str());
        self.jetstream.send_publish(subject, message).await.unwrap().await.unwrap();
    }

    async fn traces(&self, worker: &str) -> Vec<(&'static str, Option<String>)> {
        let events = self.history(worker).await;
        events.iter().map(|event| (event.worker.state.as_str(), trace_of(event))).collect()
    }
}

fn header((name, value): (&'static str, &str)) -> (async_nats::HeaderName, async_nats::HeaderValue) {
    (async_nats::HeaderName::from_static(name), value.into())
}

/// The attribute of an event, which is its header too.
fn trace_of(event: &Event) -> Option<String> {
    let header = |name: &str| event.headers.get(name).map(ToString::to_string);
    let attribute = event.json.get("traceparent").map(|text| text.as_str().unwrap().to_owned());
    assert_eq!(attribute, header("traceparent"), "{event:?}");
    assert_eq!(header("tracestate").is_some(), attribute.is_some(), "{event:?}");
    attribute
}

/// The trace of the next request that a scheduler gets.
async fn asked(requests: &mut Subscriber) -> Option<String> {
    let request = requests.next().await.expect("a request");
    request.headers.and_then(|headers| headers.get("traceparent").map(ToString::to_string))
}

fn all(states: &[&'static str], trace: Option<&str>) -> Vec<(&'static str, Option<String>)> {
    states.iter().map(|state| (*state, trace.map(ToOwned::to_owned))).collect()
}

const MADE: [&str; 3] = ["provisioning", "provisioned", "registered"];

#[tokio::test]
async fn a_command_s_trace_is_in_its_worker_in_the_requests_and_in_the_events() {
    let world = World::new(TELLS).await;
    let [mut registers, mut unregisters] = [
        world.client.subscribe(format!("sched.{}.register", world.prefix)).await.unwrap(),
        world.client.subscribe(format!("sched.{}.unregister", world.prefix)).await.unwrap(),
    ];
    let _replica = world.replica().await;
    world.send_in(FIRST, "work", &provision("c-1", "w-1")).await;
    world.reaches("w-1", "registered").await;
    assert_eq!(world.traces("w-1").await, all(&MADE, Some(FIRST)));
    assert_eq!(world.history("w-1").await[2].headers.get("tracestate").unwrap().as_str(), STATE);
    assert_eq!(asked(&mut registers).await.as_deref(), Some(FIRST));
    let found = world.until("a worker to tell", async || told(&world, "w-1")).await;
    assert_eq!(found, format!("{FIRST} {STATE}\n"));

    world.send_in(SECOND, "work", &terminate("t-1", "w-1")).await;
    world.reaches("w-1", "terminated").await;
    assert_eq!(world.traces("w-1").await[3..], all(&["terminating", "terminated"], Some(SECOND)));
    assert_eq!(asked(&mut unregisters).await.as_deref(), Some(SECOND));
}

#[tokio::test]
async fn a_command_without_a_trace_makes_none_up_nor_takes_another_s() {
    let world = World::new(TELLS).await;
    let [mut registers, mut unregisters] = [
        world.client.subscribe(format!("sched.{}.register", world.prefix)).await.unwrap(),
        world.client.subscribe(format!("sched.{}.unregister", world.prefix)).await.unwrap(),
    ];
    let _replica = world.replica().await;
    world.send("work", &provision("c-1", "w-1")).await;
    world.reaches("w-1", "registered").await;
    assert_eq!(world.traces("w-1").await, all(&MADE, None));
    assert_eq!(asked(&mut registers).await, None);
    assert_eq!(world.until("a worker to tell", async || told(&world, "w-1")).await, "\n");

    world.send_in(FIRST, "work", &provision("c-2", "w-2")).await;
    world.reaches("w-2", "registered").await;
    world.send("work", &terminate("t-2", "w-2")).await;
    world.reaches("w-2", "terminated").await;
    assert_eq!(world.traces("w-2").await[3..], all(&["terminating", "terminated"], None));
    assert_eq!(asked(&mut unregisters).await, None);
}

#[tokio::test]
async fn a_trace_that_is_none_is_passed_over_and_its_command_is_carried_out() {
    let world = World::new(LOAD).await;
    let _replica = world.replica().await;
    for (n, text) in
        ["", "00-1-2-01", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more"].iter().enumerate()
    {
        let name = format!("w-{n}");
        world.send_in(text, "load", &provision(&format!("c-{n}"), &name)).await;
        world.reaches(&name, "registered").await;
        assert_eq!(world.traces(&name).await, all(&MADE, None));
    }
}

#[tokio::test]
async fn a_request_s_trace_is_in_its_worker_s_events() {
    let world = World::new(LOAD).await;
    let _replica = world.replica().await;
    let headers = HeaderMap::from_iter([("traceparent", FIRST), ("tracestate", STATE)].map(header));
    let body = provision("c-1", "w-1").body();
    let request = async_nats::Request::new().payload(body.into()).headers(headers);
    world.client.send_request(format!("{}.srv.provision.load", world.prefix), request).await.unwrap();
    assert_eq!(world.traces("w-1").await, all(&["provisioning", "provisioned", "registered"], Some(FIRST)));
}

#[tokio::test]
async fn a_dead_letter_and_a_size_carry_the_trace_of_their_command() {
    let world = World::new(LOAD).await;
    let _replica = world.replica().await;
    // The name as publishers over HTTP write it.
    let headers = HeaderMap::from_iter([header(("Traceparent", FIRST))]);
    world.send_with(headers, "load", Verb::Provision, b"{}".to_vec()).await;
    world.settled().await;
    let stream = world.jetstream.get_stream(world.subjects.dead_stream()).await.unwrap();
    let letter = stream.get_raw_message(1).await.unwrap();
    assert_eq!(letter.headers.get("traceparent").map(async_nats::HeaderValue::as_str), Some(FIRST));

    // Whoever puts the command back puts it back into its trace.
    let said = world.run(&["dead", "replay", "1"]).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    world.settled().await;
    let letter = stream.get_raw_message(2).await.unwrap();
    assert_eq!(letter.headers.get("traceparent").map(async_nats::HeaderValue::as_str), Some(FIRST));

    world.send_in(SECOND, "load", &size("s-1", 1)).await;
    world.settled().await;
    let stream = world.jetstream.get_stream(world.subjects.event_stream()).await.unwrap();
    for state in ["sizing", "sized"] {
        let subject = format!("{}.events.load._.{state}", world.prefix);
        let event = stream.get_last_raw_message_by_subject(&subject).await.unwrap();
        let json: serde_json::Value = serde_json::from_slice(&event.payload).unwrap();
        assert_eq!(event.headers.get("traceparent").map(async_nats::HeaderValue::as_str), Some(SECOND));
        assert_eq!(json["traceparent"], SECOND);
    }
}

#[cfg(feature = "crash-points")]
#[tokio::test]
async fn a_trace_outlives_the_replica_that_had_its_command_in_hand() {
    let world = World::new(LOAD).await;
    let doomed = world.doomed(enlist::crash::CrashPoint::Created).await;
    world.send_in(FIRST, "load", &nameless("c-1")).await;
    assert_eq!(doomed.exit().await.0, None, "it died over it");
    let _replica = world.replica().await;
    world.settled().await;
    let events = world.log().await;
    assert!(events.len() > 3 && events.last().unwrap().worker.epoch == 2, "{}", world.story().await);
    assert!(events.iter().all(|event| trace_of(event).as_deref() == Some(FIRST)), "{}", world.story().await);
}

#[tokio::test]
async fn who_finishes_what_stood_still_goes_on_in_the_trace_of_the_record() {
    let world = World::new(&format!(
        "{ON_DEMAND}{LOAD}launch_timeout = \"100ms\"\ngrace = \"100ms\"\nregistration = {{ timeout = \"1s\" }}\n"
    ))
    .await;
    // Makes the streams.
    world.replica().await.drain().await;
    let Tool { service, sweep, .. } = world.tool("load").await;
    let made = world.stray("load", "w-1").await;
    let claimed = Step::Claim(Box::new(claim("load", "w-1")));
    let worker: Worker = claimed.apply(None, Timestamp::now() - SignedDuration::from_hours(1)).unwrap();
    let trace = TraceContext::read(FIRST, Some(STATE));
    let writer = Writer { name: "gone".into(), message: Some(7), claim: None, trace };
    service.journal().append(&worker, 0, &writer).await.unwrap();
    let mut registers = world.client.subscribe(format!("sched.{}.register", world.prefix)).await.unwrap();
    service.sweep_pool(&sweep, None, None).await.unwrap();
    let last = world.history("w-1").await.pop().unwrap();
    assert_eq!(
        (last.worker.state.as_str(), last.worker.instance_id.as_deref()),
        ("registered", Some(&*made.instance_id))
    );
    assert!(world.traces("w-1").await.iter().all(|(_, trace)| trace.as_deref() == Some(FIRST)));
    assert_eq!(asked(&mut registers).await.as_deref(), Some(FIRST));
}

/// What a worker has found in its environment, once it has said so.
fn told(world: &World, worker: &str) -> Option<String> {
    std::fs::read_to_string(world.path(worker)).ok().filter(|text| text.ends_with('\n'))
}
