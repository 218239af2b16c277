//! The server's side that is about requests: what comes in, who gets in, what is answered.
//!
//! ```text
//! socket ─ edge (tls, line) ─ connection (head) ─► Request ─ Webhook::gate ─ bridge ─► Webhook::answer ─► Response
//! ```
//!
//! The gate is asked twice: at the edge, so that no stranger's request occupies a worker, and again
//! by the worker, so that nothing between the two has to be trusted. That costs two HMACs of a few
//! kilobytes.

pub mod bridge;
mod connection;
pub mod edge;
mod events;
mod gate;
pub(crate) mod head;
mod health;
mod interactions;
mod limits;
mod line;
mod network;
pub mod tls;

#[cfg(fuzzing)]
#[doc(hidden)]
pub use head::fuzz as fuzz_head;

pub use gate::{Refusal, SPEAKS_TLS};
pub use limits::Limits;
pub use network::Network;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde_json::json;

use crate::clock;
use crate::effects::Effects;
use crate::live::{Live, hold};
use crate::metrics::{self, Counter};
use crate::slack::signature::{SignedBody, SigningSecret};
use edge::Door;
use gate::Endpoint;
use tls::Tls;

/// The content type of interactions.
const FORM: &str = "application/x-www-form-urlencoded";
/// The content type of events.
const JSON: &str = "application/json";

/// One request, complete and bounded.
#[derive(Debug)]
pub struct Request {
    pub method: String,
    /// Path and query, as they came.
    pub target: String,
    /// In the order they came, names as they came, doubles included.
    pub headers: Vec<(String, String)>,
    /// Who sent it; behind a trusted proxy, whoever that one names.
    pub peer: IpAddr,
    pub body: Vec<u8>,
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
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<Network>,
    /// The one Slack app that is served, if it is named.
    pub app: Option<String>,
    /// The one workspace that is served, if it is named.
    pub workspace: Option<String>,
}

/// Where `/metrics` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricsPlace {
    /// On the main port, for those nearby.
    Main,
    /// At an address of its own, and nowhere else.
    Alone,
}

/// The server above the socket.
pub struct Webhook {
    effects: Effects,
    access: Live<Access>,
    tls: Option<Arc<Tls>>,
    started: Instant,
    metrics: MetricsPlace,
    seen: Mutex<events::Seen>,
    reports: Mutex<gate::Reports>,
    /// Why the configuration as it is now is not the one that holds.
    stale: Live<Option<String>>,
}

impl Webhook {
    pub fn new(
        effects: Effects,
        access: Access,
        tls: Option<Arc<Tls>>,
        metrics: MetricsPlace,
    ) -> Self {
        Self {
            effects,
            access: Live::new(access),
            tls,
            started: clock::tick(),
            metrics,
            seen: Mutex::default(),
            reports: Mutex::new(gate::Reports::new()),
            stale: Live::new(None),
        }
    }

    /// From now on lets in whom this names.
    pub fn reload(&self, access: Access) {
        self.access.replace(access);
        self.stale.replace(None);
    }

    /// Goes on as before, for what there is now cannot be used; health and metrics say so.
    pub fn keep_old(&self, why: &str) {
        self.stale.replace(Some(why.to_owned()));
        self.effects.note_old_policy(why);
    }

    /// Looks after what no request brings up: reports the rest of a flood once it is over.
    pub fn look(&self) {
        hold(&self.reports).look();
    }

    /// Reports what is yet to be reported, before the end.
    pub fn conclude(&self) {
        hold(&self.reports).conclude();
    }

    /// Whether a request whose body is yet to come is worth reading.
    ///
    /// # Errors
    /// The refusal to answer with.
    pub fn expects(
        &self,
        door: &Door,
        request: &Request,
        length: usize,
        most: usize,
    ) -> Result<(), Refusal> {
        let endpoint = gate::endpoint(request);
        if matches!(door, Door::Metrics) {
            return match (request.path(), endpoint) {
                ("/metrics", Ok(_)) if length > most => Err(Refusal::TooLarge),
                ("/metrics", endpoint) => endpoint.map(drop),
                _ => Err(Refusal::NotFound),
            };
        }
        // To strangers there is no such path, whatever the method.
        if request.path() == "/metrics" && !self.shows_metrics_to(request) {
            return Err(Refusal::NotFound);
        }
        endpoint?;
        if length > most {
            Err(Refusal::TooLarge)
        } else {
            Ok(())
        }
    }

    /// Answers everything that needs no worker: `None` means that Slack has signed it.
    ///
    /// # Errors
    /// The refusal to answer with.
    pub fn gate(&self, request: &Request) -> Result<Option<Response>, Refusal> {
        match gate::endpoint(request)? {
            Endpoint::Health => Ok(Some(self.health(request))),
            Endpoint::Metrics => self.metrics(request).map(Some),
            Endpoint::Interactions | Endpoint::Events if gate::is_ssl_check(request) => {
                Ok(Some(Response::empty()))
            }
            Endpoint::Interactions | Endpoint::Events => {
                self.admit(&self.access.now(), request).map(|_| None)
            }
        }
    }

    /// Answers a request that Slack has signed; any other is refused.
    pub fn answer(&self, request: &Request) -> Response {
        self.try_answer(request)
            .unwrap_or_else(|refusal| refusal.response())
    }

    fn try_answer(&self, request: &Request) -> Result<Response, Refusal> {
        let endpoint = gate::endpoint(request)?;
        let access = self.access.now();
        let body = self.admit(&access, request)?;
        match endpoint {
            Endpoint::Interactions => self.interaction(request, &body),
            Endpoint::Events => self.event(request, &body),
            Endpoint::Health | Endpoint::Metrics => Err(Refusal::NotFound),
        }
    }

    fn admit<'a>(&self, access: &Access, request: &'a Request) -> Result<SignedBody<'a>, Refusal> {
        gate::admit(&access.secrets, request).map_err(|forged| {
            metrics::count(Counter::SignatureFailures);
            let mut reports = hold(&self.reports);
            reports.report(&forged, request);
            Refusal::Signature
        })
    }

    /// The client as the proxies that we trust name it: the last address in `X-Forwarded-For` that
    /// is none of theirs.
    pub fn peer_behind_proxies(&self, request: &Request) -> IpAddr {
        let trusted = &self.access.now().trusted_proxies;
        let is_trusted = |peer: IpAddr| trusted.iter().any(|network| network.contains(peer));
        let forwarded: Vec<&str> = request
            .header("x-forwarded-for")
            .flat_map(|list| list.split(','))
            .collect();
        let mut peer = request.peer;
        for named in forwarded.iter().rev() {
            let Some(named) = named.trim().parse().ok().filter(|_| is_trusted(peer)) else {
                break;
            };
            peer = named;
        }
        peer
    }
}

impl Default for Request {
    /// A request for nothing: it is answered 404.
    fn default() -> Self {
        let (method, target) = ("GET".into(), "/".into());
        Self {
            method,
            target,
            headers: Vec::new(),
            peer: Ipv4Addr::UNSPECIFIED.into(),
            body: Vec::new(),
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
    /// The headers that an answer may have, beside those of the connection.
    const HEADERS: [&'static str; 3] = ["Content-Type", "Allow", "Retry-After"];

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
            headers: vec![("Content-Type", JSON.into())],
            body: body.to_string().into(),
        }
    }

    /// `{"error":"…"}`.
    pub fn error(status: u16, words: &str) -> Self {
        Self::json(status, &json!({ "error": words }))
    }
}
