//! `runbook run`: what is approved is run, exactly and once, and nothing else ever is.

use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{
    CHANNEL, Click, Client, Errand, Finished, HEARING, Scratch, Server, eventually, owes,
    read_approval, shown, write_approval,
};
use crate::stand_in::{Call, Failure, StandIn, Times};
use crate::strace::tampering;

/// How long something may take that nothing holds up.
const SOON: Duration = Duration::from_secs(10);

/// Leaves a mark where it is run.
const MARK: &str = "printf x >> mark";

/// Slack, a directory, and a place where commands leave their marks.
struct Scene {
    slack: StandIn,
    dir: Scratch,
    marks: Scratch,
}

impl Scene {
    fn new() -> Self {
        Self {
            slack: StandIn::start(),
            dir: Scratch::new(),
            marks: Scratch::new(),
        }
    }

    /// A command under the id `apr-1`, in the directory of marks.
    fn run(&self, words: &[&str]) -> Client {
        self.run_with(&[], words)
    }

    fn run_with(&self, options: &[&str], words: &[&str]) -> Client {
        let asked = ["run", "--operation", "tidy", "--id", "apr-1"];
        let words = asked.iter().chain(options).chain(&["--"]).chain(words);
        Client::new(words)
            .dir(&self.dir)
            .slack(&self.slack)
            .place(&self.marks)
    }

    /// A command that leaves a mark each time it is run.
    fn marking(&self) -> Client {
        self.run(&["sh", "-c", MARK])
    }

    /// How often the marking command was run.
    fn times(&self) -> usize {
        fs::read(self.marks.join("mark")).map_or(0, |marks| marks.len())
    }

    /// Waits until the request is shown in Slack and that is noted.
    fn shown(&self) -> Value {
        shown(&self.dir, "apr-1", SOON)
    }

    /// Decides from a terminal, as soon as the request is shown.
    fn decide(&self, decision: &str) {
        self.shown();
        let decided = Client::new([decision, "apr-1"]).dir(&self.dir).finish();
        assert_eq!(decided.status, Some(0), "{decided:?}");
    }

    /// Runs it, approved, to its end.
    fn approved(&self, run: Client) -> Finished {
        let running = run.start();
        self.decide("approve");
        running.wait()
    }

    fn stored(&self) -> Value {
        read_approval(&self.dir, "apr-1")
    }

    /// What the message shows in the end.
    fn shows(&self, text: &str) -> Call {
        eventually(text, SOON, || {
            let update = self.slack.calls_of("chat.update").pop()?;
            let both = [&update.body["blocks"], &update.body["text"]];
            let shown = both.iter().all(|part| part.to_string().contains(text));
            shown.then_some(update)
        })
    }
}

/// Asserts that a command was not run, and that one line says why.
fn assert_not_run(finished: &Finished, status: i32, why: &str) {
    assert_eq!(
        (
            finished.status,
            finished.stdout.as_str(),
            finished.stderr.as_str()
        ),
        (
            Some(status),
            "",
            &*format!("runbook: the command was not run: {why}\n")
        )
    );
}

/// The text of the block that shows the command.
fn shown_command(call: &Call) -> String {
    let blocks = call.body["blocks"].as_array().unwrap();
    let at = blocks
        .iter()
        .position(|block| block["text"]["text"] == "Command:")
        .unwrap();
    let element = &blocks[at + 1]["elements"][0];
    assert_eq!(element["type"], "rich_text_preformatted");
    element["elements"][0]["text"].as_str().unwrap().to_owned()
}

