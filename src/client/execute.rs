//! Executing what was approved: once, exactly that, and never anything else.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use super::{Desk, Error};
use crate::approval::{Approval, ApprovalId, CommandLine, Digest, Run, Status};
use crate::clock;
use crate::store::{Durability, Edit, StoreError, owe_execution, owe_update};

/// How long an approval may be taken up. What was right yesterday may be wrong today.
const FRESH: Duration = Duration::from_secs(24 * 3600);
/// How long it is tried to note how a command has gone: others may hold the lock for a while.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long another process may take to end that has promised what is yet to be done.
const TAKEOVER: Duration = Duration::from_secs(1);

/// Takes an approved request's command up, for once and for all: whoever comes later finds it taken.
/// It must mean what was asked, and whoever asked must still want it.
///
/// # Errors
/// `Not`, `Unsigned`, `Changed`, `Executed`, `Stale`, `Stopped`, `Missing` or `Store`; the command must not be run
/// then.
pub fn claim(desk: &Desk<'_>, id: &ApprovalId, asked: Digest) -> Result<Approval, Error> {
    let mut refusal = None;
    let updated = desk.store.update(id, &mut |approval| {
        let now = clock::now();
        let is_stale = approval
            .decided_at()
            .is_some_and(|at| now.since(at) > FRESH);
        refusal = if approval.status() != Status::Approved {
            Some(Error::Not(approval.status()))
        } else if let Err(unsigned) = desk.trust(approval) {
            Some(unsigned)
        } else if approval.digest() != asked {
            Some(Error::Changed(id.clone()))
        } else if let Some(run) = approval.run() {
            Some(executed(approval, run))
        } else if is_stale {
            Some(Error::Stale(id.clone()))
        } else if !matches!(desk.is_stopped(Duration::ZERO), Ok(false)) {
            Some(Error::Stopped)
        } else {
            None
        };
        if refusal.is_some() {
            return Edit::Keep;
        }
        approval.claim_run(now);
        owe_execution(desk.store, approval, Run::Claimed);
        Edit::Write
    })?;
    if let Some(refusal) = refusal {
        return Err(refusal);
    }
    let Some(updated) = updated else {
        let archived = desk.store.archived(id)?;
        return Err(match archived {
            Some(approval) => approval
                .run()
                .map_or(Error::Stale(id.clone()), |run| executed(&approval, run)),
            None => Error::Missing(id.clone()),
        });
    };
    match updated.durability {
        Durability::Durable => Ok(updated.approval),
        // A power cut might undo the claim, and the command would be run twice.
        Durability::Unsynced(error) => Err(Error::System {
            what: "note durably that the command is run",
            error,
        }),
    }
}

fn executed(approval: &Approval, run: Run<'_>) -> Error {
    let how = match run {
        Run::Claimed => "it runs still, or nobody knows how it went".to_owned(),
        Run::Ended { code, .. } => format!("exit {code}"),
        Run::Failed { error } => error.to_owned(),
    };
    let at = approval.text("executedAt").unwrap_or_default().to_owned();
    Error::Executed { at, how }
}

/// How a command ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// With this code; 128 and the number of a signal that ended it; 255 when nobody can tell.
    With(u8),
    /// It could not be started, and this is why.
    NotStarted(String),
}

/// Runs the command of a claimed request in this directory, with this process's input, output and
/// environment. `started` is told its process, and `None` once that has ended and before its number
/// can be another's.
pub fn execute(command: &CommandLine, started: &mut dyn FnMut(Option<Pid>)) -> (Ended, Duration) {
    let began = clock::tick();
    let ended = run(command, started);
    (ended, clock::since(began))
}

/// Notes how a command has gone, and shows it in Slack if that can be done now.
///
/// # Errors
/// It could not be noted.
pub fn note_end(
    desk: &Desk<'_>,
    id: &ApprovalId,
    ended: &Ended,
    span: Duration,
) -> Result<(), Error> {
    let deadline = clock::tick() + PATIENCE;
    let mut pause = Duration::from_millis(100);
    loop {
        let noted = desk.store.update(id, &mut |approval| {
            let run = match ended {
                Ended::With(code) => Run::Ended {
                    code: i64::from(*code),
                    millis: u64::try_from(span.as_millis()).unwrap_or(u64::MAX),
                },
                Ended::NotStarted(error) => Run::Failed { error },
            };
            approval.finish_run(run);
            owe_execution(desk.store, approval, run);
            owe_update(approval, desk.store.owner());
            Edit::Write
        });
        match noted {
            Ok(Some(updated)) => {
                show_end(desk, updated.approval);
                return Ok(());
            }
            Ok(None) => return Err(Error::Missing(id.clone())),
            Err(StoreError::Busy | StoreError::Io { .. }) if clock::tick() + pause < deadline => {
                std::thread::sleep(pause);
                pause *= 2;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Shows in Slack how a command has gone. Whoever decided may still be about to end, and leave the
/// message to us.
fn show_end(desk: &Desk<'_>, mut approval: Approval) {
    let deadline = clock::tick() + TAKEOVER;
    loop {
        desk.follow_up(&approval);
        let Ok(Some(after)) = desk.store.read(approval.id()) else {
            return;
        };
        approval = after;
        let owes = desk.terms.slack.has_token() && approval.owes();
        if !owes || clock::tick() > deadline {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn run(command: &CommandLine, started: &mut dyn FnMut(Option<Pid>)) -> Ended {
    let not_started = |error: io::Error| {
        let reason = crate::complaint::reason(&error);
        Ended::NotStarted(format!("could not be started: {reason}"))
    };
    let Some((program, arguments)) = command.words().split_first() else {
        return not_started(io::ErrorKind::InvalidInput.into());
    };
    let mut child = match Command::new(program).args(arguments).spawn() {
        Ok(child) => child,
        Err(error) => return not_started(error),
    };
    let pid = Pid::from_child(&child);
    started(Some(pid));
    // Its number stays its own until it is waited for without NOWAIT.
    let over = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    while matches!(waitid(WaitId::Pid(pid), over), Err(rustix::io::Errno::INTR)) {}
    started(None);
    match child.wait() {
        Ok(status) => {
            let code = status.code().or(status.signal().map(|signal| 128 + signal));
            Ended::With(
                code.and_then(|code| u8::try_from(code).ok())
                    .unwrap_or(u8::MAX),
            )
        }
        // It ran, and somebody else was told how it went.
        Err(error) => {
            log::warn!(reason:% = crate::complaint::reason(&error); "Cannot learn how the command ended");
            Ended::With(u8::MAX)
        }
    }
}
