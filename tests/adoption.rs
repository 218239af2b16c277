//! Requests that another program only drops into the directory: each is shown in Slack, once.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{
    Click, Scratch, Server, dropped, eventually, fixture_text, now, read_approval, sample, settled,
    shown, with, write_approval,
};
use crate::stand_in::{Call, Failure, StandIn, Times};

/// How long something may take that nothing holds up, and a takeover after a death.
const SOON: Duration = Duration::from_secs(5);

const POST: &str = "chat.postMessage";

/// A dropped request with some fields set, and those that are null taken away.
fn request(id: &str, changes: &Value) -> Value {
    with(dropped(id, "C0DEPLOYS"), changes)
}

/// The ids of the approvals that were posted, sorted.
fn posted(slack: &StandIn) -> Vec<String> {
    let calls = slack.done(POST);
    let mut ids: Vec<String> = calls
        .iter()
        .map(|call| call.approval_id().to_owned())
        .collect();
    ids.sort();
    ids
}

/// Unix time of an RFC 3339 one.
fn unix(time: &Value) -> u64 {
    let time = humantime::parse_rfc3339(time.as_str().unwrap()).unwrap();
    time.duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

#[test]
fn a_dropped_request_is_posted_and_remembers_its_message() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let server = Server::builder().dir(&dir).slack(&slack).start();
    let before = now();
    write_approval(&dir, &dropped("apr-1", "#deployments"));
    let call = slack.wait_for(POST, 1, SOON).remove(0);
    assert_eq!(call.error, None);
    assert_eq!(call.body["channel"], "#deployments");

    let stored = shown(&dir, "apr-1", SOON * 2);
    assert_eq!(stored["status"], "pending");
    // A name is good for posting, and only the id for updating.
    assert_eq!(stored["slackChannel"], "C0BYNAME01");
    assert_eq!(stored["slackChannel"], call.answer["channel"]);
    assert_eq!(stored["slackMessageTs"], call.answer["ts"]);
    let expiry = unix(&stored["expiresAt"]);
    assert!((before + 300..=now() + 301).contains(&expiry), "{stored}");
    let said = stored["expiresAt"].as_str().unwrap();
    let said = format!("Expires: {} {} UTC", &said[..10], &said[11..19]);
    assert!(call.body.to_string().contains(&said), "{said} in {call:?}");
    let log = server.wait_for_log("Approval request posted", SOON);
    assert!(log.contains("  Approval ID: apr-1\n"), "{log}");

    let click = Click::approve("apr-1").on(&call);
    server.click(&click);
    let update = &slack.wait_for("chat.update", 1, SOON)[0];
    assert_eq!(update.error, None);
    assert_eq!(update.body["ts"], call.answer["ts"]);
    assert!(update.body.to_string().contains("✅ Approval Granted"));
    assert_eq!(slack.calls_of(POST).len(), 1);
}

