//! What people see in Slack: a request with its buttons, and what became of it.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::room::{Room, fit, lighten, weigh};
use super::text::{LINE, Mention, cut, cut_escaped, escape, mrkdwn, plain};
use crate::approval::{Approval, Digest, Policy, Risk, Run, Status};

/// Characters of one field of a section.
const FIELD: usize = 2000;
/// Characters of the plain fallback: Slack refuses updates from 4000 on.
const FALLBACK: usize = 3900;
/// A command, escaped. What a client asks for is never cut: who approves it must have seen all of it.
const COMMAND: usize = 4000;
/// What a command may weigh of the blocks of a message, so that there is room for all else.
const COMMAND_WEIGHT: usize = 7000;
const ROLLBACK: usize = 4000;
const REASON: usize = 2000;
/// What a list of people may weigh.
const PEOPLE: usize = 700;

/// What stands before the digest in the `block_id` of the buttons.
const SEEN: &str = "sha256:";

/// A message: blocks, and the same as text for notifications and screen readers.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub text: String,
    pub blocks: Vec<Value>,
}

/// What a request's message says beside the request itself.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    /// Who may approve, and how many must.
    pub policy: &'a Policy,
    /// Who is notified of it.
    pub mention: &'a [Mention],
}

/// How a request's message gets to Slack. Slack notifies whoever a new message mentions, wherever in
/// it, and nobody whom an update mentions; so a new one names approvers by their bare ids, and nobody
/// who has voted.
/// Source: <https://docs.slack.dev/messaging/formatting-message-text#mentioning-users>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    Posted,
    Updated,
}

impl Message {
    /// The message that asks: who is notified, what is asked, who may approve, who has, and the
    /// buttons. Their `block_id` says what was shown, and Slack signs it back to us.
    pub fn request(approval: &Approval, asking: Asking<'_>, occasion: Occasion) -> Self {
        let shown = approval.digest();
        Self::fit(|room| Self::request_in(room, approval, shown, asking, occasion))
    }

    fn request_in(
        room: Room,
        approval: &Approval,
        shown: Digest,
        asking: Asking<'_>,
        occasion: Occasion,
    ) -> Self {
        let Asking { policy, mention } = asking;
        let (title, _) = heading(Status::Pending);
        let (mut blocks, mut text) = mentions(mention);
        blocks.push(header(title));
        text.push(title.to_owned());
        details(approval, room, &mut blocks, &mut text);
        if occasion == Occasion::Updated
            && let Some(votes) = votes(approval, policy, room)
        {
            blocks.push(json!({ "type": "section", "text": mrkdwn(&votes) }));
            text.push(votes);
        }
        let quorum = quorum(approval.risk(), policy, occasion).join("\n");
        if !quorum.is_empty() {
            blocks.push(json!({ "type": "context", "elements": [mrkdwn(&quorum)] }));
            text.push(quorum);
        }
        blocks.push(buttons(approval, shown, room));
        Self::of(&text, blocks)
    }

    /// The message of a decided approval.
    pub fn outcome(approval: &Approval) -> Self {
        Self::fit(|room| Self::outcome_in(room, approval))
    }

    fn outcome_in(room: Room, approval: &Approval) -> Self {
        let (title, verb) = heading(approval.status());
        let mut lines = Vec::new();
        if let (Some(verb), Some(by)) = (verb, approval.decided_by()) {
            lines.push(format!("{verb} by: {}", room.mention(&by.id, LINE)));
        }
        if let Some(at) = approval.decided_at() {
            lines.push(format!("Time: {}", at.for_people()));
        }
        let mut blocks = vec![header(title)];
        if !lines.is_empty() {
            blocks.push(json!({ "type": "section", "text": mrkdwn(&lines.join("\n")) }));
        }
        let mut text = vec![title.to_owned()];
        text.extend(lines);
        if let Some(reason) = approval.text("reason") {
            let reason = room.cut(&format!("Reason: {reason}"), REASON);
            blocks.push(json!({ "type": "section", "text": plain(&reason) }));
            text.push(escape(&reason));
        }
        details(approval, room, &mut blocks, &mut text);
        if approval.status() == Status::Approved {
            let progress = room.cut(&progress(approval.run()), LINE);
            blocks.push(json!({ "type": "context", "elements": [plain(&progress)] }));
            text.push(escape(&progress));
        }
        Self::of(&text, blocks)
    }

    /// What is said in a request's thread when it is about to expire.
    pub fn reminder(approval: &Approval, mention: &[Mention]) -> Self {
        Self::fit(|room| Self::reminder_in(room, approval, mention))
    }

