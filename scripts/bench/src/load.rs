//! The clients. Two threads with epoll carry all connections: a thread for each would take the processor from the
//! server, which has the same two cores.
//!
//! ```text
//! clicks PORT CONNECTIONS FIRST COUNT [--tls ROOT]     each of these approvals once
//! forged PORT CONNECTIONS SECONDS [--tls ROOT]         a click that somebody else has signed, again and again
//! health PORT CONNECTIONS SECONDS [--tls ROOT]
//! ```

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::{click, floor, number};

const THREADS: usize = 2;

/// What is sent.
struct Plan {
    /// Each is sent once; or the first again and again until the end.
    requests: Vec<Vec<u8>>,
    next: AtomicUsize,
    end: Option<Instant>,
}

impl Plan {
    fn take(&self) -> Option<&[u8]> {
        match self.end {
            Some(end) => (Instant::now() < end).then_some(&self.requests[0][..]),
            None => self
                .requests
                .get(self.next.fetch_add(1, Ordering::Relaxed))
                .map(Vec::as_slice),
        }
    }
}

/// What came back.
#[derive(Default)]
struct Tally {
    micros: Vec<u32>,
    statuses: BTreeMap<String, usize>,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => &stream.sock,
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }

    /// One request fits into the socket's buffer, which is empty.
    fn send(&mut self, bytes: &[u8]) {
        let sent = match self {
            Self::Plain(socket) => socket.write_all(bytes),
            Self::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        };
        sent.expect("send a request");
    }
}

struct Client {
    port: u16,
    config: Option<Arc<ClientConfig>>,
    stream: Stream,
    received: Vec<u8>,
    sent: Instant,
}

struct Answer {
    status: String,
    /// The server closes the connection after it, as it does after so many.
    is_last: bool,
}

/// Loads a server, and says how that went.
pub fn load(what: &str, port: u16, connections: usize, words: &[&str]) -> String {
    let (words, root) = match words {
        [words @ .., "--tls", root] => (words, Some(*root)),
        words => (words, None),
    };
    let (requests, seconds) = match (what, words) {
        ("clicks", [first, count]) => {
            let first: usize = number(first);
            (
                (first..first + number::<usize>(count))
                    .map(|each| click::request(each, false))
                    .collect(),
                None,
            )
        }
        ("forged", [seconds]) => (vec![click::request(0, true)], Some(number(seconds))),
        (_, [seconds]) => (
            vec![b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()],
            Some(number(seconds)),
        ),
        _ => panic!("see the top of src/load.rs"),
    };
    let config = root.map(|root| Arc::new(tls(root)));
    let mut clients: Vec<Client> = (0..connections)
        .map(|_| Client::connect(port, config.clone()))
        .collect();
    let started = Instant::now();
    let plan = Plan {
        requests,
        next: AtomicUsize::new(0),
        end: seconds.map(|seconds| started + Duration::from_secs_f64(seconds)),
    };
    let tallies: Vec<Tally> = thread::scope(|scope| {
        let share = clients.len().div_ceil(THREADS);
        let threads: Vec<_> = clients
            .chunks_mut(share)
            .map(|share| scope.spawn(|| drive(share, &plan)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a thread"))
            .collect()
    });
    report(started.elapsed(), tallies)
}

/// Keeps these connections busy as long as there is something to send.
fn drive(clients: &mut [Client], plan: &Plan) -> Tally {
    let mut tally = Tally::default();
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC).expect("epoll");
    let mut busy = 0;
    for (index, client) in clients.iter_mut().enumerate() {
        let data = epoll::EventData::new_u64(index as u64);
        epoll::add(&poll, client.stream.socket(), data, epoll::EventFlags::IN).expect("epoll");
        busy += usize::from(client.go_on(plan));
    }
    let mut events = Vec::with_capacity(clients.len());
    while busy > 0 {
        events.clear();
        epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), None).expect("epoll");
        for event in &events {
            let index = usize::try_from(event.data.u64()).expect("it was a usize");
            let client = &mut clients[index];
            if let Some(answer) = client.take_in() {
                let took = client.sent.elapsed().as_micros();
                tally.micros.push(u32::try_from(took).unwrap_or(u32::MAX));
                *tally.statuses.entry(answer.status).or_default() += 1;
                if answer.is_last {
                    // The server is to have room for the next one. It has hung up, so this side may find that done.
                    let _ = client.stream.socket().shutdown(Shutdown::Both);
                    *client = Client::connect(client.port, client.config.take());
                    let data = epoll::EventData::new_u64(index as u64);
                    epoll::add(&poll, client.stream.socket(), data, epoll::EventFlags::IN)
                        .expect("epoll");
                }
                busy -= usize::from(!client.go_on(plan));
            }
        }
    }
    tally
}

