//! What `--help` prints.

use std::fmt::Write as _;

use super::{COMMANDS, Command, Operand, Opt};
use crate::complaint::Exit;

/// `runbook --help`.
pub(super) fn overview() -> String {
    let mut text = String::from(
        "Gives automation a human's yes or no, in Slack.\n\nUsage: runbook COMMAND [OPTIONS]\n\nCommands:\n",
    );
    for command in COMMANDS {
        let _ = writeln!(text, "  {:<12} {}", command.name, command.summary);
    }
    text + "\nrunbook COMMAND --help tells more; runbook --version tells the version.\n"
}

/// `runbook COMMAND --help`.
pub(super) fn command_help(command: &Command) -> String {
    let mut text = format!(
        "{}\n\nUsage: {}\n\nOptions:\n",
        command.about,
        usage(command)
    );
    for option in command.all_options() {
        let left = format!("{} {}", option.name, option.value.unwrap_or_default());
        let _ = writeln!(text, "  {left:<20} {}{}", option.help, stand_ins(option));
    }
    text += "  --help               this text\n";
    if !command.variables.is_empty() {
        text += "\nEnvironment:\n";
    }
    for variable in command.variables {
        let _ = writeln!(text, "  {:<28} {}", variable.name, variable.help);
    }
    text += "\nExamples:\n";
    for example in command.examples {
        let _ = writeln!(text, "  {example}");
    }
    text += "\nExit codes:\n";
    for exit in command.exits {
        let _ = writeln!(text, "  {}  {}", code(*exit), exit.meaning());
    }
    text
}

/// The exit code in digits; `*` for the command's own.
pub(super) fn code(exit: Exit) -> String {
    match exit {
        Exit::Command(_) => "*".into(),
        exit => exit.code().to_string(),
    }
}

/// ` (default 3000; or SLACK_WEBHOOK_PORT, webhook.port)`.
pub(super) fn stand_ins(option: &Opt) -> String {
    let others = [option.env, option.key]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(", ");
    match (option.default, others.is_empty()) {
        (Some(default), true) => format!(" (default {default})"),
        (Some(default), false) => format!(" (default {default}; or {others})"),
        (None, false) => format!(" (or {others})"),
        (None, true) => String::new(),
    }
}

/// `runbook wait ID [OPTIONS]`.
pub fn usage(command: &Command) -> String {
    let name = command.name;
    match command.operand {
        Operand::None => format!("runbook {name} [OPTIONS]"),
        Operand::Id => format!("runbook {name} ID [OPTIONS]"),
        Operand::MayBe(known) => format!("runbook {name} [{}] [OPTIONS]", known.join("|")),
        Operand::OneOf(known) => format!("runbook {name} {} [OPTIONS]", known.join("|")),
        Operand::Words => format!("runbook {name} [OPTIONS] -- COMMAND [ARGUMENTS]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_names_every_option_with_its_default_and_what_stands_in() {
        let help = command_help(&COMMANDS[0]);
        assert!(
            help.contains("(default 3000; or SLACK_WEBHOOK_PORT, webhook.port)"),
            "{help}"
        );
        for option in COMMANDS[0].all_options() {
            assert!(help.contains(option.name), "{help}");
        }
    }
}
