//! The Home tab: what a person may decide, always as it is now, with buttons that work.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{
    Click, Scratch, Server, asked_at, eventually, fixture, now, read_approval, runbook,
    write_approval,
};
use crate::stand_in::{Call, Failure, StandIn, Times};

/// How long something may take that nothing holds up.
const SOON: Duration = Duration::from_secs(5);

/// Somebody opens the Home tab.
fn open(server: &Server, user: &str) {
    static EVENTS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    let number = EVENTS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let mut event = fixture("slack/events_app_home_opened.json");
    event["event_id"] = format!("Ev{number}").into();
    event["event"]["user"] = user.into();
    assert_eq!(server.event(&event).status, 200);
}

/// The ids whose buttons a view shows, in order.
fn shown(view: &Call) -> Vec<&str> {
    assert_eq!(view.error, None, "{}", view.body);
    let blocks = view.body["view"]["blocks"].as_array().unwrap();
    let actions = blocks.iter().filter(|block| block["type"] == "actions");
    let id = |block: &'_ Value| {
        let [approve, deny] = [0, 1].map(|n| &block["elements"][n]);
        assert_eq!(approve["value"], deny["value"]);
        assert_eq!(
            (&approve["action_id"], &deny["action_id"]),
            (&json!("approve"), &json!("deny"))
        );
    };
    actions
        .inspect(|block| id(block))
        .map(|block| block["elements"][0]["value"].as_str().unwrap())
        .collect()
}

/// Waits until the last view of a person shows exactly these.
fn wait_for_view(slack: &StandIn, user: &str, ids: &[&str]) -> Call {
    eventually(
        &format!("the Home tab of {user} to show {ids:?}"),
        SOON,
        || {
            let views = slack.calls_of("views.publish");
            let last = views
                .into_iter()
                .rfind(|view| view.body["user_id"] == user)?;
            (last.error.is_none() && shown(&last) == ids).then_some(last)
        },
    )
}

/// A click on a button of a view, as Slack sends it.
fn click(view: &Call, id: &str, action: usize, user: &str) -> Value {
    let blocks = view.body["view"]["blocks"].as_array().unwrap();
    let block = blocks
        .iter()
        .find(|block| block["elements"][action]["value"] == id)
        .unwrap();
    let mut click = fixture("slack/block_actions_from_home_tab.json");
    click["user"] = json!({ "id": user, "username": user, "name": user, "team_id": "T0001" });
    click["view"]["blocks"] = view.body["view"]["blocks"].clone();
    click["actions"] = json!([block["elements"][action]]);
    click["actions"][0]["block_id"] = block["block_id"].clone();
    click["actions"][0]["action_ts"] = format!("{}.000001", now()).into();
    click
}

#[test]
fn it_shows_what_that_person_may_decide_newest_first() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let vote = json!([{ "decision": "approve", "at": "2024-01-15T12:30:00Z",
        "by": { "id": "U061F7AUR", "username": "alice", "name": "alice" } }]);
    for (id, minute, changes) in [
        ("apr-old", 1, json!({ "riskLevel": "low" })),
        ("apr-new", 3, json!({ "riskLevel": "low" })),
        (
            "apr-middle",
            2,
            json!({ "riskLevel": "critical", "requestedBy": "agent", "expiresAt": "2999-01-01T00:00:00Z" }),
        ),
        ("apr-own", 4, json!({ "requestedBy": "<@U061F7AUR>" })),
        (
            "apr-voted",
            5,
            json!({ "riskLevel": "critical", "decisions": vote }),
        ),
        ("apr-others", 6, json!({ "riskLevel": "medium" })),
        (
            "apr-groups",
            6,
            json!({ "riskLevel": "medium", "operation": "for a group" }),
        ),
        (
            "apr-over",
            7,
            json!({ "expiresAt": "2024-01-15T12:31:00Z" }),
        ),
        ("apr-decided", 8, json!({ "status": "approved" })),
    ] {
        write_approval(&dir, &asked_at(id, minute, &changes));
    }
    let policy = "safety:\n  multiApproverForCritical: true\n  approvers:\n    medium:\n      users: [U0BOB0001]\n";
    let server = Server::builder()
        .dir(&dir)
        .slack(&slack)
        .config(policy)
        .start();
    open(&server, "U061F7AUR");
    let view = wait_for_view(&slack, "U061F7AUR", &["apr-new", "apr-middle", "apr-old"]);
    let text = view.body["view"].to_string();
    for said in [
        "scale_ecs_service",
        "CRITICAL 🔴",
        "LOW 🟢",
        "Requested by: agent",
        "Expires: 2999-01-01 00:00:00 UTC",
        "desiredCount: 8",
    ] {
        assert!(text.contains(said), "{said} in {text}");
    }
    // Only what is risky asks again.
    assert_eq!(text.matches("Are you sure?").count(), 1, "{text}");

    open(&server, "U0BOB0001");
    let all = [
        "apr-groups",
        "apr-others",
        "apr-voted",
        "apr-own",
        "apr-new",
        "apr-middle",
        "apr-old",
    ];
    wait_for_view(&slack, "U0BOB0001", &all);
}

