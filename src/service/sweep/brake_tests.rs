//! What keeps a sweep from removing anything, case by case.

use super::act::Act;
use super::look::{Known, Look, SchedulerList};
use super::plan::Rules;
use super::samples::{healthy, id, instance, known, rules, second, size_of};
use crate::domain::{Claimed, State, WorkerType};
use crate::provider::Instance;

#[test]
fn eleven_of_a_hundred_are_too_many_and_ten_are_not() {
    let without = |number: usize| {
        let mut look = healthy(100);
        look.instances.truncate(100 - number);
        second(&look, &rules())
    };
    assert_eq!(without(10).acts.iter().filter(|act| act.loses().is_some()).count(), 10);
    let frozen = without(11);
    assert!(frozen.frozen.unwrap().contains("11 workers without an instance"));
    assert!(frozen.acts.is_empty());
}

/// A pool whose workers were claimed again after the log had been put back: their instances tell of other claims.
fn claimed_again(size: u32) -> Look {
    let mut look = Look { size: Some(size_of(size)), ..healthy(10) };
    for made in &mut look.instances[4..] {
        made.claim = Some(Claimed { sequence: 900, at: jiff::Timestamp::UNIX_EPOCH });
    }
    for (number, sequence) in (4..).zip(50..56) {
        look.records.get_mut(&id(number)).unwrap().claim.sequence = sequence;
    }
    look
}

#[test]
fn a_size_that_is_older_than_what_was_claimed_again_ends_nobody() {
    let plan = second(&claimed_again(4), &rules());
    assert!(plan.acts.is_empty(), "{:?}", plan.acts);
    assert!(plan.frozen.unwrap().contains("set the size anew"));
    let mut newer = claimed_again(4);
    newer.size.as_mut().unwrap().sequence = 60;
    let plan = second(&newer, &rules());
    assert_eq!((plan.frozen, plan.acts.len()), (None, 6), "a size that was set since is meant");
    assert!(second(&claimed_again(10), &rules()).frozen.is_none(), "nobody is above it");
}

#[test]
fn a_host_that_the_scheduler_lists_and_the_log_does_not_know_freezes_its_pool() {
    let mut look = Look { worker_type: WorkerType::Static, ..healthy(3) };
    look.instances.clear();
    assert!(second(&look, &rules()).frozen.is_none());
    look.records.remove(&id(2));
    let plan = second(&look, &rules());
    assert!(plan.acts.is_empty() && plan.frozen.unwrap().contains("host w-2"));
    look.records.insert(id(2), Known { epoch: 1, ..known(State::Terminated, 2, 100) });
    let listed = |epoch| SchedulerList::Of((0..3).map(|n| (id(n), epoch)).collect());
    assert!(second(&Look { scheduler: listed(5), ..look.clone() }, &rules()).frozen.is_some(), "it knows a later life");
    let plan = second(&Look { scheduler: listed(1), ..look.clone() }, &rules());
    assert!(matches!(&plan.acts[..], [Act::Unregister { .. }]), "{:?}", plan.acts);
    let trusted = Rules { trust_ended: true, ..rules() };
    assert!(second(&Look { scheduler: listed(5), ..look }, &trusted).frozen.is_none(), "a person has looked");
}

#[test]
fn workers_of_another_provider_are_not_written_off_by_the_list_of_this_one() {
    let mut look = healthy(3);
    look.instances.clear();
    for known in look.records.values_mut() {
        known.elsewhere = true;
    }
    let plan = second(&look, &rules());
    assert!(plan.acts.is_empty() && plan.frozen.unwrap().contains("3 live workers, w-0 among them"));
    let trusted = Rules { trust_ended: true, ..rules() };
    assert_eq!(second(&look, &trusted).acts.len(), 3, "a person has looked");
    for known in look.records.values_mut() {
        known.state = State::Terminated;
    }
    assert!(second(&look, &rules()).frozen.is_none(), "who has ended is nobody's any more");
}

#[test]
fn a_second_instance_of_a_name_does_not_hide_the_one_on_record() {
    let mut look = healthy(3);
    let twin = Instance { instance_id: "i-twin".to_owned(), ..instance(1, 2000) };
    for place in [0, 3] {
        look.instances.insert(place, twin.clone());
        let plan = second(&look, &rules());
        assert!(plan.acts.is_empty() && plan.suspects.is_empty() && plan.frozen.is_none(), "{plan:?}");
    }
}

#[test]
fn what_cannot_be_removed_does_not_stand_in_the_way_of_the_rest() {
    let mut look = healthy(400);
    look.instances.extend((500..530).map(|number: usize| -> Instance { instance(number, 1000) }));
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..40 {
        look.now = look.now.checked_add(jiff::SignedDuration::from_secs(61)).unwrap();
        let acts = second(&look, &rules()).acts;
        seen.extend(
            acts.iter().filter(|act| matches!(act, Act::RemoveOrphan { .. })).map(|act| act.subject().to_owned()),
        );
    }
    assert_eq!(seen.len(), 30, "each comes to its turn");
}
