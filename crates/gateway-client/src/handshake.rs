//! From an address to a hello: dial, upgrade, challenge, connect request, answer.
//!
//! One deadline covers all of it, reading the credentials included, and every way out closes the socket: a
//! failing settings read must not hang a start for ever, nor a refused socket stay open. Nothing but
//! the connect request is sent before the answer, because older gateways close on any second frame.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use gateway_protocol::event::name::CONNECT_CHALLENGE;
use gateway_protocol::handshake::CONNECT_METHOD;
use gateway_protocol::limits::PRE_AUTH_MAX_BYTES;
use gateway_protocol::{
    Challenge, ConnectAuth, ConnectParams, DeviceAuthPayload, DeviceProof, ErrorShape, Frame,
    HelloOk, Payload, Request, ResponseOutcome, Sensitive,
};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, timeout_at};

use crate::credentials::Credentials;
use crate::endpoint::Endpoint;
use crate::error::{ConnectError, HandshakeStage};
use crate::events::IncomingFrame;
use crate::options::ConnectOptions;
use crate::requests::CallId;
use crate::transport::{
    HandshakeProgress, ProgressListener, Transport, TransportError, TransportErrorKind,
    TransportMessage, TransportOptions, TransportPair,
};

/// How long to wait for the close frame behind a refusal: its code tells `starting` from `unauthorized`.
const CLOSE_FRAME_PATIENCE: Duration = Duration::from_millis(250);

/// How long a close frame of ours may take when the handshake has failed.
const GOODBYE_PATIENCE: Duration = Duration::from_millis(100);

/// A gateway's first message is the challenge. Something that talks this much without one is no gateway.
const MAX_MESSAGES_BEFORE_CHALLENGE: usize = 32;

/// The longest a deadline can lie ahead: sums beyond it would overflow the clock.
const FAR_FUTURE: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// `from + after`, without overflow.
pub(crate) fn deadline(from: Instant, after: Duration) -> Instant {
    from + after.min(FAR_FUTURE)
}

/// An open connection after hello.
pub(crate) struct Established {
    pub(crate) pair: TransportPair,
    pub(crate) hello: HelloOk,
    /// Frames that came between the challenge and the hello.
    pub(crate) early: Vec<IncomingFrame>,
}

/// Performs the handshake. See [`Connection::open`](crate::Connection::open).
pub(crate) async fn perform(
    transport: &dyn Transport,
    endpoint: &Endpoint,
    options: &ConnectOptions,
    connect_id: CallId,
) -> Result<Established, ConnectError> {
    let started = Instant::now();
    let mut attempt = Attempt {
        endpoint,
        options,
        started,
        deadline: deadline(started, options.handshake_timeout),
        progress: options.progress.clone().into(),
    };
    let mut pair = attempt.open(transport).await?;
    match attempt.exchange(&mut pair, connect_id).await {
        Ok((hello, early)) => Ok(Established { pair, hello, early }),
        Err(error) => {
            attempt.goodbye(pair, &error).await;
            Err(error)
        }
    }
}

/// Opens a socket and waits for the challenge, then closes it. See [`crate::probe_challenge`].
pub(crate) async fn challenge_only(
    transport: &dyn Transport,
    endpoint: &Endpoint,
    limit: Duration,
) -> Result<Challenge, ConnectError> {
    let options = ConnectOptions::default()
        .with_handshake_timeout(limit)
        .with_challenge_timeout(limit);
    let started = Instant::now();
    let mut attempt = Attempt {
        endpoint,
        options: &options,
        started,
        deadline: deadline(started, limit),
        progress: ProgressListener::default(),
    };
    let mut pair = attempt.open(transport).await?;
    let result = attempt.challenge(&mut pair).await;
    // A probe leaves politely, so that the gateway's log shows no aborted client.
    let _ = tokio::time::timeout(GOODBYE_PATIENCE, pair.sink.close(1000, "probe")).await;
    result
}

struct Attempt<'a> {
    endpoint: &'a Endpoint,
    options: &'a ConnectOptions,
    started: Instant,
    deadline: Instant,
    progress: ProgressListener,
}

