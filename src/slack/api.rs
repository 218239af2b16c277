//! Calls to Slack's Web API and to `response_url`, blocking, through ureq.
//!
//! Sources: <https://docs.slack.dev/apis/web-api/> and
//! <https://docs.slack.dev/interactivity/handling-user-interaction#message_responses>

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::message::Message;
use crate::approval::{GroupId, UserId};
use crate::clock::{self, Timestamp};
use crate::metrics::{self, Counter};
use crate::outgoing::{Body, CALL, CallError, Caller, Url};

/// Where Slack's Web API is.
pub const DEFAULT_BASE: &str = "https://slack.com/api/";
/// How long an answer may take that a clicker waits for: they are to have theirs within 5 s.
const ASK: Duration = Duration::from_secs(4);

/// A bot token. It cannot be displayed.
#[derive(Clone, PartialEq, Eq)]
pub struct BotToken(Box<str>);

impl BotToken {
    /// `None` when it is empty or cannot stand in a header.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic())).then(|| Self(text.into()))
    }
}

/// Which of Slack's kinds a token is, by how it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    Bot,
    /// `xoxp-`: it acts as a person.
    User,
    /// `xapp-`: it cannot call these methods.
    App,
    Unknown,
}

impl BotToken {
    pub fn kind(&self) -> TokenKind {
        let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| self.0.starts_with(prefix));
        match () {
            () if begins(&["xoxb-", "xoxe.xoxb-"]) => TokenKind::Bot,
            () if begins(&["xoxp-", "xoxe.xoxp-"]) => TokenKind::User,
            () if begins(&["xapp-"]) => TokenKind::App,
            () => TokenKind::Unknown,
        }
    }
}

impl fmt::Debug for BotToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BotToken(..)")
    }
}

/// The base URL of Slack's Web API, with a slash at its end.
#[derive(Clone, Debug)]
pub struct Base(Url);

impl Base {
    /// `None` when it is no absolute `http` or `https` URL, or has a user or a query.
    pub fn parse(text: &str) -> Option<Self> {
        let slash = if text.ends_with('/') { "" } else { "/" };
        let url = Url::parse(&format!("{text}{slash}"))?;
        (!text.contains(['?', '#'])).then_some(Self(url))
    }

    /// Whether a `response_url` may be called: it is Slack's own, or of the very scheme, host and
    /// port of this base. What a payload says must not send us anywhere else.
    pub fn admits(&self, response_url: &str) -> bool {
        response_url.starts_with("https://hooks.slack.com/")
            || response_url.starts_with(self.0.origin())
    }
}

/// Speaks to Slack. One for the whole process: connections are kept and shared.
#[derive(Debug)]
pub struct Client {
    caller: Caller,
    base: Base,
    token: Option<BotToken>,
    off: bool,
    last: Mutex<Option<String>>,
    /// What Slack wants to be left alone with, and until when.
    held: Mutex<HashMap<Limit, Instant>>,
}

/// What Slack limits: a method, and posting in each channel by itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Limit {
    method: &'static str,
    channel: Option<String>,
}

/// Where a message was posted: the conversation's id, and the message's `ts`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Posted {
    pub channel: String,
    pub ts: String,
}

impl Client {
    pub fn new(base: Base, token: Option<BotToken>, caller: Caller) -> Self {
        Self {
            caller,
            base,
            token,
            off: false,
            last: Mutex::new(None),
            held: Mutex::default(),
        }
    }

    /// Calls Slack no more, whatever is asked.
    pub fn switch_off(&mut self) {
        self.off = true;
        self.token = None;
    }

    pub fn is_off(&self) -> bool {
        self.off
    }

    /// Whether it can call the Web API at all.
    pub fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// What kind of token it has.
    pub fn token_kind(&self) -> Option<TokenKind> {
        self.token.as_ref().map(BotToken::kind)
    }

    /// Whether another one has the same token, or has none either.
    pub fn has_token_of(&self, other: &Self) -> bool {
        self.token == other.token
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

    /// `chat.postMessage`: shows a message in a channel, given by id or name.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn post_message(&self, channel: &str, message: &Message) -> Result<Posted, CallError> {
        self.call(
            "chat.postMessage",
            &json!({ "channel": channel, "text": message.text, "blocks": message.blocks,
            "link_names": false, "unfurl_links": false, "unfurl_media": false }),
        )
    }

