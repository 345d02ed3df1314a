//! The whole of a run for the one checker, pool by pool.

use super::world::World;

pub(crate) fn violations(_: &World) -> Vec<String> {
    Vec::new()
}
