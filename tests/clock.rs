//! A system clock that jumps under a running server: it decides what may be decided and when, and nothing waits
//! longer or ends sooner for it that has only to wait.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::excuse::not_tested;
use crate::harness::{
    Answer, Builder, Click, RawRequest, SECRET, Scratch, Server, done, eventually,
    interaction_form, now, read_approval, sample, sign, write_approval,
};
use crate::stand_in::{Failure, StandIn, Times};

const SOON: Duration = Duration::from_secs(5);
/// Five seconds for a click, and a little for a machine that has other things to do.
const LATE: Duration = Duration::from_secs(8);
const HOUR: i64 = 3600;

/// The clock of a server, as `libfaketime` shows it.
struct Clock(Scratch);

impl Clock {
    /// Right until it is set.
    fn new() -> Self {
        let time = Self(Scratch::new());
        time.set(0);
        time
    }

    /// So many seconds fast or slow from now on.
    fn set(&self, seconds: i64) {
        let (new, file) = (self.0.join("new"), self.0.join("clock"));
        fs::write(&new, format!("{seconds:+}\n")).unwrap();
        fs::rename(new, file).unwrap();
    }

    /// A server that goes by this clock; `None` for a binary whose clock nobody can get at.
    fn start(&self, builder: Builder) -> Option<Server> {
        const HELP: &str = "install libfaketime (`apt-get install libfaketime`)";
        let folders = fs::read_dir("/usr/lib").unwrap();
        let mut libraries = folders.filter_map(|folder| {
            let name = "faketime/libfaketimeMT.so.1";
            Some(folder.ok()?.path().join(name)).filter(|library| library.exists())
        });
        let library: PathBuf = libraries.next().unwrap_or_else(|| panic!("{HELP}"));
        let server = builder
            .env("LD_PRELOAD", library)
            .env("FAKETIME_TIMESTAMP_FILE", self.0.join("clock"))
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("NO_FAKE_STAT", "1")
            .start();
        self.set(HOUR);
        let is_fast = off(&server) > HOUR / 2;
        self.set(0);
        if !is_fast {
            let given = std::env::var_os("RUNBOOK_BIN");
            assert!(given.is_some(), "libfaketime does not move the clock");
            not_tested("a clock that jumps, because this binary is static");
            return None;
        }
        Some(server)
    }
}

/// How many seconds a server's clock is fast.
fn off(server: &Server) -> i64 {
    let answer = server.get("/health");
    let date = httpdate::parse_http_date(answer.header("date").unwrap()).unwrap();
    let seconds = |time: SystemTime| {
        let since_1970 = time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        i64::try_from(since_1970.as_secs()).unwrap()
    };
    seconds(date) - seconds(SystemTime::now())
}

/// A click that Slack sends when it is so late by its own clock.
fn click_at(server: &Server, click: &Click, seconds: i64) -> Answer {
    let form = interaction_form(&click.payload());
    let timestamp = now().saturating_add_signed(seconds).to_string();
    let request = RawRequest::new("POST", "/slack/interactions")
        .header("Content-Type", "application/x-www-form-urlencoded")
        .header("X-Slack-Request-Timestamp", &timestamp)
        .header(
            "X-Slack-Signature",
            sign(SECRET, &timestamp, form.as_bytes()),
        )
        .body(form.as_bytes());
    server.request(request)
}

/// So many seconds from now by the right clock.
fn later(seconds: i64) -> String {
    let then = Duration::from_secs(now().saturating_add_signed(seconds));
    humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + then).to_string()
}

#[test]
fn a_click_that_waits_is_decided_or_refused_in_time_whatever_the_clock_does() {
    for jump in [HOUR, -HOUR] {
        let (slack, dir, time) = (StandIn::start(), Scratch::new(), Clock::new());
        let builder = Server::builder().dir(&dir).slack(&slack);
        let Some(server) = time.start(builder) else {
            return;
        };
        // The RunbookAI agent posts before it writes: one file comes, the other does not.
        for (id, name) in [("mut_1_1", "comes"), ("mut_2_2", "never")] {
            let click = Click::approve(id)
                .action_id(&format!("approve_{id}"))
                .response_url(slack.response_url(name));
            server.click(&click);
        }
        time.set(jump);
        // Not for readiness: the file comes late, and within the three seconds that it has.
        thread::sleep(Duration::from_millis(700));
        let request = json!({"mutationId": "mut_1_1", "createdAt": later(jump)});
        fs::write(dir.join("mut_1_1_pending.json"), request.to_string()).unwrap();
        let answer = eventually("the agent's answer", SOON, || {
            let text = fs::read(dir.join("mut_1_1.json")).ok()?;
            serde_json::from_slice::<Value>(&text).ok()
        });
        assert_eq!(answer["approved"], true, "{jump}: {answer}");
        let words = slack.wait_for("response_url", 1, LATE);
        let text = words[0].body["text"].as_str().unwrap();
        assert!(text.contains("no approval"), "{jump}: {text}");
        eventually("no click to be left", SOON, || {
            let kept = fs::read_dir(dir.join(".ballots")).unwrap();
            (kept.count() == 0).then_some(())
        });
    }
}

