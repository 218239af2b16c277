//! The RunbookAI agent, which knows nothing of ours: it posts its own message, writes `{id}_pending.json`, polls
//! `{id}.json` and deletes that. Here it is played by the test.

use std::fs;
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use crate::harness::{
    Click, Scratch, Server, eventually, fixture, fixture_text, read_approval, write_approval,
};
use crate::stand_in::{Failure, StandIn, Times};

/// How long something may take that nothing holds up.
const SOON: Duration = Duration::from_secs(5);

/// An id as this agent makes them: milliseconds and a random part in base 36.
const ID: &str = "mut_lrf2zzk0_k3x9qa";

/// What the agent writes when it asks, as its `JSON.stringify` spells it.
fn request(id: &str, age: Duration) -> String {
    let created = humantime::format_rfc3339_millis(SystemTime::now() - age);
    format!(r#"{{"mutationId":"{id}","createdAt":"{created}"}}"#)
}

/// Asks, in place as the agent does.
fn ask(dir: &Scratch, id: &str, age: Duration) {
    fs::write(dir.join(format!("{id}_pending.json")), request(id, age)).unwrap();
}

/// What the agent does every second: read the answer, and delete it.
fn poll(dir: impl AsRef<Path>, id: &str) -> Option<Value> {
    let file = dir.as_ref().join(format!("{id}.json"));
    let text = fs::read(&file).ok()?;
    fs::remove_file(&file).unwrap();
    Some(serde_json::from_slice(&text).expect("the agent reads only whole answers"))
}

fn is_asking(dir: &Scratch, id: &str) -> bool {
    dir.join(format!("{id}_pending.json")).exists()
}

fn approve(id: &str) -> Click {
    let click = Click::approve(id).action_id(&format!("approve_{id}"));
    click.message("C0AGENT001", "1705333999.000200")
}

fn reject(id: &str) -> Click {
    let click = Click::deny(id).action_id(&format!("reject_{id}"));
    click.message("C0AGENT001", "1705333999.000200")
}

fn send(server: &Server, click: &Click) {
    let answer = server.interact(&click.payload());
    assert_eq!((answer.status, answer.body.len()), (200, 0));
}

/// Pending and unreadable files, by the server's count.
fn counts(server: &Server) -> (Value, Value) {
    let health = server.get("/health?verbose").json();
    (
        health["pendingApprovals"].clone(),
        health["unreadableFiles"].clone(),
    )
}

/// The private words so far, once there are this many.
fn words(slack: &StandIn, count: usize) -> Vec<String> {
    let calls = slack.wait_for("response_url", count, SOON);
    let text = |call: &crate::stand_in::Call| call.body["text"].as_str().unwrap().to_owned();
    calls.iter().map(text).collect()
}

#[test]
fn the_agent_is_answered_in_its_own_words() {
    for (payload, approved, reason, title) in [
        (
            "runbookai_approve",
            true,
            "Approved via Slack",
            "✅ Approval Granted",
        ),
        (
            "runbookai_reject",
            false,
            "Rejected via Slack",
            "❌ Approval Denied",
        ),
    ] {
        let (slack, dir) = (StandIn::start(), Scratch::new());
        let server = Server::builder().dir(&dir).slack(&slack).start();
        let payload = fixture(&format!("slack/block_actions_{payload}.json"));
        let id = "mut-9f3a2c";
        ask(&dir, id, Duration::ZERO);
        ask(&dir, ID, Duration::ZERO);
        assert_eq!(counts(&server), (json!(2), json!(0)));
        assert_eq!(server.interact(&payload).status, 200);
        // The answer was there before ours.
        let answer = poll(&dir, id).unwrap();
        let user = &payload["user"];
        let username = user["username"].as_str().unwrap();
        let expected = json!({
            "approved": approved, "approvedBy": format!("slack:{username}"), "approvedByName": user["name"],
            "approvedAt": answer["approvedAt"], "reason": reason,
        });
        assert_eq!(answer, expected);
        let at = answer["approvedAt"].as_str().unwrap();
        let at = humantime::parse_rfc3339(at).unwrap();
        let age = SystemTime::now().duration_since(at).unwrap();
        assert!(age < Duration::from_secs(10), "{age:?}");
        assert!(!is_asking(&dir, id) && is_asking(&dir, ID));
        assert_eq!(counts(&server), (json!(1), json!(0)));

        let update = &slack.wait_for("chat.update", 1, SOON)[0];
        assert_eq!(update.body["channel"], payload["channel"]["id"]);
        assert_eq!(update.body["ts"], payload["message"]["ts"]);
        let text = update.body["text"].as_str().unwrap();
        assert!(text.contains(title), "{text}");
        let by = format!("<@{}>", user["id"].as_str().unwrap());
        assert!(text.contains(&by), "{text}");
        assert!(!update.body["blocks"].to_string().contains("\"actions\""));
    }
}

#[test]
fn a_click_after_the_answer_changes_nothing_before_and_after_it_was_read_and_after_a_restart() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let start = || Server::builder().dir(&dir).slack(&slack).start();
    let server = start();
    ask(&dir, ID, Duration::ZERO);
    send(&server, &approve(ID));
    let late = reject(ID).by("U0BOB0001", "bob");
    let file = dir.join(format!("{ID}.json"));
    let answer = fs::read(&file).unwrap();
    send(&server, &late.clone().response_url(slack.response_url("1")));
    assert_eq!(fs::read(&file).unwrap(), answer);
    assert_eq!(poll(&dir, ID).unwrap()["approved"], true);

    send(&server, &late.clone().response_url(slack.response_url("2")));
    slack.wait_for("chat.update", 1, SOON);
    server.terminate();
    let server = start();
    send(&server, &late.response_url(slack.response_url("3")));
    let again = approve(ID).response_url(slack.response_url("4"));
    send(&server, &again);
    for word in words(&slack, 4) {
        assert!(
            word.contains("already approved by <@U061F7AUR> on 20"),
            "{word}"
        );
    }
    assert!(poll(&dir, ID).is_none() && !is_asking(&dir, ID));
    assert_eq!(slack.calls_of("chat.update").len(), 1);
    assert_eq!(counts(&server), (json!(0), json!(0)));
}

