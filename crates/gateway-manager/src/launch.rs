//! Building the record of one launch: everything the process, the doctor and every connection to it have in common.

use std::sync::Arc;

use gateway_policy::{Failure, FailureClass};
use gateway_process::state_dir::ensure_writable_dir;
use gateway_process::{GatewayLaunch, LaunchSpec, OpenClaw};

use crate::events::{EventBus, GatewayEvent};
use crate::hooks::{LaunchContext, PreparationHook};

/// One launch. The token in it is the token of every connection to the process that comes of it.
#[derive(Clone, Debug)]
pub(crate) struct LaunchRecord {
    pub(crate) openclaw: OpenClaw,
    pub(crate) launch: GatewayLaunch,
}

impl LaunchRecord {
    pub(crate) fn spec(&self) -> LaunchSpec {
        self.openclaw.gateway_spec(&self.launch)
    }
}

/// Runs the hooks and checks what a gateway would only fail on later and less clearly.
///
/// Cancel safe as far as the hooks are.
pub(crate) async fn prepare(
    openclaw: Option<OpenClaw>,
    launch: GatewayLaunch,
    hooks: Arc<[Arc<dyn PreparationHook>]>,
    bus: EventBus,
) -> Result<LaunchRecord, Failure> {
    let invalid = |message: String| Failure::new(FailureClass::InvalidSettings, message);
    let Some(openclaw) = openclaw else {
        return Err(invalid(
            "There is no OpenClaw to launch; set one, or only attach.".to_owned(),
        ));
    };
    let mut context = LaunchContext { launch };
    for hook in hooks.iter() {
        let (name, deadline) = (hook.name(), hook.deadline());
        let outcome = match tokio::time::timeout(deadline, hook.prepare(&mut context)).await {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("it did not finish within {} ms", deadline.as_millis()),
        };
        let message = format!("The preparation step '{name}' failed: {outcome}");
        if hook.is_required() {
            return Err(invalid(message));
        }
        tracing::warn!("{message}");
        bus.publish(GatewayEvent::Warning { message });
    }
    let launch = context.launch;
    if let Some(state_dir) = launch.resolved_state_dir() {
        // A few system calls on a local path; they may still block on a network mount.
        let checked = tokio::task::spawn_blocking(move || ensure_writable_dir(state_dir)).await;
        match checked {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(invalid(error.to_string())),
            Err(error) => {
                return Err(Failure::new(
                    FailureClass::Unknown,
                    format!("The state directory could not be checked: {error}"),
                ));
            }
        }
    }
    Ok(LaunchRecord { openclaw, launch })
}
