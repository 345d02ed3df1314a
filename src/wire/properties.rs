//! Nothing that comes in makes a reader panic, and what is written is read back as it was.

use jiff::Timestamp;
use proptest::option::of;
use proptest::prelude::*;
use serde_json::json;

use super::command::{
    PoolCommand, ProvisionCommand, RegistrationOverrides, SpecOverrides, SweepCommand, TerminateCommand, Undecodable,
};
use super::provider::{CreateRequest, Created, DeleteRequest, Deleted, InstancesPage, InstancesRequest, ProviderReply};
use super::scheduler::{ListReply, ListRequest, RegisterReply, RegisterRequest, UnregisterReply, UnregisterRequest};
use super::tests::worker_of;
use super::{event, read};
use crate::domain::{
    Capabilities, CommandId, CorrelationId, EndedBy, ErrorClass, Pool, PoolRecord, PoolState, Prefix, Registration,
    RegistrationFault, RegistrationStatus, State, Worker, WorkerFault, WorkerId,
};

prop_compose! {
    fn moment()(seconds in 0..4_000_000_000_i64, nanos in 0..1_000_000_000_i32) -> Timestamp {
        Timestamp::new(seconds, nanos).unwrap()
    }
}

fn command_id() -> impl Strategy<Value = CommandId> {
    "[A-Za-z0-9_-]{1,64}".prop_map(|id| CommandId::new(id).unwrap())
}

fn correlation_id() -> impl Strategy<Value = CorrelationId> {
    r"[^\x00-\x1f\x7f-\x9f]{1,128}".prop_map(|id| CorrelationId::new(id).unwrap())
}

fn worker_id() -> impl Strategy<Value = WorkerId> {
    "[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?".prop_map(|id| WorkerId::new(id).unwrap())
}

prop_compose! {
    fn spec()(
        image in of("[!-,.-~][!-~]{0,254}"),
        command in of(prop::collection::vec("[^\0]{1,9}", 1..4)),
        env in of(prop::collection::btree_map("[a-z_][A-Za-z0-9_]{0,9}Z", "[^\0]{0,9}", 0..4)),
        labels in of(prop::collection::btree_map("[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?", "\\PC{0,9}", 0..4)),
        cpus in of(0.001..1000.0_f64),
        memory_mb in of(1..=1_u64 << 30),
        gpus in of(any::<u32>()),
    ) -> SpecOverrides {
        SpecOverrides { image, command, env, labels, cpus, memory_mb, gpus }
    }
}

prop_compose! {
    pub(super) fn provision_command()(
        command_id in command_id(),
        worker_id in of(worker_id()),
        spec in spec(),
        (enabled, max_retries, timeout_ms) in (of(any::<bool>()), of(0..=100_u32), of(1..=read::DAY_MS)),
        expires_at in of(moment()),
        correlation_id in of(correlation_id()),
    ) -> ProvisionCommand {
        let registration = RegistrationOverrides { enabled, max_retries, timeout_ms };
        ProvisionCommand { command_id, worker_id, spec, registration, expires_at, correlation_id }
    }
}

prop_compose! {
    pub(super) fn terminate_command()(
        command_id in command_id(),
        worker_id in worker_id(),
        reason in of(".{0,200}"),
        grace_ms in of(0..=read::DAY_MS),
        force in any::<bool>(),
        expires_at in of(moment()),
        correlation_id in of(correlation_id()),
    ) -> TerminateCommand {
        TerminateCommand { command_id, worker_id, reason, grace_ms, force, expires_at, correlation_id }
    }
}

prop_compose! {
    pub(super) fn worker()(
        state in prop::sample::select(&State::ALL[..]),
        (rev, epoch, attempts) in (1..u64::MAX, 1..u64::MAX, any::<u32>()),
        correlation_id in of(correlation_id()),
        ended_by in of((of(command_id()), of(".{0,20}"))),
        (instance_id, endpoint, message) in (of(".{0,20}"), of(".{0,20}"), ".{0,20}"),
        (cpus, memory_mb, gpus) in (of(0.0..1e9_f64), of(any::<u64>()), of(any::<u32>())),
        labels in prop::collection::btree_map(".{0,9}", ".{0,9}", 0..4),
        fault in any::<bool>(),
        updated_at in moment(),
    ) -> Worker {
        let registration = Registration {
            status: RegistrationStatus::Failed,
            attempts,
            error: fault.then(|| RegistrationFault { code: "busy".into(), message: message.clone(), critical: fault }),
        };
        Worker {
            rev,
            epoch,
            attempts,
            correlation_id,
            ended_by: ended_by.map(|(command_id, reason)| EndedBy { command_id, reason }),
            instance_id,
            endpoint,
            capabilities: Capabilities { cpus, memory_mb, gpus, labels },
            registration,
            error: fault.then_some(WorkerFault { class: ErrorClass::Timeout, message, retryable: true }),
            updated_at,
            ..worker_of(state)
        }
    }
}

