//! The audit log: every event stands there once, in a chain that shows each change.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::harness::{
    CHANNEL, Click, Client, Scratch, Server, eventually, now, owes, read_approval, sample,
    write_approval,
};
use crate::stand_in::StandIn;

/// How long something may take that nothing holds up.
const SOON: Duration = Duration::from_secs(5);

fn file(dir: &Scratch) -> PathBuf {
    dir.path().parent().unwrap().join("audit/approvals.jsonl")
}

/// The lines so far, the chain of which holds.
pub fn lines(dir: &Scratch) -> Vec<Value> {
    let text = fs::read_to_string(file(dir)).unwrap_or_default();
    let mut prev = "0".repeat(64);
    let mut lines = Vec::new();
    for line in text.lines() {
        let parsed: Value = serde_json::from_str(line).unwrap();
        assert_eq!(parsed["prev"], *prev, "{line}");
        assert_eq!(parsed["seq"], lines.len() + 1, "{line}");
        let digest = Sha256::digest(line);
        prev = String::new();
        for byte in digest {
            write!(prev, "{byte:02x}").unwrap();
        }
        lines.push(parsed);
    }
    lines
}

/// The events about one request, as words.
pub fn events(dir: &Scratch, id: &str) -> Vec<String> {
    let about = |line: &Value| line["id"] == id;
    let found = lines(dir).into_iter().filter(about);
    found
        .map(|line| line["event"].as_str().unwrap().to_owned())
        .collect()
}

/// Waits until these are the events about a request.
fn told(dir: &Scratch, id: &str, expected: &[&str]) -> Vec<Value> {
    eventually(&format!("{expected:?} is told of {id}"), SOON, || {
        (events(dir, id) == expected).then_some(())
    });
    let about = |line: &Value| line["id"] == id;
    lines(dir).into_iter().filter(about).collect()
}

/// Holds the README to what stands in the log: its events and all fields, those inside of others too.
fn every_word_is_the_readmes(dir: &Scratch) {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = fs::read_to_string(readme).unwrap();
    let (_, section) = readme.split_once("## The audit log").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let told = |word: &str| assert!(section.contains(&format!("`{word}`")), "{word}");
    for line in lines(dir) {
        told(line["event"].as_str().unwrap());
        for (key, value) in line.as_object().unwrap() {
            told(key);
            let inner = value.as_object().filter(|_| key != "policy");
            inner.into_iter().flatten().for_each(|(key, _)| told(key));
        }
    }
}

fn audit(dir: &Scratch, args: &[&str]) -> (Option<i32>, String, String) {
    let finished = Client::new(["audit"]).and(args).dir(dir).finish();
    let text = finished.stdout.clone();
    (finished.status, text, finished.stderr)
}

#[test]
fn a_decision_stands_there_with_who_what_when_and_from_where() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    write_approval(&dir, &sample("apr-1"));
    let server = Server::builder().dir(&dir).slack(&slack).start();
    let before = now();
    server.click(&Click::approve("apr-1"));
    let told = told(&dir, "apr-1", &["requested", "decided"]);
    let stored = read_approval(&dir, "apr-1");
    let decided = &told[1];
    assert_eq!(decided["status"], "approved");
    assert_eq!(decided["choice"], "approve");
    assert_eq!(decided["by"]["id"], stored["decidedBy"]["id"]);
    assert_eq!(decided["by"]["username"], stored["decidedBy"]["username"]);
    assert_eq!(decided["by"]["name"], stored["decidedBy"]["name"]);
    assert!(decided["by"]["team"].as_str().unwrap().starts_with('T'));
    assert_eq!(decided["operation"], stored["operation"]);
    assert_eq!(decided["digest"], stored["decisions"][0]["seen"]);
    assert_eq!(decided["from"]["address"], "127.0.0.1");
    assert!(
        decided["from"]["channel"]
            .as_str()
            .unwrap()
            .starts_with('C')
    );
    let sent = decided["from"]["requestTimestamp"].as_u64().unwrap();
    assert!((before..=now()).contains(&sent), "{sent}");
    assert!(decided["at"].as_str().unwrap().ends_with('Z'));
    assert!(lines(&dir)[0]["policy"]["approvers"]["high"].is_object());
    eventually("nothing to be owed", SOON, || {
        let stored = read_approval(&dir, "apr-1");
        stored.get("auditOwed").is_none().then_some(())
    });
}

