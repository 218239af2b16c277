//! The `runbook` program. Everything is in the library; see `src/lib.rs`.

use std::process::ExitCode;

fn main() -> ExitCode {
    runbook::commands::main(std::env::args_os().skip(1).collect())
}
