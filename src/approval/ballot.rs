//! A ballot: one click, as the domain sees it.

use serde::{Deserialize, Serialize};

use super::{Approval, ApprovalId, Digest, Person, Policy, Sent, Status};
use crate::clock::{self, Timestamp};

/// One click.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ballot {
    pub id: ApprovalId,
    pub choice: Choice,
    pub voter: Voter,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub route: Route,
    /// What the message showed that was clicked, when it was ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Digest>,
    /// Whether its file may come after its message, as the RunbookAI agent's does.
    pub may_precede_file: bool,
    /// Lets us open one dialog, within seconds.
    #[serde(skip)]
    pub trigger_id: Option<String>,
    /// For the record.
    #[serde(default)]
    pub sent: Sent,
    /// When it reached us.
    #[serde(serialize_with = "clock::precisely")]
    pub at: Timestamp,
}

impl Ballot {
    /// Whether it denies without the reason that a policy asks for.
    pub fn is_unexplained(&self, policy: &Policy) -> bool {
        let reason = self.reason.as_deref().unwrap_or_default();
        self.choice == Choice::Deny && policy.require_denial_reason && reason.trim().is_empty()
    }
}

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

impl Voter {
    /// The ballot that they would cast if they approved now.
    pub fn supposed_approval(&self, approval: &Approval, now: Timestamp) -> Ballot {
        Ballot {
            id: approval.id().clone(),
            choice: Choice::Approve,
            voter: self.clone(),
            reason: None,
            route: Route::default(),
            seen: None,
            may_precede_file: false,
            trigger_id: None,
            sent: Sent::default(),
            at: now,
        }
    }
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
