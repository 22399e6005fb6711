//! The command line.

use std::ffi::{OsStr, OsString};
use std::num::NonZeroU16;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use gateway_manager::{AttachMode, PortChoice};

use crate::exit_code::ExitCode;
use crate::printer::{Format, Printer};
use crate::report::{Outcome, Report};

/// Run an OpenClaw Gateway and keep it running.
#[derive(Debug, Parser)]
#[command(name = "gatewayctl", version, after_help = ExitCode::table(), disable_help_subcommand = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a gateway, keep it running, and stop it cleanly on Ctrl-C.
    ///
    /// Which gateway: the one named by --openclaw or --command; else the `openclaw` on PATH; else the embedded gateway, a simulator that runs
    /// as a process of its own and leaves nothing behind.
    #[command(after_help = ExitCode::table())]
    Up(Box<UpArguments>),
    /// Say what listens on a port: an OpenClaw Gateway, something else, or nobody. Needs no token and changes nothing.
    #[command(after_help = ExitCode::table())]
    Probe(ProbeArguments),
}

#[derive(Args, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "they are switches")]
pub(crate) struct UpArguments {
    /// The OpenClaw package, or a project that has it in node_modules
    #[arg(long, value_name = "DIR", conflicts_with_all = ["command", "embedded"])]
    pub(crate) openclaw: Option<PathBuf>,

    /// A program that takes OpenClaw's arguments; its own arguments go into --command-arg
    #[arg(long, value_name = "PROGRAM", conflicts_with = "embedded")]
    pub(crate) command: Option<PathBuf>,

    /// An argument for --command, before OpenClaw's own; once for each
    #[arg(
        long,
        value_name = "ARG",
        requires = "command",
        allow_hyphen_values = true
    )]
    pub(crate) command_arg: Vec<OsString>,

    /// Use the embedded gateway even where OpenClaw is installed
    #[arg(long)]
    pub(crate) embedded: bool,

    /// The gateway's port, or `free` for one that the system chooses [default: 18789; with the embedded gateway: free]
    #[arg(long, value_name = "N|free", value_parser = port)]
    pub(crate) port: Option<PortChoice>,

    /// The gateway's state directory [default: OpenClaw's own; with the embedded gateway: a temporary one]
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,

    /// The gateway's home directory [default: yours]
    #[arg(long, value_name = "DIR")]
    pub(crate) home: Option<PathBuf>,

    /// What to do about a gateway that is already on the port
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = Attach::Never)]
    pub(crate) attach: Attach,

    /// The device identity; made when it is missing [default: device-identity.json in the user's data directory; with the embedded gateway:
    /// a temporary one]
    #[arg(long, value_name = "FILE")]
    pub(crate) identity: Option<PathBuf>,

    /// A file with the gateway's token; wins over OPENCLAW_GATEWAY_TOKEN [default: a random token for a gateway that is launched]
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,

    /// Only there to say why it is not.
    #[arg(long, hide = true, num_args = 0..=1)]
    token: Option<Option<OsString>>,

    /// Do not let OpenClaw's doctor repair a broken configuration
    #[arg(long)]
    pub(crate) no_repair: bool,

    /// When gatewayctl itself is killed, let the gateway live on; the next `gatewayctl up` with the same settings takes it over
    /// without a restart [default: the gateway is killed with it]
    #[arg(long)]
    pub(crate) survive: bool,

    /// When interrupted, let the gateway finish the agent work that is running, for up to 330 s [default: 10 s]
    #[arg(long)]
    pub(crate) drain: bool,

    /// Stop again as soon as the gateway is ready; for scripts
    #[arg(long)]
    pub(crate) until_ready: bool,

    /// Print one JSON object per event and line on standard output, and nothing else there
    #[arg(long)]
    pub(crate) json: bool,

    /// Keep the gateway's output in rotated files in this directory, over restarts
    #[arg(long, value_name = "DIR")]
    pub(crate) output_log: Option<PathBuf>,

    /// Print every line of the gateway's output, not only its warnings and errors
    #[arg(long, conflicts_with = "quiet_output")]
    pub(crate) show_output: bool,

    /// Print no line of the gateway's output
    #[arg(long)]
    pub(crate) quiet_output: bool,

    /// Print each decision as it is made: the rule and the facts that it looked at
    #[arg(long)]
    pub(crate) why: bool,

    /// Write gatewayctl's own log to standard error, for example `debug` or `gateway_manager=debug`
    #[arg(long, value_name = "FILTER")]
    pub(crate) log: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct ProbeArguments {
    /// The port
    #[arg(long, value_name = "N", default_value = "18789")]
    pub(crate) port: NonZeroU16,

    /// Print one JSON object per event and line on standard output, and nothing else there
    #[arg(long)]
    pub(crate) json: bool,
}

/// What to do about a gateway that is already there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Attach {
    /// Leave it alone and end with an error
    Never,
    /// Use it when it is there, launch one when it is not
    IfPresent,
    /// Only ever use one that is there
    Only,
}

impl From<Attach> for AttachMode {
    fn from(attach: Attach) -> Self {
        match attach {
            Attach::Never => Self::Never,
            Attach::IfPresent => Self::IfPresent,
            Attach::Only => Self::Only,
        }
    }
}

/// The result of reading the command line.
pub(crate) enum Parsed {
    Command(Command),
    /// Help, version or an error was printed; nothing is left to do.
    Ended(ExitCode),
}

