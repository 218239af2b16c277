//! The approvals as files: where each stands, and what is read there.

use std::fs::Metadata;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memchr::memmem;

use super::runbookai::{self, AgentFile};
use super::watch::{self, Place};
use super::{Listing, StoreError, durable, io_error};
use crate::approval::{Approval, ApprovalId, Damage, SignKey, parse_object};
use crate::complaint::reason;
use crate::live::Live;

/// How often an id may have been used, as far as we look.
const REUSED: usize = 16;

/// The pending directory, to read in.
pub(super) struct Files {
    pub(super) path: PathBuf,
    /// Whether other hosts may share it.
    pub(super) network: bool,
    /// What decisions are signed with. With it, votes that are not do not count.
    pub(super) key: Live<Option<Arc<SignKey>>>,
}

/// Where an approval was found.
pub(super) enum Source {
    /// In a file of its own.
    File(Metadata),
    /// In our intent for a request of the RunbookAI agent.
    Intent(Metadata),
    /// Nowhere yet but in the agent's request.
    AgentRequest,
}

impl Source {
    /// Where the approval is written to.
    pub(super) fn place(&self) -> Place {
        match self {
            Self::File(_) => Place::Approvals,
            Self::Intent(_) | Self::AgentRequest => Place::Intents,
        }
    }
}

impl Files {
    pub(super) fn file(&self, id: &ApprovalId) -> PathBuf {
        self.path.join(format!("{id}.json"))
    }

    pub(super) fn intents(&self) -> PathBuf {
        self.path.join(runbookai::FOLDER)
    }

    pub(super) fn intent(&self, id: &ApprovalId) -> PathBuf {
        runbookai::intent_file(&self.path, id)
    }

    /// Where an approval stands that was found there.
    pub(super) fn folder(&self, source: &Source) -> PathBuf {
        match source.place() {
            Place::Approvals => self.path.clone(),
            Place::Intents => self.intents(),
        }
    }

    pub(super) fn archive_folder(&self) -> PathBuf {
        self.path.join("archive")
    }

    /// Finds an approval as it is now, whatever host has written it. The lock must be held.
    pub(super) fn find_locked(
        &self,
        id: &ApprovalId,
    ) -> Result<Option<(Approval, Source)>, StoreError> {
        if self.network {
            durable::revalidate(&self.file(id));
            durable::revalidate(&self.intent(id));
        }
        self.find(id)
    }

    /// Finds an approval.
    pub(super) fn find(&self, id: &ApprovalId) -> Result<Option<(Approval, Source)>, StoreError> {
        let read = |path: &Path| {
            durable::read(path).map_err(|error| match error.kind() {
                ErrorKind::InvalidData => StoreError::Damaged {
                    id: id.clone(),
                    damage: Damage::new(reason(&error)),
                },
                _ => io_error(format!("read {id}"))(error),
            })
        };
        let damaged = |damage| StoreError::Damaged {
            id: id.clone(),
            damage,
        };
        let parse = |bytes: &[u8]| {
            let mut approval = Approval::parse(id, bytes).map_err(damaged)?;
            if let Some(key) = &*self.key.now() {
                approval.distrust_unsigned_votes(key.verify_key());
            }
            Ok(approval)
        };
        let mut answered = false;
        if let Some((bytes, metadata)) = read(&self.file(id))? {
            match recognise(&bytes) {
                None => return Ok(Some((parse(&bytes)?, Source::File(metadata)))),
                Some(AgentFile::Answer) => answered = true,
                Some(AgentFile::Request { .. }) => {}
            }
        }
        if let Some((bytes, metadata)) = read(&self.intent(id))? {
            return Ok(Some((parse(&bytes)?, Source::Intent(metadata))));
        }
        if answered {
            return Err(StoreError::AnsweredElsewhere);
        }
        let request = read(&self.path.join(runbookai::request_name(id)))?;
        Ok(match request.and_then(|(bytes, _)| recognise(&bytes)) {
            Some(AgentFile::Request { created_at }) => {
                let approval = runbookai::as_approval(id, created_at).map_err(damaged)?;
                Some((approval, Source::AgentRequest))
            }
            Some(AgentFile::Answer) | None => None,
        })
    }

