//! What only the process provider promises: whose process it is, and what a crash or a signal leaves.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use enlist::domain::ErrorClass;
use enlist::provider::WorkerProvider;
use enlist::provider::process::ProcessProvider;
use process_wrap::tokio::{CommandWrap, ProcessSession};

use crate::world::{World, key, line_of, pool, prefix, request, running, shell, sleeper};

const GRACE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_worker_survives_the_kill_of_its_maker_and_is_adopted_by_the_next() {
    let world = World::new();
    let mut maker = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "process::maker", "--nocapture", "--quiet"])
        .env("ENLIST_TEST_MAKER", world.path("state"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(maker.stdout.take().unwrap()).lines().map(Result::unwrap);
    let made = lines.find_map(|line| Some(line.split_once("made ")?.1.to_owned())).unwrap();
    maker.kill().unwrap();
    maker.wait().unwrap();

    let next = world.replica();
    let adopted = next.create_worker(&request(sleeper())).await.unwrap();
    assert_eq!(adopted.instance_id, made);
    assert!(is_live(recorded_pid(&world)));
    next.terminate_worker(&key(), Some(&made), GRACE).await.unwrap();
    assert_eq!(next.find_worker(&key()).await.unwrap(), None);
}

/// Not a test of its own: the replica that the test above kills.
#[tokio::test]
async fn maker() {
    let Some(state) = std::env::var_os("ENLIST_TEST_MAKER") else { return };
    let provider = ProcessProvider::new(&prefix("fleet"), state);
    let instance = provider.create_worker(&request(sleeper())).await.unwrap();
    println!("made {}", instance.instance_id);
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_group_that_does_not_listen_is_killed_whole_after_the_grace() {
    let world = World::new();
    let (provider, pipe) = (world.replica(), world.pipe());
    let deaf = shell("trap '' TERM; sleep 120 & echo $! > $PIPE; wait", &pipe);
    provider.create_worker(&request(deaf)).await.unwrap();
    let grandchild = line_of(pipe).await.parse().unwrap();
    let leader = recorded_pid(&world);
    assert!(is_live(leader) && is_live(grandchild));

    provider.terminate_worker(&key(), None, Duration::from_millis(50)).await.unwrap();
    assert!(!is_live(leader) && !is_live(grandchild));
}

#[tokio::test]
async fn a_worker_that_listens_ends_by_itself_within_the_grace() {
    let world = World::new();
    let (provider, pipe) = (world.replica(), world.pipe());
    let said = world.path("said");
    let script =
        format!("trap 'echo bye > {}; exit 0' TERM; echo ready > $PIPE; while :; do sleep 0.01; done", said.display());
    provider.create_worker(&request(shell(&script, &pipe))).await.unwrap();
    line_of(pipe).await;

    provider.terminate_worker(&key(), None, GRACE).await.unwrap();
    assert_eq!(fs::read_to_string(said).unwrap(), "bye\n");
    assert!(!world.folder().exists(), "nothing of it is left");
}

#[tokio::test]
async fn what_a_dead_leader_left_behind_is_ended_too() {
    let world = World::new();
    let (provider, pipe) = (world.replica(), world.pipe());
    let made = provider.create_worker(&request(shell("sleep 120 & echo $! > $PIPE", &pipe))).await.unwrap();
    let left_behind = line_of(pipe).await.parse().unwrap();
    provider.ended(&made.instance_id).await;
    assert_eq!(provider.find_worker(&key()).await.unwrap(), None, "the leader's life is the worker's");
    assert!(is_live(left_behind));

    world.replica().terminate_worker(&key(), None, GRACE).await.unwrap();
    assert!(!is_live(left_behind));
}

#[tokio::test]
async fn a_process_that_only_has_the_pid_is_never_killed() {
    let (pid_of, start_of, boot) = (Child::id, |child: &Child| start(child.id()), boot());
    for (start_differs, boot_differs) in [(true, false), (false, true)] {
        let world = World::new();
        // In a group of its own, so that a signal to the group of that number would hit it.
        let mut bystander = Command::new("sleep").arg("120").process_group(0).spawn().unwrap();
        let born = serde_json::json!({
            "pid": pid_of(&bystander),
            "start": start_of(&bystander) + u64::from(start_differs),
            "boot": if boot_differs { "another boot" } else { &boot },
        });
        write_record(&world, "p-forged", &format!("{born}\n"));

        let provider = world.replica();
        assert_eq!(provider.find_worker(&key()).await.unwrap(), None);
        assert_eq!(provider.list_workers(&pool("pool-a")).await.unwrap(), []);
        provider.terminate_worker(&key(), Some("p-forged"), Duration::ZERO).await.unwrap();
        assert_eq!(bystander.try_wait().unwrap(), None, "it is still running");
        bystander.kill().unwrap();
        bystander.wait().unwrap();
    }
}

#[tokio::test]
async fn a_crash_between_spawn_and_record_leaves_a_process_that_the_next_create_adopts() {
    for torn in ["", "{\"pid\":12"] {
        let world = World::new();
        write_record(&world, "p-half-made", torn);
        let mut command = CommandWrap::with_new("sleep", |command| {
            command.arg("120").env("ENLIST_INSTANCE", "p-half-made");
        });
        let mut half_made = command.wrap(ProcessSession).spawn().unwrap();

        let provider = world.replica();
        let listed = provider.list_workers(&pool("pool-a")).await.unwrap();
        assert_eq!(listed.len(), 1, "a list is complete before anybody healed the record");
        let adopted = provider.create_worker(&request(sleeper())).await.unwrap();
        assert_eq!(adopted.instance_id, "p-half-made");
        assert_eq!(recorded_pid(&world), half_made.id().unwrap());
        assert_eq!(provider.create_worker(&request(sleeper())).await.unwrap(), adopted, "now by the record");
        provider.terminate_worker(&key(), None, GRACE).await.unwrap();
        half_made.wait().await.unwrap();
    }
}

#[tokio::test]
async fn a_crash_before_the_spawn_leaves_nothing_that_stands_in_the_way() {
    for record in [None, Some("")] {
        let world = World::new();
        match record {
            None => {
                fs::create_dir_all(world.folder()).unwrap();
                fs::write(world.folder().join("instance"), "{\"instance_id\":\"p-").unwrap();
            }
            Some(second) => write_record(&world, "p-never-made", second),
        }
        let provider = world.replica();
        assert_eq!(provider.list_workers(&pool("pool-a")).await.unwrap(), []);
        let made = provider.create_worker(&request(sleeper())).await.unwrap();
        assert_eq!(provider.find_worker(&key()).await.unwrap(), Some(made));
        provider.terminate_worker(&key(), None, GRACE).await.unwrap();
    }
}

#[tokio::test]
async fn a_worker_whose_record_was_cut_off_is_not_taken_for_gone_as_long_as_it_runs() {
    for left in ["", "{\"instance_id\":\"p-"] {
        let world = World::new();
        let provider = world.replica();
        let made = provider.create_worker(&request(sleeper())).await.unwrap();
        let (record, pid) = (world.folder().join("instance"), recorded_pid(&world));
        let whole = fs::read(&record).unwrap();
        fs::write(&record, left).unwrap();
        let next = world.replica();
        let refused = [
            next.list_workers(&pool("pool-a")).await.unwrap_err(),
            next.find_worker(&key()).await.unwrap_err(),
            next.create_worker(&request(sleeper())).await.unwrap_err(),
            next.terminate_worker(&key(), None, GRACE).await.unwrap_err(),
        ];
        for error in refused {
            assert_eq!(error.class, ErrorClass::Internal);
            assert!(error.message.contains(&format!("process {pid} ")), "{}", error.message);
        }
        assert!(is_live(pid));
        fs::write(&record, whole).unwrap();
        next.terminate_worker(&key(), Some(&made.instance_id), GRACE).await.unwrap();
        assert!(!is_live(pid) && !world.folder().exists());
    }
}

#[tokio::test]
async fn an_exit_status_is_recorded_and_the_same_command_starts_another_instance() {
    let world = World::new();
    let provider = world.replica();
    let ask = request(running(&["sh", "-c", "echo said; exit 7"]));
    let first = provider.create_worker(&ask).await.unwrap();
    provider.ended(&first.instance_id).await;
    let exit = provider.exit(&key()).await.unwrap().unwrap();
    assert_eq!((exit.instance_id, exit.code, exit.signal), (first.instance_id.clone(), Some(7), None));
    assert_eq!(fs::read_to_string(world.folder().join("log")).unwrap(), "said\n");

    let second = world.replica().create_worker(&ask).await.unwrap();
    assert_ne!(second.instance_id, first.instance_id);
    provider.terminate_worker(&key(), None, GRACE).await.unwrap();
    assert!(!world.folder().exists(), "nothing of it is left");
}

#[tokio::test]
async fn a_worker_gets_its_own_environment_and_not_the_replicas() {
    let world = World::new();
    let provider = world.replica();
    let mut spec = running(&["env"]);
    spec.env = [("MINE", "1"), ("ENLIST_INSTANCE", "forged")].map(|(n, v)| (n.to_owned(), v.to_owned())).into();
    let made = provider.create_worker(&request(spec)).await.unwrap();
    provider.ended(&made.instance_id).await;
    let log = fs::read_to_string(world.folder().join("log")).unwrap();
    let mut names: Vec<_> = log.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    names.retain(|name| !["PATH", "HOME", "LANG", "TMPDIR"].contains(name));
    names.sort_unstable();
    assert_eq!(names, ["ENLIST_INSTANCE", "ENLIST_POOL", "ENLIST_WORKER_ID", "MINE"]);
    assert!(log.contains(&format!("ENLIST_INSTANCE={}\n", made.instance_id)), "no specification can forge it");
    provider.terminate_worker(&key(), None, GRACE).await.unwrap();
}

#[tokio::test]
async fn a_worker_s_own_label_never_passes_for_one_of_ours() {
    let world = World::new();
    let provider = world.replica();
    let mut spec = sleeper();
    let forged = ["pool", "worker_id", "command_id", "enlist.pool", "enlist.fleet", "epoch"];
    spec.labels.extend(forged.map(|name| (name.to_owned(), "forged".to_owned())));
    let made = provider.create_worker(&request(spec.clone())).await.unwrap();
    let found = world.replica().find_worker(&key()).await.unwrap().unwrap();
    assert_eq!((&found, &found.labels), (&made, &spec.labels));
    assert_eq!((found.key, found.command_id.as_str(), found.epoch), (key(), "c-1", 1));
    provider.terminate_worker(&key(), None, GRACE).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_started_is_an_invalid_specification_and_leaves_nothing_behind() {
    let world = World::new();
    let plain = world.path("plain");
    fs::write(&plain, "not a program").unwrap();
    let expected = [
        (vec![], "expected a program"),
        (vec!["no-such-program-anywhere"], "expected a program in one of the folders of PATH"),
        (vec!["/no/such/program"], "No such file"),
        (vec![plain.to_str().unwrap()], "ermission denied"),
        (vec!["sleep", "1\u{0}2"], "nul byte"),
    ];
    for (command, words) in expected {
        let fault = world.replica().create_worker(&request(running(&command))).await.unwrap_err();
        assert_eq!(fault.class, ErrorClass::InvalidSpec, "{fault}");
        assert!(fault.message.contains(words), "{fault}");
        assert!(!world.folder().exists());
    }
}

#[tokio::test]
async fn a_state_folder_that_is_away_is_unavailable() {
    let world = World::new();
    fs::write(world.path("state"), "not a folder").unwrap();
    let fault = world.replica().create_worker(&request(sleeper())).await.unwrap_err();
    assert_eq!(fault.class, ErrorClass::Unavailable, "{fault}");
    let fault = world.replica().list_workers(&pool("pool-a")).await.unwrap_err();
    assert_eq!(fault.class, ErrorClass::Unavailable, "a list that cannot be read is not an empty one: {fault}");
}

/// A record as a replica leaves it that was killed: the whole first line, and whatever of the second.
fn write_record(world: &World, instance_id: &str, second: &str) {
    let ask = request(sleeper());
    let intent = serde_json::json!({
        "instance_id": instance_id,
        "pool": ask.key.pool,
        "worker_id": ask.key.worker_id,
        "command_id": ask.command_id,
        "spec_hash": ask.spec_hash,
        "epoch": ask.epoch,
        "labels": ask.spec.labels,
        "created_at": "2024-01-01T00:00:00Z",
    });
    fs::create_dir_all(world.folder()).unwrap();
    let mut file = fs::File::create(world.folder().join("instance")).unwrap();
    write!(file, "{intent}\n{second}").unwrap();
}

fn recorded_pid(world: &World) -> u32 {
    let record = fs::read_to_string(world.folder().join("instance")).unwrap();
    let born: serde_json::Value = serde_json::from_str(record.lines().nth(1).unwrap()).unwrap();
    born["pid"].as_u64().unwrap().try_into().unwrap()
}

fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    Some(text.rsplit_once(") ")?.1.split(' ').map(str::to_owned).collect())
}

fn is_live(pid: u32) -> bool {
    stat(pid).is_some_and(|fields| fields[0] != "Z")
}

fn start(pid: u32) -> u64 {
    stat(pid).unwrap()[19].parse().unwrap()
}

fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim().to_owned()
}
