//! What a pool's sweep tells.

use std::sync::Arc;
use std::time::Duration;

use ::metrics::{Counter, Gauge, counter, gauge};
use tracing::{debug, info, warn};

use super::health::Health;
use super::labels::{OrphanAction, SweepAct};
use super::metrics::{ORPHANS, SWEEP_ACTS, SWEEP_FROZEN};
use crate::domain::{Pool, WorkerId};
use crate::text::cut;

/// The series and lines of one pool's sweeps.
pub struct SweepSignals {
    pool: Pool,
    orphans: Vec<Counter>,
    acts: Vec<Counter>,
    frozen: Gauge,
    health: Option<Arc<Health>>,
}

/// What one sweep found and did, for its one line.
#[derive(Debug, Clone, Copy)]
pub struct SweepLine<'a> {
    /// Instances that the provider listed.
    pub instances: usize,
    /// Workers that are not final.
    pub live: usize,
    /// What was done, and how often.
    pub done: &'a str,
    /// Acts that were not done, or not to their end.
    pub undone: usize,
    /// Seen for the first time; the next sweep decides.
    pub suspects: usize,
    /// Removals that are left to the next sweeps.
    pub put_off: usize,
    /// Why nothing was removed.
    pub frozen: Option<&'a str>,
    /// From the first look to the last act.
    pub took: Duration,
}

impl SweepSignals {
    pub(super) fn new(pool: &Pool) -> Self {
        let name = || pool.to_string();
        let orphan = |action: &OrphanAction| counter!(ORPHANS, "pool" => name(), "action" => action.as_str());
        let act = |act: &SweepAct| counter!(SWEEP_ACTS, "pool" => name(), "act" => act.as_str());
        Self {
            pool: pool.clone(),
            orphans: OrphanAction::ALL.iter().map(orphan).collect(),
            acts: SweepAct::ALL.iter().map(act).collect(),
            frozen: gauge!(SWEEP_FROZEN, "pool" => name()),
            health: None,
        }
    }

    pub(super) fn telling(self, health: Arc<Health>) -> Self {
        Self { health: Some(health), ..self }
    }

    /// An instance without a live record was found twice.
    pub fn orphan(&self, worker_id: &WorkerId, instance_id: &str, action: OrphanAction) {
        self.orphans[action as usize].increment(1);
        let instance_id = cut(instance_id, 128);
        warn!(pool = %self.pool, %worker_id, instance_id, action = action.as_str(), "orphan");
    }

    /// An act is done.
    pub fn did(&self, act: SweepAct, subject: &str, reason: &str) {
        self.acts[act as usize].increment(1);
        let pool = &self.pool;
        match act {
            SweepAct::WriteOff | SweepAct::Finish => {
                warn!(%pool, act = act.as_str(), worker = cut(subject, 64), reason = cut(reason, 200), "sweep");
            }
            SweepAct::RemoveOrphan
            | SweepAct::ReportOrphan
            | SweepAct::Register
            | SweepAct::Unregister
            | SweepAct::Provision
            | SweepAct::Terminate
            | SweepAct::Purge => {
                debug!(%pool, act = act.as_str(), worker = cut(subject, 64), reason = cut(reason, 200), "sweep");
            }
        }
    }

    /// An act is not done, or not to its end; the next sweep looks again.
    pub fn left(&self, act: SweepAct, subject: &str, why: &str) {
        let pool = &self.pool;
        info!(%pool, act = act.as_str(), worker = cut(subject, 64), why = cut(why, 500), "sweep: left for the next one");
    }

    /// An act was not begun, as others have shown that it would be in vain. There may be as many as the pool has workers.
    pub fn untried(&self, act: SweepAct, subject: &str, why: &str) {
        debug!(pool = %self.pool, act = act.as_str(), worker = cut(subject, 64), why, "sweep: not begun");
    }

    /// A sweep is through.
    pub fn swept(&self, line: SweepLine<'_>) {
        let SweepLine { instances, live, done, undone, suspects, put_off, frozen, took } = line;
        self.frozen.set(if frozen.is_some() { 1.0 } else { 0.0 });
        if let Some(health) = &self.health {
            health.set_frozen(&self.pool, frozen.is_some());
            health.set_seen(&self.pool, true);
        }
        let (pool, seconds) = (&self.pool, took.as_secs_f64());
        if let Some(why) = frozen {
            let why = cut(why, 500);
            warn!(%pool, instances, live, done, undone, suspects, seconds, why, "sweep frozen: nothing is removed");
        } else {
            info!(%pool, instances, live, done, undone, suspects, put_off, seconds, "swept");
        }
    }

    /// A sweep could not see enough to do anything: as long as that is so, nothing is removed.
    pub fn failed(&self, why: &str) {
        self.frozen.set(1.0);
        if let Some(health) = &self.health {
            health.set_frozen(&self.pool, true);
            health.set_seen(&self.pool, false);
        }
        warn!(pool = %self.pool, why = cut(why, 500), "sweep ended: nothing was looked at to the end, nothing is done");
    }
}
