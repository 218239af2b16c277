//! A running server's life: signals, reloading, and the health that others watch.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use crate::harness::{
    Answer, Click, RawRequest, Scratch, Server, eventually, interaction_form, now, owes,
    read_approval, remove_folder, sample, sign, write_approval,
};
use crate::stand_in::StandIn;

/// How long an effect may take that nothing holds up.
const SOON: Duration = Duration::from_secs(5);

/// Clicks Approve, signed with any secret.
fn click_signed_by(server: &Server, secret: &str, id: &str) -> Answer {
    let (timestamp, body) = (
        now().to_string(),
        interaction_form(&Click::approve(id).payload()),
    );
    let signature = sign(secret, &timestamp, body.as_bytes());
    let request = RawRequest::new("POST", "/slack/interactions")
        .header("Content-Type", "application/x-www-form-urlencoded")
        .header("X-Slack-Request-Timestamp", &timestamp)
        .header("X-Slack-Signature", &signature);
    server.request(request.body(&body))
}

/// Sends HUP and waits until the log says this once more.
fn reload(server: &Server, said: &str) {
    let before = server.log().matches(said).count();
    server.signal(Signal::HUP);
    eventually(&format!("the log says {said:?}"), SOON, || {
        (server.log().matches(said).count() > before).then_some(())
    });
}

const RELOADED: &str = "] Configuration reloaded";
const NOT_RELOADED: &str = "[ERROR] Configuration not reloaded, the old one stays";

#[test]
fn hup_takes_in_a_new_signing_secret_and_lets_the_old_one_go() {
    let dir = Scratch::new();
    for n in 0..4 {
        write_approval(&dir, &sample(&format!("apr-{n}")));
    }
    let secrets = Scratch::new();
    let file = secrets.join("signing-secret");
    fs::write(&file, "the-old-secret\n").unwrap();
    let server = Server::builder()
        .dir(&dir)
        .without_env("SLACK_SIGNING_SECRET")
        .env("SLACK_SIGNING_SECRET_FILE", &file)
        .start();
    server.expect_errors();
    assert_eq!(
        click_signed_by(&server, "the-old-secret", "apr-0").status,
        200
    );
    fs::write(&file, "the-new-secret\n").unwrap();
    // Without a signal nothing changes.
    assert_eq!(
        click_signed_by(&server, "the-new-secret", "apr-1").status,
        401
    );
    reload(&server, RELOADED);
    assert_eq!(
        click_signed_by(&server, "the-old-secret", "apr-1").status,
        401
    );
    assert_eq!(
        click_signed_by(&server, "the-new-secret", "apr-1").status,
        200
    );
    // Rotation: for a while there are both.
    fs::write(&file, "the-newest-secret\nthe-new-secret\n").unwrap();
    reload(&server, RELOADED);
    assert_eq!(
        click_signed_by(&server, "the-new-secret", "apr-2").status,
        200
    );
    assert_eq!(
        click_signed_by(&server, "the-newest-secret", "apr-3").status,
        200
    );
    assert!(!server.log().contains("-secret\n"), "{}", server.log());
}

#[test]
fn hup_takes_in_a_new_bot_token_for_what_is_owed_and_what_comes() {
    let (slack, dir, secrets) = (StandIn::start(), Scratch::new(), Scratch::new());
    let file = secrets.join("token");
    fs::write(&file, "xoxb-old").unwrap();
    slack.set_token("xoxb-old");
    for id in ["apr-1", "apr-2"] {
        write_approval(&dir, &sample(id));
    }
    let server = Server::builder()
        .dir(&dir)
        .slack(&slack)
        .without_token()
        .env("SLACK_BOT_TOKEN_FILE", &file)
        .start();
    server.interact(&Click::approve("apr-1").payload());
    slack.wait_for("chat.update", 1, SOON);
    slack.set_token("xoxb-new");
    fs::write(&file, "xoxb-new\n").unwrap();
    reload(&server, RELOADED);
    server.interact(&Click::approve("apr-2").payload());
    let calls = slack.wait_for("chat.update", 2, SOON);
    assert_eq!(calls[1].header("authorization"), Some("Bearer xoxb-new"));
    assert!(calls.iter().all(|call| call.error.is_none()), "{calls:#?}");
}

