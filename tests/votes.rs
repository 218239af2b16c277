//! What a request's message says beside the request: who may approve, who has so far, who is notified
//! and reminded.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{
    Click, Scratch, Server, eventually, now, read_approval, runbook, sample, settled, shown, with,
    write_approval,
};
use crate::stand_in::{Call, Failure, StandIn, Times};

/// How long something may take that nothing holds up.
const SOON: Duration = Duration::from_secs(5);

/// Where requests are posted.
const CHANNEL: &str = "C0APPROVE1";

fn server(dir: &Scratch, slack: &StandIn, config: &str) -> Server {
    let builder = Server::builder().dir(dir).slack(slack).config(config);
    builder.env("SLACK_DEFAULT_CHANNEL", CHANNEL).start()
}

/// The sample request, yet to be posted, with these fields.
fn unposted(id: &str, fields: &Value) -> Value {
    let nowhere = json!({ "slackMessageTs": null, "slackChannel": null });
    with(with(sample(id), &nowhere), fields)
}

/// Drops a request and returns how it was posted.
fn drop_in(dir: &Scratch, slack: &StandIn, approval: &Value) -> Call {
    let before = slack.calls_of("chat.postMessage").len();
    write_approval(dir, approval);
    let posted = slack.wait_for("chat.postMessage", before + 1, SOON);
    shown(dir, approval["id"].as_str().unwrap(), SOON);
    posted[before].clone()
}

fn buttons(call: &Call) -> Option<Value> {
    let mut blocks = call.body["blocks"].as_array().unwrap().iter();
    blocks.find(|block| block["type"] == "actions").cloned()
}

/// A click on the buttons of a message, by this person.
fn click(message: &Call, stored: &Value, user: &str) -> Click {
    let id = stored["id"].as_str().unwrap();
    let ts = stored["slackMessageTs"].as_str().unwrap();
    Click::approve(id)
        .block_id(buttons(message).unwrap()["block_id"].as_str().unwrap())
        .message(stored["slackChannel"].as_str().unwrap(), ts)
        .by(user, &user.to_lowercase())
}

fn send(server: &Server, click: &Click) {
    server.click(click);
}

/// Blocks and fallback say this, or neither of them.
fn says(call: &Call, text: &str) -> bool {
    assert_eq!(call.error, None, "{call:?}");
    let in_blocks = call.body["blocks"].to_string().contains(text);
    let in_text = call.body["text"].as_str().unwrap().contains(text);
    assert_eq!(in_blocks, in_text, "{text} in {}", call.body);
    in_blocks
}

const THREE: &str = "safety: {approvers: {default: {minApprovals: 3}}}\n";

#[test]
fn the_message_shows_each_vote_as_it_comes_and_keeps_its_buttons() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let server = server(&dir, &slack, THREE);
    let posted = drop_in(&dir, &slack, &unposted("apr-1", &json!({})));
    assert!(says(&posted, "3 approvals needed") && !says(&posted, "Approved by"));
    let stored = shown(&dir, "apr-1", SOON);
    for (n, (user, said)) in [
        ("U0BOB", "Approved by: <@U0BOB> (1 of 3)"),
        ("U0ALICE", "Approved by: <@U0BOB>, <@U0ALICE> (2 of 3)"),
    ]
    .into_iter()
    .enumerate()
    {
        send(&server, &click(&posted, &stored, user));
        let update = &slack.wait_for("chat.update", n + 1, SOON)[n];
        assert!(says(update, said), "{}", update.body);
        assert!(says(update, "3 approvals needed"));
        assert!(says(update, "🔐 Runbook Approval Request"));
        assert_eq!(update.body["channel"], CHANNEL);
        assert_eq!(update.body["ts"], stored["slackMessageTs"]);
        assert_eq!(buttons(update), buttons(&posted));
        shown(&dir, "apr-1", SOON);
    }
    // What changes nothing is no reason to show it again.
    send(&server, &click(&posted, &stored, "U0BOB"));
    send(&server, &click(&posted, &stored, "U0CAROL"));
    let outcome = &slack.wait_for("chat.update", 3, SOON)[2];
    assert!(says(outcome, "✅ Approval Granted"), "{}", outcome.body);
    assert_eq!(buttons(outcome), None);
    shown(&dir, "apr-1", SOON);
    assert_eq!(slack.calls_of("chat.update").len(), 3);
}

