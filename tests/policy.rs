//! Who may decide, how many must agree, and that a configuration with a mistake in it opens nothing.

use std::fs;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{Click, Server, fixture, read_approval};
use crate::scene::{SOON, Scene, by};

#[test]
fn a_level_says_who_may_decide_and_takes_the_rest_from_the_default() {
    let scene = Scene::under(
        "safety:
  approvers:
    default: {users: [U0ALICE, U0BOB], minApprovals: 1}
    medium: {allowExternal: true}
    high: {users: [U0BOB]}
    critical: {users: [U0CAROL, W0DAVE], minApprovals: 2}
",
    );
    let mut row = 0;
    for (risk, allowed, refused) in [
        ("low", "U0ALICE U0BOB", "U0CAROL W0DAVE U0EVE u0alice alice"),
        ("medium", "U0ALICE U0BOB", "U0CAROL W0DAVE U0EVE"),
        ("high", "U0BOB", "U0ALICE U0CAROL W0DAVE U0BOBBY U0BO"),
        ("HIGH", "U0BOB", "U0ALICE"),
        // No level counts as high.
        ("", "U0BOB", "U0ALICE"),
    ] {
        let level = if risk.is_empty() {
            Value::Null
        } else {
            risk.into()
        };
        for (people, expected) in [(allowed, true), (refused, false)] {
            for user in people.split(' ') {
                for deny in [false, true] {
                    row += 1;
                    let id = format!("apr-{row}");
                    scene.file(&id, &json!({ "riskLevel": level }));
                    let (click, decided) = if deny {
                        (Click::deny(&id), "denied")
                    } else {
                        (Click::approve(&id), "approved")
                    };
                    if expected {
                        scene.click(&by(user, click));
                        assert_eq!(scene.status(&id), decided, "{risk} {user}");
                    } else {
                        // A name proves nothing.
                        let word = scene.word(&click.by(user, "U0BOB"));
                        assert!(word.contains("not allowed to decide"), "{word}");
                        assert_eq!(scene.status(&id), "pending", "{risk} {user}");
                        let stored = read_approval(&scene.dir, &id);
                        assert!(stored.get("decisions").is_none(), "{stored}");
                    }
                }
            }
        }
    }
    scene.file("apr-c", &json!({ "riskLevel": "critical" }));
    for user in ["U0ALICE", "U0BOB"] {
        let word = scene.word(&by(user, Click::approve("apr-c")));
        assert!(word.contains("not allowed to decide"), "{user}: {word}");
    }
    scene.word(&by("W0DAVE", Click::approve("apr-c")));
    scene.click(&by("U0CAROL", Click::approve("apr-c")));
    assert_eq!(scene.status("apr-c"), "approved");
}

#[test]
fn without_a_policy_anyone_of_the_workspace_decides() {
    for policy in [
        "",
        "safety:\n",
        "safety: {approvers: }\n",
        "other: {tool: 1}\n",
        "safety: {skipApproval: [read], maxMutationsPerSession: 5, approvalTimeoutMs: 60000,\
         cooldownBetweenCriticalMs: 1, blockedOperations: [rm], requireApproval: [high_risk]}\n",
    ] {
        let scene = Scene::under(policy);
        scene.file("apr-1", &json!({ "riskLevel": "critical" }));
        scene.click(&by("U0ANYONE", Click::approve("apr-1")));
        assert_eq!(scene.status("apr-1"), "approved", "{policy}");
    }
}

