//! Requests over one reply subscription, against a real server.

use std::time::Duration;

use async_nats::{Client, HeaderMap, Subscriber};
use bytes::Bytes;
use enlist::bus::requests::{RequestError, Requests};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use crate::broker::Broker;

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(100);

async fn connect(server: &Broker) -> (Client, Requests) {
    let client = async_nats::connect(server.url()).await.unwrap();
    let requests = Requests::start(client.clone()).await.unwrap();
    (client, requests)
}

/// Returns once the server knows the listener, also for those on other connections: `flush` alone only empties the
/// client's buffer, so the first message makes the round.
async fn listen(client: &Client, subject: &'static str) -> Subscriber {
    let mut subscriber = client.subscribe(subject).await.unwrap();
    client.publish(subject, text("listening")).await.unwrap();
    assert_eq!(subscriber.next().await.unwrap().payload, "listening");
    subscriber
}

async fn echo(client: Client, mut subscriber: Subscriber) {
    while let Some(message) = subscriber.next().await {
        client.publish(message.reply.unwrap(), message.payload).await.unwrap();
    }
}

fn text(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

#[tokio::test]
async fn a_reply_reaches_its_request_with_headers_and_without() {
    let server = Broker::process().await;
    let (client, requests) = connect(&server).await;
    let mut subscriber = listen(&client, "ask").await;
    let responder = async {
        let plain = subscriber.next().await.unwrap();
        assert!(plain.headers.is_none());
        client.publish(plain.reply.unwrap(), text("one")).await.unwrap();
        let with = subscriber.next().await.unwrap();
        assert_eq!(with.headers.unwrap().get("A").unwrap().as_str(), "b");
        client.publish(with.reply.unwrap(), text("two")).await.unwrap();
    };
    let asker = async {
        let mut headers = HeaderMap::new();
        headers.insert("A", "b");
        assert_eq!(requests.send("ask", None, text("?"), LONG).await.unwrap().payload, "one");
        assert_eq!(requests.send("ask", Some(headers), text("?"), LONG).await.unwrap().payload, "two");
    };
    tokio::join!(responder, asker);
    assert_eq!(requests.waiting(), 0);
}

#[tokio::test]
async fn a_subject_that_nobody_listens_on_is_told_at_once() {
    let server = Broker::process().await;
    let (_, requests) = connect(&server).await;
    assert_eq!(requests.send("nobody", None, text(""), LONG).await.unwrap_err(), RequestError::NoResponders);
    assert_eq!(requests.waiting(), 0);
}

#[tokio::test]
async fn a_request_that_times_out_or_is_dropped_leaves_nothing_behind() {
    let server = Broker::process().await;
    let (client, requests) = connect(&server).await;
    let _silent = listen(&client, "silent").await;
    assert_eq!(requests.send("silent", None, text(""), SHORT).await.unwrap_err(), RequestError::TimedOut);
    assert_eq!(requests.waiting(), 0);
    {
        let mut dropped = std::pin::pin!(requests.send("silent", None, text(""), LONG));
        assert!(futures_util::poll!(dropped.as_mut()).is_pending());
        assert_eq!(requests.waiting(), 1);
    }
    assert_eq!(requests.waiting(), 0);
}

#[tokio::test]
async fn a_late_reply_never_reaches_the_next_request_in_the_same_slot() {
    let server = Broker::process().await;
    let (client, requests) = connect(&server).await;
    let mut subscriber = listen(&client, "slow").await;
    assert_eq!(requests.send("slow", None, text("first"), SHORT).await.unwrap_err(), RequestError::TimedOut);
    let late = subscriber.next().await.unwrap().reply.unwrap();
    let responder = async {
        let second = subscriber.next().await.unwrap();
        client.publish(late, text("late")).await.unwrap();
        client.publish(second.reply.unwrap(), text("right")).await.unwrap();
    };
    let (reply, ()) = tokio::join!(requests.send("slow", None, text("second"), LONG), responder);
    assert_eq!(reply.unwrap().payload, "right");
    assert_eq!(requests.waiting(), 0);
}

#[tokio::test]
async fn ten_thousand_requests_at_once_each_get_their_own_reply() {
    let server = Broker::process().await;
    let (client, requests) = connect(&server).await;
    let subscriber = listen(&client, "echo").await;
    let responder = tokio::spawn(echo(client.clone(), subscriber));
    let mut all: FuturesUnordered<_> = (0..10_000)
        .map(|number: u32| {
            let requests = requests.clone();
            async move {
                let body = number.to_string();
                let reply = requests.send("echo", None, Bytes::from(body.clone()), LONG).await.unwrap();
                assert_eq!(reply.payload, body);
            }
        })
        .collect();
    while all.next().await.is_some() {}
    assert_eq!(requests.waiting(), 0);
    responder.abort();
}

#[tokio::test]
async fn what_cannot_be_sent_is_told_apart_from_a_broken_connection() {
    let server = Broker::process().await;
    let (client, requests) = connect(&server).await;
    let large = Bytes::from(vec![0; client.max_payload() + 1]);
    for (subject, body) in [("large", large), ("no good", text(""))] {
        let error = requests.send(subject, None, body, LONG).await.unwrap_err();
        assert!(matches!(error, RequestError::Unsendable(_)), "{error}");
    }
    assert_eq!(requests.waiting(), 0);
}

#[tokio::test]
async fn a_client_that_closes_fails_who_waits_and_who_comes_later() {
    let server = Broker::process().await;
    let (client, requests) = connect(&server).await;
    let other = async_nats::connect(server.url()).await.unwrap();
    let _silent = listen(&other, "silent").await;
    let closes = async {
        client.flush().await.unwrap();
        client.drain().await.unwrap();
    };
    let (waited, ()) = tokio::join!(requests.send("silent", None, text(""), LONG), closes);
    assert_eq!(waited.unwrap_err(), RequestError::Disconnected);
    assert_eq!(requests.send("silent", None, text(""), LONG).await.unwrap_err(), RequestError::Disconnected);
    assert_eq!(requests.waiting(), 0);
}

#[tokio::test]
async fn a_broker_that_is_away_costs_the_time_out_and_is_used_again_when_it_is_back() {
    let server = Broker::process().await;
    let (client, requests) = connect(&server).await;
    server.kill().await;
    assert_eq!(requests.send("echo", None, text(""), SHORT).await.unwrap_err(), RequestError::TimedOut);
    // More than the client's command channel holds: publishing itself blocks, and ends with the time-out too.
    let mut flood: FuturesUnordered<_> = (0..3_000).map(|_| requests.send("echo", None, text(""), SHORT)).collect();
    while let Some(ended) = flood.next().await {
        assert_eq!(ended.unwrap_err(), RequestError::TimedOut);
    }
    assert_eq!(requests.waiting(), 0);
    server.start_again().await;
    let other = async_nats::connect(server.url()).await.unwrap();
    let subscriber = listen(&other, "echo").await;
    let responder = tokio::spawn(echo(other, subscriber));
    assert_eq!(requests.send("echo", None, text("back"), LONG).await.unwrap().payload, "back");
    responder.abort();
    drop(client);
}

#[tokio::test]
async fn the_last_handle_takes_the_subscription_with_it() {
    let server = Broker::process().await;
    let (client, requests) = connect(&server).await;
    let mut spy = listen(&client, "spy").await;
    let handle = requests.clone();
    let asked = tokio::spawn(async move { handle.send("spy", None, text(""), LONG).await });
    let inbox = spy.next().await.unwrap().reply.unwrap();
    client.publish(inbox.clone(), text("")).await.unwrap();
    asked.await.unwrap().unwrap();
    drop(requests);
    // The abort and the unsubscribe take a turn of the runtime each: asked until the server knows no listener any more.
    let again = Requests::start(client.clone()).await.unwrap();
    let gone = async {
        while again.send(inbox.clone(), None, text(""), SHORT).await.err() != Some(RequestError::NoResponders) {}
    };
    tokio::time::timeout(LONG, gone).await.unwrap();
}
