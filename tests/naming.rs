//! Whatever people read and copy, in the README, the files of `scripts/deploy` and the examples, names what there is:
//! options, variables, keys, metrics, messages and places.
//!
//! That the README's tables are the program's own, which these tests lean on, is shown in `readme.rs`.

use std::fs;
use std::path::Path;

use runbook::cli::{COMMANDS, Command};
use runbook::config::KEYS;

const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");

/// What people read and copy: the README without its generated tables, what is deployed, and the examples.
fn prose() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut readme = fs::read_to_string(README).unwrap();
    for name in ["options", "settings"] {
        let start = readme.find(&format!("<!-- {name}:")).unwrap();
        let end = readme.find(&format!("<!-- /{name} -->")).unwrap();
        readme.replace_range(start..end, "");
    }
    let mut texts = vec![("README.md".to_owned(), readme)];
    for folder in ["scripts/deploy", "fixtures/examples"] {
        for entry in fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            texts.push((path.display().to_string(), text));
        }
    }
    texts
}

/// The longest runs of characters that `of` takes, from wherever `start` stands at the beginning of a word.
fn words<'a>(text: &'a str, start: &'a str, of: fn(char) -> bool) -> Vec<&'a str> {
    let found = text.match_indices(start).filter(|(at, _)| {
        let before = text[..*at].chars().next_back();
        before.is_none_or(|before| !before.is_alphanumeric() && !"-_/.".contains(before))
    });
    found
        .map(|(at, _)| {
            let rest = &text[at + start.len()..];
            let end = rest.find(|c| !of(c)).unwrap_or(rest.len());
            &text[at..at + start.len() + end]
        })
        .filter(|word| word.trim_end_matches('-').len() >= start.len() && *word != start)
        .collect()
}

fn in_an_option(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'
}

fn in_a_variable(c: char) -> bool {
    c.is_ascii_uppercase() || c == '_'
}

fn in_a_metric(c: char) -> bool {
    c.is_ascii_lowercase() || c == '_'
}

fn in_a_key(c: char) -> bool {
    c.is_ascii_alphanumeric() || ".*".contains(c)
}

fn takes(command: &str, option: &str) -> bool {
    COMMANDS
        .iter()
        .filter(|known| command.is_empty() || known.name == command)
        .flat_map(Command::all_options)
        .any(|known| known.name == option)
}

#[test]
fn every_option_that_people_read_of_is_one_of_its_command() {
    // aws, cargo, readelf, certbot, docker, kubectl, systemctl, useradd, and our scripts.
    let of_others = [
        "--binary",
        "--break-system-packages",
        "--cap-drop",
        "--chmod",
        "--crates",
        "--desired-count",
        "--dry-run",
        "--from-file",
        "--home-dir",
        "--interval",
        "--locked",
        "--no-install-recommends",
        "--now",
        "--path",
        "--picture",
        "--quick",
        "--sections",
        "--read-only",
        "--readme",
        "--release",
        "--shell",
        "--standalone",
        "--start-period",
        "--system",
        "--test",
        "--tmpfs",
    ];
    let mut of_ours = 0;
    for (file, text) in prose() {
        for option in words(&text, "--", in_an_option) {
            assert!(
                takes("", option) || of_others.contains(&option),
                "{file}: {option}"
            );
        }
        for command in COMMANDS {
            for (at, found) in text.match_indices(&format!("runbook {}", command.name)) {
                let line = text[at + found.len()..]
                    .split(['\n', '`', '|', ';', '&', '"'])
                    .next();
                let line = line.unwrap().split(" -- ").next().unwrap();
                if !line.starts_with(' ') {
                    continue;
                }
                for option in words(line, "--", in_an_option) {
                    assert!(takes(command.name, option), "{file}: {found} {option}");
                    of_ours += 1;
                }
            }
        }
    }
    assert!(of_ours > 20, "only {of_ours} were found");
}

#[test]
fn every_variable_key_and_metric_that_people_read_of_is_known() {
    // Of the tests, of certbot's hook and of an example.
    let of_others = [
        "RUNBOOK_BIN",
        "RUNBOOK_TLS_DIR",
        "RUNBOOK_GROUP",
        "RUNBOOK_HOOK_TIMEOUT",
    ];
    let table = fs::read_to_string(README).unwrap();
    let (_, table) = table.split_once("<!-- options:").unwrap();
    let (table, _) = table.split_once("<!-- /options -->").unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let [metrics, exposition] = ["metrics.rs", "webhook/health.rs"]
        .map(|file| fs::read_to_string(root.join(file)).unwrap());
    let measured = metrics + &exposition;
    let measured = words(&measured, "runbook_", in_a_metric);
    let mut told = Vec::new();
    for (file, text) in prose() {
        for start in ["RUNBOOK_", "SLACK_"] {
            for variable in words(&text, start, in_a_variable) {
                let known = table.contains(&format!("`{variable}`"));
                assert!(known || of_others.contains(&variable), "{file}: {variable}");
            }
        }
        for start in ["`incident.", "`safety.", "`approvals.", "`webhook."] {
            for key in words(&text, start, in_a_key) {
                let key = key.trim_start_matches('`');
                let inside = format!("{key}.");
                let known = KEYS
                    .iter()
                    .any(|known| known.path == key || known.path.starts_with(&inside));
                // The log and its lock are called like a section.
                assert!(
                    known || key.starts_with("approvals.jsonl") || key == "approvals.lock",
                    "{file}: {key}"
                );
            }
        }
        if file == "README.md" {
            told = words(&text, "runbook_", in_a_metric)
                .iter()
                .map(ToString::to_string)
                .collect();
        }
    }
    for metric in &told {
        assert!(
            measured.contains(&metric.as_str()),
            "nothing measures {metric}"
        );
    }
    for metric in measured {
        let family = ["_bucket", "_count", "_sum"]
            .iter()
            .find_map(|end| metric.strip_suffix(end));
        let family = family.unwrap_or(metric);
        assert!(
            told.iter().any(|told| told == family),
            "the README does not tell of {family}"
        );
    }
}

