//! `runbook audit`: the audit log, printed or verified.

use std::path::Path;

use serde_json::json;

use super::desk::parse_id;
use super::print;
use super::wait::Form;
use crate::approval::{Entry, UserId};
use crate::cli::Parsed;
use crate::clock::{self, Timestamp};
use crate::complaint::{Complaint, Exit, Printable, PrintableJson, cannot_read, counted};
use crate::config::{self, Environment, Reach, text};
use crate::store::audit_trail::{self, Broken, Unread};

/// Prints, or verifies.
///
/// # Errors
/// There is no log, it cannot be read, or its chain is broken.
pub(super) fn run(parsed: &Parsed, environment: &Environment) -> Result<Exit, Complaint> {
    let site = config::client(parsed, environment, Reach::Looks)?.site;
    let pending = site.path.canonicalize().unwrap_or(site.path.clone());
    let folder = site.audit_folder(&pending);
    if parsed.operands.is_empty() {
        show(parsed, &folder)
    } else {
        verify(&folder, Form::of(parsed))
    }
}

fn verify(folder: &Path, form: Form) -> Result<Exit, Complaint> {
    let chain = audit_trail::verify(folder).or_else(|unread| {
        if let (Form::Json, Unread::Broken(Broken { file, line, why })) = (form, &unread) {
            let broken = json!({ "whole": false, "file": file, "line": line, "reason": why });
            print(&PrintableJson(&format!("{broken:#}\n")).to_string())?;
        }
        Err(complain(folder, unread))
    })?;
    if chain.lines == 0 {
        return Err(no_log(folder));
    }
    if form == Form::Json {
        let whole = json!({
            "whole": true,
            "lines": chain.lines,
            "files": chain.files,
            "first": chain.first,
            "last": chain.last,
            "sha256": chain.head,
        });
        return print(&format!("{whole:#}\n")).map(|()| Exit::Done);
    }
    let missing = match chain.first {
        1 => String::new(),
        first => format!("; those before {first} are not here any more"),
    };
    print(&format!(
        "the audit log is whole: {} in {}, {} to {}{missing}\nSHA-256 of the last line: {}\n",
        counted(&chain.lines, "line"),
        counted(&chain.files, "file"),
        chain.first,
        chain.last,
        chain.head
    ))?;
    Ok(Exit::Done)
}

/// What is printed of the log.
struct Filter {
    since: Option<Timestamp>,
    id: Option<String>,
}

impl Filter {
    fn of(parsed: &Parsed) -> Result<Self, Complaint> {
        let id = text(parsed, "--id")?;
        let id = id.map(|id| parse_id(&id)).transpose()?;
        let since = match text(parsed, "--since")? {
            None => None,
            Some(when) => Some(match Timestamp::parse(&when) {
                Some(at) => at,
                None => config::length(parsed, "--since")
                    .map_err(|_| {
                        Complaint::usage(format!(
                            "--since {when} is neither a length of time such as 24h nor an RFC 3339 time"
                        ))
                    })?
                    .map_or(clock::now(), |length| clock::now() - length),
            }),
        };
        Ok(Self {
            since,
            id: id.map(|id| id.to_string()),
        })
    }

    fn lets_through(&self, entry: Option<&Entry>) -> bool {
        let Some(entry) = entry else {
            return self.since.is_none() && self.id.is_none();
        };
        self.since.is_none_or(|since| entry.at >= since)
            && (self.id.is_none() || self.id == entry.id)
    }
}

fn show(parsed: &Parsed, folder: &Path) -> Result<Exit, Complaint> {
    let (filter, form) = (Filter::of(parsed)?, Form::of(parsed));
    let mut printed = Ok(());
    let mut seen = false;
    let read = audit_trail::read(folder, &mut |line, _| {
        seen = true;
        if printed.is_ok() && filter.lets_through(line.entry.as_ref()) {
            printed = print(&match (form, &line.entry) {
                (Form::Line, Some(entry)) => format!("{}\n", Printable(&sentence(entry))),
                (Form::Line, None) => format!("{}\n", Printable(&line.text)),
                (Form::Json, _) => format!("{}\n", PrintableJson(&line.text)),
            });
        }
    });
    read.map_err(|unread| complain(folder, unread))?;
    printed?;
    if seen {
        Ok(Exit::Done)
    } else {
        Err(no_log(folder))
    }
}

/// `2024-01-15 15:30:45 UTC decided apr-abc123 approved by @alice (U061F7AUR): scale_ecs_service`.
fn sentence(entry: &Entry) -> String {
    let mut words = vec![entry.at.for_people(), entry.event.word().to_owned()];
    words.extend(entry.id.clone());
    words.extend(entry.status.map(|status| status.word().to_owned()));
    words.extend(match (entry.status, entry.choice) {
        (None, Some(choice)) => Some(choice.word().to_owned()),
        _ => None,
    });
    if let Some(by) = &entry.by {
        words.push(match UserId::parse(&by.id) {
            Some(_) => format!("by @{} ({})", by.username, by.id),
            None => format!("by {}", by.id),
        });
    }
    words.extend(
        entry
            .requested_by
            .iter()
            .map(|who| format!("requested by {who}")),
    );
    words.extend(entry.exit_code.map(|code| format!("exit {code}")));
    words.extend(
        entry
            .from
            .address
            .iter()
            .map(|address| format!("from {address}")),
    );
    words.push(format!("on {}", entry.from.host));
    let told = [
        ("operation", &entry.operation),
        ("refused", &entry.refusal),
        ("reason", &entry.reason),
    ];
    let told = told.iter().filter_map(|(label, value)| {
        let value = value.as_ref()?;
        Some(format!("{label}: {value}"))
    });
    let mut parts = vec![words.join(" ")];
    parts.extend(told);
    parts.join("; ")
}

fn no_log(folder: &Path) -> Complaint {
    let shown = folder.display();
    Complaint::failure(format!("there is no audit log in {shown}"))
        .hint("--pending-dir names the directory that it stands beside, approvals.auditDir its own")
}

fn complain(folder: &Path, unread: Unread) -> Complaint {
    match unread {
        Unread::Broken(broken) => Complaint::failure(format!("the audit log is broken: {broken}"))
            .hint("keep it as it is, and compare that line and the one before it with a backup; the chain holds up to there"),
        Unread::Io { error, .. } if error.kind() == std::io::ErrorKind::NotFound => no_log(folder),
        Unread::Io { file, error } => {
            cannot_read("audit log", &file, &error).exit(Exit::Failure)
        }
    }
}
