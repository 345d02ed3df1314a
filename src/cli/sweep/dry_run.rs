//! What a sweep would do, and what its brake holds back.

use super::super::orders::Orders;
use super::super::page::Page;
use super::super::pools::{Tended, readable};
use super::super::table::table;
use super::{removes, row, suspect};
use crate::domain::PoolState;
use crate::service::sweep::{Act, Look, Order, Plan, SchedulerList, SweepPoolConfig};

/// Whether all that a sweep looks at could be seen.
pub(super) async fn run(page: &Page, orders: &Orders, tended: &Tended) -> bool {
    let Tended { pool, service, sweep, queue: _, place } = tended;
    let unseen = |error: String| page.say(format!("{pool}: not looked at to the end: {error}"));
    let (look, plan) = match readable(orders, service.plan_sweep(sweep)).await {
        Ok(found) => found,
        Err(error) => {
            unseen(error);
            return false;
        }
    };
    show(page, &plan);
    page.say(format!("{pool}: {}", summary(&look, &plan, place)));
    let seen = !matches!(look.scheduler, SchedulerList::Away(_));
    let Some(why) = &plan.frozen else { return seen };
    page.say(format!("{pool}: FROZEN, nothing is removed: {why}"));
    // The same without the limit: who is to decide has to see what would go.
    let free = SweepPoolConfig { max_terminations: usize::MAX, trust_ended: true, ..sweep.clone() };
    match service.plan_sweep(&free).await {
        Ok((_, Plan { frozen: Some(_), .. })) => {
            page.say(format!("{pool}: enlist adopt {pool} --dry-run lists the instances that have no record"));
        }
        Ok((_, freed)) => {
            let held = Plan { acts: held_back(&freed, &plan), ..Plan::default() };
            page.say(format!("{pool}: held back until then:"));
            show(page, &held);
            let limit = limit(&held.acts);
            page.say(format!("{pool}: if all of this may happen: enlist sweep {pool} --max-terminations {limit}"));
        }
        Err(error) => {
            unseen(error.to_string());
            return false;
        }
    }
    seen
}

fn show(page: &Page, plan: &Plan) {
    let (alike, each): (Vec<&Act>, Vec<&Act>) = plan.acts.iter().partition(|act| comes_in_numbers(act));
    let mut rows: Vec<_> = each.into_iter().map(|act| row(act, act.reason())).collect();
    for of_a_kind in alike.chunk_by(|a, b| a.kind() == b.kind()) {
        let [kind, _, reason] = row(of_a_kind[0], of_a_kind[0].reason());
        rows.push([kind, format!("({})", of_a_kind.len()), reason]);
    }
    rows.extend(plan.suspects.iter().map(suspect));
    if !rows.is_empty() {
        page.say(table(["ACTION", "WORKER", "REASON"], rows));
    }
}

/// Whether one is like the other, and a thousand rows of them would tell no more than their number.
fn comes_in_numbers(act: &Act) -> bool {
    matches!(act, Act::Purge { .. } | Act::Ask(Order::Provision { worker_id: None, .. }))
}

fn summary(look: &Look, plan: &Plan, place: &str) -> String {
    let (instances, live) = (look.listing.number(), look.live());
    let scheduler = match &look.scheduler {
        SchedulerList::Of(listed) => format!("the scheduler lists {}", listed.len()),
        SchedulerList::None => "the scheduler gives no list".to_owned(),
        SchedulerList::Away(why) => format!("the scheduler's list could not be had: {why}"),
    };
    let size = look.size.as_ref().map(|entry| &entry.record);
    let size = match size.map(|record| (record.size, record.state)) {
        None => "no size".to_owned(),
        Some((size, PoolState::Sizing)) => format!("size {size}, not reached yet"),
        Some((size, PoolState::Sized)) => format!("size {size}"),
    };
    let put_off = match plan.put_off {
        0 => String::new(),
        more => format!("; {more} more removals for the next sweeps"),
    };
    let idle = plan.acts.is_empty() && plan.suspects.is_empty() && plan.frozen.is_none();
    let nothing = if idle { "; nothing to do now" } else { "" };
    format!("instances {instances} ({place}), live workers {live}; {scheduler}; {size}{put_off}{nothing}")
}

/// What is done only where the brake does not hold.
fn held_back(freed: &Plan, braked: &Plan) -> Vec<Act> {
    freed.acts.iter().filter(|act| !braked.acts.contains(act)).cloned().collect()
}

/// The lowest limit under which the brake lets all of this go: it counts removals, and the workers that the scheduler lists
/// and the log does not know.
fn limit(held: &[Act]) -> usize {
    let unknown = held.iter().filter(|act| matches!(act, Act::Unregister { record: None, .. })).count();
    held.iter().filter(|act| removes(act)).count().max(unknown)
}
