//! What cannot be beaten: the least that a durable answer, an HTTP server and a TLS server do.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// As large as a decided approval.
const DOCUMENT: [u8; 1024] = [b' '; 1024];

/// Replaces files durably, each thread its own, for so many seconds.
pub fn fsync(folder: &str, threads: usize, seconds: f64) -> String {
    let folder = Path::new(folder);
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    let started = Instant::now();
    let count: usize = thread::scope(|scope| {
        let run = |number: usize| {
            let (temporary, file) = (
                folder.join(format!(".floor-{number}")),
                folder.join(format!("floor-{number}")),
            );
            let mut count = 0;
            while Instant::now() < end {
                replace(folder, &temporary, &file);
                count += 1;
            }
            fs::remove_file(file).expect("remove");
            count
        };
        let threads: Vec<_> = (0..threads)
            .map(|number| scope.spawn(move || run(number)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a thread"))
            .sum()
    });
    let rate = count as f64 / started.elapsed().as_secs_f64();
    format!("{{\"rate\":{rate:.1},\"count\":{count}}}")
}

fn replace(folder: &Path, temporary: &Path, file: &Path) {
    let mut made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(temporary)
        .expect("make a temporary");
    made.write_all(&DOCUMENT).expect("write");
    made.sync_all().expect("fsync");
    drop(made);
    fs::rename(temporary, file).expect("rename");
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .expect("fsync of the directory");
}

/// Answers every request with the same 200, a thread for each connection. It looks for nothing but the end of a
/// request.
pub fn echo(answer: &str) -> String {
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{answer}",
        answer.len()
    );
    let answer: Arc<[u8]> = answer.into_bytes().into();
    serve(move |mut client| {
        let mut buffer = Vec::new();
        while read_request(&mut client, &mut buffer) {
            if client.write_all(&answer).is_err() {
                return;
            }
        }
    })
}

/// Takes every connection and says nothing.
pub fn hang() -> String {
    let mut taken = Vec::new();
    let listener = listen();
    loop {
        taken.extend(listener.accept().ok());
    }
}

/// Shakes hands, answers one request and closes.
pub fn tls(certificate: &str, key: &str) -> String {
    let chain = CertificateDer::pem_file_iter(certificate).expect("the certificate");
    let chain: Vec<_> = chain.collect::<Result<_, _>>().expect("the certificate");
    let key = PrivateKeyDer::from_pem_file(key).expect("the key");
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a pair");
    let config = Arc::new(config);
    serve(move |client| {
        let session = ServerConnection::new(Arc::clone(&config)).expect("a session");
        let mut stream = StreamOwned::new(session, client);
        let mut buffer = Vec::new();
        if read_request(&mut stream, &mut buffer) {
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}");
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    })
}

fn listen() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    println!("{}", listener.local_addr().expect("its address").port());
    listener
}

fn serve(client: impl Fn(TcpStream) + Clone + Send + 'static) -> String {
    let listener = listen();
    loop {
        let Ok((socket, _)) = listener.accept() else {
            continue;
        };
        let client = client.clone();
        let _ = socket.set_nodelay(true);
        // As small as the stacks that it is compared with.
        let _ = thread::Builder::new()
            .stack_size(1 << 18)
            .spawn(move || client(socket));
    }
}

/// Reads one request with its body. `false` at the end.
fn read_request(stream: &mut impl Read, buffer: &mut Vec<u8>) -> bool {
    let mut chunk = [0; 8192];
    loop {
        if let Some(length) = request_length(buffer)
            && buffer.len() >= length
        {
            buffer.drain(..length);
            return true;
        }
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return false,
            Ok(read) => buffer.extend_from_slice(&chunk[..read]),
        }
    }
}

fn request_length(bytes: &[u8]) -> Option<usize> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    Some(end + content_length(&bytes[..end]))
}

/// The length of the body that follows a head.
pub fn content_length(head: &[u8]) -> usize {
    let head = String::from_utf8_lossy(head);
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse().ok())?
    });
    length.unwrap_or(0)
}
