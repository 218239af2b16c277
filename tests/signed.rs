//! Signed decisions: whoever can write the directory still cannot approve.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::excuse::is_root;
use crate::harness::{
    CHANNEL, Click, Client, Errand, Finished, Scratch, Server, eventually, owes, read_approval,
    runbook, sample, settled, write_approval,
};
use crate::stand_in::StandIn;

const SOON: Duration = Duration::from_secs(5);

/// A pair of keys, a directory, and Slack.
struct Scene {
    slack: StandIn,
    dir: Scratch,
    keys: Scratch,
}

impl Scene {
    fn new() -> Self {
        let keys = Scratch::new();
        let out = keys.join("key");
        let made = Client::new(["keygen", "--out"])
            .and(&[out.to_str().unwrap()])
            .finish();
        assert_eq!(made.status, Some(0), "{made:?}");
        let (slack, dir) = (StandIn::start(), Scratch::new());
        Self { slack, dir, keys }
    }

    fn key(&self) -> String {
        self.keys.join("key").to_str().unwrap().to_owned()
    }

    fn public(&self) -> String {
        format!("{}.pub", self.key())
    }

    fn server(&self, policy: &str) -> Server {
        let builder = Server::builder().dir(&self.dir).slack(&self.slack);
        builder
            .config(policy)
            .args(["--sign-key", &self.key()])
            .start()
    }

    /// A command that believes signed approvals only.
    fn verifying(&self, words: &[&str]) -> Finished {
        let (first, rest) = words.split_first().unwrap();
        Client::new([*first, "--verify-key", &self.public()])
            .and(rest)
            .dir(&self.dir)
            .slack(&self.slack)
            .env("SLACK_DEFAULT_CHANNEL", CHANNEL)
            .finish()
    }

    /// Files the request anew, once nobody has to write what became of the one before.
    fn file(&self, approval: &Value) {
        let file = self.dir.join("apr-1.json");
        eventually("nobody to write the file", SOON, || {
            let owed = file.exists() && owes(&self.stored());
            (!owed).then_some(())
        });
        write_approval(&self.dir, approval);
    }

    fn stored(&self) -> Value {
        read_approval(&self.dir, "apr-1")
    }
}

#[test]
fn keygen_makes_keys_that_openssl_reads_and_never_replaces_one() {
    let scene = Scene::new();
    let mode = |path: String| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(scene.key()), 0o600);
    let before = fs::read(scene.key()).unwrap();
    let again = Client::new(["keygen", "--out", &scene.key()]).finish();
    assert_eq!(again.status, Some(1), "{again:?}");
    assert_eq!(fs::read(scene.key()).unwrap(), before);
    let openssl = |args: &[&str]| {
        let output = Command::new("openssl").args(args).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let public = openssl(&["pkey", "-in", &scene.key(), "-pubout"]);
    assert_eq!(public, fs::read_to_string(scene.public()).unwrap());
    let missing = Client::new(["keygen"]).finish();
    assert_eq!(missing.status, Some(2));
}

#[test]
fn a_click_is_signed_and_believed() {
    let scene = Scene::new();
    let server = scene.server("");
    write_approval(&scene.dir, &sample("apr-1"));
    server.click(&Click::approve("apr-1"));
    for command in ["wait", "show"] {
        let finished = scene.verifying(&[command, "apr-1"]);
        assert_eq!(finished.status, Some(0), "{finished:?}");
    }
    settled(&scene.dir, "apr-1", SOON);
    // Another key signs nothing for this one.
    let other = Scene::new();
    let wrong = Client::new(["show", "apr-1", "--verify-key", &other.public()]);
    assert_eq!(wrong.dir(&scene.dir).finish().status, Some(1));
}

#[test]
fn what_somebody_wrote_into_the_file_is_not_believed() {
    let scene = Scene::new();
    let server = scene.server("");
    write_approval(&scene.dir, &sample("apr-1"));
    server.click(&Click::approve("apr-1"));
    let signed = settled(&scene.dir, "apr-1", SOON);
    let forged = |change: &dyn Fn(&mut Value)| {
        let mut forged = signed.clone();
        change(&mut forged);
        write_approval(&scene.dir, &forged);
        let shown = scene.verifying(&["show", "apr-1"]);
        let waited = scene.verifying(&["wait", "apr-1"]);
        assert_eq!(
            (shown.status, waited.status),
            (Some(1), Some(1)),
            "{forged}"
        );
        assert!(
            waited.stderr.contains("is not signed by the key"),
            "{waited:?}"
        );
        assert!(waited.stdout.is_empty(), "{waited:?}");
    };
    forged(&|it| it["operation"] = "drop_database".into());
    forged(&|it| it["args"] = json!({ "service": "everything" }));
    forged(&|it| it["decidedAt"] = "2999-01-01T00:00:00Z".into());
    forged(&|it| it["decidedBy"]["id"] = "U0BOSS".into());
    forged(&|it| drop(it.as_object_mut().unwrap().shift_remove("signature")));
    forged(&|it| it["signature"]["value"] = "00".repeat(64).into());
    forged(&|it| it["signature"]["value"] = 7.into());
    // A denial needs no signature to be obeyed.
    let mut denied = signed.clone();
    denied["status"] = "denied".into();
    write_approval(&scene.dir, &denied);
    assert_eq!(scene.verifying(&["wait", "apr-1"]).status, Some(5));
}

