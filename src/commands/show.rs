//! `runbook show`: one approval with all that is known of it, a line for each thing.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::desk::{Office, id, outcome};
use super::print;
use super::terminal::{self, Cell, Terminal, time};
use super::wait::Form;
use crate::approval::{Approval, Owed, Person, Run, Status, UserId, Vote};
use crate::cli::Parsed;
use crate::client::Error;
use crate::clock::{self, Timestamp};
use crate::complaint::{Complaint, Exit, Printable, PrintableJson};
use crate::config::{Environment, Reach};
use crate::store::Store;

/// Prints lines, or the document itself. What is in the archive is found there.
///
/// # Errors
/// There is no such approval, it is damaged, or it is not signed as it has to be.
pub(super) fn run(parsed: &Parsed, environment: &Environment) -> Result<Exit, Complaint> {
    let id = id(parsed)?;
    let office = Office::open(parsed, environment, Reach::Looks)?;
    let find = || match office.store.read(&id)? {
        Some(approval) => Ok(Some(approval)),
        None => office.store.archived(&id),
    };
    let found = find().map_err(Error::Store);
    let found = found.and_then(|found| found.ok_or(Error::Missing(id)));
    let approval = found.map_err(|error| office.complain(&error))?;
    print(&match Form::of(parsed) {
        Form::Line => sheet(&approval, &Terminal::of(environment)),
        Form::Json => terminal::json(&approval),
    })?;
    let trusted = office.desk().trust(&approval);
    trusted.map_err(|error| office.complain(&error))?;
    Ok(Exit::Done)
}

/// The lines of one approval. Whatever no line has told is told at the end, as JSON.
struct Sheet<'a> {
    approval: &'a Approval,
    now: Timestamp,
    text: String,
    told: Vec<&'static str>,
}

fn sheet(approval: &Approval, terminal: &Terminal) -> String {
    let mut sheet = Sheet {
        approval,
        now: clock::now(),
        text: String::new(),
        // When the audit log was told is nothing for people: `audit` shows what it tells.
        told: vec!["id", "status", "riskLevel", "recordedAt"],
    };
    sheet.line("ID", approval.id().as_str());
    sheet.status();
    sheet.field("Operation", "operation");
    sheet.field("Description", "description");
    sheet.json("Arguments", "args");
    sheet.risk(terminal);
    sheet.field("Resource", "resource");
    sheet.field("Impact", "estimatedImpact");
    sheet.field("Requested by", "requestedBy");
    sheet.field("Investigation", "investigationId");
    sheet.time("Requested", "requestedAt");
    match approval.expires_at() {
        Some(_) => sheet.time("Expires", "expiresAt"),
        None => sheet.line("Expires", "never"),
    }
    sheet.time("Decided", "decidedAt");
    sheet.decided_by();
    sheet.field("Reason", "reason");
    sheet.votes();
    sheet.command();
    sheet.field("Directory", "directory");
    sheet.field("Rollback", "rollbackCommand");
    sheet.run();
    sheet.time("Agent notified", "agentNotifiedAt");
    sheet.time("Reminded", "remindedAt");
    sheet.field("Slack channel", "slackChannel");
    sheet.field("Slack ts", "slackMessageTs");
    sheet.field("Slack digest", "slackMessageDigest");
    sheet.field("Callback URL", "callbackUrl");
    sheet.field("Signature", "signature");
    sheet.owed();
    sheet.failed();
    sheet.rest();
    sheet.text
}

impl<'a> Sheet<'a> {
    fn line(&mut self, label: &str, value: &str) {
        let _ = writeln!(self.text, "{}: {}", Printable(label), Printable(value));
    }

    /// A field that is text.
    fn field(&mut self, label: &str, key: &'static str) {
        if let Some(text) = self.approval.text(key) {
            self.line(label, text);
            self.told.push(key);
        }
    }

    fn json(&mut self, label: &str, key: &'static str) {
        if let Some(value) = self.approval.value(key) {
            self.line(label, &compact(value));
            self.told.push(key);
        }
    }

    /// A field that is a time; as it stands where it is none.
    fn time(&mut self, label: &str, key: &'static str) {
        match self.approval.text(key).and_then(Timestamp::parse) {
            Some(at) => {
                self.line(label, &time(at, self.now));
                self.told.push(key);
            }
            None => self.field(label, key),
        }
    }

