//! How much is handed out in a row before those who got something run.
//!
//! A replica turns on one thread. Were everything that has come handed out at once, all of it would be worked on before the
//! first answer to it goes out: the server waits for the replica, and then the replica for the server. In portions both work at
//! the same time: with 64 in hand 3 % more commands a second, for a tenth more processor time; with 256 it makes no difference.

/// Portions that what is in flight is handed out in.
const PARTS: usize = 8;
/// Below this it is more writes to the socket and nothing else.
const LEAST: usize = 8;

/// What may be handed out in a row of so much that is in flight.
#[must_use]
pub fn portion(in_flight: usize) -> usize {
    (in_flight / PARTS).max(LEAST)
}
