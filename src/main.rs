//! The `runbook` program. Everything is in the library; see `src/lib.rs`.

use std::process::ExitCode;

use runbook::allocator::Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator::new();

fn main() -> ExitCode {
    runbook::commands::main(std::env::args_os().skip(1).collect())
}