#[test]
fn hup_takes_in_a_new_policy() {
    let dir = Scratch::new();
    for id in ["apr-1", "apr-2"] {
        write_approval(&dir, &sample(id));
    }
    let policy =
        |user: &str| format!("safety:\n  approvers:\n    default:\n      users: [{user}]\n");
    let server = Server::builder()
        .dir(&dir)
        .config(&policy("U0BOB0001"))
        .start();
    server.interact(&Click::approve("apr-1").payload());
    assert_eq!(read_approval(&dir, "apr-1")["status"], "pending");
    fs::write(server.config_file(), policy("U061F7AUR")).unwrap();
    reload(&server, RELOADED);
    server.interact(&Click::approve("apr-1").payload());
    assert_eq!(read_approval(&dir, "apr-1")["status"], "approved");
}

#[test]
fn what_is_broken_at_a_reload_leaves_the_old_in_force_and_is_told() {
    let (slack, dir, secrets) = (StandIn::start(), Scratch::new(), Scratch::new());
    let (secret, token) = (secrets.join("secret"), secrets.join("token"));
    fs::write(&secret, "the-secret").unwrap();
    fs::write(&token, slack.token()).unwrap();
    let good = "safety:\n  approvers:\n    default:\n      users: [U061F7AUR]\n";
    let server = Server::builder()
        .dir(&dir)
        .slack(&slack)
        .without_token()
        .without_env("SLACK_SIGNING_SECRET")
        .env("SLACK_SIGNING_SECRET_FILE", &secret)
        .env("SLACK_BOT_TOKEN_FILE", &token)
        .config(good)
        .start();
    server.expect_errors();
    let config = server.config_file();
    let open: &[(&Path, Option<&str>, &str)] = &[
        (&secret, Some(""), "cannot read SLACK_SIGNING_SECRET_FILE"),
        (&secret, None, "cannot read SLACK_SIGNING_SECRET_FILE"),
        (
            &token,
            Some("a token"),
            "the bot token has characters that no token has",
        ),
        (&token, None, "cannot read SLACK_BOT_TOKEN_FILE"),
        (&config, Some("safety: [\n"), ".runbook/config.yaml: line "),
        (
            &config,
            Some("safety:\n  aprovers: {}\n"),
            "unknown key safety.aprovers (did you mean approvers?)",
        ),
        (
            &config,
            Some("webhook:\n  publicUrl: ${NONE}\n"),
            "the environment variable NONE is not set",
        ),
    ];
    for (n, (file, broken, reason)) in open.iter().enumerate() {
        let before = fs::read(file).unwrap();
        match broken {
            Some(text) => fs::write(file, text).unwrap(),
            None => fs::remove_file(file).unwrap(),
        }
        reload(&server, NOT_RELOADED);
        server.wait_for_log(reason, SOON);
        fs::write(file, before).unwrap();

        let id = format!("apr-{n}");
        write_approval(&dir, &sample(&id));
        let outsider = Click::approve(&id).by("U0BOB0001", "bob");
        let body = interaction_form(&outsider.payload());
        let (timestamp, path) = (now().to_string(), "/slack/interactions");
        let request = RawRequest::new("POST", path)
            .header("Content-Type", "application/x-www-form-urlencoded")
            .header("X-Slack-Request-Timestamp", &timestamp)
            .header(
                "X-Slack-Signature",
                sign("the-secret", &timestamp, body.as_bytes()),
            );
        assert_eq!(server.request(request.body(&body)).status, 200, "{reason}");
        assert_eq!(read_approval(&dir, &id)["status"], "pending", "{reason}");
        assert_eq!(
            click_signed_by(&server, "the-secret", &id).status,
            200,
            "{reason}"
        );
        assert_eq!(read_approval(&dir, &id)["status"], "approved", "{reason}");
        slack.wait_for("chat.update", n + 1, SOON);
    }
    assert!(
        slack.calls().iter().all(|call| call.error.is_none()),
        "{:#?}",
        slack.calls()
    );
    reload(&server, RELOADED);
}

#[test]
fn a_storm_of_hups_loses_no_click() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let server = Server::builder().dir(&dir).slack(&slack).start();
    for n in 0..50 {
        let id = format!("apr-{n}");
        write_approval(&dir, &sample(&id));
        server.signal(Signal::HUP);
        server.click(&Click::approve(&id));
    }
    slack.wait_for("chat.update", 50, SOON);
    assert_eq!(server.terminate().code(), Some(0));
    assert_eq!(slack.calls_of("chat.update").len(), 50);
}

