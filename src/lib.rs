//! Provisions workers on command and enlists them with a scheduler: one command, one worker, one outcome.

pub mod cli;
pub mod worker;
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
