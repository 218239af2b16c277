//! What people do, as Slack tells the server: a payload, signed, in a real HTTP request.
//!
//! Sources: <https://docs.slack.dev/reference/interaction-payloads> and <https://docs.slack.dev/apis/events-api>

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::aside;
use super::channel::{Answerable, Channel, Message, Press};
use super::people::{BOT, PEOPLE, Person, TEAM};
use super::stand_in::Slack;
use super::template::{extend, filled};
use super::web_api::fresh_ts;
use crate::clock;
use crate::outgoing::{Body, Caller, Roots};
use crate::slack::signature::SigningSecret;

/// How long Slack waits for an acknowledgement.
const PATIENCE: Duration = Duration::from_secs(3);

/// What all interactions have.
const ENVELOPE: &str = r#"{ "type": "$type", "api_app_id": "$app", "trigger_id": "$trigger",
    "enterprise": null, "is_enterprise_install": false,
    "team": { "id": "$of team", "domain": "example" },
    "user": { "id": "$user", "username": "$username", "name": "$username", "team_id": "$team of user" } }"#;

/// What a click on a message has besides; the blocks are missing.
const IN_MESSAGE: &str = r#"{ "channel": { "id": "$channel", "name": "$channel name" },
    "container": { "type": "message", "message_ts": "$ts", "channel_id": "$channel", "is_ephemeral": false },
    "message": { "type": "message", "user": "$bot", "ts": "$ts", "app_id": "$app" },
    "response_url": "$response_url" }"#;

/// What all events have; their time and the event itself are missing.
const CALLBACK: &str = r#"{ "type": "event_callback", "team_id": "$team", "api_app_id": "$app", "event_id": "$id",
    "authorizations": [{ "team_id": "$team", "user_id": "$bot", "is_bot": true }] }"#;

const HOME_OPENED: &str =
    r#"{ "type": "app_home_opened", "user": "$user", "tab": "home", "channel": "$direct" }"#;

const MENTIONED: &str = r#"{ "type": "app_mention", "user": "$user", "text": "$text",
    "ts": "$ts", "channel": "$channel", "event_ts": "$ts" }"#;

/// The app as it is installed in the workspace: where its server is, and what requests to it are signed with.
#[derive(Debug)]
pub struct App {
    /// Scheme, host and port.
    pub server: String,
    pub secret: SigningSecret,
}

/// What the server answered: its JSON, null when there was none; or why Slack is not content.
type Delivered = Result<Value, String>;
/// What comes of it for people.
type Then = Box<dyn FnOnce(&mut Channel, Delivered) + Send>;

impl App {
    fn deliver(&self, path: &str, body: Body) -> Delivered {
        let url = format!("{}{path}", self.server);
        let timestamp = clock::now().unix().to_string();
        let (Body::Json(text) | Body::Form(text)) = &body;
        let signature = self.secret.sign(&timestamp, text.as_bytes());
        let headers = [
            ("X-Slack-Request-Timestamp", &*timestamp),
            ("X-Slack-Signature", &*signature),
        ];
        match Caller::new(None, Roots::default()).post(&url, &headers, body, PATIENCE) {
            Ok(reply) if reply.status == 200 => {
                Ok(serde_json::from_slice(&reply.body).unwrap_or_default())
            }
            Ok(reply) => Err(format!("the app answered {}", reply.status)),
            Err(error) => Err(format!("the app did not acknowledge within 3 s: {error}")),
        }
    }
}