/// Bytes that look like commands, broken in places.
fn near_misses() -> impl Strategy<Value = Vec<u8>> {
    (provision_command(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(command, at, byte)| {
        let mut body = command.encode();
        let at = at.index(body.len());
        body[at] = byte;
        body
    })
}

fn read_everything(body: &[u8]) {
    let _: [Option<Undecodable>; 4] = [
        ProvisionCommand::decode(body).err(),
        TerminateCommand::decode(body).err(),
        PoolCommand::decode(body).err(),
        SweepCommand::decode(body).err(),
    ];
    let _ = (event::decode(body), event::decode_pool(body));
    let _ = (RegisterRequest::decode(body), UnregisterRequest::decode(body), ListRequest::decode(body));
    let _ = (RegisterReply::decode(body), UnregisterReply::decode(body), ListReply::decode(body));
    let _ = (CreateRequest::decode(body), DeleteRequest::decode(body), InstancesRequest::decode(body));
    let _ = (ProviderReply::<Created>::decode(body), ProviderReply::<Deleted>::decode(body));
    let _ = ProviderReply::<InstancesPage>::decode(body);
}

proptest! {
    #[test]
    fn no_bytes_make_a_reader_panic(body in prop::collection::vec(any::<u8>(), 0..512)) {
        read_everything(&body);
    }

    #[test]
    fn no_text_makes_a_reader_panic(body in "[\\[\\]{}\",:0-9a-z\\\\ ]{0,64}") {
        read_everything(body.as_bytes());
    }

    #[test]
    fn no_broken_command_makes_a_reader_panic_and_each_refusal_says_why(body in near_misses()) {
        read_everything(&body);
        if let Err(error) = ProvisionCommand::decode(&body) {
            prop_assert!(!error.refusal.detail.is_empty());
            prop_assert!(!error.refusal.detail.contains("does not read as"), "the table agrees with the readers: {}", error.refusal);
        }
    }

    #[test]
    fn a_provision_is_read_as_it_was_written(command in provision_command()) {
        prop_assert_eq!(ProvisionCommand::decode(&command.encode()), Ok(command.clone()));
        let event = json!({ "specversion": "1.0", "data": serde_json::from_slice::<serde_json::Value>(&command.encode()).unwrap() });
        let back = ProvisionCommand::decode(event.to_string().as_bytes()).unwrap();
        prop_assert_eq!(back.content_hash(), command.content_hash());
    }

    #[test]
    fn a_terminate_is_read_as_it_was_written(command in terminate_command()) {
        prop_assert_eq!(TerminateCommand::decode(&command.encode()), Ok(command));
    }

    #[test]
    fn a_pool_command_is_read_as_it_was_written(
        command_id in command_id(), size in 0..=read::MAX_SIZE, expires_at in of(moment()), correlation_id in of(correlation_id()),
    ) {
        let sweep = SweepCommand { command_id: command_id.clone() };
        prop_assert_eq!(SweepCommand::decode(&sweep.encode()), Ok(sweep));
        let command = PoolCommand { command_id, size, expires_at, correlation_id };
        prop_assert_eq!(PoolCommand::decode(&command.encode()), Ok(command));
    }

    #[test]
    fn an_event_is_read_as_it_was_written(worker in worker(), traceparent in of(".{0,60}")) {
        let body = event::encode(&Prefix::new("fleet-1").unwrap(), &worker, traceparent.as_deref());
        prop_assert_eq!(event::decode(&body), Ok(worker));
    }

    #[test]
    fn a_pool_event_is_read_as_it_was_written(command_id in command_id(), size: u32, actual: u32, rev: u64, updated_at in moment()) {
        let pool = Pool::new("demo").unwrap();
        let record = PoolRecord { pool, state: PoolState::Sizing, rev, size, actual, command_id, correlation_id: None, updated_at };
        let body = event::encode_pool(&Prefix::new("enlist").unwrap(), &record, None);
        prop_assert_eq!(event::decode_pool(&body), Ok(record));
        prop_assert!(event::decode(&body).is_err());
    }
}
