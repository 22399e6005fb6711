//! The client on top, and the promise that no text shows a secret.

mod support;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gateway_client::{
    CallOptions, ConnectError, ConnectOptions, Connection, CredentialError, CredentialStore,
    Credentials, DeviceIdentity, DeviceToken, Endpoint, FileCredentialStore, GatewayClient,
    TransportMessage,
};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use support::{Peer, Scripted, TOKEN, hello, options};
use tokio::net::TcpListener;
use tokio::time::Instant;

#[tokio::test]
async fn a_client_over_a_real_socket() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let endpoint = Endpoint::address(listener.local_addr().expect("bound"));
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("accepts");
        let mut peer = Peer::accept(stream).await.expect("upgrades");
        let request = peer.greet().await;
        assert_eq!(request["params"]["scopes"], json!(["operator.admin"]));
        let call = peer.receive().await;
        peer.event("tick", json!({"ts":1})).await;
        // One frame, larger than the library's default limit for a frame.
        peer.reply(&call, json!("z".repeat(17 * 1024 * 1024))).await;
        peer.gone().await
    });
    let directory = tempfile::tempdir().expect("a directory");
    let client = GatewayClient::builder()
        .endpoint(endpoint)
        .token(TOKEN)
        .scopes(["operator.admin"])
        .identity_file(directory.path().join("device.json"))
        .connect()
        .await
        .expect("connects");
    assert!(directory.path().join("device.json").exists());
    let mut events = client.events();
    let answer = client
        .call_raw("chat.history", None, CallOptions::default())
        .await
        .expect("answered")
        .expect("a payload");
    assert_eq!(answer.len(), 17 * 1024 * 1024 + 2);
    assert!(events.next().await.is_some());
    let disconnected = client.close().await;
    assert_eq!(disconnected.code, Some(1000));
    assert_eq!(client.closed().await, disconnected);
    assert_eq!(serving.await.expect("no panic"), Some(1000));
}

/// Connects once through a store and returns the `auth` block of the request.
async fn auth_of(
    identity: &Arc<DeviceIdentity>,
    store: &Arc<FileCredentialStore>,
    token: Option<&str>,
    issued: Option<&str>,
) -> Value {
    let auth = Arc::new(std::sync::Mutex::new(Value::Null));
    let seen = auth.clone();
    let issued = issued.map(str::to_owned);
    let transport = Arc::new(Scripted::new(move |mut peer: Peer| {
        let (seen, issued) = (seen.clone(), issued.clone());
        async move {
            let mut hello = hello();
            if let Some(issued) = issued {
                hello["auth"]["deviceToken"] = json!(issued);
                hello["auth"]["issuedAtMs"] = json!(5);
            }
            let request = peer.greet_with(hello).await;
            *seen.lock().unwrap() = request["params"]["auth"].clone();
            peer.gone().await;
        }
    }));
    let mut builder = GatewayClient::builder()
        .transport(transport.clone())
        .identity(identity.clone())
        .credential_store(store.clone());
    if let Some(token) = token {
        builder = builder.token(token);
    }
    drop(builder.connect().await.expect("connects"));
    transport.finish().await;
    auth.lock().unwrap().clone()
}

#[tokio::test]
async fn an_issued_device_token_is_kept_and_used_later() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Arc::new(FileCredentialStore::new(
        directory.path().join("tokens.json"),
    ));
    let identity = Arc::new(DeviceIdentity::from_seed(&[1; 32]));

    let auth = auth_of(&identity, &store, Some(TOKEN), Some("issued-1")).await;
    assert_eq!(auth, json!({"token":TOKEN}));
    let kept = store
        .load(identity.device_id(), "operator")
        .await
        .expect("reads")
        .expect("kept");
    assert_eq!(kept.token.expose_secret(), "issued-1");
    assert_eq!(kept.scopes, ["operator.read"]);
    assert_eq!(kept.issued_at_ms, Some(5));

    let auth = auth_of(&identity, &store, None, None).await;
    assert_eq!(
        auth,
        json!({"deviceToken":"issued-1"}),
        "without another secret"
    );
    let auth = auth_of(&identity, &store, Some(TOKEN), None).await;
    assert_eq!(auth, json!({"token":TOKEN}), "the shared token goes first");

    auth_of(&identity, &store, None, Some("issued-2")).await;
    let kept = store
        .load(identity.device_id(), "operator")
        .await
        .expect("reads")
        .expect("kept");
    assert_eq!(
        kept.token.expose_secret(),
        "issued-2",
        "a new one replaces it"
    );
}

/// A store that never answers one of its questions.
struct HangingStore {
    hangs_at_load: bool,
}

#[async_trait]
impl CredentialStore for HangingStore {
    async fn load(&self, _: &str, _: &str) -> Result<Option<DeviceToken>, CredentialError> {
        if self.hangs_at_load {
            std::future::pending().await
        }
        Ok(None)
    }

