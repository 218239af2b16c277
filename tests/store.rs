//! The directory as an interface: what other programs put there is kept, what is damaged is left alone, and whatever
//! goes wrong beneath, nothing is half-decided.

use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::excuse::{is_root, not_tested};
use crate::harness::{
    Click, Client, Scratch, Server, all_files, eventually, fixture, fixture_text, owes,
    read_approval, sample, settled, write_approval,
};
use crate::stand_in::{Failure, StandIn, Times};

/// How long something may take that nothing holds up.
const SOON: Duration = Duration::from_secs(5);

/// How many are pending, once all files are counted.
fn pending(server: &Server) -> Value {
    loop {
        let health = server.get("/health?verbose").json();
        if health["counting"].is_null() {
            return health["pendingApprovals"].clone();
        }
    }
}

fn unreadable(server: &Server) -> Value {
    server.get("/health?verbose").json()["unreadableFiles"].clone()
}

fn approve(server: &Server, id: &str) -> u16 {
    server.interact(&Click::approve(id).payload()).status
}

/// The files that hold approvals, by name.
fn approvals(dir: impl AsRef<Path>) -> Vec<(String, Vec<u8>)> {
    let ours = |name: &String| {
        !name.starts_with('.')
            && Path::new(name)
                .extension()
                .is_some_and(|extension| extension == "json")
    };
    let files = all_files(dir).into_iter();
    files.filter(|(name, _)| ours(name)).collect()
}

fn temporaries(dir: impl AsRef<Path>) -> Vec<String> {
    let names = all_files(dir).into_keys();
    names.filter(|name| name.contains(".tmp.")).collect()
}

/// The tokens of a JSON text: strings by what they say, numbers as they are spelt, but that `1e400` and `1e+400` are
/// the same number and `serde_json` always writes the second.
fn tokens(json: &str) -> Vec<String> {
    let (mut tokens, mut rest) = (Vec::new(), json.trim_start());
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '{' | '}' | '[' | ']' | ':' | ',' => 1,
            '"' => {
                let mut escaped = false;
                let end = rest[1..].find(|c| {
                    let ends = c == '"' && !escaped;
                    escaped = c == '\\' && !escaped;
                    ends
                });
                end.expect("a string ends") + 2
            }
            _ => rest
                .find(|c: char| ",]}".contains(c) || c.is_whitespace())
                .unwrap_or(rest.len()),
        };
        let token = &rest[..length];
        tokens.push(match first {
            '"' => format!("text {}", serde_json::from_str::<String>(token).unwrap()),
            _ => token.replace("e+", "e"),
        });
        rest = rest[length..].trim_start();
    }
    tokens
}

#[test]
fn the_documented_request_is_kept_field_by_field() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let text = fixture_text("approvals/apr-abc123.json");
    fs::write(dir.join("apr-abc123.json"), text).unwrap();
    let server = Server::builder().dir(&dir).slack(&slack).start();
    assert_eq!(approve(&server, "apr-abc123"), 200);
    let after = settled(&dir, "apr-abc123", SOON);
    let mut expected = fixture("approvals/apr-abc123.json");
    expected["status"] = "approved".into();
    for added in ["decisions", "decidedAt", "decidedBy", "recordedAt"] {
        expected[added] = after[added].clone();
    }
    assert_eq!(after, expected);
    assert_eq!(after["decisions"].as_array().unwrap().len(), 1);
    assert_eq!(after["decisions"][0]["at"], after["decidedAt"]);
}

#[test]
fn what_we_do_not_know_keeps_its_place_and_its_spelling_through_every_rewrite() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let (name, file) = ("apr-unknown-fields", dir.join("apr-unknown-fields.json"));
    let text = fixture_text("approvals/apr-unknown-fields.json");
    fs::write(&file, &text).unwrap();
    let server = Server::builder()
        .dir(&dir)
        .slack(&slack)
        .config("safety: {approvers: {default: {minApprovals: 2}}}\n")
        .start();
    let mut before = tokens(&text);
    assert_eq!(before.pop().as_deref(), Some("}"));
    let keeps = |status: &str| {
        let after = tokens(&fs::read_to_string(&file).unwrap());
        for (n, token) in before.iter().enumerate() {
            let expected = if token == "text pending" {
                format!("text {status}")
            } else {
                token.clone()
            };
            assert_eq!(after[n], expected, "token {n}, {status}");
        }
        assert_eq!(after[before.len()], ",");
    };
    slack.fail(Failure::Hang, Times::Next(1));
    approve(&server, name);
    keeps("pending");
    let second = Click::approve(name).by("U0BOB0001", "bob");
    server.interact(&second.payload());
    keeps("approved");
    slack.wait_for("chat.update", 1, SOON);
    slack.recover();
    settled(&dir, name, SOON);
    keeps("approved");
}

/// Every file of `fixtures/approvals` that is no approval.
const FAULTS: [&str; 13] = [
    "empty",
    "half-written",
    "not-json",
    "not-an-object",
    "duplicate-key",
    "nested-duplicate-key",
    "no-id",
    "no-operation",
    "no-status",
    "other-id",
    "unknown-status",
    "unknown-risk",
    "bad-expiry",
];

