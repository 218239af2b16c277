//! `runbook health`: what stands in a server's place, well or not, becomes one line and 0 or 1; and the
//! numbers at an address of their own.

use std::fs;
use std::io::{BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::edge::pki::{Authority, Key};
use crate::harness::{
    Answer, Client, Finished, RawRequest, Scratch, Server, eventually, remove_folder, sample,
    write_approval,
};

fn ask(port: u16, more: &[&str]) -> Finished {
    let port = port.to_string();
    Client::new(["health", "--port", &port]).and(more).finish()
}

/// A server that answers every request with these bytes, then closes.
fn other_server(answer: Vec<u8>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(&answer);
        }
    });
    port
}

fn page(status: &str, more: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\n{more}Content-Length: {length}\r\n\r\n{body}").into_bytes()
}

#[test]
fn a_server_that_is_well_is_one_line_and_nothing_when_that_is_asked() {
    let dir = Scratch::new();
    write_approval(&dir, &sample("apr-1"));
    let server = Server::builder().dir(&dir).start();
    let asked = ask(server.port(), &[]);
    assert_eq!(asked.stdout, "healthy: 1 approval pending\n");
    assert_eq!((asked.status, &*asked.stderr), (Some(0), ""));
    let quiet = ask(server.port(), &["--quiet"]);
    assert_eq!((quiet.status, &*quiet.stdout), (Some(0), ""));
    let json: serde_json::Value =
        serde_json::from_str(&ask(server.port(), &["--json"]).stdout).unwrap();
    assert_eq!(json["status"], "healthy");
    assert_eq!(json["pendingApprovals"], 1);
    let enough = ask(server.port(), &["--max-pending", "1"]);
    assert_eq!(enough.status, Some(0), "{enough:?}");
    let many = ask(server.port(), &["--max-pending", "0", "--quiet"]);
    assert_eq!(many.status, Some(1));
    assert!(
        many.stdout.ends_with(": 1 approval pending, more than 0\n"),
        "{many:?}"
    );
    // What cannot be seen is not well.
    let blind = ask(server.port(), &["--cert-days", "1"]);
    assert_eq!(blind.status, Some(1), "{blind:?}");
    assert!(blind.stdout.contains("no certificate"), "{blind:?}");
}

#[test]
fn the_port_comes_from_where_the_server_takes_it() {
    let server = Server::builder().start();
    let port = server.port();
    let by_variable = Client::new(["health"]).env("SLACK_WEBHOOK_PORT", port.to_string());
    assert_eq!(by_variable.finish().status, Some(0));
    // A secret that cron does not have is none of its business.
    let file = format!("webhook:\n  port: {port}\nincident:\n  slack:\n    botToken: ${{NONE}}\n");
    let by_file = Client::new(["health"]).config(&file).finish();
    assert_eq!(by_file.status, Some(0), "{by_file:?}");
    let url = format!("http://localhost:{port}");
    let by_url = Client::new(["health", "--url", &url]).finish();
    assert_eq!(by_url.status, Some(0), "{by_url:?}");
    let wrong = Client::new(["health", "--port", "0"]).finish();
    assert_eq!(wrong.status, Some(2), "{wrong:?}");
}