#[test]
fn the_message_shows_the_whole_request_as_documented() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let _server = Server::builder().dir(&dir).slack(&slack).start();
    write_approval(
        &dir,
        &request(
            "apr-full",
            &json!({
                "riskLevel": "critical",
                "description": "Room for the sale",
                "requestedBy": "<@U0ASKER01>",
                "investigationId": "inv-7",
                "resource": "checkout & co",
                "estimatedImpact": "none",
                "expiresAt": "2099-01-15T15:35:00Z",
            }),
        ),
    );
    let call = slack.wait_for(POST, 1, SOON).remove(0);
    assert_eq!(call.error, None);
    let mut body = call.body.clone();
    let block_id = body["blocks"][4]["block_id"].take();
    let digest = block_id.as_str().unwrap().strip_prefix("sha256:").unwrap();
    assert!(
        digest.len() == 64
            && digest
                .bytes()
                .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    );
    let plain = |text: &str| json!({"type": "plain_text", "text": text, "emoji": false});
    let label = |text: &str| json!({"type": "plain_text", "text": text, "emoji": true});
    let rollback = "aws ecs update-service --desired-count 4";
    let operation =
        "Operation: Room for the sale\nscale_ecs_service\nservice: checkout-api\ndesiredCount: 8";
    assert_eq!(
        body,
        json!({
            "channel": "C0DEPLOYS",
            "text": format!("🔐 Runbook Approval Request\n{operation}\nRisk Level: CRITICAL 🔴\n\
                Requested by: &lt;@U0ASKER01&gt;\nInvestigation: inv-7\nResource: checkout &amp; co\n\
                Estimated impact: none\nExpires: 2099-01-15 15:35:00 UTC\nRollback: {rollback}"),
            "blocks": [
                {"type": "header", "text": label("🔐 Runbook Approval Request")},
                {"type": "section", "fields": [
                    plain(operation),
                    plain("Risk Level: CRITICAL 🔴"),
                    plain("Requested by: <@U0ASKER01>"),
                    plain("Investigation: inv-7"),
                    plain("Resource: checkout & co"),
                    plain("Estimated impact: none"),
                    plain("Expires: 2099-01-15 15:35:00 UTC"),
                ]},
                {"type": "section", "text": plain("Rollback:")},
                {"type": "rich_text", "elements": [
                    {"type": "rich_text_preformatted", "elements": [{"type": "text", "text": rollback}]},
                ]},
                {"type": "actions", "block_id": null, "elements": [
                    {"type": "button", "action_id": "approve", "style": "primary",
                        "text": label("✅ Approve"), "value": "apr-full",
                        "confirm": {
                            "title": plain("Are you sure?"),
                            "text": plain("This approves a critical risk operation: scale_ecs_service"),
                            "confirm": plain("Approve"), "deny": plain("Cancel"), "style": "danger",
                        }},
                    {"type": "button", "action_id": "deny", "style": "danger",
                        "text": label("❌ Deny"), "value": "apr-full"},
                ]},
            ],
            "link_names": false, "unfurl_links": false, "unfurl_media": false,
        })
    );
}

#[test]
fn what_is_not_asked_is_not_shown_and_only_high_and_critical_ask_twice() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let _server = Server::builder().dir(&dir).slack(&slack).start();
    for (id, level, risk, asks_twice) in [
        ("apr-low", json!("low"), "Risk Level: LOW 🟢", false),
        (
            "apr-medium",
            json!("medium"),
            "Risk Level: MEDIUM 🟡",
            false,
        ),
        ("apr-high", json!("High"), "Risk Level: HIGH 🟠", true),
        ("apr-none", Value::Null, "Risk Level: HIGH 🟠", true),
    ] {
        let bare = json!({ "riskLevel": level, "args": null, "rollbackCommand": null });
        write_approval(&dir, &request(id, &bare));
        shown(&dir, id, SOON * 2);
        let call = slack.done(POST).pop().unwrap();
        assert_eq!(call.approval_id(), id);
        let kinds: Vec<&str> = call
            .blocks()
            .iter()
            .map(|b| b["type"].as_str().unwrap())
            .collect();
        assert_eq!(kinds, ["header", "section", "actions"], "{id}");
        let fields = call.body["blocks"][1]["fields"].as_array().unwrap();
        let texts: Vec<&str> = fields.iter().map(|f| f["text"].as_str().unwrap()).collect();
        assert_eq!(texts[..2], ["Operation: scale_ecs_service", risk]);
        assert!(
            texts[2].starts_with("Expires: 20") && texts.len() == 3,
            "{texts:?}"
        );
        let [approve, deny] = &call.buttons().unwrap()["elements"].as_array().unwrap()[..] else {
            panic!("two buttons expected: {call:?}")
        };
        assert_eq!(approve.get("confirm").is_some(), asks_twice, "{id}");
        assert!(deny.get("confirm").is_none());
    }
}

#[test]
fn the_channel_is_the_requests_own_then_the_configured_ones() {
    let both = "incident: {slack: {approvalChannel: C0APPROVAL, defaultChannel: C0DEFAULT}}";
    let default = "incident: {slack: {defaultChannel: C0DEFAULT}}";
    for (own, config, variable, expected) in [
        (json!("C0OWN"), both, "C0ENV", "C0OWN"),
        (Value::Null, both, "C0ENV", "C0APPROVAL"),
        (json!(""), both, "C0ENV", "C0APPROVAL"),
        (Value::Null, default, "C0ENV", "C0ENV"),
        (Value::Null, default, "", "C0DEFAULT"),
        (Value::Null, "", "C0ENV", "C0ENV"),
    ] {
        let (slack, dir) = (StandIn::start(), Scratch::new());
        let server = Server::builder().dir(&dir).slack(&slack).config(config);
        let _server = server.env("SLACK_DEFAULT_CHANNEL", variable).start();
        write_approval(&dir, &request("apr-1", &json!({ "slackChannel": own })));
        let call = &slack.wait_for(POST, 1, SOON)[0];
        assert_eq!(
            call.body["channel"], expected,
            "{own} {config} {variable:?}"
        );
        assert_eq!(shown(&dir, "apr-1", SOON * 2)["slackChannel"], expected);
    }
}

