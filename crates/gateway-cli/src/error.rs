//! Why a run cannot go on.

use std::io;
use std::time::Duration;

use gateway_manager::{BuildError, Failure, FailureClass, ManagerError};
use gateway_process::{OpenClawError, PortError};

use crate::exit_code::ExitCode;
use crate::token::TokenError;

/// Everything that ends a run with another exit code than zero.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0}")]
    OpenClaw(OpenClawError),
    #[error(
        "the `openclaw` on PATH cannot be used: {0}. Or name another with --openclaw, or take the simulator with --embedded"
    )]
    OpenClawOnPath(OpenClawError),
    #[error(
        "the path of this program is not known ({0}), so it cannot be run as the embedded gateway; name a gateway with --openclaw or --command"
    )]
    OwnProgram(io::Error),
    #[error(
        "no temporary directory can be made ({0}); set TMPDIR to a writable one, or free some space"
    )]
    TemporaryDirectory(io::Error),
    #[error(
        "the embedded gateway has a temporary state directory, and nobody would find a survivor in it; name one that lasts with --state-dir DIR"
    )]
    NothingToSurviveIn,
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    Settings(#[from] BuildError),
    #[error("{0}")]
    Gateway(Failure),
    #[error(transparent)]
    Manager(ManagerError),
    #[error("the program cannot be set up: {0}; try again when the machine has resources to spare")]
    Runtime(io::Error),
    #[error("standard output is gone: {0}")]
    OutputGone(io::Error),
    #[error(transparent)]
    PortTable(#[from] PortError),
    #[error("the gateway did not stop within {} s and was killed", .0.as_secs())]
    StopTimedOut(Duration),
}

impl Error {
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::OpenClaw(_) | Self::OpenClawOnPath(_) => ExitCode::Unavailable,
            Self::Token(_) => ExitCode::NoInput,
            Self::Settings(BuildError::NoRandomness(_))
            | Self::OwnProgram(_)
            | Self::TemporaryDirectory(_)
            | Self::Runtime(_)
            | Self::PortTable(_)
            | Self::StopTimedOut(_) => ExitCode::OsError,
            Self::Settings(_) | Self::NothingToSurviveIn => ExitCode::Usage,
            Self::Gateway(failure) => failure.class.into(),
            Self::Manager(_) => ExitCode::GatewayFailed,
            Self::OutputGone(_) => ExitCode::IoError,
        }
    }

    /// Whether what the manager has decided led to it.
    pub(crate) fn has_a_history(&self) -> bool {
        matches!(
            self,
            Self::Gateway(_) | Self::Manager(_) | Self::StopTimedOut(_)
        )
    }

    pub(crate) fn class(&self) -> Option<FailureClass> {
        match self {
            Self::Gateway(failure) => Some(failure.class),
            _ => None,
        }
    }
}

impl From<ManagerError> for Error {
    fn from(error: ManagerError) -> Self {
        match error {
            ManagerError::Failed(failure) => Self::Gateway(failure),
            other => Self::Manager(other),
        }
    }
}
