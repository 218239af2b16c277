//! Servers that die at the worst moment, disks that fail, and what the next server makes of it.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::audit;
use crate::harness::{
    self, Click, RawRequest, Scratch, Server, all_files, done, eventually, fixture, read_approval,
    sample, write_approval,
};
use crate::stand_in::{Call, Failure, StandIn, Times};
use crate::strace::{Strace, killing_at_every};

/// How long an effect may take that nothing holds up, and a takeover after a death.
const SOON: Duration = Duration::from_secs(5);

/// The sample with a message of its own, so that its update can be told from others.
fn numbered(n: usize) -> Value {
    let mut approval = sample(&format!("apr-{n}"));
    approval["slackMessageTs"] = ts(n).into();
    approval
}

fn ts(n: usize) -> String {
    format!("1705333800.{n:06}")
}

/// The `ts` of each message that Slack has updated, sorted.
fn updated(calls: &[Call]) -> Vec<String> {
    let done = calls
        .iter()
        .filter(|call| call.method == "chat.update" && call.error.is_none());
    let mut updated: Vec<String> = done
        .map(|call| call.body["ts"].as_str().unwrap().to_owned())
        .collect();
    updated.sort();
    updated
}

fn owes(dir: &Scratch, id: &str) -> bool {
    harness::owes(&read_approval(dir, id))
}

/// Waits until none of these approvals owes anything any more.
fn settled(dir: &Scratch, ids: impl IntoIterator<Item = usize>) {
    for n in ids {
        done(dir, &format!("apr-{n}"), SOON);
    }
}

#[test]
fn what_a_killed_server_owed_the_next_one_does_and_nothing_else() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    for n in 0..6 {
        write_approval(&dir, &numbered(n));
    }
    write_approval(&dir, &fixture("approvals/decided.json"));
    let first = Server::builder().dir(&dir).slack(&slack).start();
    // Two are done, three are owed, one is undecided.
    for n in 0..2 {
        first.interact(&Click::approve(&format!("apr-{n}")).payload());
    }
    settled(&dir, 0..2);
    slack.fail(Failure::Hang, Times::Forever);
    for n in 2..5 {
        let click = Click::approve(&format!("apr-{n}"));
        first.click(&click);
    }
    slack.wait_for("chat.update", 3, SOON);
    first.kill();
    slack.recover();
    let before = slack.calls().len();

    let second = Server::builder().dir(&dir).slack(&slack).start();
    settled(&dir, 2..5);
    assert_eq!(updated(&slack.calls()[before..]), [ts(2), ts(3), ts(4)]);
    assert_eq!(read_approval(&dir, "apr-5")["status"], "pending");
    second.wait_for_log("Finishing what another process left undone", SOON);
    assert_eq!(second.get("/health?verbose").json()["effectsOwed"], 0);
}

#[test]
fn the_other_server_takes_over_from_a_dead_one_and_not_from_a_living_one() {
    let (hanging, slack, dir) = (StandIn::start(), StandIn::start(), Scratch::new());
    for n in 0..3 {
        write_approval(&dir, &numbered(n));
    }
    let owing = Server::builder().dir(&dir).slack(&hanging).start();
    let other = Server::builder().dir(&dir).slack(&slack).start();
    hanging.fail(Failure::Hang, Times::Forever);
    for n in 0..2 {
        owing.interact(&Click::approve(&format!("apr-{n}")).payload());
    }
    hanging.wait_for("chat.update", 2, SOON);
    // Long enough for the other one to look at the directory several times.
    thread::sleep(Duration::from_millis(1500));
    assert!(slack.calls().is_empty(), "{:?}", slack.calls());
    assert!(owes(&dir, "apr-0") && owes(&dir, "apr-1"));

    let death = Instant::now();
    owing.kill();
    slack.wait_for("chat.update", 2, SOON);
    assert!(death.elapsed() < SOON);
    settled(&dir, 0..2);
    assert_eq!(updated(&slack.calls()), [ts(0), ts(1)]);
    other.interact(&Click::approve("apr-2").payload());
    settled(&dir, 2..3);
    assert_eq!(updated(&slack.calls()).len(), 3);
}

#[test]
fn in_normal_running_no_server_repeats_anothers_effect() {
    const CLICKS: usize = 30;
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let servers = [0, 1, 2].map(|_| Server::builder().dir(&dir).slack(&slack).start());
    for n in 0..CLICKS {
        write_approval(&dir, &numbered(n));
        let click = Click::approve(&format!("apr-{n}"));
        servers[n % 3].click(&click);
    }
    settled(&dir, 0..CLICKS);
    for server in &servers {
        assert!(server.terminate().success());
    }
    let expected: Vec<String> = (0..CLICKS).map(ts).collect();
    assert_eq!(updated(&slack.calls()), expected);
}

