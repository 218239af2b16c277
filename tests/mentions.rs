//! Whoever mentions the app is answered in the thread, about that channel and no other.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{
    Click, Scratch, Server, asked_at, dropped, eventually, fixture, fixture_text, write_approval,
};
use crate::stand_in::{Call, Failure, StandIn, Times};

/// How long something may take that nothing holds up.
const SOON: Duration = Duration::from_secs(5);

fn mention(text: &str) -> Value {
    static EVENTS: AtomicU64 = AtomicU64::new(1);
    let number = EVENTS.fetch_add(1, Ordering::Relaxed);
    let mut mention = fixture("slack/events_app_mention.json");
    mention["event_id"] = format!("Ev{number}").into();
    mention["event"]["text"] = format!("<@U0RUNBOOK> {text}").into();
    mention
}

/// Mentions the app and waits for the answer.
fn ask(server: &Server, slack: &StandIn, mention: &Value) -> Call {
    let before = slack.calls_of("chat.postMessage").len();
    assert_eq!(server.event(mention).status, 200);
    slack.wait_for("chat.postMessage", before + 1, SOON)[before].clone()
}

/// All that an answer says, which holds no markup and no button.
fn said(answer: &Call) -> String {
    assert_eq!(answer.error, None, "{}", answer.body);
    let blocks = answer.body["blocks"].as_array().unwrap();
    let texts = blocks.iter().map(|block| {
        assert_eq!(block["text"]["type"], "plain_text", "{block}");
        block["text"]["text"].as_str().unwrap()
    });
    texts.collect::<Vec<_>>().join("\n")
}

#[test]
fn it_is_answered_in_the_thread_with_what_is_pending_in_that_channel_newest_first() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    for (id, minute, changes) in [
        (
            "apr-1",
            1,
            json!({ "requestedBy": "runbook-agent", "expiresAt": "2999-01-01T00:00:00Z" }),
        ),
        (
            "apr-2",
            2,
            json!({ "riskLevel": "critical", "operation": "drop_index" }),
        ),
        ("apr-secret", 3, json!({ "slackChannel": "C0PRIVATE1" })),
        (
            "apr-over",
            4,
            json!({ "expiresAt": "2024-01-15T12:31:00Z" }),
        ),
        ("apr-decided", 5, json!({ "status": "denied" })),
    ] {
        write_approval(&dir, &asked_at(id, minute, &changes));
    }
    let server = Server::builder().dir(&dir).slack(&slack).start();
    let answer = ask(&server, &slack, &mention("what is pending?"));
    assert_eq!(answer.body["channel"], "C1234567890");
    assert_eq!(answer.body["thread_ts"], "1705333850.000300");
    assert_eq!(
        said(&answer),
        "2 requests are pending in this channel.\n\
         apr-2: drop_index\nCRITICAL 🔴\n\
         apr-1: scale_ecs_service\nHIGH 🟠, asked by runbook-agent, expires 2999-01-01 00:00:00 UTC"
    );

    // In a thread the answer goes to the same one; in another channel it is another answer.
    let mut in_thread = mention("");
    in_thread["event"]["thread_ts"] = "1705333800.000100".into();
    in_thread["event"]["channel"] = "C0EMPTY001".into();
    let answer = ask(&server, &slack, &in_thread);
    assert_eq!(answer.body["thread_ts"], "1705333800.000100");
    assert_eq!(answer.body["channel"], "C0EMPTY001");
    assert_eq!(said(&answer), "Nothing is pending in this channel.");
}

#[test]
fn beyond_twenty_they_are_counted() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let hostile = "<!channel> <@U1> *b* `c` & \u{202e}一🔥 ".repeat(500);
    for n in 0..23 {
        let changes = json!({ "operation": hostile, "requestedBy": hostile });
        write_approval(&dir, &asked_at(&format!("apr-{n}"), n, &changes));
    }
    let server = Server::builder().dir(&dir).slack(&slack).start();
    let text = said(&ask(&server, &slack, &mention("list")));
    let listed = text.lines().filter(|line| line.starts_with("apr-"));
    assert_eq!(listed.count(), 20, "{text}");
    assert!(
        text.contains("\napr-22: ") && !text.contains("\napr-2: "),
        "{text}"
    );
    assert!(text.ends_with("3 more are not shown here."), "{text}");
}

#[test]
fn status_says_who_decided_when_and_why() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    for id in ["apr-1", "apr-2"] {
        write_approval(&dir, &asked_at(id, 1, &json!({})));
    }
    let server = Server::builder().dir(&dir).slack(&slack).start();
    let status = |id: &str| said(&ask(&server, &slack, &mention(&format!("status {id}"))));
    let pending = status("apr-1");
    assert!(
        pending.contains("apr-1: scale_ecs_service\nHIGH 🟠\nNobody has decided it yet."),
        "{pending}"
    );

    server.interact(&Click::approve("apr-1").by("U0BOB0001", "bob").payload());
    let granted = status("apr-1");
    for part in [
        "✅ Approval Granted",
        "Approved by: bob (U0BOB0001)",
        "Time: 20",
        "Operation is now executing...",
    ] {
        assert!(granted.contains(part), "{part} in {granted}");
    }
    let mut denied = asked_at(
        "apr-3",
        1,
        &json!({ "status": "denied", "reason": "<!here> too risky" }),
    );
    denied["decidedAt"] = "2024-01-15T15:30:45Z".into();
    denied["decidedBy"] = json!({ "id": "cli:root", "username": "root", "name": "root" });
    // One that was decided long ago is in the archive.
    fs::create_dir_all(dir.join("archive")).unwrap();
    fs::write(dir.join("archive/apr-3.json"), denied.to_string()).unwrap();
    let denied = status("apr-3");
    for part in [
        "❌ Approval Denied",
        "Denied by: cli:root",
        "Time: 2024-01-15 15:30:45 UTC",
        "Reason: <!here> too risky",
    ] {
        assert!(denied.contains(part), "{part} in {denied}");
    }
}

