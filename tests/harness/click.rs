//! A click, as Slack reports it.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use super::now;
use crate::stand_in::Call;

/// A click on one of our buttons, as Slack reports it. The same value is the same click, sent again.
#[derive(Clone)]
pub struct Click {
    payload: Value,
}

impl Click {
    pub fn approve(id: &str) -> Self {
        Self::on_button("approve", "✅ Approve", "primary", id)
    }

    pub fn deny(id: &str) -> Self {
        Self::on_button("deny", "❌ Deny", "danger", id)
    }

    /// A click on a message as it was posted: its own block, value and place.
    pub fn on_posted(action_id: &str, posted: &Call, approval: &Value) -> Self {
        let blocks = posted.body["blocks"].as_array().expect("a post has blocks");
        let buttons = blocks
            .iter()
            .find(|block| block["type"] == "actions")
            .expect("the message has buttons");
        let mut elements = buttons["elements"].as_array().expect("a list").iter();
        let button = elements
            .find(|button| button["action_id"] == action_id)
            .expect("a button of that kind");
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let (style, label) = (text(&button["style"]), text(&button["text"]["text"]));
        Self::on_button(action_id, &label, &style, &text(&button["value"]))
            .block_id(&text(&buttons["block_id"]))
            .message(
                &text(&approval["slackChannel"]),
                &text(&approval["slackMessageTs"]),
            )
    }

    fn on_button(action_id: &str, label: &str, style: &str, value: &str) -> Self {
        static CLICKS: AtomicU64 = AtomicU64::new(1);
        let number = CLICKS.fetch_add(1, Ordering::Relaxed);
        let payload = json!({
            "type": "block_actions",
            "user": {"id": "U061F7AUR", "username": "alice", "name": "alice", "team_id": "T0001"},
            "api_app_id": "A0001",
            "token": "an-obsolete-token",
            "container": {
                "type": "message", "message_ts": "1705333800.000100", "channel_id": "C1234567890",
                "is_ephemeral": false,
            },
            "trigger_id": format!("{number}.1705333845.d8c1bb837935619ccad0f624c448ffb3"),
            "team": {"id": "T0001", "domain": "example"},
            "enterprise": null,
            "is_enterprise_install": false,
            "channel": {"id": "C1234567890", "name": "deployments"},
            "message": {"type": "message", "ts": "1705333800.000100", "text": "Runbook Approval Request"},
            "state": {"values": {}},
            "actions": [{
                "action_id": action_id, "block_id": "q1Xz", "type": "button", "value": value, "style": style,
                "text": {"type": "plain_text", "text": label, "emoji": true},
                "action_ts": format!("{}.{number:06}", now()),
            }],
        });
        Self { payload }
    }

    pub fn by(self, id: &str, username: &str) -> Self {
        self.set("/user/id", id)
            .set("/user/username", username)
            .set("/user/name", username)
    }

    /// The clicker's own workspace, another one when they come through Slack Connect.
    pub fn of_team(self, team: &str) -> Self {
        self.set("/user/team_id", team)
    }

    pub fn response_url(self, url: impl Into<String>) -> Self {
        self.set("/response_url", url.into())
    }

    pub fn message(self, channel: &str, ts: &str) -> Self {
        self.set("/channel/id", channel)
            .set("/container/channel_id", channel)
            .set("/container/message_ts", ts)
            .set("/message/ts", ts)
    }

    pub fn action_id(self, action_id: &str) -> Self {
        self.set("/actions/0/action_id", action_id)
    }

    /// On the buttons of a message that was posted.
    pub fn on(self, posted: &Call) -> Self {
        let word = |value: &Value| value.as_str().expect("text").to_owned();
        let buttons = posted.buttons().expect("the message has buttons");
        self.message(
            &word(&posted.answer["channel"]),
            &word(&posted.answer["ts"]),
        )
        .block_id(&word(&buttons["block_id"]))
    }

    /// The block of the buttons, which binds the click to what was shown.
    pub fn block_id(self, block_id: &str) -> Self {
        self.set("/actions/0/block_id", block_id)
    }

    /// Sets the field at a JSON pointer whose parent is an object.
    pub fn set(mut self, pointer: &str, value: impl Into<Value>) -> Self {
        let (parent, name) = self.parent(pointer);
        parent.insert(name, value.into());
        self
    }

    /// Removes the field at a JSON pointer whose parent is an object.
    pub fn without(mut self, pointer: &str) -> Self {
        let (parent, name) = self.parent(pointer);
        parent.shift_remove(&name);
        self
    }

    fn parent(&mut self, pointer: &str) -> (&mut serde_json::Map<String, Value>, String) {
        let (parent, name) = pointer.rsplit_once('/').expect("a JSON pointer");
        let parent = self
            .payload
            .pointer_mut(parent)
            .and_then(Value::as_object_mut);
        (
            parent.expect("the pointer's parent is an object"),
            name.to_owned(),
        )
    }

    pub fn payload(&self) -> Value {
        self.payload.clone()
    }
}

/// The form that carries an interaction's payload.
pub fn interaction_form(payload: &Value) -> String {
    form_urlencoded::Serializer::new(String::new())
        .append_pair("payload", &payload.to_string())
        .finish()
}
