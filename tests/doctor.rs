//! `runbook doctor`: a check a line, what is broken keeps nothing else from being looked at, and
//! nothing is left behind.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::edge::pki::{Authority, Key};
use crate::excuse::is_root;
use crate::harness::{
    CHANNEL, Client, Finished, SECRET, Scratch, Server, all_files, sample, write_approval,
};
use crate::stand_in::{Failure, StandIn, Times};
use crate::store::SmallDisk;

fn doctor(slack: &StandIn) -> Client {
    Client::new(["doctor", "--port", "0"])
        .slack(slack)
        .env("SLACK_SIGNING_SECRET", SECRET)
}

/// The line of a check.
fn line<'a>(found: &'a Finished, name: &str) -> &'a str {
    let mut lines = found.stdout.lines();
    let begins = |line: &&str| {
        line.split_once(' ')
            .is_some_and(|(_, rest)| rest.starts_with(name))
    };
    lines
        .find(begins)
        .unwrap_or_else(|| panic!("no line {name:?}: {found:?}"))
}

#[track_caller]
fn is_well(found: &Finished) {
    assert_eq!(found.status, Some(0), "{found:?}");
    assert!(!found.stdout.contains('✗'), "{found:?}");
}

#[track_caller]
fn is_broken(found: &Finished, name: &str, said: &str) {
    assert_eq!(found.status, Some(1), "{found:?}");
    let line = line(found, name);
    assert!(
        line.starts_with('✗') && line.contains(said),
        "{said}: {found:?}"
    );
}

#[test]
fn a_machine_that_is_ready_is_well_and_stays_as_it_was() {
    let (slack, place) = (StandIn::start(), Scratch::new());
    let found = doctor(&slack).place(&place).finish();
    is_well(&found);
    assert!(
        line(&found, "slack").contains("bot runbook of workspace Example"),
        "{found:?}"
    );
    assert!(
        line(&found, "pending directory").contains("can be made"),
        "{found:?}"
    );
    assert!(all_files(&place).is_empty());
    assert!(!place.join(".runbook").exists());
    for secret in [SECRET, &slack.token()] {
        assert!(
            !found.stdout.contains(secret) && !found.stderr.contains(secret),
            "{found:?}"
        );
    }
    assert!(slack.calls().is_empty(), "nothing was posted");
    // A directory that is there is tried, and is as before.
    let dir = Scratch::new();
    write_approval(&dir, &sample("apr-1"));
    let before = all_files(&dir);
    let found = doctor(&slack).dir(&dir).finish();
    is_well(&found);
    assert!(
        line(&found, "locks and syncs").starts_with('✓'),
        "{found:?}"
    );
    assert!(
        line(&found, "approval files").contains("1 can be read"),
        "{found:?}"
    );
    assert_eq!(all_files(&dir), before);
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
}

#[test]
fn what_is_broken_in_the_configuration_is_told_and_the_rest_looked_at() {
    let slack = StandIn::start();
    for (yaml, said) in [
        ("safety: [\n", "line "),
        (
            "safety:\n  aprovers: {}\n",
            "unknown key safety.aprovers (did you mean approvers?)",
        ),
        (
            "webhook:\n  publicUrl: ${NONE}\n",
            "the environment variable NONE is not set",
        ),
        ("webhook:\n  workers: none\n", "webhook.workers"),
        (
            "webhook:\n  publicUrl: https://example.com/slack/events\n",
            "without /slack",
        ),
    ] {
        let found = doctor(&slack).config(yaml).finish();
        is_broken(&found, "configuration", said);
        assert!(line(&found, "slack").starts_with('✓'), "{found:?}");
        assert!(line(&found, "port").starts_with('✓'), "{found:?}");
    }
    let unknown = doctor(&slack).config("webhook:\n  prot: 1\n").finish();
    is_well(&unknown);
    let key = line(&unknown, "configuration key");
    assert!(
        key.starts_with('!') && key.contains("did you mean port?"),
        "the server serves all the same: {unknown:?}"
    );
}

