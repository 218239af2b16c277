//! Asking, waiting and deciding from the command line, with a server and without one.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::excuse::is_root;
use crate::harness::{
    CHANNEL, Click, Client, Errand, Finished, HEARING, Scratch, Server, all_files, eventually,
    fixture, fixture_text, owes, read_approval, sample, shown, write_approval,
};
use crate::stand_in::{Call, Failure, StandIn, Times};
use crate::strace::tampering;

/// How long something may take that nothing holds up.
const SOON: Duration = Duration::from_secs(10);

fn request(args: &[&str]) -> Client {
    Client::new(["request"]).and(args)
}

/// A request with an id of its own and an operation.
fn ask(id: &str) -> Client {
    request(&["--operation", "scale", "--id", id])
}

fn wait(id: &str) -> Client {
    Client::new(["wait", id])
}

/// Asserts that a command ended with this code and these lines on standard error, and printed nothing.
fn assert_refused(finished: &Finished, status: i32, lines: &[&str]) {
    let said: Vec<&str> = finished.stderr.lines().collect();
    assert_eq!(
        (finished.status, finished.stdout.as_str(), &*said),
        (Some(status), "", lines)
    );
}

/// Asserts that a command is content, prints this line and says nothing else.
fn assert_prints(finished: &Finished, status: i32, line: &str) {
    assert_eq!(
        (
            finished.status,
            finished.stdout.as_str(),
            finished.stderr.as_str()
        ),
        (Some(status), &*format!("{line}\n"), "")
    );
}

fn text_of(call: &Call) -> String {
    call.body["blocks"].to_string()
}

/// The requests of a directory, by file name.
fn requests(dir: &Scratch) -> Vec<String> {
    let mut names: Vec<String> = all_files(dir).into_keys().collect();
    names.retain(|name| !name.contains('/') && !name.starts_with('.'));
    names
}

/// Who runs these tests, as the decisions of a terminal record them.
fn unix_user() -> String {
    let id = std::process::Command::new("id")
        .arg("-un")
        .output()
        .unwrap();
    String::from_utf8(id.stdout).unwrap().trim().to_owned()
}

/// Waits until a request says this of its status and owes nothing.
fn settled(dir: &Scratch, id: &str, status: &str) -> Value {
    eventually("the request to be settled", SOON, || {
        let approval = read_approval(dir, id);
        let done = approval["status"] == status && !owes(&approval);
        done.then_some(approval)
    })
}

#[test]
fn a_request_is_kept_and_shown_and_prints_its_id_and_nothing_else() {
    let (slack, home) = (StandIn::start(), Scratch::new());
    let dir = home.join("a/pending");
    let asked = request(&["--operation", "scale_ecs_service", "--risk", "critical"])
        .dir(&dir)
        .slack(&slack)
        .finish();
    let id = asked.stdout.trim_end();
    assert_prints(&asked, 0, id);
    let random = id.strip_prefix("apr-").unwrap();
    assert!(random.len() >= 10, "{id}");
    assert!(random.chars().all(|c| matches!(c, 'a'..='z' | '2'..='7')));

    let stored = read_approval(&dir, id);
    let posted = &slack.calls_of("chat.postMessage")[0];
    assert_eq!(posted.body["channel"], CHANNEL);
    assert_eq!(stored["status"], "pending");
    assert_eq!(stored["slackChannel"], CHANNEL);
    assert_eq!(stored["requestedBy"], *unix_user());
    assert!(stored["slackMessageTs"].is_string(), "{stored}");
    assert!(stored["expiresAt"].is_string(), "{stored}");
    assert!(!owes(&stored), "{stored}");
    for said in ["🔐 Runbook Approval Request", "CRITICAL 🔴", "\"confirm\""] {
        assert!(text_of(posted).contains(said), "{said}: {}", posted.body);
    }
    assert_eq!(slack.calls().len(), 1);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let file = dir.join(format!("{id}.json"));
    assert_eq!((mode(&dir), mode(&file)), (0o700, 0o600));
}

#[test]
fn every_option_stands_in_the_document_and_arguments_stay_what_they_are() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let asked = request(&[
        "--operation=scale",
        "--arg=count=8",
        "--arg=big=12345678901234567890.10",
        "--arg=on=true",
        "--arg=none=null",
        "--arg=list=[1, \"a\"]",
        "--arg=name=checkout api",
        "--arg=quoted=\"8\"",
        "--arg=equation=a=b",
        "--arg=empty=",
        "--arg=half={\"a\":",
        "--args={\"service\": \"x\", \"count\": 1}",
        "--risk=LOW",
        "--rollback=undo",
        "--requested-by=U0BOB",
        "--investigation=INC-1",
        "--description=words",
        "--resource=db",
        "--impact=none",
        "--timeout=90s",
        "--callback-url=https://example.com/cb",
        "--json",
    ])
    .dir(&dir)
    .slack(&slack)
    .finish();
    assert_eq!((asked.status, asked.stderr.as_str()), (Some(0), ""));
    let printed: Value = serde_json::from_str(&asked.stdout).unwrap();
    let id = printed["id"].as_str().unwrap();
    assert_eq!(printed, read_approval(&dir, id));
    let expected: Value = serde_json::from_str(
        r#"{"service": "x", "count": 8, "big": 12345678901234567890.10, "on": true, "none": null,
            "list": [1, "a"], "name": "checkout api", "quoted": "8", "equation": "a=b", "empty": "",
            "half": "{\"a\":"}"#,
    )
    .unwrap();
    assert_eq!(printed["args"], expected);
    for (key, value) in [
        ("operation", "scale"),
        ("riskLevel", "low"),
        ("rollbackCommand", "undo"),
        ("requestedBy", "U0BOB"),
        ("investigationId", "INC-1"),
        ("description", "words"),
        ("resource", "db"),
        ("estimatedImpact", "none"),
        ("callbackUrl", "https://example.com/cb"),
        ("status", "pending"),
    ] {
        assert_eq!(printed[key], value, "{key}");
    }
    let time = |key: &str| humantime::parse_rfc3339(printed[key].as_str().unwrap()).unwrap();
    let open = time("expiresAt")
        .duration_since(time("requestedAt"))
        .unwrap();
    assert!((90..=92).contains(&open.as_secs()), "{open:?}");
}

