//! The section `safety`: who may decide.

use std::time::Duration;

use super::file::ConfigFile;
use super::keys::LEVELS;
use crate::approval::{LevelRule, Policy, Risk, UserId};
use crate::complaint::Complaint;

/// The rules under `safety`. A level takes what it does not say itself from `default`.
pub(super) fn policy(file: &ConfigFile) -> Result<Policy, Complaint> {
    let rule = |level: &str, base: &LevelRule| {
        let path = |name: &str| format!("safety.approvers.{level}.{name}");
        let users = file.list(
            &path("users"),
            "a list of Slack user ids (U… or W…), not names",
            UserId::parse,
        )?;
        let least = file.parsed(&path("minApprovals"), "a number from 1 to 100", |text| {
            text.parse().ok().filter(|n| (1..=100).contains(n))
        })?;
        if users.as_ref().is_some_and(Vec::is_empty) {
            return Err(
                file.complain_about(&path("users"), "names nobody; leave it out to allow anyone")
            );
        }
        let rule = LevelRule {
            users: users.map_or_else(|| base.users.clone(), without_doubles),
            min_approvals: least.unwrap_or(base.min_approvals),
            allow_external: file
                .flag(&path("allowExternal"))?
                .unwrap_or(base.allow_external),
        };
        Ok::<_, Complaint>(rule)
    };
    refuse_what_is_not_enforced(file)?;
    let base = rule(LEVELS[0], &LevelRule::default())?;
    let mut policy = Policy {
        allow_self_approval: file.flag("safety.allowSelfApproval")?.unwrap_or(false),
        multi_approver_for_critical: file
            .flag("safety.multiApproverForCritical")?
            .unwrap_or(false),
        ..Policy::default()
    };
    for (place, risk) in policy.levels.iter_mut().zip(Risk::ALL) {
        *place = rule(risk.word(), &base)?;
    }
    for risk in Risk::ALL {
        let mut listed: Vec<&str> = policy.rule(risk).users.iter().map(UserId::as_str).collect();
        listed.sort_unstable();
        listed.dedup();
        let (listed, needed) = (listed.len(), policy.approvals_needed(risk));
        if listed > 0 && listed < needed {
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

/// How long a request stays open that does not say.
pub(super) fn timeout(file: &ConfigFile) -> Result<Duration, Complaint> {
    const DEFAULT: u64 = 300_000;
    const LONGEST: u64 = 366 * 24 * 3600 * 1000;
    let expected = "a number of milliseconds, from 1000 to a year";
    let millis = file.parsed("safety.approvalTimeoutMs", expected, |text| {
        let millis = text.parse().ok();
        millis.filter(|millis| (1000..=LONGEST).contains(millis))
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

fn without_doubles(mut users: Vec<UserId>) -> Vec<UserId> {
    users.sort_unstable();
    users.dedup();
    users
}

/// Rules that this version would not hold up stop the start: it must not look as if they held.
fn refuse_what_is_not_enforced(file: &ConfigFile) -> Result<(), Complaint> {
    let refuse = |path: &str, value: &str| {
        Err(file.complain_about(path, &format!("this version cannot enforce {value}")))
    };
    if file.flag("safety.requireDenialReason")? == Some(true) {
        return refuse("safety.requireDenialReason", "a reason for each denial");
    }
    for level in LEVELS {
        let groups = format!("safety.approvers.{level}.groups");
        if file
            .list(&groups, "a list of Slack user group ids", |id| {
                Some(id.to_owned())
            })?
            .is_some_and(|g| !g.is_empty())
        {
            return refuse(&groups, "user groups");
        }
        let guests = format!("safety.approvers.{level}.allowGuests");
        if file.flag(&guests)? == Some(false) {
            return refuse(&guests, "the exclusion of guests");
        }
    }
    Ok(())
}
