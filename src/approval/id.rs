//! The name of an approval: the one kind of outside text that becomes a file's name.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};

/// `^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`: no dot, no separator, no leading dash, so that it can be
/// part of a path, a log line or a command without harm.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct ApprovalId(Box<str>);

impl ApprovalId {
    /// Longest id, in bytes.
    const LONGEST: usize = 64;

    /// `None` for anything that is no id.
    pub fn parse(text: &str) -> Option<Self> {
        let well_formed = text.len() <= Self::LONGEST
            && text.bytes().next()?.is_ascii_alphanumeric()
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        well_formed.then(|| Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ApprovalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ApprovalId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom("not an approval id"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_short_and_cannot_leave_a_directory() {
        for good in ["apr-abc123", "a", "0", "A_b-", &"x".repeat(64)] {
            assert!(ApprovalId::parse(good).is_some(), "{good}");
        }
        let bad = [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "a\\b",
            "-rf",
            "_x",
            "a.json",
            "a b",
            "a\0",
            "ä",
            "a\n",
            &"x".repeat(65),
        ];
        for bad in bad {
            assert!(ApprovalId::parse(bad).is_none(), "{bad:?}");
        }
    }
}
