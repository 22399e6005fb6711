//! What callers of the manager can be told.

use gateway_client::RpcError;
use gateway_policy::status::GatewayState;
use gateway_policy::{ConfigProblem, Failure};
use gateway_process::OutputLogError;

/// A command or a call did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManagerError {
    /// The gateway is not running, and why. Where the cause can pass by itself, recovery goes on: see the status.
    #[error("the gateway is not running: {0}")]
    Failed(#[from] Failure),
    /// A later command wanted something else.
    #[error("the command was overtaken by a later one")]
    Superseded,
    /// The manager was shut down: its runtime is gone or its last handle was dropped.
    #[error("the gateway manager has been shut down; build a new one")]
    ShutDown,
    /// There is no connection to call through.
    #[error(
        "Gateway not connected: its state is {state}; wait until the status is running, or start it"
    )]
    NotConnected {
        /// The state at the time of the call.
        state: GatewayState,
    },
    /// The call was made and failed. [`RpcError::outcome`] tells whether it may have happened.
    #[error(transparent)]
    Call(#[from] RpcError),
}

/// The settings of a manager do not fit together.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// Something has to be launched, and nobody said what.
    #[error(
        "no OpenClaw to launch: give the builder one with openclaw(), or let it only attach with AttachMode::Only"
    )]
    NoOpenClaw,
    /// A manager that may attach has to know where.
    #[error(
        "a manager that may attach needs a fixed port: a free one has no gateway on it. Give the port, or do not attach"
    )]
    AttachToFreePort,
    /// A manager's loop is a task.
    #[error("a gateway manager has to be built inside a tokio runtime")]
    NoRuntime,
    /// The operating system gave no random bytes for the token.
    #[error("no random token could be made ({0}); set one with token()")]
    NoRandomness(String),
    /// A setting of the lifecycle makes no sense, alone or beside another one.
    #[error(transparent)]
    Lifecycle(#[from] ConfigProblem),
    /// The output log cannot be opened.
    #[error(transparent)]
    OutputLog(#[from] OutputLogError),
    /// A limit is zero.
    #[error("{name} is zero; every wait needs room to succeed")]
    ZeroLimit {
        /// Which.
        name: &'static str,
    },
}
