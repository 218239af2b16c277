//! What people do, as Slack tells the server: a payload, signed, in a real HTTP request.
//!
//! Sources: <https://docs.slack.dev/reference/interaction-payloads> and <https://docs.slack.dev/apis/events-api>

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::channel::{Message, Press};
use super::people::{APP, BOT, CHANNEL, CHANNEL_NAME, PEOPLE, Person, TEAM};
use super::stand_in::Slack;
use super::web_api::fresh_ts;
use crate::clock;
use crate::outgoing::{Body, Caller, Roots};
use crate::slack::signature::SigningSecret;

/// How long Slack waits for an acknowledgement.
const PATIENCE: Duration = Duration::from_secs(3);
const WORKSPACE: &str = "example";

/// The app as it is installed in the workspace: where its server is, and what requests to it are signed with.
#[derive(Debug)]
pub struct App {
    /// Scheme, host and port.
    pub server: String,
    pub secret: SigningSecret,
}

/// What the server answered: its JSON, null when there was none; or why Slack is not content.
type Delivered = Result<Value, String>;

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
            Ok((200, body)) => Ok(serde_json::from_slice(&body).unwrap_or_default()),
            Ok((status, _)) => Err(format!("the app answered {status}")),
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
        let mut payload = envelope("block_actions", person, &trigger);
        payload["team"] = json!({ "id": TEAM, "domain": WORKSPACE });
        payload["actions"] = json!([button]);
        let path = format!("/actions/{TEAM}/1/{trigger}");
        if let Some(ts) = ts {
            payload["channel"] = json!({ "id": CHANNEL, "name": CHANNEL_NAME });
            payload["container"] = json!({ "type": "message", "message_ts": ts,
                    "channel_id": CHANNEL, "is_ephemeral": false });
            payload["message"] = json!({ "type": "message", "user": BOT, "ts": ts,
                    "app_id": APP, "blocks": blocks });
            payload["response_url"] = self.at(&path).into();
        } else {
            payload["view"] = channel.homes.get(person.id)?.clone();
            payload["container"] = json!({ "type": "view" });
        }
        let press = Press {
            user: person.id,
            ts: ts.map(str::to_owned),
            block: block.to_owned(),
            trouble: None,
        };
        channel.presses.retain(|other| !other.is_like(&press));
        channel.presses.push(press.clone());
        channel.triggers.insert(trigger, person.id);
        channel
            .responses
            .insert(path, (person.id, press.ts.clone()));
        drop(state);
        self.change();
        let what = format!("{action} by @{}", person.username);
        self.send(what, interaction(&payload), move |channel, delivered| {
            channel.presses.retain(|other| !other.is_like(&press));
            let trouble = delivered.err();
            channel.presses.extend(trouble.map(|trouble| Press {
                trouble: Some(trouble),
                ..press
            }));
        });
        Some(())
    }

    /// Somebody submits their dialog; `values` are by block and action. `None` when they have none.
    pub(super) fn submit(self: &Arc<Self>, person: Person, values: &Value) -> Option<()> {
        let mut view = self.state().channel.dialogs.get(person.id)?.clone();
        view["state"] = json!({ "values": values });
        view["app_installed_team_id"] = TEAM.into();
        let mut payload = envelope("view_submission", person, &fresh_ts());
        payload["team"] = json!({ "id": person.team, "domain": WORKSPACE });
        payload["view"] = view;
        let what = format!("dialog of @{}", person.username);
        self.send(what, interaction(&payload), move |channel, delivered| {
            let Some(view) = channel.dialogs.get_mut(person.id) else {
                return;
            };
            match delivered {
                Ok(answer) if answer["response_action"] == "errors" => {
                    view["errors"] = answer["errors"].clone();
                }
                Ok(_) => drop(channel.dialogs.remove(person.id)),
                Err(trouble) => view["trouble"] = trouble.into(),
            }
        });
        Some(())
    }

    /// Somebody closes their dialog.
    pub(super) fn close(&self, person: Person) {
        self.state().channel.dialogs.remove(person.id);
        self.change();
    }

    /// Somebody looks at the app's Home tab.
    pub(super) fn open_home(self: &Arc<Self>, person: Person) {
        let event = json!({ "type": "app_home_opened", "user": person.id, "tab": "home",
            "channel": format!("D{}", &person.id[1..]) });
        let what = format!("app_home_opened by @{}", person.username);
        self.send(what, ("/slack/events", callback(&event)), |_, _| ());
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
            let event = json!({ "type": "app_mention", "user": person.id, "text": text,
                "ts": ts, "channel": CHANNEL, "event_ts": ts });
            let what = format!("app_mention by @{}", person.username);
            self.send(what, ("/slack/events", callback(&event)), |_, _| ());
        }
    }

    /// Delivers on a thread of its own, as Slack does, and then shows what has come of it.
    fn send(
        self: &Arc<Self>,
        what: String,
        (path, body): (&'static str, Body),
        then: impl FnOnce(&mut super::channel::Channel, Delivered) + Send + 'static,
    ) {
        let slack = Arc::clone(self);
        thread::spawn(move || {
            let started = clock::tick();
            let delivered = slack.app().map_or_else(
                || Err("the app is not installed yet".to_owned()),
                |app| app.deliver(path, body),
            );
            let within = format!("200 in {} ms", started.elapsed().as_millis());
            let mut state = slack.state();
            let went = delivered.as_ref().map(|_| &*within).map_err(String::as_str);
            state.channel.note("Slack → server", &what, went);
            then(&mut state.channel, delivered);
            drop(state);
            slack.change();
        });
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

/// What all interactions have.
fn envelope(kind: &str, person: Person, trigger: &str) -> Value {
    json!({ "type": kind, "api_app_id": APP, "trigger_id": trigger, "enterprise": null,
        "is_enterprise_install": false,
        "user": { "id": person.id, "username": person.username, "name": person.username,
            "team_id": person.team } })
}

fn interaction(payload: &Value) -> (&'static str, Body) {
    let form = form_urlencoded::Serializer::new(String::new())
        .append_pair("payload", &payload.to_string())
        .finish();
    ("/slack/interactions", Body::Form(form))
}

fn callback(event: &Value) -> Body {
    let authorization = json!({ "team_id": TEAM, "user_id": BOT, "is_bot": true });
    let body = json!({ "type": "event_callback", "team_id": TEAM, "api_app_id": APP,
        "event_id": format!("Ev{}", fresh_ts()), "event_time": clock::now().unix(),
        "authorizations": [authorization], "event": event });
    Body::Json(body.to_string())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::mpsc;

    use super::*;
    use crate::demo::stand_in::StandIn;

    #[test]
    fn a_click_that_nobody_acknowledges_within_three_seconds_shows_a_warning() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = format!("http://{}", silent.local_addr().unwrap());
        let slack = StandIn::start();
        let secret = SigningSecret::new("secret").unwrap();
        slack.install(App { server, secret }, mpsc::channel().0);
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
