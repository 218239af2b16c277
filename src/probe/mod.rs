//! One GET to a server that may be anything: hung, somebody else's, or ours with a certificate that
//! does not verify. What comes back is bounded in bytes and in time, and the certificate is seen.
//!
//! [`crate::outgoing`] shows no certificates and checks every one against the URL's host; a server of
//! ours that is asked at 127.0.0.1 has one for its public name.

mod witness;

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustls::StreamOwned;

use crate::clock::{self, Timestamp};
use crate::complaint::reason;
pub use witness::{Trust, examine};
use witness::{Witness, bare, describe_tls, session};

/// Bytes of an answer that are read: ours has a few hundred.
const ANSWER: u64 = 64 << 10;
/// Headers of an answer.
const HEADERS: usize = 64;

/// Who is asked for what.
#[derive(Clone, Debug)]
pub struct Question {
    /// A name or an address; IPv6 in brackets.
    pub host: String,
    pub port: u16,
    /// The path and the query.
    pub target: String,
    /// How TLS is spoken, if it is.
    pub tls: Option<Trust>,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Where it wants us to go.
    pub location: Option<String>,
    pub body: Vec<u8>,
    /// When the certificate ends.
    pub certificate_ends: Option<Timestamp>,
}

/// Asks, and waits no longer than this for all of it, resolving the name included.
///
/// # Errors
/// Why there is no answer, in words for people.
pub fn ask(question: &Question, within: Duration) -> Result<Answer, String> {
    let (asked, answer) = mpsc::channel();
    let (question, deadline) = (question.clone(), clock::tick() + within);
    // The system's resolver takes no deadline; whoever is still resolving then is left behind.
    thread::Builder::new()
        .name("probe".into())
        .spawn(move || asked.send(exchange(&question, deadline)))
        .map_err(|error| format!("cannot start threads: {}", reason(&error)))?;
    let late = |_| format!("no answer within {}", humantime::format_duration(within));
    answer.recv_timeout(within).map_err(late)?
}

fn exchange(question: &Question, deadline: Instant) -> Result<Answer, String> {
    let socket = connect(question, deadline)?;
    let socket = Timed { socket, deadline };
    let (host, port, target) = (&question.host, question.port, &question.target);
    let request = format!(
        "GET {target} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\nAccept: application/json\r\n\
         User-Agent: runbook/{}\r\n\r\n",
        env!("CARGO_PKG_VERSION")
    );
    match &question.tls {
        None => read_answer(socket, &request, None),
        Some(trust) => {
            let witness = Arc::new(Witness::new(trust)?);
            let name = match trust {
                Trust::Named(name, _) => name,
                Trust::Signed(_) | Trust::Anybody => host,
            };
            let session = session(&witness, name)?;
            let mut stream = StreamOwned::new(session, socket);
            while stream.conn.is_handshaking() {
                stream
                    .conn
                    .complete_io(&mut stream.sock)
                    .map_err(|error| describe_tls(&error, trust))?;
            }
            read_answer(stream, &request, witness.ends())
        }
    }
}

fn connect(question: &Question, deadline: Instant) -> Result<TcpStream, String> {
    let (host, port) = (bare(&question.host), question.port);
    let addresses = (host, port)
        .to_socket_addrs()
        .map_err(|_| format!("host {host} not found"))?;
    let mut why = format!("{host} has no address");
    for address in addresses {
        let left = deadline.saturating_duration_since(clock::tick());
        if left.is_zero() {
            break;
        }
        match TcpStream::connect_timeout(&address, left) {
            Ok(socket) => return Ok(socket),
            Err(error) => why = reason(&error),
        }
    }
    Err(why)
}

/// A socket whose every read and write ends by one deadline.
struct Timed {
    socket: TcpStream,
    deadline: Instant,
}

impl Timed {
    fn left(&self) -> std::io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(clock::tick());
        if left.is_zero() {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        Ok(left)
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.socket.set_read_timeout(Some(self.left()?))?;
        self.socket.read(buffer)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.socket.set_write_timeout(Some(self.left()?))?;
        self.socket.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.socket.flush()
    }
}

fn read_answer(
    mut stream: impl Read + Write,
    request: &str,
    certificate_ends: Option<Timestamp>,
) -> Result<Answer, String> {
    let broken = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => "it hangs".to_owned(),
        _ => format!("the connection broke: {}", reason(&error)),
    };
    stream.write_all(request.as_bytes()).map_err(broken)?;
    stream.flush().map_err(broken)?;
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let read = match stream.read(&mut chunk) {
            Ok(read) => read,
            // Whoever has sent all and closes in a hurry has still answered.
            Err(_) if is_whole(&bytes) => 0,
            Err(error) => return Err(broken(error)),
        };
        bytes.extend_from_slice(&chunk[..read]);
        if bytes.len() as u64 > ANSWER {
            return Err("the answer is too large to be ours".into());
        }
        if read == 0 || is_whole(&bytes) {
            break;
        }
    }
    if bytes.is_empty() {
        return Err("it closes the connection without an answer".into());
    }
    let (head, body) = parse(&bytes).ok_or("the answer is not HTTP")?;
    Ok(Answer {
        status: head.status,
        location: head.location,
        body,
        certificate_ends,
    })
}

struct Head {
    status: u16,
    location: Option<String>,
    end: usize,
    length: Option<usize>,
    chunked: bool,
}

/// `None` when it is not whole yet, or no HTTP.
fn head(bytes: &[u8]) -> Option<Head> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(end) = response.parse(bytes).ok()? else {
        return None;
    };
    let value = |name: &str| {
        let mut headers = response.headers.iter();
        let header = headers.find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(header.value).ok().map(str::trim)
    };
    Some(Head {
        status: response.code?,
        location: value("location").map(str::to_owned),
        end,
        length: value("content-length").and_then(|length| length.parse().ok()),
        chunked: value("transfer-encoding").is_some_and(|te| te.eq_ignore_ascii_case("chunked")),
    })
}

fn is_whole(bytes: &[u8]) -> bool {
    head(bytes).is_some_and(|head| {
        let body = &bytes[head.end..];
        match head.length {
            _ if head.chunked => unchunk(body).is_some(),
            Some(length) => body.len() >= length,
            None => false,
        }
    })
}

fn parse(bytes: &[u8]) -> Option<(Head, Vec<u8>)> {
    let head = head(bytes)?;
    let body = &bytes[head.end..];
    let body = if head.chunked {
        unchunk(body)?
    } else {
        let length = head.length.unwrap_or(body.len());
        body.get(..length)?.to_vec()
    };
    Some((head, body))
}

/// The content of a chunked body (RFC 9112, section 7.1); `None` when it is not whole.
fn unchunk(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    loop {
        let httparse::Status::Complete((start, size)) = httparse::parse_chunk_size(body).ok()?
        else {
            return None;
        };
        let size = usize::try_from(size).ok()?;
        if size == 0 {
            return Some(content);
        }
        let end = start.checked_add(size)?;
        content.extend_from_slice(body.get(start..end)?);
        body = body.get(end..)?.strip_prefix(b"\r\n")?;
    }
}
