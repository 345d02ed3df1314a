//! The broker: what of NATS the rest of the house needs, and nothing that the rest decides.

pub mod batch;
pub mod commands;
pub mod connection;
pub mod delivery;
pub mod feed;
pub mod foreign;
mod identity;
pub mod letters;
pub mod listing;
pub mod orders;
pub mod pass;
pub mod permitted;
pub mod portion;
pub mod pull;
pub mod queues;
pub mod requests;
pub mod standing;
pub mod stored;
pub mod streams;
pub mod subjects;
pub mod trace;
pub mod turns;
pub mod view;
