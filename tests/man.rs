//! The manual page: what readers of such pages make of it.

use runbook::cli::{COMMANDS, usage};

use crate::harness::{Client, other_program};

fn page() -> String {
    let finished = Client::new(["man"]).finish();
    assert_eq!((finished.status, finished.stderr.as_str()), (Some(0), ""));
    finished.stdout
}

#[test]
fn neither_mandoc_nor_groff_has_anything_to_say_against_it() {
    let page = page();
    let lint = other_program(["mandoc", "-T", "lint", "-W", "style"], &page);
    // That it does not know the other pages is no matter of ours.
    let said: Vec<&str> = lint.stdout.lines().collect();
    assert_eq!((lint.status, said), (Some(0), vec![]), "{}", lint.stderr);
    let groff = other_program(["groff", "-ww", "-man", "-T", "utf8", "-z"], &page);
    assert_eq!((groff.status, groff.stderr.as_str()), (Some(0), ""));
}

#[test]
fn every_command_option_default_and_example_is_in_it_as_it_is_typed() {
    let shown = other_program(["mandoc", "-T", "utf8", "-O", "width=200"], &page());
    assert_eq!(shown.status, Some(0), "{shown:?}");
    // A terminal makes letters bold by printing them twice.
    let mut text = String::new();
    for c in shown.stdout.chars() {
        if c == '\u{8}' {
            text.pop();
        } else {
            text.push(c);
        }
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    let text = words.join(" ");
    for command in COMMANDS {
        let mut expected = vec![usage(command)];
        for option in command.all_options() {
            expected.push(match option.value {
                Some(value) => format!("{} {value} {}", option.name, option.help),
                None => format!("{} {}", option.name, option.help),
            });
            expected.extend(option.default.map(|default| format!("(default {default}")));
            expected.extend(option.env.map(str::to_owned));
        }
        expected.extend(command.variables.iter().map(|one| one.name.to_owned()));
        expected.extend(command.examples.iter().map(|&one| one.to_owned()));
        for one in expected {
            let one = one.replace('…', "...");
            assert!(text.contains(&one), "{}: {one} in {text}", command.name);
        }
    }
    for section in [
        "NAME",
        "SYNOPSIS",
        "DESCRIPTION",
        "COMMANDS",
        "ENVIRONMENT",
        "FILES",
        "EXIT STATUS",
        "EXAMPLES",
        "SEE ALSO",
    ] {
        assert!(text.contains(section), "{section}");
    }
}
