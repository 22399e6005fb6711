//! The mockall types: a consumer can test against the traits without a socket.

#![cfg(feature = "mock")]

use std::time::Duration;

use gateway_client::{
    ConnectError, ConnectOptions, Connection, Credentials, Endpoint, MockCredentialSource,
    MockFrameSink, MockFrameStream, MockTransport, ProbeOutcome, TransportError,
    TransportErrorKind, TransportMessage, TransportPair, probe_challenge,
};

fn challenge() -> TransportMessage {
    let text = r#"{"type":"event","event":"connect.challenge","payload":{"nonce":"n","ts":1}}"#;
    TransportMessage::Text(text.into())
}

#[tokio::test]
async fn a_transport_that_is_refused() {
    let mut transport = MockTransport::new();
    transport
        .expect_open()
        .times(1)
        .returning(|_, _| Err(TransportError::new(TransportErrorKind::Refused, "scripted")));
    let error = Connection::open(
        &transport,
        &Endpoint::loopback(1),
        ConnectOptions::default(),
    )
    .await
    .expect_err("refused");
    assert!(error.to_string().contains("scripted"), "{error}");
}

#[tokio::test]
async fn a_probe_sends_nothing_but_a_close() {
    let mut transport = MockTransport::new();
    transport.expect_open().times(1).returning(|_, _| {
        let mut sink = MockFrameSink::new();
        sink.expect_close().times(1).returning(|_, _| Ok(()));
        let mut stream = MockFrameStream::new();
        stream
            .expect_next()
            .times(1)
            .returning(|| Some(Ok(challenge())));
        Ok(TransportPair {
            sink: Box::new(sink),
            stream: Box::new(stream),
        })
    });
    let found = probe_challenge(&transport, &Endpoint::loopback(1), Duration::from_secs(1)).await;
    assert!(matches!(found, ProbeOutcome::Gateway { .. }), "{found:?}");
}

#[tokio::test]
async fn a_close_that_fails_does_not_hide_the_refusal() {
    let mut transport = MockTransport::new();
    transport.expect_open().returning(|_, _| {
        let mut sink = MockFrameSink::new();
        sink.expect_feed().returning(|_| Ok(()));
        sink.expect_flush().returning(|| Ok(()));
        sink.expect_close()
            .returning(|_, _| Err(TransportError::new(TransportErrorKind::Reset, "")));
        let mut stream = MockFrameStream::new();
        let mut messages = vec![None, Some(Ok(challenge()))];
        stream
            .expect_next()
            .returning(move || messages.pop().flatten());
        Ok(TransportPair {
            sink: Box::new(sink),
            stream: Box::new(stream),
        })
    });
    let mut source = MockCredentialSource::new();
    source
        .expect_credentials()
        .times(1)
        .returning(|| Ok(Credentials::token("t")));
    let options = ConnectOptions::default().with_credential_source(std::sync::Arc::new(source));
    let error = Connection::open(&transport, &Endpoint::loopback(1), options)
        .await
        .expect_err("the peer is gone");
    assert!(
        matches!(error, ConnectError::ClosedBeforeHello { code: None, .. }),
        "{error}"
    );
}