#[test]
fn exactly_the_words_that_were_shown_are_run_and_pasted_into_a_shell_they_are_the_same() {
    let words = [
        "printf",
        "%s\\0",
        "two words",
        "it's",
        "$HOME",
        "$(id)",
        "`id`",
        "*",
        "-n",
        "",
        "\\",
        "a\nb",
        "\u{1b}[31m",
        "\u{202e}x",
        "日本 🔥",
        "a=b",
        "--",
        "~",
        "!!",
        "#",
        "<!channel>",
        "&amp;",
        "\t",
    ];
    let scene = Scene::new();
    let running = scene.run(&words).start();
    scene.decide("approve");
    let ran = running.wait();
    assert_eq!((ran.status, &*ran.stderr), (Some(0), ""));
    let expected = words[2..].join("\0") + "\0";
    assert_eq!(String::from_utf8(running.output()).unwrap(), expected);

    let line = shown_command(&scene.slack.calls_of("chat.postMessage")[0]);
    assert!(!line.contains(['\u{1b}', '\u{202e}', '\n']), "{line:?}");
    let pasted = Command::new("bash").args(["-c", &line]).output().unwrap();
    assert_eq!(String::from_utf8(pasted.stdout).unwrap(), expected);
    assert_eq!(scene.stored()["command"], json!(words));
}

#[test]
fn directory_environment_and_input_are_the_commands_own() {
    let scene = Scene::new();
    let script = "pwd; printf '%s|' \"$GREETING\" \"$RUNBOOK_PENDING_DIR\"; cat; echo err >&2";
    let running = scene
        .run(&["sh", "-c", script])
        .env("GREETING", "hel lo")
        .stdin("line\nbinary \0\u{ff}")
        .start();
    scene.decide("approve");
    let ran = running.wait();
    let here = scene.marks.path().display();
    let dir = scene.dir.path().display();
    let expected = format!("{here}\nhel lo|{dir}|line\nbinary \0\u{ff}");
    assert_eq!(
        (ran.status, ran.stdout, &*ran.stderr),
        (Some(0), expected, "err\n")
    );
    assert_eq!(
        scene.stored()["directory"],
        *scene.marks.path().to_str().unwrap()
    );
}

#[test]
fn ten_mebibytes_of_output_pass_unchanged() {
    let scene = Scene::new();
    let copy = scene.marks.join("copy");
    let script = format!("head -c 10485760 /dev/urandom | tee {}", copy.display());
    let running = scene.run(&["sh", "-c", &script]).start();
    scene.decide("approve");
    let ran = running.wait();
    assert_eq!(ran.status, Some(0));
    let written = fs::read(copy).unwrap();
    assert_eq!(written.len(), 10 << 20);
    assert!(
        running.output() == written,
        "the output has changed on its way"
    );
}

#[test]
fn the_exit_code_is_the_commands_own_and_slack_and_the_file_have_it() {
    for (script, status, shown) in [
        ("exit 0", 0, "Executed: exit 0 in "),
        ("exit 7", 7, "Failed: exit 7 in "),
        ("exit 255", 255, "Failed: exit 255 in "),
        ("kill -KILL $$", 137, "Failed: exit 137 in "),
        ("kill -TERM $$", 143, "Failed: exit 143 in "),
        ("sleep 0.2; exit 6", 6, "Failed: exit 6 in 0."),
    ] {
        let scene = Scene::new();
        let ran = scene.approved(scene.run(&["sh", "-c", script]));
        assert_eq!(
            (ran.status, &*ran.stdout, &*ran.stderr),
            (Some(status), "", "")
        );
        let stored = scene.stored();
        assert_eq!(stored["exitCode"], status, "{stored}");
        assert!(stored["durationMs"].is_u64(), "{stored}");
        assert!(stored["executedAt"].as_str() >= stored["decidedAt"].as_str());
        assert_eq!(stored["agentNotifiedAt"], stored["executedAt"]);
        let update = scene.shows(shown);
        assert!(
            update.body["blocks"]
                .to_string()
                .contains("✅ Approval Granted")
        );
        assert!(!owes(&stored), "{stored}");
    }
}

