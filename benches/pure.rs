//! The parts of a command's way that wait for nobody: what its bytes cost.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use enlist::domain::{
    Capabilities, Claim, CommandId, Pool, Prefix, SpecHash, Step, Worker, WorkerId, WorkerKey, WorkerType,
};
use enlist::wire::command::ProvisionCommand;
use enlist::wire::event;
use enlist::wire::publish::PubAck;
use jiff::Timestamp;

const COMMAND: &[u8] =
    br#"{"command_id":"c-00000001","worker_id":"w-1","spec":{"labels":{"team":"a","zone":"b"},"cpus":2},"correlation_id":"order-7"}"#;

fn claim() -> Step {
    Step::Claim(Box::new(Claim {
        pool: Pool::new("load").expect("a pool"),
        worker_id: WorkerId::new("w-1").expect("a worker id"),
        worker_type: WorkerType::Dynamic,
        command_id: CommandId::new("c-00000001").expect("a command id"),
        correlation_id: None,
        spec_hash: SpecHash::of(COMMAND),
        provider: "null".to_owned(),
        capabilities: Capabilities::default(),
        registration: true,
    }))
}

fn created(claimed: &Worker) -> Worker {
    let step = Step::Created { instance_id: "n-0123456789abcdef".to_owned(), endpoint: None, capabilities: None };
    step.apply(Some(claimed), Timestamp::UNIX_EPOCH).expect("created")
}

fn pure(criterion: &mut Criterion) {
    let prefix = Prefix::new("enlist").expect("a prefix");
    let claimed = claim().apply(None, Timestamp::UNIX_EPOCH).expect("claimed");
    let body = event::encode(&prefix, &created(&claimed), None);
    let command = ProvisionCommand::decode(COMMAND).expect("a command");

    criterion.bench_function("decode a command", |b| b.iter(|| ProvisionCommand::decode(black_box(COMMAND))));
    criterion.bench_function("fingerprint of a command", |b| b.iter(|| black_box(&command).content_hash()));
    criterion.bench_function("name of a worker without one", |b| {
        b.iter(|| WorkerId::derived(&claimed.pool, black_box(&claimed.command_id)));
    });
    criterion.bench_function("claim", |b| b.iter(|| claim().apply(None, Timestamp::UNIX_EPOCH)));
    criterion.bench_function("transition", |b| b.iter(|| created(black_box(&claimed))));
    criterion.bench_function("encode an event", |b| b.iter(|| event::encode(&prefix, black_box(&claimed), None)));
    criterion.bench_function("decode an event", |b| b.iter(|| event::decode(black_box(&body))));
    criterion.bench_function("read a publish's answer", |b| {
        b.iter(|| PubAck::read(black_box(br#"{"stream":"ENLIST_EVENTS", "seq":123456}"#)));
    });
    let key = WorkerKey::new(claimed.pool.clone(), claimed.worker_id.clone());
    let subjects = enlist::bus::subjects::Subjects::new(&prefix);
    criterion.bench_function("subject and filter", |b| {
        b.iter(|| (subjects.log(black_box(&key), claimed.state), subjects.events_of(&key)));
    });
}

criterion_group!(benches, pure);
criterion_main!(benches);