#[test]
fn a_damaged_file_is_never_approved_never_touched_and_told_once() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let mut names: Vec<String> = FAULTS.map(str::to_owned).to_vec();
    for name in &names {
        let text = fixture_text(&format!("approvals/{name}.json"));
        fs::write(dir.join(format!("{name}.json")), text).unwrap();
    }
    let damaged = |name: &str, key: &str, value: Value| {
        let mut approval = sample(name);
        approval[key] = value;
        (name.to_owned(), approval.to_string().into_bytes())
    };
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    let with_text = |name: &str, text: &str| {
        let whole = sample(name).to_string();
        (name.to_owned(), whole.replace('8', text).into_bytes())
    };
    let mut latin = sample("latin-1");
    latin["requestedBy"] = "M~ller".into();
    let latin = latin.to_string().into_bytes();
    let latin = latin.iter().map(|&b| if b == b'~' { 0xfc } else { b });
    for (name, bytes) in [
        damaged("number-id", "id", json!(1)),
        damaged("null-status", "status", Value::Null),
        damaged("capital-status", "status", json!("PENDING")),
        damaged("list-risk", "riskLevel", json!(["low"])),
        damaged("number-expiry", "expiresAt", json!(4_102_444_800_u64)),
        damaged("votes-by-nobody", "decisions", json!([{"by": "U1"}])),
        with_text("too-deep", &deep),
        with_text("no-number", "08"),
        with_text("two-documents", "8}} {}"),
        ("latin-1".to_owned(), latin.collect()),
        ("nul".to_owned(), vec![0; 4096]),
        ("no id".to_owned(), sample("no id").to_string().into_bytes()),
    ] {
        fs::write(dir.join(format!("{name}.json")), bytes).unwrap();
        names.push(name);
    }
    write_approval(&dir, &sample("apr-sound"));
    let before = approvals(&dir);
    let stamp = |name: &String| {
        let metadata = fs::metadata(dir.join(format!("{name}.json"))).unwrap();
        (metadata.ino(), metadata.mtime_nsec(), metadata.mode())
    };
    let stamps: Vec<_> = names.iter().map(stamp).collect();

    let server = Server::builder().dir(&dir).slack(&slack).start();
    assert_eq!(
        (pending(&server), unreadable(&server)),
        (json!(1), json!(25))
    );
    for (n, name) in names.iter().enumerate() {
        for click in [Click::approve(name), Click::deny(name)] {
            let click = click.response_url(slack.response_url(&format!("{n}")));
            assert_eq!(server.interact(&click.payload()).status, 200, "{name}");
        }
    }
    let words = slack.wait_for("response_url", 2 * names.len(), SOON);
    for word in words {
        let text = word.body["text"].as_str().unwrap();
        let known = text.contains("cannot be read") || text.contains("carries no approval id");
        assert!(known, "{text}");
    }
    assert_eq!(
        (pending(&server), unreadable(&server)),
        (json!(1), json!(25))
    );
    server.terminate();
    assert_eq!(approvals(&dir), before);
    assert_eq!(names.iter().map(stamp).collect::<Vec<_>>(), stamps);
    assert!(slack.calls_of("chat.update").is_empty());
    let log = server.log();
    for name in &names {
        let line = format!("/{name}.json\n");
        assert_eq!(log.matches(&line).count(), 1, "{name}: {log}");
    }
    assert_eq!(log.matches("Unreadable approval file").count(), names.len());
}

#[test]
fn a_damaged_file_that_is_repaired_can_be_decided() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let server = Server::builder().dir(&dir).slack(&slack).start();
    for name in FAULTS {
        let text = fixture_text(&format!("approvals/{name}.json"));
        fs::write(dir.join(format!("{name}.json")), text).unwrap();
    }
    assert_eq!(
        (pending(&server), unreadable(&server)),
        (json!(0), json!(13))
    );
    for (n, name) in FAULTS.into_iter().enumerate() {
        // In place and by rename: programs do both.
        if n % 2 == 0 {
            let text = sample(name).to_string();
            fs::write(dir.join(format!("{name}.json")), text).unwrap();
        } else {
            write_approval(&dir, &sample(name));
        }
        assert_eq!(pending(&server), json!(1), "{name}");
        assert_eq!(unreadable(&server), json!(12 - n), "{name}");
        assert_eq!(approve(&server, name), 200, "{name}");
        assert_eq!(read_approval(&dir, name)["status"], "approved");
    }
    fs::remove_file(dir.join("empty.json")).unwrap();
    assert_eq!(
        (pending(&server), unreadable(&server)),
        (json!(0), json!(0))
    );
}

