//! The NATS objects of section 2, field by field, and what becomes of those that are not as they have to be.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, Config as ConsumerConfig, DeliverPolicy};
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use enlist::replica::{Replica, StartError};
use futures_util::StreamExt as _;

use crate::world::{LOAD, World, provision};

async fn stream(world: &World, name: &str) -> Config {
    world.jetstream.get_stream(name).await.unwrap().cached_info().config.clone()
}

async fn consumer(world: &World, name: &str) -> ConsumerConfig {
    let stream = world.jetstream.get_stream(format!("{}_CMD_gpu-a", upper(world))).await.unwrap();
    stream.consumer_info(name).await.unwrap().config
}

fn upper(world: &World) -> String {
    world.prefix.as_str().to_uppercase()
}

const GPU: &str = "[pools.gpu-a]\nprovider = \"null\"\nstate_file = \"{dir}/null\"\n";

#[tokio::test]
async fn a_pool_s_queue_is_as_the_contract_says() {
    let world = World::new(GPU).await;
    world.replica().await;
    let found = stream(&world, &format!("{}_CMD_gpu-a", upper(&world))).await;
    let mut subjects = found.subjects.clone();
    subjects.sort();
    assert_eq!(
        subjects,
        ["pool", "provision", "sweep", "terminate"].map(|v| format!("{}.cmd.gpu-a.{v}", world.prefix))
    );
    assert_eq!((found.retention, found.storage), (RetentionPolicy::WorkQueue, StorageType::File));
    assert_eq!((found.discard, found.max_message_size), (DiscardPolicy::New, 65_536));
    assert_eq!((found.duplicate_window, found.num_replicas), (Duration::from_secs(120), 1));
    assert_eq!((found.max_age, found.max_messages_per_subject), (Duration::ZERO, -1));
    assert!(!found.allow_rollup && !found.allow_message_ttl && !found.allow_atomic_publish);
    assert!(!found.allow_message_schedules);
}

#[tokio::test]
async fn a_queue_s_consumers_are_as_the_contract_says() {
    let world = World::new(GPU).await;
    world.replica().await;
    for (name, verbs) in
        [("provision", &["provision"][..]), ("terminate", &["terminate"]), ("control", &["pool", "sweep"])]
    {
        let found = consumer(&world, name).await;
        let filters: Vec<String> = verbs.iter().map(|verb| format!("{}.cmd.gpu-a.{verb}", world.prefix)).collect();
        let one = (!found.filter_subject.is_empty()).then(|| found.filter_subject.clone());
        let mut all: Vec<String> = found.filter_subjects.iter().cloned().chain(one).collect();
        all.sort();
        assert_eq!(all, filters);
        assert_eq!(found.durable_name.as_deref(), Some(name));
        assert_eq!((found.ack_policy, found.ack_wait), (AckPolicy::Explicit, Duration::from_secs(30)));
        assert_eq!((found.max_deliver, found.max_ack_pending), (-1, 20_000));
        assert!(found.backoff.is_empty(), "the server's own backoff would change the ack wait");
        assert_eq!((found.deliver_policy, found.deliver_subject), (DeliverPolicy::All, None));
    }
}

