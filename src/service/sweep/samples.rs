//! Pools as tests have them: healthy ones, and any that can be.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::listing::Listing;
use super::look::{Known, Look, SchedulerList};
use super::plan::{self, Plan, Rules, Sightings};
use crate::domain::{
    Claimed, CommandId, Labels, Pool, PoolRecord, PoolState, RegistrationStatus, Slot, SpecHash, State, WorkerId,
    WorkerKey, WorkerType,
};
use crate::journal::{PoolEntry, Writer};
use crate::provider::Instance;

fn now() -> Timestamp {
    Timestamp::from_second(1_000_000).unwrap()
}

pub(super) fn ago(seconds: i64) -> Timestamp {
    now() - SignedDuration::from_secs(seconds)
}

pub(super) fn id(number: usize) -> WorkerId {
    WorkerId::new(format!("w-{number}")).unwrap()
}

pub(super) fn pool() -> Pool {
    Pool::new("web").unwrap()
}

pub(super) fn instance(number: usize, age: i64) -> Instance {
    Instance {
        key: WorkerKey::new(pool(), id(number)),
        instance_id: format!("i-{number}"),
        endpoint: None,
        capabilities: None,
        command_id: CommandId::new("c").unwrap(),
        spec_hash: SpecHash::of(b""),
        epoch: 1,
        claim: None,
        labels: Labels::new(),
        created_at: ago(age),
    }
}

pub(super) fn known(state: State, number: usize, age: i64) -> Known {
    let there = !matches!(state, State::Provisioning | State::Failed);
    Known {
        state,
        epoch: 1,
        sequence: number as u64 + 1,
        claim: Claimed { sequence: number as u64 + 1, at: ago(age) },
        instance_id: there.then(|| format!("i-{number}").into()),
        registration: match state {
            State::Registered => RegistrationStatus::Registered,
            State::RegistrationFailed => RegistrationStatus::Failed,
            _ => RegistrationStatus::Pending,
        },
        elsewhere: false,
        refused: false,
        unmade: state == State::Failed,
        created_at: ago(age),
        updated_at: ago(age),
        message: None,
        slot: None,
    }
}

pub(super) fn size_of(size: u32) -> PoolEntry {
    let record = PoolRecord {
        pool: pool(),
        state: PoolState::Sized,
        rev: 2,
        size,
        actual: size,
        command_id: CommandId::new("p").unwrap(),
        correlation_id: None,
        updated_at: ago(1000),
    };
    PoolEntry { record, sequence: 1, writer: Writer { name: "x".into(), message: None, claim: None, trace: None } }
}

pub(super) fn look() -> Look {
    Look {
        now: now(),
        worker_type: WorkerType::Dynamic,
        listing: Listing::default(),
        instances: Vec::new(),
        records: BTreeMap::new(),
        scheduler: SchedulerList::None,
        size: None,
        others: 0,
        rolled_back: None,
    }
}

pub(super) fn rules() -> Rules {
    Rules {
        grace: Duration::from_secs(300),
        remove_orphans: true,
        max_terminations: 10,
        retention: Duration::from_secs(3600),
        interval: Duration::from_secs(60),
        stuck_after: Duration::from_secs(450),
        max_workers: None,
        inventory: None,
        trust_ended: false,
        message: None,
    }
}

/// The plan of a look whose instances are all that is listed.
pub(super) fn plan(look: &Look, rules: &Rules, before: &Sightings) -> Plan {
    let mut look = look.clone();
    look.listing = Listing::default();
    look.instances.iter().for_each(|instance| look.listing.take(instance));
    plan::plan(&look, rules, before)
}

/// What a sweep does that has seen the same a sweep before.
pub(super) fn second(look: &Look, rules: &Rules) -> Plan {
    plan(look, rules, &plan(look, rules, &Sightings::default()).sightings)
}

/// A healthy pool: `number` registered workers with their instances, all in the scheduler's list.
pub(super) fn healthy(number: usize) -> Look {
    Look {
        instances: (0..number).map(|n| instance(n, 2000)).collect(),
        records: (0..number).map(|n| (id(n), known(State::Registered, n, 2000))).collect(),
        scheduler: SchedulerList::Of((0..number).map(|n| (id(n), 1)).collect()),
        ..look()
    }
}

#[derive(Debug, Clone)]
pub(super) struct Any {
    pub(super) look: Look,
    pub(super) rules: Rules,
    pub(super) seen: Sightings,
}

/// Any pool: every worker may have a record, an instance and a place in the scheduler's list, or not.
pub(super) fn any_pool() -> impl Strategy<Value = Any> {
    let worker = (
        proptest::option::weighted(0.8, (0..State::ALL.len(), 0..9000_i64, any::<bool>())),
        proptest::option::weighted(0.7, (0..9000_i64, 0..10_u8)),
        any::<bool>(),
        any::<bool>(),
    );
    let workers = proptest::collection::vec(worker, 0..60);
    let settings =
        (0..12_usize, 0..3_u8, any::<bool>(), proptest::option::of(0..70_u32), proptest::option::of(1..70_usize));
    (workers, settings, 0..10_u8).prop_map(|(workers, (most, scheduler, remove, size, max_workers), odd)| {
        let mut look = look();
        let (mut listed, mut seen) = (BTreeMap::new(), look.clone());
        for (number, (record, made, in_list, before)) in workers.into_iter().enumerate() {
            if let Some((state, age, refused)) = record {
                let slot =
                    number.is_multiple_of(2).then_some(Slot { number: u32::try_from(number).unwrap() / 4, after: 0 });
                let mut known =
                    Known { refused, slot, elsewhere: odd == 2 && age < 1000, ..known(State::ALL[state], number, age) };
                if known.state == State::Provisioned && refused {
                    known.registration = RegistrationStatus::Disabled;
                }
                look.records.insert(id(number), known.clone());
                if before {
                    seen.records.insert(id(number), known);
                }
            }
            if let Some((age, other)) = made {
                let mut instance = instance(number, age);
                if other == 0 {
                    instance.instance_id.push_str("-other");
                }
                if other == 1 {
                    look.instances.push(Instance { instance_id: format!("i-{number}-twin"), ..instance.clone() });
                }
                look.instances.push(instance.clone());
                if before {
                    seen.instances.push(instance);
                }
            }
            if in_list {
                listed.insert(id(number), 1);
            }
        }
        look.scheduler = match scheduler {
            0 => SchedulerList::None,
            1 => SchedulerList::Away("away".into()),
            _ => SchedulerList::Of(listed),
        };
        look.size = size.map(size_of);
        look.rolled_back = (odd == 0).then(|| "put back".to_owned());
        if odd == 1 {
            look.worker_type = WorkerType::Static;
        }
        let rules = Rules { max_terminations: most, remove_orphans: remove, max_workers, ..rules() };
        let seen = plan(&seen, &rules, &Sightings::default()).sightings;
        Any { look, rules, seen }
    })
}
