//! A gateway that was never started before: phases, hello, device identity, calls and their errors, events, stop.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use gateway_client::{CallOptions, ConnectOptions, DeviceIdentity, IdentityOrigin, RpcError};
use gateway_manager::{GatewayEvent, GatewayManager, ManagerError, Phase};
use gateway_process::{ExitReason, TerminationReason};
use gateway_protocol::handshake::scope;
use gateway_protocol::{ClientInfo, ClientMode, CloseCode, ErrorCode, ErrorShape};
use serde_json::{Value, json};

use crate::installation::{Traits, traits};
use crate::report::{ANSWER, step, took};
use crate::sandbox::Sandbox;
use crate::supervised::Supervised;

pub(crate) async fn run() {
    let traits = traits();
    let sandbox = Sandbox::cold();
    let identity_file = sandbox.identity_file();

    let gateway = Supervised::new(sandbox.builder().await.identity_file(&identity_file));
    gateway.is_stopped();
    gateway.start("cold start to hello").await;
    check_phases(&gateway.phases(0).await, traits.announces_start);
    check_hello(&gateway, &traits);
    let device_id = check_identity_file(&identity_file);
    check_calls(&gateway).await;
    check_missing_scopes(&sandbox, &traits).await;
    check_device_and_events(&gateway, &sandbox).await;

    let processes = gateway.tree();
    assert!(
        processes.len() > usize::from(traits.has_helpers),
        "{processes:?}"
    );
    gateway.stop("stop").await;
    let exits = gateway.exits(0).await;
    assert_eq!(exits.len(), 1, "{exits:?}");
    assert_eq!(exits[0].code, Some(0));
    assert_eq!(
        exits[0].reason,
        ExitReason::Requested(TerminationReason::UserStop)
    );
    assert!(exits[0].leftovers.is_empty(), "{exits:?}");
    let late = gateway.manager.call::<_, Value>("health", &json!({})).await;
    assert!(
        matches!(late, Err(ManagerError::NotConnected { .. })),
        "{late:?}"
    );
    gateway.no_warnings().await;

    // Another manager, as after a restart of the host application.
    let kept = std::fs::read(&identity_file).expect("the identity file");
    let gateway = Supervised::new(sandbox.builder().await.identity_file(&identity_file));
    gateway.start("second start to hello").await;
    assert_eq!(check_identity_file(&identity_file), device_id);
    assert!(std::fs::read(&identity_file).expect("the identity file") == kept);
    gateway.serves().await;
    gateway.stop("second stop").await;
    gateway.no_warnings().await;
}

/// A gateway that announces its start may be ready before it was asked, so that phase may be missing.
fn check_phases(phases: &[Phase], announces_start: bool) {
    let mut phases = phases.to_vec();
    if announces_start {
        let before_ready = phases.len().saturating_sub(2);
        phases
            .extract_if(before_ready.., |phase| *phase == Phase::StartingUp)
            .for_each(drop);
    }
    let expected = [
        Phase::Discovering,
        Phase::Preparing,
        Phase::Spawning,
        Phase::Listening,
        Phase::Handshaking,
        Phase::Ready,
    ];
    assert_eq!(phases, expected);
}

fn check_hello(gateway: &Supervised, traits: &Traits) {
    let session = gateway.status().session.expect("a session");
    assert_eq!(session.protocol, traits.protocol);
    assert_eq!(session.server_version, traits.server_version);
    let hello = gateway.manager.hello().expect("a hello");
    assert_eq!(hello.protocol, traits.protocol);
    assert!(hello.has_method("health"), "{:?}", hello.features);
    assert!(gateway.manager.uptime().is_some());
}

/// The identity is there, and for its owner only.
fn check_identity_file(file: &Path) -> String {
    let mode = std::fs::metadata(file)
        .expect("the identity file")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    load(file).device_id().to_owned()
}

fn load(file: &Path) -> DeviceIdentity {
    let (identity, origin) = DeviceIdentity::load(file).expect("a readable identity");
    assert_eq!(origin, IdentityOrigin::Loaded);
    identity
}

