//! What kind of failure something is, and the one road that leads on from it.
//!
//! The class comes from the strongest evidence there is: the exit code, then the protocol's error code and details, then the
//! close code. Text is the last resort, for gateways that give nothing better. The class alone decides what happens next
//! ([`FailureClass::road`]); no caller has a second opinion.

use alloc::string::String;
use core::time::Duration;

use crate::repair;

/// The exit code by which gateways from 2026.6 on say that their configuration cannot be used (`EX_CONFIG` of sysexits).
pub const EXIT_CONFIGURATION: i32 = 78;

/// A kind of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum FailureClass {
    /// The gateway's configuration file cannot be used.
    Configuration,
    /// The Node runtime or the package does not suit this gateway.
    UnsuitableRuntime,
    /// The state was last used by a newer OpenClaw, and this one cannot read its database.
    NewerState,
    /// What the caller configured cannot work: a missing program or entry script, an unwritable directory, a failed hook.
    InvalidSettings,
    /// Another process holds the state directory.
    LockHeld,
    /// Another process holds the port.
    PortHeld,
    /// The shared token, password or device proof was refused.
    Credentials,
    /// The gateway waits for a person to approve this device.
    PairingRequired,
    /// No common protocol version.
    ProtocolVersion,
    /// The gateway runs and says that it is not ready yet, or that it is about to restart.
    StartingUp,
    /// Nobody listens on the port.
    NotListening,
    /// Something listens that is not an OpenClaw Gateway.
    NotAGateway,
    /// The gateway did not become ready although it was given time.
    NotReady,
    /// The gateway stopped answering.
    Unresponsive,
    /// A process could not be ended; nothing may be launched beside it.
    Unkillable,
    /// The gateway had announced that it restarts, and its process ended for that.
    PlannedRestart,
    /// Brief by nature: a lost connection, a crash, a timeout.
    Temporary,
    /// Nothing is known about it; treated as temporary, retried slowly, never dropped silently.
    Unknown,
}

/// What follows a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Road {
    /// One guarded repair, one relaunch, then stop with the cause.
    RepairOnce,
    /// Stop; only a person can change the cause.
    Stop,
    /// Wait with a long, bounded back-off until the holder is gone. Never end the holder.
    WaitForHolder,
    /// Try once with the alternative credential, then stop.
    AlternativeCredentialOnce,
    /// Wait for approval, however long it takes, and go on by itself.
    AwaitApproval,
    /// Offer the protocol version that the gateway named, once; then stop.
    StepDownOnce,
    /// Ask again after the advised delay, for as long as it is wanted; not an attempt.
    AskAgain,
    /// Launch again without delay, within the restart budget.
    Relaunch,
    /// Back off, with a limit.
    BackOff,
    /// Back off with the longest delay from the first attempt on, and with the same limit.
    BackOffSlowly,
}

impl FailureClass {
    /// The road of this class.
    #[must_use]
    pub const fn road(self) -> Road {
        match self {
            Self::Configuration => Road::RepairOnce,
            Self::UnsuitableRuntime
            | Self::NewerState
            | Self::InvalidSettings
            | Self::Unkillable => Road::Stop,
            Self::LockHeld | Self::PortHeld => Road::WaitForHolder,
            Self::Credentials => Road::AlternativeCredentialOnce,
            Self::PairingRequired => Road::AwaitApproval,
            Self::ProtocolVersion => Road::StepDownOnce,
            Self::StartingUp | Self::NotListening => Road::AskAgain,
            Self::PlannedRestart => Road::Relaunch,
            Self::NotAGateway | Self::NotReady | Self::Unresponsive | Self::Temporary => {
                Road::BackOff
            }
            Self::Unknown => Road::BackOffSlowly,
        }
    }

    /// Whether OpenClaw's doctor may be able to mend the cause. The doctor runs for nothing else: it cannot end whoever holds the port or
    /// the state, it cannot make an old build read a newer database, and while it tries it may do harm to a configuration that is sound.
    #[must_use]
    pub const fn is_fixable_by_doctor(self) -> bool {
        matches!(self.road(), Road::RepairOnce)
    }