    fn reminder_in(room: Room, approval: &Approval, mention: &[Mention]) -> Self {
        let (mut blocks, mut text) = mentions(mention);
        let waiting = format!("⏰ Still waiting for a decision: {}", approval.operation());
        let mut lines = vec![room.cut(&waiting, LINE)];
        let expiry = approval.expires_at();
        lines.extend(expiry.map(|expiry| format!("Expires: {}", expiry.for_people())));
        let lines = lines.join("\n");
        blocks.push(json!({ "type": "section", "text": plain(&lines) }));
        text.push(escape(&lines));
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

    /// Whether a request's message shows the whole of its command.
    pub fn has_room_for_command(approval: &Approval) -> bool {
        command(approval).is_none_or(|command| as_shown(&command) == command)
    }

    /// A message in which the longest foreign texts are cut until it fits.
    pub(super) fn fit(make: impl Fn(Room) -> Self) -> Self {
        fit(make, |message| &message.blocks)
    }

    pub(super) fn of(text: &[String], blocks: Vec<Value>) -> Self {
        Self {
            text: cut_escaped(&text.join("\n"), FALLBACK),
            blocks,
        }
    }
}

/// The buttons that decide, below what is shown. Approving what is risky asks again.
pub(super) fn buttons(approval: &Approval, shown: Digest, room: Room) -> Value {
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
                "text": plain(&room.cut(&question, LINE)), "confirm": plain("Approve"),
                "deny": plain("Cancel"), "style": style });
    }
    let deny = json!({ "type": "button", "action_id": "deny", "style": "danger",
            "text": { "type": "plain_text", "text": "❌ Deny", "emoji": true },
            "value": approval.id() });
    json!({ "type": "actions", "block_id": block_id(shown),
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
pub(super) fn details(
    approval: &Approval,
    room: Room,
    blocks: &mut Vec<Value>,
    text: &mut Vec<String>,
) {
    let mut operation = String::new();
    if let Some(description) = approval.text("description") {
        operation += &room.cut(description, FIELD / 2);
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
        room.cut(&format!("Operation: {operation}"), FIELD),
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
                .map(|value| room.cut(&format!("{label}: {value}"), LINE)),
        );
    }
    if let (Status::Pending, Some(expiry)) = (approval.status(), approval.expires_at()) {
        fields.push(format!("Expires: {}", expiry.for_people()));
    }
    text.extend(fields.iter().map(|field| escape(field)));
    blocks.push(json!({ "type": "section", "fields": fields.iter().map(|field| plain(field)).collect::<Vec<_>>() }));
    let command = command(approval).map(|command| as_shown(&command));
    let rollback = approval.text("rollbackCommand");
    let rollback = rollback.map(|rollback| room.cut(rollback, ROLLBACK));
    for (label, code) in [("Command", command), ("Rollback", rollback)] {
        if let Some(code) = code {
            text.push(format!("{label}: {}", escape(&code)));
            blocks.push(json!({ "type": "section", "text": plain(&format!("{label}:")) }));
            let element = json!({ "type": "rich_text_preformatted", "elements": [{ "type": "text", "text": code }] });
            blocks.push(json!({ "type": "rich_text", "elements": [element] }));
        }
    }
}

/// The blocks and the lines that notify people.
fn mentions(mention: &[Mention]) -> (Vec<Value>, Vec<String>) {
    if mention.is_empty() {
        return (Vec::new(), Vec::new());
    }
    let names: Vec<String> = mention.iter().map(Mention::to_string).collect();
    let names = names.join(" ");
    let block = json!({ "type": "section", "text": mrkdwn(&names) });
    (vec![block], vec![names])
}

/// Who may approve at a level, unless it is anyone, and how many must, unless it is one.
fn quorum(risk: Risk, policy: &Policy, occasion: Occasion) -> Vec<String> {
    let (rule, needed) = (policy.rule(risk), policy.approvals_needed(risk));
    let users = rule.users.iter().map(|user| match occasion {
        Occasion::Posted => user.to_string(),
        Occasion::Updated => Mention::User(user.clone()).to_string(),
    });
    let groups = rule.groups.iter().map(|group| match occasion {
        Occasion::Posted => group.to_string(),
        Occasion::Updated => Mention::Group(group.clone()).to_string(),
    });
    let mut lines = Vec::new();
    if !rule.is_open() {
        let people: Vec<String> = users.chain(groups).collect();
        lines.push(format!("Approvers: {}", list(&people)));
    }
    if needed > 1 {
        lines.push(format!("{needed} approvals needed"));
    }
    lines
}

/// Who has approved so far, if anybody has.
fn votes(approval: &Approval, policy: &Policy, room: Room) -> Option<String> {
    let supporters = approval.shown_supporters(policy);
    let people: Vec<String> = supporters.iter().map(|id| room.mention(id, LINE)).collect();
    let needed = policy.approvals_needed(approval.risk());
    let (people, count) = (list(&people), supporters.len());
    (count > 0).then(|| format!("Approved by: {people} ({count} of {needed})"))
}

/// As many as there is room for, and how many more there are.
fn list(people: &[String]) -> String {
    let mut room = PEOPLE;
    let fitting = people.iter().take_while(|person| {
        let left = room.checked_sub(weigh(person) + 2);
        room = left.unwrap_or(0);
        left.is_some()
    });
    let shown = fitting.count();
    let mut list = people[..shown].join(", ");
    if shown < people.len() {
        let _ = write!(list, " and {} more", people.len() - shown);
    }
    list
}

/// As much of a command as is shown, whatever else a message says.
fn as_shown(command: &str) -> String {
    lighten(&cut(command, COMMAND), COMMAND_WEIGHT)
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
    fn a_long_list_says_how_many_more_there_are() {
        let people = |count| vec!["<@U061F7AUR>".to_owned(); count];
        assert_eq!(list(&people(2)), "<@U061F7AUR>, <@U061F7AUR>");
        assert!(list(&people(35)).ends_with("<@U061F7AUR>"));
        let long = list(&people(500));
        assert!(long.ends_with("<@U061F7AUR> and 465 more"), "{long}");
        assert!(long.len() < PEOPLE + 20);
    }
}
