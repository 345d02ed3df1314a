//! One file a verb.

pub mod demo_scheduler;
