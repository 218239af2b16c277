//! Agents that want to be called back: each learns the decision, signed, and the log says when.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::agent::{Agent, Away, Callback, Reply};
use crate::harness::{
    Builder, Click, Scratch, Server, done, dropped, eventually, now, read_approval, sample,
    write_approval,
};
use crate::stand_in::{Failure, StandIn, Times};

/// How long something may take that nothing holds up, and a takeover after a death.
const SOON: Duration = Duration::from_secs(5);

/// What the server signs callbacks with.
const SECRET: &str = "an agent's own secret";

fn server(dir: &Scratch) -> Builder {
    Server::builder()
        .dir(dir)
        .env("RUNBOOK_CALLBACK_SECRET", SECRET)
}

/// The sample, to be told of at this URL.
fn asked(id: &str, url: &str) -> Value {
    let mut approval = sample(id);
    approval["callbackUrl"] = url.into();
    approval
}

/// Asserts that it is a callback as documented, about the approval as it stands.
fn assert_tells(callback: &Callback, stored: &Value) {
    assert_eq!(
        callback.first_line,
        "POST /decided/s3cr3t-path?of=checkout HTTP/1.1"
    );
    let content_type = callback.header("content-type").unwrap();
    assert!(
        content_type.starts_with("application/json"),
        "{content_type}"
    );
    assert!(callback.header("authorization").is_none());
    let timestamp = callback.header("X-Runbook-Request-Timestamp").unwrap();
    let age = now().abs_diff(timestamp.parse().unwrap());
    assert!(age < 60, "{timestamp} is {age} s off");
    assert!(callback.is_signed_with(SECRET), "{callback:?}");
    let mut expected = stored.clone();
    let fields = expected.as_object_mut().unwrap();
    for later in ["agentNotifiedAt", "effectsOwed", "effectsFailed"] {
        fields.shift_remove(later);
    }
    assert_eq!(callback.json(), expected);
}

#[test]
fn an_approval_is_posted_to_its_agent_signed_and_then_the_operation_executes() {
    let (slack, dir, agent) = (StandIn::start(), Scratch::new(), Agent::start());
    // What is sent is what we know and what we do not, in the order of the file.
    let mut approval = asked("apr-1", &agent.url());
    approval["unknown"] = json!({"z": [1.50, "é<&>"], "a": null});
    approval["effectsFailed"] =
        json!([{"effect": "updateMessage", "error": "old", "at": "2024-01-15T15:30:00Z"}]);
    write_approval(&dir, &approval);
    let server = server(&dir).slack(&slack).start();
    let url = slack.response_url("private");
    server.click(&Click::approve("apr-1").response_url(&url));

    let callback = agent.wait_for(1, SOON).remove(0);
    let stored = done(&dir, "apr-1", SOON * 2);
    assert_tells(&callback, &stored);
    let body = callback.json();
    assert_eq!(body["status"], "approved");
    assert_eq!(body["decidedBy"]["id"], "U061F7AUR");
    assert!(!String::from_utf8_lossy(&callback.body).contains(&url));
    let order =
        |value: &Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
    let mut expected = order(&stored);
    expected.retain(|key| key != "agentNotifiedAt" && key != "effectsFailed");
    assert_eq!(order(&body), expected);
    assert!(stored["agentNotifiedAt"].is_string(), "{stored}");

    let log = server.wait_for_log("Agent notified, executing operation", SOON);
    let notified = log.split("Agent notified, executing operation\n").nth(1);
    assert!(
        notified.unwrap().starts_with("  Approval ID: apr-1\n"),
        "{log}"
    );
    assert!(server.terminate().success());
    for secret in [SECRET, "s3cr3t-path"] {
        assert!(!server.log().contains(secret), "{}", server.log());
    }
    assert_eq!(server.log().matches("Agent notified").count(), 1);
    assert_eq!(agent.callbacks().len(), 1);
}

