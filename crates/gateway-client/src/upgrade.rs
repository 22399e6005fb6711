//! The HTTP upgrade that turns a byte stream into a WebSocket.
//!
//! Done here and not by the WebSocket library for three reasons: a refusal keeps its body, a peer that is no web
//! server at all is told apart from a broken one, and the read buffer keeps its size. (The library's own client
//! path starts with an empty buffer that then grows by a few bytes per frame while earlier payloads are alive.)

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::transport::{TransportError, TransportErrorKind};

/// A response head larger than this is not one of a gateway.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// How much of a refusal's body is kept.
const MAX_BODY_BYTES: usize = 512;

/// How long to wait for the rest of a refusal's body: it explains, but nothing depends on it.
const BODY_PATIENCE: Duration = Duration::from_millis(250);

/// Sends the upgrade request and checks the answer.
///
/// No `Origin` (a foreign one is refused), no `Authorization` (ignored by the gateway), no extensions, and no
/// redirects followed: a token must never go to another address than the one that was asked for.
pub(crate) async fn upgrade<S>(
    mut stream: S,
    authority: &str,
    path: &str,
) -> Result<Rewound<S>, TransportError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let key = generate_key();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    );
    let io_error = |error: io::Error| TransportError::from_io(&error);
    stream
        .write_all(request.as_bytes())
        .await
        .map_err(io_error)?;
    stream.flush().await.map_err(io_error)?;

    let mut buffer = BytesMut::with_capacity(1024);
    let head = loop {
        if let Some(end) = find(&buffer, b"\r\n\r\n") {
            let head = buffer.split_to(end);
            buffer.advance(4);
            break head;
        }
        if !could_be_http(&buffer) {
            return Err(not_http(&buffer));
        }
        if buffer.len() > MAX_HEAD_BYTES {
            return Err(TransportError::new(
                TransportErrorKind::NotAWebSocket { status: None },
                format!("the answer's head exceeds {MAX_HEAD_BYTES} bytes"),
            ));
        }
        if stream.read_buf(&mut buffer).await.map_err(io_error)? == 0 {
            return Err(if buffer.is_empty() {
                TransportError::new(
                    TransportErrorKind::Reset,
                    "closed before the WebSocket upgrade was answered",
                )
            } else {
                not_http(&buffer)
            });
        }
    };

    let head = Head::parse(&head).ok_or_else(|| not_http(&head))?;
    if head.status != 101 {
        let body = read_body(&mut stream, buffer, head.content_length).await;
        return Err(TransportError::new(
            TransportErrorKind::UpgradeRefused {
                status: head.status,
                body: printable(&body),
            },
            String::new(),
        ));
    }
    if !head.upgrade_websocket || !head.connection_upgrade {
        return Err(TransportError::new(
            TransportErrorKind::NotAWebSocket { status: Some(101) },
            "the answer lacks the headers of a WebSocket upgrade",
        ));
    }
    if head.accept.as_deref() != Some(derive_accept_key(key.as_bytes()).as_str()) {
        return Err(TransportError::new(
            TransportErrorKind::NotAWebSocket { status: Some(101) },
            "the answer's Sec-WebSocket-Accept does not match our key",
        ));
    }
    if head.extensions {
        return Err(TransportError::new(
            TransportErrorKind::Malformed,
            "the peer chose an extension that was not offered",
        ));
    }
    Ok(Rewound {
        head: buffer.freeze(),
        stream,
    })
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

fn could_be_http(begin: &[u8]) -> bool {
    let expected = b"HTTP/1.";
    let length = begin.len().min(expected.len());
    begin[..length] == expected[..length]
}

fn not_http(begin: &[u8]) -> TransportError {
    let begin = &begin[..begin.len().min(48)];
    TransportError::new(
        TransportErrorKind::NotAWebSocket { status: None },
        format!(
            "its answer is not HTTP and begins with {:?}",
            printable(begin)
        ),
    )
}

/// Text for people: control characters and invalid UTF-8 replaced, blanks joined.
fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let cleaned: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    cleaned.split_whitespace().collect::<Vec<_>>().join(" ")
}

async fn read_body<S: AsyncRead + Unpin>(
    stream: &mut S,
    mut body: BytesMut,
    content_length: Option<usize>,
) -> BytesMut {
    let wanted = content_length.unwrap_or(MAX_BODY_BYTES).min(MAX_BODY_BYTES);
    let rest = async {
        while body.len() < wanted {
            match stream.read_buf(&mut body).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
    };
    // Half a body is better than none, so running out of patience is no error.
    let _ = tokio::time::timeout(BODY_PATIENCE, rest).await;
    body.truncate(wanted);
    body
}

struct Head {
    status: u16,
    upgrade_websocket: bool,
    connection_upgrade: bool,
    accept: Option<String>,
    extensions: bool,
    content_length: Option<usize>,
}

impl Head {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(bytes);
        let mut lines = text.split("\r\n");
        let status_line = lines.next()?;
        let mut parts = status_line.split(' ');
        if !parts.next()?.starts_with("HTTP/1.") {
            return None;
        }
        let status = parts.next()?.parse().ok()?;
        let mut head = Self {
            status,
            upgrade_websocket: false,
            connection_upgrade: false,
            accept: None,
            extensions: false,
            content_length: None,
        };
        for line in lines {
            let Some((name, value)) = line.split_once(':') else {
                continue;
            };
            let value = value.trim();
            match name.trim().to_ascii_lowercase().as_str() {
                "upgrade" => head.upgrade_websocket = value.eq_ignore_ascii_case("websocket"),
                "connection" => {
                    head.connection_upgrade = value
                        .split(',')
                        .any(|token| token.trim().eq_ignore_ascii_case("upgrade"));
                }
                "sec-websocket-accept" => head.accept = Some(value.to_owned()),
                "sec-websocket-extensions" => head.extensions = !value.is_empty(),
                "content-length" => head.content_length = value.parse().ok(),
                _ => {}
            }
        }
        Some(head)
    }
}

