//! Building the record of one launch: everything the process, the doctor and every connection to it have in common.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gateway_policy::{Failure, FailureClass};
use gateway_process::host::blocking;
use gateway_process::state_dir::ensure_writable_dir;
use gateway_process::{GatewayLaunch, LaunchSpec, OpenClaw, ProcessHost};
use secrecy::SecretString;
use tokio_util::task::AbortOnDropHandle;

use crate::events::{EventBus, GatewayEvent};
use crate::hooks::{HookError, LaunchContext, PreparationHook};

/// A local directory answers in milliseconds; a dead network mount never does.
const STATE_DIR_DEADLINE: Duration = Duration::from_secs(10);

/// One launch. The token in it is the token of every connection to the process that comes of it.
#[derive(Clone, Debug)]
pub(crate) struct LaunchRecord {
    pub(crate) openclaw: OpenClaw,
    pub(crate) launch: GatewayLaunch,
}

impl LaunchRecord {
    /// The token that the process gets, and so the one that connects to it. A hook cannot change it: whatever one writes into the
    /// environment under its name, the token of the launch is set last.
    pub(crate) fn token(&self) -> Option<SecretString> {
        self.launch.token.clone()
    }

    pub(crate) fn spec(&self) -> LaunchSpec {
        self.openclaw.gateway_spec(&self.launch)
    }
}

/// Runs the hooks and checks what a gateway would only fail on later and less clearly.
///
/// Cancel safe as far as the hooks are.
pub(crate) async fn prepare(
    openclaw: Option<OpenClaw>,
    mut launch: GatewayLaunch,
    hooks: Arc<[Arc<dyn PreparationHook>]>,
    bus: EventBus,
    host: &dyn ProcessHost,
) -> Result<LaunchRecord, Failure> {
    let invalid = |message: String| Failure::new(FailureClass::InvalidSettings, message);
    let Some(openclaw) = openclaw else {
        return Err(invalid(
            "There is no OpenClaw to launch; set one, or only attach.".to_owned(),
        ));
    };
    for hook in hooks.iter() {
        let (name, deadline) = (hook.name(), hook.deadline());
        let outcome = match tokio::time::timeout(deadline, run(hook.clone(), launch.clone())).await
        {
            Ok(Ok(changed)) => {
                launch = changed;
                continue;
            }
            Ok(Err(error)) => error,
            Err(_) => HookError::temporary(format!(
                "it did not finish within {} ms",
                deadline.as_millis()
            )),
        };
        let message = format!("The preparation step '{name}' failed: {outcome}");
        if hook.is_required() {
            return Err(Failure::new(outcome.class(), message));
        }
        tracing::warn!("{message}");
        bus.publish(GatewayEvent::Warning { message });
    }
    if let Some(state_dir) = launch.resolved_state_dir() {
        check_state_dir(host, state_dir).await?;
    }
    Ok(LaunchRecord { openclaw, launch })
}

/// Makes sure that the state directory is there and takes files; a gateway would only fail on it later and less clearly.
pub(crate) async fn check_state_dir(
    host: &dyn ProcessHost,
    state_dir: PathBuf,
) -> Result<(), Failure> {
    // A few system calls on a local path; they may still block on a network mount.
    let shown = state_dir.display().to_string();
    let checking = blocking(host, move || ensure_writable_dir(state_dir));
    match tokio::time::timeout(STATE_DIR_DEADLINE, checking).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Failure::new(
            FailureClass::InvalidSettings,
            error.to_string(),
        )),
        Err(_) => Err(Failure::new(
            FailureClass::Temporary,
            format!(
                "The state directory {shown} did not answer within {} s; check the disk or mount that it is on.",
                STATE_DIR_DEADLINE.as_secs()
            ),
        )),
    }
}

/// Runs one hook on a copy of the launch; what a hook that failed had changed is gone with the copy.
///
/// In a task of its own: one that panics, or blocks its thread instead of waiting, must not take the launch with it.
async fn run(
    hook: Arc<dyn PreparationHook>,
    launch: GatewayLaunch,
) -> Result<GatewayLaunch, HookError> {
    let work = async move {
        let mut context = LaunchContext { launch };
        hook.prepare(&mut context).await?;
        Ok(context.launch)
    };
    match AbortOnDropHandle::new(tokio::spawn(work)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(HookError::new(
            "it panicked; the cause is in this program's own output",
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use async_trait::async_trait;
    use gateway_process::{Environment, OsProcessHost};
    use secrecy::ExposeSecret as _;

    use super::*;

    const TOKEN_VARIABLE: &str = "OPENCLAW_GATEWAY_TOKEN";

    /// A step that sets another token, or takes the variable out.
    struct OtherToken(Option<&'static str>);

    #[async_trait]
    impl PreparationHook for OtherToken {
        fn name(&self) -> &str {
            "other token"
        }

        async fn prepare(&self, context: &mut LaunchContext) -> Result<(), HookError> {
            match self.0 {
                Some(token) => context.environment().set(TOKEN_VARIABLE, token),
                None => context.environment().remove(TOKEN_VARIABLE),
            };
            Ok(())
        }
    }

    #[tokio::test]
    async fn the_token_for_connecting_is_the_one_that_the_process_gets() {
        let state = tempfile::tempdir().unwrap();
        for other in [Some("of-a-hook"), None] {
            let mut launch = GatewayLaunch::new(1);
            launch.token = Some("of-the-launch".into());
            launch.state_dir = Some(state.path().to_owned());
            launch.environment = Environment::from_vars([(TOKEN_VARIABLE, "inherited")]);
            let openclaw = OpenClaw::Command {
                program: "openclaw".into(),
                args: Vec::new(),
            };
            let hooks: Arc<[Arc<dyn PreparationHook>]> = Arc::new([Arc::new(OtherToken(other))]);
            let record = prepare(
                Some(openclaw),
                launch,
                hooks,
                EventBus::new(1),
                &OsProcessHost::new(),
            )
            .await;
            let record = record.unwrap();
            let token = record.token().unwrap();
            assert_eq!(token.expose_secret(), "of-the-launch");
            assert_eq!(
                record.spec().env.expose(TOKEN_VARIABLE),
                Some(OsStr::new(token.expose_secret()))
            );
        }
    }
}
