//! What Slack tells us happens once, however often it says so and to however many servers.

use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::harness::{Scratch, Server, eventually, fixture};
use crate::stand_in::StandIn;

/// How long something may take that nothing holds up.
const SOON: Duration = Duration::from_secs(5);

fn mention(event_id: &str) -> Value {
    let mut mention = fixture("slack/events_app_mention.json");
    mention["event_id"] = event_id.into();
    mention
}

/// A server that tells what it does with each event.
fn start(dir: &Scratch) -> Server {
    let server = Server::builder().dir(dir).args(["--log-level", "debug"]);
    server.start()
}

fn handled(server: &Server) -> usize {
    server.log().matches("Received event app_mention").count()
}

#[test]
fn an_event_is_handled_once_by_all_servers_and_across_restarts() {
    let dir = Scratch::new();
    let servers = [0, 1].map(|_| start(&dir));
    assert_eq!(servers[0].event(&mention("Ev1")).status, 200);
    assert_eq!(servers[1].event(&mention("Ev1")).status, 200);
    servers[1].wait_for_log("Event received again", SOON);
    let [first, second] = servers;
    first.kill();
    let third = start(&dir);
    assert_eq!(third.event(&mention("Ev1")).status, 200);
    third.wait_for_log("Event received again", SOON);
    assert_eq!(third.event(&mention("Ev2")).status, 200);
    third.wait_for_log("Received event app_mention", SOON);
    assert_eq!([&first, &second, &third].map(handled), [1, 0, 1]);
}

#[test]
fn an_event_is_forgotten_after_two_hours_and_not_before() {
    let dir = Scratch::new();
    let events = dir.join(".events");
    let ids = ["Ev1", "Ev2"];
    let server = start(&dir);
    for id in ids {
        server.event(&mention(id));
    }
    server.terminate();
    let mut files = fs::read_dir(&events).unwrap();
    let aged = files.next().unwrap().unwrap().path();
    let kept = files.next().unwrap().unwrap().path();
    for (file, minutes) in [(&aged, 121), (&kept, 119)] {
        let made = SystemTime::now() - Duration::from_secs(60 * minutes);
        let file = File::options().write(true).open(file).unwrap();
        file.set_modified(made).unwrap();
    }
    let _server = start(&dir);
    eventually("the old event to be swept away", SOON, || {
        (!aged.exists()).then_some(())
    });
    assert!(kept.exists());
}

#[test]
fn an_event_that_cannot_be_noted_is_handled_all_the_same_and_once() {
    let dir = Scratch::new();
    fs::write(dir.join(".events"), "in the way").unwrap();
    let server = start(&dir);
    for _ in 0..3 {
        assert_eq!(server.event(&mention("Ev1")).status, 200);
    }
    server.wait_for_log("Other servers may handle this event, too", SOON);
    server.wait_for_log("Event received again", SOON);
    assert_eq!(handled(&server), 1);
}

#[test]
fn an_event_id_never_becomes_a_path() {
    let dir = Scratch::new();
    let server = start(&dir);
    for id in ["../../apr-1.json", "/etc/passwd", "", &"x".repeat(5000)] {
        assert_eq!(server.event(&mention(id)).status, 200, "{id}");
    }
    let names = fs::read_dir(dir.join(".events")).unwrap();
    let names: Vec<_> = names
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    let is_hash = |name: &String| name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit());
    assert!(names.len() == 4 && names.iter().all(is_hash), "{names:?}");
}

#[test]
fn events_of_another_app_or_workspace_are_acknowledged_and_lead_to_nothing() {
    let home = fixture("slack/events_app_home_opened.json");
    for (setting, other, own) in [
        ("appId", "A0002", "A0RUNBOOK1"),
        ("teamId", "T0002", "T0001"),
    ] {
        let slack = StandIn::start();
        let start = |id: &str| {
            let config = format!("incident: {{slack: {{{setting}: {id}}}}}\n");
            Server::builder().slack(&slack).config(&config).start()
        };
        let server = start(other);
        for event in [&mention("Ev1"), &home] {
            assert_eq!(server.event(event).status, 200);
        }
        server.wait_for_log("another app or workspace", SOON);
        assert!(server.terminate().success());
        assert_eq!(slack.calls().len(), 0, "{setting}: {:?}", slack.calls());
        let server = start(own);
        for event in [&mention("Ev1"), &home] {
            server.event(event);
        }
        slack.wait_for("chat.postMessage", 1, SOON);
        slack.wait_for("views.publish", 1, SOON);
    }
}

#[test]
fn whoever_is_from_elsewhere_and_asks_in_a_shared_channel_of_ours_is_answered() {
    let slack = StandIn::start();
    let ours = "incident: {slack: {teamId: T0001}}\n";
    let server = Server::builder().slack(&slack).config(ours).start();
    for (id, context) in [("Ev1", "T0001".into()), ("Ev2", Value::Null)] {
        let mut asked = mention(id);
        asked["team_id"] = "T0002".into();
        asked["context_team_id"] = context;
        asked["event"]["channel"] = format!("C0SHARED{id}").into();
        assert_eq!(server.event(&asked).status, 200);
    }
    slack.wait_for("chat.postMessage", 2, SOON);
}
