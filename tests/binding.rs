//! A click counts for what its message showed: when the request means something else by now, nothing is decided.

use std::fs;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{
    Click, Scratch, Server, dropped, eventually, owes, read_approval, sample, settled, with,
    write_approval,
};
use crate::stand_in::{Call, Failure, StandIn, Times};

/// How long something may take that nothing holds up, and a takeover after a death.
const SOON: Duration = Duration::from_secs(5);

const POST: &str = "chat.postMessage";
const UPDATE: &str = "chat.update";

/// A server, its directory and its Slack.
struct Scene {
    server: Server,
    slack: StandIn,
    dir: Scratch,
}

impl Scene {
    fn new() -> Self {
        Self::under("")
    }

    fn under(config: &str) -> Self {
        let (slack, dir) = (StandIn::start(), Scratch::new());
        let server = Server::builder().dir(&dir).slack(&slack).config(config);
        let server = server.start();
        Self { server, slack, dir }
    }

    /// Drops a request and returns the call that showed it.
    fn show(&self, request: &Value) -> Call {
        write_approval(&self.dir, request);
        self.shown(request["id"].as_str().unwrap(), None)
    }

    /// Waits until the request owes nothing and its message is another one than `before`. Returns the
    /// call that posted it.
    fn shown(&self, id: &str, before: Option<&Call>) -> Call {
        shown(&self.dir, &self.slack, id, before)
    }

    /// Rewrites a request as another program does that knows nothing of locks.
    fn edit(&self, id: &str, changes: &Value) {
        edit(&self.dir, id, changes);
    }

    fn status(&self, id: &str) -> String {
        status(&self.dir, id)
    }

    /// Clicks and returns the private word that follows.
    fn word(&self, click: Click) -> String {
        let before = self.slack.calls_of("response_url").len();
        let click = click.response_url(self.slack.response_url(&format!("word{before}")));
        self.server.click(&click);
        let call = self.slack.wait_for("response_url", before + 1, SOON).pop();
        let body = call.unwrap().body;
        assert_eq!(body["response_type"], "ephemeral");
        assert_eq!(body["replace_original"], false);
        body["text"].as_str().unwrap().to_owned()
    }

    fn click(&self, click: &Click) {
        self.server.click(click);
    }
}

fn shown(dir: &Scratch, slack: &StandIn, id: &str, before: Option<&Call>) -> Call {
    let old = before.map_or(Value::Null, |call| call.answer["ts"].clone());
    eventually(&format!("{id} to be shown"), SOON * 2, || {
        let stored = read_approval(dir, id);
        let mut posts = slack.done(POST);
        posts.retain(|call| call.answer["ts"] == stored["slackMessageTs"]);
        let settled = stored["slackMessageTs"] != old && !owes(&stored);
        posts.pop().filter(|_| settled)
    })
}

fn edit(dir: &Scratch, id: &str, changes: &Value) {
    let stored = with(read_approval(dir, id), changes);
    write_approval(dir, &stored);
}

fn status(dir: &Scratch, id: &str) -> String {
    let stored = read_approval(dir, id);
    stored["status"].as_str().unwrap().to_owned()
}

/// The updates of one message, in order.
fn updates(slack: &StandIn, posted: &Call) -> Vec<Call> {
    let mut calls = slack.done(UPDATE);
    calls.retain(|call| call.body["ts"] == posted.answer["ts"]);
    calls
}

fn assert_retired(slack: &StandIn, posted: &Call) {
    let [update] = &updates(slack, posted)[..] else {
        panic!("one update expected: {:?}", updates(slack, posted))
    };
    assert_eq!(update.body["channel"], posted.answer["channel"]);
    assert!(update.buttons().is_none(), "{update:?}");
    let said = update.body.to_string();
    assert!(said.contains("🔄 Request Changed"), "{said}");
}

