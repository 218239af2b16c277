//! The README's tables are projections of the program's own; `UPDATE_README=1 cargo test readme`
//! writes them again.

use std::fmt::Write as _;
use std::fs;

use runbook::cli::{COMMANDS, COMMON, Opt};
use runbook::config::KEYS;

const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");

fn options() -> String {
    let mut table = String::new();
    for command in COMMANDS {
        let name = command.name;
        let _ = writeln!(
            table,
            "| `runbook {name}` | default | or | |\n|---|---|---|---|"
        );
        for option in command.options.iter().chain(COMMON) {
            let Opt {
                name,
                value,
                default,
                env,
                key,
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
            let _ = writeln!(table, "| `{name}{value}` | {default} | {or} | {help} |");
        }
        let _ = writeln!(table, "\n| variable | |\n|---|---|");
        for variable in command.variables {
            let _ = writeln!(table, "| `{}` | {} |", variable.name, variable.help);
        }
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
        fs::write(README, &made).unwrap();
    } else {
        assert_eq!(readme, made, "UPDATE_README=1 cargo test readme");
    }
}
