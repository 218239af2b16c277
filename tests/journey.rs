//! One click's whole way, on the real binary: signed request in, decision on disk, answer, message.

use std::fs;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::agent::Agent;
use crate::harness::{
    Click, RawRequest, Scratch, Server, dropped, eventually, fixture, fixture_text, read_approval,
    sample, settled, write_approval,
};
use crate::stand_in::{Failure, StandIn, Times};

/// How long an effect may take that nothing holds up.
const SOON: Duration = Duration::from_secs(5);

fn text_of(call: &Value) -> String {
    call["blocks"].to_string()
}

#[test]
fn a_click_on_approve_is_on_disk_before_the_answer_and_in_slack_after_it() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    fs::create_dir_all(dir.path()).unwrap();
    fs::write(
        dir.join("apr-abc123.json"),
        fixture_text("approvals/apr-abc123.json"),
    )
    .unwrap();
    let server = Server::builder().dir(&dir).slack(&slack).start();

    let answer = server.interact(&fixture("slack/block_actions_approve.json"));
    let stored = read_approval(&dir, "apr-abc123");
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    assert_eq!(stored["status"], "approved");
    assert_eq!(stored["decidedBy"]["id"], "U061F7AUR");
    assert_eq!(stored["decidedBy"]["username"], "alice");
    assert_eq!(stored["decisions"][0]["decision"], "approve");
    assert_eq!(stored["args"]["desiredCount"], 8);

    let update = &slack.wait_for("chat.update", 1, SOON)[0];
    assert_eq!(update.body["channel"], "C1234567890");
    assert_eq!(update.body["ts"], "1705333800.000100");
    assert_eq!(update.body["attachments"], json!([]));
    let at = stored["decidedAt"].as_str().unwrap();
    let time = format!("Time: {} {} UTC", &at[..10], &at[11..19]);
    for said in [
        "✅ Approval Granted",
        "Approved by: <@U061F7AUR>",
        &time,
        "Operation is now executing...",
    ] {
        assert!(
            text_of(&update.body).contains(said),
            "{said} in {}",
            update.body
        );
        assert!(
            update.body["text"].as_str().unwrap().contains(said),
            "{said} in {}",
            update.body
        );
    }
    assert!(
        !text_of(&update.body).contains("\"actions\""),
        "{}",
        update.body
    );
    settled(&dir, "apr-abc123", SOON);

    let log = server.wait_for_log("Notifying agent...", SOON);
    let lines: Vec<&str> = log.lines().collect();
    let start = lines
        .iter()
        .position(|line| line.ends_with("] Received interaction from @alice"))
        .unwrap();
    assert_eq!(lines[start + 1], "  Action: approve");
    assert_eq!(lines[start + 2], "  Approval ID: apr-abc123");
    assert_eq!(lines[start + 3], "  Operation: scale_ecs_service");
    assert!(
        lines[start + 4].ends_with("] Approval granted by @alice"),
        "{log}"
    );
    assert_eq!(lines[start + 5], "  Approval ID: apr-abc123");
    assert_eq!(lines[start + 6], "  Notifying agent...");
    assert!(server.terminate().success());
}

#[test]
fn a_click_on_deny_denies() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    write_approval(&dir, &sample("apr-abc123"));
    let server = Server::builder().dir(&dir).slack(&slack).start();
    assert_eq!(
        server
            .interact(&fixture("slack/block_actions_deny.json"))
            .status,
        200
    );
    assert_eq!(read_approval(&dir, "apr-abc123")["status"], "denied");
    let update = &slack.wait_for("chat.update", 1, SOON)[0];
    assert!(text_of(&update.body).contains("❌ Approval Denied"));
    assert!(!text_of(&update.body).contains("executing"));
    server.wait_for_log("Approval denied by @bob", SOON);
}

#[test]
fn a_second_click_on_a_decided_approval_changes_nothing_and_is_told_who_decided() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    write_approval(&dir, &sample("apr-1"));
    let server = Server::builder().dir(&dir).slack(&slack).start();
    server.interact(&Click::approve("apr-1").by("U061F7AUR", "alice").payload());
    settled(&dir, "apr-1", SOON);
    let before = fs::read(dir.join("apr-1.json")).unwrap();

    let late = Click::deny("apr-1")
        .by("U0BOB0001", "bob")
        .response_url(slack.response_url("bob"));
    server.click(&late);
    let word = &slack.wait_for("response_url", 1, SOON)[0];
    assert_eq!(word.body["replace_original"], false);
    assert_eq!(word.body["response_type"], "ephemeral");
    let text = word.body["text"].as_str().unwrap();
    assert!(
        text.contains("already approved by <@U061F7AUR> on 20"),
        "{text}"
    );
    assert_eq!(fs::read(dir.join("apr-1.json")).unwrap(), before);
    assert_eq!(slack.calls_of("chat.update").len(), 1);
}