#[test]
fn who_may_approve_is_said_and_nobody_is_notified_by_that() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let server = server(
        &dir,
        &slack,
        "safety:
  approvers:
    high: {users: [W0DAVE, U0ALICE], groups: [S0ADMINS], minApprovals: 2}
    critical: {users: [U0ALICE]}
",
    );
    for (risk, bare, needed) in [
        ("high", "Approvers: U0ALICE, W0DAVE, S0ADMINS", true),
        ("critical", "Approvers: U0ALICE", false),
    ] {
        let approval = unposted(risk, &json!({ "riskLevel": risk }));
        let posted = drop_in(&dir, &slack, &approval);
        assert!(says(&posted, bare), "{}", posted.body);
        assert_eq!(says(&posted, "2 approvals needed"), needed);
        let body = posted.body.to_string();
        assert!(!body.contains("<@") && !body.contains("<!"), "{body}");
        assert!(slack.calls_of("chat.update").is_empty());
    }
    // Nobody is notified by an update, so it can show them by name.
    server.interact(&Click::approve("high").by("U0ALICE", "alice").payload());
    let update = &slack.wait_for("chat.update", 1, SOON)[0];
    let mentioned = "Approvers: <@U0ALICE>, <@W0DAVE>, <!subteam^S0ADMINS>";
    assert!(says(update, mentioned), "{}", update.body);
    // Where anyone may, there is nothing to say.
    let posted = drop_in(
        &dir,
        &slack,
        &unposted("low", &json!({ "riskLevel": "low" })),
    );
    assert!(!says(&posted, "Approvers") && !says(&posted, "approvals needed"));
    assert_eq!(slack.calls_of("chat.update").len(), 1);
}

#[test]
fn the_longest_request_with_the_most_people_is_no_more_than_slack_takes() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let users: Vec<String> = (100..200).map(|n| format!("U0PERSON{n}")).collect();
    let mention: Vec<String> = (10..30)
        .map(|n| format!("S{}{n}", "0".repeat(29)))
        .collect();
    let policy = format!(
        "safety: {{approvers: {{high: {{users: [{}], minApprovals: 100}}}}}}\n\
         approvals: {{mention: [{}]}}\n",
        users.join(", "),
        mention.join(", ")
    );
    let hostile = "<!channel> & `*_".repeat(1000);
    let mut most = unposted("apr-1", &json!({ "command": ["echo", "x".repeat(3900)] }));
    for key in [
        "description",
        "requestedBy",
        "investigationId",
        "resource",
        "estimatedImpact",
        "directory",
        "rollbackCommand",
    ] {
        most[key] = hostile.clone().into();
    }
    most["operation"] = hostile.into();
    let vote = |id: &String| {
        let by = json!({ "id": id, "username": "x", "name": "x" });
        json!({ "decision": "approve", "by": by, "at": "2024-01-15T15:30:00Z" })
    };
    most["decisions"] = users[..98].iter().map(vote).collect();
    let blocks_say = |call: &Call, said: &str| {
        assert_eq!(call.error, None);
        assert!(call.body["blocks"].to_string().contains(said), "{said}");
    };
    let server = server(&dir, &slack, &policy);
    let posted = drop_in(&dir, &slack, &most);
    blocks_say(&posted, "U0PERSON152 and 47 more");
    blocks_say(&posted, "100 approvals needed");
    blocks_say(&posted, &format!("<!subteam^{}>", mention[19]));
    let stored = shown(&dir, "apr-1", SOON);
    send(&server, &click(&posted, &stored, &users[98]));
    let updates = slack.wait_for("chat.update", 2, SOON);
    blocks_say(&updates[0], "more (98 of 100)");
    blocks_say(&updates[1], "more (99 of 100)");
    blocks_say(&updates[1], "<@U0PERSON100>, <@U0PERSON101>");
}

#[test]
fn who_may_approve_is_no_part_of_what_a_click_is_bound_to() {
    let block_ids = ["", THREE].map(|policy| {
        let (slack, dir) = (StandIn::start(), Scratch::new());
        let _server = server(&dir, &slack, policy);
        let posted = drop_in(&dir, &slack, &unposted("apr-1", &json!({})));
        buttons(&posted).unwrap()["block_id"].clone()
    });
    assert_eq!(block_ids[0], block_ids[1]);
}

