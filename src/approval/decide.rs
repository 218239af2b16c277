//! The decision itself: one ballot, one approval, one policy, one clock → one verdict.

use serde::{Deserialize, Serialize};

use super::{Approval, ApprovalId, Person, Policy, Status, UserId};
use crate::clock::{self, Timestamp};

/// What a person chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Choice {
    Approve,
    Deny,
}

impl Choice {
    /// The word in files, logs and metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Deny => "deny",
        }
    }

    /// The status that it asks for.
    pub fn status(self) -> Status {
        match self {
            Self::Approve => Status::Approved,
            Self::Deny => Status::Denied,
        }
    }
}

/// The person who votes, and what the policy asks about them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Voter {
    pub person: Person,
    /// Whether they belong to another workspace (Slack Connect).
    pub external: bool,
}

/// Where the outcome can be shown: the message by channel and `ts`, or through `response_url`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Route {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ts: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_url: Option<String>,
}

/// One click, as the domain sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ballot {
    pub id: ApprovalId,
    pub choice: Choice,
    pub voter: Voter,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub route: Route,
    /// Whether its file may come after its message, as the RunbookAI agent's does.
    pub may_precede_file: bool,
    /// When it reached us.
    #[serde(serialize_with = "clock::precisely")]
    pub at: Timestamp,
}

/// What a ballot amounts to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It decides: the approval takes this status.
    Decided(Status),
    /// It counts, and more people must approve.
    Counted { approvals: usize, needed: usize },
    /// It came too late: the approval takes the status `expired`.
    Lapsed,
    /// It changes nothing.
    Refused(Refusal),
}

/// Why a ballot changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The approval is final already.
    Final {
        status: Status,
        by: Option<Person>,
        at: Option<Timestamp>,
    },
    /// The policy names others.
    NotAnApprover,
    /// The person is from another workspace.
    External,
    /// The person asked for it.
    OwnRequest,
    /// The person has approved already.
    VotedAlready { approvals: usize, needed: usize },
}

/// Decides. Finality comes first, then expiry, then who votes, then the count.
pub fn decide(approval: &Approval, ballot: &Ballot, policy: &Policy, now: Timestamp) -> Verdict {
    let voter = &ballot.voter;
    if approval.status() != Status::Pending {
        return Verdict::Refused(Refusal::Final {
            status: approval.status(),
            by: approval.decided_by(),
            at: approval.decided_at(),
        });
    }
    if approval.expires_at().is_some_and(|expiry| expiry <= now) {
        return Verdict::Lapsed;
    }
    let rule = policy.rule(approval.risk());
    if voter.external && !rule.allow_external {
        return Verdict::Refused(Refusal::External);
    }
    let is_listed =
        |id: &str| rule.users.is_empty() || rule.users.iter().any(|user| user.as_str() == id);
    if !is_listed(&voter.person.id) {
        return Verdict::Refused(Refusal::NotAnApprover);
    }
    if ballot.choice == Choice::Deny {
        return Verdict::Decided(Status::Denied);
    }
    let asked = approval.text("requestedBy").and_then(UserId::parse_mention);
    let is_own = |id: &str| {
        !policy.allow_self_approval && asked.as_ref().is_some_and(|asked| asked.as_str() == id)
    };
    if is_own(&voter.person.id) {
        return Verdict::Refused(Refusal::OwnRequest);
    }
    let needed = policy.approvals_needed(approval.risk());
    // Votes count by the policy of now, not of when they were cast.
    let mut people: Vec<&str> = approval
        .approvers()
        .filter(|id| is_listed(id) && !is_own(id))
        .collect();
    people.sort_unstable();
    people.dedup();
    if people.contains(&voter.person.id.as_str()) && people.len() < needed {
        return Verdict::Refused(Refusal::VotedAlready {
            approvals: people.len(),
            needed,
        });
    }
    match people.len() + 1 {
        approvals if approvals < needed => Verdict::Counted { approvals, needed },
        _ => Verdict::Decided(Status::Approved),
    }
}

impl Approval {
    /// Writes a verdict into the document. `true` when that changed it.
    pub fn record(&mut self, ballot: &Ballot, verdict: &Verdict, now: Timestamp) -> bool {
        match verdict {
            Verdict::Decided(status) => {
                self.add_vote(ballot, now);
                self.finish(
                    *status,
                    Some(&ballot.voter.person),
                    ballot.reason.as_deref(),
                    now,
                );
            }
            Verdict::Counted { .. } => self.add_vote(ballot, now),
            Verdict::Lapsed => self.finish(Status::Expired, None, None, now),
            Verdict::Refused(_) => return false,
        }
        true
    }

    /// Makes a pending approval whose time is over `expired`. `true` when that changed it.
    pub fn expire(&mut self, now: Timestamp) -> bool {
        let over = self.status() == Status::Pending
            && self.expires_at().is_some_and(|expiry| expiry <= now);
        if over {
            self.finish(Status::Expired, None, None, now);
        }
        over
    }
}
