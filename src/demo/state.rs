//! How Slack stands: what has been called, what people see, and how it answers or fails.

use std::fmt;
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;
use serde_json::{Map, Value};

use super::call::Call;
use super::channel::Channel;
use super::interactions::App;
use super::page::Granter;
use super::preview::Sample;
use super::web_api::not_ok;
use crate::clock;
use crate::webhook::Response;

/// The bot token that a fresh stand-in accepts.
pub const TOKEN: &str = "xoxb-test-token";
/// What that token may do.
const SCOPES: &str = "chat:write,chat:write.public,users:read,usergroups:read,app_mentions:read";

/// A way for Slack to fail.
#[derive(Clone, Copy, Debug)]
pub enum Failure {
    RateLimited {
        retry_after_seconds: u64,
    },
    /// This HTTP status, with a body that is not JSON.
    Status(u16),
    /// HTTP 200 with `"ok": false` and this error.
    NotOk(&'static str),
    /// No answer until `StandIn::recover` or drop, which close the connection.
    Hang,
    /// What Slack would have answered, but not before `StandIn::recover`.
    Late,
    /// HTTP 200 with a page of HTML.
    Garbage,
    CloseWithoutAnswer,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RateLimited {
                retry_after_seconds,
            } => write!(f, "429, try again in {retry_after_seconds} s"),
            Self::Status(status) => status.fmt(f),
            Self::NotOk(error) => f.write_str(error),
            Self::Hang | Self::Late => f.write_str("no answer yet"),
            Self::Garbage => f.write_str("200, but a page"),
            Self::CloseWithoutAnswer => f.write_str("closed"),
        }
    }
}

/// How many calls a failure meets.
#[derive(Clone, Copy, Debug)]
pub enum Times {
    Next(usize),
    Forever,
}

/// What `users.info` says of a guest.
#[derive(Clone, Copy, Debug)]
pub enum Guest {
    /// Of several channels: `is_restricted`.
    Multi,
    /// Of one channel: both flags.
    Single,
    /// It says neither of the two flags.
    Unsaid,
}

/// How Slack is.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mood {
    Works,
    Limits,
    Fails,
    Hangs,
}

pub(super) struct State {
    pub(super) token: String,
    pub(super) scopes: String,
    /// Seconds.
    pub(super) clock_off: i64,
    pub(super) calls: Vec<Call>,
    /// By method.
    pub(super) answers: Map<String, Value>,
    /// The members by group.
    pub(super) groups: Map<String, Value>,
    pub(super) guests: Vec<(String, Guest)>,
    /// What people see.
    pub(super) channel: Channel,
    /// Grows whenever anything changes that the page shows.
    pub(super) version: u64,
    pub(super) mood: Mood,
    /// Whether a denial has to say why; `None` when the page cannot change it.
    pub(super) say_why: Option<bool>,
    /// What the page shows when no server is there.
    pub(super) samples: Option<Vec<Sample>>,
    pub(super) app: Option<Arc<App>>,
    pub(super) granter: Option<Arc<Mutex<Granter>>>,
    /// Whether an agent has learnt how its request ended.
    pub(super) learnt: bool,
    planned: Vec<Planned>,
    /// Channels about which every call hangs.
    pub(super) hanging: Vec<&'static str>,
    pub(super) held: Vec<&'static str>,
    pub(super) recoveries: u64,
    /// By number.
    pub(super) connections: Vec<(u64, TcpStream)>,
    pub(super) accepted: u64,
    pub(super) stopped: bool,
}

struct Planned {
    method: Option<&'static str>,
    failure: Failure,
    times: Times,
}

pub(super) enum Reply {
    Answer(Response),
    /// Nothing until there were more recoveries than this.
    Hang(u64),
    /// This, once there were more recoveries than that.
    Late(Response, u64),
    Close,
}

impl Default for State {
    fn default() -> Self {
        Self {
            token: TOKEN.to_owned(),
            scopes: SCOPES.to_owned(),
            clock_off: 0,
            calls: Vec::new(),
            answers: Map::new(),
            groups: Map::new(),
            guests: Vec::new(),
            channel: Channel::default(),
            version: 0,
            mood: Mood::Works,
            say_why: None,
            samples: None,
            app: None,
            granter: None,
            learnt: false,
            planned: Vec::new(),
            hanging: Vec::new(),
            held: Vec::new(),
            recoveries: 0,
            connections: Vec::new(),
            accepted: 0,
            stopped: false,
        }
    }
}

impl State {
    pub(super) fn calls_of(&self, method: &str) -> Vec<Call> {
        let of_method = self.calls.iter().filter(|call| call.method == method);
        of_method.cloned().collect()
    }

    pub(super) fn recover(&mut self) {
        self.planned.clear();
        self.hanging.clear();
        self.recoveries += 1;
    }

    pub(super) fn plan(&mut self, method: Option<&'static str>, failure: Failure, times: Times) {
        self.planned.push(Planned {
            method,
            failure,
            times,
        });
    }

    fn next_failure(&mut self, method: &str) -> Option<Failure> {
        self.planned
            .retain(|planned| !matches!(planned.times, Times::Next(0)));
        let planned = self
            .planned
            .iter_mut()
            .find(|planned| planned.method.is_none_or(|only| only == method))?;
        if let Times::Next(left) = &mut planned.times {
            *left -= 1;
        }
        Some(planned.failure)
    }

    pub(super) fn reply(&mut self, call: &mut Call) -> Reply {
        let failure = if self.hanging.contains(&call.argument("channel")) {
            Some(Failure::Hang)
        } else {
            self.next_failure(&call.method)
        };
        if let Some(failure) = failure.filter(|failure| !matches!(failure, Failure::Late)) {
            call.error = Some(failure.to_string());
            return self.failed(failure);
        }
        let answer = self.answer(call);
        call.error = answer["error"].as_str().map(str::to_owned);
        call.answer = answer.clone();
        let mut response = match (call.method.as_str(), call.error.as_deref()) {
            ("response_url", None) => page(200, "text/plain", "ok"),
            (_, Some("used_url" | "no_such_path")) => Response::json(404, &answer),
            _ => Response::json(200, &answer),
        };
        let scopes = self.scopes.clone();
        response.headers.push(("X-OAuth-Scopes", scopes));
        let now = clock::now().unix().saturating_add_signed(self.clock_off);
        let date = UNIX_EPOCH + Duration::from_secs(now);
        response
            .headers
            .push(("Date", httpdate::fmt_http_date(date)));
        match failure {
            Some(_) => Reply::Late(response, self.recoveries),
            None => Reply::Answer(response),
        }
    }

    fn failed(&self, failure: Failure) -> Reply {
        Reply::Answer(match failure {
            Failure::RateLimited {
                retry_after_seconds,
            } => {
                let mut limited = Response::json(429, &not_ok("ratelimited"));
                let wait = retry_after_seconds.to_string();
                limited.headers.push(("Retry-After", wait));
                limited
            }
            Failure::Status(status) => page(status, "text/plain", "the stand-in fails"),
            Failure::NotOk(error) => Response::json(200, &not_ok(error)),
            Failure::Garbage => {
                let text = "<!DOCTYPE html><html><body>Something went wrong</body></html>";
                page(200, "text/html", text)
            }
            Failure::Hang | Failure::Late => return Reply::Hang(self.recoveries),
            Failure::CloseWithoutAnswer => return Reply::Close,
        })
    }
}

fn page(status: u16, content_type: &str, text: &str) -> Response {
    Response {
        status,
        headers: vec![("Content-Type", content_type.to_owned())],
        body: text.into(),
    }
}