#[test]
fn votes_are_counted_privately_until_enough_different_people_have_approved() {
    let scene = Scene::under("safety: {approvers: {default: {minApprovals: 3}}}\n");
    scene.file("apr-1", &json!({}));
    let alice = by("U0ALICE", Click::approve("apr-1"));
    let word = scene.word(&alice);
    assert!(word.contains("1 of 3"), "{word}");
    let word = scene.word(&alice);
    assert!(word.contains("counts already (1 of 3)"), "{word}");
    // Another name of the same person is the same person.
    let word = scene.word(&alice.clone().by("U0ALICE", "somebody-else"));
    assert!(word.contains("counts already (1 of 3)"), "{word}");
    let word = scene.word(&by("U0BOB", Click::approve("apr-1")));
    assert!(word.contains("2 of 3"), "{word}");
    let word = scene.word(&alice);
    assert!(word.contains("counts already (2 of 3)"), "{word}");

    let stored = read_approval(&scene.dir, "apr-1");
    assert_eq!(stored["status"], "pending");
    assert_eq!(stored["decisions"].as_array().unwrap().len(), 2);
    assert!(stored.get("decidedBy").is_none() && stored.get("decidedAt").is_none());
    assert_eq!(scene.server.get("/health").json()["pendingApprovals"], 1);

    scene.click(&by("U0CAROL", Click::approve("apr-1")));
    let stored = read_approval(&scene.dir, "apr-1");
    assert_eq!(stored["status"], "approved");
    assert_eq!(stored["decidedBy"]["id"], "U0CAROL");
    let votes = stored["decisions"].as_array().unwrap();
    let people: Vec<&Value> = votes.iter().map(|vote| &vote["by"]["id"]).collect();
    assert_eq!(people, ["U0ALICE", "U0BOB", "U0CAROL"]);
    for vote in votes {
        assert_eq!(vote["decision"], "approve");
        humantime::parse_rfc3339(vote["at"].as_str().unwrap()).unwrap();
    }
    let word = scene.word(&alice);
    assert!(word.contains("already approved by <@U0CAROL>"), "{word}");
}

#[test]
fn a_critical_request_needs_two_people_where_that_is_wanted_and_others_do_not() {
    let scene = Scene::under(
        "safety: {multiApproverForCritical: true, approvers: {critical: {minApprovals: 1}}}\n",
    );
    for risk in ["low", "medium", "high"] {
        let id = format!("apr-{risk}");
        scene.file(&id, &json!({ "riskLevel": risk }));
        scene.click(&by("U0ALICE", Click::approve(&id)));
        assert_eq!(scene.status(&id), "approved");
    }
    scene.file("apr-1", &json!({ "riskLevel": "critical" }));
    let alice = by("U0ALICE", Click::approve("apr-1"));
    assert!(scene.word(&alice).contains("1 of 2"));
    assert!(scene.word(&alice).contains("counts already (1 of 2)"));
    assert_eq!(scene.status("apr-1"), "pending");
    scene.click(&by("U0BOB", Click::approve("apr-1")));
    assert_eq!(scene.status("apr-1"), "approved");
}

#[test]
fn one_denial_denies_whoever_approved_before() {
    let scene = Scene::under("safety: {approvers: {default: {minApprovals: 2}}}\n");
    // Somebody else, or the same person who thought again.
    for (id, denier) in [("apr-1", "U0BOB"), ("apr-2", "U0ALICE")] {
        scene.file(id, &json!({}));
        scene.word(&by("U0ALICE", Click::approve(id)));
        scene.click(&by(denier, Click::deny(id)));
        let stored = read_approval(&scene.dir, id);
        assert_eq!(stored["status"], "denied");
        assert_eq!(stored["decidedBy"]["id"], denier);
        assert_eq!(stored["decisions"][0]["decision"], "approve");
        assert_eq!(stored["decisions"][1]["decision"], "deny");
        let word = scene.word(&by("U0CAROL", Click::approve(id)));
        assert!(word.contains("already denied by"), "{word}");
        assert_eq!(scene.status(id), "denied");
    }
}