#[test]
fn a_whole_request_comes_from_standard_input_and_options_win_over_it() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let given = fixture("approvals/apr-abc123.json");
    let asked = request(&["--stdin", "--risk", "low", "--arg", "desiredCount=9"])
        .stdin(fixture_text("approvals/apr-abc123.json"))
        .dir(&dir)
        .slack(&slack)
        .finish();
    assert_prints(&asked, 0, "apr-abc123");
    let stored = read_approval(&dir, "apr-abc123");
    assert_eq!(stored["riskLevel"], "low");
    assert_eq!(
        stored["args"],
        json!({"service": "checkout-api", "desiredCount": 9})
    );
    for kept in ["rollbackCommand", "requestedAt", "slackChannel"] {
        assert_eq!(stored[kept], given[kept], "{kept}");
    }
    // The message that the file names is none of ours.
    assert_ne!(stored["slackMessageTs"], given["slackMessageTs"]);
    assert_eq!(slack.calls_of("chat.postMessage").len(), 1);
}

#[test]
fn what_is_no_request_on_standard_input_is_refused_before_anything_is_kept() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let with = |key: &str, value: Value| {
        let mut given = fixture("approvals/apr-abc123.json");
        given[key] = value;
        given.to_string().into_bytes()
    };
    let huge = format!(
        r#"{{"operation": "x", "description": "{}"}}"#,
        "x".repeat(1 << 20)
    );
    let deep = format!(
        r#"{{"operation": "x", "args": {{"a": {}}}}}"#,
        "[".repeat(100_000)
    );
    let mut inputs: Vec<(Vec<u8>, &str)> = vec![
        (Vec::new(), "empty"),
        (b"{".to_vec(), "not JSON"),
        (b"\xff\xfe{}".to_vec(), "not JSON"),
        (b"[]".to_vec(), "no JSON object"),
        (b"{}".to_vec(), "--operation is missing"),
        (
            br#"{"operation": "x", "operation": "y"}"#.to_vec(),
            "duplicate key",
        ),
        (
            br#"{"operation": "x", "args": {"a": 1, "a": 2}}"#.to_vec(),
            "duplicate key",
        ),
        (huge.into_bytes(), "larger than 1 MiB"),
        (deep.into_bytes(), "not JSON"),
    ];
    for (key, value, said) in [
        ("operation", json!(""), "operation is missing"),
        ("operation", json!(" \n"), "operation is missing"),
        ("operation", json!(7), "operation is not text"),
        ("id", json!("../../etc/passwd"), "is no approval id"),
        ("id", json!(7), "id is not text"),
        ("id", json!(""), "is no approval id"),
        ("status", json!("approved"), "a new request is pending"),
        ("decidedBy", json!({"id": "U1"}), "cannot carry decidedBy"),
        ("decisions", json!([]), "cannot carry decisions"),
        ("effectsOwed", json!([]), "cannot carry effectsOwed"),
        ("executedAt", json!(null), "cannot carry executedAt"),
        (
            "expiresAt",
            json!("soon"),
            "expiresAt is not an RFC 3339 time",
        ),
        (
            "expiresAt",
            json!("2020-01-01T00:00:00Z"),
            "expiresAt is over",
        ),
        ("riskLevel", json!("none"), "riskLevel is none of"),
        ("callbackUrl", json!("file:///etc/passwd"), "callback URL"),
        // A command is never cut, whoever runs it then.
        (
            "command",
            json!(["sh", "-c", "x; ".repeat(2000)]),
            "too long to be shown whole",
        ),
    ] {
        inputs.push((with(key, value), said));
    }
    for (input, said) in inputs {
        let asked = request(&["--stdin"])
            .stdin(&input)
            .dir(&dir)
            .slack(&slack)
            .finish();
        let shown: String = String::from_utf8_lossy(&input).chars().take(80).collect();
        assert_eq!(asked.status, Some(2), "{shown}: {asked:?}");
        assert_eq!(asked.stdout, "", "{shown}");
        assert!(asked.stderr.starts_with("runbook: error: "), "{asked:?}");
        assert!(asked.stderr.contains(said), "{said}: {asked:?}");
    }
    assert_eq!(requests(&dir), [""; 0]);
    assert!(slack.calls().is_empty());
}

#[test]
fn a_usage_error_is_one_line_and_nothing_is_asked() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    for (words, said) in [
        (
            "request",
            "--operation is missing: it says what is to happen",
        ),
        (
            "request --operation=",
            "--operation needs a value: --operation NAME",
        ),
        (
            "request --operaton x",
            "unknown option --operaton (did you mean --operation?)",
        ),
        (
            "request --rolback x",
            "unknown option --rolback (did you mean --rollback?)",
        ),
        ("request --operation x stray", "stray argument stray"),
        ("request --operation x --arg a", "--arg a is not NAME=VALUE"),
        (
            "request --operation x --arg =a",
            "--arg =a is not NAME=VALUE",
        ),
        (
            "request --operation x --arg a=1 --arg a=2",
            "--arg a is given twice",
        ),
        (
            r#"request --operation x --args {"a":1,"a":2}"#,
            "--args: it is no JSON object that can be used: \
             duplicate key \"a\" at line 1 column 13",
        ),
        (
            "request --operation x --risk huge",
            "--risk huge is none of low, medium, high, critical (did you mean high?)",
        ),
        (
            "request --operation x --timeout 5",
            "--timeout 5 is not a length of time up to a year, such as 90s or 15m",
        ),
        (
            "request --operation x --timeout 0s",
            "--timeout 0s is not a length of time up to a year, such as 90s or 15m",
        ),
        (
            "request --operation x --callback-url x",
            "the callback URL is no http or https URL, or has a user in it",
        ),
        (
            "run --operation x",
            "run needs a command: runbook run [OPTIONS] -- COMMAND [ARGUMENTS]",
        ),
        (
            "run --operation x --",
            "run needs a command: runbook run [OPTIONS] -- COMMAND [ARGUMENTS]",
        ),
        (
            "run -- true",
            "the command was not run: --operation is missing: it says what is to happen",
        ),
        ("wait", "wait needs an id: runbook wait ID [OPTIONS]"),
        (
            "approve",
            "approve needs an id: runbook approve ID [OPTIONS]",
        ),
        ("wait apr-1 apr-2", "stray argument apr-2"),
        (
            "deny apr-1 --raeson x",
            "unknown option --raeson (did you mean --reason?)",
        ),
        (
            "aprove apr-1",
            "unknown command aprove (did you mean approve?)",
        ),
    ] {
        let asking = Client::new(words.split(' ')).dir(&dir).slack(&slack);
        assert_refused(&asking.finish(), 2, &[&format!("runbook: error: {said}")]);
    }
    let empty = Client::new(["run", "--operation", "x", "--", ""])
        .dir(&dir)
        .slack(&slack);
    assert_refused(
        &empty.finish(),
        2,
        &["runbook: error: the command was not run: the command is empty"],
    );
    for command in ["wait", "approve", "deny", "cancel"] {
        let refused = Client::new([command, "../etc/passwd"]).dir(&dir).finish();
        let hint =
            "runbook: hint: letters, digits, _ and -, at most 64, the first a letter or digit";
        let error = "runbook: error: ../etc/passwd is no approval id";
        assert_refused(&refused, 2, &[error, hint]);
    }
    assert_eq!(requests(&dir), [""; 0]);
    assert!(slack.calls().is_empty());
}

