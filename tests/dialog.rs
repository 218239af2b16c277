//! A denial that has to say why: Deny opens a dialog, and what is submitted there decides.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use crate::harness::{
    Answer, Click, Finished, Server, all_files, eventually, fixture, read_approval, runbook,
    settled, write_approval,
};
use crate::scene::{LATE, SOON, Scene, by};
use crate::stand_in::{Failure, StandIn, Times};

const WHY: &str = "safety: {requireDenialReason: true}\n";
const LIST: &str = "usergroups.users.list";
const RELOADED: &str = "Configuration reloaded";

/// How long Slack lets a click open a dialog.
const TRIGGER: Duration = Duration::from_secs(3);

fn deny(user: &str, id: &str) -> Click {
    by(user, Click::deny(id))
}

/// Clicks Deny, and returns the dialog that opens.
fn dialog(scene: &Scene, click: &Click) -> Value {
    let before = scene.slack.calls_of("views.open").len();
    let url = scene.slack.response_url("dialog");
    let click = click.clone().response_url(url).payload();
    let answer = scene.server.interact(&click);
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    let call = scene.slack.wait_for("views.open", before + 1, SOON).pop();
    let call = call.unwrap();
    assert_eq!(call.error, None, "{call:?}");
    assert_eq!(call.body["trigger_id"], click["trigger_id"]);
    call.body["view"].clone()
}

/// What Slack sends when that person submits the dialog.
fn submission(view: &Value, user: &str, reason: impl Into<Value>) -> Value {
    let mut view = view.clone();
    view["id"] = "V0001".into();
    view["app_installed_team_id"] = "T0001".into();
    let input = json!({ "type": "plain_text_input", "value": reason.into() });
    view["state"] = json!({ "values": { "reason": { "reason": input } } });
    json!({
        "type": "view_submission", "team": { "id": "T0001", "domain": "example" },
        "user": { "id": user, "username": user.to_lowercase(), "name": user, "team_id": "T0001" },
        "api_app_id": "A0001", "token": "x", "trigger_id": "1.2.3", "view": view,
        "response_urls": [], "is_enterprise_install": false, "enterprise": null,
    })
}

fn submit(scene: &Scene, submission: &Value) {
    let answer = scene.server.interact(submission);
    // An empty answer closes the dialog.
    assert_eq!((answer.status, answer.body.len()), (200, 0), "{answer:?}");
}

/// Submits and returns the private word that follows.
fn word(scene: &Scene, submission: &Value) -> String {
    let before = scene.words().len();
    submit(scene, submission);
    scene.next_word(before)
}