#[test]
fn a_signature_is_of_this_secret_these_bytes_and_this_moment() {
    // As `printf 'v0:%s:%s' TIMESTAMP BODY | openssl dgst -sha256 -hmac 'an agent'"'"'s own secret'` has it.
    let witness = |callback: &Callback| {
        let script = "import hashlib,hmac,sys; s,t=sys.argv[1:]; b=sys.stdin.buffer.read(); \
            print('v0='+hmac.new(s.encode(),b'v0:'+t.encode()+b':'+b,hashlib.sha256).hexdigest())";
        let timestamp = callback.header("X-Runbook-Request-Timestamp").unwrap();
        let mut python = std::process::Command::new("python3")
            .args(["-c", script, SECRET, timestamp])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = python.stdin.take().unwrap();
        std::io::Write::write_all(&mut stdin, &callback.body).unwrap();
        drop(stdin);
        let said = python.wait_with_output().unwrap().stdout;
        String::from_utf8(said).unwrap().trim().to_owned()
    };
    let (dir, agent) = (Scratch::new(), Agent::start());
    write_approval(&dir, &asked("apr-1", &agent.url()));
    let server = server(&dir).start();
    server.expect_errors();
    server.click(&Click::deny("apr-1"));
    let callback = agent.wait_for(1, SOON).remove(0);
    if !crate::witness::is_excused() {
        assert_eq!(
            callback.header("X-Runbook-Signature"),
            Some(&*witness(&callback))
        );
    }
    assert!(callback.is_signed_with(SECRET));
    assert!(!callback.is_signed_with("another secret"));
    let mut forged = callback.clone();
    let last = forged.body.len() - 2;
    forged.body[last] ^= 1;
    assert!(!forged.is_signed_with(SECRET));
}

#[test]
fn the_agent_learns_of_a_denial_and_an_expiry_too_and_nothing_executes() {
    let (slack, dir, agent) = (StandIn::start(), Scratch::new(), Agent::start());
    let server = server(&dir).slack(&slack).start();
    write_approval(&dir, &asked("apr-no", &agent.url()));
    server.click(&Click::deny("apr-no"));
    let denied = done(&dir, "apr-no", SOON * 2);
    let mut late = asked("apr-late", &agent.url());
    late["expiresAt"] = "2020-01-01T00:00:00Z".into();
    write_approval(&dir, &late);
    let expired = done(&dir, "apr-late", SOON * 2);
    // Nobody has to have seen it.
    let mut unseen = dropped("apr-unseen", "C0DEPLOYS");
    unseen["callbackUrl"] = agent.url().into();
    unseen["expiresAt"] = "2020-01-01T00:00:00Z".into();
    write_approval(&dir, &unseen);
    let unseen = done(&dir, "apr-unseen", SOON * 2);
    let callbacks = agent.wait_for(3, SOON);
    for (callback, (stored, status)) in callbacks.iter().zip([
        (denied, "denied"),
        (expired, "expired"),
        (unseen, "expired"),
    ]) {
        assert_eq!(stored["status"], status);
        assert!(stored["agentNotifiedAt"].is_string(), "{stored}");
        assert_tells(callback, &stored);
    }
    eventually("the log to say so", SOON, || {
        (server.log().matches("Agent notified\n").count() == 3).then_some(())
    });
    assert!(!server.log().contains("executing"), "{}", server.log());
    assert!(slack.calls_of("chat.postMessage").is_empty());
}

