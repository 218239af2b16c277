//! Settings: options, then the environment, then the configuration file, then defaults. Nothing
//! else reads the environment, and everything is checked before anything starts.

mod app;
mod client;
mod diagnosis;
mod document;
mod environment;
mod file;
mod health;
mod keys;
mod safety;
mod signing;
mod site;
mod sources;
mod template;
mod terms;
mod webhook;

pub use app::{AppSettings, app};
pub use client::{ClientSettings, client};
pub use diagnosis::{Diagnosis, diagnose};
pub use environment::{Environment, ignores, station, working_directory};
pub use health::{HealthSettings, Place, health};
pub use keys::{KEYS, Key};
pub use signing::{is_open_to_others, make_key_pair};
pub use site::temporary_dir;
pub use sources::{length, text};
pub use template::write_template;
pub use terms::Reach;
pub use webhook::{WebhookSettings, webhook};

use log::LevelFilter;

use crate::cli::Parsed;
use crate::complaint::Complaint;
use crate::logging::Format;
use sources::option_or_default;

/// How the process logs. Only options say that, so that even a broken configuration can be told.
#[derive(Debug)]
pub struct LogSettings {
    pub level: LevelFilter,
    pub format: Format,
}

/// Reads the options for logging.
///
/// # Errors
/// A value that is none of those documented.
pub fn log_settings(parsed: &Parsed) -> Result<LogSettings, Complaint> {
    let word = |name| option_or_default(parsed, name);
    let (level, format) = (word("--log-level")?, word("--log-format")?);
    // The table lists what both may be, so the parser has refused anything else.
    let level = level
        .parse()
        .map_err(|_| Complaint::usage(format!("--log-level {level} is no level")))?;
    let format = format
        .parse()
        .map_err(|()| Complaint::usage(format!("--log-format {format} is no format")))?;
    Ok(LogSettings { level, format })
}

/// The fuzzer's door. Reads a configuration's text for all that it says.
#[cfg(fuzzing)]
#[doc(hidden)]
pub fn fuzz(text: &str) {
    let Ok(mut file) = file::ConfigFile::parse(std::path::Path::new("config.yaml"), text) else {
        return;
    };
    let parts = [
        file.expand(&Environment::default(), &[], &[]),
        webhook::limits(&file).map(drop),
        safety::policy(&file).map(drop),
        webhook::networks(&file, "webhook.trustedProxies").map(drop),
        webhook::public_url(&file).map(drop),
    ];
    for complaint in parts.into_iter().filter_map(Result::err) {
        assert!(complaint.to_string().contains("config.yaml"), "{complaint}");
    }
}