#[test]
fn a_click_on_what_the_request_no_longer_means_is_refused_and_the_request_shown_anew() {
    let scene = Scene::new();
    let first = scene.show(&dropped("apr-1", "C0DEPLOYS"));
    let changed = json!({ "args": {"service": "checkout-api", "desiredCount": 800} });
    scene.edit("apr-1", &changed);

    let word = scene.word(Click::approve("apr-1").on(&first));
    assert!(word.contains("has changed since"), "{word}");
    let second = scene.shown("apr-1", Some(&first));
    assert_eq!(scene.status("apr-1"), "pending");
    assert!(
        read_approval(&scene.dir, "apr-1")
            .get("decisions")
            .is_none()
    );
    assert_eq!(second.body["channel"], "C0DEPLOYS");
    assert!(second.body.to_string().contains("desiredCount: 800"));
    assert_ne!(
        second.buttons().unwrap()["block_id"],
        first.buttons().unwrap()["block_id"]
    );
    assert_retired(&scene.slack, &first);

    // Whoever sees the old one still, on a phone without a network, is refused again, and that is all.
    let word = scene.word(Click::deny("apr-1").on(&first));
    assert!(word.contains("has changed since"), "{word}");
    scene.click(&Click::approve("apr-1").on(&second));
    assert_eq!(scene.status("apr-1"), "approved");
    eventually("the new message to be updated", SOON, || {
        let said = updates(&scene.slack, &second).pop()?.body.to_string();
        (said.contains("✅ Approval Granted") && said.contains("800")).then_some(())
    });
    assert!(scene.server.terminate().success());
    assert_eq!(scene.slack.calls_of(POST).len(), 2);
    assert_retired(&scene.slack, &first);
    assert_eq!(updates(&scene.slack, &second).len(), 1);
}

#[test]
fn whatever_belongs_to_the_meaning_binds_a_click_and_nothing_else_does() {
    let scene = Scene::new();
    let args = |count: &str| -> Value {
        serde_json::from_str(&format!(
            r#"{{"desiredCount":{count},"service":"checkout-api"}}"#
        ))
        .unwrap()
    };
    for (n, (changes, counts)) in [
        (json!({ "operation": "delete_ecs_service" }), false),
        (json!({ "args": args("80") }), false),
        (json!({ "args": { "service": "checkout-api" } }), false),
        (json!({ "args": null }), false),
        (json!({ "command": ["rm", "-rf", "/"] }), false),
        (json!({ "riskLevel": "low" }), false),
        (json!({ "riskLevel": "critical" }), false),
        (json!({ "resource": "payments" }), false),
        (json!({ "rollbackCommand": null }), false),
        (json!({ "requestedBy": "eve" }), false),
        // The same words in another order, or in other words.
        (json!({ "args": args("8") }), true),
        (json!({ "riskLevel": "HIGH" }), true),
        (json!({ "resource": null }), true),
        (json!({ "description": "for the sale" }), true),
        (json!({ "expiresAt": "2099-01-01T00:00:00Z" }), true),
        (json!({ "callbackUrl": "http://127.0.0.1:1/" }), true),
        (json!({ "unknown": [1, 2] }), true),
        (json!({}), true),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("apr-{n}");
        let posted = scene.show(&dropped(&id, &format!("C0ROOM{n}")));
        scene.edit(&id, &changes);
        scene.click(&Click::approve(&id).on(&posted));
        let expected = if counts { "approved" } else { "pending" };
        assert_eq!(scene.status(&id), expected, "{changes}");
    }
}

/// The same with the keys of all objects the other way round.
fn reversed(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().rev();
            fields
                .map(|(key, value)| (key.clone(), reversed(value)))
                .collect()
        }
        Value::Array(items) => items.iter().map(reversed).collect(),
        other => other.clone(),
    }
}

#[test]
fn the_order_of_all_keys_is_no_meaning() {
    let scene = Scene::new();
    let text = r#"{"id":"apr-1","operation":"scale","args":{"a":{"x":1,"y":[{"p":1,"q":2}]},"b":2},
        "riskLevel":"low","requestedBy":"ci","slackChannel":"C0DEPLOYS","status":"pending"}"#;
    let posted = scene.show(&serde_json::from_str(text).unwrap());
    let stored = read_approval(&scene.dir, "apr-1");
    let turned = reversed(&stored);
    assert_ne!(turned.to_string(), stored.to_string());
    write_approval(&scene.dir, &turned);
    scene.click(&Click::approve("apr-1").on(&posted));
    assert_eq!(scene.status("apr-1"), "approved");
}

