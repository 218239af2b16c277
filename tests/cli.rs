//! The command line, the environment and the configuration file, and what an operator is told about them.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::harness::{
    Builder, Click, Finished, SECRET, Scratch, Server, eventually, finished, now, read_approval,
    runbook, sample, sign, write_approval,
};

/// How long a program may take that has nothing to wait for.
const SOON: Duration = Duration::from_secs(5);

/// Runs a command that is to end by itself.
fn run<I: IntoIterator<Item: Into<OsString>>>(args: I) -> Finished {
    let scratch = Scratch::new();
    let mut command = runbook(scratch.path());
    command.args(args.into_iter().map(Into::into));
    finished(command, SOON)
}

/// A server with a secret, on any port of the loopback, with nothing else from the harness.
fn bare() -> Builder {
    Server::builder().bare().env("SLACK_SIGNING_SECRET", SECRET)
}

/// Asserts that a server ended with this code, and why.
fn assert_ends(finished: &Finished, status: i32, said: &str) {
    assert_eq!(finished.status, Some(status), "{said}: {finished:?}");
    // Warnings of the log may come before it.
    let complaint = finished
        .stderr
        .lines()
        .find(|line| line.starts_with("runbook: "));
    assert_eq!(
        complaint.unwrap_or_default(),
        format!("runbook: error: {said}"),
        "{finished:?}"
    );
    assert_eq!(finished.stdout, "", "{finished:?}");
}

/// The same, of a command that ends by itself and says nothing more.
fn assert_usage(args: &[&str], said: &str) {
    let finished = run(args);
    assert_ends(&finished, 2, said);
    assert_eq!(finished.stderr.lines().count(), 1, "{finished:?}");
}