#[test]
fn whatever_answers_in_the_servers_place_is_told_in_one_line() {
    // A port that was free a moment ago may be another test's now; nobody listens at this one.
    let closed = 1;
    let huge = "x".repeat(1 << 20);
    let sick = r#"{"status":"unhealthy","reasons":["cannot write: no space","\u001b[31mred"]}"#;
    for (port, said) in [
        (closed, "connection refused"),
        (
            other_server(page(
                "302 Found",
                "Location: https://login.example/\r\n",
                "",
            )),
            "HTTP status 302 leads to https://login.example/, and is not followed",
        ),
        (
            other_server(page("503 Service Unavailable", "", sick)),
            "cannot write: no space; \\u{1b}[31mred",
        ),
        (
            other_server(page("503 Service Unavailable", "", "busy")),
            "HTTP status 503",
        ),
        (
            other_server(page("200 OK", "", "<html>")),
            "another program may have the port",
        ),
        (
            other_server(page("200 OK", "", r#"{"status":"healthy"}"#)),
            "another program may have the port",
        ),
        (
            other_server(page("404 Not Found", "", "")),
            "HTTP status 404",
        ),
        (
            other_server(page("200 OK", "", &huge)),
            "too large to be ours",
        ),
        (
            other_server(b"220 mail.example ESMTP\r\n".to_vec()),
            "not HTTP",
        ),
        (other_server(Vec::new()), "without an answer"),
    ] {
        let asked = ask(port, &[]);
        assert_eq!(asked.status, Some(1), "{said}: {asked:?}");
        assert!(
            asked.stdout.starts_with("unhealthy: http://127.0.0.1:"),
            "{asked:?}"
        );
        assert!(asked.stdout.contains(said), "{said}: {asked:?}");
        assert_eq!(asked.stdout.lines().count(), 1, "{asked:?}");
    }
}

#[test]
fn a_server_that_hangs_or_drips_ends_with_the_time_that_was_given() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let dripping = TcpListener::bind("127.0.0.1:0").unwrap();
    let ports = [&silent, &dripping].map(|listener| listener.local_addr().unwrap().port());
    thread::spawn(move || {
        let Ok((mut stream, _)) = dripping.accept() else {
            return;
        };
        while stream.write_all(b"H").is_ok() {
            // Never silent for as long as it may take as a whole.
            thread::sleep(Duration::from_millis(50));
        }
    });
    for port in ports {
        let started = Instant::now();
        let asked = ask(port, &["--timeout", "500ms"]);
        assert_eq!(asked.status, Some(1), "{asked:?}");
        assert!(
            started.elapsed() < Duration::from_secs(5),
            "{:?}",
            started.elapsed()
        );
    }
}

#[test]
fn https_is_found_out_and_its_certificate_is_looked_at() {
    let authority = Authority::new();
    let pair = authority.issue_for("served", Key::Ec, 5);
    let root = authority.dir().join("root.pem");
    let root = root.to_str().unwrap();
    let server = Server::builder().args(pair.options()).start();
    let unknown = ask(server.port(), &[]);
    assert_eq!(unknown.status, Some(1));
    assert!(unknown.stdout.contains("signed by nobody"), "{unknown:?}");
    let known = ask(server.port(), &["--cacert", root]);
    assert_eq!(known.status, Some(0), "{known:?}");
    assert!(known.stdout.contains("certificate ends in "), "{known:?}");
    let pinned = ask(
        server.port(),
        &["--cacert", pair.certificate.to_str().unwrap()],
    );
    assert_eq!(pinned.status, Some(0), "{pinned:?}");
    let any = ask(server.port(), &["--insecure", "--cert-days", "3"]);
    assert_eq!(any.status, Some(0), "{any:?}");
    let soon = ask(server.port(), &["--insecure", "--cert-days", "14"]);
    assert_eq!(soon.status, Some(1));
    assert!(soon.stdout.contains("days, less than 14"), "{soon:?}");
    // The name is the one that Slack calls, where that is known.
    for (name, code) in [("localhost", 0), ("runbook.example.com", 1)] {
        let config = format!(
            "webhook:\n  publicUrl: https://{name}\n  port: {}\n",
            server.port()
        );
        let named = Client::new(["health", "--cacert", root])
            .config(&config)
            .finish();
        assert_eq!(named.status, Some(code), "{named:?}");
    }
    let url = format!("https://127.0.0.1:{}/health", server.port());
    let by_url = Client::new(["health", "--cacert", root, "--url", &url]).finish();
    assert_eq!(by_url.status, Some(0), "{by_url:?}");

    // On this machine it is asked by an address that no real certificate is for, and it may be for any name.
    let public = authority.issue_for_host("runbook.example.com");
    let server = Server::builder().args(public.options()).start();
    for host in ["127.0.0.1", "localhost"] {
        let url = format!("https://{host}:{}/health", server.port());
        let by_url = Client::new(["health", "--cacert", root, "--url", &url]).finish();
        assert_eq!(by_url.status, Some(0), "{by_url:?}");
    }

    let over = authority.issue_for("over", Key::Ec, -1);
    let server = Server::builder().args(over.options()).start();
    let expired = ask(server.port(), &["--cacert", root]);
    assert_eq!(expired.status, Some(1));
    assert!(expired.stdout.contains("has expired"), "{expired:?}");
}

/// Asks at an address that is no server's main one.
fn request(address: &str, request: &RawRequest, method: &str) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    stream.write_all(&request.to_bytes()).unwrap();
    Answer::read(&mut BufReader::new(stream), method).unwrap()
}

