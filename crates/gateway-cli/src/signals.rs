//! The signals that ask gatewayctl to stop.

#[cfg(unix)]
mod platform {
    use std::io;

    use tokio::signal::unix::{Signal, SignalKind, signal};

    pub(crate) struct Signals {
        interrupt: Signal,
        terminate: Signal,
        /// `None` where it is ignored on purpose, as `nohup` does.
        hangup: Option<Signal>,
    }

    impl Signals {
        pub(crate) fn install() -> io::Result<Self> {
            Ok(Self {
                interrupt: signal(SignalKind::interrupt())?,
                terminate: signal(SignalKind::terminate())?,
                hangup: (!hangup_is_ignored())
                    .then(|| signal(SignalKind::hangup()))
                    .transpose()?,
            })
        }

        pub(crate) async fn next(&mut self) -> &'static str {
            let hangup = async {
                match &mut self.hangup {
                    Some(signal) => signal.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = self.interrupt.recv() => "SIGINT",
                _ = self.terminate.recv() => "SIGTERM",
                _ = hangup => "SIGHUP",
            }
        }
    }

    /// Installing a handler would undo what `nohup` set up, so it has to be asked first. Only Linux tells without unsafe code.
    fn hangup_is_ignored() -> bool {
        std::fs::read_to_string("/proc/self/status").is_ok_and(|status| ignores_hangup(&status))
    }

    fn ignores_hangup(status: &str) -> bool {
        // Signal 1 is the lowest bit.
        status
            .lines()
            .find_map(|line| line.strip_prefix("SigIgn:"))
            .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
            .is_some_and(|mask| mask & 1 == 1)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn ignored_signals() {
            assert!(ignores_hangup("Name:\tx\nSigIgn:\t0000000000001001\n"));
            assert!(!ignores_hangup("Name:\tx\nSigIgn:\t0000000000001000\n"));
            assert!(!ignores_hangup("Name:\tx\n"));
        }
    }
}

#[cfg(windows)]
mod platform {
    use std::io;

    use tokio::signal::windows::{CtrlBreak, CtrlC, CtrlClose, ctrl_break, ctrl_c, ctrl_close};

    pub(crate) struct Signals {
        ctrl_c: CtrlC,
        ctrl_break: CtrlBreak,
        close: CtrlClose,
    }

    impl Signals {
        pub(crate) fn install() -> io::Result<Self> {
            Ok(Self {
                ctrl_c: ctrl_c()?,
                ctrl_break: ctrl_break()?,
                close: ctrl_close()?,
            })
        }

        pub(crate) async fn next(&mut self) -> &'static str {
            tokio::select! {
                _ = self.ctrl_c.recv() => "Ctrl-C",
                _ = self.ctrl_break.recv() => "Ctrl-Break",
                _ = self.close.recv() => "console closed",
            }
        }
    }
}

pub(crate) use platform::Signals;
