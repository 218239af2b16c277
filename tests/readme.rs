//! The README's tables are projections of the program's own; `UPDATE_README=1 cargo test readme`
//! writes them again.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use runbook::cli::{COMMANDS, Opt, usage};
use runbook::complaint::Exit;
use runbook::config::KEYS;

use crate::harness::Server;
use crate::stand_in::StandIn;

const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");

/// One row for each option and each variable, with the commands that take it.
fn options() -> String {
    let mut rows: Vec<(String, String, Vec<&str>)> = Vec::new();
    let mut variables: Vec<(String, String, Vec<&str>)> = Vec::new();
    let add = |rows: &mut Vec<(String, String, Vec<&'static str>)>, left, right, command| {
        let known = rows.iter_mut().find(|row| row.0 == left && row.1 == right);
        match known {
            Some(row) => row.2.push(command),
            None => rows.push((left, right, vec![command])),
        }
    };
    for command in COMMANDS {
        for option in command.all_options() {
            let Opt {
                name,
                value,
                kind: _,
                default,
                env,
                key,
                repeatable: _,
                help,
            } = option;
            let value = value.map(|value| format!(" {value}")).unwrap_or_default();
            let code = |text: &str| format!("`{text}`");
            let default = default.map(code).unwrap_or_default();
            let or = [env, key]
                .into_iter()
                .flatten()
                .map(|text| code(text))
                .collect::<Vec<_>>()
                .join(", ");
            let left = format!("`{name}{value}`");
            let right = format!("{default} | {or} | {help}");
            add(&mut rows, left, right, command.name);
        }
        for variable in command.variables {
            let (left, right) = (format!("`{}`", variable.name), variable.help.to_owned());
            add(&mut variables, left, right, command.name);
        }
    }
    let names = |commands: &[&str]| {
        let mut others = COMMANDS
            .iter()
            .filter(|known| !commands.contains(&known.name));
        match (others.next(), others.next()) {
            (None, _) => "all".to_owned(),
            (Some(other), None) => format!("all but {}", other.name),
            (Some(_), Some(_)) => commands.join(", "),
        }
    };
    let mut table = String::from("| command | |\n|---|---|\n");
    for command in COMMANDS {
        let _ = writeln!(
            table,
            "| `{}` | {} |",
            usage(command).replace('|', "\\|"),
            command.summary
        );
    }
    table += "\n| option | of | default | or | |\n|---|---|---|---|---|\n";
    for (left, right, commands) in rows {
        let _ = writeln!(table, "| {left} | {} | {right} |", names(&commands));
    }
    table += "\n| variable | of | |\n|---|---|---|\n";
    for (left, right, commands) in variables {
        let _ = writeln!(table, "| {left} | {} | {right} |", names(&commands));
    }
    table += "\n| exit code | |\n|---|---|\n";
    for exit in Exit::ALL {
        let _ = writeln!(table, "| {} | {} |", exit.code(), exit.meaning());
    }
    table
}

fn settings() -> String {
    let mut table = String::from("| key | default | |\n|---|---|---|\n");
    for key in KEYS {
        let default = if key.default.is_empty() {
            String::new()
        } else {
            format!("`{}`", key.default)
        };
        let _ = writeln!(table, "| `{}` | {default} | {} |", key.path, key.help);
    }
    table + "\n`*` stands for `default`, `low`, `medium`, `high` or `critical`.\n"
}

#[test]
fn the_readmes_tables_are_what_the_program_says() {
    let readme = fs::read_to_string(README).unwrap();
    let mut made = readme.clone();
    for (name, table) in [("options", options()), ("settings", settings())] {
        let start = made.find(&format!("<!-- {name}:")).unwrap();
        let start = start + made[start..].find("-->\n").unwrap() + 4;
        let end = made.find(&format!("<!-- /{name} -->")).unwrap();
        made.replace_range(start..end, &format!("\n{table}\n"));
    }
    if std::env::var_os("UPDATE_README").is_some() {
        // Other tests read it meanwhile: at no time is there half of it.
        let unfinished = Path::new(env!("CARGO_TARGET_TMPDIR")).join("README.md");
        fs::write(&unfinished, &made).unwrap();
        fs::rename(unfinished, README).unwrap();
    } else {
        assert_eq!(readme, made, "UPDATE_README=1 cargo test readme");
    }
}