#[test]
fn who_asked_does_not_approve_unless_that_is_wanted() {
    let asked = ["U0ALICE", "<@U0ALICE>", "<@U0ALICE|alice>"];
    let strict = Scene::under("safety: {approvers: {low: {minApprovals: 2}}}\n");
    for (n, requested_by) in asked.into_iter().enumerate() {
        for (risk, needed) in [("low", 2), ("high", 1)] {
            let id = format!("apr-{risk}-{n}");
            strict.file(
                &id,
                &json!({ "requestedBy": requested_by, "riskLevel": risk }),
            );
            let word = strict.word(&by("U0ALICE", Click::approve(&id)));
            assert!(word.contains("You asked for this yourself"), "{word}");
            let stored = read_approval(&strict.dir, &id);
            assert_eq!(stored["status"], "pending", "{requested_by}");
            assert!(stored.get("decisions").is_none());
            if needed == 2 {
                strict.word(&by("U0BOB", Click::approve(&id)));
                let word = strict.word(&by("U0ALICE", Click::approve(&id)));
                assert!(word.contains("You asked for this yourself"), "{word}");
            }
            strict.click(&by("U0CAROL", Click::approve(&id)));
            assert_eq!(strict.status(&id), "approved");
        }
        // To say no to oneself harms nobody.
        let id = format!("apr-deny-{n}");
        strict.file(&id, &json!({ "requestedBy": requested_by }));
        strict.click(&by("U0ALICE", Click::deny(&id)));
        assert_eq!(strict.status(&id), "denied");
    }
    // Programs and names are nobody's user id.
    for (n, requested_by) in ["runbook-agent", "alice", "U0BOB", ""]
        .into_iter()
        .enumerate()
    {
        let id = format!("apr-other-{n}");
        strict.file(&id, &json!({ "requestedBy": requested_by }));
        strict.click(&by("U0ALICE", Click::approve(&id)));
        assert_eq!(strict.status(&id), "approved", "{requested_by}");
    }
    let lenient = Scene::under("safety: {allowSelfApproval: true}\n");
    for (n, requested_by) in asked.into_iter().enumerate() {
        let id = format!("apr-{n}");
        lenient.file(&id, &json!({ "requestedBy": requested_by }));
        lenient.click(&by("U0ALICE", Click::approve(&id)));
        assert_eq!(lenient.status(&id), "approved", "{requested_by}");
    }
}

#[test]
fn people_of_other_workspaces_decide_only_where_that_is_wanted() {
    for (policy, risk, admitted) in [
        ("", "high", false),
        (
            "safety: {approvers: {default: {users: [U0CAROL01]}}}",
            "high",
            false,
        ),
        (
            "safety: {approvers: {high: {allowExternal: true}}}",
            "critical",
            false,
        ),
        (
            "safety: {approvers: {high: {allowExternal: true}}}",
            "high",
            true,
        ),
        (
            "safety: {approvers: {default: {allowExternal: true}}}",
            "low",
            true,
        ),
        (
            "safety: {approvers: {default: {allowExternal: true}, low: {allowExternal: false}}}",
            "low",
            false,
        ),
    ] {
        let scene = Scene::under(policy);
        scene.file("apr-abc123", &json!({ "riskLevel": risk }));
        let mut click = fixture("slack/block_actions_slack_connect.json");
        click["response_url"] = scene.slack.response_url("carol").into();
        assert_eq!(scene.server.interact(&click).status, 200);
        if admitted {
            assert_eq!(scene.status("apr-abc123"), "approved", "{policy} {risk}");
            continue;
        }
        let word = &scene.slack.wait_for("response_url", 1, SOON)[0].body["text"];
        let word = word.as_str().unwrap();
        assert!(word.contains("Only people of this workspace"), "{word}");
        assert_eq!(scene.status("apr-abc123"), "pending", "{policy} {risk}");
        // Nor may they deny.
        click["actions"][0]["action_id"] = "deny".into();
        assert_eq!(scene.server.interact(&click).status, 200);
        assert_eq!(scene.status("apr-abc123"), "pending", "{policy} {risk}");
    }
}

#[test]
fn colleagues_of_the_same_organisation_are_no_strangers() {
    for name in ["enterprise_grid", "minimal", "approve"] {
        let scene = Scene::under("");
        scene.file("apr-abc123", &json!({}));
        let mut click = fixture(&format!("slack/block_actions_{name}.json"));
        click["response_url"] = scene.slack.response_url("x").into();
        assert_eq!(scene.server.interact(&click).status, 200);
        assert_eq!(scene.status("apr-abc123"), "approved", "{name}");
    }
}