#[test]
fn an_empty_one_says_so_and_needs_no_approval() {
    let slack = StandIn::start();
    let server = Server::builder().slack(&slack).start();
    open(&server, "U061F7AUR");
    let view = wait_for_view(&slack, "U061F7AUR", &[]);
    let text = view.body["view"].to_string();
    assert!(text.contains("Nothing waits for your decision."), "{text}");
}

#[test]
fn a_click_on_it_decides_and_everybody_sees_that() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    for (id, minute) in [("apr-1", 1), ("apr-2", 2)] {
        write_approval(&dir, &asked_at(id, minute, &json!({})));
    }
    let server = Server::builder().dir(&dir).slack(&slack).start();
    for user in ["U061F7AUR", "U0BOB0001"] {
        open(&server, user);
        wait_for_view(&slack, user, &["apr-2", "apr-1"]);
    }
    let view = wait_for_view(&slack, "U061F7AUR", &["apr-2", "apr-1"]);
    let answer = server.interact(&click(&view, "apr-1", 0, "U061F7AUR"));
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    let stored = read_approval(&dir, "apr-1");
    assert_eq!(stored["status"], "approved");
    assert!(stored["decisions"][0]["seen"].is_string(), "{stored}");
    let update = &slack.wait_for("chat.update", 1, SOON)[0];
    assert_eq!(update.body["ts"], "1705333800.000100");
    for user in ["U061F7AUR", "U0BOB0001"] {
        wait_for_view(&slack, user, &["apr-2"]);
    }
    let denied = click(&view, "apr-2", 1, "U061F7AUR");
    assert_eq!(server.interact(&denied).status, 200);
    assert_eq!(read_approval(&dir, "apr-2")["status"], "denied");
    wait_for_view(&slack, "U0BOB0001", &[]);
}

