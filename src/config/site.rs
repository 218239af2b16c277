//! Where approvals and the audit log are.

use std::ffi::OsString;
use std::path::PathBuf;

use super::environment::{Environment, station};
use super::signing;
use super::sources::Sources;
use super::terms::Reach;
use crate::complaint::Complaint;
use crate::store::Site;

/// Where approvals and the audit log are.
pub(super) fn site(sources: &Sources<'_>, reach: Reach) -> Result<Site, Complaint> {
    /// A hundred thousand events.
    const FILE_BYTES: u64 = 64 << 20;
    let expected = "a number of bytes, at least 4096";
    let file_bytes = sources
        .file
        .parsed("approvals.auditFileBytes", expected, |text| {
            text.parse().ok().filter(|bytes| *bytes >= 4096)
        })?;
    Ok(Site {
        path: pending_dir(sources),
        audit: sources
            .file
            .text("approvals.auditDir")?
            .filter(|path| !path.is_empty() && !sources.environment.keeps_audit())
            .map(PathBuf::from),
        audit_file_bytes: file_bytes.unwrap_or(FILE_BYTES),
        station: station(),
        key: signing::sign_key(sources, reach)?,
    })
}

fn pending_dir(sources: &Sources) -> PathBuf {
    let option = sources.parsed.option("--pending-dir");
    let given = sources.parsed.value("--pending-dir");
    let variable = option.and_then(|option| sources.environment.os_value(option.env?));
    let default = option.and_then(|option| option.default).unwrap_or_default();
    given
        .or(variable.map(OsString::as_os_str))
        .map_or_else(|| default.into(), PathBuf::from)
}

/// Where what is needed for a moment may stand.
pub fn temporary_dir(environment: &Environment) -> PathBuf {
    let named = environment.os_value("TMPDIR");
    named.map_or("/tmp".into(), PathBuf::from)
}