/// Puts things into a directory that have an approval's name and are no plain file.
fn make_oddities(dir: &Path, elsewhere: &Path) -> [&'static str; 6] {
    write_approval(elsewhere, &sample("apr-link"));
    symlink(elsewhere.join("apr-link.json"), dir.join("apr-link.json")).unwrap();
    symlink("nowhere", dir.join("apr-dangling.json")).unwrap();
    fs::create_dir(dir.join("apr-folder.json")).unwrap();
    let mut large = sample("apr-large");
    large["padding"] = "x".repeat(1 << 20).into();
    write_approval(dir, &large);
    let fifo = Command::new("mkfifo")
        .arg(dir.join("apr-fifo.json"))
        .status();
    assert!(fifo.unwrap().success());
    drop(std::os::unix::net::UnixListener::bind(dir.join("apr-socket.json")).unwrap());
    [
        "apr-link",
        "apr-dangling",
        "apr-folder",
        "apr-large",
        "apr-fifo",
        "apr-socket",
    ]
}

#[test]
fn links_pipes_folders_and_giants_are_survived_and_never_decided() {
    for before_start in [true, false] {
        let (slack, dir, elsewhere) = (StandIn::start(), Scratch::new(), Scratch::new());
        let make = || make_oddities(dir.path(), elsewhere.path());
        let early = before_start.then(make);
        let server = Server::builder().dir(&dir).slack(&slack).start();
        let names = early.unwrap_or_else(make);
        let large = fs::read(dir.join("apr-large.json")).unwrap();
        write_approval(&dir, &sample("apr-sound"));
        assert_eq!(
            (pending(&server), unreadable(&server)),
            (json!(1), json!(6))
        );
        for (n, name) in names.into_iter().enumerate() {
            let click = Click::approve(name).response_url(slack.response_url(name));
            let started = Instant::now();
            assert_eq!(server.interact(&click.payload()).status, 200, "{name}");
            assert!(started.elapsed() < Duration::from_secs(1), "{name}");
            let words = slack.wait_for("response_url", n + 1, SOON);
            let text = words[n].body["text"].as_str().unwrap();
            assert!(text.contains("cannot be read"), "{name}: {text}");
        }
        assert_eq!(read_approval(&elsewhere, "apr-link")["status"], "pending");
        assert_eq!(fs::read(dir.join("apr-large.json")).unwrap(), large);
        for name in names {
            assert!(fs::symlink_metadata(dir.join(format!("{name}.json"))).is_ok());
        }
        assert_eq!(approve(&server, "apr-sound"), 200);
        assert_eq!(read_approval(&dir, "apr-sound")["status"], "approved");
        assert!(server.terminate().success());
        let told = server.log().matches("Unreadable approval file").count();
        assert_eq!(told, names.len(), "{}", server.log());
    }
}

#[test]
fn an_approval_counts_however_its_file_came_to_be() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let server = Server::builder().dir(&dir).slack(&slack).start();
    fs::write(dir.join("apr-1.json"), sample("apr-1").to_string()).unwrap();
    assert_eq!(pending(&server), 1);
    write_approval(&dir, &sample("apr-2"));
    assert_eq!(pending(&server), 2);
    fs::write(dir.join(".unfinished"), sample("apr-3").to_string()).unwrap();
    fs::hard_link(dir.join(".unfinished"), dir.join("apr-3.json")).unwrap();
    assert_eq!(pending(&server), 3);
    fs::remove_file(dir.join(".unfinished")).unwrap();
    let open = File::create(dir.join("apr-4.json")).unwrap();
    assert_eq!(
        (pending(&server), unreadable(&server)),
        (json!(3), json!(0))
    );
    drop(open);
    assert_eq!(
        (pending(&server), unreadable(&server)),
        (json!(3), json!(1))
    );
    fs::rename(dir.join("apr-3.json"), dir.join("apr-3.json.bak")).unwrap();
    fs::remove_file(dir.join("apr-4.json")).unwrap();
    assert_eq!(
        (pending(&server), unreadable(&server)),
        (json!(2), json!(0))
    );
}

#[test]
fn hidden_files_the_archive_and_temporaries_are_no_approvals() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    fs::create_dir(dir.join("archive")).unwrap();
    fs::create_dir(dir.join("drafts")).unwrap();
    let names = [
        ".apr-1.json",
        ".json",
        "archive/apr-1.json",
        "drafts/apr-1.json",
        "apr-1.json.tmp",
        "apr-1.JSON",
        "apr-1",
        "apr-1.json~",
    ];
    for name in names {
        fs::write(dir.join(name), sample("apr-1").to_string()).unwrap();
    }
    let server = Server::builder().dir(&dir).slack(&slack).start();
    assert_eq!(
        (pending(&server), unreadable(&server)),
        (json!(0), json!(0))
    );
    let click = Click::approve("apr-1").response_url(slack.response_url("x"));
    server.click(&click);
    let word = &slack.wait_for("response_url", 1, SOON)[0];
    assert!(word.body["text"].as_str().unwrap().contains("no approval"));
    server.terminate();
    for name in names {
        let text = fs::read_to_string(dir.join(name)).unwrap();
        assert_eq!(text, sample("apr-1").to_string(), "{name}");
    }
}

