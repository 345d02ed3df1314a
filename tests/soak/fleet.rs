//! Three replicas, each with a way of its own to each broker, and somebody who brings back the one that has died.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::Fuse;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::cluster::{Cluster, SERVERS};
use crate::home::{Home, Provider};
use crate::proxy::{Break, Link, Weather};
use crate::replica::Replica;

pub(crate) const PREFIX: &str = "soak";
pub(crate) const REPLICAS: usize = 3;
/// Processes, and a limit.
pub(crate) const PROCESS: &str = "proc";
/// Of the null provider, and with a size.
pub(crate) const SIZED: &str = "sized";
/// Of the null provider, as many as there are commands.
pub(crate) const FREE: &str = "free";
pub(crate) const POOLS: [&str; 3] = [PROCESS, SIZED, FREE];

pub(crate) const UNREGISTER_TIMEOUT: Duration = Duration::from_secs(8);
/// What a replica ends with that finds no broker at its start: whoever runs it starts it again.
const UNREACHABLE: i32 = 69;

/// What is done to a replica.
#[derive(Debug)]
enum Blow {
    Kill { away: Duration },
    Stop { long: Duration },
    Drain,
}

pub(crate) struct Fleet {
    folder: TempDir,
    pub(crate) homes: Vec<(&'static str, Home)>,
    /// Of each replica, to each broker.
    links: Vec<Vec<Link>>,
    blows: Vec<mpsc::UnboundedSender<Blow>>,
    keepers: Vec<JoinHandle<Result<(), String>>>,
    lives: Lives,
}

/// What has become of each replica's processes, newest last.
type Lives = Arc<Mutex<Vec<Life>>>;

pub(crate) struct Life {
    pub(crate) name: String,
    pub(crate) end: String,
    pub(crate) log: String,
}

impl Fleet {
    pub(crate) async fn start(cluster: &Cluster) -> Self {
        let folder = TempDir::with_prefix("enlist-soak-").expect("a folder");
        let homes: Vec<_> = POOLS
            .into_iter()
            .map(|pool| {
                let home = folder.path().join(pool);
                std::fs::create_dir(&home).expect("a folder");
                (pool, Home::new(if pool == PROCESS { Provider::Process } else { Provider::Null }, &home))
            })
            .collect();
        let mut fleet =
            Self { folder, homes, links: Vec::new(), blows: Vec::new(), keepers: Vec::new(), lives: Lives::default() };
        for number in 0..REPLICAS {
            let mut links = Vec::new();
            for broker in 0..SERVERS {
                links.push(Link::to(cluster.port(broker)).await);
            }
            let urls: Vec<String> = links.iter().map(Link::url).collect();
            let path = fleet.folder.path().join(format!("replica-{number}.toml"));
            std::fs::write(&path, fleet.settings(&urls.join(","))).expect("the settings");
            fleet.links.push(links);
            let (blows, orders) = mpsc::unbounded_channel();
            fleet.blows.push(blows);
            fleet.keepers.push(tokio::spawn(keep(number, path, orders, fleet.lives.clone())));
        }
        fleet
    }

    /// Everything short: what is to be retried, taken over or swept is so within the run.
    fn settings(&self, urls: &str) -> String {
        let state = self.homes[0].1.state();
        let mut text = format!(
            "prefix = \"{PREFIX}\"\nreplicas = {SERVERS}\n[nats]\nurl = \"{urls}\"\n[http]\nlisten = \"127.0.0.1:0\"\n\
             [providers.process]\nstate_dir = \"{}\"\n\
             [scheduler]\nregister = \"{PREFIX}.scheduler.register\"\nunregister = \"{PREFIX}.scheduler.unregister\"\n\
             list = \"{PREFIX}.scheduler.list\"\ntry_timeout = \"2s\"\nunregister_timeout = \"{}s\"\n\
             [registration]\nmax_retries = 3\ntimeout = \"10s\"\n\
             [sweep]\ninterval = \"5s\"\ngrace = \"2s\"\n",
            state.display(),
            UNREGISTER_TIMEOUT.as_secs(),
        );
        for (pool, home) in &self.homes {
            let more = if *pool == PROCESS { "max_workers = 40" } else { "delay = \"50ms\"" };
            let _ =
                write!(text, "[pools.{pool}]\n{}{more}\nlaunch_timeout = \"20s\"\ngrace = \"5s\"\n", home.settings());
        }
        text
    }