#[test]
fn a_request_that_slack_refuses_to_show_is_cancelled_and_its_agent_told_why() {
    for error in ["not_in_channel", "invalid_auth", "channel_not_found"] {
        let (slack, dir, agent) = (StandIn::start(), Scratch::new(), Agent::start());
        let server = server(&dir).slack(&slack).start();
        server.expect_errors();
        slack.fail(Failure::NotOk(error), Times::Forever);
        let mut request = dropped("apr-1", "C0DEPLOYS");
        request["callbackUrl"] = agent.url().into();
        write_approval(&dir, &request);
        let callback = agent.wait_for(1, SOON).remove(0);
        let stored = done(&dir, "apr-1", SOON * 2);
        assert_eq!(stored["status"], "cancelled");
        assert_eq!(stored["reason"], format!("slack: {error}"));
        assert_eq!(stored["effectsFailed"][0]["effect"], "postMessage");
        assert_eq!(stored["effectsFailed"][0]["error"], error);
        assert_tells(&callback, &stored);
        server.wait_for_log("[ERROR] Slack refused to post the request", SOON);
        server.wait_for_log("Agent notified\n", SOON);
        let counted = "runbook_decisions_total{status=\"cancelled\"} 1\n";
        assert!(server.get("/metrics").text().contains(counted));
        // It is over for whoever finds the id elsewhere.
        let click = Click::approve("apr-1").response_url(slack.response_url("late"));
        slack.recover();
        server.click(&click);
        let word = &slack.wait_for("response_url", 1, SOON)[0].body["text"];
        assert!(
            word.as_str().unwrap().contains("already withdrawn"),
            "{word}"
        );
        assert!(server.terminate().success());
        assert_eq!(slack.calls_of("chat.postMessage").len(), 1);
        assert_eq!(agent.callbacks().len(), 1);
        assert!(!server.log().contains("executing"));
    }
}

#[test]
fn an_agent_that_is_unwell_is_told_again_until_it_says_that_it_has_heard() {
    let (slack, dir, agent) = (StandIn::start(), Scratch::new(), Agent::start());
    let server = server(&dir).slack(&slack).start();
    for (n, reply) in [
        Reply::Status(500),
        Reply::Status(503),
        Reply::Status(404),
        Reply::Status(401),
        Reply::Redirect(304, String::new()),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("apr-{n}");
        write_approval(&dir, &asked(&id, &agent.url()));
        agent.reply(reply);
        server.click(&Click::approve(&id));
        let callbacks = agent.wait_for(2 * (n + 1), SOON);
        let stored = done(&dir, &id, SOON * 2);
        for callback in &callbacks[2 * n..] {
            assert_tells(callback, &stored);
        }
        assert!(stored["agentNotifiedAt"].is_string() && stored.get("effectsFailed").is_none());
        server.wait_for_log("[WARN] Agent not notified, trying again", SOON);
    }
    for status in [201, 202, 204] {
        let id = format!("apr-{status}");
        write_approval(&dir, &asked(&id, &agent.url()));
        agent.reply(Reply::Status(status));
        server.click(&Click::approve(&id));
        assert!(done(&dir, &id, SOON * 2)["agentNotifiedAt"].is_string());
    }
    assert_eq!(agent.callbacks().len(), 13);
}

#[test]
fn an_agent_that_is_away_is_told_when_it_comes_back() {
    let (slack, dir, away) = (StandIn::start(), Scratch::new(), Away::new());
    write_approval(&dir, &asked("apr-1", &away.url()));
    let server = server(&dir).slack(&slack).start();
    server.click(&Click::approve("apr-1"));
    let log = server.wait_for_log("Agent not notified, trying again", SOON);
    assert!(!log.contains("Agent notified"), "{log}");
    assert!(
        read_approval(&dir, "apr-1")
            .get("agentNotifiedAt")
            .is_none()
    );
    let agent = away.come_back();
    let callback = agent.wait_for(1, SOON).remove(0);
    assert_tells(&callback, &done(&dir, "apr-1", SOON * 2));
    server.wait_for_log("Agent notified, executing operation", SOON);
}

#[test]
fn what_a_dead_server_owed_an_agent_another_one_tells_it() {
    let (slack, dir, agent) = (StandIn::start(), Scratch::new(), Agent::start());
    write_approval(&dir, &asked("apr-1", &agent.url()));
    let dying = server(&dir).slack(&slack).start();
    let other = server(&dir).slack(&slack).start();
    agent.reply(Reply::Hang);
    dying.click(&Click::approve("apr-1"));
    agent.wait_for(1, SOON);
    dying.kill();
    let callbacks = agent.wait_for(2, SOON);
    let stored = done(&dir, "apr-1", SOON * 2);
    assert_tells(&callbacks[1], &stored);
    other.wait_for_log("Agent notified, executing operation", SOON);
    assert!(other.terminate().success());
    assert_eq!(agent.callbacks().len(), 2);
}

