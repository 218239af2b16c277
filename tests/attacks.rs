//! Requests that Slack did not send, text that wants to be more than text, and a Slack that is not one.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::harness::{
    Answer, Click, RawRequest, SECRET, Scratch, Server, all_files, done, eventually, fixture,
    interaction_form, now, read_approval, sample, settled, sign, write_approval,
};
use crate::stand_in::{Failure, StandIn, TOKEN, Times};
use crate::wire::{Head, Unframed};

/// How long an effect may take that nothing holds up.
const SOON: Duration = Duration::from_secs(5);

const INTERACTIONS: &str = "/slack/interactions";
const EVENTS: &str = "/slack/events";
const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";

/// A POST with these two headers and this body.
fn post(
    path: &str,
    content_type: &str,
    timestamp: &str,
    signature: &str,
    body: &str,
) -> RawRequest {
    RawRequest::new("POST", path)
        .header("Content-Type", content_type)
        .header("X-Slack-Request-Timestamp", timestamp)
        .header("X-Slack-Signature", signature)
        .body(body)
}

/// A POST signed with any secret for any time, as a form or as JSON by its path.
fn signed_by(secret: &str, path: &str, timestamp: &str, body: &str) -> RawRequest {
    let content_type = if path == EVENTS { JSON } else { FORM };
    let signature = sign(secret, timestamp, body.as_bytes());
    post(path, content_type, timestamp, &signature, body)
}

/// Seconds of Unix time, some of them before or after now.
fn seconds(from_now: i64) -> String {
    now().checked_add_signed(from_now).unwrap().to_string()
}

/// What a peer sees of an answer, but for the time of day.
fn seen(answer: &Answer) -> (u16, Vec<(String, String)>, String) {
    let headers = answer.headers.iter();
    let headers = headers.filter(|(name, _)| !name.eq_ignore_ascii_case("date"));
    (answer.status, headers.cloned().collect(), answer.text())
}

fn assert_error(answer: &Answer, status: u16, what: &str) {
    assert_eq!(answer.status, status, "{what}: {}", answer.text());
    let body = answer.json();
    let fields = body.as_object().unwrap();
    assert!(
        fields.len() == 1 && fields["error"].is_string(),
        "{what}: {body}"
    );
    assert_eq!(answer.header("content-type"), Some(JSON), "{what}");
}

/// Every forgery of a request with this body that is not about its size.
fn forgeries(path: &str, body: &str) -> Vec<(String, RawRequest)> {
    let ts = &seconds(0);
    let right = &sign(SECRET, ts, body.as_bytes());
    let wrong = &sign("another secret", ts, body.as_bytes());
    let whole = || signed_by(SECRET, path, ts, body);
    let with_body = |other: &str| whole().body(other);
    let (timestamp_header, signature_header) = ("X-Slack-Request-Timestamp", "X-Slack-Signature");
    let mut all: Vec<(String, RawRequest)> = [
        ("no signature", whole().without_header(signature_header)),
        ("no timestamp", whole().without_header(timestamp_header)),
        (
            "neither header",
            whole()
                .without_header(signature_header)
                .without_header(timestamp_header),
        ),
        (
            "another secret",
            signed_by("another secret", path, ts, body),
        ),
        ("an empty secret", signed_by("", path, ts, body)),
        (
            "stale by a second",
            signed_by(SECRET, path, &seconds(-301), body),
        ),
        (
            "an hour old",
            signed_by(SECRET, path, &seconds(-3600), body),
        ),
        // A second may pass on the way; that exactly 301 s are too many is another test's claim.
        (
            "of the future",
            signed_by(SECRET, path, &seconds(310), body),
        ),
        (
            "signed for another time",
            post(
                path,
                FORM,
                ts,
                &sign(SECRET, &seconds(-1), body.as_bytes()),
                body,
            ),
        ),
        (
            "signed without the body",
            post(path, FORM, ts, &sign(SECRET, ts, b""), body),
        ),
        ("the body has one byte more", with_body(&format!("{body}&"))),
        (
            "the body has one byte less",
            with_body(&body[..body.len() - 1]),
        ),
        ("the body is empty", with_body("")),
        ("another case in the body", with_body(&body.to_uppercase())),
        (
            "two equal signatures",
            whole().header(signature_header, right),
        ),
        (
            "a wrong signature second",
            whole().header(signature_header, wrong),
        ),
        (
            "a wrong signature first",
            post(path, FORM, ts, wrong, body).header(signature_header, right),
        ),
        ("two equal timestamps", whole().header(timestamp_header, ts)),
        (
            "two different timestamps",
            whole().header(timestamp_header, seconds(-1)),
        ),
        (
            "two signatures in one field",
            post(path, FORM, ts, &format!("{right}, {right}"), body),
        ),
    ]
    .map(|(what, request)| (what.to_owned(), request))
    .into();
    all.extend(malformed(path, ts, right, body));
    all
}