#[test]
fn a_message_that_is_not_ours_binds_nothing() {
    let scene = Scene::new();
    for (n, block_id) in ["q1Xz", "", "sha256:", "sha256:xyz", "SHA256:00"]
        .into_iter()
        .enumerate()
    {
        let id = format!("apr-{n}");
        // Whoever posted it itself wrote the file, and may have changed it since.
        write_approval(&scene.dir, &sample(&id));
        scene.edit(&id, &json!({ "operation": "something_else" }));
        scene.click(&Click::approve(&id).block_id(block_id));
        assert_eq!(scene.status(&id), "approved", "{block_id}");
    }
    write_approval(&scene.dir, &sample("apr-bare"));
    let bare = Click::approve("apr-bare").without("/actions/0/block_id");
    scene.click(&bare);
    assert_eq!(scene.status("apr-bare"), "approved");
    assert!(scene.server.terminate().success());
    assert!(scene.slack.calls_of(POST).is_empty());
}

#[test]
fn a_digest_of_something_else_decides_nothing() {
    let scene = Scene::new();
    let one = scene.show(&dropped("apr-1", "C0DEPLOYS"));
    let two = scene.show(&dropped("apr-2", "C0DEPLOYS"));
    // The buttons of one in the message of another: same operation, other id.
    let word = scene.word(Click::approve("apr-2").on(&one));
    assert!(word.contains("has changed since"), "{word}");
    let zeros = format!("sha256:{}", "0".repeat(64));
    let word = scene.word(Click::deny("apr-2").on(&two).block_id(&zeros));
    assert!(word.contains("has changed since"), "{word}");
    assert_eq!(scene.status("apr-2"), "pending");
    scene.click(&Click::approve("apr-2").on(&two));
    assert_eq!(scene.status("apr-2"), "approved");
    assert!(scene.server.terminate().success());
    // The message on record shows what the request means, so it stays.
    assert_eq!(scene.slack.calls_of(POST).len(), 2);
}

#[test]
fn votes_for_what_the_request_meant_before_do_not_count() {
    let policy = "safety: {approvers: {default: {minApprovals: 2}}}";
    let scene = Scene::under(policy);
    let first = scene.show(&dropped("apr-1", "C0DEPLOYS"));
    let vote = |user: &str, on: &Call| Click::approve("apr-1").by(user, "x").on(on);
    let word = scene.word(vote("U0ALICE", &first));
    assert!(word.contains("1 of 2"), "{word}");
    settled(&scene.dir, "apr-1", SOON);
    scene.edit("apr-1", &json!({ "operation": "drop_database" }));
    let word = scene.word(vote("U0BOB", &first));
    assert!(word.contains("has changed since"), "{word}");
    let second = scene.shown("apr-1", Some(&first));

    let word = scene.word(vote("U0BOB", &second));
    assert!(word.contains("1 of 2"), "{word}");
    let word = scene.word(vote("U0BOB", &second));
    assert!(word.contains("counts already (1 of 2)"), "{word}");
    assert_eq!(scene.status("apr-1"), "pending");
    // Alice has seen the old one only, until she votes for the new one.
    scene.click(&vote("U0ALICE", &second));
    assert_eq!(scene.status("apr-1"), "approved");
    let decisions = read_approval(&scene.dir, "apr-1")["decisions"].clone();
    assert_eq!(decisions.as_array().unwrap().len(), 3, "{decisions}");

    // A message that is not ours showed what the file said at that time.
    let foreign = |user: &str| {
        Click::approve("apr-3")
            .by(user, "x")
            .message("C0DEPLOYS", "1.000001")
    };
    scene.show(&dropped("apr-3", "C0DEPLOYS"));
    let word = scene.word(foreign("U0ALICE"));
    assert!(word.contains("1 of 2"), "{word}");
    settled(&scene.dir, "apr-3", SOON);
    scene.edit("apr-3", &json!({ "operation": "drop_database" }));
    let word = scene.word(foreign("U0BOB"));
    assert!(word.contains("1 of 2"), "{word}");
    assert_eq!(scene.status("apr-3"), "pending");

    // Back to what it was, the old votes are for what it says again.
    let first = scene.show(&dropped("apr-2", "C0DEPLOYS"));
    let vote = |user: &str| Click::approve("apr-2").by(user, "x").on(&first);
    scene.word(vote("U0ALICE"));
    // Whoever edits without a lock must not do so while the server writes.
    settled(&scene.dir, "apr-2", SOON);
    scene.edit("apr-2", &json!({ "operation": "drop_database" }));
    scene.edit("apr-2", &json!({ "operation": "scale_ecs_service" }));
    scene.click(&vote("U0BOB"));
    assert_eq!(scene.status("apr-2"), "approved");
}

