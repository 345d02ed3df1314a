//! The pools of the settings as the verbs that look after them have them: the parts of a replica, of which none takes
//! commands.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Instant;

use super::orders::Orders;
use crate::bus::delivery::Desk;
use crate::config::{Config, ProviderConfig};
use crate::domain::Pool;
use crate::handle::OwnQueue;
use crate::journal::nats::NatsJournal;
use crate::registration::nats::NatsScheduler;
use crate::replica::StartError;
use crate::replica::parts::{self, PoolService};
use crate::service::sweep::SweepPoolConfig;

/// Why a verb does not begin.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotOurs {
    #[error("pool {0} is not in the settings, which say how it is looked after")]
    Unknown(Pool),
    #[error("no pool is named, and the settings have none")]
    None,
}

/// A pool in hand.
pub(super) struct Tended {
    pub(super) pool: Pool,
    pub(super) service: PoolService,
    pub(super) sweep: SweepPoolConfig,
    pub(super) queue: OwnQueue,
    /// Where its instances are looked for: somewhere else none of them is seen.
    pub(super) place: String,
}

/// The pools that are meant: those that are named, each once, or all of the settings.
pub(super) fn meant(config: &Config, named: &[Pool]) -> Result<Vec<Pool>, NotOurs> {
    let mut pools: Vec<Pool> = if named.is_empty() { config.pools.keys().cloned().collect() } else { named.to_vec() };
    pools.sort();
    pools.dedup();
    if pools.is_empty() { Err(NotOurs::None) } else { Ok(pools) }
}

/// The same, ready to be looked after from here; whether all of them can be.
pub(super) fn tended(config: &Config, orders: &Orders, named: &[Pool]) -> anyhow::Result<(Vec<Tended>, bool)> {
    let (mut all, mut seen) = (Vec::new(), true);
    for pool in meant(config, named)? {
        let settings = config.pools.get(&pool).ok_or_else(|| NotOurs::Unknown(pool.clone()))?;
        // Seen from here it is always empty, and every worker of it would be written off.
        if matches!(&settings.provider, ProviderConfig::Null(null) if null.state_file.is_none()) {
            eprintln!(
                "enlist: pool {pool} is not looked at: the instances of a null pool without a state_file are in its \
                 replica's memory, and known to it only; `enlist sweep {pool}` asks a replica"
            );
            seen = false;
            continue;
        }
        let service = service(config, orders, &pool)?;
        let desk = Arc::new(Desk {
            requests: orders.requests.clone(),
            subjects: orders.subjects.clone(),
            pool: pool.clone(),
            stream: orders.subjects.command_stream(&pool),
            api_prefix: orders.api_prefix.clone(),
        });
        let sweep = parts::sweep(config, &pool, settings);
        let place = place(config, &settings.provider);
        all.push(Tended { pool, service, sweep, queue: parts::own_queue(&desk), place });
    }
    Ok((all, seen))
}

/// What comes of a look at the log, or why the server does not let us look: it leaves that without an answer, for as long as
/// somebody waits for one.
pub(super) async fn readable<T, E: Display>(
    orders: &Orders,
    looked: impl Future<Output = Result<T, E>>,
) -> Result<T, String> {
    let log = orders.subjects.event_stream();
    let looked = orders.connection.unless_refused(Instant::now(), &[&log], looked).await;
    let advice =
        "whoever looks from here has to be allowed what a replica is; `enlist doctor` tells all that is missing";
    looked.map_err(|said| format!("{said}; {advice}"))?.map_err(|error| error.to_string())
}

fn place(config: &Config, provider: &ProviderConfig) -> String {
    let name = provider.name();
    match provider {
        ProviderConfig::Process => {
            let folder = &config.providers.process_state_dir;
            let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.clone());
            format!("{name}, {}", folder.display())
        }
        ProviderConfig::Docker => format!("{name}, {}", config.providers.docker_host),
        ProviderConfig::Nats(external) => format!("{name}, {}", external.subject("*")),
        ProviderConfig::Static { .. } | ProviderConfig::Null(_) => name.to_owned(),
    }
}

/// The log, without the counts that only a pool's limit needs.
pub(super) fn journal(config: &Config, orders: &Orders) -> NatsJournal {
    NatsJournal::new(orders.requests.clone(), orders.subjects.clone(), config.nats.domain.as_deref(), [])
}

fn service(config: &Config, orders: &Orders, pool: &Pool) -> Result<PoolService, StartError> {
    let scheduler = NatsScheduler::new(orders.requests.clone(), &config.scheduler);
    let client = &orders.connection.client;
    parts::service(config, pool, &config.pools[pool], client, journal(config, orders), scheduler)
}