#[test]
fn ten_clicks_at_once_on_two_servers_make_one_decision() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let servers = [0, 1].map(|_| Server::builder().dir(&dir).slack(&slack).start());
    for round in 0..5 {
        let id = format!("apr-race{round}");
        write_approval(&dir, &sample(&id));
        let start = Barrier::new(10);
        thread::scope(|scope| {
            for n in 0..10 {
                let (id, servers, start, slack) = (&id, &servers, &start, &slack);
                scope.spawn(move || {
                    let click = if n % 2 == 0 {
                        Click::approve(id)
                    } else {
                        Click::deny(id)
                    };
                    let click = click.by(&format!("U00{n}"), &format!("user{n}"));
                    let payload = click
                        .response_url(slack.response_url(&format!("{id}-{n}")))
                        .payload();
                    start.wait();
                    assert_eq!(servers[n % 2].interact(&payload).status, 200);
                });
            }
        });
        let stored = read_approval(&dir, &id);
        assert_eq!(stored["decisions"].as_array().unwrap().len(), 1, "{stored}");
        assert_eq!(stored["decisions"][0]["by"], stored["decidedBy"]);
    }
    // Nine of each ten were told that somebody else was faster, and each message changed once.
    slack.wait_for("response_url", 45, SOON);
    slack.wait_for("chat.update", 5, SOON);
    for round in 0..5 {
        settled(&dir, &format!("apr-race{round}"), SOON);
    }
    assert_eq!(
        (
            slack.calls_of("response_url").len(),
            slack.calls_of("chat.update").len()
        ),
        (45, 5)
    );
}

#[test]
fn an_answer_never_waits_for_slack() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let server = Server::builder().dir(&dir).slack(&slack).start();
    slack.fail(Failure::Hang, Times::Forever);
    for n in 0..20 {
        let id = format!("apr-{n}");
        write_approval(&dir, &sample(&id));
        let click = Click::approve(&id).response_url(slack.response_url(&id));
        server.click(&click);
        server.click(&click);
        assert_eq!(read_approval(&dir, &id)["status"], "approved");
    }
    // Less than one call's time limit went by, although far more calls hang than there are threads.
    assert!(slack.calls().len() < 20, "calls did not hang");
}

#[test]
fn without_a_token_the_message_changes_through_response_url() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    write_approval(&dir, &sample("apr-1"));
    let server = Server::builder()
        .dir(&dir)
        .slack(&slack)
        .without_token()
        .start();
    let click = Click::approve("apr-1").response_url(slack.response_url("one"));
    server.click(&click);
    let call = &slack.wait_for("response_url", 1, SOON)[0];
    assert_eq!(call.body["replace_original"], true);
    assert!(text_of(&call.body).contains("✅ Approval Granted"));
    assert!(call.header("authorization").is_none());
    assert!(slack.calls_of("chat.update").is_empty());
}

#[test]
fn a_word_that_its_response_url_does_not_take_goes_to_the_clicker_in_the_channel() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let server = Server::builder().dir(&dir).slack(&slack).start();
    slack.fail_method("response_url", Failure::Status(404), Times::Forever);
    let click = Click::approve("apr-none").response_url(slack.response_url("old"));
    server.interact(&click.message("C0CLICKED1", "1.000001").payload());
    let word = &slack.wait_for("chat.postEphemeral", 1, SOON)[0];
    assert_eq!(word.body["channel"], "C0CLICKED1");
    assert_eq!(word.body["user"], "U061F7AUR");
    assert!(word.body["text"].as_str().unwrap().contains("apr-none"));
    assert_eq!(slack.calls_of("response_url").len(), 1);
}

