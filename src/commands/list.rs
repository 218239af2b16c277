//! `runbook list`: what is pending, or all that there is, and the files that cannot be read.

use std::cmp::Reverse;
use std::collections::HashMap;

use serde_json::Value;

use super::desk::Office;
use super::print;
use super::terminal::{Cell, Column, Terminal, brief};
use super::wait::Form;
use crate::approval::{Approval, Damage, Status};
use crate::cli::Parsed;
use crate::clock::{self, Timestamp};
use crate::complaint::{Complaint, Exit, PrintableJson};
use crate::config::{Environment, Reach};
use crate::logging;
use crate::store::{Listing, Store, StoreError};

/// What is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Pending,
    /// Decided and archived ones, too.
    All,
}

/// Prints a table, or the documents themselves.
///
/// # Errors
/// There is no such directory, or it cannot be listed.
pub(super) fn run(parsed: &Parsed, environment: &Environment) -> Result<Exit, Complaint> {
    let scope = if parsed.flag("--all") {
        Scope::All
    } else {
        Scope::Pending
    };
    let office = Office::open(parsed, environment, Reach::Looks)?;
    let listing = find(&office.store, scope).map_err(|error| office.complain(&error.into()))?;
    match Form::of(parsed) {
        _ if parsed.flag("--ids") => {
            let ids = listing.approvals.iter();
            let lines = ids.flat_map(|one| [one.id().as_str(), "\n"]);
            print(&lines.collect::<String>())?;
        }
        Form::Line => print(&table(&Terminal::of(environment), scope, &listing))?,
        Form::Json => {
            let documents = listing.approvals.iter();
            let documents = documents.map(|approval| Value::Object(approval.fields().clone()));
            let text = format!("{:#}\n", Value::Array(documents.collect()));
            print(&PrintableJson(&text).to_string())?;
            for (name, damage) in &listing.unreadable {
                let what = unreadable(name, damage);
                logging::warn(&what);
            }
        }
    }
    Ok(Exit::Done)
}

/// The newest first. What does not say when it was asked comes last.
///
/// # Errors
/// The directory cannot be listed.
fn find(store: &dyn Store, scope: Scope) -> Result<Listing, StoreError> {
    let mut found = store.list()?;
    match scope {
        Scope::Pending => found
            .approvals
            .retain(|approval| approval.status() == Status::Pending),
        Scope::All => {
            let archived = store.list_archived()?;
            // One that is moved between the two looks is seen twice.
            let here: HashMap<_, _> = found
                .approvals
                .iter()
                .map(|approval| (approval.id(), (approval.status(), approval.decided_at())))
                .collect();
            let old: Vec<Approval> = archived
                .approvals
                .into_iter()
                .filter(|old| here.get(old.id()) != Some(&(old.status(), old.decided_at())))
                .collect();
            found.approvals.extend(old);
            let unreadable = archived.unreadable.into_iter();
            found
                .unreadable
                .extend(unreadable.map(|(name, damage)| (format!("archive/{name}"), damage)));
        }
    }
    found
        .approvals
        .sort_by_cached_key(|approval| (Reverse(approval.requested_at()), approval.id().clone()));
    found.unreadable.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(found)
}

fn table(terminal: &Terminal, scope: Scope, listing: &Listing) -> String {
    let now = clock::now();
    let mut text = if listing.approvals.is_empty() {
        let nothing = match scope {
            Scope::Pending => "nothing is pending",
            Scope::All => "there are no approvals",
        };
        terminal.line(nothing)
    } else {
        let mut columns = vec![
            Column::Whole("ID"),
            Column::Whole("RISK"),
            Column::Elastic("OPERATION"),
            Column::Elastic("BY"),
            Column::Whole("AGE"),
            Column::Whole("EXPIRES"),
        ];
        if scope == Scope::All {
            columns.push(Column::Whole("STATUS"));
        }
        let rows = listing.approvals.iter();
        let rows: Vec<Vec<Cell>> = rows.map(|approval| row(approval, scope, now)).collect();
        terminal.table(&columns, &rows)
    };
    for (name, damage) in &listing.unreadable {
        text += &terminal.line(&unreadable(name, damage));
    }
    text
}

fn unreadable(name: &str, damage: &Damage) -> String {
    format!("unreadable: {name}: {damage}")
}

fn row(approval: &Approval, scope: Scope, now: Timestamp) -> Vec<Cell> {
    let age = approval.requested_at().map(|at| brief(now.since(at)));
    let expires = match approval.expires_at() {
        _ if approval.status() != Status::Pending => "-".to_owned(),
        None => "never".to_owned(),
        Some(at) if at <= now => "over".to_owned(),
        Some(at) => format!("in {}", brief(at.since(now))),
    };
    let mut cells: Vec<Cell> = vec![
        approval.id().as_str().into(),
        approval.risk().into(),
        approval.operation().into(),
        approval.text("requestedBy").unwrap_or("-").into(),
        age.as_deref().unwrap_or("-").into(),
        expires.as_str().into(),
    ];
    if scope == Scope::All {
        cells.push(approval.status().word().into());
    }
    cells
}