#[test]
fn a_request_that_comes_after_its_click_is_decided() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let server = Server::builder().dir(&dir).slack(&slack).start();
    let started = Instant::now();
    send(&server, &approve(ID));
    assert!(started.elapsed() < Duration::from_secs(1));
    // Not for readiness: for so long nobody is told that there is no such request.
    thread::sleep(Duration::from_secs(1));
    assert!(slack.calls().is_empty(), "{:?}", slack.calls());
    let written = Instant::now();
    // Half of it first, for long enough to be read: the agent does not write it in one go.
    let whole = request(ID, Duration::from_secs(1));
    let file = dir.join(format!("{ID}_pending.json"));
    fs::write(&file, &whole[..20]).unwrap();
    thread::sleep(Duration::from_millis(250));
    fs::write(&file, &whole).unwrap();
    let answer = eventually("the answer", SOON, || poll(&dir, ID));
    assert_eq!(answer["approved"], true);
    assert!(written.elapsed() < Duration::from_secs(1));
    let update = &slack.wait_for("chat.update", 1, SOON)[0];
    assert_eq!(update.body["ts"], "1705333999.000200");
    assert!(!is_asking(&dir, ID));
}

#[test]
fn a_request_that_never_comes_is_told_privately_after_three_seconds() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let server = Server::builder().dir(&dir).slack(&slack).start();
    let started = Instant::now();
    send(&server, &approve(ID).response_url(slack.response_url("x")));
    assert!(started.elapsed() < Duration::from_secs(1));
    let word = &slack.wait_for("response_url", 1, Duration::from_secs(6))[0];
    let waited = word.at - started;
    let (least, most) = (Duration::from_secs(3), Duration::from_secs(5));
    assert!(waited >= least && waited < most, "{waited:?}");
    let text = word.body["text"].as_str().unwrap();
    assert!(
        text.contains(&format!("There is no approval {ID}")),
        "{text}"
    );
    eventually("the click to be forgotten", SOON, || {
        let mut left = fs::read_dir(dir.join(".ballots")).unwrap();
        left.next().is_none().then_some(())
    });
    // From now on it is a request like any other, and wants a click of its own.
    ask(&dir, ID, Duration::ZERO);
    assert_eq!(counts(&server), (json!(1), json!(0)));
    assert_eq!(poll(&dir, ID), None);
    send(&server, &approve(ID));
    assert_eq!(poll(&dir, ID).unwrap()["approved"], true);
}

