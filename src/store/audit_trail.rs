//! The audit log as it is read: every line in order, and whether the chain holds.

use std::collections::HashSet;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use base16ct::lower;
use rustix::fs::OFlags;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::audit::{BEGINNING, NAME, body_of_line};
use crate::approval::{Entry, parse_object};
use crate::clock;

/// Longest line that is read, in bytes. Ours are shorter than 16 KiB, but for large policies.
const LONGEST: u64 = 4 << 20;

/// How long a line may take to be written.
const WRITING: Duration = Duration::from_secs(1);

/// One line of the log.
#[derive(Debug)]
pub struct Line {
    /// As it stands there, without its end.
    pub text: String,
    /// Absent when another version has written what this one does not know.
    pub entry: Option<Entry>,
}

/// What holds of a whole chain.
#[derive(Debug)]
pub struct Chain {
    pub files: usize,
    pub lines: u64,
    /// The number of the first line that is here; those before it were taken away with their files.
    pub first: u64,
    pub last: u64,
    /// The SHA-256 of the last line, in hex: whoever has noted it will see when lines go missing at the
    /// end.
    pub head: String,
    /// Half a line at the very end.
    pub torn: Option<Broken>,
}

/// Where the log is not what it should be.
#[derive(Debug)]
pub struct Broken {
    pub file: PathBuf,
    /// From 1.
    pub line: u64,
    pub why: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, line, why) = (self.file.display(), self.line, &self.why);
        write!(f, "{file}: line {line}: {why}")
    }
}

/// Why the log could not be read to its end.
#[derive(Debug)]
pub enum Unread {
    Broken(Broken),
    Io { file: PathBuf, error: io::Error },
}

/// Checks the log in `folder` from its first line on. Half a line at the very end may be about to be
/// written, so it is looked at again for a while before it counts as broken.
///
/// # Errors
/// `Broken` names the first line that does not follow from the one before it.
pub fn verify(folder: &Path) -> Result<Chain, Unread> {
    let mut broken = None;
    let mut chain = read(folder, &mut |_, flaw| {
        broken = broken.take().or(flaw);
    })?;
    let broken = broken.or(chain.torn.take());
    broken.map_or(Ok(chain), |broken| Err(Unread::Broken(broken)))
}

/// Reads the log in `folder` from its first line on, calling `each` for every line, with what is wrong
/// with its place in the chain, if anything is. Half a line at the very end is none.
///
/// # Errors
/// It cannot be read to its end.
pub fn read(folder: &Path, each: &mut dyn FnMut(Line, Option<Broken>)) -> Result<Chain, Unread> {
    let failed = |file: &Path| {
        let file = file.to_owned();
        move |error| Unread::Io { file, error }
    };
    let current = folder.join(NAME);
    // First, so that whoever puts it away meanwhile does not hide it between the two looks.
    let newest = open(&current).map_err(failed(&current))?;
    let mut files = Vec::new();
    for path in ordered(folder).map_err(failed(folder))? {
        let file = open(&path).map_err(failed(&path))?;
        files.extend(file.map(|file| (path, file)));
    }
    if let Some(newest) = newest {
        let own = identity(&newest).map_err(failed(&current))?;
        let is_it = |(_, file): &(PathBuf, File)| identity(file).is_ok_and(|it| it == own);
        if !files.iter().any(is_it) {
            files.push((current.clone(), newest));
        }
    }
    let mut chain = Chain {
        files: files.len(),
        lines: 0,
        first: 0,
        last: 0,
        head: lower::encode_string(&BEGINNING),
        torn: None,
    };
    for (path, file) in files {
        let mut reader = BufReader::new(file);
        let mut start = 0;
        for number in 1.. {
            let is_newest = path == current;
            let bytes = next_line(&mut reader, start, is_newest).map_err(failed(&path))?;
            start += bytes.len() as u64;
            let broken = |why| Broken {
                file: path.clone(),
                line: number,
                why,
            };
            if bytes.is_empty() {
                break;
            }
            if is_newest && bytes.last() != Some(&b'\n') {
                chain.torn = Some(broken("it has no end: cut off, or left by a process that died; whoever adds the next line removes it".into()));
                break;
            }
            let (line, flaw) = chain.take(&bytes);
            each(line, flaw.map(broken));
        }
    }
    Ok(chain)
}

/// Opens a file of the log without waiting for a pipe; `None` when it is gone.
fn open(path: &Path) -> io::Result<Option<File>> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    let file = match options.open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(ErrorKind::IsADirectory.into());
    }
    if !metadata.is_file() {
        return Err(io::Error::new(
            ErrorKind::InvalidInput,
            "not a regular file",
        ));
    }
    Ok(Some(file))
}