/// A stream whose first bytes were read already.
#[derive(Debug)]
pub(crate) struct Rewound<S> {
    head: Bytes,
    stream: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.head.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let length = self.head.len().min(buffer.remaining());
        buffer.put_slice(&self.head.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets a scripted peer answer and returns what the upgrade made of it.
    async fn against(answer: impl FnOnce(&str) -> Vec<u8>) -> Result<Vec<u8>, TransportError> {
        let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
        let client = tokio::spawn(async move { upgrade(ours, "127.0.0.1:1", "/").await });
        let mut request = Vec::new();
        while find(&request, b"\r\n\r\n").is_none() {
            let read = theirs
                .read_buf(&mut request)
                .await
                .expect("the request arrives");
            assert!(read > 0, "the request is complete");
        }
        let request = String::from_utf8(request).expect("the request is text");
        let lower = request.to_ascii_lowercase();
        assert!(!lower.contains("origin:"), "{request}");
        assert!(!lower.contains("authorization:"), "{request}");
        assert!(!lower.contains("sec-websocket-extensions:"), "{request}");
        let key = request
            .lines()
            .find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "))
            .expect("there is a key");
        theirs
            .write_all(&answer(key))
            .await
            .expect("the answer is taken");
        drop(theirs);
        let mut upgraded = client.await.expect("no panic")?;
        let mut rest = Vec::new();
        upgraded
            .read_to_end(&mut rest)
            .await
            .expect("the rest is readable");
        Ok(rest)
    }

    fn accept(key: &str) -> String {
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            derive_accept_key(key.as_bytes())
        )
    }

    #[tokio::test]
    async fn frames_sent_together_with_the_answer_are_kept() {
        let rest = against(|key| [accept(key).as_bytes(), b"first frame"].concat()).await;
        assert_eq!(rest, Ok(b"first frame".to_vec()));
    }

    #[tokio::test]
    async fn a_refusal_keeps_status_and_body() {
        let error = against(|_| {
            b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 35\r\n\r\nGateway websocket\nadmission closed!!IGNORED"
                .to_vec()
        })
        .await
        .expect_err("refused");
        assert_eq!(
            error.kind,
            TransportErrorKind::UpgradeRefused {
                status: 503,
                body: "Gateway websocket admission closed!".to_owned()
            }
        );
        let long = against(|_| [b"HTTP/1.1 400 Bad\r\n\r\n".to_vec(), vec![b'x'; 4096]].concat())
            .await
            .expect_err("refused");
        let TransportErrorKind::UpgradeRefused { status: 400, body } = long.kind else {
            panic!("{long:?}");
        };
        assert_eq!(body.len(), MAX_BODY_BYTES);
    }

    #[tokio::test]
    async fn other_protocols_are_recognised() {
        let error = against(|_| b"SSH-2.0-OpenSSH_9.2\r\n".to_vec())
            .await
            .expect_err("no HTTP");
        assert_eq!(
            error.kind,
            TransportErrorKind::NotAWebSocket { status: None }
        );
        assert!(error.detail.contains("SSH-2.0-OpenSSH_9.2"), "{error}");

        let error = against(|_| b"HTTP/1.1 101 X\r\n\r\n".to_vec())
            .await
            .expect_err("no headers");
        assert_eq!(
            error.kind,
            TransportErrorKind::NotAWebSocket { status: Some(101) }
        );

        let error = against(|_| accept("another key").into_bytes())
            .await
            .expect_err("wrong key");
        assert_eq!(
            error.kind,
            TransportErrorKind::NotAWebSocket { status: Some(101) }
        );

        let error = against(|_| Vec::new()).await.expect_err("closed");
        assert_eq!(error.kind, TransportErrorKind::Reset);

        let error = against(|_| [b"HTTP/1.1 200 OK\r\n".to_vec(), vec![b'a'; 20_000]].concat())
            .await
            .expect_err("endless head");
        assert_eq!(
            error.kind,
            TransportErrorKind::NotAWebSocket { status: None }
        );
    }

    #[tokio::test]
    async fn an_answer_in_single_bytes_is_put_together() {
        let (ours, mut theirs) = tokio::io::duplex(1);
        let client = tokio::spawn(async move { upgrade(ours, "h:1", "/x").await.map(|_| ()) });
        let mut request = Vec::new();
        while find(&request, b"\r\n\r\n").is_none() {
            theirs
                .read_buf(&mut request)
                .await
                .expect("the request arrives");
        }
        let request = String::from_utf8(request).expect("text");
        assert!(
            request.starts_with("GET /x HTTP/1.1\r\nHost: h:1\r\n"),
            "{request}"
        );
        let key = request
            .lines()
            .find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "))
            .expect("there is a key");
        theirs
            .write_all(accept(key).as_bytes())
            .await
            .expect("taken");
        assert_eq!(client.await.expect("no panic"), Ok(()));
    }
}
