//! The server's settings piece by piece, so that what is broken keeps nothing else from being looked at.

use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;

use super::health::{certificates, public_name};
use super::{
    ConfigFile, Environment, PairPaths, Parsed, Reach, Sources, api_base, bot_token, caller,
    channel, find_file, no_signing_secret, proxy, public_url, roots, safety, signing_secrets, site,
    tls, webhook,
};
use crate::complaint::Complaint;
use crate::outgoing::{Caller, Proxy};
use crate::slack::api::Client;
use crate::slack::manifest::Needs;
use crate::slack::signature::SigningSecret;
use crate::store::Site;

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
    pub host: String,
    pub port: u16,
    pub reuse_port: bool,
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
    let (mut file, unreadable) = match find_file(parsed, environment) {
        Ok(file) => (file, None),
        Err(complaint) => (ConfigFile::default(), Some(complaint)),
    };
    file.expand_what_is_set(environment);
    let sources = Sources {
        parsed,
        environment,
        file: &file,
    };
    let secrets = signing_secrets(&sources);
    let secrets = secrets.and_then(|secrets| match &*secrets {
        [] => Err(no_signing_secret()),
        _ => Ok(secrets),
    });
    let slack = client(&sources);
    let tls = tls(parsed);
    // What has a line of its own is not told twice.
    let told = [
        secrets.as_ref().err(),
        slack.as_ref().err(),
        tls.as_ref().err(),
    ];
    let told = |complaint: &Complaint| {
        let mut told = told.iter().flatten();
        told.any(|other| other.what() == complaint.what())
    };
    let path = file.path().map(Path::to_owned);
    let verdict = match (unreadable, whole) {
        (Some(complaint), _) => Err(complaint),
        (None, Err(complaint)) if !told(&complaint) => Err(complaint),
        (None, _) => Ok(path),
    };
    let policy = safety::policy(&file);
    let by_group =
        policy.is_ok_and(|policy| policy.levels.iter().any(|rule| !rule.groups.is_empty()));
    let public_url = file
        .has("webhook.publicUrl")
        .then(|| public_url(&file).ok())
        .flatten();
    Ok(Diagnosis {
        file: verdict,
        warnings: file.warnings.clone(),
        channel: channel(&sources).unwrap_or_default(),
        needs: if by_group {
            Needs::Groups
        } else {
            Needs::Basics
        },
        site: site(&sources, Some(Reach::Looks)),
        host: sources.settle("--host", "an address", |text| Some(text.to_owned()))?,
        port: sources.settle("--port", "a port, 0 to 65535", |text| text.parse().ok())?,
        reuse_port: parsed.flag("--reuse-port"),
        public_name: public_name(&sources).unwrap_or_default(),
        caller: Caller::new(
            proxy_or_none(environment),
            roots(environment).unwrap_or_default(),
        ),
        secrets,
        slack,
        tls,
        public_url,
        given,
    })
}

/// Whoever calls Slack.
fn client(sources: &Sources<'_>) -> Result<Client, Complaint> {
    let base = api_base(sources.environment)?;
    let caller = caller(sources.environment)?;
    let mut client = Client::new(base, bot_token(sources, Reach::Posts)?, caller);
    if sources.file.flag("incident.slack.enabled")? == Some(false) {
        client.switch_off();
    }
    Ok(client)
}

fn proxy_or_none(environment: &Environment) -> Option<Proxy> {
    proxy(environment).ok().flatten()
}
