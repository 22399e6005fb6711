//! `gatewayctl probe`: what listens on a port?

use gateway_client::{Endpoint, PROBE_DEADLINE, ProbeOutcome, WebSocketTransport, probe_challenge};
use gateway_process::{OsProcessHost, PortOwner, ProcessHost as _};

use crate::arguments::ProbeArguments;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::printer::{Format, Printer};
use crate::report::{Holder, Outcome, Report};

/// Runs the command to its end.
pub(crate) fn main(arguments: &ProbeArguments) -> ExitCode {
    let mut printer = Printer::new(Format::json_if(arguments.json));
    let port = arguments.port.get();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let found = match runtime {
        Ok(runtime) => runtime.block_on(look(port)),
        Err(error) => Err(Error::Runtime(error)),
    };
    let code = match &found {
        Ok((_, code)) => *code,
        Err(error) => error.exit_code(),
    };
    printer.show(&match found {
        Ok((report, _)) => report,
        Err(error) => Report::Error {
            message: error.to_string(),
            class: None,
            next_step: None,
            launch: None,
            why: Vec::new(),
            exit_code: code.number(),
        },
    });
    let outcome = match code {
        ExitCode::Success => Outcome::Done,
        _ => Outcome::Failed,
    };
    printer.show(&Report::summary(outcome, code));
    code
}

async fn look(port: u16) -> Result<(Report, ExitCode), Error> {
    let endpoint = Endpoint::loopback(port);
    let outcome = probe_challenge(&WebSocketTransport::new(), &endpoint, PROBE_DEADLINE).await;
    let owners = OsProcessHost::new().port_owners(port).await;
    let (found, evidence, code) = match outcome {
        ProbeOutcome::Gateway { .. } => ("gateway", String::new(), ExitCode::Success),
        ProbeOutcome::Nothing { error } => match &owners {
            // Nobody answers; only an open socket table can say that nobody is there.
            Ok(owners) if owners.is_empty() => ("nobody", String::new(), ExitCode::Unavailable),
            Ok(_) => ("stranger", error.to_string(), ExitCode::Protocol),
            Err(_) => ("nobody", error.to_string(), ExitCode::Unavailable),
        },
        ProbeOutcome::NotAGateway { evidence } => ("stranger", evidence, ExitCode::Protocol),
        ProbeOutcome::UpgradeRefused { status, .. } => {
            let hint = if status == 503 {
                "; a gateway that starts or stops says so too"
            } else {
                ""
            };
            (
                "stranger",
                format!("it answers HTTP {status}{hint}"),
                ExitCode::Protocol,
            )
        }
        ProbeOutcome::Silent { .. } => (
            "stranger",
            "it accepts connections and says nothing".to_owned(),
            ExitCode::Protocol,
        ),
        _ => (
            "stranger",
            "it gives an answer of an unknown kind".to_owned(),
            ExitCode::Protocol,
        ),
    };
    let owners = owners.unwrap_or_default();
    let who = match owners.first() {
        Some(owner) => owner.to_string(),
        None => "a process that the system does not name".to_owned(),
    };
    let message = match found {
        "gateway" => format!("An OpenClaw Gateway listens on port {port}: {who}."),
        "nobody" => format!("Nobody listens on port {port}."),
        _ => format!("No OpenClaw Gateway listens on port {port}, but {who}: {evidence}."),
    };
    let holders = owners.iter().map(holder).collect();
    Ok((
        Report::Probe {
            port,
            found,
            holders,
            message,
        },
        code,
    ))
}

fn holder(owner: &PortOwner) -> Holder {
    Holder {
        pid: owner.pid,
        program: owner.program.clone(),
        address: owner.address.to_string(),
    }
}