#[test]
fn help_and_version_go_to_standard_output_and_are_no_error() {
    for args in [["--help"], ["-h"], ["help"]] {
        let help = run(args);
        assert_eq!((help.status, help.stderr.as_str()), (Some(0), ""));
        assert!(help.stdout.contains("webhook "), "{}", help.stdout);
    }
    for args in [["--version"], ["-V"]] {
        let version = run(args);
        assert_eq!((version.status, version.stderr.as_str()), (Some(0), ""));
        let expected = format!("runbook {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(version.stdout, expected);
    }
}

#[test]
fn a_commands_help_lists_every_option_with_its_default_and_every_variable() {
    for args in [
        ["webhook", "--help"],
        ["webhook", "-h"],
        ["--help", "webhook"],
        ["help", "webhook"],
    ] {
        let help = run(args);
        assert_eq!((help.status, help.stderr.as_str()), (Some(0), ""));
        for (option, told) in [
            (
                "--port",
                "default 3000; or SLACK_WEBHOOK_PORT, webhook.port",
            ),
            ("--host", "default 0.0.0.0; or webhook.host"),
            (
                "--pending-dir",
                "default .runbook/pending-approvals; or RUNBOOK_PENDING_DIR",
            ),
            ("--workers", "default 8; or webhook.workers"),
            ("--reuse-port", ""),
            ("--config", "or RUNBOOK_CONFIG"),
            ("--log-level", "default info"),
            ("--log-format", "default text"),
            ("--help", ""),
        ] {
            let line = help.stdout.lines().find(|line| {
                line.strip_prefix("  ")
                    .is_some_and(|line| line.split(' ').next() == Some(option))
            });
            assert!(
                line.is_some_and(|line| line.contains(told)),
                "{option}: {line:?}"
            );
        }
        for named in [
            "SLACK_SIGNING_SECRET ",
            "SLACK_SIGNING_SECRET_FILE",
            "SLACK_BOT_TOKEN ",
            "SLACK_BOT_TOKEN_FILE",
            "SLACK_API_URL",
            "HTTPS_PROXY",
            "Usage: runbook webhook",
            "Examples:\n",
            "  0  done",
            "  1  ",
            "  2  usage or configuration",
        ] {
            assert!(help.stdout.contains(named), "{named} in {}", help.stdout);
        }
    }
}

#[test]
fn a_usage_error_is_one_line_that_names_the_word_and_the_nearest_right_one() {
    for (args, said) in [
        (
            &["webhok"][..],
            "unknown command webhok (did you mean webhook?)",
        ),
        (&["frobnicate"], "unknown command frobnicate"),
        (
            &["webhook", "--prot", "1"],
            "unknown option --prot (did you mean --port?)",
        ),
        (
            &["webhook", "--prot=1"],
            "unknown option --prot (did you mean --port?)",
        ),
        (
            &["webhook", "--pendingdir", "x"],
            "unknown option --pendingdir (did you mean --pending-dir?)",
        ),
        (
            &["webhook", "--PORT", "1"],
            "unknown option --PORT (did you mean --port?)",
        ),
        (&["webhook", "-x"], "unknown option -x"),
        (&["webhook", "--port"], "--port needs a value: --port PORT"),
        (&["webhook", "--port="], "--port needs a value: --port PORT"),
        (
            &["webhook", "--port", "--host", "x"],
            "--port needs a value: --port PORT",
        ),
        (
            &["webhook", "--port", "1", "--port", "2"],
            "--port is given twice",
        ),
        (
            &["webhook", "--reuse-port=yes"],
            "--reuse-port takes no value",
        ),
        (&["webhook", "now"], "stray argument now"),
        (&["list", "all"], "stray argument all (did you mean --all?)"),
        (
            &["list", "--", "all"],
            "stray argument all (did you mean --all?)",
        ),
        (
            &["audit", "verfy"],
            "audit verfy is none of verify (did you mean verify?)",
        ),
        (
            &["request", "--risk", "hihg"],
            "--risk hihg is none of low, medium, high, critical (did you mean high?)",
        ),
        (
            &["list", "--log-level=wran"],
            "--log-level wran is none of error, warn, info, debug, trace (did you mean warn?)",
        ),
        (
            &["help", "webhok"],
            "unknown command webhok (did you mean webhook?)",
        ),
        (&["webhook", "webhook"], "stray argument webhook"),
        (
            &["--port", "1", "webhook"],
            "--port before the command: runbook COMMAND [OPTIONS]",
        ),
        (&["--hlep"], "unknown option --hlep (did you mean --help?)"),
        (
            &["webhook", "a\nb\u{1b}[2J"],
            "stray argument a\\nb\\u{1b}[2J",
        ),
    ] {
        assert_usage(args, said);
    }
    let nothing = run::<[&str; 0]>([]);
    assert_ends(&nothing, 2, "no command given");
    let not_utf8 = OsString::from_vec(b"\xff".into());
    assert_eq!(run([not_utf8.clone()]).status, Some(2));
    assert_eq!(
        run(["webhook".into(), "--port".into(), not_utf8]).status,
        Some(2)
    );
}

#[test]
fn an_option_takes_its_value_behind_a_space_or_an_equals_sign() {
    for (option, value, status, said) in [
        (
            "--port",
            "70000",
            2,
            "--port 70000 is not a port, 0 to 65535",
        ),
        (
            "--host",
            "no host",
            2,
            "--host no host is no address of this machine",
        ),
        (
            "--workers",
            "0",
            2,
            "--workers 0 is not a number from 1 to 256",
        ),
        (
            "--config",
            "none.yaml",
            2,
            "cannot read configuration none.yaml: no such file or directory",
        ),
        (
            "--log-level",
            "loud",
            2,
            "--log-level loud is none of error, warn, info, debug, trace",
        ),
        (
            "--log-format",
            "xml",
            2,
            "--log-format xml is none of text, json",
        ),
    ] {
        let apart = bare().args([option, value]).start_expecting_failure();
        let joined = bare()
            .args([format!("{option}={value}")])
            .start_expecting_failure();
        for finished in [apart, joined] {
            assert_ends(&finished, status, said);
        }
    }
    for args in [&["--pending-dir", "here"][..], &["--pending-dir=here"]] {
        let server = bare()
            .args(["--port=0", "--host=127.0.0.1"])
            .args(args)
            .start();
        assert!(server.working_dir().join("here").is_dir());
    }
}

#[test]
fn a_value_that_is_wrong_names_where_it_came_from() {
    let yaml = |key: &str, value: &str| format!("webhook:\n  {key}: {value}\n");
    for value in ["x", "-1", "65536", "3000 ", "0x10", "1.5"] {
        let options = bare().args(["--port", value]);
        assert_ends(
            &options.start_expecting_failure(),
            2,
            &format!("--port {value} is not a port, 0 to 65535"),
        );
        let variable = bare().env("SLACK_WEBHOOK_PORT", value);
        assert_ends(
            &variable.start_expecting_failure(),
            2,
            &format!("SLACK_WEBHOOK_PORT {value} is not a port, 0 to 65535"),
        );
    }
    let place = ".runbook/config.yaml: line 2, column";
    for (key, value, said) in [
        ("port", "x", "9: webhook.port should be a port, 0 to 65535"),
        (
            "port",
            "65536",
            "9: webhook.port should be a port, 0 to 65535",
        ),
        (
            "port",
            "[1]",
            "9: webhook.port should be a port, 0 to 65535",
        ),
        (
            "workers",
            "257",
            "12: webhook.workers should be a number from 1 to 256",
        ),
        (
            "workers",
            "true",
            "12: webhook.workers should be a number from 1 to 256",
        ),
        ("host", "{a: b}", "9: webhook.host should be an address"),
        (
            "publicUrl",
            "example.com",
            "14: webhook.publicUrl should be a URL such as https://runbook.example.com, without a query and without /slack",
        ),
        (
            "publicUrl",
            "https://",
            "14: webhook.publicUrl should be a URL such as https://runbook.example.com, without a query and without /slack",
        ),
        (
            "monitors",
            "[10.0.0.0/33]",
            "13: webhook.monitors should be a list of networks such as 10.0.0.0/8",
        ),
    ] {
        let finished = bare().config(&yaml(key, value)).start_expecting_failure();
        assert_ends(&finished, 2, &format!("{place} {said}"));
    }
    let keep = bare()
        .config("approvals:\n  keepDecided: soon\n")
        .start_expecting_failure();
    assert_ends(
        &keep,
        2,
        &format!("{place} 16: approvals.keepDecided should be a length of time such as 24h"),
    );
    for (variable, value, said) in [
        (
            "SLACK_API_URL",
            "slack.com",
            "SLACK_API_URL is no http or https URL, or has a user or a query in it",
        ),
        ("HTTPS_PROXY", "::", "HTTPS_PROXY is no proxy URL"),
        (
            "SLACK_BOT_TOKEN",
            "xoxb with space",
            "the bot token has characters that no token has",
        ),
    ] {
        let finished = bare().env(variable, value).start_expecting_failure();
        assert_ends(&finished, 2, said);
    }
}

/// A port that nobody else can have as long as it is held.
fn taken() -> (TcpListener, u16) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

#[test]
fn an_option_beats_the_environment_which_beats_the_file_which_beats_the_default() {
    let (holds, ports): (Vec<TcpListener>, Vec<u16>) = (0..3).map(|_| taken()).unzip();
    let [option, variable, key] = ports[..] else {
        unreachable!()
    };
    let yaml = format!("webhook:\n  port: {key}\n");
    let by_key = || bare().args(["--host", "127.0.0.1"]).config(&yaml);
    let by_variable = || by_key().env("SLACK_WEBHOOK_PORT", variable.to_string());
    let by_option = || by_variable().args([format!("--port={option}")]);
    for (builder, port) in [
        (by_option(), option),
        (by_variable(), variable),
        (by_key(), key),
    ] {
        let said = format!("cannot listen on 127.0.0.1 port {port}: address already in use");
        assert_ends(&builder.start_expecting_failure(), 1, &said);
    }
    drop(holds);

    // Whoever has the default port, us or another, nobody else gets it.
    let _hold = TcpListener::bind(("127.0.0.77", 3000));
    let by_default = bare()
        .args(["--host", "127.0.0.77"])
        .start_expecting_failure();
    assert_ends(
        &by_default,
        1,
        "cannot listen on 127.0.0.77 port 3000: address already in use",
    );

    let listens = |host: &str, server: &Server| TcpStream::connect((host, server.port())).is_ok();
    let yaml = "webhook:\n  host: 127.0.0.3\n  workers: 3\n  port: 0\n";
    // A thread takes its name when it begins to run.
    let has_workers = |server: &Server, count: usize| {
        let workers = || {
            let tasks = fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
            let names = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("comm")));
            names
                .filter(|name| name.as_ref().is_ok_and(|name| name.starts_with("worker-")))
                .count()
        };
        eventually(&format!("{count} workers"), SOON, || {
            (workers() == count).then_some(())
        });
    };
    let by_key = bare().config(yaml).start();
    assert!(listens("127.0.0.3", &by_key) && !listens("127.0.0.1", &by_key));
    has_workers(&by_key, 3);
    let by_option = bare()
        .config(yaml)
        .args(["--host=127.0.0.4", "--workers=2"])
        .start();
    assert!(listens("127.0.0.4", &by_option) && !listens("127.0.0.3", &by_option));
    has_workers(&by_option, 2);
    let by_default = bare().args(["--port=0"]).start();
    assert!(listens("127.0.0.1", &by_default) && listens("127.0.0.5", &by_default));
    has_workers(&by_default, 8);
}

