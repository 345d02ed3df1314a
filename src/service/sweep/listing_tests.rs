//! What a look does not hold makes no difference to what is planned.

use proptest::prelude::*;

use super::listing::{Held, Listing};
use super::look::{Look, SchedulerList};
use super::plan::plan;
use super::plan_tests::{Any, any_pool, healthy, id, instance, known, rules, second};
use crate::domain::{State, WorkerType};

/// The same pool, as a look holds it: sound workers are only counted.
fn folded(look: &Look, most: usize) -> Look {
    let mut held = Held::most(most);
    look.instances.iter().cloned().for_each(|instance| held.take(instance));
    let mut records = look.records.clone();
    records.retain(|worker_id, known| !held.listing.judge(worker_id, known, &look.scheduler));
    let (listing, instances) = held.unsound();
    let again = |listing: &Listing| look.instances.iter().filter(|made| listing.has_unsound(made)).cloned().collect();
    let instances = instances.unwrap_or_else(|| again(&listing));
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
        let (whole, part) = (plan(&look, &rules, &seen), plan(&folded, &rules, &seen));
        prop_assert_eq!((whole.acts, whole.suspects), (part.acts, part.suspects));
        prop_assert_eq!((whole.frozen, whole.put_off), (part.frozen, part.put_off));
    }
}

#[test]
fn a_healthy_pool_is_held_as_a_number() {
    let look = folded(&healthy(30), 10);
    assert!(look.records.is_empty() && look.instances.is_empty());
    assert_eq!((look.listing.number(), look.live()), (30, 30));
    assert!(second(&look, &rules()).acts.is_empty());
}

#[test]
fn a_later_event_of_a_sound_worker_is_judged_anew() {
    let (mut listing, scheduler) = (Listing::default(), SchedulerList::None);
    listing.take(&instance(1, 2000));
    assert!(listing.judge(&id(1), &known(State::Registered, 1, 2000), &scheduler));
    assert!(!listing.judge(&id(1), &known(State::Terminating, 1, 2000), &scheduler));
    assert_eq!((listing.sound(), listing.has_unsound(&instance(1, 2000))), (0, true));
}
