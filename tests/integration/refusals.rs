//! Commands that are not carried out: one dead letter each, with the bytes as they came, and nothing else.

use async_nats::HeaderMap;
use async_nats::jetstream::{AckKind, consumer::PullConsumer};
use enlist::domain::{Reason, Refusal, State, Verb};
use enlist::wire::command::{RegistrationOverrides, SpecOverrides};
use enlist::wire::dead_letter::DeadLetter;
use futures_util::StreamExt as _;
use jiff::{SignedDuration, Timestamp};

use crate::world::{Command, Event, LOAD, World, provision, terminate};

/// What became of one bad command in an otherwise idle fleet.
async fn refused(verb: Verb, body: impl Into<Vec<u8>>, command_id: &str, reason: Reason, part: &str) {
    let world = World::new(LOAD).await;
    let _replica = world.replica().await;
    let body = body.into();
    world.send_raw("load", verb, body.clone()).await;
    world.settled().await;
    let dead = world.only_dead().await;
    assert_eq!(dead.subject, format!("{}.dead.load.{}.{command_id}", world.prefix, verb.as_str()));
    assert_eq!(dead.reason(), reason, "{}", dead.detail());
    assert!(dead.detail().contains(part), "{part} is missing from {}", dead.detail());
    assert_eq!(dead.letter.subject, format!("{}.cmd.load.{}", world.prefix, verb.as_str()));
    assert_eq!((dead.letter.sequence, dead.letter.deliveries), (1, 1));
    assert_eq!(dead.letter.body, body, "the bytes as they came");
    // A provision that was refused by the clock, and not by its content, says so in the log: a try that is late finds it.
    let log = world.log().await;
    let by_the_clock = verb == Verb::Provision && reason == Reason::Expired;
    assert_eq!(log.len(), usize::from(by_the_clock), "{}", world.story().await);
    for Event { worker, .. } in log {
        let ended_by = worker.ended_by.unwrap();
        assert_eq!((worker.state, ended_by.reason.as_deref()), (State::Terminated, Some("expired")));
        assert_eq!(ended_by.command_id.unwrap().as_str(), command_id);
    }
    assert!(world.instances("load").await.is_empty());
    assert!(world.scheduler.journal().is_empty());
}

#[tokio::test]
async fn what_is_no_json_is_malformed() {
    refused(Verb::Provision, "{\"command_id\": ", "_", Reason::Malformed, "not JSON").await;
}

#[tokio::test]
async fn bytes_that_are_no_text_come_back_as_they_were() {
    refused(Verb::Provision, vec![0xff, 0x00, b'\r', b'\n', 0xfe], "_", Reason::Malformed, "UTF-8").await;
}

#[tokio::test]
async fn an_empty_command_is_malformed() {
    refused(Verb::Terminate, "", "_", Reason::Malformed, "JSON").await;
}

#[tokio::test]
async fn seventeen_levels_are_malformed() {
    let deep = format!("{{\"command_id\":\"c-1\",\"spec\":{}1{}}}", "[".repeat(16), "]".repeat(16));
    refused(Verb::Provision, deep, "_", Reason::Malformed, "16").await;
}

#[tokio::test]
async fn an_unknown_field_is_invalid_and_named() {
    let body = r#"{"command_id":"c-1","wroker_id":"w-1"}"#;
    refused(Verb::Provision, body, "c-1", Reason::Invalid, "wroker_id").await;
}