#[test]
fn without_a_token_or_a_channel_nothing_is_kept_and_the_hint_says_what_to_set() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let no_token = ask("apr-1")
        .dir(&dir)
        .slack(&slack)
        .env("SLACK_BOT_TOKEN", "");
    assert_refused(
        &no_token.finish(),
        2,
        &[
            "runbook: error: there is no bot token to post with",
            "runbook: hint: set SLACK_BOT_TOKEN; or --no-post leaves posting to a server",
        ],
    );
    let no_channel = ask("apr-1")
        .dir(&dir)
        .slack(&slack)
        .without_env("SLACK_DEFAULT_CHANNEL");
    assert_refused(
        &no_channel.finish(),
        2,
        &[
            "runbook: error: there is no channel to post to",
            "runbook: hint: --channel, SLACK_DEFAULT_CHANNEL or incident.slack.approvalChannel names one",
        ],
    );
    assert_eq!(requests(&dir), [""; 0]);
    assert!(slack.calls().is_empty());
}

#[test]
fn what_is_not_posted_here_a_server_posts_and_a_click_on_that_is_what_wait_prints() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let asked = ask("apr-1").and(&["--no-post"]).dir(&dir).finish();
    assert_prints(&asked, 0, "apr-1");
    assert!(!owes(&read_approval(&dir, "apr-1")));
    let waiting = wait("apr-1").dir(&dir).start();
    let server = Server::builder()
        .dir(&dir)
        .slack(&slack)
        .env("SLACK_DEFAULT_CHANNEL", CHANNEL)
        .start();
    let posted = &slack.wait_for("chat.postMessage", 1, SOON)[0];
    let click = Click::on_posted("deny", posted, &shown(&dir, "apr-1", SOON));
    assert!(waiting.is_running());
    server.click(&click);
    assert_prints(&waiting.wait(), 5, "denied by @alice");
    assert!(settled(&dir, "apr-1", "denied")["agentNotifiedAt"].is_string());
    server.wait_for_log("Agent notified", SOON);
    assert!(!server.log().contains("executing operation"));
}

#[test]
fn a_click_on_what_request_posted_is_seen_by_who_waits_and_the_server_says_who_knows() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let server = Server::builder().dir(&dir).slack(&slack).start();
    let asking = ask("apr-1")
        .and(&["--wait"])
        .dir(&dir)
        .slack(&slack)
        .start();
    asking.wait_for("apr-1\n");
    let posted = &slack.wait_for("chat.postMessage", 1, SOON)[0];
    let click = Click::on_posted("approve", posted, &shown(&dir, "apr-1", SOON));
    server.click(&click);
    let asked = asking.wait();
    assert_prints(&asked, 0, "apr-1\napproved by @alice");
    server.wait_for_log("Agent notified, executing operation", SOON);
    slack.wait_for("chat.update", 1, SOON);
    let stored = settled(&dir, "apr-1", "approved");
    assert!(stored["agentNotifiedAt"].as_str() >= stored["decidedAt"].as_str());
    assert!(server.terminate().success());
    assert_eq!(slack.calls_of("chat.postMessage").len(), 1);
    assert_eq!(slack.calls_of("chat.update").len(), 1);
    assert_eq!(server.log().matches("Agent notified").count(), 1);
}

#[test]
fn a_request_that_has_changed_since_it_was_shown_is_not_decided_by_a_click_on_the_old_message() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let server = Server::builder().dir(&dir).slack(&slack).start();
    ask("apr-1").dir(&dir).slack(&slack).finish();
    let posted = &slack.wait_for("chat.postMessage", 1, SOON)[0];
    let mut stored = shown(&dir, "apr-1", SOON);
    let click = Click::on_posted("approve", posted, &stored);
    stored["operation"] = "drop_database".into();
    write_approval(&dir, &stored);
    server.click(&click);
    assert_eq!(read_approval(&dir, "apr-1")["status"], "pending");
    let again = &slack.wait_for("chat.postMessage", 2, SOON)[1];
    assert!(text_of(again).contains("drop_database"));
}

#[test]
fn slacks_refusal_cancels_the_request_at_once_and_says_what_would_help() {
    let dir = Scratch::new();
    for (error, status, hint) in [
        ("not_in_channel", 1, "invite the bot to the channel"),
        ("channel_not_found", 1, "check the channel's name or id"),
        ("is_archived", 1, "the channel is archived"),
        ("invalid_blocks", 1, "the request is cancelled"),
        ("invalid_auth", 3, "SLACK_BOT_TOKEN should be"),
        ("token_revoked", 3, "SLACK_BOT_TOKEN should be"),
        ("missing_scope", 3, "add chat:write"),
    ] {
        let slack = StandIn::start();
        slack.fail(Failure::NotOk(error), Times::Forever);
        let id = error.replace('_', "-");
        let asked = ask(&id).dir(&dir).slack(&slack).finish();
        assert_eq!(
            (asked.status, &*asked.stdout),
            (Some(status), ""),
            "{asked:?}"
        );
        let complaint = format!("runbook: error: Slack does not show the request: {error}\n");
        assert!(asked.stderr.contains(&complaint), "{asked:?}");
        assert!(asked.stderr.contains(&format!("hint: {hint}")), "{asked:?}");
        assert!(!asked.stderr.contains(&slack.token()));
        assert_eq!(slack.calls().len(), 1, "{error}");
        let stored = read_approval(&dir, &id);
        assert_eq!(stored["status"], "cancelled");
        assert_eq!(stored["reason"], format!("slack: {error}"));
        assert!(!owes(&stored), "{stored}");
        // Whoever waits for it is told, and it is not asked again under that id.
        let waited = wait(&id).dir(&dir).finish();
        assert_prints(&waited, 5, &format!("cancelled: slack: {error}"));
    }
    let slack = StandIn::start();
    let refused = ask("wrong-token")
        .dir(&dir)
        .slack(&slack)
        .env("SLACK_BOT_TOKEN", "xoxb-wrong")
        .finish();
    assert_eq!(refused.status, Some(3), "{refused:?}");
}

