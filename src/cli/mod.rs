//! The command line: one table, [`COMMANDS`], from which parsing, `--help`, usage errors and the
//! tables of the README are made.

mod completion;
mod man;
mod table;

pub use completion::completion;
pub use man::man;
pub use table::{COMMANDS, COMMON};

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;

use crate::complaint::{Complaint, Exit, did_you_mean};

/// One command: what its help says, and the options that it takes beside [`COMMON`].
#[derive(Debug)]
pub struct Command {
    pub name: &'static str,
    pub operand: Operand,
    /// One line for the list of commands.
    pub summary: &'static str,
    /// A paragraph or two for the command's own help.
    pub about: &'static str,
    pub options: &'static [Opt],
    /// Variables of the environment that no option stands for.
    pub variables: &'static [Variable],
    pub examples: &'static [&'static str],
    /// How it may end.
    pub exits: &'static [Exit],
}

/// What stands beside the options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    None,
    /// The id of an approval.
    Id,
    /// One of these words, or none.
    MayBe(&'static [&'static str]),
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A command and its arguments, behind `--`.
    Words,
}

/// What the value of an option is: what a shell may offer, and what is refused at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing that could be listed.
    Text,
    /// One of these words.
    OneOf(&'static [&'static str]),
    File,
    Directory,
    /// The id of an approval that is there.
    Id,
}

/// One option. Without a `value` it is a flag.
#[derive(Debug)]
pub struct Opt {
    /// The long name, with its dashes.
    pub name: &'static str,
    /// The placeholder of its value in help.
    pub value: Option<&'static str>,
    pub kind: Kind,
    pub default: Option<&'static str>,
    /// The variable that stands in when the option is not given.
    pub env: Option<&'static str>,
    /// The configuration key that stands in after that.
    pub key: Option<&'static str>,
    /// Whether it may be given more than once.
    pub repeatable: bool,
    pub help: &'static str,
}

impl Opt {
    const fn new(name: &'static str, value: &'static str, help: &'static str) -> Self {
        Self {
            value: Some(value),
            ..Self::flag(name, help)
        }
    }

    const fn flag(name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            value: None,
            kind: Kind::Text,
            default: None,
            env: None,
            key: None,
            repeatable: false,
            help,
        }
    }

    const fn kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    const fn default(mut self, default: &'static str) -> Self {
        self.default = Some(default);
        self
    }

    const fn env(mut self, variable: &'static str) -> Self {
        self.env = Some(variable);
        self
    }

    const fn key(mut self, key: &'static str) -> Self {
        self.key = Some(key);
        self
    }

    const fn repeatable(mut self) -> Self {
        self.repeatable = true;
        self
    }
}

/// One variable of the environment.
#[derive(Debug)]
pub struct Variable {
    pub name: &'static str,
    pub help: &'static str,
}

/// What a command line asks for.
#[derive(Debug)]
pub enum Request {
    Run(Parsed),
    /// Text for standard output, such as help or the version.
    Print(String),
}

/// A command with the options that were given.
#[derive(Debug)]
pub struct Parsed {
    pub command: &'static Command,
    given: BTreeMap<&'static str, Vec<OsString>>,
    /// The id, or the command and its arguments.
    pub operands: Vec<OsString>,
}

impl Parsed {
    /// The value of an option of the table, if it was given. Flags have an empty one.
    pub fn value(&self, name: &str) -> Option<&OsStr> {
        self.values(name).first().map(OsString::as_os_str)
    }

    /// All values of an option that may be given more than once.
    pub fn values(&self, name: &str) -> &[OsString] {
        debug_assert!(self.option(name).is_some(), "{name} is not in the table");
        self.given.get(name).map_or(&[], Vec::as_slice)
    }

    /// Whether a flag was given.
    pub fn flag(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    /// An option's row of the table.
    pub fn option(&self, name: &str) -> Option<&'static Opt> {
        self.command
            .all_options()
            .find(|option| option.name == name)
    }
}

/// Parses the arguments behind the program's name.
///
/// # Errors
/// A usage complaint of one line that names what is wrong and the nearest right spelling.
pub fn parse(mut arguments: Vec<OsString>) -> Result<Request, Complaint> {
    // What stands behind `--` is not ours.
    let dashes = arguments.iter().position(|word| word == "--");
    let behind = dashes.map(|at| arguments.split_off(at));
    let mut words = pico_args::Arguments::from_vec(split_at_equals(arguments));
    if words.contains(["-V", "--version"]) {
        return Ok(Request::Print(format!(
            "runbook {}\n",
            env!("CARGO_PKG_VERSION")
        )));
    }
    let mut help = words.contains(["-h", "--help"]);
    let mut name = subcommand(&mut words)?;
    // What many programs have, and so many people type.
    if name.as_deref() == Some("help") {
        help = true;
        name = subcommand(&mut words)?;
    }
    let Some(name) = name else {
        return match words.finish().first() {
            _ if help => Ok(Request::Print(overview())),
            None => Err(Complaint::usage("no command given").hint("runbook --help lists them")),
            Some(word) => Err(Complaint::usage(format!(
                "{} before the command",
                word.to_string_lossy()
            ))),
        };
    };
    let command = COMMANDS
        .iter()
        .find(|command| command.name == name)
        .ok_or_else(|| {
            let near = did_you_mean(&name, COMMANDS.iter().map(|command| command.name));
            Complaint::usage(format!("unknown command {name}{near}"))
        })?;
    if help {
        return Ok(Request::Print(command_help(command)));
    }
    let mut given = BTreeMap::new();
    for option in command.all_options() {
        let mut values = Vec::new();
        while let Some(value) = take(&mut words, option)? {
            values.push(value);
            if !option.repeatable {
                break;
            }
        }
        if !values.is_empty() {
            given.insert(option.name, values);
        }
    }
    let operands = operands(command, &given, words.finish(), behind.as_deref())?;
    Ok(Request::Run(Parsed {
        command,
        given,
        operands,
    }))
}

