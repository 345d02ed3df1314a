//! Prints every event once, in order, and misses none, whenever it runs: `cargo run --example subscribe -- NAME`. The
//! server keeps a place in the log under that name; `NATS_URL` and `ENLIST_PREFIX` where they are not the usual ones.

use std::env::{args, var};

use async_nats::jetstream::{self, consumer::pull};
use enlist::wire::event;
use futures_util::StreamExt as _;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let name = args().nth(1).unwrap_or_else(|| "audit".to_owned());
    let prefix = var("ENLIST_PREFIX").unwrap_or_else(|_| "enlist".to_owned());
    let client = async_nats::connect(var("NATS_URL").unwrap_or_else(|_| "nats://127.0.0.1:4222".to_owned())).await?;

    let stream = jetstream::new(client).get_stream(format!("{}_EVENTS", prefix.to_uppercase())).await?;
    let config = pull::Config {
        durable_name: Some(name.clone()),
        // One at a time: a second event of a worker is not begun before the first is done.
        max_ack_pending: 1,
        ..pull::Config::default()
    };
    let consumer = stream.get_or_create_consumer(&name, config).await?;
    // Asks again in time, and again after the connection was away.
    loop {
        let mut messages = consumer.messages().await?;
        while let Some(Ok(message)) = messages.next().await {
            let sequence = message.info().map_err(anyhow::Error::from_boxed)?.stream_sequence;
            match event::decode(&message.payload) {
                Ok(worker) => println!("{sequence} {} {}", worker.key(), worker.state.as_str()),
                Err(_) => println!("{sequence} {}", message.subject), // A pool's own event.
            }
            // Only now: a crash before this brings the event again, and a crash after it does not. Whoever stores what an
            // event says, stores `sequence` beside it, and passes over one that it has.
            message.double_ack().await.map_err(anyhow::Error::from_boxed)?;
        }
    }
}
