//! The configuration file to start from: it has every key, changes nothing as it is, and each of its lines
//! is accepted when it is uncommented.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use runbook::config::KEYS;

use crate::harness::{Client, Finished, SECRET, Scratch, Server, all_files};
use crate::stand_in::StandIn;

fn init(place: &Scratch, words: &[&str]) -> Finished {
    Client::new(["init"]).and(words).place(place).finish()
}

/// The file as `init` writes it.
fn template() -> String {
    let place = Scratch::new();
    let finished = init(&place, &[]);
    assert_eq!((finished.status, finished.stderr.as_str()), (Some(0), ""));
    fs::read_to_string(place.join(".runbook/config.yaml")).unwrap()
}

/// Whether this line is a setting that is commented out; prose has a space behind its `#`.
fn is_setting(line: &str) -> bool {
    let behind = line.trim_start().strip_prefix('#');
    behind.is_some_and(|text| text.starts_with(|c: char| c.is_ascii_alphabetic()))
}

/// Starts a server with this file and its two secrets, and one that asks; neither has anything to say about it.
fn assert_accepted(text: &str, what: &str) {
    let slack = StandIn::start();
    let server = Server::builder()
        .slack(&slack)
        .config(text)
        .env("SLACK_SIGNING_SECRET", SECRET)
        .start();
    let log = server.log();
    let told = log.lines().filter(|line| !line.contains("Metrics at http"));
    assert_eq!(told.collect::<Vec<_>>(), [""; 0], "{what}");
    let asks = Client::new(["request", "--operation", "x", "--no-post"])
        .env("SLACK_BOT_TOKEN", "xoxb-1")
        .place(server.working_dir())
        .finish();
    assert_eq!((asks.status, asks.stderr.as_str()), (Some(0), ""), "{what}");
}

#[test]
fn each_of_its_lines_is_accepted_when_it_is_uncommented_and_so_are_all_together() {
    let keys = Scratch::new();
    let made = Client::new(["keygen", "--out", "decisions.key"])
        .place(&keys)
        .finish();
    assert_eq!(made.status, Some(0), "{made:?}");
    // The only files that must be there.
    let key = keys.join("decisions.key");
    let template = template()
        .replace(".runbook/decisions.key", key.to_str().unwrap())
        // Another program may have the one that is shown.
        .replace("127.0.0.1:9464", "127.0.0.1:0");
    assert_accepted(&template, "as it is");
    let lines: Vec<&str> = template.lines().collect();
    let uncommented = |line: &str| line.replacen('#', "", 1);
    let settings: Vec<usize> = (0..lines.len())
        .filter(|at| is_setting(lines[*at]))
        .collect();
    assert_eq!(settings.len(), KEYS.len());
    for at in &settings {
        let mut lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        lines[*at] = uncommented(&lines[*at]);
        assert_accepted(&lines.join("\n"), &lines[*at]);
    }
    let all = lines.iter().map(|line| {
        if is_setting(line) {
            uncommented(line)
        } else {
            (*line).to_owned()
        }
    });
    let all: Vec<String> = all.collect();
    assert_accepted(&all.join("\n"), "all of them");
}

#[test]
fn it_has_every_key_with_its_meaning() {
    let template = template();
    for key in KEYS {
        let name = key.path.rsplit('.').next().unwrap();
        let meant = |(comment, line): (&str, &str)| {
            comment.trim_start().starts_with(&format!("# {}", key.help))
                && line.trim_start().starts_with(&format!("#{name}: "))
        };
        let mut pairs = template.lines().zip(template.lines().skip(1));
        assert!(pairs.any(meant), "{} in {template}", key.path);
    }
}

#[test]
fn it_is_its_owners_alone_and_nothing_else_is_left_behind() {
    let place = Scratch::new();
    let made = init(&place, &[]);
    assert!(
        made.stdout.starts_with(".runbook/config.yaml: "),
        "{made:?}"
    );
    let mode_of = |path: &str| place.join(path).metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!(
        (mode_of(".runbook"), mode_of(".runbook/config.yaml")),
        (0o700, 0o600)
    );
    let files: Vec<String> = all_files(&place).into_keys().collect();
    assert_eq!(files, [".runbook/config.yaml"]);
}

#[test]
fn it_is_written_where_it_is_told_to_and_found_there() {
    let place = Scratch::new();
    let by_option = init(&place, &["--config", "a/b/one.yaml"]);
    assert_eq!(by_option.status, Some(0), "{by_option:?}");
    let by_variable = Client::new(["init"])
        .env("RUNBOOK_CONFIG", "two.yaml")
        .place(&place)
        .finish();
    assert_eq!(by_variable.status, Some(0), "{by_variable:?}");
    let read = |name| fs::read_to_string(place.join(name)).unwrap();
    assert_eq!(read("a/b/one.yaml"), template());
    assert_eq!(read("two.yaml"), template());
    assert!(!place.join(".runbook").exists());
}

#[test]
fn what_is_there_is_never_overwritten() {
    for name in [".runbook/config.yaml", ".runbook/config.yml"] {
        let place = Scratch::new();
        fs::create_dir(place.join(".runbook")).unwrap();
        fs::write(place.join(name), "mine: 1\n").unwrap();
        assert_refused(&init(&place, &[]), name);
        let kept = all_files(&place);
        assert_eq!(kept.len(), 1, "{kept:?}");
        assert_eq!(kept[name], b"mine: 1\n");
    }
    let place = Scratch::new();
    symlink("nowhere", place.join("link.yaml")).unwrap();
    assert_refused(&init(&place, &["--config", "link.yaml"]), "link.yaml");
    assert!(!place.join("nowhere").exists());
    assert_eq!(
        fs::read_link(place.join("link.yaml")).unwrap(),
        Path::new("nowhere")
    );
}

fn assert_refused(finished: &Finished, name: &str) {
    assert_eq!((finished.status, finished.stdout.as_str()), (Some(1), ""));
    let said = format!(
        "runbook: error: cannot write {name}: file exists\n\
         runbook: hint: a configuration is never overwritten; --config names another file\n"
    );
    assert_eq!(finished.stderr, said);
}