#[test]
fn an_address_of_their_own_has_the_numbers_and_nothing_else() {
    let limits = "webhook:\n  limits:\n    head: 300ms\n    handshake: 300ms\n";
    let server = Server::builder()
        .args(["--metrics-addr", "127.0.0.1:0"])
        .config(limits)
        .start();
    let log = server.wait_for_log("/metrics", Duration::from_secs(5));
    let (_, rest) = log.split_once("Metrics at http://").unwrap();
    let address = rest.split('/').next().unwrap().to_owned();
    let get = |path: &str| request(&address, &RawRequest::new("GET", path), "GET");
    let numbers = get("/metrics");
    assert_eq!(numbers.status, 200);
    assert!(
        numbers.text().contains("runbook_pending_approvals 0\n"),
        "{}",
        numbers.text()
    );
    // Whoever scrapes through a proxy was let in by the address.
    let forwarded = RawRequest::new("GET", "/metrics").header("X-Forwarded-For", "192.0.2.1");
    assert_eq!(request(&address, &forwarded, "GET").status, 200);
    let head = request(&address, &RawRequest::new("HEAD", "/metrics"), "HEAD");
    assert_eq!((head.status, head.body.len()), (200, 0));
    for path in ["/health", "/health?verbose", "/slack/events", "/"] {
        assert_eq!(get(path).status, 404, "{path}");
    }
    let click = server.interaction(&crate::harness::Click::approve("apr-1").payload());
    assert_eq!(request(&address, &click, "POST").status, 404);
    let post = request(&address, &RawRequest::new("POST", "/metrics"), "POST");
    assert_eq!(post.status, 405);
    // The main port has them no more.
    assert_eq!(server.get("/metrics").status, 404);
    assert_eq!(server.get("/health").status, 200);
    // Many that say nothing keep nobody out, and are let go.
    let idle: Vec<TcpStream> = (0..64)
        .map(|_| TcpStream::connect(&address).unwrap())
        .collect();
    assert_eq!(get("/metrics").status, 200);
    for mut stream in idle {
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let mut rest = Vec::new();
        // Ended or reset, but not waited for.
        let _ = stream.read_to_end(&mut rest);
    }
    server.terminate();
    assert!(
        TcpStream::connect(&address).is_err(),
        "the address is still served"
    );
}

#[test]
fn a_forwarded_request_is_never_from_here() {
    let server = Server::builder().start();
    for header in ["X-Forwarded-For", "Forwarded", "Via", "X-Real-IP"] {
        let forwarded =
            |path: &str| server.request(RawRequest::new("GET", path).header(header, "127.0.0.1"));
        assert_eq!(forwarded("/metrics").status, 404, "{header}");
        let plain = forwarded("/health?verbose").json();
        assert!(plain.get("uptime").is_none(), "{header}: {plain}");
    }
    assert_eq!(server.get("/metrics").status, 200);
}

#[test]
fn the_numbers_keep_to_the_conventions() {
    let dir = Scratch::new();
    write_approval(&dir, &sample("apr-1"));
    let server = Server::builder().dir(&dir).start();
    server.interact(&crate::harness::Click::approve("apr-1").payload());
    let text = server.get("/metrics").text();
    let mut described: Vec<(&str, &str)> = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(help.ends_with('.'), "{line}");
            assert!(
                !described.iter().any(|(other, _)| *other == name),
                "{name} twice"
            );
            let kind = lines.next().unwrap();
            let kind = kind.strip_prefix(&format!("# TYPE {name} ")).unwrap();
            described.push((name, kind));
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        value.parse::<f64>().unwrap();
        let (name, kind) = *described.last().unwrap();
        let own = series.split('{').next().unwrap();
        match kind {
            "counter" => assert!(own == name && name.ends_with("_total"), "{line}"),
            "histogram" => {
                let suffix = own.strip_prefix(name).unwrap();
                assert!(name.ends_with("_seconds"), "{name}");
                assert!(["_bucket", "_sum", "_count"].contains(&suffix), "{line}");
            }
            _ => assert!(own == name && !name.ends_with("_total"), "{line}"),
        }
    }
    for name in [
        "runbook_webhook_requests_total",
        "runbook_signature_failures_total",
        "runbook_decisions_total",
        "runbook_acknowledgement_seconds",
        "runbook_pending_approvals",
        "runbook_build_info",
    ] {
        assert!(
            described.iter().any(|(other, _)| *other == name),
            "{name}\n{text}"
        );
    }
    assert!(
        text.contains("runbook_webhook_requests_total{action=\"approve\"} 1\n"),
        "{text}"
    );
    assert!(
        text.contains("runbook_signature_failures_total 0\n"),
        "{text}"
    );
    let buckets = text.lines().filter(|line| line.contains("_bucket{"));
    let counts: Vec<u64> = buckets
        .map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
        .collect();
    assert!(counts.is_sorted(), "{counts:?}");
}

