//! `enlist drain`: one replica stops taking commands, finishes what it has in hand, and ends.

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout};

use super::orders::{self, Orders};
use super::output::{Format, OutputArgs, Sheet, printed, say, span};
use super::{Exit, Misused, told_to_stop};
use crate::bus::requests::RequestError;
use crate::config::Config;
use crate::srv::NAME;
use crate::text::cut;
use crate::wire::service::DrainReply;

/// Replicas that have not answered by then are not there.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is looked whether the replica has gone, and for how much longer than it may take.
const LOOK_EVERY: Duration = Duration::from_millis(250);
const LONGER: Duration = Duration::from_secs(10);

/// Arguments of `drain`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  enlist drain                             the replicas
  enlist drain HFG3kZ --wait               the one whose id begins so

What the replica has in hand it finishes within limits.drain; the rest goes back to the queue. Workers stay. Whatever keeps \
the replica running (systemd, Kubernetes) decides whether it starts again: its exit code is 0.")]
pub(super) struct DrainArgs {
    /// The replica, by its id or the beginning of it [default: list them]
    // An empty one, of a variable that is not set, would mean whichever is alone.
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    replica: Option<String>,
    /// Wait until it has gone
    #[arg(long, requires = "replica")]
    wait: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// A replica, as it tells of itself; what else it tells is passed over.
#[derive(Debug, Serialize, Deserialize)]
struct Replica {
    id: String,
    version: String,
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Metadata {
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    pools: String,
}

pub(super) async fn run(config: Config, args: &DrainArgs) -> Exit {
    printed(drain(&config, args).await)
}

async fn drain(config: &Config, args: &DrainArgs) -> anyhow::Result<bool> {
    let DrainArgs { replica, wait, output: OutputArgs { output } } = args;
    let orders = orders::connect(config, "enlist drain").await?;
    let begun = std::time::Instant::now();
    let replicas = replicas(&orders).await?;
    if let Some(complaint) = orders.connection.complaint_since(begun).filter(|_| replicas.is_empty()) {
        anyhow::bail!("no replica could be asked: {}; `enlist doctor` tells what is missing", cut(&complaint, 200));
    }
    let Some(wanted) = replica else { return list(&replicas, *output) };
    let found: Vec<&Replica> = replicas.iter().filter(|replica| replica.id.starts_with(wanted.as_str())).collect();
    let id = match found[..] {
        [one] => one.id.clone(),
        [] => anyhow::bail!(
            "no replica of fleet {} answers to {:?}; `enlist drain` lists them",
            config.prefix,
            cut(wanted, 60)
        ),
        _ => {
            let several =
                format!("{} replicas have an id that begins with {:?}: name more of it", found.len(), cut(wanted, 60));
            return Err(Misused(several).into());
        }
    };
    let subject = format!("{}.drain.{id}", orders.subjects.service());
    let reply = match orders.requests.send(subject, None, Bytes::new(), PATIENCE).await {
        Ok(reply) => reply,
        Err(RequestError::NoResponders) => anyhow::bail!("replica {id} has gone meanwhile"),
        Err(error) => anyhow::bail!("replica {id} has not answered: {error}; it may drain all the same"),
    };
    if let Some(error) = service_error(reply.headers.as_ref()) {
        anyhow::bail!("replica {id} does not drain: {error}");
    }
    let DrainReply { within_ms, .. } = serde_json::from_slice(&reply.payload)?;
    let within = Duration::from_millis(within_ms);
    say(format_args!("replica {id} drains: it finishes what it has in hand within {}, and ends", span(within)));
    if !wait {
        return Ok(true);
    }
    tokio::select! {
        gone = gone(&orders, &id, within + LONGER) => Ok(gone),
        () = told_to_stop() => {
            eprintln!("enlist: not waited for any more; the replica drains all the same");
            Ok(false)
        }
    }
}

fn list(replicas: &[Replica], output: Format) -> anyhow::Result<bool> {
    let mut sheet = Sheet::new(output, ["REPLICA", "VERSION", "POOLS"]);
    for replica in replicas {
        let Replica { id, version, metadata } = replica;
        sheet.row(|| [id.clone(), version.clone(), metadata.pools.replace(',', ", ")], replica)?;
    }
    if sheet.end()? == 0 && output == Format::Table {
        eprintln!("enlist: no replica answers; `enlist run` starts one");
    }
    Ok(true)
}

/// The fleet's replicas that answer.
async fn replicas(orders: &Orders) -> anyhow::Result<Vec<Replica>> {
    let client = &orders.connection.client;
    let inbox = client.new_inbox();
    let mut replies = client.subscribe(inbox.clone()).await?;
    client.publish_with_reply(format!("$SRV.INFO.{NAME}"), inbox, Bytes::new()).await?;
    let until = Instant::now() + PATIENCE;
    let mut found = Vec::new();
    while let Ok(Some(reply)) = timeout(ANSWER_WITHIN.min(until - Instant::now()), replies.next()).await {
        // Nobody listens.
        if reply.status.is_some() {
            break;
        }
        if let Ok(replica) = serde_json::from_slice::<Replica>(&reply.payload)
            && replica.metadata.prefix == orders.subjects.prefix().as_str()
        {
            found.push(replica);
        }
    }
    found.sort_by(|one, other| one.id.cmp(&other.id));
    Ok(found)
}

/// What a service says instead of an answer.
fn service_error(headers: Option<&HeaderMap>) -> Option<String> {
    let headers = headers?;
    let code = headers.get(async_nats::service::NATS_SERVICE_ERROR_CODE)?;
    let text = headers.get(async_nats::service::NATS_SERVICE_ERROR).map(ToString::to_string).unwrap_or_default();
    Some(format!("{} ({code})", cut(&text, 200)))
}

/// Whether the replica answers no more before `within` is over.
async fn gone(orders: &Orders, id: &str, within: Duration) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < within {
        let ping = orders.requests.send(format!("$SRV.PING.{NAME}.{id}"), None, Bytes::new(), PATIENCE).await;
        if matches!(ping, Err(RequestError::NoResponders)) {
            say(format_args!("replica {id} has gone after {}", span(begun.elapsed())));
            return true;
        }
        sleep(LOOK_EVERY).await;
    }
    eprintln!("enlist: replica {id} still answers after {}", span(within));
    false
}
