//! The streams and consumers of a fleet looked at one by one, and nothing changed.

use std::time::Instant;

use super::{
    Keeper, Lane, ManageStreams, Pool, StreamsError, Subjects, commands, consumer, context, dead, events, view,
};
use crate::bus::connection::Connection;

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
    let mut inspected = Vec::new();
    for config in streams {
        let name = config.name.clone();
        inspected.push(Inspected { kind: "stream", name, found: keeper.stream(config).await });
    }
    for pool in pools {
        let stream = subjects.command_stream(pool);
        if inspected.iter().any(|one| one.name == stream && matches!(one.found, Err(StreamsError::Missing { .. }))) {
            continue;
        }
        for lane in Lane::ALL {
            let name = format!("{} on {stream}", lane.as_str());
            let found = keeper.consumer(&stream, consumer(subjects, pool, lane)).await;
            inspected.push(Inspected { kind: "consumer", name, found });
        }
    }
    inspected
}
