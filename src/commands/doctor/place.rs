//! The directories: whether a decision could be written there, and who else could write one.

use std::path::Path;

use super::Check;
use crate::complaint::{Complaint, reason};
use crate::config::Diagnosis;
use crate::store::examine::{Found, Place, look, rehearse};
use crate::store::{Directory, Site, Store};

const PENDING: &str = "pending directory";
const MODE: &str = "directory mode";
const SPACE: &str = "free space";
const WRITING: &str = "locks and syncs";
const AUDIT: &str = "audit directory";
const FILES: &str = "approval files";
/// Less is too little for a day of approvals.
const LEAST_BYTES: u64 = 16 << 20;
const LEAST_INODES: u64 = 1000;

pub(super) fn checks(diagnosis: &Diagnosis) -> Vec<Check> {
    let site = match &diagnosis.site {
        Ok(site) => site,
        Err(complaint) => return vec![unusable(diagnosis, complaint)],
    };
    let shown = site.path.display();
    let mut checks = Vec::new();
    match look(&site.path) {
        Found::Directory(place) => {
            checks.push(owner(&place));
            checks.push(mode(&place));
            checks.push(space(&place));
            checks.push(writing(WRITING, &place));
            checks.push(files(site));
        }
        Found::Absent(above) => {
            let above_it = above.path.display();
            let what = format!("{shown} is not there yet, and can be made in {above_it}");
            checks.push(network(&above).unwrap_or_else(|| Check::good(PENDING, what)));
            checks.push(space(&above));
        }
        Found::Closed(above) => {
            let above = above.display();
            let what = format!("{shown} is not there, and this user may not make it in {above}");
            checks.push(
                Check::bad(PENDING, what)
                    .hint("make it for this user, or --pending-dir names another"),
            );
        }
        Found::Odd(error) => {
            let what = format!("{shown}: {}", reason(&error));
            checks.push(Check::bad(PENDING, what).hint("--pending-dir names another"));
        }
    }
    checks.push(audit(&site.audit_folder(&absolute(&site.path))));
    checks
}

/// What keeps the directory from being known; what the configuration's own line tells is not told twice.
fn unusable(diagnosis: &Diagnosis, complaint: &Complaint) -> Check {
    match &diagnosis.file {
        Err(told) if told.what() == complaint.what() => {
            Check::unseen(PENDING, "the configuration is wrong")
        }
        _ => Check::complain(PENDING, complaint),
    }
}

fn absolute(path: &Path) -> std::path::PathBuf {
    let canonical = path.canonicalize();
    canonical.unwrap_or_else(|_| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()))
}

fn owner(place: &Place) -> Check {
    let shown = place.path.display();
    let us = rustix::process::geteuid().as_raw();
    let owner = place.owner;
    if !place.writable {
        let what = format!("{shown} is user {owner}'s, and user {us} may not write there");
        return Check::bad(PENDING, what).hint("run as its owner, or chown it");
    }
    if let Some(check) = network(place) {
        return check;
    }
    if owner == us {
        Check::good(PENDING, format!("{shown} is this user's"))
    } else {
        let what = format!("{shown} is user {owner}'s, not this one's ({us}), who may write there");
        Check::notable(PENDING, what).hint("look as the user that the server runs as")
    }
}

fn network(place: &Place) -> Option<Check> {
    let shown = place.path.display();
    let what = format!(
        "{shown} is on a network filesystem: it is polled every 250 ms, and its locks must hold between hosts"
    );
    place.network.then(|| Check::notable(PENDING, what))
}

fn mode(place: &Place) -> Check {
    let mode = place.mode;
    let hint = format!("chmod 700 {}", place.path.display());
    match mode {
        mode if mode & 0o002 != 0 => {
            let what = format!("{mode:04o}: everybody may write approvals there");
            Check::bad(MODE, what).hint(hint)
        }
        mode if mode & 0o020 != 0 => {
            let what = format!("{mode:04o}: its group may write approvals there, too");
            Check::notable(MODE, what)
                .hint("sign the decisions (--sign-key) if that is not to be trusted so far")
        }
        mode if mode & 0o077 != 0 => {
            let what = format!("{mode:04o}, wider than 0700: others than its owner get in");
            Check::notable(MODE, what).hint(hint)
        }
        mode => Check::good(MODE, format!("{mode:04o}")),
    }
}

fn space(place: &Place) -> Check {
    let mebibytes = place.free_bytes >> 20;
    let inodes = place.free_inodes;
    let files = inodes.map_or(String::new(), |inodes| format!(", {inodes} files"));
    let what = format!("{mebibytes} MiB{files}");
    if place.free_bytes < LEAST_BYTES || inodes.is_some_and(|inodes| inodes < LEAST_INODES) {
        Check::bad(SPACE, format!("only {what}"))
            .hint("make room: a decision that cannot be written is refused")
    } else {
        Check::good(SPACE, what)
    }
}

fn writing(name: &'static str, place: &Place) -> Check {
    match rehearse(&place.path) {
        Ok(()) => Check::good(name, "they work"),
        Err((step, error)) => {
            let shown = place.path.display();
            let what = format!("cannot {step} in {shown}: {}", reason(&error));
            Check::bad(name, what)
                .hint("no decision can be taken there; --pending-dir names another")
        }
    }
}

fn audit(path: &Path) -> Check {
    let shown = path.display();
    match look(path) {
        Found::Directory(place) => match rehearse(&place.path) {
            Ok(()) => Check::good(AUDIT, format!("{shown} can be written")),
            Err((step, error)) => {
                let what = format!("cannot {step} in {shown}: {}", reason(&error));
                Check::bad(AUDIT, what).hint("approvals.auditDir names another")
            }
        },
        Found::Absent(above) => {
            let above = above.path.display();
            let what = format!("{shown} is not there yet, and can be made in {above}");
            Check::good(AUDIT, what)
        }
        Found::Closed(above) => {
            let above = above.display();
            let what = format!("{shown} is not there, and this user may not make it in {above}");
            Check::bad(AUDIT, what).hint("approvals.auditDir names another")
        }
        Found::Odd(error) => Check::bad(AUDIT, format!("{shown}: {}", reason(&error)))
            .hint("approvals.auditDir names another"),
    }
}

fn files(site: &Site) -> Check {
    let listed = Directory::visit(site).and_then(|directory| directory.list());
    match listed {
        Err(error) => Check::bad(FILES, error.to_string()),
        Ok(listing) => match &*listing.unreadable {
            [] => Check::good(FILES, format!("{} can be read", listing.approvals.len())),
            [(name, damage), rest @ ..] => {
                let more = match rest.len() {
                    0 => String::new(),
                    more => format!(", and {more} more"),
                };
                let what = format!("unreadable: {name}: {damage}{more}");
                Check::bad(FILES, what).hint("they are never approved; runbook list shows them all")
            }
        },
    }
}
