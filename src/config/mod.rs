//! Settings: options, then the environment, then the configuration file, then defaults. Nothing
//! else reads the environment, and everything is checked before anything starts.

mod diagnosis;
mod document;
mod environment;
mod file;
mod health;
mod keys;
mod safety;
mod seal;
mod template;

pub use diagnosis::{Diagnosis, diagnose};
pub use environment::{Environment, ignores, station, working_directory};
pub use health::{HealthSettings, Place, health};
pub use keys::{KEYS, Key};
pub use seal::make_key_pair;
pub use template::write_template;

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use log::LevelFilter;

use crate::approval::{Risk, VerifyKey, is_slack_id};
use crate::cli::Parsed;
use crate::complaint::Complaint;
use crate::effects::{Callbacks, Terms};
use crate::logging::Format;
use crate::outgoing::{Caller, Proxy, Roots};
use crate::slack::api::{self, BotToken, Client};
use crate::slack::manifest::{AppName, Needs, PublicUrl};
use crate::slack::signature::SigningSecret;
use crate::slack::text::Mention;
use crate::store::Site;
use crate::webhook::tls::PairPaths;
use crate::webhook::{Limits, Network};
use file::ConfigFile;

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

/// What the commands need to know that ask, look or decide from the terminal.
#[derive(Debug)]
pub struct ClientSettings {
    pub site: Site,
    /// The key that an approval must be signed by to count.
    pub verify_key: Option<VerifyKey>,
    pub terms: Terms,
    /// The levels that need a human.
    pub require_approval: Vec<Risk>,
    /// What the operator should know, though it stops nothing.
    pub warnings: Vec<String>,
}

/// What the Slack app has to be.
#[derive(Debug)]
pub struct AppSettings {
    pub name: AppName,
    pub url: PublicUrl,
    pub needs: Needs,
    /// What the operator should know, though it stops nothing.
    pub warnings: Vec<String>,
}

/// How far a command goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// It posts to Slack.
    Posts,
    /// It changes what Slack shows, if it can.
    Updates,
    /// It only looks at the directory.
    Looks,
}

/// How the process logs. Only options say that, so that even a broken configuration can be told.
#[derive(Debug)]
pub struct LogSettings {
    pub level: LevelFilter,
    pub format: Format,
}