/// Runs another command of ours on the scene's directory.
fn command(scene: &Scene, config: &str, args: &[&str]) -> Finished {
    let file = scene.server.working_dir().join("command.yaml");
    fs::write(&file, config).unwrap();
    let mut command = runbook(scene.server.working_dir());
    command.args(args).arg("--config").arg(&file);
    command.env("RUNBOOK_PENDING_DIR", scene.dir.path());
    let output = command.output().unwrap();
    Finished {
        status: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn deny_asks_why_and_the_reason_is_told_wherever_the_denial_is() {
    const REASON: &str = "Not during the sale & <!channel>";
    let (scene, agent) = (Scene::under(WHY), StandIn::start());
    scene.file(
        "apr-1",
        &json!({ "callbackUrl": format!("{}told", agent.url()) }),
    );
    let view = dialog(&scene, &deny("U0ALICE", "apr-1"));
    assert_eq!(view["type"], "modal");
    assert!(
        view["blocks"].to_string().contains("scale_ecs_service"),
        "{view}"
    );
    // Nothing is decided by the click, and the message does not change.
    let stored = scene.stored("apr-1");
    assert_eq!(stored["status"], "pending");
    assert!(stored.get("decisions").is_none());

    submit(
        &scene,
        &submission(&view, "U0ALICE", format!("  {REASON}\n")),
    );
    let stored = scene.stored("apr-1");
    assert_eq!(
        (&stored["status"], &stored["reason"]),
        (&json!("denied"), &json!(REASON))
    );
    assert_eq!(stored["decidedBy"]["id"], "U0ALICE");
    assert_eq!(stored["decisions"][0]["reason"], REASON);
    let update = &scene.slack.wait_for("chat.update", 1, SOON)[0];
    assert_eq!(update.error, None);
    assert_eq!(update.body["ts"], stored["slackMessageTs"]);
    let blocks = update.body["blocks"].to_string();
    assert!(
        blocks.contains("❌ Approval Denied") && blocks.contains(REASON),
        "{blocks}"
    );
    let text = update.body["text"].as_str().unwrap();
    assert!(
        text.contains("Reason: Not during the sale &amp; &lt;!channel&gt;"),
        "{text}"
    );
    let told = &agent.wait_for("told", 1, SOON)[0].body;
    assert_eq!(
        (&told["status"], &told["reason"]),
        (&json!("denied"), &json!(REASON))
    );
    scene
        .server
        .wait_for_log("Approval denied by @u0alice", SOON);
    let waited = command(&scene, WHY, &["wait", "apr-1"]);
    assert_eq!(waited.status, Some(5), "{waited:?}");
    let said = format!("{}{}", waited.stdout, waited.stderr);
    assert!(said.contains(REASON), "{waited:?}");
    assert!(scene.words().is_empty(), "{:?}", scene.words());
    // An approval needs no reason, and no dialog.
    scene.file("apr-2", &json!({}));
    scene.click(&by("U0ALICE", Click::approve("apr-2")));
    assert_eq!(scene.status("apr-2"), "approved");
    assert_eq!(scene.slack.calls_of("views.open").len(), 1);
}

#[test]
fn the_dialog_opens_at_once_whatever_else_hangs() {
    const POLICY: &str = "safety:
  requireDenialReason: true
  approvers:
    low: {groups: [S0OPS]}
";
    let scene = Scene::under(POLICY);
    for method in ["chat.update", LIST] {
        scene
            .slack
            .fail_method(method, Failure::Hang, Times::Forever);
    }
    for n in 0..12 {
        let id = format!("apr-{n}");
        scene.file(&id, &json!({ "slackChannel": format!("C0HANGS{n}") }));
        scene.click(&by("U0ALICE", Click::approve(&id)));
        let id = format!("apr-low-{n}");
        scene.file(&id, &json!({ "riskLevel": "low" }));
        scene.click(&by("U0ALICE", Click::approve(&id)));
    }
    scene.slack.wait_for("chat.update", 6, SOON);
    scene.slack.wait_for(LIST, 2, SOON);
    for (id, risk) in [("apr-high", "high"), ("apr-low", "low")] {
        scene.file(id, &json!({ "riskLevel": risk }));
        let clicked = Instant::now();
        let view = dialog(&scene, &deny("U0ALICE", id));
        assert!(clicked.elapsed() < TRIGGER, "{:?}", clicked.elapsed());
        if risk == "high" {
            submit(&scene, &submission(&view, "U0ALICE", "no"));
            assert_eq!(scene.status(id), "denied");
        }
    }
    scene.slack.recover();
}

#[test]
fn a_dialog_is_not_tried_once_the_click_is_too_old_for_it() {
    const MANY: usize = 20;
    let scene = Scene::under(WHY);
    scene
        .slack
        .fail_method("views.open", Failure::Hang, Times::Forever);
    scene.file("apr-1", &json!({}));
    for n in 0..MANY {
        let url = scene.slack.response_url(&n.to_string());
        scene.click(&deny("U0ALICE", "apr-1").response_url(url));
    }
    let words = scene.slack.wait_for("response_url", MANY, LATE);
    for word in words {
        let word = word.body["text"].as_str().unwrap().to_owned();
        assert!(word.contains("could not open the dialog"), "{word}");
    }
    let tried = scene.slack.calls_of("views.open").len();
    assert!((4..MANY).contains(&tried), "{tried}");
    scene.slack.recover();
}

#[test]
fn a_vote_is_weighed_in_time_however_many_messages_hang() {
    let policy = "safety: {approvers: {low: {groups: [S0OPS]}}}\n";
    let scene = Scene::with(policy, |slack| {
        slack.set_members("S0OPS", &["U0GRACE"]);
        slack.fail_method("chat.update", Failure::Hang, Times::Forever);
    });
    for n in 0..8 {
        let id = format!("apr-{n}");
        scene.file(&id, &json!({ "slackChannel": format!("C0HANGS{n}") }));
        scene.click(&by("U0ALICE", Click::approve(&id)));
    }
    scene.slack.wait_for("chat.update", 6, SOON);
    scene.file("apr-low", &json!({ "riskLevel": "low" }));
    scene.click(&by("U0GRACE", Click::approve("apr-low")));
    assert_eq!(scene.outcome("apr-low"), "approved");
    scene.slack.recover();
}

#[test]
fn a_blank_reason_is_refused_in_the_dialog_and_decides_nothing() {
    let scene = Scene::under(WHY);
    scene.file("apr-1", &json!({}));
    let view = dialog(&scene, &deny("U0ALICE", "apr-1"));
    let before = all_files(&scene.dir);
    for reason in [
        json!(""),
        json!("   "),
        json!("\n\t\u{3000}"),
        Value::Null,
        json!(7),
    ] {
        let answer: Answer = scene
            .server
            .interact(&submission(&view, "U0ALICE", reason.clone()));
        assert_eq!(answer.status, 200, "{reason}");
        let body = answer.json();
        assert_eq!(body["response_action"], "errors", "{reason}");
        // The error stands at the input, by its block.
        let block = view["blocks"].as_array().unwrap().last().unwrap();
        let error = body["errors"][block["block_id"].as_str().unwrap()].as_str();
        assert!(error.is_some_and(|error| !error.is_empty()), "{body}");
        assert_eq!(body.as_object().unwrap().len(), 2, "{body}");
    }
    // What the dialog sent without any state is no reason either.
    let mut bare = submission(&view, "U0ALICE", "x");
    bare["view"]["state"] = json!({});
    assert_eq!(
        scene.server.interact(&bare).json()["response_action"],
        "errors"
    );
    assert_eq!(all_files(&scene.dir), before);
    submit(&scene, &submission(&view, "U0ALICE", "because"));
    assert_eq!(scene.status("apr-1"), "denied");
}

#[test]
fn who_may_not_decide_is_asked_for_no_reason_and_no_reason_of_theirs_counts() {
    let scene = Scene::with(
        "safety:
  requireDenialReason: true
  approvers:
    default: {users: [U0ALICE]}
    medium: {groups: [S0OPS]}
    critical: {allowGuests: false}
",
        |slack| slack.set_members("S0OPS", &["U0GRACE"]),
    );
    scene.file("apr-1", &json!({}));
    let told = scene.word(&deny("U0EVE", "apr-1"));
    assert!(told.contains("not allowed to decide"), "{told}");
    let told = scene.word(&deny("U0ALICE", "apr-1").of_team("T0002"));
    assert!(told.contains("Only people of this workspace"), "{told}");
    assert!(scene.slack.calls_of("views.open").is_empty());

    let view = dialog(&scene, &deny("U0ALICE", "apr-1"));
    let told = word(&scene, &submission(&view, "U0EVE", "because"));
    assert!(told.contains("not allowed to decide"), "{told}");
    let mut outside = submission(&view, "U0ALICE", "because");
    outside["user"]["team_id"] = "T0002".into();
    for team in ["T0001", "T0002"] {
        outside["team"]["id"] = team.into();
        let told = word(&scene, &outside);
        assert!(told.contains("Only people of this workspace"), "{told}");
    }
    let stored = scene.stored("apr-1");
    assert_eq!(stored["status"], "pending");
    assert!(stored.get("decisions").is_none() && stored.get("reason").is_none());

    // Whether they belong to the group is asked when they have said why.
    scene.file("apr-2", &json!({ "riskLevel": "medium" }));
    let view = dialog(&scene, &deny("U0EVE", "apr-2"));
    assert!(scene.slack.calls_of(LIST).is_empty());
    let told = word(&scene, &submission(&view, "U0EVE", "because"));
    assert!(told.contains("not allowed to decide"), "{told}");
    submit(&scene, &submission(&view, "U0GRACE", "because"));
    assert_eq!(scene.outcome("apr-2"), "denied");
    assert_eq!(scene.stored("apr-2")["reason"], "because");
}

#[test]
fn a_reason_that_waits_for_slack_survives_the_servers_death() {
    let policy = "safety: {requireDenialReason: true, approvers: {default: {groups: [S0OPS]}}}\n";
    let scene = Scene::with(policy, |slack| slack.set_members("S0OPS", &["U0GRACE"]));
    scene.file("apr-1", &json!({}));
    let view = dialog(&scene, &deny("U0GRACE", "apr-1"));
    scene.slack.fail_method(LIST, Failure::Hang, Times::Forever);
    submit(&scene, &submission(&view, "U0GRACE", "because"));
    scene.slack.wait_for(LIST, 1, SOON);
    scene.server.kill();
    scene.slack.recover();
    let _next = scene.another(policy);
    eventually("a denial or a word", LATE, || {
        let told = scene.words().pop();
        let told = told.is_some_and(|told| told.contains("could not tell us in time"));
        let stored = scene.stored("apr-1");
        let denied = stored["status"] == "denied" && stored["reason"] == "because";
        (told != denied).then_some(())
    });
    scene.settled();
}

#[test]
fn a_reason_that_comes_too_late_is_told_so_and_changes_nothing() {
    let scene = Scene::under(WHY);
    for id in ["apr-decided", "apr-gone"] {
        scene.file(id, &json!({}));
    }
    let soon = SystemTime::now() + Duration::from_secs(2);
    let soon = humantime::format_rfc3339_seconds(soon).to_string();
    scene.file("apr-old", &json!({ "expiresAt": soon }));
    let view = |id: &str| dialog(&scene, &deny("U0ALICE", id));
    let (old, decided, gone) = (view("apr-old"), view("apr-decided"), view("apr-gone"));

    scene.click(&by("U0BOB", Click::approve("apr-decided")));
    assert_eq!(scene.status("apr-decided"), "approved");
    fs::remove_file(scene.dir.join("apr-gone.json")).unwrap();
    assert_eq!(scene.outcome("apr-old"), "expired");
    // Effects owed to the message are done by then.
    for id in ["apr-decided", "apr-old"] {
        settled(&scene.dir, id, SOON);
    }
    let before = all_files(&scene.dir);
    for (view, said) in [
        (&decided, "already approved by <@U0BOB>"),
        (&gone, "There is no approval apr-gone"),
        (&old, "This request expired on"),
    ] {
        let told = word(&scene, &submission(view, "U0ALICE", "because"));
        assert!(told.contains(said), "{told}");
    }
    assert_eq!(all_files(&scene.dir), before);
}

#[test]
fn a_reason_for_something_that_has_changed_meanwhile_denies_nothing() {
    let scene = Scene::under(WHY);
    scene.file("apr-1", &json!({ "slackMessageTs": null }));
    let posted = &scene.slack.wait_for("chat.postMessage", 1, SOON)[0];
    let stored = eventually("the message to be noted", SOON, || {
        let stored = scene.stored("apr-1");
        stored["slackMessageTs"].is_string().then_some(stored)
    });
    let blocks = posted.body["blocks"].as_array().unwrap();
    let shown = blocks.last().unwrap()["block_id"].as_str().unwrap();
    let view = dialog(&scene, &deny("U0ALICE", "apr-1").block_id(shown));
    let mut changed = stored.clone();
    changed["args"]["desiredCount"] = 80.into();
    write_approval(&scene.dir, &changed);
    let told = word(&scene, &submission(&view, "U0ALICE", "because"));
    assert!(told.contains("has changed since"), "{told}");
    let stored = scene.stored("apr-1");
    assert_eq!(stored["status"], "pending");
    assert!(stored.get("decisions").is_none() && stored.get("reason").is_none());
    // It is shown anew, as it is now.
    scene.slack.wait_for("chat.postMessage", 2, SOON);
}

#[test]
fn a_dialog_that_cannot_be_opened_is_told_privately() {
    let scene = Scene::under(WHY);
    scene.file("apr-1", &json!({}));
    for failure in [
        Failure::NotOk("expired_trigger_id"),
        Failure::NotOk("invalid_trigger_id"),
        Failure::Status(500),
        Failure::Garbage,
        Failure::Hang,
    ] {
        scene
            .slack
            .fail_method("views.open", failure, Times::Next(1));
        let told = scene.word(&deny("U0ALICE", "apr-1"));
        assert!(
            told.contains("could not open the dialog"),
            "{failure:?}: {told}"
        );
        assert_eq!(scene.status("apr-1"), "pending");
    }
    // It is opened once or not at all.
    assert_eq!(scene.slack.calls_of("views.open").len(), 5);
    let patience = Failure::RateLimited {
        retry_after_seconds: 1,
    };
    scene
        .slack
        .fail_method("views.open", patience, Times::Next(1));
    for _ in 0..2 {
        let told = scene.word(&deny("U0ALICE", "apr-1"));
        assert!(told.contains("could not open the dialog"), "{told}");
    }
    let limited = scene.slack.wait_for("views.open", 6, SOON);
    eventually("Slack to be called again", SOON, || {
        (limited[5].at.elapsed() > Duration::from_secs(1)).then_some(())
    });
    assert_eq!(scene.slack.calls_of("views.open").len(), 6);
    let told = scene.word(&deny("U0ALICE", "apr-1").without("/trigger_id"));
    assert!(told.contains("could not open the dialog"), "{told}");
    let view = dialog(&scene, &deny("U0ALICE", "apr-1"));
    submit(&scene, &submission(&view, "U0ALICE", "because"));
    assert_eq!(scene.status("apr-1"), "denied");
}

#[test]
fn the_runbookai_agents_button_asks_why_too_and_its_answer_has_the_reason() {
    let scene = Scene::under(WHY);
    let reject = |id: &str| deny("U0BOB", id).action_id(&format!("reject_{id}"));
    let ask = |id: &str| {
        let created = humantime::format_rfc3339_millis(SystemTime::now());
        let request = json!({ "mutationId": id, "createdAt": created.to_string() });
        fs::write(
            scene.dir.join(format!("{id}_pending.json")),
            request.to_string(),
        )
        .unwrap();
    };
    // Its request comes before the click, or after the reason.
    for (id, is_late) in [("mut_1_a", false), ("mut_1_b", true)] {
        if !is_late {
            ask(id);
        }
        let view = dialog(&scene, &reject(id));
        let answer = scene.dir.join(format!("{id}.json"));
        assert!(!answer.exists());
        submit(&scene, &submission(&view, "U0BOB", "Not during the sale"));
        if is_late {
            assert!(!answer.exists());
            ask(id);
        }
        let answer = eventually("the answer", SOON, || {
            answer.exists().then(|| read_approval(&scene.dir, id))
        });
        assert_eq!(
            (&answer["approved"], &answer["reason"]),
            (&json!(false), &json!("Not during the sale"))
        );
        assert_eq!(answer["approvedBy"], "slack:u0bob");
    }
    // One whose request never comes is told so.
    let view = dialog(&scene, &reject("mut_1_c"));
    let told = word(&scene, &submission(&view, "U0BOB", "because"));
    assert!(told.contains("There is no approval mut_1_c"), "{told}");
    assert!(!Path::new(&scene.dir.join("mut_1_c.json")).exists());
}

#[test]
fn dialogs_of_others_are_acknowledged_and_what_they_carry_is_not_looked_at() {
    let scene = Scene::under(WHY);
    scene.file("apr-abc123", &json!({}));
    let before = all_files(&scene.dir);
    let mut foreign = fixture("slack/view_submission.json");
    for callback_id in [json!("another_dialog"), json!(""), Value::Null] {
        foreign["view"]["callback_id"] = callback_id.clone();
        if callback_id.is_null() {
            foreign["view"]
                .as_object_mut()
                .unwrap()
                .shift_remove("callback_id");
        }
        submit(&scene, &foreign);
    }
    submit(&scene, &fixture("slack/view_closed.json"));
    assert_eq!(all_files(&scene.dir), before);
    assert!(scene.words().is_empty());
}

#[test]
fn what_stands_in_a_dialog_is_believed_only_as_far_as_it_is_sound() {
    let (scene, elsewhere) = (Scene::under(WHY), StandIn::start());
    scene.file("apr-1", &json!({}));
    let view = dialog(&scene, &deny("U0ALICE", "apr-1"));
    let good: Value = serde_json::from_str(view["private_metadata"].as_str().unwrap()).unwrap();
    assert_eq!(good["id"], "apr-1");
    let file = scene.dir.join("apr-1.json");
    let before = fs::read(&file).unwrap();
    let with = |metadata: &str| {
        let mut submission = submission(&view, "U0ALICE", "because");
        submission["view"]["private_metadata"] = metadata.into();
        submission
    };
    for broken in [
        "",
        "{",
        "null",
        "[]",
        "7",
        "{}",
        "\"apr-1\"",
        r#"{"id":7}"#,
        r#"{"id":"../apr-1"}"#,
        r#"{"id":"apr-1","responseUrl":7}"#,
        r#"{"id":"apr-1","seen":"sha256:nonsense"}"#,
    ] {
        submit(&scene, &with(broken));
    }
    let mut none = with("");
    none["view"]
        .as_object_mut()
        .unwrap()
        .shift_remove("private_metadata");
    submit(&scene, &none);
    let mut other = good.clone();
    other["id"] = "apr-other".into();
    let told = word(&scene, &with(&other.to_string()));
    assert!(told.contains("There is no approval apr-other"), "{told}");
    other = good.clone();
    other["id"] = "apr-other".into();
    other["responseUrl"] = elsewhere.response_url("x").into();
    submit(&scene, &with(&other.to_string()));
    scene
        .server
        .wait_for_log("A response_url that is not Slack's is not used", SOON);
    assert_eq!(fs::read(&file).unwrap(), before);
    // Of something else than what was shown it denies nothing.
    let mut other = good;
    other["seen"] = "0".repeat(64).into();
    let told = word(&scene, &with(&other.to_string()));
    assert!(told.contains("has changed since"), "{told}");
    let stored = scene.stored("apr-1");
    assert_eq!(stored["status"], "pending");
    assert!(stored.get("decisions").is_none(), "{stored}");
    assert!(elsewhere.calls().is_empty());
}

#[test]
fn a_reason_meant_for_another_app_or_workspace_is_told_so_and_denies_nothing() {
    for (setting, other, own) in [("appId", "A0002", "A0001"), ("teamId", "T0002", "T0001")] {
        let config = |id: &str| format!("incident: {{slack: {{{setting}: {id}}}}}\n{WHY}");
        let scene = Scene::under(&config(own));
        scene.file("apr-1", &json!({}));
        let view = dialog(&scene, &deny("U0ALICE", "apr-1"));
        scene.reload(&config(other), RELOADED);
        let told = word(&scene, &submission(&view, "U0ALICE", "because"));
        assert!(told.contains("another Slack app or workspace"), "{told}");
        assert_eq!(scene.status("apr-1"), "pending");
        scene.reload(&config(own), RELOADED);
        submit(&scene, &submission(&view, "U0ALICE", "because"));
        assert_eq!(scene.status("apr-1"), "denied");
    }
}

#[test]
fn a_denial_from_the_terminal_says_why_too() {
    let scene = Scene::under(WHY);
    scene.file("apr-1", &json!({}));
    for args in [&["deny", "apr-1"][..], &["deny", "apr-1", "--reason", "  "]] {
        let finished = command(&scene, WHY, args);
        assert_eq!(finished.status, Some(2), "{finished:?}");
        assert!(
            finished.stderr.contains("--reason is missing"),
            "{finished:?}"
        );
        assert_eq!(scene.status("apr-1"), "pending");
    }
    let finished = command(&scene, WHY, &["deny", "apr-1", "--reason", "because"]);
    assert_eq!(finished.status, Some(0), "{finished:?}");
    assert_eq!(scene.stored("apr-1")["reason"], "because");
    // Elsewhere none is asked for.
    scene.file("apr-2", &json!({}));
    assert_eq!(command(&scene, "", &["deny", "apr-2"]).status, Some(0));
}

/// Policies that nobody can keep who cannot ask Slack.
const ASKING: [&str; 3] = [
    WHY,
    "safety: {approvers: {low: {groups: [S0OPS]}}}\n",
    "safety: {approvers: {critical: {allowGuests: false}}}\n",
];

#[test]
fn a_policy_that_needs_slacks_word_does_not_start_without_a_token() {
    for policy in ASKING {
        let finished = Server::builder().config(policy).start_expecting_failure();
        assert_eq!(finished.status, Some(2), "{policy}: {finished:?}");
        let error = &finished.stderr;
        assert!(error.contains("bot token"), "{policy}: {error}");
        assert!(
            error.contains("hint: set SLACK_BOT_TOKEN"),
            "{policy}: {error}"
        );
    }
}

#[test]
fn a_reload_that_was_refused_is_seen_in_health_and_metrics_until_one_succeeds() {
    let scene = Scene::under(WHY);
    scene.server.expect_errors();
    let seen = || {
        let health = scene.server.get("/health?verbose");
        assert_eq!(health.status, 200);
        // Strangers learn nothing of it.
        let plain = scene.server.get("/health").json();
        assert!(plain.get("configurationError").is_none(), "{plain}");
        let metrics = scene.server.get("/metrics").text();
        let line = "runbook_config_last_reload_successful ";
        let line = metrics.lines().find_map(|other| other.strip_prefix(line));
        (
            health.json()["configurationError"].clone(),
            line.unwrap().to_owned(),
        )
    };
    assert_eq!(seen(), (Value::Null, "1".to_owned()));
    for (broken, said) in [
        ("safety: {requireDenialReson: true}\n", "requireDenialReson"),
        ("safety: {approvers: {hihg: {}}}\n", "hihg"),
        ("safety: {\n", "line "),
    ] {
        scene.reload(broken, "Configuration not reloaded, the old one stays");
        let (error, gauge) = seen();
        assert!(error.as_str().unwrap().contains(said), "{error}");
        assert_eq!(gauge, "0");
    }
    // The old rules hold.
    scene.file("apr-1", &json!({}));
    dialog(&scene, &deny("U0ALICE", "apr-1"));
    scene.reload("", RELOADED);
    assert_eq!(seen(), (Value::Null, "1".to_owned()));
    scene.click(&deny("U0ALICE", "apr-1"));
    assert_eq!(scene.status("apr-1"), "denied");
}

#[test]
fn a_dialog_fits_whatever_the_request_says() {
    let scene = Scene::under(WHY);
    for (n, operation) in [
        "x".repeat(5000),
        "<&>".repeat(2000),
        "🔥".repeat(3000),
        "`*_~".to_owned(),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("apr-{n}-{}", "i".repeat(50));
        scene.file(&id, &json!({ "operation": operation }));
        let view = dialog(&scene, &deny("U0ALICE", &id));
        submit(&scene, &submission(&view, "U0ALICE", "<&>".repeat(333)));
        assert_eq!(scene.status(&id), "denied");
        let update = scene.slack.wait_for("chat.update", n + 1, SOON).pop();
        assert_eq!(update.unwrap().error, None);
    }
}
