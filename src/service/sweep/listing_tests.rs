//! What a look does not hold makes no difference to what is planned.

use proptest::prelude::*;

use super::listing::{Held, Listing};
use super::look::{Known, Look, SchedulerList};
use super::plan::plan;
use super::samples::{self as whole, Any, any_pool, healthy, id, instance, known};
use crate::domain::{State, WorkerType};

/// The same pool as a look holds it that may hold so many instances: what is well is only counted.
fn folded(look: &Look, most: usize) -> Look {
    let mut held = Held::up_to(most);
    look.instances.iter().cloned().for_each(|instance| held.take(instance));
    let mut records = look.records.clone();
    records.retain(|worker_id, known| {
        // An older event of the same worker may come first.
        let before = Known { state: State::Registered, elsewhere: false, ..known.clone() };
        held.listing.judge(worker_id, &before, &look.scheduler, false);
        !held.listing.judge(worker_id, known, &look.scheduler, false)
    });
    let (listing, strays) = held.strays();
    // The second list has the same, and what was made meanwhile.
    let again = look.instances.iter().cloned().chain((1000..1010).map(|number| instance(number, 0)));
    let instances = strays.unwrap_or_else(|| again.filter(|made| listing.has_stray(made)).collect());
    let others = look.others + listing.sound();
    Look { listing, instances, records, others, ..look.clone() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_a_look_does_not_hold_makes_no_difference(Any { mut look, rules, seen } in any_pool(), most in 0..40_usize) {
        look.size = None;
        for known in look.records.values_mut() {
            known.slot = None;
        }
        if look.worker_type == WorkerType::Static {
            // What is found has no instances.
            look.instances.clear();
        }
        let folded = folded(&look, most);
        prop_assert_eq!(folded.live(), look.live());
        prop_assert!(folded.instances.iter().all(|made| look.instances.contains(made)));
        let (expected, found) = (whole::plan(&look, &rules, &seen), plan(&folded, &rules, &seen));
        prop_assert_eq!((expected.acts, expected.suspects), (found.acts, found.suspects));
        prop_assert_eq!((expected.frozen, expected.put_off), (found.frozen, found.put_off));
        prop_assert_eq!(expected.sightings, found.sightings);
    }
}

#[test]
fn a_healthy_pool_is_held_as_a_number() {
    let look = folded(&healthy(30), 10);
    assert!(look.records.is_empty() && look.instances.is_empty());
    assert_eq!((look.listing.number(), look.live()), (30, 30));
}

#[test]
fn a_long_list_is_read_again_only_for_instances_without_a_live_record() {
    let mut look = healthy(30);
    look.records.insert(id(7), known(State::Provisioned, 7, 10));
    let strays = |look: &Look| {
        let mut held = Held::up_to(10);
        look.instances.iter().cloned().for_each(|instance| held.take(instance));
        for (worker_id, known) in &look.records {
            held.listing.judge(worker_id, known, &look.scheduler, false);
        }
        held.strays().1
    };
    assert_eq!(strays(&look), Some(Vec::new()), "that one is being registered");
    look.instances.push(instance(31, 400));
    assert_eq!(strays(&look), None);
}

#[test]
fn a_later_event_of_a_sound_worker_is_judged_anew() {
    let (mut listing, scheduler) = (Listing::default(), SchedulerList::None);
    listing.take(&instance(1, 2000));
    let mut judge = |state| {
        let sound = listing.judge(&id(1), &known(state, 1, 2000), &scheduler, false);
        (sound, listing.sound(), listing.has_stray(&instance(1, 2000)))
    };
    assert_eq!(judge(State::Registered), (true, 1, false));
    assert_eq!(judge(State::Terminating), (false, 0, false));
    assert_eq!(judge(State::Terminated), (false, 0, true));
}
