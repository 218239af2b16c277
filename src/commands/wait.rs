//! `runbook wait`: waits for a decision, prints it, and says by its exit code what it was.

use std::time::Duration;

use super::desk::{Office, exit, id, outcome};
use super::live_line::LiveLine;
use super::{print, terminal};
use crate::approval::{Approval, ApprovalId};
use crate::cli::Parsed;
use crate::client::{self, Desk, Waited};
use crate::complaint::{Complaint, Exit};
use crate::config::{self, Environment, Reach};
use crate::logging;

/// Waits, prints, stamps.
///
/// # Errors
/// There is no such request, or it cannot be read.
pub(super) fn run(parsed: &Parsed, environment: &Environment) -> Result<Exit, Complaint> {
    let id = id(parsed)?;
    let limit = config::length(parsed, "--timeout")?;
    let office = Office::open(parsed, environment, Reach::Looks)?;
    let desk = office.desk();
    match wait(&office, &desk, &id, limit)? {
        Waited::Decided(approval) => Ok(tell(&desk, &approval, Form::of(parsed))),
        Waited::TimedOut(approval) => {
            print(&pending(&approval, Form::of(parsed)))?;
            Ok(Exit::Expired)
        }
        // Nobody can stop it but by a signal that ends it.
        Waited::Stopped => Ok(Exit::Failure),
    }
}

/// What is printed of a request that is not decided.
pub(super) fn pending(approval: &Approval, form: Form) -> String {
    match form {
        Form::Line => "still pending\n".into(),
        Form::Json => terminal::json(approval),
    }
}

/// How a decision is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Line,
    Json,
}

impl Form {
    pub(super) fn of(parsed: &Parsed) -> Self {
        if parsed.flag("--json") {
            Self::Json
        } else {
            Self::Line
        }
    }
}

/// Waits, with a line that lives while somebody watches.
///
/// # Errors
/// There is no such request, or it cannot be read.
pub(super) fn wait(
    office: &Office,
    desk: &Desk<'_>,
    id: &ApprovalId,
    limit: Option<Duration>,
) -> Result<Waited, Complaint> {
    let mut line = LiveLine::start();
    let waited = client::wait(desk, id, limit, &mut |approval| line.show(approval));
    line.clear();
    waited.map_err(|error| office.complain(&error))
}

/// Prints a decision, notes that the agent knows it, and does what else is owed.
pub(super) fn tell(desk: &Desk<'_>, approval: &Approval, form: Form) -> Exit {
    let printed = print(&match form {
        Form::Line => format!("{}\n", outcome(approval)),
        Form::Json => terminal::json(approval),
    });
    // The exit code tells the decision all the same.
    if let Err(complaint) = printed {
        logging::complain(&complaint);
    }
    if let Err(error) = client::note_agent(desk, approval.id()) {
        log::warn!(approvalId:% = approval.id(), reason:% = error;
            "Cannot note that the agent knows the decision");
    }
    desk.follow_up(approval);
    exit(approval.status())
}