#[test]
fn a_click_that_waits_survives_a_crash() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let server = Server::builder().dir(&dir).slack(&slack).start();
    send(&server, &reject(ID));
    server.kill();
    ask(&dir, ID, Duration::ZERO);
    let _server = Server::builder().dir(&dir).slack(&slack).start();
    let answer = eventually("the answer", SOON, || poll(&dir, ID));
    assert_eq!(answer["approved"], false);
    slack.wait_for("chat.update", 1, SOON);
}

#[test]
fn a_request_older_than_the_agents_patience_is_refused_and_says_so() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    ask(&dir, ID, Duration::from_secs(360));
    let server = Server::builder().dir(&dir).slack(&slack).start();
    assert_eq!(counts(&server), (json!(0), json!(0)));
    for (n, click) in [approve(ID), reject(ID), approve(ID)]
        .into_iter()
        .enumerate()
    {
        let name = n.to_string();
        send(&server, &click.response_url(slack.response_url(&name)));
        assert!(!dir.join(format!("{ID}.json")).exists());
    }
    for word in words(&slack, 3) {
        assert!(word.contains("This request expired on 20"), "{word}");
    }
    let update = &slack.wait_for("chat.update", 1, SOON)[0];
    assert_eq!(update.body["channel"], "C0AGENT001");
    assert_eq!(update.body["ts"], "1705333999.000200");
    let text = update.body["text"].as_str().unwrap();
    assert!(text.contains("⌛ Approval Expired"), "{text}");
    server.terminate();
    assert_eq!(slack.calls_of("chat.update").len(), 1);
    assert!(!dir.join(format!("{ID}.json")).exists());
}

#[test]
fn a_request_counts_as_pending_for_as_long_as_its_agent_waits() {
    let dir = Scratch::new();
    ask(&dir, ID, Duration::from_millis(297_500));
    ask(&dir, "mut_1_1", Duration::ZERO);
    let server = Server::builder().dir(&dir).start();
    assert_eq!(counts(&server), (json!(2), json!(0)));
    eventually("the old one not to count", SOON, || {
        (counts(&server) == (json!(1), json!(0))).then_some(())
    });
}

#[test]
fn somebody_elses_answer_is_neither_pending_nor_damaged_and_stands() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let answer = fixture_text("approvals/mut-9f3a2c.answer.json");
    let file = dir.join("mut-9f3a2c.json");
    fs::write(&file, &answer).unwrap();
    let server = Server::builder().dir(&dir).slack(&slack).start();
    assert_eq!(counts(&server), (json!(0), json!(0)));
    for with_request in [false, true] {
        if with_request {
            ask(&dir, "mut-9f3a2c", Duration::ZERO);
        }
        let name = with_request.to_string();
        let click = reject("mut-9f3a2c").response_url(slack.response_url(&name));
        send(&server, &click);
        assert_eq!(fs::read_to_string(&file).unwrap(), answer);
    }
    for word in words(&slack, 2) {
        assert!(word.contains("has been answered already"), "{word}");
    }
    server.terminate();
    assert!(slack.calls_of("chat.update").is_empty());
    assert!(!server.log().contains("Unreadable"), "{}", server.log());
}