#[test]
fn passing_trouble_with_slack_is_sat_out_and_the_request_is_posted_once() {
    for failure in [
        Failure::Status(503),
        Failure::Garbage,
        Failure::CloseWithoutAnswer,
        Failure::NotOk("internal_error"),
        Failure::RateLimited {
            retry_after_seconds: 2,
        },
        Failure::Hang,
    ] {
        let (slack, dir) = (StandIn::start(), Scratch::new());
        slack.fail(failure, Times::Next(1));
        let asking = ask("apr-1").dir(&dir).slack(&slack).start();
        slack.wait_for("chat.postMessage", 1, SOON);
        if matches!(failure, Failure::Hang) {
            slack.recover();
        }
        let asked = asking.wait();
        assert_eq!(
            (asked.status, &*asked.stdout),
            (Some(0), "apr-1\n"),
            "{asked:?}"
        );
        let posts = slack.calls_of("chat.postMessage");
        let content = posts.iter().filter(|post| post.error.is_none()).count();
        assert_eq!((posts.len(), content), (2, 1), "{failure:?}");
        if matches!(failure, Failure::RateLimited { .. }) {
            assert!(posts[1].at - posts[0].at >= Duration::from_secs(2));
        }
        let stored = read_approval(&dir, "apr-1");
        assert!(stored["slackMessageTs"].is_string());
        assert!(!owes(&stored));
    }
}

#[test]
fn a_post_that_slack_puts_off_for_too_long_is_given_up() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let patience = Failure::RateLimited {
        retry_after_seconds: 3600,
    };
    slack.fail(patience, Times::Forever);
    let asked = ask("apr-1").dir(&dir).slack(&slack).finish();
    assert_eq!((asked.status, &*asked.stdout), (Some(1), ""), "{asked:?}");
    let stored = read_approval(&dir, "apr-1");
    assert_eq!(stored["status"], "cancelled");
    assert!(stored["reason"].as_str().unwrap().starts_with("slack: "));
    assert_eq!(slack.calls().len(), 1);
}

#[test]
fn an_agent_that_gives_up_while_slack_fails_leaves_nothing_that_anybody_would_post() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    slack.fail(Failure::Status(503), Times::Forever);
    let asking = ask("apr-1")
        .and(&["--wait"])
        .dir(&dir)
        .slack(&slack)
        .start();
    slack.wait_for("chat.postMessage", 1, SOON);
    asking.signal(Signal::TERM);
    let asked = asking.wait();
    assert_eq!(asked.status, Some(5), "{asked:?}");
    assert_eq!(read_approval(&dir, "apr-1")["status"], "cancelled");
    slack.recover();
    let before = slack.calls().len();
    let _server = Server::builder().dir(&dir).slack(&slack).start();
    settled(&dir, "apr-1", "cancelled");
    assert_eq!(slack.calls().len(), before);
}

#[test]
fn levels_that_need_nobody_are_approved_by_the_policy_and_slack_never_hears_of_them() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let config = "safety:\n  requireApproval: [high_risk, critical]\n";
    for (risk, asks) in [
        ("low", false),
        ("medium", false),
        ("high", true),
        ("critical", true),
    ] {
        let asked = request(&["--operation", "x", "--id", risk, "--risk", risk])
            .dir(&dir)
            .slack(&slack)
            .config(config)
            .finish();
        assert_prints(&asked, 0, risk);
        let stored = read_approval(&dir, risk);
        let expected = if asks { "pending" } else { "approved" };
        assert_eq!(stored["status"], expected, "{risk}");
        if !asks {
            assert_eq!(stored["decidedBy"]["id"], "policy:auto");
            assert!(stored["decidedAt"].is_string());
            let waited = wait(risk).dir(&dir).finish();
            assert_prints(&waited, 0, "approved by policy:auto");
        }
    }
    assert_eq!(slack.calls().len(), 2);
    // It needs no token either, and with --wait ends at once.
    let asked = request(&[
        "--operation",
        "x",
        "--risk",
        "low",
        "--wait",
        "--id",
        "apr-1",
    ])
    .dir(&dir)
    .config(config)
    .finish();
    assert_prints(&asked, 0, "apr-1\napproved by policy:auto");
}

#[test]
fn a_misspelt_rule_asks_for_nothing() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let asked = ask("apr-1")
        .dir(&dir)
        .slack(&slack)
        .config("safety:\n  requireAproval: [critical]\n")
        .finish();
    assert_eq!(asked.status, Some(2), "{asked:?}");
    assert!(asked.stderr.contains("requireApproval"), "{asked:?}");
    assert_eq!(requests(&dir), [""; 0]);
}

#[test]
fn the_channel_is_the_options_the_requests_the_approval_channel_the_variables_or_the_default() {
    const FILE: &str = "incident:\n  slack:\n    defaultChannel: C0DEFAULT\n";
    const BOTH: &str =
        "incident:\n  slack:\n    defaultChannel: C0DEFAULT\n    approvalChannel: C0APPROVAL\n";
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let stdin = r#"{"operation": "x", "slackChannel": "C0STDIN"}"#;
    for (args, config, variable, expected) in [
        (
            &["--channel", "C0OPTION", "--stdin"][..],
            BOTH,
            true,
            "C0OPTION",
        ),
        (&["--stdin"], BOTH, true, "C0STDIN"),
        (&["--operation", "x"], BOTH, true, "C0APPROVAL"),
        (&["--operation", "x"], FILE, true, CHANNEL),
        (&["--operation", "x"], FILE, false, "C0DEFAULT"),
    ] {
        let mut asking = request(args)
            .dir(&dir)
            .slack(&slack)
            .config(config)
            .stdin(stdin);
        if !variable {
            asking = asking.without_env("SLACK_DEFAULT_CHANNEL");
        }
        let asked = asking.finish();
        assert_eq!((asked.status, &*asked.stderr), (Some(0), ""), "{asked:?}");
        let posted = slack.calls_of("chat.postMessage").pop().unwrap();
        assert_eq!(posted.body["channel"], expected);
        let stored = read_approval(&dir, asked.stdout.trim_end());
        assert_eq!(stored["slackChannel"], expected);
    }
}

