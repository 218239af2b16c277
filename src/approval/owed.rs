//! What a decision still owes the world. It stands in the approval's own document, written by the
//! same rename as the decision, so that no crash can part the two.

use serde::{Deserialize, Serialize};

use super::Route;
use crate::clock::Timestamp;

/// A kind of consequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Effect {
    /// The Slack message shows what became of the request.
    UpdateMessage,
}

impl Effect {
    /// Its name in the document, in logs and in metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::UpdateMessage => "updateMessage",
        }
    }
}

/// One entry of `effectsOwed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owed {
    pub effect: Effect,
    /// The process that has promised to do it; another one takes over when that one is dead.
    pub owner: String,
    /// Since when it is owed.
    pub since: Timestamp,
    /// Where it goes.
    pub route: Route,
}
