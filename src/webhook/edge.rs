//! The public socket. Everything that strangers send ends here: bytes become one bounded request,
//! the gate answers what Slack did not sign, and only what Slack signed goes on to the workers.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use rustix::event::{PollFd, PollFlags, poll};
use rustls::{ServerConnection, StreamOwned};

use super::bridge::Bridge;
use super::head::{self, Head};
use super::limits::Limits;
use super::line::{Line, Lines, Phase};
use super::tls::Tls;
use super::{Refusal, Request, Response, Webhook};
use crate::clock;
use crate::complaint::reason;

/// Stack of a connection's thread, in bytes: a handshake and a health check fit many times.
const STACK: usize = 256 << 10;
/// How long, and how far, a client that was refused is read on so that it sees the answer.
const DRAIN: Duration = Duration::from_secs(1);
const DRAIN_BYTES: u64 = 4 << 20;
/// How long accepting rests when the system has nothing left to give.
const NAP: Duration = Duration::from_millis(20);
/// How often a connection is tried to be given a thread, after a rest that doubles from 1 ms on.
const ATTEMPTS: u32 = 8;
/// The log says at most this often that the system has nothing left to give.
const COMPLAINT: Duration = Duration::from_secs(10);

/// A running public socket.
pub struct Edge {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    waker: UnixStream,
}

/// What all connections share.
struct Shared {
    tls: Option<Arc<Tls>>,
    limits: Limits,
    webhook: Arc<Webhook>,
    bridge: Bridge,
    lines: Lines,
    /// Ends the wait for connections when its other end is closed.
    wake: UnixStream,
    /// When the log last said that the system has nothing left to give.
    complained: Mutex<Option<Instant>>,
}

impl Edge {
    /// Starts to accept.
    ///
    /// # Errors
    /// When the system gives no threads.
    pub fn start(
        listener: TcpListener,
        tls: Option<Arc<Tls>>,
        limits: Limits,
        webhook: Arc<Webhook>,
        bridge: Bridge,
    ) -> io::Result<Self> {
        // Another process may be faster at a socket that several share.
        listener.set_nonblocking(true)?;
        let (waker, wake) = UnixStream::pair()?;
        let lines = Lines::default();
        let shared = Arc::new(Shared {
            tls,
            limits,
            webhook,
            bridge,
            lines,
            wake,
            complained: Mutex::default(),
        });
        let (accepting, reaping) = (Arc::clone(&shared), Arc::clone(&shared));
        let threads = vec![
            thread::Builder::new()
                .name("accept".into())
                .spawn(move || accepting.accept(&listener))?,
            thread::Builder::new()
                .name("reaper".into())
                .spawn(move || reaping.lines.reap())?,
        ];
        Ok(Self {
            shared,
            threads,
            waker,
        })
    }

    /// Whether its threads live and a worker answers, for the watchdog.
    pub fn is_alive(&self) -> bool {
        !self.threads.iter().any(JoinHandle::is_finished) && self.shared.bridge.proves_itself()
    }

    /// Stops accepting, and lets what is in flight finish until the deadline.
    pub fn stop(&self, deadline: Instant) {
        self.shared.lines.close();
        // Only our own wait ends: the socket itself may be another process's, too.
        let _ = self.waker.shutdown(Shutdown::Both);
        self.shared.lines.wait_until_empty(deadline);
        self.shared.bridge.stop(deadline);
    }
}