#[test]
fn a_vote_is_shown_although_the_server_dies_before_it_could() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    write_approval(&dir, &sample("apr-1"));
    let first = server(&dir, &slack, THREE);
    slack.fail_method("chat.update", Failure::Hang, Times::Forever);
    send(&first, &Click::approve("apr-1").by("U0ALICE", "alice"));
    slack.wait_for("chat.update", 1, SOON);
    first.kill();
    slack.recover();
    let _second = server(&dir, &slack, THREE);
    let update = &slack.wait_for("chat.update", 2, SOON)[1];
    assert!(says(update, "Approved by: <@U0ALICE> (1 of 3)"));
    assert_eq!(update.body["ts"], "1705333800.000100");
    settled(&dir, "apr-1", SOON);
}

#[test]
fn a_vote_that_slack_shows_late_does_not_stand_over_a_later_state() {
    for (choice, shown) in [
        (
            Click::approve("apr-1"),
            "Approved by: <@U0ALICE>, <@U0BOB> (2 of 3)",
        ),
        (Click::deny("apr-1"), "❌ Approval Denied"),
    ] {
        let (slack, dir) = (StandIn::start(), Scratch::new());
        write_approval(&dir, &sample("apr-1"));
        let servers = [0, 1].map(|_| server(&dir, &slack, THREE));
        slack.fail_method("chat.update", Failure::Late, Times::Next(1));
        send(&servers[0], &Click::approve("apr-1").by("U0ALICE", "alice"));
        slack.wait_for("chat.update", 1, SOON);
        send(&servers[1], &choice.by("U0BOB", "bob"));
        slack.recover();
        settled(&dir, "apr-1", SOON);
        let updates = slack.calls_of("chat.update");
        assert!(says(&updates[0], "(1 of 3)"));
        assert!(says(updates.last().unwrap(), shown), "{updates:#?}");
    }
}

#[test]
fn a_request_that_has_changed_is_never_put_under_the_same_buttons() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let server = server(&dir, &slack, THREE);
    let posted = drop_in(&dir, &slack, &unposted("apr-1", &json!({})));
    let stored = shown(&dir, "apr-1", SOON);
    slack.fail_method("chat.update", Failure::Late, Times::Next(1));
    send(&server, &click(&posted, &stored, "U0ALICE"));
    slack.wait_for("chat.update", 1, SOON);
    let mut changed = eventually("the audit log to tell of it", SOON, || {
        let stored = read_approval(&dir, "apr-1");
        stored.get("auditOwed").is_none().then_some(stored)
    });
    changed["args"]["desiredCount"] = 80.into();
    write_approval(&dir, &changed);
    slack.recover();
    shown(&dir, "apr-1", SOON);
    assert_eq!(slack.calls_of("chat.update").len(), 1);

    send(&server, &click(&posted, &stored, "U0BOB"));
    let anew = &slack.wait_for("chat.postMessage", 2, SOON)[1];
    assert!(says(anew, "desiredCount: 80"), "{}", anew.body);
    let retired = &slack.wait_for("chat.update", 2, SOON)[1];
    assert!(says(retired, "🔄 Request Changed"), "{}", retired.body);
    // Votes for what it was do not count for what it is.
    let stored = shown(&dir, "apr-1", SOON);
    send(&server, &click(anew, &stored, "U0CAROL"));
    let update = &slack.wait_for("chat.update", 3, SOON)[2];
    assert!(says(update, "Approved by: <@U0CAROL> (1 of 3)"));
    assert_eq!(update.body["ts"], stored["slackMessageTs"]);
}

#[test]
fn without_a_token_a_vote_is_shown_through_response_url() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    write_approval(&dir, &sample("apr-1"));
    let builder = Server::builder().dir(&dir).slack(&slack).config(THREE);
    let server = builder.without_token().start();
    let click = Click::approve("apr-1").by("U0ALICE", "alice");
    send(&server, &click.response_url(slack.response_url("alice")));
    let calls = slack.wait_for("response_url", 2, SOON);
    let is_update = |call: &&Call| call.body["replace_original"] == true;
    let update = calls.iter().find(is_update).unwrap();
    assert!(says(update, "Approved by: <@U0ALICE> (1 of 3)"));
    assert!(buttons(update).is_some());
    assert!(slack.calls_of("chat.update").is_empty());
}

