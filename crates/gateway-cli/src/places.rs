//! The files and directories of a run.

use std::path::PathBuf;

use etcetera::BaseStrategy as _;
use tempfile::TempDir;

use crate::arguments::{UpArguments, absolute};
use crate::error::Error;
use crate::report::Kind;

/// Where things are. Temporary ones are removed when this is dropped.
pub(crate) struct Places {
    pub(crate) state_dir: Option<PathBuf>,
    pub(crate) home: Option<PathBuf>,
    pub(crate) identity: Option<PathBuf>,
    _temporary: Option<TempDir>,
}

impl Places {
    /// The places for a gateway of this kind. The embedded one never sees those of a real one.
    pub(crate) fn find(arguments: &UpArguments, kind: Kind) -> Result<Self, Error> {
        let state_dir = arguments.state_dir.clone().map(absolute);
        let home = arguments.home.clone().map(absolute);
        let identity = arguments.identity.clone().map(absolute);
        if kind != Kind::Embedded {
            return Ok(Self {
                state_dir,
                home,
                identity: identity.or_else(default_identity),
                _temporary: None,
            });
        }
        if arguments.survive && state_dir.is_none() {
            return Err(Error::NothingToSurviveIn);
        }
        let temporary = tempfile::Builder::new()
            .prefix("gatewayctl-")
            .tempdir()
            .map_err(Error::TemporaryDirectory)?;
        let within = |name| Some(temporary.path().join(name));
        Ok(Self {
            state_dir: state_dir.or_else(|| within("state")),
            home,
            identity: identity.or_else(|| within("device-identity.json")),
            _temporary: Some(temporary),
        })
    }
}

/// `None` for a user without a home directory; a gateway on this machine accepts a client without an identity.
fn default_identity() -> Option<PathBuf> {
    let strategy = etcetera::choose_base_strategy().ok()?;
    Some(
        strategy
            .data_dir()
            .join("gatewayctl")
            .join("device-identity.json"),
    )
}