/// Reads the command line; the first argument is the program's name. Prints help, version and errors.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Parsed {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let wants_json = arguments
        .iter()
        .take_while(|argument| *argument != "--")
        .any(|argument| argument == "--json");
    match read(arguments) {
        Ok(command) => Parsed::Command(command),
        Err(error) if !error.use_stderr() => {
            // Help for a reader that has gone away needs no other answer.
            let _ = error.print();
            Parsed::Ended(ExitCode::Success)
        }
        Err(error) if wants_json => {
            let mut printer = Printer::new(Format::Json);
            let text = error.to_string();
            let message = text.strip_prefix("error: ").unwrap_or(&text);
            printer.show(&Report::Error {
                message: message.trim_end().to_owned(),
                class: None,
                next_step: None,
                launch: None,
                why: Vec::new(),
                exit_code: ExitCode::Usage.number(),
            });
            printer.show(&Report::summary(Outcome::Failed, ExitCode::Usage));
            Parsed::Ended(ExitCode::Usage)
        }
        Err(error) => {
            let _ = error.print();
            Parsed::Ended(ExitCode::Usage)
        }
    }
}

fn read(arguments: Vec<OsString>) -> Result<Command, clap::Error> {
    let command = CommandLine::try_parse_from(arguments)?.command;
    if let Command::Up(up) = &command {
        up.check().map_err(|(kind, message)| {
            let mut parser = CommandLine::command();
            parser.build();
            match parser.find_subcommand_mut("up") {
                Some(up) => up.error(kind, message),
                None => parser.error(kind, message),
            }
        })?;
    }
    Ok(command)
}

impl UpArguments {
    /// What the parser cannot know by itself.
    fn check(&self) -> Result<(), (ErrorKind, &'static str)> {
        if self.token.is_some() {
            return Err((
                ErrorKind::UnknownArgument,
                "there is no option '--token', because every user of this machine can read a command line; put the token into the environment variable OPENCLAW_GATEWAY_TOKEN, or into a file and name that with --token-file",
            ));
        }
        let free = self.port == Some(PortChoice::Free);
        if free && self.attach != Attach::Never {
            return Err((
                ErrorKind::ArgumentConflict,
                "'--attach' needs to know the port: a free one has no gateway; name it with --port N",
            ));
        }
        let launches = self.openclaw.is_some() || self.command.is_some() || self.embedded;
        if self.attach == Attach::Only && launches {
            return Err((
                ErrorKind::ArgumentConflict,
                "'--attach only' launches nothing; leave out --openclaw, --command and --embedded, or use '--attach if-present'",
            ));
        }
        if let Some(filter) = &self.log
            && let Err(message) = crate::trace::check(filter)
        {
            return Err((ErrorKind::ValueValidation, message));
        }
        Ok(())
    }
}

fn port(text: &str) -> Result<PortChoice, String> {
    if text == "free" {
        return Ok(PortChoice::Free);
    }
    match text.parse() {
        Ok(0) => Err("0 is no port; `free` takes one that the system chooses".to_owned()),
        Ok(port) => Ok(PortChoice::Fixed(port)),
        Err(_) => Err("expected a number from 1 to 65535, or `free`".to_owned()),
    }
}

/// The path with the current directory in front, where it is relative: the gateway runs in a directory of its own.
pub(crate) fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

/// The same for a program: a bare name is looked up on PATH and stays as it is.
pub(crate) fn absolute_program(program: PathBuf) -> PathBuf {
    if program.file_name() == Some(program.as_os_str()) || program.as_os_str() == OsStr::new("") {
        program
    } else {
        absolute(program)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn up(line: &str) -> Result<UpArguments, String> {
        let words = ["gatewayctl", "up"]
            .into_iter()
            .chain(line.split_whitespace());
        match read(words.map(OsString::from).collect()) {
            Ok(Command::Up(up)) => Ok(*up),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn the_definition_is_sound() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn ports() {
        assert_eq!(up("").unwrap().port, None);
        assert_eq!(up("--port free").unwrap().port, Some(PortChoice::Free));
        assert_eq!(
            up("--port 19000").unwrap().port,
            Some(PortChoice::Fixed(19_000))
        );
    }

    #[test]
    fn command_arguments_may_look_like_options() {
        let arguments = up("--command node --command-arg --inspect --command-arg x.mjs --json");
        let arguments = arguments.unwrap();
        assert_eq!(arguments.command_arg, ["--inspect", "x.mjs"]);
        assert!(arguments.json);
    }

    #[test]
    fn wrong_lines_name_the_option_and_the_next_step() {
        let table: &[(&str, &[&str])] = &[
            ("--bogus", &["'--bogus'"]),
            ("--port 0", &["--port", "`free`"]),
            ("--port 65536", &["--port", "65535"]),
            (
                "--openclaw a --command b",
                &["--openclaw", "--command", "cannot be used"],
            ),
            ("--openclaw a --embedded", &["--openclaw", "--embedded"]),
            ("--command-arg x", &["--command"]),
            ("--attach sometimes", &["if-present"]),
            ("--attach only --port free", &["--attach", "--port N"]),
            (
                "--attach only --embedded",
                &["'--attach only'", "if-present"],
            ),
            ("--show-output --quiet-output", &["--quiet-output"]),
            ("--log a=b=c", &["--log"]),
            ("--token", &["OPENCLAW_GATEWAY_TOKEN", "--token-file"]),
        ];
        for (line, texts) in table {
            let error = up(line).unwrap_err();
            for text in *texts {
                assert!(error.contains(text), "{line}: {text:?} is not in {error}");
            }
        }
    }

    #[test]
    fn a_token_on_the_command_line_is_not_repeated() {
        for line in ["--token s3cret", "--token=s3cret"] {
            let error = up(line).unwrap_err();
            assert!(error.contains("--token-file"), "{error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn only_paths_are_made_absolute() {
        assert_eq!(absolute_program("node".into()), PathBuf::from("node"));
        assert!(absolute_program("./run".into()).is_absolute());
    }
}
