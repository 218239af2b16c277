//! Looks at a directory as it is, for whoever wants to know before it hurts: nothing is made that is
//! not gone again afterwards.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat, statvfs};

use super::{Durability, durable, lock, watch};

/// What there is at a path.
#[derive(Debug)]
pub enum Found {
    Directory(Place),
    /// Nothing, and it could be made: the nearest directory above it.
    Absent(Place),
    /// Nothing, and nothing can be made there.
    Closed(PathBuf),
    /// Something that is no directory, or cannot be looked at.
    Odd(io::Error),
}

/// A directory and the filesystem that it is on.
#[derive(Debug)]
pub struct Place {
    pub path: PathBuf,
    pub owner: u32,
    /// Permission bits.
    pub mode: u32,
    /// Whether this process may make files there.
    pub writable: bool,
    /// Bytes that this process may still write.
    pub free_bytes: u64,
    /// Files that may still be made; `None` where they are not counted.
    pub free_inodes: Option<u64>,
    pub network: bool,
}

/// Looks at a path.
pub fn look(path: &Path) -> Found {
    match path.metadata() {
        Ok(metadata) if metadata.is_dir() => place(path).map_or_else(Found::Odd, Found::Directory),
        Ok(_) => Found::Odd(ErrorKind::NotADirectory.into()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
            let mut above = absolute.ancestors().skip(1);
            let above = above.find(|above| above.symlink_metadata().is_ok());
            let above = above.unwrap_or(Path::new("/"));
            match place(above) {
                Ok(place) if place.writable => Found::Absent(place),
                Ok(place) => Found::Closed(place.path),
                Err(error) => Found::Odd(error),
            }
        }
        Err(error) => Found::Odd(error),
    }
}

fn place(path: &Path) -> io::Result<Place> {
    let metadata = path.metadata()?;
    if !metadata.is_dir() {
        return Err(ErrorKind::NotADirectory.into());
    }
    let system = statvfs(path)?;
    let may = Access::WRITE_OK | Access::EXEC_OK;
    Ok(Place {
        path: path.to_owned(),
        owner: metadata.uid(),
        mode: metadata.mode() & 0o7777,
        writable: accessat(CWD, path, may, AtFlags::EACCESS).is_ok(),
        free_bytes: system.f_bavail.saturating_mul(system.f_frsize),
        free_inodes: (system.f_files > 0).then_some(system.f_favail),
        network: watch::is_network_filesystem(path),
    })
}

/// Writes, syncs, locks, renames and removes a file, as a decision does.
///
/// # Errors
/// The step that does not work, and why.
pub fn rehearse(folder: &Path) -> Result<(), (&'static str, io::Error)> {
    let step = |what: &'static str| move |error: io::Error| (what, error);
    let owner = lock::fresh_name().map_err(step("get random bytes"))?;
    let name = |number: u8| format!(".tmp.{owner}.{number}");
    let (first, second) = (folder.join(name(0)), folder.join(name(1)));
    let worked = attempt(folder, &first, &second);
    for path in [&first, &second] {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound && worked.is_ok() => {
                return Err(("remove a file", error));
            }
            _ => {}
        }
    }
    worked
}

fn attempt(folder: &Path, first: &Path, second: &Path) -> Result<(), (&'static str, io::Error)> {
    let step = |what: &'static str| move |error: io::Error| (what, error);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600);
    let mut file = options.open(first).map_err(step("make a file"))?;
    file.write_all(&durable::PAGE).map_err(step("write"))?;
    file.sync_all().map_err(step("sync a file"))?;
    lock::excludes(&file, &File::open(first).map_err(step("open a file"))?)
        .map_err(step("lock a file"))?;
    std::fs::rename(first, second).map_err(step("rename a file"))?;
    match durable::sync(folder) {
        Durability::Durable => Ok(()),
        Durability::Unsynced(error) => Err(("sync the directory", error)),
    }
}
