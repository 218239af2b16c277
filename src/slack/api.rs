//! Calls to Slack's Web API and to `response_url`, blocking, through ureq.
//!
//! Sources: <https://docs.slack.dev/apis/web-api/> and
//! <https://docs.slack.dev/interactivity/handling-user-interaction#message_responses>

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use ureq::http::Uri;

use super::message::Message;
use crate::complaint::reason;
use crate::metrics::{self, Counter};

/// Where Slack's Web API is.
pub const DEFAULT_BASE: &str = "https://slack.com/api/";
/// How long a connection may take to stand.
const CONNECT: Duration = Duration::from_secs(3);
/// How long a whole call may take.
const CALL: Duration = Duration::from_secs(10);
/// Bytes of an answer that are read.
const ANSWER: u64 = 1 << 20;
/// The `Retry-After` that is believed, from and to.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// The pause after a 429 that does not say.
const UNKNOWN_WAIT: Duration = Duration::from_secs(30);

/// A bot token. It cannot be displayed.
#[derive(Clone)]
pub struct BotToken(Box<str>);

impl BotToken {
    /// `None` when it is empty or cannot stand in a header.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic())).then(|| Self(text.into()))
    }
}

impl fmt::Debug for BotToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BotToken(..)")
    }
}

/// The base URL of Slack's Web API, with a slash at its end.
#[derive(Clone, Debug)]
pub struct Base {
    url: String,
    origin: String,
}

impl Base {
    /// `None` when it is no absolute `http` or `https` URL.
    pub fn parse(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        let scheme = uri
            .scheme_str()
            .filter(|scheme| matches!(*scheme, "http" | "https"))?;
        let authority = uri
            .authority()
            .filter(|authority| !authority.as_str().contains('@'))?;
        let origin = format!("{scheme}://{authority}/");
        let slash = if text.ends_with('/') { "" } else { "/" };
        uri.query().is_none().then(|| Self {
            url: format!("{text}{slash}"),
            origin,
        })
    }

    /// Whether a `response_url` may be called: it is Slack's own, or of the very scheme, host and
    /// port of this base. What a payload says must not send us anywhere else.
    pub fn admits(&self, response_url: &str) -> bool {
        response_url.starts_with("https://hooks.slack.com/")
            || response_url.starts_with(&self.origin)
    }
}

/// A proxy for all calls.
#[derive(Clone, Debug)]
pub struct Proxy(ureq::Proxy);

impl Proxy {
    /// From `HTTPS_PROXY` and `NO_PROXY`. `None` when the URL is none that we can use.
    pub fn parse(url: &str, except: &str) -> Option<Self> {
        let given = ureq::Proxy::new(url).ok()?;
        let mut builder = ureq::Proxy::builder(given.protocol())
            .host(given.host())
            .port(given.port());
        if let Some(username) = given.username() {
            builder = builder.username(username);
        }
        if let Some(password) = given.password() {
            builder = builder.password(password);
        }
        for host in except
            .split(',')
            .map(str::trim)
            .filter(|host| !host.is_empty())
        {
            builder = builder.no_proxy(host);
        }
        builder.build().ok().map(Self)
    }
}

/// Why a call did not do what it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError {
    /// Slack will not do it, however often it is asked. Slack's word for why.
    Refused(String),
    /// Slack wants to be left alone for that long.
    Limited(Duration),
    /// It may work later.
    Failed(String),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => write!(f, "refused: {error}"),
            Self::Limited(wait) => write!(f, "rate limited for {} s", wait.as_secs()),
            Self::Failed(error) => f.write_str(error),
        }
    }
}

/// Speaks to Slack. One for the whole process: connections are kept and shared.
pub struct Client {
    agent: ureq::Agent,
    base: Base,
    token: Option<BotToken>,
    last: Mutex<Option<String>>,
}

impl Client {
    pub fn new(base: Base, token: Option<BotToken>, proxy: Option<Proxy>) -> Self {
        // HTTPS_PROXY is for https only, as everywhere.
        let proxy = proxy.filter(|_| base.url.starts_with("https:"));
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(CONNECT))
            .timeout_global(Some(CALL))
            .proxy(proxy.map(|proxy| proxy.0))
            .user_agent(concat!("runbook/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Self {
            agent,
            base,
            token,
            last: Mutex::new(None),
        }
    }