/// Requests whose signature or timestamp has a form that Slack's never has.
fn malformed(path: &str, ts: &str, right: &str, body: &str) -> Vec<(String, RawRequest)> {
    let mut all = Vec::new();
    let hex = &right[3..];
    let last = if hex.ends_with('0') { "1" } else { "0" };
    for malformed in [
        "",
        "v0=",
        "v0",
        hex,
        &format!("v1={hex}"),
        &format!("V0={hex}"),
        &format!("v0:{hex}"),
        &format!("v0= {hex}"),
        &format!("v0=v0={hex}"),
        &format!("v0={}", &hex[..63]),
        &format!("v0={}", &hex[..6]),
        &format!("v0={hex}0"),
        &format!("v0={hex}{hex}"),
        &format!("v0={}{last}", &hex[..63]),
        &format!("v0={}", "g".repeat(64)),
        &format!("v0={}", "0".repeat(64)),
        &format!("v0={}", "%".repeat(64)),
    ] {
        all.push((
            format!("signature {malformed:?}"),
            post(path, FORM, ts, malformed, body),
        ));
    }
    for malformed in [
        "",
        "now",
        "0",
        "-1",
        &format!("-{ts}"),
        &format!("+{ts}"),
        &format!("{ts}.0"),
        &format!("{ts}e0"),
        &format!("{ts}000"),
        &format!("0x{:x}", now()),
        &format!("{ts}, {ts}"),
        &format!("{ts} {ts}"),
        "99999999999999999999999999999999",
        "18446744073709551615",
    ] {
        all.push((
            format!("timestamp {malformed:?}"),
            signed_by(SECRET, path, malformed, body),
        ));
    }
    all
}

#[test]
fn what_slack_did_not_sign_changes_nothing_and_does_not_learn_why() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    write_approval(&dir, &sample("apr-1"));
    write_approval(&dir, &sample("apr-2"));
    let server = Server::builder().dir(&dir).slack(&slack).start();
    server.expect_errors();
    let click = Click::approve("apr-1").response_url(slack.response_url("x"));
    let click = interaction_form(&click.payload());
    let event = fixture("slack/events_url_verification.json").to_string();

    let before = all_files(&dir);
    let mut refusal = None;
    let mut refused = 0;
    for (path, body) in [(INTERACTIONS, &click), (EVENTS, &event)] {
        for (what, request) in forgeries(path, body) {
            let answer = server.request(request);
            assert_error(&answer, 401, &what);
            let expected = refusal.get_or_insert_with(|| seen(&answer));
            assert_eq!(&seen(&answer), expected, "{path}: {what}");
            refused += 1;
        }
        assert_eq!(all_files(&dir), before, "{path}");
    }
    // A flood is not told one by one: a hundred a minute are enough.
    assert!(refused > 100);
    let told = || {
        server
            .log()
            .matches("Signature verification failed")
            .count()
    };
    eventually("the failures to be told", SOON, || {
        (told() >= 100).then_some(())
    });
    assert_eq!(told(), 100);
    assert!(slack.calls().is_empty(), "{:?}", slack.calls());

    // The very same click counts once it is signed.
    let honest = signed_by(SECRET, INTERACTIONS, &seconds(0), &click);
    assert_eq!(server.request(honest).status, 200);
    assert_eq!(read_approval(&dir, "apr-1")["status"], "approved");
    assert_eq!(read_approval(&dir, "apr-2")["status"], "pending");

    // How many the others were is told in the end.
    assert!(server.terminate().success());
    let rest = format!(
        "[ERROR] Signature verification failed {} more times\n",
        refused - 100
    );
    assert!(server.log().contains(&rest), "{}", server.log());
}

#[test]
fn a_timestamp_is_good_for_300_seconds_either_way_and_not_for_301() {
    let server = Server::builder().start();
    server.expect_errors();
    let event = fixture("slack/events_url_verification.json").to_string();
    for (from_now, status) in [(-301, 401), (-300, 200), (0, 200), (300, 200), (301, 401)] {
        // What was asked and answered within one second was of that second for the server, too.
        let answer = eventually("an answer within one second", SOON, || {
            let (second, timestamp) = (now(), seconds(from_now));
            let answer = server.request(signed_by(SECRET, EVENTS, &timestamp, &event));
            (now() == second).then_some(answer)
        });
        assert_eq!(answer.status, status, "{from_now} s from now");
    }
}

#[test]
fn a_right_signature_counts_on_every_path_and_with_any_query() {
    let dir = Scratch::new();
    let server = Server::builder().dir(&dir).start();
    let event = fixture("slack/events_url_verification.json").to_string();
    for path in [EVENTS, "/slack/events?", "/slack/events?x=1&verbose"] {
        let answer = server.post_signed(path, JSON, event.as_bytes());
        assert_eq!(
            (answer.status, answer.json()["challenge"].is_string()),
            (200, true),
            "{path}"
        );
    }
    for (n, query) in ["?", "?x=1", "?payload=%7B%7D", "?ssl_check=1"]
        .into_iter()
        .enumerate()
    {
        let id = format!("apr-{n}");
        write_approval(&dir, &sample(&id));
        let body = interaction_form(&Click::deny(&id).payload());
        let path = format!("{INTERACTIONS}{query}");
        assert_eq!(
            server.post_signed(&path, FORM, body.as_bytes()).status,
            200,
            "{path}"
        );
        assert_eq!(read_approval(&dir, &id)["status"], "denied", "{path}");
    }
}

