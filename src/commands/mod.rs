//! The commands: each is thin, parses nothing, and prints its result.

mod listener;
mod webhook;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use crate::cli::{self, Request};
use crate::complaint::{Complaint, Exit};
use crate::config::{self, Environment};
use crate::logging;

/// The program: arguments in, exit code out. Complaints go to standard error.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let exit = run(arguments).unwrap_or_else(|complaint| {
        eprintln!("{complaint}");
        complaint.exit
    });
    ExitCode::from(exit.code())
}

fn run(arguments: Vec<OsString>) -> Result<Exit, Complaint> {
    let parsed = match cli::parse(arguments)? {
        Request::Print(text) => {
            print(&text);
            return Ok(Exit::Done);
        }
        Request::Run(parsed) => parsed,
    };
    let log = config::log_settings(&parsed)?;
    logging::start(log.level, log.format);
    let environment = Environment::of_process();
    match parsed.command.name {
        "webhook" => webhook::run(&parsed, &environment),
        other => unreachable!("{other} is in the table of commands and not here"),
    }
}

/// Prints to standard output. A reader that has gone away is no error.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