/// Drops twenty requests before some servers, five to a channel, for more have to wait for their turn.
fn each_is_posted_once_by(servers: usize) {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let servers: Vec<Server> = (0..servers)
        .map(|_| Server::builder().dir(&dir).slack(&slack).start())
        .collect();
    let ids: Vec<String> = (10..30).map(|n| format!("apr-{n}")).collect();
    for (n, id) in ids.iter().enumerate() {
        write_approval(&dir, &dropped(id, &format!("C0ROOM{}", n / 5)));
    }
    for id in &ids {
        shown(&dir, id, SOON * 2);
    }
    for server in &servers {
        assert!(server.terminate().success());
    }
    assert_eq!(posted(&slack), ids);
    assert_eq!(
        slack.calls_of(POST).len(),
        ids.len(),
        "some posts were refused"
    );
    for call in slack.done(POST) {
        let stored = read_approval(&dir, call.approval_id());
        assert_eq!(stored["slackMessageTs"], call.answer["ts"]);
        assert_eq!(stored["slackChannel"], call.answer["channel"]);
    }
}

#[test]
fn thousands_that_expire_together_hold_up_neither_a_new_request_nor_what_a_dead_server_owed() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    for n in 0..2000 {
        let mut expired = sample(&format!("apr-old-{n}"));
        expired["expiresAt"] = json!("2024-01-15T15:35:00Z");
        write_approval(&dir, &expired);
    }
    let mut orphan = sample("apr-orphan");
    orphan["status"] = json!("denied");
    orphan["decidedAt"] = json!("2024-01-15T15:30:45Z");
    orphan["decidedBy"] = json!({"id": "U1", "username": "alice", "name": "Alice"});
    let since = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
    orphan["effectsOwed"] = json!([{"effect": "updateMessage", "owner": "adeadserversname",
        "since": since, "route": {"channel": "C0ORPHANS", "ts": "1705333800.000100"}}]);
    write_approval(&dir, &orphan);
    write_approval(&dir, &dropped("apr-new", "C0DEPLOYS"));
    let server = Server::builder().dir(&dir).slack(&slack).start();
    let update = |call: &Call| call.body["channel"] == "C0ORPHANS";
    eventually("both to be done", SOON * 4, || {
        let updated = slack.done("chat.update").iter().any(update);
        (updated && posted(&slack) == ["apr-new"]).then_some(())
    });
    let health = server.get("/health").json();
    assert!(
        health["pendingApprovals"].as_u64().unwrap() > 1,
        "they waited for all that expired: {health}"
    );
    server.kill();
}

#[test]
fn two_servers_post_each_of_twenty_requests_once() {
    each_is_posted_once_by(2);
}

#[test]
fn four_servers_post_each_of_twenty_requests_once() {
    each_is_posted_once_by(4);
}

#[test]
fn what_was_dropped_while_no_server_ran_is_posted_by_the_next_and_by_no_other_after_it() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    write_approval(&dir, &dropped("apr-1", "C0DEPLOYS"));
    for round in 0..3 {
        let server = Server::builder().dir(&dir).slack(&slack).start();
        shown(&dir, "apr-1", SOON * 2);
        let sentinel = format!("apr-sentinel{round}");
        write_approval(&dir, &dropped(&sentinel, "C0DEPLOYS"));
        shown(&dir, &sentinel, SOON * 2);
        assert!(server.terminate().success());
    }
    let expected = ["apr-1", "apr-sentinel0", "apr-sentinel1", "apr-sentinel2"];
    assert_eq!(posted(&slack), expected);
}

