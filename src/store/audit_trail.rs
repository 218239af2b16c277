//! The audit log as it is read: every line in order, and whether the chain holds.

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};
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

/// Reads the log in `folder` from its first line on, calling `each` for every line, and checks the
/// chain on the way. Half a line at the very end is being written, and is left out.
///
/// # Errors
/// `Broken` names the first line that does not follow from the one before it. Lines before it were
/// handed to `each`.
pub fn read(folder: &Path, each: &mut dyn FnMut(Line)) -> Result<Chain, Unread> {
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
        let file = File::open(path).map_err(failed(path))?;
        let mut reader = BufReader::new(file);
        for number in 1.. {
            let broken = |why: String| {
                Unread::Broken(Broken {
                    file: path.clone(),
                    line: number,
                    why,
                })
            };
            let mut bytes = Vec::new();
            let mut limited = (&mut reader).take(LONGEST);
            limited
                .read_until(b'\n', &mut bytes)
                .map_err(failed(path))?;
            if bytes.is_empty() || (bytes.last() != Some(&b'\n') && *path == current) {
                break;
            }
            if bytes.pop() != Some(b'\n') {
                return Err(broken("it has no end".into()));
            }
            each(chain.take(bytes).map_err(broken)?);
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
    /// Takes in the next line.
    ///
    /// # Errors
    /// Why it does not follow.
    fn take(&mut self, bytes: Vec<u8>) -> Result<Line, String> {
        let fields: Map<String, Value> =
            parse_object(&bytes).map_err(|damage| damage.to_string())?;
        let fields = Value::Object(fields);
        let place = Place::deserialize(&fields)
            .map_err(|error| format!("it has no place in the chain: {error}"))?;
        let is_first = self.lines == 0;
        if is_first && place.seq == 1 && place.prev != self.head {
            return Err("it is the first line, and its prev is not all zeros".into());
        }
        if !is_first && place.prev != self.head {
            return Err("its prev is not the SHA-256 of the line before it".into());
        }
        if !is_first && place.seq != self.last + 1 {
            let (seq, last) = (place.seq, self.last);
            return Err(format!("its seq is {seq}, after {last}"));
        }
        let entry = Entry::deserialize(&fields).ok();
        self.first = if is_first { place.seq } else { self.first };
        self.last = place.seq;
        self.lines += 1;
        self.head = digits(&Sha256::digest(&bytes));
        let text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
        Ok(Line { text, entry })
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

/// The events in the file that is added to and in the one before it, without their places.
pub(super) fn latest(folder: &Path, current: &mut File) -> io::Result<HashSet<String>> {
    let mut bodies = HashSet::new();
    let mut collect = |file: &mut dyn Read| -> io::Result<()> {
        for line in BufReader::new(file).lines() {
            match line {
                Ok(line) => bodies.extend(body_of_line(&line).map(str::to_owned)),
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
    Ok(bodies)
}

fn digits(bytes: &[u8]) -> String {
    let mut text = String::new();
    hex(bytes, &mut text);
    text
}
