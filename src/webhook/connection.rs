//! One client's requests, one after the other: bytes become a bounded request, the gate answers what
//! Slack did not sign, a worker answers the rest, and the answer becomes bytes.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown};
use std::time::{Duration, Instant, SystemTime};

use rustls::{ServerConnection, StreamOwned};

use super::edge::{Door, Shared};
use super::head::{self, Head};
use super::line::{Line, Phase};
use super::{Refusal, Request, Response};
use crate::clock;
use crate::metrics;

/// How long, and how far, a client that was refused is read on so that it sees the answer.
const DRAIN: Duration = Duration::from_secs(1);
const DRAIN_BYTES: u64 = 4 << 20;

/// How an answer is framed.
#[derive(Clone, Copy)]
pub(super) struct Framing {
    keep_alive: bool,
    /// The answer to HEAD: the length of a body that is not sent.
    head_only: bool,
}

impl Framing {
    /// The only or last answer of a connection.
    pub(super) const LAST: Self = Self {
        keep_alive: false,
        head_only: false,
    };
}

/// One client's requests, one after the other.
pub(super) struct Connection<'a, S> {
    shared: &'a Shared,
    line: &'a Line,
    stream: S,
    peer: IpAddr,
    /// What has arrived and is not used yet; more than one request when the client pipelines.
    buffer: Vec<u8>,
}

/// A stream that can tell the client that nothing more comes.
pub(super) trait Stream: Read + Write {
    fn say_goodbye(&mut self);
}

impl Stream for &Line {
    fn say_goodbye(&mut self) {}
}

impl Stream for StreamOwned<ServerConnection, &Line> {
    fn say_goodbye(&mut self) {
        self.conn.send_close_notify();
        // Whoever has left needs no goodbye.
        let _ = self.flush();
    }
}

/// Whether the client may go on.
#[derive(PartialEq, Eq)]
pub(super) enum Next {
    Request,
    Close,
}

impl<'a, S: Stream> Connection<'a, S> {
    pub(super) fn new(shared: &'a Shared, line: &'a Line, stream: S, peer: IpAddr) -> Self {
        Self {
            shared,
            line,
            stream,
            peer,
            buffer: Vec::new(),
        }
    }

    /// Serves requests until the client or its limits say that it is enough.
    pub(super) fn run(&mut self) {
        for left in (0..self.shared.limits.requests).rev() {
            if self.exchange(left == 0) == Next::Close {
                break;
            }
        }
        self.stream.say_goodbye();
    }

    /// One request and its answer.
    fn exchange(&mut self, last: bool) -> Next {
        let limits = &self.shared.limits;
        if self.buffer.is_empty() && !matches!(self.fill(), Ok(true)) {
            return Next::Close;
        }
        let started = clock::tick();
        self.line
            .enter_until(Phase::Head, Some(started + limits.head.min(limits.request)));
        let head = match self.read_head() {
            Ok(Some(head)) => head,
            Ok(None) => return Next::Close,
            Err(refusal) => return self.refuse(&refusal),
        };
        let mut framing = Framing {
            keep_alive: false,
            head_only: head.method == "HEAD",
        };
        let may_go_on = head.keep_alive && !last;
        let (length, expects_continue) = (head.length, head.expects_continue);
        let mut request = self.request(head);
        if let Err(refusal) =
            self.shared
                .webhook
                .expects(&self.shared.door, &request, length, limits.body_bytes)
        {
            return self.answer_and_close(&refusal.response(), framing);
        }
        if expects_continue
            && length > self.buffer.len()
            && self.send(b"HTTP/1.1 100 Continue\r\n\r\n").is_err()
        {
            return Next::Close;
        }
        self.line
            .enter_until(Phase::Body, Some(started + limits.request));
        match self.read_body(length) {
            Ok(body) => request.body = body,
            Err(refusal) => return self.refuse(&refusal),
        }
        self.line.enter(Phase::Serving, None);
        let response = self.respond(&request, started);
        framing.keep_alive = may_go_on && !self.shared.lines.is_closed();
        if !framing.keep_alive {
            return self.answer_and_close(&response, framing);
        }
        if self.send(&response.to_wire(framing)).is_err() {
            return Next::Close;
        }
        self.line.enter(Phase::Idle, Some(limits.idle));
        // Asked after the phase has begun: whoever closes ends what is idle by then.
        let has_more = !self.buffer.is_empty() || self.line.has_unread_bytes();
        if self.shared.lines.is_closed() && !has_more {
            Next::Close
        } else {
            Next::Request
        }
    }

