//! The server's settings piece by piece, so that what is broken keeps nothing else from being looked at.

use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;

use super::app::needs;
use super::environment::Environment;
use super::health::{certificates, public_name};
use super::signing::sign_key_path;
use super::site::site;
use super::sources::{Sources, find_file};
use super::terms::{self, BOT_TOKEN, Reach, SIGNING_SECRET, caller, channel, proxy, roots};
use super::webhook::{is_switched_off, metrics, public_url, signing_secrets, tls, webhook};
use crate::cli::Parsed;
use crate::complaint::Complaint;
use crate::outgoing::Caller;
use crate::slack::api::Client;
use crate::slack::manifest::Needs;
use crate::slack::signature::SigningSecret;
use crate::store::Site;
use crate::webhook::tls::PairPaths;

/// Each piece, or what is wrong with it.
#[derive(Debug)]
pub struct Diagnosis {
    /// The configuration file, if there is one; else what is wrong in it, or in an option.
    pub file: Result<Option<PathBuf>, Complaint>,
    /// Keys that nobody knows.
    pub warnings: Vec<String>,
    pub secrets: Result<Vec<SigningSecret>, Complaint>,
    /// Whoever calls Slack; it may have no token, or be switched off.
    pub slack: Result<Client, Complaint>,
    pub channel: Option<String>,
    pub needs: Needs,
    pub site: Result<Site, Complaint>,
    pub tls: Result<Option<PairPaths>, Complaint>,
    /// Files that hold a secret.
    pub private: Vec<PathBuf>,
    pub host: String,
    pub port: u16,
    pub reuse_port: bool,
    /// Where `/metrics` is to be served alone.
    pub metrics: Option<(String, u16)>,
    /// Where Slack reaches the server, if the file says.
    pub public_url: Option<String>,
    /// The host in it.
    pub public_name: Option<String>,
    /// Certificates to trust beside the built-in roots.
    pub given: Vec<CertificateDer<'static>>,
    pub caller: Caller,
}

/// Looks at everything that `runbook webhook` would.
///
/// # Errors
/// The port or `--cacert`: with these wrong nothing of the server can be looked at.
pub fn diagnose(parsed: &Parsed, environment: &Environment) -> Result<Diagnosis, Complaint> {
    let given = match parsed.value("--cacert") {
        Some(path) => certificates(Path::new(path))?,
        None => Vec::new(),
    };
    let whole = webhook(parsed, environment);
    // What cannot be read, `whole` tells.
    let mut file = find_file(parsed, environment).unwrap_or_default();
    let holds_secret = [BOT_TOKEN, SIGNING_SECRET]
        .iter()
        .any(|key| file.spells_out(key));
    file.expand_what_is_set(environment);
    let sources = Sources {
        parsed,
        environment,
        file: &file,
    };
    let secrets = signing_secrets(&sources);
    let slack = slack(&sources);
    let tls = tls(parsed);
    // What has a line of its own is not told twice.
    let told = [
        secrets.as_ref().err(),
        slack.as_ref().err(),
        tls.as_ref().err(),
    ];
    let is_told = |complaint: &Complaint| {
        let mut told = told.iter().flatten();
        told.any(|other| other.what() == complaint.what())
    };
    let verdict = match whole {
        Err(complaint) if !is_told(&complaint) => Err(complaint),
        _ => Ok(file.path().map(Path::to_owned)),
    };
    let mut private = environment.secret_files();
    private.extend(file.path().filter(|_| holds_secret).map(Path::to_owned));
    private.extend(sign_key_path(&sources, Reach::Serves).unwrap_or_default());
    private.extend(tls.iter().flatten().map(|pair| pair.key.clone()));
    let public_url = file
        .has("webhook.publicUrl")
        .then(|| public_url(&file).ok())
        .flatten();
    Ok(Diagnosis {
        file: verdict,
        warnings: file.warnings.clone(),
        channel: channel(&sources).unwrap_or_default(),
        needs: needs(&file).unwrap_or(Needs::Basics),
        site: site(&sources, Reach::Looks),
        host: sources.settle("--host", "an address", |text| Some(text.to_owned()))?,
        port: sources.settle("--port", "a port, 0 to 65535", |text| text.parse().ok())?,
        reuse_port: parsed.flag("--reuse-port"),
        metrics: metrics(&sources).unwrap_or_default(),
        private,
        public_name: public_name(&sources).unwrap_or_default(),
        caller: Caller::new(
            proxy(environment).unwrap_or_default(),
            roots(environment).unwrap_or_default(),
        ),
        secrets,
        slack,
        tls,
        public_url,
        given,
    })
}

/// Whoever calls Slack for the server.
fn slack(sources: &Sources<'_>) -> Result<Client, Complaint> {
    let caller = caller(sources.environment)?;
    let mut client = terms::slack(sources, Reach::Serves, caller)?;
    if is_switched_off(sources.file)? {
        client.switch_off();
    }
    Ok(client)
}
