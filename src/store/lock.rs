//! Exclusive locks between threads and processes.
//!
//! A lock on a file that is replaced by rename is no lock, so these files are never renamed or
//! removed: `.locks/00` … `.locks/3f`, chosen by a hash of the id. Each attempt opens its own
//! handle, for a lock belongs to the open file. `.locks/owner-NAME` is held by a living process
//! for as long as it runs; the kernel lets go of it however the process ends.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt as _, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fs2::FileExt;
use rustix::fs::OFlags;
use sha2::{Digest, Sha256};

use super::{StoreError, durable};
use crate::approval::ApprovalId;
use crate::clock;
use crate::random;

/// How long a lock is waited for. Slack gives us 3 s for the whole answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long it is slept before it is tried again.
const SHORTEST_NAP: Duration = Duration::from_micros(100);
const LONGEST_NAP: Duration = Duration::from_millis(5);
/// How many lock files there are.
const SHARDS: u8 = 64;

pub(super) struct Locks {
    folder: PathBuf,
}

/// Holds a lock until dropped.
pub(super) struct Guard(File);

impl Guard {
    /// Leaves a note in the lock's file, in place of the one before it, for whoever holds it next. It is not synced.
    ///
    /// # Errors
    /// What stands there is any part of either.
    pub(super) fn leave_note(&self, note: &[u8]) -> io::Result<()> {
        self.0.write_all_at(note, 0)
    }
}

/// Proves that a lock on one handle of a file keeps another one out.
///
/// # Errors
/// It cannot be locked, or the lock means nothing.
pub(super) fn excludes(one: &File, other: &File) -> io::Result<()> {
    FileExt::try_lock_exclusive(one)?;
    let taken = FileExt::try_lock_exclusive(other);
    FileExt::unlock(one)?;
    match taken {
        Err(error) if is_contended(&error) => Ok(()),
        Err(error) => Err(error),
        Ok(()) => Err(io::Error::other("two had the same lock at once")),
    }
}

impl Locks {
    /// Locks under `directory`.
    pub(super) fn of(directory: &Path) -> Self {
        Self {
            folder: directory.join(".locks"),
        }
    }