#[test]
fn a_channel_learns_nothing_of_another_ones_requests() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let elsewhere = json!({ "slackChannel": "C0PRIVATE1" });
    write_approval(&dir, &asked_at("apr-secret", 1, &elsewhere));
    let name = "not-json";
    let broken = fixture_text(&format!("approvals/{name}.json"));
    fs::write(dir.join(format!("{name}.json")), broken).unwrap();
    let server = Server::builder().dir(&dir).slack(&slack).start();
    let answers = ["apr-secret", "apr-gone", name, "../../etc/passwd"]
        .map(|id| said(&ask(&server, &slack, &mention(&format!("status {id}")))));
    assert_eq!(answers[0], "There is no such request in this channel.");
    assert!(
        answers.iter().all(|answer| *answer == answers[0]),
        "{answers:?}"
    );
}

#[test]
fn help_says_what_can_be_asked() {
    let slack = StandIn::start();
    let server = Server::builder().slack(&slack).start();
    let help = said(&ask(&server, &slack, &mention("help")));
    assert!(
        help.contains("status ID") && help.contains("Home tab"),
        "{help}"
    );
}

#[test]
fn a_mention_is_answered_once_and_no_bot_ever_is() {
    let slack = StandIn::start();
    let server = Server::builder()
        .slack(&slack)
        .args(["--log-level", "debug"])
        .start();
    let one = mention("help");
    ask(&server, &slack, &one);
    server.event(&one);
    server.wait_for_log("Event received again", SOON);
    for (field, value) in [("bot_id", "B0OTHER01"), ("user", "U0RUNBOOK")] {
        let mut by_bot = mention("help");
        by_bot["event"][field] = value.into();
        assert_eq!(server.event(&by_bot).status, 200);
    }
    ask(&server, &slack, &mention("help"));
    server.terminate();
    assert_eq!(slack.calls_of("chat.postMessage").len(), 2);
}

#[test]
fn an_answer_outlives_a_passing_trouble_and_nobody_waits_for_it() {
    let slack = StandIn::start();
    let server = Server::builder().slack(&slack).start();
    slack.fail_method("chat.postMessage", Failure::Status(500), Times::Next(1));
    server.event(&mention("help"));
    let answers = slack.wait_for("chat.postMessage", 2, SOON);
    assert_eq!(answers[1].error, None);
    slack.fail_method(
        "chat.postMessage",
        Failure::NotOk("restricted_action"),
        Times::Next(1),
    );
    server.event(&mention("help"));
    server.wait_for_log("Slack refused an answer", SOON);

    slack.fail(Failure::Hang, Times::Forever);
    for _ in 0..20 {
        assert_eq!(server.event(&mention("help")).status, 200);
    }
    // Less than one call's time limit went by, although far more calls hang than there are threads.
    assert!(slack.calls().len() < 20, "calls did not hang");
}

/// A mention that begins a thread of its own.
fn in_thread(number: u32, text: &str) -> Value {
    let mut mention = mention(text);
    mention["event"]["ts"] = format!("1705333850.{number:06}").into();
    mention
}

#[test]
fn however_many_questions_there_are_a_request_is_posted_at_once() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let server = Server::builder().dir(&dir).slack(&slack).start();
    for number in 0..60 {
        server.event(&in_thread(number, "help"));
    }
    slack.wait_for("chat.postMessage", 5, SOON);
    write_approval(&dir, &dropped("apr-1", "C1234567890"));
    let is_posted = || {
        let posts = slack.calls_of("chat.postMessage");
        posts
            .iter()
            .any(|post| post.buttons().is_some())
            .then_some(())
    };
    eventually("the request to be posted", SOON, is_posted);
    let answers = slack.calls_of("chat.postMessage").len() - 1;
    assert!(answers < 20, "{answers} answers were not paced");
    // What is left would be sent while it ends.
    server.kill();
}

#[test]
fn of_many_questions_in_a_thread_the_newest_is_answered() {
    let slack = StandIn::start();
    let server = Server::builder().slack(&slack).start();
    let held = slack.hold("chat.postMessage");
    server.event(&in_thread(1, "status apr-1"));
    slack.wait_for("chat.postMessage", 1, SOON);
    for _ in 0..20 {
        server.event(&in_thread(1, "what is pending?"));
    }
    server.event(&in_thread(1, "help"));
    drop(held);
    let answers = slack.wait_for("chat.postMessage", 2, SOON);
    assert!(said(&answers[1]).contains("status ID"));
    server.event(&in_thread(2, "help"));
    slack.wait_for("chat.postMessage", 3, SOON);
    server.terminate();
    assert_eq!(slack.calls_of("chat.postMessage").len(), 3);
}

#[test]
fn answers_take_of_what_slack_grants_a_channel_what_requests_leave() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let server = Server::builder().dir(&dir).slack(&slack).start();
    for n in 0..5 {
        write_approval(&dir, &dropped(&format!("apr-{n}"), "C1234567890"));
    }
    let first = slack.wait_for("chat.postMessage", 5, SOON)[0].at;
    for number in 0..4 {
        server.event(&in_thread(number, "help"));
    }
    let last = slack.wait_for("chat.postMessage", 9, SOON * 2)[8].at;
    let length = last - first;
    // Four seconds, less what the calls' ways to Slack differ by.
    assert!(length >= Duration::from_millis(3800), "nine in {length:?}");
}
