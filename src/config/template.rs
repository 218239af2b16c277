//! The file that `runbook init` writes: every key of ours, commented out, with what it means.

use std::fmt::Write as _;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::keys::{KEYS, LEVELS};
use super::sources::named_file;
use crate::cli::Parsed;
use crate::complaint::{Complaint, reason};
use crate::random;

const HEAD: &str = "\
# Configuration of runbook.
#
# A line such as #port: 3000 shows a default, or an example where there is none: take away its # to set it.
# ${VARIABLE} stands for a variable of the environment, ${VARIABLE:-text} for text when that is not set.
# Other tools may keep sections of their own here. A running server reads the file again on HUP.
";

/// Writes the file where it will be looked for, and says where that is.
///
/// # Errors
/// There is one already, or it cannot be written; then nothing has changed.
pub fn write_template(parsed: &Parsed, environment: &Environment) -> Result<PathBuf, Complaint> {
    let named = named_file(parsed, environment).map(PathBuf::from);
    let path = named.clone().unwrap_or(".runbook/config.yaml".into());
    let other = path.with_extension("yml");
    if named.is_none() && other.symlink_metadata().is_ok() {
        return Err(cannot(&other, &ErrorKind::AlreadyExists.into()));
    }
    write_new(&path, &template()).map_err(|error| cannot(&path, &error))?;
    Ok(path)
}

fn cannot(path: &Path, error: &io::Error) -> Complaint {
    let what = format!("cannot write {}: {}", path.display(), reason(error));
    let complaint = Complaint::failure(what);
    match error.kind() {
        ErrorKind::AlreadyExists => {
            complaint.hint("a configuration is never overwritten; --config names another file")
        }
        _ => complaint,
    }
}

fn template() -> String {
    let mut text = String::from(HEAD);
    let mut open: Vec<&str> = Vec::new();
    for key in KEYS {
        let mut sections: Vec<&str> = key.path.split('.').collect();
        let name = sections.pop().unwrap_or_default();
        let common = sections.iter().zip(&open).take_while(|(a, b)| a == b);
        let common = common.count();
        for (depth, section) in sections.iter().enumerate().skip(common) {
            let indent = "  ".repeat(depth);
            if depth == 0 {
                text.push('\n');
            }
            if *section == "*" {
                let [all, levels @ ..] = LEVELS;
                let levels = levels.join(", ");
                let _ = writeln!(
                    text,
                    "{indent}# for every level; {levels} may stand beside it and take from it what they do not say\n{indent}{all}:"
                );
            } else {
                let _ = writeln!(text, "{indent}{section}:");
            }
        }
        let indent = "  ".repeat(sections.len());
        let default = match (key.example, key.default) {
            (None, _) | (_, "") => String::new(),
            (Some(_), default) => format!(" (default: {default})"),
        };
        let value = key.example.unwrap_or(key.default);
        let _ = writeln!(
            text,
            "{indent}# {}{default}\n{indent}#{name}: {value}",
            key.help
        );
        open = sections;
    }
    text
}

/// Writes a file that is not there yet, whole or not at all. It may come to hold secrets, so it is its
/// owner's alone.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    let temporary = folder.join(format!(".config-{}", random::letters(8)?));
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        // Unlike a rename it replaces nothing.
        .and_then(|()| std::fs::hard_link(&temporary, path));
    let _ = std::fs::remove_file(&temporary);
    written
}
