//! What the commands share that ask, look or decide: the open directory, and the words for what
//! became of a request.

use std::io::ErrorKind;
use std::path::Path;

use crate::approval::{Approval, ApprovalId, Person, Status, UserId};
use crate::cli::Parsed;
use crate::client::{Desk, Error};
use crate::complaint::{Complaint, Exit, Printable};
use crate::config::{self, ClientSettings, Environment, Reach};
use crate::slack::api;
use crate::store::{Directory, StoreError};

/// The settings and the directory of one command.
pub(super) struct Office {
    pub(super) settings: ClientSettings,
    pub(super) store: Directory,
}

impl Office {
    /// Reads the settings and opens the directory.
    ///
    /// # Errors
    /// The configuration is wrong, or the directory cannot be had.
    pub(super) fn open(
        parsed: &Parsed,
        environment: &Environment,
        reach: Reach,
    ) -> Result<Self, Complaint> {
        Self::visit(settings(parsed, environment, reach)?)
    }

    /// Opens the directory to ask there, and makes it when it is missing.
    ///
    /// # Errors
    /// The directory cannot be had.
    pub(super) fn to_ask(settings: ClientSettings) -> Result<Self, Complaint> {
        let path = &settings.site.path;
        Directory::make(path).map_err(|error| no_directory(path, &error))?;
        Self::visit(settings)
    }

    fn visit(settings: ClientSettings) -> Result<Self, Complaint> {
        let store = Directory::visit(&settings.site)
            .map_err(|error| no_directory(&settings.site.path, &error))?;
        Ok(Self { settings, store })
    }

    pub(super) fn desk(&self) -> Desk<'_> {
        Desk {
            store: &self.store,
            terms: &self.settings.terms,
            stop: None,
            verify: self.settings.verify_key,
        }
    }

    /// What an operator is told about an error.
    pub(super) fn complain(&self, error: &Error) -> Complaint {
        let what = match error {
            Error::Missing(_) => {
                let path = self.settings.site.path.display();
                format!("{error} in {path}")
            }
            error => error.to_string(),
        };
        let complaint = Complaint::failure(what);
        match error {
            Error::NoToken => complaint
                .exit(Exit::Usage)
                .hint("set SLACK_BOT_TOKEN; or --no-post leaves posting to a server"),
            Error::NoChannel => complaint.exit(Exit::Usage).hint(
                "--channel, SLACK_DEFAULT_CHANNEL or incident.slack.approvalChannel names one",
            ),
            Error::Slack(error) => {
                let hint = api::hint(error).unwrap_or(
                    "the request is cancelled, for nobody can see it; ask again when Slack works",
                );
                let exit = if api::is_about_credentials(error) {
                    Exit::Credentials
                } else {
                    Exit::Failure
                };
                complaint.exit(exit).hint(hint)
            }
            Error::Conflict(_) => complaint.hint("another --id asks for something else"),
            Error::Unsigned(_) => complaint.hint(
                "somebody without the key has written it; runbook audit --id shows who did what",
            ),
            Error::Missing(_) => complaint
                .hint("runbook list --all shows them; --pending-dir names another directory"),
            Error::Store(StoreError::Damaged { .. }) => {
                complaint.hint("the file stays as it is: mend it, or take it away")
            }
            Error::Store(StoreError::Io { error, .. })
                if error.kind() == ErrorKind::PermissionDenied =>
            {
                let hint = "run as the directory's owner, or share it with a group (Signed decisions in the README)";
                complaint.hint(hint)
            }
            Error::Store(_)
            | Error::Not(_)
            | Error::Changed(_)
            | Error::Stale(_)
            | Error::Stopped
            | Error::Executed { .. }
            | Error::System { .. } => complaint,
        }
    }
}

/// Reads the settings of a command, and tells what should be known of them.
///
/// # Errors
/// The configuration is wrong.
pub(super) fn settings(
    parsed: &Parsed,
    environment: &Environment,
    reach: Reach,
) -> Result<ClientSettings, Complaint> {
    let settings = config::client(parsed, environment, reach)?;
    for warning in &settings.warnings {
        log::warn!("{warning}");
    }
    Ok(settings)
}

/// The settings of a command that asks. Who leaves posting to a server need not have what it takes.
///
/// # Errors
/// The configuration is wrong.
pub(super) fn asking(
    parsed: &Parsed,
    environment: &Environment,
) -> Result<ClientSettings, Complaint> {
    let reach = if parsed.flag("--no-post") {
        Reach::Updates
    } else {
        Reach::Posts
    };
    settings(parsed, environment, reach)
}

fn no_directory(path: &Path, error: &StoreError) -> Complaint {
    let shown = path.display();
    let what = match error {
        StoreError::Io { error, .. } if error.kind() == ErrorKind::NotFound => {
            format!("there is no pending directory {shown}")
        }
        error => format!("pending directory {shown}: {error}"),
    };
    Complaint::failure(what).hint("--pending-dir or RUNBOOK_PENDING_DIR names another")
}

/// The id that stands on the command line.
///
/// # Errors
/// It is none.
pub(super) fn id(parsed: &Parsed) -> Result<ApprovalId, Complaint> {
    let text = parsed.operands.first().map(|word| word.to_string_lossy());
    let text = text.unwrap_or_default();
    parse_id(&text)
}

/// Reads an id.
///
/// # Errors
/// It is none.
pub(super) fn parse_id(text: &str) -> Result<ApprovalId, Complaint> {
    ApprovalId::parse(text).ok_or_else(|| {
        Complaint::usage(format!("{text} is no approval id"))
            .hint("letters, digits, _ and -, at most 64, the first a letter or digit")
    })
}

/// Who this is, for the record.
pub(super) fn terminal_user() -> Person {
    let user = config::station().user;
    Person {
        id: format!("cli:{user}"),
        username: user.clone(),
        name: user,
    }
}

/// `denied by @alice: too risky`.
pub(super) fn outcome(approval: &Approval) -> String {
    let by = match approval.decided_by() {
        Some(by) if UserId::parse(&by.id).is_some() => format!(" by @{}", by.username),
        Some(by) => format!(" by {}", by.id),
        None => String::new(),
    };
    let reason = approval.text("reason");
    let reason = reason
        .map(|reason| format!(": {reason}"))
        .unwrap_or_default();
    let line = format!("{}{by}{reason}", approval.status().word());
    Printable(&line).to_string()
}

/// How a command ends that waited for this.
pub(super) fn exit(status: Status) -> Exit {
    match status {
        Status::Approved => Exit::Done,
        Status::Denied | Status::Cancelled => Exit::Denied,
        Status::Expired => Exit::Expired,
        Status::Pending => Exit::Failure,
    }
}
