//! The server: its version, its limits, its clock, and what JetStream has left.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tokio::time::Instant;

use super::{Check, Orders, Ward};
use crate::bus::connection::{OLDEST_SERVER, version};
use crate::bus::queues::queues;
use crate::wire::command::MAX_BYTES;

pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// The version from which on a fleet has been tried most.
const ADVISED: (u64, u64, u64) = (2, 14, 0);
/// A command, or its dead letter with all of its headers.
const ROOM: usize = MAX_BYTES + 16 * 1024;
/// Clocks that differ by more make `expires_at` and the sweep's grace mean something else.
const CLOCKS: Duration = Duration::from_secs(1);
const CLOCKS_AT_MOST: Duration = Duration::from_secs(30);

pub(super) async fn checks(ward: &mut Ward<'_>) -> Vec<Check> {
    let info = ward.orders.connection.client.server_info();
    let mut checks = vec![Check::ok("connection", ward.orders.url.clone())];
    let found = format!("nats-server {}", info.version);
    let dotted = |(major, minor, patch): (u64, u64, u64)| format!("{major}.{minor}.{patch}");
    checks.push(match version(&info.version) {
        Some(version) if version >= ADVISED => Check::ok("server version", found),
        Some(version) if version >= OLDEST_SERVER => {
            Check::warn("server version", found, format!("it will do; {} or later is advised", dotted(ADVISED)))
        }
        _ => Check::fail("server version", found, format!("update it to {} or later", dotted(OLDEST_SERVER))),
    });
    let found = format!("messages of up to {} bytes", info.max_payload);
    checks.push(if info.max_payload >= ROOM {
        Check::ok("message size", found)
    } else {
        Check::fail("message size", found, format!("set max_payload of the server to {ROOM} or more"))
    });
    match ward.api("INFO", b"").await {
        Ok(account) => checks.extend(room(&account)),
        Err(why) => checks.push(Check::warn(
            "JetStream of the account",
            why,
            format!("let the user publish to {}.INFO, so that limits can be seen", ward.orders.api_prefix),
        )),
    }
    if ward.pools.is_empty() {
        let Orders { connection, requests, subjects, api_prefix, .. } = ward.orders;
        match queues(connection, requests, subjects, api_prefix).await {
            Ok(pools) => ward.pools = pools,
            Err(error) => checks.push(Check::warn(
                "pools",
                error.to_string(),
                format!("let the user publish to {api_prefix}.STREAM.NAMES, or run it with a replica's settings"),
            )),
        }
    }
    checks.extend(clock(ward).await);
    checks
}

/// What the account has of each kind, and may have; below nothing is no limit.
fn room(account: &Value) -> Vec<Check> {
    let limits = &account["limits"];
    let all = [
        ("disk space of JetStream", &account["storage"], &limits["max_storage"], true),
        ("memory of JetStream", &account["memory"], &limits["max_memory"], true),
        ("number of streams", &account["streams"], &limits["max_streams"], false),
        ("number of consumers", &account["consumers"], &limits["max_consumers"], false),
    ];
    let told = |number: u64, bytes: bool| if bytes { size(number) } else { number.to_string() };
    let check = |(name, used, most, bytes): (&str, &Value, &Value, bool)| {
        let used = used.as_u64().unwrap_or_default();
        match most.as_i64().and_then(|most| u64::try_from(most).ok()).filter(|most| *most > 0) {
            None => Check::ok(name, format!("{} in use; the account sets no limit", told(used, bytes))),
            Some(most) => {
                let found = format!("{} of {} in use", told(used, bytes), told(most, bytes));
                let remedy = format!("raise the account's limit, or make room: {}", remedy(bytes));
                match used.saturating_mul(100) / most {
                    0..80 => Check::ok(name, found),
                    80..95 => Check::warn(name, found, remedy),
                    _ => Check::fail(name, found, remedy),
                }
            }
        }
    };
    all.into_iter().map(check).collect()
}

fn remedy(bytes: bool) -> &'static str {
    if bytes { "a shorter sweep.retention, enlist dead purge" } else { "remove what nobody uses" }
}

fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes, "bytes");
    for next in units {
        if value < 10 * 1024 {
            break;
        }
        (value, unit) = (value / 1024, next);
    }
    format!("{value} {unit}")
}

/// The difference between the server's clock and ours, by the middle of a request.
async fn clock(ward: &Ward<'_>) -> Option<Check> {
    let name = format!("STREAM.INFO.{}", ward.orders.subjects.event_stream());
    let (begun, before) = (Instant::now(), Timestamp::now());
    // Where there is no such stream another line says so.
    let theirs: Timestamp = ward.api(&name, b"").await.ok()?["ts"].as_str()?.parse().ok()?;
    let ours = before + (begun.elapsed() / 2);
    let difference = ours.duration_since(theirs).unsigned_abs();
    let millis = difference.as_millis();
    let found = format!("{millis} ms between this host's and the server's");
    let remedy = "set both by NTP: expires_at and sweep.grace are judged by the replicas' clocks";
    Some(if difference <= CLOCKS {
        Check::ok("clocks", found)
    } else if difference <= CLOCKS_AT_MOST {
        Check::warn("clocks", found, remedy)
    } else {
        Check::fail("clocks", found, remedy)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Verdict;
    use super::*;

    #[test]
    fn an_account_that_is_nearly_full_is_told_before_it_is_full() {
        let disk = |used: u64, most: i64| {
            let account = json!({ "storage": used, "limits": { "max_storage": most, "max_memory": -1 } });
            room(&account).swap_remove(0).result
        };
        assert_eq!([disk(79, 100), disk(80, 100), disk(95, 100)], [Verdict::Ok, Verdict::Warn, Verdict::Fail]);
        assert_eq!([disk(1 << 40, -1), disk(1 << 40, 0)], [Verdict::Ok; 2], "no limit");
        assert_eq!([size(900), size(20_480), size(5 << 30)], ["900 bytes", "20 KiB", "5120 MiB"]);
    }
}
