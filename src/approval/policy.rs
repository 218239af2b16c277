//! Who may decide what.

use std::collections::HashMap;
use std::fmt;

use serde_json::{Map, Value, json};

use super::{Approval, Objection, Risk, Voter};

/// Whether a text is an id of Slack's that begins with one of these letters: capitals and digits follow.
pub fn is_slack_id(text: &str, letters: &[char]) -> bool {
    let tail = text.strip_prefix(letters).unwrap_or_default();
    let of_id = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit();
    !tail.is_empty() && text.len() <= 32 && tail.bytes().all(of_id)
}

/// A Slack user id: `U` or `W`, then capitals and digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(String);

impl UserId {
    /// `None` for anything else, such as a name.
    pub fn parse(text: &str) -> Option<Self> {
        is_slack_id(text, &['U', 'W']).then(|| Self(text.to_owned()))
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

/// The id of a Slack user group: `S`, then capitals and digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(String);

impl GroupId {
    /// `None` for anything else, such as a handle.
    pub fn parse(text: &str) -> Option<Self> {
        is_slack_id(text, &['S']).then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The rule of one risk level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LevelRule {
    /// Who may decide, beside the members of the groups; neither listed means anyone of the workspace
    /// who sees the message.
    pub users: Vec<UserId>,
    pub groups: Vec<GroupId>,
    /// How many different people must approve.
    pub min_approvals: usize,
    /// Whether people from other workspaces (Slack Connect) may decide.
    pub allow_external: bool,
    /// Whether guests of the workspace may decide.
    pub allow_guests: bool,
}

impl LevelRule {
    /// Whether anyone of the workspace may decide.
    pub fn is_open(&self) -> bool {
        self.users.is_empty() && self.groups.is_empty()
    }

    /// Whether a person is listed by name.
    pub fn lists(&self, id: &str) -> bool {
        self.users.iter().any(|user| user.as_str() == id)
    }
}

impl Default for LevelRule {
    fn default() -> Self {
        Self {
            users: Vec::new(),
            groups: Vec::new(),
            min_approvals: 1,
            allow_external: false,
            allow_guests: true,
        }
    }
}

/// What Slack has said lately about groups and people, as far as it was asked. What it could not
/// say is absent, and whatever depends on that is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Knowledge {
    /// The members of groups.
    pub members: HashMap<GroupId, Vec<String>>,
    /// Whether people are guests.
    pub guests: HashMap<String, bool>,
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
    /// Whether a denial must say why.
    pub require_denial_reason: bool,
}

impl Policy {
    /// The rule for a level.
    pub fn rule(&self, risk: Risk) -> &LevelRule {
        &self.levels[risk as usize]
    }

    /// The rules for the record, by the names of their keys in the configuration.
    pub fn to_value(&self) -> Value {
        let rule = |risk: &Risk| {
            let rule = self.rule(*risk);
            let users: Vec<&str> = rule.users.iter().map(UserId::as_str).collect();
            let groups: Vec<&str> = rule.groups.iter().map(GroupId::as_str).collect();
            let rule = json!({
                "users": users,
                "groups": groups,
                "minApprovals": self.approvals_needed(*risk),
                "allowExternal": rule.allow_external,
                "allowGuests": rule.allow_guests,
            });
            (risk.word().to_owned(), rule)
        };
        json!({
            "approvers": Risk::ALL.iter().map(rule).collect::<Map<_, _>>(),
            "allowSelfApproval": self.allow_self_approval,
            "requireDenialReason": self.require_denial_reason,
        })
    }

    /// Whether any rule depends on what Slack says of groups or guests.
    pub fn asks_slack(&self) -> bool {
        self.levels
            .iter()
            .any(|rule| !rule.groups.is_empty() || !rule.allow_guests)
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

/// Whether a person may decide by a rule, as far as that does not depend on the request.
///
/// # Errors
/// Why not. What Slack would have to say and has not is `Unverified`.
pub fn admit(rule: &LevelRule, voter: &Voter, known: &Knowledge) -> Result<(), Objection> {
    let id = voter.person.id.as_str();
    if voter.external && !rule.allow_external {
        return Err(Objection::External);
    }
    match is_listed(rule, id, known) {
        Some(true) => {}
        Some(false) => return Err(Objection::NotAnApprover),
        None => return Err(Objection::Unverified),
    }
    match known.guests.get(id) {
        _ if rule.allow_guests => Ok(()),
        Some(false) => Ok(()),
        Some(true) => Err(Objection::Guest),
        None => Err(Objection::Unverified),
    }
}

/// Whether a rule lists a person; `None` when a group that might is not known.
pub fn is_listed(rule: &LevelRule, id: &str, known: &Knowledge) -> Option<bool> {
    if rule.is_open() || rule.lists(id) {
        return Some(true);
    }
    let mut members = rule.groups.iter().map(|group| known.members.get(group));
    let is_member = |members: &Vec<String>| members.iter().any(|member| member == id);
    if members.clone().flatten().any(is_member) {
        return Some(true);
    }
    members.all(|members| members.is_some()).then_some(false)
}

/// Tells whether a person may not approve because they asked for it.
pub(super) fn own_request(approval: &Approval, policy: &Policy) -> impl Fn(&str) -> bool {
    let asked = approval.text("requestedBy").and_then(UserId::parse_mention);
    let asked = asked.filter(|_| !policy.allow_self_approval);
    move |id| asked.as_ref().is_some_and(|asked| asked.as_str() == id)
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