#[test]
fn an_agent_that_approves_its_own_command_is_not_obeyed() {
    let scene = Scene::new();
    let marks = Scratch::new();
    let mark = marks.join("mark").to_str().unwrap().to_owned();
    let run = Client::new(["run", "--verify-key", &scene.public(), "--id", "apr-1"])
        .and(&["--operation", "tidy", "--", "touch", &mark])
        .dir(&scene.dir)
        .slack(&scene.slack)
        .env("SLACK_DEFAULT_CHANNEL", CHANNEL)
        .start();
    scene.slack.wait_for("chat.postMessage", 1, SOON);
    // Without the key at hand even a terminal only writes a file.
    let approved = Client::new(["approve", "apr-1"]).dir(&scene.dir).finish();
    assert_eq!(approved.status, Some(0), "{approved:?}");
    let finished = run.wait();
    assert_eq!(finished.status, Some(1), "{finished:?}");
    assert!(!PathBuf::from(&mark).exists());

    // With the key it counts.
    let key = scene.key();
    let mut words = vec![
        "run",
        "--operation",
        "tidy",
        "--id",
        "apr-2",
        "--verify-key",
    ];
    let public = scene.public();
    words.extend([&*public, "--", "touch", &*mark]);
    let run = Client::new(words)
        .dir(&scene.dir)
        .slack(&scene.slack)
        .env("SLACK_DEFAULT_CHANNEL", CHANNEL)
        .start();
    scene.slack.wait_for("chat.postMessage", 2, SOON);
    let approved = Client::new(["approve", "apr-2", "--sign-key", &key]);
    assert_eq!(approved.dir(&scene.dir).finish().status, Some(0));
    assert_eq!(run.wait().status, Some(0));
    assert!(PathBuf::from(&mark).exists());
}

#[test]
fn what_the_policy_approves_is_signed_when_the_key_is_at_hand() {
    let scene = Scene::new();
    let policy = "safety:\n  requireApproval: [high]\n";
    let request = |key: &[&str]| {
        let words = ["request", "--operation", "look", "--risk", "low", "--wait"];
        let client = Client::new(words)
            .and(key)
            .and(&["--verify-key", &scene.public()]);
        client
            .dir(&scene.dir)
            .config(policy)
            .slack(&scene.slack)
            .finish()
    };
    let unsigned = request(&[]);
    assert_eq!(unsigned.status, Some(1), "{unsigned:?}");
    let signed = request(&["--sign-key", &scene.key()]);
    assert_eq!(signed.status, Some(0), "{signed:?}");
}

#[test]
fn a_vote_that_somebody_wrote_into_the_file_does_not_count() {
    const TWO: &str = "safety:\n  approvers:\n    default:\n      minApprovals: 2\n";
    let scene = Scene::new();
    let server = scene.server(TWO);
    let by = |user: &str| {
        Click::approve("apr-1")
            .by(user, &user.to_lowercase())
            .payload()
    };
    scene.file(&sample("apr-1"));
    assert_eq!(server.interact(&by("UA")).status, 200);
    let voted = scene.stored();
    // The same vote in another's name.
    let mut forged = sample("apr-1");
    forged["decisions"] = voted["decisions"].clone();
    forged["decisions"][0]["by"]["id"] = "UB".into();
    scene.file(&forged);
    assert_eq!(server.interact(&by("UA")).status, 200);
    assert_eq!(scene.stored()["status"], "pending");
    // And one for a request that says something else by now.
    let mut forged = sample("apr-1");
    forged["decisions"] = voted["decisions"].clone();
    forged["operation"] = "something_else".into();
    scene.file(&forged);
    assert_eq!(server.interact(&by("UB")).status, 200);
    assert_eq!(scene.stored()["status"], "pending");
    // What a person really cast counts, also after a restart.
    scene.file(&sample("apr-1"));
    assert_eq!(server.interact(&by("UA")).status, 200);
    server.terminate();
    let server = scene.server(TWO);
    assert_eq!(server.interact(&by("UB")).status, 200);
    assert_eq!(scene.stored()["status"], "approved");
    assert_eq!(scene.verifying(&["wait", "apr-1"]).status, Some(0));
}

