//! Pools of one replica stand in nobody else's way.

use crate::world::{LOAD, World, nameless, provision};

#[tokio::test]
async fn pools_whose_providers_hang_leave_every_other_pool_its_share() {
    let hanging =
        ["a", "b", "c", "d"].map(|n| format!("[pools.{n}]\nprovider = \"null\"\ndelay = \"1h\"\nconcurrency = 16\n"));
    let world = World::new(&format!("[limits]\nconcurrency = 16\n{LOAD}{}", hanging.concat())).await;
    let _replica = world.replica().await;
    for pool in ["a", "b", "c", "d"] {
        for n in 0..16 {
            world.send(pool, &nameless(&format!("c-{pool}-{n}"))).await;
        }
    }
    world
        .until("every slot that they can have to be taken", async || (world.log().await.len() == 15).then_some(()))
        .await;
    for n in 0..5 {
        world.send("load", &provision(&format!("c-{n}"), &format!("w-{n}"))).await;
        world.reaches(&format!("w-{n}"), "registered").await;
    }
}

#[tokio::test]
async fn a_provider_that_is_away_is_left_alone_while_other_pools_are_served() {
    let away =
        "[providers.docker]\nhost = \"unix://{dir}/none.sock\"\n[pools.web]\nprovider = \"docker\"\nimage = \"a\"\n";
    let world = World::new(&format!("[limits]\ndrain = \"2s\"\n{LOAD}{away}")).await;
    let mut child = world.child().await;
    world.send("web", &provision("c-1", "w-1")).await;
    child.line("the pool holds off").await;
    let length: f64 = child.metric(r#"enlist_pool_holdoff_seconds{pool="web"}"#).await.unwrap().parse().unwrap();
    assert!((5.0..=6.0).contains(&length), "{length}");
    let stalled = world.reaches("w-1", "provisioning").await;
    for n in 2..10 {
        world.send("web", &provision(&format!("c-{n}"), &format!("w-{n}"))).await;
    }
    world.send("load", &provision("c-10", "w-10")).await;
    world.reaches("w-10", "registered").await;
    let of_web = async || world.log().await.into_iter().filter(|event| event.worker.pool.as_str() == "web").collect();
    let events: Vec<crate::world::Event> = of_web().await;
    let seen: Vec<&str> = events.iter().map(|event| event.worker.worker_id.as_str()).collect();
    assert_eq!(seen, ["w-1", "w-1"], "claimed and stalled; the others wait in their queue");
    assert!(events[1].sequence >= stalled.sequence && world.left("web").await == Some(9));
    assert_eq!(child.page("/readyz").await.0, 200, "the replica is of use");

    let creates = r#"enlist_provider_seconds_count{provider="docker",operation="create",outcome="unavailable"}"#;
    child.line("\"seconds\":1").await;
    assert_eq!(
        child.metric(creates).await.as_deref(),
        Some("2"),
        "one create was tried, and held off for twice as long"
    );

    child.terminate();
    let (code, said) = child.exit().await;
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("the drain is over"), "the drain waits for no hold-off: {said}");
    assert_eq!(world.left("web").await, Some(9), "nothing is lost");
}