    /// `chat.postMessage`: says something in a message's thread, and not in the channel.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn post_reply(
        &self,
        channel: &str,
        thread_ts: &str,
        message: &Message,
    ) -> Result<(), CallError> {
        let Nothing {} = self.call(
            "chat.postMessage",
            &json!({ "channel": channel, "thread_ts": thread_ts, "text": message.text,
            "blocks": message.blocks, "link_names": false, "unfurl_links": false,
            "unfurl_media": false }),
        )?;
        Ok(())
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
        let Nothing {} = self.call(
            "chat.update",
            &json!({ "channel": channel, "ts": ts, "text": message.text,
            "blocks": message.blocks, "attachments": [], "link_names": false }),
        )?;
        Ok(())
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

    /// `views.open`: opens a dialog for whoever has just clicked.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn open_view(&self, trigger_id: &str, view: &Value) -> Result<(), CallError> {
        let arguments = json!({ "trigger_id": trigger_id, "view": view });
        let body = Body::Json(arguments.to_string());
        let Nothing {} = self.post(Limit::of("views.open"), body, ASK)?;
        Ok(())
    }

    /// `auth.test`: whose the token is.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn identify(&self) -> Result<Identity, CallError> {
        let identity: Identity = self.ask("auth.test", &[])?;
        match (&identity.team_id, &identity.enterprise_id) {
            (None, None) => Err(CallError::Failed("the answer does not say".into())),
            _ => Ok(identity),
        }
    }

    /// `auth.test`, with all that its answer tells about the token and about Slack's clock.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn introduce(&self) -> Result<Introduction, CallError> {
        let Some(token) = &self.token else {
            return Err(CallError::Refused("there is no bot token".into()));
        };
        let url = format!("{}auth.test", self.base.0.as_str());
        let authorization = ("Authorization", &*format!("Bearer {}", token.0));
        let reply =
            self.caller
                .exchange(&url, &[authorization], Body::Form(String::new()), CALL)?;
        let named = verdict(&reply.body);
        Ok(Introduction {
            named,
            scopes: reply.scopes,
            date: reply.date,
        })
    }

    /// `usergroups.users.list`: the members of a user group.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn group_members(&self, group: &GroupId) -> Result<Vec<String>, CallError> {
        #[derive(Deserialize)]
        struct Answer {
            users: Vec<String>,
        }
        let answer: Answer = self.ask("usergroups.users.list", &[("usergroup", group.as_str())])?;
        Ok(answer.users)
    }

    /// `users.info`: whether a person is a guest of the workspace.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn is_guest(&self, user: &str) -> Result<bool, CallError> {
        #[derive(Deserialize)]
        struct Answer {
            user: User,
        }
        #[derive(Deserialize)]
        struct User {
            is_restricted: Option<bool>,
            is_ultra_restricted: Option<bool>,
        }
        let Answer { user } = self.ask("users.info", &[("user", user)])?;
        match (user.is_restricted, user.is_ultra_restricted) {
            (None, None) => Err(CallError::Failed("the answer does not say".into())),
            (single, ultra) => Ok(single == Some(true) || ultra == Some(true)),
        }
    }

    /// `chat.postEphemeral`: tells one person in a channel, and nobody else.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn tell_in_channel(&self, channel: &str, user: &str, text: &str) -> Result<(), CallError> {
        let Nothing {} = self.call(
            "chat.postEphemeral",
            &json!({ "channel": channel, "user": user, "text": text, "link_names": false }),
        )?;
        Ok(())
    }

    /// `views.publish`: shows a person's Home tab.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn publish_home(&self, user: &UserId, view: &Value) -> Result<(), CallError> {
        let Nothing {} = self.call(
            "views.publish",
            &json!({ "user_id": user.as_str(), "view": view }),
        )?;
        Ok(())
    }

    fn call<T: DeserializeOwned>(
        &self,
        method: &'static str,
        arguments: &Value,
    ) -> Result<T, CallError> {
        let mut limit = Limit::of(method);
        if method == "chat.postMessage" {
            limit.channel = arguments["channel"].as_str().map(str::to_owned);
        }
        self.post(limit, Body::Json(arguments.to_string()), CALL)
    }

    /// Reads something that a person waits for. These methods look at no JSON.
    fn ask<T: DeserializeOwned>(
        &self,
        method: &'static str,
        arguments: &[(&str, &str)],
    ) -> Result<T, CallError> {
        let form = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(arguments)
            .finish();
        self.post(Limit::of(method), Body::Form(form), ASK)
    }

    /// Calls a method, unless Slack wants to be left alone with it: then it is not asked.
    fn post<T: DeserializeOwned>(
        &self,
        limit: Limit,
        body: Body,
        within: Duration,
    ) -> Result<T, CallError> {
        let method = limit.method;
        if let Some(until) = self.held().get(&limit) {
            let left = until.saturating_duration_since(clock::tick());
            if !left.is_zero() {
                return Err(CallError::Limited(left));
            }
        }
        let Some(token) = &self.token else {
            return Err(CallError::Refused("there is no bot token".into()));
        };
        let url = format!("{}{method}", self.base.0.as_str());
        let authorization = ("Authorization", &*format!("Bearer {}", token.0));
        let sent = self.caller.post(&url, &[authorization], body, within);
        if let Err(CallError::Limited(pause)) = sent {
            let now = clock::tick();
            let mut held = self.held();
            held.retain(|_, until| *until > now);
            held.insert(limit, now + pause);
        }
        self.noted(method, sent.and_then(|(_, body)| verdict(&body)))
    }

    fn held(&self) -> MutexGuard<'_, HashMap<Limit, Instant>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn respond(&self, response_url: &str, body: &Value) -> Result<(), CallError> {
        if self.off {
            return Err(CallError::Failed("Slack is switched off".into()));
        }
        if !self.admits(response_url) {
            return Err(CallError::Refused("the response_url is not Slack's".into()));
        }
        let body = Body::Json(body.to_string());
        let sent = self.caller.post(response_url, &[], body, CALL);
        self.noted(
            "response_url",
            sent.and_then(|(status, body)| match status {
                // It answers `ok`, or JSON of the Web API's form.
                200..=299 if body.trim_ascii() == b"ok" || body.is_empty() => Ok(()),
                200..=299 => verdict(&body).map(|Nothing {}| ()),
                _ => Err(CallError::Refused(format!(
                    "the response_url answered {status}"
                ))),
            }),
        )
    }

    fn noted<T>(&self, method: &'static str, result: Result<T, CallError>) -> Result<T, CallError> {
        metrics::count(Counter::SlackCalls {
            method,
            result: match &result {
                Ok(_) => "ok",
                Err(CallError::Refused(_)) => "refused",
                Err(CallError::Limited(_)) => "limited",
                Err(CallError::Failed(_)) => "failed",
            },
        });
        let word = result
            .as_ref()
            .map_or_else(ToString::to_string, |_| "ok".to_owned());
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(word);
        result
    }
}