#[test]
fn term_and_int_end_the_server_in_good_order() {
    for signal in [Signal::TERM, Signal::INT] {
        let (slack, dir) = (StandIn::start(), Scratch::new());
        write_approval(&dir, &sample("apr-1"));
        let server = Server::builder().dir(&dir).slack(&slack).start();
        server.click(&Click::approve("apr-1"));
        server.signal(signal);
        server.signal(signal);
        assert_eq!(server.wait(SOON).code(), Some(0), "{signal:?}");
        assert!(server.log().contains("] Shutting down"), "{}", server.log());
        assert!(server.connect().is_err(), "the port is still taken");
        // What was due has been done on the way out.
        assert_eq!(slack.calls_of("chat.update").len(), 1, "{signal:?}");
        assert!(!owes(&read_approval(&dir, "apr-1")));
    }
}

#[test]
fn health_sees_a_directory_that_goes_and_one_that_comes_back() {
    let parent = Scratch::new();
    let (dir, aside) = (parent.join("pending"), parent.join("aside"));
    fs::create_dir(&dir).unwrap();
    write_approval(&dir, &sample("apr-1"));
    let server = Server::builder().dir(&dir).start();
    server.expect_errors();
    let healthy = r#"{"status":"healthy","pendingApprovals":1}"#;
    assert_eq!(server.get("/health").text(), healthy);

    fs::rename(&dir, &aside).unwrap();
    let sick = eventually("the server to be unhealthy", SOON, || {
        let answer = server.get("/health");
        (answer.status == 503).then_some(answer)
    });
    let body = sick.json();
    assert_eq!(body["status"], "unhealthy");
    assert!(!body["reasons"].as_array().unwrap().is_empty(), "{body}");
    let head = server.request(RawRequest::new("HEAD", "/health"));
    assert_eq!((head.status, head.body.len()), (503, 0));
    // An approval that cannot be looked for is trouble of ours, not an answer.
    let click = server.interact(&Click::approve("apr-1").payload());
    assert_eq!(click.status, 500);

    assert!(!dir.exists(), "the server has made another directory");
    fs::rename(&aside, &dir).unwrap();
    eventually("the server to be healthy again", SOON, || {
        (server.get("/health").text() == healthy).then_some(())
    });
    server.click(&Click::approve("apr-1"));
    assert_eq!(read_approval(&dir, "apr-1")["status"], "approved");
    write_approval(&dir, &sample("apr-2"));
    eventually("new approvals are seen again", SOON, || {
        (server.get("/health").json()["pendingApprovals"] == 1).then_some(())
    });
}

#[test]
fn a_directory_that_is_made_anew_is_served_again() {
    let parent = Scratch::new();
    let dir = parent.join("pending");
    let (slack, other_slack) = (StandIn::start(), StandIn::start());
    let server = Server::builder().dir(&dir).slack(&slack).start();
    server.expect_errors();
    remove_folder(&dir);
    eventually("the server to be unhealthy", SOON, || {
        (server.get("/health").status == 503).then_some(())
    });
    fs::create_dir(&dir).unwrap();
    eventually("the server to be healthy again", SOON, || {
        (server.get("/health").status == 200).then_some(())
    });
    // A server that comes now takes the first one for alive, and leaves its effects to it.
    let _other = Server::builder().dir(&dir).slack(&other_slack).start();
    slack.fail(
        crate::stand_in::Failure::Status(503),
        crate::stand_in::Times::Next(2),
    );
    write_approval(&dir, &sample("apr-1"));
    server.click(&Click::approve("apr-1"));
    slack.wait_for("chat.update", 3, SOON);
    assert!(other_slack.calls().is_empty(), "{:#?}", other_slack.calls());
    // A click on a message of the RunbookAI agent's may come before its file.
    let early = Click::approve("mut-1").action_id("approve_mut-1");
    server.click(&early);
}

#[test]
fn health_stays_well_beside_files_that_are_none() {
    let dir = Scratch::new();
    for name in [
        "not-json",
        "half-written",
        "empty",
        "duplicate-key",
        "other-id",
    ] {
        let text = crate::harness::fixture_text(&format!("approvals/{name}.json"));
        fs::write(dir.join(format!("{name}.json")), text).unwrap();
    }
    write_approval(&dir, &sample("apr-1"));
    let server = Server::builder().dir(&dir).start();
    let verbose = server.get("/health?verbose").json();
    assert_eq!(verbose["status"], "healthy");
    assert_eq!(verbose["pendingApprovals"], 1);
    assert_eq!(verbose["unreadableFiles"], 5);
    server.terminate();
    let told = server
        .log()
        .matches("Unreadable approval file, left as it is")
        .count();
    assert_eq!(told, 5, "each is told once: {}", server.log());
}
