//! What an operator sees when something is wrong: what, one hint that would help, an exit code.

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::Path;

/// A device has failed (errno.h; `ErrorKind` has no name for it).
const EIO: i32 = 5;

/// How the standard library begins what it says of a name that does not resolve; what follows is the C library's.
const LOOKUP: &str = "failed to lookup address information";

/// How the process ends. The numbers are part of the contract with scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: done, approved, healthy.
    Done,
    /// 1: any failure without a number of its own.
    Failure,
    /// 2: wrong usage or configuration.
    Usage,
    /// 3: Slack refused the token.
    Credentials,
    /// 4: the command of `runbook run` was approved and could not be started.
    NotStarted,
    /// 5: denied or cancelled.
    Denied,
    /// 6: timed out or expired.
    Expired,
    /// The command's own code.
    Command(u8),
}

impl Exit {
    /// Every code, for the README.
    pub const ALL: &[Self] = &[
        Self::Done,
        Self::Failure,
        Self::Usage,
        Self::Credentials,
        Self::NotStarted,
        Self::Denied,
        Self::Expired,
    ];

    /// The process exit status.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failure => 1,
            Self::Usage => 2,
            Self::Credentials => 3,
            Self::NotStarted => 4,
            Self::Denied => 5,
            Self::Expired => 6,
            Self::Command(code) => code,
        }
    }

    /// In a few words, for `--help`.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done, approved, healthy",
            Self::Failure => "any other failure",
            Self::Usage => "usage or configuration",
            Self::Credentials => "Slack refused the credentials",
            Self::NotStarted => "the command could not be started",
            Self::Denied => "denied or cancelled",
            Self::Expired => "timed out or expired",
            Self::Command(_) => {
                "otherwise the command's own; 128 and the number of a signal that ended it"
            }
        }
    }
}

/// An error for the operator. Displays as `runbook: error: …`, then `runbook: hint: …` on a line
/// of its own when there is one.
#[derive(Debug)]
pub struct Complaint {
    what: String,
    hint: Option<String>,
    /// How the process ends because of it.
    pub exit: Exit,
}

impl Complaint {
    /// Something failed: exit 1.
    pub fn failure(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            hint: None,
            exit: Exit::Failure,
        }
    }

    /// The command line, the environment or the configuration is wrong: exit 2.
    pub fn usage(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            hint: None,
            exit: Exit::Usage,
        }
    }

    /// Ends the process in another way.
    #[must_use]
    pub fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// Says first what came of it.
    #[must_use]
    pub fn so(mut self, consequence: &str) -> Self {
        self.what = format!("{consequence}: {}", self.what);
        self
    }

    /// What is wrong, without the hint.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// What would help.
    pub fn help(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Adds what would help.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "runbook: error: {}", Printable(&self.what))?;
        self.hint
            .iter()
            .try_for_each(|hint| write!(f, "\nrunbook: hint: {}", Printable(hint)))
    }
}

/// Displays text from outside so that it can neither break a line nor steer a terminal: control
/// characters, line separators and direction marks appear as `\u{…}`.
pub struct Printable<'a>(pub &'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escaped(f, self.0, steers, |f, c| {
            if c.is_control() {
                write!(f, "{}", c.escape_default())
            } else {
                write!(f, "{}", c.escape_unicode())
            }
        })
    }
}

/// Displays JSON so that it can steer no terminal and is the same JSON: the format itself wants only
/// the oldest control characters escaped, and terminals obey more of them.
pub struct PrintableJson<'a>(pub &'a str);

impl fmt::Display for PrintableJson<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A line's end is between values; inside of text it is escaped already.
        let steers = |c| c != '\n' && steers(c);
        escaped(f, self.0, steers, |f, c| {
            write!(f, "\\u{:04x}", u32::from(c))
        })
    }
}

/// Writes what needs no escape in as large pieces as there are.
fn escaped(
    f: &mut fmt::Formatter<'_>,
    mut text: &str,
    needs: impl Fn(char) -> bool,
    escape: impl Fn(&mut fmt::Formatter<'_>, char) -> fmt::Result,
) -> fmt::Result {
    while let Some((at, c)) = text.char_indices().find(|(_, c)| needs(*c)) {
        f.write_str(&text[..at])?;
        escape(f, c)?;
        text = &text[at + c.len_utf8()..];
    }
    f.write_str(text)
}

/// Whether a character moves the cursor, ends a line or turns the direction of writing.
pub fn steers(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{61c}'
        )
}