#[test]
fn when_a_server_dies_while_its_post_hangs_another_posts() {
    let (hanging, slack, dir) = (StandIn::start(), StandIn::start(), Scratch::new());
    hanging.fail_method(POST, Failure::Hang, Times::Forever);
    let posting = Server::builder().dir(&dir).slack(&hanging).start();
    write_approval(&dir, &dropped("apr-1", "C0DEPLOYS"));
    hanging.wait_for(POST, 1, SOON);
    let other = Server::builder().dir(&dir).slack(&slack).start();
    // The other one is at work, and leaves alone what a living one has promised.
    write_approval(&dir, &dropped("apr-2", "C0DEPLOYS"));
    eventually("somebody to see to the second request", SOON, || {
        let tried = hanging.calls_of(POST).len() + slack.calls_of(POST).len();
        (tried > 1).then_some(())
    });
    assert!(!posted(&slack).contains(&"apr-1".to_owned()));

    posting.kill();
    shown(&dir, "apr-1", SOON * 2);
    shown(&dir, "apr-2", SOON * 2);
    assert!(other.terminate().success());
    assert_eq!(posted(&slack), ["apr-1", "apr-2"]);
}

#[test]
fn a_server_without_a_token_takes_a_promise_over_and_keeps_it_for_one_with_a_token() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    slack.fail_method(POST, Failure::Hang, Times::Forever);
    let dying = Server::builder().dir(&dir).slack(&slack).start();
    write_approval(&dir, &dropped("apr-1", "C0DEPLOYS"));
    slack.wait_for(POST, 1, SOON);
    dying.kill();
    let poor = Server::builder()
        .dir(&dir)
        .slack(&slack)
        .without_token()
        .start();
    poor.wait_for_log("posting it needs a bot token and a channel", SOON);
    // It is no refusal of Slack's.
    assert_eq!(read_approval(&dir, "apr-1")["status"], "pending");
    assert!(poor.terminate().success());
    slack.recover();
    let _rich = Server::builder().dir(&dir).slack(&slack).start();
    shown(&dir, "apr-1", SOON * 2);
    assert_eq!(posted(&slack), ["apr-1"]);
}

#[test]
fn without_a_channel_or_a_token_a_request_waits_with_one_warning_and_can_be_decided() {
    const WARNING: &str = "Nobody sees a request";
    for with_token in [true, false] {
        let (slack, dir) = (StandIn::start(), Scratch::new());
        let mut server = Server::builder().dir(&dir).slack(&slack);
        if !with_token {
            server = server.without_token();
        }
        let server = server.start();
        let channel = if with_token {
            Value::Null
        } else {
            "C0DEPLOYS".into()
        };
        write_approval(&dir, &request("apr-1", &json!({ "slackChannel": channel })));
        let unseen = read_approval(&dir, "apr-1");
        let log = server.wait_for_log(WARNING, SOON);
        assert!(log.contains("a bot token and a channel"), "{log}");
        // Several more rounds go by until a click that waits for its file is told that there is none.
        let late = Click::approve("mut-none").action_id("approve_mut-none");
        let late = late.response_url(slack.response_url("late"));
        server.interact(&late.payload());
        slack.wait_for("response_url", 1, SOON);
        assert_eq!(read_approval(&dir, "apr-1"), unseen);

        let click = Click::approve("apr-1");
        server.click(&click);
        assert_eq!(read_approval(&dir, "apr-1")["status"], "approved");
        assert!(server.terminate().success());
        assert_eq!(server.log().matches(WARNING).count(), 1);
        assert!(slack.calls_of(POST).is_empty());
    }
}

#[test]
fn a_reload_that_names_a_channel_posts_what_had_none() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let server = Server::builder()
        .dir(&dir)
        .slack(&slack)
        .config("safety: {}");
    let server = server.start();
    let nowhere = json!({ "slackChannel": null });
    write_approval(&dir, &request("apr-1", &nowhere));
    write_approval(&dir, &request("apr-2", &nowhere));
    eventually("both to be seen", SOON, || {
        let log = server.log();
        let seen = log
            .lines()
            .filter_map(|line| line.strip_prefix("  Requests: ")?.parse::<usize>().ok())
            .sum::<usize>();
        (seen == 2).then_some(())
    });
    write_approval(&dir, &request("apr-gone", &nowhere));
    fs::remove_file(dir.join("apr-gone.json")).unwrap();
    let config = "incident: {slack: {approvalChannel: C0LATE}}\nsafety: {approvalTimeoutMs: 60000}";
    fs::write(server.config_file(), config).unwrap();
    server.signal(Signal::HUP);
    let before = now();
    for id in ["apr-1", "apr-2"] {
        let stored = shown(&dir, id, SOON * 2);
        assert_eq!(stored["slackChannel"], "C0LATE");
        assert!(unix(&stored["expiresAt"]) < before + 100, "{stored}");
    }
    assert!(server.terminate().success());
    assert_eq!(posted(&slack), ["apr-1", "apr-2"]);
}

