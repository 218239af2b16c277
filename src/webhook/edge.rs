//! The public socket: who is let in to say something, on a thread of their own. Everything that
//! strangers send ends behind it, in `connection.rs`.

use std::io::{self, ErrorKind, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustls::{ServerConnection, StreamOwned};

use super::bridge::Bridge;
use super::connection::{Connection, Framing};
use super::limits::Limits;
use super::line::{FAREWELL, Line, Lines, Phase};
use super::tls::Tls;
use super::{Refusal, Webhook};
use crate::clock;
use crate::complaint::reason;
use crate::live::hold;

/// Stack of a connection's thread, in bytes: a handshake fits many times, and so does the reading of a
/// file that is nested as deeply as JSON may be, which a health check comes to.
const STACK: usize = 1 << 20;
/// How long accepting rests when the system has nothing left to give.
const NAP: Duration = Duration::from_millis(20);
/// How often a connection is tried to be given a thread, after a rest that doubles from 1 ms on.
const ATTEMPTS: u32 = 8;
/// The log says at most this often that the system has nothing left to give.
const COMPLAINT: Duration = Duration::from_secs(10);

/// Whose the connections are that wait in the kernel when the server ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// Ours: the socket ends with us, and the kernel would reset them.
    Own,
    /// Whoever passed us the socket keeps it, so they are for the next server.
    Passed,
}

/// A running public socket.
pub struct Edge {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    waker: UnixStream,
}

/// Where a socket leads to.
pub enum Door {
    /// All that the server offers; the workers behind the bridge answer what Slack has signed.
    Main(Bridge),
    /// `/metrics` and nothing else, to whoever reaches it.
    Metrics,
}

impl Door {
    fn is_alive(&self) -> bool {
        match self {
            Self::Main(bridge) => bridge.proves_itself(),
            Self::Metrics => true,
        }
    }

    fn close(&self, deadline: Instant) {
        match self {
            Self::Main(bridge) => bridge.stop(deadline),
            Self::Metrics => {}
        }
    }
}

/// What all connections share.
pub(super) struct Shared {
    tls: Option<Arc<Tls>>,
    pub(super) limits: Limits,
    pub(super) webhook: Arc<Webhook>,
    pub(super) door: Door,
    pub(super) lines: Lines,
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
        (listener, queue): (TcpListener, Queue),
        tls: Option<Arc<Tls>>,
        limits: Limits,
        webhook: Arc<Webhook>,
        door: Door,
    ) -> io::Result<Self> {
        // Another process may be faster at a socket that several share.
        listener.set_nonblocking(true)?;
        let (waker, wake) = UnixStream::pair()?;
        let lines = Lines::default();
        let shared = Arc::new(Shared {
            tls,
            limits,
            webhook,
            door,
            lines,
            wake,
            complained: Mutex::default(),
        });
        let (accepting, reaping) = (Arc::clone(&shared), Arc::clone(&shared));
        let threads = vec![
            thread::Builder::new()
                .name("accept".into())
                .spawn(move || accepting.accept(listener, queue))?,
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
        !self.threads.iter().any(JoinHandle::is_finished) && self.shared.door.is_alive()
    }

    /// Takes in whoever is connected already, stops accepting, and lets what is in flight finish until
    /// the deadline.
    pub fn stop(&self, deadline: Instant) {
        self.shared.lines.close();
        // Only our own wait ends: the socket itself may be another process's, too.
        let _ = self.waker.shutdown(Shutdown::Both);
        self.shared.lines.wait_until_empty(deadline);
        self.shared.door.close(deadline);
    }
}

impl Shared {
    /// Accepts for as long as the process lives: no error ends this loop, only [`Edge::stop`]. The
    /// listener ends with it, so that whoever comes later is refused or finds another process.
    fn accept(self: &Arc<Self>, listener: TcpListener, queue: Queue) {
        loop {
            let wanted = PollFlags::IN;
            let mut ready = [
                PollFd::new(&listener, wanted),
                PollFd::new(&self.wake, wanted),
            ];
            // Whatever ends the wait, accepting tells what there is.
            let _ = poll(&mut ready, None);
            if self.lines.is_closed() {
                break;
            }
            self.accept_one(&listener);
        }
        if queue == Queue::Own {
            // They were told that they are connected, and closing would reset them. With
            // SO_REUSEPORT the kernel may go on to give us some: nothing but closing stops that.
            let end = clock::tick() + FAREWELL;
            while self.accept_one(&listener) && clock::tick() < end {}
        }
        drop(listener);
        self.lines.end_of_intake();
    }

    /// Takes in one connection. `false` when none waits.
    fn accept_one(self: &Arc<Self>, listener: &TcpListener) -> bool {
        self.lines.wait_for_leavers(NAP);
        match listener.accept() {
            Ok((socket, peer)) => self.take(socket, peer),
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock => return false,
                ErrorKind::Interrupted | ErrorKind::ConnectionAborted => {}
                _ => {
                    // Out of descriptors or memory: make room, and give it time to become free.
                    self.complain("Cannot accept connections for a moment", &error);
                    self.lines.evict();
                    thread::sleep(NAP);
                }
            },
        }
        true
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
                    let served = catch_unwind(AssertUnwindSafe(|| shared.serve(&line, peer)));
                    if served.is_err() {
                        log::error!("A connection panicked; this is a bug");
                    }
                    let _ = line.socket().shutdown(Shutdown::Both);
                    // Whoever is told that it has ended finds its descriptor free.
                    drop(line);
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
        let mut last = hold(&self.complained);
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
