//! The streams and consumers: there, and as they have to be; and whether somebody serves the queues.

use std::time::Duration;

use serde_json::Value;

use super::{Check, Ward};
use crate::bus::streams::inspect::{Inspected, inspect};
use crate::bus::streams::{DUPLICATE_WINDOW, StreamsError};
use crate::domain::{Lane, Pool};

pub(super) async fn checks(ward: &Ward<'_>) -> Vec<Check> {
    let Ward { config, orders, pools, .. } = ward;
    let domain = config.nats.domain.as_deref();
    let inspected = inspect(&orders.connection, domain, &orders.subjects, pools, config.replicas).await;
    let mut checks: Vec<Check> = inspected.iter().map(told).collect();
    let found: Vec<&Inspected> = inspected.iter().filter(|one| one.kind == "stream" && one.found.is_ok()).collect();
    let (log, view) = (orders.subjects.event_stream(), orders.subjects.view_stream());
    let (mut log_ends, mut view_ends) = (None, None);
    for Inspected { name, .. } in found {
        if let Ok(info) = ward.api(&format!("STREAM.INFO.{name}"), b"").await {
            let end = info["state"]["last_seq"].as_u64();
            if *name == log {
                log_ends = end;
            } else if *name == view {
                view_ends = end;
            }
            checks.extend(full(name, &info));
            checks.extend(copies(name, &info));
            if name.contains("_CMD_") {
                checks.push(window(name, &info));
            }
        }
    }
    if let (Some(log_ends), Some(view_ends)) = (log_ends, view_ends) {
        checks.push(of_this_log(&view, view_ends, log_ends));
    }
    for pool in pools {
        checks.extend(served(ward, pool).await);
    }
    checks
}

/// The server goes on in the log where it was: of one that was made anew beneath the view, it shows nothing until that has
/// come as far as the old one had.
fn of_this_log(view: &str, taken: u64, log: u64) -> Check {
    let check = format!("log of {view}");
    if taken <= log {
        return Check::ok(check, format!("{taken} of {log} events taken"));
    }
    let found = format!("{taken} events taken, and the log ends at {log}: they are of an earlier one");
    let remedy =
        format!("remove the stream {view}, which holds nothing of its own, and start a replica: it makes it anew");
    Check::fail(check, found, remedy)
}

fn told(Inspected { kind, name, found }: &Inspected) -> Check {
    let check = format!("{kind} {name}");
    match found {
        Ok(()) => Check::ok(check, "as it has to be"),
        Err(StreamsError::Missing { .. }) => Check::fail(
            check,
            "missing",
            "a replica makes it when it starts with manage_streams = \"create\": enlist run",
        ),
        Err(StreamsError::Differs { differences, remedy, .. }) => {
            let differences: Vec<&str> = differences.lines().map(str::trim).collect();
            Check::fail(check, differences.join("; "), *remedy)
        }
        Err(error @ (StreamsError::Away { .. } | StreamsError::Server { .. })) => {
            Check::fail(check, error.to_string(), "wait for the cluster to have a leader, or give the user the right")
        }
    }
}

/// A limit that an operator has set beside enlist's own.
fn full(name: &str, info: &Value) -> Option<Check> {
    let most = info["config"]["max_bytes"].as_u64().filter(|most| *most > 0)?;
    let used = info["state"]["bytes"].as_u64()?;
    let found = format!("{used} of {most} bytes in use");
    let check = format!("room in {name}");
    Some(if used.saturating_mul(100) / most < 80 {
        Check::ok(check, found)
    } else {
        Check::warn(check, found, "raise max_bytes of the stream")
    })
}

/// Where there is a cluster: copies that trail, or are away.
fn copies(name: &str, info: &Value) -> Option<Check> {
    let cluster = info.get("cluster")?;
    let peers = cluster.get("replicas").and_then(Value::as_array).cloned().unwrap_or_default();
    let check = format!("copies of {name}");
    if cluster["leader"].as_str().unwrap_or_default().is_empty() {
        return Some(Check::fail(check, "no leader", "start the servers that are away"));
    }
    if peers.is_empty() {
        return None;
    }
    let bad = |peer: &&Value| peer["offline"].as_bool().unwrap_or(false) || !peer["current"].as_bool().unwrap_or(false);
    let bad: Vec<&str> = peers.iter().filter(bad).filter_map(|peer| peer["name"].as_str()).collect();
    Some(if bad.is_empty() {
        Check::ok(check, format!("{}, all of them current", peers.len() + 1))
    } else {
        Check::warn(check, format!("away, or trailing: {}", bad.join(", ")), "start them, or let them catch up")
    })
}

fn window(name: &str, info: &Value) -> Check {
    let found = Duration::from_nanos(info["config"]["duplicate_window"].as_u64().unwrap_or_default());
    let (check, expected) = (format!("duplicate window of {name}"), DUPLICATE_WINDOW);
    if found == expected {
        Check::ok(check, format!("{} s", found.as_secs()))
    } else {
        let remedy = format!("set it to {} s: a publisher may send a command again for so long", expected.as_secs());
        Check::fail(check, format!("{} s", found.as_secs()), remedy)
    }
}

/// Somebody waits for commands, or has some in hand.
async fn served(ward: &Ward<'_>, pool: &Pool) -> Option<Check> {
    let stream = ward.orders.subjects.command_stream(pool);
    let mut hands = 0;
    let mut waiting = 0;
    for lane in Lane::ALL {
        let info = ward.api(&format!("CONSUMER.INFO.{stream}.{}", lane.as_str()), b"").await.ok()?;
        hands += info["num_waiting"].as_u64()? + info["num_ack_pending"].as_u64()?;
        waiting += info["num_pending"].as_u64()?;
    }
    let check = format!("replicas of pool {pool}");
    Some(if hands > 0 {
        Check::ok(check, format!("they pull; {waiting} commands wait"))
    } else {
        Check::warn(check, format!("nobody pulls; {waiting} commands wait"), "start one that has the pool: enlist run")
    })
}
