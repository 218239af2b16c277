//! The way to the workers: `tiny_http` on a Unix socket, and a fixed number of connections to it.
//!
//! `tiny_http` has no limits and no deadlines, and some requests make it panic, hang or end the
//! process. So it meets only what Slack has signed, in words of our own: HTTP/1.1, an exact
//! length, and no header that it would act upon. Its socket lies in a private directory and is
//! removed as soon as our own connections stand; nobody else can ever reach it. Its thread pool
//! loses wake-ups when connections arrive together, so they are dialled one by one, each proved by
//! a round trip. Nothing outside this file names `tiny_http`.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::{FORM, JSON, Refusal, Request, Response};
use crate::clock;
use crate::live::hold;

/// Answers a request. It may panic: the worker survives and answers 500.
pub type Handler = Arc<dyn Fn(&Request) -> Response + Send + Sync>;

/// Called when a worker ends that was to go on, or none can be reached any more: nothing but a restart mends that.
pub type OnFailure = Arc<dyn Fn() + Send + Sync>;

/// How long a worker may take. Waiting for a lock and for the disk stays far below.
const ANSWER: Duration = Duration::from_secs(30);
/// The headers that the workers need; no other goes on.
const PASSED_ON: [&str; 3] = [
    "X-Slack-Request-Timestamp",
    "X-Slack-Signature",
    "X-Slack-Retry-Num",
];
/// Carries the client's address. It is ours alone: a client's header of that name does not go on.
const PEER: &str = "X-Runbook-Peer";
/// The largest answer of a worker, in bytes.
const LARGEST_ANSWER: usize = 1 << 20;

/// Running workers, and the connections to them.
pub struct Bridge {
    server: Arc<tiny_http::Server>,
    workers: Mutex<Vec<JoinHandle<()>>>,
    stopping: Arc<AtomicBool>,
    connections: Mutex<Connections>,
    on_failure: OnFailure,
}

/// One way to the workers.
type Connection = BufReader<UnixStream>;

struct Connections {
    /// None as long as anybody waits.
    free: Vec<Connection>,
    /// Free or in use.
    alive: usize,
    /// Who waits for one, in the order in which they came: whoever comes back at once does not go before them.
    waiting: VecDeque<(u64, SyncSender<Connection>)>,
    /// Tells those who wait apart.
    number: u64,
}

impl Bridge {
    /// Starts `workers` threads behind a private socket under `folder`.
    ///
    /// # Errors
    /// When the system gives no socket or threads.
    pub fn start(
        workers: usize,
        folder: &Path,
        handler: &Handler,
        on_failure: OnFailure,
    ) -> io::Result<Self> {
        let private = private_folder(folder)?;
        let socket = private.join("workers");
        let started = Self::start_at(&socket, workers, handler, on_failure);
        // Our connections stand, or never will: the way in is not needed any more.
        let _ = std::fs::remove_file(&socket);
        let _ = std::fs::remove_dir(&private);
        started
    }

    fn start_at(
        socket: &Path,
        workers: usize,
        handler: &Handler,
        on_failure: OnFailure,
    ) -> io::Result<Self> {
        let listener = UnixListener::bind(socket)?;
        let server = tiny_http::Server::from_listener(listener, None).map_err(io::Error::other)?;
        let (server, stopping) = (Arc::new(server), Arc::<AtomicBool>::default());
        let mut threads = Vec::new();
        for number in 1..=workers {
            let (server, stopping, handler) = (
                Arc::clone(&server),
                Arc::clone(&stopping),
                Arc::clone(handler),
            );
            let on_failure = Arc::clone(&on_failure);
            let worker = thread::Builder::new().name(format!("worker-{number}"));
            threads.push(worker.spawn(move || {
                let ended = catch_unwind(AssertUnwindSafe(|| work(&server, &stopping, &handler)));
                if ended.is_err() || !stopping.load(Ordering::Acquire) {
                    on_failure();
                }
            })?);
        }
        // One after the other: of two that come at once, tiny_http may leave one to a thread that serves the other for good.
        let free = (0..workers)
            .map(|_| dial(socket))
            .collect::<io::Result<Vec<_>>>()?;
        let connections = Mutex::new(Connections {
            alive: free.len(),
            free,
            waiting: VecDeque::new(),
            number: 0,
        });
        let workers = Mutex::new(threads);
        Ok(Self {
            server,
            workers,
            stopping,
            connections,
            on_failure,
        })
    }