#[test]
fn numbers_are_told_though_the_store_cannot_be_read() {
    let parent = Scratch::new();
    let dir = parent.join("pending");
    fs::create_dir(&dir).unwrap();
    let server = Server::builder().dir(&dir).start();
    server.expect_errors();
    remove_folder(&dir);
    eventually(
        "the store is told to be unreadable",
        Duration::from_secs(5),
        || {
            let text = server.get("/metrics").text();
            text.contains("runbook_store_readable 0\n").then_some(())
        },
    );
}

#[test]
fn a_complaint_is_a_line_of_json_where_the_log_is() {
    let broken = Client::new(["webhook", "--log-format", "json", "--port", "none\u{1b}"]).finish();
    assert_eq!(broken.status, Some(2));
    assert_eq!(broken.stderr.lines().count(), 1, "{broken:?}");
    let line: serde_json::Value = serde_json::from_str(&broken.stderr).unwrap();
    assert_eq!(line["level"], "error");
    assert!(line["ts"].is_string());
    assert!(!broken.stderr.contains('\u{1b}'), "{broken:?}");
    let hinted = Client::new(["webhook", "--log-format", "json"]).finish();
    let line: serde_json::Value = serde_json::from_str(&hinted.stderr).unwrap();
    assert!(
        line["hint"]
            .as_str()
            .unwrap()
            .contains("SLACK_SIGNING_SECRET"),
        "{line}"
    );
}

#[test]
fn options_that_make_no_sense_are_told_as_json_too() {
    for arguments in [
        &["list", "--log-format", "json", "--al"][..],
        &["list", "--al", "--log-format=json"],
        &["list", "stray", "--log-format", "json"],
        &["lisst", "--log-format", "json"],
        &["list", "--log-format", "json", "--log-level", "loud"],
    ] {
        let wrong = Client::new(arguments.to_vec()).finish();
        assert_eq!(wrong.status, Some(2), "{wrong:?}");
        assert_eq!(wrong.stderr.lines().count(), 1, "{wrong:?}");
        let line: serde_json::Value = serde_json::from_str(&wrong.stderr).unwrap();
        assert_eq!(line["level"], "error", "{line}");
    }
    // What stands behind `--` is the command's.
    let other = Client::new(["list", "--al", "--", "--log-format", "json"]).finish();
    assert!(other.stderr.starts_with("runbook: error: "), "{other:?}");
}

#[test]
fn a_warning_beside_a_result_is_a_line_of_json_where_the_log_is() {
    let dir = Scratch::new();
    fs::write(dir.join("apr-x.json"), "{").unwrap();
    let list = |more: &[&str]| Client::new(["list", "--json"]).and(more).dir(&dir).finish();
    let text = list(&[]);
    assert!(text.stderr.starts_with("runbook: warning: "), "{text:?}");
    let json = list(&["--log-format", "json"]);
    assert_eq!((json.status, json.stdout.trim()), (Some(0), "[]"));
    assert_eq!(json.stderr.lines().count(), 1, "{json:?}");
    let line: serde_json::Value = serde_json::from_str(&json.stderr).unwrap();
    assert_eq!(line["level"], "warn");
    assert!(
        line["msg"].as_str().unwrap().contains("apr-x.json"),
        "{line}"
    );
}

