//! What people ask by mentioning the app, and the answers. They hold no buttons and no mentions, and
//! what came from a file stands in `plain_text`: an answer pings nobody.

use serde_json::json;

use super::message::{Message, colour, heading, progress};
use super::room::Room;
use super::text::{escape, plain};
use crate::approval::{Approval, ApprovalId, Person, Status, UserId};

/// How many requests one answer lists.
const MOST: usize = 20;
/// Characters of an operation in a list.
const OPERATION: usize = 200;
/// Characters of who asked or decided.
const WHO: usize = 150;
/// Characters of a reason.
const REASON: usize = 2000;

/// What somebody asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// What is pending in the channel.
    Pending,
    /// What can be asked.
    Help,
    /// Where a request stands; `None` for what is no approval id.
    Status(Option<ApprovalId>),
}

impl Question {
    /// Reads a message that mentions the app. What it says that we do not know asks what is pending.
    pub fn read(text: &str) -> Self {
        let (before, behind) = text
            .split_once("<@")
            .map_or((text, ""), |(before, mention)| {
                (before, mention.split_once('>').map_or("", |(_, rest)| rest))
            });
        let words = |text| {
            let is_id = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
            let words =
                str::split_whitespace(text).map(move |word| word.trim_matches(|c| !is_id(c)));
            words.filter(|word| !word.is_empty())
        };
        let mut said = words(behind);
        let Some(first) = said.next() else {
            return match words(before).next() {
                Some(first) if first.eq_ignore_ascii_case("help") => Self::Help,
                Some(_) | None => Self::Pending,
            };
        };
        if first.eq_ignore_ascii_case("help") {
            Self::Help
        } else if first.eq_ignore_ascii_case("status") {
            said.next()
                .map_or(Self::Pending, |id| Self::Status(ApprovalId::parse(id)))
        } else {
            Self::Pending
        }
    }
}

/// What can be asked.
pub fn help() -> Message {
    say(&[
        "Mention me in a channel, and say:",
        "help: this",
        "status ID: where a request of that channel stands, and who decided it, when and why",
        "anything else: what is pending in that channel",
        "Decide with the buttons of a request, or on my Home tab.",
    ]
    .join("\n"))
}

/// The requests that are pending in a channel, in this order; beyond the first, they are counted.
pub fn pending(approvals: &[Approval]) -> Message {
    Message::fit(|room| pending_in(room, approvals))
}

fn pending_in(room: Room, approvals: &[Approval]) -> Message {
    let mut lines = vec![match approvals.len() {
        0 => "Nothing is pending in this channel.".to_owned(),
        1 => "One request is pending in this channel.".to_owned(),
        count => format!("{count} requests are pending in this channel."),
    }];
    lines.extend(approvals.iter().take(MOST).map(|one| line(room, one)));
    if let Some(rest @ 1..) = approvals.len().checked_sub(MOST) {
        lines.push(format!("{rest} more are not shown here."));
    }
    let blocks = lines
        .iter()
        .map(|line| json!({ "type": "section", "text": plain(line) }));
    let text: Vec<String> = lines.iter().map(|line| escape(line)).collect();
    Message::of(&text, blocks.collect())
}

/// Where a request stands.
pub fn status(approval: &Approval) -> Message {
    Message::fit(|room| status_in(room, approval))
}

fn status_in(room: Room, approval: &Approval) -> Message {
    let (title, verb) = heading(approval.status());
    let mut lines = vec![title.to_owned(), line(room, approval)];
    if let (Some(verb), Some(by)) = (verb, approval.decided_by()) {
        lines.push(room.cut(&format!("{verb} by: {}", who(&by)), WHO));
    }
    if let Some(at) = approval.decided_at() {
        lines.push(format!("Time: {}", at.for_people()));
    }
    if let Some(reason) = approval.text("reason") {
        lines.push(room.cut(&format!("Reason: {reason}"), REASON));
    }
    match approval.status() {
        Status::Approved => lines.push(room.cut(&progress(approval.run()), WHO)),
        Status::Pending => lines.push("Nobody has decided it yet.".to_owned()),
        Status::Denied | Status::Expired | Status::Cancelled => {}
    }
    say(&lines.join("\n"))
}

/// The answer about a request that is not there, or that is no business of the channel's: nobody
/// can tell which.
pub fn unknown() -> Message {
    say("There is no such request in this channel.")
}

/// A request in two lines.
fn line(room: Room, approval: &Approval) -> String {
    let risk = approval.risk();
    let mut line = format!(
        "{}: {}\n{} {}",
        approval.id(),
        room.cut(approval.operation(), OPERATION),
        risk.word().to_uppercase(),
        colour(risk)
    );
    if let Some(asked) = approval.text("requestedBy") {
        line += &room.cut(&format!(", asked by {asked}"), WHO);
    }
    if let (Status::Pending, Some(expiry)) = (approval.status(), approval.expires_at()) {
        line += ", expires ";
        line += &expiry.for_people();
    }
    line
}

/// A name with the id that counts; whoever is no Slack user is an id only: `cli:alice`.
fn who(person: &Person) -> String {
    match UserId::parse(&person.id) {
        Some(id) => format!("{} ({id})", person.username),
        None => person.id.clone(),
    }
}

fn say(text: &str) -> Message {
    let block = json!({ "type": "section", "text": plain(text) });
    Message::of(&[escape(text)], vec![block])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_read_from_behind_the_mention() {
        let status = |id| Question::Status(ApprovalId::parse(id));
        for (text, question) in [
            ("<@U0RUNBOOK> what is pending?", Question::Pending),
            ("<@U0RUNBOOK>", Question::Pending),
            ("hello", Question::Pending),
            ("", Question::Pending),
            ("<@U0", Question::Pending),
            ("<@U0RUNBOOK|runbook> help", Question::Help),
            ("<@U0RUNBOOK>: Help!", Question::Help),
            ("help <@U0RUNBOOK>", Question::Help),
            ("<@U0RUNBOOK> can you help", Question::Pending),
            ("hey <@U0RUNBOOK>, status apr-1?", status("apr-1")),
            ("<@U0RUNBOOK> STATUS `apr_2`", status("apr_2")),
            ("<@U0RUNBOOK> status a/../b", Question::Status(None)),
            ("<@U0RUNBOOK> status", Question::Pending),
            ("<@U0RUNBOOK> status …", Question::Pending),
        ] {
            assert_eq!(Question::read(text), question, "{text}");
        }
    }
}
