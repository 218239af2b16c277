//! The commands: each is thin, and prints its result. Options come to it parsed.

mod audit;
mod completion;
mod decide;
#[cfg(feature = "demo")]
mod demo;
mod desk;
mod doctor;
mod health;
mod init;
mod keygen;
mod list;
mod listener;
mod live_line;
mod manifest;
mod request;
mod run;
mod server;
mod show;
mod signals;
mod terminal;
mod wait;
mod webhook;

use std::ffi::OsString;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use log::LevelFilter;

use crate::approval::{Approval, ApprovalId, Choice};
use crate::cli::{self, Request};
use crate::client::{self, Decided};
use crate::complaint::{Complaint, Exit, reason};
use crate::config::{self, Environment};
use crate::logging::{self, Format};
use desk::{Office, terminal_user};

/// The program: arguments in, exit code out. Complaints go to standard error.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let exit = run(arguments).unwrap_or_else(|complaint| {
        logging::complain(&complaint);
        complaint.exit
    });
    ExitCode::from(exit.code())
}

fn run(arguments: Vec<OsString>) -> Result<Exit, Complaint> {
    let json = cli::asks_for_json_log(&arguments);
    let request = cli::parse(arguments).inspect_err(|_| {
        // What is wrong with the options is for the log's readers, too.
        if json {
            logging::start(LevelFilter::Error, Format::Json);
        }
    })?;
    let parsed = match request {
        Request::Print(text) => {
            print(&text)?;
            return Ok(Exit::Done);
        }
        Request::Run(parsed) => parsed,
    };
    let log = config::log_settings(&parsed)?;
    logging::start(log.level, log.format);
    let environment = Environment::of_process();
    match parsed.command.name {
        "webhook" => webhook::run(&parsed, &environment),
        "request" => request::run(&parsed, &environment),
        "run" => run::run(&parsed, &environment),
        "wait" => wait::run(&parsed, &environment),
        "list" => list::run(&parsed, &environment),
        "show" => show::run(&parsed, &environment),
        "approve" => decide::decide(&parsed, &environment, Choice::Approve),
        "deny" => decide::decide(&parsed, &environment, Choice::Deny),
        "cancel" => decide::cancel(&parsed, &environment),
        "audit" => audit::run(&parsed, &environment),
        "init" => init::run(&parsed, &environment),
        "doctor" => doctor::run(&parsed, &environment),
        "health" => health::run(&parsed, &environment),
        "manifest" => manifest::run(&parsed, &environment),
        "keygen" => keygen::run(&parsed),
        "completion" => completion::run(&parsed),
        "man" => print(&cli::man()).map(|()| Exit::Done),
        #[cfg(feature = "demo")]
        "demo" => demo::run(&parsed, &environment),
        other => unreachable!("{other} is in the table of commands and not here"),
    }
}

/// Withdraws what was asked, because whoever asked has been told to stop. Whatever it is then is
/// what holds: somebody may have decided at the same instant.
fn withdraw(office: &Office, id: &ApprovalId) -> Result<Approval, Complaint> {
    let reason = Some("whoever asked went away");
    let cancelled = client::cancel(&office.desk(), id, &terminal_user(), reason);
    match cancelled.map_err(|error| office.complain(&error))? {
        Decided::Now(approval) | Decided::Before(approval) => Ok(*approval),
    }
}

/// Prints to standard output. A reader that has gone away is no error.
///
/// # Errors
/// It could not be written, such as to a disk that is full.
fn print(text: &str) -> Result<(), Complaint> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            let why = reason(&error);
            Err(Complaint::failure(format!(
                "cannot write the output: {why}"
            )))
        }
        _ => Ok(()),
    }
}
