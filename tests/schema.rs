//! `fixtures/approval.schema.json` is true: a validator that is not ours finds in it all that we write, in every state,
//! and tells damaged files from whole ones as far as a schema can.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::harness::{
    CHANNEL, Click, Client, Finished, Scratch, Server, dropped, eventually, fixture, now, owes,
    read_approval, sample, with, write_approval,
};
use crate::scene::by;
use crate::stand_in::{Failure, StandIn, Times};

const SOON: Duration = Duration::from_secs(10);

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// What the validator says of each of these files that does not fit, by name.
fn misfits(files: impl IntoIterator<Item = PathBuf>) -> BTreeMap<String, String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/schema.py");
    let run = Command::new("python3")
        .arg(script)
        .arg(fixtures().join("approval.schema.json"))
        .args(files)
        .output()
        .expect("python3");
    let complaint = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "pip install jsonschema: {complaint}");
    let said = String::from_utf8(run.stdout).unwrap();
    let misfit = |line: &str| {
        let (path, problem) = line.split_once('\t').unwrap();
        let name = Path::new(path).file_name().unwrap().to_str().unwrap();
        (name.to_owned(), problem.to_owned())
    };
    said.lines().map(misfit).collect()
}

/// The names of the schema's fields.
fn fields() -> BTreeSet<String> {
    let schema = fixture("approval.schema.json");
    schema["properties"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect()
}

/// Copies of what stood in directories of approvals at one moment or another.
struct Album {
    kept: Scratch,
    seen: BTreeMap<String, BTreeSet<String>>,
}

impl Album {
    /// Takes a copy of a request as it stands; the name says in what state it is.
    fn keep(&mut self, state: &str, approval: &Value) {
        let file = self.kept.join(format!("{state}.json"));
        fs::write(file, approval.to_string()).unwrap();
        let keys = approval.as_object().unwrap().keys().cloned();
        self.seen.insert(state.into(), keys.collect());
    }
}

fn stored(dir: &Scratch, id: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    eventually(what, SOON, || {
        let file = dir.join(format!("{id}.json")).exists();
        let approval = file.then(|| read_approval(dir, id))?;
        is_so(&approval).then_some(approval)
    })
}

fn decided(approval: &Value) -> bool {
    approval["status"] != "pending" && !owes(approval)
}

fn done(finished: &Finished, status: i32) {
    assert_eq!(finished.status, Some(status), "{finished:?}");
}

#[test]
#[allow(clippy::too_many_lines, reason = "one state after another")]
fn whatever_we_write_in_whatever_state_is_of_the_schema() {
    let (slack, dir, keys) = (StandIn::start(), Scratch::new(), Scratch::new());
    let mut album = Album {
        kept: Scratch::new(),
        seen: BTreeMap::new(),
    };
    let key = keys.join("key").to_str().unwrap().to_owned();
    done(&Client::new(["keygen", "--out", &key]).finish(), 0);
    let server = Server::builder()
        .dir(&dir)
        .slack(&slack)
        .env("RUNBOOK_CALLBACK_SECRET", "a-secret")
        .config(
            "safety: {approvers: {critical: {minApprovals: 2, users: [U1, U2], allowExternal: true}}}\n\
             approvals: {mention: [S0ONCALL], remindBeforeMs: 60000}\n",
        )
        .args(["--sign-key", &key])
        .start();
    server.expect_errors();
    let clicks = |click: Click| server.click(&click);
    let asks = |args: &[&str]| Client::new(args).dir(&dir).slack(&slack);

    // Asked by a program that writes files, posted, voted upon by somebody from elsewhere, approved.
    let mut request = dropped("apr-voted", CHANNEL);
    request["riskLevel"] = "critical".into();
    write_approval(&dir, &request);
    let shown = |approval: &Value| approval["slackMessageTs"].is_string() && !owes(approval);
    album.keep("posted", &stored(&dir, "apr-voted", "posted", shown));
    clicks(by("U1", Click::approve("apr-voted")).of_team("T0002"));
    let voted = |approval: &Value| approval["decisions"].is_array() && !owes(approval);
    album.keep("voted", &stored(&dir, "apr-voted", "voted", voted));
    slack.fail_method("chat.update", Failure::Status(503), Times::Next(1));
    clicks(by("U2", Click::approve("apr-voted")));
    album.keep("decided, and owing", &read_approval(&dir, "apr-voted"));
    album.keep("approved", &stored(&dir, "apr-voted", "approved", decided));

    // Denied, where Slack has no such message.
    slack.fail_method(
        "chat.update",
        Failure::NotOk("channel_not_found"),
        Times::Next(1),
    );
    write_approval(&dir, &sample("apr-denied"));
    clicks(Click::deny("apr-denied"));
    let failed = |approval: &Value| approval["effectsFailed"].is_array() && decided(approval);
    album.keep("denied", &stored(&dir, "apr-denied", "given up", failed));

    // Reminded of, and withdrawn.
    let ending = |seconds| {
        let time = UNIX_EPOCH + Duration::from_secs(now() + seconds);
        Value::from(humantime::format_rfc3339_seconds(time).to_string())
    };
    let mut request = sample("apr-reminded");
    request["expiresAt"] = ending(30);
    write_approval(&dir, &request);
    let reminded = |approval: &Value| approval["remindedAt"].is_string() && !owes(approval);
    album.keep(
        "reminded",
        &stored(&dir, "apr-reminded", "reminded", reminded),
    );
    done(
        &asks(&["cancel", "apr-reminded", "--reason", "over"]).finish(),
        0,
    );
    album.keep(
        "cancelled",
        &stored(&dir, "apr-reminded", "cancelled", decided),
    );

    let mut request = sample("apr-expired");
    request["expiresAt"] = ending(1);
    write_approval(&dir, &request);
    album.keep("expired", &stored(&dir, "apr-expired", "expired", decided));

    // Every option, and what `run` writes down.
    let all = [
        "request",
        "--operation",
        "x",
        "--arg",
        "n=12345678901234567890.10",
        "--description",
        "d",
        "--resource",
        "r",
        "--impact",
        "i",
        "--rollback",
        "b",
        "--investigation",
        "PD-1",
        "--id",
        "apr-all",
        "--callback-url",
        "https://127.0.0.1:1/",
        "--no-post",
    ];
    done(&asks(&all).finish(), 0);
    album.keep("asked", &read_approval(&dir, "apr-all"));
    for (id, words, code) in [
        ("apr-run", ["sh", "-c", "exit 3"], 3),
        ("apr-not-started", ["./nowhere", "", "é"], 4),
    ] {
        let run = ["run", "--operation", "x", "--id", id, "--"];
        let running = asks(&[&run[..], &words].concat()).start();
        stored(&dir, id, "posted", shown);
        done(&asks(&["approve", id]).finish(), 0);
        done(&running.wait(), code);
        album.keep(id, &stored(&dir, id, "run", decided));
    }

    // Nobody is asked.
    let auto = [
        "request",
        "--operation",
        "x",
        "--risk",
        "low",
        "--id",
        "apr-auto",
    ];
    let auto = asks(&auto).config("safety: {requireApproval: [critical]}\n");
    done(&auto.finish(), 0);
    album.keep("policy", &read_approval(&dir, "apr-auto"));

    // The audit log cannot be added to, so its line is owed.
    let (other, blocked) = (Scratch::new(), Scratch::new());
    fs::write(blocked.join("file"), "").unwrap();
    let asked = Client::new(["request", "--operation", "x", "--id", "apr-1", "--no-post"]).config(
        &format!(
            "approvals: {{auditDir: {}/file}}\n",
            blocked.path().display()
        ),
    );
    done(&asked.dir(&other).finish(), 0);
    album.keep("audit owed", &read_approval(&other, "apr-1"));

    // Put away.
    let tidy = Server::builder()
        .dir(&dir)
        .config("approvals: {keepDecided: 1s}\n");
    let tidy = tidy.slack(&slack).start();
    let archived = eventually("archived", SOON, || {
        let file = fs::read(dir.join("archive/apr-voted.json")).ok()?;
        serde_json::from_slice(&file).ok()
    });
    album.keep("archived", &archived);
    tidy.expect_errors();

    let pages = album
        .seen
        .keys()
        .map(|state| album.kept.join(format!("{state}.json")));
    assert_eq!(misfits(pages), BTreeMap::new());
    // The album shows every field that the schema names, and no other.
    let seen: BTreeSet<String> = album.seen.into_values().flatten().collect();
    assert_eq!(seen, fields());
}

#[test]
fn damaged_fixtures_are_not_of_the_schema_as_far_as_it_can_tell_and_whole_ones_are() {
    let names = fs::read_dir(fixtures().join("approvals")).unwrap();
    let files = names.map(|entry| entry.unwrap().path());
    let misfits = misfits(files);
    let misfits: Vec<&str> = misfits.keys().map(String::as_str).collect();
    assert_eq!(
        misfits,
        [
            "bad-expiry.json",
            "empty.json",
            "half-written.json",
            // What the RunbookAI agent writes and reads is no approval.
            "mut-9f3a2c.answer.json",
            "mut-9f3a2c_pending.json",
            "mut_lrf2zzk0_k3x9qa_pending.json",
            "no-id.json",
            "no-operation.json",
            "no-status.json",
            "not-an-object.json",
            "not-json.json",
            "unknown-risk.json",
            "unknown-status.json",
        ]
    );
}

#[test]
fn what_nobody_of_us_writes_is_not_of_the_schema() {
    let scratch = Scratch::new();
    let mut files = Vec::new();
    for (name, changes) in [
        ("id", json!({"id": "../x"})),
        ("operation", json!({"operation": ""})),
        ("blank", json!({"operation": " \n"})),
        ("args", json!({"args": []})),
        ("time", json!({"requestedAt": "yesterday"})),
        ("url", json!({"callbackUrl": "file:///etc/passwd"})),
        ("digest", json!({"slackMessageDigest": "0a"})),
        ("vote", json!({"decisions": [{"decision": "perhaps"}]})),
        (
            "person",
            json!({"status": "approved", "decidedBy": "alice"}),
        ),
        ("undecided", json!({"decidedAt": "2024-01-15T15:30:00Z"})),
        ("code", json!({"status": "approved", "exitCode": 0})),
    ] {
        let approval = with(sample("apr-1"), &changes);
        let file = scratch.join(name);
        fs::write(&file, approval.to_string()).unwrap();
        files.push(file);
    }
    let refused = misfits(files.clone());
    for file in &files {
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(refused.contains_key(name), "{name}: {refused:?}");
    }
}

#[test]
fn the_readme_and_the_schema_name_the_same_fields() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = fs::read_to_string(readme).unwrap();
    let (_, table) = readme.split_once("| field | meaning |\n").unwrap();
    let rows = table
        .lines()
        .skip(1)
        .take_while(|line| line.starts_with('|'));
    let mut named: Vec<String> = Vec::new();
    for row in rows {
        let cell = row.split('|').nth(1).unwrap();
        named.extend(cell.split('`').skip(1).step_by(2).map(str::to_owned));
    }
    let once: BTreeSet<String> = named.iter().cloned().collect();
    assert_eq!(once.len(), named.len(), "a field stands there twice");
    assert_eq!(once, fields());
}