#[test]
fn a_click_that_somebody_put_among_those_that_wait_does_not_count() {
    let scene = Scene::new();
    let server = scene.server("");
    write_approval(&scene.dir, &sample("apr-1"));
    let put = || {
        let now = humantime::format_rfc3339(std::time::SystemTime::now()).to_string();
        let ballot = json!({
            "id": "apr-1", "choice": "approve",
            "voter": { "person": { "id": "U0BOSS", "username": "boss", "name": "Boss" }, "external": false },
            "route": {}, "may_precede_file": false, "mayPrecedeFile": false,
            "at": now,
        });
        let name = format!("{}.1.json", "a".repeat(16));
        fs::write(scene.dir.join(".ballots").join(name), ballot.to_string()).unwrap();
    };
    put();
    server.expect_errors();
    server.wait_for_log("is not signed by this server's key", SOON);
    assert_eq!(scene.stored()["status"], "pending");
    server.terminate();
    // Without a key whoever may write here is believed, so this is no test of nothing.
    put();
    let unsigned = Server::builder()
        .dir(&scene.dir)
        .slack(&scene.slack)
        .start();
    eventually("the ballot to be decided", SOON, || {
        (scene.stored()["status"] == "approved").then_some(())
    });
    drop(unsigned);
}

#[test]
fn a_hangup_takes_in_another_key_and_keeps_the_old_one_when_that_is_none() {
    let scene = Scene::new();
    let approved_by = |id: &str, public: &str| {
        let shown = Client::new(["show", id, "--verify-key", public]);
        shown.dir(&scene.dir).finish().status == Some(0)
    };
    let approve = |server: &Server, id: &str| {
        write_approval(&scene.dir, &sample(id));
        server.click(&Click::approve(id));
    };
    let server = scene.server("");
    approve(&server, "apr-1");
    let old = scene.keys.join("old.pub");
    fs::rename(scene.public(), &old).unwrap();
    fs::remove_file(scene.key()).unwrap();
    let made = Client::new(["keygen", "--out"]).and(&[&scene.key()]);
    assert_eq!(made.finish().status, Some(0));
    server.signal(Signal::HUP);
    server.wait_for_log("Configuration reloaded", SOON);
    approve(&server, "apr-2");
    assert!(approved_by("apr-2", &scene.public()));
    assert!(!approved_by("apr-2", old.to_str().unwrap()));
    assert!(approved_by("apr-1", old.to_str().unwrap()));

    server.expect_errors();
    fs::write(scene.key(), "none").unwrap();
    server.signal(Signal::HUP);
    server.wait_for_log("Configuration not reloaded", SOON);
    approve(&server, "apr-3");
    assert!(approved_by("apr-3", &scene.public()));
}

#[test]
fn a_key_that_is_none_is_a_usage_error() {
    let scene = Scene::new();
    let usage = |args: &[&str]| {
        let finished = Client::new(["show", "apr-1"])
            .and(args)
            .dir(&scene.dir)
            .finish();
        assert_eq!(finished.status, Some(2), "{finished:?}");
        finished.stderr
    };
    write_approval(&scene.dir, &sample("apr-1"));
    assert!(usage(&["--verify-key", &scene.key()]).contains("is no public Ed25519 key"));
    assert!(usage(&["--verify-key", "/nowhere"]).contains("cannot read verify key"));
    let builder = Server::builder().dir(&scene.dir).slack(&scene.slack);
    let failed = builder
        .args(["--sign-key", &scene.public()])
        .start_expecting_failure();
    assert_eq!(failed.status, Some(2), "{failed:?}");
}

#[test]
fn with_json_keygen_and_verify_print_one_object() {
    let place = Scratch::new();
    let object = |words: &[&str]| {
        let finished = Client::new(words.iter().copied()).place(&place).finish();
        assert_eq!(finished.status, Some(0), "{finished:?}");
        serde_json::from_str::<Value>(&finished.stdout).unwrap()
    };
    let made = object(&["keygen", "--out", "key", "--json"]);
    assert_eq!(
        (&made["signKey"], &made["verifyKey"]),
        (&json!("key"), &json!("key.pub"))
    );
    fs::create_dir_all(place.join(".runbook/pending-approvals")).unwrap();
    write_approval(place.join(".runbook/pending-approvals"), &sample("apr-1"));
    object(&["deny", "apr-1", "--json"]);
    let whole = object(&["audit", "verify", "--json"]);
    assert_eq!(
        (&whole["first"], &whole["lines"]),
        (&json!(1), &whole["last"])
    );
    assert_eq!(whole["sha256"].as_str().unwrap().len(), 64);
}