impl Slack {
    /// Somebody clicks a button: of a message by its `ts`, or of their Home tab. `None` when there is no such button.
    pub(super) fn click(
        self: &Arc<Self>,
        person: Person,
        ts: Option<&str>,
        block: &str,
        action: &str,
    ) -> Option<()> {
        let mut state = self.state();
        let channel = &mut state.channel;
        let blocks = channel.blocks(&person, ts)?.clone();
        let mut all = blocks.as_array()?.iter();
        let row = all.find(|row| row["block_id"] == block)?;
        let mut elements = row["elements"].as_array()?.iter();
        let mut button = elements
            .find(|element| element["action_id"] == action)?
            .clone();
        button["block_id"] = block.into();
        button["action_ts"] = fresh_ts().into();

        let trigger = format!("{}.{TEAM}.demo", fresh_ts());
        let mut payload = envelope("block_actions", person, TEAM, &trigger);
        payload["actions"] = vec![button].into();
        let path = format!("/actions/{TEAM}/1/{trigger}");
        if let Some(ts) = ts {
            let message = [("$ts", ts), ("$response_url", &*self.at(&path))];
            extend(&mut payload, IN_MESSAGE, &message);
            payload["message"]["blocks"] = blocks;
        } else {
            payload["view"] = channel.homes.get(person.id)?.clone();
            payload["container"]["type"] = "view".into();
        }
        let press = Press {
            user: person.id,
            ts: ts.map(str::to_owned),
            block: block.to_owned(),
            trouble: None,
        };
        channel.presses.retain(|other| !other.is_like(&press));
        channel.presses.push(press.clone());
        channel.answerable.push(Answerable {
            trigger,
            path,
            user: person.id,
            ts: press.ts.clone(),
        });
        drop(state);
        self.change();
        let what = format!("{action} by @{}", person.username);
        let then = move |channel: &mut Channel, delivered: Delivered| {
            channel.presses.retain(|other| !other.is_like(&press));
            let trouble = delivered.err();
            channel.presses.extend(trouble.map(|trouble| Press {
                trouble: Some(trouble),
                ..press
            }));
        };
        self.send(what, interaction(&payload), Box::new(then));
        Some(())
    }

    /// Somebody submits their dialog; `values` are by block and action. `None` when they have none.
    pub(super) fn submit(self: &Arc<Self>, person: Person, values: &Value) -> Option<()> {
        let mut view = self.state().channel.dialogs.get(person.id)?.clone();
        view["state"]["values"] = values.clone();
        view["app_installed_team_id"] = TEAM.into();
        let mut payload = envelope("view_submission", person, person.team, &fresh_ts());
        payload["view"] = view;
        let what = format!("dialog of @{}", person.username);
        let then = move |channel: &mut Channel, delivered: Delivered| {
            let Some(view) = channel.dialogs.get_mut(person.id) else {
                return;
            };
            match delivered {
                Ok(answer) if answer["response_action"] == "errors" => {
                    view["errors"] = answer["errors"].clone();
                }
                Ok(_) => drop(channel.dialogs.shift_remove(person.id)),
                Err(trouble) => view["trouble"] = trouble.into(),
            }
        };
        self.send(what, interaction(&payload), Box::new(then));
        Some(())
    }

    /// Somebody closes their dialog.
    pub(super) fn close(&self, person: Person) {
        self.state().channel.dialogs.shift_remove(person.id);
        self.change();
    }

    /// Somebody looks at the app's Home tab.
    pub(super) fn open_home(self: &Arc<Self>, person: Person) {
        let direct = format!("D{}", &person.id[1..]);
        let event = filled(HOME_OPENED, &[("$user", person.id), ("$direct", &direct)]);
        let what = format!("app_home_opened by @{}", person.username);
        self.send(what, callback(event), Box::new(|_, _| ()));
    }

    /// Somebody writes into the channel; `@runbook` mentions the app.
    pub(super) fn say(self: &Arc<Self>, person: Person, said: &str) {
        let ts = fresh_ts();
        let (mut text, mut names_app) = (escape(said), false);
        for (name, id) in [("runbook", BOT)].into_iter().chain(handles()) {
            let mention = text.replace(&format!("@{name}"), &format!("<@{id}>"));
            names_app |= id == BOT && mention != text;
            text = mention;
        }
        self.state().channel.add(Message {
            ts: ts.clone(),
            user: person.id.to_owned(),
            text: text.clone(),
            ..Message::default()
        });
        self.change();
        if names_app {
            let said = [("$user", person.id), ("$text", &text), ("$ts", &ts)];
            let what = format!("app_mention by @{}", person.username);
            let event = filled(MENTIONED, &said);
            self.send(what, callback(event), Box::new(|_, _| ()));
        }
    }

