//! The body of `POST /slack/events`.
//!
//! Source: <https://docs.slack.dev/apis/events-api/>

use serde::Deserialize;
use serde_json::{Map, Value};

use super::mention::Question;
use crate::approval::UserId;

/// What Slack tells us there.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Delivery {
    /// Slack checks that the URL is ours: the challenge goes back as it came.
    UrlVerification { challenge: String },
    /// Something happened in the workspace. It may be delivered up to four times.
    EventCallback {
        event_id: String,
        event: Event,
        /// The workspace that it happened in; with Slack Connect, that may be another one's.
        team_id: Option<String>,
        /// The workspace through which the app sees it.
        context_team_id: Option<String>,
        /// The app that Slack means.
        api_app_id: Option<String>,
        authorizations: Option<Vec<Authorization>>,
    },
    /// Any other type, which we acknowledge.
    #[serde(other)]
    Unused,
}

/// By whose leave the app sees an event: its own bot user's, or that of a person who installed it.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub struct Authorization {
    user_id: Option<String>,
    is_bot: Option<bool>,
    /// The workspace that has installed it.
    pub team_id: Option<String>,
}

/// The event inside an `event_callback`.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "Map<String, Value>")]
pub enum Event {
    /// A person has mentioned the app.
    Mention(AppMention),
    /// A person has opened the app's Home tab.
    HomeOpened { user: UserId },
    /// Anything that we do not use. Its type.
    Unused(String),
}

/// A message that mentions the app.
#[derive(Debug, PartialEq, Eq)]
pub struct AppMention {
    pub user: UserId,
    pub channel: String,
    /// The `ts` of the thread that an answer belongs to; one that it begins is none yet.
    pub thread: String,
    pub asks: Question,
}

impl Delivery {
    /// Reads the body.
    ///
    /// # Errors
    /// What is not JSON of the documented shape.
    pub fn parse(body: &[u8]) -> Result<Self, serde_json::Error> {
        let mut delivery = serde_json::from_slice(body)?;
        if let Self::EventCallback {
            event,
            authorizations,
            ..
        } = &mut delivery
            && let Event::Mention(mention) = event
        {
            let is_ours = |by: &Authorization| {
                by.is_bot == Some(true) && by.user_id.as_deref() == Some(mention.user.as_str())
            };
            if authorizations.iter().flatten().any(is_ours) {
                *event = Event::Unused(event.kind().to_owned());
            }
        }
        Ok(delivery)
    }
}

impl Event {
    /// Its type, in Slack's word.
    pub fn kind(&self) -> &str {
        match self {
            Self::Mention(_) => "app_mention",
            Self::HomeOpened { .. } => "app_home_opened",
            Self::Unused(kind) => kind,
        }
    }
}

impl From<Map<String, Value>> for Event {
    /// What has the type of an event that we use, but not its documented shape, is not used.
    fn from(event: Map<String, Value>) -> Self {
        let event = Value::Object(event);
        let kind = event["type"].as_str().unwrap_or_default().to_owned();
        let known = match kind.as_str() {
            "app_mention" => mention(&event).map(Self::Mention),
            "app_home_opened" if event["tab"] == "home" => {
                person(&event).map(|user| Self::HomeOpened { user })
            }
            _ => None,
        };
        known.unwrap_or(Self::Unused(kind))
    }
}

/// A mention by a person. Two bots that answered each other would never stop.
fn mention(event: &Value) -> Option<AppMention> {
    let text = |name: &str| event[name].as_str().map(str::to_owned);
    let is_bot = !event["bot_id"].is_null() || event["subtype"] == "bot_message";
    Some(AppMention {
        user: person(event).filter(|_| !is_bot)?,
        channel: text("channel")?,
        thread: text("thread_ts").or_else(|| text("ts"))?,
        asks: Question::read(event["text"].as_str()?),
    })
}

fn person(event: &Value) -> Option<UserId> {
    UserId::parse(event["user"].as_str()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(changes: &[(&str, Value)], fixture: &str) -> Event {
        let root = env!("CARGO_MANIFEST_DIR");
        let path = format!("{root}/fixtures/slack/{fixture}.json");
        let mut body: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        for (name, value) in changes {
            body["event"][*name] = value.clone();
        }
        match Delivery::parse(body.to_string().as_bytes()).unwrap() {
            Delivery::EventCallback { event, .. } => event,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_mention_is_answered_in_its_thread_or_begins_one() {
        let thread = |changes: &[(&str, Value)]| match event(changes, "events_app_mention") {
            Event::Mention(mention) => (mention.channel, mention.thread),
            other => panic!("{other:?}"),
        };
        let of = |ts: &str| ("C1234567890".to_owned(), ts.to_owned());
        assert_eq!(thread(&[]), of("1705333850.000300"));
        assert_eq!(thread(&[("thread_ts", "1.2".into())]), of("1.2"));
    }

    #[test]
    fn only_people_are_answered_and_only_the_home_tab_is_one() {
        let home = event(&[], "events_app_home_opened");
        let user = UserId::parse("U061F7AUR").unwrap();
        assert_eq!(home, Event::HomeOpened { user });
        for (name, value, fixture) in [
            ("bot_id", "B1".into(), "events_app_mention"),
            ("subtype", "bot_message".into(), "events_app_mention"),
            ("user", "U0RUNBOOK".into(), "events_app_mention"),
            ("user", Value::Null, "events_app_mention"),
            ("user", "USLACKBOT!".into(), "events_app_mention"),
            ("channel", Value::Null, "events_app_mention"),
            ("tab", "messages".into(), "events_app_home_opened"),
            ("user", Value::Null, "events_app_home_opened"),
            ("type", "user_change".into(), "events_app_home_opened"),
        ] {
            let changed = event(&[(name, value)], fixture);
            assert!(
                matches!(changed, Event::Unused(_)),
                "{name} of {fixture}: {changed:?}"
            );
        }
    }

    #[test]
    fn any_object_is_an_event_and_nothing_else_is() {
        for (event, is_one) in [
            (
                r#"{"type":"user_change","user":{"id":"U1"},"n":1.5e3}"#,
                true,
            ),
            ("{}", true),
            ("[]", false),
            ("7", false),
        ] {
            let body = format!(r#"{{"type":"event_callback","event_id":"Ev1","event":{event}}}"#);
            assert_eq!(Delivery::parse(body.as_bytes()).is_ok(), is_one, "{event}");
        }
    }
}
