//! Hears what passes the brokers: every ack, and what enlist sends to itself. One ear at each server, so that what one of
//! them takes to its grave another has heard.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_nats::{Client, Message};
use futures_util::{StreamExt as _, stream::SelectAll};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant, sleep, timeout};

use crate::checker::{Acked, Command};
use crate::cluster::{Cluster, SERVERS};
use crate::watch::{deliveries_in, own, sequence_in};

/// Pool and place in its queue.
pub(crate) type Place = (String, u64);

/// An ack that was heard.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heard {
    pub(crate) at: Instant,
    /// How often the message had been delivered by then.
    pub(crate) deliveries: u64,
    /// How far the outcomes went a little later; none yet while no broker says.
    pub(crate) acked: Option<Acked>,
}

#[derive(Debug, Default)]
struct Memory {
    acks: BTreeMap<Place, Heard>,
    /// By pool, verb, id and body.
    own: BTreeMap<(String, &'static str, String, String), Command>,
}

pub(crate) struct Ears {
    memory: Arc<Mutex<Memory>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Ears {
    pub(crate) async fn open(cluster: &Cluster, prefix: &str, pools: &[&'static str]) -> Self {
        let memory: Arc<Mutex<Memory>> = Arc::default();
        let (news, places) = mpsc::unbounded_channel();
        let mut tasks = vec![tokio::spawn(look(cluster.client().await, prefix.to_uppercase(), memory.clone(), places))];
        for server in 0..SERVERS {
            let client = cluster.client_of(server).await;
            let mut heard = SelectAll::new();
            let mut subjects = vec![format!("{prefix}.cmd.*.*")];
            for pool in pools {
                // Both forms of an ack's subject: the longer one names domain and account first.
                let queue = format!("{}_CMD_{pool}", prefix.to_uppercase());
                subjects.extend([format!("$JS.ACK.{queue}.>"), format!("$JS.ACK.*.*.{queue}.>")]);
            }
            for subject in subjects {
                heard.push(client.subscribe(subject).await.expect("subscribed"));
            }
            client.flush().await.expect("flushed");
            let (memory, news, prefix, pools) = (memory.clone(), news.clone(), prefix.to_owned(), pools.to_vec());
            tasks.push(tokio::spawn(async move {
                while let Some(message) = heard.next().await {
                    note(&memory, &news, &prefix, &pools, &message);
                }
            }));
        }
        Self { memory, tasks }
    }

    pub(crate) fn acks(&self) -> BTreeMap<Place, Heard> {
        self.memory.lock().expect("no panic under this lock").acks.clone()
    }

    /// What enlist has sent to itself in a pool.
    pub(crate) fn own(&self, pool: &str) -> Vec<Command> {
        let memory = self.memory.lock().expect("no panic under this lock");
        memory.own.iter().filter(|((of, ..), _)| of == pool).map(|(_, command)| command.clone()).collect()
    }
}

impl Drop for Ears {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn note(
    memory: &Mutex<Memory>,
    news: &mpsc::UnboundedSender<Place>,
    prefix: &str,
    pools: &[&'static str],
    message: &Message,
) {
    let mut memory = memory.lock().expect("no panic under this lock");
    if let Some(rest) = message.subject.strip_prefix(&format!("{prefix}.cmd.")) {
        let Some(pool) = pools.iter().find(|pool| rest.starts_with(&format!("{pool}."))) else { return };
        if let Some(command) = own(message, pool) {
            let id = command.id.clone().unwrap_or_default();
            memory.own.entry(((*pool).to_owned(), command.verb, id, command.body.clone())).or_insert(command);
        }
        return;
    }
    if message.payload != "+ACK" {
        return;
    }
    for pool in pools {
        let queue = format!("{}_CMD_{pool}", prefix.to_uppercase());
        let Some(sequence) = sequence_in(&message.subject, &queue) else { continue };
        let place = ((*pool).to_owned(), sequence);
        if !memory.acks.contains_key(&place) {
            let deliveries = deliveries_in(&message.subject, &queue).unwrap_or(1);
            memory.acks.insert(place.clone(), Heard { at: Instant::now(), deliveries, acked: None });
            let _ = news.send(place);
        }
    }
}

/// Looks how far the outcomes went, soon after each ack, and never tells less than it knew.
async fn look(client: Client, upper: String, memory: Arc<Mutex<Memory>>, mut places: mpsc::UnboundedReceiver<Place>) {
    let (mut events, mut dead) = (0, 0);
    let mut waiting = Vec::new();
    while places.recv_many(&mut waiting, 1000).await > 0 {
        for (stream, known) in [("EVENTS", &mut events), ("DEAD", &mut dead)] {
            loop {
                if let Some(found) = last(&client, &format!("{upper}_{stream}")).await {
                    *known = found.max(*known);
                    break;
                }
                sleep(Duration::from_millis(100)).await;
            }
        }
        let mut memory = memory.lock().expect("no panic under this lock");
        for place in waiting.drain(..) {
            memory.acks.get_mut(&place).expect("noted").acked = Some(Acked { events, dead });
        }
    }
}

async fn last(client: &Client, stream: &str) -> Option<u64> {
    let info = client.request(format!("$JS.API.STREAM.INFO.{stream}"), "".into());
    let info = timeout(Duration::from_secs(2), info).await.ok()?.ok()?;
    serde_json::from_slice::<Value>(&info.payload).ok()?["state"]["last_seq"].as_u64()
}
