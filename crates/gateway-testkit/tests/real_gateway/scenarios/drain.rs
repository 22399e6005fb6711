//! An agent run that is under way when the gateway is to stop: a drain lets it finish, a bounded stop does not wait for it.

use std::time::{Duration, Instant};

use gateway_manager::{EndingStage, GatewayEvent, StopMode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::installation::traits;
use crate::processes;
use crate::report::{ANSWER, BOOT, skipped, step, took};
use crate::sandbox::Sandbox;
use crate::supervised::Supervised;

/// How long the model thinks.
const RUN: Duration = Duration::from_secs(12);
/// What a bounded stop gives it.
const BOUND: Duration = Duration::from_secs(3);

pub(crate) async fn run() {
    if !traits().has_helpers {
        return skipped("drain", "this release ends at once, whatever runs");
    }
    let sandbox = Sandbox::new();
    let model = Model::start().await;
    sandbox.write_config(&model.configuration());
    let gateway = Supervised::new(sandbox.builder().await);

    gateway.start("start with a model").await;
    begin_run(&gateway, &model).await;
    let (began, mark, tree) = (Instant::now(), gateway.mark(), gateway.tree());
    let draining = gateway.manager.stop_with(StopMode::Drain);
    step("drain of an agent run", BOOT, draining)
        .await
        .expect("a stop");
    assert!(began.elapsed() > RUN / 2, "{:?}", began.elapsed());
    let exits = gateway.exits(mark).await;
    assert_eq!(exits[0].code, Some(0), "{exits:?}");
    processes::gone(&tree).await;
    gateway.is_stopped();

    gateway.start("start with a model again").await;
    begin_run(&gateway, &model).await;
    let (began, mark, tree) = (Instant::now(), gateway.mark(), gateway.tree());
    let bounded = gateway.manager.stop_with(StopMode::Bounded(BOUND));
    step("bounded stop of an agent run", ANSWER, bounded)
        .await
        .expect("a stop");
    took(
        "bounded stop over its bound",
        began.elapsed().saturating_sub(BOUND),
    );
    assert!(began.elapsed() < RUN, "{:?}", began.elapsed());
    let forced = gateway
        .picked(mark, |event| match event {
            GatewayEvent::Ending { stage, .. } => Some(*stage == EndingStage::Forced),
            _ => None,
        })
        .await;
    assert!(forced.contains(&true), "{forced:?}");
    processes::gone(&tree).await;
}

/// Sends a message, and waits until the model is asked.
async fn begin_run(gateway: &Supervised, model: &Model) {
    let before = *model.asked.borrow();
    let sent: Value = gateway
        .manager
        .call(
            "chat.send",
            &json!({
                "sessionKey": "agent:main:main",
                "message": "Say hello.",
                "idempotencyKey": format!("drain-{before}"),
            }),
        )
        .await
        .expect("a message that is taken");
    assert!(sent.is_object(), "{sent}");
    let mut asked = model.asked.clone();
    step("model asked", BOOT, asked.wait_for(|asked| *asked > before))
        .await
        .expect("a model");
}

/// A model behind the interface that most providers share; it thinks for a while and says hello.
struct Model {
    port: u16,
    asked: watch::Receiver<u32>,
}

impl Model {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (count, asked) = watch::channel(0);
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let count = count.clone();
                tokio::spawn(async move {
                    let mut request = vec![0; 64 * 1024];
                    let _ = socket.read(&mut request).await;
                    count.send_modify(|asked| *asked += 1);
                    tokio::time::sleep(RUN).await;
                    let chunk = json!({
                        "id": "1", "object": "chat.completion.chunk", "created": 1, "model": "slow",
                        "choices": [{ "index": 0, "delta": { "role": "assistant", "content": "hello" }, "finish_reason": "stop" }],
                    });
                    let body = format!("data: {chunk}\n\ndata: [DONE]\n\n");
                    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
                    let _ = socket.write_all(format!("{head}{body}").as_bytes()).await;
                });
            }
        });
        Self { port, asked }
    }

    fn configuration(&self) -> String {
        json!({
            "gateway": { "mode": "local" },
            "models": { "providers": { "slow": {
                "baseUrl": format!("http://127.0.0.1:{}/v1", self.port),
                "apiKey": "none",
                "api": "openai-completions",
                "models": [{
                    "id": "slow", "name": "slow", "reasoning": false, "input": ["text"],
                    "cost": { "input": 0, "output": 0, "cacheRead": 0, "cacheWrite": 0 },
                    "contextWindow": 200_000, "maxTokens": 1_000,
                }],
            } } },
            "agents": { "defaults": { "model": { "primary": "slow/slow" } } },
        })
        .to_string()
    }
}