#[test]
fn the_pending_directory_is_the_options_the_variables_or_the_default() {
    let any = || bare().args(["--port=0", "--host=127.0.0.1"]);
    let by_variable = || any().env("RUNBOOK_PENDING_DIR", "of/variable");
    for (builder, expected) in [
        (
            by_variable().args(["--pending-dir", "of/option"]),
            "of/option",
        ),
        (by_variable(), "of/variable"),
        (any(), ".runbook/pending-approvals"),
        (
            any().env("RUNBOOK_PENDING_DIR", ""),
            ".runbook/pending-approvals",
        ),
    ] {
        let server = builder.start();
        for place in ["of/option", "of/variable", ".runbook/pending-approvals"] {
            let exists = server.working_dir().join(place).exists();
            assert_eq!(exists, place == expected, "{place} for {expected}");
        }
    }
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let dir = Scratch::new();
    let mut builder = Server::builder().dir(&dir);
    for variable in [
        "SLACK_BOT_TOKEN",
        "SLACK_BOT_TOKEN_FILE",
        "SLACK_SIGNING_SECRET_FILE",
        "SLACK_WEBHOOK_PORT",
        "RUNBOOK_PENDING_DIR",
        "RUNBOOK_CONFIG",
        "SLACK_API_URL",
        "HTTPS_PROXY",
        "NO_PROXY",
    ] {
        builder = builder.env(variable, "");
    }
    let server = builder.start();
    server.wait_for_log("there is no bot token", SOON);
    let no_secret = Server::builder().env("SLACK_SIGNING_SECRET", "");
    assert_eq!(no_secret.start_expecting_failure().status, Some(2));
}

