//! The command line.

use super::grandchild::Told;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    Version,
    Doctor,
    GatewayRun(RunOptions),
    /// Not OpenClaw's: the process that a script starts beside the gateway.
    Grandchild(Told),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RunOptions {
    pub(super) port: Option<u16>,
    pub(super) token: Option<String>,
    pub(super) allow_unconfigured: bool,
}

/// The first argument of a [`Command::Grandchild`].
pub(super) const GRANDCHILD: &str = "fake-grandchild";

/// Reads a command line; an error is the text for stderr.
pub(super) fn parse(args: &[String]) -> Result<Command, String> {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["--version" | "-V"] => Ok(Command::Version),
        ["doctor", flags @ ..] => {
            const KNOWN: [&str; 5] = [
                "--fix",
                "--repair",
                "--yes",
                "--non-interactive",
                "--no-color",
            ];
            match flags.iter().find(|flag| !KNOWN.contains(flag)) {
                Some(flag) => Err(unknown(flag)),
                None => Ok(Command::Doctor),
            }
        }
        ["gateway", "run", flags @ ..] | ["gateway", flags @ ..] => {
            gateway(flags).map(Command::GatewayRun)
        }
        [GRANDCHILD, script] => serde_json::from_str(script)
            .map(Command::Grandchild)
            .map_err(|error| format!("error: no script of a grandchild: {error}")),
        [flag, ..] if flag.starts_with('-') => Err(unknown(flag)),
        [command, ..] => Err(format!("error: unknown command '{command}'")),
        [] => Err("error: no command; try `gateway run`".to_owned()),
    }
}

fn unknown(flag: &str) -> String {
    format!("error: unknown option '{flag}'")
}

fn gateway(flags: &[&str]) -> Result<RunOptions, String> {
    let mut options = RunOptions::default();
    let mut flags = flags.iter();
    while let Some(flag) = flags.next() {
        let (name, attached) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (*flag, None),
        };
        let mut value = || {
            attached
                .or_else(|| flags.next().copied())
                .ok_or_else(|| format!("error: option '{name}' needs a value"))
        };
        match name {
            "--allow-unconfigured" => options.allow_unconfigured = true,
            "--port" => options.port = Some(port(value()?)?),
            "--token" => options.token = Some(value()?.to_owned()),
            "--bind" => match value()? {
                "auto" | "lan" | "loopback" | "custom" | "tailnet" => {}
                other => return Err(format!("Invalid --bind '{other}'")),
            },
            "--auth" => match value()? {
                "token" | "password" => {}
                other => return Err(format!("Invalid --auth '{other}'")),
            },
            "--log-level" => drop(value()?),
            "--verbose" | "--no-color" | "--force" => {}
            _ => return Err(unknown(flag)),
        }
    }
    Ok(options)
}

pub(super) fn port(text: &str) -> Result<u16, String> {
    text.parse()
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(|| "Invalid port".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Command, String> {
        parse(
            &line
                .split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn command_lines() {
        let run = |port, token: Option<&str>| {
            Command::GatewayRun(RunOptions {
                port,
                token: token.map(str::to_owned),
                allow_unconfigured: true,
            })
        };
        for (line, expected) in [
            (
                "gateway run --allow-unconfigured --bind loopback --port 19000",
                Ok(run(Some(19000), None)),
            ),
            (
                "gateway --allow-unconfigured --port=19000 --token=t",
                Ok(run(Some(19000), Some("t"))),
            ),
            ("doctor --fix --yes --non-interactive", Ok(Command::Doctor)),
            ("--version", Ok(Command::Version)),
            (
                "gateway run --bogus",
                Err("error: unknown option '--bogus'"),
            ),
            ("gateway run --port 0", Err("Invalid port")),
            (
                "gateway run --port",
                Err("error: option '--port' needs a value"),
            ),
            ("gateway run --auth magic", Err("Invalid --auth 'magic'")),
            ("dance", Err("error: unknown command 'dance'")),
            ("", Err("error: no command; try `gateway run`")),
        ] {
            assert_eq!(read(line), expected.map_err(str::to_owned), "{line}");
        }
    }
}