#[test]
fn what_we_make_is_ours_alone_and_what_we_rewrite_keeps_mode_and_owner() {
    let (slack, scratch) = (StandIn::start(), Scratch::new());
    let dir = scratch.join("made/by/us");
    let server = Server::builder()
        .dir(&dir)
        .slack(&slack)
        .config("approvals: {keepDecided: 1s}\n")
        .start();
    let root = is_root("that a rewrite keeps the owner");
    for (id, mode) in [("apr-1", 0o640), ("apr-2", 0o664), ("apr-3", 0o600)] {
        write_approval(&dir, &sample(id));
        let file = dir.join(format!("{id}.json"));
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        if root {
            std::os::unix::fs::chown(&file, Some(12_345), Some(12_346)).unwrap();
        }
        let before = fs::metadata(&file).unwrap();
        assert_eq!(approve(&server, id), 200);
        settled(&dir, id, SOON);
        let after = fs::metadata(&file).unwrap();
        assert_eq!(read_approval(&dir, id)["status"], "approved");
        assert_eq!(after.mode() & 0o7777, mode);
        assert_eq!((after.uid(), after.gid()), (before.uid(), before.gid()));
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    }
    let now = humantime::format_rfc3339(std::time::SystemTime::now()).to_string();
    let request = json!({"mutationId": "mut_1_1", "createdAt": now}).to_string();
    fs::write(dir.join("mut_1_1_pending.json"), request).unwrap();
    let click = Click::approve("mut_1_1").action_id("approve_mut_1_1");
    server.click(&click);
    eventually("the archive", SOON, || {
        dir.join("archive/apr-3.json").exists().then_some(())
    });
    let mut folders = vec![scratch.join("made"), scratch.join("made/by"), dir.clone()];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        let mode = fs::metadata(&folder).unwrap().mode() & 0o7777;
        assert_eq!(mode, 0o700, "{}", folder.display());
        if !folder.starts_with(&dir) {
            continue;
        }
        for file in fs::read_dir(&folder).unwrap().filter_map(Result::ok) {
            // One of those that a server makes and removes all the time.
            let Ok(metadata) = file.metadata() else {
                continue;
            };
            let name = file.file_name().into_string().unwrap();
            if metadata.is_dir() {
                folders.push(file.path());
            } else if !name.contains(".tmp.") {
                assert_eq!(metadata.mode() & 0o7777, 0o600, "{name}");
                seen += 1;
            }
        }
    }
    assert!(seen >= 5, "{:?}", all_files(&dir).keys());
}

#[test]
fn a_decided_approval_goes_to_the_archive_and_never_over_another_one() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    fs::create_dir(dir.join("archive")).unwrap();
    fs::write(dir.join("archive/apr-1.json"), "an older one").unwrap();
    for id in ["apr-1", "apr-2", "apr-waits"] {
        write_approval(&dir, &sample(id));
    }
    let server = Server::builder()
        .dir(&dir)
        .slack(&slack)
        .config("approvals: {keepDecided: 1s}\n")
        .start();
    assert_eq!(
        (approve(&server, "apr-1"), approve(&server, "apr-2")),
        (200, 200)
    );
    let appears = |name: &str| {
        eventually(name, SOON, || fs::read_to_string(dir.join(name)).ok());
    };
    appears("archive/apr-1.2.json");
    appears("archive/apr-2.json");
    // The same id once more: a third record.
    write_approval(&dir, &sample("apr-1"));
    server.interact(&Click::deny("apr-1").payload());
    appears("archive/apr-1.3.json");
    let archived = |name: &str| fs::read_to_string(dir.join("archive").join(name)).unwrap();
    assert_eq!(archived("apr-1.json"), "an older one");
    assert!(archived("apr-1.2.json").contains(r#""status": "approved""#));
    assert!(archived("apr-1.3.json").contains(r#""status": "denied""#));
    assert!(!dir.join("apr-1.json").exists() && !dir.join("apr-2.json").exists());
    assert_eq!(read_approval(&dir, "apr-waits")["status"], "pending");
    assert_eq!(pending(&server), 1);
}

#[test]
fn nothing_is_archived_that_still_owes_an_effect() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    slack.fail(Failure::Hang, Times::Forever);
    write_approval(&dir, &fixture("approvals/decided.json"));
    write_approval(&dir, &owing("apr-owing", "adeadowner"));
    let server = Server::builder().dir(&dir).slack(&slack).start();
    eventually("the one that owes nothing to be archived", SOON, || {
        dir.join("archive/decided.json").exists().then_some(())
    });
    slack.wait_for("chat.update", 1, SOON);
    assert!(dir.join("apr-owing.json").exists());
    slack.recover();
    eventually("the other one to be archived", SOON, || {
        dir.join("archive/apr-owing.json").exists().then_some(())
    });
    assert_eq!(server.get("/health?verbose").json()["effectsOwed"], 0);
}

/// A decided approval whose message a process of that name has promised to update.
fn owing(id: &str, owner: &str) -> Value {
    let mut approval = fixture("approvals/decided.json");
    approval["id"] = id.into();
    approval["effectsOwed"] = json!([{
        "effect": "updateMessage", "owner": owner, "since": approval["decidedAt"],
        "route": {"channel": "C1234567890", "ts": "1705333800.000100"},
    }]);
    // Old enough for the archive, not for giving up.
    approval["effectsOwed"][0]["since"] =
        humantime::format_rfc3339_seconds(std::time::SystemTime::now())
            .to_string()
            .into();
    approval
}

#[test]
fn an_effect_of_a_later_version_stays_owed() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let mut approval = owing("apr-1", "adeadowner");
    let foreign = json!({"effect": "singASong", "owner": "somebody", "verses": 3});
    let owed = approval["effectsOwed"].as_array_mut().unwrap();
    owed.insert(0, foreign.clone());
    write_approval(&dir, &approval);
    let _server = Server::builder().dir(&dir).slack(&slack).start();
    slack.wait_for("chat.update", 1, SOON);
    let left = eventually("our effect to be settled", SOON, || {
        let owed = read_approval(&dir, "apr-1")["effectsOwed"].clone();
        let ours = owed.to_string().contains("updateMessage");
        (!ours).then_some(owed)
    });
    assert_eq!(left, json!([foreign]));
}

/// The name under which a server announced itself, when it is the only one there.
fn owner_in(dir: impl AsRef<Path>) -> String {
    let names = fs::read_dir(dir.as_ref().join(".locks")).unwrap();
    let mut owners = names.filter_map(|entry| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        name.strip_prefix("owner-").map(str::to_owned)
    });
    let owner = owners.next().expect("a server announces itself");
    assert_eq!(owners.next(), None);
    owner
}

