//! Dead letters as an operator deals with them: `enlist dead`.

use enlist::domain::{CommandId, EndedBy, Pool, WorkerId, WorkerKey};
use enlist::journal::Journal as _;
use serde_json::Value;

use crate::world::{LOAD, Said, World, nameless, provision, terminate};

const BY_HAND: &str = "[sweep]\ninterval = \"12h\"\n";

/// A pool that is full with one worker, and the dead letter of command `c-2`, which came too late.
async fn full() -> (World, enlist::replica::Replica) {
    let world = World::new(&format!("{BY_HAND}{LOAD}max_workers = 1\n")).await;
    let replica = world.replica().await;
    world.send("load", &provision("c-1", "w-1")).await;
    world.reaches("w-1", "registered").await;
    world.send("load", &nameless("c-2")).await;
    world.letters(1).await;
    world.settled().await;
    (world, replica)
}

impl World {
    /// Waits until there are so many dead letters; their numbers.
    async fn letters(&self, number: usize) -> Vec<u64> {
        self.until(&format!("{number} dead letters"), async || {
            let said = self.run(&["dead", "ls", "-o", "ndjson"]).await;
            let numbers: Vec<u64> = said
                .out
                .lines()
                .map(|line| serde_json::from_str::<Value>(line).unwrap()["number"].as_u64().unwrap())
                .collect();
            (numbers.len() == number).then_some(numbers)
        })
        .await
    }

    async fn has_room(&self) {
        self.send("load", &terminate("c-0", "w-1")).await;
        self.reaches("w-1", "terminated").await;
        self.settled().await;
    }

    /// Waits until the command has its worker; holds that it has one, and no dead letter.
    async fn carried_out(&self, command_id: &str) {
        self.until(&format!("command {command_id} to be carried out"), async || {
            let live = self.live().await;
            live.values().any(|w| w.command_id.as_str() == command_id && w.state.as_str() == "registered").then_some(())
        })
        .await;
        self.settled().await;
        assert_eq!(self.live().await.len(), 1);
        assert_eq!(self.instances("load").await.len(), 1);
        self.letters(0).await;
        self.hold_the_log().await;
    }
}

fn ok(said: Said) -> Said {
    assert_eq!(said.code, Some(0), "{said:?}");
    said
}