#[test]
fn a_command_that_cannot_be_started_ends_with_four_and_slack_says_why() {
    let scene = Scene::new();
    let plain = scene.marks.join("plain");
    fs::write(&plain, "no program").unwrap();
    for (program, why) in [
        (
            "no-such-program-anywhere",
            "could not be started: no such file or directory",
        ),
        (
            plain.to_str().unwrap(),
            "could not be started: permission denied",
        ),
        ("/", "could not be started: permission denied"),
    ] {
        let scene = Scene::new();
        let ran = scene.approved(scene.run(&[program, "x"]));
        assert_not_run(&ran, 4, why);
        assert_eq!(scene.stored()["executionError"], why);
        scene.shows(&format!("Failed: {why}"));
        // Whether it could have been run by now, nobody asks for again.
        let again = scene.run(&[program, "x"]).finish();
        assert_eq!(again.status, Some(1), "{again:?}");
        assert!(
            again.stderr.contains(": it was executed already at 20"),
            "{again:?}"
        );
    }
}

#[test]
fn a_command_that_nobody_could_read_whole_is_not_even_asked_for() {
    let scene = Scene::new();
    let long = scene.run(&["echo", &"<".repeat(2000)]).finish();
    let latin = std::ffi::OsString::from_vec(b"caf\xe9".to_vec());
    let start = ["run", "--operation", "x", "--", "echo"].map(Into::into);
    let strange = Client::new(start.into_iter().chain([latin]))
        .dir(&scene.dir)
        .finish();
    for (refused, said) in [
        (
            long,
            "runbook: error: the command was not run: the command is too long to be shown whole in Slack\nrunbook: hint: put it into a script\n",
        ),
        (
            strange,
            "runbook: error: the command was not run: the command has a word that is not UTF-8\n",
        ),
    ] {
        assert_eq!(
            (refused.status, &*refused.stdout, &*refused.stderr),
            (Some(2), "", said)
        );
    }
    assert!(scene.slack.calls().is_empty());
    assert!(!scene.dir.join("apr-1.json").exists());
}

#[test]
fn what_is_not_approved_is_not_run() {
    let user = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
    let user = user.trim();
    for (decision, why) in [
        ("deny", format!("denied by cli:{user}")),
        ("cancel", format!("cancelled by cli:{user}")),
    ] {
        let scene = Scene::new();
        let running = scene.marking().start();
        scene.decide(decision);
        assert_not_run(&running.wait(), 5, &why);
        assert_not_run(&scene.marking().finish(), 5, &why);
        assert!(scene.stored()["agentNotifiedAt"].is_string());
        assert!(scene.stored().get("executedAt").is_none());
        assert_eq!(scene.times(), 0);
    }
    let scene = Scene::new();
    let ended = scene
        .run_with(&["--timeout=1s"], &["sh", "-c", MARK])
        .finish();
    assert_not_run(&ended, 6, "expired");
    assert_eq!(scene.times(), 0);
    let update = &scene.slack.calls_of("chat.update")[0];
    assert!(
        update.body["blocks"]
            .to_string()
            .contains("⌛ Approval Expired")
    );
}

#[test]
fn what_slack_does_not_show_is_not_run() {
    for (error, status) in [
        ("channel_not_found", 1),
        ("not_in_channel", 1),
        ("invalid_auth", 3),
    ] {
        let scene = Scene::new();
        scene.slack.fail(Failure::NotOk(error), Times::Forever);
        let ran = scene.marking().finish();
        assert_eq!((ran.status, &*ran.stdout), (Some(status), ""), "{ran:?}");
        assert!(
            ran.stderr.contains(&format!("the request: {error}\n")),
            "{ran:?}"
        );
        assert_eq!(scene.stored()["status"], "cancelled");
        // It stays cancelled when Slack is well again.
        scene.slack.recover();
        assert_not_run(
            &scene.marking().finish(),
            5,
            &format!("cancelled: slack: {error}"),
        );
        assert_eq!(scene.times(), 0);
    }
}

