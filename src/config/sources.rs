//! Where a value may come from: an option, the environment, the configuration file, a default, in this order.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::environment::Environment;
use super::file::ConfigFile;
use crate::cli::Parsed;
use crate::complaint::Complaint;

/// The three places where an option's value may come from.
pub(super) struct Sources<'a> {
    pub(super) parsed: &'a Parsed,
    pub(super) environment: &'a Environment,
    pub(super) file: &'a ConfigFile,
}

impl Sources<'_> {
    /// The first of option, variable, key and default, with its meaning.
    pub(super) fn settle<T>(
        &self,
        name: &str,
        expected: &str,
        meaning: impl Fn(&str) -> Option<T>,
    ) -> Result<T, Complaint> {
        let option = self.parsed.option(name);
        let (variable, key) = (option.and_then(|o| o.env), option.and_then(|o| o.key));
        let wrong = |source: &str, text: &str| {
            Complaint::usage(format!("{source} {text} is not {expected}"))
        };
        if let Some(value) = self.parsed.value(name) {
            let text = utf8(name, value)?;
            return meaning(text).ok_or_else(|| wrong(name, text));
        }
        if let Some(variable) = variable
            && let Some(text) = self.environment.value(variable).map_err(Complaint::usage)?
        {
            return meaning(&text).ok_or_else(|| wrong(variable, &text));
        }
        if let Some(key) = key
            && let Some(value) = self.file.parsed(key, expected, &meaning)?
        {
            return Ok(value);
        }
        let text = option_or_default(self.parsed, name)?;
        meaning(&text).ok_or_else(|| wrong(name, &text))
    }
}

/// The value of an option as text, or its default.
pub(super) fn option_or_default(parsed: &Parsed, name: &str) -> Result<String, Complaint> {
    match parsed.value(name) {
        Some(value) => utf8(name, value).map(str::to_owned),
        None => Ok(parsed
            .option(name)
            .and_then(|option| option.default)
            .unwrap_or_default()
            .to_owned()),
    }
}

/// The value of an option as text, if it was given.
///
/// # Errors
/// It is not UTF-8.
pub fn text(parsed: &Parsed, name: &str) -> Result<Option<String>, Complaint> {
    let value = parsed.value(name).map(|value| utf8(name, value));
    value.map(|text| text.map(str::to_owned)).transpose()
}

/// The value of an option as a length of time, if it was given.
///
/// # Errors
/// It is none, or nothing, or longer than a year.
pub fn length(parsed: &Parsed, name: &str) -> Result<Option<Duration>, Complaint> {
    let range = Duration::from_millis(1)..=Duration::from_secs(366 * 24 * 3600);
    let Some(text) = text(parsed, name)? else {
        return Ok(None);
    };
    let length = humantime::parse_duration(&text).ok();
    let length = length.filter(|length| range.contains(length));
    length.map(Some).ok_or_else(|| {
        let expected = "a length of time up to a year, such as 90s or 15m";
        Complaint::usage(format!("{name} {text} is not {expected}"))
    })
}

fn utf8<'a>(name: &str, value: &'a OsStr) -> Result<&'a str, Complaint> {
    value
        .to_str()
        .ok_or_else(|| Complaint::usage(format!("the value of {name} is not UTF-8")))
}

/// The file that the option or the variable names.
pub(super) fn named_file<'a>(parsed: &'a Parsed, environment: &'a Environment) -> Option<&'a Path> {
    let variable = environment.os_value("RUNBOOK_CONFIG");
    let named = parsed.value("--config");
    named.or(variable.map(OsString::as_os_str)).map(Path::new)
}

/// The file that was named, or the first that is there; an empty one when there is none.
pub(super) fn find_file(
    parsed: &Parsed,
    environment: &Environment,
) -> Result<ConfigFile, Complaint> {
    if let Some(path) = named_file(parsed, environment) {
        return ConfigFile::read(path);
    }
    let home = environment
        .os_value("HOME")
        .map(|home| Path::new(home).join(".runbook"));
    let folders = [
        Some(PathBuf::from(".runbook")),
        home,
        Some(PathBuf::from("/etc/runbook")),
    ];
    let candidates = folders
        .into_iter()
        .flatten()
        .flat_map(|f| [f.join("config.yaml"), f.join("config.yml")]);
    // One that is there but cannot be read is an error, not a reason to look further.
    let mut present = candidates.filter(|path| path.symlink_metadata().is_ok());
    present
        .next()
        .map_or_else(|| Ok(ConfigFile::default()), |path| ConfigFile::read(&path))
}