#[test]
fn asking_twice_for_the_same_attaches_and_asking_for_something_else_changes_nothing() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let again = |id: &str| ask(id).dir(&dir).slack(&slack);
    let decide = |args: &[&str]| {
        let decided = Client::new(args).dir(&dir).slack(&slack).finish();
        assert_eq!(decided.status, Some(0), "{decided:?}");
    };
    for (n, (id, outcome, status)) in [
        ("apr-pending", None, 6),
        ("apr-approved", Some("approved by cli:"), 0),
        ("apr-denied", Some("denied by cli:"), 5),
        ("apr-cancelled", Some("cancelled by cli:"), 5),
        ("apr-archived", Some("approved by cli:"), 0),
        ("apr-expired", Some("expired"), 6),
    ]
    .into_iter()
    .enumerate()
    {
        if id == "apr-expired" {
            let asked = again(id).and(&["--timeout", "1s", "--wait"]).finish();
            assert_eq!(asked.status, Some(6), "{asked:?}");
        } else {
            assert_prints(&again(id).finish(), 0, id);
        }
        match id {
            "apr-approved" | "apr-archived" => decide(&["approve", id]),
            "apr-denied" => decide(&["deny", id]),
            "apr-cancelled" => decide(&["cancel", id]),
            _ => {}
        }
        if id == "apr-archived" {
            let name = format!("{id}.json");
            fs::create_dir(dir.join("archive")).unwrap();
            fs::rename(dir.join(&name), dir.join("archive").join(&name)).unwrap();
        }
        let (files, calls) = (all_files(&dir), slack.calls().len());
        assert_prints(&again(id).finish(), 0, id);
        let described = again(id).and(&["--description", "other words", "--channel", "C0OTHER"]);
        assert_prints(&described.finish(), 0, id);
        for other in [
            &["--arg", "a=1"][..],
            &["--risk", "low"],
            &["--rollback", "x"],
            &["--resource", "x"],
            &["--requested-by", "U0EVE"],
        ] {
            let refused = again(id).and(other).finish();
            let said = format!("runbook: error: {id} was asked before and meant something else");
            let hint = "runbook: hint: another --id asks for something else";
            assert_refused(&refused, 1, &[&said, hint]);
        }
        assert!(all_files(&dir) == files, "{id} has changed");
        assert_eq!(slack.calls().len(), calls, "{id}");
        let waits = again(id).and(&["--wait"]).start();
        match outcome {
            None => assert!(waits.is_running()),
            Some(outcome) => {
                let waited = waits.wait();
                assert_eq!(waited.status, Some(status), "{id}: {waited:?}");
                let start = format!("{id}\n{outcome}");
                assert!(waited.stdout.starts_with(&start), "{id}: {waited:?}");
            }
        }
        assert_eq!(slack.calls_of("chat.postMessage").len(), n + 1, "{id}");
    }
}

#[test]
fn processes_that_ask_for_the_same_at_once_post_it_once() {
    for round in 0..5 {
        let (slack, dir) = (StandIn::start(), Scratch::new());
        let asking: Vec<Errand> = (0..4)
            .map(|_| ask("apr-1").dir(&dir).slack(&slack).start())
            .collect();
        for errand in &asking {
            assert_prints(&errand.wait(), 0, "apr-1");
        }
        shown(&dir, "apr-1", SOON);
        assert_eq!(slack.calls_of("chat.postMessage").len(), 1, "{round}");
    }
}

#[test]
fn a_request_whose_maker_died_before_it_was_shown_is_shown_by_who_asks_again() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    slack.fail(Failure::Hang, Times::Next(1));
    let dying = ask("apr-1").dir(&dir).slack(&slack).start();
    slack.wait_for("chat.postMessage", 1, SOON);
    dying.kill();
    slack.recover();
    assert_prints(&ask("apr-1").dir(&dir).slack(&slack).finish(), 0, "apr-1");
    assert_eq!(slack.calls_of("chat.postMessage").len(), 2);
    shown(&dir, "apr-1", SOON);
}

#[test]
fn hostile_and_endless_text_in_every_option_is_posted_updated_and_pings_nobody() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let hostile = "<!channel> <@U0EVE> ```x``` `y` *b* :tada: 🔥 &amp; \u{202e} \"q\" \\ ";
    for (n, text) in [
        hostile.to_owned(),
        hostile.repeat(20_000 / hostile.chars().count()),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("apr-{n}");
        let arg = format!("{text}={text}");
        let mut args = vec!["--id", &id, "--arg", &arg];
        for option in [
            "--operation",
            "--rollback",
            "--requested-by",
            "--investigation",
            "--description",
            "--resource",
            "--impact",
        ] {
            args.extend([option, &text]);
        }
        let asked = request(&args).dir(&dir).slack(&slack).finish();
        assert_prints(&asked, 0, &id);
        let denied = Client::new(["deny", &id, "--reason", &text])
            .dir(&dir)
            .slack(&slack)
            .finish();
        assert_eq!((denied.status, &*denied.stderr), (Some(0), ""), "{n}");
        assert!(!denied.stdout.contains('\u{202e}'));
        assert_eq!(read_approval(&dir, &id)["reason"], text);
        settled(&dir, &id, "denied");
    }
    let calls = slack.calls();
    assert_eq!(calls.len(), 4);
    for call in calls {
        assert_eq!(call.error, None, "{}", call.body);
        assert!(!call.body["text"].as_str().unwrap().contains("<!"));
        for block in call.body["blocks"].as_array().unwrap() {
            let block = block.to_string();
            let marked = block.contains("\"mrkdwn\"") && block.contains("<!");
            assert!(!marked, "{block}");
        }
    }
}

#[test]
fn a_request_with_wait_and_json_prints_one_document_at_the_end() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let asking = ask("apr-1")
        .and(&["--wait", "--json"])
        .dir(&dir)
        .slack(&slack)
        .start();
    shown(&dir, "apr-1", SOON);
    assert_eq!(asking.output(), b"");
    let reason = ["deny", "apr-1", "--reason", "no\nway"];
    Client::new(reason).dir(&dir).slack(&slack).finish();
    let asked = asking.wait();
    assert_eq!((asked.status, &*asked.stderr), (Some(5), ""));
    let printed: Value = serde_json::from_str(&asked.stdout).unwrap();
    assert_eq!(
        (&printed["status"], &printed["reason"]),
        (&json!("denied"), &json!("no\nway"))
    );

    let again = wait("apr-1").and(&["--json"]).dir(&dir).finish();
    let printed: Value = serde_json::from_str(&again.stdout).unwrap();
    assert_eq!((again.status, &printed["id"]), (Some(5), &json!("apr-1")));
    let line = format!("denied by cli:{}: no\\nway", unix_user());
    assert_prints(&wait("apr-1").dir(&dir).finish(), 5, &line);
}

#[test]
fn whoever_waits_sees_a_decision_however_it_is_written_and_whenever() {
    for in_place in [true, false] {
        let decide = |dir: &Scratch, approval: &Value| {
            if in_place {
                fs::write(dir.join("apr-1.json"), approval.to_string()).unwrap();
            } else {
                write_approval(dir, approval);
            }
        };
        for inotify in [true, false] {
            let dir = Scratch::new();
            write_approval(&dir, &sample("apr-1"));
            let mut waiting = wait("apr-1").dir(&dir);
            if !inotify && let Some(exhausted) = tampering("inotify_init1:error=EMFILE") {
                waiting = waiting.wrapper(exhausted);
            }
            let waiting = waiting.start();
            waiting.wait_until_asleep();
            // What it is not told about does not end it.
            let mut approval = sample("apr-1");
            approval["comment"] = "thinking".into();
            decide(&dir, &approval);
            waiting.wait_until_asleep();
            approval["status"] = "denied".into();
            approval["reason"] = "no".into();
            decide(&dir, &approval);
            assert_prints(&waiting.wait(), 5, "denied: no");
            // Whoever comes later sees the same.
            assert_prints(&wait("apr-1").dir(&dir).finish(), 5, "denied: no");
            assert_eq!(read_approval(&dir, "apr-1")["comment"], "thinking");
            assert!(read_approval(&dir, "apr-1")["agentNotifiedAt"].is_string());
        }
    }
}

