//! `runbook doctor`: looks at whatever a server needs, one line a check. A check that fails keeps no
//! other from being made, and nothing is left behind.

mod place;
mod server;
mod slack;

use std::path::PathBuf;

use serde_json::{Value, json};

use super::print;
use super::wait::Form;
use crate::cli::Parsed;
use crate::complaint::{Complaint, Exit, Printable, PrintableJson};
use crate::config::{self, Diagnosis, Environment, is_open_to_others};
use crate::slack::signature::SigningSecret;

/// How one thing is.
struct Check {
    name: &'static str,
    mark: Mark,
    what: String,
    hint: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Good,
    /// It works, and somebody should know.
    Notable,
    Bad,
    /// It could not be looked at.
    Unseen,
}

impl Mark {
    fn sign(self) -> &'static str {
        match self {
            Self::Good => "✓",
            Self::Notable => "!",
            Self::Bad => "✗",
            Self::Unseen => "-",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Notable => "warning",
            Self::Bad => "failed",
            Self::Unseen => "skipped",
        }
    }
}

impl Check {
    fn new(mark: Mark, name: &'static str, what: impl Into<String>) -> Self {
        Self {
            name,
            mark,
            what: what.into(),
            hint: None,
        }
    }

    fn good(name: &'static str, what: impl Into<String>) -> Self {
        Self::new(Mark::Good, name, what)
    }

    fn notable(name: &'static str, what: impl Into<String>) -> Self {
        Self::new(Mark::Notable, name, what)
    }

    fn bad(name: &'static str, what: impl Into<String>) -> Self {
        Self::new(Mark::Bad, name, what)
    }

    fn unseen(name: &'static str, what: impl Into<String>) -> Self {
        Self::new(Mark::Unseen, name, what)
    }

    fn complain(name: &'static str, complaint: &Complaint) -> Self {
        Self {
            hint: complaint.help().map(str::to_owned),
            ..Self::bad(name, complaint.what())
        }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    fn line(&self) -> String {
        let Self {
            name, mark, what, ..
        } = self;
        let hint = self.hint.as_ref().map(|hint| format!(" → {hint}"));
        let line = format!("{} {name}: {what}{}", mark.sign(), hint.unwrap_or_default());
        format!("{}\n", Printable(&line))
    }

    fn json(&self) -> Value {
        json!({ "check": self.name, "result": self.mark.word(), "ok": self.mark != Mark::Bad,
            "message": self.what, "hint": self.hint })
    }
}

/// Looks at everything and tells.
///
/// # Errors
/// Options that make no sense; what is wrong with the server is no error of this.
pub(super) fn run(parsed: &Parsed, environment: &Environment) -> Result<Exit, Complaint> {
    let diagnosis = config::diagnose(parsed, environment)?;
    let form = Form::of(parsed);
    let mut checks = Vec::new();
    let mut tell = |found: Vec<Check>| -> Result<(), Complaint> {
        for check in found {
            // Each as it comes: the next may take its time.
            if form == Form::Line {
                print(&check.line())?;
            }
            checks.push(check);
        }
        Ok(())
    };
    tell(configuration(&diagnosis))?;
    tell(slack::checks(&diagnosis, parsed.flag("--post")))?;
    tell(place::checks(&diagnosis))?;
    tell(server::tls(&diagnosis))?;
    let serves = server::serves(&diagnosis);
    tell(server::ports(&diagnosis, serves))?;
    tell(vec![server::public_url(&diagnosis, serves)])?;
    if form == Form::Json {
        let list: Vec<Value> = checks.iter().map(Check::json).collect();
        let text = format!("{:#}\n", Value::Array(list));
        print(&PrintableJson(&text).to_string())?;
    }
    let broken = checks.iter().any(|check| check.mark == Mark::Bad);
    Ok(if broken { Exit::Failure } else { Exit::Done })
}

/// The file, its keys, and the secrets.
fn configuration(diagnosis: &Diagnosis) -> Vec<Check> {
    const NAME: &str = "configuration";
    let mut checks = vec![match &diagnosis.file {
        Ok(Some(path)) => Check::good(NAME, path.display().to_string()),
        Ok(None) => Check::good(NAME, "there is no file; the defaults hold"),
        Err(complaint) => Check::complain(NAME, complaint),
    }];
    let unknown = diagnosis.warnings.iter();
    checks.extend(unknown.map(|warning| {
        Check::notable("configuration key", warning).hint("it means nothing; correct or remove it")
    }));
    checks.push(signing_secret(&diagnosis.secrets));
    checks.extend(secret_files(&diagnosis.private));
    checks
}

/// Whether secrets are kept from whoever else is on this machine.
fn secret_files(private: &[PathBuf]) -> Vec<Check> {
    const NAME: &str = "secret files";
    let exposed = private.iter().filter(|path| is_open_to_others(path));
    let told = exposed.map(|path| {
        let path = path.display();
        Check::notable(NAME, format!("{path} can be read by everybody"))
            .hint(format!("chmod o= {path}"))
    });
    let told: Vec<Check> = told.collect();
    if told.is_empty() && !private.is_empty() {
        return vec![Check::good(NAME, "not everybody can read them")];
    }
    told
}

fn signing_secret(secrets: &Result<Vec<SigningSecret>, Complaint>) -> Check {
    const NAME: &str = "signing secret";
    match secrets {
        Err(complaint) => Check::complain(NAME, complaint),
        Ok(secrets) if !secrets.iter().all(SigningSecret::is_shaped) => {
            Check::bad(NAME, "it does not look like one: 32 letters and digits").hint(
                "copy the Signing Secret under Basic Information of the app; it is no token and no client secret",
            )
        }
        Ok(secrets) => match secrets.len() {
            1 => Check::good(NAME, "there is one, and it looks like one"),
            several => Check::good(NAME, format!("there are {several}, and they look like such")),
        },
    }
}
