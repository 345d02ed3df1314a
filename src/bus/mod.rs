//! The broker: what of NATS the rest of the house needs, and nothing that the rest decides.

pub mod requests;