    /// A short name for logs and machine-readable output, in kebab case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::UnsuitableRuntime => "unsuitable-runtime",
            Self::NewerState => "newer-state",
            Self::InvalidSettings => "invalid-settings",
            Self::LockHeld => "lock-held",
            Self::PortHeld => "port-held",
            Self::Credentials => "credentials",
            Self::PairingRequired => "pairing-required",
            Self::ProtocolVersion => "protocol-version",
            Self::StartingUp => "starting-up",
            Self::NotListening => "not-listening",
            Self::NotAGateway => "not-a-gateway",
            Self::NotReady => "not-ready",
            Self::Unresponsive => "unresponsive",
            Self::Unkillable => "unkillable",
            Self::PlannedRestart => "planned-restart",
            Self::Temporary => "temporary",
            Self::Unknown => "unknown",
        }
    }
}

impl core::fmt::Display for FailureClass {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A failure with what a person and the machine need to know about it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{message}")]
#[non_exhaustive]
pub struct Failure {
    /// Its kind, which decides what follows.
    pub class: FailureClass,
    /// What happened, the evidence, and the next step, for people. Never holds a secret.
    pub message: String,
    /// How long the gateway asked to wait.
    pub retry_after: Option<Duration>,
    /// The protocol version that the gateway would have accepted.
    pub expected_protocol: Option<u32>,
}

impl Failure {
    /// A failure of this class.
    #[must_use]
    pub fn new(class: FailureClass, message: impl Into<String>) -> Self {
        Self {
            class,
            message: message.into(),
            retry_after: None,
            expected_protocol: None,
        }
    }

    /// With the delay that the gateway advised.
    #[must_use]
    pub fn retry_after(mut self, delay: Option<Duration>) -> Self {
        self.retry_after = delay;
        self
    }

    /// With the protocol version that the gateway expects.
    #[must_use]
    pub fn expected_protocol(mut self, version: Option<u32>) -> Self {
        self.expected_protocol = version;
        self
    }
}

/// How a gateway process ended, and what it left on stderr.
#[derive(Clone, Copy, Debug)]
pub struct ExitEvidence<'a> {
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Whether it had served a session before; text left by a start says nothing about a gateway that ran.
    pub served: bool,
    /// Its newest stderr lines, colour codes removed.
    pub stderr: &'a [String],
}

/// Fragments of OpenClaw's own messages (2026.3 to 2026.9) that tell why a start failed, most specific first.
const START_TEXTS: &[(FailureClass, &[&str])] = &[
    (
        FailureClass::LockHeld,
        &[
            "another OpenClaw process owns gateway-lifecycle",
            "lock timeout",
            "gateway already running (pid",
        ],
    ),
    (
        FailureClass::PortHeld,
        &[
            "another gateway instance is already listening on ws://",
            "EADDRINUSE",
        ],
    ),
    (
        FailureClass::NewerState,
        &["newer OpenClaw build", "schema version is newer"],
    ),
    (
        FailureClass::UnsuitableRuntime,
        &["openclaw: Node", "node:sqlite is unavailable"],
    ),
];

/// The code with which gateways older than [`EXIT_CONFIGURATION`] end whatever is wrong. Only then the text may accuse the configuration.
const EXIT_UNSPECIFIC: i32 = 1;

/// Classifies the end of a process that nobody had asked to end.
///
/// Code 78 accuses the configuration, but it alone does not prove it guilty: OpenClaw 2026.9 also uses it when another gateway owns the
/// same state directory, so the texts that name another cause are looked at first. Text by itself accuses the configuration only beside
/// code 1, with which older gateways end whatever is wrong. And code 0 within a start is no orderly stop but a lost race for
/// the port, or a reader that went away.
#[must_use]
pub fn classify_exit(evidence: &ExitEvidence<'_>) -> FailureClass {
    if evidence.served && evidence.code != Some(EXIT_CONFIGURATION) {
        // A running gateway ignores an invalid edit of its configuration; only the code can accuse it here.
        return FailureClass::Temporary;
    }
    let lines = || evidence.stderr.iter().map(String::as_str);
    let said = |fragments: &[&str]| {
        lines().any(|line| fragments.iter().any(|fragment| line.contains(fragment)))
    };
    if let Some((class, _)) = START_TEXTS.iter().find(|(_, fragments)| said(fragments)) {
        return *class;
    }
    let port_taken =
        lines().any(|line| line.contains("Port ") && line.contains(" is already in use"));
    match evidence.code {
        _ if port_taken => FailureClass::PortHeld,
        Some(EXIT_CONFIGURATION) => FailureClass::Configuration,
        Some(EXIT_UNSPECIFIC) if repair::any_config_invalid_signal(lines()) => {
            FailureClass::Configuration
        }
        _ => FailureClass::Temporary,
    }
}

