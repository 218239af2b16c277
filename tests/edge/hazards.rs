//! Bytes that stop, crash or fool other servers. Each is answered or cut, and the next real click
//! is served.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use super::{BOTH, End, HEALTH, PATIENCE, Port, Site, Wire, forged};
use crate::harness::RawRequest;

/// What the server says to a hazard.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Says {
    /// This status, and it would go on.
    Serves(u16),
    /// This status, and it ends the connection.
    Refuses(u16),
}
use Says::{Refuses, Serves};

fn post(headers: &str, body: &str) -> Vec<u8> {
    format!("POST /slack/interactions HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n\r\n{body}")
        .into()
}

fn get(headers: &str) -> Vec<u8> {
    format!("GET /health HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n\r\n").into()
}

/// What is known to break servers: a name, the bytes, and what we say to them.
#[allow(clippy::too_many_lines, reason = "it is a table")]
fn hazards() -> Vec<(&'static str, Vec<u8>, Says)> {
    let qualities = format!("TE: {}", ["x;q=NaN"; 50].join(", "));
    vec![
        (
            "a length that no memory holds",
            post("Content-Length: 99999999999999", ""),
            Refuses(413),
        ),
        (
            "a length that no number holds",
            post("Content-Length: 99999999999999999999999999", ""),
            Refuses(413),
        ),
        (
            "fifty qualities that are no numbers",
            get(&qualities),
            Serves(200),
        ),
        (
            "an HTTP/2 preface",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec(),
            Refuses(400),
        ),
        (
            "an upgrade",
            get("Connection: upgrade\r\nUpgrade: h2c"),
            Serves(200),
        ),
        (
            "an upgrade to websocket",
            get("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13"),
            Serves(200),
        ),
        (
            "a body that nobody wants",
            post("Content-Length: 200000", &"x".repeat(200_000))
                .replace("interactions", "elsewhere"),
            Refuses(404),
        ),
        (
            "a negative length",
            post("Content-Length: -1", "x"),
            Refuses(400),
        ),
        (
            "a list of lengths",
            post("Content-Length: 38, 38", &"x".repeat(38)),
            Refuses(400),
        ),
        (
            "two lengths that agree",
            post("Content-Length: 1\r\nContent-Length: 1", "x"),
            Refuses(400),
        ),
        (
            "two lengths that differ",
            post("Content-Length: 1\r\nContent-Length: 2", "xx"),
            Refuses(400),
        ),
        (
            "a length and a transfer encoding",
            post(
                "Content-Length: 5\r\nTransfer-Encoding: chunked",
                "0\r\n\r\n",
            ),
            Refuses(400),
        ),
        (
            "chunks",
            post("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n"),
            Refuses(411),
        ),
        (
            "chunks by another name",
            post("Transfer-Encoding: xchunked", "0\r\n\r\n"),
            Refuses(400),
        ),
        (
            "a folded header",
            post("X: a\r\n b\r\nContent-Length: 0", ""),
            Refuses(400),
        ),
        (
            "a space before the colon",
            post("Content-Length : 0", ""),
            Refuses(400),
        ),
        (
            "a header without a name",
            post(": x\r\nContent-Length: 0", ""),
            Refuses(400),
        ),
        (
            "bare line feeds",
            b"GET /health HTTP/1.1\nHost: localhost\n\n".to_vec(),
            Refuses(400),
        ),
        ("one bare line feed", get("X: a\nY: b"), Refuses(400)),
        ("a bare carriage return", get("X: a\rY: b"), Refuses(400)),
        ("a NUL", get("X: a\0b"), Refuses(400)),
        (
            "a NUL in the target",
            b"GET /health\0 HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
            Refuses(400),
        ),
        (
            "a method of 32 KiB",
            "G".repeat(32 << 10).into_bytes(),
            Refuses(431),
        ),
        (
            "a target of 32 KiB",
            format!("GET /{} HTTP/1.1\r\n", "x".repeat(32 << 10)).into_bytes(),
            Refuses(431),
        ),
        (
            "an empty request line",
            b"\r\n\r\n \r\n\r\n".to_vec(),
            Refuses(400),
        ),
        (
            "a request line of one word",
            b"GET\r\n\r\n".to_vec(),
            Refuses(400),
        ),
        ("HTTP/0.9", b"GET /health\r\n\r\n".to_vec(), Refuses(400)),
        (
            "a version to come",
            b"GET /health HTTP/1.2\r\nHost: localhost\r\n\r\n".to_vec(),
            Refuses(400),
        ),
        (
            "an absolute target",
            b"GET http://localhost/health HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
            Serves(200),
        ),
        (
            "a target for proxies",
            b"CONNECT localhost:443 HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
            Refuses(400),
        ),
        (
            "a target without a slash",
            b"GET health HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
            Refuses(400),
        ),
        (
            "no host",
            b"GET /health HTTP/1.1\r\n\r\n".to_vec(),
            Refuses(400),
        ),
        ("two hosts", get("Host: elsewhere"), Refuses(400)),
        (
            "an expectation that nobody can meet",
            post("Expect: cheese\r\nContent-Length: 1", "x"),
            Refuses(417),
        ),
        (
            "more headers than anyone needs",
            get(&["A: b"; 65].join("\r\n")),
            Refuses(431),
        ),
        (
            "a TLS ClientHello where HTTP is spoken",
            client_hello(),
            Refuses(400),
        ),
        ("SMTP", b"EHLO example.com\r\n\r\n".to_vec(), Refuses(400)),
        ("bytes that mean nothing", vec![0xff; 300], Refuses(431)),
    ]
}