#[test]
fn a_message_of_the_runbookai_agent_stays_its_own_until_the_decision() {
    for token in [true, false] {
        let (slack, dir) = (StandIn::start(), Scratch::new());
        let builder = Server::builder().dir(&dir).slack(&slack).config(THREE);
        let server = if token {
            builder.start()
        } else {
            builder.without_token().start()
        };
        let created = humantime::format_rfc3339_millis(SystemTime::now());
        let request = json!({ "mutationId": "mut-1", "createdAt": created.to_string() });
        fs::write(dir.join("mut-1_pending.json"), request.to_string()).unwrap();
        let clicks = [
            Click::approve("mut-1").action_id("approve_mut-1"),
            Click::deny("mut-1").action_id("reject_mut-1"),
        ];
        let [approve, deny] = clicks.map(|click| click.response_url(slack.response_url("x")));
        send(&server, &approve.by("U0ALICE", "alice"));
        let word = &slack.wait_for("response_url", 1, SOON)[0];
        assert!(word.body["text"].as_str().unwrap().contains("1 of 3"));
        send(&server, &deny.by("U0BOB", "bob"));
        let (method, count) = if token {
            ("chat.update", 1)
        } else {
            ("response_url", 2)
        };
        let update = &slack.wait_for(method, count, SOON)[count - 1];
        assert!(says(update, "❌ Approval Denied"), "{}", update.body);
    }
}

#[test]
fn a_new_request_begins_with_whom_it_notifies_and_its_outcome_does_not() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let server = server(
        &dir,
        &slack,
        "approvals:
  mention: [S0ONCALL, U0ALICE, S0ONCALL, W0DAVE]
safety: {approvers: {default: {minApprovals: 2}}}
",
    );
    let names = "<!subteam^S0ONCALL> <@U0ALICE> <@W0DAVE>";
    let posted = drop_in(&dir, &slack, &unposted("apr-1", &json!({})));
    let first = json!({ "type": "section", "text": { "type": "mrkdwn", "text": names } });
    assert_eq!(posted.body["blocks"][0], first);
    assert_eq!(posted.body["blocks"][1]["type"], "header");
    let text = posted.body["text"].as_str().unwrap();
    assert_eq!(text.lines().next().unwrap(), names);
    assert!(slack.calls_of("chat.update").is_empty());

    let stored = shown(&dir, "apr-1", SOON);
    send(&server, &click(&posted, &stored, "U0BOB"));
    shown(&dir, "apr-1", SOON);
    send(&server, &click(&posted, &stored, "U0CAROL"));
    let outcome = &slack.wait_for("chat.update", 2, SOON)[1];
    assert!(says(outcome, "✅ Approval Granted") && !says(outcome, "S0ONCALL"));
    assert_eq!(slack.calls_of("chat.postMessage").len(), 1);
}

#[test]
fn a_reload_changes_who_is_notified_and_the_command_line_notifies_them_too() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let server = server(&dir, &slack, "approvals: {mention: U0ALICE}\n");
    assert!(says(
        &drop_in(&dir, &slack, &unposted("apr-1", &json!({}))),
        "<@U0ALICE>"
    ));
    fs::write(server.config_file(), "approvals: {mention: [U0BOB]}\n").unwrap();
    server.signal(Signal::HUP);
    server.wait_for_log("Configuration reloaded", SOON);
    let posted = drop_in(&dir, &slack, &unposted("apr-2", &json!({})));
    assert!(says(&posted, "<@U0BOB>") && !says(&posted, "<@U0ALICE>"));
    let asked = runbook(server.working_dir())
        .args([
            "request",
            "--operation",
            "x",
            "--channel",
            CHANNEL,
            "--pending-dir",
        ])
        .arg(dir.path())
        .env("SLACK_API_URL", slack.url())
        .env("SLACK_BOT_TOKEN", slack.token())
        .output()
        .unwrap();
    assert!(asked.status.success(), "{asked:?}");
    assert!(says(&slack.calls_of("chat.postMessage")[2], "<@U0BOB>"));
}

#[test]
fn whom_to_notify_is_said_by_id() {
    let many: Vec<String> = (0..21).map(|n| format!("U0{n}")).collect();
    for (value, said) in [
        ("[U0ALICE, bob]", "not names"),
        ("'@alice'", "not names"),
        ("[S0ADMINS, C0CHANNEL]", "not names"),
        ("['<!channel>']", "not names"),
        ("[here]", "not names"),
        (&format!("[{}]", many.join(", ")), "names more than 20"),
    ] {
        let config = format!("approvals:\n  mention: {value}\n");
        let finished = Server::builder().config(&config).start_expecting_failure();
        let error = &finished.stderr;
        assert_eq!(finished.status, Some(2), "{value}\n{error}");
        let start = "runbook: error: .runbook/config.yaml: line 2, column 12: approvals.mention";
        assert!(
            error.starts_with(start) && error.contains(said),
            "{value}\n{error}"
        );
    }
}

