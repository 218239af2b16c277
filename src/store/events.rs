//! Events of Slack that somebody has taken on: an empty file each, `.events/HASH`, made by whoever
//! is first. That holds for all servers on the directory, and across restarts.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use base16ct::lower;
use sha2::{Digest, Sha256};

use super::{Novelty, durable};
use crate::clock::{self, Timestamp};
use crate::complaint::reason;
use crate::live::hold;

/// How long an event is remembered. Slack delivers it again for about an hour.
const KEEP: Duration = Duration::from_secs(2 * 3600);
/// How often those are looked for that are older.
const SWEEP: Duration = Duration::from_secs(600);
/// Bytes of an event's name: a SHA-256 in hex.
const NAME: usize = 64;

pub(super) struct Events {
    folder: PathBuf,
    /// When old ones are to be looked for.
    due: Mutex<Option<Instant>>,
}

impl Events {
    pub(super) fn of(directory: &Path) -> Self {
        Self {
            folder: directory.join(".events"),
            due: Mutex::default(),
        }
    }

    /// Takes an event on, unless somebody has.
    ///
    /// # Errors
    /// It cannot be told whether somebody has.
    pub(super) fn take_on(&self, event_id: &str) -> io::Result<Novelty> {
        let file = self.folder.join(name(event_id));
        match make(&file) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                durable::ensure_folder(&self.folder)?;
                make(&file)?;
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(Novelty::Known),
            made => made?,
        }
        // A power cut that undoes it lets an event be handled twice, which is no reason not to.
        let _ = durable::sync(&self.folder);
        Ok(Novelty::New)
    }

    /// Removes old ones, if that has not been done lately.
    pub(super) fn sweep(&self, now: Timestamp) {
        let mut due = hold(&self.due);
        let tick = clock::tick();
        if due.is_some_and(|due| tick < due) {
            return;
        }
        *due = Some(tick + SWEEP);
        drop(due);
        match self.remove_older_than(now - KEEP) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                log::debug!(reason:% = reason(&error); "Old events not swept away");
            }
            Ok(()) | Err(_) => {}
        }
    }

    fn remove_older_than(&self, oldest: Timestamp) -> io::Result<()> {
        let files = std::fs::read_dir(&self.folder)?.filter_map(Result::ok);
        // Whoever can put a link to another folder here must not have that emptied.
        for file in files.filter(|file| file.file_name().as_bytes().len() == NAME) {
            let made = file.metadata().and_then(|metadata| metadata.modified());
            if made.is_ok_and(|made| Timestamp::from(made) < oldest) {
                // Another server may be sweeping, too.
                let _ = std::fs::remove_file(file.path());
            }
        }
        Ok(())
    }
}

fn make(file: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    options.open(file).map(drop)
}

/// What stands in a payload never becomes a file's name.
fn name(event_id: &str) -> String {
    lower::encode_string(&Sha256::digest(event_id))
}