#[test]
fn a_file_that_is_half_written_for_a_moment_is_waited_for_and_one_that_stays_so_is_an_error() {
    let dir = Scratch::new();
    write_approval(&dir, &sample("apr-1"));
    write_approval(&dir, &sample("apr-2"));
    write_approval(&dir, &sample("apr-3"));
    let waits = ["apr-1", "apr-2", "apr-3"].map(|id| wait(id).dir(&dir).start());
    waits.iter().for_each(Errand::wait_until_asleep);
    for id in ["apr-1", "apr-2"] {
        fs::write(dir.join(format!("{id}.json")), r#"{"id": "apr-"#).unwrap();
    }
    fs::remove_file(dir.join("apr-3.json")).unwrap();
    let mut approval = sample("apr-1");
    approval["status"] = "approved".into();
    write_approval(&dir, &approval);
    assert_prints(&waits[0].wait(), 0, "approved");
    let damaged = waits[1].wait();
    assert_eq!(
        (damaged.status, &*damaged.stdout),
        (Some(1), ""),
        "{damaged:?}"
    );
    assert!(
        damaged.stderr.starts_with("runbook: error: "),
        "{damaged:?}"
    );
    let text = fs::read_to_string(dir.join("apr-2.json")).unwrap();
    assert_eq!(text, r#"{"id": "apr-"#, "a damaged file is left alone");
    let gone = waits[2].wait();
    assert_eq!((gone.status, &*gone.stdout), (Some(1), ""), "{gone:?}");
    assert!(
        gone.stderr.contains("there is no approval apr-3 in "),
        "{gone:?}"
    );
}

#[test]
fn waiting_for_what_is_not_there_is_an_error_with_a_hint_and_makes_no_directory() {
    let home = Scratch::new();
    let missing = wait("apr-1").dir(home.join("none")).finish();
    assert_eq!(
        (missing.status, &*missing.stdout),
        (Some(1), ""),
        "{missing:?}"
    );
    assert!(missing.stderr.contains("--pending-dir"), "{missing:?}");
    assert!(!home.join("none").exists());
    fs::create_dir(home.join("there")).unwrap();
    let unknown = wait("apr-1").dir(home.join("there")).finish();
    assert_eq!(unknown.status, Some(1), "{unknown:?}");
    assert!(
        unknown.stderr.contains("runbook: hint: runbook list --all"),
        "{unknown:?}"
    );
}

#[test]
fn a_request_expires_by_the_waiters_own_clock_then_and_not_before() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let mut approval = sample("apr-1");
    let end = SystemTime::now() + Duration::from_millis(1800);
    approval["expiresAt"] = humantime::format_rfc3339_millis(end).to_string().into();
    write_approval(&dir, &approval);
    let waiting = wait("apr-1").dir(&dir).slack(&slack).start();
    let waited = waiting.wait();
    assert!(SystemTime::now() >= end, "before its time");
    assert_prints(&waited, 6, "expired");
    let stored = read_approval(&dir, "apr-1");
    assert_eq!(stored["status"], "expired");
    let at = humantime::parse_rfc3339(stored["decidedAt"].as_str().unwrap()).unwrap();
    assert!(at + Duration::from_secs(1) > end);
    assert!(stored["agentNotifiedAt"].is_string());
    let update = &slack.calls_of("chat.update")[0];
    assert!(text_of(update).contains("⌛ Approval Expired"));
}

#[test]
fn who_waits_for_a_while_leaves_the_request_as_it_is() {
    let dir = Scratch::new();
    write_approval(&dir, &sample("apr-1"));
    let before = fs::read(dir.join("apr-1.json")).unwrap();
    let started = Instant::now();
    let waited = wait("apr-1").and(&["--timeout", "1s"]).dir(&dir).finish();
    assert!(started.elapsed() >= Duration::from_secs(1));
    assert_prints(&waited, 6, "still pending");
    assert_eq!(fs::read(dir.join("apr-1.json")).unwrap(), before);
}

#[test]
fn whoever_goes_away_while_asking_withdraws_and_whoever_only_looks_does_not() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let (slack, dir) = (StandIn::start(), Scratch::new());
        let asking = ask("apr-1")
            .and(&["--wait"])
            .dir(&dir)
            .slack(&slack)
            .wrapper(HEARING)
            .start();
        asking.wait_for("apr-1\n");
        let looking = wait("apr-1").dir(&dir).start();
        looking.wait_until_asleep();
        asking.signal(signal);
        let line = format!("cancelled by cli:{}: whoever asked went away", unix_user());
        assert_prints(&asking.wait(), 5, &format!("apr-1\n{line}"));
        assert_prints(&looking.wait(), 5, &line);
        let update = &slack.wait_for("chat.update", 1, SOON)[0];
        assert!(text_of(update).contains("🚫 Request Withdrawn"));
        settled(&dir, "apr-1", "cancelled");

        write_approval(&dir, &sample("apr-2"));
        let looking = wait("apr-2").dir(&dir).wrapper(HEARING).start();
        looking.wait_until_asleep();
        looking.signal(signal);
        assert_ne!(looking.wait().status, Some(0));
        assert_eq!(read_approval(&dir, "apr-2"), sample("apr-2"));
    }
}