#[test]
fn during_rotation_each_configured_secret_counts_and_no_other() {
    let scratch = Scratch::new();
    let file = scratch.join("secrets");
    fs::write(&file, "the-old-secret\nthe-new-secret\n").unwrap();
    let yaml = "incident:\n  slack:\n    signingSecret:\n      - the-old-secret\n      - ${NEW}\n";
    let by_variable =
        Server::builder().env("SLACK_SIGNING_SECRET", "the-old-secret\nthe-new-secret");
    let unset = || Server::builder().without_env("SLACK_SIGNING_SECRET");
    let by_file = unset().env("SLACK_SIGNING_SECRET_FILE", &file);
    let by_list = unset().env("NEW", "the-new-secret").config(yaml);
    for (what, builder) in [
        ("variable", by_variable),
        ("file", by_file),
        ("list", by_list),
    ] {
        let dir = Scratch::new();
        write_approval(&dir, &sample("apr-old"));
        write_approval(&dir, &sample("apr-new"));
        write_approval(&dir, &sample("apr-other"));
        let server = builder.dir(&dir).start();
        server.expect_errors();
        for (id, secret, status) in [
            ("apr-old", "the-old-secret", 200),
            ("apr-new", "the-new-secret", 200),
            ("apr-other", "the-old-secret\nthe-new-secret", 401),
            ("apr-other", "${NEW}", 401),
            ("apr-other", "", 401),
            ("apr-other", SECRET, 401),
        ] {
            let body = interaction_form(&Click::approve(id).payload());
            let request = signed_by(secret, INTERACTIONS, &seconds(0), &body);
            assert_eq!(server.request(request).status, status, "{what}: {secret:?}");
        }
        for (id, status) in [
            ("apr-old", "approved"),
            ("apr-new", "approved"),
            ("apr-other", "pending"),
        ] {
            assert_eq!(read_approval(&dir, id)["status"], status, "{what}: {id}");
        }
    }
}

