//! The streams and consumers of a fleet looked at one by one, and nothing changed.

use std::time::Instant;

use super::{
    Keeper, Lane, ManageStreams, Pool, StreamsError, Subjects, api_prefix, commands, consumer, context, dead, events,
    view,
};
use crate::bus::connection::Connection;
use crate::text::cut;

/// An object and how it is.
#[derive(Debug)]
pub struct Inspected {
    /// `stream` or `consumer`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// As enlist needs it, or why not.
    pub found: Result<(), StreamsError>,
}

/// Compares everything under the fleet's prefix for these pools with what a start would make.
pub async fn inspect(
    connection: &Connection,
    domain: Option<&str>,
    subjects: &Subjects,
    pools: impl IntoIterator<Item = &Pool>,
    replicas: usize,
) -> Vec<Inspected> {
    let (context, since) = (context(connection, domain), Instant::now());
    let keeper = Keeper { context, connection, manage: ManageStreams::Never, since };
    let mut streams = vec![events(subjects, replicas), view(subjects, replicas), dead(subjects, replicas)];
    let pools: Vec<&Pool> = pools.into_iter().collect();
    streams.extend(pools.iter().map(|pool| commands(subjects, pool, replicas)));
    let api = api_prefix(domain);
    // Nobody answers one who may not ask: the server's complaint does.
    let forbidden = |kind: &str, name: &str, said: String| {
        let (action, cause) = (format!("look up {kind} {name}"), cut(&said, 300));
        Err(StreamsError::Server { action, cause, complaint: String::new() })
    };
    let mut inspected = Vec::new();
    for config in streams {
        let name = config.name.clone();
        let asked = format!("{api}.STREAM.INFO.{name}");
        let found = connection.unless_refused(Instant::now(), &[&asked], keeper.stream(config)).await;
        let found = found.unwrap_or_else(|said| forbidden("stream", &name, said));
        inspected.push(Inspected { kind: "stream", name, found });
    }
    for pool in pools {
        let stream = subjects.command_stream(pool);
        if inspected.iter().any(|one| one.name == stream && matches!(one.found, Err(StreamsError::Missing { .. }))) {
            continue;
        }
        for lane in Lane::ALL {
            let name = format!("{} on {stream}", lane.as_str());
            let asked = ["STREAM.INFO.", "CONSUMER.INFO."].map(|request| format!("{api}.{request}{stream}"));
            let asked = asked.each_ref().map(String::as_str);
            let found = keeper.consumer(&stream, consumer(subjects, pool, lane));
            let found = connection.unless_refused(Instant::now(), &asked, found).await;
            let found = found.unwrap_or_else(|said| forbidden("consumer", &name, said));
            inspected.push(Inspected { kind: "consumer", name, found });
        }
    }
    inspected
}