#[test]
fn while_slack_is_switched_off_it_is_never_called_and_clicks_count() {
    let (slack, dir, agent) = (StandIn::start(), Scratch::new(), Agent::start());
    let config = |enabled: bool| format!("incident: {{slack: {{enabled: {enabled}}}}}\n");
    let server = Server::builder()
        .dir(&dir)
        .slack(&slack)
        .env("SLACK_DEFAULT_CHANNEL", "C0APPROVE1")
        .env("RUNBOOK_CALLBACK_SECRET", "a-secret")
        .config(&config(false))
        .start();
    server.wait_for_log("incident.slack.enabled is false", SOON);
    let mut approval = sample("apr-1");
    approval["callbackUrl"] = agent.url().into();
    write_approval(&dir, &approval);
    write_approval(&dir, &dropped("apr-new", "C0APPROVE1"));
    let url = || slack.response_url("one");
    for click in [Click::approve("apr-1"), Click::deny("apr-1")] {
        let answer = server.interact(&click.response_url(url()).payload());
        assert_eq!(answer.status, 200);
    }
    assert_eq!(read_approval(&dir, "apr-1")["status"], "approved");
    agent.wait_for(1, SOON);
    server.event(&fixture("slack/events_app_mention.json"));
    server.event(&fixture("slack/events_app_home_opened.json"));
    server.wait_for_log("Nobody sees a request", SOON);
    assert_eq!(slack.calls().len(), 0, "{:?}", slack.calls());
    assert_eq!(slack.calls_of("auth.test").len(), 0);
    fs::write(server.config_file(), config(true)).unwrap();
    server.signal(Signal::HUP);
    slack.wait_for("chat.postMessage", 1, SOON);
}

#[test]
fn a_response_url_that_is_not_slacks_is_never_called() {
    let (slack, other, dir) = (StandIn::start(), StandIn::start(), Scratch::new());
    write_approval(&dir, &sample("apr-1"));
    let server = Server::builder().dir(&dir).slack(&slack).start();
    let click = Click::approve("apr-gone").response_url(other.response_url("x"));
    server.click(&click);
    server.wait_for_log("A response_url that is not Slack's is not used", SOON);
    server.click(&Click::approve("apr-1"));
    slack.wait_for("chat.update", 1, SOON);
    assert!(other.calls().is_empty());
}

#[test]
fn every_click_that_changes_nothing_is_answered_privately() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    write_approval(&dir, &fixture("approvals/expired.json"));
    fs::write(
        dir.join("not-json.json"),
        fixture_text("approvals/not-json.json"),
    )
    .unwrap();
    let server = Server::builder().dir(&dir).slack(&slack).start();
    for (n, (value, said)) in [
        ("apr-unknown", "There is no approval apr-unknown"),
        ("../../etc/passwd", "carries no approval id"),
        ("not-json", "cannot be read"),
        ("expired", "expired on 2020-"),
    ]
    .into_iter()
    .enumerate()
    {
        let click = Click::approve("apr-x")
            .set("/actions/0/value", value)
            .response_url(slack.response_url(&n.to_string()));
        assert_eq!(server.interact(&click.payload()).status, 200, "{value}");
        let calls = slack.wait_for("response_url", n + 1, SOON);
        let text = calls[n].body["text"].as_str().unwrap();
        assert!(text.contains(said), "{value}: {text}");
    }
    assert_eq!(read_approval(&dir, "expired")["status"], "expired");
    let update = &slack.wait_for("chat.update", 1, SOON)[0];
    assert!(text_of(&update.body).contains("⌛ Approval Expired"));
}

#[test]
fn an_expired_approval_is_closed_without_a_click() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    write_approval(&dir, &fixture("approvals/expired.json"));
    let server = Server::builder().dir(&dir).slack(&slack).start();
    let update = &slack.wait_for("chat.update", 1, SOON)[0];
    assert!(text_of(&update.body).contains("⌛ Approval Expired"));
    assert_eq!(read_approval(&dir, "expired")["status"], "expired");
    assert_eq!(server.get("/health").json()["pendingApprovals"], 0);
}

#[test]
fn what_slack_sends_and_we_do_not_use_is_acknowledged() {
    let server = Server::builder().start();
    for name in [
        "block_actions_foreign_action",
        "block_actions_foreign_select",
        "view_submission",
        "view_closed",
        "shortcut",
        "message_action",
        "unknown_type",
    ] {
        let answer = server.interact(&fixture(&format!("slack/{name}.json")));
        assert_eq!((answer.status, answer.body.len()), (200, 0), "{name}");
    }
    let answer = server.interact(&fixture("slack/block_suggestion.json"));
    assert_eq!(
        (answer.status, answer.json()),
        (200, json!({ "options": [] }))
    );
    for name in [
        "events_app_home_opened",
        "events_app_rate_limited",
        "events_message",
    ] {
        assert_eq!(
            server.event(&fixture(&format!("slack/{name}.json"))).status,
            200,
            "{name}"
        );
    }
}