#[test]
fn what_has_changed_since_it_was_asked_is_not_run() {
    for (key, value) in [
        ("command", json!(["sh", "-c", "true"])),
        ("command", json!("sh -c true")),
        ("command", Value::Null),
        ("directory", json!("/")),
        ("operation", json!("other")),
        ("args", json!({"force": true})),
        ("riskLevel", json!("low")),
        ("requestedBy", json!("U0EVE")),
    ] {
        for approve_first in [false, true] {
            let scene = Scene::new();
            let running = scene.marking().start();
            let mut changed = scene.shown();
            changed[key] = value.clone();
            if !approve_first {
                write_approval(&scene.dir, &changed);
            }
            // Both come in one write, so that nobody has run it in between.
            changed["status"] = "approved".into();
            write_approval(&scene.dir, &changed);
            let ran = running.wait();
            assert_eq!((ran.status, &*ran.stdout), (Some(1), ""), "{key}: {ran:?}");
            let said = "runbook: error: the command was not run: apr-1 says something else than what was asked\n";
            assert_eq!(ran.stderr, said, "{key}");
            assert_eq!(scene.times(), 0, "{key}");
            assert!(scene.stored().get("executedAt").is_none());
        }
    }
}

#[test]
fn what_somebody_put_there_as_approved_is_not_run_unless_it_is_the_very_same() {
    let scene = Scene::new();
    let mut lie = json!({
        "id": "apr-1", "operation": "tidy", "riskLevel": "high", "status": "approved",
        "command": ["rm", "-rf", "/"], "decidedBy": {"id": "U1", "username": "a", "name": "a"},
    });
    write_approval(&scene.dir, &lie);
    let refused = |ran: &Finished| {
        assert_eq!((ran.status, &*ran.stdout), (Some(1), ""), "{ran:?}");
        let said = "runbook: error: the command was not run: apr-1 was asked before and meant something else\n";
        assert!(ran.stderr.starts_with(said), "{ran:?}");
    };
    refused(&scene.marking().finish());
    for key in ["command", "decidedBy"] {
        lie.as_object_mut().unwrap().remove(key);
        write_approval(&scene.dir, &lie);
        refused(&scene.marking().finish());
    }
    assert_eq!(scene.stored(), lie);
    assert!(scene.slack.calls().is_empty());
    assert_eq!(scene.times(), 0);
}

#[test]
fn a_file_that_is_damaged_or_gone_runs_nothing() {
    for text in ["", "{", r#"{"id": "apr-1", "status": "approved"}"#] {
        let scene = Scene::new();
        let running = scene.marking().start();
        scene.shown();
        fs::write(scene.dir.join("apr-1.json"), text).unwrap();
        let ran = running.wait();
        assert_eq!((ran.status, &*ran.stdout), (Some(1), ""), "{text}: {ran:?}");
        assert!(
            ran.stderr
                .starts_with("runbook: error: the command was not run: "),
            "{ran:?}"
        );
        let again = scene.marking().finish();
        assert_eq!(
            (again.status, &*again.stdout),
            (Some(1), ""),
            "{text}: {again:?}"
        );
        assert_eq!(
            fs::read_to_string(scene.dir.join("apr-1.json")).unwrap(),
            text
        );
        assert_eq!(scene.times(), 0);
    }
    let scene = Scene::new();
    let running = scene.marking().start();
    scene.shown();
    fs::remove_file(scene.dir.join("apr-1.json")).unwrap();
    let ran = running.wait();
    assert_eq!((ran.status, &*ran.stdout), (Some(1), ""), "{ran:?}");
    assert!(
        ran.stderr.contains("there is no approval apr-1 in "),
        "{ran:?}"
    );
    assert_eq!(scene.times(), 0);
}

#[test]
fn a_signal_while_waiting_withdraws_and_the_command_is_not_run() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let scene = Scene::new();
        let running = scene.marking().wrapper(HEARING).start();
        scene.shown();
        running.signal(signal);
        let ran = running.wait();
        assert_eq!((ran.status, &*ran.stdout), (Some(5), ""), "{ran:?}");
        assert!(
            ran.stderr
                .starts_with("runbook: the command was not run: cancelled by cli:")
        );
        assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
        assert_eq!(scene.stored()["status"], "cancelled");
        assert_eq!(scene.times(), 0);
        let update = &scene.slack.calls_of("chat.update")[0];
        assert!(
            update.body["blocks"]
                .to_string()
                .contains("🚫 Request Withdrawn")
        );
    }
}

