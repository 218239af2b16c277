//! The domain: one request for a human's yes or no, and what may happen to it. Pure: no file,
//! socket or clock is touched here.
//!
//! An [`Approval`] is its JSON document with the meaning of the known fields beside it. What we
//! do not know is kept, in place and value, through every rewrite.

mod ballot;
mod canonical;
mod command;
mod decide;
mod digest;
mod document;
mod entry;
mod id;
mod json;
mod message;
mod owed;
mod policy;
mod reminder;
mod signing;
mod vote;

pub use ballot::{Ballot, Choice, Route, Voter};
pub use command::{CommandLine, Run};
pub use decide::{Mandate, Objection, Verdict, decide};
pub use digest::Digest;
pub use document::{Approval, Damage};
pub use entry::{Entry, Event, Fingerprint, Origin, Principal, Sent, Station};
pub use id::ApprovalId;
pub use json::parse_object;
pub use owed::{Effect, Owed, Unrecorded};
pub use policy::{GroupId, Knowledge, LevelRule, Policy, UserId, admit, is_listed, is_slack_id};
pub use reminder::OpenLife;
pub use signing::{Progress, SEED, SignKey, VerifyKey};
pub use vote::Vote;

use serde::{Deserialize, Serialize};

/// Where an approval stands. Everything but `Pending` is final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Pending,
    Approved,
    Denied,
    Expired,
    Cancelled,
}

impl Status {
    const ALL: [Self; 5] = [
        Self::Pending,
        Self::Approved,
        Self::Denied,
        Self::Expired,
        Self::Cancelled,
    ];

    /// The word in the file.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Denied => "denied",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.word() == word)
    }
}

/// How much is at stake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Risk {
    Low,
    Medium,
    High,
    Critical,
}

impl Risk {
    /// Every level, lowest first.
    pub const ALL: [Self; 4] = [Self::Low, Self::Medium, Self::High, Self::Critical];

    /// The word in files and configuration.
    pub fn word(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }

    /// Reads a level; capitals do not matter.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|risk| risk.word().eq_ignore_ascii_case(word))
    }
}

/// A person as Slack names them, or whoever else decided. `id` is what counts; the names are for
/// people to read and prove nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    pub id: String,
    pub username: String,
    pub name: String,
}
