//! The signals a gateway handles.

#[cfg(unix)]
mod platform {
    use std::io;

    use tokio::signal::unix::{Signal, SignalKind, signal};

    use super::Received;
    use crate::fake_gateway::Vintage;

    pub(in crate::child) struct Signals {
        terminate: Signal,
        interrupt: Signal,
        user1: Signal,
        /// 2026.3.2 does not handle it, so it kills.
        user2: Option<Signal>,
        vintage: Vintage,
    }

    impl Signals {
        pub(in crate::child) fn install(vintage: Vintage) -> io::Result<Self> {
            let new = vintage == Vintage::V2026_9_6;
            Ok(Self {
                terminate: signal(SignalKind::terminate())?,
                interrupt: signal(SignalKind::interrupt())?,
                user1: signal(SignalKind::user_defined1())?,
                user2: new
                    .then(|| signal(SignalKind::user_defined2()))
                    .transpose()?,
                vintage,
            })
        }

        pub(in crate::child) async fn next(&mut self) -> Received {
            let user2 = async {
                match &mut self.user2 {
                    Some(signal) => signal.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = self.terminate.recv() => Received::Stop,
                _ = self.interrupt.recv() => Received::Stop,
                _ = self.user1.recv() => match self.vintage {
                    Vintage::V2026_3_2 => Received::Restart,
                    Vintage::V2026_9_6 => Received::Inspector,
                },
                _ = user2 => Received::Restart,
            }
        }
    }
}

#[cfg(not(unix))]
mod platform {
    use std::io;

    use super::Received;
    use crate::fake_gateway::Vintage;

    pub(in crate::child) struct Signals;

    impl Signals {
        pub(in crate::child) fn install(_vintage: Vintage) -> io::Result<Self> {
            Ok(Self)
        }

        pub(in crate::child) async fn next(&mut self) -> Received {
            match tokio::signal::ctrl_c().await {
                Ok(()) => Received::Stop,
                Err(_) => std::future::pending().await,
            }
        }
    }
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(unix),
    expect(
        dead_code,
        reason = "only Unix has signals for a restart and for the inspector"
    )
)]
pub(super) enum Received {
    Stop,
    Restart,
    /// Node opens its inspector; nothing else happens.
    Inspector,
}

pub(super) use platform::Signals;
