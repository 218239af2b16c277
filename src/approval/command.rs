//! The command that `runbook run` executes once its request is approved.

use std::fmt::{self, Write as _};

use serde_json::Value;

use super::{Approval, Status};
use crate::clock::Timestamp;

/// A program with its arguments. Displays as a shell reads it: pasted into one, it is the same
/// words again, and no character of it is invisible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine(Vec<String>);

impl CommandLine {
    /// `None` without a program, or with a NUL, which no command can have.
    pub fn new(words: Vec<String>) -> Option<Self> {
        let whole = words.first().is_some_and(|program| !program.is_empty());
        (whole && !words.iter().any(|word| word.contains('\0'))).then_some(Self(words))
    }

    pub fn words(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, word) in self.0.iter().enumerate() {
            let (space, place) = match index {
                0 => ("", Place::Program),
                _ => (" ", Place::Argument),
            };
            write!(f, "{space}{}", quote(word, place))?;
        }
        Ok(())
    }
}

/// Words that mean something else to a shell in front of a command; those with other signs are quoted
/// anyway. One that begins with `%` would be a job.
const RESERVED: [&str; 16] = [
    "case", "coproc", "do", "done", "elif", "else", "esac", "fi", "for", "function", "if", "in",
    "select", "then", "time", "until",
];

/// Where a word stands: `A=1` in front of a command would be an assignment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Program,
    Argument,
}

/// One word, quoted only as far as it needs to be: bare, in single quotes, or in `$'…'` when it has
/// characters that a person would not see as they are.
fn quote(word: &str, place: Place) -> String {
    let is_bare = |c: char| {
        c.is_ascii_alphanumeric()
            || "_-./:,@%+".contains(c)
            || (c == '=' && place == Place::Argument)
    };
    if word.chars().any(is_unseen) {
        let mut escaped = String::new();
        for c in word.chars() {
            match c {
                '\\' | '\'' => escaped.extend(['\\', c]),
                '\n' => escaped.push_str("\\n"),
                '\t' => escaped.push_str("\\t"),
                c if is_unseen(c) => {
                    for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                        // Three octal digits cannot run into what follows, as hex digits would.
                        let _ = write!(escaped, "\\{byte:03o}");
                    }
                }
                c => escaped.push(c),
            }
        }
        return format!("$'{escaped}'");
    }
    let is_special = place == Place::Program && (word.starts_with('%') || RESERVED.contains(&word));
    if !word.is_empty() && !is_special && word.chars().all(is_bare) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// Whether a character shows as nothing, or as something else than it is, or elsewhere than it stands:
/// control and format characters, spaces beyond the common one, tags, variation selectors, and what is
/// written from right to left, for it turns the order of what stands around it.
fn is_unseen(c: char) -> bool {
    c.is_control()
        || (c != ' ' && c.is_whitespace())
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{590}'..='\u{8ff}' | '\u{115f}' | '\u{1160}' | '\u{17b4}'
            | '\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}'
            | '\u{fb1d}'..='\u{fdff}' | '\u{fe00}'..='\u{fe0f}' | '\u{fe70}'..='\u{feff}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{10800}'..='\u{10fff}' | '\u{110bd}'
            | '\u{110cd}' | '\u{13430}'..='\u{13438}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{1e800}'..='\u{1efff}' | '\u{e0000}'..='\u{e0fff}')
}

/// How a command that was approved has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run<'a> {
    /// It is under way, or whoever ran it is gone.
    Claimed,
    /// It ended with this code, after so many milliseconds.
    Ended { code: i64, millis: u64 },
    /// It could not be started, or could not be waited for.
    Failed { error: &'a str },
}

impl Approval {
    /// The command, when there is one of the right shape.
    pub fn command(&self) -> Option<CommandLine> {
        let words = self.value("command")?.as_array()?;
        let words: Option<Vec<String>> = words
            .iter()
            .map(|word| word.as_str().map(str::to_owned))
            .collect();
        CommandLine::new(words?)
    }

    /// How its command has gone; `None` while nobody has taken it up.
    pub fn run(&self) -> Option<Run<'_>> {
        self.value("executedAt")?;
        if let Some(error) = self.text("executionError") {
            return Some(Run::Failed { error });
        }
        let number = |key| self.value(key).and_then(Value::as_i64);
        Some(number("exitCode").map_or(Run::Claimed, |code| Run::Ended {
            code,
            millis: number("durationMs").map_or(0, i64::unsigned_abs),
        }))
    }

    /// Whether it is approved and its command has yet to start or to end.
    pub fn awaits_run(&self) -> bool {
        self.status() == Status::Approved
            && self.command().is_some()
            && matches!(self.run(), None | Some(Run::Claimed))
    }

    /// Takes the command up, for once and for all. Whoever asked knows the decision by that.
    pub fn claim_run(&mut self, at: Timestamp) {
        self.put("executedAt", at.to_string().into());
        self.note_agent(at);
    }

    /// Writes down how the command has gone.
    pub fn finish_run(&mut self, run: Run<'_>) {
        match run {
            Run::Claimed => {}
            Run::Ended { code, millis } => {
                self.put("exitCode", code.into());
                self.put("durationMs", millis.into());
            }
            Run::Failed { error } => self.put("executionError", error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn line(words: &[&str]) -> CommandLine {
        CommandLine::new(words.iter().map(|word| (*word).to_owned()).collect()).unwrap()
    }

    #[test]
    fn simple_words_stay_bare_and_others_are_quoted() {
        for (word, quoted) in [
            ("kubectl", "kubectl"),
            ("--namespace=prod", "--namespace=prod"),
            ("two words", "'two words'"),
            ("it's", r"'it'\''s'"),
            ("$(rm -rf /)", "'$(rm -rf /)'"),
            ("", "''"),
            ("~", "'~'"),
            ("a\nb", r"$'a\nb'"),
            ("it's\u{1b}[31m", r"$'it\'s\033[31m'"),
            ("\u{202e}x", r"$'\342\200\256x'"),
            ("日本 🔥", "'日本 🔥'"),
        ] {
            assert_eq!(quote(word, Place::Argument), quoted);
        }
        for (words, shown) in [
            (["A=1", "B=2"], "'A=1' B=2"),
            (["%1", "%1"], "'%1' %1"),
            (["time", "time"], "'time' time"),
            (["cp", "א"], r"cp $'\327\220'"),
        ] {
            assert_eq!(line(&words).to_string(), shown);
        }
    }

    #[test]
    fn pasted_into_a_shell_it_is_the_same_words_again() {
        let words = [
            "printf",
            "%s\\0",
            "a b",
            "it's",
            "$HOME",
            "`id`",
            "*",
            "\\",
            "!x",
            "a\nb\tc",
            "\u{1b}7",
            "é\u{200b}1",
            "",
            "-n",
            "日本",
            "{a,b}",
            "~root",
            "#no",
            "a=b",
            "\u{7f}",
            "\r",
        ];
        let shell = Command::new("bash")
            .arg("-c")
            .arg(line(&words).to_string())
            .output()
            .unwrap();
        let printed = String::from_utf8(shell.stdout).unwrap();
        let expected = words[2..].join("\0") + "\0";
        assert_eq!(printed, expected);
    }

    #[test]
    fn nothing_is_no_command() {
        assert_eq!(CommandLine::new(vec![]), None);
        assert_eq!(CommandLine::new(vec![String::new()]), None);
        assert_eq!(CommandLine::new(vec!["a\0".into()]), None);
    }
}