/// Whether a server accepts what this secret has signed.
fn accepts(server: &Server, secret: &str) -> bool {
    let (timestamp, body) = (
        now().to_string(),
        r#"{"type":"url_verification","challenge":"x"}"#,
    );
    let signature = sign(secret, &timestamp, body.as_bytes());
    let request = server
        .signed("/slack/events", "application/json", body.as_bytes())
        .without_header("X-Slack-Request-Timestamp")
        .without_header("X-Slack-Signature")
        .header("X-Slack-Request-Timestamp", &timestamp)
        .header("X-Slack-Signature", &signature);
    server.expect_errors();
    server.request(request).status == 200
}

fn slack_section(secret: &str) -> String {
    format!("incident:\n  slack:\n    signingSecret: {secret}\n")
}

/// A server that knows no secret but the file's.
fn with_file() -> Builder {
    Server::builder().without_env("SLACK_SIGNING_SECRET")
}

#[test]
fn variables_stand_in_our_texts_and_a_missing_one_is_named_with_its_place() {
    for (text, value) in [
        ("${MINE}", "of-mine"),
        ("a-${MINE}-${MINE}-b", "a-of-mine-of-mine-b"),
        ("${MINE:-default}", "of-mine"),
        ("${NONE:-default}", "default"),
        ("${EMPTY:-default}", "default"),
        ("'${NONE:-a:-b}'", "a:-b"),
        ("$MINE", "$MINE"),
        ("'{MINE}'", "{MINE}"),
    ] {
        let builder = with_file().env("MINE", "of-mine").env("EMPTY", "");
        let server = builder.config(&slack_section(text)).start();
        assert!(accepts(&server, value), "{text}");
        assert!(!accepts(&server, "another"), "{text}");
    }
    let place = ".runbook/config.yaml: line 3, column 20";
    for (text, said) in [
        ("${NONE}", "the environment variable NONE is not set"),
        ("x${EMPTY}", "the environment variable EMPTY is not set"),
        ("'${NONE'", "${ without its }"),
    ] {
        let builder = with_file().env("EMPTY", "").config(&slack_section(text));
        assert_ends(
            &builder.start_expecting_failure(),
            2,
            &format!("{place}: {said}"),
        );
    }
    // What a variable holds is text and nothing else: it is not expanded again.
    let server = with_file()
        .env("MINE", "${NONE}")
        .config(&slack_section("${MINE}"))
        .start();
    assert!(accepts(&server, "${NONE}"));
    // A secret of the environment makes the file's needless, missing variables and all.
    let server = Server::builder().config(&slack_section("${NONE}")).start();
    assert!(accepts(&server, SECRET));
}