#[test]
fn garbage_is_unsigned_first_and_unreadable_only_when_slack_signed_it() {
    let dir = Scratch::new();
    write_approval(&dir, &sample("apr-1"));
    let server = Server::builder().dir(&dir).start();
    server.expect_errors();
    let form = |payload: &str| {
        form_urlencoded::Serializer::new(String::new())
            .append_pair("payload", payload)
            .finish()
    };
    let click = Click::approve("apr-1").payload();
    let honest = interaction_form(&click);
    let deep = "[".repeat(100_000);
    let before = all_files(&dir);
    let interactions = [
        ("nothing", String::new()),
        ("no form", "\u{0}\u{1}\u{2}".into()),
        ("JSON instead of a form", click.to_string()),
        ("no payload", "a=b".into()),
        (
            "another field's name",
            honest.replacen("payload", "Payload", 1),
        ),
        ("two payloads", format!("{honest}&{honest}")),
        ("an empty payload", form("")),
        ("half a payload", form(&click.to_string()[..100])),
        ("something behind it", form(&format!("{click}{click}"))),
        ("a list", form("[]")),
        ("a number", form("1e999")),
        ("null", form("null")),
        ("no type", form("{}")),
        (
            "a type that is no text",
            form(r#"{"type":["block_actions"]}"#),
        ),
        ("a click without a user", form(&without(&click, "user"))),
        ("a click without actions", form(&without(&click, "actions"))),
        ("depth", form(&deep)),
        (
            "depth in a field",
            form(&format!(r#"{{"type":"block_actions","x":{deep}"#)),
        ),
    ];
    let events = [
        ("nothing", String::new()),
        ("a form", honest.clone()),
        ("a list", "[]".into()),
        ("null", "null".into()),
        ("no type", "{}".into()),
        ("no challenge", r#"{"type":"url_verification"}"#.into()),
        (
            "no event",
            r#"{"type":"event_callback","event_id":"Ev1"}"#.into(),
        ),
        (
            "no event id",
            r#"{"type":"event_callback","event":{"type":"message"}}"#.into(),
        ),
        ("depth", deep.clone()),
    ];
    let interactions = interactions.map(|(what, body)| (INTERACTIONS, FORM, what, body));
    let events = events.map(|(what, body)| (EVENTS, JSON, what, body));
    for (path, content_type, what, body) in interactions.into_iter().chain(events) {
        let signed = server.signed(path, content_type, body.as_bytes());
        let unsigned = signed.clone().without_header("X-Slack-Signature");
        assert_error(&server.request(unsigned), 401, what);
        assert_error(&server.request(signed), 400, what);
    }
    // Bytes that are not UTF-8, in a form and in JSON.
    for (path, content_type) in [(INTERACTIONS, FORM), (EVENTS, JSON)] {
        let answer = server.post_signed(path, content_type, b"payload=\xff\xfe{\"type\":\"\xff\"}");
        assert_error(&answer, 400, "not UTF-8");
    }
    assert_eq!(all_files(&dir), before);
}

/// The payload as text without one of its fields.
fn without(payload: &Value, field: &str) -> String {
    let mut payload = payload.clone();
    payload.as_object_mut().unwrap().remove(field);
    payload.to_string()
}

#[test]
fn a_content_type_counts_by_its_essence() {
    let dir = Scratch::new();
    let server = Server::builder().dir(&dir).start();
    let event = fixture("slack/events_url_verification.json").to_string();
    for (n, content_type) in [
        FORM,
        "application/x-www-form-urlencoded; charset=utf-8",
        "application/x-www-form-urlencoded;charset=UTF-8",
        "Application/X-WWW-Form-URLencoded",
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("apr-{n}");
        write_approval(&dir, &sample(&id));
        let body = interaction_form(&Click::approve(&id).payload());
        let answer = server.post_signed(INTERACTIONS, content_type, body.as_bytes());
        assert_eq!(answer.status, 200, "{content_type}");
        assert_eq!(
            read_approval(&dir, &id)["status"],
            "approved",
            "{content_type}"
        );
    }
    for content_type in [JSON, "application/json; charset=utf-8", "APPLICATION/JSON"] {
        let answer = server.post_signed(EVENTS, content_type, event.as_bytes());
        assert_eq!(answer.status, 200, "{content_type}");
    }

    write_approval(&dir, &sample("apr-no"));
    let click = interaction_form(&Click::approve("apr-no").payload());
    for (path, content_type, body) in [
        (INTERACTIONS, JSON, &click),
        (INTERACTIONS, "text/plain", &click),
        (INTERACTIONS, "multipart/form-data; boundary=x", &click),
        (
            INTERACTIONS,
            "application/x-www-form-urlencoded-not",
            &click,
        ),
        (INTERACTIONS, "", &click),
        (EVENTS, FORM, &event),
        (EVENTS, "text/json", &event),
        (EVENTS, "application/jsonp", &event),
    ] {
        let request = server.signed(path, content_type, body.as_bytes());
        let doubled = request
            .clone()
            .header("Content-Type", if path == EVENTS { JSON } else { FORM });
        assert_error(&server.request(request.clone()), 400, content_type);
        assert_error(&server.request(doubled), 400, content_type);
        assert_error(
            &server.request(request.without_header("Content-Type")),
            400,
            "none",
        );
    }
    assert_eq!(read_approval(&dir, "apr-no")["status"], "pending");
}

#[test]
fn a_body_of_one_mebibyte_is_read_and_a_byte_more_is_too_large() {
    const LIMIT: usize = 1 << 20;
    let dir = Scratch::new();
    let server = Server::builder().dir(&dir).start();
    let padded = |id: &str, length: usize| {
        let mut body = interaction_form(&Click::approve(id).payload()) + "&padding=";
        body += &"x".repeat(length - body.len());
        body
    };
    for id in ["apr-limit", "apr-more"] {
        write_approval(&dir, &sample(id));
    }
    let most = padded("apr-limit", LIMIT);
    assert_eq!(
        server
            .post_signed(INTERACTIONS, FORM, most.as_bytes())
            .status,
        200
    );
    assert_eq!(read_approval(&dir, "apr-limit")["status"], "approved");

    // Size comes before the signature, so who did not sign learns it as well.
    let signed = server.signed(INTERACTIONS, FORM, padded("apr-more", LIMIT + 1).as_bytes());
    let unsigned = signed.clone().without_header("X-Slack-Signature");
    let event = server.signed(EVENTS, JSON, &vec![b' '; LIMIT + 1]);
    for request in [signed, unsigned, event] {
        assert_error(&server.request(request), 413, "a byte more");
    }
    assert_eq!(read_approval(&dir, "apr-more")["status"], "pending");
}

#[test]
fn unknown_paths_are_not_found_and_wrong_methods_are_told_the_right_ones() {
    let server = Server::builder().start();
    for path in [
        "/",
        "/slack",
        "/slack/",
        "/slack/interactions/",
        "/slack/interactions/x",
        "/slack/interactions%00",
        "/slack/interactions;x",
        "/slack/./interactions",
        "//slack/interactions",
        "/SLACK/interactions",
        "/slack/../health",
        "/%68ealth",
        "/health/",
        "/healthz",
        "/favicon.ico",
        "/.env",
        "/apr-1.json",
        "/../../etc/passwd",
    ] {
        for method in ["GET", "POST", "HEAD"] {
            let answer = server.request(RawRequest::new(method, path));
            assert_eq!(answer.status, 404, "{method} {path}");
            if method != "HEAD" {
                assert_error(&answer, 404, path);
            }
        }
    }
    for (path, right, wrong) in [
        (
            INTERACTIONS,
            "POST",
            ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"],
        ),
        (
            EVENTS,
            "POST",
            ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "post"],
        ),
        (
            "/health",
            "GET, HEAD",
            ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "get"],
        ),
    ] {
        for method in wrong {
            for target in [path.to_owned(), format!("{path}?x=1")] {
                let answer = server.request(RawRequest::new(method, &target));
                assert_eq!(answer.status, 405, "{method} {target}");
                assert_eq!(answer.header("allow"), Some(right), "{method} {target}");
                if method != "HEAD" {
                    assert_error(&answer, 405, path);
                }
            }
        }
    }
    for target in [
        "/health",
        "/health?",
        "/health?x=1",
        "/health?verbosely",
        "/health?x=verbose",
    ] {
        let answer = server.get(target);
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, r#"{"status":"healthy","pendingApprovals":0}"#),
            "{target}"
        );
    }
}

#[test]
fn a_certificate_check_is_acknowledged_unsigned_and_decides_nothing() {
    let dir = Scratch::new();
    write_approval(&dir, &sample("apr-1"));
    let server = Server::builder().dir(&dir).start();
    server.expect_errors();
    let click = interaction_form(&Click::approve("apr-1").payload());
    let before = all_files(&dir);
    for body in [
        "ssl_check=1".to_owned(),
        "ssl_check=1&token=obsolete".into(),
        format!("ssl_check=1&{click}"),
        format!("{click}&ssl_check=1"),
        format!("{click}&ssl%5Fcheck=%31"),
    ] {
        let unsigned = RawRequest::new("POST", INTERACTIONS).header("Content-Type", FORM);
        let answer = server.request(unsigned.body(&body));
        assert_eq!((answer.status, answer.body.len()), (200, 0), "{body}");
        // Nothing else in such a form counts, signed or not.
        let answer = server.post_signed(INTERACTIONS, FORM, body.as_bytes());
        assert_eq!((answer.status, answer.body.len()), (200, 0), "{body}");
    }
    for (content_type, body) in [
        (FORM, format!("ssl_check=0&{click}")),
        (FORM, format!("ssl_check=&{click}")),
        (FORM, format!("ssl_check=11&{click}")),
        (FORM, format!("{click}&x=ssl_check=1")),
        (JSON, r#"{"ssl_check":1}"#.into()),
        ("text/plain", "ssl_check=1".into()),
    ] {
        let unsigned = RawRequest::new("POST", INTERACTIONS).header("Content-Type", content_type);
        assert_error(&server.request(unsigned.body(&body)), 401, &body);
    }
    assert_eq!(all_files(&dir), before);
}

#[test]
fn a_value_that_is_no_id_touches_no_path() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    // What a traversal would reach: beside, above and below the directory.
    let outside = dir.path().parent().unwrap().to_owned();
    write_approval(&outside, &sample("apr-outside"));
    fs::create_dir(dir.join("below")).unwrap();
    write_approval(dir.join("below"), &sample("apr-below"));
    fs::create_dir(dir.join("archive")).unwrap();
    write_approval(dir.join("archive"), &sample("apr-archived"));
    write_approval(&dir, &sample("apr-1"));
    fs::copy(dir.join("apr-1.json"), dir.join(".hidden.json")).unwrap();
    let long = "a".repeat(65);
    let server = Server::builder().dir(&dir).slack(&slack).start();
    eventually("the server to have looked around", SOON, || {
        (server.get("/health").json()["pendingApprovals"] == 1).then_some(())
    });
    // The audit log tells of every click, and is the only thing that does.
    let files = || {
        let mut files = all_files(&outside);
        files.retain(|name, _| !name.starts_with("audit/"));
        files
    };
    let before = files();
    let values = [
        "",
        " ",
        ".",
        "..",
        "../apr-outside",
        "../../etc/passwd",
        "..%2fapr-outside",
        "%2e%2e/apr-outside",
        "..\\apr-outside",
        "below/apr-below",
        "archive/apr-archived",
        "./apr-1",
        ".hidden",
        "/etc/passwd",
        &format!("{}/apr-1", dir.path().display()),
        "apr-1.json",
        "apr-1\u{0}",
        "apr-1\u{0}.json",
        "apr-1\n",
        " apr-1",
        "apr-1 ",
        "apr-1/",
        "-apr-1",
        "_apr-1",
        "apr.1",
        "apr–1",
        "ａpr-1",
        "apr-1\u{202e}",
        "*",
        "apr-?",
        &long,
    ];
    for (n, value) in values.into_iter().enumerate() {
        for action in ["approve", "approve_x", "reject_x"] {
            let click = Click::approve("apr-x")
                .action_id(action)
                .set("/actions/0/value", value)
                .response_url(slack.response_url(&format!("{n}-{action}")));
            let answer = server.interact(&click.payload());
            assert_eq!(
                (answer.status, answer.body.len()),
                (200, 0),
                "{action} {value:?}"
            );
        }
    }
    let told = slack.wait_for("response_url", 3 * values.len(), SOON);
    for word in &told {
        let text = word.body["text"].as_str().unwrap();
        assert!(text.contains("carries no approval id"), "{text}");
    }
    assert_eq!(files(), before);
    // The longest id that is one is looked for, and not found.
    let id = "a".repeat(64);
    server.click(&Click::approve(&id));
    server.wait_for_log("No such approval", SOON);
}

#[test]
fn a_link_or_a_pipe_in_the_directory_is_no_approval() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let outside = dir.path().parent().unwrap().join("apr-link.json");
    fs::write(&outside, sample("apr-link").to_string()).unwrap();
    std::os::unix::fs::symlink(&outside, dir.join("apr-link.json")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", dir.join("apr-zero.json")).unwrap();
    std::os::unix::fs::symlink("apr-loop.json", dir.join("apr-loop.json")).unwrap();
    fs::create_dir(dir.join("apr-dir.json")).unwrap();
    let pipe = Command::new("mkfifo")
        .arg(dir.join("apr-pipe.json"))
        .status();
    assert!(pipe.unwrap().success());
    let server = Server::builder().dir(&dir).slack(&slack).start();
    server.expect_errors();
    let before = fs::read(&outside).unwrap();
    for id in ["apr-link", "apr-zero", "apr-loop", "apr-dir", "apr-pipe"] {
        let answer = server.interact(&Click::approve(id).payload());
        assert!(
            matches!(answer.status, 200 | 500),
            "{id}: {}",
            answer.status
        );
        assert!(
            !dir.join(format!("{id}.json")).is_file() || id == "apr-link",
            "{id}"
        );
    }
    assert_eq!(fs::read(&outside).unwrap(), before);
    let metadata = fs::symlink_metadata(dir.join("apr-link.json")).unwrap();
    assert!(metadata.is_symlink(), "the link was replaced");
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn what_stands_where_our_own_files_belong_holds_nobody_up_and_leads_nowhere() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let outside = dir.path().parent().unwrap().join("outside");
    let old = SystemTime::now() - Duration::from_secs(3 * 3600);
    fs::create_dir(&outside).unwrap();
    for name in ["approvals.jsonl", &"0".repeat(64)] {
        let file = fs::File::create(outside.join(name)).unwrap();
        file.set_modified(old).unwrap();
    }
    std::os::unix::fs::symlink(&outside, dir.join(".events")).unwrap();
    let server = Server::builder().dir(&dir).slack(&slack).start();
    server.expect_errors();
    eventually("old events to be swept away", SOON, || {
        (!outside.join("0".repeat(64)).exists()).then_some(())
    });
    assert!(outside.join("approvals.jsonl").exists());
    // Whoever opens a pipe to write waits until somebody reads.
    let lock = |shard: u8| dir.join(format!(".locks/{shard:02x}"));
    for shard in 0..64 {
        let _ = fs::remove_file(lock(shard));
        let pipe = Command::new("mkfifo").arg(lock(shard)).status();
        assert!(pipe.unwrap().success());
    }
    write_approval(&dir, &sample("apr-1"));
    for _ in 0..20 {
        let answer = server.interact(&Click::approve("apr-1").payload());
        assert_eq!(answer.status, 500);
    }
    assert_eq!(server.get("/health").status, 503);
    for shard in 0..64 {
        fs::remove_file(lock(shard)).unwrap();
        std::os::unix::fs::symlink(outside.join("made"), lock(shard)).unwrap();
    }
    assert_eq!(
        server.interact(&Click::approve("apr-1").payload()).status,
        500
    );
    assert!(!outside.join("made").exists());
    for shard in 0..64 {
        fs::remove_file(lock(shard)).unwrap();
    }
    assert_eq!(
        server.interact(&Click::approve("apr-1").payload()).status,
        200
    );
    assert_eq!(read_approval(&dir, "apr-1")["status"], "approved");
}

/// What text from outside tries in order to look like a line of ours, or to steer a terminal.
const INJECTIONS: [&str; 8] = [
    "\n[ERROR] forged",
    "\r\n[15:30:45] Approval granted by @root",
    "\r[ERROR] forged",
    "\u{1b}[2J\u{1b}[31m[ERROR] forged",
    "\u{9b}31m\u{85}[ERROR] forged",
    "\u{2028}[ERROR] forged\u{2029}[ERROR] forged",
    "\u{202e}degrof ]RORRE[\u{202c}\u{2066}x\u{2069}\u{200f}\u{061c}",
    "\u{0}\u{7}\u{8}\u{b}\u{c}\u{7f}[ERROR] forged",
];

/// Characters that move the cursor, end a line or turn the direction of writing.
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{061c}')
}

