//! `runbook list` and `runbook show`: what is told of the approvals in a directory, and how.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use unicode_width::UnicodeWidthStr;

use crate::excuse::not_tested;
use crate::harness::{Finished, Scratch, all_files, runbook, sample, with, write_approval};

/// A time so far away from now, as files have it.
fn ago(span: Duration) -> String {
    humantime::format_rfc3339_seconds(SystemTime::now() - span).to_string()
}

fn ahead(span: Duration) -> String {
    humantime::format_rfc3339_seconds(SystemTime::now() + span).to_string()
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The sample request with other fields; `null` takes one away.
fn write(dir: impl AsRef<Path>, id: &str, fields: &Value) {
    write_approval(dir, &with(sample(id), fields));
}

fn finish(command: &mut Command) -> Finished {
    let output = command.output().unwrap();
    Finished {
        status: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// `runbook ARGS --pending-dir DIR`, to be run.
fn command(dir: impl AsRef<Path>, args: &[&str]) -> Command {
    let mut command = runbook(dir.as_ref());
    command.args(args).arg("--pending-dir").arg(dir.as_ref());
    command
}

/// The same, run to a good end; what it printed.
fn told(dir: impl AsRef<Path>, args: &[&str]) -> String {
    let finished = finish(&mut command(dir, args));
    assert_eq!(
        (finished.status, finished.stderr.as_str()),
        (Some(0), ""),
        "{finished:?}"
    );
    finished.stdout
}

/// What it prints to a terminal of so many columns; `None` where no terminal is to be had.
fn on_a_terminal(
    dir: impl AsRef<Path>,
    args: &[&str],
    columns: usize,
    env: &[(&str, &str)],
) -> Option<String> {
    let inner = command(dir, args);
    let mut terminal = Command::new("script");
    let words = [inner.get_program()].into_iter().chain(inner.get_args());
    let words: Vec<String> = words
        .map(|word| format!("'{}'", word.to_str().unwrap()))
        .collect();
    terminal
        .arg("-qec")
        .arg(format!(
            "stty rows 24 cols {columns}; exec {}",
            words.join(" ")
        ))
        .arg("/dev/null")
        .env_clear()
        .envs(
            inner
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .envs(env.iter().copied())
        .current_dir(inner.get_current_dir().unwrap())
        .stdin(Stdio::null());
    let Ok(output) = terminal.output() else {
        not_tested("what a terminal shows, because there is no script(1)");
        return None;
    };
    assert!(output.status.success(), "{output:?}");
    Some(
        String::from_utf8(output.stdout)
            .unwrap()
            .replace("\r\n", "\n"),
    )
}

/// The first word of each line below the titles.
fn ids(table: &str) -> Vec<&str> {
    let lines = table.lines().skip(1);
    lines.map(|line| line.split(' ').next().unwrap()).collect()
}

#[test]
fn what_is_pending_is_listed_newest_first_and_nothing_else() {
    let dir = Scratch::new();
    write(&dir, "old", &json!({"requestedAt": ago(seconds(7200))}));
    write(&dir, "unknown", &json!({"requestedAt": null}));
    write(&dir, "new", &json!({"requestedAt": ago(seconds(5))}));
    // The same instant in another zone is newer than `old` by the clock, older by its letters.
    write(
        &dir,
        "zoned",
        &json!({"requestedAt": ago(seconds(60)).replace('Z', "+00:00")}),
    );
    for status in ["approved", "denied", "expired", "cancelled"] {
        write(&dir, status, &json!({"status": status}));
    }
    fs::write(dir.join(".hidden.json"), "{").unwrap();
    fs::write(dir.join("notes.txt"), "{").unwrap();
    assert_eq!(
        ids(&told(&dir, &["list"])),
        ["new", "zoned", "old", "unknown"]
    );
}

#[test]
fn a_row_tells_id_risk_operation_who_asked_age_and_expiry() {
    let dir = Scratch::new();
    let row = |id: &str, risk, age, expires: Option<String>, by: Value| {
        let asked = json!({"riskLevel": risk, "requestedAt": ago(seconds(age)), "requestedBy": by, "expiresAt": expires});
        write(&dir, id, &asked);
    };
    row(
        "apr-a",
        json!("critical"),
        12,
        Some(ahead(seconds(299))),
        json!("U061F7AUR"),
    );
    row("apr-b", json!("Medium"), 4 * 60 + 30, None, json!("alice"));
    row(
        "apr-c",
        json!(null),
        3 * 3600 + 30,
        Some(ago(seconds(1))),
        json!(null),
    );
    row(
        "apr-d",
        json!("low"),
        2 * 86_400 + 30,
        Some(ahead(seconds(3 * 86_400 + 30))),
        json!("cron"),
    );
    let table = told(&dir, &["list"]);
    let lines: Vec<&str> = table.lines().collect();
    let fields = |line: &str| {
        line.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        fields(lines[0]),
        ["ID", "RISK", "OPERATION", "BY", "AGE", "EXPIRES"]
    );
    let newest = fields(lines[1]);
    assert_eq!(
        newest[..4],
        ["apr-a", "critical", "scale_ecs_service", "U061F7AUR"]
    );
    let age: u64 = newest[4].strip_suffix('s').unwrap().parse().unwrap();
    assert!((12..20).contains(&age), "{table}");
    assert_eq!(newest[5..], ["in", "4m"]);
    assert_eq!(
        fields(lines[2]),
        [
            "apr-b",
            "medium",
            "scale_ecs_service",
            "alice",
            "4m",
            "never"
        ]
    );
    assert_eq!(
        fields(lines[3]),
        ["apr-c", "high", "scale_ecs_service", "-", "3h", "over"]
    );
    assert_eq!(
        fields(lines[4]),
        [
            "apr-d",
            "low",
            "scale_ecs_service",
            "cron",
            "2d",
            "in",
            "3d"
        ]
    );
    // Columns begin below their titles.
    for title in ["RISK", "OPERATION", "BY", "AGE", "EXPIRES"] {
        let at = lines[0].find(title).unwrap();
        let begins = |line: &&str| &line[at - 2..at] == "  " && !line[at..].starts_with(' ');
        assert!(lines.iter().all(begins), "{title}\n{table}");
    }
}

#[test]
fn nothing_pending_is_one_line_and_no_directory_is_an_error() {
    let dir = Scratch::new();
    write(&dir, "done", &json!({"status": "approved"}));
    assert_eq!(told(&dir, &["list"]), "nothing is pending\n");
    assert_eq!(told(&dir, &["list", "--json"]), "[]\n");
    for args in [&["list"][..], &["list", "--json"], &["show", "apr-1"]] {
        let finished = finish(command(dir.join("missing"), args).current_dir(&dir));
        assert_eq!((finished.status, finished.stdout.as_str()), (Some(1), ""));
        let (error, hint) = finished.stderr.split_once('\n').unwrap();
        let missing = format!(
            "runbook: error: there is no pending directory {}",
            dir.join("missing").display()
        );
        assert_eq!(error, missing);
        assert!(hint.starts_with("runbook: hint: --pending-dir"), "{hint}");
        assert!(!dir.join("missing").exists());
    }
}

#[test]
fn no_line_is_wider_than_the_terminal_and_what_is_to_be_copied_stays_whole() {
    let dir = Scratch::new();
    write(
        &dir,
        "apr-abc123",
        &json!({"operation": "restart_every_service_of_the_region_one_after_another",
        "requestedBy": "the nightly maintenance robot", "riskLevel": "critical"}),
    );
    write(
        &dir,
        "apr-def456",
        &json!({"operation": "日本語の操作をここで実行する🔥🔥🔥 and then some more", "requestedBy": "山田太郎と友達"}),
    );
    write(
        &dir,
        "apr-ghi789",
        &json!({"operation": "⚠\u{fe0f}".repeat(40)}),
    );
    write(
        &dir,
        "apr-jkl012",
        &json!({"operation": "e\u{301}".repeat(90)}),
    );
    fs::write(
        dir.join("bad.json"),
        "this is not the JSON that it says it is",
    )
    .unwrap();
    for columns in (45..140).step_by(3) {
        let finished = finish(command(&dir, &["list"]).env("COLUMNS", columns.to_string()));
        for line in finished.stdout.lines() {
            assert!(line.width() <= columns, "{columns}: {line}");
        }
        let ids = ids(&finished.stdout);
        for id in ["apr-abc123", "apr-def456", "apr-ghi789", "apr-jkl012"] {
            assert!(ids.contains(&id), "{columns}: {ids:?}");
        }
        let shown = finished
            .stdout
            .lines()
            .find(|line| line.starts_with("apr-abc123"))
            .unwrap();
        assert!(
            shown.contains("critical") && shown.ends_with("never"),
            "{shown}"
        );
        let cut = !shown.contains("one_after_another") || !shown.contains("maintenance robot");
        assert_eq!(cut, shown.contains('…'), "{columns}: {shown}");
        assert!(cut || columns > 115, "{columns}: {shown}");
    }
    let whole = told(&dir, &["list"]);
    assert!(!whole.contains('…'), "{whole}");
}

#[test]
fn a_long_text_does_not_make_every_other_line_as_long() {
    let dir = Scratch::new();
    write(&dir, "long", &json!({"operation": "x".repeat(500_000)}));
    for n in 0..20 {
        write(&dir, &format!("apr-{n}"), &json!({}));
    }
    let table = told(&dir, &["list"]);
    assert!((500_000..510_000).contains(&table.len()), "{}", table.len());
}

#[test]
fn wide_characters_count_two_columns() {
    let dir = Scratch::new();
    write(
        &dir,
        "apr-1",
        &json!({"operation": "日本語🔥", "requestedBy": "alice"}),
    );
    write(
        &dir,
        "apr-2",
        &json!({"operation": "plain", "requestedBy": "alice"}),
    );
    let table = told(&dir, &["list"]);
    let columns = table.lines().map(|line| {
        let at = line.find("alice").or_else(|| line.find("BY")).unwrap();
        line[..at].width()
    });
    let columns: Vec<usize> = columns.collect();
    assert!(
        columns.iter().all(|at| *at == columns[0]),
        "{columns:?}\n{table}"
    );
}

#[test]
fn a_terminals_own_size_counts_and_colours_are_for_terminals_that_want_them() {
    let dir = Scratch::new();
    for risk in ["low", "medium", "high", "critical"] {
        write(
            &dir,
            &format!("apr-{risk}"),
            &json!({"riskLevel": risk, "operation": "o".repeat(200)}),
        );
    }
    let Some(coloured) = on_a_terminal(&dir, &["list"], 64, &[("COLUMNS", "200")]) else {
        return;
    };
    for painted in [
        "\x1b[32mlow\x1b[0m     ",
        "\x1b[33mmedium\x1b[0m  ",
        "\x1b[31mhigh\x1b[0m    ",
        "\x1b[1;31mcritical\x1b[0m  ",
    ] {
        assert!(coloured.contains(painted), "{coloured:?}");
    }
    assert_eq!(coloured.matches('\x1b').count(), 8, "{coloured:?}");
    let plain = on_a_terminal(
        &dir,
        &["list"],
        64,
        &[("NO_COLOR", "1"), ("COLUMNS", "200")],
    )
    .unwrap();
    assert!(!plain.contains('\x1b'), "{plain:?}");
    let widths: Vec<usize> = plain.lines().map(UnicodeWidthStr::width).collect();
    assert_eq!(widths, [64, 62, 62, 62, 62], "{plain}");
    let show = on_a_terminal(&dir, &["show", "apr-critical"], 64, &[]).unwrap();
    assert!(
        show.contains("\nRisk: \x1b[1;31mcritical\x1b[0m\n"),
        "{show:?}"
    );
    let piped = told(&dir, &["list"]) + &told(&dir, &["show", "apr-critical"]);
    assert!(!piped.contains('\x1b'), "{piped:?}");
}

/// Text that clears a screen, names itself anew, breaks a line and turns the direction of writing.
const HOSTILE: &str = "\x1b[2J\x1b]0;x\x07\r\n\u{9b}31m\u{7f}\u{202e}\u{2066}\u{200f}\u{2028}end";

#[test]
fn no_file_can_steer_the_terminal() {
    let dir = Scratch::new();
    let person = json!({"id": HOSTILE, "username": HOSTILE, "name": HOSTILE});
    let hostile = json!({
        "operation": HOSTILE, "description": HOSTILE, "args": {HOSTILE: HOSTILE}, "resource": HOSTILE,
        "estimatedImpact": HOSTILE, "requestedBy": HOSTILE, "investigationId": HOSTILE, "requestedAt": HOSTILE,
        "rollbackCommand": HOSTILE, "command": [HOSTILE, HOSTILE], "directory": HOSTILE, "slackChannel": HOSTILE,
        "slackMessageTs": HOSTILE, "callbackUrl": HOSTILE, "reason": HOSTILE, "decidedBy": person,
        "decisions": [{"decision": "deny", "by": person, "at": ago(seconds(9)), "reason": HOSTILE}],
        "executedAt": HOSTILE, "executionError": HOSTILE, "agentNotifiedAt": HOSTILE,
        "effectsOwed": [HOSTILE], "effectsFailed": [{"effect": HOSTILE, "error": HOSTILE, "at": HOSTILE}, HOSTILE],
        HOSTILE: {HOSTILE: [HOSTILE]},
    });
    write(&dir, "apr-1", &hostile);
    fs::write(dir.join(format!("{HOSTILE}.json")), "{").unwrap();
    for args in [
        &["list"][..],
        &["list", "--all"],
        &["list", "--json"],
        &["show", "apr-1"],
        &["show", "apr-1", "--json"],
        &["request", "--no-post", "--json", "--operation", HOSTILE],
    ] {
        let finished = finish(&mut command(&dir, args));
        assert_eq!(finished.status, Some(0), "{finished:?}");
        for c in (finished.stdout + &finished.stderr).chars() {
            let steers = c.is_control() && c != '\n'
                || ('\u{2028}'..='\u{202e}').contains(&c)
                || ('\u{2066}'..='\u{2069}').contains(&c)
                || c == '\u{200f}';
            assert!(!steers, "{args:?}: {c:?}");
        }
    }
    // Escaped, JSON is still the same.
    let shown: Value = serde_json::from_str(&told(&dir, &["show", "apr-1", "--json"])).unwrap();
    assert_eq!(shown["operation"], HOSTILE);
    let table = told(&dir, &["list"]);
    assert_eq!(table.lines().count(), 4, "{table}");
    assert!(
        table.contains("\\u{1b}[2J") && table.contains("\\u{202e}"),
        "{table}"
    );
}

#[test]
fn what_cannot_be_read_is_told_below_the_table_with_its_reason() {
    let dir = Scratch::new();
    write(&dir, "good", &json!({}));
    fs::write(dir.join("bad.json"), r#"{"id":"bad","status":"pending"}"#).unwrap();
    fs::write(dir.join("empty.json"), "").unwrap();
    fs::write(dir.join("no id.json"), sample("x").to_string()).unwrap();
    fs::write(dir.join("twice.json"), r#"{"id":"twice","id":"twice"}"#).unwrap();
    fs::create_dir(dir.join("folder.json")).unwrap();
    let table = told(&dir, &["list"]);
    let lines: Vec<&str> = table.lines().skip(2).collect();
    assert_eq!(
        lines[..4],
        [
            "unreadable: bad.json: operation is missing",
            "unreadable: empty.json: it is empty",
            "unreadable: folder.json: not a regular file",
            "unreadable: no id.json: its name is no approval id",
        ]
    );
    assert!(lines[4].starts_with("unreadable: twice.json: ") && lines[4].contains("duplicate key"));
    assert_eq!(lines.len(), 5, "{table}");

    let json = finish(&mut command(&dir, &["list", "--json"]));
    assert_eq!(json.status, Some(0));
    let listed: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(listed, json!([sample("good")]));
    let warnings: Vec<String> = lines
        .iter()
        .map(|line| format!("runbook: warning: {line}"))
        .collect();
    assert_eq!(json.stderr.lines().collect::<Vec<_>>(), warnings);

    fs::remove_file(dir.join("good.json")).unwrap();
    let table = told(&dir, &["list"]);
    assert_eq!(table.lines().next(), Some("nothing is pending"));
    assert_eq!(table.lines().skip(1).collect::<Vec<_>>(), lines);
}

#[test]
fn all_are_the_decided_and_the_archived_ones_too_with_their_status() {
    let dir = Scratch::new();
    fs::create_dir(dir.join("archive")).unwrap();
    write(&dir, "now", &json!({"requestedAt": ago(seconds(60))}));
    write(
        &dir,
        "denied",
        &json!({"requestedAt": ago(seconds(90)), "status": "denied", "decidedAt": ago(seconds(80))}),
    );
    let archived = json!({"requestedAt": ago(seconds(2 * 86_400)), "status": "approved", "decidedAt": ago(seconds(86_400))});
    write(dir.join("archive"), "old", &archived);
    // An id that was used before has a number; one that is being moved is seen twice.
    write(
        dir.join("archive"),
        "old2",
        &json!({"id": "old", "requestedAt": ago(seconds(3 * 86_400)), "status": "expired"}),
    );
    fs::rename(dir.join("archive/old.json"), dir.join("archive/old.2.json")).unwrap();
    write(dir.join("archive"), "old", &archived);
    fs::copy(dir.join("denied.json"), dir.join("archive/denied.json")).unwrap();
    fs::write(dir.join("archive/bad.json"), "").unwrap();
    let table = told(&dir, &["list", "--all"]);
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows[0].last(), Some(&"STATUS"));
    let brief: Vec<(&str, &str)> = rows[1..4]
        .iter()
        .map(|row| (row[0], *row.last().unwrap()))
        .collect();
    assert_eq!(
        brief,
        [
            ("now", "pending"),
            ("denied", "denied"),
            ("old", "approved")
        ]
    );
    assert!(
        table.ends_with("unreadable: archive/bad.json: it is empty\n"),
        "{table}"
    );
    assert!(!told(&dir, &["list"]).contains("STATUS"));
}

#[test]
fn json_is_the_documents_themselves_in_the_order_of_the_table() {
    let dir = Scratch::new();
    let mut expected = Vec::new();
    for n in 0..5 {
        let id = format!("apr-{n}");
        let odd = json!({"requestedAt": ago(seconds(60 * n)), "zeta": {"b": 1, "a": [null, "日本"]}, "huge": 1e300});
        write(&dir, &id, &odd);
        expected.push(fs::read_to_string(dir.join(format!("{id}.json"))).unwrap());
    }
    // Numbers keep their digits, too.
    let precise = expected[4].replacen("1e+300", "1.000000000000000000001e+300", 1);
    fs::write(dir.join("apr-4.json"), &precise).unwrap();
    expected[4] = precise;
    let listed = told(&dir, &["list", "--json"]);
    assert!(
        listed.starts_with("[\n  {\n    \"id\": \"apr-0\",\n"),
        "{listed}"
    );
    let documents: Vec<Value> = serde_json::from_str(&listed).unwrap();
    let stored: Vec<Value> = expected
        .iter()
        .map(|text| serde_json::from_str(text).unwrap())
        .collect();
    assert_eq!(documents, stored);
    assert!(listed.find("zeta") < listed.find("huge"));
    for (n, text) in expected.iter().enumerate() {
        assert_eq!(&told(&dir, &["show", &format!("apr-{n}"), "--json"]), text);
    }
}

#[test]
fn requests_of_the_runbookai_agent_are_listed_once_and_never_left_out_silently() {
    let dir = Scratch::new();
    let request = |id: &str| json!({"mutationId": id, "createdAt": ago(seconds(60))}).to_string();
    fs::write(dir.join("mut-1_pending.json"), request("mut-1")).unwrap();
    fs::write(
        dir.join("mut-2.json"),
        r#"{"approved":true,"approvedBy":"slack:alice"}"#,
    )
    .unwrap();
    write(&dir, "mut-3", &json!({}));
    fs::write(dir.join("mut-3_pending.json"), request("mut-3")).unwrap();
    fs::write(dir.join("mut-4_pending.json"), request("mut-4")).unwrap();
    fs::create_dir(dir.join(".runbookai")).unwrap();
    fs::write(dir.join(".runbookai/mut-4.json"), "{}").unwrap();
    let table = told(&dir, &["list"]);
    assert_eq!(ids(&table)[..2], ["mut-1", "mut-3"], "{table}");
    assert!(
        table.lines().nth(1).unwrap().contains("in 3m")
            || table.lines().nth(1).unwrap().contains("in 4m"),
        "{table}"
    );
    let rest: Vec<&str> = table.lines().skip(3).collect();
    assert_eq!(
        rest,
        ["unreadable: mut-4_pending.json: its id is not the file's name"]
    );
    assert!(told(&dir, &["show", "mut-1"]).contains("\nOperation: mutation mut-1\n"));
}

#[test]
fn show_tells_all_that_is_known_in_a_sensible_order() {
    let dir = Scratch::new();
    let alice = json!({"id": "U061F7AUR", "username": "alice", "name": "Alice"});
    let bob = json!({"id": "cli:bob", "username": "bob", "name": "bob"});
    write(
        &dir,
        "apr-1",
        &json!({
            "operation": "drop_index", "description": "Drops an index", "riskLevel": "critical", "resource": "orders",
            "estimatedImpact": "slow\nqueries", "requestedBy": "U0BOB0001", "investigationId": "INC-7",
            "requestedAt": ago(seconds(7200)), "expiresAt": ahead(seconds(330)), "status": "approved",
            "decidedAt": ago(seconds(3630)), "decidedBy": bob, "reason": "by phone",
            "decisions": [
                {"decision": "approve", "by": alice, "at": ago(seconds(7000)), "seen": "0".repeat(64)},
                {"decision": "approve", "by": bob, "at": ago(seconds(3630)), "reason": "by phone"},
            ],
            "command": ["psql", "-c", "DROP INDEX it's\n"], "directory": "/srv/db", "rollbackCommand": "psql -f back.sql",
            "executedAt": ago(seconds(3500)), "exitCode": 3, "durationMs": 1500, "agentNotifiedAt": ago(seconds(3500)),
            "callbackUrl": "https://agent.example/done",
            "effectsOwed": [{"effect": "updateMessage", "owner": "x", "since": ago(seconds(3630))}, {"effect": "sing"}],
            "effectsFailed": [{"effect": "notifyAgent", "error": "HTTP 404", "at": ago(seconds(90))}],
            "ticket": {"key": "OPS-1", "n": [1, 2]}, "note": null,
        }),
    );
    let shown = told(&dir, &["show", "apr-1"]);
    let mut lines = shown.lines();
    for (label, value) in [
        ("ID", "apr-1"),
        ("Status", "approved by cli:bob: by phone"),
        ("Operation", "drop_index"),
        ("Description", "Drops an index"),
        (
            "Arguments",
            r#"{"service":"checkout-api","desiredCount":8}"#,
        ),
        ("Risk", "critical"),
        ("Resource", "orders"),
        ("Impact", "slow\\nqueries"),
        ("Requested by", "U0BOB0001"),
        ("Investigation", "INC-7"),
        ("Requested", "* UTC (2h ago)"),
        ("Expires", "* UTC (in 5m)"),
        ("Decided", "* UTC (1h ago)"),
        ("Decided by", "cli:bob"),
        ("Reason", "by phone"),
        (
            "Vote",
            "approve by Alice (@alice, U061F7AUR), * UTC (1h ago), of what the request meant before",
        ),
        ("Vote", "approve by cli:bob, * UTC (1h ago): by phone"),
        ("Command", r"psql -c $'DROP INDEX it\'s\n'"),
        ("Directory", "/srv/db"),
        ("Rollback", "psql -f back.sql"),
        ("Executed", "* UTC (58m ago)"),
        ("Exit code", "3"),
        ("Duration", "1s 500ms"),
        ("Agent notified", "* UTC (58m ago)"),
        ("Slack channel", "C1234567890"),
        ("Slack ts", "1705333800.000100"),
        ("Callback URL", "https://agent.example/done"),
        ("Owed", "updateMessage since * UTC (1h ago)"),
        ("Owed", r#"{"effect":"sing"}"#),
        ("Failed", "notifyAgent: HTTP 404, * UTC (1m ago)"),
        ("ticket", r#"{"key":"OPS-1","n":[1,2]}"#),
    ] {
        let line = lines.next().unwrap_or_default();
        let expected = format!("{label}: {value}");
        let fits = match expected.split_once('*') {
            Some((head, tail)) => line.starts_with(head) && line.ends_with(tail),
            None => line == expected,
        };
        assert!(fits, "{line:?} is not {expected:?}\n{shown}");
    }
    assert_eq!(lines.next(), None, "{shown}");
}

#[test]
fn show_of_a_bare_request_says_what_matters_and_leaves_out_what_is_not_there() {
    let dir = Scratch::new();
    let bare = json!({"id": "apr-1", "operation": "restart", "status": "pending"});
    write_approval(&dir, &bare);
    let shown = told(&dir, &["show", "apr-1"]);
    assert_eq!(
        shown,
        "ID: apr-1\nStatus: pending\nOperation: restart\nRisk: high\nExpires: never\n"
    );
    write(
        &dir,
        "apr-2",
        &json!({"expiresAt": ago(seconds(61)), "args": [1], "resource": 7, "command": "ls -l", "requestedAt": "today"}),
    );
    let shown = told(&dir, &["show", "apr-2"]);
    for line in [
        "Status: pending, but its time is over",
        "Arguments: [1]",
        "resource: 7",
        "Command: ls -l",
        "Requested: today",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line}\n{shown}");
    }
    assert!(shown.contains("UTC (1m ago)"), "{shown}");
}

#[test]
fn show_finds_what_is_archived_and_says_why_it_shows_nothing() {
    let dir = Scratch::new();
    fs::create_dir(dir.join("archive")).unwrap();
    write(
        dir.join("archive"),
        "old",
        &json!({"status": "cancelled", "reason": "no need"}),
    );
    assert!(told(&dir, &["show", "old"]).contains("\nStatus: cancelled: no need\n"));
    fs::write(dir.join("bad.json"), r#"{"id":"bad"}"#).unwrap();
    let refused = |id: &str| {
        let finished = finish(&mut command(&dir, &["show", id]));
        assert_eq!(finished.stdout, "");
        (finished.status, finished.stderr)
    };
    let (status, said) = refused("apr-9");
    assert_eq!(status, Some(1));
    assert!(
        said.starts_with("runbook: error: there is no approval apr-9 in "),
        "{said}"
    );
    assert!(
        said.contains("\nrunbook: hint: runbook list --all"),
        "{said}"
    );
    let damaged = "runbook: error: bad is damaged: operation is missing\n\
                   runbook: hint: the file stays as it is: mend it, or take it away\n";
    assert_eq!(refused("bad"), (Some(1), damaged.to_owned()));
    for id in ["../bad", "a/b", "x.json", "\u{202e}"] {
        let (status, said) = refused(id);
        assert_eq!(status, Some(2), "{said}");
        assert!(said.contains("is no approval id"), "{said}");
    }
}

#[test]
fn looking_writes_nothing_and_needs_no_right_to_write() {
    let dir = Scratch::new();
    fs::create_dir(dir.join("archive")).unwrap();
    write(&dir, "apr-1", &json!({}));
    write(dir.join("archive"), "old", &json!({"status": "denied"}));
    let before = all_files(&dir);
    let names = || fs::read_dir(&dir).unwrap().count();
    let count = names();
    fs::set_permissions(&dir, Permissions::from_mode(0o555)).unwrap();
    for (args, found) in [
        (&["list", "--all"][..], "\nold "),
        (&["list", "--json"], "\"apr-1\""),
        (&["show", "apr-1"], "ID: apr-1\n"),
        (&["show", "old"], "ID: old\n"),
    ] {
        let mut look = command(&dir, args);
        if rustix::process::getuid().is_root() {
            // Root without its right to pass over modes.
            let mut bound = Command::new("setpriv");
            bound
                .arg("--bounding-set=-dac_override,-dac_read_search")
                .arg(look.get_program());
            bound.args(look.get_args()).current_dir(&dir);
            look = bound;
        }
        let finished = finish(&mut look);
        assert_eq!(
            (finished.status, finished.stderr.as_str()),
            (Some(0), ""),
            "{args:?}"
        );
        assert!(finished.stdout.contains(found), "{args:?}: {finished:?}");
    }
    fs::set_permissions(&dir, Permissions::from_mode(0o700)).unwrap();
    assert_eq!((all_files(&dir), names()), (before, count));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let dir = Scratch::new();
    for n in 0..200 {
        write(
            &dir,
            &format!("apr-{n}"),
            &json!({"operation": "o".repeat(1000)}),
        );
    }
    for args in [&["list"][..], &["list", "--json"], &["show", "apr-1"]] {
        let mut reader = command(&dir, args);
        let mut child = reader
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(
            (output.status.code(), &*output.stderr),
            (Some(0), &b""[..]),
            "{args:?}"
        );
    }
}

#[test]
fn five_thousand_files_are_listed_in_no_time() {
    let dir = Scratch::new();
    fs::create_dir(dir.join("archive")).unwrap();
    for n in 0..5000 {
        let (folder, status) = match n % 2 {
            0 => (dir.path().to_owned(), "pending"),
            _ => (dir.join("archive"), "denied"),
        };
        write(
            folder,
            &format!("apr-{n}"),
            &json!({"status": status, "requestedAt": ago(seconds(n))}),
        );
    }
    let started = Instant::now();
    let table = told(&dir, &["list", "--all"]);
    let ids = ids(&table);
    assert_eq!((ids.len(), ids[0], ids[4999]), (5000, "apr-0", "apr-4999"));
    let listed: Vec<Value> = serde_json::from_str(&told(&dir, &["list", "--json"])).unwrap();
    assert_eq!(listed.len(), 2500);
    assert!(started.elapsed() < seconds(20), "{:?}", started.elapsed());
}