#[test]
fn a_server_told_to_end_while_slack_hangs_ends_in_time_and_leaves_the_rest_to_the_next() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    for n in 0..8 {
        write_approval(&dir, &numbered(n));
    }
    let first = Server::builder().dir(&dir).slack(&slack).start();
    slack.fail(Failure::Hang, Times::Forever);
    // More than there are threads for effects: some hang in a call, some wait for their turn.
    for n in 0..8 {
        first.interact(&Click::approve(&format!("apr-{n}")).payload());
    }
    slack.wait_for("chat.update", 1, SOON);
    // The harness waits for 12 s and no longer.
    assert_eq!(first.terminate().code(), Some(0));
    assert!((0..8).all(|n| owes(&dir, &format!("apr-{n}"))));

    slack.recover();
    let before = slack.calls().len();
    let _second = Server::builder().dir(&dir).slack(&slack).start();
    settled(&dir, 0..8);
    let expected: Vec<String> = (0..8).map(ts).collect();
    assert_eq!(updated(&slack.calls()[before..]), expected);
}

#[test]
fn a_server_told_to_end_under_load_has_decided_every_click_that_it_acknowledged() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    for n in 0..2000 {
        write_approval(&dir, &numbered(n));
    }
    let server = Server::builder().dir(&dir).slack(&slack).start();
    let (next, ended) = (AtomicUsize::new(0), AtomicBool::new(false));
    let acknowledged = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !ended.load(Ordering::SeqCst) {
                    let n = next.fetch_add(1, Ordering::SeqCst);
                    let click = Click::approve(&format!("apr-{n}"));
                    // Whoever comes after the end finds nobody; only an answer counts.
                    if n < 2000
                        && let Ok(answer) = server.try_interact(&click.payload())
                    {
                        assert_eq!(answer.status, 200);
                        acknowledged.lock().unwrap().push(n);
                    }
                }
            });
        }
        eventually("some load", SOON, || {
            (acknowledged.lock().unwrap().len() > 50).then_some(())
        });
        let status = server.terminate();
        ended.store(true, Ordering::SeqCst);
        assert_eq!(status.code(), Some(0));
    });
    let acknowledged = acknowledged.into_inner().unwrap();
    assert!(acknowledged.len() > 50);
    for n in acknowledged {
        let stored = read_approval(&dir, &format!("apr-{n}"));
        assert_eq!(stored["status"], "approved", "apr-{n}");
    }
    assert_is_whole(&dir);
}

/// Asserts that every JSON file below a directory is whole.
fn assert_is_whole(dir: &Scratch) {
    for (name, contents) in all_files(dir) {
        if Path::new(&name)
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            let parsed = serde_json::from_slice::<Value>(&contents);
            assert!(
                parsed.is_ok(),
                "{name}: {}",
                String::from_utf8_lossy(&contents)
            );
        }
    }
}

/// The temporaries that lie below a directory.
pub fn temporaries(dir: &Scratch) -> Vec<String> {
    let mut names: Vec<String> = all_files(dir).into_keys().collect();
    names.retain(|name| {
        let file = Path::new(name).file_name().unwrap().to_string_lossy();
        file.starts_with(".tmp.") || file.ends_with(".answer")
    });
    names
}

/// What is to be decided, and where its outcome shows.
#[derive(Clone, Copy, Debug)]
enum Scenario {
    /// An approval of our own.
    Approval,
    /// A request of the RunbookAI agent.
    AgentRequest,
}

impl Scenario {
    fn id(self) -> &'static str {
        match self {
            Self::Approval => "apr-1",
            Self::AgentRequest => "mut-9f3a2c",
        }
    }

    fn ask(self, dir: &Scratch) {
        match self {
            Self::Approval => write_approval(dir, &sample(self.id())),
            Self::AgentRequest => {
                let now = humantime::format_rfc3339_millis(std::time::SystemTime::now());
                let request = json!({"mutationId": self.id(), "createdAt": now.to_string()});
                let file = dir.join(format!("{}_pending.json", self.id()));
                fs::write(file, request.to_string()).unwrap();
            }
        }
    }

    fn click(self) -> Value {
        let click = Click::approve(self.id());
        match self {
            Self::Approval => click.payload(),
            Self::AgentRequest => click.action_id("approve_mut-9f3a2c").payload(),
        }
    }

    /// Whether it is decided, as everybody sees it who looks at the directory.
    fn is_decided(self, dir: &Scratch) -> bool {
        match self {
            Self::Approval => read_approval(dir, self.id())["status"] == "approved",
            Self::AgentRequest => {
                let answer = dir.join(format!("{}.json", self.id()));
                let answered = answer.exists();
                if answered {
                    let answer: Value = serde_json::from_slice(&fs::read(answer).unwrap()).unwrap();
                    assert_eq!(answer["approved"], true, "{answer}");
                }
                answered
            }
        }
    }
}