#[test]
fn every_kind_of_event_is_told_in_order() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let policy =
        "safety:\n  approvers:\n    default:\n      users: [UA, UB]\n      minApprovals: 2\n";
    let server = Server::builder()
        .dir(&dir)
        .slack(&slack)
        .config(policy)
        .start();
    write_approval(&dir, &sample("apr-1"));
    let by = |user: &str| Click::approve("apr-1").by(user, &user.to_lowercase());
    for click in [by("UC"), by("UA"), by("UA"), by("UB"), by("UB")] {
        server.click(&click);
    }
    let order = [
        "refused",
        "requested",
        "voted",
        "refused",
        "decided",
        "refused",
    ];
    eventually("all of it", SOON, || {
        let mut found = events(&dir, "apr-1");
        found.sort();
        let mut sorted = order.map(String::from).to_vec();
        sorted.sort();
        (found == sorted).then_some(())
    });
    let refusals: Vec<Value> = lines(&dir)
        .into_iter()
        .filter(|line| line["event"] == "refused")
        .map(|line| line["refusal"].clone())
        .collect();
    assert_eq!(
        refusals,
        ["not an approver", "voted already", "already decided"]
    );

    // Somebody clicks on what is not there.
    server.click(&Click::approve("apr-none"));
    assert_eq!(
        told(&dir, "apr-none", &["refused"])[0]["refusal"],
        "no such approval"
    );

    // The clock, a withdrawal, a decision from the terminal.
    let mut short = sample("apr-2");
    short["expiresAt"] = json!("2024-01-15T15:30:45Z");
    write_approval(&dir, &short);
    told(&dir, "apr-2", &["requested", "expired"]);
    for (id, command, event) in [
        ("apr-3", "cancel", "cancelled"),
        ("apr-4", "deny", "decided"),
    ] {
        write_approval(&dir, &sample(id));
        let done = Client::new([command, id, "--reason", "no"])
            .dir(&dir)
            .finish();
        assert_eq!(done.status, Some(0), "{done:?}");
        let told = told(&dir, id, &["requested", event]);
        assert!(told[1]["by"]["id"].as_str().unwrap().starts_with("cli:"));
        assert_eq!(told[1]["reason"], "no");
    }
    let late = Client::new(["cancel", "apr-4", "--reason", "late"]);
    assert_eq!(late.dir(&dir).finish().status, Some(1));
    let late = &told(&dir, "apr-4", &["requested", "decided", "refused"])[2];
    assert_eq!(late["refusal"], "already decided, so not cancelled");
    assert_eq!(late["reason"], "late");
    assert!(late["by"]["id"].as_str().unwrap().starts_with("cli:"));

    // Rules that hold, and rules that cannot.
    let rules = |event: &str| lines(&dir).iter().filter(|l| l["event"] == event).count();
    assert_eq!(rules("policyLoaded"), 1);
    server.signal(Signal::HUP);
    eventually("the reload", SOON, || {
        (rules("policyLoaded") == 2).then_some(())
    });
    fs::write(server.config_file(), "safety:\n  aprovers: {}\n").unwrap();
    server.expect_errors();
    server.signal(Signal::HUP);
    eventually("the refusal", SOON, || {
        (rules("policyRefused") == 1).then_some(())
    });

    every_word_is_the_readmes(&dir);
    let (status, text, _) = audit(&dir, &["verify"]);
    assert_eq!(status, Some(0), "{text}");
    let count = lines(&dir).len();
    assert!(
        text.contains(&format!("whole: {count} lines in 1 file, 1 to {count}")),
        "{text}"
    );
}

