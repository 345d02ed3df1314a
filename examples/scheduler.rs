//! A scheduler that takes every worker: `cargo run --example scheduler -- [scheduler.workers]`, with `NATS_URL` where it
//! is not the usual one. What it knows is gone with it: the next sweep registers everybody again.

use std::collections::BTreeMap;
use std::env::{args, var};

use enlist::domain::{Pool, WorkerId};
use enlist::wire::scheduler::{
    ListReply, ListRequest, Listed, RegisterReply, RegisterRequest, UnregisterReply, UnregisterRequest,
};
use futures_util::StreamExt as _;

/// Workers on a page of the list.
const PAGE: usize = 500;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let root = args().nth(1).unwrap_or_else(|| "scheduler.workers".to_owned());
    let client = async_nats::connect(var("NATS_URL").unwrap_or_else(|_| "nats://127.0.0.1:4222".to_owned())).await?;
    let mut requests = client.queue_subscribe(format!("{root}.*"), "scheduler".to_owned()).await?;
    client.flush().await?;
    println!("ready");

    let mut workers: BTreeMap<(Pool, WorkerId), u64> = BTreeMap::new();
    while let Some(message) = requests.next().await {
        let answer = match message.subject.rsplit('.').next() {
            Some("register") => RegisterRequest::decode(&message.payload).map(|request| {
                let known = workers.entry((request.pool, request.worker_id)).or_default();
                // Another replica has taken the worker over since: this one is late, and must not undo what came after.
                let reply = if request.epoch < *known { RegisterReply::Already } else { RegisterReply::Accepted };
                *known = request.epoch.max(*known);
                reply.encode()
            }),
            Some("unregister") => UnregisterRequest::decode(&message.payload).map(|request| {
                // A real one lets the worker finish its work first, and answers `busy` meanwhile.
                let gone = workers.remove(&(request.pool, request.worker_id));
                gone.map_or(UnregisterReply::Unknown, |_| UnregisterReply::Accepted).encode()
            }),
            _ => ListRequest::decode(&message.payload).map(|ListRequest { pool, after }| {
                let name = |of: &Listed| format!("{}/{}", of.pool, of.worker_id);
                let all = workers.iter().map(|((of, worker), epoch)| (of.clone(), worker.clone(), *epoch));
                let mut left = all.map(|(pool, worker_id, epoch)| Listed { worker_id, pool, epoch }).filter(|one| {
                    pool.as_ref().is_none_or(|pool| *pool == one.pool)
                        && after.as_ref().is_none_or(|at| name(one) > *at)
                });
                let page: Vec<Listed> = left.by_ref().take(PAGE).collect();
                let next = left.next().and(page.last()).map(name);
                ListReply { workers: page, next }.encode()
            }),
        };
        if let (Some(reply), Ok(answer)) = (message.reply, answer) {
            client.publish(reply, answer.into()).await?;
        }
    }
    anyhow::bail!("the connection was closed")
}