    async fn save(&self, _: &str, _: &str, _: &DeviceToken) -> Result<(), CredentialError> {
        std::future::pending().await
    }

    async fn remove(&self, _: &str, _: &str) -> Result<(), CredentialError> {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_never_answers_does_not_hang_the_client() {
    for hangs_at_load in [true, false] {
        let transport = Arc::new(Scripted::new(|mut peer: Peer| async move {
            let mut hello = hello();
            hello["auth"]["deviceToken"] = json!("issued");
            peer.greet_with(hello).await;
            peer.gone().await;
        }));
        let connecting = GatewayClient::builder()
            .options(options().with_credentials(Credentials::none()))
            .transport(transport.clone())
            .identity(Arc::new(DeviceIdentity::from_seed(&[1; 32])))
            .credential_store(Arc::new(HangingStore { hangs_at_load }))
            .connect();
        let started = Instant::now();
        let connected = tokio::time::timeout(Duration::from_secs(600), connecting).await;
        match connected.expect("connecting never ends") {
            Ok(client) => {
                assert!(!hangs_at_load);
                // What could not be saved is only missing at the next start.
                assert!(client.connection().disconnected().is_none());
            }
            Err(error) => {
                assert!(hangs_at_load, "{error}");
                assert!(matches!(error, ConnectError::Credentials(_)), "{error}");
                assert!(error.to_string().contains("20000 ms"), "{error}");
            }
        }
        assert_eq!(started.elapsed().as_secs(), 20, "the handshake's limit");
        transport.finish().await;
    }
}

#[tokio::test]
async fn a_damaged_identity_file_stops_the_client() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("device.json");
    std::fs::write(&path, "{").expect("written");
    let error = GatewayClient::builder()
        .identity_file(&path)
        .connect()
        .await
        .expect_err("damaged");
    assert!(matches!(error, ConnectError::Identity(_)), "{error}");
    assert_eq!(std::fs::read(&path).expect("reads"), b"{");
}

#[tokio::test(start_paused = true)]
async fn no_text_shows_a_secret() {
    let secrets = [
        "hidden-token",
        "hidden-pass",
        "hidden-device",
        "hidden-boot",
    ];
    let mut credentials = Credentials::token(secrets[0])
        .with_device_token(secrets[2])
        .with_bootstrap_token(secrets[3]);
    credentials.password = Some(secrets[1].to_owned().into());
    let identity = Arc::new(DeviceIdentity::from_seed(&[9; 32]));
    let options: ConnectOptions = options()
        .with_identity(identity.clone())
        .with_credentials(credentials.clone());
    let endpoint = Endpoint::parse("ws://127.0.0.1:1/ws?token=hidden-query").expect("an address");
    let builder = GatewayClient::builder()
        .endpoint(endpoint.clone())
        .credentials(credentials.clone())
        .identity(identity.clone());

    let transport = Scripted::new(|mut peer: Peer| async move {
        let mut hello = hello();
        hello["auth"]["deviceToken"] = json!("hidden-issued");
        let request = peer.greet_with(hello).await;
        assert_eq!(
            request["params"]["auth"]["token"], "hidden-token",
            "it is sent"
        );
        assert_eq!(
            request["params"]["auth"]["password"], "hidden-pass",
            "it is sent"
        );
        peer.gone().await;
    });
    let connection = Connection::open(&transport, &endpoint, options.clone())
        .await
        .expect("connects");
    let refused = Scripted::new(|mut peer: Peer| async move {
        peer.challenge().await;
        let request = peer.connect_request().await;
        peer.reject(
            &request,
            json!({"code":"INVALID_REQUEST","message":"unauthorized"}),
        )
        .await;
        peer.gone().await;
    });
    let error = Connection::open(&refused, &endpoint, options.clone())
        .await
        .expect_err("refused");
    let mut texts = vec![
        format!("{options:?} {options:#?}"),
        format!("{credentials:?}"),
        format!("{identity:?}"),
        format!("{endpoint} {endpoint:?}"),
        format!("{builder:?}"),
        format!("{connection:?} {:?}", connection.hello()),
        format!("{error} {error:?}"),
        format!("{:?}", DeviceToken::new("hidden-device", Vec::new())),
        format!("{:?}", TransportMessage::Text("hidden-token".into())),
    ];
    let call_error = connection
        .call_raw("m", None, CallOptions::timeout(Duration::from_millis(5)))
        .await
        .expect_err("nobody answers");
    texts.push(format!("{call_error} {call_error:?}"));
    // The seed in the usual spellings.
    let seed_texts = ["09, 09", "9, 9, 9", "0909", "CQkJ"];
    for text in texts {
        assert!(!text.contains("hidden"), "{text}");
        for seed in seed_texts {
            assert!(!text.contains(seed), "{seed} in {text}");
        }
    }
    drop(connection);
    refused.finish().await;
}
