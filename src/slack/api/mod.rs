//! Calls to Slack's Web API and to `response_url`, blocking, through ureq.
//!
//! Sources: <https://docs.slack.dev/apis/web-api/> and
//! <https://docs.slack.dev/interactivity/handling-user-interaction#message_responses>

mod access;
mod answer;

pub use access::{Base, BotToken, DEFAULT_BASE, TokenKind};
pub use answer::{Identity, Introduction, Names, Posted, hint, is_about_credentials};

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::message::Message;
use crate::approval::{GroupId, UserId};
use crate::clock;
use crate::live::hold;
use crate::metrics::{self, Counter};
use crate::outgoing::{Body, CALL, CallError, Caller, Reply};
use answer::{Nothing, verdict};

/// How long an answer may take that a clicker waits for: they are to have theirs within 5 s.
const ASK: Duration = Duration::from_secs(4);

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

    /// Goes on where another one ends that has the same token: what Slack wants to be left alone with, and how the
    /// last call went.
    pub fn succeed(&self, other: &Self) {
        self.held().clone_from(&other.held());
        hold(&self.last).clone_from(&hold(&other.last));
    }

    /// Whether a `response_url` may be called; see [`Base::admits`].
    pub fn admits(&self, response_url: &str) -> bool {
        self.base.admits(response_url)
    }

    /// How the last call went: `ok`, or what went wrong.
    pub fn last_result(&self) -> Option<String> {
        hold(&self.last).clone()
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
        let url = self.base.method("auth.test");
        let authorization = ("Authorization", &*token.authorization());
        let reply = self
            .caller
            .post(&url, &[authorization], Body::Form(String::new()), CALL)?;
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
        let url = self.base.method(method);
        let authorization = ("Authorization", &*token.authorization());
        let sent = self.caller.post(&url, &[authorization], body, within);
        if let Err(CallError::Limited(pause)) = sent {
            let now = clock::tick();
            let mut held = self.held();
            held.retain(|_, until| *until > now);
            held.insert(limit, now + pause);
        }
        self.noted(method, sent.and_then(|reply| verdict(&reply.body)))
    }

    fn held(&self) -> MutexGuard<'_, HashMap<Limit, Instant>> {
        hold(&self.held)
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
            sent.and_then(|Reply { status, body, .. }| match status {
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
        *hold(&self.last) = Some(word);
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

/// The fuzzer's door. Reads what may be an answer of Slack's for everything that we ask.
#[cfg(fuzzing)]
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) {
    let _ = verdict::<Posted>(bytes);
    let _ = verdict::<Value>(bytes);
    let _ = verdict::<Identity>(bytes);
}