impl Client {
    /// Sends the next request, if there is one.
    fn go_on(&mut self, plan: &Plan) -> bool {
        let Some(request) = plan.take() else {
            return false;
        };
        self.sent = Instant::now();
        self.stream.send(request);
        true
    }

    /// Takes in what has come; the answer once it is whole.
    fn take_in(&mut self) -> Option<Answer> {
        let mut chunk = [0; 4096];
        match self.stream.read(&mut chunk) {
            Ok(0) => panic!(
                "the server has closed a connection: {:?}",
                String::from_utf8_lossy(&self.received)
            ),
            Ok(read) => self.received.extend_from_slice(&chunk[..read]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
            Err(error) => panic!("the server has dropped a connection: {error}"),
        }
        let head = self
            .received
            .windows(4)
            .position(|four| four == b"\r\n\r\n")?
            + 4;
        if self.received.len() < head + floor::content_length(&self.received[..head]) {
            return None;
        }
        let status = String::from_utf8_lossy(&self.received[9..12]).into_owned();
        let is_last = self
            .received
            .windows(17)
            .any(|bytes| bytes == b"Connection: close");
        self.received.clear();
        Some(Answer { status, is_last })
    }

    fn connect(port: u16, config: Option<Arc<ClientConfig>>) -> Self {
        let socket = TcpStream::connect(("127.0.0.1", port)).expect("connect");
        socket.set_nodelay(true).expect("a socket");
        let mut stream = match &config {
            None => Stream::Plain(socket),
            Some(config) => Stream::Tls(Box::new(StreamOwned::new(session(config), socket))),
        };
        if let Stream::Tls(stream) = &mut stream {
            while stream.conn.is_handshaking() {
                stream
                    .conn
                    .complete_io(&mut stream.sock)
                    .expect("a handshake");
            }
        }
        stream.socket().set_nonblocking(true).expect("a socket");
        Self {
            port,
            config,
            stream,
            received: Vec::new(),
            sent: Instant::now(),
        }
    }
}

fn session(config: &Arc<ClientConfig>) -> ClientConnection {
    ClientConnection::new(
        Arc::clone(config),
        ServerName::try_from("localhost").expect("a name"),
    )
    .expect("a session")
}

fn tls(root: &str) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(root).expect("a root"))
        .expect("a root");
    let mut config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config
}

fn report(took: Duration, tallies: Vec<Tally>) -> String {
    let mut all = Tally::default();
    for tally in tallies {
        all.micros.extend(tally.micros);
        for (status, count) in tally.statuses {
            *all.statuses.entry(status).or_default() += count;
        }
    }
    all.micros.sort_unstable();
    let at = |part: usize| {
        all.micros
            .get((all.micros.len() * part / 1000).min(all.micros.len() - 1))
            .copied()
    };
    let ms = |part| f64::from(at(part).unwrap_or(0)) / 1000.0;
    let statuses: Vec<String> = all
        .statuses
        .iter()
        .map(|(status, count)| format!("\"{status}\":{count}"))
        .collect();
    format!(
        "{{\"rate\":{:.1},\"count\":{},\"seconds\":{:.3},\"p50\":{:.3},\"p99\":{:.3},\"worst\":{:.3},\"statuses\":{{{}}}}}",
        all.micros.len() as f64 / took.as_secs_f64(),
        all.micros.len(),
        took.as_secs_f64(),
        ms(500),
        ms(990),
        ms(1000),
        statuses.join(",")
    )
}

/// Connects, shakes hands in full, asks one thing, and closes, again and again.
pub fn handshakes(port: u16, threads: usize, seconds: f64, root: &str) -> String {
    let config = Arc::new(tls(root));
    let started = Instant::now();
    let end = started + Duration::from_secs_f64(seconds);
    let tallies = thread::scope(|scope| {
        let run = || {
            let mut tally = Tally::default();
            while Instant::now() < end {
                let sent = Instant::now();
                let socket = TcpStream::connect(("127.0.0.1", port)).expect("connect");
                socket.set_nodelay(true).expect("a socket");
                let mut stream = StreamOwned::new(session(&config), socket);
                stream
                    .write_all(
                        b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
                    )
                    .expect("send a request");
                let mut answer = Vec::new();
                stream.read_to_end(&mut answer).expect("an answer");
                tally
                    .micros
                    .push(u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX));
                *tally
                    .statuses
                    .entry(String::from_utf8_lossy(&answer[9..12]).into_owned())
                    .or_default() += 1;
            }
            tally
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a thread"))
            .collect()
    });
    report(started.elapsed(), tallies)
}