trait Replace {
    fn replace(self, from: &str, to: &str) -> Vec<u8>;
}

impl Replace for Vec<u8> {
    fn replace(self, from: &str, to: &str) -> Vec<u8> {
        String::from_utf8(self).unwrap().replace(from, to).into()
    }
}

/// The beginning of a TLS 1.2 handshake.
fn client_hello() -> Vec<u8> {
    let mut hello = vec![0x16, 3, 1, 0, 0x2d, 1, 0, 0, 0x29, 3, 3];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]);
    hello
}

#[test]
fn what_breaks_other_servers_is_answered_and_the_next_click_is_served() {
    for port in BOTH {
        let site = Site::start(port);
        for (name, bytes, says) in hazards() {
            let mut wire = site.connect();
            wire.say_until_refused(&bytes);
            if bytes[0] == 0xff {
                // Nothing in them ends a head, so the server waits for more until it is too much.
                wire.say_until_refused(vec![0xff; 32 << 10]);
            }
            let answer = wire
                .try_answer("GET")
                .unwrap_or_else(|error| panic!("{name} on {port:?}: no answer: {error}"));
            let (Serves(status) | Refuses(status)) = says;
            assert_eq!(
                answer.status,
                status,
                "{name} on {port:?}: {}",
                answer.text()
            );
            match says {
                Refuses(_) => {
                    assert_eq!(answer.header("connection"), Some("close"), "{name}");
                    assert_eq!(wire.end(), End::Clean(0), "{name} on {port:?}");
                }
                Serves(_) => {
                    wire.say(HEALTH);
                    assert_eq!(wire.status("GET"), 200, "after {name}");
                }
            }
            site.serves_a_click();
        }
        assert!(site.server.terminate().success());
    }
}

#[test]
fn a_head_without_end_is_cut_off_before_it_takes_memory() {
    for port in BOTH {
        let site = Site::start(port);
        site.serves_a_click();
        let before = site.server.peak_memory();
        let one_line = format!("X: {}", "x".repeat(1 << 20));
        let many_lines = "X: y\r\n".repeat((1 << 20) / 6);
        for endless in [one_line, many_lines] {
            let mut wire = site.send("GET /health HTTP/1.1\r\nHost: localhost\r\n");
            wire.say_until_refused(endless);
            let answer = wire.answer("GET");
            assert_eq!(
                (answer.status, answer.header("connection")),
                (431, Some("close"))
            );
            assert_eq!(wire.end(), End::Clean(0));
            site.serves_a_click();
        }
        let grown = site.server.peak_memory() - before;
        assert!(grown < 2048, "{grown} KiB for heads that were refused");
    }
}

#[test]
fn empty_lines_without_end_are_no_request() {
    let config = "webhook: {limits: {head: 500ms}}";
    let site = Site::with(Port::Plain, |builder| builder.config(config));
    let socket = site.server.connect().unwrap();
    socket
        .set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let mut wire = Wire::new(socket);
    let started = Instant::now();
    while wire.try_say("\r\n".repeat(4096)).is_ok() {
        assert!(started.elapsed() < PATIENCE, "the server goes on for ever");
    }
    assert_eq!(wire.status("GET"), 408);
    site.serves_a_click();
}

