//! What people see in Slack: the outcome of an approval, and private words to whoever clicked.
//!
//! Block Kit's limits count characters after `&`, `<` and `>` have become entities. mrkdwn cannot
//! escape backticks, `*` or `_`, so what came from a file or a person stands in `plain_text` or in
//! a preformatted block, where nothing is markup; mrkdwn has only our own words, checked user ids
//! and, for who is no Slack user, an escaped name. Source: <https://docs.slack.dev/reference/block-kit/blocks>

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::approval::{Approval, Person, Refusal, Status, UserId};
use crate::clock::Timestamp;

/// Characters of a section's text.
const SECTION: usize = 3000;
/// Characters of one field of a section.
const FIELD: usize = 2000;
/// Characters of the plain fallback: Slack refuses updates from 4000 on.
const FALLBACK: usize = 3900;
/// What we grant a short line, such as who asked, of the 13,000 characters that all blocks share.
const LINE: usize = 300;

/// A message: blocks, and the same as text for notifications and screen readers.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub text: String,
    pub blocks: Vec<Value>,
}

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
    /// The vote counts, and more are needed.
    Counted { approvals: usize, needed: usize },
    /// The click changed nothing.
    Refused(&'a Refusal),
}

impl Message {
    /// The message of a decided approval.
    pub fn outcome(approval: &Approval) -> Self {
        let (title, verb) = heading(approval.status());
        let mut lines = Vec::new();
        if let (Some(verb), Some(by)) = (verb, approval.decided_by()) {
            lines.push(format!("{verb} by: {}", mention(&by)));
        }
        if let Some(at) = approval.decided_at() {
            lines.push(format!("Time: {}", at.for_people()));
        }
        let mut blocks = vec![
            json!({ "type": "header", "text": { "type": "plain_text", "text": title, "emoji": true } }),
        ];
        if !lines.is_empty() {
            blocks.push(json!({ "type": "section", "text": { "type": "mrkdwn", "text": lines.join("\n") } }));
        }
        let mut text = vec![title.to_owned()];
        text.extend(lines);
        if let Some(reason) = approval.text("reason") {
            let reason = format!("Reason: {reason}");
            blocks.push(json!({ "type": "section", "text": plain(&cut(&reason, SECTION)) }));
            text.push(escape(&reason));
        }
        details(approval, &mut blocks, &mut text);
        if approval.status() == Status::Approved {
            let executing = "Operation is now executing...";
            blocks.push(json!({ "type": "context", "elements": [{ "type": "plain_text", "text": executing }] }));
            text.push(executing.to_owned());
        }
        Self {
            text: cut_escaped(&text.join("\n"), FALLBACK),
            blocks,
        }
    }
}

/// The outcome's title, and the verb of who did it.
fn heading(status: Status) -> (&'static str, Option<&'static str>) {
    match status {
        Status::Pending => ("🔐 Runbook Approval Request", None),
        Status::Approved => ("✅ Approval Granted", Some("Approved")),
        Status::Denied => ("❌ Approval Denied", Some("Denied")),
        Status::Expired => ("⌛ Approval Expired", None),
        Status::Cancelled => ("🚫 Request Withdrawn", Some("Withdrawn")),
    }
}

/// What was asked: operation and arguments, risk, who asked, and the way back.
fn details(approval: &Approval, blocks: &mut Vec<Value>, text: &mut Vec<String>) {
    let mut operation = String::new();
    if let Some(description) = approval.text("description") {
        operation += &cut(description, FIELD / 2);
        operation.push('\n');
    }
    operation += approval.operation();
    for (name, value) in approval.args().into_iter().flatten() {
        let value = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        let _ = write!(operation, "\n{name}: {value}");
    }
    let risk = approval.risk().word().to_uppercase();
    let mut fields = vec![
        cut(&format!("Operation: {operation}"), FIELD),
        format!("Risk Level: {risk}"),
    ];
    for (label, key) in [
        ("Requested by", "requestedBy"),
        ("Investigation", "investigationId"),
        ("Resource", "resource"),
    ] {
        fields.extend(
            approval
                .text(key)
                .map(|value| cut(&format!("{label}: {value}"), LINE)),
        );
    }
    let rollback = approval
        .text("rollbackCommand")
        .map(|command| cut(command, SECTION));
    text.extend(fields.iter().map(|field| escape(field)));
    text.extend(
        rollback
            .iter()
            .map(|command| format!("Rollback: {}", escape(command))),
    );
    blocks.push(json!({ "type": "section", "fields": fields.iter().map(|field| plain(field)).collect::<Vec<_>>() }));
    if let Some(command) = rollback {
        blocks.push(json!({ "type": "section", "text": plain("Rollback:") }));
        let element = json!({ "type": "rich_text_preformatted", "elements": [{ "type": "text", "text": command }] });
        blocks.push(json!({ "type": "rich_text", "elements": [element] }));
    }
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
        Notice::Expired { at } => {
            let when = at
                .map(|at| format!(" on {}", at.for_people()))
                .unwrap_or_default();
            format!("This request expired{when}; your click came too late.")
        }
        Notice::Counted { approvals, needed } => {
            format!("Your approval counts: {approvals} of {needed} needed.")
        }
        Notice::Refused(refusal) => refused(refusal),
    }
}

fn refused(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Final { status, by, at } => {
            let what = match status {
                Status::Approved => "approved",
                Status::Denied => "denied",
                Status::Expired => "expired",
                Status::Cancelled => "withdrawn",
                Status::Pending => "open",
            };
            let who = by
                .as_ref()
                .map(|by| format!(" by {}", mention(by)))
                .unwrap_or_default();
            let when = at
                .map(|at| format!(" on {}", at.for_people()))
                .unwrap_or_default();
            format!("This request was already {what}{who}{when}; your click changed nothing.")
        }
        Refusal::NotAnApprover => "You are not allowed to decide this request.".into(),
        Refusal::External => "Only people of this workspace may decide this request.".into(),
        Refusal::OwnRequest => {
            "You asked for this yourself, so somebody else has to approve it.".into()
        }
        Refusal::VotedAlready { approvals, needed } => {
            format!(
                "Your approval counts already ({approvals} of {needed}); somebody else has to approve, too."
            )
        }
    }
}

