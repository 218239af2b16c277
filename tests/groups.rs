//! Approvers by user group, guests and the people of other workspaces: what Slack says of them counts, and when it
//! does not say, nobody is let through and nobody else waits.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Click, Scratch, Server, eventually};
use crate::scene::{LATE, SOON, Scene, by};
use crate::stand_in::{Failure, Guest, StandIn, Times};

const LIST: &str = "usergroups.users.list";

/// Whoever is in Ops.
const OPS: &str = "safety: {approvers: {default: {groups: [S0OPS]}}}\n";
/// Two of Ops.
const TWO: &str = "safety: {approvers: {default: {groups: [S0OPS], minApprovals: 2}}}\n";
/// Alice, and whoever is in Ops.
const ALICE_AND_OPS: &str = "safety: {approvers: {default: {users: [U0ALICE], groups: [S0OPS]}}}\n";
/// Anyone but guests.
const NO_GUESTS: &str = "safety: {approvers: {default: {allowGuests: false}}}\n";

const NOT_IN_TIME: &str = "could not tell us in time whether you may decide";
const NOT_ALLOWED: &str = "not allowed to decide";
const OUTSIDE: &str = "Only people of this workspace";

fn ops(slack: &StandIn) {
    slack.set_members("S0OPS", &["U0GRACE", "U0HEIDI", "U0IVAN"]);
}

fn approve(user: &str, id: &str) -> Click {
    by(user, Click::approve(id))
}

fn deny(user: &str, id: &str) -> Click {
    by(user, Click::deny(id))
}

#[test]
fn the_members_of_a_group_decide_and_others_are_refused_privately() {
    let scene = Scene::with(OPS, ops);
    for (user, click, status) in [
        ("U0GRACE", Click::approve as fn(&str) -> Click, "approved"),
        ("U0HEIDI", Click::deny, "denied"),
    ] {
        scene.file(status, &json!({}));
        scene.click(&by(user, click(status)));
        assert_eq!(scene.outcome(status), status);
        let stored = scene.stored(status);
        assert_eq!(stored["decidedBy"]["id"], user);
        assert_eq!(stored["decisions"].as_array().unwrap().len(), 1);
    }
    scene.slack.wait_for("chat.update", 2, SOON);
    assert!(scene.words().is_empty());
    scene.file("apr-1", &json!({}));
    for (user, name) in [("U0EVE", "eve"), ("U0EVE", "U0GRACE"), ("u0grace", "grace")] {
        for click in [Click::approve("apr-1"), Click::deny("apr-1")] {
            let word = scene.word(&click.by(user, name));
            assert!(word.contains(NOT_ALLOWED), "{user}: {word}");
        }
    }
    let stored = scene.stored("apr-1");
    assert_eq!(stored["status"], "pending");
    assert!(stored.get("decisions").is_none());
    scene.settled();
    let asked = &scene.slack.calls_of(LIST)[0];
    assert_eq!(asked.error, None, "{asked:?}");
    assert_eq!(asked.body["usergroup"], "S0OPS");
}

#[test]
fn a_level_has_the_groups_of_its_own_or_the_defaults() {
    let scene = Scene::with(
        "safety:
  approvers:
    default: {groups: [S0OPS]}
    low: {users: [U0ALICE]}
    medium: {users: [U0BOB], groups: []}
    high: {groups: [S0DEV, S0OPS2]}
    critical: {allowExternal: true}
",
        |slack| {
            ops(slack);
            slack.set_members("S0DEV", &["U0DAVE"]);
            slack.set_members("S0OPS2", &["U0OSCAR"]);
        },
    );
    for (risk, allowed, refused) in [
        ("low", "U0ALICE U0GRACE", "U0DAVE U0EVE"),
        ("medium", "U0BOB", "U0ALICE U0GRACE"),
        ("high", "U0DAVE U0OSCAR", "U0GRACE U0ALICE"),
        ("critical", "U0GRACE", "U0DAVE"),
    ] {
        for user in allowed.split(' ') {
            let id = format!("apr-{risk}-{user}");
            scene.file(&id, &json!({ "riskLevel": risk }));
            scene.click(&approve(user, &id));
            assert_eq!(scene.outcome(&id), "approved", "{risk} {user}");
        }
        for user in refused.split(' ') {
            let id = format!("apr-{risk}-{user}");
            scene.file(&id, &json!({ "riskLevel": risk }));
            let word = scene.word(&approve(user, &id));
            assert!(word.contains(NOT_ALLOWED), "{risk} {user}: {word}");
            assert_eq!(scene.status(&id), "pending");
        }
    }
    // Each group was asked for once.
    assert_eq!(scene.slack.calls_of(LIST).len(), 3);
}

