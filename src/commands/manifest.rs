//! `runbook manifest`: the Slack app, ready to paste.

use super::print;
use super::wait::Form;
use crate::cli::Parsed;
use crate::complaint::{Complaint, Exit};
use crate::config::{self, AppSettings, Environment};
use crate::slack::manifest::{link, manifest, yaml};

/// Prints the manifest, or the link that carries it.
///
/// # Errors
/// The address or the name is missing or none, or the configuration is wrong.
pub(super) fn run(parsed: &Parsed, environment: &Environment) -> Result<Exit, Complaint> {
    let AppSettings {
        name,
        url,
        needs,
        warnings,
    } = config::app(parsed, environment)?;
    for warning in &warnings {
        log::warn!("{warning}");
    }
    let manifest = manifest(&name, &url, needs);
    let link = link(&manifest);
    let text = match (parsed.flag("--link"), Form::of(parsed)) {
        (true, _) => format!("{link}\n"),
        (false, Form::Json) => format!("{manifest:#}\n"),
        (false, Form::Line) => format!(
            "# Paste this at https://api.slack.com/apps: Create New App, From a manifest. Or open this link:\n\
             # {link}\n{}",
            yaml(&manifest)
        ),
    };
    print(&text).map(|()| Exit::Done)
}
