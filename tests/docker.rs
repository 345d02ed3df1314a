//! The Docker provider against a real engine; where none answers, each test says so and is skipped.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod images;

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use bollard::Docker;
use bollard::models::{ContainerCreateBody, ContainerInspectResponse};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, ListContainersOptionsBuilder, LogsOptionsBuilder, RemoveContainerOptionsBuilder,
};
use enlist::domain::{CommandId, ErrorClass, Labels, Pool, Prefix, SpecHash, WorkerId, WorkerKey, WorkerSpec};
use enlist::provider::contract::{Outcome, Subject, check};
use enlist::provider::docker::DockerProvider;
use enlist::provider::{Instance, LaunchRequest, WorkerProvider};
use futures_util::{StreamExt, TryStreamExt, future};
use tokio::time::timeout;

const GRACE: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(30);

/// A fleet of its own on the real engine; its containers go with it, also when the test fails.
struct Fleet {
    prefix: Prefix,
    provider: DockerProvider,
    docker: Docker,
}

impl Fleet {
    async fn new() -> Option<Self> {
        let docker = images::engine().await?;
        let prefix = Prefix::new(format!("t-{}", &uuid::Uuid::new_v4().simple().to_string()[..12])).unwrap();
        let provider = DockerProvider::connect(&prefix, &images::host()).unwrap();
        Some(Self { prefix, provider, docker })
    }

    fn name(&self, key: &WorkerKey) -> String {
        format!("enlist-{}.{}.{}", self.prefix, key.pool, key.worker_id)
    }

    async fn create(&self, request: &LaunchRequest) -> Instance {
        self.provider.create_worker(request).await.unwrap()
    }

    async fn list(&self, pool: &str) -> Vec<Instance> {
        self.provider.list_workers(&Pool::new(pool).unwrap()).await.unwrap()
    }

    async fn inspect(&self, id: &str) -> ContainerInspectResponse {
        self.docker.inspect_container(id, None).await.unwrap()
    }

    /// Ids of every container of this fleet, whatever its state.
    async fn containers(&self) -> BTreeSet<String> {
        containers(&self.docker, &self.prefix).await
    }

    /// Waits until a container has ended.
    async fn ended(&self, id: &str) {
        self.docker.wait_container(id, None).collect::<Vec<_>>().await;
    }

    /// What is left when enlist dies between create and start.
    async fn crashed_before_start(&self, request: &LaunchRequest) -> String {
        let body = self.body_of(request).await;
        self.place(&self.name(&request.key), body).await
    }

    /// A worker's container with its labels as the provider writes them, read off one that is made and removed again.
    async fn body_of(&self, request: &LaunchRequest) -> ContainerCreateBody {
        let made = self.create(request).await;
        let seen = self.inspect(&made.instance_id).await;
        self.provider.terminate_worker(&request.key, None, Duration::ZERO).await.unwrap();
        ContainerCreateBody {
            image: request.spec.image.clone(),
            cmd: Some(request.spec.command.clone()),
            labels: seen.config.unwrap().labels,
            host_config: seen.host_config,
            ..ContainerCreateBody::default()
        }
    }

    /// Makes a container behind the provider's back, without starting it.
    async fn place(&self, name: &str, body: ContainerCreateBody) -> String {
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        self.docker.create_container(Some(options), body).await.unwrap().id
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let prefix = self.prefix.clone();
        // A thread and a runtime of its own: the test's own runtime may be the one that is unwinding.
        let swept = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let docker = Docker::connect_with_host(&images::host()).unwrap();
                for id in containers(&docker, &prefix).await {
                    let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
                    let _ = docker.remove_container(&id, Some(options)).await;
                }
            });
        });
        let _ = swept.join();
    }
}

async fn containers(docker: &Docker, prefix: &Prefix) -> BTreeSet<String> {
    // By name and not by label, so that what a test places under a worker's name is found as well.
    let filters = HashMap::from([("name", vec![format!("^/?enlist-{prefix}\\.")])]);
    let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
    docker.list_containers(Some(options)).await.unwrap().into_iter().filter_map(|found| found.id).collect()
}