#[test]
fn no_second_request_hides_in_one_that_two_readers_could_understand_differently() {
    let site = Site::start(Port::Plain);
    let id = site.file_an_approval();
    let hidden = String::from_utf8(site.click(&id).to_bytes()).unwrap();
    let length = hidden.len();
    let front = |headers: &str, body: &str| {
        format!(
            "POST /slack/interactions HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n\r\n{body}{hidden}"
        )
    };
    let smuggled = [
        front("Content-Length: -1", ""),
        front("Content-Length: +0", ""),
        front("Content-Length: 0, 0", ""),
        front("Content-Length: 0x0", ""),
        front("Content-Length: 0\u{b}", ""),
        front(
            &format!("Content-Length: 0\r\nContent-Length: {length}"),
            "",
        ),
        front(
            &format!("Content-Length: {length}\r\nContent-Length: 0"),
            "",
        ),
        front("Content-Length: 0\r\ncontent-length: 0", ""),
        front(
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "0\r\n\r\n",
        ),
        front(
            "Transfer-Encoding: chunked\r\nContent-Length: 5",
            "0\r\n\r\n",
        ),
        front("Transfer-Encoding: chunked", "0\r\n\r\n"),
        front("Transfer-Encoding: xchunked", "0\r\n\r\n"),
        front("Transfer-Encoding: chunked, identity", "0\r\n\r\n"),
        front("Transfer-Encoding:\u{b}chunked", "0\r\n\r\n"),
        front("Transfer-Encoding : chunked", "0\r\n\r\n"),
        front("X: a\r\n Transfer-Encoding: chunked", "0\r\n\r\n"),
        front("X: a\nTransfer-Encoding: chunked", "0\r\n\r\n"),
        front("X: a\rTransfer-Encoding: chunked", "0\r\n\r\n"),
        front("X: a\0\r\nContent-Length: 0", ""),
        front("Content-Length\t: 0", ""),
        front(" Content-Length: 0", ""),
        front(
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
            "0\r\n\r\n",
        ),
        // The whole hidden request is the body of one that Slack did not sign, nothing else.
        front(&format!("Content-Length: {length}"), ""),
    ];
    site.server.expect_errors();
    for bytes in smuggled {
        let head = bytes.split("\r\n\r\n").next().unwrap().to_owned();
        let mut wire = site.send(&bytes);
        let answer = wire.answer("POST");
        assert!(
            [400, 401, 411].contains(&answer.status),
            "{head}: {answer:?}"
        );
        if answer.status == 401 {
            wire.say("GET /elsewhere HTTP/1.1\r\nHost: localhost\r\n\r\n");
            assert_eq!(wire.status("GET"), 404, "{head}");
        }
        assert_eq!(wire.end(), End::Clean(0), "{head}");
        assert_eq!(site.status_of(&id), "pending", "{head}");
    }
    site.serves_a_click();
    assert_eq!(site.try_click(&id).unwrap().status, 200);
    assert_eq!(site.status_of(&id), "approved");
}

#[test]
fn a_header_that_only_our_own_bridge_may_send_is_not_believed() {
    let site = Site::start(Port::Plain);
    let id = site.file_an_approval();
    site.server.expect_errors();
    let request = forged(&id).header("X-Runbook-Peer", "203.0.113.9");
    assert_eq!(site.server.request(request).status, 401);
    let log = site
        .server
        .wait_for_log("Signature verification failed", PATIENCE);
    assert!(
        log.contains("Peer: 127.0.0.1") && !log.contains("203.0.113.9"),
        "{log}"
    );
}

#[test]
fn plain_http_on_the_tls_port_is_told_so() {
    let site = Site::start(Port::Tls);
    for method in ["GET", "POST", "HEAD", "PRI"] {
        let mut wire = Wire::new(site.server.connect().unwrap());
        wire.say(format!(
            "{method} /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
        ));
        let answer = wire.answer("GET");
        assert_eq!(answer.status, 400);
        assert!(answer.text().contains("https"), "{}", answer.text());
        assert_eq!(wire.end(), End::Clean(0));
        site.serves_a_click();
    }
}

#[test]
fn what_is_no_handshake_on_the_tls_port_is_cut() {
    let site = Site::start(Port::Tls);
    let garbage: [&[u8]; 6] = [
        &[0xff; 4096],
        &[0; 4096],
        // A record larger than any may be.
        &[0x16, 3, 1, 0xff, 0xff, 1, 0xff, 0xff, 0xff],
        // An alert, and application data before any handshake.
        &[0x15, 3, 1, 0, 2, 2, 40],
        &[0x17, 3, 3, 0, 3, 1, 2, 3],
        // SSL 2.0.
        &[0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10],
    ];
    for bytes in garbage {
        let mut socket = site.server.connect().unwrap();
        // It may be cut before the last byte.
        let _ = socket.write_all(bytes);
        let mut said = Vec::new();
        let ended = socket.read_to_end(&mut said);
        assert!(
            !matches!(&ended, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock),
            "{bytes:x?} leaves the connection open"
        );
        assert!(
            said.is_empty() || said[0] == 0x15,
            "{said:x?} is no TLS alert"
        );
        site.serves_a_click();
    }
}

#[test]
fn a_refused_client_that_still_sends_sees_the_answer() {
    let large = "x".repeat(3 << 20);
    for port in BOTH {
        let site = Site::start(port);
        let request = RawRequest::new("POST", "/slack/interactions").body(&large);
        let mut wire = site.connect();
        wire.say(request.to_bytes());
        let answer = wire.answer("POST");
        assert_eq!(answer.status, 413);
        assert_eq!(answer.json()["error"], "body too large");
        assert_eq!(wire.end(), End::Clean(0));
        site.serves_a_click();
    }
}
