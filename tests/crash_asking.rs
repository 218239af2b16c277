//! Commands that die at the worst moment: at any system call of asking, waiting, claiming, running and telling. Whoever
//! asks again for the same makes the best of it: the command is run at most once, and never without an approval.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::crash::temporaries;
use crate::harness::{
    Client, Finished, Scratch, Server, eventually, owes, read_approval, sample, write_approval,
};
use crate::stand_in::StandIn;
use crate::strace::{killing_at_every, tampering};

/// How long something may take that nothing holds up, and a takeover after a death.
const SOON: Duration = Duration::from_secs(10);

/// Leaves a mark, and another one when it is not approved.
const MARK: &str = r#"grep -q '"status": "approved"' "$RUNBOOK_PENDING_DIR/apr-1.json" && printf x >> mark || printf NO >> mark"#;

/// What somebody at a terminal says as soon as the request is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Approve,
    Deny,
}

/// Slack, a directory, and a place where the command leaves its marks.
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

    fn run(&self) -> Client {
        let words = [
            "run",
            "--operation=tidy",
            "--id=apr-1",
            "--",
            "sh",
            "-c",
            MARK,
        ];
        Client::new(words)
            .dir(&self.dir)
            .slack(&self.slack)
            .place(&self.marks)
    }

    /// What the command has left.
    fn marks(&self) -> String {
        fs::read_to_string(self.marks.join("mark")).unwrap_or_default()
    }

    /// The request; `None` while there is none.
    fn stored(&self) -> Option<Value> {
        let text = fs::read(self.dir.join("apr-1.json")).ok()?;
        Some(serde_json::from_slice(&text).expect("a file is whole at any time"))
    }

    /// Decides whenever the request is shown and pending, until it is told to end.
    fn decide(&self, word: Word, ended: &AtomicBool) {
        let command = match word {
            Word::Approve => "approve",
            Word::Deny => "deny",
        };
        while !ended.load(Ordering::SeqCst) {
            let stored = self.stored().unwrap_or_default();
            if stored["status"] == "pending" && stored["slackMessageTs"].is_string() {
                // Any moment is right for a decision; a little later the wait is among what is died of.
                thread::sleep(Duration::from_millis(30));
                Client::new([command, "apr-1"]).dir(&self.dir).finish();
            }
            thread::sleep(Duration::from_millis(3));
        }
    }

    /// Asserts that a server finds nothing that it cannot bring to its end.
    fn assert_ends_well(&self, what: &str) {
        let server = Server::builder().dir(&self.dir).slack(&self.slack).start();
        eventually(&format!("everything is settled ({what})"), SOON, || {
            let settled = !owes(&self.stored()?);
            (settled && temporaries(&self.dir).is_empty()).then_some(())
        });
        assert_eq!(server.get("/health?verbose").json()["effectsOwed"], 0);
    }
}

/// Kills a `run` at a call and asks again. Whether it lived through that; `None` without strace.
fn endure(inject: &str, word: Word) -> Option<bool> {
    let (scene, ended) = (Scene::new(), AtomicBool::new(false));
    let dying = scene.run().wrapper(tampering(inject)?);
    let (first, claimed, second) = thread::scope(|scope| {
        scope.spawn(|| scene.decide(word, &ended));
        // Whatever fails below, the thread above is to end.
        let story = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let first = dying.finish();
            let stored = scene.stored().unwrap_or_default();
            let second = scene.run().finish();
            (first, stored.get("executedAt").is_some(), second)
        }));
        ended.store(true, Ordering::SeqCst);
        story.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    let what = format!("{word:?}, {inject}: {first:?}, claimed: {claimed}, then {second:?}");
    let survived = first.status.is_some();
    let said = |finished: &Finished, word: &str| finished.stderr.contains(word);
    match word {
        Word::Approve => {
            let expected = if claimed {
                assert!(said(&second, "it was executed already at 20"), "{what}");
                Some(1)
            } else {
                Some(0)
            };
            assert_eq!(second.status, expected, "{what}");
            if !claimed {
                assert_eq!(scene.marks(), "x", "{what}");
            }
            // What was claimed is run, unless the death came between the two.
            if claimed && survived {
                assert_eq!((first.status, &*scene.marks()), (Some(0), "x"), "{what}");
            }
        }
        Word::Deny => {
            assert_eq!((second.status, claimed), (Some(5), false), "{what}");
            assert!(said(&second, "denied by cli:"), "{what}");
        }
    }
    scene.assert_ends_well(&what);
    // Nobody would ask for it any more, and nothing that has run so far has left more than this.
    let marks = scene.marks();
    assert!(matches!(&*marks, "" | "x"), "{marks}: {what}");
    assert!(word == Word::Approve || marks.is_empty(), "{what}");
    let posts = scene.slack.calls_of("chat.postMessage").len();
    assert!((1..=2).contains(&posts), "{posts} posts: {what}");
    Some(survived)
}

/// Kills a `run` at its first, second, … call of this kind, until it lives to its end.
fn crash_at_every(call: &str, word: Word, at_least: usize) {
    killing_at_every(call, at_least, |inject| endure(inject, word));
}

