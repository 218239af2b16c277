//! The command line: one table, [`COMMANDS`], from which parsing, `--help`, usage errors and the
//! tables of the README are made. Nothing else in the program spells an option or a default.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;

use crate::complaint::{Complaint, Exit, did_you_mean};

/// One command: what its help says, and the options that it takes beside [`COMMON`].
#[derive(Debug)]
pub struct Command {
    pub name: &'static str,
    /// One line for the list of commands.
    pub summary: &'static str,
    /// A paragraph or two for the command's own help.
    pub about: &'static str,
    pub options: &'static [Opt],
    /// Variables of the environment that no option stands for.
    pub variables: &'static [Variable],
    pub examples: &'static [&'static str],
}

/// One option. Without a `value` it is a flag.
#[derive(Debug)]
pub struct Opt {
    /// The long name, with its dashes.
    pub name: &'static str,
    /// The placeholder of its value in help.
    pub value: Option<&'static str>,
    pub default: Option<&'static str>,
    /// The variable that stands in when the option is not given.
    pub env: Option<&'static str>,
    /// The configuration key that stands in after that.
    pub key: Option<&'static str>,
    pub help: &'static str,
}

/// One variable of the environment.
#[derive(Debug)]
pub struct Variable {
    pub name: &'static str,
    pub help: &'static str,
}

/// Every command.
pub const COMMANDS: &[Command] = &[Command {
    name: "webhook",
    summary: "the server that Slack calls when somebody clicks",
    about: "Starts the server that handles Slack's interactions: it verifies Slack's signature, decides\n\
            under a lock, writes the decision to disk, answers, then updates the message.\n\
            With --tls-cert and --tls-key it stands on the internet by itself; without them it speaks plain\n\
            HTTP, and a reverse proxy or a tunnel gives Slack the HTTPS that it needs.",
    options: &[
        Opt {
            name: "--port",
            value: Some("PORT"),
            default: Some("3000"),
            env: Some("SLACK_WEBHOOK_PORT"),
            key: Some("webhook.port"),
            help: "port to listen on; 0 takes any free one and prints it",
        },
        Opt {
            name: "--host",
            value: Some("HOST"),
            default: Some("0.0.0.0"),
            env: None,
            key: Some("webhook.host"),
            help: "address to bind to, IPv4 or IPv6",
        },
        Opt {
            name: "--pending-dir",
            value: Some("PATH"),
            default: Some(".runbook/pending-approvals"),
            env: Some("RUNBOOK_PENDING_DIR"),
            key: None,
            help: "directory of the approvals; made when missing",
        },
        Opt {
            name: "--tls-cert",
            value: Some("PATH"),
            default: None,
            env: None,
            key: None,
            help: "TLS certificate chain (PEM); with --tls-key the server speaks HTTPS",
        },
        Opt {
            name: "--tls-key",
            value: Some("PATH"),
            default: None,
            env: None,
            key: None,
            help: "TLS private key (PEM: PKCS#8, PKCS#1 or SEC1)",
        },
        Opt {
            name: "--workers",
            value: Some("N"),
            default: Some("8"),
            env: None,
            key: Some("webhook.workers"),
            help: "threads that decide clicks, 1 to 256",
        },
        Opt {
            name: "--reuse-port",
            value: None,
            default: None,
            env: None,
            key: None,
            help: "share the port with another server that does the same (SO_REUSEPORT)",
        },
    ],
    variables: &[
        Variable {
            name: "SLACK_SIGNING_SECRET",
            help: "the Slack app's signing secret; several, for rotation, one a line",
        },
        Variable {
            name: "SLACK_BOT_TOKEN",
            help: "the bot token; without it messages change through response_url",
        },
        Variable {
            name: "SLACK_SIGNING_SECRET_FILE",
            help: "a file that holds the signing secret, instead of the variable",
        },
        Variable {
            name: "SLACK_BOT_TOKEN_FILE",
            help: "a file that holds the bot token, instead of the variable",
        },
        Variable {
            name: "SLACK_API_URL",
            help: "base of Slack's Web API (default: https://slack.com/api/)",
        },
        Variable {
            name: "TMPDIR",
            help: "a directory where the workers' socket stands for a moment at start (default: /tmp)",
        },
        Variable {
            name: "HTTPS_PROXY",
            help: "proxy for calls to Slack, with NO_PROXY for exceptions",
        },
    ],
    examples: &[
        "SLACK_SIGNING_SECRET=… SLACK_BOT_TOKEN=xoxb-… runbook webhook",
        "runbook webhook --port 443 --tls-cert /etc/letsencrypt/live/HOST/fullchain.pem --tls-key /etc/letsencrypt/live/HOST/privkey.pem",
        "runbook webhook --host 127.0.0.1 --port 3000 --pending-dir /var/lib/runbook/pending-approvals",
    ],
}];