    /// Whether it can call the Web API at all.
    pub fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Whether a `response_url` may be called; see [`Base::admits`].
    pub fn admits(&self, response_url: &str) -> bool {
        self.base.admits(response_url)
    }

    /// How the last call went: `ok`, or what went wrong.
    pub fn last_result(&self) -> Option<String> {
        self.last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// `chat.update`: replaces a message.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn update_message(
        &self,
        channel: &str,
        ts: &str,
        message: &Message,
    ) -> Result<(), CallError> {
        // Names in the text are never to become mentions; old attachments go with the old blocks.
        self.call(
            "chat.update",
            &json!({ "channel": channel, "ts": ts, "text": message.text,
            "blocks": message.blocks, "attachments": [], "link_names": false }),
        )
    }

    /// Replaces the message that a `response_url` belongs to.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn replace_original(&self, response_url: &str, message: &Message) -> Result<(), CallError> {
        self.respond(
            response_url,
            &json!({ "replace_original": true, "text": message.text,
            "blocks": message.blocks, "attachments": [] }),
        )
    }

    /// Tells the person who clicked, and nobody else.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn tell_privately(&self, response_url: &str, text: &str) -> Result<(), CallError> {
        self.respond(
            response_url,
            &json!({ "response_type": "ephemeral", "replace_original": false, "text": text }),
        )
    }

    fn call(&self, method: &'static str, arguments: &Value) -> Result<(), CallError> {
        let Some(token) = &self.token else {
            return Err(CallError::Refused("there is no bot token".into()));
        };
        let request = self.agent.post(format!("{}{method}", self.base.url));
        let request = request.header("Authorization", format!("Bearer {}", token.0));
        self.noted(
            method,
            send(request, arguments).and_then(|(_, body)| verdict(&body)),
        )
    }

    fn respond(&self, response_url: &str, body: &Value) -> Result<(), CallError> {
        if !self.admits(response_url) {
            return Err(CallError::Refused("the response_url is not Slack's".into()));
        }
        let sent = send(self.agent.post(response_url), body);
        self.noted(
            "response_url",
            sent.and_then(|(status, body)| match status {
                // It answers `ok`, or JSON of the Web API's form.
                200..=299 if body.trim_ascii() == b"ok" || body.is_empty() => Ok(()),
                200..=299 => verdict(&body),
                _ => Err(CallError::Refused(format!(
                    "the response_url answered {status}"
                ))),
            }),
        )
    }

    fn noted(&self, method: &'static str, result: Result<(), CallError>) -> Result<(), CallError> {
        metrics::count(Counter::SlackCalls {
            method,
            result: match &result {
                Ok(()) => "ok",
                Err(CallError::Refused(_)) => "refused",
                Err(CallError::Limited(_)) => "limited",
                Err(CallError::Failed(_)) => "failed",
            },
        });
        let word = result
            .as_ref()
            .map_or_else(ToString::to_string, |()| "ok".to_owned());
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(word);
        result
    }
}

type Post = ureq::RequestBuilder<ureq::typestate::WithBody>;

/// Sends JSON. Answers that ask for patience are errors; any other comes back with its status.
fn send(request: Post, body: &Value) -> Result<(u16, Vec<u8>), CallError> {
    let sent = request
        .header("Content-Type", "application/json; charset=utf-8")
        .send(body.to_string());
    let mut response = sent.map_err(|error| CallError::Failed(describe(&error)))?;
    let status = response.status().as_u16();
    let wait = response
        .headers()
        .get("retry-after")
        .and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let wait = wait.map(|seconds| Duration::from_secs(seconds).clamp(SHORTEST_WAIT, LONGEST_WAIT));
    if let (429, wait) | (503, wait @ Some(_)) = (status, wait) {
        return Err(CallError::Limited(wait.unwrap_or(UNKNOWN_WAIT)));
    }
    if status >= 500 || status == 408 {
        return Err(CallError::Failed(format!("HTTP status {status}")));
    }
    let body = response
        .body_mut()
        .with_config()
        .limit(ANSWER)
        .read_to_vec();
    Ok((
        status,
        body.map_err(|error| CallError::Failed(describe(&error)))?,
    ))
}

