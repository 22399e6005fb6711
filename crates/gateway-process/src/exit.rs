//! How a child ended, and at whose wish.

use std::fmt;
use std::time::Duration;

/// Why somebody asked a child to end. Kept with the child from the moment of the request, so that a strange exit code
/// after it cannot be mistaken for a crash.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TerminationReason {
    /// The user, or the host application on its way out, wants it gone.
    UserStop,
    /// A successor takes over.
    Restart,
    /// It never became ready.
    NotReady,
    /// It was ready once and answers nothing any more.
    Unresponsive,
    /// The flow that started it was overtaken by a newer one, or its last handle was dropped.
    Superseded,
    /// It had a fixed time to finish its work, and that time is over.
    DeadlineExceeded,
    /// Anything else, in the caller's words.
    Other(String),
}

impl fmt::Display for TerminationReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UserStop => "stop requested",
            Self::Restart => "restart requested",
            Self::NotReady => "never became ready",
            Self::Unresponsive => "stopped responding",
            Self::Superseded => "superseded",
            Self::DeadlineExceeded => "deadline exceeded",
            Self::Other(text) => text,
        })
    }
}

/// Whether an exit was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ExitReason {
    /// The exit followed a request, whatever code or signal came with it.
    Requested(TerminationReason),
    /// The child ended by itself.
    Unexpected,
}

impl ExitReason {
    /// `true` when somebody asked for the end.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        matches!(self, Self::Requested(_))
    }
}

/// The end of a child. Every waiter receives the same value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildExit {
    /// The child's process id. Only a name by now: the number may already belong to somebody else.
    pub pid: u32,
    /// The exit code, when the child exited by itself. `None` together with no signal means that somebody outside this
    /// crate collected the exit status.
    pub code: Option<i32>,
    /// The number of the signal that ended it (Unix only).
    pub signal: Option<i32>,
    /// Whether the end was requested; recorded at the time of the request, not of the exit.
    pub reason: ExitReason,
    /// Time from the spawn to the moment the exit was seen, on the monotonic clock.
    pub ran_for: Duration,
    /// Members of the child's own process group that outlived it and were killed. They are listed where the operating
    /// system tells (Linux); elsewhere they are killed just the same, and the list stays empty.
    pub leftovers: Vec<u32>,
}

impl fmt::Display for ChildExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ", self.pid)?;
        match (self.code, self.signal) {
            (Some(code), _) => write!(f, "exited with code {code}")?,
            (None, Some(signal)) => write!(f, "was ended by signal {signal}")?,
            (None, None) => f.write_str("ended with an unknown status")?,
        }
        write!(f, " after {:.3} s", self.ran_for.as_secs_f64())?;
        match &self.reason {
            ExitReason::Requested(reason) => write!(f, " ({reason})")?,
            ExitReason::Unexpected => f.write_str(" (by itself)")?,
        }
        if !self.leftovers.is_empty() {
            write!(f, "; killed what it left behind: {:?}", self.leftovers)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_says_code_or_signal_and_whose_wish() {
        let exit = |code, signal, reason, leftovers| ChildExit {
            pid: 7,
            code,
            signal,
            reason,
            ran_for: Duration::from_millis(1500),
            leftovers,
        };
        let requested = || ExitReason::Requested(TerminationReason::UserStop);
        let table = [
            (
                exit(Some(78), None, ExitReason::Unexpected, vec![]),
                "process 7 exited with code 78 after 1.500 s (by itself)",
            ),
            (
                exit(None, Some(9), requested(), vec![]),
                "process 7 was ended by signal 9 after 1.500 s (stop requested)",
            ),
            (
                exit(None, None, requested(), vec![8]),
                "process 7 ended with an unknown status after 1.500 s (stop requested); killed what it left behind: [8]",
            ),
        ];
        for (exit, text) in table {
            assert_eq!(exit.to_string(), text);
        }
    }
}
