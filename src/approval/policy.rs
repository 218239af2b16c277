//! Who may decide what.

use std::fmt;

use super::Risk;

/// A Slack user id: `U` or `W`, then capitals and digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UserId(String);

impl UserId {
    /// `None` for anything else, such as a name.
    pub fn parse(text: &str) -> Option<Self> {
        let tail = text.strip_prefix(['U', 'W'])?;
        let well_formed = !tail.is_empty()
            && text.len() <= 32
            && tail
                .bytes()
                .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
        well_formed.then(|| Self(text.to_owned()))
    }

    /// Reads an id that stands bare or as Slack's mention, `<@U…>` or `<@U…|name>`.
    pub fn parse_mention(text: &str) -> Option<Self> {
        let text = text.trim();
        let inner = text
            .strip_prefix("<@")
            .and_then(|rest| rest.strip_suffix('>'));
        Self::parse(inner.map_or(text, |inner| inner.split('|').next().unwrap_or(inner)))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The rule of one risk level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LevelRule {
    /// Who may decide; nobody listed means anyone of the workspace who sees the message.
    pub users: Vec<UserId>,
    /// How many different people must approve.
    pub min_approvals: usize,
    /// Whether people from other workspaces (Slack Connect) may decide.
    pub allow_external: bool,
}

impl Default for LevelRule {
    fn default() -> Self {
        Self {
            users: Vec::new(),
            min_approvals: 1,
            allow_external: false,
        }
    }
}

/// The rules, settled. The default: anyone of the workspace, but not who asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// One rule a level, in the order of [`Risk::ALL`].
    pub levels: [LevelRule; 4],
    /// Whether who asked may also decide.
    pub allow_self_approval: bool,
    /// Whether a critical request needs two different people.
    pub multi_approver_for_critical: bool,
}

impl Policy {
    /// The rule for a level.
    pub fn rule(&self, risk: Risk) -> &LevelRule {
        &self.levels[risk as usize]
    }

    /// How many different people must approve at a level.
    pub fn approvals_needed(&self, risk: Risk) -> usize {
        let least = if risk == Risk::Critical && self.multi_approver_for_critical {
            2
        } else {
            1
        };
        self.rule(risk).min_approvals.max(least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_id_is_no_name() {
        for good in [
            "U061F7AUR",
            "W012A3CDE",
            "<@U061F7AUR>",
            "<@U061F7AUR|alice>",
            " <@U061F7AUR> ",
        ] {
            assert!(UserId::parse_mention(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "U",
            "alice",
            "@alice",
            "u061f7aur",
            "S061F7AUR",
            "<@U1> <!channel>",
            "<@U1",
        ] {
            assert!(UserId::parse_mention(bad).is_none(), "{bad}");
        }
    }
}
