//! Clients that take their time. Each phase of a connection ends at its deadline, however busily
//! the client drips.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_recv_buffer_size;
use rustix::net::{AddressFamily, SocketType, connect};

use super::{BOTH, End, HEALTH, PATIENCE, Port, Site, Wire, secured};
use crate::harness::RawRequest;

/// Short ones, so that the tests are short. What a test is not about has its usual length.
const HEAD: &str = "webhook: {limits: {head: 500ms}}";
const BODY: &str = "webhook: {limits: {request: 500ms}}";
const IDLE: &str = "webhook: {limits: {idle: 500ms}}";
const HANDSHAKE: &str = "webhook: {limits: {handshake: 500ms}}";
const WRITE: &str = "webhook: {limits: {write: 500ms, requests: 1000000}}";

/// When something with such a limit has to end: the reaper looks every few milliseconds, and the
/// machine may be busy.
const ENDS: Range<Duration> = Duration::from_millis(450)..Duration::from_millis(2500);
const DRIP: Duration = Duration::from_millis(25);

fn assert_in_time(since: Instant, what: &str) {
    let took = since.elapsed();
    assert!(ENDS.contains(&took), "{what} ended after {took:?}");
}

/// A client that drips for longer than it may, and what it hears.
fn is_cut(port: Port, site: &Site, mut wire: Wire, bytes: &[u8]) {
    assert!(
        bytes.len() > 120,
        "it has to drip for longer than a deadline may take"
    );
    let started = Instant::now();
    wire.drip(bytes, DRIP);
    assert_in_time(started, "dripping");
    // A TLS client does not read when it cannot write.
    if port == Port::Plain {
        let answer = wire.answer("GET");
        assert_eq!(
            (answer.status, answer.header("connection")),
            (408, Some("close"))
        );
    }
    site.serves_a_click();
}

#[test]
fn a_head_that_drips_is_cut_at_its_deadline_and_told() {
    for port in BOTH {
        let site = Site::with(port, |builder| builder.config(HEAD));
        let head = HEALTH.replace("\r\n\r\n", &format!("\r\nX: {}", "x".repeat(120)));
        is_cut(port, &site, site.connect(), head.as_bytes());
    }
}

#[test]
fn a_body_that_drips_is_cut_at_its_deadline_and_told() {
    for port in BOTH {
        let site = Site::with(port, |builder| builder.config(BODY));
        let id = site.file_an_approval();
        let bytes = site.click(&id).to_bytes();
        let (said, dripped) = bytes.split_at(bytes.len() - 200);
        is_cut(port, &site, site.send(said), dripped);
        assert_eq!(site.status_of(&id), "pending");
    }
}

#[test]
fn a_request_that_stops_in_the_middle_is_told_too() {
    for (config, bytes) in [
        (HEAD, "GET /health HTTP/1.1\r\nHos"),
        (
            BODY,
            "POST /slack/events HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n12345678",
        ),
    ] {
        for port in BOTH {
            let site = Site::with(port, |builder| builder.config(config));
            let mut wire = site.send(bytes);
            let started = Instant::now();
            assert_eq!(wire.status("GET"), 408);
            assert_in_time(started, config);
            assert_eq!(wire.end(), End::Clean(0));
            site.serves_a_click();
        }
    }
}

#[test]
fn the_head_and_the_body_share_the_time_of_a_request() {
    let site = Site::with(Port::Plain, |builder| builder.config(BODY));
    let request = RawRequest::new("POST", "/slack/events")
        .body("12345678")
        .to_bytes();
    let mut wire = site.connect();
    let started = Instant::now();
    wire.drip(&request[..12], DRIP);
    wire.say(&request[12..request.len() - 1]);
    assert_eq!(wire.status("POST"), 408);
    assert_in_time(started, "the request");
}

#[test]
fn a_connection_without_a_request_is_closed_without_a_word() {
    for port in BOTH {
        let site = Site::with(port, |builder| builder.config(HEAD));
        let wire = site.connect();
        let started = Instant::now();
        assert_ne!(wire.end(), End::Clean(1), "a word");
        assert_in_time(started, "silence");
        site.serves_a_click();
    }
}

#[test]
fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    for port in BOTH {
        let site = Site::with(port, |builder| builder.config(IDLE));
        let mut wire = site.connect();
        for _ in 0..8 {
            wire.say(HEALTH);
            assert_eq!(wire.status("GET"), 200);
            // Shorter than idleness each time, and longer in all.
            thread::sleep(Duration::from_millis(100));
        }
        wire.say(HEALTH);
        assert_eq!(wire.status("GET"), 200);
        let started = Instant::now();
        let end = wire.end();
        assert!(matches!(end, End::Clean(0) | End::Cut), "{end:?}");
        assert_in_time(started, "idleness");
        site.serves_a_click();
    }
}

#[test]
fn a_handshake_that_does_not_come_or_drips_is_cut() {
    let site = Site::with(Port::Tls, |builder| builder.config(HANDSHAKE));
    let ends = |mut socket: TcpStream, since: Instant| {
        let mut said = Vec::new();
        // Whether it is closed or reset, it ends.
        let _ = socket.read_to_end(&mut said);
        assert_in_time(since, "a handshake");
    };
    let silent = site.server.connect().unwrap();
    ends(silent, Instant::now());

    let mut dripping = site.server.connect().unwrap();
    let started = Instant::now();
    let hello = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 500]].concat();
    for byte in &hello[..40] {
        if dripping.write_all(&[*byte]).is_err() {
            break;
        }
        thread::sleep(DRIP);
    }
    ends(dripping, started);
    site.serves_a_click();
}

/// A connection that holds little of what nobody reads.
fn narrow(address: SocketAddr) -> TcpStream {
    let socket = rustix::net::socket_with(
        AddressFamily::INET,
        SocketType::STREAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    set_socket_recv_buffer_size(&socket, 4096).unwrap();
    connect(&socket, &address).unwrap();
    let socket = TcpStream::from(socket);
    socket.set_write_timeout(Some(ENDS.end)).unwrap();
    socket
}

#[test]
fn a_client_that_never_reads_its_answers_is_cut() {
    for port in BOTH {
        let site = Site::with(port, |builder| builder.config(WRITE));
        let socket = narrow(([127, 0, 0, 1], site.server.port()).into());
        let mut wire = match &site.tls {
            None => Wire::new(socket),
            Some(config) => secured(socket, config).unwrap(),
        };
        let request = "POST /slack/events HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\
            Content-Type: application/x-www-form-urlencoded\r\n\r\nssl_check=1"
            .repeat(50);
        let started = Instant::now();
        // Its answers fill all buffers on the way, then the server waits, then it does not.
        let cut = loop {
            if let Err(error) = wire.try_say(&request) {
                break error;
            }
            assert!(started.elapsed() < PATIENCE, "the buffers never fill");
        };
        let waits = cut.kind() == ErrorKind::WouldBlock;
        assert!(!waits, "the server waits for ever");
        site.serves_a_click();
    }
}

#[test]
fn whoever_is_refused_cannot_stay_by_sending_on() {
    let site = Site::start(Port::Plain);
    let mut wire = site.send("GET /elsewhere HTTP/1.1\r\nHost: a\r\n\r\n");
    let started = Instant::now();
    assert_eq!(wire.status("GET"), 404);
    let mut wire = Wire::new(wire.0.into_inner());
    while wire.try_say("x").is_ok() {
        assert!(started.elapsed() < Duration::from_secs(3), "it may stay");
        thread::sleep(DRIP);
    }
    site.serves_a_click();
}