#[test]
fn a_broken_file_is_an_error_with_its_place_and_never_the_defaults() {
    for (yaml, place) in [
        ("webhook:\n  port: 1\n bad: 2\n", "line 3, column "),
        ("webhook: [1\n", "line "),
        ("webhook:\n\tport: 1\n", "line 2, column "),
        ("webhook:\n  port: 1\n  port: 2\n", "line 3, column 3: "),
        ("safety: {}\nsafety: {}\n", "line 2, column 1: "),
        ("other: {a: 1, a: 2}\n", "line 1, column "),
        ("webhook: \"open\n", "line "),
        ("a: *nowhere\n", "line 1, column 4"),
        (
            "a: &a [*a]\n",
            "line 1, column 8: the alias stands within what it stands for",
        ),
        (
            "a: 1\n---\nb: 2\n",
            "line 2, column 1: there is more than one document",
        ),
        ("<<: 1\n", "line 1, column 5: << should name a section"),
        (
            "? [a]\n: b\n",
            "line 1, column 3: a key should be text, not a list",
        ),
        (
            "webhook: 3000\n",
            "line 1, column 10: webhook should be a section, not a number",
        ),
        (
            "safety: []\n",
            "line 1, column 9: safety should be a section, not a list",
        ),
        (
            "- a\n- b\n",
            "line 1, column 1: the file should be a section, not a list",
        ),
        (
            "safety:\n  approvers: none\n",
            "line 2, column 14: safety.approvers should be a section, not text",
        ),
        (
            "safety:\n  allowSelfApproval: perhaps\n",
            "line 2, column 22: safety.allowSelfApproval should be true or false",
        ),
        (
            "safety:\n  approvers:\n    high:\n      users: [alice]\n",
            "line 4, column 14: safety.approvers.high.users should be a list of Slack user ids (U… or W…), not names",
        ),
        (
            "safety:\n  approvers:\n    high:\n      minApprovals: 0\n",
            "line 4, column 21: safety.approvers.high.minApprovals should be a number from 1 to 100",
        ),
        (
            "incident:\n  slack:\n    signingSecret: [{a: b}]\n",
            "line 3, column 20: incident.slack.signingSecret should be text or a list of texts",
        ),
    ] {
        // Without a secret from the environment, which would make the file's needless.
        let builder = if yaml.contains("signingSecret") {
            with_file()
        } else {
            Server::builder()
        };
        let finished = builder.config(yaml).start_expecting_failure();
        let said = format!("runbook: error: .runbook/config.yaml: {place}");
        assert_eq!(finished.status, Some(2), "{yaml}: {finished:?}");
        assert!(finished.stderr.starts_with(&said), "{yaml}: {finished:?}");
        assert_eq!(finished.stderr.lines().count(), 1, "{finished:?}");
    }
    let large = "#".repeat((1 << 20) + 1);
    let finished = Server::builder().config(&large).start_expecting_failure();
    assert_ends(
        &finished,
        2,
        "cannot read configuration .runbook/config.yaml: it is larger than 1 MiB",
    );
    for empty in ["", "\n", "# nothing\n", "webhook:\n", "safety: {}\n"] {
        Server::builder().config(empty).start();
    }
}

#[test]
fn aliases_and_merged_sections_of_the_file_are_understood() {
    let yaml = "\
ours: &key shared
incident:
  slack:
    signingSecret: [*key, !!str 12, 0x10, 'no']
safety:
  <<: [{allowSelfApproval: no}, {allowSelfApproval: perhaps}]
  approvalTimeoutMs: 60_000
";
    let server = with_file().config(yaml).start();
    for secret in ["shared", "12", "16", "no"] {
        assert!(accepts(&server, secret), "{secret}");
    }
    let wrong = "rules: &rules {allowSelfApproval: perhaps}\nsafety:\n  <<: *rules\n";
    let finished = Server::builder().config(wrong).start_expecting_failure();
    let said =
        ".runbook/config.yaml: line 1, column 35: safety.allowSelfApproval should be true or false";
    assert_ends(&finished, 2, said);
}

#[test]
fn a_file_that_grows_without_end_is_refused_at_once() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..20 {
        let below = vec![format!("*a{}", level - 1); 10].join(", ");
        let _ = writeln!(bomb, "a{level}: &a{level} [{below}]");
    }
    let mut ladder = String::from("a0: &a0 []\n");
    for level in 1..100 {
        let _ = writeln!(ladder, "a{level}: &a{level} [*a{}]", level - 1);
    }
    let deep = format!("a: {}{}\n", "[".repeat(100), "]".repeat(100));
    for (yaml, said) in [
        (&bomb, "it is too large, aliases and all"),
        (&ladder, "it is nested too deeply"),
        (&deep, "it is nested too deeply"),
    ] {
        let finished = Server::builder().config(yaml).start_expecting_failure();
        assert_eq!(finished.status, Some(2), "{finished:?}");
        assert!(finished.stderr.contains(said), "{finished:?}");
    }
}

#[test]
fn sections_of_other_tools_are_not_interpreted() {
    let yaml = "\
llm:
  apiKey: ${MISSING}
  port: [not, a, port]
incident:
  pagerduty: {apiKey: '${MISSING', unknown: 1}
  enabled: perhaps
webhooks:
  prot: 1
";
    let server = Server::builder().config(yaml).start();
    server.terminate();
    let warnings = server.log();
    assert!(
        !warnings.contains("unknown") && !warnings.contains("MISSING"),
        "{warnings}"
    );
}

