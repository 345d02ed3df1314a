//! The wrong variants of the protocol, and that the simulation catches each.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use enlist::mutant::Mutant;

use super::scenario::run;

/// Runs in which a variant has to be caught.
const WITHIN: u64 = 400;

/// What each does wrong, and which rule it breaks.
fn breaks(mutant: Mutant) -> &'static str {
    match mutant {
        Mutant::AckBeforeRecord => "a command is acked before its outcome is stored, and a crash loses it",
        Mutant::AckBeforeDeadLetter => "a refused command is acked before its dead letter is stored",
        Mutant::NoExpectedSequence => "two tries write over each other",
        Mutant::RefusedIsLost => "a try leaves its worker to another that is not there",
        Mutant::UnavailableIsStored => "a command is acked whose outcome never came to the log",
        Mutant::WaitIsDone => "a command is acked while another has its worker in hand",
        Mutant::CopyTakesOver => "two tries that are alive take a worker from each other",
        Mutant::SameEpoch => "two tries of a worker cannot be told apart by its scheduler",
        Mutant::DeathsUncounted => "a command that ends its replicas comes back for ever",
        Mutant::OthersWorkerIsOurs => "a command is done that has made nothing",
        Mutant::ContentNotCompared => "another command under the same id is taken for done",
        Mutant::SecondHost => "one command has two hosts",
        Mutant::NotAdmitted => "a pool has more workers than it may have",
        Mutant::RefusedWithoutRecord => "a refused command has an outcome when its claim is found later",
        Mutant::NothingTakenBack => "an instance outlives its worker",
        Mutant::AlwaysRegistered => "a worker is registered whom the scheduler has not accepted",
        Mutant::RegisteredUnfenced => "a worker is offered again after its end has begun",
        Mutant::UnregisteredLast => "the scheduler gives work to what is being removed",
        Mutant::TerminatedBeforeRemoval => "a worker has ended and its instance lives",
        Mutant::NoTombstone => "an instance goes and no record says so",
        Mutant::RecordsFirst => "a healthy worker looks like an orphan, and the sweep freezes",
        Mutant::SecondListWhole => {
            "what was made since the records were read looks like an orphan, and the sweep freezes"
        }
        Mutant::LostUnasked => "a worker is written off and its instance lives",
        Mutant::PurgedEarly => "a command that comes again makes a second worker",
        Mutant::SizedEarly => "a pool is said to have a size that it does not have",
    }
}

/// The first run that catches a variant, and how.
fn caught(mutant: Mutant) -> Option<(u64, String)> {
    (0..WITHIN).find_map(|seed| run(seed, Some(mutant), false).violations.into_iter().next().map(|how| (seed, how)))
}

#[test]
fn every_wrong_variant_of_the_protocol_is_caught() {
    let (next, results) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
    let threads: Vec<_> = (0..super::threads())
        .map(|_| {
            let (next, results) = (Arc::clone(&next), Arc::clone(&results));
            std::thread::spawn(move || {
                while let Some(mutant) = Mutant::ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let caught = caught(*mutant);
                    results.lock().unwrap().push((*mutant, caught));
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let mut results = std::mem::take(&mut *results.lock().unwrap());
    results.sort_by_key(|(mutant, _)| Mutant::ALL.iter().position(|other| other == mutant));
    let mut missed = Vec::new();
    for (mutant, caught) in results {
        match caught {
            Some((seed, how)) => println!("{mutant:?}: run {} catches it: {how}", seed + 1),
            None => missed.push(format!("{mutant:?}: {} — not caught in {WITHIN} runs", breaks(mutant))),
        }
    }
    assert!(missed.is_empty(), "\n{}\n", missed.join("\n"));
}