#[test]
fn what_we_do_not_know_keeps_its_place_and_its_spelling_when_a_request_is_posted() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let _server = Server::builder().dir(&dir).slack(&slack).start();
    let text = r#"{"zeta":1e400,"id":"apr-1","operation":"scale","ours":{"b":[1.50,null,"é\u0000"],"a":{}},
        "slackChannel":"C0DEPLOYS","status":"pending","expiresAt":"2099-01-01T00:00:00.5+02:00","alpha":-0.0}"#;
    let unfinished = dir.join(".unfinished");
    fs::write(&unfinished, text).unwrap();
    fs::rename(unfinished, dir.join("apr-1.json")).unwrap();
    let mut stored = shown(&dir, "apr-1", SOON * 2);
    let fields = stored.as_object_mut().unwrap();
    for ours in ["slackMessageTs", "slackMessageDigest", "recordedAt"] {
        assert!(fields.shift_remove(ours).is_some(), "{ours}");
    }
    let before: Value = serde_json::from_str(text).unwrap();
    assert_eq!(stored.to_string(), before.to_string());
}

#[test]
fn nothing_is_posted_but_what_is_open_whole_and_unseen() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let mut kept = vec![("apr-seen.json", sample("apr-seen").to_string())];
    let decided = |status: &str, id: &str| {
        let decided = json!({ "status": status, "decidedAt": "2099-01-01T00:00:00Z" });
        request(id, &decided).to_string()
    };
    kept.push(("apr-yes.json", decided("approved", "apr-yes")));
    kept.push(("apr-no.json", decided("denied", "apr-no")));
    kept.push(("apr-late.json", decided("expired", "apr-late")));
    kept.push(("apr-never.json", decided("cancelled", "apr-never")));
    // It stands where others look for messages, under a name of its own.
    let no_channel = json!({ "slackMessageTs": "1705333800.000100", "slackChannel": null });
    kept.push(("apr-ts.json", request("apr-ts", &no_channel).to_string()));
    for name in [
        "half-written.json",
        "not-json.json",
        "no-operation.json",
        "no-status.json",
        "other-id.json",
        "duplicate-key.json",
        "unknown-risk.json",
        "mut-9f3a2c_pending.json",
    ] {
        kept.push((name, fixture_text(&format!("approvals/{name}"))));
    }
    kept.push(("empty.json", String::new()));
    kept.push((".apr-hidden.json", dropped("apr-hidden", "C0A").to_string()));
    kept.push(("apr-1.json.tmp", dropped("apr-1", "C0A").to_string()));
    fs::create_dir(dir.join("archive")).unwrap();
    kept.push((
        "archive/apr-old.json",
        dropped("apr-old", "C0A").to_string(),
    ));
    for (name, text) in &kept {
        fs::write(dir.join(name), text).unwrap();
    }
    let server = Server::builder().dir(&dir).slack(&slack).start();
    let past = json!({ "expiresAt": "2020-01-01T00:00:00Z" });
    write_approval(&dir, &request("apr-past", &past));
    write_approval(&dir, &dropped("apr-last", "C0DEPLOYS"));
    shown(&dir, "apr-last", SOON * 2);
    eventually("the late one to be closed", SOON, || {
        (read_approval(&dir, "apr-past")["status"] == "expired").then_some(())
    });
    assert!(server.terminate().success());
    assert_eq!(posted(&slack), ["apr-last"]);
    assert_eq!(slack.calls().len(), 1, "{:?}", slack.calls());
    for (name, text) in &kept {
        assert_eq!(&fs::read_to_string(dir.join(name)).unwrap(), text, "{name}");
    }
}

#[test]
fn a_file_that_is_repaired_is_posted() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    fs::write(dir.join("apr-1.json"), "{\"id\":\"apr-1\",").unwrap();
    let server = Server::builder().dir(&dir).slack(&slack).start();
    server.wait_for_log("Unreadable approval file", SOON);
    write_approval(&dir, &dropped("apr-1", "C0DEPLOYS"));
    shown(&dir, "apr-1", SOON * 2);
    assert_eq!(posted(&slack), ["apr-1"]);
}

