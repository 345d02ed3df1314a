//! Everything that needs a real broker, in one binary: it links once and shares what it starts.
// An unwrap that fails is how a test says so.
#![allow(clippy::unwrap_used)]

mod brakes;
mod broker;
mod cli;
mod containers;
mod dead;
mod doctor;
mod external;
mod foreign;
#[path = "../images/mod.rs"]
mod images;
mod journal;
mod large;
mod objects;
#[cfg(feature = "otlp")]
mod otlp;
mod outage;
mod page;
mod pools;
mod provision;
mod refusals;
mod registration;
mod repetition;
mod requests;
mod roles;
mod secrets;
mod secure;
mod sizes;
mod srv;
mod start;
mod sweep;
mod terminate;
mod traces;
mod verbs;
mod view;
mod watching;
mod world;

use async_nats::jetstream;
use broker::{Broker, Kind};

/// Stores one message and reads it back: a broker that can do this can do what enlist asks of it.
async fn holds_a_message(broker: &Broker) {
    let client = async_nats::connect(broker.url()).await.expect("the broker answers");
    let context = jetstream::new(client);
    let stream = context
        .create_stream(jetstream::stream::Config {
            name: "FRESH".into(),
            subjects: vec!["fresh.>".into()],
            ..Default::default()
        })
        .await
        .expect("JetStream is on");
    context.publish("fresh.one", "kept".into()).await.expect("sent").await.expect("stored");
    let kept = stream.get_last_raw_message_by_subject("fresh.one").await.expect("read back");
    assert_eq!(kept.payload, "kept");
}

#[tokio::test]
async fn a_fresh_broker_answers_and_has_jetstream() {
    holds_a_message(&Broker::start().await).await;
}

#[tokio::test]
async fn a_fresh_broker_process_answers_and_has_jetstream() {
    let broker = Broker::process().await;
    assert_eq!(broker.kind(), Kind::Process);
    holds_a_message(&broker).await;
}

#[tokio::test]
async fn a_broker_that_was_killed_comes_back_at_its_port_with_what_it_held() {
    let broker = Broker::process().await;
    let url = broker.url().to_owned();
    holds_a_message(&broker).await;
    broker.kill().await;
    assert!(async_nats::connect(&url).await.is_err(), "nobody answers while it is away");
    broker.start_again().await;
    let context = jetstream::new(async_nats::connect(&url).await.expect("the same port"));
    let mut stream = context.get_stream("FRESH").await.expect("the same store");
    assert_eq!(stream.info().await.expect("its state").state.messages, 1);
}

#[tokio::test]
async fn a_shared_broker_is_one_for_all_who_hold_it() {
    let (one, other) = tokio::join!(Broker::shared(), Broker::shared());
    assert_eq!(one.url(), other.url());
}