#[test]
fn a_stale_click_on_what_is_decided_or_over_is_told_that_first() {
    let scene = Scene::new();
    let done = scene.show(&dropped("apr-done", "C0DEPLOYS"));
    let late = scene.show(&dropped("apr-late", "C0DEPLOYS"));
    scene.click(&Click::approve("apr-done").by("U0BOB", "bob").on(&done));
    for id in ["apr-done", "apr-late"] {
        scene.edit(id, &json!({ "operation": "drop_database" }));
    }
    scene.edit("apr-late", &json!({ "expiresAt": "2020-01-01T00:00:00Z" }));
    let word = scene.word(Click::deny("apr-done").on(&done));
    assert!(word.contains("already approved by <@U0BOB>"), "{word}");
    let word = scene.word(Click::approve("apr-late").on(&late));
    assert!(word.contains("expired"), "{word}");
    assert!(scene.server.terminate().success());
    assert_eq!(scene.slack.calls_of(POST).len(), 2);
}

#[test]
fn many_stale_clicks_at_once_on_two_servers_make_one_new_message() {
    let scene = Scene::new();
    let Scene { server, slack, dir } = &scene;
    let other = Server::builder().dir(dir).slack(slack).start();
    let first = scene.show(&dropped("apr-1", "C0DEPLOYS"));
    scene.edit("apr-1", &json!({ "riskLevel": "low" }));
    let start = Barrier::new(8);
    thread::scope(|scope| {
        for n in 0..8 {
            let (start, other, first) = (&start, &other, &first);
            scope.spawn(move || {
                let click = Click::approve("apr-1").by(&format!("U0{n}"), "x").on(first);
                let click = click.response_url(slack.response_url(&n.to_string()));
                start.wait();
                let server = if n % 2 == 0 { server } else { other };
                server.click(&click);
            });
        }
    });
    for call in slack.wait_for("response_url", 8, SOON) {
        let word = call.body["text"].as_str().unwrap().to_owned();
        assert!(word.contains("has changed since"), "{word}");
    }
    let second = scene.shown("apr-1", Some(&first));
    assert!(server.terminate().success() && other.terminate().success());
    assert_retired(slack, &first);
    assert_eq!(
        second.body["text"]
            .as_str()
            .unwrap()
            .matches("LOW 🟢")
            .count(),
        1
    );
    assert_eq!(slack.calls_of(POST).len(), 2);
    assert_eq!(status(dir, "apr-1"), "pending");
}

#[test]
fn when_a_server_dies_before_it_shows_a_changed_request_another_does() {
    let (hanging, slack, dir) = (StandIn::start(), StandIn::start(), Scratch::new());
    let dying = Server::builder().dir(&dir).slack(&hanging).start();
    write_approval(&dir, &dropped("apr-1", "C0DEPLOYS"));
    let first = shown(&dir, &hanging, "apr-1", None);
    let other = Server::builder().dir(&dir).slack(&slack).start();
    edit(&dir, "apr-1", &json!({ "operation": "drop_database" }));
    hanging.fail(Failure::Hang, Times::Forever);
    let click = Click::approve("apr-1").on(&first);
    dying.click(&click);
    hanging.wait_for(POST, 2, SOON);
    hanging.wait_for(UPDATE, 1, SOON);
    assert!(slack.calls().is_empty());
    dying.kill();
    let second = shown(&dir, &slack, "apr-1", Some(&first));
    assert_retired(&slack, &first);
    let click = Click::approve("apr-1").on(&second);
    other.click(&click);
    assert_eq!(status(&dir, "apr-1"), "approved");
}

