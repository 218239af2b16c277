//! `runbook show`.
use crate::cli::Parsed;
use crate::complaint::{Complaint, Exit};
use crate::config::Environment;

pub(super) fn run(_parsed: &Parsed, _environment: &Environment) -> Result<Exit, Complaint> {
    Err(Complaint::failure("not there yet"))
}