/// Whether the log is to be JSON, as far as that can be told from options that may make no sense.
pub fn asks_for_json_log(arguments: &[OsString]) -> bool {
    let ours = arguments.split(|word| word == "--").next();
    let words = ours.map(|ours| split_at_equals(ours.to_vec()));
    let pairs = words.unwrap_or_default();
    pairs
        .windows(2)
        .any(|pair| pair[0] == "--log-format" && pair[1] == "json")
}

fn subcommand(words: &mut pico_args::Arguments) -> Result<Option<String>, Complaint> {
    let name = words.subcommand();
    name.map_err(|_| Complaint::usage("the command's name is not UTF-8"))
}

/// What stands beside the options, as the command wants it.
fn operands(
    command: &Command,
    given: &BTreeMap<&str, Vec<OsString>>,
    mut words: Vec<OsString>,
    behind: Option<&[OsString]>,
) -> Result<Vec<OsString>, Complaint> {
    let name = command.name;
    let is_option = |word: &OsString| word.as_bytes().starts_with(b"-");
    // To other commands `--` only says that no option follows.
    if let (Some([_dashes, rest @ ..]), false) = (behind, command.operand == Operand::Words) {
        words.extend_from_slice(rest);
    }
    let missing = |what: &str| {
        let usage = usage(command);
        Complaint::usage(format!("{name} needs {what}: {usage}"))
    };
    let must_be = matches!(command.operand, Operand::OneOf(_));
    let found = match command.operand {
        Operand::None => Vec::new(),
        Operand::Id => match words.iter().position(|word| !is_option(word)) {
            Some(at) => vec![words.remove(at)],
            None if words.is_empty() => return Err(missing("an id")),
            None => Vec::new(),
        },
        Operand::MayBe(known) | Operand::OneOf(known) => {
            let is_known = |word: &OsString| known.iter().any(|known| word == known);
            let at = words.iter().position(is_known);
            let other = words.iter().find(|word| !is_option(word));
            match (at, other) {
                (Some(at), _) => vec![words.remove(at)],
                (None, Some(word)) => {
                    let word = word.to_string_lossy();
                    return Err(none_of(&format!("{name} {word}"), &word, known));
                }
                (None, None) if words.is_empty() && must_be => {
                    return Err(missing(&format!("one of {}", known.join(", "))));
                }
                (None, None) => Vec::new(),
            }
        }
        Operand::Words => match behind {
            Some([_dashes, words @ ..]) if !words.is_empty() => words.to_vec(),
            _ if words.is_empty() => return Err(missing("a command")),
            _ => Vec::new(),
        },
    };
    match words.into_iter().next() {
        None => Ok(found),
        Some(word) => Err(left_over(command, given, &word.to_string_lossy())),
    }
}

/// Makes two words of `--name=value` where the option takes a value.
fn split_at_equals(arguments: Vec<OsString>) -> Vec<OsString> {
    let takes_value = |name: &[u8]| {
        let all = COMMANDS.iter().flat_map(Command::all_options);
        all.into_iter()
            .any(|option| option.name.as_bytes() == name && option.value.is_some())
    };
    let split = |word: OsString| {
        let bytes = word.as_bytes();
        match bytes.iter().position(|byte| *byte == b'=') {
            Some(at) if takes_value(&bytes[..at]) => [&bytes[..at], &bytes[at + 1..]]
                .map(|part| OsStr::from_bytes(part).to_owned())
                .to_vec(),
            _ => vec![word],
        }
    };
    arguments.into_iter().flat_map(split).collect()
}

/// Takes one option out of the words, if it is there.
fn take(
    words: &mut pico_args::Arguments,
    option: &'static Opt,
) -> Result<Option<OsString>, Complaint> {
    let name = option.name;
    let Some(placeholder) = option.value else {
        return Ok(words.contains(name).then(OsString::new));
    };
    let missing = || Complaint::usage(format!("{name} needs a value: {name} {placeholder}"));
    let value = words.opt_value_from_os_str(name, |value| {
        Ok::<_, std::convert::Infallible>(value.to_owned())
    });
    match value {
        Ok(Some(value)) if value.is_empty() || value.to_string_lossy().starts_with("--") => {
            Err(missing())
        }
        Ok(Some(value)) => as_listed(option, value).map(Some),
        Ok(None) => Ok(None),
        Err(_) => Err(missing()),
    }
}

