//! Provisions workers on command and enlists them with a scheduler: one command, one worker, one outcome.
//!
//! [`WorkerManagementService`] is the front door; the modules stand in the order of a command's way, each using only those
//! below it.

pub mod cli;
pub mod replica;
pub mod worker;
pub mod http;
pub mod handle;
pub mod service;
pub mod registration;
pub mod provider;
pub mod journal;
pub mod bus;
pub mod wire;
pub mod domain;

pub mod config;
pub mod crash;
pub mod telemetry;
pub mod text;

pub use service::{
    DynamicWorkerConfig, PoolProvisioned, TerminateWorkerConfig, WorkerManagementConfig, WorkerManagementError,
    WorkerManagementService, WorkerProvisioned, WorkerStatus,
};
