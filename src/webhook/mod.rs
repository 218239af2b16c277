//! The server's side that is about requests: what comes in, who gets in, what is answered.
//!
//! [`Webhook::answer`] is the whole journey. It knows nothing of sockets: a [`Request`] enters
//! complete and bounded, a [`Response`] leaves.

pub mod bridge;
mod events;
mod gate;
mod health;
mod interactions;

pub use gate::Refusal;
pub use health::Network;

use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Instant;

use serde_json::json;

use crate::clock;
use crate::effects::Effects;
use crate::live::Live;
use crate::slack::signature::SigningSecret;
use gate::Route;

/// Largest body that is read, in bytes. Slack's payloads are a few kilobytes; one that quotes a
/// long message with many blocks stays far below this.
pub const LARGEST_BODY: usize = 1 << 20;

/// One request, complete and bounded.
#[derive(Debug)]
pub struct Request {
    pub method: String,
    /// Path and query, as they came.
    pub target: String,
    /// In the order they came, names as they came, doubles included.
    pub headers: Vec<(String, String)>,
    pub peer: Option<IpAddr>,
    /// The body, or why it is not here.
    pub body: Result<Vec<u8>, Refusal>,
}

/// What goes back.
#[derive(Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

/// Who may get in. A reload may change it.
#[derive(Debug)]
pub struct Access {
    pub secrets: Vec<SigningSecret>,
    /// Who beside loopback may ask for details of our health.
    pub monitors: Vec<Network>,
}

/// The server above the socket.
pub struct Webhook {
    effects: Effects,
    access: Live<Access>,
    started: Instant,
    seen: Mutex<events::Seen>,
}

impl Webhook {
    pub fn new(effects: Effects, access: Access) -> Self {
        Self {
            effects,
            access: Live::new(access),
            started: clock::tick(),
            seen: Mutex::default(),
        }
    }

    /// From now on lets in whom this names.
    pub fn reload(&self, access: Access) {
        self.access.replace(access);
    }

    /// Answers one request: route, then signature, then what it means.
    pub fn answer(&self, request: &Request) -> Response {
        self.try_answer(request)
            .unwrap_or_else(|refusal| refusal.response())
    }

    fn try_answer(&self, request: &Request) -> Result<Response, Refusal> {
        let route = gate::route(request)?;
        if route == Route::Health {
            return Ok(self.health(request));
        }
        let body = request.body.as_ref().map_err(Clone::clone)?;
        if gate::is_ssl_check(request, body) {
            return Ok(Response::empty());
        }
        let body = gate::admit(&self.access.now().secrets, request, body)?;
        match route {
            Route::Interactions => self.interaction(request, &body),
            Route::Events => self.event(request, &body),
            Route::Health => Ok(self.health(request)),
        }
    }
}

impl Request {
    /// The values of a header, in order.
    pub fn header<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let same = move |(other, _): &&(String, String)| other.eq_ignore_ascii_case(name);
        self.headers
            .iter()
            .filter(same)
            .map(|(_, value)| value.as_str())
    }

    /// The target without its query.
    pub fn path(&self) -> &str {
        self.target
            .split_once('?')
            .map_or(&*self.target, |(path, _)| path)
    }

    /// Whether the content type is the one named, whatever its parameters.
    pub fn has_content_type(&self, essence: &str) -> bool {
        let mut types = self.header("content-type");
        let (Some(only), None) = (types.next(), types.next()) else {
            return false;
        };
        only.split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .eq_ignore_ascii_case(essence)
    }
}

impl Response {
    /// 200 without a body.
    pub fn empty() -> Self {
        Self {
            status: 200,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    /// JSON.
    pub fn json(status: u16, body: &serde_json::Value) -> Self {
        Self {
            status,
            headers: vec![("Content-Type", "application/json".into())],
            body: body.to_string().into(),
        }
    }

    /// `{"error":"…"}`.
    fn error(status: u16, words: &str) -> Self {
        Self::json(status, &json!({ "error": words }))
    }
}