#[test]
fn a_terminal_decides_whatever_the_policy_says_and_the_message_shows_who() {
    let config = "safety:\n  approvers:\n    default:\n      users: [U0ALICE, U0BOB]\n      minApprovals: 2\n";
    let user = unix_user();
    for (args, status, title, verb) in [
        (
            &["approve", "apr-1"][..],
            "approved",
            "✅ Approval Granted",
            "Approved",
        ),
        (
            &["approve", "apr-1", "--reason", "by phone"],
            "approved",
            "✅ Approval Granted",
            "Approved",
        ),
        (
            &["deny", "apr-1", "--reason", "by phone"],
            "denied",
            "❌ Approval Denied",
            "Denied",
        ),
        (
            &["cancel", "apr-1"],
            "cancelled",
            "🚫 Request Withdrawn",
            "Withdrawn",
        ),
    ] {
        let (slack, dir) = (StandIn::start(), Scratch::new());
        let asked = ask("apr-1").dir(&dir).slack(&slack).config(config);
        assert_eq!(asked.finish().status, Some(0));
        let reason = args.get(3).map(|reason| format!(": {reason}"));
        let line = format!("{status} by cli:{user}{}", reason.unwrap_or_default());
        let decided = Client::new(args)
            .dir(&dir)
            .slack(&slack)
            .config(config)
            .finish();
        assert_prints(&decided, 0, &format!("apr-1 {line}"));
        let stored = read_approval(&dir, "apr-1");
        assert_eq!(stored["status"], status);
        assert_eq!(stored["decidedBy"]["id"], format!("cli:{user}"));
        assert!(!owes(&stored), "{stored}");
        let update = &slack.calls_of("chat.update")[0];
        for said in [title, &format!("{verb} by: cli:{user}")] {
            assert!(text_of(update).contains(said), "{said}: {}", update.body);
        }
        if args.len() > 2 {
            assert_eq!(stored["reason"], "by phone");
            assert!(text_of(update).contains("by phone"));
        }
        // What is decided stays so.
        let before = all_files(&dir);
        for again in ["approve", "deny", "cancel"] {
            let refused = Client::new([again, "apr-1"])
                .dir(&dir)
                .slack(&slack)
                .finish();
            assert_eq!(
                (refused.status, &*refused.stdout),
                (Some(1), ""),
                "{refused:?}"
            );
            let said = format!("runbook: error: apr-1 was already {line} (20");
            assert!(refused.stderr.starts_with(&said), "{refused:?}");
        }
        assert!(all_files(&dir) == before, "something has changed");
        assert_eq!(slack.calls_of("chat.update").len(), 1);
    }
}

#[test]
fn what_has_expired_cannot_be_decided_from_a_terminal_either() {
    for args in [
        ["approve", "expired"],
        ["deny", "expired"],
        ["cancel", "expired"],
    ] {
        let (slack, dir) = (StandIn::start(), Scratch::new());
        write_approval(&dir, &fixture("approvals/expired.json"));
        for _ in 0..2 {
            let refused = Client::new(args).dir(&dir).slack(&slack).finish();
            assert_eq!(
                (refused.status, &*refused.stdout),
                (Some(6), ""),
                "{refused:?}"
            );
            let said = "runbook: error: expired was already expired";
            assert!(refused.stderr.starts_with(said), "{refused:?}");
            assert_eq!(read_approval(&dir, "expired")["status"], "expired");
        }
        let updates = slack.calls_of("chat.update");
        assert_eq!(updates.len(), 1);
        assert!(text_of(&updates[0]).contains("⌛ Approval Expired"));
    }
}

#[test]
fn without_a_token_the_message_is_left_to_a_server() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let server = Server::builder().dir(&dir).slack(&slack).start();
    for (n, (command, title)) in [
        ("approve", "✅ Approval Granted"),
        ("deny", "❌ Approval Denied"),
        ("cancel", "🚫 Request Withdrawn"),
    ]
    .into_iter()
    .enumerate()
    {
        ask(command).dir(&dir).slack(&slack).finish();
        let decided = Client::new([command, command]).dir(&dir).finish();
        assert_eq!(
            (decided.status, &*decided.stderr),
            (Some(0), ""),
            "{decided:?}"
        );
        let update = &slack.wait_for("chat.update", n + 1, SOON)[n];
        assert!(text_of(update).contains(title), "{}", update.body);
    }
    server.terminate();
    // So is the end of a request that only a waiter without a token has seen.
    let brief = ask("brief").and(&["--timeout", "1s"]);
    brief.dir(&dir).slack(&slack).finish();
    assert_eq!(wait("brief").dir(&dir).finish().status, Some(6));
    let _server = Server::builder().dir(&dir).slack(&slack).start();
    let update = &slack.wait_for("chat.update", 4, SOON)[3];
    assert!(text_of(update).contains("⌛ Approval Expired"));
}

#[test]
fn a_decision_stands_though_slack_does_not_hear_of_it_and_a_server_tells_it() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    ask("apr-1").dir(&dir).slack(&slack).finish();
    slack.fail(Failure::Status(503), Times::Forever);
    let decided = Client::new(["approve", "apr-1"])
        .dir(&dir)
        .slack(&slack)
        .finish();
    assert_eq!(decided.status, Some(0), "{decided:?}");
    assert_eq!(read_approval(&dir, "apr-1")["status"], "approved");
    slack.recover();
    let _server = Server::builder().dir(&dir).slack(&slack).start();
    settled(&dir, "apr-1", "approved");
}

#[test]
fn ten_agents_and_two_servers_make_ten_messages_and_ten_decisions() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let servers = [0, 1].map(|_| Server::builder().dir(&dir).slack(&slack).start());
    let agents: Vec<Errand> = (0..10)
        .map(|n| {
            let asking = ask(&format!("apr-{n}")).and(&["--wait"]);
            asking.dir(&dir).slack(&slack).start()
        })
        .collect();
    let posts = slack.wait_for("chat.postMessage", 10, SOON);
    let both = Barrier::new(2);
    thread::scope(|scope| {
        for (n, server) in servers.iter().enumerate() {
            let (posts, dir, both) = (&posts, &dir, &both);
            scope.spawn(move || {
                for post in posts {
                    let buttons = post.body["blocks"].as_array().unwrap().last().unwrap();
                    let id = buttons["elements"][0]["value"].as_str().unwrap();
                    let action = if n == 0 { "approve" } else { "deny" };
                    let click = Click::on_posted(action, post, &shown_or_decided(dir, id));
                    both.wait();
                    server.click(&click);
                }
            });
        }
    });
    for (n, agent) in agents.iter().enumerate() {
        let asked = agent.wait();
        let id = format!("apr-{n}");
        let stored = settled(
            &dir,
            &id,
            read_approval(&dir, &id)["status"].as_str().unwrap(),
        );
        let (status, line) = match stored["status"].as_str() {
            Some("approved") => (0, "approved by @alice"),
            _ => (5, "denied by @alice"),
        };
        assert_prints(&asked, status, &format!("{id}\n{line}"));
        assert_eq!(stored["decisions"].as_array().unwrap().len(), 1, "{stored}");
    }
    assert_eq!(slack.calls_of("chat.postMessage").len(), 10);
    assert_eq!(slack.calls_of("chat.update").len(), 10);
}

fn shown_or_decided(dir: &Scratch, id: &str) -> Value {
    eventually("the message to be noted", SOON, || {
        let approval = read_approval(dir, id);
        approval.get("slackMessageTs").is_some().then_some(approval)
    })
}

