//! What goes over the wire: serde mirrors of `schemas/`, and the only place that serialises.

pub mod command;
pub mod event;
pub mod scheduler;
