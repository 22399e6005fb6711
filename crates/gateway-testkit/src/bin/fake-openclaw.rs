//! A stand-in for the `openclaw` command; see [`gateway_testkit::child`].

use std::process::ExitCode;

fn main() -> ExitCode {
    gateway_testkit::child::main(std::env::args_os().skip(1))
}
