//! Publishes a provision and waits for its outcome: `cargo run --example publish -- POOL`, with `NATS_URL` and
//! `ENLIST_PREFIX` where they are not the usual ones. Ends with 0 where the worker is there.

use std::env::{args, var};

use async_nats::{HeaderMap, jetstream};
use enlist::domain::{RegistrationStatus, State, Worker};
use enlist::wire::event;
use futures_util::{StreamExt as _, stream::select};
use serde_json::json;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let pool = args().nth(1).unwrap_or_else(|| "demo".to_owned());
    let prefix = var("ENLIST_PREFIX").unwrap_or_else(|_| "enlist".to_owned());
    let client = async_nats::connect(var("NATS_URL").unwrap_or_else(|_| "nats://127.0.0.1:4222".to_owned())).await?;

    // Any name that no other command has. The same name again does nothing twice, so that it may be sent again in doubt.
    let command_id = uuid::Uuid::new_v4().simple().to_string();
    // Before the command, so that nothing is missed.
    let events = client.subscribe(format!("{prefix}.events.{pool}.*.*")).await?;
    let dead = client.subscribe(format!("{prefix}.dead.{pool}.provision.{command_id}")).await?;

    let command = json!({ "command_id": command_id, "correlation_id": "an example" });
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Msg-Id", command_id.as_str());
    let subject = format!("{prefix}.cmd.{pool}.provision");
    let sent = jetstream::new(client).publish_with_headers(subject, headers, command.to_string().into()).await?;
    let ack = sent.await?; // An unknown pool is an error here.
    println!("command {command_id} is in the queue, number {}", ack.sequence);

    let mut news = select(events, dead);
    while let Some(message) = news.next().await {
        if let Some(headers) = message.headers.filter(|_| message.subject.contains(".dead.")) {
            let said = |name: &str| headers.get(name).map_or("", |value| value.as_str()).to_owned();
            anyhow::bail!("{}: {}", said("Enlist-Reason"), said("Enlist-Detail"));
        }
        // A pool's own events have another form: they are passed over.
        let Ok(worker) = event::decode(&message.payload) else { continue };
        if worker.command_id.as_str() == command_id && is_outcome(&worker) {
            println!("{} is {}", worker.worker_id, worker.state.as_str());
            anyhow::ensure!(!worker.state.is_final(), "{:?}", worker.error);
            return Ok(());
        }
    }
    anyhow::bail!("the connection was closed")
}

fn is_outcome(worker: &Worker) -> bool {
    match worker.state {
        State::Provisioning | State::Terminating => false,
        State::Provisioned => worker.registration.status == RegistrationStatus::Disabled,
        _ => true,
    }
}
