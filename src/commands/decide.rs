//! `runbook approve`, `runbook deny` and `runbook cancel`: from the terminal, in an emergency.

use super::desk::{Office, id, outcome, terminal_user};
use super::wait::Form;
use super::{print, terminal};
use crate::approval::{Approval, ApprovalId, Choice, Status};
use crate::cli::Parsed;
use crate::client::{self, Decided, Error};
use crate::complaint::{Complaint, Exit};
use crate::config::{Environment, Reach, text};

/// Approves or denies.
///
/// # Errors
/// It was final before, has expired, or could not be written.
pub(super) fn decide(
    parsed: &Parsed,
    environment: &Environment,
    choice: Choice,
) -> Result<Exit, Complaint> {
    let (id, reason) = (id(parsed)?, text(parsed, "--reason")?);
    let office = Office::open(parsed, environment, Reach::Updates)?;
    let must_say_why = office.settings.terms.policy.require_denial_reason;
    let says_why = reason.as_ref().is_some_and(|why| !why.trim().is_empty());
    if choice == Choice::Deny && must_say_why && !says_why {
        return Err(Complaint::usage(
            "--reason is missing: a denial has to say why",
        ));
    }
    let desk = office.desk();
    let decided = client::decide_from_terminal(&desk, &id, choice, terminal_user(), reason);
    finish(&office, &id, choice.status(), decided, Form::of(parsed))
}

/// Withdraws.
///
/// # Errors
/// It was final before, has expired, or could not be written.
pub(super) fn cancel(parsed: &Parsed, environment: &Environment) -> Result<Exit, Complaint> {
    let (id, reason) = (id(parsed)?, text(parsed, "--reason")?);
    let office = Office::open(parsed, environment, Reach::Updates)?;
    let by = terminal_user();
    let decided = client::cancel(&office.desk(), &id, &by, reason.as_deref());
    finish(&office, &id, Status::Cancelled, decided, Form::of(parsed))
}

fn finish(
    office: &Office,
    id: &ApprovalId,
    wanted: Status,
    decided: Result<Decided, Error>,
    form: Form,
) -> Result<Exit, Complaint> {
    let too_late = |approval: &Approval| {
        let when = approval.decided_at();
        let when = when.map(|at| format!(" ({})", at.for_people()));
        let outcome = outcome(approval);
        let exit = match approval.status() {
            Status::Expired => Exit::Expired,
            _ => Exit::Failure,
        };
        let what = format!("{id} was already {outcome}{}", when.unwrap_or_default());
        Err(Complaint::failure(what).exit(exit))
    };
    match decided.map_err(|error| office.complain(&error))? {
        Decided::Now(approval) if approval.status() == wanted => {
            let printed = print(&match form {
                Form::Line => format!("{id} {}\n", outcome(&approval)),
                Form::Json => terminal::json(&approval),
            });
            office.desk().follow_up(&approval);
            printed.map(|()| Exit::Done)
        }
        Decided::Now(approval) => {
            office.desk().follow_up(&approval);
            too_late(&approval)
        }
        Decided::Before(approval) => too_late(&approval),
    }
}
