//! Managers that are killed, and managers that meet: who takes over what.

use gateway_manager::{AttachMode, GatewayState, ManagerError, Phase};
use gateway_process::OwnerDeath;

use super::*;

impl Scene {
    /// A manager whose gateway outlives it.
    fn leaving(&self) -> GatewayManagerBuilder {
        self.builder().owner_death(OwnerDeath::ChildSurvives)
    }

    fn count(&self, wanted: fn(&Happening) -> bool) -> usize {
        self.machine.count(wanted)
    }

    fn adopted(&self) -> usize {
        self.count(|happening| matches!(happening, Happening::Adopted { .. }))
    }

    fn spawned(&self) -> usize {
        self.count(|happening| matches!(happening, Happening::Spawned { .. }))
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_manager_takes_over_what_survived_without_a_restart() {
    let scene = Scene::new([]);
    let first = scene.leaving().build().unwrap();
    first.start().await.unwrap();
    let pid = first.status().borrow().pid;
    scene.machine.kill_owner();

    let second = scene.leaving().build().unwrap();
    let began = tokio::time::Instant::now();
    second.start().await.unwrap();
    assert!(began.elapsed() < seconds(2), "{:?}", began.elapsed());
    assert_eq!(second.status().borrow().pid, pid);
    assert_eq!((scene.spawned(), scene.adopted()), (1, 1));
    assert!(!second.status().borrow().attached);
    second.stop().await.unwrap();
    scene.finish();
    drop(first);
}

/// Nobody chose a token: the one that the survivor was launched with is kept for the instance.
#[tokio::test(start_paused = true)]
async fn a_token_that_nobody_chose_outlasts_its_manager() {
    let scene = Scene::new([]);
    let settings = || {
        GatewayManager::builder()
            .openclaw(OpenClaw::Command {
                program: "openclaw".into(),
                args: Vec::new(),
            })
            .environment(Environment::empty())
            .instance_dir("/instance")
            .owner_death(OwnerDeath::ChildSurvives)
            .process_host(Arc::new(scene.machine.host()))
            .transport(Arc::new(scene.machine.transport()))
    };
    let first = settings().build().unwrap();
    first.start().await.unwrap();
    scene.machine.kill_owner();
    let second = settings().build().unwrap();
    second.start().await.unwrap();
    assert_eq!((scene.spawned(), scene.adopted()), (1, 1));
    second.stop().await.unwrap();
    scene.finish();
}

#[tokio::test(start_paused = true)]
async fn what_would_be_launched_differently_is_ended_and_launched_anew() {
    let scene = Scene::new([]);
    let first = scene.leaving().build().unwrap();
    first.start().await.unwrap();
    let pid = first.status().borrow().pid;
    scene.machine.kill_owner();

    let second = scene.leaving().arg("--verbose").build().unwrap();
    second.start().await.unwrap();
    assert_ne!(second.status().borrow().pid, pid);
    assert_eq!((scene.spawned(), scene.adopted()), (2, 1));
    let asked = scene.machine.records().into_iter().any(|record| {
        matches!(&record.happening, Happening::Asked { reason, .. } if reason.to_string().contains("other settings"))
    });
    assert!(asked, "it is asked to end before it is forced");
    second.stop().await.unwrap();
    scene.finish();
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_ends_with_its_manager_is_launched_again() {
    let scene = Scene::new([]);
    let first = scene.manager();
    first.start().await.unwrap();
    scene.machine.kill_owner();
    assert_eq!(scene.machine.living(), Vec::<u32>::new());
    let second = scene.manager();
    second.start().await.unwrap();
    assert_eq!((scene.spawned(), scene.adopted()), (2, 0));
    second.stop().await.unwrap();
    scene.finish();
}

/// A free port is not known to the next manager; the survivor tells.
#[tokio::test(start_paused = true)]
async fn a_survivor_is_found_on_whatever_port_it_has() {
    let scene = Scene::new([]);
    let settings = || scene.leaving().port(PortChoice::Free).build().unwrap();
    let first = settings();
    first.start().await.unwrap();
    let port = first.port();
    scene.machine.kill_owner();
    let second = settings();
    second.start().await.unwrap();
    assert_eq!(second.port(), port);
    assert_eq!((scene.spawned(), scene.adopted()), (1, 1));
    second.stop().await.unwrap();
    scene.finish();
}

/// Two managers of one instance: the second one launches nothing, says who has it, and goes on by itself when it is free.
#[tokio::test(start_paused = true)]
async fn a_second_manager_waits_for_the_first() {
    let scene = Scene::new([]);
    let first = scene.manager();
    first.start().await.unwrap();
    // On another port, where nothing of the first one is in its way.
    let second = scene
        .builder()
        .port(PortChoice::Fixed(PORT + 1))
        .build()
        .unwrap();
    let Err(ManagerError::Failed(failure)) = second.start().await else {
        panic!("the instance has a manager");
    };
    assert!(
        failure.message.contains("managed by another process"),
        "{failure}"
    );
    assert_eq!(second.status().borrow().phase, Phase::WaitingForHolder);
    first.stop().await.unwrap();
    until(&second, GatewayState::Running).await;
    assert_eq!(scene.spawned(), 2);
    second.stop().await.unwrap();
    scene.finish();
}

/// What must not be launched a second time may be attached to.
#[tokio::test(start_paused = true)]
async fn a_second_manager_may_attach() {
    let scene = Scene::new([]);
    let first = scene.manager();
    first.start().await.unwrap();
    let second = scene
        .builder()
        .attach(AttachMode::IfPresent)
        .build()
        .unwrap();
    second.start().await.unwrap();
    assert!(second.status().borrow().attached, "{:?}", second.why());
    second.stop().await.unwrap();
    assert!(first.status().borrow().is_running());
    first.stop().await.unwrap();
    assert_eq!(scene.spawned(), 1);
    scene.finish();
}