#[test]
fn a_command_that_is_run_stands_there_from_request_to_exit_code() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let words = [
        "run",
        "--operation",
        "tidy",
        "--id",
        "apr-1",
        "--",
        "sh",
        "-c",
        "exit 7",
    ];
    let run = Client::new(words)
        .dir(&dir)
        .slack(&slack)
        .env("SLACK_DEFAULT_CHANNEL", CHANNEL)
        .start();
    slack.wait_for("chat.postMessage", 1, SOON);
    let approved = Client::new(["approve", "apr-1"]).dir(&dir).finish();
    assert_eq!(approved.status, Some(0), "{approved:?}");
    assert_eq!(run.wait().status, Some(7));
    let told = told(
        &dir,
        "apr-1",
        &["requested", "decided", "started", "executed"],
    );
    assert_eq!(told[3]["exitCode"], 7);
    assert!(told[3]["durationMs"].is_u64());
    every_word_is_the_readmes(&dir);
    assert!(read_approval(&dir, "apr-1").get("auditOwed").is_none());
}

#[test]
fn it_is_printed_and_filtered() {
    let dir = Scratch::new();
    let (status, _, complaint) = audit(&dir, &[]);
    assert_eq!(status, Some(1));
    assert!(
        complaint.contains("there is no audit log in"),
        "{complaint}"
    );
    for id in ["apr-1", "apr-2"] {
        write_approval(&dir, &sample(id));
        Client::new(["approve", id]).dir(&dir).finish();
    }
    let (status, text, _) = audit(&dir, &[]);
    assert_eq!((status, text.lines().count()), (Some(0), 4), "{text}");
    assert!(text.contains(" decided apr-1 approved by cli:"), "{text}");
    let (_, one, _) = audit(&dir, &["--id", "apr-2"]);
    assert_eq!(one.lines().count(), 2, "{one}");
    let (_, json, _) = audit(&dir, &["--json", "--since", "1h"]);
    assert_eq!(json, fs::read_to_string(file(&dir)).unwrap());
    let (_, none, _) = audit(&dir, &["--since", "2999-01-01T00:00:00Z"]);
    assert_eq!(none, "");
    let (status, _, complaint) = audit(&dir, &["--since", "soon"]);
    assert_eq!(status, Some(2), "{complaint}");
}

#[test]
fn verify_names_the_first_line_that_was_touched() {
    let dir = Scratch::new();
    for n in 1..=3 {
        let id = format!("apr-{n}");
        write_approval(&dir, &sample(&id));
        Client::new(["approve", &id]).dir(&dir).finish();
    }
    let whole = fs::read_to_string(file(&dir)).unwrap();
    let kept: Vec<&str> = whole.lines().collect();
    assert_eq!(kept.len(), 6);
    let cases: [(&str, Vec<String>, usize); 8] = [
        (
            "the last line cut off",
            vec![whole[..whole.len() - 20].to_owned()],
            6,
        ),
        ("something added", vec![format!("{whole}garbage")], 7),
        ("other line ends", vec![whole.replace('\n', "\r\n")], 1),
        (
            "a changed word",
            vec![whole.replacen("approved", "denied", 1)],
            3,
        ),
        (
            "a line less",
            vec![format!("{}\n{}\n", kept[0], kept[2..].join("\n"))],
            2,
        ),
        (
            "two lines swapped",
            vec![format!("{}\n{}\n{}\n", kept[1], kept[0], kept[2])],
            1,
        ),
        (
            "no JSON",
            vec![format!("{}\nhello\n{}\n", kept[0], kept[1])],
            2,
        ),
        (
            "a beginning that is made up",
            vec![whole.replacen("000000", "000001", 1)],
            1,
        ),
    ];
    for (what, text, line) in cases {
        fs::write(file(&dir), text.concat()).unwrap();
        let (status, out, complaint) = audit(&dir, &["verify"]);
        // Swapped lines begin with another number: that is a log whose first lines were taken away,
        // so it is the second that cannot follow.
        let line = if what == "two lines swapped" { 2 } else { line };
        assert_eq!(status, Some(1), "{what}: {out}");
        assert!(
            complaint.contains(&format!("line {line}:")),
            "{what}: {complaint}"
        );
        let (status, out, _) = audit(&dir, &["verify", "--json"]);
        let found: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(status, Some(1), "{what}: {out}");
        assert_eq!(found["whole"], false, "{what}");
        assert_eq!(found["line"], line, "{what}");
        assert_eq!(found["file"], file(&dir).to_str().unwrap(), "{what}");
    }
}