#[test]
fn secrets_are_there_and_look_like_secrets() {
    let slack = StandIn::start();
    let none = doctor(&slack).without_env("SLACK_SIGNING_SECRET").finish();
    is_broken(&none, "signing secret", "there is no signing secret");
    assert!(
        line(&none, "configuration").starts_with('✓'),
        "it is told once: {none:?}"
    );
    let odd = doctor(&slack)
        .env("SLACK_SIGNING_SECRET", "xoxb-1-2")
        .finish();
    is_broken(&odd, "signing secret", "does not look like one");
    assert!(!odd.stdout.contains("xoxb-1-2"));
    let user = doctor(&slack).env("SLACK_BOT_TOKEN", "xoxp-1-2").finish();
    is_broken(&user, "bot token", "a user's");
    assert!(!user.stdout.contains("xoxp-1-2"));
    let no_token = doctor(&slack).without_env("SLACK_BOT_TOKEN").finish();
    is_broken(&no_token, "bot token", "there is none");
}

#[test]
fn a_secret_that_everybody_can_read_is_told() {
    let (slack, place) = (StandIn::start(), Scratch::new());
    let file = |name: &str, text: &str, mode| {
        let path = place.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    };
    let secret = |mode| file("secret", SECRET, mode);
    let look = |client: Client| {
        let found = client.finish();
        is_well(&found);
        line(&found, "secret files").to_owned()
    };
    let with_file = |path: PathBuf| {
        let client = doctor(&slack).without_env("SLACK_SIGNING_SECRET");
        client.env("SLACK_SIGNING_SECRET_FILE", path)
    };
    assert!(look(with_file(secret(0o640))).starts_with('✓'));
    let told = look(with_file(secret(0o644)));
    let hint = format!("→ chmod o= {}", place.join("secret").display());
    assert!(told.starts_with('!') && told.ends_with(&hint), "{told}");
    // A configuration holds none where it only names a variable.
    let configured = |token: &str| {
        let yaml = format!("incident: {{slack: {{botToken: '{token}'}}}}\n");
        let path = file("config.yaml", &yaml, 0o644);
        let client = doctor(&slack).and(&["--config", path.to_str().unwrap()]);
        client.finish().stdout.contains("! secret files")
    };
    assert!(configured("xoxb-1-2"));
    assert!(!configured("${SLACK_BOT_TOKEN}"));
    let out = place.join("key");
    Client::new(["keygen", "--out", out.to_str().unwrap()]).finish();
    let signing = || doctor(&slack).and(&["--sign-key", out.to_str().unwrap()]);
    assert!(look(signing()).starts_with('✓'));
    fs::set_permissions(&out, Permissions::from_mode(0o604)).unwrap();
    assert!(look(signing()).starts_with('!'));
}

#[test]
fn slack_says_whose_the_token_is_what_it_may_do_and_what_time_it_is() {
    let slack = StandIn::start();
    let stranger = doctor(&slack).env("SLACK_BOT_TOKEN", "xoxb-other").finish();
    is_broken(&stranger, "slack", "invalid_auth");
    slack.set_scopes("chat:write,users:read");
    is_broken(
        &doctor(&slack).finish(),
        "scopes",
        "missing: chat:write.public",
    );
    slack.set_scopes("chat:write,chat:write.public,users:read");
    is_well(&doctor(&slack).finish());
    let groups = "safety:\n  approvers:\n    default:\n      groups: [S0AAAAAAA]\n";
    is_broken(
        &doctor(&slack).config(groups).finish(),
        "scopes",
        "missing: usergroups:read",
    );
    for (seconds, sign) in [(-400, '✗'), (400, '✗'), (100, '!'), (0, '✓')] {
        slack.set_clock_off(seconds);
        let found = doctor(&slack).finish();
        assert!(line(&found, "clock").starts_with(sign), "{found:?}");
        assert_eq!(found.status, Some(i32::from(sign == '✗')), "{found:?}");
    }
}

#[test]
fn a_slack_that_hangs_or_refuses_is_given_up() {
    let slack = StandIn::start();
    slack.fail(Failure::Garbage, Times::Next(1));
    is_broken(&doctor(&slack).finish(), "slack", "not Slack's");
    slack.fail(Failure::Hang, Times::Forever);
    let started = Instant::now();
    is_broken(&doctor(&slack).finish(), "slack", "timed out");
    assert!(
        started.elapsed() < Duration::from_secs(18),
        "{:?}",
        started.elapsed()
    );
    let nobody = doctor(&slack)
        .env("SLACK_API_URL", "http://127.0.0.1:9/")
        .finish();
    is_broken(&nobody, "slack", "connection refused");
    assert!(line(&nobody, "clock").starts_with('-'), "{nobody:?}");
}

