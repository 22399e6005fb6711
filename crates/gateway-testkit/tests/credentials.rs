//! A client without the right token: both releases refuse it, and the error says so and what to do.

use std::time::Duration;

use gateway_client::{CallOptions, ConnectError, Endpoint, GatewayClient};
use gateway_manager::events::Delivered;
use gateway_manager::{
    AttachMode, FailureClass, GatewayEvent, GatewayManager, ManagerError, Phase, PortChoice,
};
use gateway_testkit::{FakeGateway, FakeGatewayConfig, Vintage};
use tokio::time::timeout;

const WRONG: &str = "a-token-of-somebody-else";
const PATIENCE: Duration = Duration::from_secs(30);

/// What is presented, the code of the refusal, its words, and the next step.
struct Case {
    token: Option<&'static str>,
    has_identity: bool,
    code: &'static str,
    words: &'static str,
    next_step: &'static str,
}

const THE_TOKEN: &str = "use the token that this gateway was started with";
const TABLE: [Case; 4] = [
    Case {
        token: None,
        has_identity: false,
        code: "DEVICE_IDENTITY_REQUIRED",
        words: "device identity required",
        next_step: "give the gateway's token",
    },
    Case {
        token: None,
        has_identity: true,
        code: "AUTH_TOKEN_MISSING",
        words: "gateway token missing",
        next_step: THE_TOKEN,
    },
    Case {
        token: Some(WRONG),
        has_identity: false,
        code: "AUTH_TOKEN_MISMATCH",
        words: "gateway token mismatch",
        next_step: THE_TOKEN,
    },
    Case {
        token: Some(WRONG),
        has_identity: true,
        code: "AUTH_TOKEN_MISMATCH",
        words: "gateway token mismatch",
        next_step: THE_TOKEN,
    },
];

#[tokio::test]
async fn a_client_is_told_what_is_wrong_with_its_token() {
    let directory = tempfile::tempdir().unwrap();
    for vintage in Vintage::ALL {
        let gateway = FakeGateway::start(FakeGatewayConfig::new(vintage))
            .await
            .unwrap();
        for case in TABLE {
            let mut client = GatewayClient::builder().endpoint(Endpoint::loopback(gateway.port()));
            if let Some(token) = case.token {
                client = client.token(token);
            }
            if case.has_identity {
                client = client.identity_file(directory.path().join("device.json"));
            }
            let refused = timeout(PATIENCE, client.connect())
                .await
                .expect("an answer");
            let Err(error @ ConnectError::Refused { .. }) = refused else {
                panic!("{vintage:?} let {:?} in", case.token);
            };
            let shape = error.refusal().unwrap();
            assert_eq!(
                shape.details_code().as_deref(),
                Some(case.code),
                "{vintage:?}"
            );
            assert_eq!(error.close_code(), Some(1008), "{vintage:?}");
            let said = error.to_string();
            assert!(
                said.contains(case.words) && said.contains(case.next_step),
                "{said}"
            );
            assert!(!said.contains(WRONG), "{said}");
        }
        // Nobody who was refused harms those who are not.
        let client = GatewayClient::builder()
            .endpoint(Endpoint::loopback(gateway.port()))
            .token(FakeGatewayConfig::DEFAULT_TOKEN);
        let client = client.connect().await.unwrap();
        let health = client
            .call_raw("health", None, CallOptions::default())
            .await;
        assert!(health.is_ok(), "{health:?}");
        client.close().await;
        gateway.stop().await;
    }
}

#[tokio::test]
async fn a_manager_that_is_refused_by_a_gateway_it_attaches_to_stops_trying() {
    let directory = tempfile::tempdir().unwrap();
    for vintage in Vintage::ALL {
        let gateway = FakeGateway::start(FakeGatewayConfig::new(vintage))
            .await
            .unwrap();
        for case in TABLE {
            let mut manager = GatewayManager::builder()
                .attach(AttachMode::Only)
                .port(PortChoice::Fixed(gateway.port()));
            if let Some(token) = case.token {
                manager = manager.token(token);
            }
            if case.has_identity {
                manager = manager.identity_file(directory.path().join("device.json"));
            }
            let manager = manager.build().unwrap();
            let started = timeout(PATIENCE, manager.start()).await.expect("an answer");
            let Err(ManagerError::Failed(failure)) = started else {
                panic!("{vintage:?} let {:?} in: {started:?}", case.token);
            };
            assert_eq!(failure.class, FailureClass::Credentials, "{failure}");
            assert!(
                failure.message.contains(case.words) && failure.message.contains(case.next_step),
                "{failure}"
            );
            assert!(!failure.message.contains(WRONG), "{failure}");
            let status = manager.status().borrow().clone();
            assert_eq!(
                (status.phase, status.next_attempt_at),
                (Phase::Failed, None)
            );
            manager.stop().await.unwrap();
        }
        gateway.stop().await;
    }
}

/// Without its identity a manager still serves, as a device that the gateway does not know; the file is for a person to look at.
#[tokio::test]
async fn a_damaged_identity_file_is_a_warning_and_stays_as_it_is() {
    let gateway = FakeGateway::start(FakeGatewayConfig::default())
        .await
        .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("device.json");
    std::fs::write(&file, "{ damaged").unwrap();
    let manager = GatewayManager::builder()
        .attach(AttachMode::Only)
        .port(PortChoice::Fixed(gateway.port()))
        .token(FakeGatewayConfig::DEFAULT_TOKEN)
        .identity_file(&file)
        .build()
        .unwrap();
    let mut events = manager.events();
    timeout(PATIENCE, manager.start())
        .await
        .expect("an answer")
        .unwrap();
    let warning = timeout(PATIENCE, async {
        loop {
            match events.next().await {
                Some(Delivered::Event(GatewayEvent::Warning { message })) => return message,
                Some(_) => {}
                None => panic!("the manager is gone"),
            }
        }
    });
    let warning = warning.await.expect("a warning");
    assert!(
        warning.contains("without a device identity")
            && warning.contains(&file.display().to_string()),
        "{warning}"
    );
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "{ damaged");
    manager.stop().await.unwrap();
    gateway.stop().await;
}
