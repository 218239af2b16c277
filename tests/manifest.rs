//! The Slack app is made by one paste: its manifest holds what the server serves and calls, and no more.

use serde_json::{Value, json};

use crate::harness::{Client, Finished, other_program};

const URL: &str = "https://runbook.example.com";

fn manifest(words: &[&str]) -> Finished {
    Client::new(["manifest"]).and(words).finish()
}

fn printed(finished: &Finished) -> &str {
    assert_eq!(
        (finished.status, finished.stderr.as_str()),
        (Some(0), ""),
        "{finished:?}"
    );
    &finished.stdout
}

/// What another program's YAML parser makes of it.
fn parsed_yaml(text: &str) -> Value {
    let script = "import json, sys, yaml; print(json.dumps(yaml.safe_load(sys.stdin)))";
    let read = other_program(["python3", "-c", script], text);
    assert_eq!(read.status, Some(0), "{read:?}");
    parsed_json(&read.stdout)
}

fn parsed_json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn scopes(manifest: &Value) -> Vec<&str> {
    let scopes = manifest["oauth_config"]["scopes"]["bot"].as_array();
    scopes.unwrap().iter().filter_map(Value::as_str).collect()
}

#[test]
fn it_asks_for_what_the_server_serves_and_calls_and_for_nothing_else() {
    let finished = manifest(&["--url", URL, "--json"]);
    assert_eq!(
        parsed_json(printed(&finished)),
        json!({
            "display_information": {
                "name": "Runbook",
                "description": "Gives automation a human's yes or no",
            },
            "features": {
                "app_home": {"home_tab_enabled": true, "messages_tab_enabled": false},
                "bot_user": {"display_name": "runbook", "always_online": true},
            },
            "oauth_config": {"scopes": {"bot": [
                "chat:write", "chat:write.public", "users:read", "app_mentions:read",
            ]}},
            "settings": {
                "event_subscriptions": {
                    "request_url": "https://runbook.example.com/slack/events",
                    "bot_events": ["app_home_opened", "app_mention"],
                },
                "interactivity": {
                    "is_enabled": true,
                    "request_url": "https://runbook.example.com/slack/interactions",
                },
                "org_deploy_enabled": false,
                "socket_mode_enabled": false,
                "token_rotation_enabled": false,
            },
        })
    );
}

#[test]
fn yaml_json_and_the_link_are_the_same_document_whatever_the_name() {
    for name in [
        "Runbook",
        "No",
        "y",
        "null",
        "1e5",
        "a: b",
        "# x",
        "- x",
        "{x}",
        "it's \"so\" \\n",
        "Ünï 日本",
        "x:",
        "@x",
        "~",
    ] {
        let words = ["--url", URL, "--name", name];
        let said = |more: &str| {
            let finished = manifest(&[&words[..], &[more]].concat());
            printed(&finished).to_owned()
        };
        let finished = manifest(&words);
        let yaml = printed(&finished);
        let expected = parsed_json(&said("--json"));
        assert_eq!(expected["display_information"]["name"], name);
        assert_eq!(parsed_yaml(yaml), expected, "{yaml}");

        let link = said("--link");
        let (page, query) = link.trim_end().split_once('?').unwrap();
        assert_eq!(page, "https://api.slack.com/apps");
        assert!(
            query.is_ascii() && !query.contains(['+', '"', ' ']),
            "{query}"
        );
        let carried = form_urlencoded::parse(query.as_bytes());
        let carried: Vec<(String, String)> = carried.into_owned().collect();
        assert_eq!(carried[0], ("new_app".into(), "1".into()));
        assert_eq!(carried[1].0, "manifest_json");
        assert_eq!(parsed_json(&carried[1].1), expected);
        assert!(yaml.contains(link.trim_end()), "{yaml}");
    }
}

#[test]
fn the_handle_has_only_letters_that_slack_allows() {
    for (name, handle) in [
        ("Runbook Staging", "runbook-staging"),
        ("Ops_2.0", "ops_2.0"),
        ("日本", "runbook"),
    ] {
        let finished = manifest(&["--url", URL, "--json", "--name", name]);
        let made = parsed_json(printed(&finished));
        assert_eq!(made["features"]["bot_user"]["display_name"], handle);
    }
}

#[test]
fn scopes_follow_the_configuration_and_so_does_the_address() {
    let config = "safety:\n  approvers:\n    critical:\n      groups: [S0123ABCDEF]\n\
                  webhook:\n  publicUrl: https://ops.example.com/\n\
                  incident:\n  slack:\n    botToken: ${NOT_YET_MADE}\n";
    let by_file = Client::new(["manifest", "--json"]).config(config).finish();
    let by_file = parsed_json(printed(&by_file));
    assert!(scopes(&by_file).contains(&"usergroups:read"));
    let address = &by_file["settings"]["interactivity"]["request_url"];
    assert_eq!(address, "https://ops.example.com/slack/interactions");

    let named = Client::new([
        "manifest",
        "--json",
        "--url",
        "https://here.example:8443/ops/",
    ]);
    let named = named.config(config).finish();
    let named = parsed_json(printed(&named));
    let address = &named["settings"]["event_subscriptions"]["request_url"];
    assert_eq!(address, "https://here.example:8443/ops/slack/events");
}

#[test]
fn an_address_that_slack_could_not_call_is_refused() {
    for url in [
        "http://runbook.example.com",
        "runbook.example.com",
        "https://",
        "https:///x",
        "ftp://runbook.example.com",
        "https://user:pw@runbook.example.com",
        "https://runbook.example.com?x=1",
        "https://runbook.example.com/#x",
        "https://runbook example.com",
        "https://runbook.example.com/slack/interactions",
        "https://runbook.example.com/slack/",
        "https://x\n  evil: true",
    ] {
        let finished = manifest(&["--url", url]);
        assert_eq!(
            (finished.status, finished.stdout.as_str()),
            (Some(2), ""),
            "{url}"
        );
        assert!(
            finished.stderr.starts_with("runbook: error: --url "),
            "{finished:?}"
        );
    }
    let plain = Client::new(["manifest"])
        .config("webhook:\n  publicUrl: http://runbook.example.com\n")
        .finish();
    assert_eq!(plain.status, Some(2));
    assert!(
        plain
            .stderr
            .contains("line 2, column 14: webhook.publicUrl should be https://")
    );
    let missing = manifest(&[]);
    assert_eq!((missing.status, missing.stdout.as_str()), (Some(2), ""));
    assert!(
        missing
            .stderr
            .starts_with("runbook: error: --url is missing")
    );
    let long = "x".repeat(36);
    for name in [" ", &long, "a\u{7f}b"] {
        assert_eq!(manifest(&["--url", URL, "--name", name]).status, Some(2));
    }
}