#[test]
fn who_was_told_to_stop_runs_nothing_though_it_is_approved_meanwhile() {
    let scene = Scene::new();
    // Slack answers late, so the signal comes before the decision, and is looked at after it.
    let held = scene.slack.hold("chat.postMessage");
    let running = scene.marking().start();
    scene.slack.wait_for("chat.postMessage", 1, SOON);
    running.signal(Signal::INT);
    let decided = Client::new(["approve", "apr-1"]).dir(&scene.dir).finish();
    assert_eq!(decided.status, Some(0), "{decided:?}");
    drop(held);
    let why = "it is approved, but whoever asked went away";
    assert_not_run(&running.wait(), 5, why);
    assert_eq!(scene.times(), 0);
    assert!(scene.stored().get("executedAt").is_none());
    // Its approval is there for whoever asks for the same.
    assert_eq!(scene.marking().finish().status, Some(0));
    assert_eq!(scene.times(), 1);
}

#[test]
fn who_only_attached_leaves_the_request_to_the_others() {
    let scene = Scene::new();
    let first = scene.marking().start();
    scene.shown();
    let second = scene.marking().start();
    eventually("the second to wait", SOON, || {
        let calls = fs::read_to_string(format!("/proc/{}/wchan", second.pid()));
        calls.is_ok_and(|at| at.contains("poll")).then_some(())
    });
    second.signal(Signal::TERM);
    let ran = second.wait();
    assert_eq!(ran.status, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("the request is not ours"), "{ran:?}");
    assert_eq!(scene.stored()["status"], "pending");
    scene.decide("approve");
    assert_eq!((first.wait().status, scene.times()), (Some(0), 1));
}

#[test]
fn an_approval_of_the_day_before_yesterday_is_not_taken_up() {
    let scene = Scene::new();
    let decided = scene.run_with(&["--no-post"], &["sh", "-c", MARK]).start();
    let mut asked = eventually("the request", SOON, || {
        let file = fs::read(scene.dir.join("apr-1.json")).ok()?;
        serde_json::from_slice::<Value>(&file).ok()
    });
    decided.signal(Signal::KILL);
    decided.wait();
    asked["status"] = "approved".into();
    asked["decidedAt"] = "2024-01-15T15:30:45Z".into();
    write_approval(&scene.dir, &asked);
    let why = "apr-1 was approved more than a day ago";
    assert_not_run(&scene.marking().finish(), 1, why);
    assert_eq!(scene.times(), 0);
}

#[test]
fn a_signal_that_was_ignored_before_is_ignored_while_waiting() {
    for (name, signal) in [("HUP", Signal::HUP), ("INT", Signal::INT)] {
        let scene = Scene::new();
        // As `nohup` does, and a shell for what runs in its background.
        let ignoring = format!("trap '' {name}; exec \"$@\"");
        let running = scene
            .marking()
            .wrapper(["sh", "-c", &ignoring, "sh"])
            .start();
        scene.shown();
        running.signal(signal);
        scene.decide("approve");
        let ran = running.wait();
        assert_eq!(
            (ran.status, &*ran.stderr, scene.times()),
            (Some(0), "", 1),
            "{name}"
        );
    }
}

#[test]
fn signals_reach_the_command_once_it_runs() {
    for (name, signal) in [
        ("TERM", Signal::TERM),
        ("HUP", Signal::HUP),
        ("INT", Signal::INT),
        ("USR1", Signal::USR1),
        ("USR2", Signal::USR2),
        ("QUIT", Signal::QUIT),
    ] {
        let scene = Scene::new();
        let script =
            format!("trap 'echo {name}; exit 3' {name}; echo ready; while :; do sleep 0.02; done");
        let running = scene.run(&["sh", "-c", &script]).wrapper(HEARING).start();
        scene.decide("approve");
        running.wait_for("ready\n");
        running.signal(signal);
        let ran = running.wait();
        assert_eq!(
            (ran.status, &*ran.stdout),
            (Some(3), &*format!("ready\n{name}\n"))
        );
        assert_eq!(scene.stored()["exitCode"], 3);
    }
    // Whom a signal ends, it ends by that.
    let scene = Scene::new();
    let running = scene
        .run(&["sh", "-c", "echo ready; exec sleep 60"])
        .start();
    scene.decide("approve");
    running.wait_for("ready\n");
    running.signal(Signal::TERM);
    assert_eq!(running.wait().status, Some(143));
    scene.shows("Failed: exit 143 in ");
}