/// What came of one click on a server whose system calls were tampered with.
struct Ordeal {
    /// The status of the answer, if there was one.
    answer: Option<u16>,
    /// Whether the server was still there in the end.
    survived: bool,
}

/// Lets a server decide one click while `inject` is done to it, then asserts that what it leaves is
/// right, and that another server makes the best of it. `None` without strace.
fn endure(scenario: Scenario, inject: &str) -> Option<Ordeal> {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    scenario.ask(&dir);
    // One worker, for strace counts the calls of each thread by itself.
    let server = || {
        Server::builder()
            .dir(&dir)
            .slack(&slack)
            .args(["--workers", "1"])
    };
    let tried = server().start();
    tried.expect_errors();
    // Its index is settled, so that the click is all that happens.
    let health = tried.get("/health").json();
    assert_eq!(health["pendingApprovals"], 1, "{scenario:?} {inject}");
    let strace = Strace::attach(&tried, inject)?;
    let answer = tried.try_interact(&scenario.click()).ok();
    let answer = answer.map(|answer| answer.status);
    let kills = inject.contains("signal=KILL");
    if kills && answer.is_none() {
        eventually("the death of the server", SOON, || {
            is_dead(&tried).then_some(())
        });
    } else {
        // What failed once may be made up for only by the next server, so nothing has to come.
        let shown = || !slack.calls_of("chat.update").is_empty();
        let deadline = Instant::now() + Duration::from_millis(1500);
        while Instant::now() < deadline && !is_dead(&tried) && !shown() {
            thread::sleep(Duration::from_millis(5));
        }
    }
    if kills && answer.is_some() {
        // It may die of an effect, too. (A call that fails once in each thread may fail several times
        // in an effect, whose pauses grow; that is left to the next server.)
        let verbose = || tried.try_request(RawRequest::new("GET", "/health?verbose"));
        eventually("the effect to be settled, or a death of it", SOON, || {
            let settled = verbose().is_ok_and(|answer| answer.json()["effectsOwed"] == 0);
            (settled || is_dead(&tried)).then_some(())
        });
    }
    drop(strace);
    let survived = !is_dead(&tried);
    tried.kill();
    let what = format!("{scenario:?}, {inject}, answered {answer:?}, survived {survived}");

    assert_is_whole(&dir);
    let next = server().start();
    eventually(
        &format!("no temporaries of the dead ({what})"),
        SOON,
        || temporaries(&dir).is_empty().then_some(()),
    );
    let decided = scenario.is_decided(&dir);
    match answer {
        Some(200) => assert!(decided, "{what}: acknowledged and not decided"),
        Some(status) => assert!(matches!(status, 500 | 503), "{what}"),
        None => {}
    }
    if !decided {
        assert!(
            updated(&slack.calls()).is_empty(),
            "{what}: shown before it stood"
        );
        assert_eq!(next.interact(&scenario.click()).status, 200, "{what}");
        assert!(scenario.is_decided(&dir), "{what}");
    }
    eventually(&format!("the message is updated ({what})"), SOON, || {
        (!updated(&slack.calls()).is_empty()).then_some(())
    });
    eventually(&format!("everything is settled ({what})"), SOON, || {
        (next.get("/health?verbose").json()["effectsOwed"] == 0).then_some(())
    });
    assert_eq!(next.get("/health").json()["pendingApprovals"], 0, "{what}");
    assert_is_whole(&dir);
    assert_eq!(
        told(&dir, scenario.id()),
        ["decided", "requested"],
        "{what}"
    );
    Some(Ordeal { answer, survived })
}

/// What the audit log tells of a request beside refusals, sorted; its chain holds.
fn told(dir: &Scratch, id: &str) -> Vec<String> {
    let mut told = audit::events(dir, id);
    told.retain(|event| event != "refused");
    told.sort();
    told
}

/// What a server does of its own accord.
#[derive(Clone, Copy, Debug)]
enum Chore {
    /// It posts a request that was only dropped.
    Adopt,
    /// It ends a request whose time is over.
    Expire,
}