    /// Has a worker answer a request.
    ///
    /// # Errors
    /// `Busy` when none became free within `patience`.
    pub fn forward(&self, request: &Request, patience: Duration) -> Result<Response, Refusal> {
        let mut connection = self.take(patience).ok_or(Refusal::Busy)?;
        let answered = exchange(&mut connection, &serialise(request));
        let mut connections = self.connections();
        match answered {
            Ok(response) => {
                connections.give_back(connection);
                Ok(response)
            }
            Err(error) => {
                log::error!(reason:% = error; "A worker's connection has failed");
                connections.alive -= 1;
                if connections.alive == 0 {
                    (self.on_failure)();
                }
                Err(Refusal::Failed)
            }
        }
    }

    /// Whether a worker answers within a moment.
    pub fn proves_itself(&self) -> bool {
        let nothing = Request::default();
        self.forward(&nothing, Duration::from_secs(5))
            .is_ok_and(|response| response.status == 404)
    }

    /// Lets the workers finish what they have, until the deadline.
    pub fn stop(&self, deadline: Instant) {
        self.stopping.store(true, Ordering::Release);
        let workers = std::mem::take(&mut *hold(&self.workers));
        for worker in workers {
            while !worker.is_finished() && clock::tick() < deadline {
                self.server.unblock();
                thread::sleep(Duration::from_millis(2));
            }
        }
    }

    fn take(&self, patience: Duration) -> Option<Connection> {
        let mut connections = self.connections();
        if let Some(connection) = connections.free.pop() {
            return Some(connection);
        }
        let (hand, taken) = mpsc::sync_channel(1);
        connections.number += 1;
        let number = connections.number;
        connections.waiting.push_back((number, hand));
        drop(connections);
        if let Ok(connection) = taken.recv_timeout(patience) {
            return Some(connection);
        }
        let mut connections = self.connections();
        connections.waiting.retain(|(other, _)| *other != number);
        // It may have been handed over in the last moment.
        taken.try_recv().ok()
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        hold(&self.connections)
    }
}

impl Connections {
    /// Hands a connection to whoever has waited longest.
    fn give_back(&mut self, connection: Connection) {
        match self.waiting.pop_front() {
            // There is room for one, and whoever stands there takes it.
            Some((_, hand)) => drop(hand.try_send(connection)),
            None => self.free.push(connection),
        }
    }
}

/// Makes a folder that nobody else can look into.
fn private_folder(within: &Path) -> io::Result<PathBuf> {
    let mut number = 0;
    loop {
        let folder = within.join(format!("runbook-{}-{number}", std::process::id()));
        match std::fs::DirBuilder::new().mode(0o700).create(&folder) {
            // Left behind by a process of the same number, or made to be in our way.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < 1000 => {
                number += 1;
            }
            made => return made.map(|()| folder),
        }
    }
}

fn dial(socket: &Path) -> io::Result<Connection> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(ANSWER))?;
    let mut connection = BufReader::new(stream);
    exchange(&mut connection, &serialise(&Request::default()))?;
    Ok(connection)
}

/// The request in our own words.
fn serialise(request: &Request) -> Vec<u8> {
    let (method, path, length) = (&request.method, request.path(), request.body.len());
    let mut wire =
        format!("{method} {path} HTTP/1.1\r\nHost: runbook\r\nContent-Length: {length}\r\n");
    wire.extend([PEER, ": ", &request.peer.to_string(), "\r\n"]);
    let essence = [FORM, JSON]
        .into_iter()
        .find(|essence| request.has_content_type(essence));
    let content_type = essence.map(|essence| ("Content-Type", essence));
    let passed_on = PASSED_ON
        .into_iter()
        .filter_map(|name| Some((name, request.header(name).next()?)));
    for (name, value) in content_type.into_iter().chain(passed_on) {
        if value.bytes().all(|b| b.is_ascii_graphic()) {
            wire.extend([name, ": ", value, "\r\n"]);
        }
    }
    let mut wire = (wire + "\r\n").into_bytes();
    wire.extend_from_slice(&request.body);
    wire
}

