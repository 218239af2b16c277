//! How much of the foreign texts there is room for in one message. Blocks go in as they would be
//! made with texts of any length; out they come with the longest texts cut as far as it takes, and no
//! further, whatever signs they hold.
//!
//! Slack refuses what is too long with `msg_blocks_too_long` and does not say what it counts: 11,341
//! characters in many small blocks were too many, 13,297 in one were not. So we count all JSON of the
//! blocks, as the longest of the usual ways to write it has it.
//! Sources: <https://github.com/slackapi/bolt-js/issues/2509> and
//! <https://github.com/slackapi/bolt-js/issues/2867>

use serde_json::Value;

use super::text::{cut, mention, shorten};

/// What all blocks of a message may weigh.
const BUDGET: usize = 12_500;
/// Characters that every text keeps: its label, and how it begins.
const LEAST: usize = 16;
/// Characters of any text, at most; more than any one has room for.
const MOST: usize = 4096;

/// The most characters of any one foreign text. A text may have a lower limit of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room(usize);

impl Room {
    /// A foreign text, legible and cut.
    pub(super) fn cut(self, text: &str, limit: usize) -> String {
        cut(text, limit.min(self.0))
    }

    /// A person, as [`mention`] has it.
    pub(super) fn mention(self, id: &str, limit: usize) -> String {
        mention(id, limit.min(self.0))
    }
}

/// What is made with as much room for each foreign text as the blocks in it allow.
pub(super) fn fit<T>(make: impl Fn(Room) -> T, blocks: impl Fn(&T) -> &[Value]) -> T {
    let whole = make(Room(MOST));
    if weight(blocks(&whole)) <= BUDGET {
        return whole;
    }
    let (mut fits, mut exceeds) = (LEAST, MOST);
    let mut fitting = make(Room(fits));
    while fits + 1 < exceeds {
        let middle = fits.midpoint(exceeds);
        let closer = make(Room(middle));
        if weight(blocks(&closer)) <= BUDGET {
            (fits, fitting) = (middle, closer);
        } else {
            exceeds = middle;
        }
    }
    fitting
}

/// Cuts a text so that it weighs no more than this in a block.
pub(super) fn lighten(text: &str, limit: usize) -> String {
    let in_string = |c| match c {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..'\u{20}' => "\\u0000".len(),
        c => longest(c),
    };
    shorten(text, limit, in_string)
}

fn weight(blocks: &[Value]) -> usize {
    blocks
        .iter()
        .map(|block| weigh(&block.to_string()) + 1)
        .sum()
}

/// The length of JSON in which all that may be escaped is: entities, `\/`, and `\u4e00`.
pub(super) fn weigh(json: &str) -> usize {
    json.chars().map(longest).sum()
}

fn longest(c: char) -> usize {
    match c {
        '&' => "&amp;".len(),
        '<' | '>' => "&lt;".len(),
        '/' => "\\/".len(),
        c if c.is_ascii() => 1,
        c => "\\u4e00".len() * c.len_utf16(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_longest_texts_are_cut_and_only_as_far_as_it_takes() {
        for letter in ["x", "\n", "\"", "<", "é", "🔥", "\u{301}"] {
            let (long, short) = (letter.repeat(4000), letter.repeat(30));
            let texts = [&long, &short, &long, &long, &long];
            let make = |room: Room| texts.map(|text| json!({ "text": room.cut(text, 5000) }));
            let blocks = fit(make, |blocks| blocks);
            assert_eq!(blocks[1]["text"], *short, "{letter:?}");
            assert!(blocks[2..].iter().all(|text| *text == blocks[0]));
            // A letter more of each would be too much.
            let enough = BUDGET - 4 * weigh("🔥")..=BUDGET;
            assert!(enough.contains(&weight(&blocks)), "{letter:?}");
        }
    }

    #[test]
    fn a_text_is_weighed_as_the_longest_json_has_it() {
        for (text, heavy) in [
            ("x", 1),
            ("\n", 2),
            ("\u{1}", 6),
            ("&", 5),
            ("/", 2),
            ("é", 6),
            ("🔥", 12),
        ] {
            assert_eq!(weigh(&json!(text).to_string()) - 2, heavy, "{text:?}");
            assert_eq!(lighten(&text.repeat(9), 5 * heavy), text.repeat(4) + "…");
        }
    }
}