async fn check_calls(gateway: &Supervised) {
    let manager = &gateway.manager;
    step("health", ANSWER, gateway.serves()).await;
    let status: Value = step("status", ANSWER, manager.call("status", &json!({})))
        .await
        .expect("status");
    assert!(status.is_object(), "{status}");
    let raw = manager
        .call_raw("status", None, CallOptions::default())
        .await;
    assert!(matches!(raw, Ok(Some(_))), "{raw:?}");

    let error = step(
        "unknown method",
        ANSWER,
        rejection(manager, "no.such.method"),
    )
    .await;
    assert_eq!(error.code, ErrorCode::InvalidRequest);
    assert!(
        error.message.contains("unknown method: no.such.method"),
        "{error}"
    );

    let health = step("check_health", ANSWER, manager.check_health()).await;
    assert!(health.is_healthy(), "{health:?}");
    assert!(health.round_trip.is_some() && health.last_inbound.is_some());
    assert!(health.uptime.is_some());
}

async fn rejection(manager: &GatewayManager, method: &str) -> ErrorShape {
    match manager.call_raw(method, None, CallOptions::default()).await {
        Err(ManagerError::Call(RpcError::Rejected { error, .. })) => *error,
        other => panic!("{method}: {other:?}"),
    }
}

/// Calls that a client may not make are refused with the name of what it lacks.
async fn check_missing_scopes(sandbox: &Sandbox, traits: &Traits) {
    let table: [(&[&str], &str, &str); 2] = [
        (&[], "status", scope::READ),
        (&[scope::READ], "config.set", scope::ADMIN),
    ];
    for (scopes, method, missing) in table {
        let name = format!("{method} without {missing}");
        let error = step(&name, ANSWER, async {
            let client = sandbox
                .connect(&sandbox.token, |options| {
                    options.with_scopes(scopes.iter().copied())
                })
                .await
                .expect("a second client");
            let params = gateway_protocol::Payload::from_json("{}").expect("JSON");
            let answer = client
                .call_raw(method, Some(params), CallOptions::default())
                .await;
            match answer {
                Err(RpcError::Rejected { error, .. }) => *error,
                other => panic!("{name}: {other:?}"),
            }
        })
        .await;
        assert_eq!(error.code, traits.missing_scope, "{error}");
        assert_eq!(error.missing_scope().as_deref(), Some(missing), "{error}");
    }
}

/// The gateway accepts the key of the manager's identity file: it issues a token to the device, which it does for a user interface only.
/// And it tells the others about the device.
async fn check_device_and_events(gateway: &Supervised, sandbox: &Sandbox) {
    let identity = load(&sandbox.identity_file());
    let device_id = identity.device_id().to_owned();
    let mark = gateway.mark();
    let client = step(
        "device token",
        ANSWER,
        sandbox.connect(&sandbox.token, |options: ConnectOptions| {
            let mut client = ClientInfo::new(env!("CARGO_PKG_VERSION"), std::env::consts::OS);
            client.mode = ClientMode::Ui;
            options
                .with_client(client)
                .with_identity(Arc::new(identity))
        }),
    )
    .await
    .expect("a client with a device identity");
    let auth = client.hello().auth.as_ref().expect("what it may do");
    assert!(auth.device_token.is_some(), "{auth:?}");
    assert!(auth.scopes.contains(&scope::READ.to_owned()), "{auth:?}");

    let round_trip = client.verify(ANSWER).await.expect("an answer");
    took("round trip", round_trip);

    // All versions announce that a device has gone; the newer ones also that it has come.
    let announced = gateway.next(mark, |event| match event {
        GatewayEvent::Notification { method, params } if method == "presence" => {
            let presence = params.as_ref()?.to_value();
            let entries = presence["presence"].as_array()?.clone();
            entries.into_iter().find(|entry| {
                entry["deviceId"] == device_id.as_str() && entry["reason"] == "disconnect"
            })
        }
        _ => None,
    });
    client.close(CloseCode::NORMAL, "").await;
    let entry = step("presence event", ANSWER, announced).await;
    assert_eq!(entry["mode"], "ui", "{entry}");
}