impl Limit {
    fn of(method: &'static str) -> Self {
        Self {
            method,
            channel: None,
        }
    }
}

/// Whose a token is, as `auth.test` says.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Identity {
    pub team_id: Option<String>,
    pub enterprise_id: Option<String>,
}

/// What Slack says when a token introduces itself.
#[derive(Debug)]
pub struct Introduction {
    /// Whose the token is, or Slack's word for why it is nobody's.
    pub named: Result<Names, CallError>,
    /// What the token may do.
    pub scopes: Option<Vec<String>>,
    /// Slack's clock.
    pub date: Option<Timestamp>,
}

/// A workspace and a bot, by the names that people know.
#[derive(Debug, Deserialize)]
pub struct Names {
    pub team: Option<String>,
    pub user: Option<String>,
}

impl Identity {
    /// Whether a team is the workspace, or the organisation that it belongs to.
    pub fn is_home(&self, team: &str) -> bool {
        [&self.team_id, &self.enterprise_id]
            .iter()
            .any(|own| own.as_deref() == Some(team))
    }
}

/// What we take from an answer that says no more than that it is well.
#[derive(Deserialize)]
struct Nothing {}

/// The fuzzer's door. Reads what may be an answer of Slack's for everything that we ask.
#[cfg(fuzzing)]
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) {
    let _ = verdict::<Posted>(bytes);
    let _ = verdict::<Value>(bytes);
    let _ = verdict::<Identity>(bytes);
}

/// What the Web API's `{"ok":…,"error":…}` means.
fn verdict<T: DeserializeOwned>(body: &[u8]) -> Result<T, CallError> {
    #[derive(Deserialize)]
    struct Answer {
        ok: bool,
        error: Option<String>,
    }
    let strange = |_| CallError::Failed("the answer is not Slack's".into());
    match serde_json::from_slice(body).map_err(strange)? {
        Answer { ok: true, .. } => serde_json::from_slice(body).map_err(strange),
        Answer {
            error: Some(error), ..
        } if is_permanent(&error) => Err(CallError::Refused(error)),
        Answer { error, .. } => Err(CallError::Failed(
            error.unwrap_or_else(|| "no reason given".into()),
        )),
    }
}

