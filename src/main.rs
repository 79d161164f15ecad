//! The `countersign` program: reads its arguments, runs one command, and ends with what the command came to.

use std::process::ExitCode;

use countersign::cli;

fn main() -> ExitCode {
    cli::main(std::env::args_os()).into()
}
