//! One GET to a server that may be anything: hung, somebody else's, or ours with a certificate that
//! does not verify. What comes back is bounded in bytes and in time, and the certificate is seen.
//!
//! [`crate::outgoing`] shows no certificates and checks every one against the URL's host; a server of
//! ours that is asked at 127.0.0.1 has one for its public name.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore,
    SignatureScheme, StreamOwned,
};

use crate::certificate::validity;
use crate::clock::{self, Timestamp};
use crate::complaint::reason;

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

/// Which certificates are good.
#[derive(Clone, Debug)]
pub enum Trust {
    /// One for this name, signed by a root that is built in or one of these; or one of these itself.
    Named(String, Vec<CertificateDer<'static>>),
    /// One for any name, signed like that.
    Signed(Vec<CertificateDer<'static>>),
    /// Any.
    Anybody,
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
            let ends = *witness.ends.lock().unwrap_or_else(PoisonError::into_inner);
            read_answer(stream, &request, ends)
        }
    }
}

fn connect(question: &Question, deadline: Instant) -> Result<TcpStream, String> {
    let (host, port) = (bare(&question.host), question.port);
    let addresses = (host, port)
        .to_socket_addrs()
        .map_err(|_| format!("{host} is no host that is known"))?;
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

fn bare(host: &str) -> &str {
    let inner = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    inner.unwrap_or(host)
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

fn session(witness: &Arc<Witness>, name: &str) -> Result<ClientConnection, String> {
    let words = |error: Error| error.to_string();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(words)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(witness) as _)
        .with_no_client_auth();
    let name = bare(name).to_owned();
    let server = ServerName::try_from(name.clone()).map_err(|_| format!("{name} is no name"))?;
    ClientConnection::new(Arc::new(config), server).map_err(words)
}

/// Looks at the server's certificate, and checks it as far as [`Trust`] asks.
#[derive(Debug)]
struct Witness {
    provider: CryptoProvider,
    trust: Trust,
    roots: Arc<WebPkiServerVerifier>,
    ends: Mutex<Option<Timestamp>>,
}

impl Witness {
    fn new(trust: &Trust) -> Result<Self, String> {
        let given: &[CertificateDer<'static>] = match trust {
            Trust::Named(_, given) | Trust::Signed(given) => given,
            Trust::Anybody => &[],
        };
        Ok(Self {
            provider: ring::default_provider(),
            trust: trust.clone(),
            roots: verifier(given)?,
            ends: Mutex::default(),
        })
    }

    /// A certificate that is given itself needs no other to sign it.
    fn pinned(&self, certificate: &CertificateDer<'_>, now: UnixTime) -> Option<Result<(), Error>> {
        let (name, given) = match &self.trust {
            Trust::Named(name, given) => (Some(name), given),
            Trust::Signed(given) => (None, given),
            Trust::Anybody => return Some(Ok(())),
        };
        if !given.iter().any(|given| given == certificate) {
            return None;
        }
        let now = Timestamp::from_unix(now.as_secs());
        let holds = match validity(certificate) {
            Some((starts, _)) if starts > now => Err(CertificateError::NotValidYet.into()),
            Some((_, ends)) if ends <= now => Err(CertificateError::Expired.into()),
            Some(_) => Ok(()),
            None => Err(CertificateError::BadEncoding.into()),
        };
        Some(holds.and_then(|()| match name {
            Some(name) => is_for(certificate, name),
            None => Ok(()),
        }))
    }
}

/// Whether a certificate is for this name.
fn is_for(certificate: &CertificateDer<'_>, name: &str) -> Result<(), Error> {
    let server = ServerName::try_from(bare(name)).map_err(|_| CertificateError::NotValidForName)?;
    verify_server_name(&ParsedCertificate::try_from(certificate)?, &server)
}

fn verifier(given: &[CertificateDer<'static>]) -> Result<Arc<WebPkiServerVerifier>, String> {
    let built_in = webpki_roots::TLS_SERVER_ROOTS.iter().cloned();
    let mut roots: RootCertStore = built_in.collect();
    roots.add_parsable_certificates(given.iter().cloned());
    let provider = Arc::new(ring::default_provider());
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| error.to_string())
}

/// Whether a chain, the server's certificate first, would be taken for this name, or for any, by who
/// trusts the built-in roots and those that are given.
///
/// # Errors
/// Why not, in words for people.
pub fn examine(chain: &[CertificateDer<'static>], trust: &Trust) -> Result<(), String> {
    let [first, rest @ ..] = chain else {
        return Err("there is no certificate".into());
    };
    let witness = Witness::new(trust)?;
    let nobody = ServerName::try_from("localhost").map_err(|error| error.to_string())?;
    let now = UnixTime::since_unix_epoch(Duration::from_secs(clock::now().unix()));
    let verified = witness.verify_server_cert(first, rest, &nobody, &[], now);
    verified.map(drop).map_err(|error| describe(&error, trust))
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let ends = validity(end_entity).map(|(_, ends)| ends);
        *self.ends.lock().unwrap_or_else(PoisonError::into_inner) = ends;
        if let Some(pinned) = self.pinned(end_entity, now) {
            return pinned.map(|()| ServerCertVerified::assertion());
        }
        // The chain is checked before the name, so what is left to say of it is the name.
        let signed =
            self.roots
                .verify_server_cert(end_entity, intermediates, server_name, ocsp, now);
        match signed {
            Ok(_)
            | Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => {}
            Err(error) => return Err(error),
        }
        if let Trust::Named(name, _) = &self.trust {
            is_for(end_entity, name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

fn describe_tls(error: &std::io::Error, trust: &Trust) -> String {
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Error>());
    match (inner, error.kind()) {
        (Some(error), _) => describe(error, trust),
        (None, std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
            "it hangs in the TLS handshake".into()
        }
        (None, _) => format!("the TLS handshake broke: {}", reason(error)),
    }
}

fn describe(error: &Error, trust: &Trust) -> String {
    match error {
        Error::InvalidCertificate(error) => match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the certificate has expired".into()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "the certificate is not valid yet".into()
            }
            CertificateError::UnknownIssuer => {
                "the certificate is signed by nobody whom the built-in roots know".into()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                match trust {
                    Trust::Named(name, _) => format!("the certificate is not for {name}"),
                    Trust::Signed(_) | Trust::Anybody => {
                        "the certificate is for another name".into()
                    }
                }
            }
            CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
                "the certificate is an authority's own, not a server's".into()
            }
            error => format!("the certificate is not good: {error}"),
        },
        Error::InvalidMessage(_) => "it does not speak TLS".into(),
        error => format!("TLS failed: {error}"),
    }
}