#[test]
fn a_signal_too_late_to_keep_the_command_from_being_run_is_the_commands() {
    // It comes while the claim is being written.
    let Some(traced) = tampering("fsync:signal=TERM:when=1") else {
        return;
    };
    let scene = Scene::new();
    let sleeping = || scene.run(&["sleep", "60"]);
    let killed = sleeping().start();
    scene.shown();
    killed.wait_until_asleep();
    killed.signal(Signal::STOP);
    let approved = Client::new(["approve", "apr-1"]).dir(&scene.dir);
    assert_eq!(approved.slack(&scene.slack).finish().status, Some(0));
    killed.kill();
    let ran = sleeping().wrapper(traced).finish();
    assert_eq!(ran.status, Some(143), "{ran:?}");
    assert_eq!(scene.stored()["exitCode"], 143);
}

#[test]
fn who_was_started_to_ignore_the_end_of_children_knows_how_the_command_ended() {
    let scene = Scene::new();
    let ignoring = ["env", "--ignore-signal=CHLD"];
    let ran = scene.approved(scene.run(&["sh", "-c", "exit 7"]).wrapper(ignoring));
    assert_eq!((ran.status, &*ran.stderr), (Some(7), ""), "{ran:?}");
    assert_eq!(scene.stored()["exitCode"], 7);
}

#[test]
fn levels_that_need_nobody_are_run_at_once_and_without_slack() {
    let scene = Scene::new();
    let ran = || {
        scene
            .run_with(
                &["--risk=low"],
                &["sh", "-c", "echo done; printf x >> mark"],
            )
            .env("SLACK_BOT_TOKEN", "")
            .config("safety:\n  requireApproval: [high, critical]\n")
            .finish()
    };
    let first = ran();
    assert_eq!(
        (first.status, &*first.stdout, &*first.stderr),
        (Some(0), "done\n", "")
    );
    assert_eq!(scene.stored()["decidedBy"]["id"], "policy:auto");
    assert_eq!(scene.stored()["exitCode"], 0);
    assert_eq!(ran().status, Some(1));
    assert_eq!(scene.times(), 1);
}

#[test]
fn a_click_in_slack_runs_it_and_the_server_and_the_message_tell_how_it_went() {
    let scene = Scene::new();
    let server = Server::builder()
        .dir(&scene.dir)
        .slack(&scene.slack)
        .env("SLACK_DEFAULT_CHANNEL", CHANNEL)
        .start();
    for no_post in [false, true] {
        let id = if no_post { "apr-2" } else { "apr-1" };
        let mut args = vec!["run", "--operation", "tidy", "--id", id];
        args.extend(no_post.then_some("--no-post"));
        args.extend(["--", "echo", "done"]);
        let mut asking = Client::new(&args).dir(&scene.dir);
        if !no_post {
            asking = asking.slack(&scene.slack);
        }
        let running = asking.start();
        let posts = scene
            .slack
            .wait_for("chat.postMessage", 1 + usize::from(no_post), SOON);
        let noted = eventually("the message to be noted", SOON, || {
            let stored = read_approval(&scene.dir, id);
            stored.get("slackMessageTs").is_some().then_some(stored)
        });
        let click = Click::on_posted("approve", posts.last().unwrap(), &noted);
        server.click(&click);
        let ran = running.wait();
        assert_eq!(
            (ran.status, &*ran.stdout, &*ran.stderr),
            (Some(0), "done\n", "")
        );
        eventually("the server to say so", SOON, || {
            let said = server.log().matches("executing operation").count();
            (said == 1 + usize::from(no_post)).then_some(())
        });
        let update = scene.shows("Executed: exit 0 in ");
        assert_eq!(update.body["ts"], noted["slackMessageTs"]);
    }
    assert_eq!(scene.slack.calls_of("chat.postMessage").len(), 2);
    assert!(server.terminate().success());
    assert_eq!(server.log().matches("executing operation").count(), 2);
}

