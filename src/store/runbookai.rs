//! The files of the RunbookAI agent, which knows nothing of ours.
//!
//! It posts its own message, writes `{id}_pending.json` and polls `{id}.json` for an answer, which
//! it deletes. What we decide about such a request stands in an approval of our own under
//! `.runbookai/` (the intent: votes, outcome, effects owed), kept as a tombstone for a day. Its
//! answer is made ready beside the intent before that is written, and delivered by one rename:
//! when the ready file is gone, the answer was given, and it is never given twice.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::lock::Locks;
use super::{Durability, durable};
use crate::approval::{Approval, ApprovalId, Damage, Status};
use crate::clock::Timestamp;
use crate::complaint::reason;
use crate::live::hold;

/// How long the agent waits for an answer, from `createdAt`.
pub(super) const AGENT_WAITS: Duration = Duration::from_secs(300);
/// How long a decided intent is kept.
pub(super) const TOMBSTONE: Duration = Duration::from_secs(24 * 3600);
/// The folder of the intents.
pub(super) const FOLDER: &str = ".runbookai";

/// The end of the name of the agent's request, before `.json`.
pub(super) const REQUEST: &str = "_pending";
/// The end of the name of an answer that lies ready.
const READY: &str = ".answer";

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

/// Whether a file is named as the agent's requests are.
pub(super) fn is_request(name: &str) -> bool {
    let stem = name.strip_suffix(".json");
    stem.is_some_and(|stem| stem.ends_with(REQUEST))
}

/// Whose ready answer a file beside the intents is by its name.
pub(super) fn ready_for(name: &str) -> Option<ApprovalId> {
    name.strip_suffix(READY).and_then(ApprovalId::parse)
}

/// The agent's request as an approval. All that is known is its name and age.
///
/// # Errors
/// None that can happen: an id is all that such a request needs to be one.
pub(super) fn as_approval(id: &ApprovalId, created_at: Timestamp) -> Result<Approval, Damage> {
    let mut asked = Map::new();
    asked.insert("operation".into(), format!("mutation {id}").into());
    Approval::ask(id, asked, created_at, Some(created_at + AGENT_WAITS))
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

/// Our intent for a request.
pub(super) fn intent_file(directory: &Path, id: &ApprovalId) -> PathBuf {
    directory.join(FOLDER).join(format!("{id}.json"))
}

/// Answers on their way to the agent.
pub(super) struct Answers {
    directory: PathBuf,
    /// Decided, and not delivered yet.
    late: Mutex<Vec<ApprovalId>>,
}

/// Whether an answer lies ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ready {
    Prepared,
    /// There is nothing to answer.
    Nothing,
}

impl Answers {
    pub(super) fn of(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            late: Mutex::default(),
        }
    }

    /// Makes the answer ready, if there is one to give. The lock must be held.
    ///
    /// # Errors
    /// Nothing lies ready.
    pub(super) fn prepare(&self, approval: &Approval) -> io::Result<Ready> {
        let ready = self.ready(approval.id());
        // One that is there is the rest of an attempt that failed before its intent was written.
        remove(&ready)?;
        match answer(approval) {
            Some(answer) => durable::create(&ready, &answer, None).map(|_| Ready::Prepared),
            None => Ok(Ready::Nothing),
        }
    }

    /// Takes back an answer whose intent could not be written.
    pub(super) fn withdraw(&self, id: &ApprovalId) {
        // One that stays has no intent, and is never delivered.
        let _ = remove(&self.ready(id));
    }

    pub(super) fn is_ready(&self, id: &ApprovalId) -> bool {
        self.ready(id).exists()
    }

    /// Delivers the ready answer of a decided intent; one without an intent is removed. The lock
    /// must be held.
    ///
    /// # Errors
    /// It still lies ready, or its delivery is not synced.
    pub(super) fn deliver(&self, id: &ApprovalId) -> io::Result<()> {
        let ready = self.ready(id);
        let intent = durable::read(&intent_file(&self.directory, id))?;
        let intent = intent.and_then(|(bytes, _)| Approval::parse(id, &bytes).ok());
        if intent.and_then(|intent| answer(&intent)).is_none() {
            return remove(&ready);
        }
        match durable::move_to(&ready, &self.directory.join(format!("{id}.json"))) {
            // Somebody else has answered; theirs is what the agent reads.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => remove(&ready)?,
            moved => moved?,
        }
        remove(&self.directory.join(request_name(id)))?;
        match durable::sync(&self.directory) {
            Durability::Durable => Ok(()),
            Durability::Unsynced(error) => Err(error),
        }
    }

    /// Delivers now, or later when that fails. It is decided all the same.
    pub(super) fn deliver_or_put_off(&self, id: &ApprovalId) {
        if let Err(error) = self.deliver(id) {
            log::error!(approvalId:% = id, reason:% = reason(&error); "Answer to the agent not delivered yet");
            self.put_off(id.clone());
        }
    }

    pub(super) fn put_off(&self, id: ApprovalId) {
        self.late().push(id);
    }

    /// Tries again to deliver what could not be delivered before.
    pub(super) fn deliver_late(&self, locks: &Locks) {
        let late = std::mem::take(&mut *self.late());
        for id in late {
            let delivered = locks.lock(&id).is_ok_and(|_lock| self.deliver(&id).is_ok());
            if !delivered && self.is_ready(&id) {
                self.put_off(id);
            }
        }
    }

    fn ready(&self, id: &ApprovalId) -> PathBuf {
        self.directory.join(FOLDER).join(format!("{id}{READY}"))
    }

    fn late(&self) -> MutexGuard<'_, Vec<ApprovalId>> {
        hold(&self.late)
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