#[test]
fn a_message_is_posted_when_that_is_asked_for() {
    let slack = StandIn::start();
    is_well(&doctor(&slack).and(&["--post"]).finish());
    let posted = slack.calls_of("chat.postMessage");
    assert_eq!(posted.len(), 1);
    assert_eq!(posted[0].body["channel"], CHANNEL);
    slack.fail_method(
        "chat.postMessage",
        Failure::NotOk("not_in_channel"),
        Times::Next(1),
    );
    let refused = doctor(&slack).and(&["--post"]).finish();
    is_broken(&refused, "post", "not_in_channel");
    assert!(
        line(&refused, "post").contains("→ invite the bot"),
        "{refused:?}"
    );
    let nowhere = doctor(&slack)
        .without_env("SLACK_DEFAULT_CHANNEL")
        .and(&["--post"]);
    is_broken(&nowhere.finish(), "post", "no channel");
    let nowhere = doctor(&slack).without_env("SLACK_DEFAULT_CHANNEL").finish();
    is_well(&nowhere);
    assert!(line(&nowhere, "channel").starts_with('!'), "{nowhere:?}");
}

#[test]
fn a_directory_that_serves_badly_is_told() {
    let (slack, dir) = (StandIn::start(), Scratch::new());
    let mode = |mode| fs::set_permissions(dir.path(), Permissions::from_mode(mode)).unwrap();
    mode(0o755);
    let wide = doctor(&slack).dir(&dir).finish();
    assert!(
        line(&wide, "directory mode").starts_with("! directory mode: 0755"),
        "{wide:?}"
    );
    is_well(&wide);
    mode(0o2770);
    let shared = doctor(&slack).dir(&dir).finish();
    is_well(&shared);
    let told = line(&shared, "directory mode");
    assert!(told.contains("2770: its group may write"), "{told}");
    mode(0o777);
    is_broken(
        &doctor(&slack).dir(&dir).finish(),
        "directory mode",
        "everybody may write",
    );
    mode(0o700);
    fs::write(dir.join("apr-x.json"), "{").unwrap();
    let unreadable = doctor(&slack).dir(&dir).finish();
    is_broken(&unreadable, "approval files", "unreadable: apr-x.json");
    fs::remove_file(dir.join("apr-x.json")).unwrap();
    let file = dir.join("file");
    fs::write(&file, "").unwrap();
    is_broken(
        &doctor(&slack).dir(&file).finish(),
        "pending directory",
        "not a directory",
    );
}

#[test]
fn a_disk_with_little_room_or_few_files_is_told_before_it_is_full() {
    let (slack, scratch) = (StandIn::start(), Scratch::new());
    for (name, options, said) in [
        ("roomy", "size=32m,nr_inodes=5000,mode=700", None),
        (
            "narrow",
            "size=1m,nr_inodes=5000,mode=700",
            Some("only 1 MiB"),
        ),
        ("few", "size=32m,nr_inodes=500,mode=700", Some("49")),
    ] {
        let Some(disk) = SmallDisk::mount(scratch.join(name), options) else {
            return;
        };
        let found = doctor(&slack).dir(&disk.0).finish();
        match said {
            Some(said) => is_broken(&found, "free space", said),
            None => is_well(&found),
        }
    }
    let Some(disk) = SmallDisk::mount(scratch.join("full"), "size=64k,mode=700") else {
        return;
    };
    assert!(fs::write(disk.0.join(".ballast"), vec![0; 1 << 20]).is_err());
    let found = doctor(&slack).dir(&disk.0).finish();
    is_broken(&found, "locks and syncs", "no space left on device");
    assert_eq!(
        fs::read_dir(&disk.0).unwrap().count(),
        1,
        "only the ballast"
    );
}

#[test]
fn a_directory_of_somebody_else_is_told() {
    if !is_root("a directory of somebody else") {
        return;
    }
    let (slack, dir) = (StandIn::start(), Scratch::new());
    std::os::unix::fs::chown(dir.path(), Some(65534), Some(65534)).unwrap();
    let root = doctor(&slack).dir(&dir).finish();
    is_well(&root);
    let told = line(&root, "pending directory");
    assert!(
        told.starts_with("! ") && told.contains("is user 65534's"),
        "{told}"
    );
    let without_powers = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"];
    let found = doctor(&slack).dir(&dir).wrapper(without_powers).finish();
    is_broken(&found, "pending directory", "user 0 may not write there");
    let inside = dir.join("pending");
    let absent = doctor(&slack).dir(&inside).wrapper(without_powers).finish();
    is_broken(&absent, "pending directory", "");
}