#[test]
fn how_it_went_is_told_by_a_server_when_slack_did_not_listen() {
    let scene = Scene::new();
    let failing = Failure::Status(503);
    scene
        .slack
        .fail_method("chat.update", failing, Times::Forever);
    let ran = scene.approved(scene.run(&["sh", "-c", "exit 7"]));
    assert_eq!(ran.status, Some(7), "{ran:?}");
    scene.slack.recover();
    let _server = Server::builder()
        .dir(&scene.dir)
        .slack(&scene.slack)
        .start();
    scene.shows("Failed: exit 7 in ");
}

#[test]
fn what_was_executed_is_never_executed_again() {
    let scene = Scene::new();
    assert_eq!(scene.approved(scene.marking()).status, Some(0));
    let before = fs::read(scene.dir.join("apr-1.json")).unwrap();
    let at = scene.stored()["executedAt"].as_str().unwrap().to_owned();
    let why = format!("it was executed already at {at} (exit 0)");
    for _ in 0..2 {
        assert_not_run(&scene.marking().finish(), 1, &why);
    }
    assert_eq!(fs::read(scene.dir.join("apr-1.json")).unwrap(), before);
    // Nor from the archive.
    fs::create_dir(scene.dir.join("archive")).unwrap();
    let archived = scene.dir.join("archive/apr-1.json");
    fs::rename(scene.dir.join("apr-1.json"), &archived).unwrap();
    assert_not_run(&scene.marking().finish(), 1, &why);
    // What stands there and was not executed is over, too.
    let text = fs::read_to_string(&archived)
        .unwrap()
        .replace("executedAt", "executedThen");
    fs::write(&archived, text).unwrap();
    let ended = scene.marking().finish();
    assert_not_run(&ended, 1, "apr-1 was approved more than a day ago");
    assert_eq!(scene.times(), 1);
    assert_eq!(scene.slack.calls_of("chat.postMessage").len(), 1);
}

#[test]
fn of_many_who_run_the_same_at_once_one_does() {
    for _ in 0..3 {
        let scene = Scene::new();
        let running: Vec<Errand> = (0..5).map(|_| scene.marking().start()).collect();
        scene.decide("approve");
        let mut codes = Vec::new();
        for run in &running {
            let ran = run.wait();
            codes.push(ran.status);
            let too_late = ran.stderr.contains("it was executed already at 20");
            assert!(ran.status == Some(0) || too_late, "{ran:?}");
        }
        codes.sort();
        assert_eq!(codes, [Some(0), Some(1), Some(1), Some(1), Some(1)]);
        assert_eq!(scene.times(), 1);
        assert_eq!(scene.slack.calls_of("chat.postMessage").len(), 1);
    }
}

#[test]
fn in_another_directory_it_is_another_request() {
    let (scene, elsewhere) = (Scene::new(), Scratch::new());
    assert_eq!(scene.approved(scene.run(&["false"])).status, Some(1));
    let other = scene.run(&["false"]).place(&elsewhere).finish();
    let said = "runbook: error: the command was not run: apr-1 was asked before and meant something else\n";
    assert!(
        other.status == Some(1) && other.stderr.starts_with(said),
        "{other:?}"
    );
}

#[test]
fn a_crash_between_approval_and_execution_leaves_it_to_the_next_who_runs_it_once() {
    let scene = Scene::new();
    let script = "printf x >> mark";
    let frozen = scene.run(&["sh", "-c", script]).start();
    scene.shown();
    frozen.wait_until_asleep();
    frozen.signal(Signal::STOP);
    scene.decide("approve");
    frozen.kill();
    assert_eq!(scene.times(), 0);
    assert_eq!(scene.run(&["sh", "-c", script]).finish().status, Some(0));
    assert_eq!(scene.times(), 1);
    assert_eq!(scene.run(&["sh", "-c", script]).finish().status, Some(1));
    assert_eq!(
        (scene.times(), scene.stored()["exitCode"].as_u64()),
        (1, Some(0))
    );
    scene.shows("Executed: exit 0 in ");
    assert_eq!(scene.slack.calls_of("chat.postMessage").len(), 1);
}

