//! What the exit code says. The one table: help and README repeat it, and every failure is mapped here.
//!
//! The numbers from 64 on are those of `sysexits.h`, so that scripts and service managers can tell the causes apart.

use std::fmt::Write as _;
use std::process;

use gateway_manager::FailureClass;

/// How gatewayctl ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExitCode {
    Success,
    GatewayFailed,
    Usage,
    NoInput,
    Unavailable,
    OsError,
    IoError,
    TryAgain,
    Protocol,
    NoPermission,
    Configuration,
    Forced,
}

impl ExitCode {
    /// All of them, in the order of their numbers.
    pub(crate) const ALL: [Self; 12] = [
        Self::Success,
        Self::GatewayFailed,
        Self::Usage,
        Self::NoInput,
        Self::Unavailable,
        Self::OsError,
        Self::IoError,
        Self::TryAgain,
        Self::Protocol,
        Self::NoPermission,
        Self::Configuration,
        Self::Forced,
    ];

    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::GatewayFailed => 1,
            Self::Usage => 2,
            Self::NoInput => 66,
            Self::Unavailable => 69,
            Self::OsError => 71,
            Self::IoError => 74,
            Self::TryAgain => 75,
            Self::Protocol => 76,
            Self::NoPermission => 77,
            Self::Configuration => 78,
            Self::Forced => 130,
        }
    }

    pub(crate) const fn meaning(self) -> &'static str {
        match self {
            Self::Success => "stopped on request, or what was asked for is done",
            Self::GatewayFailed => {
                "the gateway failed for good: it crashed, hung or never became ready, and all attempts were used up"
            }
            Self::Usage => "the command line is wrong",
            Self::NoInput => "the token file cannot be read",
            Self::Unavailable => {
                "OpenClaw or a Node that suits it is missing, the port is held by another process, or nobody listens there"
            }
            Self::OsError => "the operating system refused something, for example to end a process",
            Self::IoError => "standard output is gone",
            Self::TryAgain => "another gateway holds the state directory",
            Self::Protocol => {
                "what listens is not an OpenClaw Gateway, or there is no common protocol version"
            }
            Self::NoPermission => "the token was refused, or this device is not approved",
            Self::Configuration => {
                "the gateway's configuration is broken, or a setting such as the state directory or the command cannot work"
            }
            Self::Forced => "a second signal cut the stop short; the gateway was killed",
        }
    }

    /// The table, one line per code, for `--help`.
    pub(crate) fn table() -> String {
        let mut table = "Exit codes:\n".to_owned();
        for code in Self::ALL {
            // Writing to a string cannot fail.
            let _ = writeln!(table, "  {:>3}  {}", code.number(), code.meaning());
        }
        table
    }
}

impl From<FailureClass> for ExitCode {
    fn from(class: FailureClass) -> Self {
        match class {
            FailureClass::Configuration | FailureClass::InvalidSettings => Self::Configuration,
            FailureClass::UnsuitableRuntime
            | FailureClass::NewerState
            | FailureClass::PortHeld
            | FailureClass::NotListening => Self::Unavailable,
            FailureClass::LockHeld => Self::TryAgain,
            FailureClass::Credentials | FailureClass::PairingRequired => Self::NoPermission,
            FailureClass::ProtocolVersion | FailureClass::NotAGateway => Self::Protocol,
            FailureClass::Unkillable => Self::OsError,
            // The rest are things that pass by themselves and were given all the attempts there are.
            _ => Self::GatewayFailed,
        }
    }
}

impl From<ExitCode> for process::ExitCode {
    fn from(code: ExitCode) -> Self {
        code.number().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_class_has_its_code() {
        use FailureClass as Class;
        let table = [
            (Class::Configuration, 78),
            (Class::InvalidSettings, 78),
            (Class::UnsuitableRuntime, 69),
            (Class::NewerState, 69),
            (Class::PortHeld, 69),
            (Class::LockHeld, 75),
            (Class::Credentials, 77),
            (Class::PairingRequired, 77),
            (Class::ProtocolVersion, 76),
            (Class::NotAGateway, 76),
            (Class::Unkillable, 71),
            (Class::StartingUp, 1),
            (Class::NotListening, 69),
            (Class::NotReady, 1),
            (Class::Unresponsive, 1),
            (Class::Temporary, 1),
            (Class::Unknown, 1),
        ];
        for (class, number) in table {
            assert_eq!(ExitCode::from(class).number(), number, "{class}");
        }
    }

    #[test]
    fn numbers_differ_and_the_readme_lists_them_all() {
        let numbers: Vec<u8> = ExitCode::ALL.map(ExitCode::number).to_vec();
        assert!(
            numbers.is_sorted_by(|left, right| left < right),
            "{numbers:?}"
        );
        let readme = include_str!("../README.md");
        for code in ExitCode::ALL {
            let row = format!("| {} | {} |", code.number(), code.meaning());
            assert!(readme.contains(&row), "README.md lacks the row {row}");
        }
    }
}