#[test]
fn a_group_that_slack_does_not_know_keeps_nobody_else_out() {
    let scene = Scene::with(
        "safety: {approvers: {default: {groups: [S0GONE, S0OPS]}}}\n",
        ops,
    );
    scene.file("apr-1", &json!({}));
    // Whether Eve was in the other group, nobody can say.
    let word = scene.word(&approve("U0EVE", "apr-1"));
    assert!(word.contains(NOT_IN_TIME), "{word}");
    scene.click(&approve("U0GRACE", "apr-1"));
    assert_eq!(scene.outcome("apr-1"), "approved");
}

#[test]
fn slack_is_asked_no_more_once_the_outcome_is_known() {
    let policy = "safety: {approvers: {default: {groups: [S0OPS, S0WEB], allowGuests: false}}}\n";
    let scene = Scene::with(policy, |slack| {
        ops(slack);
        slack.set_members("S0WEB", &["U0DAVE"]);
    });
    scene.file("apr-1", &json!({}));
    scene.click(&approve("U0GRACE", "apr-1"));
    assert_eq!(scene.outcome("apr-1"), "approved");
    let asked = scene.slack.calls_of(LIST);
    assert_eq!(asked.len(), 1, "{asked:?}");
    // Who is in none of the groups may be a guest or not.
    scene.file("apr-2", &json!({}));
    let word = scene.word(&approve("U0EVE", "apr-2"));
    assert!(word.contains(NOT_ALLOWED), "{word}");
    assert_eq!(scene.slack.calls_of(LIST).len(), 2);
    assert_eq!(scene.slack.calls_of("users.info").len(), 1);
}

/// This one takes the minute that it is about.
#[test]
fn an_old_list_keeps_nobody_from_the_dialog_and_lets_nobody_in_of_a_group_that_is_no_more() {
    let policy = "safety: {requireDenialReason: true, approvers: {default: {groups: [S0OPS]}}}\n";
    let scene = Scene::with(policy, |slack| slack.set_members("S0OPS", &["U0GRACE"]));
    for id in ["apr-1", "apr-2"] {
        scene.file(id, &json!({}));
    }
    scene.click(&approve("U0GRACE", "apr-1"));
    assert_eq!(scene.outcome("apr-1"), "approved");
    let asked = scene.slack.calls_of(LIST)[0].at;
    // Not for readiness: the list has to grow old.
    thread::sleep(Duration::from_secs(61).saturating_sub(asked.elapsed()));
    ops(&scene.slack);
    scene.click(&deny("U0HEIDI", "apr-2"));
    scene.slack.wait_for("views.open", 1, SOON);
    let gone = Failure::NotOk("no_such_subteam");
    scene.slack.fail_method(LIST, gone, Times::Next(1));
    let word = scene.word(&approve("U0GRACE", "apr-2"));
    assert!(word.contains(NOT_IN_TIME), "{word}");
    assert_eq!(scene.status("apr-2"), "pending");
}

/// This one takes the minute that it is about.
#[test]
fn a_list_is_asked_for_once_a_minute_and_an_old_one_will_do_while_slack_fails() {
    let scene = Scene::with(OPS, ops);
    let click = |user: &str, id: &str| {
        scene.file(id, &json!({}));
        scene.click(&approve(user, id));
        assert_eq!(scene.outcome(id), "approved", "{user}");
    };
    click("U0GRACE", "apr-1");
    let asked = scene.slack.calls_of(LIST)[0].at;
    scene.slack.set_members("S0OPS", &["U0HEIDI"]);
    // What is known decides at once.
    for (user, id) in [("U0GRACE", "apr-2"), ("U0IVAN", "apr-3")] {
        scene.file(id, &json!({}));
        scene.click(&approve(user, id));
        assert_eq!(scene.status(id), "approved");
    }
    assert_eq!(scene.slack.calls_of(LIST).len(), 1);
    // Not for readiness: the list has to grow old.
    thread::sleep(Duration::from_secs(61).saturating_sub(asked.elapsed()));
    let hitch = Failure::NotOk("internal_error");
    scene.slack.fail_method(LIST, hitch, Times::Next(1));
    click("U0GRACE", "apr-4");
    assert_eq!(scene.slack.calls_of(LIST).len(), 2);
    // Who has left the group meanwhile is told so as soon as Slack says it.
    scene.file("apr-5", &json!({}));
    let word = scene.word(&approve("U0GRACE", "apr-5"));
    assert!(word.contains(NOT_ALLOWED), "{word}");
    scene.click(&approve("U0HEIDI", "apr-5"));
    assert_eq!(scene.status("apr-5"), "approved");
    assert_eq!(scene.slack.calls_of(LIST).len(), 3);
}