#[test]
fn an_unknown_key_of_ours_warns_and_a_misspelt_rule_stops_the_start() {
    for (yaml, said) in [
        (
            "webhook:\n  prot: 1\n",
            "line 2, column 3: unknown key webhook.prot (did you mean port?)",
        ),
        (
            "incident:\n  slack:\n    botTokn: x\n",
            "line 3, column 5: unknown key incident.slack.botTokn (did you mean botToken?)",
        ),
        (
            "approvals:\n  keepdecided: 1h\n",
            "line 2, column 3: unknown key approvals.keepdecided (did you mean keepDecided?)",
        ),
        (
            "webhook:\n  zzz: ${MISSING}\n",
            "line 2, column 3: unknown key webhook.zzz",
        ),
    ] {
        let server = Server::builder().config(yaml).start();
        let line = format!("[WARN] .runbook/config.yaml: {said}");
        let log = server.wait_for_log(&line, SOON);
        assert!(log.lines().any(|told| told == line), "{log}");
    }
    for (yaml, said) in [
        (
            "safety:\n  allowSelfAproval: false\n",
            "line 2, column 3: unknown key safety.allowSelfAproval (did you mean allowSelfApproval?)",
        ),
        (
            "safety:\n  approvers:\n    hihg:\n      users: [U1]\n",
            "line 3, column 5: unknown key safety.approvers.hihg (did you mean high?)",
        ),
        (
            "safety:\n  approvers:\n    high:\n      user: [U1]\n",
            "line 4, column 7: unknown key safety.approvers.high.user (did you mean users?)",
        ),
    ] {
        let finished = Server::builder().config(yaml).start_expecting_failure();
        assert_ends(&finished, 2, &format!(".runbook/config.yaml: {said}"));
    }
    let agents = "safety:\n  maxMutationsPerSession: 5\n  cooldownBetweenCriticalMs: 1\n  skipApproval: []\n  blockedOperations: []\n  requireApproval: [high_risk]\n  approvalTimeoutMs: 300000\n";
    let server = Server::builder().config(agents).start();
    server.terminate();
    assert!(!server.log().contains("unknown"), "{}", server.log());
}

#[test]
fn the_configuration_is_found_where_it_is_documented_and_the_first_one_counts() {
    let places = [
        (".runbook/config.yaml", "first"),
        (".runbook/config.yml", "second"),
        ("home/.runbook/config.yaml", "third"),
        ("home/.runbook/config.yml", "fourth"),
    ];
    for skipped in 0..places.len() {
        let mut builder = with_file().env("HOME", "home");
        for (path, secret) in &places[skipped..] {
            builder = builder.file(path, &slack_section(secret));
        }
        let server = builder.start();
        assert!(accepts(&server, places[skipped].1), "{skipped}");
    }
    let all = || {
        let mut builder = with_file().env("HOME", "home");
        for (path, secret) in places {
            builder = builder.file(path, &slack_section(secret));
        }
        let builder = builder.file("of-option.yaml", &slack_section("of-option"));
        builder.file("of-variable.yaml", &slack_section("of-variable"))
    };
    let by_variable = || all().env("RUNBOOK_CONFIG", "of-variable.yaml");
    assert!(accepts(&by_variable().start(), "of-variable"));
    let by_option = by_variable().args(["--config", "of-option.yaml"]);
    assert!(accepts(&by_option.start(), "of-option"));
    assert!(accepts(&all().env("RUNBOOK_CONFIG", "").start(), "first"));

    // One that is named, or is there, and cannot be read is an error, not a reason to look further.
    let missing = all()
        .env("RUNBOOK_CONFIG", "none.yaml")
        .start_expecting_failure();
    assert_ends(
        &missing,
        2,
        "cannot read configuration none.yaml: no such file or directory",
    );
    let folder = with_file()
        .file(".runbook/config.yaml/x", "")
        .file(".runbook/config.yml", &slack_section("second"))
        .start_expecting_failure();
    assert_ends(
        &folder,
        2,
        "cannot read configuration .runbook/config.yaml: is a directory",
    );
}

#[test]
fn a_secret_may_stand_in_a_file_of_its_own() {
    let from = |contents: &str| {
        with_file()
            .file("secret", contents)
            .env("SLACK_SIGNING_SECRET_FILE", "secret")
    };
    for contents in ["of-file", "of-file\n", "of-file\r\n", "\n  of-file  \n\n"] {
        assert!(accepts(&from(contents).start(), "of-file"), "{contents:?}");
    }
    // It comes before the configuration file's.
    let both = from("of-file").config(&slack_section("of-config")).start();
    assert!(accepts(&both, "of-file") && !accepts(&both, "of-config"));
    for contents in ["", "\n", "  \n\t"] {
        let said = "cannot read SLACK_SIGNING_SECRET_FILE secret: it is empty";
        assert_ends(&from(contents).start_expecting_failure(), 2, said);
    }
    let missing = with_file().env("SLACK_SIGNING_SECRET_FILE", "none");
    let said = "cannot read SLACK_SIGNING_SECRET_FILE none: no such file or directory";
    assert_ends(&missing.start_expecting_failure(), 2, said);
    let folder = with_file().env("SLACK_SIGNING_SECRET_FILE", ".");
    let said = "cannot read SLACK_SIGNING_SECRET_FILE .: is a directory";
    assert_ends(&folder.start_expecting_failure(), 2, said);
    let twice = from("of-file").env("SLACK_BOT_TOKEN", "xoxb-1");
    let twice = twice
        .file("token", "xoxb-2")
        .env("SLACK_BOT_TOKEN_FILE", "token");
    let finished = twice.start_expecting_failure();
    assert_ends(
        &finished,
        2,
        "SLACK_BOT_TOKEN and SLACK_BOT_TOKEN_FILE are both set",
    );
    assert!(!finished.stderr.contains("xoxb-"), "{finished:?}");
    let twice = Server::builder()
        .file("secret", "x")
        .env("SLACK_SIGNING_SECRET_FILE", "secret");
    let said = "SLACK_SIGNING_SECRET and SLACK_SIGNING_SECRET_FILE are both set";
    assert_ends(&twice.start_expecting_failure(), 2, said);
}