#[test]
fn a_large_file_is_put_away_and_the_chain_goes_on() {
    let dir = Scratch::new();
    let config = "approvals:\n  auditFileBytes: 4096\n";
    for n in 0..10 {
        let id = format!("apr-{n}");
        write_approval(&dir, &sample(&id));
        let approved = Client::new(["approve", &id])
            .dir(&dir)
            .config(config)
            .finish();
        assert_eq!(approved.status, Some(0), "{approved:?}");
    }
    let folder = file(&dir).parent().unwrap().to_owned();
    let names = || {
        let files = fs::read_dir(&folder).unwrap();
        let mut names: Vec<String> = files
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with('l'))
            .collect();
        names.sort();
        names
    };
    assert!(names().len() >= 2, "{:?}", names());
    let (status, text, complaint) = audit(&dir, &["verify"]);
    assert_eq!(status, Some(0), "{complaint}");
    assert!(
        text.contains("20 lines") && text.contains("1 to 20"),
        "{text}"
    );

    // Somebody else's rotation, which takes the current file away.
    fs::rename(file(&dir), folder.join("approvals.jsonl.1")).unwrap();
    write_approval(&dir, &sample("apr-last"));
    Client::new(["approve", "apr-last"]).dir(&dir).finish();
    let (status, text, complaint) = audit(&dir, &["verify"]);
    assert_eq!(status, Some(0), "{complaint}");
    assert!(text.contains("1 to 22"), "{text}");

    // The oldest file may be taken away for good, one in the middle not.
    let oldest = names()
        .into_iter()
        .find(|name| name.starts_with("approvals-"))
        .unwrap();
    fs::remove_file(folder.join(&oldest)).unwrap();
    let (status, text, complaint) = audit(&dir, &["verify"]);
    assert_eq!(status, Some(0), "{complaint}");
    assert!(text.contains("are not here any more"), "{text}");
}

#[test]
fn under_whatever_name_the_file_is_taken_away_the_chain_goes_on() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let folder = file(&dir).parent().unwrap().to_owned();
    let server = Server::builder().dir(&dir).slack(&slack).start();
    let head = || {
        let (status, text, complaint) = audit(&dir, &["verify"]);
        assert_eq!(status, Some(0), "{complaint}");
        let words = text.split_whitespace();
        let mut digests = words.filter(|word| word.len() == 64);
        digests
            .next()
            .expect("the SHA-256 of the last line")
            .to_owned()
    };
    for (n, (name, is_read)) in [
        ("approvals.jsonl.1", true),
        ("approvals.jsonl-20240115", true),
        ("approvals-20240115.jsonl", true),
        ("approvals.jsonl.2.gz", false),
        ("somebody-elses.log", false),
    ]
    .into_iter()
    .enumerate()
    {
        let (id, another) = (format!("apr-{n}"), format!("apr-{n}-by-command"));
        for id in [&id, &another] {
            write_approval(&dir, &sample(id));
        }
        server.click(&Click::approve(&id));
        eventually("every line to be written", SOON, || {
            let settled = [&id, &another].map(|id| !owes(&read_approval(&dir, id)));
            (settled == [true, true]).then_some(())
        });
        let last = head();
        fs::rename(file(&dir), folder.join(name)).unwrap();
        // Another process than the one that added last, so that only the directory can tell.
        let approved = Client::new(["approve", &another]).dir(&dir).finish();
        assert_eq!(approved.status, Some(0), "{name}: {approved:?}");
        let text = fs::read_to_string(file(&dir)).unwrap();
        let first: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!(first["prev"], *last, "{name}");
        if !is_read {
            // What cannot be read any more is missed, and the rest of the chain holds.
            for old in [
                "approvals.jsonl.1",
                "approvals.jsonl-20240115",
                "approvals-20240115.jsonl",
            ] {
                let _ = fs::remove_file(folder.join(old));
            }
        }
        let (status, said, complaint) = audit(&dir, &["verify"]);
        assert_eq!(status, Some(0), "{name}: {complaint}");
        assert_eq!(
            said.contains("are not here any more"),
            !is_read,
            "{name}: {said}"
        );
    }
}

