//! This process's place in the pending directory.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::ballots::Ballots;
use super::lock::{self, Guard, Locks};
use super::{StoreError, durable, io_error, runbookai};
use crate::live::hold;

/// A name of its own in the directory at a path, and word that it lives.
pub(super) struct Home {
    path: PathBuf,
    owner: String,
    /// Numbers the temporaries of this process.
    counter: AtomicU64,
    /// Absent until something is written: who only looks leaves no trace.
    stay: Mutex<Option<Stay>>,
}

/// The directory that stands at the path, as long as it does.
struct Stay {
    /// Device and inode.
    identity: (u64, u64),
    alive: Guard,
}

impl Home {
    pub(super) fn of(path: &Path) -> Result<Self, StoreError> {
        Ok(Self {
            path: path.to_owned(),
            owner: lock::fresh_name().map_err(io_error("get random bytes"))?,
            counter: AtomicU64::new(0),
            stay: Mutex::new(None),
        })
    }

    /// The name of this process, which no other has.
    pub(super) fn owner(&self) -> &str {
        &self.owner
    }

    /// A name that no other thread or process uses.
    pub(super) fn temporary(&self) -> String {
        format!(
            ".tmp.{}.{}",
            self.owner,
            self.counter.fetch_add(1, Ordering::Relaxed)
        )
    }

    /// Makes our folders and announces this process, unless that is done.
    ///
    /// # Errors
    /// That was refused.
    pub(super) fn settle_in(&self, locks: &Locks) -> Result<(), StoreError> {
        let mut stay = hold(&self.stay);
        if stay.is_none() {
            *stay = Some(self.move_in(locks)?);
        }
        Ok(())
    }

    /// Moves on when another directory stands at the path, because one was moved or mounted there. Whether that is so.
    ///
    /// # Errors
    /// None stands there, or it cannot be moved into.
    pub(super) fn move_on(&self, locks: &Locks) -> Result<bool, StoreError> {
        let mut stay = hold(&self.stay);
        let now = identity(&self.path)?;
        let moved = stay.as_ref().is_some_and(|stay| stay.identity != now);
        if moved {
            *stay = Some(self.move_in(locks)?);
        }
        Ok(moved)
    }

    /// Takes back the word that this process lives.
    pub(super) fn leave(&mut self, locks: &Locks) {
        let stay = self.stay.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(stay) = stay.take() {
            locks.forget_own(&self.owner, stay.alive);
        }
    }

    /// Makes our folders in the directory and announces this process there.
    fn move_in(&self, locks: &Locks) -> Result<Stay, StoreError> {
        let identity = identity(&self.path)?;
        let intents = self.path.join(runbookai::FOLDER);
        for folder in [&intents, Ballots::of(&self.path).folder()] {
            durable::ensure_folder(folder)
                .map_err(io_error("make a folder in the pending directory"))?;
        }
        Ok(Stay {
            identity,
            alive: locks.announce(&self.owner)?,
        })
    }
}

fn identity(path: &Path) -> Result<(u64, u64), StoreError> {
    let metadata = std::fs::metadata(path).map_err(io_error("find the pending directory"))?;
    Ok((metadata.dev(), metadata.ino()))
}