    /// Locks right in a folder.
    pub(super) fn in_folder(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
        }
    }

    /// Waits for the lock of an approval.
    ///
    /// # Errors
    /// `Busy` after [`PATIENCE`]; `Io` when the lock file cannot be opened or locked.
    pub(super) fn lock(&self, id: &ApprovalId) -> Result<Guard, StoreError> {
        let shard = Sha256::digest(id.as_str())[0] % SHARDS;
        self.hold(&format!("{shard:02x}"))
    }

    /// Waits for the lock of that name.
    ///
    /// # Errors
    /// Those of [`Locks::lock`].
    pub(super) fn hold(&self, name: &str) -> Result<Guard, StoreError> {
        let file = self.open(name).map_err(|error| self.failed(error))?;
        let started = clock::tick();
        loop {
            let waited = clock::since(started);
            match FileExt::try_lock_exclusive(&file) {
                Ok(()) => return Ok(Guard(file)),
                Err(error) if !is_contended(&error) => return Err(self.failed(error)),
                Err(_) if waited >= PATIENCE => return Err(StoreError::Busy),
                // Mostly it is held for as long as the disk takes, so who naps longer sleeps through its end.
                Err(_) => std::thread::sleep((waited / 4).clamp(SHORTEST_NAP, LONGEST_NAP)),
            }
        }
    }

    /// Proves that locks can be taken at all.
    ///
    /// # Errors
    /// `Io` when a lock file cannot be opened or locked.
    pub(super) fn prove(&self) -> Result<(), StoreError> {
        let file = self.open("00").map_err(|error| self.failed(error))?;
        match FileExt::try_lock_exclusive(&file) {
            Err(error) if !is_contended(&error) => Err(self.failed(error)),
            // Somebody holds it, so it can be held.
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Announces a living process. The lock goes when the guard does, or the process.
    ///
    /// # Errors
    /// `Io` when the file cannot be made or locked.
    pub(super) fn announce(&self, owner: &str) -> Result<Guard, StoreError> {
        let deadline = clock::tick() + PATIENCE;
        loop {
            let file = self
                .open(&owner_file(owner))
                .map_err(|error| self.failed(error))?;
            match FileExt::try_lock_exclusive(&file) {
                // Another process that is clearing up may have taken the file for a dead one's,
                // and removed it, before it was locked.
                Ok(()) if file.metadata().map_err(|error| self.failed(error))?.nlink() > 0 => {
                    return Ok(Guard(file));
                }
                Ok(()) => {}
                Err(error) if !is_contended(&error) || clock::tick() >= deadline => {
                    return Err(self.failed(error));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    /// Whether the process of that name is gone. When in doubt it is alive.
    pub(super) fn is_dead(&self, owner: &str) -> bool {
        ApprovalId::parse(owner).is_none() || self.is_dead_then(owner, |_| {})
    }

    /// Removes what a dead process used to announce itself. Names are never used again.
    pub(super) fn forget_if_dead(&self, owner: &str) {
        // Left behind, it only takes room. It goes while it is locked: see `announce`.
        self.is_dead_then(owner, |path| drop(std::fs::remove_file(path)));
    }

    /// Removes what this process announced itself with, while `alive` holds it.
    pub(super) fn forget_own(&self, owner: &str, alive: Guard) {
        // Left behind, it only takes room.
        let _ = std::fs::remove_file(self.folder.join(owner_file(owner)));
        drop(alive);
    }

    /// Does something about a dead process while its lock is held.
    fn is_dead_then(&self, owner: &str, act: impl FnOnce(&Path)) -> bool {
        let path = self.folder.join(owner_file(owner));
        match options().open(&path) {
            Ok(file) => {
                let dead = FileExt::try_lock_exclusive(&file).is_ok();
                if dead {
                    act(&path);
                }
                dead
            }
            Err(error) => error.kind() == ErrorKind::NotFound,
        }
    }

    /// The names of all processes that announced themselves here, living and dead.
    pub(super) fn owners(&self) -> io::Result<Vec<String>> {
        let names = std::fs::read_dir(&self.folder)?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names
            .filter_map(|name| Some(name.strip_prefix("owner-")?.to_owned()))
            .collect())
    }

    fn failed(&self, error: io::Error) -> StoreError {
        StoreError::Io {
            what: format!("take a lock in {}", self.folder.display()),
            error,
        }
    }

    fn open(&self, name: &str) -> io::Result<File> {
        let path = self.folder.join(name);
        let mut options = options();
        match options.open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            opened => return opened,
        }
        durable::ensure_folder(&self.folder)?;
        let made = options
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)?;
        durable::fit_in(&self.folder, &made);
        Ok(made)
    }
}

/// How a lock file is opened: whoever may write to the folder must not have us wait for the other end of a pipe, or
/// open what a link leads to.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    options.write(true).custom_flags(flags.bits().cast_signed());
    options
}

fn owner_file(owner: &str) -> String {
    format!("owner-{owner}")
}

fn is_contended(error: &io::Error) -> bool {
    error.raw_os_error() == fs2::lock_contended_error().raw_os_error()
        || error.kind() == ErrorKind::Interrupted
}

/// Letters of a process's name: 80 bits.
const OWNER: usize = 16;

/// A name that no other process has, ever.
pub(super) fn fresh_name() -> io::Result<String> {
    random::letters(OWNER)
}

/// Whose temporary it is: `.tmp.OWNER.N`. Other programs make names like it, so it must fit.
pub(super) fn temporary_owner(name: &str) -> Option<&str> {
    let (owner, number) = name.strip_prefix(".tmp.")?.split_once('.')?;
    (random::are_letters(owner, OWNER)
        && !number.is_empty()
        && number.bytes().all(|b| b.is_ascii_digit()))
    .then_some(owner)
}