impl Chore {
    fn ask(self, dir: &Scratch) {
        let mut approval = sample("apr-1");
        match self {
            Self::Adopt => {
                approval
                    .as_object_mut()
                    .unwrap()
                    .shift_remove("slackMessageTs");
            }
            Self::Expire => approval["expiresAt"] = "2024-01-15T15:30:45Z".into(),
        }
        write_approval(dir, &approval);
    }

    fn is_done(self, dir: &Scratch) -> bool {
        let stored = read_approval(dir, "apr-1");
        let changed = match self {
            Self::Adopt => stored.get("slackMessageTs").is_some(),
            Self::Expire => stored["status"] == "expired",
        };
        changed && !harness::owes(&stored)
    }

    /// What Slack must have seen at least once, and may have seen twice after a crash.
    fn method(self) -> &'static str {
        match self {
            Self::Adopt => "chat.postMessage",
            Self::Expire => "chat.update",
        }
    }

    fn told(self) -> &'static [&'static str] {
        match self {
            Self::Adopt => &["requested"],
            Self::Expire => &["expired", "requested"],
        }
    }
}

/// Lets a server do a chore while `inject` is done to it, then lets another one finish it. Whether the
/// first survived; `None` without strace.
fn endure_chore(chore: Chore, inject: &str) -> Option<bool> {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let server = || Server::builder().dir(&dir).slack(&slack);
    let tried = server().start();
    tried.expect_errors();
    assert_eq!(tried.get("/health").status, 200);
    let strace = Strace::attach(&tried, inject)?;
    chore.ask(&dir);
    // What failed once may be made up for only by the next server, so nothing has to come.
    let deadline = Instant::now() + SOON;
    while Instant::now() < deadline && !is_dead(&tried) && !chore.is_done(&dir) {
        thread::sleep(Duration::from_millis(5));
    }
    drop(strace);
    let survived = !is_dead(&tried);
    tried.kill();
    let what = format!("{chore:?}, {inject}, survived {survived}");
    assert_is_whole(&dir);
    let next = server().start();
    eventually(&format!("the chore is done ({what})"), SOON, || {
        (chore.is_done(&dir) && temporaries(&dir).is_empty()).then_some(())
    });
    assert_eq!(
        next.get("/health?verbose").json()["effectsOwed"],
        0,
        "{what}"
    );
    let calls = slack.calls_of(chore.method()).len();
    assert!((1..=2).contains(&calls), "{what}: {calls}");
    assert!(!survived || calls == 1, "{what}: {calls}");
    assert_is_whole(&dir);
    assert_eq!(told(&dir, "apr-1"), chore.told(), "{what}");
    Some(survived)
}

#[test]
fn a_crash_at_any_step_of_adopting_a_request_loses_nothing() {
    for (call, at_least) in [("fsync", 2), ("rename", 1), ("write", 1), ("flock", 1)] {
        killing_at_every(call, at_least, |inject| endure_chore(Chore::Adopt, inject));
    }
}

#[test]
fn a_crash_at_any_step_of_an_expiry_loses_nothing() {
    for (call, at_least) in [("fsync", 2), ("rename", 1), ("write", 1), ("flock", 1)] {
        killing_at_every(call, at_least, |inject| endure_chore(Chore::Expire, inject));
    }
}

#[test]
fn a_call_that_fails_once_in_a_chore_is_made_up_for() {
    for chore in [Chore::Adopt, Chore::Expire] {
        for inject in [
            "fsync:error=EIO:when=1",
            "fsync:error=ENOSPC:when=2",
            "rename:error=ENOSPC:when=1",
            "write:error=ENOSPC:when=2",
            "flock:error=ENOLCK:when=1",
        ] {
            assert_ne!(endure_chore(chore, inject), Some(false), "{inject}");
        }
    }
}

/// Whether a process has ended, though nobody may have waited for it yet.
fn is_dead(server: &Server) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", server.pid())).unwrap_or_default();
    let state = stat.rsplit(") ").next().unwrap_or_default();
    state.is_empty() || state.starts_with(['Z', 'X'])
}

/// Kills the server at its first, second, … call of this kind, until it lives through a decision.
fn crash_at_every(call: &str, scenario: Scenario, at_least: usize) {
    killing_at_every(call, at_least, |inject| {
        let ordeal = endure(scenario, inject)?;
        assert!(!ordeal.survived || ordeal.answer == Some(200), "{inject}");
        Some(ordeal.survived)
    });
}

#[test]
fn a_crash_at_any_opening_of_a_file_loses_nothing() {
    crash_at_every("open,openat", Scenario::Approval, 3);
}