/// What a refused or broken handshake showed. Leave out what was not seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct HandshakeEvidence<'a> {
    /// `error.code` of the refusal.
    pub error_code: Option<&'a str>,
    /// `error.details.code` of the refusal.
    pub details_code: Option<&'a str>,
    /// `error.details.reason` of the refusal.
    pub details_reason: Option<&'a str>,
    /// `error.retryable` of the refusal.
    pub retryable: Option<bool>,
    /// Whether the refusal names a protocol version that it expected.
    pub expects_protocol: bool,
    /// The WebSocket close code.
    pub close_code: Option<u16>,
    /// The HTTP status of a refused upgrade.
    pub http_status: Option<u16>,
}

/// Details codes by which a gateway refuses what proves who we are.
const CREDENTIAL_CODES: &[&str] = &[
    "AUTH_TOKEN_MISMATCH",
    "AUTH_TOKEN_MISSING",
    "AUTH_TOKEN_NOT_CONFIGURED",
    "AUTH_PASSWORD_MISMATCH",
    "AUTH_PASSWORD_MISSING",
    "AUTH_PASSWORD_NOT_CONFIGURED",
    "AUTH_BOOTSTRAP_TOKEN_INVALID",
    "AUTH_DEVICE_TOKEN_MISMATCH",
    "AUTH_RATE_LIMITED",
    "AUTH_SCOPE_MISMATCH",
    "AUTH_UNAUTHORIZED",
    "AUTH_REQUIRED",
    "DEVICE_IDENTITY_REQUIRED",
    "DEVICE_AUTH_INVALID",
    "DEVICE_AUTH_DEVICE_ID_MISMATCH",
    "DEVICE_AUTH_SIGNATURE_INVALID",
    "DEVICE_AUTH_SIGNATURE_EXPIRED",
    "DEVICE_AUTH_NONCE_REQUIRED",
    "DEVICE_AUTH_NONCE_MISMATCH",
    "DEVICE_AUTH_PUBLIC_KEY_INVALID",
    "CONTROL_UI_ORIGIN_NOT_ALLOWED",
];

/// Reasons by which a living gateway asks for patience.
const PATIENCE_REASONS: &[&str] = &["startup-sidecars", "gateway-restarting", "gateway-draining"];

/// Classifies a handshake that ended without hello.
///
/// ```
/// use gateway_policy::failure::{classify_handshake, FailureClass, HandshakeEvidence};
/// let starting = HandshakeEvidence { error_code: Some("UNAVAILABLE"), details_reason: Some("startup-sidecars"), ..Default::default() };
/// assert_eq!(classify_handshake(&starting), FailureClass::StartingUp);
/// ```
#[must_use]
pub fn classify_handshake(evidence: &HandshakeEvidence<'_>) -> FailureClass {
    let by_details = match (evidence.details_code, evidence.details_reason) {
        (Some("PAIRING_REQUIRED"), _) => Some(FailureClass::PairingRequired),
        (Some("PROTOCOL_MISMATCH"), _) => Some(FailureClass::ProtocolVersion),
        (Some(code), _) if CREDENTIAL_CODES.contains(&code) => Some(FailureClass::Credentials),
        (_, Some(reason)) if PATIENCE_REASONS.contains(&reason) => Some(FailureClass::StartingUp),
        // Version 3 gateways name the version they expected and give no code for it.
        _ if evidence.expects_protocol => Some(FailureClass::ProtocolVersion),
        _ => None,
    };
    let by_code = || match (evidence.error_code, evidence.retryable) {
        (Some("UNAVAILABLE"), Some(true)) => Some(FailureClass::StartingUp),
        (Some("UNAVAILABLE"), _) => Some(FailureClass::Temporary),
        (Some("NOT_PAIRED"), _) => Some(FailureClass::PairingRequired),
        (Some("FORBIDDEN"), _) => Some(FailureClass::Credentials),
        // A request that was refused as such will be refused again, word for word.
        (Some("INVALID_REQUEST"), _) => Some(FailureClass::InvalidSettings),
        (Some(_), _) => Some(FailureClass::Unknown),
        (None, _) => None,
    };
    let by_close = || match evidence.close_code {
        Some(1012 | 1013) => Some(FailureClass::StartingUp),
        Some(1002) => Some(FailureClass::ProtocolVersion),
        Some(_) => Some(FailureClass::Temporary),
        None => None,
    };
    let by_status = || match evidence.http_status {
        Some(503) => FailureClass::StartingUp,
        Some(401 | 403) => FailureClass::Credentials,
        Some(_) => FailureClass::NotAGateway,
        None => FailureClass::Unknown,
    };
    by_details
        .or_else(by_code)
        .or_else(by_close)
        .unwrap_or_else(by_status)
}

