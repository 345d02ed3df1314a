//! What a worker is and which steps it may take: no IO, no clock, no chance.

mod claimed;
mod error;
mod ids;
mod lane;
mod lifecycle;
mod pool;
mod refusal;
mod retry;
mod slot;
mod spec;
mod steering;
mod trace;
mod verb;
mod worker;

pub use claimed::{Claimed, NoClaim};
pub use error::{ErrorClass, Standing};
pub use ids::{CommandId, CorrelationId, InvalidToken, Pool, Prefix, WorkerId, WorkerKey};
pub use lane::Lane;
pub use lifecycle::{Claim, Step, TransitionRefused};
pub use pool::{PoolRecord, PoolState};
pub use refusal::{Reason, Refusal};
pub use retry::{MAX_IDLE_TRIES, nak_delay, wait_delay};
pub use slot::{Slot, asked_by_size, command_for_host, command_to_end, ended_by_size};
pub use spec::{Capabilities, Labels, SpecHash, WorkerSpec};
pub use steering::{steering, steers};
pub use trace::TraceContext;
pub use verb::Verb;
pub use worker::{
    EndedBy, Registration, RegistrationFault, RegistrationStatus, State, Worker, WorkerFault, WorkerType,
};