#[test]
fn while_slack_hangs_members_are_refused_in_time_and_nobody_else_waits() {
    const MEMBERS: usize = 12;
    let scene = Scene::with(ALICE_AND_OPS, ops);
    scene.slack.fail_method(LIST, Failure::Hang, Times::Forever);
    let started = Instant::now();
    let prompt = |what: &str, act: &dyn Fn()| {
        let started = Instant::now();
        act();
        // Slack itself gives up after three seconds.
        assert!(started.elapsed() < Duration::from_secs(3), "{what}");
    };
    for n in 0..MEMBERS {
        let id = format!("apr-{n}");
        scene.file(&id, &json!({}));
        let click = approve("U0GRACE", &id).response_url(scene.slack.response_url(&id));
        prompt("a member's click", &|| scene.click(&click));
    }
    // The one worker is free, and who is listed by name needs nobody's word.
    for (click, status) in [
        (Click::approve as fn(&str) -> Click, "approved"),
        (Click::deny, "denied"),
    ] {
        scene.file(status, &json!({}));
        prompt("a click by name", &|| {
            scene.click(&by("U0ALICE", click(status)));
            assert_eq!(scene.status(status), status);
        });
    }
    prompt("health", &|| {
        assert_eq!(scene.server.get("/health").status, 200);
    });
    let words = scene.slack.wait_for("response_url", MEMBERS, LATE);
    for word in &words {
        let text = word.body["text"].as_str().unwrap();
        assert!(text.contains(NOT_IN_TIME), "{text}");
    }
    let last = words.iter().map(|word| word.at).max().unwrap();
    assert!(
        last - started < Duration::from_secs(9),
        "{:?}",
        last - started
    );
    scene.settled();
    for n in 0..MEMBERS {
        let stored = scene.stored(&format!("apr-{n}"));
        assert_eq!(stored["status"], "pending");
        assert!(stored.get("decisions").is_none());
    }
    // The very next click after it decides.
    scene.slack.recover();
    scene.click(&approve("U0GRACE", "apr-0"));
    assert_eq!(scene.outcome("apr-0"), "approved");
    assert_eq!(scene.words().len(), MEMBERS);
}

#[test]
fn however_slack_fails_the_click_is_refused_and_the_next_one_decides() {
    let scene = Scene::with(OPS, |_| ());
    for (n, (failure, reason)) in [
        (Failure::NotOk("missing_scope"), "refused: missing_scope"),
        (
            Failure::NotOk("no_such_subteam"),
            "refused: no_such_subteam",
        ),
        (Failure::Status(503), "HTTP status 503"),
        (Failure::Garbage, "the answer is not Slack's"),
        (Failure::CloseWithoutAnswer, "connection"),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("apr-{n}");
        scene.file(&id, &json!({}));
        scene.slack.fail_method(LIST, failure, Times::Forever);
        let word = scene.word(&approve("U0GRACE", &id));
        assert!(word.contains(NOT_IN_TIME), "{failure:?}: {word}");
        assert_eq!(scene.status(&id), "pending", "{failure:?}");
        let log = scene.server.log();
        let (_, last) = log.rsplit_once("Slack did not say who may decide").unwrap();
        assert!(last.contains(reason), "{failure:?}: {last}");
        scene.slack.recover();
    }
    // An answer that does not say who is in it is none.
    scene.file("apr-odd", &json!({}));
    for answer in [
        json!({"ok": true}),
        json!({"ok": true, "users": null}),
        json!({"users": ["U0GRACE"]}),
    ] {
        scene.slack.answer(LIST, answer);
        let word = scene.word(&approve("U0GRACE", "apr-odd"));
        assert!(word.contains(NOT_IN_TIME), "{word}");
    }
    scene
        .slack
        .answer(LIST, json!({"ok": true, "users": ["U0GRACE"]}));
    scene.click(&approve("U0GRACE", "apr-odd"));
    assert_eq!(scene.outcome("apr-odd"), "approved");
}

