//! What a decision still owes the world. It stands in the approval's own document, written by the
//! same rename as the decision, so that no crash can part the two.

use serde::{Deserialize, Serialize};

use super::{Entry, Route};
use crate::clock::Timestamp;

/// A kind of consequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Effect {
    /// The request is shown in Slack.
    PostMessage,
    /// A Slack message shows what became of the request.
    UpdateMessage,
    /// A Slack message that shows something else than the request by now says so.
    RetireMessage,
    /// Whoever is to be notified is reminded in the request's thread.
    Remind,
    /// The agent is told at its `callbackUrl`.
    NotifyAgent,
}

impl Effect {
    /// Its name in the document, in logs and in metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::PostMessage => "postMessage",
            Self::UpdateMessage => "updateMessage",
            Self::RetireMessage => "retireMessage",
            Self::Remind => "remind",
            Self::NotifyAgent => "notifyAgent",
        }
    }
}

/// One entry of `auditOwed`: what the audit log is yet to tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unrecorded {
    /// The process that has promised to record it.
    pub owner: String,
    /// Whether another process may have recorded it, and died before it could say so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub inherited: bool,
    pub entry: Entry,
}

/// One entry of `effectsOwed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owed {
    pub effect: Effect,
    /// The process that has promised to do it; another one takes over when that one is dead.
    pub owner: String,
    /// Since when it is owed.
    pub since: Timestamp,
    /// Which message it is about.
    #[serde(default)]
    pub route: Route,
}

impl Owed {
    /// Whether it is the same consequence, whoever owes it since when.
    pub fn is_same(&self, other: &Self) -> bool {
        self.effect == other.effect && self.route == other.route
    }
}