    pub(crate) fn kill(&self, replica: usize, away: Duration) {
        let _ = self.blows[replica].send(Blow::Kill { away });
    }

    pub(crate) fn stop(&self, replica: usize, long: Duration) {
        let _ = self.blows[replica].send(Blow::Stop { long });
    }

    /// Between a replica and one broker, or all of them.
    pub(crate) fn weather(&self, replica: usize, broker: Option<usize>, weather: Weather) {
        let links = self.links[replica].iter().enumerate();
        links
            .filter(|(number, _)| broker.is_none_or(|broker| broker == *number))
            .for_each(|(_, link)| link.set(weather));
    }

    pub(crate) fn break_now(&self, replica: usize, how: Break) {
        self.links[replica].iter().for_each(|link| link.break_now(how));
    }

    pub(crate) fn all_is_well(&self) {
        (0..REPLICAS).for_each(|replica| self.weather(replica, None, Weather::Clear));
    }

    /// Ends every replica in good order; says of each why not, if so.
    pub(crate) async fn drained(&mut self) -> Vec<String> {
        for blows in &self.blows {
            let _ = blows.send(Blow::Drain);
        }
        let mut wrong = Vec::new();
        for keeper in self.keepers.drain(..) {
            wrong.extend(keeper.await.expect("no panic").err());
        }
        let lives = self.lives.lock().expect("no panic under this lock");
        wrong.extend(
            lives
                .iter()
                .filter(|life| life.end.starts_with("ended by itself"))
                .map(|life| format!("{}: {}", life.name, life.end)),
        );
        wrong
    }

    pub(crate) fn home(&self, pool: &str) -> &Home {
        &self.homes.iter().find(|(of, _)| *of == pool).expect("a pool").1
    }

    pub(crate) fn lives<T>(&self, look: impl FnOnce(&[Life]) -> T) -> T {
        look(&self.lives.lock().expect("no panic under this lock"))
    }
}

/// One replica after the other, until told to drain.
async fn keep(
    number: usize,
    settings: PathBuf,
    mut blows: mpsc::UnboundedReceiver<Blow>,
    lives: Lives,
) -> Result<(), String> {
    for life in 0.. {
        let (mut replica, _) = Replica::spawn(&settings, None);
        let name = format!("replica-{number}-{life}");
        let tell = |end: String, log: String| {
            lives.lock().expect("no panic under this lock").push(Life { name: name.clone(), end, log });
        };
        let mut stands_still = pin!(Fuse::terminated());
        loop {
            tokio::select! {
                // Also a process that stands still can be killed.
                () = &mut stands_still => replica.signal(Signal::CONT),
                blow = blows.recv() => match blow {
                    // It has been faster; what it has to say of that is read below.
                    Some(Blow::Kill { .. } | Blow::Stop { .. }) if replica.ended().is_some() => {}
                    Some(Blow::Drain) | None if replica.ended().is_some() => {
                        return Err(format!("{name} was not there to be drained:\n{}", replica.log()));
                    }
                    Some(Blow::Kill { away }) => {
                        tell("killed".to_owned(), replica.killed().await);
                        sleep(away).await;
                        break;
                    }
                    Some(Blow::Stop { long }) => {
                        replica.signal(Signal::STOP);
                        stands_still.set(sleep(long).fuse());
                    }
                    Some(Blow::Drain) | None => {
                        let log = replica.log_so_far();
                        replica.signal(Signal::CONT);
                        let drained = replica.drained().await;
                        tell("drained".to_owned(), log.lock().expect("no panic under this lock").clone());
                        return drained;
                    }
                },
                () = sleep(Duration::from_millis(200)) => {}
            }
            if let Some(status) = replica.ended() {
                let end = if status.code() == Some(UNREACHABLE) { "found no broker" } else { "ended by itself" };
                tell(format!("{end}: {status}"), replica.log());
                sleep(Duration::from_millis(500)).await;
                break;
            }
        }
    }
    Ok(())
}
