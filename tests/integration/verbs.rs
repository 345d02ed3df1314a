//! The verbs that read the fleet, and those that send commands, run as a person or a script runs them.

use std::io::Read as _;
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

use crate::world::{LOAD, World, provision, terminate};

const BY_HAND: &str = "[sweep]\ninterval = \"12h\"\n";

/// A pool with two workers that the scheduler has, and one that has ended.
async fn three() -> (World, enlist::replica::Replica) {
    let world = World::new(&format!("{BY_HAND}{LOAD}allow = [\"labels\", \"env\"]\n")).await;
    let replica = world.replica().await;
    for worker in ["w-1", "w-2", "w-3"] {
        world.send("load", &provision(&format!("c-{worker}"), worker)).await;
        world.reaches(worker, "registered").await;
    }
    world.send("load", &terminate("c-4", "w-3")).await;
    world.reaches("w-3", "terminated").await;
    world.until("the view", async || (world.names(&[]).await.len() == 3).then_some(())).await;
    world
        .until("the end of w-3 in the view", async || {
            (world.names(&["--state", "terminated"]).await == ["w-3"]).then_some(())
        })
        .await;
    (world, replica)
}

impl World {
    /// The names that `enlist ls` gives, by its JSON.
    async fn names(&self, args: &[&str]) -> Vec<String> {
        let said = self.run(&[&["ls", "-o", "json"], args].concat()).await;
        assert_eq!(said.code, Some(0), "{said:?}");
        let workers: Vec<Value> = serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {said:?}"));
        let mut names: Vec<String> =
            workers.iter().map(|worker| worker["worker_id"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    }
}

fn lines(out: &str) -> Vec<Value> {
    out.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

#[tokio::test]
async fn workers_are_listed_in_every_form() {
    let (world, _replica) = three().await;
    assert_eq!(world.names(&["load"]).await, ["w-1", "w-2", "w-3"]);
    assert_eq!(world.names(&["--state", "registered,lost"]).await, ["w-1", "w-2"]);
    assert_eq!(world.names(&["--label", "zone=z"]).await, [""; 0], "an empty list is valid JSON too");
    let said = world.run(&["ls", "-o", "ndjson"]).await;
    assert_eq!((said.code, lines(&said.out).len()), (Some(0), 3), "{said:?}");
    let said = world.run(&["ls"]).await;
    let (head, rows) = said.out.split_once('\n').unwrap();
    assert_eq!(head.split_whitespace().collect::<Vec<_>>(), ["POOL", "WORKER", "STATE", "SINCE", "INSTANCE", "LABELS"]);
    assert!(rows.lines().count() == 3 && !said.out.contains('\x1b'), "no colours where no terminal is:\n{}", said.out);
    assert!(rows.lines().any(|row| row.starts_with("load  w-3     terminated")), "{}", said.out);

    let said = world.run(&["ls", "nowhere"]).await;
    assert_eq!((said.code, said.out.as_str()), (Some(0), ""));
    assert!(said.err.contains("pool nowhere has no such worker"), "{said:?}");
    let said = world.run(&["ls", "--state", "happy"]).await;
    assert!(said.code == Some(64) && said.err.contains("possible values: provisioning, provisioned"), "{said:?}");
    for args in [&["ls"][..], &["watch"], &["watch", "--after", "0"], &["dead", "purge", "--all", "--yes"]] {
        let said = world.run(&[args, &["--prefix", "nowhere"]].concat()).await;
        assert!(said.code == Some(1) && said.err.contains("no fleet has prefix nowhere"), "{args:?}: {said:?}");
    }
}

#[tokio::test]
async fn a_worker_is_shown_with_its_whole_history() {
    let (world, _replica) = three().await;
    let said = world.run(&["show", "load", "w-3"]).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.out.starts_with("worker        load/w-3, dynamic\nstate         terminated for "), "{}", said.out);
    let mut rest = said.out.as_str();
    for state in ["provisioning", "provisioned", "registered", "terminating", "terminated", "from the first event"] {
        rest = rest.split_once(state).unwrap_or_else(|| panic!("{state} is missing, or too early:\n{}", said.out)).1;
    }
    let said = world.run(&["show", "load", "w-3", "-o", "json"]).await;
    let shown: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(shown["worker"]["state"], "terminated");
    assert_eq!(shown["events"].as_array().unwrap().len(), 5);
    assert_eq!(lines(&world.run(&["show", "load", "w-3", "-o", "ndjson"]).await.out).len(), 5);

    let said = world.run(&["show", "load", "nobody"]).await;
    assert!(said.code == Some(1) && said.err.contains("enlist ls load"), "{said:?}");
}

#[tokio::test]
async fn a_watch_tells_what_was_stored_and_what_comes() {
    let (world, _replica) = three().await;
    let mut watch = world.verb(&["watch", "load", "--after", "0", "-o", "ndjson", "--state", "registered"]);
    for (n, worker) in ["w-1", "w-2", "w-3"].into_iter().enumerate() {
        let line: Value = serde_json::from_str(&watch.lines_with("sequence", n + 1).await).unwrap();
        assert_eq!(
            (line["worker"]["worker_id"].as_str(), line["worker"]["state"].as_str()),
            (Some(worker), Some("registered"))
        );
    }
    world.send("load", &provision("c-5", "w-5")).await;
    let line: Value = serde_json::from_str(&watch.lines_with("sequence", 4).await).unwrap();
    assert_eq!(line["worker"]["worker_id"], "w-5");
    watch.terminate();
    let (code, said) = watch.exit().await;
    assert!(code == Some(0) && said.contains("enlist watch load --after "), "{said}");
}

/// What `head` does once it has what it wants.
#[tokio::test]
async fn a_verb_that_nobody_reads_any_more_ends_without_a_fuss() {
    let (world, replica) = three().await;
    for args in
        [&["show", "load", "w-1"][..], &["watch", "load", "--after", "0"], &["terminate", "load", "--label", "a=b"]]
    {
        let (code, said) = world.run_unread(args).await;
        assert!(code == Some(0) && !said.contains("panicked"), "{args:?}: {code:?}: {said}");
    }
    replica.drain().await;
}

/// A pager that is left open, say: what was read of the log has no room to go.
#[tokio::test]
async fn a_watch_whose_reader_does_not_read_ends_when_it_is_told_to() {
    let world = World::new(&format!("{BY_HAND}{LOAD}")).await;
    let _replica = world.replica().await;
    let said = world.run(&["provision", "load", "--count", "300", "--wait"]).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    // Of the 16 pages of a pipe the last is begun when nothing more has room, and each has an end too short for a line.
    for (form, much) in [("table", 58_000), ("ndjson", 48_000)] {
        let args = ["watch", "--after", "0", "-o", form];
        let (mut watch, mut out) = world.unread(&args);
        let full = || rustix::io::ioctl_fionread(&out).is_ok_and(|held| held > much);
        world.until("the pipe to be full", async || full().then_some(())).await;
        let pid = watch.id().and_then(|id| rustix::process::Pid::from_raw(id.try_into().unwrap())).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let ends = timeout(Duration::from_secs(60), watch.wait()).await.expect("an end").unwrap();
        let mut err = String::new();
        watch.stderr.take().unwrap().read_to_string(&mut err).await.unwrap();
        assert!(ends.success(), "{ends}: {err}");
        let last = err.split_once("seen up to event ").unwrap().1.split(';').next().unwrap().to_owned();

        let mut said = String::new();
        out.read_to_string(&mut said).unwrap();
        assert!(said.ends_with('\n') && said.lines().count() < 900, "whole lines, and no more than there was room for");
        assert_eq!(last, said.lines().count().to_string(), "{err}");
    }
}

#[tokio::test]
async fn who_waits_is_told_in_plain_words_that_the_broker_is_away() {
    let world = World::alone(&format!("{BY_HAND}{LOAD}delay = \"1h\"\n")).await;
    let replica = world.replica().await;
    let mut waiting = [
        world.verb(&["provision", "load", "--command-id", "one", "--wait"]),
        world.verb(&["provision", "load", "--count", "2", "--command-id", "many", "--wait"]),
        world.verb(&["pool", "load", "9", "--command-id", "size", "--wait"]),
    ];
    // Each of the three is heard of: a size of nine is reached without the other two.
    world
        .until("all of it to be begun", async || {
            let live = world.live().await;
            let of = |id: &str| live.values().filter(|worker| worker.command_id.as_str().starts_with(id)).count();
            (of("one") == 1 && of("many") == 2 && live.len() >= 9).then_some(())
        })
        .await;
    world.broker.kill().await;
    for verb in &mut waiting {
        verb.line("enlist: the connection is down and is being made anew; still waiting: ").await;
    }
    world.broker.start_again().await;
    for mut verb in waiting {
        verb.line("enlist: the connection is up again").await;
        verb.terminate();
        let (code, said) = verb.exit().await;
        assert_eq!(code, Some(1), "{said}");
        assert!(!said.contains('{'), "a person is told, and no program:\n{said}");
    }
    drop(replica);
}

#[tokio::test]
async fn a_watch_misses_nothing_while_its_broker_is_away() {
    let world = World::alone(&format!("{BY_HAND}{LOAD}")).await;
    let replica = world.replica().await;
    world.send("load", &provision("c-1", "w-1")).await;
    world.reaches("w-1", "registered").await;
    let mut watch = world.verb(&["watch", "--after", "0"]);
    watch.lines_with("registered", 1).await;
    world.broker.restart().await;
    // Whoever comes back first: what is stored before the watch is back it has out of the log.
    world
        .until("the command to be taken", async || {
            let subject = format!("{}.cmd.load.provision", world.prefix);
            world.try_send(&subject, r#"{"command_id":"c-2","worker_id":"w-2"}"#.into()).await.ok()
        })
        .await;
    let line = watch.line("load/w-2").await;
    assert!(line.contains("provisioning"), "{line}");
    watch.lines_with("registered", 2).await;
    watch.terminate();
    let (code, said) = watch.exit().await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(said.matches("load/w-2").count(), 3, "each event once:\n{said}");
    replica.drain().await;
}

#[tokio::test]
async fn overrides_are_typed_and_mistakes_in_them_are_told_before_anything_is_sent() {
    let (world, _replica) = three().await;
    let args = ["provision", "load", "--id", "w-7", "--set", "labels.zone=z", "--set", "env.MODE=fast", "--wait"];
    let said = world.run(&args).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    let worker = world.history("w-7").await.pop().unwrap().worker;
    assert_eq!(worker.capabilities.labels.get("zone").map(String::as_str), Some("z"));
    world.until("w-7 in the view", async || (world.names(&["--label", "zone=z"]).await == ["w-7"]).then_some(())).await;

    let said = world.run(&["provision", "load", "--set", "cpus=2", "--wait"]).await;
    assert!(said.code == Some(1) && said.out.contains("not_allowed: spec.cpus"), "{said:?}");
    for (set, told) in [
        ("cpu=2", "found key \"cpu\""),
        ("cpus=many", "expected a number"),
        ("cpus=-1", "spec.cpus"),
        ("env.LD_PRELOAD=s3cret", "spec.env"),
        ("command=[\"s3cret\"", "command: found something else"),
        ("cpus=nan", "expected a finite number"),
        ("command=[]", "spec.command"),
    ] {
        let said = world.run(&["provision", "load", "--set", set]).await;
        assert!(said.code == Some(64) && said.err.contains(told), "{set}: {said:?}");
        assert!(!said.err.contains("s3cret"), "{set}: {said:?}");
    }
    let said = world.run(&["pool", "load", "1000001"]).await;
    assert!(said.code == Some(64) && said.err.contains("`size`: found 1000001"), "{said:?}");
    for args in [&["provision", "nowhere"][..], &["provision", "nowhere", "--count", "2", "--wait"]] {
        let said = world.run(args).await;
        assert!(said.code == Some(1) && said.err.contains("no pool nowhere is served"), "{said:?}");
        assert!(!said.out.contains("within"), "nothing was waited for: {said:?}");
    }
}

#[tokio::test]
async fn many_workers_come_and_go_by_one_verb_each() {
    let (world, _replica) = three().await;
    let many = ["provision", "load", "--count", "300", "--id", "m", "--command-id", "many", "--wait"];
    let said = world.run(&many).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.out.contains("300 of 300 commands are in the queue; their ids begin with many-\n"), "{said:?}");
    assert!(said.out.contains("provision load: registered 300 within "), "{said:?}");
    world.until("all in the view", async || (world.names(&[]).await.len() == 303).then_some(())).await;
    let said = world.run(&many).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.out.contains("300 of 300 commands are in the queue, 300 of them from before"), "{said:?}");
    assert_eq!(world.live().await.len(), 302, "nothing is done twice");

    let said = world.run(&["terminate", "load", "--all"]).await;
    assert!(said.code == Some(64) && said.err.contains("302 workers of pool load would be terminated"), "{said:?}");
    let said = world.run(&["terminate", "load"]).await;
    assert_eq!(said.code, Some(64), "{said:?}");
    let said = world.run(&["terminate", "load", "--label", "zone=z", "--yes", "--wait"]).await;
    assert_eq!((said.code, said.out.as_str()), (Some(0), "pool load has no such live worker: nothing to do\n"));
    let said = world.run(&["terminate", "load", "--all", "--yes", "--wait", "--reason", "enough"]).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.out.contains("terminate load: terminated 302 within "), "{said:?}");
    assert_eq!(world.live().await.len(), 0);
    let ended = world.history("m-300").await.pop().unwrap().worker.ended_by.unwrap();
    assert_eq!(ended.reason.as_deref(), Some("enough"));
}