/// Edits a request while its post hangs in Slack, lets go, and returns what was shown in the end, by
/// then or after a stale click.
fn edited_while_its_post_hangs(changes: &Value) -> (Scene, Call) {
    let scene = Scene::new();
    scene.slack.fail_method(POST, Failure::Hang, Times::Next(1));
    write_approval(&scene.dir, &dropped("apr-1", "C0DEPLOYS"));
    scene.slack.wait_for(POST, 1, SOON);
    scene.edit("apr-1", changes);
    scene.slack.recover();
    let call = scene.shown("apr-1", None);
    (scene, call)
}

#[test]
fn what_is_edited_while_its_post_fails_is_posted_as_it_is_then() {
    let changes = json!({ "operation": "drop_database", "unknown": 1 });
    let (scene, call) = edited_while_its_post_hangs(&changes);
    assert!(call.body.to_string().contains("drop_database"));
    scene.click(&Click::approve("apr-1").on(&call));
    assert_eq!(scene.status("apr-1"), "approved");
    assert_eq!(read_approval(&scene.dir, "apr-1")["unknown"], 1);
    assert_eq!(scene.slack.done(POST).len(), 1);
}

#[test]
fn an_editor_that_drops_what_we_wrote_makes_nothing_be_posted_twice() {
    // It has read the file before we promised to post it, and writes it after that.
    let changes = json!({ "operation": "drop_database", "effectsOwed": null, "expiresAt": null });
    let (scene, call) = edited_while_its_post_hangs(&changes);
    assert!(call.body.to_string().contains("drop_database"));
    let stored = read_approval(&scene.dir, "apr-1");
    assert!(stored.get("expiresAt").is_some(), "{stored}");
    scene.click(&Click::approve("apr-1").on(&call));
    assert_eq!(scene.status("apr-1"), "approved");
    assert_eq!(scene.slack.done(POST).len(), 1);
}

#[test]
fn what_is_edited_while_slack_posts_it_is_not_decided_by_what_slack_shows() {
    // Slack takes its time and posts what it was given; the file says something else by then.
    let scene = Scene::new();
    let held = scene.slack.hold(POST);
    write_approval(&scene.dir, &dropped("apr-1", "C0DEPLOYS"));
    scene.slack.wait_for(POST, 1, SOON);
    scene.edit("apr-1", &json!({ "operation": "drop_database" }));
    drop(held);
    let first = scene.shown("apr-1", None);
    assert!(first.body.to_string().contains("scale_ecs_service"));
    assert_eq!(
        read_approval(&scene.dir, "apr-1")["operation"],
        "drop_database"
    );
    let word = scene.word(Click::approve("apr-1").on(&first));
    assert!(word.contains("has changed since"), "{word}");
    let second = scene.shown("apr-1", Some(&first));
    assert!(second.body.to_string().contains("drop_database"));
    assert_retired(&scene.slack, &first);
    scene.click(&Click::approve("apr-1").on(&second));
    assert_eq!(scene.status("apr-1"), "approved");
}

#[test]
fn what_is_removed_or_damaged_while_slack_posts_it_stays_that_way() {
    for damaged in [None, Some("{\"id\":\"apr-1\",")] {
        let scene = Scene::new();
        let held = scene.slack.hold(POST);
        write_approval(&scene.dir, &dropped("apr-1", "C0DEPLOYS"));
        scene.slack.wait_for(POST, 1, SOON);
        let file = scene.dir.join("apr-1.json");
        // Whoever writes it last is to be us.
        eventually("the audit log to tell of it", SOON, || {
            let stored = read_approval(&scene.dir, "apr-1");
            stored.get("auditOwed").is_none().then_some(())
        });
        match damaged {
            None => fs::remove_file(&file).unwrap(),
            Some(text) => fs::write(&file, text).unwrap(),
        }
        drop(held);
        let last = scene.show(&dropped("apr-last", "C0DEPLOYS"));
        let click = Click::approve("apr-1").on(&scene.slack.done(POST)[0]);
        let word = scene.word(click);
        assert!(word.contains("nothing was decided"), "{word}");
        scene.click(&Click::deny("apr-last").on(&last));
        assert!(scene.server.terminate().success());
        assert_eq!(fs::read_to_string(&file).ok().as_deref(), damaged);
        assert_eq!(scene.slack.done(POST).len(), 2);
    }
}
