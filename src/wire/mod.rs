//! What goes over the wire: serde mirrors of `schemas/`, and the only place that serialises.

pub mod command;
pub mod dead_letter;
pub mod event;
mod explain;
#[cfg(test)]
mod properties;
pub mod provider;
pub mod publish;
mod read;
pub mod scheduler;
#[cfg(test)]
mod schemas;
pub mod service;
mod table;
#[cfg(test)]
mod tests;

use serde::Serialize;

/// A body as JSON. Total for the types of this module: their keys are strings and none of their parts can refuse.
fn to_json<T: Serialize>(value: &T, capacity: usize) -> Vec<u8> {
    let mut body = Vec::with_capacity(capacity);
    serde_json::to_writer(&mut body, value).expect("writing plain structs into memory cannot fail");
    body
}
