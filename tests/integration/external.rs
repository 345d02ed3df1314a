//! Providers that are programs of somebody else's: requests, heartbeats, silence, and the kit that checks them.

mod program;

use std::time::Duration;

use enlist::config::{ExternalConfig, NullConfig};
use enlist::domain::{ErrorClass, Pool, Prefix, WorkerSpec};
use enlist::provider::contract::{Outcome, Report};
use enlist::provider::external::ExternalProvider;
use enlist::provider::external::conformance::Kit;
use enlist::provider::null::NullProvider;
use enlist::provider::{ProviderError, WorkerProvider as _};
use futures_util::StreamExt as _;
use tokio::time::timeout;

use crate::broker::Broker;
use crate::world::{World, provision, terminate};
pub(crate) use program::{Flaw, Program};

/// A name that no other test has.
fn unique() -> String {
    format!("x{}", &uuid::Uuid::new_v4().simple().to_string()[..12])
}

fn kit(config: &ExternalConfig) -> Kit {
    let spec = WorkerSpec { command: vec!["sleep".into(), "600".into()], ..WorkerSpec::default() };
    let patience = Duration::from_secs(30);
    Kit { config: config.clone(), spec, launch_timeout: patience, grace: Duration::from_secs(5) }
}

/// The kit's report on a program with this flaw.
async fn checked(flaw: Flaw) -> Report {
    let broker = Broker::shared().await;
    let client = async_nats::connect(broker.url()).await.unwrap();
    // A busy machine must not look like silence.
    let answer_timeout = Duration::from_secs(3);
    let config = ExternalConfig { name: unique(), subject_prefix: "provider".into(), answer_timeout };
    let _program = Program::start(&client, &config, flaw).await;
    kit(&config).check(&client).await.unwrap()
}

#[tokio::test]
async fn a_program_that_keeps_the_contract_passes() {
    let report = checked(Flaw::None).await;
    assert!(report.passed(), "{report}");
    let waived = report.checks.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Waived(_))).count();
    assert_eq!((waived, report.checks.len()), (1, 25), "{report}");
}

#[tokio::test]
async fn a_program_that_is_slow_and_says_so_passes() {
    let report = checked(Flaw::Slow).await;
    assert!(report.passed(), "{report}");
}

#[tokio::test]
async fn each_flaw_is_told_on_its_own_line() {
    for (flaw, sentence) in [
        (Flaw::TakesOthers, "a create says at once that another command's instance is a conflict"),
        (Flaw::Strict, "fields that it does not know are passed over"),
        (Flaw::SilentOnNonsense, "a request that cannot be read is refused as invalid_spec"),
        (Flaw::BeginsLate, "a create that has expired is not begun"),
        (Flaw::NoFilter, "a list of one worker has this one and no other"),
        (Flaw::NoLimit, "a list keeps to its limit, and its pages have each instance once"),
        (Flaw::FirstPageOnly, "a list keeps to its limit, and its pages have each instance once"),
        (Flaw::DeletesAny, "a terminate that means another instance leaves the live one alone"),
        (Flaw::Forgets, "what the request said comes back through create, find and list"),
    ] {
        let report = checked(flaw).await;
        let broken: Vec<_> =
            report.checks.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Broken(_))).collect();
        assert!(broken.iter().any(|(told, _)| *told == sentence), "{flaw:?}: {report}");
        assert!(broken.len() < 4, "{flaw:?} hides in a crowd: {report}");
    }
}

#[tokio::test]
async fn nobody_there_is_unavailable_and_silence_a_timeout() {
    let broker = Broker::shared().await;
    let client = async_nats::connect(broker.url()).await.unwrap();
    let answer_timeout = Duration::from_millis(300);
    let config = ExternalConfig { name: unique(), subject_prefix: "provider".into(), answer_timeout };
    let fleet = Prefix::new("fleet").unwrap();
    let provider = ExternalProvider::new(&fleet, client.clone(), &config, Duration::from_secs(5));
    let list = async || provider.list_workers(&Pool::new("pool").unwrap()).await;
    let class = |answer: Result<Vec<_>, ProviderError>| answer.unwrap_err().class;
    assert_eq!(class(list().await), ErrorClass::Unavailable);
    let silent = client.subscribe(config.subject("*")).await.unwrap();
    client.flush().await.unwrap();
    assert_eq!(class(list().await), ErrorClass::Timeout);
    drop(silent);
}

