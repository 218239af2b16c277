//! The public socket under everything that strangers do to it, on the real binary, plain and TLS.
//! Whatever happens, the next real click is served.

mod certificates;
mod crowd;
mod deadlines;
mod hazards;
mod http;
mod lifecycle;
pub mod pki;

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::Value;

use crate::harness::{
    Answer, Builder, Click, RawRequest, Server, now, read_approval, sample, write_approval,
};
use crate::stand_in::StandIn;
use pki::{Authority, Pair};

/// How long a real click may take, whatever else goes on: Slack waits no longer.
const SLACK_WAITS: Duration = Duration::from_secs(3);
/// How long a test waits for what is no question of time.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the server speaks on its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Port {
    Plain,
    Tls,
}

const BOTH: [Port; 2] = [Port::Plain, Port::Tls];

/// A server, its Slack, and who made its certificate.
struct Site {
    server: Server,
    slack: StandIn,
    /// How a client checks the certificate; `None` on a plain port.
    tls: Option<Arc<ClientConfig>>,
    _files: Option<(Authority, Pair)>,
}

impl Site {
    fn start(port: Port) -> Self {
        Self::with(port, |builder| builder)
    }

    fn with(port: Port, settings: impl FnOnce(Builder) -> Builder) -> Self {
        let slack = StandIn::start();
        let builder = Server::builder().slack(&slack);
        let files = (port == Port::Tls).then(|| {
            let authority = Authority::new();
            let pair = authority.issue("site", pki::Key::Ec);
            (authority, pair)
        });
        let (builder, tls) = match &files {
            Some((authority, pair)) => (builder.args(pair.options()), Some(authority.client())),
            None => (builder, None),
        };
        Self {
            server: settings(builder).start(),
            slack,
            tls,
            _files: files,
        }
    }

    /// A connection, with its handshake done.
    fn connect(&self) -> Wire {
        self.try_connect().unwrap()
    }

    fn try_connect(&self) -> io::Result<Wire> {
        let socket = self.server.connect()?;
        match &self.tls {
            None => Ok(Wire::new(socket)),
            Some(config) => secured(socket, config),
        }
    }

    /// Sends bytes on a connection of their own.
    fn send(&self, bytes: impl AsRef<[u8]>) -> Wire {
        let mut wire = self.connect();
        wire.say(bytes);
        wire
    }

    /// A real click: a fresh approval is decided, in time.
    fn serves_a_click(&self) -> Duration {
        let id = self.file_an_approval();
        let asked = Instant::now();
        let answer = self
            .try_click(&id)
            .unwrap_or_else(|error| panic!("a real click is lost: {error}"));
        let took = asked.elapsed();
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(took < SLACK_WAITS, "a real click took {took:?}");
        assert_eq!(self.status_of(&id), "approved");
        took
    }

    fn file_an_approval(&self) -> String {
        static FILED: AtomicU64 = AtomicU64::new(1);
        let id = format!("apr-real-{}", FILED.fetch_add(1, Ordering::Relaxed));
        write_approval(self.server.pending_dir(), &sample(&id));
        id
    }

    fn status_of(&self, id: &str) -> String {
        let approval = read_approval(self.server.pending_dir(), id);
        approval["status"].as_str().unwrap().to_owned()
    }

    /// Holds every lock on approvals, as a process that is stuck would.
    fn hold_all_locks(&self) -> Vec<File> {
        let folder = self.server.pending_dir().join(".locks");
        let held = (0..0x40).map(|number| {
            let file = File::create(folder.join(format!("{number:02x}"))).unwrap();
            file.lock().unwrap();
            file
        });
        held.collect()
    }

    fn click(&self, id: &str) -> RawRequest {
        self.server.interaction(&Click::approve(id).payload())
    }

    fn event(&self, event: &Value) -> RawRequest {
        let body = event.to_string();
        self.server
            .signed("/slack/events", "application/json", body.as_bytes())
    }

    fn try_click(&self, id: &str) -> io::Result<Answer> {
        let mut wire = self.try_connect()?;
        wire.try_say(self.click(id).to_bytes())?;
        wire.try_answer("POST")
    }
}

/// Gives a connection the other side of a TLS handshake.
pub fn secured(mut socket: TcpStream, config: &Arc<ClientConfig>) -> io::Result<Wire> {
    let name = ServerName::try_from("localhost").unwrap();
    let mut session = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
    while session.is_handshaking() {
        session.complete_io(&mut socket)?;
    }
    Ok(Wire::new(StreamOwned::new(session, socket)))
}

pub trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// With the words of its protocol, after this many further bytes.
    Clean(usize),
    /// Without.
    Cut,
}

/// A client's side of a connection, byte for byte.
pub struct Wire(BufReader<Box<dyn Stream>>);

impl Wire {
    pub fn new(stream: impl Stream + 'static) -> Self {
        Self(BufReader::new(Box::new(stream)))
    }

    fn try_say(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.0.get_mut().write_all(bytes.as_ref())?;
        self.0.get_mut().flush()
    }

    pub fn say(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_say(bytes).unwrap();
    }

    /// Sends as long as the server listens.
    fn say_until_refused(&mut self, bytes: impl AsRef<[u8]>) {
        // The answer tells what became of it.
        let _ = self.try_say(bytes);
    }

    /// Sends byte by byte, until the server does not want to hear more.
    fn drip(&mut self, bytes: &[u8], pause: Duration) {
        for byte in bytes {
            if self.try_say([*byte]).is_err() {
                return;
            }
            thread::sleep(pause);
        }
    }

    fn try_answer(&mut self, method: &str) -> io::Result<Answer> {
        Answer::read(&mut self.0, method)
    }

    pub fn answer(&mut self, method: &str) -> Answer {
        self.try_answer(method)
            .unwrap_or_else(|error| panic!("no answer: {error}"))
    }

    pub fn status(&mut self, method: &str) -> u16 {
        self.answer(method).status
    }

    /// Waits for the server to end the connection.
    fn end(mut self) -> End {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => End::Clean(rest.len()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                panic!("the server leaves the connection open")
            }
            Err(_) => End::Cut,
        }
    }
}

/// `GET /health` by a client that would go on.
const HEALTH: &str = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// A click that somebody else signed.
fn forged(id: &str) -> RawRequest {
    let form = crate::harness::interaction_form(&Click::approve(id).payload());
    let timestamp = now().to_string();
    let signature = crate::harness::sign("not the secret", &timestamp, form.as_bytes());
    RawRequest::new("POST", "/slack/interactions")
        .header("Content-Type", "application/x-www-form-urlencoded")
        .header("X-Slack-Request-Timestamp", timestamp)
        .header("X-Slack-Signature", signature)
        .body(form)
}