#[test]
fn slacks_patience_holds_for_every_question_about_groups() {
    let scene = Scene::with(OPS, ops);
    let patience = Failure::RateLimited {
        retry_after_seconds: 30,
    };
    scene.slack.fail_method(LIST, patience, Times::Next(1));
    for id in ["apr-1", "apr-2"] {
        scene.file(id, &json!({}));
        let word = scene.word(&approve("U0GRACE", id));
        assert!(word.contains(NOT_IN_TIME), "{word}");
        assert!(scene.server.log().contains("rate limited for 30 s"));
        assert_eq!(scene.status(id), "pending");
    }
    assert_eq!(scene.slack.calls_of(LIST).len(), 1);
}

/// Either is right after a crash: whoever takes a click over may come too late for it.
fn decided_or_told(scene: &Scene, id: &str) {
    eventually("a decision or a word", LATE, || {
        let word = scene.words().pop();
        let told = word.is_some_and(|word| word.contains(NOT_IN_TIME));
        (told != (scene.status(id) == "approved")).then_some(())
    });
    scene.settled();
    let votes = scene.stored(id)["decisions"].as_array().map_or(0, Vec::len);
    let expected = usize::from(scene.status(id) == "approved");
    assert_eq!(votes, expected);
}

#[test]
fn a_click_that_waits_for_slack_survives_the_servers_death() {
    for still_hangs in [false, true] {
        let scene = Scene::with(OPS, ops);
        scene.file("apr-1", &json!({}));
        scene.slack.fail_method(LIST, Failure::Hang, Times::Forever);
        let url = scene.slack.response_url("grace");
        scene.click(&approve("U0GRACE", "apr-1").response_url(url));
        scene.slack.wait_for(LIST, 1, SOON);
        scene.server.kill();
        assert_eq!(scene.status("apr-1"), "pending");
        assert!(scene.words().is_empty());
        if !still_hangs {
            scene.slack.recover();
        }
        let _next = scene.another(OPS);
        decided_or_told(&scene, "apr-1");
        if still_hangs {
            assert_eq!(scene.status("apr-1"), "pending");
        }
    }
}

#[test]
fn the_other_server_takes_over_the_clicks_that_a_dead_one_leaves() {
    let scene = Scene::with(OPS, ops);
    let _other = scene.another(OPS);
    scene.file("apr-1", &json!({}));
    scene.slack.fail_method(LIST, Failure::Hang, Times::Forever);
    let url = scene.slack.response_url("grace");
    scene.click(&approve("U0GRACE", "apr-1").response_url(url));
    scene.slack.wait_for(LIST, 1, SOON);
    scene.server.kill();
    scene.slack.recover();
    decided_or_told(&scene, "apr-1");
    assert!(scene.words().len() <= 1, "{:?}", scene.words());
}

#[test]
fn a_server_told_to_end_leaves_no_click_behind_unanswered() {
    let scene = Scene::with(OPS, ops);
    scene.file("apr-1", &json!({}));
    scene.slack.fail_method(LIST, Failure::Hang, Times::Forever);
    let url = scene.slack.response_url("grace");
    scene.click(&approve("U0GRACE", "apr-1").response_url(url));
    assert!(scene.server.terminate().success());
    scene.slack.recover();
    let _next = scene.another(OPS);
    decided_or_told(&scene, "apr-1");
}

#[test]
fn members_on_two_servers_make_one_quorum() {
    let scene = Scene::with(TWO, ops);
    let other = scene.another(TWO);
    for round in 0..5 {
        let id = format!("apr-{round}");
        scene.file(&id, &json!({}));
        thread::scope(|scope| {
            for (server, user) in [(&scene.server, "U0GRACE"), (&other, "U0HEIDI")] {
                let id = &id;
                scope.spawn(move || {
                    server.click(&approve(user, id));
                });
            }
        });
        assert_eq!(scene.outcome(&id), "approved");
        let stored = scene.stored(&id);
        assert_eq!(stored["decisions"].as_array().unwrap().len(), 2, "{stored}");
    }
    // One person on both is still one.
    scene.file("apr-one", &json!({}));
    let click = approve("U0GRACE", "apr-one");
    assert!(scene.word(&click).contains("1 of 2"));
    assert!(
        scene
            .word_through(&other, &click)
            .contains("counts already (1 of 2)")
    );
    scene.settled();
}

