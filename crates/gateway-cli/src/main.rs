//! gatewayctl: run and supervise an OpenClaw Gateway from a terminal. The README describes its use, its exit codes and its output.
#![forbid(unsafe_code)]

mod arguments;
mod choice;
mod error;
mod exit_code;
mod hint;
mod human;
mod places;
mod printer;
mod probe;
mod report;
mod session;
mod signals;
mod token;
mod trace;
mod up;

use std::env;
use std::process;

use arguments::{Command, Parsed};
use choice::EMBEDDED_COMMAND;

fn main() -> process::ExitCode {
    let mut arguments = env::args_os();
    // The embedded gateway takes the command line of OpenClaw, which is nothing for our own parser.
    if arguments
        .nth(1)
        .is_some_and(|first| first == EMBEDDED_COMMAND)
    {
        return gateway_testkit::child::main(arguments);
    }
    match arguments::parse(env::args_os()) {
        Parsed::Command(Command::Up(up)) => up::main(*up),
        Parsed::Command(Command::Probe(probe)) => probe::main(&probe),
        Parsed::Ended(code) => code,
    }
    .into()
}
