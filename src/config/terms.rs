//! By what terms decisions are taken and Slack and agents are spoken to: what the server and the commands have in
//! common.

use std::collections::HashSet;
use std::time::Duration;

use super::environment::Environment;
use super::file::ConfigFile;
use super::safety;
use super::sources::Sources;
use crate::complaint::Complaint;
use crate::effects::{Callbacks, Terms};
use crate::outgoing::{Caller, Proxy, Roots};
use crate::slack::api::{self, BotToken, Client};
use crate::slack::signature::SigningSecret;
use crate::slack::text::Mention;

pub(super) const BOT_TOKEN: &str = "incident.slack.botToken";
pub(super) const SIGNING_SECRET: &str = "incident.slack.signingSecret";
/// The largest file of authorities, in bytes; Debian's has 220,000.
const LARGEST_BUNDLE: u64 = 1 << 23;

/// How far a command goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// It decides what people click.
    Serves,
    /// It posts to Slack.
    Posts,
    /// It changes what Slack shows, if it can.
    Updates,
    /// It only looks at the directory.
    Looks,
}

/// By what terms decisions are taken and Slack and agents are spoken to.
pub(super) fn terms(sources: &Sources<'_>, reach: Reach) -> Result<Terms, Complaint> {
    let (environment, file) = (sources.environment, sources.file);
    let caller = caller(environment)?;
    let slack = slack(sources, reach, caller.clone())?;
    let channel = channel(sources)?;
    // Who only looks may not be allowed to read the secrets.
    let secret = match environment.secret("RUNBOOK_CALLBACK_SECRET") {
        Err(_) if reach == Reach::Looks => None,
        secret => secret?,
    };
    Ok(Terms {
        slack,
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

/// Whoever calls Slack; it may have no token.
pub(super) fn slack(
    sources: &Sources<'_>,
    reach: Reach,
    caller: Caller,
) -> Result<Client, Complaint> {
    let token = bot_token(sources, reach)?;
    Ok(Client::new(api_base(sources.environment)?, token, caller))
}

/// The bot token, if there is one.
fn bot_token(sources: &Sources<'_>, reach: Reach) -> Result<Option<BotToken>, Complaint> {
    let token = match sources.environment.secret("SLACK_BOT_TOKEN") {
        // A server, which has it, does what is left.
        Err(_) if matches!(reach, Reach::Updates | Reach::Looks) => None,
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
pub(super) fn channel(sources: &Sources<'_>) -> Result<Option<String>, Complaint> {
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

fn api_base(environment: &Environment) -> Result<api::Base, Complaint> {
    let url = environment
        .value("SLACK_API_URL")
        .map_err(Complaint::usage)?;
    let url = url.unwrap_or_else(|| api::DEFAULT_BASE.into());
    api::Base::parse(&url).ok_or_else(|| // It may hold a password, so it is not repeated.
        Complaint::usage("SLACK_API_URL is no http or https URL, or has a user or a query in it"))
}

/// What calls Slack and agents.
pub(super) fn caller(environment: &Environment) -> Result<Caller, Complaint> {
    Ok(Caller::new(proxy(environment)?, roots(environment)?))
}

pub(super) fn proxy(environment: &Environment) -> Result<Option<Proxy>, Complaint> {
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

/// Who is believed about whose a host is. Somebody who names a file means that nobody else is.
pub(super) fn roots(environment: &Environment) -> Result<Roots, Complaint> {
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