#[test]
fn an_earlier_vote_counts_while_its_voter_is_a_member() {
    let scene = Scene::with(TWO, ops);
    scene.file("apr-1", &json!({}));
    assert!(scene.word(&approve("U0GRACE", "apr-1")).contains("1 of 2"));
    scene.slack.set_members("S0OPS", &["U0HEIDI", "U0IVAN"]);
    // A new server has heard nothing yet.
    assert!(scene.server.terminate().success());
    let next = scene.another(TWO);
    let heidi = approve("U0HEIDI", "apr-1");
    let word = scene.word_through(&next, &heidi);
    assert!(word.contains("counts: 1 of 2"), "{word}");
    let word = scene.word_through(&next, &heidi);
    assert!(word.contains("counts already (1 of 2)"), "{word}");
    let word = scene.word_through(&next, &approve("U0GRACE", "apr-1"));
    assert!(word.contains(NOT_ALLOWED), "{word}");
    assert_eq!(scene.status("apr-1"), "pending");
    next.click(&approve("U0IVAN", "apr-1"));
    assert_eq!(scene.outcome("apr-1"), "approved");
}

#[test]
fn who_would_be_the_last_one_needed_is_refused_while_slack_cannot_say_who_else_counts() {
    const POLICY: &str = "safety: {approvers: {default: {users: [U0ALICE, U0BOB], groups: [S0OPS], minApprovals: 2}}}\n";
    let scene = Scene::with(POLICY, ops);
    for id in ["apr-1", "apr-2"] {
        scene.file(id, &json!({}));
        assert!(scene.word(&approve("U0GRACE", id)).contains("1 of 2"));
    }
    assert!(scene.server.terminate().success());
    scene.slack.fail_method(LIST, Failure::Hang, Times::Forever);
    let next = scene.another(POLICY);
    // To say no takes one.
    next.click(&deny("U0ALICE", "apr-2"));
    assert_eq!(scene.status("apr-2"), "denied");
    let word = scene.word_through(&next, &approve("U0ALICE", "apr-1"));
    assert!(word.contains(NOT_IN_TIME), "{word}");
    // No message shows two of two while nothing is decided.
    let votes = scene.stored("apr-1")["decisions"].clone();
    assert_eq!(votes.as_array().unwrap().len(), 1, "{votes}");
    scene.slack.recover();
    next.click(&approve("U0BOB", "apr-1"));
    assert_eq!(scene.outcome("apr-1"), "approved");
}

#[test]
fn guests_decide_only_where_that_is_wanted() {
    let guests = |slack: &StandIn| {
        ops(slack);
        slack.set_guest("U0GRACE", Guest::Multi);
        slack.set_guest("U0HEIDI", Guest::Single);
        slack.set_guest("U0IVAN", Guest::Unsaid);
    };
    let scene = Scene::with(NO_GUESTS, guests);
    scene.file("apr-1", &json!({}));
    for (user, said) in [
        ("U0GRACE", "Guests of this workspace may not"),
        ("U0HEIDI", "Guests of this workspace may not"),
        ("U0IVAN", NOT_IN_TIME),
    ] {
        for click in [approve(user, "apr-1"), deny(user, "apr-1")] {
            let word = scene.word(&click);
            assert!(word.contains(said), "{user}: {word}");
            assert_eq!(scene.status("apr-1"), "pending");
        }
    }
    assert_eq!(
        scene.slack.calls_of("users.info")[0].body["user"],
        "U0GRACE"
    );
    for failure in [Failure::NotOk("user_not_found"), Failure::Status(500)] {
        scene
            .slack
            .fail_method("users.info", failure, Times::Next(1));
        let word = scene.word(&approve("U0ALICE", "apr-1"));
        assert!(word.contains(NOT_IN_TIME), "{word}");
    }
    scene.click(&approve("U0ALICE", "apr-1"));
    assert_eq!(scene.outcome("apr-1"), "approved");

    // Neither a name on the list nor a group makes up for it, unless the level says so.
    let scene = Scene::with(
        "safety:
  approvers:
    default: {users: [U0GRACE], groups: [S0OPS], allowGuests: false}
    low: {allowGuests: true}
",
        guests,
    );
    scene.file("apr-1", &json!({}));
    for user in ["U0GRACE", "U0HEIDI"] {
        let word = scene.word(&approve(user, "apr-1"));
        assert!(word.contains("Guests of this workspace may not"), "{word}");
    }
    scene.file("apr-2", &json!({ "riskLevel": "low" }));
    scene.click(&approve("U0GRACE", "apr-2"));
    assert_eq!(scene.status("apr-2"), "approved");
}

