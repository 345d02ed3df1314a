//! Pools of one replica stand in nobody else's way.

use crate::world::{LOAD, World, nameless, provision};

#[tokio::test]
async fn pools_whose_providers_hang_leave_every_other_pool_its_share() {
    let hanging: String =
        (0..4).map(|n| format!("[pools.slow-{n}]\nprovider = \"null\"\ndelay = \"1h\"\nconcurrency = 16\n")).collect();
    let world = World::new(&format!("[limits]\nconcurrency = 16\n{LOAD}{hanging}")).await;
    let _replica = world.replica().await;
    for pool in 0..4 {
        for n in 0..16 {
            world.send(&format!("slow-{pool}"), &nameless(&format!("c-{pool}-{n}"))).await;
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
