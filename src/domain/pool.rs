//! A pool's own record: how many workers it is to keep ready.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{CommandId, CorrelationId, Pool};

/// Where a change of size stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum PoolState {
    /// The size is wanted.
    Sizing,
    /// The pool has had it; or a later command has overtaken it.
    Sized,
}

impl PoolState {
    /// The token in subjects and event types.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sizing => "sizing",
            Self::Sized => "sized",
        }
    }
}

/// A pool as of one event of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PoolRecord {
    /// The pool.
    pub pool: Pool,
    /// Where the change stands.
    pub state: PoolState,
    /// Number of this event: 1, 2, 3 … without a gap.
    pub rev: u64,
    /// The wanted number of workers.
    pub size: u32,
    /// The number of live workers when this event was written.
    pub actual: u32,
    /// The command that asked for the size.
    pub command_id: CommandId,
    /// That command's own thread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<CorrelationId>,
    /// When this event was written.
    #[cfg_attr(test, schemars(with = "String", extend("format" = "date-time")))]
    pub updated_at: Timestamp,
}