/// Policies with a mistake, where it stands, and what is said about it.
const MISTAKES: &[(&str, &str, &[&str])] = &[
    (
        "safety:\n  aprovers: {default: {users: [U0ALICE]}}\n",
        "line 2, column 3",
        &["safety.aprovers", "did you mean approvers?"],
    ),
    (
        "safety:\n  approvers:\n    default:\n      user: [U0ALICE]\n",
        "line 4, column 7",
        &["safety.approvers.default.user", "did you mean users?"],
    ),
    (
        "safety:\n  allowSelfAproval: false\n",
        "line 2, column 3",
        &["safety.allowSelfAproval", "did you mean allowSelfApproval?"],
    ),
    (
        "safety:\n  approvers:\n    severe: {users: [U0ALICE]}\n",
        "line 3, column 5",
        &["safety.approvers.severe"],
    ),
    (
        "safety:\n  approvers:\n    critcal: {users: [U0ALICE]}\n",
        "line 3, column 5",
        &["safety.approvers.critcal", "did you mean critical?"],
    ),
    (
        "safety:\n  approvers:\n    high:\n      users: [U0BOB, alice]\n",
        "line 4",
        &["safety.approvers.high.users", "user ids", "not names"],
    ),
    (
        "safety:\n  approvers: {high: {users: '@alice'}}\n",
        "line 2",
        &["safety.approvers.high.users", "user ids"],
    ),
    (
        "safety:\n  approvers:\n    high: {users: [U0BOB], minApprovals: 2}\n",
        "line 3",
        &[
            "safety.approvers.high.users",
            "2 people must approve, but only 1 may",
        ],
    ),
    (
        "safety:\n  approvers:\n    default: {users: [U0BOB]}\n    low: {minApprovals: 3}\n",
        "line ",
        &["3 people must approve, but only 1 may"],
    ),
    (
        "safety:\n  multiApproverForCritical: true\n  approvers:\n    critical: {users: [U0BOB]}\n",
        "line 4",
        &["safety.approvers.critical.users", "2 people"],
    ),
    (
        "safety:\n  approvers:\n    high: {users: [U0BOB, U0BOB], minApprovals: 2}\n",
        "line 3",
        &[
            "safety.approvers.high.users",
            "2 people must approve, but only 1 may",
        ],
    ),
    (
        "safety:\n  approvers: {high: {minApprovals: 0}}\n",
        "line 2",
        &[
            "safety.approvers.high.minApprovals",
            "a number from 1 to 100",
        ],
    ),
    (
        "safety:\n  approvers: {high: {minApprovals: two}}\n",
        "line 2",
        &["safety.approvers.high.minApprovals", "a number"],
    ),
    (
        "safety:\n  approvers: {high: {minApprovals: 1.5}}\n",
        "line 2",
        &["safety.approvers.high.minApprovals", "a number"],
    ),
    (
        "safety:\n  allowSelfApproval: 'no'\n",
        "line 2",
        &["safety.allowSelfApproval", "true or false"],
    ),
    (
        "safety:\n  approvers: {high: [U0BOB]}\n",
        "line 2",
        &["safety.approvers.high", "a section"],
    ),
    (
        "safety: [U0BOB]\n",
        "line 1, column 9",
        &["safety should be a section"],
    ),
    (
        "safety:\n  approvers:\n    high: {groups: [admins]}\n",
        "line 3",
        &["safety.approvers.high.groups", "not handles"],
    ),
    (
        "safety:\n  approvers:\n    high:\n      group: [S0OPS]\n",
        "line 4, column 7",
        &["safety.approvers.high.group", "did you mean groups?"],
    ),
    (
        "safety:\n  approvers:\n    high:\n      users: [S0OPS]\n",
        "line 4",
        &["safety.approvers.high.users", "user ids"],
    ),
    (
        "safety:\n  approvers:\n    default: {groups: [S0OPS]}\n    high: {groups: []}\n",
        "line 4",
        &["safety.approvers.high.groups", "names nobody"],
    ),
    (
        "safety:\n  approvers:\n    default: {groups: [S0OPS]}\n\
         \x20   high: {users: [U0BOB], groups: [], minApprovals: 2}\n",
        "line 4",
        &["2 people must approve, but only 1 may"],
    ),
    (
        "safety:\n  requireDenialReson: true\n",
        "line 2, column 3",
        &["did you mean requireDenialReason?"],
    ),
    (
        "safety:\n  requireDenialReason: always\n",
        "line 2",
        &["safety.requireDenialReason", "true or false"],
    ),
    (
        "safety:\n  approvers:\n    default:\n      users:\n",
        "line 4",
        &["safety.approvers.default.users has no value"],
    ),
    (
        "safety:\n  approvers:\n    high: {groups: []}\n",
        "line 3",
        &["safety.approvers.high.groups", "names nobody"],
    ),
    (
        "safety:\n  approvers:\n    default: {allowGuests: maybe}\n",
        "line 3",
        &["safety.approvers.default.allowGuests", "true or false"],
    ),
    (
        "safety:\n  approvers: {high: {users: [U0BOB]}}\nsafety:\n  approvers: {}\n",
        "line 3, column 1",
        &["duplicate"],
    ),
    (
        "safety:\n  approvers: {high: {users: ['${NOBODY_SET_THIS}']}}\n",
        "line 2",
        &["NOBODY_SET_THIS"],
    ),
    (
        "safety:\n  approvers: {high: {users: [U0BOB]\n",
        "line ",
        &[],
    ),
];