/// Every text in a message that Slack reads as markup: mrkdwn, and the plain fallback.
fn markup(call: &Call) -> Vec<String> {
    fn visit(value: &Value, found: &mut Vec<String>) {
        if value["type"] == "mrkdwn" {
            found.push(value["text"].as_str().unwrap().to_owned());
        }
        match value {
            Value::Array(items) => items.iter().for_each(|item| visit(item, found)),
            Value::Object(fields) => fields.values().for_each(|field| visit(field, found)),
            _ => {}
        }
    }
    let mut found = vec![call.body["text"].as_str().unwrap().to_owned()];
    visit(&call.body["blocks"], &mut found);
    found
}

#[test]
fn no_text_however_long_or_hostile_keeps_a_message_from_slack_or_pings_anybody() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let server = Server::builder().dir(&dir).slack(&slack).start();
    for (n, piece) in [
        "x",
        "<!channel>",
        "<!here> <@U061F7AUR> <#C1> <http://evil.example|click>",
        "```",
        "`*_~>&<",
        "&amp;&lt;!channel&gt;",
        "🔥",
        "👩‍👩‍👧‍👦\u{202e}",
        "\u{0}\u{1b}[31m\r\n",
        "\n",
        " ",
        "\\\"",
        "e\u{301}/",
        ":wave: @channel",
    ]
    .into_iter()
    .enumerate()
    {
        let long = piece.repeat(20_000 / piece.chars().count());
        let id = format!("apr-{n}");
        let mut hostile = json!({ "args": { (long.clone()): long, "list": [{ "k": long }] },
            "command": [long], "slackChannel": format!("C0ROOM{n}") });
        for field in [
            "description",
            "resource",
            "estimatedImpact",
            "requestedBy",
            "investigationId",
            "rollbackCommand",
            "directory",
        ] {
            hostile[field] = long.clone().into();
        }
        // Blanks alone would be no operation.
        hostile["operation"] = format!("scale {long}").into();
        write_approval(&dir, &request(&id, &hostile));
        shown(&dir, &id, SOON * 2);
        let post = slack.calls_of(POST).pop().unwrap();
        assert_eq!(post.error, None, "{piece:?}");
        let clicker = format!("U0ALICE{n}");
        let click = Click::approve(&id)
            .on(&post)
            .by(&clicker, &piece.repeat(100));
        server.click(&click);
        let update = slack.wait_for("chat.update", n + 1, SOON).pop().unwrap();
        assert_eq!(update.error, None, "{piece:?} {:?}", update.answer);
        for call in [&post, &update] {
            for text in markup(call) {
                let ours = format!("<@{clicker}>");
                assert!(
                    !text.replace(&ours, "").contains(['<', '>']),
                    "{piece:?}: {text}"
                );
            }
        }
    }
}

#[test]
fn slack_may_fail_as_it_likes_and_a_request_is_posted_once_when_it_recovers() {
    for failure in [
        Failure::Status(503),
        Failure::NotOk("internal_error"),
        Failure::Garbage,
        Failure::CloseWithoutAnswer,
        Failure::RateLimited {
            retry_after_seconds: 1,
        },
        Failure::Hang,
    ] {
        let (slack, dir) = (StandIn::start(), Scratch::new());
        let server = Server::builder().dir(&dir).slack(&slack).start();
        slack.fail_method(POST, failure, Times::Forever);
        write_approval(&dir, &dropped("apr-1", "C0DEPLOYS"));
        slack.wait_for(POST, 1, SOON);
        slack.recover();
        let stored = shown(&dir, "apr-1", SOON * 2);
        assert_eq!(stored["status"], "pending", "{failure:?}");
        assert!(stored.get("effectsFailed").is_none(), "{failure:?}");
        assert!(server.terminate().success());
        assert_eq!(posted(&slack), ["apr-1"], "{failure:?}");
    }
}

#[test]
fn a_request_that_waited_for_its_channels_turn_is_tried_again_as_soon_as_any_other() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let _server = Server::builder().dir(&dir).slack(&slack).start();
    for n in 0..10 {
        write_approval(&dir, &dropped(&format!("apr-{n}"), "C0DEPLOYS"));
    }
    // Five go at once, then one a second: the last one has been put off several times.
    slack.wait_for(POST, 9, SOON * 2);
    slack.fail_method(POST, Failure::Status(500), Times::Next(1));
    let calls = slack.wait_for(POST, 11, SOON);
    assert_eq!(calls.iter().filter(|call| call.error.is_some()).count(), 1);
    for n in 0..10 {
        shown(&dir, &format!("apr-{n}"), SOON * 2);
    }
}

