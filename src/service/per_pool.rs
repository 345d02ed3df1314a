//! What a service keeps of each of its pools, all of it memory only.

use std::sync::Arc;

use super::gate::Paced;
use super::sweep::Sightings;
use super::wanted::Counted;
use crate::telemetry::PoolSignals;

/// One pool of a service.
#[derive(Clone)]
pub(super) struct PerPool {
    /// What happens in it is told by these.
    pub(super) signals: Arc<PoolSignals>,
    /// How fast its workers are made.
    pub(super) paced: Arc<Paced>,
    /// What its newest sweep has seen wrong. With it gone, a sighting takes one sweep longer to count, and with any number of
    /// replicas one of the next ones is a second sweep of somebody's.
    pub(super) sightings: Arc<tokio::sync::Mutex<Sightings>>,
    /// How many workers it had a moment ago.
    pub(super) counted: Arc<tokio::sync::Mutex<Option<Counted>>>,
}

impl PerPool {
    pub(super) fn new(signals: Arc<PoolSignals>) -> Self {
        Self { signals, paced: Paced::new(), sightings: Arc::default(), counted: Arc::default() }
    }
}
