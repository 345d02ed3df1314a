//! What the user may do, subject by subject; nothing is changed by the tries.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;

use super::{Check, Orders, Ward};
use crate::bus::permitted::{self, Need, needed, refused};
use crate::bus::subjects::Subjects;
use crate::domain::{Lane, Pool, Verb};

/// A server that says no says it to the connection, and answers nobody.
const WITHIN: Duration = Duration::from_secs(1);

pub(super) async fn checks(ward: &Ward<'_>) -> Vec<Check> {
    let Ward { orders, pools, replica, .. } = ward;
    let mut checks = Vec::new();
    let mut needs = if *replica { of_a_replica(ward, pools) } else { of_a_client(ward, pools) };
    // Of several pools some have needs in common.
    let mut tried = BTreeSet::new();
    needs.retain(|need| tried.insert(need.subject.clone()));
    for need in &needs {
        let check = format!("may publish to {}", need.subject);
        checks.push(match refused(&orders.connection, &orders.requests, need, WITHIN).await {
            None => Check::ok(check, "allowed"),
            Some(said) => Check::fail(check, said, "add it to the user's publish permissions"),
        });
    }
    for subject in [orders.subjects.events_all(), orders.subjects.dead_all()] {
        checks.push(may_listen(ward, subject).await);
    }
    checks
}

/// What is needed at the start is needed with it; the rest is what commands and sweeps need.
fn of_a_replica(ward: &Ward<'_>, pools: &[Pool]) -> Vec<Need> {
    let orders = ward.orders;
    let (api, subjects) = (&orders.api_prefix, &orders.subjects);
    let mut needs = needed(subjects, api, pools);
    for pool in pools {
        let stream = subjects.command_stream(pool);
        for lane in Lane::ALL {
            // No query: the server says so, and hands no command out.
            let subject = format!("{api}.CONSUMER.MSG.NEXT.{stream}.{}", lane.as_str());
            needs.push(Need { subject, body: Bytes::from_static(b"{") });
        }
    }
    let log = subjects.event_stream();
    for subject in [format!("{api}.STREAM.MSG.GET.{log}"), format!("{api}.CONSUMER.CREATE.{log}")] {
        needs.push(Need { subject, body: Bytes::from_static(b"{") });
    }
    needs.extend(batches(subjects, api));
    needs
}

/// Whatever lists reads in batches: they are asked for on the stream's name alone.
fn batches(subjects: &Subjects, api: &str) -> [Need; 3] {
    [subjects.view_stream(), subjects.event_stream(), subjects.dead_stream()]
        .map(|stream| Need { subject: format!("{api}.DIRECT.GET.{stream}"), body: Bytes::from_static(b"{") })
}

fn of_a_client(ward: &Ward<'_>, pools: &[Pool]) -> Vec<Need> {
    let orders = ward.orders;
    let (api, subjects) = (&orders.api_prefix, &orders.subjects);
    let mut needs = Vec::new();
    for pool in pools {
        for verb in Verb::ALL {
            needs.push(Need { subject: subjects.command(pool, verb), body: Bytes::new() });
        }
    }
    needs.extend(batches(subjects, api));
    needs
}

async fn may_listen(ward: &Ward<'_>, subject: String) -> Check {
    let Orders { connection, requests, subjects, api_prefix, .. } = ward.orders;
    let check = format!("may subscribe to {subject}");
    match permitted::may_listen(connection, requests, subjects, api_prefix, [subject.clone()]).await {
        Ok(()) => Check::ok(check, "allowed"),
        Err(said) if said.contains(&subject) => Check::fail(check, said, "add it to the user's subscribe permissions"),
        // Who may not ask about the log cannot tell.
        Err(said) => Check::warn(check, format!("not known: {said}"), "try again"),
    }
}
