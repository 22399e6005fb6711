//! What arrives unasked: delivery, lag, evidence of life, and frames that are odd.

mod support;

use std::time::Duration;

use gateway_client::{Connection, Delivery, EventStream, IncomingFrame};
use gateway_protocol::jsonrpc;
use serde_json::{Value, json};
use support::{Peer, Scripted, connected, hello, options, settle};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

async fn event(events: &mut EventStream) -> (String, Value) {
    match events.next().await {
        Some(Delivery::Frame(IncomingFrame::Event(event))) => {
            let payload = event
                .payload
                .as_ref()
                .map_or(Value::Null, |payload| payload.to_value());
            (event.event.clone(), payload)
        }
        other => panic!("expected an event, got {other:?}"),
    }
}

/// Answers until the client leaves; the method `burst` is followed by that many events.
async fn serve(mut peer: Peer) {
    while let Some(Message::Text(text)) = peer.next().await {
        let request: Value = serde_json::from_str(&text).expect("JSON");
        if request["method"] == "burst" {
            for n in 0..request["params"].as_u64().unwrap_or(0) {
                peer.feed(json!({"type":"event","event":"burst","payload":n}))
                    .await;
            }
        }
        peer.reply(&request, json!(null)).await;
    }
}

async fn burst(connection: &Connection, events: u64) {
    connection
        .call::<_, ()>("burst", &events)
        .await
        .expect("answered");
}