#[test]
fn a_hundred_wait_at_once_and_each_is_told_of_its_own_decision() {
    let dir = Scratch::new();
    let ids: Vec<String> = (0..100).map(|n| format!("apr-{n}")).collect();
    let waits: Vec<Errand> = ids
        .iter()
        .map(|id| {
            write_approval(&dir, &sample(id));
            wait(id).dir(&dir).start()
        })
        .collect();
    waits.iter().for_each(Errand::wait_until_asleep);
    let server = Server::builder().dir(&dir).without_token().start();
    for (n, id) in ids.iter().enumerate() {
        let click = if n % 2 == 0 {
            Click::approve(id)
        } else {
            Click::deny(id)
        };
        server.click(&click);
        // Those who are not meant go on waiting.
        assert!(waits[n + 1..].iter().take(3).all(Errand::is_running));
    }
    for (n, waiting) in waits.iter().enumerate() {
        let (status, line) = if n % 2 == 0 {
            (0, "approved")
        } else {
            (5, "denied")
        };
        assert_prints(&waiting.wait(), status, &format!("{line} by @alice"));
    }
    eventually("the server to say so of each", SOON, || {
        (server.log().matches("Agent notified").count() == 100).then_some(())
    });
}

#[test]
fn a_person_at_a_terminal_sees_a_line_while_waiting_and_a_log_does_not() {
    let dir = Scratch::new();
    for (id, redirect, seen) in [("apr-tty", "", true), ("apr-log", " 2>err.log", false)] {
        write_approval(&dir, &sample(id));
        let shell = format!("exec \"$0\" \"$@\"{redirect}");
        // `script` takes one command line; what is run stands in its environment.
        let on_terminal = [
            "bash",
            "-c",
            "export LINE=\"$(printf '%q ' \"$@\")\"; exec script -qefc \"$LINE\" /dev/null </dev/null",
            "bash",
            "sh",
            "-c",
            &shell,
        ];
        let waiting = wait(id).dir(&dir).wrapper(on_terminal).start();
        let line = format!("Waiting for {id} for ");
        if seen {
            waiting.wait_for(&line);
        } else {
            let log = waiting.working_dir().join("err.log");
            eventually("it to start", SOON, || log.exists().then_some(()));
        }
        let mut approval = sample(id);
        approval["status"] = "approved".into();
        write_approval(&dir, &approval);
        let waited = waiting.wait();
        assert_eq!(waited.status, Some(0), "{waited:?}");
        assert!(waited.stdout.ends_with("approved\r\n"), "{waited:?}");
        assert_eq!(waited.stdout.contains(&line), seen, "{waited:?}");
        if seen {
            // The line is gone again before the outcome is printed.
            assert!(waited.stdout.contains("\r\u{1b}[Kapproved"), "{waited:?}");
        } else {
            let log = fs::read_to_string(waiting.working_dir().join("err.log"));
            assert_eq!(log.unwrap(), "");
        }
    }
}

#[test]
fn who_may_only_read_is_told_that_the_time_is_over() {
    if !is_root("a directory that may only be read") {
        return;
    }
    let dir = Scratch::new();
    let mut over = sample("apr-1");
    over["expiresAt"] = "2024-01-15T15:35:00Z".into();
    write_approval(&dir, &over);
    let readable = fs::Permissions::from_mode(0o555);
    fs::set_permissions(dir.path(), readable).unwrap();
    let without_powers = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"];
    let finished = wait("apr-1").dir(&dir).wrapper(without_powers).finish();
    assert_eq!(finished.status, Some(6), "{finished:?}");
    assert_eq!(finished.stdout, "expired\n");
}

/// A user that nobody is.
const NOBODY: u32 = 65534;

#[test]
fn what_root_does_in_an_emergency_belongs_to_whoever_owns_the_directory() {
    if !is_root("what root does") {
        return;
    }
    let dir = Scratch::new();
    std::os::unix::fs::chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    write_approval(&dir, &sample("apr-1"));
    for words in [
        ["approve", "apr-1", "--reason", "x"],
        ["request", "--no-post", "--operation", "scale"],
    ] {
        let finished = Client::new(words).dir(&dir).finish();
        assert_eq!(finished.status, Some(0), "{finished:?}");
    }
    let mut folders = vec![dir.path().to_owned()];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let given = path.ends_with("apr-1.json") || metadata.uid() == NOBODY;
            assert!(given, "{}", path.display());
            seen += 1;
            folders.extend(metadata.is_dir().then_some(path));
        }
    }
    assert!(seen > 5, "{seen}");
}

#[test]
fn a_wait_that_gives_up_prints_json_where_that_is_asked_for() {
    let dir = Scratch::new();
    write_approval(&dir, &sample("apr-1"));
    let finished = Client::new(["wait", "apr-1", "--timeout", "50ms", "--json"])
        .dir(&dir)
        .finish();
    assert_eq!(finished.status, Some(6), "{finished:?}");
    let printed: Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!(printed["status"], "pending");
}

#[test]
fn what_is_null_is_as_good_as_absent_and_a_hash_is_no_number() {
    let dir = Scratch::new();
    let asked = r#"{"operation":"scale","expiresAt":null,"riskLevel":null}"#;
    let words = "request --no-post --json --stdin --arg sha=12e4567 --arg n=1.50";
    let finished = Client::new(words.split(' '))
        .dir(&dir)
        .stdin(asked)
        .finish();
    assert_eq!(finished.status, Some(0), "{finished:?}");
    let printed: Value = serde_json::from_str(&finished.stdout).unwrap();
    assert!(printed["expiresAt"].is_string(), "{printed}");
    assert_eq!(printed["args"]["sha"], "12e4567");
    assert!(finished.stdout.contains("1.50"), "{printed}");
}

#[test]
fn an_object_that_would_be_read_as_a_number_is_no_request() {
    let dir = Scratch::new();
    let asked = r#"{"operation":"scale","args":{"n":{"$serde_json::private::Number":"5"}}}"#;
    let finished = Client::new(["request", "--no-post", "--stdin"])
        .dir(&dir)
        .stdin(asked)
        .finish();
    assert_eq!(finished.status, Some(2), "{finished:?}");
    assert!(requests(&dir).is_empty());
}

#[test]
fn with_json_a_decision_from_the_terminal_is_printed_as_the_file_says_it() {
    for (command, status) in [
        ("approve", "approved"),
        ("deny", "denied"),
        ("cancel", "cancelled"),
    ] {
        let dir = Scratch::new();
        write_approval(&dir, &sample("apr-1"));
        let words = [command, "apr-1", "--json", "--reason", "why"];
        let finished = Client::new(words).dir(&dir).finish();
        assert_eq!(finished.status, Some(0), "{finished:?}");
        let printed: Value = serde_json::from_str(&finished.stdout).unwrap();
        assert_eq!(printed["status"], status);
        assert_eq!(
            printed["decidedBy"],
            read_approval(&dir, "apr-1")["decidedBy"]
        );
    }
}
