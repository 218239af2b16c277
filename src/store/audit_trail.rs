//! The audit log as it is read: every line in order, and whether the chain holds.

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::audit::{BEGINNING, NAME, body_of_line, hex};
use crate::approval::{Entry, parse_object};

/// Longest line that is read, in bytes. Ours are shorter than 16 KiB, but for large policies.
const LONGEST: u64 = 4 << 20;

/// One line of the log.
#[derive(Debug)]
pub struct Line {
    /// As it stands there, without its end.
    pub text: String,
    /// Absent when another version has written what this one does not know.
    pub entry: Option<Entry>,
}

/// What holds of a whole chain.
#[derive(Debug, PartialEq, Eq)]
pub struct Chain {
    pub files: usize,
    pub lines: u64,
    /// The number of the first line that is here; those before it were taken away with their files.
    pub first: u64,
    pub last: u64,
    /// The SHA-256 of the last line, in hex: whoever has noted it will see when lines go missing at the
    /// end.
    pub head: String,
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

/// Checks the log in `folder` from its first line on. Half a line at the very end is being written, and
/// is left out.
///
/// # Errors
/// `Broken` names the first line that does not follow from the one before it.
pub fn verify(folder: &Path) -> Result<Chain, Unread> {
    let mut broken = None;
    let chain = read(folder, &mut |_, flaw| {
        broken = broken.take().or(flaw);
    })?;
    broken.map_or(Ok(chain), |broken| Err(Unread::Broken(broken)))
}

/// Reads the log in `folder` from its first line on, calling `each` for every line, with what is wrong
/// with its place in the chain, if anything is.
///
/// # Errors
/// It cannot be read to its end.
pub fn read(folder: &Path, each: &mut dyn FnMut(Line, Option<Broken>)) -> Result<Chain, Unread> {
    let failed = |file: &Path| {
        let file = file.to_owned();
        move |error| Unread::Io { file, error }
    };
    let mut files = ordered(folder).map_err(failed(folder))?;
    let current = folder.join(NAME);
    if current.exists() {
        files.push(current.clone());
    }
    let mut chain = Chain {
        files: files.len(),
        lines: 0,
        first: 0,
        last: 0,
        head: digits(&BEGINNING),
    };
    for path in &files {
        let mut reader = BufReader::new(File::open(path).map_err(failed(path))?);
        for number in 1.. {
            let mut bytes = Vec::new();
            let mut limited = (&mut reader).take(LONGEST);
            limited
                .read_until(b'\n', &mut bytes)
                .map_err(failed(path))?;
            if bytes.is_empty() || (bytes.last() != Some(&b'\n') && *path == current) {
                break;
            }
            let (line, flaw) = chain.take(&bytes);
            each(
                line,
                flaw.map(|why| Broken {
                    file: path.clone(),
                    line: number,
                    why,
                }),
            );
        }
    }
    Ok(chain)
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
            (Err(damage), _) => Some(damage.to_string()),
            (_, Some(Ok(place))) => self.flaw(place),
            (_, Some(Err(error))) => Some(format!("it has no place in the chain: {error}")),
            (_, None) => None,
        };
        let seq = match place {
            Some(Ok(place)) => place.seq,
            _ => self.last + 1,
        };
        self.first = if self.lines == 0 { seq } else { self.first };
        self.last = seq;
        self.lines += 1;
        self.head = digits(&Sha256::digest(text));
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
                Some("its prev is not the SHA-256 of the line before it".into())
            }
            (_, seq) if seq != last + 1 => Some(format!("its seq is {seq}, after {last}")),
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

fn digits(bytes: &[u8]) -> String {
    let mut text = String::new();
    hex(bytes, &mut text);
    text
}