#[test]
fn a_run_that_dies_at_any_sync_runs_at_most_once_and_never_unasked() {
    crash_at_every("fsync", Word::Approve, 5);
}

#[test]
fn a_run_that_dies_at_any_rename_runs_at_most_once_and_never_unasked() {
    crash_at_every("rename,renameat2", Word::Approve, 3);
}

#[test]
fn a_run_that_dies_at_any_write_runs_at_most_once_and_never_unasked() {
    crash_at_every("write", Word::Approve, 3);
}

#[test]
fn a_run_that_dies_at_any_opening_of_a_file_runs_at_most_once_and_never_unasked() {
    crash_at_every("open,openat", Word::Approve, 20);
}

#[test]
fn a_run_that_dies_at_any_lock_runs_at_most_once_and_never_unasked() {
    crash_at_every("flock", Word::Approve, 5);
}

#[test]
fn a_run_that_dies_at_any_birth_or_end_of_a_process_runs_at_most_once_and_never_unasked() {
    for (call, at_least) in [("clone,clone3,vfork", 2), ("waitid", 1), ("wait4", 1)] {
        crash_at_every(call, Word::Approve, at_least);
    }
}

#[test]
fn a_run_that_dies_at_any_call_to_slack_runs_at_most_once_and_never_unasked() {
    for call in ["connect", "sendto", "recvfrom"] {
        crash_at_every(call, Word::Approve, 1);
    }
}

#[test]
fn a_run_that_dies_at_any_wait_runs_at_most_once_and_never_unasked() {
    for (call, at_least) in [("poll,ppoll", 1), ("inotify_add_watch", 1), ("unlink", 1)] {
        crash_at_every(call, Word::Approve, at_least);
    }
}

#[test]
fn a_run_that_dies_is_not_run_when_it_is_denied() {
    for (call, at_least) in [("fsync", 4), ("rename,renameat2", 3), ("flock", 4)] {
        crash_at_every(call, Word::Deny, at_least);
    }
}

#[test]
fn a_decision_at_a_terminal_that_dies_is_whole_or_not_at_all() {
    for call in ["fsync", "rename", "flock", "write", "sendto"] {
        killing_at_every(call, 1, |inject| {
            let scene = Scene::new();
            let asked = Client::new(["request", "--operation=tidy", "--id=apr-1"])
                .dir(&scene.dir)
                .slack(&scene.slack);
            assert_eq!(asked.finish().status, Some(0));
            let approve = || {
                let words = ["approve", "apr-1"];
                Client::new(words).dir(&scene.dir).slack(&scene.slack)
            };
            let died = approve().wrapper(tampering(inject)?).finish();
            let survived = died.status.is_some();
            let what = format!("approve, {inject}");
            let decided = scene.stored().unwrap()["status"] == "approved";
            assert!(decided || !survived, "{what}");
            let again = approve().finish();
            assert_eq!(again.status, Some(i32::from(decided)), "{what}: {again:?}");
            let stored = read_approval(&scene.dir, "apr-1");
            assert_eq!(stored["status"], "approved", "{what}");
            assert_eq!(stored["decisions"].as_array().unwrap().len(), 1, "{what}");
            scene.assert_ends_well(&what);
            assert!(!scene.slack.calls_of("chat.update").is_empty(), "{what}");
            Some(survived)
        });
    }
}

#[test]
fn a_decision_at_a_terminal_that_the_disk_does_not_confirm_stands_and_is_told_so() {
    // The first sync is the file's, the second one the directory's.
    let Some(traced) = tampering("fsync:error=EIO:when=2") else {
        return;
    };
    let scene = Scene::new();
    let approve = |id: &str| {
        write_approval(&scene.dir, &sample(id));
        Client::new(["approve", id]).dir(&scene.dir)
    };
    // The first one makes what there is only once.
    assert_eq!(approve("apr-0").finish().status, Some(0));
    let told = approve("apr-1").wrapper(traced).finish();
    let complaint =
        "runbook: error: cannot make the decision durable, which stands: input/output error\n";
    assert_eq!((told.status, &*told.stdout), (Some(1), ""), "{told:?}");
    assert!(told.stderr.contains(complaint), "{told:?}");
    assert_eq!(read_approval(&scene.dir, "apr-1")["status"], "approved");
}

#[test]
fn a_directory_that_the_disk_does_not_confirm_is_not_worked_in() {
    let Some(traced) = tampering("fsync:error=EIO:when=1") else {
        return;
    };
    let scratch = Scratch::new();
    let dir = scratch.join("made/by/us");
    let ask = ["request", "--no-post", "--operation=tidy", "--id=apr-1"];
    let told = Client::new(ask).dir(&dir).wrapper(traced).finish();
    assert_eq!(told.status, Some(1), "{told:?}");
    let complaint = "cannot make the pending directory durable: input/output error\n";
    assert!(told.stderr.contains(complaint), "{told:?}");
    assert!(!dir.join("apr-1.json").exists());
    assert_eq!(Client::new(ask).dir(&dir).finish().status, Some(0));
}