impl Shared {
    /// Accepts for as long as the process lives: no error ends this loop, only [`Edge::stop`]. The
    /// listener ends with it, so that whoever comes later is refused or finds another process.
    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        loop {
            let wanted = PollFlags::IN;
            let mut ready = [
                PollFd::new(listener, wanted),
                PollFd::new(&self.wake, wanted),
            ];
            // Whatever ends the wait, accepting tells what there is.
            let _ = poll(&mut ready, None);
            if self.lines.is_closed() {
                return;
            }
            match listener.accept() {
                Ok((socket, peer)) => self.take(socket, peer),
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::WouldBlock
                            | ErrorKind::Interrupted
                            | ErrorKind::ConnectionAborted
                    ) => {}
                Err(error) => {
                    // Out of descriptors or memory: make room, and give it time to become free.
                    self.complain("Cannot accept connections for a moment", &error);
                    self.lines.evict();
                    thread::sleep(NAP);
                }
            }
        }
    }

    /// Gives a connection a thread of its own.
    fn take(self: &Arc<Self>, socket: TcpStream, peer: SocketAddr) {
        // A small answer must not wait for an acknowledgement.
        let _ = socket.set_nodelay(true);
        let (phase, span) = match self.tls {
            Some(_) => (Phase::Handshake, self.limits.handshake),
            None => (Phase::Idle, self.limits.head),
        };
        let line = Arc::new(Line::new(socket, peer.ip(), phase, clock::tick() + span));
        let Some(number) = self.lines.add(&line, self.limits.connections) else {
            if self.tls.is_none() {
                // Its buffer is empty, so this does not block.
                let _ = (&*line).write_all(&Refusal::Busy.response().to_wire(Framing::LAST));
            }
            return;
        };
        for attempt in 0..ATTEMPTS {
            let (shared, line) = (Arc::clone(self), Arc::clone(&line));
            let spawned = thread::Builder::new()
                .name("connection".into())
                .stack_size(STACK)
                .spawn(move || {
                    shared.serve(&line, peer);
                    let _ = line.socket().shutdown(Shutdown::Both);
                    shared.lines.remove(number);
                });
            let Err(error) = spawned else {
                return;
            };
            // Whoever waits makes room for whoever may have something to say.
            self.complain("Too few threads for all connections", &error);
            self.lines.evict();
            thread::sleep(Duration::from_millis(1 << attempt).min(NAP));
        }
        self.lines.remove(number);
    }

    /// Tells the operator, though not each time.
    fn complain(&self, what: &str, error: &io::Error) {
        let now = clock::tick();
        let mut last = self
            .complained
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| now.duration_since(last) >= COMPLAINT) {
            *last = Some(now);
            log::warn!(reason:% = reason(error); "{what}");
        }
    }

    fn serve(&self, line: &Line, peer: SocketAddr) {
        let peer = peer.ip().to_canonical();
        match &self.tls {
            None => Connection::new(self, line, line, peer).run(),
            Some(tls) => {
                // Someone who speaks plain HTTP here is told so; a TLS record starts with 0x16.
                let mut first = [0];
                if line.socket().peek(&mut first).is_ok_and(|read| read == 1)
                    && first[0].is_ascii_alphabetic()
                {
                    let mut connection = Connection::new(self, line, line, peer);
                    connection.refuse(&Refusal::PlainHttp);
                    return;
                }
                let Ok(session) = ServerConnection::new(tls.config()) else {
                    return;
                };
                let mut stream = StreamOwned::new(session, line);
                while stream.conn.is_handshaking() {
                    if let Err(error) = stream.conn.complete_io(&mut stream.sock) {
                        log::debug!(peer:%, reason:% = error; "TLS handshake failed");
                        return;
                    }
                }
                line.enter(Phase::Idle, Some(self.limits.head));
                Connection::new(self, line, stream, peer).run();
            }
        }
    }
}

/// How an answer is framed.
#[derive(Clone, Copy)]
pub(super) struct Framing {
    keep_alive: bool,
    /// The answer to HEAD: the length of a body that is not sent.
    head_only: bool,
}

impl Framing {
    const LAST: Self = Self {
        keep_alive: false,
        head_only: false,
    };
}

/// One client's requests, one after the other.
struct Connection<'a, S> {
    shared: &'a Shared,
    line: &'a Line,
    stream: S,
    peer: IpAddr,
    /// What has arrived and is not used yet; more than one request when the client pipelines.
    buffer: Vec<u8>,
}

/// A stream that can tell the client that nothing more comes.
trait Stream: Read + Write {
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
enum Next {
    Request,
    Close,
}

impl<'a, S: Stream> Connection<'a, S> {
    fn new(shared: &'a Shared, line: &'a Line, stream: S, peer: IpAddr) -> Self {
        Self {
            shared,
            line,
            stream,
            peer,
            buffer: Vec::new(),
        }
    }

    fn run(&mut self) {
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
        if let Err(refusal) = self
            .shared
            .webhook
            .expects(&request, length, limits.body_bytes)
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
        let response = match self.shared.webhook.gate(&request) {
            Ok(Some(response)) => response,
            Ok(None) => self
                .shared
                .bridge
                .forward(&request, limits.worker)
                .unwrap_or_else(|refusal| refusal.response()),
            Err(refusal) => refusal.response(),
        };
        framing.keep_alive = may_go_on && !self.shared.lines.is_closed();
        if !framing.keep_alive {
            return self.answer_and_close(&response, framing);
        }
        if self.send(&response.to_wire(framing)).is_err() {
            return Next::Close;
        }
        self.line.enter(Phase::Idle, Some(limits.idle));
        // Asked after the phase has begun: whoever closes ends what is idle by then.
        if self.shared.lines.is_closed() {
            Next::Close
        } else {
            Next::Request
        }
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
            seen = self.buffer.len();
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

    fn refuse(&mut self, refusal: &Refusal) -> Next {
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
