//! The settings of a machine.

use core::time::Duration;

use crate::backoff::ReconnectConfig;
use crate::liveness::LivenessConfig;
use crate::readiness::ReadinessConfig;

/// What to do about a gateway that is already there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AttachMode {
    /// Never use it: the port is held by somebody else. The default, for attaching means to show our token to whoever
    /// listens there.
    #[default]
    Never,
    /// Use it when it is there, launch one when it is not.
    IfPresent,
    /// Only ever use one that is there; launch nothing.
    Only,
}

/// The settings of a [`Lifecycle`](super::Lifecycle). All have defaults.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct LifecycleConfig {
    /// What to do about a gateway that is already there. Default: leave it alone and say who holds the port.
    pub attach: AttachMode,
    /// Back-off of launches and of connections.
    pub reconnect: ReconnectConfig,
    /// Limits of the wait for readiness.
    pub readiness: ReadinessConfig,
    /// Limits of the watch over an open connection.
    pub liveness: LivenessConfig,
    /// Whether a broken configuration may be repaired, once per episode. Default yes.
    pub repair: bool,
    /// How often to ask whether a pending approval was given. Default 5 s.
    pub approval_poll: Duration,
    /// Back-off while another process holds the port or the state directory: long, because the holder may need minutes to
    /// let go. Default 2 s doubling to 60 s, 10 attempts.
    pub holder: ReconnectConfig,
    /// The protocol versions that this side can speak. Default 3 to 4.
    pub protocols: (u32, u32),
}

impl Default for LifecycleConfig {
    fn default() -> Self {
        Self {
            attach: AttachMode::default(),
            reconnect: ReconnectConfig::default(),
            readiness: ReadinessConfig::default(),
            liveness: LivenessConfig::default(),
            repair: true,
            approval_poll: Duration::from_secs(5),
            holder: ReconnectConfig {
                base_delay: Duration::from_secs(2),
                max_delay: Duration::from_secs(60),
                ..ReconnectConfig::default()
            },
            protocols: (3, 4),
        }
    }
}
