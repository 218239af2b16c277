//! Clicks that came before their approval, or that need Slack's word first: kept until they can be
//! decided, or until it is clear that they cannot. One file each, `OWNER.N.json`, whole or absent; who
//! takes over what a dead process has left renames it, so exactly one does.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use serde_json::{Map, Value};

use super::durable;
use super::{Deferred, Durability};
use crate::approval::{Ballot, SignKey, VerifyKey};
use crate::clock::Age;
use crate::live::hold;

/// Of a ballot's document, by the server's key.
const SIGNATURE: &str = "signature";

pub(super) struct Ballots {
    folder: PathBuf,
    /// Those that are dealt with and could not be removed: they must not be dealt with again.
    settled: Mutex<HashSet<String>>,
    /// How old those are that wait.
    ages: Mutex<HashMap<String, Age>>,
}

impl Ballots {
    pub(super) fn of(directory: &Path) -> Self {
        Self {
            folder: directory.join(".ballots"),
            settled: Mutex::default(),
            ages: Mutex::default(),
        }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Keeps a ballot in the name of `owner`, signed when there is a key. `temporary` is a name that nobody else uses.
    ///
    /// # Errors
    /// It is not kept.
    pub(super) fn keep(
        &self,
        ballot: &Ballot,
        key: Option<&SignKey>,
        owner: &str,
        temporary: &str,
    ) -> io::Result<Deferred> {
        let number = temporary.rsplit('.').next().unwrap_or_default();
        let name = format!("{owner}.{number}.json");
        let mut document = serde_json::to_value(ballot)?;
        if let Some(key) = key {
            document[SIGNATURE] = key.sign_ballot(&document).into();
        }
        let bytes = serde_json::to_vec(&document)?;
        match durable::replace(&self.folder, &name, temporary, &bytes, None)? {
            Durability::Durable => {
                let age = Age::zero();
                self.ages().insert(name.clone(), age);
                Ok(Deferred {
                    ballot: ballot.clone(),
                    name,
                    age,
                })
            }
            Durability::Unsynced(error) => {
                // Whoever clicked is told that it failed, so it must not be decided after all.
                self.settle(&name);
                Err(error)
            }
        }
    }

    /// Whether a ballot is yet to be dealt with.
    pub(super) fn is_kept(&self, name: &str) -> bool {
        !hold(&self.settled).contains(name) && self.folder.join(name).exists()
    }

    /// The ballots of a process, and those of dead ones, which are its own from now on. With a key,
    /// only those that it has signed: who may write here must not be able to click for others.
    pub(super) fn waiting(
        &self,
        key: Option<VerifyKey>,
        own: &str,
        is_dead: &dyn Fn(&str) -> bool,
    ) -> io::Result<Vec<Deferred>> {
        let settled = hold(&self.settled).clone();
        let names = self
            .names()?
            .into_iter()
            .filter(|name| !settled.contains(name));
        let ours =
            names.filter(|name| owner(name).is_some_and(|owner| owner == own || is_dead(owner)));
        let unreadable = |name: &str| self.refuse(name, "it cannot be read");
        let read = |name: String| {
            let (bytes, _) = durable::read(&self.folder.join(&name)).ok()??;
            let document = serde_json::from_slice::<Map<String, Value>>(&bytes);
            let Ok(mut document) = document else {
                unreadable(&name);
                return None;
            };
            let signature = document.remove(SIGNATURE);
            let document = Value::Object(document);
            if let Some(key) = key {
                let signature = signature.as_ref().and_then(Value::as_str);
                if !signature.is_some_and(|it| key.holds_for_ballot(&document, it)) {
                    self.refuse(&name, "it is not signed by this server's key");
                    return None;
                }
            }
            let Ok(ballot) = serde_json::from_value::<Ballot>(document) else {
                unreadable(&name);
                return None;
            };
            let name = self.take(name, own)?;
            let mut ages = self.ages();
            let age = *ages
                .entry(name.clone())
                .or_insert_with(|| Age::since(ballot.at));
            Some(Deferred { ballot, name, age })
        };
        Ok(ours.filter_map(read).collect())
    }

    /// Makes a ballot one's own. Its new name; `None` when another process was faster.
    fn take(&self, name: String, own: &str) -> Option<String> {
        if owner(&name) == Some(own) {
            return Some(name);
        }
        // Names of processes are never used again, so this one is new.
        let taken = format!("{own}.{name}");
        let renamed = std::fs::rename(self.folder.join(&name), self.folder.join(&taken));
        renamed.ok().map(|()| taken)
    }

    /// Leaves a ballot alone for good that no server has kept.
    fn refuse(&self, name: &str, why: &str) {
        let mut settled = hold(&self.settled);
        if settled.insert(name.to_owned()) {
            log::error!(file = name, reason = why; "A click that waits does not count");
        }
    }

    /// Whether a process still has ballots to deal with.
    pub(super) fn are_owned_by(&self, process: &str) -> bool {
        self.names()
            .is_ok_and(|names| names.iter().any(|name| owner(name) == Some(process)))
    }

    /// Removes a ballot that is dealt with.
    pub(super) fn settle(&self, name: &str) {
        self.ages().remove(name);
        if std::fs::remove_file(self.folder.join(name)).is_err() {
            hold(&self.settled).insert(name.to_owned());
        }
    }

    fn ages(&self) -> MutexGuard<'_, HashMap<String, Age>> {
        hold(&self.ages)
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let files = std::fs::read_dir(&self.folder)?;
        Ok(files
            .filter_map(|file| file.ok()?.file_name().into_string().ok())
            .collect())
    }
}

fn owner(name: &str) -> Option<&str> {
    let (owner, _) = name.strip_suffix(".json")?.split_once('.')?;
    (!owner.is_empty()).then_some(owner)
}