#[test]
fn the_challenge_goes_back_and_an_event_is_handled_once() {
    let server = Server::builder().start();
    let challenge = fixture("slack/events_url_verification.json");
    let answer = server.event(&challenge);
    assert_eq!(
        (answer.status, answer.json()),
        (200, json!({ "challenge": challenge["challenge"] }))
    );
    let mention = fixture("slack/events_app_mention.json");
    for _ in 0..3 {
        let answer = server.event(&mention);
        assert_eq!((answer.status, answer.body.len()), (200, 0));
    }
    server.terminate();
    assert_eq!(
        server.log().matches("Received event app_mention").count(),
        1,
        "{}",
        server.log()
    );
}

#[test]
fn health_is_what_the_page_shows_and_details_are_for_those_nearby() {
    let dir = Scratch::new();
    write_approval(&dir, &sample("apr-1"));
    write_approval(&dir, &sample("apr-2"));
    let server = Server::builder().dir(&dir).start();
    let answer = server.get("/health");
    assert_eq!(
        answer.text(),
        r#"{"status":"healthy","pendingApprovals":2}"#
    );
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let head = server.request(RawRequest::new("HEAD", "/health"));
    assert_eq!((head.status, head.body.len()), (200, 0));

    let verbose = server.get("/health?verbose").json();
    assert_eq!(verbose["effectsOwed"], 0);
    assert!(
        verbose["uptime"].is_u64() && verbose["version"].is_string(),
        "{verbose}"
    );
    let forwarded =
        RawRequest::new("GET", "/health?verbose").header("X-Forwarded-For", "127.0.0.1");
    assert!(server.request(forwarded).json().get("version").is_none());

    write_approval(&dir, &sample("apr-3"));
    assert_eq!(server.get("/health").json()["pendingApprovals"], 3);
    fs::remove_file(dir.join("apr-1.json")).unwrap();
    assert_eq!(server.get("/health").json()["pendingApprovals"], 2);
}

#[test]
fn what_happened_is_counted_for_those_nearby_only() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    write_approval(&dir, &sample("apr-1"));
    write_approval(&dir, &sample("apr-2"));
    fs::write(dir.join("not-json.json"), "{").unwrap();
    let server = Server::builder().dir(&dir).slack(&slack).start();
    server.expect_errors();
    server.interact(&Click::approve("apr-1").payload());
    server.request(RawRequest::new("POST", "/slack/interactions").body("x"));
    slack.wait_for("chat.update", 1, SOON);
    let metrics = eventually("the call to be counted", SOON, || {
        let answer = server.get("/metrics");
        assert!(
            answer
                .header("content-type")
                .unwrap()
                .starts_with("text/plain; version=0.0.4")
        );
        let text = answer.text();
        let shown = "runbook_effects_total{effect=\"updateMessage\",result=\"done\"} 1";
        text.contains(shown).then_some(text)
    });
    for line in [
        "runbook_webhook_requests_total{action=\"approve\"} 1",
        "runbook_signature_failures_total 1",
        "runbook_decisions_total{status=\"approved\"} 1",
        "runbook_effects_total{effect=\"updateMessage\",result=\"done\"} 1",
        "runbook_slack_calls_total{method=\"chat.update\",result=\"ok\"} 1",
        "runbook_acknowledgement_seconds_count 1",
        "runbook_pending_approvals 1",
        "runbook_unreadable_files 1",
    ] {
        assert!(
            metrics.lines().any(|other| other == line),
            "{line} in {metrics}"
        );
    }
    let forwarded = || RawRequest::new("GET", "/metrics").header("X-Forwarded-For", "127.0.0.1");
    assert_eq!(server.request(forwarded()).status, 404);
    assert_eq!(
        server.request(RawRequest::new("POST", "/metrics")).status,
        405
    );
}

#[test]
fn slacks_patience_is_asked_for_and_given() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    write_approval(&dir, &sample("apr-1"));
    let server = Server::builder().dir(&dir).slack(&slack).start();
    slack.fail_method(
        "chat.update",
        Failure::RateLimited {
            retry_after_seconds: 2,
        },
        Times::Next(1),
    );
    server.interact(&Click::approve("apr-1").payload());
    let calls = slack.wait_for("chat.update", 2, SOON);
    let pause = calls[1].at - calls[0].at;
    assert!(pause >= Duration::from_secs(2), "{pause:?}");
}

