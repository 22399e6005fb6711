//! The fault proxy between a client and a fake gateway.

mod support;

use std::time::Duration;

use gateway_testkit::fault_proxy::{Cut, Limit, ProxyPlan};
use gateway_testkit::{FakeGateway, FakeGatewayConfig, FaultProxy};
use serde_json::json;
use support::client::{Client, Received};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const TOKEN: &str = FakeGatewayConfig::DEFAULT_TOKEN;
const PATIENCE: Duration = Duration::from_secs(10);

async fn gateway_and_proxy() -> (FakeGateway, FaultProxy) {
    let gateway = FakeGateway::start(FakeGatewayConfig::default())
        .await
        .unwrap();
    let proxy = FaultProxy::start(([127, 0, 0, 1], gateway.port()).into())
        .await
        .unwrap();
    (gateway, proxy)
}

#[tokio::test]
async fn without_a_plan_everything_passes() {
    let (_gateway, proxy) = gateway_and_proxy().await;
    let (mut client, _) = Client::connected(proxy.port(), TOKEN).await;
    let large = client.call("test.large", json!({"bytes": 3_000_000})).await;
    assert_eq!(large["payload"]["data"].as_str().unwrap().len(), 3_000_000);
}

#[tokio::test]
async fn a_limit_cuts_in_the_middle_of_a_frame() {
    for then in [Cut::Close, Cut::Reset] {
        let (_gateway, proxy) = gateway_and_proxy().await;
        proxy.set_plan(ProxyPlan {
            to_client: Some(Limit {
                bytes: 100_000,
                then,
            }),
            ..ProxyPlan::default()
        });
        let (mut client, _) = Client::connected(proxy.port(), TOKEN).await;
        client.text(json!({"type": "req", "id": "l", "method": "test.large", "params": {"bytes": 1 << 20}}).to_string()).await;
        let end = client.response(&json!("l"), PATIENCE).await;
        assert!(
            matches!(&end, Received::Close(close) if close["code"] == 1006),
            "{then:?}: {end:?}"
        );
    }
}

#[tokio::test]
async fn exactly_the_bytes_of_the_limit_pass() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = FaultProxy::start(listener.local_addr().unwrap())
        .await
        .unwrap();
    proxy.set_plan(ProxyPlan {
        to_server: Some(Limit {
            bytes: 5,
            then: Cut::Close,
        }),
        ..ProxyPlan::default()
    });
    let mut client = TcpStream::connect(("127.0.0.1", proxy.port()))
        .await
        .unwrap();
    client.write_all(b"123456789").await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    let mut received = Vec::new();
    // The proxy closes with bytes unread, which may reach the peers as a reset.
    let _ = timeout(PATIENCE, server.read_to_end(&mut received))
        .await
        .unwrap();
    assert_eq!(received, b"12345");
}

#[tokio::test]
async fn a_stall_is_silent_and_one_sided() {
    let (_gateway, proxy) = gateway_and_proxy().await;
    let (mut client, _) = Client::connected(proxy.port(), TOKEN).await;
    assert_eq!(client.call("test.echo", json!(1)).await["payload"], 1);
    proxy.cut(Cut::Stall);
    client
        .text(json!({"type": "req", "id": "s", "method": "test.echo"}).to_string())
        .await;
    assert!(matches!(
        client
            .response(&json!("s"), Duration::from_millis(50))
            .await,
        Received::Nothing
    ));

    proxy.set_plan(ProxyPlan {
        to_client: Some(Limit {
            bytes: 0,
            then: Cut::Stall,
        }),
        ..ProxyPlan::default()
    });
    let mut raw = TcpStream::connect(("127.0.0.1", proxy.port()))
        .await
        .unwrap();
    raw.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(
        timeout(Duration::from_millis(50), raw.read(&mut [0; 1]))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn cut_breaks_what_is_open_and_spares_what_comes() {
    let (gateway, proxy) = gateway_and_proxy().await;
    let (mut client, _) = Client::connected(proxy.port(), TOKEN).await;
    proxy.cut(Cut::Reset);
    assert_eq!(client.until_close(PATIENCE).await["code"], 1006);
    timeout(
        PATIENCE,
        gateway.wait_for(|statistics| statistics.connected == 0),
    )
    .await
    .unwrap();
    let (mut client, _) = Client::connected(proxy.port(), TOKEN).await;
    assert_eq!(client.call("test.echo", json!(2)).await["payload"], 2);
}
