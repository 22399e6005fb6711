//! A second manager on the port of a running gateway: it refuses, or attaches, by policy, and never harms the first. And a client with
//! a wrong token.

use gateway_client::{ConnectError, ConnectOptions};
use gateway_manager::{AttachMode, FailureClass, GatewayState};
use gateway_protocol::error::details;

use crate::report::{ANSWER, STOP, step};
use crate::sandbox::{Sandbox, random_token};
use crate::supervised::Supervised;

pub(crate) async fn run() {
    let sandbox = Sandbox::new();
    let gateway = Supervised::new(sandbox.builder().await);
    let pid = gateway.start("start").await;
    let unharmed = async || {
        assert_eq!(gateway.running_pid(), pid);
        gateway.serves().await;
        assert!(gateway.exits(0).await.is_empty());
    };

    refuses(&sandbox, pid).await;
    unharmed().await;
    attaches(&sandbox).await;
    unharmed().await;
    is_refused(&sandbox).await;
    unharmed().await;
    client_is_refused(&sandbox).await;
    unharmed().await;

    gateway.stop("stop").await;
    gateway.no_warnings().await;
}

/// Attaching is off: the error says that a gateway is there, and which process it is.
async fn refuses(sandbox: &Sandbox, pid: u32) {
    let rival = sandbox.rival(&sandbox.token);
    let second = Supervised::new(rival.builder().await.attach(AttachMode::Never));
    let failure = second
        .start_fails("second manager refused, attaching is off", ANSWER)
        .await;
    assert_eq!(failure.class, FailureClass::PortHeld, "{failure}");
    for part in ["OpenClaw Gateway", &format!("pid {pid}")] {
        assert!(failure.message.contains(part), "{failure}");
    }
    second.stop("second manager stopped").await;
}

/// Attaching is on: it uses what is there, and a stop only hangs up.
async fn attaches(sandbox: &Sandbox) {
    let rival = sandbox.rival(&sandbox.token);
    let second = Supervised::new(rival.builder().await.attach(AttachMode::IfPresent));
    step("second manager attached", ANSWER, second.manager.start())
        .await
        .expect("a gateway to attach to");
    let status = second.status();
    assert!(status.is_running() && status.attached, "{status:?}");
    assert_eq!(status.pid, None);
    second.serves().await;
    step("second manager detached", STOP, second.manager.stop())
        .await
        .expect("a stop");
    second.is_stopped();
    second.no_warnings().await;
}

/// The wrong token: refused for good, not retried.
async fn is_refused(sandbox: &Sandbox) {
    let rival = sandbox.rival(random_token());
    let second = Supervised::new(rival.builder().await.attach(AttachMode::Only));
    let failure = second
        .start_fails("second manager refused, wrong token", ANSWER)
        .await;
    assert_eq!(failure.class, FailureClass::Credentials, "{failure}");
    assert!(!failure.message.contains(&rival.token), "{failure}");
    assert_eq!(second.status().state, GatewayState::Error);
    second.stop("refused manager stopped").await;
}

async fn client_is_refused(sandbox: &Sandbox) {
    let wrong = random_token();
    let options = |options: ConnectOptions| options;
    let refused = step(
        "client refused, wrong token",
        ANSWER,
        sandbox.connect(&wrong, options),
    )
    .await;
    match refused {
        Err(ConnectError::Refused {
            error, close_code, ..
        }) => {
            let code = error.details_code();
            assert_eq!(code.as_deref(), Some(details::AUTH_TOKEN_MISMATCH));
            assert_eq!(close_code, Some(1008));
        }
        other => panic!("{other:?}"),
    }
}
