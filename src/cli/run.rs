//! `enlist run`: one replica, until it is told to stop.

use super::Exit;
use crate::bus::streams::StreamsError;
use crate::config::Config;
use crate::replica::{Replica, StartError};
use crate::telemetry::{install_metrics, keep_watchdog, notify_ready, notify_stopping, register_all};

/// Runs a replica until SIGTERM or SIGINT, then drains it.
pub(super) async fn run(config: Config) -> Exit {
    let metrics = install_metrics();
    register_all(&config);
    // Listens from the start on: a signal that comes before anybody listens ends the process without a drain.
    let mut stop = tokio::spawn(super::told_to_stop());
    let started = tokio::select! {
        started = Replica::start(&config, Some(metrics)) => started,
        _ = &mut stop => return Exit::Done,
    };
    let replica = match started {
        Ok(replica) => replica,
        Err(error) => {
            eprintln!("enlist: {error}");
            return exit_code(&error);
        }
    };
    let pools: Vec<&str> = config.pools.keys().map(crate::domain::Pool::as_str).collect();
    tracing::info!(
        prefix = %config.prefix, pools = pools.join(","), http = %replica.address(), version = env!("CARGO_PKG_VERSION"),
        "taking commands"
    );
    notify_ready();
    let watchdog = tokio::spawn(keep_watchdog());
    let asked = replica.drain_asked();
    tokio::select! {
        _ = stop => {}
        () = asked.cancelled() => tracing::info!("asked over NATS to drain"),
    }
    tracing::info!(within = ?config.limits.drain, "draining");
    notify_stopping();
    watchdog.abort();
    replica.drain().await;
    tracing::info!("stopped");
    Exit::Done
}

/// 69 where the broker is to blame, or somebody who may yet go; 78 where a setting is.
pub(super) fn exit_code(error: &StartError) -> Exit {
    match error {
        // Brokers between two leaders are away, too: whoever starts replicas must not take it for a mistake and give up.
        StartError::Connect(_) | StartError::Subscribe(_) | StartError::Streams(StreamsError::Away { .. }) => {
            Exit::Unavailable
        }
        // The one before may still have the address, and whoever starts replicas is to try again.
        StartError::Listen { error, .. } if error.kind() == std::io::ErrorKind::AddrInUse => Exit::Unavailable,
        StartError::Streams(_) | StartError::Provider { .. } | StartError::Token { .. } | StartError::Listen { .. } => {
            Exit::Config
        }
    }
}