#[test]
fn what_is_owed_is_tried_again_and_taken_over_as_soon_when_the_clock_jumps() {
    for jump in [HOUR, -HOUR] {
        let (slack, dir, time) = (StandIn::start(), Scratch::new(), Clock::new());
        for id in ["apr-1", "apr-2"] {
            write_approval(&dir, &sample(id));
        }
        let builder = || Server::builder().dir(&dir).slack(&slack);
        let Some(server) = time.start(builder()) else {
            return;
        };
        slack.fail_method("chat.update", Failure::Status(500), Times::Next(2));
        server.click(&Click::approve("apr-1"));
        slack.wait_for("chat.update", 1, SOON);
        time.set(jump);
        assert_eq!(done(&dir, "apr-1", LATE)["status"], "approved", "{jump}");

        // A server dies that owes something by a wrong clock, and the next one has the right one.
        slack.fail_method("chat.update", Failure::Hang, Times::Forever);
        let click = Click::deny("apr-2");
        assert_eq!(click_at(&server, &click, jump).status, 200, "{jump}");
        slack.wait_for("chat.update", 4, SOON);
        server.kill();
        slack.recover();
        time.set(0);
        let second = builder().start();
        assert_eq!(done(&dir, "apr-2", LATE)["status"], "denied", "{jump}");
        assert!(second.terminate().success());
    }
}

#[test]
fn the_clock_says_what_has_expired_and_which_signatures_are_of_now() {
    let (slack, dir, time) = (StandIn::start(), Scratch::new(), Clock::new());
    let expiring = |id: &str, seconds| {
        let mut approval = sample(id);
        approval["expiresAt"] = later(seconds).into();
        write_approval(&dir, &approval);
    };
    expiring("apr-hour", HOUR / 2);
    let Some(server) = time.start(Server::builder().dir(&dir).slack(&slack)) else {
        return;
    };
    server.expect_errors();

    expiring("apr-soon", 4);
    time.set(-HOUR);
    // Not for readiness: by the right clock its time is over then.
    thread::sleep(SOON);
    assert_eq!(read_approval(&dir, "apr-soon")["status"], "pending");
    let click = Click::approve("apr-soon");
    assert_eq!(server.interact(&click.payload()).status, 401);
    assert_eq!(click_at(&server, &click, -HOUR).status, 200);
    assert_eq!(done(&dir, "apr-soon", LATE)["status"], "approved");

    time.set(HOUR);
    let expired = done(&dir, "apr-hour", LATE);
    assert_eq!(expired["status"], "expired");
    let late = Click::approve("apr-hour").response_url(slack.response_url("late"));
    assert_eq!(server.interact(&late.payload()).status, 401);
    assert_eq!(click_at(&server, &late, HOUR).status, 200);
    let word = &slack.wait_for("response_url", 1, SOON)[0];
    let text = word.body["text"].as_str().unwrap();
    assert!(text.contains("expired"), "{text}");
    assert_eq!(read_approval(&dir, "apr-hour"), expired);
    // And back again: what is over stays so, and the server is as well as it was.
    time.set(0);
    server.click(&late);
    assert_eq!(read_approval(&dir, "apr-hour"), expired);
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn a_click_that_a_dead_server_left_and_that_is_yet_to_come_is_not_decided() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    write_approval(&dir, &sample("apr-1"));
    fs::create_dir(dir.join(".ballots")).unwrap();
    let ballot = json!({
        "id": "apr-1", "choice": "approve", "route": { "responseUrl": slack.response_url("late") },
        "voter": { "person": { "id": "U1", "username": "u1", "name": "U" }, "external": false },
        "mayPrecedeFile": false, "at": later(HOUR),
    });
    let name = format!(".ballots/{}.1.json", "a".repeat(16));
    fs::write(dir.join(name), ballot.to_string()).unwrap();
    let server = Server::builder().dir(&dir).slack(&slack).start();
    server.wait_for_log("A click was not decided in time", SOON);
    slack.wait_for("response_url", 1, SOON);
    assert_eq!(read_approval(&dir, "apr-1")["status"], "pending");
}
