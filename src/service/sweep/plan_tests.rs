//! Every rule of the plan, held against any pool that can be.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::act::{Act, Order, Why};
use super::look::{Known, Look, SchedulerList};
use super::plan::{Rules, Sightings};
use super::samples::{Any, ago, any_pool, healthy, id, instance, known, plan, rules, second};
use super::size::Count;
use crate::domain::{Slot, State, WorkerId, WorkerType};
use crate::provider::Instance;

fn removes(act: &Act) -> bool {
    match act {
        Act::RemoveOrphan { .. }
        | Act::Lose { .. }
        | Act::FinishLost { .. }
        | Act::Unregister { .. }
        | Act::Purge { .. }
        | Act::Finish { .. }
        | Act::Ask(Order::Terminate { .. }) => true,
        Act::ReportOrphan { .. } | Act::Register { .. } | Act::Ask(Order::Provision { .. }) => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn nothing_live_is_removed_but_by_the_pools_size(Any { look, rules, seen } in any_pool()) {
        let live = |worker: &WorkerId| look.records.get(worker).is_some_and(Known::is_live);
        for act in plan(&look, &rules, &seen).acts {
            match act {
                Act::RemoveOrphan { instance, record } => {
                    prop_assert!(!live(&instance.key.worker_id));
                    prop_assert_eq!(record, look.records.get(&instance.key.worker_id).map(|known| known.sequence));
                    prop_assert!(instance.created_at < ago(300), "a young instance is nobody's orphan");
                }
                Act::Unregister { worker_id, .. } | Act::Purge { worker_id, .. } => prop_assert!(!live(&worker_id)),
                Act::Ask(Order::Terminate { .. }) => {
                    prop_assert!(Count::of(&look.records).counted > look.size.as_ref().unwrap().record.size as usize);
                }
                _ => {}
            }
        }
    }

    #[test]
    fn what_is_seen_once_is_not_acted_upon(Any { look, rules, .. } in any_pool()) {
        let first = plan(&look, &rules, &Sightings::default());
        let of_suspects =
            |act: &Act| matches!(act, Act::RemoveOrphan { .. } | Act::ReportOrphan { .. } | Act::Lose { .. });
        prop_assert!(!first.acts.iter().any(of_suspects), "{:?}", first.acts);
        let second = plan(&look, &rules, &first.sightings);
        prop_assert!(second.suspects.is_empty(), "the second time nothing is new");
    }

    #[test]
    fn a_worker_is_lost_only_if_its_own_instance_is_not_listed(Any { look, rules, seen } in any_pool()) {
        for act in plan(&look, &rules, &seen).acts {
            if let Act::Lose { worker_id, .. } = act {
                let known = &look.records[&worker_id];
                prop_assert!(matches!(known.state, State::Provisioned | State::Registered | State::RegistrationFailed));
                let same = |instance: &&Instance| {
                    instance.key.worker_id == worker_id && Some(&*instance.instance_id) == known.instance_id.as_deref()
                };
                prop_assert!(!look.instances.iter().any(|instance| same(&instance)));
            }
        }
    }

    #[test]
    fn a_frozen_sweep_removes_nothing_and_asks_for_nothing(Any { look, rules, seen } in any_pool()) {
        let plan = plan(&look, &rules, &seen);
        if look.rolled_back.is_some() || (look.records.is_empty() && !look.instances.is_empty()) {
            prop_assert!(plan.frozen.is_some());
        }
        if plan.frozen.is_some() {
            let acts = plan.acts;
            prop_assert!(!acts.iter().any(|act| removes(act) || matches!(act, Act::Ask(_))), "{:?}", acts);
        }
    }

    #[test]
    fn a_sweep_removes_no_more_than_it_may(Any { look, rules, seen } in any_pool()) {
        let live = look.records.values().filter(|known| known.is_live()).count();
        let plan = plan(&look, &rules, &seen);
        let going = plan.acts.iter().filter(|act| matches!(act, Act::RemoveOrphan { .. } | Act::Lose { .. })).count();
        prop_assert!(going <= rules.max_terminations.max(live / 20));
        let wanted = going + plan.put_off;
        prop_assert!(wanted <= rules.max_terminations.max(live / 10), "more than that freezes it");
    }

    #[test]
    fn found_hosts_have_no_orphans_and_are_not_lost(Any { look, rules, seen } in any_pool()) {
        let look = Look { worker_type: WorkerType::Static, ..look };
        let acts = plan(&look, &rules, &seen).acts;
        let gone = acts.iter().any(|act| matches!(act, Act::RemoveOrphan { .. } | Act::Lose { .. }));
        prop_assert!(!gone, "{:?}", acts);
    }

    #[test]
    fn only_what_is_there_and_was_not_refused_is_registered(Any { look, rules, seen } in any_pool()) {
        for act in plan(&look, &rules, &seen).acts {
            let Act::Register { worker_id, why, .. } = act else { continue };
            let known = &look.records[&worker_id];
            let there = look.worker_type == WorkerType::Static
                || look.instances.iter().any(|made| made.key.worker_id == worker_id && Some(&*made.instance_id) == known.instance_id.as_deref());
            prop_assert!(there);
            match why {
                Why::Failed => prop_assert!(known.state == State::RegistrationFailed && !known.refused),
                Why::Missing => {
                    let SchedulerList::Of(listed) = &look.scheduler else { panic!("nobody has said that it is missing") };
                    prop_assert!(known.state == State::Registered && !listed.contains_key(&worker_id));
                }
            }
        }
    }

    #[test]
    fn a_scheduler_that_does_not_answer_is_not_acted_upon(Any { look, rules, seen } in any_pool()) {
        let look = Look { scheduler: SchedulerList::Away("away".into()), ..look };
        let acts = plan(&look, &rules, &seen).acts;
        let rests_on_it =
            |act: &Act| matches!(act, Act::Register { .. } | Act::Unregister { .. } | Act::Purge { .. });
        prop_assert!(!acts.iter().any(rests_on_it), "{:?}", acts);
    }

    #[test]
    fn only_what_is_long_past_and_left_nothing_behind_is_purged(Any { look, rules, seen } in any_pool()) {
        for act in plan(&look, &rules, &seen).acts {
            let Act::Purge { worker_id, sequence } = act else { continue };
            let known = &look.records[&worker_id];
            prop_assert!(known.state.is_final() && known.sequence == sequence && known.updated_at < ago(3600));
            prop_assert!(!look.instances.iter().any(|made| made.key.worker_id == worker_id));
            if let SchedulerList::Of(listed) = &look.scheduler {
                prop_assert!(!listed.contains_key(&worker_id));
            }
            // Whoever comes to its place next is told apart from it.
            prop_assert!(!rules.inventory.iter().flatten().any(|host| *host == worker_id));
            if let Some(Slot { number, .. }) = known.slot {
                let later = |other: &Known| other.sequence > known.sequence && other.slot.is_some_and(|slot| slot.number == number);
                prop_assert!(look.records.values().any(later));
            }
        }
    }

    #[test]
    fn a_pool_with_a_size_comes_to_it_and_never_over_its_limit(Any { look, rules, seen } in any_pool()) {
        let Some(size) = look.size.as_ref().map(|entry| entry.record.size as usize) else { return Ok(()) };
        let plan = plan(&look, &rules, &seen);
        if plan.frozen.is_some() || look.worker_type == WorkerType::Static {
            return Ok(());
        }
        let lost = plan.acts.iter().filter(|act| act.loses().is_some()).count();
        let count = Count::of(&look.records);
        let more = plan.acts.iter().filter(|act| matches!(act, Act::Ask(Order::Provision { .. }))).count();
        let fewer = plan.acts.iter().filter(|act| matches!(act, Act::Ask(Order::Terminate { .. }))).count();
        prop_assert!(more == 0 || fewer == 0);
        let (counted, room) = (count.counted - lost, rules.max_workers.map_or(usize::MAX, |max| max.saturating_sub(count.live)));
        prop_assert_eq!(fewer, counted.saturating_sub(size));
        // Places whose workers keep failing wait: fewer may be asked for, never more.
        prop_assert!(more <= size.saturating_sub(counted).min(room));
        let ids: BTreeSet<&str> = plan.acts.iter().filter(|act| matches!(act, Act::Ask(_))).map(Act::subject).collect();
        prop_assert_eq!(ids.len(), more + fewer, "each once");
    }

    #[test]
    fn whoever_looks_at_the_same_plans_the_same(Any { look, rules, seen } in any_pool()) {
        let mut other = look.clone();
        other.instances.reverse();
        // Another map of the same entries has another order of its own.
        other.records = look.records.iter().map(|(worker, known)| (worker.clone(), known.clone())).collect();
        prop_assert_eq!(plan(&look, &rules, &seen).acts, plan(&other, &rules, &seen).acts);
    }
}

#[test]
fn a_healthy_pool_is_left_alone() {
    let plan = second(&healthy(30), &rules());
    assert!(plan.acts.is_empty() && plan.suspects.is_empty() && plan.frozen.is_none(), "{:?}", plan.acts);
}

#[test]
fn an_orphan_goes_the_second_time() {
    let mut look = healthy(20);
    look.instances.push(instance(77, 301));
    let first = plan(&look, &rules(), &Sightings::default());
    assert!(first.acts.is_empty());
    assert_eq!(first.suspects.len(), 1);
    let second = plan(&look, &rules(), &first.sightings);
    assert!(matches!(&second.acts[..], [Act::RemoveOrphan { record: None, .. }]));
    let told = plan(&look, &Rules { remove_orphans: false, ..rules() }, &first.sightings);
    assert!(matches!(&told.acts[..], [Act::ReportOrphan { .. }]));
}

#[test]
fn a_record_that_nobody_moves_is_finished_and_one_of_this_very_sweep_at_once() {
    let mut look = healthy(5);
    for (number, age) in [(70, 400), (71, 500)] {
        look.records.insert(id(number), known(State::Provisioning, number, age));
    }
    let mine = Known { message: Some(9), ..known(State::Terminating, 72, 1) };
    look.records.insert(id(72), mine);
    let ended = |rules: &Rules| -> Vec<String> {
        let acts = second(&look, rules).acts;
        acts.iter().filter(|act| matches!(act, Act::Finish { .. })).map(|act| act.subject().to_owned()).collect()
    };
    assert_eq!(ended(&rules()), ["w-71"]);
    assert_eq!(ended(&Rules { message: Some(9), ..rules() }), ["w-71", "w-72"]);
}