#[test]
fn a_click_on_an_old_view_is_told_privately_in_the_approvals_channel() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    write_approval(
        &dir,
        &asked_at("apr-1", 1, &json!({ "slackChannel": "C0OTHER001" })),
    );
    let server = Server::builder()
        .dir(&dir)
        .slack(&slack)
        .env("SLACK_DEFAULT_CHANNEL", "C0DEFAULT1")
        .start();
    open(&server, "U061F7AUR");
    let view = wait_for_view(&slack, "U061F7AUR", &["apr-1"]);
    server.interact(&Click::deny("apr-1").by("U0BOB0001", "bob").payload());
    // A server that was started since knows nobody who has the tab open.
    let second = Server::builder()
        .dir(&dir)
        .slack(&slack)
        .env("SLACK_DEFAULT_CHANNEL", "C0DEFAULT1")
        .start();
    let views = slack.calls_of("views.publish").len();
    let late = click(&view, "apr-1", 0, "U0CAROL01");
    assert_eq!(second.interact(&late).status, 200);
    let word = &slack.wait_for("chat.postEphemeral", 1, SOON)[0];
    assert_eq!(
        (&word.body["channel"], &word.body["user"]),
        (&json!("C0OTHER001"), &json!("U0CAROL01"))
    );
    let text = word.body["text"].as_str().unwrap();
    assert!(text.contains("already denied by <@U0BOB0001>"), "{text}");
    slack.wait_for("views.publish", views + 1, SOON);
    wait_for_view(&slack, "U0CAROL01", &[]);

    // What no approval stands behind is told in the configured channel.
    let mut unknown = late;
    unknown["actions"][0]["value"] = "apr-gone".into();
    assert_eq!(server.interact(&unknown).status, 200);
    let word = &slack.wait_for("chat.postEphemeral", 2, SOON)[1];
    assert_eq!(word.body["channel"], "C0DEFAULT1");
    assert_eq!(read_approval(&dir, "apr-1")["status"], "denied");
}

#[test]
fn a_word_that_slack_refuses_stands_in_the_log_and_the_tab_is_shown_anew() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let channel = json!({ "slackChannel": "C0PRIVATE1" });
    write_approval(&dir, &asked_at("apr-1", 1, &channel));
    let server = Server::builder().dir(&dir).slack(&slack).start();
    open(&server, "U061F7AUR");
    let view = wait_for_view(&slack, "U061F7AUR", &["apr-1"]);
    server.interact(&Click::deny("apr-1").by("U0BOB0001", "bob").payload());
    let mut gone = click(&view, "apr-1", 0, "U061F7AUR");
    gone["actions"][0]["value"] = "apr-gone".into();
    for (n, (late, error, why)) in [
        (
            click(&view, "apr-1", 0, "U061F7AUR"),
            "not_in_channel",
            "not_in_channel",
        ),
        (
            click(&view, "apr-1", 0, "U061F7AUR"),
            "channel_not_found",
            "channel_not_found",
        ),
        // Nothing says where its channel was, and none is configured.
        (gone, "", "no channel is known for it"),
    ]
    .into_iter()
    .enumerate()
    {
        wait_for_view(&slack, "U061F7AUR", &[]);
        let views = slack.calls_of("views.publish").len();
        slack.fail_method("chat.postEphemeral", Failure::NotOk(error), Times::Next(1));
        assert_eq!(server.interact(&late).status, 200);
        let log = server.wait_for_log(why, SOON);
        let told = format!("Slack refused a private answer\n  Reason: {why}\n");
        assert!(log.contains(&told), "{log}");
        slack.wait_for("views.publish", views + 1, SOON);
        wait_for_view(&slack, "U061F7AUR", &[]);
        // Tried once each, in the approval's channel and nowhere else.
        let words = slack.calls_of("chat.postEphemeral");
        assert_eq!(words.len(), (n + 1).min(2));
        assert!(
            words
                .iter()
                .all(|word| word.body["channel"] == "C0PRIVATE1")
        );
    }
}

#[test]
fn a_vote_that_is_not_enough_is_told_privately_and_its_request_goes() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    write_approval(
        &dir,
        &asked_at("apr-1", 1, &json!({ "riskLevel": "critical" })),
    );
    let policy = "safety:\n  multiApproverForCritical: true\n";
    let server = Server::builder()
        .dir(&dir)
        .slack(&slack)
        .config(policy)
        .start();
    for user in ["U061F7AUR", "U0BOB0001"] {
        open(&server, user);
    }
    let view = wait_for_view(&slack, "U061F7AUR", &["apr-1"]);
    assert_eq!(
        server
            .interact(&click(&view, "apr-1", 0, "U061F7AUR"))
            .status,
        200
    );
    let word = &slack.wait_for("chat.postEphemeral", 1, SOON)[0];
    assert_eq!(word.body["text"], "Your approval counts: 1 of 2 needed.");
    assert_eq!(word.body["channel"], "C1234567890");
    wait_for_view(&slack, "U061F7AUR", &[]);
    wait_for_view(&slack, "U0BOB0001", &["apr-1"]);
}

