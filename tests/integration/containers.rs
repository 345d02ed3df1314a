//! The sweep over real containers; where no engine answers, each test says so and is skipped.

use std::collections::{BTreeSet, HashMap};
use std::os::unix::fs::symlink;

use bollard::Docker;
use bollard::query_parameters::{ListContainersOptionsBuilder, RemoveContainerOptionsBuilder};

use crate::images;
use crate::world::{ON_DEMAND, World, provision, size};

/// A fleet of containers, on a way to the engine that can be cut.
struct Fleet {
    world: World,
    docker: Docker,
}

impl Fleet {
    async fn new(settings: &str) -> Option<Self> {
        let docker = images::engine().await?;
        let pool = format!(
            "{ON_DEMAND}{settings}[providers.docker]\nhost = \"unix://{{dir}}/engine.sock\"\n[pools.web]\nprovider = \"docker\"\n\
             image = \"{}\"\ncommand = [\"sleep\", \"infinity\"]\ngrace = \"1s\"\n",
            images::IMAGE
        );
        let world = World::new(&pool).await;
        world.scheduler.list().await;
        let fleet = Self { world, docker };
        fleet.connect();
        Some(fleet)
    }

    fn connect(&self) {
        symlink(images::host().strip_prefix("unix://").unwrap(), self.world.path("engine.sock")).unwrap();
    }

    fn cut(&self) {
        std::fs::remove_file(self.world.path("engine.sock")).unwrap();
    }

    async fn grow(&self, workers: &[&str]) {
        for worker in workers {
            self.world.send("web", &provision(&format!("c-{worker}"), worker)).await;
        }
        self.world.settled().await;
    }

    /// Names of the containers that run.
    async fn running(&self) -> BTreeSet<String> {
        let names = running(&self.docker, self.world.prefix.as_str(), false).await;
        names.into_iter().map(|(name, _)| name.rsplit('.').next().unwrap().to_owned()).collect()
    }

    async fn kill(&self, worker: &str) {
        let name = format!("enlist-{}.web.{worker}", self.world.prefix);
        let options = bollard::query_parameters::KillContainerOptionsBuilder::new().signal("KILL").build();
        self.docker.kill_container(&name, Some(options)).await.unwrap();
        self.world
            .until("a container to be gone", async || (!self.running().await.contains(worker)).then_some(()))
            .await;
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let prefix = self.world.prefix.to_string();
        // A thread and a runtime of its own: the test's own runtime may be the one that is unwinding.
        let swept = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let docker = Docker::connect_with_host(&images::host()).unwrap();
                for (_, id) in running(&docker, &prefix, true).await {
                    let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
                    let _ = docker.remove_container(&id, Some(options)).await;
                }
            });
        });
        let _ = swept.join();
    }
}

/// Name and id of a fleet's containers.
async fn running(docker: &Docker, prefix: &str, and_others: bool) -> Vec<(String, String)> {
    let filters = HashMap::from([("name", vec![format!("^/?enlist-{prefix}\\.")])]);
    let options = ListContainersOptionsBuilder::new().all(and_others).filters(&filters).build();
    let found = docker.list_containers(Some(options)).await.unwrap();
    found.into_iter().filter_map(|one| Some((one.names?.pop()?, one.id?))).collect()
}

#[tokio::test]
async fn containers_that_are_killed_are_lost_and_strays_are_removed() {
    let Some(fleet) = Fleet::new("").await else { return };
    let world = &fleet.world;
    let _child = world.child().await;
    fleet.grow(&["w-1", "w-2"]).await;
    world.stray("web", "stray").await;
    fleet.kill("w-1").await;
    world.sweep("web").await;
    assert_eq!(fleet.running().await, ["stray", "w-2"].map(str::to_owned).into());
    assert_eq!(world.states("w-1").await.last(), Some(&"registered"));
    world.sweep("web").await;
    assert_eq!(fleet.running().await, ["w-2".to_owned()].into());
    assert_eq!(world.states("w-1").await.last(), Some(&"lost"));
    assert_eq!(world.states("stray").await, ["terminating", "terminated"]);
    assert_eq!(world.scheduler.members().into_keys().collect::<Vec<_>>(), ["w-2"]);
    let left = running(&fleet.docker, world.prefix.as_str(), true).await;
    assert_eq!(left.len(), 1, "what was left of the lost one is cleared away: {left:?}");
    world.hold_the_log().await;
}

#[tokio::test]
async fn an_engine_that_does_not_answer_loses_no_container() {
    let Some(fleet) = Fleet::new("").await else { return };
    let world = &fleet.world;
    let child = world.child().await;
    fleet.grow(&["w-1", "w-2", "w-3"]).await;
    let (running, members) = (fleet.running().await, world.scheduler.members());
    fleet.cut();
    world.sweeps("web", 4).await;
    world.counted(&child, "web", "sweep", "failed", 4).await;
    assert_eq!((fleet.running().await, world.scheduler.members()), (running, members));
    assert!(world.log().await.len() == 9 && world.scheduler.unregisters().is_empty());
    fleet.connect();
    world.sweeps("web", 2).await;
    world.counted(&child, "web", "sweep", "swept", 2).await;
    world.counted(&child, "web", "sweep", "failed", 4).await;
    world.thawed(&child, "web").await;
    assert_eq!(world.log().await.len(), 9, "{}", world.story().await);
}

#[tokio::test]
async fn a_pool_of_containers_comes_to_its_size_and_keeps_it() {
    let Some(fleet) = Fleet::new("").await else { return };
    let world = &fleet.world;
    let _child = world.child().await;
    world.send("web", &size("s-1", 4)).await;
    world.settled().await;
    let first = fleet.running().await;
    assert_eq!(first.len(), 4);
    fleet.kill(first.first().unwrap()).await;
    world.sweeps("web", 3).await;
    world.settled().await;
    assert!(fleet.running().await.len() == 4 && fleet.running().await != first);
    world.send("web", &size("s-2", 0)).await;
    world.settled().await;
    assert!(fleet.running().await.is_empty() && world.scheduler.members().is_empty());
    assert!(running(&fleet.docker, world.prefix.as_str(), true).await.is_empty());
}
