//! What clients that mean well may do: keep the connection, send ahead, ask for the head only, wait
//! before they send a body.

use super::{BOTH, End, HEALTH, PATIENCE, Port, Site, forged};
use crate::harness::{Answer, RawRequest};

/// Slack's check of our certificate, which is answered 200 and empty, unsigned.
fn ssl_check() -> RawRequest {
    RawRequest::new("POST", "/slack/interactions")
        .header("Content-Type", "application/x-www-form-urlencoded")
        .header("Connection", "keep-alive")
        .body("ssl_check=1")
}

fn connection(answer: &Answer) -> &str {
    answer.header("connection").unwrap_or_default()
}

#[test]
fn a_connection_serves_one_request_after_the_other() {
    for port in BOTH {
        let site = Site::start(port);
        let mut wire = site.connect();
        for _ in 0..20 {
            let id = site.file_an_approval();
            wire.say(
                site.click(&id)
                    .header("Connection", "keep-alive")
                    .to_bytes(),
            );
            let answer = wire.answer("POST");
            assert_eq!((answer.status, connection(&answer)), (200, "keep-alive"));
            assert_eq!(site.status_of(&id), "approved");
            wire.say(HEALTH);
            assert_eq!(wire.status("GET"), 200);
        }
        wire.say(RawRequest::new("GET", "/health").to_bytes());
        assert_eq!(connection(&wire.answer("GET")), "close");
        assert_eq!(wire.end(), End::Clean(0));
    }
}

#[test]
fn requests_sent_ahead_are_answered_in_their_order() {
    for port in BOTH {
        let site = Site::start(port);
        site.server.expect_errors();
        let (first, second) = (site.file_an_approval(), site.file_an_approval());
        let keep = |request: RawRequest| request.header("Connection", "keep-alive").to_bytes();
        let requests = [
            ("GET", keep(RawRequest::new("GET", "/health")), 200),
            ("POST", keep(forged(&first)), 401),
            ("POST", keep(site.click(&first)), 200),
            ("HEAD", keep(RawRequest::new("HEAD", "/health")), 200),
            ("POST", ssl_check().to_bytes(), 200),
            ("POST", keep(site.click(&second)), 200),
            ("GET", RawRequest::new("GET", "/health").to_bytes(), 200),
            ("GET", keep(RawRequest::new("GET", "/health")), 0),
        ];
        let mut wire = site.send(
            requests
                .iter()
                .flat_map(|(_, bytes, _)| bytes.clone())
                .collect::<Vec<u8>>(),
        );
        for (method, bytes, status) in &requests[..7] {
            let bytes = String::from_utf8_lossy(bytes);
            assert_eq!(wire.status(method), *status, "{bytes}");
        }
        // What comes behind `Connection: close` is not answered.
        assert_eq!(wire.end(), End::Clean(0));
        assert_eq!(
            (site.status_of(&first), site.status_of(&second)),
            ("approved".into(), "approved".into())
        );
    }
}

#[test]
fn a_request_in_many_pieces_is_one_request() {
    let site = Site::start(Port::Plain);
    let id = site.file_an_approval();
    let bytes = site
        .click(&id)
        .header("Connection", "keep-alive")
        .to_bytes();
    let mut wire = site.connect();
    for piece in bytes.chunks(7) {
        wire.say(piece);
    }
    assert_eq!(wire.status("POST"), 200);
    // And two with a piece of a third.
    let (one, two) = (HEALTH.repeat(2) + &HEALTH[..9], &HEALTH[9..]);
    wire.say(one);
    assert_eq!((wire.status("GET"), wire.status("GET")), (200, 200));
    wire.say(two);
    assert_eq!(wire.status("GET"), 200);
}

#[test]
fn old_clients_are_answered_and_let_go_unless_they_ask_to_stay() {
    let site = Site::start(Port::Plain);
    let mut wire = site.send("GET /health HTTP/1.0\r\n\r\n");
    let answer = wire.answer("GET");
    assert_eq!((answer.status, connection(&answer)), (200, "close"));
    assert_eq!(wire.end(), End::Clean(0));

    let staying = "GET /health HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n";
    let mut wire = site.send(staying);
    let answer = wire.answer("GET");
    assert_eq!((answer.status, connection(&answer)), (200, "keep-alive"));
    wire.say("GET /health HTTP/1.0\r\n\r\n");
    assert_eq!(wire.status("GET"), 200);
    assert_eq!(wire.end(), End::Clean(0));

    let click = |id: &str| {
        let bytes = site.click(id).without_header("Connection").to_bytes();
        String::from_utf8(bytes)
            .unwrap()
            .replace("HTTP/1.1", "HTTP/1.0")
    };
    let id = site.file_an_approval();
    let mut wire = site.send(click(&id));
    assert_eq!(wire.status("POST"), 200);
    assert_eq!(wire.end(), End::Clean(0));
    assert_eq!(site.status_of(&id), "approved");
}

#[test]
fn the_answer_to_head_has_the_length_of_a_body_and_no_body() {
    let site = Site::start(Port::Plain);
    let length = site.server.get("/health").body.len().to_string();
    let mut wire = site.send(HEALTH.replace("GET", "HEAD"));
    let answer = wire.answer("HEAD");
    assert_eq!(
        (answer.status, answer.header("content-length")),
        (200, Some(&*length))
    );
    // What follows is the next answer, not a body.
    wire.say(RawRequest::new("HEAD", "/elsewhere").to_bytes());
    assert_eq!(wire.status("HEAD"), 404);
    assert_eq!(wire.end(), End::Clean(0));
    let refused = site
        .server
        .request(RawRequest::new("HEAD", "/slack/interactions"));
    assert_eq!(
        (refused.status, refused.header("allow")),
        (405, Some("POST"))
    );
}

