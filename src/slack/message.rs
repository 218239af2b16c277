//! What people see in Slack: the outcome of an approval, and private words to whoever clicked.
//!
//! Block Kit's limits count characters after `&`, `<` and `>` have become entities. mrkdwn cannot
//! escape backticks, `*` or `_`, so what came from a file or a person stands in `plain_text` or in
//! a preformatted block, where nothing is markup; mrkdwn has only our own words, checked user ids
//! and, for who is no Slack user, an escaped name. Source: <https://docs.slack.dev/reference/block-kit/blocks>

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use crate::approval::{Approval, CommandLine, Digest, Person, Refusal, Risk, Run, Status, UserId};
use crate::clock::Timestamp;

/// Characters of one field of a section.
const FIELD: usize = 2000;
/// Characters of the plain fallback: Slack refuses updates from 4000 on.
const FALLBACK: usize = 3900;
// What we grant the rest of the 13,000 characters that all blocks share. A command is never cut: who
// approves it must have seen all of it.
/// A short line, such as who asked.
const LINE: usize = 300;
/// A command, escaped.
const COMMAND: usize = 4000;
const ROLLBACK: usize = 2500;
const REASON: usize = 2000;

/// What stands before the digest in the `block_id` of the buttons.
const SEEN: &str = "sha256:";

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
    /// The message that asks: what is asked, and the buttons. Their `block_id` says what was shown,
    /// and Slack signs it back to us.
    pub fn request(approval: &Approval) -> Self {
        let (title, _) = heading(Status::Pending);
        let mut blocks = vec![header(title)];
        let mut text = vec![title.to_owned()];
        details(approval, &mut blocks, &mut text);
        blocks.push(buttons(approval));
        Self::of(&text, blocks)
    }

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
        let mut blocks = vec![header(title)];
        if !lines.is_empty() {
            blocks.push(json!({ "type": "section", "text": { "type": "mrkdwn", "text": lines.join("\n") } }));
        }
        let mut text = vec![title.to_owned()];
        text.extend(lines);
        if let Some(reason) = approval.text("reason") {
            let reason = cut(&format!("Reason: {reason}"), REASON);
            blocks.push(json!({ "type": "section", "text": plain(&reason) }));
            text.push(escape(&reason));
        }
        details(approval, &mut blocks, &mut text);
        if approval.status() == Status::Approved {
            let progress = cut(&progress(approval.run()), LINE);
            blocks.push(json!({ "type": "context", "elements": [plain(&progress)] }));
            text.push(escape(&progress));
        }
        Self::of(&text, blocks)
    }

    /// What stands where a request stood that means something else by now.
    pub fn retired(approval: &Approval) -> Self {
        let title = "🔄 Request Changed";
        let lines = format!(
            "The request {} has changed since it was posted here. A new message shows what it is now.",
            approval.id()
        );
        let blocks = vec![
            header(title),
            json!({ "type": "section", "text": plain(&lines) }),
        ];
        Self::of(&[title.to_owned(), lines], blocks)
    }

    /// Whether a request shows the whole of a command.
    pub fn has_room_for(command: &CommandLine) -> bool {
        let command = command.to_string();
        cut(&command, COMMAND) == command
    }

    pub(super) fn of(text: &[String], blocks: Vec<Value>) -> Self {
        Self {
            text: cut_escaped(&text.join("\n"), FALLBACK),
            blocks,
        }
    }
}

/// The buttons that decide. Approving what is risky asks again.
pub(super) fn buttons(approval: &Approval) -> Value {
    let mut approve = json!({ "type": "button", "action_id": "approve", "style": "primary",
            "text": { "type": "plain_text", "text": "✅ Approve", "emoji": true },
            "value": approval.id() });
    if approval.risk() >= Risk::High {
        let risk = approval.risk().word();
        let style = if approval.risk() == Risk::Critical {
            "danger"
        } else {
            "primary"
        };
        let question = format!(
            "This approves a {risk} risk operation: {}",
            approval.operation()
        );
        approve["confirm"] = json!({ "title": plain("Are you sure?"),
                "text": plain(&cut(&question, LINE)), "confirm": plain("Approve"),
                "deny": plain("Cancel"), "style": style });
    }
    let deny = json!({ "type": "button", "action_id": "deny", "style": "danger",
            "text": { "type": "plain_text", "text": "❌ Deny", "emoji": true },
            "value": approval.id() });
    json!({ "type": "actions", "block_id": block_id(approval.digest()),
            "elements": [approve, deny] })
}

pub(super) fn header(title: &str) -> Value {
    json!({ "type": "header", "text": { "type": "plain_text", "text": title, "emoji": true } })
}

fn block_id(shown: Digest) -> String {
    format!("{SEEN}{shown}")
}

