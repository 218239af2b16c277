//! The audit log, `approvals.jsonl`: one event a line, each line with the SHA-256 of the one before it
//! in `prev` and a number, one higher, in `seq`. It is added to under a lock and synced, by any number
//! of processes. A file that has grown large is renamed to `approvals-SEQ.jsonl`, after its last line,
//! and the chain goes on in a new one.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, ErrorKind, Read, Seek, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use base16ct::lower;
use rustix::fs::OFlags;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::lock::Locks;
use super::{Caution, StoreError, audit_trail, durable, lock, watch};
use crate::approval::Entry;
use crate::clock::Timestamp;
use crate::complaint::reason;
use crate::live::hold;

/// The file that is added to.
pub(super) const NAME: &str = "approvals.jsonl";
/// Held by whoever adds; it holds the end of the chain, for the day on which every file has been taken away.
const LOCK: &str = "approvals.lock";
/// What the first line of all has for `prev`.
pub(super) const BEGINNING: [u8; 32] = [0; 32];
/// How much of a file's end is read at first, in bytes: some lines.
const TAIL: u64 = 16 * 1024;
/// How long a probe may be there that somebody still writes.
const PROBE: Duration = Duration::from_secs(60);

pub(super) struct AuditLog {
    folder: PathBuf,
    locks: Locks,
    /// Size from which a file is put away, in bytes.
    largest: u64,
    tail: Mutex<Option<Tail>>,
}

/// Where the chain stands. It holds as long as the file is that long.
#[derive(Clone, Copy, Debug)]
struct Tail {
    /// Device and inode.
    identity: (u64, u64),
    length: u64,
    link: Link,
}

/// The end of the chain: number and SHA-256 of its last line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) seq: u64,
    pub(super) hash: [u8; 32],
}

/// What is read of a line to go on after it.
#[derive(Deserialize)]
struct Numbered {
    seq: u64,
}

impl Link {
    /// Before the first line.
    const NONE: Self = Self {
        seq: 0,
        hash: BEGINNING,
    };

    /// The link after a line without its end; `None` when that tells no number.
    fn of(line: &[u8]) -> Option<Self> {
        let numbered = serde_json::from_slice::<Numbered>(line).ok()?;
        Some(Self::with(numbered.seq, line))
    }

    fn with(seq: u64, line: &[u8]) -> Self {
        let hash = Sha256::digest(line).into();
        Self { seq, hash }
    }

    /// `SEQ HASH`, always as long.
    fn note(self) -> String {
        format!("{:020} {}\n", self.seq, lower::encode_string(&self.hash))
    }

    /// `None` for what a power cut has made of a note.
    fn of_note(note: &[u8]) -> Option<Self> {
        let note = str::from_utf8(note).ok()?.strip_suffix('\n')?;
        let (seq, digits) = note.split_once(' ')?;
        let mut hash = [0; 32];
        let decoded = lower::decode(digits, &mut hash).ok()?.len();
        let seq = seq.parse().ok().filter(|_| decoded == hash.len())?;
        Some(Self { seq, hash })
    }
}

