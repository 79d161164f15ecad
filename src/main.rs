//! The `countersign` program: reads its arguments, runs one command, and ends with what the command came to.

use std::process::ExitCode;

use countersign::cli;
use mimalloc::MiMalloc;

/// A decision makes many small and short-lived things; `docs/performance.md` says what this brings.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    cli::main(std::env::args_os()).into()
}