#[tokio::test]
async fn a_command_without_its_id_is_invalid() {
    refused(Verb::Provision, r#"{"worker_id":"w-1"}"#, "_", Reason::Invalid, "command_id").await;
}

#[tokio::test]
async fn a_worker_id_that_is_no_token_is_invalid_and_never_escaped() {
    for bad in ["w.1", "W1", "*", ">", "w 1", "-w", &"w".repeat(41)] {
        let body = format!(r#"{{"command_id":"c-1","worker_id":"{bad}"}}"#);
        refused(Verb::Terminate, body, "c-1", Reason::Invalid, "worker_id").await;
    }
}

#[tokio::test]
async fn a_command_id_that_is_no_token_is_invalid_and_stays_out_of_the_subject() {
    let body = r#"{"command_id":"c.1 >","worker_id":"w-1"}"#;
    refused(Verb::Provision, body, "_", Reason::Invalid, "command_id").await;
}

#[tokio::test]
async fn an_override_that_the_pool_does_not_allow_is_named() {
    let spec = SpecOverrides { image: Some("evil:1".into()), ..SpecOverrides::default() };
    let command = enlist::wire::command::ProvisionCommand { spec, ..provision("c-1", "w-1") };
    refused(Verb::Provision, command.encode(), "c-1", Reason::NotAllowed, "spec.image").await;
}

#[tokio::test]
async fn a_variable_that_steers_a_loader_is_not_allowed_though_the_pool_allows_variables() {
    let world = World::new(&format!("{LOAD}env = {{ PATH = \"/opt/bin\" }}\nallow = [\"env\"]\n")).await;
    let _replica = world.replica().await;
    let names = ["LD_PRELOAD", "PATH", "BASH_ENV", "https_proxy", "ENLIST_INSTANCE", "PYTHONPATH"];
    for (n, name) in names.into_iter().enumerate() {
        let body = format!(r#"{{"command_id":"c-{n}","spec":{{"env":{{"PORT":"1","{name}":"hunter2"}}}}}}"#);
        world.send_raw("load", Verb::Provision, body).await;
        world.settled().await;
        let dead = world.dead().await.pop().unwrap();
        assert_eq!(dead.reason(), Reason::NotAllowed, "{name}: {}", dead.detail());
        assert!(dead.detail().contains(&format!("found {name}, which steer")), "{}", dead.detail());
        assert!(!dead.detail().contains("hunter2"), "{}", dead.detail());
    }
    assert!(world.log().await.is_empty(), "{}", world.story().await);
    // The pool's own template may, and other variables are free.
    world
        .send_raw("load", Verb::Provision, r#"{"command_id":"ok","worker_id":"w-1","spec":{"env":{"PORT":"1"}}}"#)
        .await;
    world.reaches("w-1", "registered").await;
}

#[tokio::test]
async fn a_provision_that_starts_too_late_is_expired() {
    let past = Timestamp::now().checked_sub(SignedDuration::from_secs(60)).unwrap();
    let command = enlist::wire::command::ProvisionCommand { expires_at: Some(past), ..provision("c-1", "w-1") };
    refused(Verb::Provision, command.encode(), "c-1", Reason::Expired, "expires_at").await;
}

#[tokio::test]
async fn a_terminate_that_starts_too_late_is_expired() {
    let past = Timestamp::now().checked_sub(SignedDuration::from_secs(60)).unwrap();
    let command = enlist::wire::command::TerminateCommand { expires_at: Some(past), ..terminate("c-1", "w-1") };
    refused(Verb::Terminate, command.encode(), "c-1", Reason::Expired, "expires_at").await;
}

#[tokio::test]
async fn a_dead_letter_has_the_five_headers() {
    let world = World::new(LOAD).await;
    let _replica = world.replica().await;
    world.send_raw("load", Verb::Provision, "nonsense").await;
    world.settled().await;
    let stream = world.jetstream.get_stream(world.subjects.dead_stream()).await.unwrap();
    let stored = stream.get_raw_message(1).await.unwrap();
    let header = |name: &str| stored.headers.get(name).map(|value| value.as_str().to_owned()).unwrap_or_default();
    assert_eq!(header("Enlist-Reason"), "malformed");
    assert!(header("Enlist-Detail").starts_with("not JSON"), "{}", header("Enlist-Detail"));
    assert_eq!(header("Enlist-Subject"), format!("{}.cmd.load.provision", world.prefix));
    assert_eq!((header("Enlist-Sequence"), header("Enlist-Deliveries")), ("1".into(), "1".into()));
}

#[tokio::test]
async fn bad_messages_do_not_hold_up_good_ones() {
    let world = World::new(LOAD).await;
    let _replica = world.replica().await;
    for n in 0..50 {
        world.send_raw("load", Verb::Provision, format!("nonsense {n}")).await;
        world.send("load", &provision(&format!("c-{n}"), &format!("w-{n}"))).await;
    }
    world.settled().await;
    assert_eq!(world.dead().await.len(), 50, "{}", world.story().await);
    assert_eq!(world.instances("load").await.len(), 50);
}

#[tokio::test]
async fn a_command_in_a_cloudevent_is_carried_out() {
    let world = World::new(LOAD).await;
    let _replica = world.replica().await;
    let body = r#"{"specversion":"1.0","id":"1","source":"/a","type":"b","datacontenttype":"application/json",
        "data":{"command_id":"c-1","worker_id":"w-1"}}"#;
    world.send_raw("load", Verb::Provision, body).await;
    world.settled().await;
    assert_eq!(world.states("w-1").await, ["provisioning", "provisioned", "registered"]);
    assert_eq!(world.history("w-1").await[0].worker.command_id.as_str(), "c-1");
}

#[tokio::test]
async fn the_same_command_id_with_another_content_is_a_conflict() {
    let world = World::new(LOAD).await;
    let _replica = world.replica().await;
    world.send("load", &provision("c-1", "w-1")).await;
    world.settled().await;
    let log = world.log().await.len();
    let registration = RegistrationOverrides { max_retries: Some(7), ..RegistrationOverrides::default() };
    let other = enlist::wire::command::ProvisionCommand { registration, ..provision("c-1", "w-1") };
    world.send("load", &other).await;
    world.settled().await;
    let dead = world.only_dead().await;
    assert_eq!((dead.reason(), &dead.letter.body[..]), (Reason::Conflict, &other.body()[..]));
    assert!(dead.detail().contains("another content"), "{}", dead.detail());
    assert_eq!((world.log().await.len(), world.instances("load").await.len()), (log, 1));
}

#[tokio::test]
async fn another_command_on_a_taken_id_is_a_conflict() {
    let world = World::new(LOAD).await;
    let _replica = world.replica().await;
    world.send("load", &provision("c-1", "w-1")).await;
    world.settled().await;
    world.send("load", &provision("c-2", "w-1")).await;
    world.settled().await;
    let dead = world.only_dead().await;
    assert_eq!((dead.reason(), dead.subject), (Reason::Conflict, format!("{}.dead.load.provision.c-2", world.prefix)));
    assert!(dead.letter.refusal.detail.contains("belongs to command c-1"), "{}", dead.letter.refusal.detail);
    assert_eq!(world.states("w-1").await.len(), 3);
    assert_eq!(world.scheduler.registers().len(), 1);
}

#[tokio::test]
async fn a_command_that_is_refused_twice_leaves_one_dead_letter() {
    let world = World::new(LOAD).await;
    let _replica = world.replica().await;
    let body = r#"{"command_id":"c-1","unknown":1}"#;
    for _ in 0..3 {
        world.send_raw("load", Verb::Provision, body).await;
    }
    world.settled().await;
    assert_eq!(world.only_dead().await.letter.body, body);
}

#[tokio::test]
async fn a_copy_that_is_refused_for_another_reason_leaves_no_second_dead_letter() {
    let world = World::new(&format!("{LOAD}max_workers = 1\n")).await;
    let _replica = world.replica().await;
    world.send("load", &provision("c-first", "w-first")).await;
    world.settled().await;
    let command = provision("c-1", "w-1");
    world.send("load", &command).await;
    world.settled().await;
    // From here on the name is spent, and who asks for it finds more than a full pool.
    world.send("load", &terminate("t-1", "w-1")).await;
    world.settled().await;
    world.send("load", &command).await;
    world.settled().await;
    assert_eq!(world.only_dead().await.reason(), Reason::Quota);
}

#[tokio::test]
async fn a_command_that_was_refused_stays_refused_though_its_replica_died_before_the_ack() {
    let world = World::new(&format!("{LOAD}max_workers = 1\n")).await;
    world.replica().await.drain().await;
    let command = provision("c-1", "w-1");
    world.send("load", &command).await;
    // A replica finds the pool full, stores the dead letter, and dies; then the pool has room again.
    let pool = "load".parse().unwrap();
    let consumer: PullConsumer =
        world.jetstream.get_consumer_from_stream("provision", world.subjects.command_stream(&pool)).await.unwrap();
    let message = consumer.fetch().max_messages(1).messages().await.unwrap().next().await.unwrap().unwrap();
    let letter = DeadLetter {
        refusal: Refusal::new(Reason::Quota, "the pool is full"),
        subject: message.subject.to_string(),
        sequence: message.info().unwrap().stream_sequence,
        deliveries: 1,
        body: message.payload.clone(),
    };
    let mut headers = HeaderMap::new();
    letter.headers().into_iter().for_each(|(name, value)| headers.insert(name, value.as_str()));
    let subject = world.subjects.dead(&pool, Verb::Provision, Some(&command.command_id));
    world.jetstream.publish_with_headers(subject, headers, letter.body.clone()).await.unwrap().await.unwrap();
    message.ack_with(AckKind::Nak(None)).await.unwrap();

    let _replica = world.replica().await;
    world.settled().await;
    assert_eq!(world.only_dead().await.letter, letter);
    assert!(world.log().await.is_empty(), "no outcome beside the dead letter: {}", world.story().await);
    // The same command sent anew is another message, and the pool has room for it.
    world.send("load", &command).await;
    world.settled().await;
    assert_eq!(world.instances("load").await.len(), 1);
}