impl AuditLog {
    pub(super) fn of(folder: &Path, largest: u64) -> Self {
        Self {
            folder: folder.to_owned(),
            locks: Locks::in_folder(folder),
            largest,
            tail: Mutex::default(),
        }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes the folder, and the file, unless they are there.
    ///
    /// # Errors
    /// Nothing can be added.
    pub(super) fn prepare(&self) -> Result<(), StoreError> {
        self.append(&[], Caution::New)
    }

    /// Removes probes that dead processes left behind. Those of others, which may serve another pending
    /// directory, are told by their age.
    pub(super) fn clear_up(&self, now: Timestamp) {
        let files = std::fs::read_dir(&self.folder).into_iter().flatten();
        for file in files.filter_map(Result::ok) {
            let made = file.metadata().and_then(|metadata| metadata.modified());
            let is_old = made.is_ok_and(|made| now.since(made.into()) > PROBE);
            let name = file.file_name();
            if is_old && lock::temporary_owner(&name.to_string_lossy()).is_some() {
                // Another process may be clearing up, too.
                let _ = std::fs::remove_file(file.path());
            }
        }
    }

    /// Adds these events, durably. With [`Caution::Again`], those that stand there are left out.
    ///
    /// # Errors
    /// They may stand there or not.
    pub(super) fn append(&self, entries: &[Entry], caution: Caution) -> Result<(), StoreError> {
        let mut tail = hold(&self.tail);
        let lock = self.locks.hold(LOCK)?;
        // What fails leaves the file's end unknown.
        let known = tail.take();
        let added = self.add(entries, caution, known).map_err(failed)?;
        if known.is_none_or(|known| known.link != added.link)
            && let Err(error) = lock.leave_note(added.link.note().as_bytes())
        {
            log::debug!(reason:% = reason(&error); "The end of the audit log is not noted");
        }
        *tail = Some(added);
        Ok(())
    }

    fn add(&self, entries: &[Entry], caution: Caution, known: Option<Tail>) -> io::Result<Tail> {
        let mut file = self.open()?;
        if watch::is_network_filesystem(&self.folder) {
            durable::revalidate(&self.folder.join(NAME));
            file = self.open()?;
            durable::revalidate_open(&file);
        }
        let mut tail = match known {
            Some(known) if known.is_of(&file)? => known,
            _ => self.find_tail(&mut file)?,
        };
        if tail.length >= self.largest {
            let put_away = self
                .folder
                .join(format!("approvals-{:012}.jsonl", tail.link.seq));
            durable::move_to(&self.folder.join(NAME), &put_away)?;
            file = self.open()?;
            tail = Tail::at(&file, tail.link)?;
        }
        if entries.is_empty() {
            return Ok(tail);
        }
        let entries: Vec<String> = entries
            .iter()
            .map(serde_json::to_string)
            .collect::<Result<_, _>>()?;
        let mut bodies: Vec<&str> = entries.iter().map(|entry| body(entry)).collect();
        if caution == Caution::Again {
            let wanted: HashSet<&str> = bodies.iter().copied().collect();
            let written = audit_trail::find_latest(&self.folder, &mut file, &wanted)?;
            bodies.retain(|body| !written.contains(*body));
        }
        let mut lines = String::new();
        for body in bodies {
            let seq = tail.link.seq.saturating_add(1);
            let line = line(seq, &tail.link.hash, body);
            tail.link = Link::with(seq, line.as_bytes());
            lines.push_str(&line);
            lines.push('\n');
        }
        let added = file
            .write_all(lines.as_bytes())
            .and_then(|()| file.sync_all());
        if let Err(error) = added {
            // Half a line must not stay; whoever adds next takes it away if this does not.
            let _ = file.set_len(tail.length);
            return Err(error);
        }
        if tail.length == 0 {
            File::open(&self.folder)?.sync_all()?;
        }
        tail.length += lines.len() as u64;
        Ok(tail)
    }

    /// Opens the file to add to it, and makes it when it is missing.
    fn open(&self) -> io::Result<File> {
        let path = self.folder.join(NAME);
        let mut options = OpenOptions::new();
        options
            .read(true)
            .append(true)
            .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed());
        let file = match options.open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let made = options.create(true).mode(0o600).open(&path)?;
                durable::fit_in(&self.folder, &made);
                made
            }
            opened => opened?,
        };
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                "approvals.jsonl is not a regular file",
            ));
        }
        Ok(file)
    }

    /// Finds the end of the chain, be it in a file that was put away, and takes away what a process
    /// that died has begun to write.
    fn find_tail(&self, file: &mut File) -> io::Result<Tail> {
        let (last, torn) = last_line(file)?;
        if torn > 0 {
            let whole = file.metadata()?.len() - torn;
            log::warn!(bytes = torn; "The audit log ended in half a line, which is removed");
            file.set_len(whole)?;
            file.sync_all()?;
        }
        let link = match last {
            Some(line) => match Link::of(&line) {
                Some(end) => end,
                None => self.link_of_unreadable(&line, file)?,
            },
            None => self.find_link(self.noted())?,
        };
        Tail::at(file, link)
    }

    /// The end of the chain in the files that were put away, by us or by others, or this one when they have been
    /// taken away since, or packed.
    fn find_link(&self, mut newest: Link) -> io::Result<Link> {
        for path in audit_trail::put_away(&self.folder)? {
            if let (Some(line), _) = last_line(&mut File::open(path)?)?
                && let Some(link) = Link::of(&line)
            {
                newest = if link.seq > newest.seq { link } else { newest };
            }
        }
        Ok(newest)
    }

    /// The link after a line that somebody else has made of ours or added to them. As for whoever verifies the chain,
    /// each such line takes a place.
    fn link_of_unreadable(&self, last: &[u8], file: &mut File) -> io::Result<Link> {
        let mut seq = self.find_link(Link::NONE)?.seq;
        file.seek(SeekFrom::Start(0))?;
        for line in BufReader::new(file).split(b'\n') {
            seq = Link::of(&line?).map_or(seq.saturating_add(1), |link| link.seq);
        }
        Ok(Link::with(seq, last))
    }

    /// The end of the chain as it was noted last, or its beginning.
    fn noted(&self) -> Link {
        // Who may write it need not be allowed to read it, and nothing is lost with it as long as the files are there.
        let noted = durable::read(&self.folder.join(LOCK)).ok().flatten();
        let noted = noted.and_then(|(note, _)| Link::of_note(&note));
        noted.unwrap_or(Link::NONE)
    }
}

