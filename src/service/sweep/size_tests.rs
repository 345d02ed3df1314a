//! What a pool's size asks for, case by case.

use super::act::{Act, Order};
use super::look::{Known, Look};
use super::plan::Rules;
use super::samples::{healthy, id, known, look, rules, second, size_of};
use crate::domain::{Capabilities, Claim, CommandId, EndedBy, Pool, Slot, SpecHash, State, Step, Worker, WorkerType};
use crate::journal::{Entry, Writer};

#[test]
fn a_lost_worker_is_replaced_in_the_same_sweep() {
    let mut look = Look { size: Some(size_of(20)), ..healthy(20) };
    look.instances.pop();
    let acts = second(&look, &rules()).acts;
    assert!(matches!(&acts[..], [Act::Lose { .. }, Act::Ask(Order::Provision { worker_id: None, .. })]), "{acts:?}");
}

#[test]
fn above_its_size_a_pool_ends_first_what_the_scheduler_does_not_have_and_then_the_newest() {
    let mut look = Look { size: Some(size_of(18)), ..healthy(20) };
    look.records.insert(id(3), known(State::RegistrationFailed, 3, 5000));
    look.records.insert(id(7), known(State::Registered, 7, 500));
    let acts = second(&look, &rules()).acts;
    let ended: Vec<&str> = acts.iter().filter(|act| matches!(act, Act::Ask(_))).map(Act::subject).collect();
    assert_eq!(ended, ["w-3", "w-7"]);
}

#[test]
fn a_static_pool_takes_its_free_hosts_in_order() {
    let rules = Rules { inventory: Some((0..5).map(id).collect()), ..rules() };
    let mut look = Look { worker_type: WorkerType::Static, size: Some(size_of(3)), ..look() };
    look.records.insert(id(0), known(State::Registered, 0, 10));
    look.records.insert(id(1), known(State::Terminated, 1, 10));
    let acts = second(&look, &rules).acts;
    let commands: Vec<String> = acts.iter().map(|act| format!("{act:?}")).collect();
    assert!(commands[0].contains("enlist-size-w-1-2") && commands[1].contains("enlist-size-w-2-0"), "{commands:?}");
    assert_eq!(acts.len(), 2);
}

#[test]
fn a_place_that_keeps_failing_is_filled_less_and_less_often() {
    let failed = |ages: &[i64]| {
        let mut look = Look { size: Some(size_of(1)), ..look() };
        for (number, age) in ages.iter().enumerate() {
            let slot = Some(Slot { number: 0, after: number as u64 });
            look.records.insert(id(number), Known { slot, ..known(State::Failed, number, *age) });
        }
        second(&look, &rules()).acts
    };
    assert!(format!("{:?}", failed(&[1])).contains("enlist-size-0-1"), "at once after the first");
    assert!(failed(&[200, 1]).is_empty());
    assert_eq!(failed(&[300, 121]).len(), 1);
    assert!(failed(&[600, 300, 121]).is_empty());
    assert_eq!(failed(&[600, 300, 241]).len(), 1);
}

/// The worker of a place, as a terminate by `command` has left it.
fn ended_by(command: &CommandId, slot: Slot) -> Known {
    let claim = Claim {
        pool: Pool::new("web").unwrap(),
        worker_id: id(0),
        worker_type: WorkerType::Dynamic,
        command_id: slot.command_id(),
        correlation_id: None,
        spec_hash: SpecHash::of(b""),
        provider: "null".to_owned(),
        capabilities: Capabilities::default(),
        registration: false,
    };
    let ended_by = EndedBy { command_id: Some(command.clone()), reason: None };
    let steps = [Step::Claim(Box::new(claim)), Step::Terminate(ended_by), Step::Terminated];
    let worker = steps
        .into_iter()
        .fold(None, |worker: Option<Worker>, step| Some(step.apply(worker.as_ref(), look().now).unwrap()));
    let writer = Writer { name: "r.1".into(), message: None, claim: None, trace: None };
    Known::of(Entry { worker: worker.unwrap(), sequence: 3, writer }, "null")
}

#[test]
fn a_worker_that_enlist_has_given_up_could_not_be_made_and_one_that_somebody_ended_could() {
    let slot = Slot { number: 0, after: 0 };
    assert!(ended_by(&slot.command_id(), slot).unmade);
    assert!(!ended_by(&CommandId::new("t-1").unwrap(), slot).unmade);
}

#[test]
fn a_place_whose_commands_are_exhausted_is_filled_less_and_less_often_too() {
    let ended = |unmade: bool| {
        let mut look = Look { size: Some(size_of(1)), ..look() };
        for (number, age) in [(0, 200), (1, 1)] {
            let slot = Some(Slot { number: 0, after: number as u64 });
            look.records.insert(id(number), Known { unmade, slot, ..known(State::Terminated, number, age) });
        }
        second(&look, &rules()).acts.len()
    };
    assert_eq!((ended(true), ended(false)), (0, 1));
}