#[test]
fn a_crash_at_any_write_loses_nothing() {
    crash_at_every("write", Scenario::Approval, 1);
}

#[test]
fn a_crash_at_any_sync_loses_nothing() {
    crash_at_every("fsync", Scenario::Approval, 2);
}

#[test]
fn a_crash_at_any_rename_loses_nothing() {
    crash_at_every("rename", Scenario::Approval, 1);
}

#[test]
fn a_crash_at_any_step_of_an_answer_to_the_runbookai_agent_loses_nothing() {
    for (call, at_least) in [("fsync", 3), ("rename", 1), ("renameat2", 1), ("unlink", 1)] {
        crash_at_every(call, Scenario::AgentRequest, at_least);
    }
}

#[test]
fn a_file_that_cannot_be_written_is_no_decision() {
    for inject in [
        "fsync:error=EIO:when=1",
        "fsync:error=ENOSPC:when=1",
        "rename:error=ENOSPC:when=1",
        "rename:error=EIO:when=1",
        "fchmod:error=EIO:when=1",
    ] {
        let Some(ordeal) = endure(Scenario::Approval, inject) else {
            return;
        };
        assert_eq!(
            (ordeal.answer, ordeal.survived),
            (Some(500), true),
            "{inject}"
        );
    }
}

#[test]
fn a_call_that_fails_once_is_an_honest_answer_and_nothing_half_done() {
    for (call, error, times) in [
        ("open,openat", "ENOSPC", 5),
        ("write", "EIO", 3),
        ("read", "EIO", 2),
        ("flock", "ENOLCK", 1),
    ] {
        for n in 1..=times {
            // The rest is asserted inside: what stands, what is told, what the next server makes of it.
            let inject = format!("{call}:error={error}:when={n}");
            let Some(ordeal) = endure(Scenario::Approval, &inject) else {
                return;
            };
            assert!(ordeal.survived, "{inject}");
        }
    }
}

#[test]
fn as_long_as_a_call_fails_clicks_are_refused_and_health_says_why() {
    for (inject, why) in [
        ("fsync:error=EIO", "input/output error"),
        ("rename:error=EIO", "input/output error"),
        ("fstat,statx,newfstatat:error=EIO", "input/output error"),
        ("write:error=ENOSPC", "no space left on device"),
        ("flock:error=ENOLCK", "no locks available"),
    ] {
        let dir = Scratch::new();
        write_approval(&dir, &sample("apr-1"));
        let server = Server::builder().dir(&dir).start();
        server.expect_errors();
        assert_eq!(server.get("/health").status, 200);
        let Some(strace) = Strace::attach(&server, inject) else {
            return;
        };
        let click = Click::approve("apr-1").payload();
        assert_eq!(server.interact(&click).status, 500, "{inject}");
        assert_eq!(read_approval(&dir, "apr-1")["status"], "pending");
        // What was proven a moment ago is believed for that long.
        let sick = eventually("health to say so", SOON, || {
            let health = server.get("/health");
            (health.status == 503).then(|| health.text().clone())
        });
        assert!(sick.contains(why), "{inject}: {sick}");
        drop(strace);
        eventually("health to be well again", SOON, || {
            (server.get("/health").status == 200).then_some(())
        });
        assert_eq!(server.interact(&click).status, 200, "{inject}");
        eventually("no temporary to be left", SOON, || {
            temporaries(&dir).is_empty().then_some(())
        });
    }
}

#[test]
fn a_decision_whose_directory_cannot_be_synced_stands_is_told_as_a_failure_and_has_its_effects() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    write_approval(&dir, &sample("apr-1"));
    let server = Server::builder()
        .dir(&dir)
        .slack(&slack)
        .args(["--workers", "1"])
        .start();
    server.expect_errors();
    // The first sync is the file's, the second one the directory's.
    let Some(strace) = Strace::attach(&server, "fsync:error=EIO:when=2") else {
        return;
    };
    let answer = server.interact(&Click::approve("apr-1").payload());
    assert_eq!(answer.status, 500);
    assert_eq!(read_approval(&dir, "apr-1")["status"], "approved");
    settled(&dir, 1..2);
    assert_eq!(updated(&slack.calls()).len(), 1);
    drop(strace);
    server.wait_for_log("Decision written, but the disk would not confirm it", SOON);
    // Slack asks again after a failure, and then all is well.
    let again = server.interact(&Click::approve("apr-1").payload());
    assert_eq!(again.status, 200);
    assert_eq!(updated(&slack.calls()).len(), 1);
}