#[test]
fn a_crash_while_it_runs_never_runs_it_again() {
    let scene = Scene::new();
    // It outlives the one who runs it, and nobody waits for its output.
    let script = "printf x >> mark; echo ready; exec >&- 2>&-; n=0; \
                  until [ -e over ] || [ $n = 500 ]; do sleep 0.02; n=$((n+1)); done";
    let dying = scene.run(&["sh", "-c", script]).start();
    scene.decide("approve");
    dying.wait_for("ready\n");
    dying.kill();
    let ran = scene.run(&["sh", "-c", script]).finish();
    let at = scene.stored()["executedAt"].as_str().unwrap().to_owned();
    let why =
        format!("it was executed already at {at} (it runs still, or nobody knows how it went)");
    assert_not_run(&ran, 1, &why);
    assert_eq!(scene.times(), 1);
    fs::write(scene.marks.join("over"), "").unwrap();
}

#[test]
fn a_claim_that_cannot_be_written_or_is_not_confirmed_runs_nothing() {
    // The file's own sync, its directory's, and the rename between the two.
    for (call, claimed) in [
        ("fsync:error=EIO:when=1", false),
        ("rename:error=ENOSPC:when=1", false),
        ("fsync:error=EIO:when=2", true),
    ] {
        let Some(traced) = tampering(call) else {
            return;
        };
        let scene = Scene::new();
        let frozen = scene.marking().start();
        scene.shown();
        frozen.wait_until_asleep();
        frozen.signal(Signal::STOP);
        let approved = Client::new(["approve", "apr-1"]).dir(&scene.dir);
        assert_eq!(approved.slack(&scene.slack).finish().status, Some(0));
        frozen.kill();
        // All that is left to be written is the claim.
        let ran = scene.marking().wrapper(traced).finish();
        assert_eq!((ran.status, &*ran.stdout), (Some(1), ""), "{call}: {ran:?}");
        assert!(
            ran.stderr
                .starts_with("runbook: error: the command was not run: cannot "),
            "{ran:?}"
        );
        assert_eq!(scene.times(), 0, "{call}");
        assert_eq!(
            scene.stored().get("executedAt").is_some(),
            claimed,
            "{call}"
        );
        // Who comes later runs what is not claimed, and only that.
        let later = scene.marking().finish().status;
        assert_eq!(
            (later, scene.times()),
            if claimed { (Some(1), 0) } else { (Some(0), 1) }
        );
    }
}

#[test]
fn a_terminals_interrupt_comes_to_the_command_once() {
    let scene = Scene::new();
    let script = "trap 'printf x >> mark' INT; echo ready; n=0; \
                  while [ $n -lt 20 ]; do sleep 0.02; n=$((n+1)); [ -e mark ] || n=0; done; exit 9";
    let keys = scene.dir.join("keys");
    assert!(
        Command::new("mkfifo")
            .arg(&keys)
            .status()
            .unwrap()
            .success()
    );
    let on_terminal = format!(
        "export LINE=\"exec $(printf '%q ' \"$@\")\"; exec script -qefc \"$LINE\" /dev/null <{}",
        keys.display()
    );
    let running = scene
        .run(&["sh", "-c", script])
        .wrapper(["bash", "-c", &on_terminal, "bash"])
        .start();
    let mut keyboard = fs::OpenOptions::new().write(true).open(&keys).unwrap();
    scene.decide("approve");
    running.wait_for("ready\r\n");
    // Ctrl-C: the terminal tells its whole foreground.
    keyboard.write_all(b"\x03").unwrap();
    assert_eq!(running.wait().status, Some(9));
    assert_eq!(scene.times(), 1);
}
