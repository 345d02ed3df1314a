//! The yardstick: the same writes, compared and set, the same request and the same ack, and nothing else.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_nats::{Client, HeaderMap, HeaderValue, Request};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use crate::bus::connection::Connection;
use crate::bus::subjects::Subjects;
use crate::domain::{Pool, State, Verb, WorkerId, WorkerKey};
use crate::wire::publish::PubAck;

/// Some 300 bytes, as the benchmark behind the target has them.
const RECORD: &[u8] = &[b'x'; 300];

/// Works `commands` off with `in_hand` at once, and says how long each took.
pub(super) async fn run(
    connection: &Connection,
    subjects: &Subjects,
    pool: &Pool,
    register: String,
    commands: usize,
    in_hand: usize,
) -> anyhow::Result<Vec<Duration>> {
    let context = async_nats::jetstream::new(connection.client.clone());
    let consumer: async_nats::jetstream::consumer::PullConsumer = context
        .get_consumer_from_stream(Verb::Provision.as_str(), subjects.command_stream(pool))
        .await
        .context("the bare sequence's consumer")?;
    let pull = (2 * in_hand).clamp(32, 2000);
    let mut messages = consumer.stream().max_messages_per_batch(pull).messages().await?;
    let slots = Arc::new(Semaphore::new(in_hand));
    let (told, mut ends) = mpsc::unbounded_channel();
    let names = Arc::new((subjects.clone(), pool.clone(), register));
    let mut each = Vec::with_capacity(commands);
    let mut taken = 0;
    while taken < commands {
        let message = messages.next().await.context("the consumer has ended")??;
        let slot = Arc::clone(&slots).acquire_owned().await?;
        let (client, names, told) = (connection.client.clone(), Arc::clone(&names), told.clone());
        tokio::spawn(async move {
            let begun = Instant::now();
            let done = steps(&client, &names, &message).await;
            drop(slot);
            let _ = told.send(done.map(|()| begun.elapsed()));
        });
        taken += 1;
    }
    while each.len() < commands {
        each.push(ends.recv().await.context("a task has ended early")??);
    }
    Ok(each)
}

async fn steps(
    client: &Client,
    names: &(Subjects, Pool, String),
    message: &async_nats::jetstream::Message,
) -> anyhow::Result<()> {
    let (subjects, pool, register) = names;
    let command: serde_json::Value = serde_json::from_slice(&message.payload)?;
    let id = command["command_id"].as_str().context("a command without an id")?.to_ascii_lowercase();
    let key = WorkerKey::new(pool.clone(), WorkerId::new(id)?);
    let claimed = put(client, subjects, &key, State::Provisioning, 0).await?;
    let created = put(client, subjects, &key, State::Provisioned, claimed);
    let told = client.send_request(register.clone(), Request::new().payload(Bytes::from_static(RECORD)));
    let (created, _) = tokio::try_join!(created, async { Ok(told.await?) })?;
    put(client, subjects, &key, State::Registered, created).await?;
    let ack = message.message.reply.clone().context("a message without a reply subject")?;
    client.send_request(ack, Request::new().payload(Bytes::from_static(b"+ACK"))).await?;
    Ok(())
}

async fn put(client: &Client, subjects: &Subjects, key: &WorkerKey, state: State, after: u64) -> anyhow::Result<u64> {
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Expected-Last-Subject-Sequence", HeaderValue::from(after));
    headers.insert("Nats-Expected-Last-Subject-Sequence-Subject", subjects.events_of(key).as_str());
    let request = Request::new().headers(headers).payload(Bytes::from_static(RECORD));
    let reply = client.send_request(subjects.log(key, state), request).await?;
    Ok(PubAck::read(&reply.payload)?.sequence)
}
