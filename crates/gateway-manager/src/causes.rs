//! From the errors of the outside world to the failures that the policy knows. One place, so that one error has one meaning.

use std::path::Path;

use gateway_client::{ConnectError, Disconnected, TransportErrorKind};
use gateway_policy::failure::{ExitEvidence, HandshakeEvidence, classify_exit, classify_handshake};
use gateway_policy::lifecycle::{ConnectionLoss, ShutdownNotice};
use gateway_policy::{Failure, FailureClass};
use gateway_process::{
    ChildExit, ClaimError, PortError, RepairError, RepairOutcome, SpawnError, TerminateError,
};

/// How many of the last lines on stderr are worth repeating in a message.
const LINES_SHOWN: usize = 3;

pub(crate) fn of_connect(error: &ConnectError) -> Failure {
    let by_evidence = |evidence: HandshakeEvidence<'_>| classify_handshake(&evidence);
    let class = match error {
        ConnectError::Transport { error, .. } => match error.kind {
            TransportErrorKind::Refused => FailureClass::NotListening,
            TransportErrorKind::MessageTooLarge { .. } | TransportErrorKind::Malformed => {
                FailureClass::NotAGateway
            }
            _ => FailureClass::Temporary,
        },
        ConnectError::NotAGateway { .. }
        | ConnectError::MissingNonce { .. }
        | ConnectError::MalformedHello { .. } => FailureClass::NotAGateway,
        ConnectError::UpgradeRefused { status, .. } => by_evidence(HandshakeEvidence {
            http_status: Some(*status),
            ..HandshakeEvidence::default()
        }),
        ConnectError::Refused {
            error, close_code, ..
        } => by_evidence(HandshakeEvidence {
            error_code: Some(error.code.as_str()),
            details_code: error.details_code().as_deref(),
            details_reason: error.details_reason().as_deref(),
            retryable: error.retryable,
            expects_protocol: error.expected_protocol().is_some(),
            close_code: *close_code,
            http_status: None,
        }),
        ConnectError::ClosedBeforeHello { code, .. } => {
            code.map_or(FailureClass::Temporary, |code| {
                by_evidence(HandshakeEvidence {
                    close_code: Some(code),
                    ..HandshakeEvidence::default()
                })
            })
        }
        ConnectError::ProtocolOutOfRange { .. } => FailureClass::ProtocolVersion,
        ConnectError::DialTimeout { .. }
        | ConnectError::UpgradeTimeout { .. }
        | ConnectError::ChallengeTimeout { .. }
        | ConnectError::HelloTimeout { .. } => FailureClass::Temporary,
        ConnectError::Endpoint(_)
        | ConnectError::Identity(_)
        | ConnectError::Credentials(_)
        | ConnectError::TooLarge { .. }
        | ConnectError::Encode { .. } => FailureClass::InvalidSettings,
        _ => FailureClass::Unknown,
    };
    Failure::new(class, sentence(error))
        .retry_after(error.retry_after())
        .expected_protocol(
            error
                .refusal()
                .and_then(|refusal| refusal.expected_protocol()),
        )
}

/// Older gateways do not say which file they read, so it is named here.
pub(crate) fn of_exit(
    exit: &ChildExit,
    served: bool,
    stderr: &[String],
    config: Option<&Path>,
) -> Failure {
    let class = classify_exit(&ExitEvidence {
        code: exit.code,
        served,
        stderr,
    });
    let how = match (exit.code, exit.signal) {
        (Some(code), _) => format!("code={code}"),
        (None, Some(signal)) => format!("signal={signal}"),
        (None, None) => "status unknown".to_owned(),
    };
    let when = if served {
        "exited"
    } else {
        "exited before becoming ready"
    };
    let said = if stderr.is_empty() {
        String::new()
    } else {
        let first = stderr.len().saturating_sub(LINES_SHOWN);
        let words = stderr[first..].join(" / ");
        format!(" Its last words: {}.", words.trim_end_matches('.'))
    };
    let mut message = format!(
        "Gateway process {when} ({how}) after {:.1} s.{said}",
        exit.ran_for.as_secs_f64()
    );
    if class.is_fixable_by_doctor()
        && let Some(config) = config
    {
        message.push_str(&format!(
            " Its configuration file is {}: correct it by hand when the doctor cannot.",
            config.display()
        ));
    }
    Failure::new(class, message)
}

pub(crate) fn of_loss(disconnected: &Disconnected) -> ConnectionLoss {
    ConnectionLoss {
        failure: Failure::new(
            FailureClass::Temporary,
            format!("The connection to the gateway was lost: {disconnected}."),
        ),
        notice: match &disconnected.shutdown {
            None => ShutdownNotice::None,
            Some(shutdown) => match shutdown.restart_expected() {
                Some(expected) => ShutdownNotice::Restart { expected },
                None => ShutdownNotice::Stop,
            },
        },
    }
}

pub(crate) fn of_spawn(error: &SpawnError) -> Failure {
    let class = match error {
        SpawnError::ProgramNotFound { .. }
        | SpawnError::NotExecutable { .. }
        | SpawnError::WorkingDirectory { .. }
        | SpawnError::CannotSurvive { .. } => FailureClass::InvalidSettings,
        _ => FailureClass::Temporary,
    };
    Failure::new(class, sentence(error))
}

/// The instance cannot be claimed, or what is written down about it cannot be read.
pub(crate) fn of_claim(error: &ClaimError) -> Failure {
    let class = match error {
        ClaimError::Held { .. } => FailureClass::LockHeld,
        _ => FailureClass::InvalidSettings,
    };
    Failure::new(class, sentence(error))
}

pub(crate) fn of_termination(error: &TerminateError) -> Failure {
    Failure::new(FailureClass::Unkillable, sentence(error))
}

pub(crate) fn of_port_table(error: &PortError) -> Failure {
    Failure::new(FailureClass::Temporary, sentence(error))
}

/// A repair that did not help.
pub(crate) fn of_repair(error: &RepairError) -> Failure {
    Failure::new(
        FailureClass::Configuration,
        format!("The gateway's configuration is invalid and could not be repaired: {error}."),
    )
}

/// A doctor that ran and did not succeed.
pub(crate) fn of_failed_doctor(outcome: &RepairOutcome) -> Failure {
    Failure::new(
        FailureClass::Configuration,
        format!(
            "The gateway's configuration is invalid and the doctor could not repair it: {outcome}. Correct the file by hand."
        ),
    )
}

/// Error texts of the lower crates begin in lower case and end without a stop; messages for people do neither.
fn sentence(error: &dyn std::error::Error) -> String {
    let text = error.to_string();
    let mut characters = text.chars();
    let begun: String = characters
        .next()
        .into_iter()
        .flat_map(char::to_uppercase)
        .chain(characters)
        .collect();
    if begun.ends_with('.') {
        begun
    } else {
        begun + "."
    }
}