    /// Delivers on a thread of its own, as Slack does, and then shows what has come of it.
    fn send(self: &Arc<Self>, what: String, (path, body): (&'static str, Body), then: Then) {
        let slack = Arc::clone(self);
        let deliver = move || {
            let started = clock::tick();
            let delivered = slack.app().map_or_else(
                || Err("the app is not installed yet".to_owned()),
                |app| app.deliver(path, body),
            );
            let within = format!("200 in {} ms", clock::since(started).as_millis());
            let mut state = slack.state();
            let went = delivered.as_ref().map(|_| &*within).map_err(String::as_str);
            state.channel.note("Slack → server", &what, went);
            then(&mut state.channel, delivered);
            drop(state);
            slack.change();
        };
        if let Err(error) = aside(Box::new(deliver)) {
            log::warn!("Slack cannot deliver: {error}");
        }
    }
}

impl Press {
    fn is_like(&self, other: &Self) -> bool {
        (self.user, &self.ts, &self.block) == (other.user, &other.ts, &other.block)
    }
}

fn handles() -> impl Iterator<Item = (&'static str, &'static str)> {
    PEOPLE.iter().map(|person| (person.username, person.id))
}

/// Text as people's messages carry it.
fn escape(text: &str) -> String {
    let text = text.replace('&', "&amp;");
    text.replace('<', "&lt;").replace('>', "&gt;")
}

fn envelope(kind: &str, person: Person, team: &str, trigger: &str) -> Value {
    let blanks = [
        ("$type", kind),
        ("$trigger", trigger),
        ("$of team", team),
        ("$user", person.id),
        ("$username", person.username),
        ("$team of user", person.team),
    ];
    filled(ENVELOPE, &blanks)
}

fn interaction(payload: &Value) -> (&'static str, Body) {
    let form = form_urlencoded::Serializer::new(String::new())
        .append_pair("payload", &payload.to_string())
        .finish();
    ("/slack/interactions", Body::Form(form))
}

fn callback(event: Value) -> (&'static str, Body) {
    let mut body = filled(CALLBACK, &[("$id", &format!("Ev{}", fresh_ts()))]);
    body["event_time"] = clock::now().unix().into();
    body["event"] = event;
    ("/slack/events", Body::Json(body.to_string()))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use serde_json::json;

    use super::*;
    use crate::demo::stand_in::StandIn;

    #[test]
    fn a_click_that_nobody_acknowledges_within_three_seconds_shows_a_warning() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = format!("http://{}", silent.local_addr().unwrap());
        let slack = StandIn::start();
        let secret = SigningSecret::new("secret").unwrap();
        slack.install(App { server, secret }, Box::new(|_| ()));
        let row = json!({ "type": "actions", "block_id": "b", "elements": [
            { "type": "button", "action_id": "approve", "value": "apr-1" }] });
        slack.slack.state().channel.add(Message {
            ts: "1.2".into(),
            blocks: json!([row]),
            ..Message::default()
        });
        let [alice, ..] = PEOPLE;
        let clicked = slack.slack.click(alice, Some("1.2"), "b", "approve");
        assert_eq!(clicked, Some(()));
        let pressed = |state: &crate::demo::state::State| {
            (state.version, state.channel.presses[0].trouble.clone())
        };
        let (seen, trouble) = slack.slack.news(None, PATIENCE, pressed);
        assert_eq!(trouble, None, "it waits");
        let (_, trouble) = slack.slack.news(Some(seen), PATIENCE * 2, pressed);
        assert!(trouble.unwrap().contains("did not acknowledge within 3 s"));
    }
}
