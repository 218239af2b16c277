//! `runbook keygen`: the pair of keys for signed decisions.

use std::path::Path;

use serde_json::json;

use super::print;
use super::wait::Form;
use crate::cli::Parsed;
use crate::complaint::{Complaint, Exit};
use crate::config;

/// Makes both files and names them.
///
/// # Errors
/// One of them is there, or cannot be written.
pub(super) fn run(parsed: &Parsed) -> Result<Exit, Complaint> {
    let out = parsed.value("--out").filter(|out| !out.is_empty());
    let out = out.ok_or_else(|| Complaint::usage("--out is missing: keygen needs a file"))?;
    let path = Path::new(out);
    let (public, key) = config::make_key_pair(path)?;
    if Form::of(parsed) == Form::Json {
        let made = json!({
            "key": key.name(),
            "signKey": path.to_string_lossy(),
            "verifyKey": public.to_string_lossy(),
        });
        return print(&format!("{made:#}\n")).map(|()| Exit::Done);
    }
    print(&format!(
        "{}: signs decisions; the server's alone\n{}: verifies them; for whoever waits\nkey {}\n",
        path.display(),
        public.display(),
        key.name()
    ))?;
    Ok(Exit::Done)
}
