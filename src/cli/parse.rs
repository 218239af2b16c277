//! Arguments in, a command with its options out, or a complaint that names the word and the nearest right one.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use super::help::{command_help, overview};
use super::{COMMANDS, Command, Kind, Operand, Opt, usage};
use crate::complaint::{Complaint, did_you_mean};

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

/// What is understood with any command and without.
const EVERYWHERE: [&str; 2] = ["--help", "--version"];

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
            Some(word) => Err(before_command(&word.to_string_lossy())),
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
        let near = near.unwrap_or_else(|| match command.operand {
            Operand::Words => " (the command stands behind --)".to_owned(),
            _ => String::new(),
        });
        return Complaint::usage(format!("stray argument {word}{near}"));
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
    unknown_option(name, command.all_options())
}

/// Why a line that names no command was not understood.
fn before_command(word: &str) -> Complaint {
    let name = word.split('=').next().unwrap_or(word);
    let mut all = COMMANDS.iter().flat_map(Command::all_options);
    if all.any(|option| option.name == name) {
        return Complaint::usage(format!(
            "{name} before the command: runbook COMMAND [OPTIONS]"
        ));
    }
    unknown_option(name, COMMANDS.iter().flat_map(Command::all_options))
}

fn unknown_option(name: &str, options: impl Iterator<Item = &'static Opt>) -> Complaint {
    let names = options.map(|option| option.name);
    let near = did_you_mean(name, names.chain(EVERYWHERE));
    Complaint::usage(format!("unknown option {name}{near}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::complaint::Exit;

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
            (
                "run echo --operation x -- echo",
                "stray argument echo (the command stands behind --)",
            ),
            ("webhook -x", "unknown option -x"),
            (
                "--port 3 webhook",
                "--port before the command: runbook COMMAND [OPTIONS]",
            ),
            (
                "--verison",
                "unknown option --verison (did you mean --version?)",
            ),
            (
                "webhook --hlep",
                "unknown option --hlep (did you mean --help?)",
            ),
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
}
