//! `runbook run`: asks, and runs a command only if it is approved.

use serde_json::Map;

use super::desk::{Office, asking, exit, outcome};
use super::request::{ask, compose};
use super::signals::Stop;
use super::wait::wait;
use super::withdraw;
use crate::approval::{Approval, ApprovalId, CommandLine, Status};
use crate::cli::Parsed;
use crate::client::{self, Asked, Desk, Ended, Error, Origin, Waited};
use crate::complaint::{Complaint, Exit, Printable};
use crate::config::{self, Environment};

/// Asks, waits, runs. Standard output is the command's own.
///
/// # Errors
/// The command was not run, and this is why.
pub(super) fn run(parsed: &Parsed, environment: &Environment) -> Result<Exit, Complaint> {
    ask_and_run(parsed, environment).map_err(|complaint| complaint.so(NOT_RUN))
}

/// What is said first whenever it is so.
const NOT_RUN: &str = "the command was not run";

fn ask_and_run(parsed: &Parsed, environment: &Environment) -> Result<Exit, Complaint> {
    let command = command(parsed)?;
    let directory = config::working_directory()
        .ok()
        .and_then(|path| path.into_os_string().into_string().ok())
        .ok_or_else(|| Complaint::failure("the working directory is gone, or not UTF-8"))?;
    let mut fields = Map::new();
    fields.insert("command".into(), command.words().into());
    fields.insert("directory".into(), directory.into());
    let settings = asking(parsed, environment)?;
    let approval = compose(parsed, &settings, &mut fields)?;
    let office = Office::to_ask(settings)?;
    let (id, meaning) = (approval.id().clone(), approval.digest());

    let stop = Stop::listen()?;
    let desk = Desk {
        stop: Some(stop.fd()),
        ..office.desk()
    };
    let Asked { approval, origin } = ask(parsed, &office, &desk, approval)?;
    let decided = match approval.status() {
        Status::Pending => match wait(&office, &desk, &id, None)? {
            Waited::Decided(decided) => *decided,
            Waited::TimedOut(_) | Waited::Stopped => match origin {
                Origin::New => withdraw(&office, &id)?,
                Origin::Attached => {
                    say("whoever asked went away; the request is not ours, and stays");
                    return Ok(Exit::Failure);
                }
            },
        },
        _ => approval,
    };
    if decided.status() != Status::Approved {
        return Ok(refrain(&desk, &decided));
    }
    match client::claim(&desk, &id, meaning) {
        Ok(_) => Ok(execute(&desk, &id, &command, &stop)),
        Err(error @ Error::Stopped) => {
            say(&error.to_string());
            Ok(Exit::Denied)
        }
        Err(error @ (Error::Executed { .. } | Error::Stale(_))) => {
            say(&error.to_string());
            Ok(Exit::Failure)
        }
        Err(error) => Err(office.complain(&error)),
    }
}

/// The words behind `--`.
fn command(parsed: &Parsed) -> Result<CommandLine, Complaint> {
    let word = |word: &std::ffi::OsString| word.to_str().map(str::to_owned);
    let words: Option<Vec<String>> = parsed.operands.iter().map(word).collect();
    // What is not UTF-8 could not be shown as it is.
    let words =
        words.ok_or_else(|| Complaint::usage("the command has a word that is not UTF-8"))?;
    CommandLine::new(words).ok_or_else(|| Complaint::usage("the command is empty"))
}

/// Says why the command is not run.
fn refrain(desk: &Desk<'_>, decided: &Approval) -> Exit {
    say(&outcome(decided));
    if let Err(error) = client::note_agent(desk, decided.id()) {
        log::warn!(approvalId:% = decided.id(), reason:% = error;
            "Cannot note that the agent knows the decision");
    }
    desk.follow_up(decided);
    exit(decided.status())
}

fn say(why: &str) {
    eprintln!("runbook: {NOT_RUN}: {}", Printable(why));
}

fn execute(desk: &Desk<'_>, id: &ApprovalId, command: &CommandLine, stop: &Stop) -> Exit {
    stop.keep();
    let (ended, span) = client::execute(command, &mut |process| stop.pass_on(process));
    let exit = match &ended {
        Ended::With(code) => Exit::Command(*code),
        Ended::NotStarted(why) => {
            say(why);
            Exit::NotStarted
        }
    };
    stop.end_with(exit);
    if let Err(error) = client::note_end(desk, id, &ended, span) {
        log::warn!(approvalId:% = id, reason:% = error; "Cannot note how the command went");
    }
    exit
}
