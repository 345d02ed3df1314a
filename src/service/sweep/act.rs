//! What a sweep can do, each with the words that say why.

use crate::domain::{CommandId, State, WorkerId};
use crate::provider::Instance;
use crate::telemetry::SweepAct;

/// One act of a sweep. It names the newest event that was seen, and is not done where another has come since: whoever
/// wrote that has the worker in hand.
#[derive(Debug, Clone, PartialEq)]
pub enum Act {
    /// An instance without a live record goes; `record` is the worker's last event, where it has one.
    RemoveOrphan {
        /// The instance.
        instance: Box<Instance>,
        /// The final event of its worker.
        record: Option<u64>,
    },
    /// The same, where the settings want it only told.
    ReportOrphan {
        /// The instance.
        instance: Box<Instance>,
    },
    /// A live record whose instance is gone becomes `lost`, and the scheduler is told.
    Lose {
        /// The worker.
        worker_id: WorkerId,
        /// Its newest event.
        sequence: u64,
    },
    /// A worker that this very sweep has written off, before it died over the rest.
    FinishLost {
        /// The worker.
        worker_id: WorkerId,
        /// Its newest event.
        sequence: u64,
    },
    /// The scheduler is asked to take the worker.
    Register {
        /// The worker.
        worker_id: WorkerId,
        /// Its newest event.
        sequence: u64,
        /// What is wrong.
        why: Why,
    },
    /// The scheduler is told that a worker is no more.
    Unregister {
        /// The worker.
        worker_id: WorkerId,
        /// The highest epoch known of it.
        epoch: u64,
        /// Its final event, where it has a record.
        record: Option<u64>,
    },
    /// A record that nobody moves any more is taken over and finished.
    Finish {
        /// The worker.
        worker_id: WorkerId,
        /// Its newest event.
        sequence: u64,
        /// Where it stands.
        state: State,
    },
    /// What the pool's size asks for.
    Ask(Order),
    /// The events of a worker that ended long ago go, and its entry in the view.
    Purge {
        /// The worker.
        worker_id: WorkerId,
        /// Its final event.
        sequence: u64,
    },
}

/// Why a worker is registered again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The scheduler had not accepted it.
    Failed,
    /// The scheduler has it no more.
    Missing,
}

/// A command that the pool's size asks for. It goes the way of every command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// One more.
    Provision {
        /// The same from whoever plans it.
        command_id: CommandId,
        /// The host, in a static pool.
        worker_id: Option<WorkerId>,
    },
    /// One fewer.
    Terminate {
        /// The same from whoever plans it.
        command_id: CommandId,
        /// The worker.
        worker_id: WorkerId,
    },
}

impl Order {
    /// Why a worker goes that a size asks to go, as its record and its scheduler are told.
    pub const REASON: &'static str = "size";
}

impl Act {
    /// The worker that the act loses, if that is what it does.
    #[must_use]
    pub fn loses(&self) -> Option<&WorkerId> {
        match self {
            Self::Lose { worker_id, .. } => Some(worker_id),
            _ => None,
        }
    }

    /// What is done, in a word or two.
    #[must_use]
    pub fn kind(&self) -> SweepAct {
        match self {
            Self::RemoveOrphan { .. } => SweepAct::RemoveOrphan,
            Self::ReportOrphan { .. } => SweepAct::ReportOrphan,
            Self::Lose { .. } | Self::FinishLost { .. } => SweepAct::WriteOff,
            Self::Register { .. } => SweepAct::Register,
            Self::Unregister { .. } => SweepAct::Unregister,
            Self::Finish { .. } => SweepAct::Finish,
            Self::Ask(Order::Provision { .. }) => SweepAct::Provision,
            Self::Ask(Order::Terminate { .. }) => SweepAct::Terminate,
            Self::Purge { .. } => SweepAct::Purge,
        }
    }

    /// The worker, or the command that makes one.
    #[must_use]
    pub fn subject(&self) -> &str {
        match self {
            Self::RemoveOrphan { instance, .. } | Self::ReportOrphan { instance } => instance.key.worker_id.as_str(),
            Self::Lose { worker_id, .. }
            | Self::FinishLost { worker_id, .. }
            | Self::Register { worker_id, .. }
            | Self::Unregister { worker_id, .. }
            | Self::Finish { worker_id, .. }
            | Self::Ask(Order::Provision { worker_id: Some(worker_id), .. } | Order::Terminate { worker_id, .. })
            | Self::Purge { worker_id, .. } => worker_id.as_str(),
            Self::Ask(Order::Provision { command_id, worker_id: None }) => command_id.as_str(),
        }
    }

    /// Why.
    #[must_use]
    pub fn reason(&self) -> String {
        match self {
            Self::RemoveOrphan { instance, record: Some(_) } => {
                format!("instance {} is there, and its worker has ended", instance.instance_id)
            }
            Self::RemoveOrphan { instance, record: None } => format!("instance {} has no record", instance.instance_id),
            Self::ReportOrphan { instance } => {
                format!("instance {} has no live record; sweep.orphans is \"report\"", instance.instance_id)
            }
            Self::Lose { .. } => "its instance is gone, and nobody asked".to_owned(),
            Self::FinishLost { .. } => "it was written off by this very sweep before a replica died".to_owned(),
            Self::Register { why: Why::Failed, .. } => "the scheduler had not accepted it".to_owned(),
            Self::Register { why: Why::Missing, .. } => "the scheduler does not list it".to_owned(),
            Self::Unregister { record: Some(_), .. } => "the scheduler lists it, and it has ended".to_owned(),
            Self::Unregister { record: None, .. } => "the scheduler lists it, and it has no record".to_owned(),
            Self::Finish { state, .. } => format!("nobody has moved it on from {} in time", state.as_str()),
            Self::Ask(Order::Provision { .. }) => "the pool is below its size".to_owned(),
            Self::Ask(Order::Terminate { .. }) => "the pool is above its size".to_owned(),
            Self::Purge { .. } => "it ended longer ago than sweep.retention".to_owned(),
        }
    }
}
