//! Who gets in: the endpoints, Slack's signature, and what those who do not get in are told.

use std::time::{Duration, Instant};

use super::{FORM, Request, Response};
use crate::clock;
use crate::slack::interaction;
use crate::slack::signature::{Forged, SignedBody, SigningSecret, WINDOW, verify};

/// Where a request wants to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Interactions,
    Events,
    Health,
    Metrics,
}

/// Why a request is not answered with what it wants. The peer learns a status and fixed words,
/// never a reason; that is for our log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    NotFound,
    /// The path exists, for these methods.
    Method(&'static str),
    TooLarge,
    HeadTooLarge,
    /// The head is not HTTP, or could be understood in two ways.
    Malformed,
    /// The body did not come whole.
    Incomplete,
    TooSlow,
    /// A chunked body.
    LengthRequired,
    /// An `Expect` that is not `100-continue`.
    Expectation,
    /// Plain HTTP where TLS is spoken.
    PlainHttp,
    Signature,
    /// It is signed, and not what Slack documents.
    Unreadable,
    /// Try again: somebody else is at it.
    Busy,
    /// Our own trouble; nothing was decided, or the disk would not confirm it.
    Failed,
}

/// What plain HTTP is told where TLS is spoken. `runbook health` knows our server by it.
pub const SPEAKS_TLS: &str = "this port speaks https";

impl Refusal {
    /// The only map from refusal to HTTP.
    pub(super) fn response(&self) -> Response {
        let (status, words) = match self {
            Self::NotFound => (404, "not found"),
            Self::Method(_) => (405, "method not allowed"),
            Self::TooLarge => (413, "body too large"),
            Self::HeadTooLarge => (431, "head too large"),
            Self::Malformed => (400, "malformed request"),
            Self::Incomplete => (400, "incomplete body"),
            Self::TooSlow => (408, "too slow"),
            Self::LengthRequired => (411, "content length required"),
            Self::Expectation => (417, "unknown expectation"),
            Self::PlainHttp => (400, SPEAKS_TLS),
            Self::Signature => (401, "invalid signature"),
            Self::Unreadable => (400, "unreadable payload"),
            Self::Busy => (503, "busy, try again"),
            Self::Failed => (500, "could not be recorded"),
        };
        let mut response = Response::error(status, words);
        match self {
            Self::Method(allowed) => response.headers.push(("Allow", (*allowed).into())),
            Self::Busy => response.headers.push(("Retry-After", "1".into())),
            _ => {}
        }
        response
    }
}

/// Finds the endpoint.
pub(super) fn endpoint(request: &Request) -> Result<Endpoint, Refusal> {
    let (endpoint, allowed) = match request.path() {
        "/slack/interactions" => (Endpoint::Interactions, "POST"),
        "/slack/events" => (Endpoint::Events, "POST"),
        "/health" => (Endpoint::Health, "GET, HEAD"),
        "/metrics" => (Endpoint::Metrics, "GET, HEAD"),
        _ => return Err(Refusal::NotFound),
    };
    let known = allowed.split(", ").any(|method| method == request.method);
    if known {
        Ok(endpoint)
    } else {
        Err(Refusal::Method(allowed))
    }
}

/// Whether Slack is only checking our certificate: an unsigned form, of which nothing else counts.
pub(super) fn is_ssl_check(request: &Request) -> bool {
    request.has_content_type(FORM) && interaction::is_ssl_check(&request.body)
}

/// Lets in what Slack has signed.
pub(super) fn admit<'a>(
    secrets: &[SigningSecret],
    request: &'a Request,
) -> Result<SignedBody<'a>, Forged> {
    let timestamps: Vec<&str> = request.header("x-slack-request-timestamp").collect();
    let signatures: Vec<&str> = request.header("x-slack-signature").collect();
    verify(
        secrets,
        &timestamps,
        &signatures,
        &request.body,
        clock::now(),
    )
}

/// Reports forged requests, but not each one of a flood: whoever can send them must not be able to
/// fill the disk with our log.
#[derive(Debug)]
pub(super) struct Reports {
    since: Instant,
    told: u32,
    untold: u64,
}

/// How many forged requests are reported in a [`Reports::PERIOD`].
const MOST_TOLD: u32 = 100;

impl Reports {
    const PERIOD: Duration = Duration::from_secs(60);

    pub(super) fn new() -> Self {
        Self {
            since: clock::tick(),
            told: 0,
            untold: 0,
        }
    }

    pub(super) fn report(&mut self, forged: &Forged, request: &Request) {
        self.look();
        if self.told < MOST_TOLD {
            self.told += 1;
            log_forgery(forged, request);
        } else {
            self.untold += 1;
        }
    }

    /// Begins anew once the period is over.
    pub(super) fn look(&mut self) {
        if clock::since(self.since) >= Self::PERIOD {
            self.conclude();
        }
    }

    /// Reports how many were not, and begins anew.
    pub(super) fn conclude(&mut self) {
        if self.untold > 0 {
            log::error!("Signature verification failed {} more times", self.untold);
        }
        *self = Self::new();
    }
}

fn log_forgery(forged: &Forged, request: &Request) {
    let peer = request.peer;
    match forged {
        Forged::Mismatch { expected, received } => {
            let (expected, received) = (format!("v0={expected}..."), format!("v0={received}..."));
            log::error!(expected:%, received:%, peer:%,
                likelyCause = "SLACK_SIGNING_SECRET is not this app's signing secret, a proxy changed the body, \
                               or the request is not from Slack";
                "Signature verification failed");
        }
        Forged::Stale { seconds, ahead } => {
            let side = if *ahead { "ahead of" } else { "behind" };
            let timestamp =
                format!("{seconds} s {side} this machine's clock, {WINDOW} s are allowed");
            log::error!(timestamp:%, peer:%,
                likelyCause = "this machine's clock is wrong, or an old request was sent again";
                "Signature verification failed");
        }
        Forged::Headers | Forged::Timestamp => {
            log::error!(peer:%,
                likelyCause = "the request is not from Slack, or a proxy drops or doubles \
                               X-Slack-Signature or X-Slack-Request-Timestamp";
                "Signature verification failed");
        }
    }
}