/// The value as the table spells it, where it lists what there is.
fn as_listed(option: &Opt, value: OsString) -> Result<OsString, Complaint> {
    let Kind::OneOf(words) = option.kind else {
        return Ok(value);
    };
    let listed = words.iter().find(|word| value.eq_ignore_ascii_case(word));
    listed.map(Into::into).ok_or_else(|| {
        let value = value.to_string_lossy();
        none_of(&format!("{} {value}", option.name), &value, words)
    })
}

fn none_of(what: &str, word: &str, words: &[&str]) -> Complaint {
    let near = did_you_mean(word, words.iter().copied());
    Complaint::usage(format!("{what} is none of {}{near}", words.join(", ")))
}

/// Why a word was not understood.
fn left_over(command: &Command, given: &BTreeMap<&str, Vec<OsString>>, word: &str) -> Complaint {
    if !word.starts_with('-') || word == "--" {
        // `runbook list all` means `--all`.
        let meant = command
            .all_options()
            .find(|option| option.name.strip_prefix("--") == Some(word));
        let near = meant.map(|option| format!(" (did you mean {}?)", option.name));
        return Complaint::usage(format!("stray argument {word}{}", near.unwrap_or_default()));
    }
    let (name, value) = word
        .split_once('=')
        .map_or((word, None), |(name, value)| (name, Some(value)));
    if value.is_some()
        && command
            .all_options()
            .any(|option| option.name == name && option.value.is_none())
    {
        return Complaint::usage(format!("{name} takes no value"));
    }
    if given.contains_key(name) {
        return Complaint::usage(format!("{name} is given twice"));
    }
    let near = did_you_mean(name, command.all_options().map(|option| option.name));
    Complaint::usage(format!("unknown option {name}{near}"))
}

impl Command {
    /// Every option that it takes: its own, and the common ones that it does not take in its own way.
    pub fn all_options(&self) -> impl Iterator<Item = &'static Opt> + use<> {
        let own = self.options;
        let common = COMMON
            .iter()
            .filter(|common| own.iter().all(|option| option.name != common.name));
        own.iter().chain(common)
    }
}

/// `runbook --help`.
fn overview() -> String {
    let mut text = String::from(
        "Gives automation a human's yes or no, in Slack.\n\nUsage: runbook COMMAND [OPTIONS]\n\nCommands:\n",
    );
    for command in COMMANDS {
        let _ = writeln!(text, "  {:<12} {}", command.name, command.summary);
    }
    text + "\nrunbook COMMAND --help tells more; runbook --version tells the version.\n"
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

/// `runbook COMMAND --help`.
fn command_help(command: &Command) -> String {
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
fn code(exit: Exit) -> String {
    match exit {
        Exit::Command(_) => "*".into(),
        exit => exit.code().to_string(),
    }
}

/// ` (default 3000; or SLACK_WEBHOOK_PORT, webhook.port)`.
fn stand_ins(option: &Opt) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(line: &str) -> String {
        match parse(
            line.split(' ')
                .filter(|word| !word.is_empty())
                .map(OsString::from)
                .collect(),
        ) {
            Err(complaint) => {
                assert_eq!(complaint.exit, Exit::Usage, "{line}");
                complaint.to_string()
            }
            Ok(request) => panic!("{line}: {request:?}"),
        }
    }

    #[test]
    fn usage_errors_are_one_line_that_names_the_word_and_the_nearest_right_one() {
        for (line, said) in [
            ("webhok", "unknown command webhok (did you mean webhook?)"),
            (
                "webhook --prot 3",
                "unknown option --prot (did you mean --port?)",
            ),
            ("webhook --port", "--port needs a value: --port PORT"),
            (
                "webhook --port --host x",
                "--port needs a value: --port PORT",
            ),
            ("webhook --port 1 --port=2", "--port is given twice"),
            ("webhook --reuse-port=yes", "--reuse-port takes no value"),
            ("webhook now", "stray argument now"),
            ("webhook -x", "unknown option -x"),
            ("--port 3 webhook", "--port before the command"),
        ] {
            assert_eq!(complaint(line), format!("runbook: error: {said}"), "{line}");
        }
    }

    #[test]
    fn options_take_their_value_behind_a_space_or_an_equals_sign() {
        for line in [
            "webhook --port 3001 --reuse-port",
            "webhook --reuse-port --port=3001",
        ] {
            let words = line.split(' ').map(OsString::from).collect();
            let Ok(Request::Run(parsed)) = parse(words) else {
                panic!("{line}")
            };
            assert_eq!(parsed.value("--port"), Some(OsStr::new("3001")));
            assert!(parsed.flag("--reuse-port"));
            assert_eq!(parsed.value("--host"), None);
        }
    }

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