/// Error texts by which older embedders recognised a brief failure of a start. Case-sensitive; only for errors that reach us
/// as text alone.
const TEMPORARY_TEXTS: &[&str] = &[
    "WebSocket closed before handshake",
    "ECONNREFUSED",
    "Gateway process exited before becoming ready",
    "Timed out waiting for connect.challenge",
    "Connect handshake timeout",
];

/// Classifies an error of which nothing is known but its text.
#[must_use]
pub fn classify_text(text: &str) -> FailureClass {
    if repair::config_invalid_signal(text) {
        FailureClass::Configuration
    } else if TEMPORARY_TEXTS.iter().any(|known| text.contains(known)) {
        FailureClass::Temporary
    } else {
        FailureClass::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{string::ToString, vec, vec::Vec};
    use proptest::prelude::*;

    fn exit(code: Option<i32>, served: bool, stderr: &[&str]) -> FailureClass {
        let stderr: Vec<String> = stderr.iter().map(ToString::to_string).collect();
        classify_exit(&ExitEvidence {
            code,
            served,
            stderr: &stderr,
        })
    }

    #[test]
    fn exits() {
        use FailureClass::{
            Configuration, LockHeld, NewerState, PortHeld, Temporary, UnsuitableRuntime,
        };
        let table = [
            ("exit 78", exit(Some(78), false, &[]), Configuration),
            (
                "old text",
                exit(Some(1), false, &["Invalid config at /c.json"]),
                Configuration,
            ),
            (
                "doctor hint",
                exit(Some(1), false, &["x", "Run: openclaw doctor --fix"]),
                Configuration,
            ),
            (
                "78 for a second gateway on one state directory",
                exit(
                    Some(78),
                    false,
                    &["another OpenClaw process owns gateway-lifecycle"],
                ),
                LockHeld,
            ),
            (
                "old lock",
                exit(
                    Some(1),
                    false,
                    &["gateway already running (pid 7); lock timeout after 5000ms"],
                ),
                LockHeld,
            ),
            (
                "port",
                exit(
                    Some(1),
                    false,
                    &["Error: listen EADDRINUSE: 127.0.0.1:18789"],
                ),
                PortHeld,
            ),
            (
                "port, other words",
                exit(Some(0), false, &["Port 18789 is already in use."]),
                PortHeld,
            ),
            (
                "a port that is not taken",
                exit(Some(1), false, &["Port 18789 is open."]),
                Temporary,
            ),
            (
                "something else that is taken",
                exit(Some(1), false, &["The name is already in use."]),
                Temporary,
            ),
            ("0 during a start", exit(Some(0), false, &[]), Temporary),
            (
                "old Node",
                exit(
                    Some(1),
                    false,
                    &["openclaw: Node.js v22.12+ is required (current: v20.20.2)."],
                ),
                UnsuitableRuntime,
            ),
            (
                "no sqlite",
                exit(
                    Some(1),
                    false,
                    &["openclaw: Node 20.20.2: node:sqlite is unavailable"],
                ),
                UnsuitableRuntime,
            ),
            (
                "plain crash",
                exit(Some(1), false, &["TypeError: x"]),
                Temporary,
            ),
            ("signal", exit(None, false, &[]), Temporary),
            (
                "crash after serving",
                exit(Some(1), true, &["Invalid config at /c.json"]),
                Temporary,
            ),
            ("78 after serving", exit(Some(78), true, &[]), Configuration),
            (
                "78 of a restart within the process that lost its state",
                exit(
                    Some(78),
                    true,
                    &["another OpenClaw process owns gateway-lifecycle"],
                ),
                LockHeld,
            ),
            (
                "newer database",
                exit(
                    Some(1),
                    false,
                    &["the state database was written by a newer OpenClaw build"],
                ),
                NewerState,
            ),
            (
                "newer database, with the code of a broken configuration and the hint that does not help",
                exit(
                    Some(78),
                    false,
                    &[
                        "the schema version is newer than this build supports",
                        "Run: openclaw doctor --fix",
                    ],
                ),
                NewerState,
            ),
            (
                "old Node, with a hint to the doctor",
                exit(
                    Some(78),
                    false,
                    &["openclaw: Node.js v22 is required", "invalid config"],
                ),
                UnsuitableRuntime,
            ),
            (
                "port, with a hint to the doctor",
                exit(
                    Some(78),
                    false,
                    &[
                        "Port 18789 is already in use.",
                        "Run: openclaw doctor --fix",
                    ],
                ),
                PortHeld,
            ),
            (
                "the text of a configuration beside a code that says something else",
                exit(Some(2), false, &["Invalid config at /c.json"]),
                Temporary,
            ),
            (
                "the text of a configuration beside success",
                exit(Some(0), false, &["Invalid config at /c.json"]),
                Temporary,
            ),
            (
                "the text of a configuration beside a signal",
                exit(None, false, &["Invalid config at /c.json"]),
                Temporary,
            ),
            (
                "stop that nobody asked for",
                exit(Some(0), true, &[]),
                Temporary,
            ),
        ];
        for (name, class, expected) in table {
            assert_eq!(class, expected, "{name}");
        }
    }

    /// Cause by cause: what the doctor may be sent to. Whatever is new here has to be decided.
    #[test]
    fn the_doctor_is_sent_to_a_broken_configuration_only() {
        use FailureClass as Class;
        let table = [
            (Class::Configuration, true),
            (Class::UnsuitableRuntime, false),
            (Class::NewerState, false),
            (Class::InvalidSettings, false),
            (Class::LockHeld, false),
            (Class::PortHeld, false),
            (Class::Credentials, false),
            (Class::PairingRequired, false),
            (Class::ProtocolVersion, false),
            (Class::StartingUp, false),
            (Class::NotListening, false),
            (Class::NotAGateway, false),
            (Class::NotReady, false),
            (Class::Unresponsive, false),
            (Class::Unkillable, false),
            (Class::PlannedRestart, false),
            (Class::Temporary, false),
            (Class::Unknown, false),
        ];
        for (class, fixable) in table {
            assert_eq!(class.is_fixable_by_doctor(), fixable, "{class}");
        }
    }

    #[test]
    fn handshakes() {
        use FailureClass as Class;
        let none = HandshakeEvidence::default();
        let refused = |error_code, details_code, close_code| HandshakeEvidence {
            error_code: Some(error_code),
            details_code,
            close_code: Some(close_code),
            ..none
        };
        let table = vec![
            (
                refused("INVALID_REQUEST", Some("AUTH_TOKEN_MISMATCH"), 1008),
                Class::Credentials,
            ),
            (
                refused(
                    "INVALID_REQUEST",
                    Some("DEVICE_AUTH_SIGNATURE_INVALID"),
                    1008,
                ),
                Class::Credentials,
            ),
            (
                refused("NOT_PAIRED", Some("DEVICE_IDENTITY_REQUIRED"), 1008),
                Class::Credentials,
            ),
            (
                refused("NOT_PAIRED", Some("PAIRING_REQUIRED"), 1008),
                Class::PairingRequired,
            ),
            (refused("NOT_PAIRED", None, 1008), Class::PairingRequired),
            (
                refused("INVALID_REQUEST", Some("PROTOCOL_MISMATCH"), 1002),
                Class::ProtocolVersion,
            ),
            (
                HandshakeEvidence {
                    expects_protocol: true,
                    ..refused("INVALID_REQUEST", None, 1002)
                },
                Class::ProtocolVersion,
            ),
            (
                refused("INVALID_REQUEST", None, 1008),
                Class::InvalidSettings,
            ),
            (
                HandshakeEvidence {
                    retryable: Some(true),
                    details_reason: Some("startup-sidecars"),
                    ..refused("UNAVAILABLE", None, 1013)
                },
                Class::StartingUp,
            ),
            (refused("UNAVAILABLE", None, 1008), Class::Temporary),
            (refused("SOMETHING_NEW", None, 1008), Class::Unknown),
            (
                HandshakeEvidence {
                    close_code: Some(1013),
                    ..none
                },
                Class::StartingUp,
            ),
            (
                HandshakeEvidence {
                    close_code: Some(1012),
                    ..none
                },
                Class::StartingUp,
            ),
            (
                HandshakeEvidence {
                    close_code: Some(1006),
                    ..none
                },
                Class::Temporary,
            ),
            (
                HandshakeEvidence {
                    http_status: Some(503),
                    ..none
                },
                Class::StartingUp,
            ),
            (
                HandshakeEvidence {
                    http_status: Some(403),
                    ..none
                },
                Class::Credentials,
            ),
            (
                HandshakeEvidence {
                    http_status: Some(200),
                    ..none
                },
                Class::NotAGateway,
            ),
            // Codes and reasons that nobody has heard of leave the decision to what is known.
            (
                refused("INVALID_REQUEST", Some("SOMETHING_NEW"), 1008),
                Class::InvalidSettings,
            ),
            (
                HandshakeEvidence {
                    details_reason: Some("something-new"),
                    ..refused("UNAVAILABLE", None, 1013)
                },
                Class::Temporary,
            ),
            (
                HandshakeEvidence {
                    details_reason: Some("gateway-draining"),
                    ..refused("INVALID_REQUEST", None, 1008)
                },
                Class::StartingUp,
            ),
            (none, Class::Unknown),
        ];
        for (evidence, expected) in table {
            assert_eq!(classify_handshake(&evidence), expected, "{evidence:?}");
        }
    }

    #[test]
    fn texts() {
        use FailureClass::{Configuration, Temporary, Unknown};
        let table = [
            ("WebSocket closed before handshake: unknown", Temporary),
            ("connect ECONNREFUSED 127.0.0.1:18789", Temporary),
            (
                "Gateway process exited before becoming ready (code=1)",
                Temporary,
            ),
            (
                "Timed out waiting for connect.challenge from Gateway",
                Temporary,
            ),
            ("Connect handshake timeout", Temporary),
            ("connect handshake timeout", Unknown),
            (
                "Gateway failed to start after 2400 retries (port 18789)",
                Unknown,
            ),
            ("Error: Invalid config", Configuration),
        ];
        for (text, expected) in table {
            assert_eq!(classify_text(text), expected, "{text:?}");
        }
    }

    proptest! {
        /// The strongest evidence decides: whatever else was seen, a details code keeps its meaning.
        #[test]
        fn details_outrank_the_rest(close in any::<Option<u16>>(), status in any::<Option<u16>>(), code in "[A-Z_]{0,12}", retryable in any::<Option<bool>>()) {
            let evidence = HandshakeEvidence {
                error_code: Some(&code), details_code: Some("PAIRING_REQUIRED"), retryable,
                close_code: close, http_status: status, ..HandshakeEvidence::default()
            };
            prop_assert_eq!(classify_handshake(&evidence), FailureClass::PairingRequired);
        }

        /// No exit is classed as something that only a handshake can show.
        #[test]
        fn exits_stay_among_their_classes(code in any::<Option<i32>>(), served in any::<bool>(), lines in prop::collection::vec(".{0,60}", 0..8)) {
            let class = classify_exit(&ExitEvidence { code, served, stderr: &lines });
            prop_assert!(!matches!(class.road(), Road::AskAgain | Road::AwaitApproval | Road::StepDownOnce | Road::AlternativeCredentialOnce));
        }
    }
}
