//! The HTTP side of the port: the WebSocket upgrade and the health probes.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::options::Vintage;
use super::state::Phase;
use super::wire::Wire;

/// Longest request head that is read.
const MAX_HEAD: usize = 16 * 1024;

/// The head of an HTTP request. Header names are in lower case.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) method: String,
    pub(super) path: String,
    headers: Vec<(String, String)>,
    /// Bytes that followed the head in the same read.
    pub(super) rest: Vec<u8>,
}

impl Head {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    pub(super) fn is_upgrade(&self) -> bool {
        self.header("upgrade")
            .is_some_and(|value| value.eq_ignore_ascii_case("websocket"))
            && self.header("sec-websocket-key").is_some()
    }

    /// Whether a proxy left its traces, which 2026.9.6 refuses.
    pub(super) fn is_proxied(&self) -> bool {
        const TRACES: [&str; 5] = [
            "forwarded",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
            "x-real-ip",
        ];
        TRACES.iter().any(|name| self.header(name).is_some())
    }

    pub(super) fn has_foreign_host(&self) -> bool {
        self.header("host").is_some_and(|host| !is_loopback(host))
    }

    pub(super) fn has_foreign_origin(&self) -> bool {
        self.header("origin").is_some_and(|origin| {
            let host = origin.split_once("://").map_or(origin, |(_, host)| host);
            !is_loopback(host)
        })
    }
}

fn is_loopback(host: &str) -> bool {
    let name = host.strip_prefix('[').map_or_else(
        || host.split(':').next().unwrap_or(host),
        |rest| rest.split(']').next().unwrap_or(rest),
    );
    matches!(name, "localhost" | "::1") || name.starts_with("127.")
}

/// Reads one request head; `None` when the peer went away or sent something else.
pub(super) async fn read_head(stream: &mut Wire) -> io::Result<Option<Head>> {
    let mut buffer = Vec::with_capacity(1024);
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = buffer.split_off(end + 4);
            return Ok(parse(&buffer, rest));
        }
        if buffer.len() > MAX_HEAD || stream.read_buf(&mut buffer).await? == 0 {
            return Ok(None);
        }
    }
}

fn parse(head: &[u8], rest: Vec<u8>) -> Option<Head> {
    let text = std::str::from_utf8(head).ok()?;
    let mut lines = text.split("\r\n");
    let mut start = lines.next()?.split(' ');
    let (method, target) = (start.next()?, start.next()?);
    let path = target.split(['?', '#']).next().unwrap_or(target);
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    Some(Head {
        method: method.to_owned(),
        path: path.to_owned(),
        headers,
        rest,
    })
}

/// Sends the `101` answer.
pub(super) async fn accept_upgrade(stream: &mut Wire, head: &Head) -> io::Result<()> {
    let accept = derive_accept_key(
        head.header("sec-websocket-key")
            .unwrap_or_default()
            .as_bytes(),
    );
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await
}

pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn text(status: u16, body: impl Into<String>) -> Self {
        Self {
            status,
            content_type: "text/plain; charset=utf-8",
            body: body.into(),
        }
    }

    pub(super) fn json(status: u16, body: impl Into<String>) -> Self {
        Self {
            status,
            content_type: "application/json; charset=utf-8",
            body: body.into(),
        }
    }
}

/// Sends an answer and ends the connection.
pub(super) async fn answer(stream: &mut Wire, head_only: bool, answer: &Answer) -> io::Result<()> {
    let reason = match answer.status {
        200 => "OK",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        503 => "Service Unavailable",
        _ => "Answer",
    };
    let mut text = format!(
        "HTTP/1.1 {} {reason}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        answer.status,
        answer.content_type,
        answer.body.len()
    );
    if !head_only {
        text.push_str(&answer.body);
    }
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await
}

const WEB_UI: &str =
    "<!doctype html><html><head><title>OpenClaw Control</title></head><body></body></html>";

/// The answer to a plain request.
pub(super) fn plain(vintage: Vintage, phase: Phase, method: &str, path: &str) -> Answer {
    let page = || Answer {
        status: 200,
        content_type: "text/html; charset=utf-8",
        body: WEB_UI.to_owned(),
    };
    if !vintage.is_new() {
        return page();
    }
    let probe = matches!(
        path,
        "/health" | "/healthz" | "/ready" | "/readyz" | "/startup" | "/startupz"
    );
    if probe && !matches!(method, "GET" | "HEAD") {
        return Answer::text(405, "Method Not Allowed");
    }
    match (path, phase) {
        ("/health" | "/healthz", _) => Answer::json(200, r#"{"ok":true,"status":"live"}"#),
        ("/ready" | "/readyz", Phase::Ready) => Answer::json(200, r#"{"ready":true,"failing":[]}"#),
        ("/ready" | "/readyz", Phase::Starting) => {
            Answer::json(503, r#"{"ready":false,"failing":["startup-sidecars"]}"#)
        }
        ("/ready" | "/readyz", Phase::Draining) => {
            Answer::json(503, r#"{"ready":false,"failing":["gateway-draining"]}"#)
        }
        ("/startup" | "/startupz", Phase::Starting) => {
            Answer::json(503, r#"{"ok":false,"status":"starting"}"#)
        }
        ("/startup" | "/startupz", _) => Answer::json(
            200,
            format!(
                r#"{{"ok":true,"status":"started","version":"{}"}}"#,
                vintage.release()
            ),
        ),
        _ => page(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_origins_of_this_machine_are_not_foreign() {
        let head = |lines: &str| {
            parse(
                format!("GET /ws?token=1 HTTP/1.1\r\n{lines}\r\n").as_bytes(),
                Vec::new(),
            )
            .unwrap()
        };
        for host in ["127.0.0.1:18789", "localhost", "[::1]:18789", "127.9.9.9"] {
            assert!(
                !head(&format!("Host: {host}\r\n")).has_foreign_host(),
                "{host}"
            );
            assert!(
                !head(&format!("Origin: http://{host}\r\n")).has_foreign_origin(),
                "{host}"
            );
        }
        assert!(head("Host: gateway.example\r\n").has_foreign_host());
        assert!(head("Origin: https://evil.example\r\n").has_foreign_origin());
        assert_eq!(head("").path, "/ws");
    }

    #[test]
    fn the_old_release_answers_every_path_with_its_page() {
        for path in ["/", "/healthz", "/readyz", "/anything"] {
            let answer = plain(Vintage::V2026_3_2, Phase::Starting, "GET", path);
            assert_eq!(
                (answer.status, answer.content_type),
                (200, "text/html; charset=utf-8"),
                "{path}"
            );
        }
    }

    #[test]
    fn the_new_release_has_three_probes() {
        let new = Vintage::V2026_9_6;
        for (phase, health, ready, startup) in [
            (Phase::Starting, 200, 503, 503),
            (Phase::Ready, 200, 200, 200),
            (Phase::Draining, 200, 503, 200),
        ] {
            assert_eq!(
                plain(new, phase, "GET", "/healthz").status,
                health,
                "{phase:?}"
            );
            assert_eq!(
                plain(new, phase, "GET", "/readyz").status,
                ready,
                "{phase:?}"
            );
            assert_eq!(
                plain(new, phase, "HEAD", "/startupz").status,
                startup,
                "{phase:?}"
            );
        }
        assert_eq!(plain(new, Phase::Ready, "POST", "/readyz").status, 405);
    }
}
