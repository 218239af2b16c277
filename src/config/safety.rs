//! The section `safety`: who may decide.

use std::time::Duration;

use super::file::ConfigFile;
use super::keys::LEVELS;
use crate::approval::{GroupId, LevelRule, Policy, Risk, UserId};
use crate::complaint::Complaint;

/// The rules under `safety`. A level takes what it does not say itself from `default`.
pub(super) fn policy(file: &ConfigFile) -> Result<Policy, Complaint> {
    let base = rule(file, LEVELS[0], &LevelRule::default())?;
    let flag = |name: &str| Ok::<_, Complaint>(file.flag(name)?.unwrap_or(false));
    let mut policy = Policy {
        allow_self_approval: flag("safety.allowSelfApproval")?,
        multi_approver_for_critical: flag("safety.multiApproverForCritical")?,
        require_denial_reason: flag("safety.requireDenialReason")?,
        ..Policy::default()
    };
    for (place, risk) in policy.levels.iter_mut().zip(Risk::ALL) {
        *place = rule(file, risk.word(), &base)?;
    }
    for risk in Risk::ALL {
        let rule = policy.rule(risk);
        let (listed, needed) = (rule.users.len(), policy.approvals_needed(risk));
        // How many people a group has only Slack knows.
        if !rule.is_open() && rule.groups.is_empty() && listed < needed {
            let what = format!("{needed} people must approve, but only {listed} may");
            // The list may be inherited; then what asks for more than it has is the place to look.
            let level = risk.word();
            let places = [
                format!("safety.approvers.{level}.users"),
                format!("safety.approvers.{level}.minApprovals"),
                format!("safety.approvers.{}.users", LEVELS[0]),
            ];
            let place = places.iter().find(|path| file.has(path));
            return Err(file.complain_about(place.unwrap_or(&places[0]), &what));
        }
    }
    Ok(policy)
}

/// The rule of one level.
fn rule(file: &ConfigFile, level: &str, base: &LevelRule) -> Result<LevelRule, Complaint> {
    let path = |name: &str| format!("safety.approvers.{level}.{name}");
    let users = file.list(
        &path("users"),
        "a list of Slack user ids (U… or W…), not names",
        UserId::parse,
    )?;
    let groups = file.list(
        &path("groups"),
        "a list of Slack user group ids (S…), not handles",
        GroupId::parse,
    )?;
    let least = file.parsed(&path("minApprovals"), "a number from 1 to 100", |text| {
        text.parse().ok().filter(|n| (1..=100).contains(n))
    })?;
    let nobody = "names nobody; leave it out to allow anyone";
    if users.as_ref().is_some_and(Vec::is_empty) {
        return Err(file.complain_about(&path("users"), nobody));
    }
    if groups.as_ref().is_some_and(Vec::is_empty) && users.is_none() && base.users.is_empty() {
        return Err(file.complain_about(&path("groups"), nobody));
    }
    let flag = |name: &str| file.flag(&path(name));
    Ok(LevelRule {
        users: users.map_or_else(|| base.users.clone(), without_doubles),
        groups: groups.map_or_else(|| base.groups.clone(), without_doubles),
        min_approvals: least.unwrap_or(base.min_approvals),
        allow_external: flag("allowExternal")?.unwrap_or(base.allow_external),
        allow_guests: flag("allowGuests")?.unwrap_or(base.allow_guests),
    })
}

/// How long a request stays open that does not say.
pub(super) fn timeout(file: &ConfigFile) -> Result<Duration, Complaint> {
    const DEFAULT: u64 = 300_000;
    const LONGEST: u64 = 366 * 24 * 3600 * 1000;
    let expected = "a number of milliseconds, from 1 to a year";
    let millis = file.parsed("safety.approvalTimeoutMs", expected, |text| {
        let millis = text.parse().ok();
        millis.filter(|millis| (1..=LONGEST).contains(millis))
    })?;
    Ok(Duration::from_millis(millis.unwrap_or(DEFAULT)))
}

/// The levels that need a human; all of them when the file does not say.
pub(super) fn require_approval(file: &ConfigFile) -> Result<Vec<Risk>, Complaint> {
    let expected = "a list of risk levels: low, medium, high, critical";
    let levels = file.list("safety.requireApproval", expected, |text| {
        // As the RunbookAI agent names them.
        Risk::parse(text.strip_suffix("_risk").unwrap_or(text))
    })?;
    Ok(levels.unwrap_or_else(|| Risk::ALL.to_vec()))
}

fn without_doubles<T: Ord>(mut ids: Vec<T>) -> Vec<T> {
    ids.sort_unstable();
    ids.dedup();
    ids
}