impl Attempt<'_> {
    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    async fn open(&mut self, transport: &dyn Transport) -> Result<TransportPair, ConnectError> {
        // Which of the two silences it was is known only from the transport's progress.
        let accepted = Arc::new(AtomicU8::new(0));
        let (seen, listener) = (accepted.clone(), self.progress.clone());
        let progress = ProgressListener::new(move |step| {
            if step == HandshakeProgress::TcpAccepted {
                seen.store(1, Ordering::Relaxed);
            }
            listener.report(step);
        });
        let options = TransportOptions::default()
            .with_max_message_bytes(self.options.max_message_bytes)
            .with_progress(progress);
        let opening = transport.open(self.endpoint, &options);
        let endpoint = self.endpoint.clone();
        match timeout_at(self.deadline, opening).await {
            Ok(Ok(pair)) => Ok(pair),
            Ok(Err(error)) => Err(ConnectError::from_open(self.endpoint, error)),
            Err(_) if accepted.load(Ordering::Relaxed) == 0 => Err(ConnectError::DialTimeout {
                endpoint,
                elapsed: self.elapsed(),
            }),
            Err(_) => Err(ConnectError::UpgradeTimeout {
                endpoint,
                elapsed: self.elapsed(),
            }),
        }
    }

    /// Everything after the upgrade.
    async fn exchange(
        &mut self,
        pair: &mut TransportPair,
        connect_id: CallId,
    ) -> Result<(HelloOk, Vec<IncomingFrame>), ConnectError> {
        let challenge = self.challenge(pair).await?;
        self.progress.report(HandshakeProgress::Challenged);

        let connecting = self.connect(pair, &challenge, connect_id);
        match timeout_at(self.deadline, connecting).await {
            Ok(sent) => sent?,
            Err(_) => return Err(self.timed_out(HandshakeStage::Connecting)),
        }
        self.progress.report(HandshakeProgress::ConnectSent);

        let mut early = Vec::new();
        let answering = self.answer(pair, connect_id, &mut early);
        let answer = match timeout_at(self.deadline, answering).await {
            Ok(answer) => answer?,
            Err(_) => return Err(self.timed_out(HandshakeStage::AwaitingHello)),
        };
        match answer {
            ResponseOutcome::Ok(payload) => Ok((self.hello(payload)?, early)),
            ResponseOutcome::Err(error) => Err(self.refused(pair, error).await),
        }
    }

    /// Waits for the first challenge. Other JSON is skipped, as a gateway may learn new events.
    async fn challenge(&self, pair: &mut TransportPair) -> Result<Challenge, ConnectError> {
        let limit = deadline(Instant::now(), self.options.challenge_timeout).min(self.deadline);
        let not_a_gateway = |evidence: String| ConnectError::NotAGateway {
            endpoint: self.endpoint.clone(),
            evidence,
        };
        let waiting = async {
            for _ in 0..MAX_MESSAGES_BEFORE_CHALLENGE {
                let bytes = self
                    .message(pair, HandshakeStage::AwaitingChallenge)
                    .await?;
                let length = bytes.len();
                let frame = Frame::decode(bytes).map_err(|error| {
                    not_a_gateway(format!(
                        "its first message of {length} bytes is no gateway frame: {error}"
                    ))
                })?;
                match frame {
                    Frame::Event(event) if event.event == CONNECT_CHALLENGE => {
                        let challenge = event
                            .payload
                            .and_then(|payload| payload.parse::<Challenge>().ok())
                            .filter(|challenge| challenge.nonce().is_ok());
                        return challenge.ok_or_else(|| ConnectError::MissingNonce {
                            endpoint: self.endpoint.clone(),
                        });
                    }
                    _ => {
                        tracing::debug!(endpoint = %self.endpoint, "skipped a frame before the challenge")
                    }
                }
            }
            Err(not_a_gateway(format!(
                "it sent {MAX_MESSAGES_BEFORE_CHALLENGE} messages and none was a challenge"
            )))
        };
        match timeout_at(limit, waiting).await {
            Ok(result) => result,
            Err(_) => Err(ConnectError::ChallengeTimeout {
                endpoint: self.endpoint.clone(),
                elapsed: self.elapsed(),
            }),
        }
    }

    /// Reads the credentials, signs, and sends the connect request.
    async fn connect(
        &self,
        pair: &mut TransportPair,
        challenge: &Challenge,
        connect_id: CallId,
    ) -> Result<(), ConnectError> {
        let credentials = match &self.options.credential_source {
            Some(source) => source.credentials().await?,
            None => self.options.credentials.clone(),
        };
        let params = self.params(&credentials, challenge);
        let encode = |reason: String| ConnectError::Encode { reason };
        let params = Payload::from_serialize(&params).map_err(|error| encode(error.to_string()))?;
        let request = Request::new(connect_id.to_string(), CONNECT_METHOD, Some(params));
        let text = Frame::from(request)
            .encode()
            .map_err(|error| encode(error.to_string()))?;
        if text.len() > PRE_AUTH_MAX_BYTES {
            return Err(ConnectError::TooLarge {
                bytes: text.len(),
                limit: PRE_AUTH_MAX_BYTES,
            });
        }
        let failed = |error: TransportError| match error.kind {
            TransportErrorKind::Reset => ConnectError::ClosedBeforeHello {
                code: None,
                reason: String::new(),
                stage: HandshakeStage::Connecting,
            },
            _ => ConnectError::Transport {
                endpoint: self.endpoint.clone(),
                error,
            },
        };
        let message = TransportMessage::Text(Bytes::from(text));
        pair.sink.feed(message).await.map_err(failed)?;
        pair.sink.flush().await.map_err(failed)
    }

    fn params(&self, credentials: &Credentials, challenge: &Challenge) -> ConnectParams {
        let options = self.options;
        let mut params = ConnectParams::new(options.client.clone());
        params.min_protocol = options.protocol.min;
        params.max_protocol = options.protocol.max;
        params.role = options.role.clone();
        params.scopes.clone_from(&options.scopes);
        params.caps.clone_from(&options.caps);
        params.auth = auth(credentials);
        if let Some(identity) = &options.identity {
            let nonce = challenge.nonce.clone().unwrap_or_default();
            // The gateway compares with its own clock, so its own clock is the best answer.
            let signed_at = challenge.ts.unwrap_or_else(wall_clock_ms);
            let payload = DeviceAuthPayload::for_connect(
                options.device_payload,
                identity.device_id(),
                &params,
                signed_at,
                nonce.clone(),
            );
            params.device = Some(DeviceProof {
                id: identity.device_id().to_owned(),
                public_key: identity.public_key_base64url(),
                signature: identity.sign(&payload),
                signed_at,
                nonce,
            });
        }
        params
    }

    /// The answer to the connect request. Other frames are kept for the subscribers.
    async fn answer(
        &self,
        pair: &mut TransportPair,
        connect_id: CallId,
        early: &mut Vec<IncomingFrame>,
    ) -> Result<ResponseOutcome, ConnectError> {
        let id = connect_id.to_string();
        loop {
            let bytes = self.message(pair, HandshakeStage::AwaitingHello).await?;
            let frame = match Frame::decode(bytes) {
                Ok(frame) => frame,
                Err(error) => {
                    tracing::warn!(endpoint = %self.endpoint, %error, "skipped a frame that cannot be read");
                    continue;
                }
            };
            match frame {
                Frame::Response(response) if response.id.matches_text(&id) => {
                    return Ok(response.outcome);
                }
                Frame::Event(event) => early.push(IncomingFrame::Event(Arc::new(event))),
                Frame::Unknown(payload) => early.push(IncomingFrame::Unknown(payload)),
                _ => tracing::debug!(endpoint = %self.endpoint, "skipped a frame before the hello"),
            }
            if early.len() > MAX_MESSAGES_BEFORE_CHALLENGE {
                early.remove(0);
            }
        }
    }

    fn hello(&self, payload: Option<Payload>) -> Result<HelloOk, ConnectError> {
        let malformed = |reason: String| ConnectError::MalformedHello { reason };
        let payload = payload.ok_or_else(|| malformed("it has no payload".to_owned()))?;
        let hello: HelloOk = payload
            .parse()
            .map_err(|error| malformed(error.to_string()))?;
        if !self.options.protocol.contains(hello.protocol) {
            return Err(ConnectError::ProtocolOutOfRange {
                offered: self.options.protocol,
                answered: hello.protocol,
            });
        }
        Ok(hello)
    }

    /// Reads on for the close frame that follows a refusal.
    async fn refused(&self, pair: &mut TransportPair, error: ErrorShape) -> ConnectError {
        let limit = deadline(Instant::now(), CLOSE_FRAME_PATIENCE).min(self.deadline);
        let closing = async {
            loop {
                match pair.stream.next().await {
                    Some(Ok(TransportMessage::Close { code, reason })) => {
                        return Some((code, reason));
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return None,
                }
            }
        };
        let close = timeout_at(limit, closing).await.ok().flatten();
        let (close_code, close_reason) = match close {
            Some((code, reason)) => (Some(code), reason),
            None => (None, String::new()),
        };
        ConnectError::Refused {
            error: Box::new(error),
            close_code,
            close_reason,
            elapsed: self.elapsed(),
        }
    }

    /// The next data message.
    async fn message(
        &self,
        pair: &mut TransportPair,
        stage: HandshakeStage,
    ) -> Result<Bytes, ConnectError> {
        let closed = |code, reason| ConnectError::ClosedBeforeHello {
            code,
            reason,
            stage,
        };
        loop {
            match pair.stream.next().await {
                Some(Ok(TransportMessage::Text(bytes) | TransportMessage::Binary(bytes))) => {
                    return Ok(bytes);
                }
                Some(Ok(TransportMessage::Ping(_) | TransportMessage::Pong(_))) => {}
                Some(Ok(TransportMessage::Close { code, reason })) => {
                    return Err(closed(Some(code), reason));
                }
                Some(Err(error)) if error.kind != TransportErrorKind::Reset => {
                    return Err(ConnectError::Transport {
                        endpoint: self.endpoint.clone(),
                        error,
                    });
                }
                Some(Err(_)) | None => return Err(closed(None, String::new())),
            }
        }
    }

    fn timed_out(&self, stage: HandshakeStage) -> ConnectError {
        ConnectError::HelloTimeout {
            elapsed: self.elapsed(),
            stage,
        }
    }

    /// Tells the peer why we leave, if it still listens and there is time, and closes the socket in any case.
    async fn goodbye(&self, mut pair: TransportPair, error: &ConnectError) {
        let (code, reason) = match error {
            ConnectError::MissingNonce { .. } => (1008, "connect challenge missing nonce"),
            ConnectError::MalformedHello { .. } => (1002, "malformed hello"),
            ConnectError::ProtocolOutOfRange { .. } => (1002, "protocol version not offered"),
            ConnectError::NotAGateway { .. } => (1002, "not a gateway"),
            ConnectError::Transport { error, .. }
                if matches!(error.kind, TransportErrorKind::MessageTooLarge { .. }) =>
            {
                (1009, "message too large")
            }
            ConnectError::ChallengeTimeout { .. } => (1000, "no connect.challenge"),
            _ => (1000, ""),
        };
        let limit = deadline(Instant::now(), GOODBYE_PATIENCE).min(self.deadline);
        let _ = timeout_at(limit, pair.sink.close(code, reason)).await;
    }
}

fn auth(credentials: &Credentials) -> Option<ConnectAuth> {
    let sensitive = |secret: &Option<SecretString>| {
        secret
            .as_ref()
            .map(SecretString::expose_secret)
            .filter(|text| !text.is_empty())
            .map(Sensitive::from)
    };
    let auth = ConnectAuth {
        token: sensitive(&credentials.token),
        device_token: sensitive(&credentials.device_token),
        bootstrap_token: sensitive(&credentials.bootstrap_token),
        password: sensitive(&credentials.password),
    };
    (auth != ConnectAuth::default()).then_some(auth)
}

fn wall_clock_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| u64::try_from(since.as_millis()).ok())
        .unwrap_or(0)
}
