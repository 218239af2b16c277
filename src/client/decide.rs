//! Decisions and withdrawals from the terminal of this machine.

use super::wait::read;
use super::{Desk, Error, PATH};
use crate::approval::{
    Approval, ApprovalId, Ballot, Choice, Mandate, Objection, Person, Route, Sent, Verdict, Voter,
};
use crate::clock;
use crate::store::{Durability, commit, record_late_withdrawal, withdraw};

/// What became of it.
#[derive(Debug)]
pub enum Decided {
    /// The request is final by this, or by its expiry just now.
    Now(Box<Approval>),
    /// It was final before.
    Before(Box<Approval>),
}

/// Decides a request in an emergency: neither approvers nor a quorum are asked for, but expiry and
/// finality hold.
///
/// # Errors
/// `Missing`, or `Store`; nothing was decided then. `System` when it was, and a power cut may undo it.
pub fn decide_from_terminal(
    desk: &Desk<'_>,
    id: &ApprovalId,
    choice: Choice,
    by: Person,
    reason: Option<String>,
) -> Result<Decided, Error> {
    let ballot = Ballot {
        id: id.clone(),
        choice,
        voter: Voter {
            person: by,
            external: false,
        },
        reason,
        route: Route::default(),
        seen: None,
        may_precede_file: false,
        trigger_id: None,
        sent: Sent::default(),
        at: clock::now(),
    };
    let recorded = commit(desk.store, &ballot, Mandate::Terminal, PATH)?;
    let Some(recorded) = recorded else {
        return Ok(Decided::Before(Box::new(read(desk, id)?)));
    };
    let (approval, verdict, durability) = recorded.into_parts();
    if let Durability::Unsynced(error) = durability {
        return Err(Error::System {
            what: "make the decision durable, which stands",
            error,
        });
    }
    Ok(match verdict {
        Verdict::Refused(Objection::Final { .. }) => Decided::Before(Box::new(approval)),
        _ => Decided::Now(Box::new(approval)),
    })
}

/// Withdraws a pending request.
///
/// # Errors
/// `Missing`, or `Store`; it stands as it was then.
pub fn cancel(
    desk: &Desk<'_>,
    id: &ApprovalId,
    by: &Person,
    reason: Option<&str>,
) -> Result<Decided, Error> {
    if let Some(withdrawn) = withdraw(desk.store, id, Some(by), reason, PATH)? {
        return Ok(Decided::Now(Box::new(withdrawn)));
    }
    let before = read(desk, id)?;
    record_late_withdrawal(desk.store, &before, by, reason);
    Ok(Decided::Before(Box::new(before)))
}