/// What an address that serves nothing else says.
fn numbers_alone(server: &Server) -> String {
    let log = server.wait_for_log("/metrics", Duration::from_secs(5));
    let (_, rest) = log.split_once("Metrics at http://").unwrap();
    let address = rest.split('/').next().unwrap();
    request(address, &RawRequest::new("GET", "/metrics"), "GET").text()
}

#[test]
fn the_end_of_the_served_certificate_is_a_number() {
    let authority = Authority::new();
    let pair = authority.issue_for("served", Key::Ec, 5);
    let addr = ["--metrics-addr", "127.0.0.1:0"];
    let server = Server::builder().args(pair.options()).args(addr).start();
    let numbers = numbers_alone(&server);
    let series = "runbook_certificate_not_after_timestamp_seconds ";
    let end = numbers.lines().find_map(|line| line.strip_prefix(series));
    let end: u64 = end.unwrap_or_else(|| panic!("{numbers}")).parse().unwrap();
    let now = std::time::SystemTime::now();
    let now = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!(
        (4 * 86400..=5 * 86400).contains(&(end - now)),
        "{end} at {now}"
    );
    let plain = Server::builder().start().get("/metrics").text();
    assert!(!plain.contains(series), "{plain}");
}

#[test]
fn the_readme_tells_of_each_number_in_the_words_of_the_number_itself() {
    let authority = Authority::new();
    let pair = authority.issue_for("served", Key::Ec, 5);
    let addr = ["--metrics-addr", "127.0.0.1:0"];
    let server = Server::builder().args(pair.options()).args(addr).start();
    let numbers = numbers_alone(&server);
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let (_, table) = readme.split_once("| metric | |\n|---|---|\n").unwrap();
    let rows = table.lines().take_while(|line| line.starts_with('|'));
    let told: Vec<(&str, &str)> = rows
        .map(|row| {
            let (name, help) = row.trim_matches([' ', '|']).split_once(" | ").unwrap();
            (name.trim_matches('`').split('{').next().unwrap(), help)
        })
        .collect();
    let mut helped = Vec::new();
    for line in numbers.lines() {
        let Some((name, help)) = line
            .strip_prefix("# HELP ")
            .and_then(|line| line.split_once(' '))
        else {
            continue;
        };
        let (first, rest) = help.trim_end_matches('.').split_at(1);
        let help = first.to_lowercase() + rest;
        assert!(told.contains(&(name, &help)), "{name}: {help}");
        helped.push(name);
    }
    for (name, _) in told {
        // Slack was not called.
        let is_there = helped.contains(&name) || name == "runbook_slack_calls_total";
        assert!(is_there, "{name}: {numbers}");
    }
}

#[test]
fn a_server_among_very_many_files_is_well_before_it_has_counted_them() {
    /// More than are read within the time for which an answer waits for them.
    const FILES: usize = 40_000;
    let dir = Scratch::new();
    for number in 0..FILES {
        let id = format!("apr-{number}");
        let text = sample(&id).to_string();
        fs::write(dir.join(format!("{id}.json")), text).unwrap();
    }
    let server = Server::builder().dir(&dir).start();
    let early = server.get("/health?verbose").json();
    assert_eq!(early["counting"], true, "{early}");
    assert!(early["pendingApprovals"].as_u64().unwrap() < FILES as u64);
    let numbers = server.get("/metrics").text();
    let counted = numbers.contains("runbook_pending_approvals ");
    assert!(
        counted == numbers.contains(&format!("runbook_pending_approvals {FILES}\n")),
        "{numbers}"
    );
    // Whoever asks plainly gets what the page says, and no more.
    let plain = server.get("/health").json();
    assert_eq!(plain["status"], "healthy");
    assert_eq!(plain.as_object().unwrap().len(), 2, "{plain}");
    let late = eventually("all files are counted", Duration::from_secs(60), || {
        let health = server.get("/health?verbose").json();
        health["counting"].is_null().then_some(health)
    });
    assert_eq!(late["pendingApprovals"], FILES);
    assert_eq!(
        server.get("/health").text(),
        format!(r#"{{"status":"healthy","pendingApprovals":{FILES}}}"#)
    );
    let numbers = server.get("/metrics").text();
    assert!(
        numbers.contains(&format!("runbook_pending_approvals {FILES}\n")),
        "{numbers}"
    );
}