/// What a button's block showed; `None` when the block is not ours.
pub(super) fn seen(block_id: &str) -> Option<Digest> {
    Digest::parse(block_id.strip_prefix(SEEN)?)
}

/// What an approved operation is doing.
pub(super) fn progress(run: Option<Run<'_>>) -> String {
    match run {
        None | Some(Run::Claimed) => "Operation is now executing...".into(),
        Some(Run::Ended { code, millis }) => {
            let outcome = if code == 0 { "Executed" } else { "Failed" };
            format!("{outcome}: exit {code} in {}", span(millis))
        }
        Some(Run::Failed { error }) => format!("Failed: {error}"),
    }
}

/// `70 ms`, `4.5 s`, or `1h 2m 3s` from a minute on.
fn span(millis: u64) -> String {
    let tenths = millis / 100;
    match tenths {
        0 => format!("{millis} ms"),
        1..600 => format!("{}.{} s", tenths / 10, tenths % 10),
        _ => humantime::format_duration(Duration::from_secs(millis / 1000)).to_string(),
    }
}

/// The outcome's title, and the verb of who did it.
pub(super) fn heading(status: Status) -> (&'static str, Option<&'static str>) {
    match status {
        Status::Pending => ("🔐 Runbook Approval Request", None),
        Status::Approved => ("✅ Approval Granted", Some("Approved")),
        Status::Denied => ("❌ Approval Denied", Some("Denied")),
        Status::Expired => ("⌛ Approval Expired", None),
        Status::Cancelled => ("🚫 Request Withdrawn", Some("Withdrawn")),
    }
}

/// What is asked: operation and arguments, risk, who asks, the command, and the way back.
pub(super) fn details(approval: &Approval, blocks: &mut Vec<Value>, text: &mut Vec<String>) {
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
        format!("Risk Level: {risk} {}", colour(approval.risk())),
    ];
    for (label, key) in [
        ("Requested by", "requestedBy"),
        ("Investigation", "investigationId"),
        ("Resource", "resource"),
        ("Estimated impact", "estimatedImpact"),
        ("Directory", "directory"),
    ] {
        fields.extend(
            approval
                .text(key)
                .map(|value| cut(&format!("{label}: {value}"), LINE)),
        );
    }
    if let (Status::Pending, Some(expiry)) = (approval.status(), approval.expires_at()) {
        fields.push(format!("Expires: {}", expiry.for_people()));
    }
    text.extend(fields.iter().map(|field| escape(field)));
    blocks.push(json!({ "type": "section", "fields": fields.iter().map(|field| plain(field)).collect::<Vec<_>>() }));
    let rollback = approval.text("rollbackCommand").map(str::to_owned);
    for (label, code, limit) in [
        ("Command", command(approval), COMMAND),
        ("Rollback", rollback, ROLLBACK),
    ] {
        if let Some(code) = code.map(|code| cut(&code, limit)) {
            text.push(format!("{label}: {}", escape(&code)));
            blocks.push(json!({ "type": "section", "text": plain(&format!("{label}:")) }));
            let element = json!({ "type": "rich_text_preformatted", "elements": [{ "type": "text", "text": code }] });
            blocks.push(json!({ "type": "rich_text", "elements": [element] }));
        }
    }
}

/// The command as a shell reads it; what other programs have written there as it stands.
fn command(approval: &Approval) -> Option<String> {
    let other = || match approval.value("command")? {
        Value::Null => None,
        Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        other => Some(other.to_string()),
    };
    approval
        .command()
        .map(|command| command.to_string())
        .or_else(other)
}

pub(super) fn colour(risk: Risk) -> char {
    match risk {
        Risk::Low => '🟢',
        Risk::Medium => '🟡',
        Risk::High => '🟠',
        Risk::Critical => '🔴',
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
        Refusal::Changed => "This request has changed since this message was posted, so your click decided nothing. A new message shows what it is now.".into(),
        Refusal::NotAnApprover => "You are not allowed to decide this request.".into(),
        Refusal::External => "Only people of this workspace may decide this request.".into(),
        Refusal::Guest => "Guests of this workspace may not decide this request.".into(),
        Refusal::Unverified => "Slack could not tell us in time whether you may decide this request, so nothing was decided. Please try again.".into(),
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

/// A person as a mention when the id is Slack's, else by what counts of them: `cli:alice`.
fn mention(person: &Person) -> String {
    UserId::parse(&person.id)
        .map_or_else(|| escape(&cut(&person.id, LINE)), |id| format!("<@{id}>"))
}

pub(super) fn plain(text: &str) -> Value {
    json!({ "type": "plain_text", "text": text, "emoji": false })
}

/// `&`, `<` and `>` as the entities that Slack asks for.
pub(super) fn escape(text: &str) -> String {
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
pub(super) fn cut(text: &str, limit: usize) -> String {
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
            "Risk Level: HIGH 🟠",
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