#[tokio::test]
async fn the_log_the_view_and_the_dead_letters_are_as_the_contract_says() {
    let world = World::new(GPU).await;
    world.replica().await;
    let prefix = &world.prefix;

    let log = stream(&world, &format!("{}_EVENTS", upper(&world))).await;
    assert_eq!((log.retention, log.storage), (RetentionPolicy::Limits, StorageType::File));
    assert_eq!(log.subjects, [format!("{prefix}.log.*.*.*")]);
    let transform = log.subject_transform.unwrap();
    assert_eq!(transform.source, format!("{prefix}.log.*.*.*"));
    assert_eq!(
        transform.destination,
        format!("{prefix}.events.{{{{wildcard(1)}}}}.{{{{wildcard(2)}}}}.{{{{wildcard(3)}}}}")
    );
    let republish = log.republish.unwrap();
    assert_eq!(republish.source, republish.destination, "republished as they are");
    assert!(republish.source.starts_with(&format!("{prefix}.events.")) && !republish.headers_only);
    assert_eq!((log.max_age, log.max_messages_per_subject), (Duration::ZERO, 64));
    assert!(log.deny_delete);

    let view = stream(&world, &format!("KV_{prefix}_workers")).await;
    assert!(view.subjects.is_empty(), "nobody writes it");
    assert_eq!(view.max_messages_per_subject, 1);
    let sources = view.sources.unwrap();
    assert_eq!((sources.len(), &sources[0].name), (1, &format!("{}_EVENTS", upper(&world))));
    let transform = &sources[0].subject_transforms[0];
    assert_eq!(transform.source, format!("{prefix}.events.*.*.*"));
    assert_eq!(transform.destination, format!("$KV.{prefix}_workers.{{{{wildcard(1)}}}}.{{{{wildcard(2)}}}}"));

    let dead = stream(&world, &format!("{}_DEAD", upper(&world))).await;
    assert_eq!((dead.retention, dead.storage), (RetentionPolicy::Limits, StorageType::File));
    assert_eq!(dead.subjects, [format!("{prefix}.dead.*.*.*")]);
    assert_eq!(dead.max_age, Duration::from_secs(30 * 24 * 3600));
}

#[tokio::test]
async fn an_unknown_pool_or_verb_gets_no_puback() {
    let world = World::new(LOAD).await;
    world.replica().await;
    for subject in ["cmd.nowhere.provision", "cmd.load.resize", "cmd.load.provision.more", "cmd.load"] {
        let refused = world.try_send(&format!("{}.{subject}", world.prefix), "{}".into()).await.unwrap_err();
        assert!(refused.contains("no stream"), "{subject}: {refused}");
    }
}

#[tokio::test]
async fn a_command_over_64_kib_gets_no_puback() {
    let world = World::new(LOAD).await;
    world.replica().await;
    let subject = format!("{}.cmd.load.provision", world.prefix);
    let refused = world.try_send(&subject, vec![b' '; 65 * 1024].into()).await.unwrap_err();
    assert!(refused.contains("size"), "{refused}");
    assert_eq!(world.left("load").await, Some(0));
}

#[tokio::test]
async fn a_second_replica_starts_beside_the_first_and_changes_nothing() {
    let world = World::new(LOAD).await;
    world.replica().await;
    let names = ["EVENTS", "DEAD", "CMD_load"].map(|name| format!("{}_{name}", upper(&world)));
    let mut before = Vec::new();
    for name in &names {
        before.push(stream(&world, name).await);
    }
    world.replica().await;
    for (name, before) in names.iter().zip(before) {
        assert_eq!(stream(&world, name).await, before);
    }
}

#[tokio::test]
async fn ten_replicas_that_start_at_once_all_start() {
    let world = World::new(LOAD).await;
    let config = world.config();
    let all = futures_util::future::join_all((0..10).map(|_| Replica::start(&config, None))).await;
    for started in all {
        started.unwrap_or_else(|error| panic!("{error}"));
    }
}

/// The dead letters' stream, made by somebody who thought that a day is enough.
async fn short_lived_dead_letters(world: &World) -> Config {
    let config = Config {
        name: format!("{}_DEAD", upper(world)),
        subjects: vec![format!("{}.dead.*.*.*", world.prefix)],
        max_age: Duration::from_secs(24 * 3600),
        allow_direct: true,
        duplicate_window: Duration::from_secs(120),
        ..Config::default()
    };
    world.jetstream.create_stream(config.clone()).await.unwrap();
    config
}