/// Device and inode.
fn identity(file: &File) -> io::Result<(u64, u64)> {
    let metadata = file.metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

/// The line that begins there, with its end; nothing at the file's end. In the newest file it may be
/// about to get its end, which is waited for.
fn next_line(file: &mut BufReader<File>, start: u64, is_newest: bool) -> io::Result<Vec<u8>> {
    let deadline = clock::tick() + WRITING;
    loop {
        let mut bytes = Vec::new();
        file.take(LONGEST).read_until(b'\n', &mut bytes)?;
        let is_whole = bytes.is_empty() || bytes.last() == Some(&b'\n');
        if is_whole || !is_newest || clock::tick() >= deadline {
            return Ok(bytes);
        }
        thread::sleep(WRITING / 20);
        file.seek(SeekFrom::Start(start))?;
    }
}

/// What the chain says of a line.
#[derive(Deserialize)]
struct Place {
    seq: u64,
    prev: String,
}

impl Chain {
    /// Takes in the next line, with its end, and says why it does not follow.
    fn take(&mut self, bytes: &[u8]) -> (Line, Option<String>) {
        let line = bytes.strip_suffix(b"\n");
        let text = line.unwrap_or(bytes);
        let fields = parse_object(text).map(Value::Object);
        let place = fields.as_ref().ok().map(Place::deserialize);
        let flaw = match (&fields, &place) {
            _ if line.is_none() => Some("it has no end".to_owned()),
            _ if text.ends_with(b"\r") => {
                Some("it ends in a carriage return, which is none of ours".into())
            }
            (Err(damage), _) => Some(damage.to_string()),
            (_, Some(Ok(place))) => self.flaw(place),
            (_, Some(Err(error))) => Some(format!("it has no place in the chain: {error}")),
            (_, None) => None,
        };
        let seq = match place {
            Some(Ok(place)) => place.seq,
            _ => self.last.saturating_add(1),
        };
        self.first = if self.lines == 0 { seq } else { self.first };
        self.last = seq;
        self.lines += 1;
        self.head = lower::encode_string(&Sha256::digest(text));
        let entry = fields
            .ok()
            .and_then(|fields| Entry::deserialize(fields).ok());
        let text = String::from_utf8_lossy(text).into_owned();
        (Line { text, entry }, flaw)
    }

    /// Why a line cannot come next.
    fn flaw(&self, place: &Place) -> Option<String> {
        let last = self.last;
        match (self.lines, place.seq) {
            (0, 1) if place.prev != self.head => {
                Some("it is the first line, and its prev is not all zeros".into())
            }
            (0, _) => None,
            _ if place.prev != self.head => {
                Some("its prev is not the SHA-256 of the line before it: that was changed, or one between them is missing".into())
            }
            (_, seq) if last.checked_add(1) != Some(seq) => Some(format!("its seq is {seq}, after {last}")),
            _ => None,
        }
    }
}

/// The files that were put away, in the order of their lines.
fn ordered(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in put_away(folder)? {
        let mut line = Vec::new();
        BufReader::new(File::open(&path)?)
            .take(LONGEST)
            .read_until(b'\n', &mut line)?;
        let place = serde_json::from_slice::<Place>(&line);
        files.push((place.map_or(u64::MAX, |place| place.seq), path));
    }
    files.sort_unstable();
    Ok(files.into_iter().map(|(_, path)| path).collect())
}

/// Every file of the log but the one that is added to: `approvals-….jsonl`, and what other programs
/// that rotate logs make of the name.
pub(super) fn put_away(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for file in std::fs::read_dir(folder)? {
        let file = file?;
        let name = file.file_name().to_string_lossy().into_owned();
        let is_packed = [".gz", ".xz", ".bz2", ".zst"]
            .iter()
            .any(|end| name.ends_with(end));
        let is_part = name.starts_with("approvals") && name.contains(".jsonl") && name != NAME;
        if is_part && !is_packed && file.file_type()?.is_file() {
            files.push(file.path());
        }
    }
    Ok(files)
}

/// Those of the wanted events, without their places, that stand in the file that is added to or in the one
/// before it.
pub(super) fn find_latest(
    folder: &Path,
    current: &mut File,
    wanted: &HashSet<&str>,
) -> io::Result<HashSet<String>> {
    let mut found = HashSet::new();
    let mut collect = |file: &mut dyn Read| -> io::Result<()> {
        for line in BufReader::new(file).lines() {
            match line {
                Ok(line) => {
                    let body = body_of_line(&line).filter(|body| wanted.contains(body));
                    found.extend(body.map(str::to_owned));
                }
                // Somebody's damage, which is none of ours.
                Err(error) if error.kind() == ErrorKind::InvalidData => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    };
    current.seek(SeekFrom::Start(0))?;
    collect(current)?;
    if let Some(path) = ordered(folder)?.last() {
        collect(&mut File::open(path)?)?;
    }
    Ok(found)
}
