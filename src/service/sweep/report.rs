//! What a sweep tells about itself.

use std::collections::BTreeMap;
use std::time::Duration;

use super::act::{Act, Order};
use super::look::Look;
use super::plan::Plan;
use crate::telemetry::{SweepAct, SweepLine};

/// What a sweep found and did.
#[derive(Debug, Clone, Default)]
pub struct SweepReport {
    /// Instances that the provider listed.
    pub instances: usize,
    /// Workers that were not final.
    pub live: usize,
    /// Acts that were done, by kind.
    pub done: BTreeMap<SweepAct, usize>,
    /// Acts that were not done, or not to their end, and why.
    pub undone: Vec<(Act, String)>,
    /// Seen for the first time: the next sweep decides.
    pub suspects: Vec<Act>,
    /// Removals that are left to the next sweeps.
    pub put_off: usize,
    /// Why nothing was removed.
    pub frozen: Option<String>,
    /// Commands that the pool's size asks for; whoever called sends or carries them out.
    pub orders: Vec<Order>,
    /// The event of the pool's own that tells the size; 0 where it has none.
    pub size_rev: u64,
    /// From the first look to the last act.
    pub took: Duration,
}

impl SweepReport {
    pub(super) fn new(look: &Look, plan: &Plan) -> Self {
        Self {
            instances: look.listing.number(),
            live: look.live(),
            size_rev: look.size.as_ref().map_or(0, |entry| entry.record.rev),
            suspects: plan.suspects.clone(),
            put_off: plan.put_off,
            frozen: plan.frozen.clone(),
            ..Self::default()
        }
    }

    /// How often an act was done.
    #[must_use]
    pub fn count(&self, act: SweepAct) -> usize {
        self.done.get(&act).copied().unwrap_or(0)
    }

    pub(super) fn done_in_words(&self) -> String {
        let words: Vec<String> = self.done.iter().map(|(act, count)| format!("{} {count}", act.as_str())).collect();
        if words.is_empty() { "nothing".to_owned() } else { words.join(", ") }
    }

    pub(super) fn line<'a>(&'a self, done: &'a str) -> SweepLine<'a> {
        SweepLine {
            instances: self.instances,
            live: self.live,
            done,
            undone: self.undone.len(),
            suspects: self.suspects.len(),
            put_off: self.put_off,
            frozen: self.frozen.as_deref(),
            took: self.took,
        }
    }
}