impl Tail {
    fn at(file: &File, link: Link) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            identity: (metadata.dev(), metadata.ino()),
            length: metadata.len(),
            link,
        })
    }

    fn is_of(self, file: &File) -> io::Result<bool> {
        let now = Self::at(file, self.link)?;
        Ok((now.identity, now.length) == (self.identity, self.length))
    }
}

/// The last whole line, without its end, and how many bytes of another come after it.
fn last_line(file: &mut File) -> io::Result<(Option<Vec<u8>>, u64)> {
    let length = file.metadata()?.len();
    let mut span = TAIL;
    loop {
        let start = length.saturating_sub(span);
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(start))?;
        (&mut *file).take(length - start).read_to_end(&mut bytes)?;
        let end = bytes.iter().rposition(|byte| *byte == b'\n');
        let before = |end: usize| bytes[..end].iter().rposition(|byte| *byte == b'\n');
        match (end, end.and_then(before)) {
            (Some(end), Some(before)) => {
                let torn = (bytes.len() - end - 1) as u64;
                return Ok((Some(bytes[before + 1..end].to_vec()), torn));
            }
            (Some(end), None) if start == 0 => {
                let torn = (bytes.len() - end - 1) as u64;
                return Ok((Some(bytes[..end].to_vec()), torn));
            }
            (None, _) if start == 0 => return Ok((None, length)),
            _ => span *= 8,
        }
    }
}

/// One line, without its end.
fn line(seq: u64, prev: &[u8], body: &str) -> String {
    let prev = lower::encode_string(prev);
    format!("{{\"seq\":{seq},\"prev\":\"{prev}\",{body}")
}

/// What of an entry's JSON stands in its line, whatever the line's place in the chain.
fn body(entry: &str) -> &str {
    entry.strip_prefix('{').unwrap_or(entry)
}

/// What of a line is its entry's.
pub(super) fn body_of_line(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("\"prev\":\"")?;
    rest.split_once("\",").map(|(_, body)| body)
}

fn failed(error: io::Error) -> StoreError {
    StoreError::Io {
        what: "add to the audit log".into(),
        error,
    }
}