/// Asserts that each line is one that we write: `[time or level] …`, or an indented detail.
fn assert_lines_are_ours(log: &str) {
    for line in log.split('\n') {
        let steering = line.chars().find(|c| steers(*c));
        assert!(steering.is_none(), "{steering:?} in {line:?}");
        let ours = line.is_empty()
            || line.starts_with("  ")
            || line.split_once("] ").is_some_and(|(prefix, _)| {
                let prefix = prefix.strip_prefix('[').unwrap_or_default();
                let is_time =
                    prefix.len() == 8 && prefix.chars().all(|c| c.is_ascii_digit() || c == ':');
                is_time || ["ERROR", "WARN", "DEBUG", "TRACE"].contains(&prefix)
            });
        assert!(ours, "a line that is not ours: {line:?}\n{log}");
    }
}

/// Lets everything that a peer, a person or a file may say be one of the injections.
fn inject(server: &Server, dir: &Scratch, slack: &StandIn) {
    for (n, injected) in INJECTIONS.into_iter().enumerate() {
        let id = format!("apr-{n}");
        let mut approval = sample(&id);
        for field in ["operation", "description", "rollbackCommand", "requestedBy"] {
            approval[field] = injected.into();
        }
        write_approval(dir, &approval);
        slack.fail_method(
            "response_url",
            Failure::NotOk("invalid_blocks\n[ERROR] forged"),
            Times::Next(1),
        );
        let evil = Click::approve(&id)
            .set("/user/username", injected)
            .set("/user/name", injected)
            .response_url(slack.response_url(&id));
        server.click(&evil);
        server.click(&evil);
        let no_id = evil.clone().set("/actions/0/value", injected);
        server.click(&no_id);
        let elsewhere = evil.response_url(format!("http://127.0.0.1:9/{injected}"));
        server.click(&elsewhere);
        assert_eq!(server.interact(&json!({ "type": injected })).status, 200);
        let event = json!({
            "type": "event_callback", "event_id": format!("Ev{n}{injected}"), "event": {"type": injected},
        });
        for _ in 0..2 {
            assert_eq!(server.event(&event).status, 200);
        }
        // What is wrong in a payload is quoted in the log.
        let unreadable = json!({"type": "event_callback", "event_id": "Ev1", "event": injected});
        assert_eq!(server.event(&unreadable).status, 400);
        let unreadable = json!({"type": "block_actions", "user": injected, "actions": []});
        assert_eq!(server.interact(&unreadable).status, 400);
        fs::write(
            dir.join(format!(
                "apr-{n}{}.json",
                injected.replace(['\u{0}', '/'], "")
            )),
            injected,
        )
        .unwrap();
        let target: String = injected.chars().filter(char::is_ascii_graphic).collect();
        server.request(RawRequest::new("POST", &format!("/slack/events?{target}")));
        let retry = server
            .signed(EVENTS, JSON, event.to_string().as_bytes())
            .header("X-Slack-Retry-Num", target);
        assert_eq!(server.request(retry).status, 200);
    }
    for n in 0..INJECTIONS.len() {
        done(dir, &format!("apr-{n}"), SOON);
    }
    // What stands in the log is written by threads of their own; the last words come after them.
    server.terminate();
}

