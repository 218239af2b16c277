//! What Slack answers to a call: the few methods that are used here, as they are documented.
//!
//! Source: <https://docs.slack.dev/reference/methods>

use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

use super::block_kit::{check_message, check_view};
use super::call::Call;
use super::review::{Markup, length};
use super::state::{Guest, State};
use super::template::filled;
use crate::clock;

/// What `auth.test` answers.
const WHO_AM_I: &str = r#"{ "url": "https://example.slack.com/", "team": "Example", "user": "runbook",
    "team_id": "$team", "user_id": "$bot", "bot_id": "B0RUNBOOK", "is_enterprise_install": false }"#;

/// A message that was posted; its blocks are missing.
const POSTED: &str = r#"{ "channel": "$where", "ts": "$ts",
    "message": { "type": "message", "user": "$bot", "bot_id": "B0RUNBOOK", "ts": "$ts" } }"#;

const UPDATED: &str = r#"{ "channel": "$where", "ts": "$ts", "text": "$text" }"#;

/// Of whoever it is; whether they are a guest is missing.
const USER: &str = r#"{ "user": { "id": "$user", "team_id": "$team", "name": "alice", "real_name": "Alice Example",
    "deleted": false, "is_bot": false,
    "profile": { "display_name": "alice", "real_name": "Alice Example" } } }"#;

impl State {
    /// What Slack says when nothing fails.
    pub(super) fn answer(&self, call: &Call) -> Value {
        let method = call.method.as_str();
        if method == "response_url" {
            return self.respond(call).err().unwrap_or_else(|| ok(Value::Null));
        }
        if !call.path.starts_with("/api/") {
            return not_ok("no_such_path");
        }
        match call.header("authorization") {
            None => return not_ok("not_authed"),
            Some(given) if given.strip_prefix("Bearer ") != Some(&self.token) => {
                return not_ok("invalid_auth");
            }
            Some(_) => {}
        }
        if let Some(answer) = self.answers.get(method) {
            return answer.clone();
        }
        let answer = match method {
            "auth.test" => Ok(filled(WHO_AM_I, &[])),
            "chat.postMessage" => Self::post(call),
            "chat.update" => update(call),
            "chat.postEphemeral" => Self::post_ephemeral(call),
            "views.open" => self.open_view(call),
            "views.publish" => publish_view(call),
            "users.info" => self.user_info(call),
            "usergroups.users.list" => self.group_members(call),
            _ => Err(not_ok("unknown_method")),
        };
        answer.map_or_else(|refusal| refusal, ok)
    }

    /// A `response_url` needs no token, and serves five times.
    fn respond(&self, call: &Call) -> Result<(), Value> {
        let uses = self
            .calls
            .iter()
            .filter(|earlier| earlier.path == call.path && earlier.error.is_none());
        if uses.count() >= 5 {
            return Err(not_ok("used_url"));
        }
        if call.body["delete_original"] == true {
            return Ok(());
        }
        check_message(&call.body)
    }

    fn post(call: &Call) -> Result<Value, Value> {
        let channel = match call.argument("channel") {
            "" => return Err(not_ok("channel_not_found")),
            id if is_conversation(id) => id,
            _name => "C0BYNAME01",
        };
        if let Some(thread) = call.body.get("thread_ts")
            && !thread.as_str().is_some_and(is_ts)
        {
            return Err(not_ok("invalid_thread_ts"));
        }
        check_message(&call.body)?;
        let mut posted = filled(POSTED, &[("$where", channel), ("$ts", &fresh_ts())]);
        for part in ["text", "blocks"] {
            posted["message"][part] = call.body[part].clone();
        }
        Ok(posted)
    }

    fn post_ephemeral(call: &Call) -> Result<Value, Value> {
        match (call.argument("channel"), call.argument("user")) {
            ("", _) => Err(not_ok("channel_not_found")),
            (_, "") => Err(not_ok("user_not_in_channel")),
            _ => check_message(&call.body).map(|()| object("message_ts", fresh_ts().into())),
        }
    }

    /// A `trigger_id` opens one view.
    fn open_view(&self, call: &Call) -> Result<Value, Value> {
        let trigger = call.argument("trigger_id");
        let opened = |earlier: &Call| {
            earlier.method == call.method
                && earlier.error.is_none()
                && earlier.argument("trigger_id") == trigger
        };
        if trigger.is_empty() {
            return Err(not_ok("invalid_trigger_id"));
        }
        if self.calls.iter().any(opened) {
            return Err(not_ok("exchanged_trigger_id"));
        }
        let view = &call.body["view"];
        check_view("modal", view).map(|()| shown(view))
    }