/// Agent and server are different users, and one group has them both.
struct Shared {
    scene: Scene,
    program: PathBuf,
}

impl Shared {
    const SERVER: u32 = 12_345;
    const AGENT: u32 = 12_346;
    const GROUP: u32 = 12_347;

    fn new() -> Self {
        let scene = Scene::new();
        let (dir, keys) = (scene.dir.path(), scene.keys.path());
        let folders = [
            (dir.parent().unwrap(), 0o711),
            (dir, 0o2770),
            (keys.parent().unwrap(), 0o711),
            (keys, 0o711),
        ];
        for (path, mode) in folders {
            chown(path, Some(Self::SERVER), Some(Self::GROUP)).unwrap();
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        }
        chown(scene.key(), Some(Self::SERVER), Some(Self::SERVER)).unwrap();
        // Where both can read it.
        let program = keys.join("runbook");
        fs::copy(runbook(dir).get_program(), &program).unwrap();
        Self { scene, program }
    }

    /// A wrapper that runs the program as this user, who keeps what he makes for himself.
    fn as_user(&self, user: u32) -> [String; 4] {
        let script = format!(
            "shift; umask 077; cd {}; HOME=$PWD exec setpriv --reuid {user} --regid {user} --groups {} {} \"$@\"",
            self.scene.dir.path().display(),
            Self::GROUP,
            self.program.display()
        );
        ["sh".into(), "-c".into(), script, "sh".into()]
    }

    fn server(&self) -> Server {
        let builder = Server::builder()
            .dir(&self.scene.dir)
            .slack(&self.scene.slack);
        builder
            .env("SLACK_DEFAULT_CHANNEL", CHANNEL)
            .wrapper(self.as_user(Self::SERVER))
            .args(["--sign-key", &self.scene.key()])
            .start()
    }

    /// Starts a command of the agent's.
    fn agent(&self, line: &str) -> Errand {
        let words = line.split(' ');
        let client = Client::new(words).dir(&self.scene.dir);
        client.wrapper(self.as_user(Self::AGENT)).start()
    }

    /// The users who own something in the directory. All of it is the group's as well, and nobody else's.
    fn owners(&self) -> BTreeSet<u32> {
        let mut folders = vec![self.scene.dir.path().to_owned()];
        let mut owners = BTreeSet::new();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().filter_map(Result::ok) {
                // One of those that come and go all the time.
                let Ok(metadata) = entry.metadata() else {
                    continue;
                };
                let (mode, path) = (metadata.mode(), entry.path());
                let [user, group, others] = [6, 3, 0].map(|shift| mode >> shift & 0o7);
                let is_theirs = metadata.gid() == Self::GROUP && group == user && others == 0;
                assert!(is_theirs, "{} {mode:o}", path.display());
                owners.insert(metadata.uid());
                folders.extend(metadata.is_dir().then_some(path));
            }
        }
        owners
    }
}

#[test]
fn an_agent_of_another_user_shares_the_directory_by_its_group() {
    if !is_root("that agent and server are different users") {
        return;
    }
    let shared = Shared::new();
    let (dir, public) = (&shared.scene.dir, shared.scene.public());
    let server = shared.server();
    let ask = format!("--no-post --verify-key {public} --operation scale --id");
    let asked = shared.agent(&format!("request {ask} apr-1")).wait();
    assert_eq!(asked.status, Some(0), "{asked:?}");
    let running = shared.agent(&format!("run {ask} apr-2 -- true"));
    for id in ["apr-1", "apr-2"] {
        eventually("the message", SOON, || {
            let file = dir.join(format!("{id}.json"));
            let shown = file.exists() && !read_approval(dir, id)["slackMessageTs"].is_null();
            shown.then_some(())
        });
        server.click(&Click::approve(id));
    }
    let wait = format!("wait apr-1 --verify-key {public}");
    let waited = shared.agent(&wait).wait();
    assert_eq!(waited.stdout, "approved by @alice\n", "{waited:?}");
    let ran = running.wait();
    assert_eq!(ran.status, Some(0), "{ran:?}");
    assert_eq!(read_approval(dir, "apr-2")["exitCode"], 0);
    shared.agent(&format!("request {ask} apr-3")).wait();
    let cancelled = shared.agent("cancel apr-3").wait();
    assert_eq!(cancelled.status, Some(0), "{cancelled:?}");
    assert_eq!(server.get("/health").status, 200);
    let both = BTreeSet::from([Shared::SERVER, Shared::AGENT]);
    assert_eq!(shared.owners(), both);
}