/// Reminds a minute before the end.
const MINUTE: &str = "approvals: {mention: [S0ONCALL], remindBeforeMs: 60000}\n";

fn in_seconds(seconds: u64) -> Value {
    let time = UNIX_EPOCH + Duration::from_secs(now() + seconds);
    humantime::format_rfc3339_seconds(time).to_string().into()
}

/// The sample request, posted long ago, that expires in so many seconds.
fn ending(id: &str, seconds: u64) -> Value {
    let mut approval = sample(id);
    approval["expiresAt"] = in_seconds(seconds);
    approval
}

/// The threads in which something was said, each as often as it was.
fn threads(slack: &StandIn) -> Vec<Value> {
    let posts = slack.calls_of("chat.postMessage").into_iter();
    let threads = posts.map(|call| call.body["thread_ts"].clone());
    threads.filter(|ts| !ts.is_null()).collect()
}

#[test]
fn people_are_reminded_once_however_many_servers_run_and_restart() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let servers = [0, 1].map(|_| server(&dir, &slack, MINUTE));
    write_approval(&dir, &ending("apr-1", 30));
    let reminder = slack.wait_for("chat.postMessage", 1, SOON).remove(0);
    assert_eq!(reminder.body["channel"], "C1234567890");
    assert_eq!(reminder.body["thread_ts"], "1705333800.000100");
    assert!(says(
        &reminder,
        "Still waiting for a decision: scale_ecs_service"
    ));
    assert!(says(&reminder, "<!subteam^S0ONCALL>") && says(&reminder, "Expires: 20"));
    assert!(buttons(&reminder).is_none() && reminder.body.get("reply_broadcast").is_none());
    let stored = shown(&dir, "apr-1", SOON);
    humantime::parse_rfc3339(stored["remindedAt"].as_str().unwrap()).unwrap();
    assert_eq!(stored["status"], "pending");

    drop(servers);
    let servers = [0, 1].map(|_| server(&dir, &slack, MINUTE));
    // Who comes later in the order of reminders tells that the first one had its turn.
    let mut later = ending("apr-2", 40);
    later["slackMessageTs"] = "1705333900.000200".into();
    write_approval(&dir, &later);
    slack.wait_for("chat.postMessage", 2, SOON);
    shown(&dir, "apr-2", SOON);
    drop(servers);
    assert_eq!(threads(&slack), ["1705333800.000100", "1705333900.000200"]);
}

#[test]
fn a_reminder_goes_to_the_message_that_shows_the_request_now() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let server = server(&dir, &slack, "approvals: {remindBeforeMs: 30000}\n");
    let posted = drop_in(
        &dir,
        &slack,
        &unposted("apr-1", &json!({ "expiresAt": in_seconds(33) })),
    );
    let patience = Failure::RateLimited {
        retry_after_seconds: 2,
    };
    slack.fail_method("chat.postMessage", patience, Times::Next(1));
    slack.wait_for("chat.postMessage", 2, SOON);
    // It has changed by the time that Slack may be called again, and is posted anew.
    let mut changed = read_approval(&dir, "apr-1");
    changed["operation"] = "drop_index".into();
    write_approval(&dir, &changed);
    let click = Click::approve("apr-1").on(&posted);
    server.click(&click);
    slack.wait_for("chat.postMessage", 4, 2 * SOON);
    let stored = shown(&dir, "apr-1", SOON);
    assert_eq!(threads(&slack)[1..], [stored["slackMessageTs"].clone()]);
    assert_ne!(stored["slackMessageTs"], posted.answer["ts"]);
}

#[test]
fn a_reminder_comes_as_long_before_the_end_as_is_configured() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let _server = server(&dir, &slack, "approvals: {remindBeforeMs: 3000}\n");
    let end = UNIX_EPOCH + Duration::from_secs(now() + 6);
    write_approval(&dir, &ending("apr-1", 6));
    let reminder = slack.wait_for("chat.postMessage", 1, 2 * SOON).remove(0);
    let came = SystemTime::now() - reminder.at.elapsed();
    let before = end.duration_since(came).unwrap();
    assert!(before <= Duration::from_secs(3), "{before:?}");
    assert_eq!(reminder.body["blocks"].as_array().unwrap().len(), 1);
}

