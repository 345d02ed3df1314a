//! The names of what a pool's size asks for: one and the same from whoever works it out, so that two who do make one worker.

use super::{CommandId, WorkerId};

const MAKE: &str = "enlist-size-";
const END: &str = "enlist-end-";

/// A place of a pool that has a size. Whoever fills it gives the command the same id, as long as what the log says of the
/// place is the same: a second planner, another replica or a repeated sweep, asks for the same worker and not for one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot {
    /// Number of the place, from 0.
    pub number: u32,
    /// Where in the log the worker before ended; 0 for the first.
    pub after: u64,
}

impl Slot {
    /// The id of the command that fills it.
    #[must_use]
    pub fn command_id(self) -> CommandId {
        id(&format!("{MAKE}{}-{}", self.number, self.after))
    }

    /// The slot that a worker's command was for, where it was for one.
    #[must_use]
    pub fn of(command: &CommandId) -> Option<Self> {
        let (number, after) = command.as_str().strip_prefix(MAKE)?.split_once('-')?;
        let slot = Self { number: number.parse().ok()?, after: after.parse().ok()? };
        (slot.command_id() == *command).then_some(slot)
    }
}

/// Whether a pool's size has asked for this worker, and no publisher.
#[must_use]
pub fn asked_by_size(command: &CommandId) -> bool {
    command.as_str().starts_with(MAKE)
}

/// Whether a pool's size has asked for this worker's end.
#[must_use]
pub fn ended_by_size(command: &CommandId) -> bool {
    command.as_str().starts_with(END)
}

/// The id of the command that takes a host into service whose newest event is at `after` in the log, 0 for none.
#[must_use]
pub fn command_for_host(host: &WorkerId, after: u64) -> CommandId {
    id(&format!("{MAKE}{host}-{after}"))
}

/// The id of the command that ends a worker of this epoch, so that the pool comes down to its size.
#[must_use]
pub fn command_to_end(worker: &WorkerId, epoch: u64) -> CommandId {
    id(&format!("{END}{worker}-{epoch}"))
}

/// A worker id has 40 characters at most, and a log has not come to 10^11 events: 64 are not reached.
fn id(text: &str) -> CommandId {
    #[allow(clippy::expect_used, reason = "of the right form by construction")]
    CommandId::new(text.get(..64).unwrap_or(text)).expect("letters, digits and dashes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_read_back_from_its_commands_id_and_from_no_other() {
        let slot = Slot { number: 7, after: 12_345 };
        assert_eq!(slot.command_id().as_str(), "enlist-size-7-12345");
        assert_eq!(Slot::of(&slot.command_id()), Some(slot));
        for other in ["enlist-size-7", "enlist-size-07-1", "enlist-size-a-1", "enlist-size-1-1-1", "c-1"] {
            assert_eq!(Slot::of(&CommandId::new(other).unwrap()), None, "{other}");
        }
    }

    #[test]
    fn the_longest_names_make_command_ids() {
        let longest = WorkerId::new("w".repeat(40)).unwrap();
        assert_eq!(command_for_host(&longest, 99_999_999_999).as_str().len(), 64);
        assert!(command_to_end(&longest, u64::from(u32::MAX)).as_str().ends_with("-4294967295"));
    }
}