fn key(pool: &str, worker: &str) -> WorkerKey {
    WorkerKey::new(Pool::new(pool).unwrap(), WorkerId::new(worker).unwrap())
}

/// A worker of the test image that runs `command`.
fn request(key: WorkerKey, command: &[&str]) -> LaunchRequest {
    LaunchRequest {
        key,
        command_id: CommandId::new("c-1").unwrap(),
        spec_hash: SpecHash::of(b"1"),
        epoch: 7,
        claim: "3@2026-01-01T00:00:00Z".parse().unwrap(),
        spec: WorkerSpec {
            image: Some(images::IMAGE.to_owned()),
            command: command.iter().map(ToString::to_string).collect(),
            ..WorkerSpec::default()
        },
        trace: None,
    }
}

fn sleeper(pool: &str, worker: &str) -> LaunchRequest {
    request(key(pool, worker), &["sleep", "infinity"])
}

#[tokio::test]
async fn a_worker_is_made_found_listed_and_removed() {
    let Some(fleet) = Fleet::new().await else { return };
    let asked = sleeper("p", "w");
    let made = fleet.create(&asked).await;

    assert_eq!((&made.key, &made.command_id, &made.spec_hash), (&asked.key, &asked.command_id, &asked.spec_hash));
    assert_eq!(made.epoch, 7);
    let seen = fleet.inspect(&made.instance_id).await;
    assert_eq!(seen.state.unwrap().running, Some(true));
    let networks = seen.network_settings.unwrap().networks.unwrap();
    let address = networks.into_values().find_map(|network| network.ip_address.filter(|address| !address.is_empty()));
    assert_eq!(made.endpoint, address);
    assert_eq!(fleet.provider.find_worker(&asked.key).await.unwrap().as_ref(), Some(&made));
    assert_eq!(fleet.list("p").await, std::slice::from_ref(&made));

    fleet.provider.terminate_worker(&asked.key, Some(&made.instance_id), GRACE).await.unwrap();
    assert_eq!(fleet.provider.find_worker(&asked.key).await.unwrap(), None);
    assert!(fleet.containers().await.is_empty());
}

#[tokio::test]
async fn sixteen_creates_of_one_key_at_once_make_one_container() {
    let Some(fleet) = Fleet::new().await else { return };
    let asked = sleeper("p", "w");
    let made = future::join_all((0..16).map(|_| fleet.provider.create_worker(&asked))).await;
    // All answers, since one that the engine refused takes the container away from the fifteen others.
    let refused: Vec<_> = made.iter().filter_map(|made| made.as_ref().err()).collect();
    assert!(refused.is_empty(), "{refused:#?}");
    let ids: BTreeSet<String> = made.into_iter().map(|made| made.unwrap().instance_id).collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(fleet.containers().await, ids);
}

#[tokio::test]
async fn a_container_left_between_create_and_start_is_started_and_adopted() {
    let Some(fleet) = Fleet::new().await else { return };
    let asked = sleeper("p", "w");
    let left = fleet.crashed_before_start(&asked).await;

    let found = fleet.provider.find_worker(&asked.key).await.unwrap().unwrap();
    assert_eq!(found.instance_id, left, "nobody could remove it if it were hidden");
    let adopted = fleet.create(&asked).await;
    assert_eq!(adopted.instance_id, left);
    assert_eq!(fleet.inspect(&left).await.state.unwrap().running, Some(true));
}

