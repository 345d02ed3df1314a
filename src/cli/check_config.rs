//! `enlist check-config`: every mistake of the settings, or every effective setting with its origin.

use std::io::Write;

use super::{Exit, GlobalArgs};

/// Prints the settings to standard output, or their mistakes to standard error.
pub(super) fn run(args: &GlobalArgs) -> Exit {
    match args.load() {
        Ok(loaded) => {
            // A reader that has seen enough, say `head`, is no failure.
            let _ = write!(std::io::stdout(), "{}", loaded.origins);
            Exit::Done
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error}");
            Exit::Config
        }
    }
}
