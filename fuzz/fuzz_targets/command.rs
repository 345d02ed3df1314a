//! Any bytes as a command: what is read is written and read back the same; what is refused says why in safe words.
#![no_main]

use enlist::domain::Reason;
use enlist::wire::command::{PoolCommand, ProvisionCommand, SweepCommand, TerminateCommand, Undecodable};
use libfuzzer_sys::fuzz_target;

macro_rules! hold {
    ($command:ident, $bytes:expr) => {
        match $command::decode($bytes) {
            Ok(command) => {
                let written = command.encode();
                let again = $command::decode(&written).expect("what was written is read");
                assert_eq!(again, command);
                assert_eq!(again.encode(), written);
                assert_eq!(again.content_hash(), command.content_hash());
            }
            Err(undecodable) => refused(&undecodable),
        }
    };
}

fn refused(undecodable: &Undecodable) {
    let refusal = &undecodable.refusal;
    assert!(matches!(refusal.reason, Reason::Malformed | Reason::Invalid), "{refusal:?}");
    assert!(!refusal.detail.is_empty() && refusal.detail.len() <= 4 * 500 + 64, "{refusal:?}");
    assert!(!refusal.detail.chars().any(char::is_control), "{refusal:?}");
}

fuzz_target!(|bytes: &[u8]| {
    hold!(ProvisionCommand, bytes);
    hold!(TerminateCommand, bytes);
    hold!(PoolCommand, bytes);
    hold!(SweepCommand, bytes);
});