    /// The newest record of an approval in the archive.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn archived(&self, id: &ApprovalId) -> Result<Option<Approval>, StoreError> {
        let mut newest = None;
        // Somebody may have removed old ones.
        for name in archive_names(id).take(REUSED) {
            match durable::read(&self.archive_folder().join(name)) {
                Ok(None) => {}
                Ok(Some((bytes, _))) => newest = Some(bytes),
                Err(error) => return Err(io_error(format!("read {id} in the archive"))(error)),
            }
        }
        let parsed = newest.map(|bytes| Approval::parse(id, &bytes)).transpose();
        parsed.map_err(|damage| StoreError::Damaged {
            id: id.clone(),
            damage,
        })
    }

    /// Every approval of the directory itself.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub(super) fn list(&self) -> Result<Listing, StoreError> {
        self.list_folder(&self.path)
    }

    /// Every approval of the archive.
    ///
    /// # Errors
    /// It cannot be listed.
    pub(super) fn list_archived(&self) -> Result<Listing, StoreError> {
        if self.archive_folder().is_dir() {
            self.list_folder(&self.archive_folder())
        } else {
            Ok(Listing::default())
        }
    }

    /// Reads every approval in a folder.
    fn list_folder(&self, folder: &Path) -> Result<Listing, StoreError> {
        let failed = || io_error(format!("list {}", folder.display()));
        let mut listing = Listing::default();
        for file in std::fs::read_dir(folder).map_err(failed())? {
            let file = file.map_err(failed())?.file_name();
            let Some(stem) = watch::stem(&file) else {
                continue;
            };
            match self.list_file(folder, &stem) {
                Ok(found) => listing.approvals.extend(found),
                Err(damage) => listing.unreadable.push((format!("{stem}.json"), damage)),
            }
        }
        Ok(listing)
    }

    /// What one file of a listing is; `None` for what is no approval and need not be one.
    fn list_file(&self, folder: &Path, stem: &str) -> Result<Option<Approval>, Damage> {
        // An id that was used before has a number in the archive.
        let name = match stem.split_once('.') {
            Some((name, number)) if number.parse::<u64>().is_ok() && folder != self.path => name,
            _ => stem,
        };
        let path = folder.join(format!("{stem}.json"));
        let read = durable::read(&path).map_err(|error| Damage::new(reason(&error)))?;
        let Some((bytes, _)) = read else {
            return Ok(None);
        };
        match recognise(&bytes) {
            Some(AgentFile::Answer) => Ok(None),
            Some(AgentFile::Request { .. }) => {
                let id = stem.strip_suffix(runbookai::REQUEST);
                let Some(id) = id.and_then(ApprovalId::parse) else {
                    return Ok(None);
                };
                match self.find(&id) {
                    // What has a file of its own is listed by that.
                    Ok(found) => Ok(found
                        .filter(|(_, source)| !matches!(source, Source::File(_)))
                        .map(|(found, _)| found)),
                    Err(StoreError::AnsweredElsewhere) => Ok(None),
                    Err(StoreError::Damaged { damage, .. }) => Err(damage),
                    Err(error) => Err(Damage::new(error.to_string())),
                }
            }
            None => {
                let id = ApprovalId::parse(name)
                    .ok_or_else(|| Damage::new("its name is no approval id"))?;
                Approval::parse(&id, &bytes).map(Some)
            }
        }
    }
}

/// Names in the archive. An id that was used before keeps its first record: the next gets a number.
pub(super) fn archive_names(id: &ApprovalId) -> impl Iterator<Item = String> + use<'_> {
    (1..).map(move |n| match n {
        1 => format!("{id}.json"),
        n => format!("{id}.{n}.json"),
    })
}

fn recognise(bytes: &[u8]) -> Option<AgentFile> {
    // The documents of our own are told apart without a second parse.
    let ours = memmem::find(bytes, b"\"operation\"").is_some();
    if ours {
        None
    } else {
        parse_object(bytes)
            .ok()
            .and_then(|fields| AgentFile::recognise(&fields))
    }
}