    fn user_info(&self, call: &Call) -> Result<Value, Value> {
        let user = form_argument(call, "user")?;
        let mut info = filled(USER, &[("$user", user)]);
        let guest = self.guests.iter().find(|(guest, _)| guest == user);
        let flags = match guest.map(|(_, kind)| kind) {
            None => Some((false, false)),
            Some(Guest::Multi) => Some((true, false)),
            Some(Guest::Single) => Some((true, true)),
            Some(Guest::Unsaid) => None,
        };
        if let Some((restricted, ultra_restricted)) = flags {
            info["user"]["is_restricted"] = restricted.into();
            info["user"]["is_ultra_restricted"] = ultra_restricted.into();
        }
        Ok(info)
    }

    fn group_members(&self, call: &Call) -> Result<Value, Value> {
        let group = form_argument(call, "usergroup")?;
        let members = self.groups.get(group);
        members
            .map(|members| object("users", members.clone()))
            .ok_or_else(|| not_ok("no_such_subteam"))
    }
}

/// No two messages have the same one, not even in two workspaces.
pub(super) fn fresh_ts() -> String {
    static POSTED: AtomicU32 = AtomicU32::new(1);
    let number = POSTED.fetch_add(1, Ordering::Relaxed);
    format!("{}.{number:06}", clock::now().unix())
}

/// An update wants the conversation's id, not its name, and its text is held shorter than a post's.
fn update(call: &Call) -> Result<Value, Value> {
    if !is_conversation(call.argument("channel")) {
        return Err(not_ok("channel_not_found"));
    }
    if call.argument("ts").is_empty() {
        return Err(not_ok("message_not_found"));
    }
    if length(call.argument("text"), Markup::Mrkdwn) > 4000 {
        return Err(not_ok("msg_too_long"));
    }
    check_message(&call.body)?;
    let said = [("$where", "channel"), ("$ts", "ts"), ("$text", "text")];
    Ok(filled(
        UPDATED,
        &said.map(|(blank, name)| (blank, call.argument(name))),
    ))
}

fn publish_view(call: &Call) -> Result<Value, Value> {
    if !call.argument("user_id").starts_with(['U', 'W']) {
        return Err(missing("user_id"));
    }
    let view = &call.body["view"];
    check_view("home", view).map(|()| shown(view))
}

/// A view as Slack keeps it.
fn shown(view: &Value) -> Value {
    let mut view = view.clone();
    view["id"] = "V0001".into();
    view["hash"] = "1.stand-in".into();
    object("view", view)
}

/// Slack's reading methods take form fields or a query, and look at no JSON.
fn form_argument<'c>(call: &'c Call, name: &str) -> Result<&'c str, Value> {
    let is_form =
        |content_type: &str| content_type.starts_with("application/x-www-form-urlencoded");
    match call.argument(name) {
        value if call.header("content-type").is_some_and(is_form) && !value.is_empty() => Ok(value),
        _ => Err(missing(name)),
    }
}

/// Seconds and six digits: `1705333850.000300`.
fn is_ts(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let parts = text.split_once('.');
    parts.is_some_and(|(seconds, rest)| digits(seconds) && digits(rest) && rest.len() == 6)
}

fn is_conversation(channel: &str) -> bool {
    channel.starts_with(['C', 'D', 'G'])
        && channel
            .chars()
            .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit())
}

fn object(name: &str, value: Value) -> Value {
    let mut object = Value::Null;
    // Indexing makes it an object.
    object[name] = value;
    object
}

fn ok(mut answer: Value) -> Value {
    answer["ok"] = true.into();
    answer
}

pub(super) fn not_ok(error: &str) -> Value {
    filled(
        r#"{ "ok": false, "error": "$error" }"#,
        &[("$error", error)],
    )
}

pub(super) fn refused(error: &str, problems: &[String]) -> Value {
    let mut answer = not_ok(error);
    answer["response_metadata"]["messages"] = problems.into();
    answer
}

fn missing(argument: &str) -> Value {
    let problem = format!("[ERROR] missing required field: {argument}");
    refused("invalid_arguments", &[problem])
}