/// Whether Slack does not know the token, or does not grant it what we need.
pub fn is_about_credentials(error: &str) -> bool {
    const CREDENTIALS: [&str; 8] = [
        "account_inactive",
        "invalid_auth",
        "missing_scope",
        "not_allowed_token_type",
        "not_authed",
        "org_login_required",
        "token_expired",
        "token_revoked",
    ];
    CREDENTIALS.contains(&error)
}

/// What would help against an error of Slack.
pub fn hint(error: &str) -> Option<&'static str> {
    Some(match error {
        "not_in_channel" => {
            "invite the bot to the channel (/invite @runbook), or add the scope chat:write.public"
        }
        "channel_not_found" => {
            "check the channel's name or id; into a private channel the bot has to be invited"
        }
        "is_archived" => "the channel is archived; name another one",
        "not_enabled" => "switch on the Home tab under App Home of the Slack app",
        "missing_scope" => {
            "add chat:write under OAuth & Permissions of the Slack app, and install it again"
        }
        "restricted_action" => {
            "the workspace's settings forbid posting there; name another channel"
        }
        error if is_about_credentials(error) => {
            "SLACK_BOT_TOKEN should be the Bot User OAuth Token of an installed app (xoxb-…)"
        }
        _ => return None,
    })
}

/// Errors that stay however often we ask. Any other is tried again, for Slack may add new ones.
/// Sources: <https://docs.slack.dev/reference/methods/chat.update>,
/// <https://docs.slack.dev/reference/methods/chat.postMessage>,
/// <https://docs.slack.dev/reference/methods/chat.postEphemeral>,
/// <https://docs.slack.dev/reference/methods/views.publish>
fn is_permanent(error: &str) -> bool {
    const PERMANENT: &[&str] = &[
        "access_denied",
        "account_inactive",
        "as_user_not_supported",
        "block_mismatch",
        "cannot_reply_to_message",
        "cant_update_message",
        "channel_not_found",
        "deprecated_endpoint",
        "edit_window_closed",
        "ekm_access_denied",
        "enterprise_is_restricted",
        "exchanged_trigger_id",
        "expired_trigger_id",
        "expired_url",
        "invalid_arguments",
        "invalid_attachments",
        "invalid_auth",
        "invalid_blocks",
        "invalid_blocks_format",
        "invalid_trigger_id",
        "is_archived",
        "is_inactive",
        "message_limit_exceeded",
        "message_not_found",
        "messages_tab_disabled",
        "method_deprecated",
        "missing_scope",
        "msg_blocks_too_long",
        "msg_too_long",
        "no_permission",
        "no_such_subteam",
        "no_text",
        "not_allowed_token_type",
        "not_authed",
        "not_enabled",
        "not_in_channel",
        "org_login_required",
        "restricted_action",
        "restricted_action_non_threadable_channel",
        "restricted_action_read_only_channel",
        "restricted_action_thread_locked",
        "restricted_action_thread_only_channel",
        "team_access_not_granted",
        "team_not_found",
        "token_expired",
        "token_revoked",
        "too_many_attachments",
        "two_factor_setup_required",
        "unknown_method",
        "used_url",
        "user_not_found",
        "user_not_visible",
        "user_not_in_channel",
        "view_too_large",
    ];
    PERMANENT.contains(&error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_slack_and_the_configured_origin_are_called_back() {
        let base = Base::parse("http://127.0.0.1:8080/api").unwrap();
        assert_eq!(base.0.as_str(), "http://127.0.0.1:8080/api/");
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
        let posted = Posted {
            channel: "C1".into(),
            ts: "1.2".into(),
        };
        assert_eq!(
            verdict(br#"{"ok":true,"channel":"C1","ts":"1.2"}"#),
            Ok(posted)
        );
        assert_eq!(
            verdict::<Posted>(br#"{"ok":false,"error":"channel_not_found"}"#),
            Err(CallError::Refused("channel_not_found".into()))
        );
        for passing in [
            r#"{"ok":false,"error":"internal_error"}"#,
            r#"{"ok":false}"#,
            r#"{"ok":true}"#,
            "<html>",
            "",
            "[]",
        ] {
            assert!(
                matches!(
                    verdict::<Posted>(passing.as_bytes()),
                    Err(CallError::Failed(_))
                ),
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
