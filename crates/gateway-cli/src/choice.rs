//! Which gateway to run.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use gateway_manager::{OpenClaw, PortChoice};
use gateway_policy::status::DEFAULT_PORT;
use gateway_process::node::NODE_VERSION_DEADLINE;
use gateway_process::{Environment, OpenClawError};

use crate::arguments::{Attach, UpArguments, absolute, absolute_program};
use crate::error::Error;
use crate::report::Kind;

/// The hidden first argument that turns this program into the embedded gateway.
pub(crate) const EMBEDDED_COMMAND: &str = "embedded-gateway";

/// How to get from the simulator to the real thing.
const HOW_TO_GET_THE_REAL_ONE: &str = "For the real one: `npm install -g openclaw`, or point to it with --openclaw DIR (in a checkout of this project, `cargo xtask gateway install` provides one).";

/// The gateway to use.
#[derive(Debug)]
pub(crate) struct Choice {
    pub(crate) kind: Kind,
    /// `None` when nothing is to be launched.
    pub(crate) openclaw: Option<OpenClaw>,
    /// Whether it was asked for, or is there because nothing else is.
    is_fallback: bool,
}

/// Finds the gateway: the one that was named, else the one on PATH, else the embedded one. One that is there and cannot be used is an
/// error, never a reason to take another.
pub(crate) async fn choose(arguments: &UpArguments) -> Result<Choice, Error> {
    let named = |kind, openclaw| Choice {
        kind,
        openclaw: Some(openclaw),
        is_fallback: false,
    };
    if arguments.attach == Attach::Only {
        return Ok(Choice {
            kind: Kind::AttachOnly,
            openclaw: None,
            is_fallback: false,
        });
    }
    if let Some(directory) = &arguments.openclaw {
        let found =
            OpenClaw::from_directory(absolute(directory.clone()), NODE_VERSION_DEADLINE).await;
        return Ok(named(Kind::Package, found.map_err(Error::OpenClaw)?));
    }
    if let Some(program) = &arguments.command {
        let command = OpenClaw::Command {
            program: absolute_program(program.clone()),
            args: arguments.command_arg.clone(),
        };
        return Ok(named(Kind::Command, command));
    }
    if arguments.embedded {
        return Ok(named(Kind::Embedded, embedded()?));
    }
    match OpenClaw::locate_on_path(NODE_VERSION_DEADLINE).await {
        Ok(package @ OpenClaw::Package { .. }) => Ok(named(Kind::Package, package)),
        Ok(command @ OpenClaw::Command { .. }) => Ok(named(Kind::Command, command)),
        Err(OpenClawError::NotOnPath) => Ok(Choice {
            is_fallback: true,
            ..named(Kind::Embedded, embedded()?)
        }),
        Err(error) => Err(Error::OpenClawOnPath(error)),
    }
}

fn embedded() -> Result<OpenClaw, Error> {
    let program: PathBuf = env::current_exe().map_err(Error::OwnProgram)?;
    Ok(OpenClaw::Command {
        program,
        args: vec![OsString::from(EMBEDDED_COMMAND)],
    })
}

impl Choice {
    /// The port: what was asked for; else OpenClaw's own, where clients look for it. The embedded gateway must not stand in the way of
    /// a real one, so it takes a free port.
    pub(crate) fn port(&self, arguments: &UpArguments) -> PortChoice {
        let default = if self.kind == Kind::Embedded && arguments.attach == Attach::Never {
            PortChoice::Free
        } else {
            PortChoice::Fixed(DEFAULT_PORT)
        };
        arguments.port.unwrap_or(default)
    }

    /// The environment of the gateway; `None` for the usual one.
    pub(crate) fn environment(&self) -> Option<Environment> {
        (self.kind == Kind::Embedded).then(|| {
            // Settings meant for a real gateway would lead the simulator and its doctor to that one's files.
            let mut environment = Environment::from_parent();
            let meant_for_the_real_one: Vec<OsString> = environment
                .names()
                .filter(|name| name.to_string_lossy().starts_with("OPENCLAW_"))
                .map(ToOwned::to_owned)
                .collect();
            for name in meant_for_the_real_one {
                environment.remove(name);
            }
            environment
        })
    }

    /// What is run, for people and programs: a path, or a command.
    pub(crate) fn program(&self) -> Option<String> {
        self.openclaw.as_ref().map(|openclaw| match openclaw {
            OpenClaw::Package { package, .. } => package.directory().display().to_string(),
            OpenClaw::Command { program, .. } => program.display().to_string(),
        })
    }

    pub(crate) fn version(&self) -> Option<String> {
        self.openclaw
            .as_ref()
            .and_then(OpenClaw::version)
            .map(str::to_owned)
    }

    pub(crate) fn node(&self) -> Option<String> {
        match &self.openclaw {
            Some(OpenClaw::Package { node, .. }) => Some(node.version().to_string()),
            _ => None,
        }
    }

    /// One line that says which gateway is used.
    pub(crate) fn announcement(&self, attach: Attach) -> String {
        let condition = match attach {
            Attach::IfPresent => " unless a gateway is there already",
            Attach::Never | Attach::Only => "",
        };
        match (&self.openclaw, self.kind) {
            (None, _) => "Using the gateway that is there; nothing is launched.".to_owned(),
            (Some(_), Kind::Embedded) => {
                let why = if self.is_fallback {
                    "No `openclaw` on PATH: using"
                } else {
                    "Using"
                };
                format!(
                    "{why} the embedded gateway, a simulator of OpenClaw{condition}. {HOW_TO_GET_THE_REAL_ONE}"
                )
            }
            (Some(openclaw), _) => format!("Using {openclaw}{condition}."),
        }
    }
}