#[test]
fn a_server_without_a_secret_does_not_start_and_says_what_would_help() {
    for config in [
        "",
        "incident:\n  slack:\n    signingSecret: ''\n",
        "incident:\n  slack:\n    signingSecret: []\n",
    ] {
        let finished = with_file().config(config).start_expecting_failure();
        assert_eq!(finished.status, Some(2), "{config}: {finished:?}");
        assert!(
            finished.stderr.starts_with("runbook: error: "),
            "{config}: {finished:?}"
        );
    }
    let finished = with_file().start_expecting_failure();
    assert_ends(
        &finished,
        2,
        "there is no signing secret, so no request could be believed",
    );
    let hint = finished.stderr.lines().nth(1).unwrap();
    assert!(
        hint.starts_with("runbook: hint: set SLACK_SIGNING_SECRET"),
        "{finished:?}"
    );
}

#[test]
fn the_banner_is_the_documented_one() {
    for (yaml, url) in [
        ("", "https://your-domain.com"),
        (
            "webhook:\n  publicUrl: https://runbook.example.com/\n",
            "https://runbook.example.com",
        ),
        (
            "webhook:\n  publicUrl: ${URL:-https://a.example/base}\n",
            "https://a.example/base",
        ),
    ] {
        let server = Server::builder().config(yaml).start();
        let banner = server.banner();
        let lines: Vec<&str> = banner.lines().collect();
        let listening = format!("  Listening on port {}", server.port());
        assert_ne!(server.port(), 0);
        assert_eq!(lines[0], "");
        assert_eq!(lines[1], format!("╔{}╗", "═".repeat(60)));
        assert!(
            lines[2].starts_with("║  ") && lines[2].ends_with("  ║"),
            "{banner}"
        );
        assert_eq!(lines[2].trim_matches(['║', ' ']), "Runbook Webhook Server");
        assert_eq!(lines[3], format!("║{listening:<60}║"));
        assert_eq!(lines[4], format!("╚{}╝", "═".repeat(60)));
        assert!(
            lines[1..5].iter().all(|line| line.chars().count() == 62),
            "{banner}"
        );
        let rest = [
            "",
            "Endpoints:",
            "  POST /slack/interactions  - Slack button callbacks",
            "  POST /slack/events        - Slack event subscriptions",
            "  GET  /health              - Health check",
            "",
            "Server ready. Configure Slack app:",
            &format!("  Request URL: {url}/slack/interactions"),
            "",
            "Waiting for interactions...",
        ];
        assert_eq!(lines[5..], rest);
        server.terminate();
        assert_eq!(
            server.banner(),
            banner,
            "nothing else goes to standard output"
        );
    }
}

#[test]
fn a_port_or_a_directory_that_cannot_be_had_is_told_with_a_hint() {
    let (_hold, port) = taken();
    let finished = Server::builder()
        .args([format!("--port={port}")])
        .start_expecting_failure();
    assert_ends(
        &finished,
        1,
        &format!("cannot listen on 127.0.0.1 port {port}: address already in use"),
    );
    let hint =
        "\nrunbook: hint: another program has the port; --port takes another, 0 any free one\n";
    assert!(finished.stderr.contains(hint), "{finished:?}");

    let scratch = Scratch::new();
    fs::write(scratch.join("file"), "mine").unwrap();
    for dir in ["file", "file/below"] {
        let finished = Server::builder()
            .dir(scratch.join(dir))
            .start_expecting_failure();
        assert_eq!(
            (finished.status, finished.stdout.as_str()),
            (Some(1), ""),
            "{finished:?}"
        );
        assert!(
            finished
                .stderr
                .contains("runbook: error: pending directory "),
            "{finished:?}"
        );
        assert!(
            finished
                .stderr
                .contains("\nrunbook: hint: --pending-dir or RUNBOOK_PENDING_DIR "),
            "{finished:?}"
        );
    }
    assert_eq!(fs::read(scratch.join("file")).unwrap(), b"mine");
}

