//! What `runbook webhook` needs to know.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::environment::Environment;
use super::file::ConfigFile;
use super::safety;
use super::signing::exposed_sign_key;
use super::site::{site, temporary_dir};
use super::sources::{Sources, find_file};
use super::terms::{BOT_TOKEN, Reach, SIGNING_SECRET, terms};
use crate::approval::is_slack_id;
use crate::cli::Parsed;
use crate::complaint::Complaint;
use crate::effects::Terms;
use crate::slack::manifest::is_base;
use crate::slack::signature::SigningSecret;
use crate::store::Site;
use crate::webhook::tls::PairPaths;
use crate::webhook::{Limits, Network};

/// What `runbook webhook` needs to know.
#[derive(Debug)]
pub struct WebhookSettings {
    pub host: String,
    pub port: u16,
    pub workers: usize,
    pub reuse_port: bool,
    /// Where `/metrics` is served alone: host and port.
    pub metrics: Option<(String, u16)>,
    pub tls: Option<PairPaths>,
    pub public_url: String,
    pub monitors: Vec<Network>,
    pub trusted_proxies: Vec<Network>,
    pub limits: Limits,
    /// Where the workers' socket stands while it is being connected.
    pub temporary_dir: PathBuf,
    pub site: Site,
    pub keep_decided: Duration,
    pub signing_secrets: Vec<SigningSecret>,
    /// The one Slack app that is served, if it is named.
    pub app: Option<String>,
    /// The one workspace that is served, if it is named.
    pub workspace: Option<String>,
    pub terms: Terms,
    /// The configuration file that all this is from, if there is one.
    pub file: Option<PathBuf>,
    /// What the operator should know, though it stops nothing.
    pub warnings: Vec<String>,
}

/// Settles everything for `runbook webhook`.
///
/// # Errors
/// Whatever is wrong in options, environment or file: exit 2.
pub fn webhook(parsed: &Parsed, environment: &Environment) -> Result<WebhookSettings, Complaint> {
    let mut file = find_file(parsed, environment)?;
    let secret = environment.secret("SLACK_SIGNING_SECRET")?;
    let mut unused = Vec::new();
    unused.extend(environment.names_token().then_some(BOT_TOKEN));
    unused.extend(secret.as_ref().map(|_| SIGNING_SECRET));
    file.expand(environment, &unused, &[])?;

    let sources = Sources {
        parsed,
        environment,
        file: &file,
    };
    let mut warnings = file.warnings.clone();
    let signing_secrets = signing_secrets(&sources)?;
    let mut terms = terms(&sources, Reach::Serves)?;
    if is_switched_off(&file)? {
        terms.slack.switch_off();
    }
    // Those who ask will need it; whoever starts the server should learn of a mistake in it.
    safety::require_approval(&file)?;
    warnings.extend(without_slack(&terms)?.map(str::to_owned));
    let site = site(&sources, Reach::Serves)?;
    warnings.extend(exposed_sign_key(&sources, Reach::Serves)?);
    Ok(WebhookSettings {
        host: sources.settle("--host", "an address", |text| Some(text.to_owned()))?,
        port: sources.settle("--port", "a port, 0 to 65535", |text| text.parse().ok())?,
        workers: sources.settle("--workers", "a number from 1 to 256", |text| {
            text.parse().ok().filter(|n| (1..=256).contains(n))
        })?,
        reuse_port: parsed.flag("--reuse-port"),
        metrics: metrics(&sources)?,
        tls: tls(parsed)?,
        public_url: public_url(&file)?,
        monitors: networks(&file, "webhook.monitors")?,
        trusted_proxies: networks(&file, "webhook.trustedProxies")?,
        limits: limits(&file)?,
        temporary_dir: temporary_dir(environment),
        site,
        keep_decided: file
            .parsed(
                "approvals.keepDecided",
                "a length of time such as 24h",
                |text| humantime::parse_duration(text).ok(),
            )?
            .unwrap_or(Duration::from_secs(24 * 3600)),
        signing_secrets,
        app: slack_id(&file, "incident.slack.appId", 'A')?,
        workspace: slack_id(&file, "incident.slack.teamId", 'T')?,
        terms,
        file: file.path().map(Path::to_owned),
        warnings,
    })
}

/// Whether Slack is never to be called.
pub(super) fn is_switched_off(file: &ConfigFile) -> Result<bool, Complaint> {
    Ok(file.flag("incident.slack.enabled")? == Some(false))
}

/// What the operator should know when Slack cannot be called at will. Rules that cannot do without it are an error.
fn without_slack(terms: &Terms) -> Result<Option<&'static str>, Complaint> {
    if terms.slack.has_token() {
        return Ok(None);
    }
    let (warning, hint) = if terms.slack.is_off() {
        (
            "incident.slack.enabled is false: clicks count, but Slack is never called, so no message shows anything",
            "incident.slack.enabled is false",
        )
    } else {
        (
            "there is no bot token: messages change only through response_url, within 30 minutes, and dropped requests are not posted",
            "set SLACK_BOT_TOKEN",
        )
    };
    let needs = if terms.policy.require_denial_reason {
        "safety.requireDenialReason needs a bot token, for the dialog"
    } else if terms.policy.asks_slack() {
        "approvers by group and allowGuests need a bot token, to ask Slack"
    } else {
        return Ok(Some(warning));
    };
    Err(Complaint::usage(needs).hint(hint))
}