    fn respond(&self, request: &Request, started: Instant) -> Response {
        let webhook = &self.shared.webhook;
        let answered = match &self.shared.door {
            Door::Metrics => webhook.metrics_alone(request),
            Door::Main(bridge) => match webhook.gate(request) {
                Ok(Some(response)) => Ok(response),
                Ok(None) => {
                    let answered = bridge.forward(request, self.shared.limits.worker);
                    metrics::acknowledged(clock::tick().duration_since(started));
                    answered
                }
                Err(refusal) => Err(refusal),
            },
        };
        answered.unwrap_or_else(|refusal| refusal.response())
    }

    /// Reads until the head is complete. `None` when the client has left without a word.
    fn read_head(&mut self) -> Result<Option<Head>, Refusal> {
        let limits = &self.shared.limits;
        let mut seen = 0;
        loop {
            // An empty line before a request is a habit of old clients. However many there are, the
            // rest moves once.
            if seen == 0 {
                let lines = self.buffer.chunks_exact(2);
                let empty = lines.take_while(|line| line == b"\r\n").count();
                self.buffer.drain(..2 * empty);
            }
            if let Some(end) = head::end(&self.buffer, seen)? {
                if end > limits.head_bytes {
                    return Err(Refusal::HeadTooLarge);
                }
                let head = head::parse(&self.buffer[..end], limits.headers);
                self.buffer.drain(..end);
                return head.map(Some);
            }
            if self.buffer.len() > limits.head_bytes {
                return Err(Refusal::HeadTooLarge);
            }
            // Half of an empty line is no beginning of a head.
            seen = if self.buffer == b"\r" {
                0
            } else {
                self.buffer.len()
            };
            match self.fill() {
                Ok(true) => {}
                Ok(false) | Err(_) if self.line.is_too_slow() => return Err(Refusal::TooSlow),
                Ok(false) | Err(_) => return Ok(None),
            }
        }
    }

    fn read_body(&mut self, length: usize) -> Result<Vec<u8>, Refusal> {
        while self.buffer.len() < length {
            match self.fill() {
                Ok(true) => {}
                Ok(false) | Err(_) if self.line.is_too_slow() => return Err(Refusal::TooSlow),
                Ok(false) | Err(_) => return Err(Refusal::Incomplete),
            }
        }
        let rest = self.buffer.split_off(length);
        Ok(std::mem::replace(&mut self.buffer, rest))
    }

    /// Waits for more bytes. `false` at the end of the stream.
    fn fill(&mut self) -> io::Result<bool> {
        let mut chunk = [0; 8192];
        let read = self.stream.read(&mut chunk)?;
        self.buffer.extend_from_slice(&chunk[..read]);
        Ok(read > 0)
    }

    fn request(&self, head: Head) -> Request {
        let mut request = Request {
            method: head.method,
            target: head.target,
            headers: head.headers,
            peer: self.peer,
            body: Vec::new(),
        };
        request.peer = self.shared.webhook.peer_behind_proxies(&request);
        request
    }

    pub(super) fn refuse(&mut self, refusal: &Refusal) -> Next {
        log::debug!(peer:% = self.peer, refusal:?; "Request refused");
        self.answer_and_close(&refusal.response(), Framing::LAST)
    }

    /// Answers, then reads on for a moment: a socket that is closed with unread bytes in it takes
    /// the answer back.
    fn answer_and_close(&mut self, response: &Response, framing: Framing) -> Next {
        let sent = self.send(&response.to_wire(framing));
        self.stream.say_goodbye();
        if sent.is_ok() {
            self.line.enter(Phase::Draining, Some(DRAIN));
            let _ = self.line.socket().shutdown(Shutdown::Write);
            let mut socket = self.line;
            let _ = io::copy(
                &mut Read::by_ref(&mut socket).take(DRAIN_BYTES),
                &mut io::sink(),
            );
        }
        Next::Close
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.line
            .enter(Phase::Writing, Some(self.shared.limits.write));
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }
}

impl Response {
    /// The answer as it goes over the wire.
    pub(super) fn to_wire(&self, framing: Framing) -> Vec<u8> {
        let date = httpdate::fmt_http_date(SystemTime::from(clock::now()));
        let connection = if framing.keep_alive {
            "keep-alive"
        } else {
            "close"
        };
        let (status, length) = (self.status, self.body.len());
        let mut wire = format!(
            "HTTP/1.1 {status} {}\r\nDate: {date}\r\nConnection: {connection}\r\nContent-Length: {length}\r\n",
            phrase(status)
        );
        for (name, value) in &self.headers {
            wire.extend([name, ": ", value, "\r\n"]);
        }
        wire += "\r\n";
        let mut wire = wire.into_bytes();
        if !framing.head_only {
            wire.extend_from_slice(&self.body);
        }
        wire
    }
}

fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        411 => "Length Required",
        413 => "Content Too Large",
        417 => "Expectation Failed",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Unknown",
    }
}
