//! `runbook init`: a configuration file to start from.

use super::print;
use crate::cli::Parsed;
use crate::complaint::{Complaint, Exit};
use crate::config::{self, Environment};

/// Writes the file, and says what comes next.
///
/// # Errors
/// There is one already, or it cannot be written.
pub(super) fn run(parsed: &Parsed, environment: &Environment) -> Result<Exit, Complaint> {
    let path = config::write_template(parsed, environment)?;
    print(&format!(
        "{}: every setting, with its default\n\n\
         Next:\n\
         \x20 runbook manifest --url https://YOUR-HOST   makes the Slack app\n\
         \x20 SLACK_SIGNING_SECRET, SLACK_BOT_TOKEN      are its secrets, in the environment or in that file\n\
         \x20 runbook webhook                            starts the server\n",
        path.display()
    ))?;
    Ok(Exit::Done)
}