#[test]
fn a_start_removes_the_temporaries_of_the_dead_and_of_nobody_else() {
    let dir = Scratch::new();
    let living = Server::builder().dir(&dir).start();
    let owner = owner_in(&dir);
    let dead = [
        ".tmp.adeadserversname.7".to_owned(),
        ".runbookai/.tmp.adeadserversname.8".to_owned(),
        ".ballots/.tmp.adeadserversname.9".to_owned(),
    ];
    let kept = [
        format!(".tmp.{owner}.999999"),
        format!(".runbookai/.tmp.{owner}.999998"),
        ".tmp.XYZ123".to_owned(),
        ".somebody-elses.tmp".to_owned(),
    ];
    for name in dead.iter().chain(&kept) {
        fs::write(dir.join(name), "half").unwrap();
    }
    let second = Server::builder().dir(&dir).start();
    assert!(dead.iter().all(|name| !dir.join(name).exists()));
    assert!(kept.iter().all(|name| dir.join(name).exists()));
    second.terminate();
    living.kill();
    let _third = Server::builder().dir(&dir).start();
    assert_eq!(temporaries(&dir), [kept[2].as_str()]);
    assert!(kept[2..].iter().all(|name| dir.join(name).exists()));
    owner_in(&dir);
}

#[test]
fn what_a_killed_command_leaves_goes_while_a_server_runs_and_what_the_living_have_stays() {
    let dir = Scratch::new();
    let server = Server::builder().dir(&dir).start();
    let living = owner_in(&dir);
    let owners = || {
        let names = fs::read_dir(dir.join(".locks")).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("owner-")).count()
    };
    let args = ["--operation", "x", "--no-post", "--wait"];
    let asking = Client::new(["request"]).and(&args).dir(&dir).start();
    eventually("the command to announce itself", SOON, || {
        (owners() == 2).then_some(())
    });
    let names = fs::read_dir(dir.join(".locks")).unwrap();
    let other = names
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .find_map(|name| Some(name.strip_prefix("owner-")?.to_owned()).filter(|it| *it != living))
        .unwrap();
    let (dead, kept) = (format!(".tmp.{other}.99"), format!(".tmp.{living}.999999"));
    for name in [&dead, &kept] {
        fs::write(dir.join(name), "half").unwrap();
    }
    // Not for readiness: the server looks for what the dead left several times in that.
    thread::sleep(SOON);
    assert!(dir.join(&dead).exists(), "the command lives still");
    asking.kill();
    eventually("what it left to go", SOON * 2, || {
        (owners() == 1 && !dir.join(&dead).exists()).then_some(())
    });
    assert!(dir.join(&kept).exists());
    server.kill();
}