#[test]
fn in_normal_running_one_of_several_servers_tells_the_agent_once() {
    let (slack, dir, agent) = (StandIn::start(), Scratch::new(), Agent::start());
    let servers = [0, 1, 2].map(|_| server(&dir).slack(&slack).start());
    for n in 0..12 {
        let id = format!("apr-{n}");
        write_approval(&dir, &asked(&id, &agent.url()));
        servers[n % 3].click(&Click::approve(&id));
    }
    for n in 0..12 {
        done(&dir, &format!("apr-{n}"), SOON * 2);
    }
    for server in &servers {
        assert!(server.terminate().success());
    }
    let mut told: Vec<String> = agent
        .callbacks()
        .iter()
        .map(|callback| callback.json()["id"].as_str().unwrap().to_owned())
        .collect();
    told.sort();
    told.dedup();
    assert_eq!((told.len(), agent.callbacks().len()), (12, 12));
}

#[test]
fn without_a_secret_nothing_is_sent_and_a_server_that_has_one_does_it() {
    let (slack, dir, agent) = (StandIn::start(), Scratch::new(), Agent::start());
    write_approval(&dir, &asked("apr-1", &agent.url()));
    let poor = Server::builder().dir(&dir).slack(&slack).start();
    poor.click(&Click::approve("apr-1"));
    let log = poor.wait_for_log("[WARN] Agent not notified, trying again", SOON);
    assert!(!log.contains("Agent notified"), "{log}");
    poor.wait_for_log("RUNBOOK_CALLBACK_SECRET is not set", SOON);
    // It is tried again, and nothing goes out unsigned.
    eventually("another attempt", SOON, || {
        (poor.log().matches("Agent not notified").count() > 1).then_some(())
    });
    assert_eq!(poor.terminate().code(), Some(0));
    assert!(agent.callbacks().is_empty());
    let stored = read_approval(&dir, "apr-1");
    assert_eq!(
        stored["effectsOwed"][0]["effect"], "notifyAgent",
        "{stored}"
    );
    assert!(stored.get("agentNotifiedAt").is_none(), "{stored}");

    let _rich = server(&dir).slack(&slack).start();
    let callback = agent.wait_for(1, SOON).remove(0);
    assert_tells(&callback, &done(&dir, "apr-1", SOON * 2));
}

#[test]
fn the_secret_may_stand_in_a_file_and_change_with_a_reload() {
    let (slack, dir, agent) = (StandIn::start(), Scratch::new(), Agent::start());
    write_approval(&dir, &asked("apr-1", &agent.url()));
    let server = Server::builder()
        .dir(&dir)
        .slack(&slack)
        .env("RUNBOOK_CALLBACK_SECRET_FILE", "secret")
        .file("secret", "the old one\n")
        .start();
    server.click(&Click::approve("apr-1"));
    assert!(agent.wait_for(1, SOON)[0].is_signed_with("the old one"));
    done(&dir, "apr-1", SOON * 2);
    fs::write(server.working_dir().join("secret"), SECRET).unwrap();
    server.signal(Signal::HUP);
    server.wait_for_log("Configuration reloaded", SOON);
    write_approval(&dir, &asked("apr-2", &agent.url()));
    server.click(&Click::approve("apr-2"));
    assert!(agent.wait_for(2, SOON)[1].is_signed_with(SECRET));
    done(&dir, "apr-2", SOON * 2);
}

