//! Provisions workers on command and enlists them with a scheduler: one command, one worker, one outcome.
//!
//! [`WorkerManagementService`] is the front door; the modules stand in the order of a command's way, each using only those
//! below it.

pub mod bus;
pub mod cli;
pub mod domain;
pub mod handle;
pub mod http;
pub mod journal;
pub mod provider;
pub mod registration;
pub mod replica;
pub mod service;
pub mod srv;
pub mod wire;
pub mod worker;

pub mod config;
pub mod crash;
#[cfg(feature = "heap-metric")]
mod heap;
pub mod mutant;
pub mod telemetry;
pub mod text;

pub use service::{
    DynamicWorkerConfig, PoolProvisioned, TerminateWorkerConfig, WorkerManagementConfig, WorkerManagementError,
    WorkerManagementService, WorkerProvisioned, WorkerStatus,
};
