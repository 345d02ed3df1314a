//! Sends the commands, each until a broker has said where it is stored.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::{HeaderMap, jetstream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use crate::checker::Command;
use crate::fleet::PREFIX;
use crate::orders::Order;

/// Commands on their way to the brokers at once.
const AT_ONCE: usize = 256;

/// A command, and when its PubAck came.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) pool: &'static str,
    pub(crate) command: Command,
    pub(crate) at: Instant,
}

#[derive(Clone)]
pub(crate) struct Publisher {
    context: jetstream::Context,
    sent: Arc<Mutex<Vec<Sent>>>,
    room: Arc<Semaphore>,
}

impl Publisher {
    pub(crate) fn new(client: async_nats::Client) -> Self {
        Self { context: jetstream::new(client), sent: Arc::default(), room: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Begins to send a command, whose number tells its messages from all others.
    pub(crate) async fn send(&self, number: usize, order: Order) {
        let room = self.room.clone().acquire_owned().await.expect("never closed");
        let this = self.clone();
        tokio::spawn(async move {
            this.until_stored(number, order).await;
            drop(room);
        });
    }

    /// Waits until everything is stored.
    pub(crate) async fn done(&self) {
        let all = u32::try_from(AT_ONCE).expect("a small number");
        drop(self.room.acquire_many(all).await.expect("never closed"));
    }

    pub(crate) fn sent(&self) -> Vec<Sent> {
        self.sent.lock().expect("no panic under this lock").clone()
    }

    async fn until_stored(&self, number: usize, order: Order) {
        let Order { pool, verb, id, worker, body } = order;
        let mut headers = HeaderMap::new();
        // The same each time: what is stored already is not stored again.
        headers.insert("Nats-Msg-Id", format!("{number}").as_str());
        let subject = format!("{PREFIX}.cmd.{pool}.{verb}");
        let sequence = loop {
            let stored = async {
                let sent = self.context.publish_with_headers(subject.clone(), headers.clone(), body.clone().into());
                sent.await.ok()?.await.ok()
            };
            match timeout(Duration::from_secs(5), stored).await {
                Ok(Some(ack)) => break ack.sequence,
                Ok(None) | Err(_) => sleep(Duration::from_millis(200)).await,
            }
        };
        let command = Command { sequence, verb, id, worker, body, acked: None };
        self.sent.lock().expect("no panic under this lock").push(Sent { pool, command, at: Instant::now() });
    }
}
