//! The pools of a run and their settings.

use std::collections::BTreeSet;
use std::time::Duration;

use enlist::WorkerManagementConfig;
use enlist::config::{NullConfig, Override, PoolConfig, ProviderConfig};
use enlist::domain::{Pool, WorkerId, WorkerSpec};
use enlist::registration::RegistrationConfig;
use enlist::service::sweep::SweepPoolConfig;

use super::dice::Dice;

/// A provision with this label ends the replica that carries it out, each time.
pub(crate) const POISON: &str = "poison";

/// One pool.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) pool: Pool,
    pub(crate) hosts: Option<Vec<WorkerId>>,
    pub(crate) config: WorkerManagementConfig,
    pub(crate) template: PoolConfig,
    pub(crate) sweep: SweepPoolConfig,
}

impl Settings {
    /// Three pools: one without a limit, one that is soon full, and one of hosts.
    pub(crate) fn of(dice: &mut Dice) -> Vec<Self> {
        let limit = 3 + dice.below(6);
        let hosts = (0..2 + dice.below(4)).map(|n| WorkerId::new(format!("edge-{n}")).unwrap()).collect();
        vec![Self::new("big", None, None), Self::new("few", Some(limit), None), Self::new("edge", None, Some(hosts))]
    }

    fn new(name: &str, max_workers: Option<usize>, hosts: Option<Vec<WorkerId>>) -> Self {
        let pool = Pool::new(name).unwrap();
        let registration = RegistrationConfig { enabled: true, max_retries: 3, timeout: Duration::from_secs(20) };
        let config = WorkerManagementConfig {
            registration_timeout: registration.timeout,
            unregister_timeout: Duration::from_secs(15),
            launch_timeout: Duration::from_secs(60),
            grace: Duration::from_secs(5),
            max_workers,
            ..WorkerManagementConfig::default()
        };
        let template = PoolConfig {
            provider: ProviderConfig::Null(NullConfig::default()),
            template: WorkerSpec::default(),
            max_workers,
            concurrency: 256,
            allow: BTreeSet::from([Override::Env, Override::Labels]),
            registration: registration.clone(),
            launch_timeout: config.launch_timeout,
            grace: config.grace,
        };
        let sweep = SweepPoolConfig {
            registration,
            grace: Duration::from_secs(120),
            // Nothing here puts the log back, so that a sweep that freezes is wrong.
            max_terminations: 1000,
            retention: Duration::from_secs(3600),
            ..SweepPoolConfig::new(pool.clone(), WorkerSpec::default())
        };
        Self { pool, hosts, config, template, sweep }
    }
}
