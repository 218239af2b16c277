//! The files of the RunbookAI agent, which knows nothing of ours.
//!
//! It posts its own message, writes `{id}_pending.json` and polls `{id}.json` for an answer, which
//! it deletes. What we decide about such a request stands in an approval of our own under
//! `.runbookai/` (the intent: votes, outcome, effects owed), kept as a tombstone for a day. Its
//! answer is made ready beside the intent before that is written, and delivered by one rename:
//! when the ready file is gone, the answer was given, and it is never given twice.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::approval::{Approval, ApprovalId, Status};
use crate::clock::Timestamp;

/// How long the agent waits for an answer, from `createdAt`.
pub(super) const PATIENCE: Duration = Duration::from_secs(300);
/// How long a decided intent is kept.
pub(super) const TOMBSTONE: Duration = Duration::from_secs(24 * 3600);
/// The folder of the intents.
pub(super) const FOLDER: &str = ".runbookai";

/// The end of the name of the agent's request, before `.json`.
pub(super) const REQUEST: &str = "_pending";

/// A file of the agent's protocol, told from an approval by what it holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum AgentFile {
    Request { created_at: Timestamp },
    Answer,
}

impl AgentFile {
    /// Recognises the agent's files; `None` for anything else.
    pub(super) fn recognise(fields: &Map<String, Value>) -> Option<Self> {
        if fields.contains_key("operation") || fields.contains_key("status") {
            return None;
        }
        if fields.get("approved").is_some_and(Value::is_boolean) {
            return Some(Self::Answer);
        }
        fields.get("mutationId")?.as_str()?;
        let created_at = Timestamp::deserialize(fields.get("createdAt")?).ok()?;
        Some(Self::Request { created_at })
    }
}

/// The name of the agent's request.
pub(super) fn request_name(id: &ApprovalId) -> String {
    format!("{id}{REQUEST}.json")
}

/// The agent's request as an approval. All that is known is its name and age.
pub(super) fn as_approval(id: &ApprovalId, created_at: Timestamp) -> Approval {
    Approval::pending(
        id,
        &format!("mutation {id}"),
        created_at,
        created_at + PATIENCE,
    )
}

/// The answer that the agent reads; `None` while there is nothing to answer.
pub(super) fn answer(approval: &Approval) -> Option<Vec<u8>> {
    let approved = match approval.status() {
        Status::Approved => true,
        Status::Denied => false,
        Status::Pending | Status::Expired | Status::Cancelled => return None,
    };
    let by = approval.decided_by()?;
    let said = if approved {
        "Approved via Slack"
    } else {
        "Rejected via Slack"
    };
    let answer = json!({
        "approved": approved,
        "approvedBy": format!("slack:{}", by.username),
        "approvedByName": by.name,
        "approvedAt": approval.decided_at()?,
        "reason": approval.text("reason").unwrap_or(said),
    });
    Some(format!("{answer:#}\n").into_bytes())
}