#[test]
fn nobody_is_reminded_of_what_is_decided_expired_short_lived_or_has_had_its_reminder() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let _server = server(
        &dir,
        &slack,
        "approvals: {remindBeforeMs: 60000}\nsafety: {approvalTimeoutMs: 60000}\n",
    );
    // It expires a whole minute after it is posted, however old it is.
    drop_in(&dir, &slack, &unposted("posted", &json!({})));
    for (id, changes) in [
        (
            "decided",
            json!({ "status": "denied", "decidedAt": in_seconds(0) }),
        ),
        ("short", json!({ "requestedAt": in_seconds(0) })),
        ("reminded", json!({ "remindedAt": "2024-01-15T15:34:00Z" })),
        ("endless", json!({ "expiresAt": null })),
        ("expired", json!({ "expiresAt": "2024-01-15T15:34:00Z" })),
    ] {
        let mut approval = ending(id, 30);
        approval["slackMessageTs"] = format!("1705333800.{id}").into();
        for (key, value) in changes.as_object().unwrap() {
            approval[key] = value.clone();
        }
        write_approval(&dir, &approval);
    }
    write_approval(&dir, &ending("last", 50));
    slack.wait_for("chat.postMessage", 2, SOON);
    shown(&dir, "last", SOON);
    assert_eq!(threads(&slack), ["1705333800.000100"]);
    assert_eq!(slack.calls_of("chat.postMessage").len(), 2);
}

#[test]
fn a_reminder_that_is_late_is_not_given_after_the_decision() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let server = server(&dir, &slack, MINUTE);
    slack.fail_method(
        "chat.postMessage",
        Failure::NotOk("internal_error"),
        Times::Next(1),
    );
    write_approval(&dir, &ending("apr-1", 30));
    slack.wait_for("chat.postMessage", 1, SOON);
    send(&server, &Click::approve("apr-1"));
    shown(&dir, "apr-1", SOON);
    assert_eq!(threads(&slack).len(), 1);
    assert!(read_approval(&dir, "apr-1").get("effectsFailed").is_none());
}

#[test]
fn a_reminder_that_a_dead_server_owed_is_given_by_the_next() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let first = server(&dir, &slack, MINUTE);
    slack.fail_method("chat.postMessage", Failure::Hang, Times::Forever);
    write_approval(&dir, &ending("apr-1", 30));
    slack.wait_for("chat.postMessage", 1, SOON);
    let reminded = read_approval(&dir, "apr-1")["remindedAt"].clone();
    first.kill();
    slack.recover();
    let _second = server(&dir, &slack, MINUTE);
    let again = &slack.wait_for("chat.postMessage", 2, SOON)[1];
    assert_eq!(again.body["thread_ts"], "1705333800.000100");
    assert_eq!(shown(&dir, "apr-1", SOON)["remindedAt"], reminded);
}

#[test]
fn nobody_is_reminded_unless_it_is_configured_and_a_reload_can_do_that() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let server = server(&dir, &slack, "");
    write_approval(&dir, &ending("apr-1", 50));
    // That these expire tells that two rounds were made.
    for (n, id) in ["expired-1", "expired-2"].into_iter().enumerate() {
        write_approval(&dir, &ending(id, 0));
        slack.wait_for("chat.update", n + 1, SOON);
    }
    assert!(threads(&slack).is_empty());
    fs::write(server.config_file(), MINUTE).unwrap();
    server.signal(Signal::HUP);
    slack.wait_for("chat.postMessage", 1, SOON);
    assert_eq!(threads(&slack).len(), 1);
}

#[test]
fn when_to_remind_is_said_in_milliseconds() {
    for value in ["soon", "-1", "1.5", "5m", "99999999999999"] {
        let config = format!("approvals:\n  remindBeforeMs: {value}\n");
        let finished = Server::builder().config(&config).start_expecting_failure();
        let error = &finished.stderr;
        assert_eq!(finished.status, Some(2), "{value}\n{error}");
        let start = "runbook: error: .runbook/config.yaml: line 2, column 19: approvals.remindBeforeMs should be a number of milliseconds";
        assert!(error.starts_with(start), "{value}\n{error}");
    }
}