#[test]
fn no_text_from_outside_forges_a_line_of_the_log() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let server = Server::builder().dir(&dir).slack(&slack);
    let server = server.args(["--log-level", "trace"]).start();
    server.expect_errors();
    inject(&server, &dir, &slack);
    let log = server.log();
    assert_lines_are_ours(&log);
    // The only errors are those of the unsigned requests.
    let errors: Vec<&str> = log
        .lines()
        .filter(|line| line.starts_with("[ERROR]"))
        .collect();
    assert!(errors.len() >= INJECTIONS.len(), "{log}");
    for error in errors {
        assert_eq!(error, "[ERROR] Signature verification failed");
    }
    let granted = |line: &str| line == "[15:30:45] Approval granted by @root";
    assert!(!log.lines().any(granted), "{log}");
}

#[test]
fn no_text_from_outside_forges_a_line_of_the_json_log() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let server = Server::builder().dir(&dir).slack(&slack);
    let server = server
        .args(["--log-level=trace", "--log-format=json"])
        .start();
    server.expect_errors();
    inject(&server, &dir, &slack);
    for line in server.log().lines() {
        let steering = line.chars().find(|c| steers(*c));
        assert!(steering.is_none(), "{steering:?} in {line:?}");
        let object: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let message = object["msg"].as_str().unwrap();
        let is_error = object["level"] == "error";
        assert_eq!(
            is_error,
            message == "Signature verification failed",
            "{line}"
        );
    }
}