#[test]
fn a_policy_with_a_mistake_stops_the_start_and_says_where() {
    for (policy, place, said) in MISTAKES {
        let finished = Server::builder().config(policy).start_expecting_failure();
        let error = &finished.stderr;
        assert_eq!(finished.status, Some(2), "{policy}\n{error}");
        assert_eq!(finished.stdout, "", "{policy}");
        let start = format!("runbook: error: .runbook/config.yaml: {place}");
        assert!(error.starts_with(&start), "{policy}\n{error}");
        let (_, column) = error.split_once(", column ").unwrap_or_default();
        assert!(
            column.starts_with(|c: char| c.is_ascii_digit()),
            "{policy}\n{error}"
        );
        for said in *said {
            assert!(error.contains(said), "{said}: {policy}\n{error}");
        }
    }
}

#[test]
fn a_hangup_changes_the_policy_between_two_clicks() {
    let scene = Scene::under("safety: {approvers: {default: {users: [U0ALICE]}}}\n");
    for id in ["apr-1", "apr-2", "apr-3"] {
        scene.file(id, &json!({}));
    }
    let bob = by("U0BOB", Click::approve("apr-1"));
    assert!(scene.word(&bob).contains("not allowed to decide"));
    let reloaded = "Configuration reloaded";
    scene.reload(
        "safety: {approvers: {default: {users: [U0BOB, U0CAROL], minApprovals: 2}}}\n",
        reloaded,
    );
    let alice = by("U0ALICE", Click::approve("apr-1"));
    assert!(scene.word(&alice).contains("not allowed to decide"));
    assert!(scene.word(&bob).contains("1 of 2"));
    assert_eq!(scene.status("apr-1"), "pending");
    // A vote that was counted stays one under another quorum.
    scene.reload(
        "safety: {approvers: {default: {minApprovals: 3}}}\n",
        reloaded,
    );
    assert!(scene.word(&alice).contains("2 of 3"));
    scene.reload(
        "safety: {approvers: {default: {minApprovals: 2}}}\n",
        reloaded,
    );
    scene.click(&by("U0CAROL", Click::approve("apr-1")));
    assert_eq!(scene.status("apr-1"), "approved");
}

#[test]
fn a_broken_file_at_a_hangup_changes_nothing_and_is_told() {
    let scene = Scene::under("safety: {approvers: {default: {users: [U0ALICE]}}}\n");
    scene.server.expect_errors();
    let refused = "Configuration not reloaded, the old one stays";
    for (n, (policy, place, said)) in MISTAKES.iter().enumerate() {
        let id = format!("apr-{n}");
        scene.file(&id, &json!({}));
        let log = scene.reload(policy, refused);
        let last = log.rsplit(refused).next().unwrap();
        assert!(last.contains(&format!("config.yaml: {place}")), "{last}");
        for said in *said {
            assert!(last.contains(said), "{said}: {last}");
        }
        let word = scene.word(&by("U0BOB", Click::approve(&id)));
        assert!(word.contains("not allowed to decide"), "{policy}\n{word}");
        assert_eq!(scene.status(&id), "pending");
        scene.click(&by("U0ALICE", Click::approve(&id)));
        assert_eq!(scene.status(&id), "approved");
    }
    assert!(!scene.server.log().contains("Configuration reloaded"));
}

#[test]
fn a_file_that_is_gone_at_a_hangup_does_not_open_the_gate() {
    let scene = Scene::under("safety: {approvers: {default: {users: [U0ALICE]}}}\n");
    scene.server.expect_errors();
    scene.file("apr-1", &json!({}));
    fs::remove_file(scene.server.config_file()).unwrap();
    scene.server.signal(Signal::HUP);
    scene
        .server
        .wait_for_log("Configuration not reloaded, the old one stays", SOON);
    let word = scene.word(&by("U0BOB", Click::approve("apr-1")));
    assert!(word.contains("not allowed to decide"), "{word}");
}