#[test]
fn a_request_that_is_decided_while_its_post_hangs_shows_the_decision() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let server = Server::builder().dir(&dir).slack(&slack).start();
    slack.fail_method(POST, Failure::Hang, Times::Next(1));
    write_approval(&dir, &dropped("apr-1", "C0DEPLOYS"));
    slack.wait_for(POST, 1, SOON);
    let click = Click::deny("apr-1");
    server.click(&click);
    slack.recover();
    settled(&dir, "apr-1", SOON);
    // Nobody asks for what is decided.
    assert!(slack.done(POST).is_empty());
    assert_eq!(read_approval(&dir, "apr-1")["status"], "denied");
}

/// Asks until so many are pending: where the kernel does not watch, that takes a moment.
fn counted(server: &Server, pending: u64) {
    eventually("the count to be right", SOON, || {
        let counted = &server.get("/health").json()["pendingApprovals"];
        (*counted == pending).then_some(())
    });
}

#[test]
fn a_request_that_can_just_be_read_can_still_be_read_when_it_was_posted_and_decided() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let server = Server::builder().dir(&dir).slack(&slack).start();
    // Written as tightly as can be, and much longer with every item on a line of its own, far to the right.
    let deep = (0..100).fold(json!(vec![7; 6000]), |inner, _| json!([inner]));
    let args = json!({ "deep": deep });
    let request = request("apr-1", &json!({ "args": args })).to_string();
    let pretty = format!("{:#}", serde_json::from_str::<Value>(&request).unwrap());
    assert!(request.len() < 1 << 16 && pretty.len() > 1 << 20);
    fs::write(dir.join(".unfinished"), &request).unwrap();
    fs::rename(dir.join(".unfinished"), dir.join("apr-1.json")).unwrap();
    let post = slack.wait_for(POST, 1, SOON).remove(0);
    shown(&dir, "apr-1", SOON * 2);
    let click = Click::approve("apr-1").on(&post);
    server.click(&click);
    let update = &slack.wait_for("chat.update", 1, SOON)[0];
    assert_eq!(update.error, None);
    assert_eq!(settled(&dir, "apr-1", SOON)["status"], "approved");
    counted(&server, 0);
    assert!(!server.log().contains("Unreadable"), "{}", server.log());
}

#[test]
fn a_request_that_would_become_too_large_to_be_read_is_left_as_it_is() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let server = Server::builder().dir(&dir).slack(&slack).start();
    server.expect_errors();
    let mut request = request("apr-1", &json!({ "unknown": "" }));
    let room = (1 << 20) - request.to_string().len();
    request["unknown"] = "x".repeat(room).into();
    let text = request.to_string();
    fs::write(dir.join(".unfinished"), &text).unwrap();
    fs::rename(dir.join(".unfinished"), dir.join("apr-1.json")).unwrap();
    server.wait_for_log("Cannot adopt an approval", SOON);
    server.wait_for_log("it would be larger than 1 MiB", SOON);
    let click = Click::approve("apr-1");
    assert_eq!(server.interact(&click.payload()).status, 500);
    assert!(server.terminate().success());
    assert!(slack.calls_of(POST).is_empty());
    assert_eq!(fs::read_to_string(dir.join("apr-1.json")).unwrap(), text);
}

#[test]
fn a_request_nested_as_deeply_as_json_may_be_is_counted_posted_and_decided() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let server = Server::builder().dir(&dir).slack(&slack).start();
    for (n, nest) in [|inner| json!([inner]), |inner| json!({ "k": inner })]
        .into_iter()
        .enumerate()
    {
        let id = format!("apr-{n}");
        let deep: Value = (0..120).fold(json!(7), |inner, _| nest(inner));
        write_approval(&dir, &request(&id, &json!({ "args": { "deep": deep } })));
        // Whoever comes first reads it.
        counted(&server, 1);
        shown(&dir, &id, SOON * 2);
        let post = slack.done(POST).pop().unwrap();
        let click = Click::approve(&id).on(&post);
        server.click(&click);
        counted(&server, 0);
    }
}
