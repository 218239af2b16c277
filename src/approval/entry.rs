//! What the audit log says of one event: who did what to which request, when, and from where.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::canonical::canonical;
use super::{Approval, Ballot, Choice, Digest, Person, Run, Status};
use crate::clock::{self, Timestamp};

/// One event, as it stands in the audit log. Fields that do not apply are absent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// When it happened, to the millisecond.
    #[serde(serialize_with = "clock::precisely")]
    pub at: Timestamp,
    pub event: Event,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub risk_level: Option<String>,
    /// What the request meant then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_by: Option<String>,
    /// What a person chose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choice: Option<Choice>,
    /// What became of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// Who did it; absent for what only the clock did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Principal>,
    pub from: Origin,
    /// The reason that a person gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why it was refused, or a command not started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// The rules that hold from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Value>,
}

/// What tells an entry from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

/// A kind of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Event {
    /// Somebody asked, or a request was found in the store.
    Requested,
    /// A person's vote counts, and more are needed.
    Voted,
    /// A request was approved or denied.
    Decided,
    /// Its time was over.
    Expired,
    /// It was withdrawn, or could not be shown to anybody.
    Cancelled,
    /// Somebody wanted what they may not have, or what cannot be.
    Refused,
    /// The command of an approved request was taken up.
    Started,
    /// It has ended.
    Executed,
    /// These rules hold from now on.
    PolicyLoaded,
    /// Other rules were to hold, and cannot: the old ones stay.
    PolicyRefused,
}

impl Event {
    /// Its word in the log.
    pub fn word(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Voted => "voted",
            Self::Decided => "decided",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Refused => "refused",
            Self::Started => "started",
            Self::Executed => "executed",
            Self::PolicyLoaded => "policyLoaded",
            Self::PolicyRefused => "policyRefused",
        }
    }
}

/// Who did something: a Slack user, `cli:USER` or `policy:auto`. `id` is what counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    pub id: String,
    pub username: String,
    pub name: String,
    /// Their Slack workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub team: Option<String>,
}

/// Where something came from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Origin {
    /// The machine that took it in.
    pub host: String,
    /// The unix user whose process did.
    pub user: String,
    /// The IP address that sent it over the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The timestamp that Slack has signed: seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_timestamp: Option<u64>,
    /// The Slack channel where it was clicked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
}

/// What came with a click beside the click.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Sent {
    /// The IP address that sent it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The timestamp that Slack has signed: seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_timestamp: Option<u64>,
    /// The workspace of who clicked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub team: Option<String>,
}

/// The machine and the unix user of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Station {
    pub host: String,
    pub user: String,
}

/// How much of a text goes into the log, in characters: the digest stands for the rest.
const LONGEST: usize = 1000;

impl Entry {
    /// An event that is about no request.
    pub fn new(event: Event, at: Timestamp, station: &Station) -> Self {
        Self {
            at,
            event,
            id: None,
            operation: None,
            risk_level: None,
            digest: None,
            requested_by: None,
            choice: None,
            status: None,
            by: None,
            from: Origin {
                host: station.host.clone(),
                user: station.user.clone(),
                ..Origin::default()
            },
            reason: None,
            refusal: None,
            exit_code: None,
            duration_ms: None,
            policy: None,
        }
    }

    /// An event in the life of a request.
    pub fn about(approval: &Approval, event: Event, at: Timestamp, station: &Station) -> Self {
        let text = |key| approval.text(key).map(cut);
        Self {
            id: Some(approval.id().to_string()),
            operation: text("operation"),
            risk_level: Some(approval.risk().word().into()),
            digest: Some(approval.digest()),
            requested_by: text("requestedBy"),
            ..Self::new(event, at, station)
        }
    }

    /// What has just become of a request, by whoever the document names.
    pub fn outcome(approval: &Approval, at: Timestamp, station: &Station) -> Self {
        let event = match approval.status() {
            Status::Pending => Event::Requested,
            Status::Approved | Status::Denied => Event::Decided,
            Status::Expired => Event::Expired,
            Status::Cancelled => Event::Cancelled,
        };
        Self {
            status: Some(approval.status()),
            by: approval.decided_by().map(Principal::from),
            reason: approval.text("reason").map(cut),
            ..Self::about(approval, event, at, station)
        }
    }

    /// How a command has gone.
    pub fn execution(approval: &Approval, run: Run<'_>, at: Timestamp, station: &Station) -> Self {
        let entry = |event| Self::about(approval, event, at, station);
        match run {
            Run::Claimed => entry(Event::Started),
            Run::Ended { code, millis } => Self {
                exit_code: Some(code),
                duration_ms: Some(millis),
                ..entry(Event::Executed)
            },
            Run::Failed { error } => Self {
                refusal: Some(cut(error)),
                ..entry(Event::Executed)
            },
        }
    }

    /// What tells it from all others, whoever owes it.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint(Sha256::digest(canonical("", self)).into())
    }

    /// The same, done by whoever cast this ballot.
    #[must_use]
    pub fn cast(self, ballot: &Ballot) -> Self {
        let Sent {
            address,
            request_timestamp,
            team,
        } = ballot.sent.clone();
        Self {
            id: Some(ballot.id.to_string()),
            choice: Some(ballot.choice),
            by: Some(Principal {
                team,
                ..ballot.voter.person.clone().into()
            }),
            from: Origin {
                address,
                request_timestamp,
                channel: ballot.route.channel.clone(),
                ..self.from
            },
            reason: ballot.reason.as_deref().map(cut),
            ..self
        }
    }

    /// The same, done by this person, for this reason.
    #[must_use]
    pub fn done(self, by: &Person, reason: Option<&str>) -> Self {
        Self {
            by: Some(by.clone().into()),
            reason: reason.map(cut),
            ..self
        }
    }

    /// The same, refused for this.
    #[must_use]
    pub fn refused(self, why: &str) -> Self {
        Self {
            refusal: Some(cut(why)),
            ..self
        }
    }
}

impl From<Person> for Principal {
    fn from(person: Person) -> Self {
        Self {
            id: person.id,
            username: person.username,
            name: person.name,
            team: None,
        }
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