#[tokio::test]
async fn what_many_commands_met_is_told_one_by_one() {
    let world = World::new(&format!("{BY_HAND}{LOAD}max_workers = 2\n")).await;
    let _replica = world.replica().await;
    let args = ["provision", "load", "--count", "4", "--command-id", "c", "--wait"];
    for code in [Some(1); 2] {
        let said = world.run(&args).await;
        assert_eq!(said.code, code, "{said:?}");
        assert!(said.out.contains("provision load: refused as quota 2, registered 2 within"), "{said:?}");
        assert_eq!(said.err.matches(": refused as quota: ").count(), 2, "{said:?}");
    }
    // An outcome that was there before is found also where one command alone is waited for.
    let letters = world.dead().await;
    let refused = letters[0].subject.rsplit('.').next().unwrap();
    let said = world.run(&["provision", "load", "--command-id", refused, "--wait"]).await;
    assert!(said.code == Some(1) && said.out.contains("quota"), "{said:?}");
}

#[tokio::test]
async fn who_waits_no_longer_is_told_what_becomes_of_it() {
    let world = World::new(&format!("{BY_HAND}{LOAD}")).await;
    world.replica().await.drain().await;
    let mut waiting = world.verb(&["provision", "load", "--command-id", "c-1", "--wait"]);
    waiting.line("is in the queue").await;
    waiting.terminate();
    let (code, said) = waiting.exit().await;
    assert!(
        code == Some(1) && said.contains("command c-1 stays in the queue and is carried out all the same"),
        "{said}"
    );
    let mut waiting = world.verb(&["provision", "load", "--count", "5", "--command-id", "m", "--wait"]);
    waiting.line("no replica has begun yet").await;
    waiting.terminate();
    let (code, said) = waiting.exit().await;
    assert!(code == Some(1) && said.contains("5 of 5 commands are in the queue"), "{said}");
    assert!(said.contains("without an outcome yet 5") && said.contains("carried out all the same"), "{said}");
    assert_eq!(world.left("load").await, Some(6));
}

