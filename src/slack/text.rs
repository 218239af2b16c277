//! Text as Slack wants it: escaped, cut to its limits, and as the objects of Block Kit.
//!
//! Block Kit's limits count characters after `&`, `<` and `>` have become entities; what all blocks of a message may
//! have together is weighed in `room`. mrkdwn cannot
//! escape backticks, `*` or `_`, so what came from a file or a person stands in `plain_text` or in
//! a preformatted block, where nothing is markup; mrkdwn has only our own words, checked ids and, for
//! who is no Slack user, an escaped name. Source: <https://docs.slack.dev/reference/block-kit/blocks>

use std::fmt;

use serde_json::{Value, json};

use crate::approval::{GroupId, UserId};
use crate::complaint::steers;

/// What a short line may have at most, such as who asked.
pub(super) const LINE: usize = 300;

/// Whoever is named so that they are notified. Displays as mrkdwn has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Mention {
    User(UserId),
    Group(GroupId),
}

impl Mention {
    /// `None` for anything but an id, such as a name.
    pub fn parse(text: &str) -> Option<Self> {
        let group = || GroupId::parse(text).map(Self::Group);
        UserId::parse(text).map(Self::User).or_else(group)
    }
}

impl fmt::Display for Mention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(id) => write!(f, "<@{id}>"),
            Self::Group(id) => write!(f, "<!subteam^{id}>"),
        }
    }
}

/// A person as a mention when the id is Slack's, else by what counts of them: `cli:alice`.
pub(super) fn mention(id: &str, limit: usize) -> String {
    UserId::parse(id).map_or_else(
        || escape(&cut(id, limit)),
        |id| Mention::User(id).to_string(),
    )
}

pub(super) fn mrkdwn(text: &str) -> Value {
    json!({ "type": "mrkdwn", "text": text })
}

pub(super) fn plain(text: &str) -> Value {
    json!({ "type": "plain_text", "text": text, "emoji": false })
}

/// `&`, `<` and `>` as the entities that Slack asks for.
pub(super) fn escape(text: &str) -> String {
    text.chars()
        .fold(String::with_capacity(text.len()), |mut escaped, c| {
            match entity(c) {
                Some(entity) => escaped.push_str(entity),
                None => escaped.push(c),
            }
            escaped
        })
}

fn entity(c: char) -> Option<&'static str> {
    match c {
        '&' => Some("&amp;"),
        '<' => Some("&lt;"),
        '>' => Some("&gt;"),
        _ => None,
    }
}

/// Foreign text, with what would turn the direction of writing shown as it is written, cut so that it
/// has at most `limit` characters once escaped, `…` included.
pub(super) fn cut(text: &str, limit: usize) -> String {
    let mut legible = String::new();
    // Every character takes room: those beyond would not be looked at.
    for c in text.chars().take(limit + 1) {
        if steers(c) && !matches!(c, '\n' | '\t') {
            legible.extend(c.escape_unicode());
        } else {
            legible.push(c);
        }
    }
    shorten(&legible, limit, |c| entity(c).map_or(1, str::len))
}

/// Cuts text that is escaped already; an entity in the middle of the cut goes whole.
pub(super) fn cut_escaped(text: &str, limit: usize) -> String {
    let mut short = shorten(text, limit, |_| 1);
    if short.len() < text.len()
        && let Some(start) = short.rfind('&')
        && !short[start..].contains(';')
    {
        short.truncate(start);
        short.push('…');
    }
    short
}

pub(super) fn shorten(text: &str, limit: usize, width: impl Fn(char) -> usize) -> String {
    let mut room = limit;
    let mut last_fit = 0;
    for (at, c) in text.char_indices() {
        let Some(left) = room.checked_sub(width(c)) else {
            return format!("{}…", &text[..last_fit]);
        };
        room = left;
        if room >= 1 {
            last_fit = at + c.len_utf8();
        }
    }
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_counts_entities_and_ends_in_an_ellipsis() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 3), "ab…");
        assert_eq!(cut("a<b", 3), "a…");
        assert_eq!(cut("ééé", 2), "é…");
        assert_eq!(cut("a\u{202e}b\nc", 99), "a\\u{202e}b\nc");
        assert_eq!(cut_escaped("ab&amp;cd", 5), "ab…");
        assert_eq!(cut_escaped("ab&amp;cd", 8), "ab&amp;…");
    }
}