#[test]
fn a_client_that_waits_before_its_body_is_told_to_continue() {
    for port in BOTH {
        let site = Site::start(port);
        let id = site.file_an_approval();
        let request = site.click(&id).header("Expect", "100-continue");
        let bytes = request.to_bytes();
        let head = bytes.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;

        let mut wire = site.send(&bytes[..head]);
        let mut interim = [0; 25];
        std::io::Read::read_exact(&mut wire.0, &mut interim).unwrap();
        assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
        assert_eq!(site.status_of(&id), "pending");
        wire.say(&bytes[head..]);
        assert_eq!(wire.status("POST"), 200);
        assert_eq!(site.status_of(&id), "approved");
    }
}

#[test]
fn a_client_that_waits_before_a_body_nobody_wants_is_refused_at_once() {
    let site = Site::start(Port::Plain);
    let waiting = |path: &str, length: &str| {
        RawRequest::new("POST", path)
            .header("Expect", "100-continue")
            .header("Content-Length", length)
            .to_bytes()
    };
    for (bytes, status) in [
        (waiting("/slack/interactions", "1048577"), "413"),
        (waiting("/slack/interactions", "99999999999999"), "413"),
        (waiting("/elsewhere", "10"), "404"),
        (waiting("/health", "10"), "405"),
    ] {
        let mut wire = site.send(bytes);
        let mut first = [0; 12];
        std::io::Read::read_exact(&mut wire.0, &mut first).unwrap();
        assert_eq!(
            String::from_utf8_lossy(&first),
            format!("HTTP/1.1 {status}")
        );
    }
    // Version 1.0 knows no interim answers.
    let id = site.file_an_approval();
    let old = site.click(&id).header("Expect", "100-continue").to_bytes();
    let old = String::from_utf8(old)
        .unwrap()
        .replace("HTTP/1.1", "HTTP/1.0");
    let mut wire = site.connect();
    let (head, body) = old.split_once("\r\n\r\n").unwrap();
    wire.say(format!("{head}\r\n\r\n"));
    wire.say(body);
    let mut first = [0; 12];
    std::io::Read::read_exact(&mut wire.0, &mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
}

#[test]
fn a_connection_ends_after_as_many_requests_as_it_may_have() {
    let config = "webhook: {limits: {requests: 3}}";
    for port in BOTH {
        let site = Site::with(port, |builder| builder.config(config));
        let mut wire = site.send(HEALTH.repeat(5));
        let said: Vec<String> = (0..3)
            .map(|_| connection(&wire.answer("GET")).to_owned())
            .collect();
        assert_eq!(said, ["keep-alive", "keep-alive", "close"]);
        assert_eq!(wire.end(), End::Clean(0));
        site.serves_a_click();
    }
}

#[test]
fn a_body_of_the_largest_size_is_read_and_one_byte_more_is_not() {
    let site = Site::start(Port::Plain);
    let largest = |length: usize| {
        let body = format!("ssl_check=1&x={}", "x".repeat(length - 14));
        site.send(ssl_check().body(body).to_bytes()).status("POST")
    };
    assert_eq!((largest(1 << 20), largest((1 << 20) + 1)), (200, 413));
    site.serves_a_click();
}

#[test]
fn a_client_that_says_it_has_said_everything_still_gets_the_answer() {
    let site = Site::start(Port::Plain);
    let id = site.file_an_approval();
    let mut socket = site.server.connect().unwrap();
    std::io::Write::write_all(&mut socket, &site.click(&id).to_bytes()).unwrap();
    socket.shutdown(std::net::Shutdown::Write).unwrap();
    let answer = Answer::read(&mut std::io::BufReader::new(socket), "POST").unwrap();
    assert_eq!(answer.status, 200);
    // One that leaves in the middle decides nothing.
    let id = site.file_an_approval();
    let bytes = site.click(&id).to_bytes();
    let mut socket = site.server.connect().unwrap();
    std::io::Write::write_all(&mut socket, &bytes[..bytes.len() - 1]).unwrap();
    socket.shutdown(std::net::Shutdown::Write).unwrap();
    let answer = Answer::read(&mut std::io::BufReader::new(socket), "POST").unwrap();
    assert_eq!(
        (answer.status, site.status_of(&id)),
        (400, "pending".into())
    );
}

#[test]
fn only_a_trusted_proxy_may_name_the_client() {
    for (trusted, forwarded, peer) in [
        ("[]", "203.0.113.9", "127.0.0.1"),
        ("[10.0.0.0/8]", "203.0.113.9", "127.0.0.1"),
        ("[127.0.0.0/8]", "203.0.113.9", "203.0.113.9"),
        // What the client itself wrote stands left of what the proxy saw.
        ("[127.0.0.1]", "198.51.100.7, 203.0.113.9", "203.0.113.9"),
        (
            "[127.0.0.1, 203.0.113.0/24]",
            "198.51.100.7, 203.0.113.9",
            "198.51.100.7",
        ),
        ("[127.0.0.1]", "2001:db8::9", "2001:db8::9"),
        ("[127.0.0.1]", "not an address", "127.0.0.1"),
        ("[127.0.0.1]", "203.0.113.9, not an address", "127.0.0.1"),
    ] {
        let config = format!("webhook: {{trustedProxies: {trusted}}}");
        let site = Site::with(Port::Plain, |builder| builder.config(&config));
        site.server.expect_errors();
        let id = site.file_an_approval();
        let request = forged(&id).header("X-Forwarded-For", forwarded);
        assert_eq!(site.server.request(request).status, 401);
        let log = site
            .server
            .wait_for_log("Signature verification failed", PATIENCE);
        assert!(
            log.contains(&format!("  Peer: {peer}\n")),
            "{trusted} {forwarded}: {log}"
        );
    }
}