#[test]
fn a_damaged_request_is_counted_and_never_answered() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let faults = [
        ("mut_1_1", String::new()),
        ("mut_1_2", request("mut_1_2", Duration::ZERO)[..30].into()),
        ("mut_1_3", r#"{"mutationId":"mut_1_3"}"#.into()),
        (
            "mut_1_4",
            r#"{"mutationId":"mut_1_4","createdAt":"today"}"#.into(),
        ),
        ("mut_1_5", r#"{"createdAt":"2099-01-01T00:00:00Z"}"#.into()),
    ];
    for (id, text) in &faults {
        fs::write(dir.join(format!("{id}_pending.json")), text).unwrap();
    }
    let server = Server::builder().dir(&dir).slack(&slack).start();
    assert_eq!(counts(&server), (json!(0), json!(5)));
    for (id, _) in &faults {
        send(&server, &approve(id).response_url(slack.response_url(id)));
    }
    words(&slack, faults.len());
    for (id, text) in &faults {
        assert!(!dir.join(format!("{id}.json")).exists(), "{id}");
        let file = dir.join(format!("{id}_pending.json"));
        assert_eq!(&fs::read_to_string(file).unwrap(), text);
    }
}

#[test]
fn two_approvers_are_two_approvers_for_the_agent_too_across_a_restart() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let start = || {
        let builder = Server::builder().dir(&dir).slack(&slack);
        builder
            .config("safety: {approvers: {high: {minApprovals: 2}}}\n")
            .start()
    };
    ask(&dir, ID, Duration::ZERO);
    let server = start();
    send(&server, &approve(ID).response_url(slack.response_url("1")));
    assert_eq!(counts(&server), (json!(1), json!(0)));
    assert!(is_asking(&dir, ID) && poll(&dir, ID).is_none());
    words(&slack, 1);
    server.kill();
    let server = start();
    assert_eq!(counts(&server), (json!(1), json!(0)));
    send(&server, &approve(ID).response_url(slack.response_url("2")));
    let told = words(&slack, 2);
    assert!(told[0].contains("1 of 2"), "{told:?}");
    assert!(told[1].contains("counts already"), "{told:?}");
    assert!(poll(&dir, ID).is_none());
    send(&server, &approve(ID).by("U0BOB0001", "bob"));
    let answer = poll(&dir, ID).unwrap();
    assert_eq!(answer["approved"], true);
    assert_eq!(answer["approvedBy"], "slack:bob");
    assert_eq!(counts(&server), (json!(0), json!(0)));
    slack.wait_for("chat.update", 1, SOON);
}

#[test]
fn after_a_crash_the_message_is_finished_and_the_answer_is_not_given_again() {
    for read_before_restart in [false, true] {
        let (slack, dir) = (StandIn::start(), Scratch::new());
        slack.fail(Failure::Hang, Times::Forever);
        ask(&dir, ID, Duration::ZERO);
        let server = Server::builder().dir(&dir).slack(&slack).start();
        send(&server, &approve(ID));
        server.kill();
        let tried = slack.calls_of("chat.update").len();
        let early = read_before_restart.then(|| poll(&dir, ID).unwrap());
        slack.recover();
        let server = Server::builder().dir(&dir).slack(&slack).start();
        let update = slack
            .wait_for("chat.update", tried + 1, SOON)
            .pop()
            .unwrap();
        assert_eq!(update.body["ts"], "1705333999.000200");
        eventually("nothing to be owed", SOON, || {
            (server.get("/health?verbose").json()["effectsOwed"] == 0).then_some(())
        });
        let late = poll(&dir, ID);
        assert_eq!(late.is_none(), read_before_restart);
        assert_eq!(early.or(late).unwrap()["approved"], true);
        send(&server, &reject(ID));
        assert!(poll(&dir, ID).is_none() && !is_asking(&dir, ID));
        assert_eq!(slack.calls_of("chat.update").len(), tried + 1);
    }
}

#[test]
fn an_answer_that_was_decided_and_not_delivered_is_delivered_unless_somebody_was_faster() {
    for somebody_was_faster in [false, true] {
        let (slack, dir) = (StandIn::start(), Scratch::new());
        slack.fail(Failure::Hang, Times::Forever);
        ask(&dir, ID, Duration::ZERO);
        let server = Server::builder().dir(&dir).slack(&slack).start();
        send(&server, &approve(ID));
        server.kill();
        slack.recover();
        // As if it had died between the decision and its delivery.
        let (file, ready) = (
            dir.join(format!("{ID}.json")),
            format!(".runbookai/{ID}.answer"),
        );
        fs::rename(&file, dir.join(&ready)).unwrap();
        ask(&dir, ID, Duration::ZERO);
        if somebody_was_faster {
            let theirs = fixture_text("approvals/mut-9f3a2c.answer.json");
            fs::write(&file, theirs.replace("slack:alice", "slack:zoe")).unwrap();
        }
        let server = Server::builder().dir(&dir).slack(&slack).start();
        let answer = poll(&dir, ID).expect("it is there when the server takes requests");
        let by = if somebody_was_faster {
            "slack:zoe"
        } else {
            "slack:alice"
        };
        assert_eq!(answer["approvedBy"], by);
        assert!(!is_asking(&dir, ID) && !dir.join(&ready).exists());
        send(&server, &reject(ID));
        assert_eq!(poll(&dir, ID), None);
    }
}

