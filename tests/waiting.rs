//! What a dead server leaves of clicks that wait: one of those that live decides each, once.

use std::fs;
use std::thread;
use std::time::{Duration, SystemTime};

use serde_json::json;

use crate::harness::{Click, Server, eventually};
use crate::scene::{LATE, SOON, Scene, by};

const OPS: &str = "safety: {approvers: {default: {groups: [S0OPS]}}}\n";
const LIST: &str = "usergroups.users.list";

fn now() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

/// A click of Grace's that a server has kept which is dead by now.
fn leave(scene: &Scene, id: &str, at: &str) {
    let person = json!({ "id": "U0GRACE", "username": "grace", "name": "grace" });
    let response_url = scene.slack.response_url(id);
    let ballot = json!({
        "id": id, "choice": "approve", "voter": { "person": person, "external": false },
        "route": { "responseUrl": response_url }, "mayPrecedeFile": false, "at": at,
    });
    write(scene, &format!("dead-{id}.1.json"), &ballot.to_string());
}

fn write(scene: &Scene, name: &str, text: &str) {
    let folder = scene.dir.join(".ballots");
    fs::write(folder.join(".written"), text).unwrap();
    fs::rename(folder.join(".written"), folder.join(name)).unwrap();
}

#[test]
fn of_many_servers_one_takes_a_dead_ones_click_over() {
    let scene = Scene::with(OPS, |slack| slack.set_members("S0OPS", &["U0GRACE"]));
    let others: Vec<Server> = (0..3).map(|_| scene.another(OPS)).collect();
    scene.file("apr-1", &json!({}));
    let held = scene.slack.hold(LIST);
    leave(&scene, "apr-1", &now());
    scene.slack.wait_for(LIST, 1, SOON);
    // Not for readiness: every other server has its chance to take it, too.
    thread::sleep(Duration::from_millis(1200));
    drop(held);
    assert_eq!(scene.outcome("apr-1"), "approved");
    scene.settled();
    scene.slack.wait_for("chat.update", 1, SOON);
    let asked = scene.slack.calls_of(LIST);
    assert_eq!(asked.len(), 1, "{asked:?}");
    let servers = [&scene.server].into_iter().chain(&others);
    let told = servers.map(|server| server.log().matches("Received interaction").count());
    assert_eq!(told.sum::<usize>(), 1);
    assert!(scene.words().is_empty(), "{:?}", scene.words());
}

#[test]
fn a_click_that_was_decided_before_its_server_died_is_told_no_more() {
    let scene = Scene::with(OPS, |slack| slack.set_members("S0OPS", &["U0GRACE"]));
    let at = now();
    let grace = json!({ "id": "U0GRACE", "username": "grace", "name": "grace" });
    let vote = json!({ "decision": "approve", "by": grace, "at": at });
    scene.file(
        "apr-1",
        &json!({ "status": "approved", "decidedAt": at, "decidedBy": grace, "decisions": [vote] }),
    );
    leave(&scene, "apr-1", &at);
    scene.settled();
    // Another click of hers is told.
    let word = scene.word(&by("U0GRACE", Click::approve("apr-1")));
    assert!(word.contains("already"), "{word}");
    assert_eq!(scene.words().len(), 1, "{:?}", scene.words());
}

#[test]
fn a_click_that_cannot_be_read_is_told_once() {
    let scene = Scene::under(OPS);
    let said = "A click that waits does not count";
    for (n, text) in ["", "[]", "{}", "{\"id\":"].into_iter().enumerate() {
        write(&scene, &format!("dead.{n}.json"), text);
    }
    let told = || scene.server.log().matches(said).count();
    eventually("all of them", LATE, || (told() >= 4).then_some(()));
    scene.file("apr-1", &json!({}));
    leave(&scene, "apr-1", "2024-01-15T15:30:00Z");
    // Two more rounds have gone by when this one is told of.
    scene
        .server
        .wait_for_log("A click was not decided in time", LATE);
    scene.server.expect_errors();
    assert_eq!(told(), 4);
}