/// A fleet whose pool is made by a program of this test.
#[tokio::test]
async fn the_kit_ends_though_a_program_beats_for_ever() {
    let broker = Broker::shared().await;
    let client = async_nats::connect(broker.url()).await.unwrap();
    let answer_timeout = Duration::from_secs(3);
    let config = ExternalConfig { name: unique(), subject_prefix: "provider".into(), answer_timeout };
    let mut requests = client.subscribe(config.subject("*")).await.unwrap();
    let beats = async {
        let asked = requests.next().await.unwrap();
        let mut beats = tokio::time::interval(Duration::from_millis(100));
        loop {
            beats.tick().await;
            client.publish(asked.reply.clone().unwrap(), r#"{"status":"working"}"#.into()).await.unwrap();
        }
    };
    let kit = Kit { launch_timeout: Duration::from_secs(1), grace: Duration::from_secs(1), ..kit(&config) };
    let report = tokio::select! {
        report = timeout(Duration::from_secs(30), kit.check(&client)) => report.expect("an end").unwrap(),
        () = beats => unreachable!(),
    };
    assert!(report.to_string().contains("heartbeats, and no answer within 2s"), "{report}");
}

async fn fleet(flaw: Flaw) -> (World, Program) {
    let (subject_prefix, answer_timeout) = (unique(), Duration::from_millis(500));
    let config = ExternalConfig { name: "made".into(), subject_prefix, answer_timeout };
    let pool = format!(
        "[sweep]\ninterval = \"12h\"\n[pools.ext]\nprovider = \"nats\"\nname = \"made\"\nsubject_prefix = \"{}\"\n\
         answer_timeout = \"500ms\"\ncommand = [\"sleep\", \"600\"]\nlabels = {{ zone = \"a\" }}\n",
        config.subject_prefix
    );
    let world = World::new(&pool).await;
    let program = Program::start(&world.client, &config, flaw).await;
    (world, program)
}

#[tokio::test]
async fn a_worker_is_made_registered_and_removed_by_somebody_else_s_program() {
    let (world, program) = fleet(Flaw::None).await;
    let _replica = world.replica().await;
    world.send("ext", &provision("c-1", "w-1")).await;
    let event = world.reaches("w-1", "registered").await;
    assert_eq!((event.worker.provider.as_str(), event.worker.endpoint.as_deref()), ("nats", Some("far.example:1")));
    assert_eq!(event.worker.capabilities.labels["zone"], "a");
    assert_eq!(world.instances("ext").await.len(), 1);
    world.send("ext", &terminate("t-1", "w-1")).await;
    world.reaches("w-1", "terminated").await;
    assert!(world.instances("ext").await.is_empty());
    assert_eq!(program.asked("create"), 1);
}

#[tokio::test]
async fn a_long_create_is_waited_for_while_it_shows_signs_of_life() {
    // Three times as long as silence is borne.
    let (world, program) = fleet(Flaw::Slow).await;
    let _replica = world.replica().await;
    world.send("ext", &provision("c-1", "w-1")).await;
    let event = world.reaches("w-1", "registered").await;
    assert_eq!((event.worker.epoch, event.worker.attempts), (1, 0), "the first try: {}", world.story().await);
    assert_eq!(program.asked("create"), 1);
}

#[tokio::test]
async fn an_answer_that_was_lost_is_looked_up_and_nothing_is_created_again() {
    let (world, program) = fleet(Flaw::FirstAnswerLost).await;
    let _replica = world.replica().await;
    world.send("ext", &provision("c-1", "w-1")).await;
    let event = world.reaches("w-1", "registered").await;
    assert!(event.worker.epoch > 1, "{}", world.story().await);
    let classes: Vec<_> =
        world.history("w-1").await.into_iter().filter_map(|event| Some(event.worker.error?.class)).collect();
    assert!(classes.contains(&ErrorClass::Timeout), "{}", world.story().await);
    assert_eq!((program.asked("create"), world.instances("ext").await.len()), (1, 1));
}

#[tokio::test]
async fn a_program_that_comes_late_is_waited_for() {
    let (world, program) = fleet(Flaw::None).await;
    program.stop().await;
    let _replica = world.replica().await;
    world.send("ext", &provision("c-1", "w-1")).await;
    let unavailable = async || {
        let last = world.history("w-1").await.pop()?.worker;
        (last.error?.class == ErrorClass::Unavailable).then_some(())
    };
    world.until("a word of its absence", unavailable).await;
    let again = program.again(&world.client).await;
    world.reaches("w-1", "registered").await;
    assert_eq!(again.asked("create"), 1);
}

/// What the programs of these tests keep their instances in.
fn home() -> NullProvider {
    NullProvider::new(&Prefix::new("none").unwrap(), NullConfig::default())
}
