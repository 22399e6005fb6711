//! Stops that give running work time, and what can be seen of them.

use gateway_manager::events::Delivered;
use gateway_manager::{EndingStage, EventSubscription, GatewayEvent, StopMode};
use gateway_testkit::scripted::AskPlan;

use super::*;

/// A gateway that needs this long to end after it was asked.
fn slow_to_end(after: Duration) -> ChildPlan {
    ChildPlan {
        ask: AskPlan::Obeys { after, code: 0 },
        ..ChildPlan::default()
    }
}

/// What was told about the end of the gateway: how far, and how long until it is forced.
async fn told(mut events: EventSubscription) -> Vec<(EndingStage, Option<u64>)> {
    let mut told = Vec::new();
    while let Some(delivered) = events.next().await {
        match delivered {
            Delivered::Event(GatewayEvent::Ending {
                stage, force_in, ..
            }) => told.push((stage, force_in.map(|left| left.as_secs()))),
            Delivered::Event(GatewayEvent::Exited(_)) => break,
            _ => {}
        }
    }
    told
}

#[tokio::test(start_paused = true)]
async fn a_drain_gives_a_run_of_200_seconds_its_time() {
    let scene = Scene::new([slow_to_end(seconds(200))]);
    let manager = scene.manager();
    manager.start().await.unwrap();
    let telling = tokio::spawn(told(manager.events()));
    let began = tokio::time::Instant::now();
    manager.stop_with(StopMode::Drain).await.unwrap();
    assert!(
        began.elapsed() >= seconds(200) && began.elapsed() < seconds(202),
        "{:?}",
        began.elapsed()
    );
    let told = telling.await.unwrap();
    assert_eq!(told.first(), Some(&(EndingStage::Asked, Some(330))));
    assert_eq!(told.get(1), Some(&(EndingStage::Asked, Some(325))));
    assert_eq!(told.len(), 40, "every five seconds: {told:?}");
    assert_eq!(
        scene
            .machine
            .count(|happening| matches!(happening, Happening::Killed { .. })),
        0
    );
    scene.finish();
}

#[tokio::test(start_paused = true)]
async fn a_bounded_stop_forces_when_its_time_is_over() {
    let scene = Scene::new([slow_to_end(seconds(200))]);
    let manager = scene.manager();
    manager.start().await.unwrap();
    let telling = tokio::spawn(told(manager.events()));
    let began = tokio::time::Instant::now();
    manager
        .stop_with(StopMode::Bounded(seconds(20)))
        .await
        .unwrap();
    assert_eq!(began.elapsed().as_secs(), 20);
    let told = telling.await.unwrap();
    assert_eq!(told.last(), Some(&(EndingStage::Forced, None)));
    scene.finish();
}

/// Whoever has waited long enough asks again, and the drain that is under way becomes shorter. It never becomes longer.
#[tokio::test(start_paused = true)]
async fn a_second_stop_can_only_make_the_first_one_quicker() {
    let scene = Scene::new([slow_to_end(seconds(300))]);
    let manager = scene.manager();
    manager.start().await.unwrap();
    let began = tokio::time::Instant::now();
    let draining = tokio::spawn({
        let manager = manager.clone();
        async move { manager.stop_with(StopMode::Drain).await }
    });
    tokio::time::sleep(seconds(60)).await;
    let now = tokio::spawn({
        let manager = manager.clone();
        async move { manager.stop_with(StopMode::Now).await }
    });
    tokio::time::sleep(seconds(2)).await;
    manager.stop_with(StopMode::Drain).await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 65);
    draining.await.unwrap().unwrap();
    now.await.unwrap().unwrap();
    scene.finish();
}