/// What Slack's signatures are made with, at least one.
pub(super) fn signing_secrets(sources: &Sources<'_>) -> Result<Vec<SigningSecret>, Complaint> {
    let given = sources.environment.secret("SLACK_SIGNING_SECRET")?;
    let secrets: Vec<_> = if let Some(text) = given {
        text.lines().filter_map(SigningSecret::new).collect()
    } else {
        let expected = "text or a list of texts";
        let listed = sources
            .file
            .list(SIGNING_SECRET, expected, SigningSecret::new)?;
        listed.unwrap_or_default()
    };
    if secrets.is_empty() {
        return Err(Complaint::usage(
            "there is no signing secret, so no request could be believed",
        )
        .hint("set SLACK_SIGNING_SECRET; Slack shows it under Basic Information of the app"));
    }
    Ok(secrets)
}

/// The two files for TLS. One without the other is a mistake that must not end in plain HTTP.
pub(super) fn tls(parsed: &Parsed) -> Result<Option<PairPaths>, Complaint> {
    let path = |name| parsed.value(name).map(PathBuf::from);
    match (path("--tls-cert"), path("--tls-key")) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => Ok(Some(PairPaths { certificate, key })),
        (Some(_), None) => Err(Complaint::usage("--tls-cert needs --tls-key as well")),
        (None, Some(_)) => Err(Complaint::usage("--tls-key needs --tls-cert as well")),
    }
}

pub(super) fn public_url(file: &ConfigFile) -> Result<String, Complaint> {
    let url = file.parsed(
        "webhook.publicUrl",
        "a URL such as https://runbook.example.com, without a query and without /slack",
        |text| is_base(text).then(|| text.trim_end_matches('/').to_owned()),
    )?;
    Ok(url.unwrap_or_else(|| "https://your-domain.com".into()))
}

/// Where `/metrics` is to be served alone.
pub(super) fn metrics(sources: &Sources<'_>) -> Result<Option<(String, u16)>, Complaint> {
    let expected = "HOST:PORT, such as 127.0.0.1:9464";
    sources.settle("--metrics-addr", expected, |text| match text {
        "" => Some(None),
        text => host_and_port(text).map(Some),
    })
}

/// `HOST:PORT`, an IPv6 host in brackets.
fn host_and_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let plain = !host.is_empty() && (host.starts_with('[') || !host.contains(':'));
    Some((host.to_owned(), port.parse().ok().filter(|_| plain)?))
}

/// An id of Slack's that begins with this letter.
fn slack_id(file: &ConfigFile, path: &str, letter: char) -> Result<Option<String>, Complaint> {
    let expected = format!("a Slack id that begins with {letter}");
    file.parsed(path, &expected, |text| {
        is_slack_id(text, &[letter]).then(|| text.to_owned())
    })
}

pub(super) fn networks(file: &ConfigFile, path: &str) -> Result<Vec<Network>, Complaint> {
    Ok(file
        .list(
            path,
            "a list of networks such as 10.0.0.0/8",
            Network::parse,
        )?
        .unwrap_or_default())
}

pub(super) fn limits(file: &ConfigFile) -> Result<Limits, Complaint> {
    let number = |name: &str, range: RangeInclusive<usize>, default: usize| {
        let expected = format!("a number from {} to {}", range.start(), range.end());
        let meaning = |text: &str| text.parse().ok().filter(|n| range.contains(n));
        Ok::<_, Complaint>(
            file.parsed(&format!("webhook.limits.{name}"), &expected, meaning)?
                .unwrap_or(default),
        )
    };
    let span = |name: &str, default: Duration| {
        let expected = "a length of time from 100ms to 1h, such as 10s";
        let range = Duration::from_millis(100)..=Duration::from_secs(3600);
        let meaning = |text: &str| {
            humantime::parse_duration(text)
                .ok()
                .filter(|span| range.contains(span))
        };
        Ok::<_, Complaint>(
            file.parsed(&format!("webhook.limits.{name}"), expected, meaning)?
                .unwrap_or(default),
        )
    };
    let default = Limits::default();
    Ok(Limits {
        connections: number("connections", 1..=65536, default.connections)?,
        head_bytes: number("headBytes", 1024..=1 << 20, default.head_bytes)?,
        headers: number("headers", 8..=1024, default.headers)?,
        body_bytes: number("bodyBytes", 1024..=64 << 20, default.body_bytes)?,
        requests: number("requests", 1..=1_000_000, default.requests)?,
        handshake: span("handshake", default.handshake)?,
        head: span("head", default.head)?,
        request: span("request", default.request)?,
        idle: span("idle", default.idle)?,
        write: span("write", default.write)?,
        worker: span("worker", default.worker)?,
    })
}