#[test]
fn half_a_line_of_a_dead_process_is_removed_and_nothing_else() {
    let dir = Scratch::new();
    write_approval(&dir, &sample("apr-1"));
    Client::new(["approve", "apr-1"]).dir(&dir).finish();
    let mut log = fs::OpenOptions::new()
        .append(true)
        .open(file(&dir))
        .unwrap();
    log.write_all(b"{\"seq\":3,\"prev\":\"00").unwrap();
    let (status, _, complaint) = audit(&dir, &["verify"]);
    assert_eq!(status, Some(1), "{complaint}");
    assert!(complaint.contains("line 3: it has no end"), "{complaint}");
    // Whoever prints it gets whole lines only.
    assert_eq!(audit(&dir, &["--json"]).1.lines().count(), 2);
    write_approval(&dir, &sample("apr-2"));
    Client::new(["approve", "apr-2"]).dir(&dir).finish();
    assert_eq!(lines(&dir).len(), 4);
    assert_eq!(audit(&dir, &["verify"]).0, Some(0));
}

#[test]
fn a_line_that_nobody_can_read_keeps_its_place() {
    let dir = Scratch::new();
    write_approval(&dir, &sample("apr-1"));
    Client::new(["approve", "apr-1"]).dir(&dir).finish();
    let path = file(&dir);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text + "what somebody has written\n").unwrap();
    write_approval(&dir, &sample("apr-2"));
    Client::new(["approve", "apr-2"]).dir(&dir).finish();
    let text = fs::read_to_string(&path).unwrap();
    let numbers = text.lines().map(|line| {
        let line: Value = serde_json::from_str(line).unwrap_or_default();
        line["seq"].as_u64()
    });
    let numbers: Vec<_> = numbers.collect();
    assert_eq!(numbers, [Some(1), Some(2), None, Some(4), Some(5)]);
    // It is the only thing that is wrong.
    let (status, _, complaint) = audit(&dir, &["verify"]);
    assert_eq!(status, Some(1), "{complaint}");
    assert!(complaint.contains("line 3: "), "{complaint}");
}

#[test]
fn eight_processes_at_once_make_one_chain() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let servers: Vec<Server> = (0..4)
        .map(|_| Server::builder().dir(&dir).slack(&slack).start())
        .collect();
    std::thread::scope(|scope| {
        for (k, server) in servers.iter().enumerate() {
            let dir = &dir;
            scope.spawn(move || {
                for n in 0..25 {
                    let id = format!("apr-{k}-{n}");
                    write_approval(dir, &sample(&id));
                    let click = Click::approve(&id).payload();
                    assert_eq!(server.interact(&click).status, 200);
                }
            });
            scope.spawn(move || {
                for n in 0..5 {
                    let id = format!("apr-{k}-cli-{n}");
                    write_approval(dir, &sample(&id));
                    Client::new(["approve", &id]).dir(dir).finish();
                }
            });
        }
    });
    let decided = || {
        let lines = lines(&dir);
        lines
            .iter()
            .filter(|line| line["event"] == "decided")
            .count()
    };
    eventually("every decision", SOON, || (decided() >= 120).then_some(()));
    assert_eq!(decided(), 120);
    assert_eq!(audit(&dir, &["verify"]).0, Some(0));
}

#[test]
fn what_a_dead_server_owed_to_the_log_is_told_once() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    write_approval(&dir, &sample("apr-1"));
    let approved = Client::new(["approve", "apr-1"]).dir(&dir).finish();
    assert_eq!(approved.status, Some(0));
    // As if it had died after the line and before it could strike it off: the same event, owed.
    let mut line = lines(&dir).pop().unwrap();
    for key in ["seq", "prev"] {
        line.as_object_mut().unwrap().shift_remove(key);
    }
    let mut other = line.clone();
    other["event"] = "executed".into();
    let mut stored = read_approval(&dir, "apr-1");
    let owner = "a".repeat(16);
    stored["auditOwed"] = json!([
        { "owner": owner, "entry": line },
        { "owner": owner, "entry": other },
    ]);
    write_approval(&dir, &stored);
    let _server = Server::builder().dir(&dir).slack(&slack).start();
    told(&dir, "apr-1", &["requested", "decided", "executed"]);
    eventually("nothing to be owed", SOON, || {
        let stored = read_approval(&dir, "apr-1");
        stored.get("auditOwed").is_none().then_some(())
    });
    assert_eq!(events(&dir, "apr-1").len(), 3);
}

