//! A ready step that lets Node load a script of ours into the gateway.

use std::path::PathBuf;

use async_trait::async_trait;
use gateway_process::Preload;

use super::{HookError, LaunchContext, PreparationHook};

/// Writes the script of a [`Preload`] and has the gateway of each launch load it. When that does not work the gateway starts without it.
#[derive(Clone, Debug)]
pub struct PreloadScript {
    preload: Preload,
    directory: PathBuf,
}

impl PreloadScript {
    /// The script goes to `directory`, which belongs to the application and is created when it is missing.
    #[must_use]
    pub fn new(preload: Preload, directory: impl Into<PathBuf>) -> Self {
        Self {
            preload,
            directory: directory.into(),
        }
    }
}

#[async_trait]
impl PreparationHook for PreloadScript {
    fn name(&self) -> &str {
        "preload script"
    }

    fn is_required(&self) -> bool {
        false
    }

    async fn prepare(&self, context: &mut LaunchContext) -> Result<(), HookError> {
        let (preload, directory) = (self.preload.clone(), self.directory.clone());
        let mut environment = context.environment().clone();
        // It writes a file.
        let applied = tokio::task::spawn_blocking(move || {
            preload
                .apply(&mut environment, directory)
                .map(|()| environment)
        });
        match applied.await {
            Ok(Ok(environment)) => {
                *context.environment() = environment;
                Ok(())
            }
            Ok(Err(error)) => Err(HookError::new(error.to_string())),
            Err(_) => Err(HookError::temporary("this program is ending")),
        }
    }
}