/// What the Web API's `{"ok":…,"error":…}` means.
fn verdict(body: &[u8]) -> Result<(), CallError> {
    #[derive(Deserialize)]
    struct Answer {
        ok: bool,
        error: Option<String>,
    }
    match serde_json::from_slice(body) {
        Ok(Answer { ok: true, .. }) => Ok(()),
        Ok(Answer {
            error: Some(error), ..
        }) if is_permanent(&error) => Err(CallError::Refused(error)),
        Ok(Answer { error, .. }) => Err(CallError::Failed(
            error.unwrap_or_else(|| "no reason given".into()),
        )),
        Err(_) => Err(CallError::Failed("the answer is not Slack's".into())),
    }
}

/// Errors that stay however often we ask. Any other is tried again, for Slack may add new ones.
/// Source: <https://docs.slack.dev/reference/methods/chat.update>
fn is_permanent(error: &str) -> bool {
    const PERMANENT: &[&str] = &[
        "account_inactive",
        "as_user_not_supported",
        "block_mismatch",
        "cant_update_message",
        "channel_not_found",
        "edit_window_closed",
        "enterprise_is_restricted",
        "expired_url",
        "invalid_arguments",
        "invalid_attachments",
        "invalid_auth",
        "invalid_blocks",
        "invalid_blocks_format",
        "is_archived",
        "is_inactive",
        "message_not_found",
        "missing_scope",
        "msg_blocks_too_long",
        "msg_too_long",
        "no_permission",
        "no_text",
        "not_allowed_token_type",
        "not_authed",
        "not_in_channel",
        "org_login_required",
        "restricted_action",
        "token_expired",
        "token_revoked",
        "too_many_attachments",
        "two_factor_setup_required",
        "unknown_method",
        "used_url",
    ];
    PERMANENT.contains(&error)
}

/// An error of ours for the log: never the URL, which may be a secret.
fn describe(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(_) => "timed out".into(),
        ureq::Error::HostNotFound => "host not found".into(),
        ureq::Error::ConnectionFailed => "connection failed".into(),
        ureq::Error::Io(error) => format!("connection failed: {}", reason(error)),
        ureq::Error::BadUri(_) => "the URL cannot be used".into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_slack_and_the_configured_origin_are_called_back() {
        let base = Base::parse("http://127.0.0.1:8080/api").unwrap();
        assert_eq!(base.url, "http://127.0.0.1:8080/api/");
        for good in [
            "https://hooks.slack.com/actions/T1/2/x",
            "http://127.0.0.1:8080/actions/1",
        ] {
            assert!(base.admits(good), "{good}");
        }
        for bad in [
            "http://hooks.slack.com/actions/1",
            "https://hooks.slack.com.evil.example/",
            "https://hooks.slack.com@evil.example/",
            "http://127.0.0.1:80801/",
            "http://127.0.0.1:8081/",
            "https://127.0.0.1:8080/",
            "file:///etc/passwd",
            "",
        ] {
            assert!(!base.admits(bad), "{bad}");
        }
        for bad in [
            "slack.com/api",
            "ftp://slack.com/",
            "https://u:p@slack.com/api/",
            "https://slack.com/api/?x=1",
        ] {
            assert!(Base::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_refusal_is_told_from_a_passing_trouble() {
        assert_eq!(verdict(br#"{"ok":true,"ts":"1"}"#), Ok(()));
        assert_eq!(
            verdict(br#"{"ok":false,"error":"channel_not_found"}"#),
            Err(CallError::Refused("channel_not_found".into()))
        );
        for passing in [
            r#"{"ok":false,"error":"internal_error"}"#,
            r#"{"ok":false}"#,
            "<html>",
            "",
            "[]",
        ] {
            assert!(
                matches!(verdict(passing.as_bytes()), Err(CallError::Failed(_))),
                "{passing}"
            );
        }
    }

    #[test]
    fn a_token_cannot_be_printed_or_break_a_header() {
        assert_eq!(
            format!("{:?}", BotToken::new("xoxb-1")),
            "Some(BotToken(..))"
        );
        assert!(BotToken::new("xoxb-1\r\nX: y").is_none());
    }
}
