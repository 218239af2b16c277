//! Private words to whoever clicked.

use super::text::{LINE, escape, mention};
use crate::approval::{Objection, Status};
use crate::clock::Timestamp;

/// Something to tell the clicker alone, because the message does not show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice<'a> {
    /// The button's value is no approval id.
    NoId,
    /// There is no approval of that name.
    Unknown { id: &'a str },
    /// What is stored under that name cannot be read.
    Damaged { id: &'a str },
    /// Another server has answered it.
    AnsweredElsewhere,
    /// It could not be decided, because of our own trouble.
    Failed,
    /// The click came too late.
    Expired { at: Option<Timestamp> },
    /// The dialog that asks why could not be opened.
    NoDialog,
    /// The server serves another app or workspace.
    Foreign,
    /// The vote counts, and more are needed.
    Counted { approvals: usize, needed: usize },
    /// The click changed nothing.
    Refused(&'a Objection),
}

/// The text of a notice, in mrkdwn.
pub fn private(notice: &Notice) -> String {
    match notice {
        Notice::NoId => "This button carries no approval id, so nothing was decided.".into(),
        Notice::Unknown { id } => {
            format!("There is no approval {}: nothing was decided.", escape(id))
        }
        Notice::Damaged { id } => {
            format!(
                "The stored request {} cannot be read, so nothing was decided.",
                escape(id)
            )
        }
        Notice::AnsweredElsewhere => {
            "This request has been answered already; your click changed nothing.".into()
        }
        Notice::Failed => {
            "Your click could not be recorded, so nothing was decided. Please try again.".into()
        }
        Notice::NoDialog => {
            "Slack could not open the dialog that asks why, so nothing was decided. Please try again."
                .into()
        }
        Notice::Foreign => {
            "This server decides for another Slack app or workspace; your click changed nothing."
                .into()
        }
        Notice::Expired { at } => {
            let when = at
                .map(|at| format!(" on {}", at.for_people()))
                .unwrap_or_default();
            format!("This request expired{when}; your click came too late.")
        }
        Notice::Counted { approvals, needed } => {
            format!("Your approval counts: {approvals} of {needed} needed.")
        }
        Notice::Refused(objection) => refused(objection),
    }
}

fn refused(objection: &Objection) -> String {
    match objection {
        Objection::Final { status, by, at } => {
            let what = match status {
                Status::Approved => "approved",
                Status::Denied => "denied",
                Status::Expired => "expired",
                Status::Cancelled => "withdrawn",
                Status::Pending => "open",
            };
            let who = by
                .as_ref()
                .map(|by| format!(" by {}", mention(&by.id, LINE)))
                .unwrap_or_default();
            let when = at
                .map(|at| format!(" on {}", at.for_people()))
                .unwrap_or_default();
            format!("This request was already {what}{who}{when}; your click changed nothing.")
        }
        Objection::Changed => "This request has changed since this message was posted, so your click decided nothing. A new message shows what it is now.".into(),
        Objection::NotAnApprover => "You are not allowed to decide this request.".into(),
        Objection::External => "Only people of this workspace may decide this request.".into(),
        Objection::NoReason => "A denial has to say why, so nothing was decided. Please try again.".into(),
        Objection::Guest => "Guests of this workspace may not decide this request.".into(),
        Objection::Unverified => "Slack could not tell us in time whether you may decide this request, so nothing was decided. Please try again.".into(),
        Objection::OwnRequest => {
            "You asked for this yourself, so somebody else has to approve it.".into()
        }
        Objection::VotedAlready { approvals, needed } => {
            format!(
                "Your approval counts already ({approvals} of {needed}); somebody else has to approve, too."
            )
        }
    }
}
