//! The page: one file, what it shows as JSON, and what people do on it.
//!
//! Other websites in the same browser must neither read it nor click on it, nor speak as the server to Slack: only
//! requests that name this very address as their host, and no other site as where they come from, are answered; and
//! only those of the page itself may change anything on it. Nothing comes from elsewhere.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use super::channel::{Entry, Message, Press};
use super::people::{BOT, CHANNEL_NAME, PEOPLE, Person};
use super::preview::Sample;
use super::stand_in::Slack;
use super::state::{Failure, Mood, State, Times};
use crate::approval::Risk;
use crate::random;
use crate::webhook::{Request, Response};

const PAGE: &str = include_str!("page.html");
/// How long a question for news may wait for some.
const NEWS: Duration = Duration::from_secs(20);

/// Does what people want, one thing after the other.
pub type Granter = Box<dyn FnMut(Wish) + Send>;

/// What people want of whoever runs the demo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// The agent is to ask again, at this risk level.
    Ask(Risk),
    /// From now on a denial has to say why, or need not.
    SayWhy(bool),
}

impl Slack {
    /// Answers a request of the page, and of other websites; `None` for what is a call to Slack.
    pub(super) fn page(self: &Arc<Self>, request: &Request) -> Option<Response> {
        let host = only(request, "host").unwrap_or_default();
        if !self.is_called(host) {
            return Some(Response::error(421, "this is another address"));
        }
        let ours = format!("http://{host}");
        let mut sites = request.header("sec-fetch-site");
        if sites.any(|site| !matches!(site, "same-origin" | "none"))
            || request.header("origin").any(|origin| origin != ours)
        {
            return Some(Response::error(403, "this comes from another site"));
        }
        let is_ours =
            matches!(request.path(), "/" | "/state") || request.path().starts_with("/do/");
        if !is_ours {
            return None;
        }
        Some(match (request.method.as_str(), request.path()) {
            ("GET", "/") => html(),
            ("GET", "/state") => {
                let seen = request.target.split_once("?seen=");
                let seen = seen.and_then(|(_, seen)| seen.parse().ok());
                Response {
                    status: 200,
                    headers: vec![("Content-Type", "application/json".into())],
                    body: self.news(seen, NEWS, shown),
                }
            }
            ("POST", path) => {
                let from_page = only(request, "origin") == Some(&*ours)
                    && request.has_content_type("application/json");
                let wish = serde_json::from_slice(&request.body).unwrap_or_default();
                match path.strip_prefix("/do/") {
                    _ if !from_page => Response::error(403, "this does not come from the page"),
                    Some(what) if self.act(what, &wish).is_some() => Response::empty(),
                    Some(_) | None => Response::error(400, "this cannot be done"),
                }
            }
            _ => Response::error(405, "this is not how it works"),
        })
    }

    /// Does what somebody has done on the page. `None` when it cannot be done.
    fn act(self: &Arc<Self>, what: &str, wish: &Value) -> Option<()> {
        let text = |name: &str| wish[name].as_str();
        let person = || Person::of(text("user")?);
        match what {
            "click" => self.click(person()?, text("ts"), text("block")?, text("action")?)?,
            "submit" => self.submit(person()?, &wish["values"])?,
            "close" => self.close(person()?),
            "home" => self.open_home(person()?),
            "say" => self.say(person()?, text("text")?),
            "ask" => self.wish(Wish::Ask(Risk::parse(text("risk")?)?))?,
            "policy" => {
                let say_why = wish["sayWhy"].as_bool()?;
                *self.state().say_why.as_mut()? = say_why;
                self.wish(Wish::SayWhy(say_why))?;
            }
            "slack" => self.turn(text("mood")?)?,
            _ => return None,
        }
        self.change();
        Some(())
    }

    /// Makes Slack work, or fail in one way.
    fn turn(&self, mood: &str) -> Option<()> {
        let (mood, failure) = match mood {
            "works" => (Mood::Works, None),
            "limits" => {
                let wait = Failure::RateLimited {
                    retry_after_seconds: 5,
                };
                (Mood::Limits, Some(wait))
            }
            "fails" => (Mood::Fails, Some(Failure::Status(500))),
            "hangs" => (Mood::Hangs, Some(Failure::Hang)),
            _ => return None,
        };
        let mut state = self.state();
        state.recover();
        state.mood = mood;
        if let Some(failure) = failure {
            state.plan(None, failure, Times::Forever);
        }
        Some(())
    }
}

/// What the page shows.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    version: u64,
    bot: &'static str,
    people: &'a [Person],
    channel: &'static str,
    mood: Mood,
    say_why: Option<bool>,
    samples: Option<&'a [Sample]>,
    messages: &'a VecDeque<Message>,
    homes: &'a Map<String, Value>,
    dialogs: &'a Map<String, Value>,
    presses: &'a [Press],
    journal: &'a VecDeque<Entry>,
}

fn shown(state: &State) -> Vec<u8> {
    let channel = &state.channel;
    let shown = Shown {
        version: state.version,
        bot: BOT,
        people: &PEOPLE,
        channel: CHANNEL_NAME,
        mood: state.mood,
        say_why: state.say_why,
        samples: state.samples.as_deref(),
        messages: &channel.messages,
        homes: &channel.homes,
        dialogs: &channel.dialogs,
        presses: &channel.presses,
        journal: &channel.journal,
    };
    // Texts and numbers only: there is nothing that JSON could not say.
    serde_json::to_vec(&shown).unwrap_or_default()
}

fn html() -> Response {
    // Without random bytes there is no page.
    let Ok(nonce) = random::letters(26) else {
        return Response::error(500, "the system gives no random bytes");
    };
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let headers = [
        ("Content-Type", "text/html; charset=utf-8"),
        ("Content-Security-Policy", &policy),
        ("Cross-Origin-Resource-Policy", "same-origin"),
        ("Cross-Origin-Opener-Policy", "same-origin"),
        ("Referrer-Policy", "no-referrer"),
        ("X-Content-Type-Options", "nosniff"),
        ("Cache-Control", "no-store"),
    ];
    Response {
        status: 200,
        headers: headers.map(|(name, value)| (name, value.to_owned())).into(),
        body: PAGE.replace("{nonce}", &nonce).into(),
    }
}

/// The value of a header that stands there once.
fn only<'r>(request: &'r Request, name: &'r str) -> Option<&'r str> {
    let mut values = request.header(name);
    match (values.next(), values.next()) {
        (Some(only), None) => Some(only),
        _ => None,
    }
}
