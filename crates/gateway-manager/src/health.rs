//! Two readings that must not be confused: does anything arrive, and does a request come back?

use std::time::Duration;

use gateway_policy::status::GatewayState;

/// The result of a health check. Cheap: one small request, no probing of channels or models.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// The state at the time of the check.
    pub state: GatewayState,
    /// How long ago something arrived on the connection; `None` without one.
    pub last_inbound: Option<Duration>,
    /// How long a small request took to come back; `None` when it did not, or was not made.
    pub round_trip: Option<Duration>,
    /// How long the session has lasted; `None` without one.
    pub uptime: Option<Duration>,
    /// Why it is not healthy, for people; `None` when it is.
    pub error: Option<String>,
}

impl Health {
    /// Connected, and a request came back.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.error.is_none()
    }
}