#[test]
fn what_slack_limits_is_left_alone_by_everybody_and_nothing_else_is() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let server = Server::builder().dir(&dir).slack(&slack).start();
    let patience = Failure::RateLimited {
        retry_after_seconds: 3,
    };
    let ids = ["apr-1", "apr-2", "apr-3", "apr-4"];
    for id in ids {
        write_approval(&dir, &sample(id));
    }
    slack.fail_method("chat.update", patience, Times::Next(1));
    server.interact(&Click::approve("apr-1").payload());
    server.wait_for_log("rate limited", SOON);
    // A reload is no excuse.
    server.signal(Signal::HUP);
    server.wait_for_log("Configuration reloaded", SOON);
    for id in &ids[1..] {
        server.interact(&Click::approve(id).payload());
    }
    // Posting is limited by channel.
    slack.fail_method("chat.postMessage", patience, Times::Next(1));
    write_approval(&dir, &dropped("apr-first", "C0LIMITED1"));
    slack.wait_for("chat.postMessage", 1, SOON);
    write_approval(&dir, &dropped("apr-same", "C0LIMITED1"));
    write_approval(&dir, &dropped("apr-other", "C0FREE0001"));
    for (method, count) in [("chat.update", 5), ("chat.postMessage", 4)] {
        let calls = slack.wait_for(method, count, SOON * 2);
        let (first, others) = calls.split_first().unwrap();
        for call in others {
            let free = call.body["channel"] == "C0FREE0001";
            let waited = call.at - first.at;
            assert_eq!(
                waited < Duration::from_secs(3),
                free,
                "{waited:?}: {call:?}"
            );
        }
        assert_eq!(calls.len(), count);
    }
}

#[test]
fn a_channel_that_hangs_holds_up_no_other() {
    const MANY: usize = 20;
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let server = Server::builder().dir(&dir).slack(&slack).start();
    let at = |id: &str, channel: &str| {
        let mut approval = sample(id);
        approval["slackChannel"] = channel.into();
        write_approval(&dir, &approval);
        let click = Click::approve(id).message(channel, "1705333800.000100");
        server.interact(&click.payload());
    };
    slack.hang_channel("C0HANGS001");
    for n in 0..MANY {
        at(&format!("apr-{n}"), "C0HANGS001");
    }
    slack.wait_for("chat.update", 2, SOON);
    at("apr-well", "C0WELL0001");
    let calls = slack.wait_for("chat.update", 3, Duration::from_secs(2));
    assert_eq!(calls[2].body["channel"], "C0WELL0001");
    assert_eq!(calls.len(), 3);
    server.kill();
}

#[test]
fn a_patience_of_nothing_is_no_leave_to_storm() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    write_approval(&dir, &sample("apr-1"));
    let server = Server::builder().dir(&dir).slack(&slack).start();
    let none = Failure::RateLimited {
        retry_after_seconds: 0,
    };
    slack.fail_method("chat.update", none, Times::Next(1));
    server.interact(&Click::approve("apr-1").payload());
    let calls = slack.wait_for("chat.update", 2, SOON);
    assert!(calls[1].at - calls[0].at >= Duration::from_millis(900));
}

#[test]
fn a_passing_trouble_is_tried_again_and_a_refusal_is_not() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let server = Server::builder().dir(&dir).slack(&slack).start();
    for (n, failure) in [
        Failure::Status(503),
        Failure::Garbage,
        Failure::CloseWithoutAnswer,
        Failure::NotOk("internal_error"),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("apr-{n}");
        write_approval(&dir, &sample(&id));
        slack.fail_method("chat.update", failure, Times::Next(1));
        server.interact(&Click::approve(&id).payload());
        slack.wait_for("chat.update", 2 * (n + 1), SOON);
        settled(&dir, &id, SOON);
    }
    server.expect_errors();
    write_approval(&dir, &sample("apr-no"));
    slack.fail(Failure::NotOk("channel_not_found"), Times::Forever);
    server.interact(&Click::approve("apr-no").payload());
    let failed = eventually("the effect to be given up", SOON, || {
        read_approval(&dir, "apr-no").get("effectsFailed").cloned()
    });
    assert_eq!(failed[0]["error"], "channel_not_found");
    assert_eq!(slack.calls_of("chat.update").len(), 9);
}
