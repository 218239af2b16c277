//! What `runbook manifest` needs to know.

use super::environment::Environment;
use super::file::ConfigFile;
use super::safety;
use super::sources::{Sources, find_file};
use super::terms::{BOT_TOKEN, SIGNING_SECRET};
use crate::cli::Parsed;
use crate::complaint::Complaint;
use crate::slack::manifest::{AppName, Needs, PublicUrl};

/// What the Slack app has to be.
#[derive(Debug)]
pub struct AppSettings {
    pub name: AppName,
    pub url: PublicUrl,
    pub needs: Needs,
    /// What the operator should know, though it stops nothing.
    pub warnings: Vec<String>,
}

/// Settles what the Slack app has to be.
///
/// # Errors
/// The address is missing, or anything is wrong in options, environment or file: exit 2.
pub fn app(parsed: &Parsed, environment: &Environment) -> Result<AppSettings, Complaint> {
    let mut file = find_file(parsed, environment)?;
    // The app is made before there are secrets.
    file.expand(environment, &[BOT_TOKEN, SIGNING_SECRET], &[])?;
    let sources = Sources {
        parsed,
        environment,
        file: &file,
    };
    if parsed.value("--url").is_none() && !file.has("webhook.publicUrl") {
        return Err(
            Complaint::usage("--url is missing: Slack has to know where the server is")
                .hint("--url https://HOST, or webhook.publicUrl in the configuration"),
        );
    }
    Ok(AppSettings {
        name: sources.settle("--name", "a name of 1 to 35 characters", AppName::parse)?,
        url: sources.settle(
            "--url",
            "https://HOST, without a query and without /slack",
            PublicUrl::parse,
        )?,
        needs: needs(&file)?,
        warnings: file.warnings.clone(),
    })
}

/// What the app must be allowed to do for the rules.
pub(super) fn needs(file: &ConfigFile) -> Result<Needs, Complaint> {
    let policy = safety::policy(file)?;
    let by_group = policy.levels.iter().any(|rule| !rule.groups.is_empty());
    Ok(if by_group {
        Needs::Groups
    } else {
        Needs::Basics
    })
}