#[tokio::test]
async fn a_stream_that_differs_stops_the_start_with_the_difference_printed() {
    let world = World::new(LOAD).await;
    short_lived_dead_letters(&world).await;
    let (code, said) = world.spawn().exit().await;
    assert_eq!(code, Some(78), "{said}");
    for part in ["_DEAD is not as enlist needs it", "max_age", "86400000000000", "2592000000000000", "manage_streams"] {
        assert!(said.contains(part), "{part} is missing from {said}");
    }
    let kept = stream(&world, &format!("{}_DEAD", upper(&world))).await;
    assert_eq!(kept.max_age, Duration::from_secs(24 * 3600), "nothing is changed");
}

#[tokio::test]
async fn update_mends_what_can_be_mended() {
    let world = World::new(&format!("manage_streams = \"update\"\n{LOAD}")).await;
    short_lived_dead_letters(&world).await;
    world.replica().await;
    assert_eq!(stream(&world, &format!("{}_DEAD", upper(&world))).await.max_age, Duration::from_secs(30 * 24 * 3600));
}

#[tokio::test]
async fn update_deletes_nothing_to_make_it_fit() {
    let world = World::new(&format!("manage_streams = \"update\"\n{LOAD}")).await;
    let subject = format!("{}.log.*.*.*", world.prefix);
    let theirs = Config {
        name: format!("{}_EVENTS", upper(&world)),
        subjects: vec![subject],
        // A work queue cannot be made a log.
        retention: RetentionPolicy::WorkQueue,
        ..Config::default()
    };
    world.jetstream.create_stream(theirs).await.unwrap();
    world.try_send(&format!("{}.log.a.b.c", world.prefix), "kept".into()).await.unwrap();
    let (code, said) = world.spawn().exit().await;
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("retention") && said.contains("never deletes"), "{said}");
    let stream = world.jetstream.get_stream(format!("{}_EVENTS", upper(&world))).await.unwrap();
    assert_eq!(stream.cached_info().state.messages, 1);
}

#[tokio::test]
async fn never_makes_nothing_and_starts_where_all_is_there() {
    let world = World::new(LOAD).await;
    let never = world.config_of("manage_streams = \"never\"\n[pools.load]\nprovider = \"null\"\n");
    let refused = Replica::start(&never, None).await.err().expect("nothing is there");
    assert!(matches!(refused, StartError::Streams(_)) && refused.to_string().contains("is missing"), "{refused}");
    assert!(world.jetstream.get_stream(format!("{}_EVENTS", upper(&world))).await.is_err(), "nothing is made");
    world.replica().await;
    world.replica_of(&never).await;
}

#[tokio::test]
async fn the_view_follows_the_log() {
    let world = World::new(LOAD).await;
    world.replica().await;
    world.send("load", &provision("c-1", "w-1")).await;
    let head = world.reaches("w-1", "registered").await.worker;
    let seen = world
        .until("the view to follow", async || world.view("load", "w-1").await.filter(|worker| worker.rev == head.rev))
        .await;
    assert_eq!(seen, head);
}

#[tokio::test]
async fn subscribers_see_each_stored_event_once_and_none_whose_compare_and_set_failed() {
    let world = World::new(LOAD).await;
    let mut feed = world.client.subscribe(format!("{}.events.>", world.prefix)).await.unwrap();
    let (_one, _two) = (world.replica().await, world.replica().await);
    // Copies of one command race for one worker, so that claims are refused.
    for n in 0..20 {
        for _ in 0..4 {
            world.send("load", &provision(&format!("c-{n}"), &format!("w-{n}"))).await;
        }
    }
    world.settled().await;
    let log = world.log().await;
    for event in &log {
        let seen = tokio::time::timeout(Duration::from_secs(20), feed.next()).await.expect("every event").unwrap();
        assert_eq!(
            (seen.subject.as_str(), serde_json::from_slice(&seen.payload).unwrap()),
            (&*event.subject, event.json.clone())
        );
    }
    // Whatever was published before this comes before it.
    world.client.publish(format!("{}.events.end", world.prefix), "".into()).await.unwrap();
    let last = feed.next().await.unwrap();
    assert!(last.subject.ends_with(".end"), "nobody saw {} in the log", last.subject);
}