#[tokio::test]
async fn letters_are_listed_and_shown_and_removed() {
    let (world, _replica) = full().await;
    world.send_raw("load", enlist::domain::Verb::Terminate, "no JSON \u{1b}[31m").await;
    let numbers = world.letters(2).await;
    let said = ok(world.run(&["dead", "ls"]).await);
    assert!(said.out.starts_with("NUMBER  AGE") && said.out.contains("quota      pool load is full"), "{}", said.out);
    let said = ok(world.run(&["dead", "ls", "load", "--reason", "quota", "-o", "json"]).await);
    let letters: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((letters[0]["command_id"].as_str(), letters[0]["verb"].as_str()), (Some("c-2"), Some("provision")));
    assert!(letters[0].get("body").is_none() && letters.as_array().unwrap().len() == 1);

    let number = numbers[1].to_string();
    let said = ok(world.run(&["dead", "show", &number]).await);
    assert!(
        said.out.contains("refused    malformed: ") && said.out.contains("body       no JSON \\u{1b}[31m"),
        "{}",
        said.out
    );
    let said = ok(world.run(&["dead", "show", "--all", "-o", "json"]).await);
    assert_eq!(serde_json::from_str::<Value>(&said.out).unwrap()[0]["body"], r#"{"command_id":"c-2"}"#);

    assert_eq!(world.run(&["dead", "show", "999"]).await.code, Some(1));
    assert_eq!(world.run(&["dead", "purge"]).await.code, Some(64));
    let said = world.run(&["dead", "purge", "--all"]).await;
    assert!(said.code == Some(64) && said.err.contains("2 dead letters would be removed"), "{said:?}");
    ok(world.run(&["dead", "purge", &number]).await);
    assert_eq!(world.letters(1).await, numbers[..1]);
    ok(world.run(&["dead", "purge", "--pool", "load", "--yes"]).await);
    world.letters(0).await;
    assert_eq!(world.live().await.len(), 1, "nothing is carried out by it");
}

#[tokio::test]
async fn a_command_for_a_full_pool_is_carried_out_once_there_is_room() {
    let (world, _replica) = full().await;
    let first = world.letters(1).await;
    let said = ok(world.run(&["dead", "replay", "--all", "--yes"]).await);
    assert!(said.out.contains("command c-2 is in the queue again"), "{said:?}");
    world.settled().await;
    let again = world.letters(1).await;
    assert_ne!(again, first, "refused again: with a letter of its own");

    world.has_room().await;
    ok(world.run(&["dead", "replay", &again[0].to_string()]).await);
    world.carried_out("c-2").await;
}

#[tokio::test]
async fn a_command_that_chose_its_worker_s_name_gets_it() {
    let (world, _replica) = full().await;
    world.send("load", &provision("c-3", "chosen")).await;
    world.letters(2).await;
    world.has_room().await;
    ok(world.run(&["dead", "replay", "--command", "c-3", "--yes"]).await);
    world.reaches("chosen", "registered").await;
    ok(world.run(&["dead", "purge", "--command", "c-2", "--yes"]).await);
    world.carried_out("c-3").await;
}

#[tokio::test]
async fn a_command_that_a_host_s_record_refuses_keeps_its_letter() {
    let world =
        World::new(&format!("{BY_HAND}[pools.edge]\nprovider = \"static\"\nhosts = [{{ id = \"edge-1\" }}]\n")).await;
    let _replica = world.replica().await;
    world.send("edge", &nameless("c-1")).await;
    world.settled().await;
    world.send("edge", &terminate("c-2", "edge-1")).await;
    world.settled().await;
    // As it stands where two commands have claimed hosts and there was room for one.
    let journal = world.tool("edge").await.service;
    let journal = journal.journal();
    let key = WorkerKey::new(Pool::new("edge").unwrap(), WorkerId::new("edge-1").unwrap());
    let mut head = journal.head(&key).await.unwrap().unwrap();
    let by_enlist = EndedBy { command_id: CommandId::new("c-1").ok(), reason: Some("quota".into()) };
    head.worker.ended_by = Some(by_enlist);
    journal.append(&head.worker, head.sequence, &head.writer).await.unwrap();
    world.send("edge", &nameless("c-9")).await;
    world.settled().await;
    world.send("edge", &nameless("c-1")).await;
    let number = world.letters(1).await;
    let said = world.run(&["dead", "replay", "--command", "c-1", "--yes"]).await;
    assert!(said.code == Some(1) && said.err.contains("send it under another command id"), "{said:?}");
    assert_eq!(world.letters(1).await, number);
}

#[tokio::test]
async fn a_command_that_had_expired_is_carried_out_without_its_expiry() {
    let world = World::new(&format!("{BY_HAND}{LOAD}")).await;
    let _replica = world.replica().await;
    let body = r#"{"command_id":"c-1","worker_id":"late","expires_at":"2020-01-01T00:00:00Z"}"#;
    world.send_raw("load", enlist::domain::Verb::Provision, body).await;
    let number = world.letters(1).await[0].to_string();
    let said = ok(world.run(&["dead", "replay", &number]).await);
    assert!(said.out.contains("without its expires_at, which was over"), "{said:?}");
    world.reaches("late", "registered").await;
    world.carried_out("c-1").await;
}

#[tokio::test]
async fn a_command_that_nobody_can_read_is_refused_again() {
    let world = World::new(&format!("{BY_HAND}{LOAD}")).await;
    let _replica = world.replica().await;
    world.send_raw("load", enlist::domain::Verb::Provision, "no JSON").await;
    let first = world.letters(1).await;
    ok(world.run(&["dead", "replay", &first[0].to_string()]).await);
    world.settled().await;
    assert_ne!(world.letters(1).await, first);
    world.send_raw("load", enlist::domain::Verb::Sweep, "no JSON either").await;
    world.letters(2).await;
}

/// Whoever dies over a replay has lost nothing: the letter is there, and the same again goes on.
#[cfg(feature = "crash-points")]
#[tokio::test]
async fn a_replay_that_dies_half_way_is_done_by_the_next_one() {
    use enlist::crash::CrashPoint;

    for point in [CrashPoint::RefusalPurged, CrashPoint::Replayed] {
        let (world, _replica) = full().await;
        world.has_room().await;
        let letters = world.letters(1).await;
        let said = world.run_to(point, &["dead", "replay", "--all", "--yes"]).await;
        assert_eq!((said.code, world.letters(1).await), (None, letters), "{point:?}: {said:?}");
        ok(world.run(&["dead", "replay", "--all", "--yes"]).await);
        world.carried_out("c-2").await;
    }
}

/// The replay has stored the command and not yet removed the letter, and by then a replica has refused it again.
#[cfg(feature = "crash-points")]
#[tokio::test]
async fn a_command_that_is_refused_again_at_once_keeps_its_new_letter() {
    use enlist::crash::CrashPoint;

    let (world, _replica) = full().await;
    let first = world.letters(1).await[0];
    let said = world.run_to(CrashPoint::Replayed, &["dead", "replay", "--all", "--yes"]).await;
    assert_eq!(said.code, None, "{said:?}");
    let both = world.letters(2).await;
    assert_eq!(both[0], first);
    ok(world.run(&["dead", "purge", &first.to_string()]).await);
    assert_eq!(world.letters(1).await, both[1..]);
}