#[tokio::test]
async fn another_command_or_another_content_is_a_conflict_and_touches_nothing() {
    let Some(fleet) = Fleet::new().await else { return };
    let asked = sleeper("p", "w");
    let made = fleet.create(&asked).await;

    let other_command = LaunchRequest { command_id: CommandId::new("c-2").unwrap(), ..asked.clone() };
    let other_content = LaunchRequest { spec_hash: SpecHash::of(b"2"), ..asked.clone() };
    for other in [other_command, other_content] {
        let refused = fleet.provider.create_worker(&other).await.unwrap_err();
        assert_eq!(refused.class, ErrorClass::Conflict, "{refused}");
    }
    assert_eq!(fleet.create(&asked).await, made);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_docker_provider_holds_the_contract() {
    let (Some(fleet), Some(other)) = (Fleet::new().await, Fleet::new().await) else { return };
    let provider = |fleet: &Fleet| DockerProvider::connect(&fleet.prefix, &images::host()).unwrap();
    let (pool, other_pool) = (Pool::new("pool-a").unwrap(), Pool::new("pool-b").unwrap());
    let mut spec = sleeper("pool-a", "w").spec;
    spec.labels = Labels::from([("zone".to_owned(), "a b=c".to_owned())]);
    let report = check(&Subject {
        replica: &|| provider(&fleet),
        other_fleet: &|| provider(&other),
        pool: &pool,
        other_pool: &other_pool,
        spec: &spec,
        grace: GRACE,
    })
    .await;
    assert!(report.passed(), "{report}");
    let waived = report.checks.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Waived(_))).count();
    assert_eq!(waived, 1, "only the inventory is not asked of it: {report}");
    assert!(fleet.containers().await.is_empty() && other.containers().await.is_empty(), "the suite leaves something");
}

#[tokio::test]
async fn a_container_of_somebody_else_under_our_name_is_a_conflict_and_is_never_touched() {
    let Some(fleet) = Fleet::new().await else { return };
    let asked = sleeper("p", "w");
    let body = ContainerCreateBody { image: asked.spec.image.clone(), ..ContainerCreateBody::default() };
    let theirs = fleet.place(&fleet.name(&asked.key), body).await;

    assert_eq!(fleet.provider.create_worker(&asked).await.unwrap_err().class, ErrorClass::Conflict);
    fleet.provider.terminate_worker(&asked.key, None, GRACE).await.unwrap();
    assert_eq!(fleet.provider.find_worker(&asked.key).await.unwrap(), None);
    assert_eq!(fleet.containers().await, BTreeSet::from([theirs]));
}

#[tokio::test]
async fn a_worker_may_be_removed_any_number_of_times_and_at_once() {
    let Some(fleet) = Fleet::new().await else { return };
    let asked = sleeper("p", "w");
    fleet.create(&asked).await;
    let removed = future::join_all((0..8).map(|_| fleet.provider.terminate_worker(&asked.key, None, GRACE))).await;
    assert!(removed.iter().all(Result::is_ok), "{removed:?}");
    fleet.provider.terminate_worker(&asked.key, Some("never-was"), GRACE).await.unwrap();
    assert!(fleet.containers().await.is_empty());
}

#[tokio::test]
async fn a_worker_that_heeds_term_is_not_waited_for_until_its_grace_is_over() {
    let Some(fleet) = Fleet::new().await else { return };
    let asked = sleeper("p", "w");
    fleet.create(&asked).await;
    let hour = Duration::from_secs(3600);
    let removed = timeout(PATIENCE, fleet.provider.terminate_worker(&asked.key, None, hour)).await;
    removed.expect("long before the hour is over").unwrap();
}

#[tokio::test]
async fn the_id_of_another_instance_removes_nothing() {
    let Some(fleet) = Fleet::new().await else { return };
    let asked = sleeper("p", "w");
    let made = fleet.create(&asked).await;
    let refused = fleet.provider.terminate_worker(&asked.key, Some("another"), GRACE).await.unwrap_err();
    assert_eq!(refused.class, ErrorClass::Conflict, "{refused}");
    assert_eq!(fleet.list("p").await, [made]);
}