#[tokio::test]
async fn what_is_built_in_is_printed_without_a_broker() {
    let world = World::new(LOAD).await;
    let said = world.run(&["schema"]).await;
    for name in said.out.lines() {
        let schema = world.run(&["schema", name]).await;
        assert_eq!(schema.code, Some(0), "{schema:?}");
        if name != "asyncapi" {
            let schema: Value = serde_json::from_str(&schema.out).unwrap();
            assert_eq!(schema["$id"], format!("urn:enlist:schema:{name}:1"));
        }
    }
    assert!(said.out.lines().count() > 10, "{said:?}");
    assert_eq!(world.run(&["schema", "nothing"]).await.code, Some(64));
    let said = world.run(&["completions", "bash"]).await;
    assert!(said.code == Some(0) && said.out.contains("provision"), "{said:?}");
    assert!(said.out.contains("registration_failed"), "a state is offered as a shell's forms are: {said:?}");
    assert_eq!(world.run(&["completions", "basic"]).await.code, Some(64));
    let said = world.run(&["man", "provision"]).await;
    assert!(said.code == Some(0) && said.out.contains(".TH enlist-provision 1"), "{said:?}");
    let said = world.run(&["man", "dead", "replay"]).await;
    assert!(said.code == Some(0) && said.out.contains(".TH enlist-dead-replay 1"), "{said:?}");
    for nothing in [&["man", "nothing"][..], &["man", "dead", "nothing"], &["man", "ls", "nothing"]] {
        assert_eq!(world.run(nothing).await.code, Some(64), "{nothing:?}");
    }
}