#[test]
fn a_log_that_cannot_be_added_to_is_told_by_health_and_caught_up_with() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    for id in ["apr-1", "apr-2"] {
        write_approval(&dir, &sample(id));
    }
    let server = Server::builder().dir(&dir).slack(&slack).start();
    let folder = file(&dir).parent().unwrap().to_owned();
    let aside = folder.with_extension("aside");
    fs::rename(&folder, &aside).unwrap();
    // Something that no folder can be made of, be it by root.
    fs::write(&folder, "").unwrap();
    server.expect_errors();
    server.click(&Click::approve("apr-1"));
    assert_eq!(read_approval(&dir, "apr-1")["status"], "approved");
    // A refusal changes no approval, so it must stand in the log to be acknowledged.
    assert_eq!(server.interact(&Click::deny("apr-1").payload()).status, 500);
    let health = server.get("/health");
    assert_eq!(health.status, 503, "{}", health.text());
    assert!(health.text().contains("audit log"), "{}", health.text());
    fs::remove_file(&folder).unwrap();
    fs::rename(&aside, &folder).unwrap();
    eventually("health", SOON, || {
        (server.get("/health").status == 200).then_some(())
    });
    // What failed is tried again after a pause that has grown meanwhile.
    eventually("both events to be written", SOON * 3, || {
        (events(&dir, "apr-1") == ["requested", "decided"]).then_some(())
    });
}

#[test]
fn an_approval_that_cannot_be_read_any_more_holds_up_no_line_of_another() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    for n in 0..6 {
        write_approval(&dir, &sample(&format!("apr-{n}")));
    }
    let server = Server::builder().dir(&dir).slack(&slack).start();
    server.expect_errors();
    let folder = file(&dir).parent().unwrap().to_owned();
    let aside = folder.with_extension("aside");
    fs::rename(&folder, &aside).unwrap();
    fs::write(&folder, "").unwrap();
    let click = |n: usize| Click::approve(&format!("apr-{n}")).payload();
    assert_eq!(server.interact(&click(0)).status, 200);
    // Not for readiness: its line has failed several times by then, and the pauses between have grown.
    std::thread::sleep(SOON);
    let path = dir.join("apr-0.json");
    let owing = fs::read(&path).unwrap();
    fs::write(&path, "{").unwrap();
    fs::remove_file(&folder).unwrap();
    fs::rename(&aside, &folder).unwrap();
    eventually("health", SOON, || {
        (server.get("/health").status == 200).then_some(())
    });
    for n in 1..6 {
        assert_eq!(server.interact(&click(n)).status, 200);
        let within = if n == 1 { SOON * 2 } else { SOON / 4 };
        eventually("the line of another", within, || {
            events(&dir, &format!("apr-{n}"))
                .contains(&"decided".to_owned())
                .then_some(())
        });
    }
    fs::write(&path, owing).unwrap();
    eventually("what it owed", SOON * 4, || {
        (events(&dir, "apr-0").len() == 2).then_some(())
    });
}

#[test]
fn a_log_that_is_verified_while_it_is_added_to_and_put_away_is_never_called_broken() {
    let dir = Scratch::new();
    let config = "approvals:\n  auditFileBytes: 4096\n";
    let server = Server::builder().dir(&dir).config(config).start();
    // A server that waits for interactions may be about to write the first line.
    eventually("a line", SOON, || (!lines(&dir).is_empty()).then_some(()));
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..300 {
                let click = Click::approve(&format!("apr-nowhere-{n}"));
                server.click(&click);
            }
            done.store(true, std::sync::atomic::Ordering::Release);
        });
        let mut looks = 0;
        while looks < 20 || !done.load(std::sync::atomic::Ordering::Acquire) {
            let (status, _, complaint) = audit(&dir, &["verify"]);
            assert_eq!(status, Some(0), "{complaint}");
            looks += 1;
        }
    });
}