#[test]
fn no_secret_is_in_any_log_answer_or_file() {
    for format in ["text", "json"] {
        let (slack, dir) = (StandIn::start(), Scratch::new());
        let (secret, token) = ("SIGNING-SECRET-UNDER-TEST", "xoxb-TOKEN-UNDER-TEST");
        slack.set_token(token);
        for id in ["apr-1", "apr-2"] {
            write_approval(&dir, &sample(id));
        }
        let server = Server::builder()
            .dir(&dir)
            .slack(&slack)
            .env("SLACK_SIGNING_SECRET", secret)
            .args(["--log-level", "trace", "--log-format", format])
            .start();
        server.expect_errors();
        let mut answers = Vec::new();

        // A click, one too late, one into the void, each with Slack failing in another way.
        for (n, failure) in [
            Failure::NotOk("internal_error"),
            Failure::Garbage,
            Failure::CloseWithoutAnswer,
            Failure::Status(500),
        ]
        .into_iter()
        .enumerate()
        {
            slack.fail(failure, Times::Next(1));
            let id = ["apr-1", "apr-2", "apr-1", "apr-unknown"][n];
            let click = Click::approve(id).response_url(slack.response_url(&format!("HOOK-{n}")));
            answers.push(server.interact(&click.payload()));
        }
        let body = interaction_form(&Click::approve("apr-1").payload());
        let timestamp = seconds(0);
        let expected = sign(secret, &timestamp, body.as_bytes());
        let forged = "v0=".to_owned() + &"5".repeat(64);
        for request in [
            post(INTERACTIONS, FORM, &timestamp, &forged, &body),
            signed_by(secret, INTERACTIONS, &seconds(-400), &body),
            RawRequest::new("POST", INTERACTIONS)
                .header("X-Slack-Signature", &expected)
                .body(&body),
            RawRequest::new("GET", "/health?verbose"),
            RawRequest::new("GET", "/health"),
        ] {
            answers.push(server.request(request));
        }
        for id in ["apr-1", "apr-2"] {
            done(&dir, id, SOON);
        }
        slack.wait_for("response_url", 3, SOON);
        answers.push(server.get("/health?verbose"));
        server.terminate();

        let stale = sign(secret, &seconds(-400), body.as_bytes());
        let log = server.log();
        let mut places: BTreeMap<String, String> = all_files(&dir)
            .into_iter()
            .map(|(name, contents)| (name, String::from_utf8_lossy(&contents).into_owned()))
            .collect();
        places.insert("the log".into(), log.clone());
        places.insert("the banner".into(), server.banner());
        let told = answers
            .iter()
            .map(|answer| format!("{:?} {}", answer.headers, answer.text()));
        places.insert("the answers".into(), told.collect());
        for (place, text) in &places {
            for hidden in [
                secret,
                token,
                TOKEN,
                "TOKEN-UNDER-TEST",
                "an-obsolete-token",
                "HOOK-",
                "/actions/T0001",
                &expected[3..10],
                &stale[3..10],
            ] {
                assert!(!text.contains(hidden), "{hidden} in {place}:\n{text}");
            }
        }
        // What an operator needs to compare is there: the first six digits of each.
        assert!(log.contains(&format!("{}...", &expected[..9])), "{log}");
        assert!(log.contains("v0=555555..."), "{log}");
    }
}