/// Sends a request and reads its answer.
fn exchange(connection: &mut Connection, request: &[u8]) -> io::Result<Response> {
    let broken = || io::Error::from(io::ErrorKind::InvalidData);
    connection.get_mut().write_all(request)?;
    let mut line = String::new();
    let mut status = None;
    let mut length = 0;
    let mut headers = Vec::new();
    loop {
        line.clear();
        connection.read_line(&mut line)?;
        match (status, line.trim_end()) {
            (None, first) => {
                status = Some(
                    first
                        .split(' ')
                        .nth(1)
                        .and_then(|code| code.parse().ok())
                        .ok_or_else(broken)?,
                );
            }
            (Some(_), "") => break,
            (Some(_), header) => {
                let (name, value) = header.split_once(": ").ok_or_else(broken)?;
                if name.eq_ignore_ascii_case("content-length") {
                    length = value
                        .parse()
                        .ok()
                        .filter(|length| *length <= LARGEST_ANSWER)
                        .ok_or_else(broken)?;
                }
                let ours = Response::HEADERS
                    .into_iter()
                    .find(|ours| ours.eq_ignore_ascii_case(name));
                headers.extend(ours.map(|ours| (ours, value.to_owned())));
            }
        }
    }
    let mut body = vec![0; length];
    connection.read_exact(&mut body)?;
    Ok(Response {
        status: status.ok_or_else(broken)?,
        headers,
        body,
    })
}

/// One worker's life.
fn work(server: &tiny_http::Server, stopping: &AtomicBool, handler: &Handler) {
    while !stopping.load(Ordering::Acquire) {
        match server.recv() {
            Ok(request) => serve(request, handler),
            Err(_) if stopping.load(Ordering::Acquire) => return,
            Err(error) => {
                log::error!(reason:% = error; "The workers' socket has failed");
                return;
            }
        }
    }
}

fn serve(mut raw: tiny_http::Request, handler: &Handler) {
    let mut body = Vec::with_capacity(raw.body_length().unwrap_or(0));
    let read = raw.as_reader().read_to_end(&mut body);
    let header = |h: &tiny_http::Header| (h.field.to_string(), h.value.to_string());
    let mut request = Request {
        method: raw.method().to_string(),
        target: raw.url().to_owned(),
        headers: raw.headers().iter().map(header).collect(),
        body,
        ..Request::default()
    };
    let peer = request
        .header(PEER)
        .next()
        .and_then(|peer| peer.parse().ok());
    request.peer = peer.unwrap_or(request.peer);
    let answer = || {
        if read.is_ok() {
            handler(&request)
        } else {
            Refusal::Incomplete.response()
        }
    };
    let response = catch_unwind(AssertUnwindSafe(answer)).unwrap_or_else(|_| {
        log::error!("A worker panicked; this is a bug");
        Refusal::Failed.response()
    });
    let mut answer =
        tiny_http::Response::from_data(response.body).with_status_code(response.status);
    for (name, value) in response.headers {
        if let Ok(header) = tiny_http::Header::from_bytes(name, value) {
            answer.add_header(header);
        }
    }
    if let Err(error) = raw.respond(answer) {
        log::error!(reason:% = error; "A worker's answer was not taken");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    fn asking(path: &str) -> Request {
        let target = path.into();
        Request {
            target,
            ..Request::default()
        }
    }

    #[test]
    fn a_worker_that_panics_answers_500_and_goes_on() {
        let handler: Handler = Arc::new(|request| {
            assert_ne!(request.path(), "/panic");
            Response::empty()
        });
        let on_failure: OnFailure = Arc::new(|| ());
        let bridge = Bridge::start(1, &std::env::temp_dir(), &handler, on_failure).unwrap();
        for _ in 0..3 {
            let status = |path| bridge.forward(&asking(path), PATIENCE).unwrap().status;
            assert_eq!((status("/panic"), status("/")), (500, 200));
        }
        bridge.stop(clock::tick() + PATIENCE);
    }

    #[test]
    fn workers_that_end_without_being_told_to_are_a_failure() {
        let (failed, failures) = mpsc::channel();
        let handler: Handler = Arc::new(|_| Response::empty());
        let on_failure: OnFailure = Arc::new(move || failed.send(()).unwrap());
        let bridge = Bridge::start(1, &std::env::temp_dir(), &handler, on_failure).unwrap();
        assert!(failures.try_recv().is_err());
        bridge.server.unblock();
        assert!(failures.recv_timeout(PATIENCE).is_ok());
    }
}