#[test]
fn what_is_no_web_address_is_given_up_and_written_down() {
    let (slack, dir, agent) = (StandIn::start(), Scratch::new(), Agent::start());
    let server = server(&dir).slack(&slack).start();
    server.expect_errors();
    let with_user = agent.url().replace("//", "//user:word@");
    let bare_user = agent.url().replace("//", "//user@");
    let mut tried = 0;
    for url in [
        "ftp://127.0.0.1/decided",
        &with_user,
        &bare_user,
        "file:///etc/passwd",
        "javascript:alert(1)",
        "/decided",
        "127.0.0.1:80",
        "http://",
        "not a url",
    ] {
        tried += 1;
        let id = format!("apr-{tried}");
        write_approval(&dir, &asked(&id, url));
        server.click(&Click::approve(&id));
        let stored = done(&dir, &id, SOON * 2);
        let [failed] = &stored["effectsFailed"].as_array().unwrap()[..] else {
            panic!("{url}: {stored}")
        };
        assert_eq!(failed["effect"], "notifyAgent", "{url}");
        let why = failed["error"].as_str().unwrap();
        assert!(why.starts_with("callbackUrl is no "), "{url}: {why}");
        assert!(stored.get("agentNotifiedAt").is_none(), "{url}");
        assert_eq!(stored["status"], "approved");
    }
    assert!(server.terminate().success());
    let log = server.log();
    assert_eq!(log.matches("The agent cannot be notified").count(), tried);
    assert!(
        !log.contains("Agent notified") && !log.contains("word@"),
        "{log}"
    );
    assert!(agent.callbacks().is_empty());
}

#[test]
fn a_redirect_is_not_followed() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let (agent, elsewhere) = (Agent::start(), Agent::start());
    let server = server(&dir).slack(&slack).start();
    for (n, status) in [301, 302, 303, 307, 308].into_iter().enumerate() {
        let id = format!("apr-{n}");
        write_approval(&dir, &asked(&id, &agent.url()));
        agent.reply(Reply::Redirect(status, elsewhere.url()));
        server.click(&Click::approve(&id));
        agent.wait_for(2 * (n + 1), SOON);
        assert!(done(&dir, &id, SOON * 2)["agentNotifiedAt"].is_string());
    }
    assert!(elsewhere.callbacks().is_empty());
}

#[test]
fn an_agent_that_never_answers_holds_up_no_click_and_no_message() {
    let (slack, dir, agent) = (StandIn::start(), Scratch::new(), Agent::start());
    let server = server(&dir).slack(&slack).start();
    for n in 0..3 {
        agent.reply(Reply::Hang);
        let id = format!("apr-{n}");
        write_approval(&dir, &asked(&id, &agent.url()));
        server.click(&Click::approve(&id));
        slack.wait_for("chat.update", n + 1, SOON);
    }
    write_approval(&dir, &sample("apr-3"));
    server.click(&Click::approve("apr-3"));
    slack.wait_for("chat.update", 4, SOON);
    done(&dir, "apr-3", SOON * 2);
}

#[test]
fn nobody_is_told_who_does_not_ask_for_it() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let server = server(&dir).slack(&slack).start();
    for (n, url) in [Value::Null, json!(""), json!(["http://127.0.0.1:1/"])]
        .into_iter()
        .enumerate()
    {
        let id = format!("apr-{n}");
        let mut approval = sample(&id);
        approval["callbackUrl"] = url;
        write_approval(&dir, &approval);
        server.click(&Click::approve(&id));
        let stored = done(&dir, &id, SOON * 2);
        assert!(stored.get("agentNotifiedAt").is_none() && stored.get("effectsFailed").is_none());
    }
    assert!(server.terminate().success());
    assert!(!server.log().contains("Agent not"), "{}", server.log());
}

#[test]
fn an_agent_that_hangs_holds_up_neither_slack_nor_another_agent() {
    const MANY: usize = 20;
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let (hanging, well) = (Agent::start(), Agent::start());
    let server = server(&dir).slack(&slack).start();
    for n in 0..MANY {
        hanging.reply(Reply::Hang);
        write_approval(&dir, &asked(&format!("apr-{n}"), &hanging.url()));
        server.click(&Click::approve(&format!("apr-{n}")));
    }
    hanging.wait_for(2, SOON);
    write_approval(&dir, &asked("apr-well", &well.url()));
    let clicked = Instant::now();
    server.click(&Click::approve("apr-well"));
    well.wait_for(1, SOON);
    slack.wait_for("chat.update", MANY + 1, SOON);
    let waited = clicked.elapsed();
    assert!(waited < Duration::from_secs(2), "{waited:?}");
    server.kill();
}
