//! Telling of services that run a gateway of their own.

use std::sync::Arc;

use gateway_process::{ProcessHost, ServiceSearch};

use crate::events::{EventBus, GatewayEvent};

/// Looks once, and warns of each that is found. Nothing waits for it and nothing depends on it.
pub(crate) async fn warn_of_others(
    search: ServiceSearch,
    host: Arc<dyn ProcessHost>,
    bus: EventBus,
) {
    for service in search.find(host.as_ref()).await {
        let message = service.to_string();
        tracing::warn!("{message}");
        bus.publish(GatewayEvent::Warning { message });
    }
}
