//! A key that OpenClaw does not know in its configuration: one failed launch, one repair, then it runs.

use gateway_manager::{FailureClass, GatewayEvent, Phase};
use gateway_process::ExitReason;
use serde_json::Value;

use crate::installation::traits;
use crate::report::{REPAIR, step, took};
use crate::sandbox::Sandbox;
use crate::supervised::{Supervised, status_of};

const BROKEN: &str = "{\n  \"noSuchSection\": { \"enabled\": true }\n}\n";

pub(crate) async fn run() {
    let sandbox = Sandbox::new();
    sandbox.write_config(BROKEN);
    let gateway = Supervised::new(sandbox.builder().await);
    step(
        "start with a broken configuration to hello",
        REPAIR,
        gateway.manager.start(),
    )
    .await
    .expect("a repaired gateway");
    gateway.running_pid();
    gateway.serves().await;

    let exits = gateway.exits(0).await;
    assert_eq!(exits.len(), 1, "{exits:?}");
    assert_eq!(exits[0].code, Some(traits().configuration_exit));
    assert_eq!(exits[0].reason, ExitReason::Unexpected);
    took("broken configuration refused", exits[0].ran_for);

    let causes = gateway
        .picked(0, |event| {
            let status = status_of(event).filter(|status| status.phase == Phase::Repairing)?;
            Some(status.failure?.class)
        })
        .await;
    assert_eq!(causes, [FailureClass::Configuration]);

    let repairs = gateway
        .picked(0, |event| match event {
            GatewayEvent::Repaired(outcome) => Some(outcome.clone()),
            _ => None,
        })
        .await;
    let [repair] = &repairs[..] else {
        panic!("{repairs:?}");
    };
    took("repair", repair.exit.ran_for);
    assert!(repair.succeeded() && repair.changed(), "{repair}");
    assert_eq!(repair.config, sandbox.config_file());
    let backup = repair
        .aftermath
        .backup
        .as_ref()
        .expect("a copy of the file");
    let kept = std::fs::read_to_string(backup).expect("the copy");
    assert_eq!(kept, BROKEN);
    assert_eq!(gateway.times_in(Phase::Repairing).await, 1);
    assert_eq!(gateway.times_in(Phase::Spawning).await, 2);

    let repaired: Value = serde_json::from_slice(&sandbox.read_config()).expect("plain JSON");
    assert!(repaired.get("noSuchSection").is_none(), "{repaired}");
    gateway.stop("stop").await;
    gateway.no_warnings().await;
}