#[test]
fn it_follows_whatever_happens_to_requests() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let server = Server::builder().dir(&dir).slack(&slack).start();
    open(&server, "U061F7AUR");
    wait_for_view(&slack, "U061F7AUR", &[]);

    let shown = |ids: &[&str]| wait_for_view(&slack, "U061F7AUR", ids);
    write_approval(&dir, &asked_at("apr-1", 1, &json!({})));
    shown(&["apr-1"]);
    write_approval(&dir, &asked_at("apr-2", 2, &json!({})));
    let before = shown(&["apr-2", "apr-1"]);

    // Its meaning changes: the old buttons decide nothing, the new ones do.
    write_approval(
        &dir,
        &asked_at("apr-1", 1, &json!({ "operation": "drop_database" })),
    );
    eventually("the change to be shown", SOON, || {
        let last = slack.calls_of("views.publish").pop()?;
        last.body
            .to_string()
            .contains("drop_database")
            .then_some(())
    });
    server.interact(&click(&before, "apr-1", 0, "U061F7AUR"));
    assert_eq!(read_approval(&dir, "apr-1")["status"], "pending");

    let withdrawn = runbook(server.working_dir())
        .args(["cancel", "apr-2", "--pending-dir"])
        .arg(dir.path())
        .output()
        .unwrap();
    assert!(withdrawn.status.success(), "{withdrawn:?}");
    shown(&["apr-1"]);
    let soon = humantime::format_rfc3339_millis(
        std::time::SystemTime::now() + Duration::from_millis(1500),
    );
    let limited = json!({ "expiresAt": soon.to_string() });
    write_approval(&dir, &asked_at("apr-3", 3, &limited));
    shown(&["apr-3", "apr-1"]);
    shown(&["apr-1"]);
    assert_eq!(read_approval(&dir, "apr-3")["status"], "expired");
}

#[test]
fn a_hundred_blocks_are_never_passed_and_the_rest_is_counted() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    for n in 0..60 {
        write_approval(&dir, &asked_at(&format!("apr-{n}"), n, &json!({})));
    }
    let server = Server::builder().dir(&dir).slack(&slack).start();
    open(&server, "U061F7AUR");
    let view = &slack.wait_for("views.publish", 1, SOON)[0];
    let ids = shown(view);
    assert_eq!((ids[0], ids[1]), ("apr-59", "apr-58"));
    let last = view.body["view"]["blocks"]
        .as_array()
        .unwrap()
        .last()
        .unwrap();
    let more = format!("{} more are not shown here.", 60 - ids.len());
    assert_eq!(last["text"]["text"], more.as_str());
}

#[test]
fn nothing_from_a_file_is_markup_or_too_much_for_slack() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let hostile = format!("<!channel> <@U1> *b* `c` & \u{202e}{}", "一🔥".repeat(40)).repeat(60);
    for n in 0..15 {
        let changes = json!({ "operation": hostile, "description": hostile, "requestedBy": hostile,
            "resource": hostile, "rollbackCommand": hostile, "args": { "x": hostile },
            "command": [hostile], "investigationId": hostile, "estimatedImpact": hostile });
        write_approval(&dir, &asked_at(&format!("apr-{n}"), n, &changes));
    }
    let server = Server::builder().dir(&dir).slack(&slack).start();
    open(&server, "U061F7AUR");
    let view = &slack.wait_for("views.publish", 1, SOON)[0];
    assert!(!shown(view).is_empty());
    assert!(!view.body["view"].to_string().contains("mrkdwn"));
}