/// Why the system refused, in our style: lower case, without the number, and in the same words
/// whatever the C library says.
pub fn reason(error: &io::Error) -> String {
    let known = match error.kind() {
        ErrorKind::AddrInUse => "address already in use",
        ErrorKind::AddrNotAvailable => "cannot assign requested address",
        ErrorKind::AlreadyExists => "file exists",
        ErrorKind::NotADirectory => "not a directory",
        ErrorKind::NotFound => "no such file or directory",
        ErrorKind::PermissionDenied => "permission denied",
        ErrorKind::ReadOnlyFilesystem => "read-only file system",
        ErrorKind::StorageFull => "no space left on device",
        _ if error.raw_os_error() == Some(EIO) => "input/output error",
        _ => {
            let text = error.to_string();
            if text.starts_with(LOOKUP) {
                return "host not found".to_owned();
            }
            let text = text.split(" (os error").next().unwrap_or(&text);
            let mut chars = text.chars();
            let first = chars.next().into_iter().flat_map(char::to_lowercase);
            return first.chain(chars).collect();
        }
    };
    known.to_owned()
}

/// A file that the configuration names cannot be read: exit 2.
pub fn cannot_read(what: &str, path: &Path, error: &io::Error) -> Complaint {
    let complaint = Complaint::usage(format!(
        "cannot read {what} {}: {}",
        path.display(),
        reason(error)
    ));
    match error.kind() {
        ErrorKind::PermissionDenied => complaint.hint("run as its owner, or let this user read it"),
        _ => complaint,
    }
}

/// A number of things: `1 day`, `2 days`.
pub fn counted(number: &impl fmt::Display, one: &str) -> String {
    let number = number.to_string();
    let more = if number == "1" { "" } else { "s" };
    format!("{number} {one}{more}")
}

/// ` (did you mean …?)` with the candidate nearest to `word`, or nothing when none is near.
pub fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    // That both are options does not make them near.
    let bare = |word: &str| word.trim_start_matches('-').to_lowercase();
    let word = bare(word);
    let near = candidates.into_iter().filter_map(|candidate| {
        let other = bare(candidate);
        let longest = other.len().max(word.len());
        let distance = strsim::damerau_levenshtein(&word, &other);
        (distance <= longest / 3 + 1 && distance < longest).then_some((distance, candidate))
    });
    let nearest = near
        .min()
        .map(|(_, candidate)| format!(" (did you mean {candidate}?)"));
    nearest.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_one_line_for_each_part_whatever_it_quotes() {
        let complaint = Complaint::usage("unknown option --a\nb\u{1b}[31m\u{202e}").hint("look");
        assert_eq!(
            complaint.to_string(),
            "runbook: error: unknown option --a\\nb\\u{1b}[31m\\u{202e}\nrunbook: hint: look"
        );
    }

    #[test]
    fn a_file_that_may_not_be_read_comes_with_what_would_help() {
        let error = io::Error::from(ErrorKind::PermissionDenied);
        assert_eq!(
            cannot_read("sign key", Path::new("/k"), &error).to_string(),
            "runbook: error: cannot read sign key /k: permission denied\n\
             runbook: hint: run as its owner, or let this user read it"
        );
    }

    #[test]
    fn a_name_that_does_not_resolve_is_said_without_the_c_librarys_words() {
        use std::net::ToSocketAddrs;
        let error = ("no-such-host.invalid", 1).to_socket_addrs().err();
        assert_eq!(
            error.map(|error| reason(&error)).as_deref(),
            Some("host not found")
        );
    }

    #[test]
    fn one_of_a_thing_is_one() {
        assert_eq!(counted(&1, "day"), "1 day");
        assert_eq!(counted(&-1, "day"), "-1 days");
    }

    #[test]
    fn a_near_word_is_offered_and_a_far_one_is_not() {
        assert_eq!(
            did_you_mean("prot", ["host", "port"]),
            " (did you mean port?)"
        );
        assert_eq!(did_you_mean("frobnicate", ["host", "port"]), "");
        assert_eq!(did_you_mean("-x", ["--id"]), "");
    }
}
