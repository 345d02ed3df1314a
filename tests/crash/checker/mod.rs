//! The one checker: holds CONTRACT.md section 9 over what one pool left behind, whatever crashed on the way.
//!
//! It reads bytes and JSON, not the crate's own types, so that a mistake of those does not hide itself. Each rule has a
//! hand-made history in `tests` or `tests_of_sweeps` that breaks it and nothing else.

mod history;
mod instances;
mod outcomes;
mod records;
mod sizes;
mod sweeps;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_of_sweeps;

pub(crate) use history::{Acked, Asked, Command, DeadLetter, Event, History, Kind, Step, Stray};

/// Every violation, as a line that says which worker or command, what was found and what had to be.
pub(crate) fn violations(history: &History) -> Vec<String> {
    let mut found = violations_of_the_log(history);
    let rules: [Rule; 8] = [
        instances::one_instance_lives_at_a_time,
        instances::what_lives_is_what_the_record_says,
        instances::the_scheduler_is_told_in_order,
        sweeps::only_what_is_gone_is_lost,
        sweeps::only_strays_are_orphans,
        sweeps::no_register_follows_an_unregister,
        sweeps::the_view_shows_the_log,
        sweeps::what_is_purged_is_gone_everywhere,
    ];
    for rule in rules {
        rule(history, &mut found);
    }
    found
}

type Rule = fn(&History, &mut Vec<String>);

/// Those that the log, the queue and the dead letters tell by themselves. The rest has to know what provider and scheduler
/// did, which is judged at once where a test has them in its own hands.
pub(crate) fn violations_of_the_log(history: &History) -> Vec<String> {
    let mut found = Vec::new();
    let rules: [Rule; 13] = [
        records::attributes_are_those_of_the_contract,
        records::revs_have_no_gap,
        records::epochs_never_fall,
        records::states_follow_each_other,
        records::an_allocation_keeps_what_made_it,
        outcomes::every_event_is_of_a_command_that_was_sent,
        outcomes::every_command_has_one_outcome,
        outcomes::dead_letters_say_what_they_are,
        outcomes::nothing_is_left_and_nothing_was_acked_early,
        sizes::pool_events_are_those_of_the_contract,
        sizes::pool_events_follow_each_other,
        sizes::every_size_was_asked_for,
        sizes::the_pool_has_its_size,
    ];
    for rule in rules {
        rule(history, &mut found);
    }
    found
}