/// A person as a mention when the id is Slack's, else by name.
fn mention(person: &Person) -> String {
    UserId::parse(&person.id).map_or_else(
        || escape(&cut(&person.username, LINE)),
        |id| format!("<@{id}>"),
    )
}

fn plain(text: &str) -> Value {
    json!({ "type": "plain_text", "text": text, "emoji": false })
}

/// `&`, `<` and `>` as the entities that Slack asks for.
fn escape(text: &str) -> String {
    text.chars()
        .fold(String::with_capacity(text.len()), |mut escaped, c| {
            match entity(c) {
                Some(entity) => escaped.push_str(entity),
                None => escaped.push(c),
            }
            escaped
        })
}

fn entity(c: char) -> Option<&'static str> {
    match c {
        '&' => Some("&amp;"),
        '<' => Some("&lt;"),
        '>' => Some("&gt;"),
        _ => None,
    }
}

/// Cuts text so that it has at most `limit` characters once escaped, `…` included.
fn cut(text: &str, limit: usize) -> String {
    shorten(text, limit, |c| entity(c).map_or(1, str::len))
}

/// Cuts text that is escaped already; an entity in the middle of the cut goes whole.
fn cut_escaped(text: &str, limit: usize) -> String {
    let mut short = shorten(text, limit, |_| 1);
    if short.len() < text.len()
        && let Some(start) = short.rfind('&')
        && !short[start..].contains(';')
    {
        short.truncate(start);
        short.push('…');
    }
    short
}

fn shorten(text: &str, limit: usize, width: impl Fn(char) -> usize) -> String {
    let mut room = limit;
    let mut last_fit = 0;
    for (at, c) in text.char_indices() {
        let Some(left) = room.checked_sub(width(c)) else {
            return format!("{}…", &text[..last_fit]);
        };
        room = left;
        if room >= 1 {
            last_fit = at + c.len_utf8();
        }
    }
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::approval::ApprovalId;

    fn approval(changes: &Value) -> Approval {
        let mut document = json!({ "id": "apr-1", "operation": "scale", "status": "approved",
            "decidedAt": "2024-01-15T15:30:45Z",
            "decidedBy": { "id": "U061F7AUR", "username": "alice", "name": "Alice" } });
        for (key, value) in changes.as_object().unwrap() {
            document[key] = value.clone();
        }
        Approval::parse(
            &ApprovalId::parse("apr-1").unwrap(),
            document.to_string().as_bytes(),
        )
        .unwrap()
    }

    #[test]
    fn a_granted_message_says_who_when_what_and_that_it_runs() {
        let message = Message::outcome(&approval(
            &json!({ "args": { "desiredCount": 8 }, "riskLevel": "high",
            "requestedBy": "runbook-agent", "rollbackCommand": "aws ecs", "reason": "ok" }),
        ));
        let blocks = Value::from(message.blocks.clone()).to_string();
        for said in [
            "✅ Approval Granted",
            "Approved by: <@U061F7AUR>",
            "Time: 2024-01-15 15:30:45 UTC",
            "Reason: ok",
            "desiredCount: 8",
            "Risk Level: HIGH",
            "Requested by: runbook-agent",
            "aws ecs",
            "Operation is now executing...",
        ] {
            assert!(blocks.contains(said), "{said} in {blocks}");
            assert!(message.text.contains(said), "{said} in {}", message.text);
        }
        assert!(!blocks.contains("\"actions\""));
    }

    #[test]
    fn each_outcome_has_its_own_heading_and_only_a_granted_one_runs() {
        for (status, heading) in [
            ("denied", "❌ Approval Denied"),
            ("expired", "⌛ Approval Expired"),
            ("cancelled", "🚫 Request Withdrawn"),
        ] {
            let message = Message::outcome(&approval(&json!({ "status": status })));
            assert!(message.text.starts_with(heading), "{}", message.text);
            assert!(!message.text.contains("executing"));
        }
    }

    #[test]
    fn nothing_from_outside_is_markup_or_too_long() {
        let hostile = "<!channel> <@U1> *b* `c` & ".repeat(1000);
        let message = Message::outcome(&approval(
            &json!({ "operation": hostile, "description": hostile, "reason": hostile,
            "requestedBy": hostile, "investigationId": hostile, "resource": hostile, "rollbackCommand": hostile, "args": { "x": hostile },
            "decidedBy": { "id": "<!here>", "username": "<!here>", "name": "x" } }),
        ));
        assert!(!message.text.contains("<!") && message.text.chars().count() <= FALLBACK);
        for block in &message.blocks {
            if block["text"]["type"] == "mrkdwn" {
                assert!(!block.to_string().contains("<!"), "{block}");
            }
        }
        let total: usize = message
            .blocks
            .iter()
            .map(|block| escape(&block.to_string()).chars().count())
            .sum();
        assert!(total < 13_000, "{total}");
    }

    #[test]
    fn a_cut_counts_entities_and_ends_in_an_ellipsis() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 3), "ab…");
        assert_eq!(cut("a<b", 3), "a…");
        assert_eq!(cut("ééé", 2), "é…");
        assert_eq!(cut_escaped("ab&amp;cd", 5), "ab…");
        assert_eq!(cut_escaped("ab&amp;cd", 8), "ab&amp;…");
    }
}