#[test]
fn one_person_gets_at_most_one_view_a_second_and_the_last_one_is_right() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let server = Server::builder().dir(&dir).slack(&slack).start();
    for n in 0..30 {
        write_approval(&dir, &asked_at(&format!("apr-{n:02}"), n, &json!({})));
        open(&server, "U061F7AUR");
    }
    eventually("the last request to be shown", SOON, || {
        let last = slack.calls_of("views.publish").pop()?;
        (shown(&last)[0] == "apr-29").then_some(())
    });
    let views = slack.calls_of("views.publish");
    for pair in views.windows(2) {
        let apart = pair[1].at.duration_since(pair[0].at);
        assert!(apart > Duration::from_millis(900), "{apart:?}");
    }
}

#[test]
fn a_slack_that_hangs_holds_up_neither_answers_nor_messages() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    write_approval(&dir, &asked_at("apr-1", 1, &json!({})));
    let server = Server::builder().dir(&dir).slack(&slack).start();
    slack.fail_method("views.publish", Failure::Hang, Times::Forever);
    for n in 0..20 {
        open(&server, &format!("U0{n}"));
    }
    server.interact(&Click::approve("apr-1").payload());
    slack.wait_for("chat.update", 1, SOON);
    assert_eq!(slack.calls_of("views.publish").len(), 1);
}

#[test]
fn a_refused_view_is_told_once_and_a_failed_one_is_tried_again() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let server = Server::builder().dir(&dir).slack(&slack).start();
    slack.fail_method(
        "views.publish",
        Failure::NotOk("not_enabled"),
        Times::Next(1),
    );
    open(&server, "U061F7AUR");
    server.wait_for_log("Slack refused a Home tab", SOON);
    // Nobody is shown what Slack refuses to show, until they open it again.
    write_approval(&dir, &asked_at("apr-1", 1, &json!({})));
    slack.fail_method("views.publish", Failure::Status(500), Times::Next(1));
    open(&server, "U0BOB0001");
    wait_for_view(&slack, "U0BOB0001", &["apr-1"]);
    let users = slack.calls_of("views.publish");
    let alices = users
        .iter()
        .filter(|view| view.body["user_id"] == "U061F7AUR");
    assert_eq!(alices.count(), 1);
}

#[test]
fn without_a_token_there_is_none_and_nothing_fails() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    write_approval(&dir, &asked_at("apr-1", 1, &json!({})));
    let server = Server::builder()
        .dir(&dir)
        .slack(&slack)
        .without_token()
        .args(["--log-level", "debug"])
        .start();
    open(&server, "U061F7AUR");
    server.wait_for_log("A Home tab needs a bot token", SOON);
    let home = fixture("slack/block_actions_from_home_tab.json");
    assert_eq!(server.interact(&home).status, 200);
    server.terminate();
    assert!(slack.calls().is_empty());
}

#[test]
fn whoever_opens_theirs_in_another_workspace_is_shown_what_people_from_outside_may_decide() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    slack.fail_method("auth.test", Failure::Hang, Times::Forever);
    write_approval(&dir, &asked_at("apr-1", 1, &json!({})));
    let server = Server::builder().dir(&dir).slack(&slack).start();
    let opened = |id: &str, user: &str| {
        let mut event = fixture("slack/events_app_home_opened.json");
        event["event_id"] = id.into();
        event["event"]["user"] = user.into();
        event["team_id"] = "T0002".into();
        event
    };
    // The event itself says where the app is installed, and after a while Slack does.
    server.event(&opened("EvOutside1", "U0EVE"));
    wait_for_view(&slack, "U0EVE", &[]);
    slack.recover();
    eventually("auth.test", SOON * 3, || {
        let counted = "runbook_slack_calls_total{method=\"auth.test\",result=\"ok\"}";
        let metrics = server.get("/metrics").text();
        metrics.contains(counted).then_some(())
    });
    let mut silent = opened("EvOutside2", "U0FRANK");
    silent["authorizations"] = Value::Null;
    server.event(&silent);
    wait_for_view(&slack, "U0FRANK", &[]);
    open(&server, "U0ALICE");
    wait_for_view(&slack, "U0ALICE", &["apr-1"]);
}
