//! The JSON document of one approval: read strictly, edited in place, written as it came.

use std::fmt;
use std::sync::OnceLock;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::digest::MEANT;
use super::json::parse_object;
use super::{ApprovalId, Digest, Person, Risk, Status, Vote};
use crate::clock::Timestamp;

/// One request for a human's yes or no.
#[derive(Clone, Debug)]
pub struct Approval {
    id: ApprovalId,
    status: Status,
    risk: Risk,
    expires_at: Option<Timestamp>,
    decided_at: Option<Timestamp>,
    votes: Vec<Vote>,
    fields: Map<String, Value>,
    /// See [`Approval::digest`]; there once it was asked for, as no method changes what that is of.
    digest: OnceLock<Digest>,
}

/// Fields that only what becomes of a request brings about.
const DECIDED: [&str; 15] = [
    "decidedAt",
    "decidedBy",
    "decisions",
    "effectsOwed",
    "effectsFailed",
    "auditOwed",
    "agentNotifiedAt",
    "remindedAt",
    "recordedAt",
    "signature",
    "executedAt",
    "exitCode",
    "durationMs",
    "executionError",
    "reason",
];

/// Why a document is no approval. It is shown to operators and never acted upon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage(String);

impl Approval {
    /// Reads the document of the approval `id`. Fields that we use must have their documented
    /// type; an absent `riskLevel` counts as high.
    ///
    /// # Errors
    /// `Damage` says what is missing or wrong: not JSON, a duplicate key anywhere, a required
    /// field, another id, an unknown status or level, a time that cannot be read.
    pub fn parse(id: &ApprovalId, bytes: &[u8]) -> Result<Self, Damage> {
        Self::of(id, parse_object(bytes)?)
    }

    fn of(id: &ApprovalId, fields: Map<String, Value>) -> Result<Self, Damage> {
        if text(&fields, "id")? != Some(id.as_str()) {
            return Err(Damage("its id is not the file's name".into()));
        }
        // Blank, it would ask people for a yes to nothing.
        if text(&fields, "operation")?.is_none_or(|operation| operation.trim().is_empty()) {
            return Err(Damage("operation is missing".into()));
        }
        let status = text(&fields, "status")?.ok_or_else(|| Damage("status is missing".into()))?;
        let status = Status::parse(status).ok_or_else(|| {
            Damage("status is none of pending, approved, denied, expired, cancelled".into())
        })?;
        let risk = text(&fields, "riskLevel")?.map_or(Some(Risk::High), Risk::parse);
        Ok(Self {
            id: id.clone(),
            status,
            risk: risk
                .ok_or_else(|| Damage("riskLevel is none of low, medium, high, critical".into()))?,
            expires_at: time(&fields, "expiresAt")?,
            decided_at: time(&fields, "decidedAt")?,
            votes: typed(&fields, "decisions")?.unwrap_or_default(),
            fields,
            digest: OnceLock::new(),
        })
    }

    /// A new request, pending, from what is asked: `operation`, and any other field that may stand in
    /// a document. An `expiresAt` of its own is kept.
    ///
    /// # Errors
    /// `Damage` says which field is missing, wrong, or none that a new request can have.
    pub fn ask(
        id: &ApprovalId,
        mut asked: Map<String, Value>,
        requested_at: Timestamp,
        expires_at: Option<Timestamp>,
    ) -> Result<Self, Damage> {
        if let Some(key) = DECIDED.iter().find(|key| asked.contains_key(**key)) {
            return Err(Damage(format!("a new request cannot carry {key}")));
        }
        // What is null is as good as absent.
        asked.retain(|_, value| !value.is_null());
        let mut fields = Map::new();
        fields.insert("id".into(), id.as_str().into());
        fields.extend(asked.shift_remove_entry("operation"));
        fields.extend(asked);
        fields
            .entry("requestedAt")
            .or_insert_with(|| requested_at.to_string().into());
        if let Some(expires_at) = expires_at {
            fields
                .entry("expiresAt")
                .or_insert_with(|| expires_at.to_string().into());
        }
        fields
            .entry("status")
            .or_insert_with(|| Status::Pending.word().into());
        let approval = Self::of(id, fields)?;
        if approval.status != Status::Pending {
            return Err(Damage("a new request is pending".into()));
        }
        Ok(approval)
    }

