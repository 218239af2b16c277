//! The command line: one table, [`COMMANDS`], from which parsing, `--help`, usage errors and the
//! tables of the README are made.

mod completion;
mod help;
mod man;
mod parse;
mod table;

pub use completion::completion;
pub use help::usage;
pub use man::man;
pub use parse::{Parsed, Request, asks_for_json_log, parse};
pub use table::{COMMANDS, COMMON};

use crate::complaint::Exit;

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