#[test]
fn a_hangup_in_the_middle_of_a_quorum_takes_away_the_votes_of_those_who_may_no_longer() {
    const RELOADED: &str = "Configuration reloaded";
    let start = "safety: {approvers: {default: {minApprovals: 2, allowExternal: true}}}\n";
    let scene = Scene::with(start, |slack| {
        slack.set_members("S0OPS", &["U0BOB", "U0CAROL"]);
        slack.set_guest("U0GUEST", Guest::Multi);
    });
    for (id, first, policy) in [
        (
            "apr-listed",
            approve("U0ALICE", "apr-listed"),
            "users: [U0BOB, U0CAROL]",
        ),
        (
            "apr-member",
            approve("U0ALICE", "apr-member"),
            "groups: [S0OPS]",
        ),
        (
            "apr-guest",
            approve("U0GUEST", "apr-guest"),
            "allowGuests: false",
        ),
        (
            "apr-outside",
            approve("U0ALICE", "apr-outside").of_team("T0002"),
            "allowExternal: false",
        ),
    ] {
        scene.reload(start, RELOADED);
        scene.file(id, &json!({}));
        assert!(scene.word(&first).contains("counts: 1 of 2"), "{id}");
        let policy = format!("safety: {{approvers: {{default: {{minApprovals: 2, {policy}}}}}}}\n");
        scene.reload(&policy, RELOADED);
        let word = scene.word(&approve("U0BOB", id));
        assert!(word.contains("counts: 1 of 2"), "{id}: {word}");
        assert_eq!(scene.status(id), "pending", "{id}");
        scene.click(&approve("U0CAROL", id));
        assert_eq!(scene.outcome(id), "approved", "{id}");
        let stored = scene.stored(id);
        assert_eq!(stored["decisions"].as_array().unwrap().len(), 3, "{stored}");
    }
}

#[test]
fn clicks_for_another_app_or_workspace_are_told_so_privately_and_decide_nothing() {
    for (setting, other, own) in [("appId", "A0002", "A0001"), ("teamId", "T0002", "T0001")] {
        let config = |id: &str| format!("incident: {{slack: {{{setting}: {id}}}}}\n");
        let scene = Scene::under(&config(other));
        scene.file("apr-1", &json!({}));
        for click in [approve("U0ALICE", "apr-1"), deny("U0ALICE", "apr-1")] {
            let word = scene.word(&click);
            assert!(
                word.contains("another Slack app or workspace"),
                "{setting}: {word}"
            );
        }
        // One that does not say is none of ours either.
        let silent = approve("U0ALICE", "apr-1")
            .without("/api_app_id")
            .without("/team");
        let word = scene.word(&silent);
        assert!(
            word.contains("another Slack app or workspace"),
            "{setting}: {word}"
        );
        let stored = scene.stored("apr-1");
        assert_eq!(stored["status"], "pending");
        assert!(stored.get("decisions").is_none());
        scene.reload(&config(own), "Configuration reloaded");
        scene.click(&approve("U0ALICE", "apr-1"));
        assert_eq!(scene.status("apr-1"), "approved", "{setting}");
    }
}

