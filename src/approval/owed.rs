//! What an approval still owes the world: effects, and lines of the audit log. They stand in its own document,
//! written by the same rename as the decision, so that no crash can part the two.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Approval, Entry, Fingerprint, Route};
use crate::clock::Timestamp;

/// The list of [`Owed`].
const EFFECTS: &str = "effectsOwed";
/// The list of [`Unrecorded`].
const AUDIT: &str = "auditOwed";

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

impl Approval {
    /// Whether anything is owed, be it something that only another version can read.
    pub fn owes(&self) -> bool {
        self.owes_effects() || self.entries(AUDIT).next().is_some()
    }

    /// Whether any consequence is owed, be it one that only another version can read.
    pub fn owes_effects(&self) -> bool {
        self.entries(EFFECTS).next().is_some()
    }

    /// The consequences that are still owed. Entries that we cannot read belong to another version
    /// and are left alone.
    pub fn owed(&self) -> impl Iterator<Item = Owed> {
        self.entries(EFFECTS)
            .filter_map(|entry| Owed::deserialize(entry).ok())
    }

    /// Whether one of that kind is owed, by anybody.
    pub fn owes_effect(&self, effect: Effect) -> bool {
        self.owed().any(|owed| owed.effect == effect)
    }

    /// The first one of that kind that this process owes.
    pub fn owed_by(&self, owner: &str, effect: Effect) -> Option<Owed> {
        self.owed()
            .find(|owed| owed.effect == effect && owed.owner == owner)
    }

    /// Whether the audit log is yet to tell something by this process.
    pub fn owes_record_of(&self, owner: &str) -> bool {
        let mut entries = self.entries(AUDIT);
        entries.any(|entry| entry.get("owner").and_then(Value::as_str) == Some(owner))
    }

    /// What the audit log is yet to tell, in order.
    pub fn unrecorded(&self) -> impl Iterator<Item = Unrecorded> {
        self.entries(AUDIT)
            .filter_map(|entry| Unrecorded::deserialize(entry).ok())
    }

    /// The processes that have promised something.
    pub fn promisers(&self) -> impl Iterator<Item = String> {
        let effects = self.owed().map(|owed| owed.owner);
        effects.chain(self.unrecorded().map(|unrecorded| unrecorded.owner))
    }

    /// Adds a consequence, unless it is owed already.
    pub fn owe(&mut self, owed: &Owed) {
        if !self.owed().any(|other| other.is_same(owed)) {
            self.append(EFFECTS, owed);
        }
    }

    /// Makes it owe a line of the audit log.
    pub fn owe_record(&mut self, unrecorded: &Unrecorded) {
        self.append(AUDIT, unrecorded);
    }

    /// Takes a consequence off the list, because it is done.
    pub fn settle(&mut self, done: &Owed) {
        self.strike(EFFECTS, |entry| {
            Owed::deserialize(entry).is_ok_and(|owed| owed.is_same(done))
        });
    }

    /// Takes off the list what the audit log tells by now.
    pub fn strike_records(&mut self, recorded: &[Fingerprint]) {
        self.strike(AUDIT, |entry| {
            Unrecorded::deserialize(entry)
                .is_ok_and(|other| recorded.contains(&other.entry.fingerprint()))
        });
    }

    /// Takes a consequence off the list for good, because it cannot be done, and says why.
    pub fn give_up(&mut self, owed: &Owed, error: &str, at: Timestamp) {
        self.settle(owed);
        self.append(
            "effectsFailed",
            &json!({ "effect": owed.effect, "error": error, "at": at }),
        );
    }

    /// Makes `owner` the one who does what those have promised of whom `is_gone` says so. `true`
    /// when there was any of that.
    pub fn take_over(&mut self, owner: &str, is_gone: &dyn Fn(&str) -> bool) -> bool {
        let mut taken = false;
        for key in [EFFECTS, AUDIT] {
            for entry in self.entries_mut(key) {
                let promiser = entry.get("owner").and_then(Value::as_str);
                let readable = match key {
                    AUDIT => Unrecorded::deserialize(&*entry).is_ok(),
                    _ => Owed::deserialize(&*entry).is_ok(),
                };
                if readable && promiser.is_some_and(is_gone) {
                    entry["owner"] = owner.into();
                    if key == AUDIT {
                        entry["inherited"] = true.into();
                    }
                    taken = true;
                }
            }
        }
        taken
    }
}
