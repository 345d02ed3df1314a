//! Provisions workers on command and enlists them with a scheduler: one command, one worker, one outcome.

pub mod cli;
pub mod config;
pub mod domain;
pub mod http;
pub mod journal;
pub mod provider;
pub mod registration;
pub mod telemetry;
pub mod text;
pub mod wire;
