//! The manual page, made from the table, in the man(7) macros that groff and mandoc both read.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::help::{code, stand_ins, usage};
use super::{COMMANDS, COMMON, Command, Opt};
use crate::complaint::Exit;

/// A page has to be dated; a day that stands here is the same whenever the program is built.
const DATE: &str = "2026-11-25";

/// What is kept where, beside what options name.
const FILES: &[(&str, &str)] = &[
    (
        ".runbook/config.yaml, ~/.runbook/config.yaml, /etc/runbook/config.yaml",
        "the configuration; the first that is there counts. runbook init writes one with every setting.",
    ),
    (
        ".runbook/pending-approvals/ID.json",
        "a request, until it is archived; any program may drop one there by renaming it into place",
    ),
    (
        ".runbook/pending-approvals/archive/",
        "requests that were decided a day ago or longer",
    ),
    (
        ".runbook/audit/approvals.jsonl",
        "the audit log, one JSON object a line",
    ),
];

/// The page in roff.
pub fn man() -> String {
    let version = env!("CARGO_PKG_VERSION");
    let mut page = format!(
        ".TH RUNBOOK 1 {DATE} \"runbook {version}\" \"User Commands\"\n\
         .SH NAME\n\
         runbook \\- gives automation a human's yes or no, in Slack\n\
         .SH SYNOPSIS\n"
    );
    for (at, command) in COMMANDS.iter().enumerate() {
        let break_line = if at == 0 { "" } else { ".br\n" };
        let usage = escape(&usage(command));
        let _ = writeln!(page, "{break_line}{usage}");
    }
    page += ".SH DESCRIPTION\n";
    prose(
        &mut page,
        "A script, a job or an agent is about to do something risky, so it asks. People see the request in Slack with \
         Approve and Deny; somebody clicks; the script goes on or does not, and everything is on record. runbook webhook \
         is the server that Slack calls; the other commands ask, wait, look and decide.",
    );
    page += ".SH COMMANDS\n";
    for command in COMMANDS {
        section(&mut page, command);
    }
    page += ".SH COMMON OPTIONS\n";
    for option in COMMON {
        item(&mut page, option);
    }
    entry(&mut page, "--help", "what a command does, and its options");
    entry(&mut page, "--version", "the version");
    page += ".SH ENVIRONMENT\nAn option comes first, then the variable, then the\nconfiguration file, then the default.\n";
    for (name, help) in variables() {
        entry(&mut page, name, &help);
    }
    page += ".SH FILES\n";
    for (name, what) in FILES {
        entry(&mut page, name, what);
    }
    page += ".SH EXIT STATUS\n";
    for exit in Exit::ALL {
        entry(&mut page, &exit.code().to_string(), exit.meaning());
    }
    page += ".PP\nrunbook run ends with the code of the command that it ran.\n.SH EXAMPLES\n";
    let mut separator = "";
    for example in COMMANDS.iter().flat_map(|command| command.examples) {
        let _ = writeln!(page, "{separator}.EX\n{}\n.EE", verbatim(example));
        separator = ".PP\n";
    }
    page + ".SH SEE ALSO\n.BR crontab (5),\n.BR jq (1),\n.BR systemd.service (5)\n"
}

fn section(page: &mut String, command: &Command) {
    let _ = writeln!(page, ".SS {}", escape(&usage(command)));
    prose(page, command.about);
    for option in command.options {
        item(page, option);
    }
    let codes: Vec<String> = command.exits.iter().map(|exit| code(*exit)).collect();
    let own = if codes.iter().any(|code| code == "*") {
        ", or the code of the command"
    } else {
        ""
    };
    let codes: Vec<String> = codes.into_iter().filter(|code| code != "*").collect();
    page.push_str(".PP\n");
    prose(page, &format!("Exit status: {}{own}.", codes.join(", ")));
}

/// What each variable means, once; an option's is the option's own meaning.
fn variables() -> BTreeMap<&'static str, String> {
    let mut found = BTreeMap::new();
    for command in COMMANDS {
        for variable in command.variables {
            found
                .entry(variable.name)
                .or_insert(variable.help.to_owned());
        }
        for option in command.all_options() {
            if let Some(name) = option.env {
                found
                    .entry(name)
                    .or_insert(format!("stands in for {}", option.name));
            }
        }
    }
    found
}

fn item(page: &mut String, option: &Opt) {
    let value = option.value.map(|value| format!(" {value}"));
    let name = format!("{}{}", option.name, value.unwrap_or_default());
    entry(
        page,
        &name,
        &format!("{}{}", option.help, stand_ins(option)),
    );
}

fn entry(page: &mut String, name: &str, what: &str) {
    let _ = writeln!(page, ".TP\n\\fB{}\\fR\n{}", escape(name), escape(what));
}

fn prose(page: &mut String, text: &str) {
    let _ = writeln!(page, "{}", escape(text));
}

/// Prose as roff prints it, in lines of at most 80 bytes, for tools that look at the page complain otherwise.
fn escape(text: &str) -> String {
    fill(text, "\n")
}

/// A line that is shown as it is: a backslash at the end of a line goes on with the next.
fn verbatim(text: &str) -> String {
    fill(text, " \\\n")
}

/// Words with a space between them, or a break where the line becomes too long.
fn fill(text: &str, line_break: &str) -> String {
    const WIDTH: usize = 76;
    let (mut filled, mut column) = (String::new(), 0);
    for word in text.split([' ', '\n']).map(escape_word) {
        if column > 0 && column + word.len() > WIDTH {
            filled += line_break;
            column = 0;
        } else if column > 0 {
            filled.push(' ');
        }
        // At the beginning of a line these would be the roff's own.
        if column == 0 && word.starts_with('.') {
            filled += "\\&";
        }
        filled += &word;
        column += word.len() + 1;
    }
    filled
}

/// A dash that can be copied, a backslash, and quotes that stay straight.
fn escape_word(word: &str) -> String {
    let mut escaped = String::new();
    for c in word.chars() {
        match c {
            '-' => escaped += "\\-",
            '\\' => escaped += "\\e",
            '\'' => escaped += "\\(aq",
            '`' => escaped += "\\(ga",
            '^' => escaped += "\\(ha",
            '~' => escaped += "\\(ti",
            '…' => escaped += "...",
            c if c.is_ascii() => escaped.push(c),
            c => drop(write!(escaped, "\\[u{:04X}]", u32::from(c))),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_of_text_is_a_request_and_every_sign_is_what_it_was() {
        assert_eq!(escape(".x 'y --z"), r"\&.x \(aqy \-\-z");
        assert_eq!(escape(r"a\b ~`^"), r"a\eb \(ti\(ga\(ha");
        assert_eq!(escape("✓"), r"\[u2713]");
        let long = format!("{} .y", "x".repeat(75));
        assert!(escape(&long).ends_with("x\n\\&.y"));
        assert!(verbatim(&long).ends_with("x \\\n\\&.y"));
    }
}