#[test]
fn another_token_may_be_another_workspaces_so_what_was_learned_is_forgotten() {
    const OTHER: &str = "xoxb-other-workspace";
    let config = |token: &str| format!("incident: {{slack: {{botToken: {token}}}}}\n{OPS}");
    let (slack, dir) = (StandIn::start(), Scratch::new());
    slack.set_members("S0OPS", &["U0GRACE"]);
    let server = Server::builder().dir(&dir).slack(&slack);
    let server = server.without_env("SLACK_BOT_TOKEN");
    let server = server.config(&config(&slack.token())).start();
    let scene = Scene { server, slack, dir };
    for id in ["apr-1", "apr-2"] {
        scene.file(id, &json!({}));
    }
    scene.click(&approve("U0GRACE", "apr-1"));
    assert_eq!(scene.outcome("apr-1"), "approved");
    scene.slack.wait_for("chat.update", 1, SOON);
    scene.slack.wait_for("auth.test", 1, SOON);
    scene.slack.set_members("S0OPS", &["U0HEIDI"]);
    scene.slack.set_token(OTHER);
    scene.reload(&config(OTHER), "Configuration reloaded");
    let word = scene.word(&approve("U0GRACE", "apr-2"));
    assert!(word.contains(NOT_ALLOWED), "{word}");
}

/// Whether the server has learned whose its token is.
fn knows_itself(scene: &Scene) {
    let counted = "runbook_slack_calls_total{method=\"auth.test\",result=\"ok\"}";
    eventually("auth.test", LATE, || {
        scene
            .server
            .get("/metrics")
            .text()
            .contains(counted)
            .then_some(())
    });
}

#[test]
fn who_is_from_outside_is_known_from_auth_test_and_from_the_payload_until_then() {
    let scene = Scene::with("", |slack| {
        slack.fail_method("auth.test", Failure::Status(500), Times::Next(1));
        slack.fail_method("auth.test", Failure::Hang, Times::Forever);
    });
    // As the payload of another workspace has it, its people are at home.
    let elsewhere = |id: &str| {
        let click = approve("U0EVE", id).of_team("T0002");
        click.set("/team/id", "T0002")
    };
    for id in ["apr-1", "apr-2", "apr-3", "apr-4"] {
        scene.file(id, &json!({}));
    }
    let word = scene.word(&approve("U0EVE", "apr-1").of_team("T0002"));
    assert!(word.contains(OUTSIDE), "{word}");
    scene.click(&elsewhere("apr-1"));
    assert_eq!(scene.status("apr-1"), "approved");
    scene.slack.recover();
    knows_itself(&scene);
    for click in [
        elsewhere("apr-2"),
        elsewhere("apr-2").set("/enterprise", json!({"id": "T0002"})),
        elsewhere("apr-2").without("/user/team_id"),
        approve("U0EVE", "apr-2").of_team("T0002"),
    ] {
        let word = scene.word(&click);
        assert!(word.contains(OUTSIDE), "{word}");
    }
    assert_eq!(scene.status("apr-2"), "pending");
    for click in [
        approve("U0ALICE", "apr-2"),
        approve("U0ALICE", "apr-3").without("/user/team_id"),
        approve("U0ALICE", "apr-4").set("/team", Value::Null),
    ] {
        scene.click(&click);
    }
    for id in ["apr-2", "apr-3", "apr-4"] {
        assert_eq!(scene.status(id), "approved", "{id}");
    }
}

#[test]
fn the_organisations_own_id_is_home_and_another_organisation_is_not() {
    let scene = Scene::with("", |slack| {
        let identity = json!({ "ok": true, "team_id": "T0001", "user_id": "U0RUNBOOK",
            "enterprise_id": "E0001" });
        slack.answer("auth.test", identity);
    });
    knows_itself(&scene);
    for (n, (team, payload, is_home)) in [
        ("E0001", json!({"id": "T0001"}), true),
        ("E0001", json!({"id": "T0009"}), true),
        ("E0001", Value::Null, true),
        ("T0001", json!({"id": "T0009"}), true),
        ("E0002", json!({"id": "T0001"}), false),
        (
            "E0002",
            json!({"id": "T0009", "enterprise_id": "E0002"}),
            false,
        ),
        ("T0009", json!({"id": "T0009"}), false),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("apr-{n}");
        scene.file(&id, &json!({}));
        let click = approve("U0ALICE", &id)
            .of_team(team)
            .set("/team", payload.clone());
        if is_home {
            scene.click(&click);
            assert_eq!(scene.status(&id), "approved", "{team} {payload}");
        } else {
            let word = scene.word(&click);
            assert!(word.contains(OUTSIDE), "{team} {payload}: {word}");
            assert_eq!(scene.status(&id), "pending", "{team} {payload}");
        }
    }
}
