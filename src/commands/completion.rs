//! `runbook completion`: what makes a shell complete.

use super::print;
use crate::cli::{self, Parsed};
use crate::complaint::{Complaint, Exit};

/// Prints the script for the shell that is named.
pub(super) fn run(parsed: &Parsed) -> Result<Exit, Complaint> {
    let shell = parsed.operands.first().map(|word| word.to_string_lossy());
    let script = shell.and_then(|shell| cli::completion(&shell));
    print(&script.unwrap_or_default()).map(|()| Exit::Done)
}
