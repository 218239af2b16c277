//! The environment of the process, read in one place. An empty variable counts as unset.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::approval::Station;
use crate::complaint::{Complaint, cannot_read};

/// The largest secret, in bytes.
const LARGEST_SECRET: u64 = 1 << 16;

/// A snapshot of the variables.
#[derive(Debug, Default)]
pub struct Environment {
    variables: HashMap<OsString, OsString>,
    /// Whether the audit log stands beside the pending directory, whatever a file says.
    keeps_audit: bool,
}

impl Environment {
    /// The variables of this process.
    pub fn of_process() -> Self {
        Self {
            variables: std::env::vars_os().collect(),
            keeps_audit: false,
        }
    }

    /// The same, in which nothing is written to the audit log of a file's `approvals.auditDir`: what
    /// is only played is no part of a real one.
    #[must_use]
    pub fn keeping_audit(self) -> Self {
        Self {
            keeps_audit: true,
            ..self
        }
    }

    pub(super) fn keeps_audit(&self) -> bool {
        self.keeps_audit
    }

    /// A variable that is not empty, as it is.
    pub(super) fn os_value(&self, name: &str) -> Option<&OsString> {
        self.variables
            .get(std::ffi::OsStr::new(name))
            .filter(|value| !value.is_empty())
    }

    /// A variable as text.
    ///
    /// # Errors
    /// It is not UTF-8.
    pub(super) fn value(&self, name: &str) -> Result<Option<String>, String> {
        let text = |value: &OsString| {
            value
                .to_str()
                .map(str::to_owned)
                .ok_or(format!("{name} is not UTF-8"))
        };
        self.os_value(name).map(text).transpose()
    }

    /// Whether colours are unwanted. Source: <https://no-color.org>
    pub fn forbids_colour(&self) -> bool {
        self.os_value("NO_COLOR").is_some()
    }

    /// The columns that the shell says the terminal has.
    pub fn columns(&self) -> Option<usize> {
        self.value("COLUMNS").ok()??.parse().ok()
    }

    /// Whether the environment gives the bot token, so that the file need not.
    pub(super) fn names_token(&self) -> bool {
        ["SLACK_BOT_TOKEN", "SLACK_BOT_TOKEN_FILE"]
            .iter()
            .any(|name| self.os_value(name).is_some())
    }

    /// The files that variables name for secrets.
    pub(super) fn secret_files(&self) -> Vec<PathBuf> {
        let names = [
            "SLACK_SIGNING_SECRET_FILE",
            "SLACK_BOT_TOKEN_FILE",
            "RUNBOOK_CALLBACK_SECRET_FILE",
        ];
        let files = names.iter().filter_map(|name| self.os_value(name));
        files.map(PathBuf::from).collect()
    }

    /// What the file that a variable names holds.
    ///
    /// # Errors
    /// It cannot be read, or is larger.
    pub(super) fn file(&self, name: &str, largest: u64) -> Result<Option<Vec<u8>>, Complaint> {
        let Some(path) = self.os_value(name) else {
            return Ok(None);
        };
        let shown = path.display();
        let cannot = |why: &str| Complaint::usage(format!("cannot read {name} {shown}: {why}"));
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|file| file.take(largest + 1).read_to_end(&mut bytes));
        let read = read.map_err(|error| cannot_read(name, Path::new(path), &error))?;
        if read as u64 > largest {
            return Err(cannot(&format!("it is larger than {largest} bytes")));
        }
        Ok(Some(bytes))
    }

    /// A secret: the variable `NAME`, or what the file that `NAME_FILE` names holds.
    ///
    /// # Errors
    /// Both are set, or the file cannot be read or is empty.
    pub(super) fn secret(&self, name: &str) -> Result<Option<String>, Complaint> {
        let variable = format!("{name}_FILE");
        let direct = self.value(name).map_err(Complaint::usage)?;
        let Some(path) = self.os_value(&variable) else {
            return Ok(direct);
        };
        if direct.is_some() {
            return Err(
                Complaint::usage(format!("{name} and {variable} are both set"))
                    .hint("unset one of them"),
            );
        }
        let shown = path.display();
        let cannot = |why: &str| Complaint::usage(format!("cannot read {variable} {shown}: {why}"));
        let mut text = String::new();
        let read =
            File::open(path).and_then(|file| file.take(LARGEST_SECRET).read_to_string(&mut text));
        read.map_err(|error| cannot_read(&variable, Path::new(path), &error))?;
        if text.trim().is_empty() {
            return Err(cannot("it is empty"));
        }
        Ok(Some(text))
    }
}

impl<K: Into<OsString>, V: Into<OsString>> FromIterator<(K, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(variables: I) -> Self {
        Self {
            variables: variables
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
            keeps_audit: false,
        }
    }
}

/// The name of the user that this process runs as, from `/etc/passwd`; the number when it is not
/// there. What variables say about it proves nothing.
fn unix_user() -> String {
    let uid = rustix::process::getuid().as_raw().to_string();
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    });
    named.unwrap_or(uid)
}

/// The machine and the user that this process runs on and as.
pub fn station() -> Station {
    let system = rustix::system::uname();
    Station {
        host: system.nodename().to_string_lossy().into_owned(),
        user: unix_user(),
    }
}

/// Whether this process was started to ignore a signal, as `nohup` does it, and a shell for what runs
/// in its background. Only Linux says so.
pub fn ignores(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// The directory that this process runs in.
///
/// # Errors
/// It is gone, or may not be entered.
pub fn working_directory() -> std::io::Result<PathBuf> {
    std::env::current_dir()
}