#[test]
fn each_threat_and_each_promise_names_tests_that_there_are() {
    let mut tests = String::new();
    for folder in ["tests", "tests/edge"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "rs") {
                tests += &fs::read_to_string(path).unwrap();
            }
        }
    }
    let readme = fs::read_to_string(README).unwrap();
    let tables = ["| threat |", "| promise |"].map(|head| readme.split(head).nth(1).unwrap());
    let rows = tables.iter().flat_map(|table| {
        let rows = table.lines().skip(2);
        rows.take_while(|line| line.starts_with('|'))
    });
    for row in rows {
        let shown = row.rsplit('|').nth(1).unwrap();
        let names: Vec<&str> = shown.split_whitespace().collect();
        assert!(!names.is_empty(), "{row}");
        for name in names {
            let test = format!("#[test]\nfn {}()", name.trim_matches('`'));
            assert!(tests.contains(&test), "{name}");
        }
    }
}

/// What a text installs by a command: the words behind it that are neither options nor the shell's own.
fn installed<'a>(text: &'a str, command: &str) -> BTreeSet<&'a str> {
    let lines = text.match_indices(command).filter_map(|(at, _)| {
        let line = text[at + command.len()..].split(['\n', '`', '>', '|']);
        line.into_iter().next()
    });
    lines
        .flat_map(str::split_whitespace)
        // The shell's `2>`.
        .filter(|word| !word.starts_with('-') && *word != "2")
        .collect()
}

#[test]
fn what_the_readme_says_the_tests_need_is_what_the_gate_installs() {
    let gate = concat!(env!("CARGO_MANIFEST_DIR"), "/.ci/run");
    let (gate, readme) = (
        fs::read_to_string(gate).unwrap(),
        fs::read_to_string(README).unwrap(),
    );
    let (_, told) = readme.split_once("## How it is tried").unwrap();
    let (told, _) = told.split_once("\n### ").unwrap();
    for command in ["apt-get install", "pip install"] {
        let needed = installed(&gate, command);
        assert!(needed.len() > 2, "{command}: only {needed:?}");
        assert_eq!(installed(told, command), needed, "{command}");
    }
}

#[test]
fn every_script_and_sample_is_told_of() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(README).unwrap();
    for folder in ["scripts", "fixtures"] {
        for entry in fs::read_dir(root.join(folder)).unwrap() {
            let place = entry.unwrap().path();
            let place = place.strip_prefix(root).unwrap().display().to_string();
            assert!(
                readme.contains(&place),
                "the README does not tell of {place}"
            );
        }
    }
}

#[test]
fn the_configuration_that_the_readme_shows_starts_a_server_without_a_warning() {
    let readme = fs::read_to_string(README).unwrap();
    let (_, shown) = readme.split_once("## Configuration").unwrap();
    let (_, shown) = shown.split_once("```yaml\n").unwrap();
    let (shown, _) = shown.split_once("```").unwrap();
    let slack = StandIn::start();
    let server = Server::builder().slack(&slack).config(shown).start();
    assert!(!server.log().contains("[WARN]"), "{}", server.log());
}

#[test]
fn the_readme_tells_of_each_detail_of_health() {
    let readme = fs::read_to_string(README).unwrap();
    let (_, told) = readme.split_once("### Health").unwrap();
    let (told, _) = told.split_once("\n### ").unwrap();
    let health = Server::builder().start().get("/health?verbose").json();
    let details = health.as_object().unwrap().keys();
    for key in details.filter(|key| !["status", "pendingApprovals"].contains(&key.as_str())) {
        assert!(told.contains(&format!("`{key}`")), "{key}");
    }
}