    fn status(&mut self) {
        match self.approval.status() {
            Status::Pending if self.approval.is_over(self.now) => {
                self.line("Status", "pending, but its time is over");
            }
            _ => self.line("Status", &outcome(self.approval)),
        }
    }

    fn risk(&mut self, terminal: &Terminal) {
        let risk = terminal.inline(&Cell::from(self.approval.risk()));
        let _ = writeln!(self.text, "Risk: {risk}");
    }

    fn decided_by(&mut self) {
        if let Some(by) = self.approval.decided_by() {
            self.line("Decided by", &person(&by));
            self.told.push("decidedBy");
        }
    }

    fn votes(&mut self) {
        for vote in self.approval.votes() {
            let Vote {
                decision,
                by,
                at,
                reason,
                external,
                seen: _,
                signature: _,
                distrusted: _,
            } = vote;
            let (word, at) = (decision.word(), time(*at, self.now));
            let mut line = format!("{word} by {}, {at}", person(by));
            if *external {
                line += ", from another workspace";
            }
            if !vote.is_about(self.approval.digest()) {
                line += ", of what the request meant before";
            }
            if let Some(reason) = reason {
                let _ = write!(line, ": {reason}");
            }
            self.line("Vote", &line);
        }
        self.told.push("decisions");
    }

    /// The command as a shell reads it; what other programs have written there as it stands.
    fn command(&mut self) {
        match self.approval.command() {
            Some(command) => {
                self.line("Command", &command.to_string());
                self.told.push("command");
            }
            None => self.field("Command", "command"),
        }
    }

    fn run(&mut self) {
        self.time("Executed", "executedAt");
        match self.approval.run() {
            None => {}
            Some(Run::Claimed) => self.line("Exit code", "none yet"),
            Some(Run::Ended { code, .. }) => {
                self.line("Exit code", &code.to_string());
                self.told.push("exitCode");
            }
            Some(Run::Failed { .. }) => self.field("Not executed", "executionError"),
        }
        if let Some(millis) = self.approval.value("durationMs").and_then(Value::as_u64) {
            let span = Duration::from_millis(millis);
            self.line("Duration", &humantime::format_duration(span).to_string());
            self.told.push("durationMs");
        }
    }

    fn owed(&mut self) {
        for entry in self.entries("auditOwed") {
            let event = entry["entry"]["event"].as_str().unwrap_or_default();
            self.line("Owed", &format!("audit line: {event}"));
        }
        for entry in self.entries("effectsOwed") {
            let owed = Owed::deserialize(entry).map_or_else(
                // Another version's.
                |_| compact(entry),
                |owed| {
                    format!(
                        "{} since {}",
                        owed.effect.word(),
                        time(owed.since, self.now)
                    )
                },
            );
            self.line("Owed", &owed);
        }
    }

    fn failed(&mut self) {
        for entry in self.entries("effectsFailed") {
            let text = |key: &str| entry.get(key).and_then(Value::as_str);
            let line = match (text("effect"), text("error")) {
                (Some(effect), Some(error)) => {
                    let at = text("at").and_then(Timestamp::parse);
                    let at = at.map(|at| format!(", {}", time(at, self.now)));
                    format!("{effect}: {error}{}", at.unwrap_or_default())
                }
                _ => compact(entry),
            };
            self.line("Failed", &line);
        }
    }

    /// The entries of a list, which is told by them.
    fn entries(&mut self, key: &'static str) -> &'a [Value] {
        let entries = self.approval.value(key).and_then(Value::as_array);
        self.told.extend(entries.map(|_| key));
        entries.map_or(&[], Vec::as_slice)
    }

    fn rest(&mut self) {
        for (key, value) in self.approval.fields() {
            if !self.told.contains(&key.as_str()) {
                self.line(key, &compact(value));
            }
        }
    }
}

/// `Alice (@alice, U061F7AUR)`, or whoever it is that Slack does not know.
fn person(person: &Person) -> String {
    let Person { id, username, name } = person;
    match UserId::parse(id) {
        Some(_) => format!("{name} (@{username}, {id})"),
        None => id.clone(),
    }
}

fn compact(value: &Value) -> String {
    PrintableJson(&value.to_string()).to_string()
}