#[tokio::test(start_paused = true)]
async fn what_follows_hello_reaches_the_first_subscriber() {
    let transport = Scripted::new(|mut peer: Peer| async move {
        peer.challenge().await;
        let request = peer.connect_request().await;
        // All in one write: nobody can subscribe in between.
        peer.feed(json!({"type":"event","event":"early","payload":0}))
            .await;
        peer.feed(json!({"type":"res","id":request["id"],"ok":true,"payload":hello()}))
            .await;
        for n in 1..4 {
            peer.feed(json!({"type":"event","event":"early","payload":n}))
                .await;
        }
        peer.flush().await;
        peer.gone().await;
    });
    let connection = transport.connect().await.expect("connects");
    settle().await;
    let mut first = connection.events();
    for n in 0..4 {
        assert_eq!(event(&mut first).await, ("early".to_owned(), json!(n)));
    }
    assert!(connection.events().try_next().is_none(), "only the first");
    drop(connection);
    assert!(first.next().await.is_none());
    transport.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_does_not_read_harms_nobody() {
    let transport = Scripted::new(|mut peer: Peer| async move {
        peer.greet().await;
        serve(peer).await;
    });
    let connection = transport
        .connect_with(options().with_event_queue(8))
        .await
        .expect("connects");
    let mut lazy = connection.events();
    let mut roomy = connection.events_with_capacity(10_000);
    burst(&connection, 1000).await;
    // The answer came after a thousand events that nobody read.
    assert_eq!(connection.statistics().dropped_events, 992);
    match lazy.next().await {
        Some(Delivery::Lagged { missed: 992 }) => {}
        other => panic!("{other:?}"),
    }
    for n in 992..1000 {
        assert_eq!(event(&mut lazy).await.1, json!(n));
    }
    for n in 0..1000 {
        assert_eq!(event(&mut roomy).await.1, json!(n), "complete and in order");
    }
    assert!(lazy.try_next().is_none() && roomy.try_next().is_none());
    drop(connection);
    transport.finish().await;
}

#[tokio::test(start_paused = true)]
async fn odd_frames_are_delivered_or_skipped_and_never_fatal() {
    let (transport, connection) = connected(|mut peer| async move {
        for text in [
            "not json",
            "[1,2,3]",
            "7",
            "{\"type\":\"res\"}",
            "{\"unknown\":{\"deep\":true}}",
            "{\"type\":\"event\",\"event\":\"agent\",\"payload\":null}",
            "{\"type\":\"event\",\"event\":\"shutdown\",\"payload\":7}",
            "{\"jsonrpc\":\"2.0\",\"method\":\"error\"}",
            "{\"jsonrpc\":\"2.0\",\"method\":\"channel.status_changed\",\"params\":{\"channel\":\"x\"}}",
        ] {
            peer.send_text(text).await;
        }
        peer.send_message(Message::binary(&b"\xff\xff"[..])).await;
        serve(peer).await;
    })
    .await;
    let mut events = connection.events();
    burst(&connection, 0).await;
    assert!(connection.disconnected().is_none());
    let mut kinds = Vec::new();
    while let Some(delivery) = events.try_next() {
        kinds.push(match delivery {
            Delivery::Frame(IncomingFrame::Event(event)) => event.event.clone(),
            Delivery::Frame(IncomingFrame::Unknown(payload)) => payload.as_str().to_owned(),
            Delivery::Frame(IncomingFrame::JsonRpc(message)) => match &*message {
                jsonrpc::Message::Notification(notification) => notification.method.clone(),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        });
    }
    let delivered: Vec<&str> = kinds.iter().map(String::as_str).collect();
    for expected in [
        "{\"unknown\":{\"deep\":true}}",
        "agent",
        "shutdown",
        "error",
        "channel.status_changed",
    ] {
        let times = delivered.iter().filter(|kind| **kind == expected).count();
        assert_eq!(times, 1, "{expected} in {delivered:?}");
    }
    let malformed = connection.statistics().malformed_frames;
    assert!(malformed >= 4, "{malformed}");
    drop(connection);
    transport.finish().await;
}

#[tokio::test(start_paused = true)]
async fn any_inbound_frame_is_a_sign_of_life_and_pings_are_answered() {
    let (transport, connection) = connected(|mut peer| async move {
        tokio::time::sleep(Duration::from_secs(25)).await;
        peer.send_message(Message::Ping("p".into())).await;
        let pong = tokio::time::timeout(Duration::from_secs(1), peer.next_raw()).await;
        assert_eq!(
            pong.ok().flatten(),
            Some(Message::Pong("p".into())),
            "by a client that only reads"
        );
        tokio::time::sleep(Duration::from_secs(25)).await;
        peer.send_message(Message::Pong("".into())).await;
        tokio::time::sleep(Duration::from_secs(25)).await;
        peer.send_text("garbage").await;
        peer.gone().await;
    })
    .await;
    let begin = Instant::now();
    let age = |connection: &Connection| connection.last_inbound().duration_since(begin).as_secs();
    assert_eq!(age(&connection), 0);
    for seconds in [25, 50, 75] {
        tokio::time::sleep_until(begin + Duration::from_secs(seconds) + Duration::from_millis(500))
            .await;
        assert_eq!(age(&connection), seconds);
    }
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert_eq!(
        connection.last_inbound().elapsed().as_secs(),
        200,
        "silence is visible"
    );
    drop(connection);
    transport.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_pauses_does_not_starve_the_callers() {
    let (transport, connection) = connected(|mut peer| async move {
        let mut asked = None;
        let mut sent = 0_u32;
        while asked.is_none() {
            tokio::select! {
                biased;
                message = peer.next() => asked = message,
                () = std::future::ready(()) => {
                    sent += 1;
                    assert!(sent < 1_000_000, "the request never came");
                    peer.event("flood", json!(sent)).await;
                }
            }
        }
        let Some(Message::Text(text)) = asked else {
            panic!("{asked:?}")
        };
        let request: Value = serde_json::from_str(&text).expect("JSON");
        peer.reply(&request, json!(null)).await;
        peer.gone().await;
    })
    .await;
    // The paused clock stands still while the flood goes on, so wait in turns.
    while connection.statistics().frames_received < 1000 {
        tokio::task::yield_now().await;
    }
    burst(&connection, 0).await;
    drop(connection);
    transport.finish().await;
}