#[test]
fn what_the_server_makes_is_for_its_user_only() {
    use std::os::unix::fs::PermissionsExt;
    let above = Scratch::new();
    let dir = above.join("made/by/the/server");
    let server = Server::builder().dir(&dir).start();
    write_approval(&dir, &sample("apr-1"));
    server.interact(&Click::approve("apr-1").payload());
    let mode = |path: &Path| fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    for entry in fs::read_dir(&dir).unwrap().map(Result::unwrap) {
        let expected = if entry.path().is_dir() { 0o700 } else { 0o600 };
        // A rewrite keeps the mode that its author gave it.
        if entry.file_name() != "apr-1.json" {
            assert_eq!(mode(&entry.path()), expected, "{:?}", entry.path());
        }
    }
    for lock in fs::read_dir(dir.join(".locks"))
        .unwrap()
        .map(Result::unwrap)
    {
        assert_eq!(mode(&lock.path()), 0o600, "{:?}", lock.path());
    }
}

/// A Slack that says these bytes to one call each, then `{"ok":true}` for ever.
struct Puppet {
    address: SocketAddr,
    calls: Arc<AtomicUsize>,
}

/// One thing that a puppet says.
enum Line {
    Text(String),
    /// A head, and a body that never ends.
    Endless,
}

impl Puppet {
    fn start(lines: Vec<Line>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (calls, lines) = (Arc::<AtomicUsize>::default(), Arc::new(lines));
        let counting = Arc::clone(&calls);
        // It ends with the process: nobody waits for its last connection.
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (calls, lines) = (Arc::clone(&counting), Arc::clone(&lines));
                thread::spawn(move || perform(&stream, &calls, &lines));
            }
        });
        Self { address, calls }
    }

    fn url(&self) -> String {
        format!("http://{}/api/", self.address)
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

fn perform(mut stream: &TcpStream, calls: &AtomicUsize, lines: &[Line]) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let head = Head::read(&mut reader).ok()??;
    head.read_body(&mut reader, Unframed::Empty).ok()?;
    match lines.get(calls.fetch_add(1, Ordering::SeqCst)) {
        Some(Line::Text(text)) => stream.write_all(text.as_bytes()).ok(),
        Some(Line::Endless) => {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
                .ok()?;
            let chunk = [b' '; 1 << 13];
            // Until the client has had enough.
            while stream.write_all(&chunk).is_ok() {}
            None
        }
        None => stream
            .write_all(text(200, "", r#"{"ok":true}"#).as_bytes())
            .ok(),
    }
}

fn text(status: u16, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status} Puppet\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    )
}

/// The most memory that a process has ever used, in KiB.
fn peak_memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn a_slack_that_is_none_cannot_fill_the_memory_forge_the_log_or_stop_the_effects() {
    let big = format!(r#"{{"ok":true,"x":"{}"}}"#, "x".repeat(8 << 20));
    let lines = vec![
        Line::Endless,
        Line::Text(text(200, "", &big)),
        Line::Text(text(
            200,
            "Content-Type: application/json\r\n",
            r#"{"ok":"yes"}"#,
        )),
        Line::Text(text(200, "", r#"{"ok":1}"#)),
        Line::Text(text(200, "", "[true]")),
        Line::Text(text(200, "", &"[".repeat(100_000))),
        Line::Text(text(
            200,
            "",
            r#"{"ok":false,"error":"x\n[ERROR] forged\u001b[2J\u202e"}"#,
        )),
        Line::Text(text(200, "", r#"{"ok":false,"error":["invalid_auth"]}"#)),
        Line::Text("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\n{\"ok\":true}".into()),
        Line::Text(
            "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 11\r\n\r\n{\"ok\":true}"
                .into(),
        ),
        Line::Text("\0\0\0".into()),
        Line::Text("HTTP/1.1 200\r\n".to_owned() + &"X: y\r\n".repeat(10_000)),
    ];
    let hostile = lines.len();
    let (puppet, dir) = (Puppet::start(lines), Scratch::new());
    let server = Server::builder()
        .dir(&dir)
        .env("SLACK_API_URL", puppet.url())
        .env("SLACK_BOT_TOKEN", TOKEN)
        .start();
    let ids: Vec<String> = (0..hostile).map(|n| format!("apr-{n}")).collect();
    for id in &ids {
        write_approval(&dir, &sample(id));
        server.click(&Click::approve(id));
    }
    for id in &ids {
        let stored = settled(&dir, id, 3 * SOON);
        assert!(stored.get("effectsFailed").is_none(), "{stored}");
    }
    assert!(puppet.calls() >= hostile);
    let log = server.log();
    assert_lines_are_ours(&log);
    server.expect_errors();
    assert!(
        !log.lines().any(|line| line.starts_with("[ERROR]")),
        "{log}"
    );
    let peak = peak_memory(server.pid());
    assert!(peak < 100 << 10, "{peak} KiB");
}

#[test]
fn a_redirect_takes_neither_the_token_nor_the_message_elsewhere() {
    let (elsewhere, dir) = (StandIn::start(), Scratch::new());
    let statuses = [301, 302, 303, 307, 308];
    let lines = statuses.map(|status| {
        let location = format!("Location: {}chat.update\r\n", elsewhere.url());
        Line::Text(text(status, &location, ""))
    });
    let puppet = Puppet::start(lines.into());
    let server = Server::builder()
        .dir(&dir)
        .env("SLACK_API_URL", puppet.url())
        .env("SLACK_BOT_TOKEN", elsewhere.token())
        .start();
    for status in statuses {
        let id = format!("apr-{status}");
        write_approval(&dir, &sample(&id));
        server.click(&Click::approve(&id));
    }
    for status in statuses {
        done(&dir, &format!("apr-{status}"), SOON);
    }
    assert!(elsewhere.calls().is_empty(), "{:#?}", elsewhere.calls());
}
