//! An agent that wants to be called back: plain HTTP/1.1 on a loopback socket, one request a connection.
//!
//! It keeps every request that arrives, byte for byte, and says 200 unless it was told to say something else.

use std::collections::VecDeque;
use std::io::{self, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, bind, listen};
use serde_json::Value;

use crate::harness::sign;
use crate::wire::{Head, Unframed, header};

/// An agent that listens.
pub struct Agent {
    ears: Arc<Ears>,
    address: SocketAddr,
    listener: Option<JoinHandle<()>>,
}

/// An agent that is away: its port is its own, and refuses connections until it comes back.
pub struct Away {
    socket: OwnedFd,
    address: SocketAddr,
}

/// One request that arrived.
#[derive(Clone, Debug)]
pub struct Callback {
    /// Method, target and version.
    pub first_line: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// Something else than 200.
#[derive(Clone, Debug)]
pub enum Reply {
    Status(u16),
    /// A status with the `Location` that goes with it.
    Redirect(u16, String),
    /// No answer, on a connection that stays open.
    Hang,
}

#[derive(Default)]
struct Ears {
    heard: Mutex<Heard>,
    grew: Condvar,
}

#[derive(Default)]
struct Heard {
    callbacks: Vec<Callback>,
    replies: VecDeque<Reply>,
    hanging: Vec<TcpStream>,
    stopped: bool,
}

impl Away {
    pub fn new() -> Self {
        let socket = rustix::net::socket_with(
            AddressFamily::INET,
            SocketType::STREAM,
            rustix::net::SocketFlags::CLOEXEC,
            None,
        )
        .expect("a socket");
        let any = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
        bind(&socket, &any).expect("bind a loopback port");
        let listener = TcpListener::from(socket.try_clone().expect("a second handle"));
        let address = listener
            .local_addr()
            .expect("a bound socket has an address");
        Self { socket, address }
    }

    pub fn url(&self) -> String {
        url(self.address)
    }

    pub fn come_back(self) -> Agent {
        listen(&self.socket, 16).expect("listen on a loopback port");
        Agent::on(TcpListener::from(self.socket))
    }
}

impl Agent {
    pub fn start() -> Self {
        Self::on(TcpListener::bind(("127.0.0.1", 0)).expect("bind a loopback port"))
    }

    fn on(listener: TcpListener) -> Self {
        let address = listener
            .local_addr()
            .expect("a bound socket has an address");
        let ears = Arc::new(Ears::default());
        let hearing = Arc::clone(&ears);
        let listener = thread::spawn(move || hearing.listen(&listener));
        Self {
            ears,
            address,
            listener: Some(listener),
        }
    }

    /// A URL of its own, with a part that only who was given it knows.
    pub fn url(&self) -> String {
        url(self.address)
    }

    /// Answers the next request with this. What was asked for one after another comes in that order.
    pub fn reply(&self, reply: Reply) {
        self.ears.heard().replies.push_back(reply);
    }

    pub fn callbacks(&self) -> Vec<Callback> {
        self.ears.heard().callbacks.clone()
    }

    /// Waits for at least `count` requests and returns them all; panics with them when they do not come.
    pub fn wait_for(&self, count: usize, timeout: Duration) -> Vec<Callback> {
        let (heard, _) = self
            .ears
            .grew
            .wait_timeout_while(self.ears.heard(), timeout, |heard| {
                heard.callbacks.len() < count
            })
            .unwrap_or_else(PoisonError::into_inner);
        let callbacks = heard.callbacks.clone();
        drop(heard);
        assert!(
            callbacks.len() >= count,
            "{} of {count} callbacks within {timeout:?}: {callbacks:#?}",
            callbacks.len()
        );
        callbacks
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.ears.heard().stopped = true;
        // A last connection is what wakes the listener from `accept`.
        let _ = TcpStream::connect(self.address);
        let ended = self.listener.take().map(JoinHandle::join);
        assert!(
            thread::panicking() || !matches!(ended, Some(Err(_))),
            "the agent panicked"
        );
    }
}

impl Callback {
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    pub fn json(&self) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("not JSON ({error}): {text}"))
    }

    /// Whether its signature is this secret's, and made of exactly these bytes.
    pub fn is_signed_with(&self, secret: &str) -> bool {
        let timestamp = self.header("X-Runbook-Request-Timestamp");
        let signature = self.header("X-Runbook-Signature");
        timestamp.is_some_and(|timestamp| signature == Some(&sign(secret, timestamp, &self.body)))
    }
}

impl Ears {
    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listen(&self, listener: &TcpListener) {
        for stream in listener.incoming() {
            if self.heard().stopped {
                break;
            }
            // A client may leave at any time; only the requests that arrived whole matter.
            let _ = stream.and_then(|stream| self.serve(stream));
        }
    }

    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut reader = BufReader::new(&stream);
        let Some(request) = Head::read(&mut reader)? else {
            return Ok(());
        };
        let body = request.read_body(&mut reader, Unframed::Empty)?;
        let mut heard = self.heard();
        let reply = heard.replies.pop_front();
        heard.callbacks.push(Callback {
            first_line: request.first_line,
            headers: request.headers,
            body,
        });
        self.grew.notify_all();
        let (status, location) = match reply {
            None => (200, String::new()),
            Some(Reply::Status(status)) => (status, String::new()),
            Some(Reply::Redirect(status, to)) => (status, format!("Location: {to}\r\n")),
            Some(Reply::Hang) => {
                heard.hanging.push(stream);
                return Ok(());
            }
        };
        drop(heard);
        let answer = format!(
            "HTTP/1.1 {status} Agent\r\nContent-Length: 2\r\nConnection: close\r\n{location}\r\nok"
        );
        (&stream).write_all(answer.as_bytes())
    }
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}/decided/s3cr3t-path?of=checkout")
}