#[test]
fn a_storm_on_four_servers_has_one_winner_for_each_approval() {
    const APPROVALS: usize = 20;
    const CLICKERS: usize = 8;
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let servers: [Server; 4] =
        std::array::from_fn(|_| Server::builder().dir(&dir).slack(&slack).start());
    let ids: Vec<String> = (0..APPROVALS).map(|n| format!("apr-storm{n}")).collect();
    for id in &ids {
        write_approval(&dir, &sample(id));
    }
    let start = Barrier::new(servers.len() * CLICKERS);
    thread::scope(|scope| {
        for (s, server) in servers.iter().enumerate() {
            for clicker in 0..CLICKERS {
                let (ids, start) = (&ids, &start);
                scope.spawn(move || {
                    let name = format!("s{s}c{clicker}");
                    for id in ids {
                        let click = if clicker % 2 == 0 {
                            Click::approve(id)
                        } else {
                            Click::deny(id)
                        };
                        let click = click.by(&name.to_uppercase().replace('S', "U"), &name);
                        start.wait();
                        assert_eq!(server.interact(&click.payload()).status, 200, "{name} {id}");
                    }
                });
            }
        }
    });
    slack.wait_for("chat.update", APPROVALS, SOON);
    let stored: Vec<Value> = ids.iter().map(|id| settled(&dir, id, SOON)).collect();
    for server in &servers {
        assert_eq!(pending(server), 0);
        server.terminate();
    }
    let log: String = servers.iter().map(Server::log).collect();
    for (id, stored) in ids.iter().zip(stored) {
        assert_eq!(stored["decisions"].as_array().unwrap().len(), 1, "{stored}");
        assert_eq!(stored["decisions"][0]["by"], stored["decidedBy"]);
        let verb = if stored["status"] == "approved" {
            "granted"
        } else {
            "denied"
        };
        let by = stored["decidedBy"]["username"].as_str().unwrap();
        let line = format!("Approval {verb} by @{by}\n  Approval ID: {id}\n");
        assert_eq!(log.matches(&line).count(), 1, "{id}");
    }
    let decisions = ["Approval granted by", "Approval denied by"];
    let told: usize = decisions.iter().map(|line| log.matches(line).count()).sum();
    assert_eq!(
        (told, slack.calls_of("chat.update").len()),
        (APPROVALS, APPROVALS)
    );
}

/// A small filesystem, unmounted on drop.
pub struct SmallDisk(pub PathBuf);