#[test]
fn a_crash_at_any_instant_of_a_click_leaves_one_answer() {
    for round in 0..12 {
        let (slack, dir) = (StandIn::start(), Scratch::new());
        ask(&dir, ID, Duration::ZERO);
        let server = Server::builder().dir(&dir).slack(&slack).start();
        let acknowledged = thread::scope(|scope| {
            let click = scope.spawn(|| server.try_interact(&approve(ID).payload()));
            // Another instant each time.
            thread::sleep(Duration::from_micros(700 * round));
            server.kill();
            click
                .join()
                .unwrap()
                .is_ok_and(|answer| answer.status == 200)
        });
        let server = Server::builder().dir(&dir).slack(&slack).start();
        let mut answer = poll(&dir, ID);
        assert!(answer.is_some() || !acknowledged, "round {round}");
        // Slack or the person tries again; the first click may have counted.
        send(&server, &reject(ID).by("U0BOB0001", "bob"));
        let second = poll(&dir, ID);
        assert!(answer.is_none() || second.is_none(), "round {round}");
        let answer = answer.take().or(second).expect("one answer");
        let by = if answer["approved"] == true {
            "slack:alice"
        } else {
            "slack:bob"
        };
        assert_eq!(answer["approvedBy"], by);
        let update = slack.wait_for("chat.update", 1, SOON).pop().unwrap();
        let text = update.body["text"].as_str().unwrap();
        assert_eq!(text.contains("Granted"), answer["approved"] == true);
        assert!(!is_asking(&dir, ID), "round {round}");
        assert_eq!(counts(&server), (json!(0), json!(0)));
        server.terminate();
        assert!(poll(&dir, ID).is_none());
    }
}

#[test]
fn many_clicks_on_two_servers_give_the_agent_one_answer() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let servers = [0, 1].map(|_| Server::builder().dir(&dir).slack(&slack).start());
    for round in 0..5 {
        let id = format!("mut_race_{round}");
        ask(&dir, &id, Duration::ZERO);
        let (start, done) = (Barrier::new(8), AtomicBool::new(false));
        let answers = thread::scope(|scope| {
            // It reads and deletes all the while, which is what a second answer would need.
            let agent = scope.spawn(|| {
                let mut answers = Vec::new();
                while !done.load(Ordering::Relaxed) {
                    answers.extend(poll(&dir, &id));
                }
                answers.extend(poll(&dir, &id));
                answers
            });
            let clicks: Vec<_> = (0..8)
                .map(|n| {
                    let (server, start, id) = (&servers[n % 2], &start, &id);
                    scope.spawn(move || {
                        let click = if n % 4 < 2 { approve(id) } else { reject(id) };
                        start.wait();
                        send(server, &click.by(&format!("U00{n}"), &format!("user{n}")));
                    })
                })
                .collect();
            for click in clicks {
                click.join().unwrap();
            }
            done.store(true, Ordering::Relaxed);
            agent.join().unwrap()
        });
        assert_eq!(answers.len(), 1, "{answers:?}");
        slack.wait_for("chat.update", round + 1, SOON);
        let by = answers[0]["approvedByName"].as_str().unwrap();
        let number = by.strip_prefix("user").unwrap();
        let text = slack.calls_of("chat.update")[round].body["text"].to_string();
        assert!(text.contains(&format!("<@U00{number}>")), "{text}");
    }
    assert_eq!(slack.calls_of("chat.update").len(), 5);
}

#[test]
fn an_approval_of_ours_with_the_agents_name_is_ours() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let server = Server::builder().dir(&dir).slack(&slack).start();
    for id in [ID, "mut_1_1_pending"] {
        write_approval(&dir, &crate::harness::sample(id));
        send(&server, &approve(id));
        assert_eq!(read_approval(&dir, id)["status"], "approved");
    }
    assert_eq!(counts(&server), (json!(0), json!(0)));
}