#[test]
fn with_reuse_port_two_servers_share_one() {
    let first = Server::builder().args(["--reuse-port"]).start();
    let port = format!("--port={}", first.port());
    let alone = Server::builder().args([&port]).start_expecting_failure();
    assert_eq!(alone.status, Some(1));
    let second = Server::builder().args([&port, "--reuse-port"]).start();
    assert_eq!(first.port(), second.port());
    first.terminate();
    assert_eq!(second.get("/health").status, 200);
}

/// Lets a server write lines of many kinds, and returns them.
fn lines_of(builder: Builder) -> Vec<String> {
    let dir = Scratch::new();
    write_approval(&dir, &sample("apr-1"));
    let server = builder.dir(&dir).config("webhook:\n  prot: 1\n").start();
    server.expect_errors();
    server.interact(&Click::approve("apr-1").payload());
    server.interact(&Click::approve("apr-none").payload());
    server.interact(&Click::approve("apr-1").set("/type", "unused").payload());
    server.request(crate::harness::RawRequest::new("POST", "/slack/events"));
    assert_eq!(read_approval(&dir, "apr-1")["status"], "approved");
    server.terminate();
    server.log().lines().map(str::to_owned).collect()
}

#[test]
fn a_json_log_is_one_object_a_line_with_time_level_and_message() {
    let lines = lines_of(Server::builder().args(["--log-format", "json", "--log-level", "trace"]));
    let mut levels = Vec::new();
    for line in &lines {
        let object: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let text = |key: &str| {
            object[key]
                .as_str()
                .unwrap_or_else(|| panic!("{key}: {line}"))
                .to_owned()
        };
        let ts = humantime::parse_rfc3339(&text("ts")).unwrap();
        assert!(ts.elapsed().unwrap() < Duration::from_secs(60), "{line}");
        assert!(!text("msg").is_empty(), "{line}");
        levels.push(text("level"));
        if text("msg") == "Approval granted by @alice" {
            assert_eq!(object["approvalId"], "apr-1");
        }
    }
    for level in ["error", "warn", "info", "debug"] {
        assert!(
            levels.iter().any(|seen| seen == level),
            "{level} in {lines:#?}"
        );
    }
}

#[test]
fn the_log_level_is_the_least_that_is_shown() {
    let shows = |level: &str| {
        let lines = lines_of(Server::builder().args([format!("--log-level={level}")]));
        let some = |start: &str| lines.iter().any(|line| line.starts_with(start));
        let info = lines
            .iter()
            .any(|line| line.contains("] Approval granted by @alice"));
        (some("[ERROR]"), some("[WARN]"), info, some("[DEBUG]"))
    };
    assert_eq!(shows("error"), (true, false, false, false));
    assert_eq!(shows("warn"), (true, true, false, false));
    assert_eq!(shows("info"), (true, true, true, false));
    assert_eq!(shows("debug"), (true, true, true, true));
}

#[test]
fn nobody_needs_to_read_standard_output_or_standard_error() {
    let scratch = Scratch::new();
    write_approval(&scratch, &sample("apr-1"));
    for redirection in [
        "",
        ">&-",
        ">/dev/full",
        "2>&-",
        "2>/dev/full",
        ">&- 2>&- <&-",
    ] {
        // The banner cannot be read here, so the port must be known before: one that was free a moment ago.
        let (hold, port) = taken();
        drop(hold);
        let binary = runbook(scratch.path());
        let mut shell = std::process::Command::new("sh");
        shell
            .arg("-c")
            .arg(format!("exec \"$0\" \"$@\" {redirection}"))
            .arg(binary.get_program())
            .args([
                "webhook",
                "--host=127.0.0.1",
                "--log-level=trace",
                "--pending-dir",
            ])
            .arg(scratch.path())
            .arg(format!("--port={port}"))
            .env_clear()
            .env("SLACK_SIGNING_SECRET", SECRET)
            .current_dir(scratch.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = shell.spawn().unwrap();
        // Without a redirection, the readers of both pipes go away at once.
        drop((child.stdout.take(), child.stderr.take()));
        let well = |path: &Path| {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
            let request = crate::harness::RawRequest::new("GET", path.to_str().unwrap());
            std::io::Write::write_all(&mut stream, &request.to_bytes()).ok()?;
            let mut reader = std::io::BufReader::new(stream);
            crate::harness::Answer::read(&mut reader, "GET")
                .ok()
                .map(|answer| answer.status)
        };
        let health = Path::new("/health");
        let status = eventually(&format!("an answer with {redirection:?}"), SOON, || {
            well(health)
        });
        // Each refusal writes to the log.
        let unsigned = well(Path::new("/slack/events"));
        let still = well(health);
        let running = child.try_wait().unwrap().is_none();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(
            (status, unsigned, still, running),
            (200, Some(405), Some(200), true),
            "{redirection:?}"
        );
    }
}