#[tokio::test]
async fn a_worker_that_has_ended_is_no_instance_and_its_own_command_gets_a_new_one() {
    let Some(fleet) = Fleet::new().await else { return };
    let asked = request(key("p", "w"), &["/bin/worker", "exit", "3"]);
    let first = fleet.create(&asked).await;
    fleet.ended(&first.instance_id).await;

    assert_eq!(fleet.provider.find_worker(&asked.key).await.unwrap(), None);
    assert_eq!(fleet.list("p").await, []);
    let other = LaunchRequest { command_id: CommandId::new("c-2").unwrap(), ..asked.clone() };
    assert_eq!(fleet.provider.create_worker(&other).await.unwrap_err().class, ErrorClass::Conflict);

    let second = fleet.create(&asked).await;
    assert_ne!(second.instance_id, first.instance_id);
    assert_eq!(fleet.containers().await, BTreeSet::from([second.instance_id.clone()]));

    fleet.ended(&second.instance_id).await;
    fleet.provider.terminate_worker(&asked.key, Some(&second.instance_id), GRACE).await.unwrap();
    assert!(fleet.containers().await.is_empty(), "what is left of a worker goes with its terminate");
}

#[tokio::test]
async fn a_paused_worker_is_still_an_instance_and_can_be_removed() {
    let Some(fleet) = Fleet::new().await else { return };
    let asked = sleeper("p", "w");
    let made = fleet.create(&asked).await;
    fleet.docker.pause_container(&made.instance_id).await.unwrap();
    assert_eq!(fleet.list("p").await, std::slice::from_ref(&made));
    assert_eq!(fleet.create(&asked).await.instance_id, made.instance_id);
    fleet.provider.terminate_worker(&asked.key, None, Duration::from_secs(1)).await.unwrap();
    assert!(fleet.containers().await.is_empty());
}

#[tokio::test]
async fn a_list_is_complete_and_holds_no_other_pool_and_no_other_fleet() {
    let (Some(fleet), Some(neighbour)) = (Fleet::new().await, Fleet::new().await) else { return };
    let mut expected = BTreeSet::new();
    for n in 0..5 {
        expected.insert(fleet.create(&sleeper("p", &format!("w{n}"))).await.instance_id);
    }
    fleet.create(&sleeper("q", "w0")).await;
    neighbour.create(&sleeper("p", "w0")).await;

    let listed: BTreeSet<String> = fleet.list("p").await.into_iter().map(|listed| listed.instance_id).collect();
    assert_eq!(listed, expected);
}

#[tokio::test]
async fn names_that_dashes_would_make_alike_stay_apart() {
    let Some(fleet) = Fleet::new().await else { return };
    let (one, two) = (sleeper("a-b", "c"), sleeper("a", "b-c"));
    let (first, second) = (fleet.create(&one).await, fleet.create(&two).await);
    assert_ne!(first.instance_id, second.instance_id);
    fleet.provider.terminate_worker(&one.key, None, GRACE).await.unwrap();
    assert_eq!(fleet.provider.find_worker(&two.key).await.unwrap(), Some(second));
}

#[tokio::test]
async fn labels_come_back_and_cannot_pass_for_ours() {
    let Some(fleet) = Fleet::new().await else { return };
    let mut asked = sleeper("p", "w");
    asked.spec.labels = Labels::from([
        ("zone".to_owned(), "a".to_owned()),
        ("enlist.fleet".to_owned(), "another".to_owned()),
        ("strange = key".to_owned(), "\"quoted\" ü".to_owned()),
    ]);
    fleet.create(&asked).await;
    assert_eq!(fleet.list("p").await[0].labels, asked.spec.labels);
}

#[tokio::test]
async fn a_worker_has_its_limits_an_init_and_no_way_to_new_privileges() {
    let Some(fleet) = Fleet::new().await else { return };
    let mut asked = sleeper("p", "w");
    (asked.spec.memory_mb, asked.spec.cpus) = (Some(64), Some(0.5));
    let made = fleet.create(&asked).await;
    let host = fleet.inspect(&made.instance_id).await.host_config.unwrap();
    assert_eq!((host.memory, host.nano_cpus), (Some(64 * 1024 * 1024), Some(500_000_000)));
    assert_eq!(host.security_opt.unwrap(), ["no-new-privileges"]);
    assert_eq!(host.init, Some(true));
}