/// The source as one line without comments, in which what is filled into a text is an ellipsis.
fn said_by_the_program(folder: &Path, said: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            said_by_the_program(&path, said);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            for line in fs::read_to_string(path).unwrap().lines() {
                let line = line.trim();
                if !line.starts_with("//") {
                    said.push_str(line.strip_suffix('\\').unwrap_or(line));
                }
            }
        }
    }
}

/// A text with an ellipsis for whatever is filled in.
fn filled_in(source: &str) -> String {
    let mut said = String::new();
    let mut rest = source;
    while let Some((before, after)) = rest.split_once('{') {
        said.push_str(before);
        let end = after.find(|c: char| !c.is_alphanumeric() && !"_:?.".contains(c));
        rest = match end {
            Some(end) if after[end..].starts_with('}') => {
                said.push('…');
                &after[end + 1..]
            }
            _ => after,
        };
    }
    said + rest
}

/// The left column of the README's table of what may be wrong.
fn symptoms() -> Vec<String> {
    let readme = fs::read_to_string(README).unwrap();
    let (_, table) = readme.split_once("| symptom | cause |\n").unwrap();
    table
        .lines()
        .skip(1)
        .take_while(|line| line.starts_with('|'))
        .map(|row| row.split('|').nth(1).unwrap().to_owned())
        .collect()
}

#[test]
fn every_warning_and_error_of_the_log_is_in_the_table_of_symptoms() {
    let mut source = String::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    said_by_the_program(&root, &mut source);
    let table = symptoms().join("\n");
    let mut messages = 0;
    for level in ["log::warn!(", "log::error!("] {
        for (at, _) in source.match_indices(level) {
            let mut depth = 0;
            let end = source[at..].find(|c: char| {
                depth += i32::from(c == '(') - i32::from(c == ')');
                c == ')' && depth == 0
            });
            // What is told beside it comes before the message.
            let call = &source[at..at + end.unwrap()];
            let message = filled_in(call.rsplit('"').nth(1).unwrap());
            let (known, _) = message
                .split_once(" … more times")
                .unwrap_or((&message, ""));
            // Complaints, of the configuration for one, are told in their own words; the demo is none of an operator's.
            let of_demo = [
                "The agent gave up",
                "Slack cannot deliver",
                "The demo gets no",
            ];
            if known.starts_with('…') || of_demo.iter().any(|message| known.starts_with(message))
            {
                continue;
            }
            let is_told = known.ends_with("this is a bug") || table.contains(known);
            assert!(is_told, "the table of symptoms lacks: {known}");
            messages += 1;
        }
    }
    assert!(messages > 40, "only {messages} were found");
}

#[test]
fn every_message_in_the_table_of_symptoms_is_one_of_the_program() {
    let mut source = String::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    said_by_the_program(&root, &mut source);
    let said = filled_in(&source);
    let mut messages = 0;
    for symptom in symptoms() {
        for message in symptom.split('`').skip(1).step_by(2) {
            let message = message.strip_prefix("[ERROR] ").unwrap_or(message);
            let whole = message.strip_suffix(", trying again");
            let known = said.contains(&format!("\"{message}"))
                || said.contains("\"…, trying again\"")
                    && whole.is_some_and(|whole| said.contains(&format!("\"{whole}\"")));
            assert!(known, "the program does not say: {message}");
            messages += 1;
        }
    }
    assert!(messages > 10, "only {messages} were found");
}

#[test]
fn every_place_that_the_readme_points_at_is_there() {
    let readme = fs::read_to_string(README).unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let anchors: Vec<String> = readme
        .lines()
        .filter(|line| line.starts_with("##"))
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            title.replace(' ', "-").replace([',', '.'], "")
        })
        .collect();
    for (_, link) in readme
        .match_indices("](")
        .map(|(at, _)| readme.split_at(at + 2))
    {
        let link = link.split(')').next().unwrap();
        match link.strip_prefix('#') {
            Some(anchor) => assert!(anchors.iter().any(|known| known == anchor), "{link}"),
            None => assert!(
                link.starts_with("https://") || root.join(link).exists(),
                "{link}"
            ),
        }
    }
    for folder in ["scripts/", "tests/", "fixtures/", "src/"] {
        for quoted in readme
            .split(['`', '\n', ' '])
            .filter(|quoted| quoted.starts_with(folder))
        {
            let path = quoted.trim_end_matches([':', ',', '.', ';']);
            assert!(root.join(path).exists(), "{path}");
        }
    }
}
