//! The settings of a machine.

use core::time::Duration;

use crate::backoff::ReconnectConfig;
use crate::budget::RestartBudget;
use crate::config::ConfigProblem;
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
    /// How many automatic launches there may be.
    pub budget: RestartBudget,
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
    /// How long a child that announced to stop for good is given to end before it is connected to again. Default 10 s.
    pub announced_stop: Duration,
    /// How long an attached gateway that announced a restart is waited for, as a multiple of what it announced; until then nothing
    /// is launched in its place. Default 4.
    pub announced_restart_patience: u32,
    /// The protocol versions that this side can speak. Default 3 to 4.
    pub protocols: (u32, u32),
}

impl Default for LifecycleConfig {
    fn default() -> Self {
        Self {
            attach: AttachMode::default(),
            reconnect: ReconnectConfig::default(),
            budget: RestartBudget::default(),
            readiness: ReadinessConfig::default(),
            liveness: LivenessConfig::default(),
            repair: true,
            approval_poll: Duration::from_secs(5),
            holder: ReconnectConfig {
                base_delay: Duration::from_secs(2),
                max_delay: Duration::from_secs(60),
                ..ReconnectConfig::default()
            },
            announced_stop: Duration::from_secs(10),
            announced_restart_patience: 4,
            protocols: (3, 4),
        }
    }
}

impl LifecycleConfig {
    /// Checks the settings, alone and against each other.
    ///
    /// # Errors
    /// The first setting that makes no sense, and why.
    pub fn validate(&self) -> Result<(), ConfigProblem> {
        let waits = [
            ("readiness.quiet", self.readiness.quiet),
            ("readiness.total", self.readiness.total),
            ("readiness.poll", self.readiness.poll),
            ("approval_poll", self.approval_poll),
            ("budget.window", self.budget.window),
        ];
        if let Some((setting, _)) = waits.into_iter().find(|(_, wait)| wait.is_zero()) {
            return Err(ConfigProblem::new(
                setting,
                "is zero; every wait needs time",
            ));
        }
        let (least, most) = self.protocols;
        if least > most {
            return Err(ConfigProblem::new("protocols", "begins above its end"));
        }
        self.liveness.validate()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        assert_eq!(LifecycleConfig::default().validate(), Ok(()));
        type Spoil = fn(&mut LifecycleConfig);
        let table: &[(&str, Spoil)] = &[
            ("readiness.quiet", |config| {
                config.readiness.quiet = Duration::ZERO
            }),
            ("readiness.total", |config| {
                config.readiness.total = Duration::ZERO
            }),
            ("readiness.poll", |config| {
                config.readiness.poll = Duration::ZERO
            }),
            ("approval_poll", |config| {
                config.approval_poll = Duration::ZERO
            }),
            ("budget.window", |config| {
                config.budget.window = Duration::ZERO
            }),
            ("protocols", |config| config.protocols = (4, 3)),
            ("liveness.wedged_after", |config| {
                config.liveness.wedged_after = Duration::ZERO
            }),
        ];
        for (setting, spoil) in table {
            let mut config = LifecycleConfig::default();
            spoil(&mut config);
            assert_eq!(
                config.validate().map_err(|problem| problem.setting),
                Err(*setting)
            );
        }
        let one_version = LifecycleConfig {
            protocols: (4, 4),
            ..LifecycleConfig::default()
        };
        assert_eq!(one_version.validate(), Ok(()));
    }
}