#[tokio::test]
async fn the_environment_reaches_the_worker_and_shows_in_no_debug_output() {
    let Some(fleet) = Fleet::new().await else { return };
    let mut asked = request(key("p", "w"), &["/bin/worker", "env"]);
    asked.spec.env.insert("TOKEN".to_owned(), "hunter2 = ü".to_owned());
    let made = fleet.create(&asked).await;
    fleet.ended(&made.instance_id).await;
    let options = LogsOptionsBuilder::new().stdout(true).build();
    let logs: Vec<_> = fleet.docker.logs(&made.instance_id, Some(options)).try_collect().await.unwrap();
    let printed: String = logs.iter().map(ToString::to_string).collect();
    assert!(printed.lines().any(|line| line == "TOKEN=hunter2 = ü"), "{printed}");
    assert!(!format!("{asked:?} {made:?} {:?}", fleet.provider).contains("hunter2"));
}

#[tokio::test]
async fn a_program_that_is_not_there_is_an_invalid_specification_and_leaves_no_container() {
    let Some(fleet) = Fleet::new().await else { return };
    let asked = request(key("p", "w"), &["/no/such/program"]);
    let refused = fleet.provider.create_worker(&asked).await.unwrap_err();
    assert_eq!(refused.class, ErrorClass::InvalidSpec, "{refused}");
    assert!(refused.message.contains("exec /no/such/program failed: No such file or directory"), "{refused}");
    assert!(fleet.containers().await.is_empty());
}

#[tokio::test]
async fn a_container_that_cannot_be_started_is_removed_and_told_in_the_engines_words() {
    let Some(fleet) = Fleet::new().await else { return };
    let asked = sleeper("p", "w");
    // Without an init it is the engine itself that has to execute the program.
    let broken = ContainerCreateBody {
        cmd: Some(vec!["/no/such/program".to_owned()]),
        host_config: None,
        ..fleet.body_of(&asked).await
    };
    let id = fleet.place(&fleet.name(&asked.key), broken).await;
    let refused = fleet.provider.create_worker(&asked).await.unwrap_err();
    assert_eq!(refused.class, ErrorClass::InvalidSpec, "{refused}");
    assert!(refused.message.contains("/no/such/program"), "{refused}");
    assert!(!fleet.containers().await.contains(&id));
}

#[tokio::test]
async fn accelerators_that_the_engine_does_not_have_are_an_invalid_specification() {
    let Some(fleet) = Fleet::new().await else { return };
    let mut asked = sleeper("p", "w");
    // More than any machine has, so that the test holds on one with accelerators too.
    asked.spec.gpus = Some(1000);
    let refused = fleet.provider.create_worker(&asked).await.unwrap_err();
    assert!(matches!(refused.class, ErrorClass::InvalidSpec | ErrorClass::Internal), "{refused}");
    assert!(fleet.containers().await.is_empty());
}

#[tokio::test]
async fn limits_that_the_engine_refuses_are_an_invalid_specification() {
    let Some(fleet) = Fleet::new().await else { return };
    let mut asked = sleeper("p", "w");
    asked.spec.cpus = Some(100_000.0);
    let refused = fleet.provider.create_worker(&asked).await.unwrap_err();
    assert_eq!(refused.class, ErrorClass::InvalidSpec, "{refused}");
    assert!(fleet.containers().await.is_empty());
}

#[tokio::test]
async fn an_image_that_is_nowhere_is_an_invalid_specification_in_the_engines_words() {
    let Some(fleet) = Fleet::new().await else { return };
    let mut asked = sleeper("p", "w");
    // A registry on a port where nothing listens: the answer is the same with a network and without one.
    asked.spec.image = Some("127.0.0.1:1/no-such-image:1".to_owned());
    let refused = fleet.provider.create_worker(&asked).await.unwrap_err();
    assert_eq!(refused.class, ErrorClass::InvalidSpec, "{refused}");
    assert!(refused.message.contains("127.0.0.1:1"), "{refused}");
    assert!(fleet.containers().await.is_empty());
}