/// Reads the options for logging.
///
/// # Errors
/// A value that is none of those documented.
pub fn log_settings(parsed: &Parsed) -> Result<LogSettings, Complaint> {
    let word = |name| option_or_default(parsed, name);
    let (level, format) = (word("--log-level")?, word("--log-format")?);
    // The table lists what both may be, so the parser has refused anything else.
    let level = level
        .parse()
        .map_err(|_| Complaint::usage(format!("--log-level {level} is no level")))?;
    let format = format
        .parse()
        .map_err(|()| Complaint::usage(format!("--log-format {format} is no format")))?;
    Ok(LogSettings { level, format })
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
    if signing_secrets.is_empty() {
        return Err(no_signing_secret());
    }
    let mut terms = terms(&sources, Reach::Posts)?;
    if file.flag("incident.slack.enabled")? == Some(false) {
        terms.slack.switch_off();
        warnings.push(
            "incident.slack.enabled is false: clicks count, but Slack is never called, so no message shows anything"
                .into(),
        );
    }
    // Those who ask will need it; whoever starts the server should learn of a mistake in it.
    safety::require_approval(&file)?;
    if !terms.slack.has_token() {
        let what = if terms.policy.require_denial_reason {
            Some("safety.requireDenialReason needs a bot token, for the dialog")
        } else if terms.policy.asks_slack() {
            Some("approvers by group and allowGuests need a bot token, to ask Slack")
        } else {
            None
        };
        if let Some(what) = what {
            let hint = if terms.slack.is_off() {
                "incident.slack.enabled is false"
            } else {
                "set SLACK_BOT_TOKEN"
            };
            return Err(Complaint::usage(what).hint(hint));
        }
        if !terms.slack.is_off() {
            warnings.push(
                "there is no bot token: messages change only through response_url, within 30 minutes, and dropped requests are not posted"
                    .into(),
            );
        }
    }
    Ok(WebhookSettings {
        host: sources.settle("--host", "an address", |text| Some(text.to_owned()))?,
        port: sources.settle("--port", "a port, 0 to 65535", |text| text.parse().ok())?,
        workers: sources.settle("--workers", "a number from 1 to 256", |text| {
            text.parse().ok().filter(|n| (1..=256).contains(n))
        })?,
        reuse_port: parsed.flag("--reuse-port"),
        metrics: sources.settle(
            "--metrics-addr",
            "HOST:PORT, such as 127.0.0.1:9464",
            |text| match text {
                "" => Some(None),
                text => host_and_port(text).map(Some),
            },
        )?,
        tls: tls(parsed)?,
        public_url: public_url(&file)?,
        monitors: networks(&file, "webhook.monitors")?,
        trusted_proxies: networks(&file, "webhook.trustedProxies")?,
        limits: limits(&file)?,
        temporary_dir: temporary_dir(environment),
        site: site(&sources, None)?,
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

const BOT_TOKEN: &str = "incident.slack.botToken";
/// The largest file of authorities, in bytes; Debian's has 220,000.
const LARGEST_BUNDLE: u64 = 1 << 23;
const SIGNING_SECRET: &str = "incident.slack.signingSecret";

/// Settles everything for a command that asks, looks or decides from the terminal.
///
/// # Errors
/// Whatever is wrong in options, environment or file: exit 2.
pub fn client(
    parsed: &Parsed,
    environment: &Environment,
    reach: Reach,
) -> Result<ClientSettings, Complaint> {
    let mut file = find_file(parsed, environment)?;
    let mut unused = vec![SIGNING_SECRET];
    unused.extend(environment.names_token().then_some(BOT_TOKEN));
    let optional: &[&str] = match reach {
        Reach::Posts => &[],
        Reach::Updates | Reach::Looks => &[BOT_TOKEN],
    };
    file.expand(environment, &unused, optional)?;
    let sources = Sources {
        parsed,
        environment,
        file: &file,
    };
    Ok(ClientSettings {
        site: site(&sources, Some(reach))?,
        verify_key: seal::verify_key(&sources)?,
        terms: terms(&sources, reach)?,
        require_approval: safety::require_approval(&file)?,
        warnings: file.warnings.clone(),
    })
}

/// Settles what the Slack app has to be.
///
/// # Errors
/// The address is missing, or anything is wrong in options, environment or file: exit 2.
pub fn app(parsed: &Parsed, environment: &Environment) -> Result<AppSettings, Complaint> {
    let mut file = find_file(parsed, environment)?;
    // The app is made before there are secrets.
    file.expand(environment, &[BOT_TOKEN, SIGNING_SECRET], &[])?;
    let sources = Sources {
        parsed,
        environment,
        file: &file,
    };
    if parsed.value("--url").is_none() && !file.has("webhook.publicUrl") {
        return Err(
            Complaint::usage("--url is missing: Slack has to know where the server is")
                .hint("--url https://HOST, or webhook.publicUrl in the configuration"),
        );
    }
    let policy = safety::policy(&file)?;
    let groups = policy.levels.iter().any(|rule| !rule.groups.is_empty());
    Ok(AppSettings {
        name: sources.settle("--name", "a name of 1 to 35 characters", AppName::parse)?,
        url: sources.settle(
            "--url",
            "https://HOST, without a query and without /slack",
            PublicUrl::parse,
        )?,
        needs: if groups { Needs::Groups } else { Needs::Basics },
        warnings: file.warnings.clone(),
    })
}

/// By what terms decisions are taken and Slack and agents are spoken to.
fn terms(sources: &Sources<'_>, reach: Reach) -> Result<Terms, Complaint> {
    let (environment, file) = (sources.environment, sources.file);
    let bot_token = bot_token(sources, reach)?;
    let channel = channel(sources)?;
    // Who only looks may not be allowed to read the secrets.
    let secret = match environment.secret("RUNBOOK_CALLBACK_SECRET") {
        Err(_) if reach == Reach::Looks => None,
        secret => secret?,
    };
    let caller = caller(environment)?;
    Ok(Terms {
        slack: Client::new(api_base(environment)?, bot_token, caller.clone()),
        callbacks: Callbacks {
            caller,
            secret: secret.as_deref().and_then(SigningSecret::new),
        },
        policy: safety::policy(file)?,
        channel,
        mention: mention(file)?,
        remind_before: remind_before(file)?,
        timeout: safety::timeout(file)?,
    })
}

/// The bot token, if there is one.
fn bot_token(sources: &Sources<'_>, reach: Reach) -> Result<Option<BotToken>, Complaint> {
    let token = match sources.environment.secret("SLACK_BOT_TOKEN") {
        Err(_) if reach == Reach::Looks => None,
        token => token?,
    };
    let token = match token {
        Some(token) => Some(token),
        None => sources.file.text(BOT_TOKEN)?,
    };
    let Some(text) = token.filter(|text| !text.trim().is_empty()) else {
        return Ok(None);
    };
    BotToken::new(&text).map(Some).ok_or_else(|| {
        Complaint::usage("the bot token has characters that no token has")
            .hint("copy it again from Slack")
    })
}

/// The channel of requests that name none.
fn channel(sources: &Sources<'_>) -> Result<Option<String>, Complaint> {
    let (environment, file) = (sources.environment, sources.file);
    let channel = match file.text("incident.slack.approvalChannel")? {
        None => environment
            .value("SLACK_DEFAULT_CHANNEL")
            .map_err(Complaint::usage)?,
        channel => channel,
    };
    let channel = match channel {
        None => file.text("incident.slack.defaultChannel")?,
        channel => channel,
    };
    Ok(channel.filter(|channel| !channel.is_empty()))
}

/// What Slack's signatures are made with; none when nothing says.
fn signing_secrets(sources: &Sources<'_>) -> Result<Vec<SigningSecret>, Complaint> {
    if let Some(text) = sources.environment.secret("SLACK_SIGNING_SECRET")? {
        return Ok(text.lines().filter_map(SigningSecret::new).collect());
    }
    let expected = "text or a list of texts";
    let listed = sources
        .file
        .list(SIGNING_SECRET, expected, SigningSecret::new)?;
    Ok(listed.unwrap_or_default())
}

fn no_signing_secret() -> Complaint {
    Complaint::usage("there is no signing secret, so no request could be believed")
        .hint("set SLACK_SIGNING_SECRET; Slack shows it under Basic Information of the app")
}

/// Who is notified of a request.
fn mention(file: &ConfigFile) -> Result<Vec<Mention>, Complaint> {
    const KEY: &str = "approvals.mention";
    // Blocks have room for so many.
    const MOST: usize = 20;
    let expected =
        "a list of Slack user ids (U… or W…) and user group ids (S…), not names or handles";
    let mut mention = file
        .list(KEY, expected, Mention::parse)?
        .unwrap_or_default();
    let mut seen = HashSet::new();
    mention.retain(|one| seen.insert(one.clone()));
    if mention.len() > MOST {
        let what = format!("names more than {MOST}; a user group names many at once");
        return Err(file.complain_about(KEY, &what));
    }
    Ok(mention)
}

/// How long before a request expires people are reminded of it; zero for never.
fn remind_before(file: &ConfigFile) -> Result<Duration, Complaint> {
    const LONGEST: u64 = 366 * 24 * 3600 * 1000;
    let expected = "a number of milliseconds, at most a year";
    let millis = file.parsed("approvals.remindBeforeMs", expected, |text| {
        text.parse().ok().filter(|millis| *millis <= LONGEST)
    })?;
    Ok(Duration::from_millis(millis.unwrap_or(0)))
}

/// The three places where an option's value may come from.
struct Sources<'a> {
    parsed: &'a Parsed,
    environment: &'a Environment,
    file: &'a ConfigFile,
}

impl Sources<'_> {
    /// The first of option, variable, key and default, with its meaning.
    fn settle<T>(
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

fn option_or_default(parsed: &Parsed, name: &str) -> Result<String, Complaint> {
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
fn named_file<'a>(parsed: &'a Parsed, environment: &'a Environment) -> Option<&'a Path> {
    let variable = environment.os_value("RUNBOOK_CONFIG");
    let named = parsed.value("--config");
    named.or(variable.map(OsString::as_os_str)).map(Path::new)
}

/// The file that was named, or the first that is there; an empty one when there is none.
fn find_file(parsed: &Parsed, environment: &Environment) -> Result<ConfigFile, Complaint> {
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

/// Where what is needed for a moment may stand.
pub fn temporary_dir(environment: &Environment) -> PathBuf {
    let named = environment.os_value("TMPDIR");
    named.map_or("/tmp".into(), PathBuf::from)
}

/// Where approvals and the audit log are; the server has no reach of a command's.
fn site(sources: &Sources<'_>, reach: Option<Reach>) -> Result<Site, Complaint> {
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
        key: seal::sign_key(sources, reach)?,
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

fn public_url(file: &ConfigFile) -> Result<String, Complaint> {
    let url = file.parsed(
        "webhook.publicUrl",
        "a URL such as https://runbook.example.com",
        |text| {
            let rest = text
                .strip_prefix("https://")
                .or(text.strip_prefix("http://"))?;
            (!rest.is_empty() && !text.contains(char::is_whitespace))
                .then(|| text.trim_end_matches('/').to_owned())
        },
    )?;
    Ok(url.unwrap_or_else(|| "https://your-domain.com".into()))
}

fn api_base(environment: &Environment) -> Result<api::Base, Complaint> {
    let url = environment
        .value("SLACK_API_URL")
        .map_err(Complaint::usage)?;
    let url = url.unwrap_or_else(|| api::DEFAULT_BASE.into());
    api::Base::parse(&url).ok_or_else(|| // It may hold a password, so it is not repeated.
        Complaint::usage("SLACK_API_URL is no http or https URL, or has a user or a query in it"))
}

/// What calls Slack and agents.
fn caller(environment: &Environment) -> Result<Caller, Complaint> {
    Ok(Caller::new(proxy(environment)?, roots(environment)?))
}

fn proxy(environment: &Environment) -> Result<Option<Proxy>, Complaint> {
    let either = |upper: &str, lower: &str| {
        let value = environment.value(upper).map_err(Complaint::usage)?;
        Ok::<_, Complaint>(value.or(environment.value(lower).map_err(Complaint::usage)?))
    };
    let Some(url) = either("HTTPS_PROXY", "https_proxy")? else {
        return Ok(None);
    };
    let except = either("NO_PROXY", "no_proxy")?.unwrap_or_default();
    // The URL may hold a password, so it is not repeated.
    Proxy::parse(&url, &except).map(Some).ok_or_else(|| {
        Complaint::usage("HTTPS_PROXY is no proxy URL")
            .hint("such as http://proxy.example.com:3128")
    })
}

/// `HOST:PORT`, an IPv6 host in brackets.
fn host_and_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let plain = !host.is_empty() && (host.starts_with('[') || !host.contains(':'));
    Some((host.to_owned(), port.parse().ok().filter(|_| plain)?))
}

/// Who is believed about whose a host is. Somebody who names a file means that nobody else is.
fn roots(environment: &Environment) -> Result<Roots, Complaint> {
    let Some(pem) = environment.file("SSL_CERT_FILE", LARGEST_BUNDLE)? else {
        return Ok(Roots::default());
    };
    Roots::parse(&pem).map_err(|why| {
        let shown = environment
            .os_value("SSL_CERT_FILE")
            .map(|path| path.display().to_string());
        let shown = shown.unwrap_or_default();
        Complaint::usage(format!("cannot use SSL_CERT_FILE {shown}: {why}")).hint(
            "it must hold PEM certificates of authorities; unset it for those that are built in",
        )
    })
}

/// The two files for TLS. One without the other is a mistake that must not end in plain HTTP.
fn tls(parsed: &Parsed) -> Result<Option<PairPaths>, Complaint> {
    let path = |name| parsed.value(name).map(PathBuf::from);
    match (path("--tls-cert"), path("--tls-key")) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => Ok(Some(PairPaths { certificate, key })),
        (Some(_), None) => Err(Complaint::usage("--tls-cert needs --tls-key as well")),
        (None, Some(_)) => Err(Complaint::usage("--tls-key needs --tls-cert as well")),
    }
}

/// An id of Slack's that begins with this letter.
fn slack_id(file: &ConfigFile, path: &str, letter: char) -> Result<Option<String>, Complaint> {
    let expected = format!("a Slack id that begins with {letter}");
    file.parsed(path, &expected, |text| {
        is_slack_id(text, &[letter]).then(|| text.to_owned())
    })
}

fn networks(file: &ConfigFile, path: &str) -> Result<Vec<Network>, Complaint> {
    Ok(file
        .list(
            path,
            "a list of networks such as 10.0.0.0/8",
            Network::parse,
        )?
        .unwrap_or_default())
}

fn limits(file: &ConfigFile) -> Result<Limits, Complaint> {
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

/// The fuzzer's door. Reads a configuration's text for all that it says.
#[cfg(fuzzing)]
#[doc(hidden)]
pub fn fuzz(text: &str) {
    let Ok(mut file) = ConfigFile::parse(Path::new("config.yaml"), text) else {
        return;
    };
    let parts = [
        file.expand(&Environment::default(), &[], &[]),
        limits(&file).map(drop),
        safety::policy(&file).map(drop),
        networks(&file, "webhook.trustedProxies").map(drop),
        public_url(&file).map(drop),
    ];
    for complaint in parts.into_iter().filter_map(Result::err) {
        assert!(complaint.to_string().contains("config.yaml"), "{complaint}");
    }
}