/// Options that every command takes.
pub const COMMON: &[Opt] = &[
    Opt {
        name: "--config",
        value: Some("PATH"),
        default: None,
        env: Some("RUNBOOK_CONFIG"),
        key: None,
        help: "configuration file (default: ./.runbook/config.yaml, then ~/.runbook, then /etc/runbook)",
    },
    Opt {
        name: "--log-level",
        value: Some("LEVEL"),
        default: Some("info"),
        env: None,
        key: None,
        help: "error, warn, info, debug or trace",
    },
    Opt {
        name: "--log-format",
        value: Some("FORMAT"),
        default: Some("text"),
        env: None,
        key: None,
        help: "text, or json: one object a line",
    },
];

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
    given: BTreeMap<&'static str, OsString>,
}

impl Parsed {
    /// The value of an option of the table, if it was given. Flags have an empty one.
    pub fn value(&self, name: &str) -> Option<&OsStr> {
        debug_assert!(self.option(name).is_some(), "{name} is not in the table");
        self.given.get(name).map(OsString::as_os_str)
    }

    /// Whether a flag was given.
    pub fn flag(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    /// An option's row of the table.
    pub fn option(&self, name: &str) -> Option<&'static Opt> {
        options(self.command).find(|option| option.name == name)
    }
}

/// Parses the arguments behind the program's name.
///
/// # Errors
/// A usage complaint of one line that names what is wrong and the nearest right spelling.
pub fn parse(arguments: Vec<OsString>) -> Result<Request, Complaint> {
    let mut words = pico_args::Arguments::from_vec(split_at_equals(arguments));
    if words.contains(["-V", "--version"]) {
        return Ok(Request::Print(format!(
            "runbook {}\n",
            env!("CARGO_PKG_VERSION")
        )));
    }
    let help = words.contains(["-h", "--help"]);
    let name = words
        .subcommand()
        .map_err(|_| Complaint::usage("the command's name is not UTF-8"))?;
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
    for option in options(command) {
        if let Some(value) = take(&mut words, option)? {
            given.insert(option.name, value);
        }
    }
    match words.finish().first() {
        None => Ok(Request::Run(Parsed { command, given })),
        Some(word) => Err(left_over(command, &given, &word.to_string_lossy())),
    }
}

/// Makes two words of `--name=value` where the option takes a value.
fn split_at_equals(arguments: Vec<OsString>) -> Vec<OsString> {
    let takes_value = |name: &[u8]| {
        let all = COMMANDS.iter().flat_map(options);
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
        Ok(value) => Ok(value),
        Err(_) => Err(missing()),
    }
}

/// Why a word was not understood.
fn left_over(command: &Command, given: &BTreeMap<&str, OsString>, word: &str) -> Complaint {
    if !word.starts_with('-') {
        return Complaint::usage(format!("stray argument {word}"));
    }
    let (name, value) = word
        .split_once('=')
        .map_or((word, None), |(name, value)| (name, Some(value)));
    if value.is_some()
        && options(command).any(|option| option.name == name && option.value.is_none())
    {
        return Complaint::usage(format!("{name} takes no value"));
    }
    if given.contains_key(name) {
        return Complaint::usage(format!("{name} is given twice"));
    }
    let near = did_you_mean(name, options(command).map(|option| option.name));
    Complaint::usage(format!("unknown option {name}{near}"))
}

fn options(command: &Command) -> impl Iterator<Item = &'static Opt> + use<> {
    command.options.iter().chain(COMMON)
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

/// `runbook COMMAND --help`.
fn command_help(command: &Command) -> String {
    let mut text = format!(
        "{}\n\nUsage: runbook {} [OPTIONS]\n\nOptions:\n",
        command.about, command.name
    );
    for option in options(command) {
        let left = format!("{} {}", option.name, option.value.unwrap_or_default());
        let _ = writeln!(text, "  {left:<20} {}{}", option.help, stand_ins(option));
    }
    text += "  --help               this text\n\nEnvironment:\n";
    for variable in command.variables {
        let _ = writeln!(text, "  {:<26} {}", variable.name, variable.help);
    }
    text += "\nExamples:\n";
    for example in command.examples {
        let _ = writeln!(text, "  {example}");
    }
    text += "\nExit codes:\n";
    for (exit, meaning) in Exit::ALL {
        let _ = writeln!(text, "  {}  {meaning}", exit.code());
    }
    text
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
        for option in options(&COMMANDS[0]) {
            assert!(help.contains(option.name), "{help}");
        }
    }
}