#[test]
fn a_certificate_is_looked_at_as_slack_will() {
    let (slack, authority) = (StandIn::start(), Authority::new());
    let root = authority.dir().join("root.pem");
    let pair = authority.issue_chain("chained");
    let look = |more: &[&str], yaml: &str| {
        let mut client = doctor(&slack).and(more).config(yaml);
        for option in pair.options() {
            client = client.and(&[option.to_str().unwrap()]);
        }
        client.finish()
    };
    let alone = look(&[], "");
    is_broken(&alone, "tls chain", "signed by nobody");
    assert!(
        line(&alone, "tls names").contains("localhost, 127.0.0.1"),
        "{alone:?}"
    );
    let trusted = ["--cacert", root.to_str().unwrap()];
    let known = look(&trusted, "");
    is_well(&known);
    assert!(
        line(&known, "tls expiry").starts_with("✓ tls expiry: in "),
        "{known:?}"
    );
    let other = look(&trusted, "webhook:\n  publicUrl: https://runbook.invalid\n");
    is_broken(&other, "tls names", "not for runbook.invalid");

    let key = authority.issue("other", Key::Ec).key;
    let mixed = [
        "--tls-cert",
        pair.certificate.to_str().unwrap(),
        "--tls-key",
        key.to_str().unwrap(),
    ];
    is_broken(
        &doctor(&slack).and(&mixed).finish(),
        "tls pair",
        "does not belong to",
    );
    let over = authority.issue_for("over", Key::Ec, -1);
    let over = over.options().map(|option| option.into_string().unwrap());
    let over: Vec<&str> = over.iter().map(String::as_str).collect();
    is_broken(
        &doctor(&slack).and(&trusted).and(&over).finish(),
        "tls expiry",
        "expired at",
    );
    is_broken(
        &doctor(&slack).and(&over[..2]).finish(),
        "tls pair",
        "--tls-cert needs --tls-key",
    );
}

#[test]
fn the_port_may_be_our_own_and_the_public_url_answers_as_slack_wants() {
    let slack = StandIn::start();
    let server = Server::builder().slack(&slack).start();
    let port = server.port().to_string();
    let yaml = format!("webhook:\n  publicUrl: http://127.0.0.1:{port}\n");
    let at = |port: &str| {
        Client::new(["doctor", "--port", port])
            .slack(&slack)
            .env("SLACK_SIGNING_SECRET", SECRET)
    };
    let found = at(&port).config(&yaml).finish();
    is_well(&found);
    assert!(
        line(&found, "port").contains("served by a running runbook"),
        "{found:?}"
    );
    assert!(
        line(&found, "public url").contains("answers the challenge"),
        "{found:?}"
    );
    server.expect_errors();
    let other = "0123456789abcdef0123456789abcdef";
    let stranger = at(&port)
        .config(&yaml)
        .env("SLACK_SIGNING_SECRET", other)
        .finish();
    is_broken(&stranger, "public url", "refuses our signature");

    drop(server);
    let early = at(&port).config(&yaml).finish();
    is_well(&early);
    let told = line(&early, "public url");
    assert!(
        told.starts_with('!') && told.contains("no server runs here yet → start it"),
        "{told}"
    );

    let taken = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let silent = at(&port).finish();
    is_broken(&silent, "port", "address already in use");
    let metrics = format!("127.0.0.1:{port}");
    let metrics = doctor(&slack).and(&["--metrics-addr", &metrics]).finish();
    is_broken(&metrics, "metrics address", "--metrics-addr names another");
}

#[test]
fn json_has_the_same_checks() {
    let slack = StandIn::start();
    let found = doctor(&slack)
        .and(&["--json"])
        .without_env("SLACK_SIGNING_SECRET")
        .finish();
    assert_eq!(found.status, Some(1));
    let checks: serde_json::Value = serde_json::from_str(&found.stdout).unwrap();
    let checks = checks.as_array().unwrap();
    let secret = checks
        .iter()
        .find(|check| check["check"] == "signing secret")
        .unwrap();
    assert_eq!(secret["ok"], false);
    assert_eq!(secret["result"], "failed");
    assert!(
        secret["hint"]
            .as_str()
            .unwrap()
            .contains("SLACK_SIGNING_SECRET")
    );
    assert!(
        checks
            .iter()
            .any(|check| check["check"] == "slack" && check["ok"] == true)
    );
}