impl SmallDisk {
    /// `None`, with a word about it, where mounting is not permitted.
    pub fn mount(at: PathBuf, options: &str) -> Option<Self> {
        fs::create_dir(&at).unwrap();
        let arguments = ["-t", "tmpfs", "-o", options, "tmpfs"];
        let mounted = Command::new("mount").args(arguments).arg(&at).output();
        if !mounted.as_ref().is_ok_and(|done| done.status.success()) {
            not_tested(&format!(
                "a small disk, because mounting one failed: {mounted:?}"
            ));
            return None;
        }
        Some(Self(at))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The lazy way: a server may still be there.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn on_a_full_disk_nothing_is_decided_and_room_is_all_that_it_takes_to_recover() {
    let (slack, scratch) = (StandIn::start(), Scratch::new());
    let Some(disk) = SmallDisk::mount(scratch.join("disk"), "size=64k,mode=700") else {
        return;
    };
    let dir = &disk.0;
    write_approval(dir, &sample("apr-1"));
    let before = fs::read(dir.join("apr-1.json")).unwrap();
    let server = Server::builder().dir(dir).slack(&slack).start();
    server.expect_errors();
    assert_eq!(server.get("/health").status, 200);
    assert!(fs::write(dir.join(".ballast"), vec![0; 1 << 20]).is_err());

    let click = Click::approve("apr-1").response_url(slack.response_url("full"));
    assert_eq!(server.interact(&click.payload()).status, 500);
    assert_eq!(fs::read(dir.join("apr-1.json")).unwrap(), before);
    let word = &slack.wait_for("response_url", 1, SOON)[0];
    let text = word.body["text"].as_str().unwrap();
    assert!(text.contains("could not be recorded"), "{text}");
    let sick = eventually("the server to say that it is unwell", SOON, || {
        let answer = server.get("/health");
        (answer.status == 503).then(|| answer.json())
    });
    assert_eq!(sick["status"], "unhealthy");
    let reasons = sick["reasons"].to_string();
    assert!(reasons.contains("no space left on device"), "{reasons}");
    assert_eq!(temporaries(dir), Vec::<String>::new());

    fs::remove_file(dir.join(".ballast")).unwrap();
    eventually("the server to be well again", SOON, || {
        (server.get("/health").status == 200).then_some(())
    });
    server.click(&click);
    assert_eq!(settled(dir, "apr-1", SOON)["status"], "approved");
    drop(server);
}

/// A filesystem that is read-only from now on, until drop: mounted over itself, for a remount would have to wait until
/// nobody holds a file there that can be written, as no disk that fails does.
struct ReadOnly(PathBuf);

impl ReadOnly {
    fn make(at: &Path) -> Self {
        let mount = |arguments: &[&str]| {
            let mounted = Command::new("mount").args(arguments).arg(at).output();
            let mounted = mounted.unwrap();
            assert!(mounted.status.success(), "{mounted:?}");
        };
        mount(&["--bind", at.to_str().unwrap()]);
        let made = Self(at.to_owned());
        mount(&["-o", "remount,bind,ro"]);
        made
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        // The lazy way, as above: a server may be looking.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn on_a_disk_that_has_become_read_only_nothing_is_decided_until_it_can_be_written_again() {
    let (slack, scratch) = (StandIn::start(), Scratch::new());
    // The audit log as well, or only that.
    for (name, audit_too) in [("both", true), ("audit", false)] {
        let Some(disk) = SmallDisk::mount(scratch.join(name), "size=64k,mode=700") else {
            return;
        };
        let audit = disk.0.join("audit");
        let dir = if audit_too {
            disk.0.join("pending")
        } else {
            scratch.join("pending")
        };
        fs::create_dir(&dir).unwrap();
        write_approval(&dir, &sample("apr-1"));
        let before = fs::read(dir.join("apr-1.json")).unwrap();
        let server = Server::builder()
            .dir(&dir)
            .slack(&slack)
            .config(&format!("approvals: {{auditDir: {}}}\n", audit.display()))
            .start();
        server.expect_errors();
        assert_eq!(server.get("/health").status, 200);

        let read_only = ReadOnly::make(&disk.0);
        let click = Click::approve("apr-1").response_url(slack.response_url(name));
        if audit_too {
            assert_eq!(server.interact(&click.payload()).status, 500);
            assert_eq!(fs::read(dir.join("apr-1.json")).unwrap(), before);
            let word = &slack.wait_for("response_url", 1, SOON)[0];
            let text = word.body["text"].as_str().unwrap();
            assert!(text.contains("could not be recorded"), "{text}");
        } else {
            // It is decided, and its line in the log is owed by the same write.
            server.click(&click);
            assert!(owes(&read_approval(&dir, "apr-1")));
        }
        let sick = eventually("the server to say that it is unwell", SOON, || {
            let answer = server.get("/health");
            (answer.status == 503).then(|| answer.json())
        });
        let reasons = sick["reasons"].to_string();
        assert!(reasons.contains("read-only file"), "{reasons}");

        drop(read_only);
        eventually("the server to be well again", SOON, || {
            (server.get("/health").status == 200).then_some(())
        });
        server.click(&click);
        let written = settled(&dir, "apr-1", SOON * 8);
        assert_eq!(written["status"], "approved");
        let log = fs::read_to_string(audit.join("approvals.jsonl")).unwrap();
        assert_eq!(log.matches(r#""event":"decided""#).count(), 1, "{log}");
        assert_eq!(temporaries(&dir), Vec::<String>::new());
        drop(server);
    }
}

#[test]
fn without_its_directory_nothing_is_decided_and_its_return_is_all_that_it_takes() {
    let (slack, scratch) = (StandIn::start(), Scratch::new());
    let (dir, away) = (scratch.join("pending"), scratch.join("away"));
    fs::DirBuilder::new().mode(0o700).create(&dir).unwrap();
    write_approval(&dir, &sample("apr-1"));
    let server = Server::builder().dir(&dir).slack(&slack).start();
    server.expect_errors();
    assert_eq!(pending(&server), 1);
    fs::rename(&dir, &away).unwrap();

    let click = Click::approve("apr-1");
    let status = server.interact(&click.payload()).status;
    assert!((500..600).contains(&status), "{status}");
    assert!(
        !dir.exists(),
        "an empty directory in its place hides the trouble"
    );
    let sick = eventually("the server to say that it is unwell", SOON, || {
        let answer = server.get("/health");
        (answer.status == 503).then(|| answer.json())
    });
    assert!(!sick["reasons"].as_array().unwrap().is_empty(), "{sick}");

    fs::rename(&away, &dir).unwrap();
    eventually("the server to be well again", SOON, || {
        let answer = server.get("/health");
        (answer.status == 200).then(|| assert_eq!(answer.json()["pendingApprovals"], 1))
    });
    server.click(&click);
    assert_eq!(settled(&dir, "apr-1", SOON)["status"], "approved");
}

#[test]
fn another_directory_in_its_place_is_served_without_a_restart() {
    for parent_goes in [false, true] {
        let (slack, scratch) = (StandIn::start(), Scratch::new());
        let dir = scratch.join("parent/pending");
        let other = scratch.join("other");
        fs::create_dir_all(&dir).unwrap();
        fs::create_dir(&other).unwrap();
        write_approval(&dir, &sample("apr-old"));
        for id in ["apr-1", "apr-2"] {
            write_approval(&other, &sample(id));
        }
        let server = Server::builder().dir(&dir).slack(&slack).start();
        server.expect_errors();
        assert_eq!(pending(&server), 1);
        let (from, to) = if parent_goes {
            (scratch.join("parent"), scratch.join("away"))
        } else {
            (dir.clone(), scratch.join("away"))
        };
        fs::rename(from, to).unwrap();
        fs::create_dir_all(scratch.join("parent")).unwrap();
        fs::rename(&other, &dir).unwrap();

        eventually("the other directory to be served", SOON, || {
            let answer = server.get("/health");
            let seen = (answer.status, answer.json()["pendingApprovals"].clone());
            (seen == (200, json!(2))).then_some(())
        });
        assert_eq!(approve(&server, "apr-1"), 200);
        assert_eq!(settled(&dir, "apr-1", SOON)["status"], "approved");
        // What needs the folders inside: a request of the RunbookAI agent, before its file.
        let click = Click::approve("mut_1_1").action_id("approve_mut_1_1");
        server.click(&click);
        let now = humantime::format_rfc3339(std::time::SystemTime::now()).to_string();
        let request = json!({"mutationId": "mut_1_1", "createdAt": now}).to_string();
        fs::write(dir.join("mut_1_1_pending.json"), request).unwrap();
        eventually("the agent's answer", SOON, || {
            dir.join("mut_1_1.json").exists().then_some(())
        });
        // A second server takes the first for alive, and leaves its promises alone.
        let owner = owner_in(&dir);
        let _second = Server::builder().dir(&dir).start();
        assert!(dir.join(format!(".locks/owner-{owner}")).exists());
    }
}

#[test]
fn the_log_says_when_the_agent_knows_and_only_then() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    write_approval(&dir, &fixture("approvals/decided.json"));
    for id in ["apr-yes", "apr-no", "apr-open"] {
        write_approval(&dir, &sample(id));
    }
    // Long enough for the one that was decided years ago.
    let server = Server::builder()
        .dir(&dir)
        .slack(&slack)
        .config("approvals: {keepDecided: 500000h}\n")
        .start();
    server.interact(&Click::approve("apr-yes").payload());
    server.interact(&Click::deny("apr-no").payload());
    let stamp = |id: &str, key: &str| {
        let mut approval = read_approval(&dir, id);
        approval[key] = "2024-01-15T15:30:46Z".into();
        write_approval(&dir, &approval);
    };
    settled(&dir, "apr-yes", SOON);
    settled(&dir, "apr-no", SOON);
    assert!(!server.log().contains("Agent notified"), "{}", server.log());
    stamp("apr-open", "agentNotifiedAt");
    stamp("apr-yes", "agentNotifiedAt");
    let said = "] Agent notified, executing operation\n  Approval ID: apr-yes\n";
    server.wait_for_log(said, SOON);
    stamp("apr-yes", "somethingElse");
    stamp("decided", "somethingElse");
    stamp("apr-no", "agentNotifiedAt");
    server.wait_for_log("] Agent notified\n  Approval ID: apr-no\n", SOON);
    server.terminate();
    assert_eq!(server.log().matches("Agent notified").count(), 2);
}

#[test]
fn a_lock_that_somebody_holds_is_waited_for_and_then_refused() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    write_approval(&dir, &sample("apr-1"));
    let before = fs::read(dir.join("apr-1.json")).unwrap();
    let server = Server::builder().dir(&dir).slack(&slack).start();
    server.expect_errors();
    let lock = |n: u8| {
        let path = dir.join(format!(".locks/{n:02x}"));
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).open(path);
        let file = file.unwrap();
        fs2::FileExt::lock_exclusive(&file).unwrap();
        file
    };
    let held: Vec<File> = (0..64).map(lock).collect();
    let started = Instant::now();
    let answer = server.interact(&Click::approve("apr-1").payload());
    assert!(
        started.elapsed() < Duration::from_secs(3),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(answer.status, 503);
    let pause: u32 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&pause));
    assert_eq!(fs::read(dir.join("apr-1.json")).unwrap(), before);
    assert_eq!(server.get("/health").status, 200);

    // One who lets go within the server's patience costs the click nothing but the wait.
    thread::scope(|scope| {
        let click = scope.spawn(|| approve(&server, "apr-1"));
        // So long the lock is held.
        thread::sleep(Duration::from_millis(300));
        drop(held);
        assert_eq!(click.join().unwrap(), 200);
    });
    assert_eq!(read_approval(&dir, "apr-1")["status"], "approved");
}

#[test]
fn ten_thousand_requests_are_counted_without_reading_them_again() {
    const MANY: usize = 10_000;
    let dir = Scratch::new();
    let server = Server::builder().dir(&dir).start();
    assert_eq!(pending(&server), 0);
    // More changes than the kernel remembers (16,384), while the server cannot look.
    server.signal(Signal::STOP);
    for n in 0..MANY {
        write_approval(&dir, &sample(&format!("apr-{n}")));
    }
    server.signal(Signal::CONT);
    assert_eq!(pending(&server), MANY);
    let read = || {
        let io = fs::read_to_string(format!("/proc/{}/io", server.pid())).ok()?;
        let read = io.lines().find_map(|line| line.strip_prefix("rchar: "))?;
        read.parse::<u64>().ok()
    };
    let before = read();
    for _ in 0..10 {
        assert_eq!(pending(&server), MANY);
    }
    if let Some((before, after)) = before.zip(read()) {
        assert!(after - before < 1_000_000, "{} bytes", after - before);
    } else {
        not_tested("how much is read, because there is no /proc/PID/io");
    }
    for n in 0..MANY / 2 {
        fs::remove_file(dir.join(format!("apr-{n}.json"))).unwrap();
    }
    assert_eq!(pending(&server), MANY / 2);
}

#[test]
fn servers_that_start_together_all_announce_themselves() {
    let dir = Scratch::new();
    for _ in 0..3 {
        let servers: Vec<Server> = thread::scope(|scope| {
            let starts: Vec<_> = (0..6)
                .map(|_| scope.spawn(|| Server::builder().dir(&dir).start()))
                .collect();
            starts
                .into_iter()
                .map(|start| start.join().unwrap())
                .collect()
        });
        let names = fs::read_dir(dir.join(".locks")).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let held = names.filter(|name| {
            let file = name
                .starts_with("owner-")
                .then(|| File::open(dir.join(".locks").join(name)).unwrap());
            file.is_some_and(|file| fs2::FileExt::try_lock_exclusive(&file).is_err())
        });
        assert_eq!(held.count(), servers.len());
    }
}