    /// The document, indented by two spaces, with a line's end.
    #[allow(
        clippy::expect_used,
        clippy::missing_panics_doc,
        reason = "its keys are text"
    )]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(&self.fields).expect("a map of JSON");
        bytes.push(b'\n');
        bytes
    }

    /// The document on one line, with its end: as short as it can be.
    #[allow(
        clippy::expect_used,
        clippy::missing_panics_doc,
        reason = "its keys are text"
    )]
    pub fn to_line(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(&self.fields).expect("a map of JSON");
        bytes.push(b'\n');
        bytes
    }

    pub fn id(&self) -> &ApprovalId {
        &self.id
    }

    pub fn status(&self) -> Status {
        self.status
    }

    pub fn risk(&self) -> Risk {
        self.risk
    }

    pub fn expires_at(&self) -> Option<Timestamp> {
        self.expires_at
    }

    /// Whether its time is over, decided or not.
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|expiry| expiry <= now)
    }

    /// When it was asked, as far as whoever asked has said so in a way that can be read.
    pub fn requested_at(&self) -> Option<Timestamp> {
        self.text("requestedAt").and_then(Timestamp::parse)
    }

    pub fn decided_at(&self) -> Option<Timestamp> {
        self.decided_at
    }

    pub fn operation(&self) -> &str {
        self.text("operation").unwrap_or_default()
    }

    /// A field that is text and not empty; anything else reads as absent.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.fields
            .get(key)?
            .as_str()
            .filter(|text| !text.is_empty())
    }

    /// The operation's arguments, by name.
    pub fn args(&self) -> Option<&Map<String, Value>> {
        self.fields.get("args")?.as_object()
    }

    /// Any field.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.fields.get(key)
    }

    /// The whole document.
    pub fn fields(&self) -> &Map<String, Value> {
        &self.fields
    }

    /// Who decided, once somebody has.
    pub fn decided_by(&self) -> Option<Person> {
        Person::deserialize(self.fields.get("decidedBy")?).ok()
    }

    /// Every vote, in order.
    pub fn votes(&self) -> &[Vote] {
        &self.votes
    }

    /// Adds a vote.
    pub(super) fn push_vote(&mut self, vote: Vote) {
        self.append("decisions", &vote);
        self.votes.push(vote);
    }

    /// Puts a signature to a vote.
    pub(super) fn sign_vote(&mut self, index: usize, signature: String) {
        let list = self.fields.get_mut("decisions");
        if let Some(entry) = list.and_then(|list| list.get_mut(index)) {
            entry["signature"] = signature.clone().into();
        }
        if let Some(vote) = self.votes.get_mut(index) {
            vote.signature = Some(signature);
        }
    }

    /// Says of each vote whether it may count.
    pub(super) fn trust_votes(&mut self, trusted: &[bool]) {
        for (vote, trusted) in self.votes.iter_mut().zip(trusted) {
            vote.distrusted = !trusted;
        }
    }

    /// The digest, made once.
    pub(super) fn digest_or(&self, make: impl FnOnce() -> Digest) -> Digest {
        *self.digest.get_or_init(make)
    }

    /// Sets a field that no typed one of ours stands for, and that does not say what the request means.
    pub(super) fn put(&mut self, key: &str, value: Value) {
        debug_assert!(!MEANT.contains(&key), "what is asked stays as it is");
        self.fields.insert(key.into(), value);
    }

    /// Takes a field off that no typed one of ours stands for.
    pub(super) fn remove(&mut self, key: &str) {
        self.fields.shift_remove(key);
    }

    /// Notes that the agent knows the decision; the first time counts.
    pub fn note_agent(&mut self, at: Timestamp) {
        if self.text("agentNotifiedAt").is_none() {
            self.put("agentNotifiedAt", at.to_string().into());
        }
    }

    /// Notes that the audit log tells, or will tell, that it was asked. `false` when that was known.
    pub fn note_record(&mut self, at: Timestamp) -> bool {
        let fresh = self.text("recordedAt").is_none();
        if fresh {
            self.put("recordedAt", at.to_string().into());
        }
        fresh
    }

    /// Gives a request without an end of its own one.
    pub fn limit(&mut self, expires_at: Timestamp) {
        if self.expires_at.is_none() {
            self.expires_at = Some(expires_at);
            self.put("expiresAt", expires_at.to_string().into());
        }
    }

    /// Makes the approval final.
    pub fn finish(
        &mut self,
        status: Status,
        by: Option<&Person>,
        reason: Option<&str>,
        at: Timestamp,
    ) {
        self.status = status;
        self.decided_at = Some(at);
        self.fields.insert("status".into(), status.word().into());
        self.fields
            .insert("decidedAt".into(), at.to_string().into());
        if let Some(by) = by {
            self.fields.insert("decidedBy".into(), json(by));
        }
        // Whatever stood there before was not said by who has decided.
        match reason {
            Some(reason) => self.put("reason", reason.into()),
            None => self.remove("reason"),
        }
    }

    /// The entries of a list.
    pub(super) fn entries(&self, key: &str) -> impl Iterator<Item = &Value> {
        let list = self.fields.get(key).and_then(Value::as_array);
        list.into_iter().flatten()
    }

    /// The entries of a list, to be changed in place.
    pub(super) fn entries_mut(&mut self, key: &str) -> impl Iterator<Item = &mut Value> {
        let list = self.fields.get_mut(key).and_then(Value::as_array_mut);
        list.into_iter().flatten()
    }

    /// Adds an entry to a list, leaving the others as they came.
    pub(super) fn append(&mut self, key: &str, entry: &impl Serialize) {
        let entry = json(entry);
        match self.fields.get_mut(key) {
            Some(Value::Array(entries)) => entries.push(entry),
            _ => drop(self.fields.insert(key.into(), Value::Array(vec![entry]))),
        }
    }

    /// Takes entries off a list, and an empty list off the document.
    pub(super) fn strike(&mut self, key: &str, is_done: impl Fn(&Value) -> bool) {
        if let Some(Value::Array(entries)) = self.fields.get_mut(key) {
            entries.retain(|entry| !is_done(entry));
            if entries.is_empty() {
                self.fields.shift_remove(key);
            }
        }
    }
}

impl Damage {
    /// What is wrong with a document that could not even be read as one.
    pub fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn text<'a>(fields: &'a Map<String, Value>, key: &str) -> Result<Option<&'a str>, Damage> {
    match fields.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Damage(format!("{key} is not text"))),
    }
}

fn time(fields: &Map<String, Value>, key: &str) -> Result<Option<Timestamp>, Damage> {
    text(fields, key)?
        .map(|text| {
            Timestamp::parse(text).ok_or_else(|| Damage(format!("{key} is not an RFC 3339 time")))
        })
        .transpose()
}

fn typed<T: DeserializeOwned>(fields: &Map<String, Value>, key: &str) -> Result<Option<T>, Damage> {
    match fields.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => T::deserialize(value)
            .map(Some)
            .map_err(|error| Damage(format!("{key}: {error}"))),
    }
}

fn json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}
