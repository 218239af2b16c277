//! Files that are whole or absent, whatever happens: temporary, fsync, rename, fsync the directory.

use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io::{self, Error, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, Timespec, Timestamps};

use super::Durability;

/// Largest file that is read, in bytes. A request for approval is a page, not a book.
pub(super) const LARGEST: u64 = 1 << 20;

/// What is written to prove that writing works: an empty file can often be made on a disk that is full.
pub(super) const PAGE: [u8; 4096] = [b' '; 4096];

/// What tells one state of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    modified: (i64, i64),
    /// Changes with the owner and the mode as well.
    changed: (i64, i64),
    size: u64,
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            size: metadata.size(),
        }
    }
}

/// Reads a whole file; `None` when there is none. Links are not followed and pipes not waited for.
///
/// # Errors
/// `InvalidData` when it is no plain file of a sensible size, and trying again would not help.
pub(super) fn read(path: &Path) -> io::Result<Option<(Vec<u8>, Metadata)>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let open = || {
        let opened = rustix::fs::open(path, flags, Mode::empty());
        opened.map(File::from).map_err(Error::from)
    };
    let file = match open() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        // A network filesystem may remember a file that a rename has replaced.
        Err(error) if error.kind() == ErrorKind::StaleNetworkFileHandle => open()?,
        Err(error) if is_odd(&error) => return Err(not_a_file()),
        file => file?,
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(not_a_file());
    }
    // With room for more, a read that brings no more has come to the end.
    let size = usize::try_from(metadata.size().min(LARGEST)).unwrap_or(0);
    let mut bytes = vec![0; size + 1];
    let read = loop {
        match (&file).read(&mut bytes) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            read => break read?,
        }
    };
    bytes.truncate(read);
    if read != size {
        (&file)
            .take(LARGEST + 1 - read as u64)
            .read_to_end(&mut bytes)?;
    }
    if bytes.len() as u64 > LARGEST {
        return Err(Error::new(ErrorKind::InvalidData, "larger than 1 MiB"));
    }
    Ok(Some((bytes, metadata)))
}

/// Makes a shared filesystem say anew what stands at a path. Another host may have replaced the file, and
/// for a second a mount may go on with the one that it remembers, content and all: on GlusterFS, reading
/// it 30 times right after a rename found the old one 30 times, and after this the new one each time. It
/// takes a change to be asked, so it is the time of access that changes; where that is not permitted,
/// nothing does.
pub(super) fn revalidate(path: &Path) {
    let touched =
        || rustix::fs::utimensat(rustix::fs::CWD, path, &ACCESS, AtFlags::SYMLINK_NOFOLLOW);
    // The first time it may only be found out that the file is gone.
    let _ = touched().or_else(|_| touched());
}

/// [`revalidate`] for a file that is open: its length, above all.
pub(super) fn revalidate_open(file: &File) {
    let _ = rustix::fs::futimens(file, &ACCESS);
}

/// Accessed now, and not modified.
const ACCESS: Timestamps = Timestamps {
    last_access: Timespec {
        tv_sec: 0,
        tv_nsec: rustix::fs::UTIME_NOW,
    },
    last_modification: Timespec {
        tv_sec: 0,
        tv_nsec: rustix::fs::UTIME_OMIT,
    },
};

/// Whether opening failed because the name is a link or a socket.
fn is_odd(error: &Error) -> bool {
    let odd = [rustix::io::Errno::LOOP, rustix::io::Errno::NXIO];
    rustix::io::Errno::from_io_error(error).is_some_and(|error| odd.contains(&error))
}

fn not_a_file() -> Error {
    Error::new(ErrorKind::InvalidData, "not a regular file")
}

/// Creates `path` with `bytes` in it, synced; returns its inode. It is removed again when that fails. With `like`, it
/// takes that file's permissions and, where permitted, its owner; without, those that its folder calls for.
pub(super) fn create(path: &Path, bytes: &[u8], like: Option<&Metadata>) -> io::Result<u64> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    if let (None, Some(folder)) = (like, path.parent()) {
        fit_in(folder, &file);
    }
    let written = fill(&mut file, bytes, like);
    if written.is_err() {
        // The first error is the one to tell.
        let _ = std::fs::remove_file(path);
    }
    written
}

/// Has what was just made in a folder belong to those whose folder it is. Its owner gets what root has made, for root may
/// decide in an emergency, and must not lock the server out by that. Its group may do all that the owner may where it
/// may write to the folder: then the agent and the server are different users.
pub(super) fn fit_in(folder: &Path, made: &File) {
    let (Ok(folder), Ok(own)) = (folder.metadata(), made.metadata()) else {
        return;
    };
    if rustix::process::geteuid().is_root() {
        // Where even root may not, the server has to be root as well.
        let _ = fchown(made, Some(folder.uid()), Some(folder.gid()));
    }
    if folder.mode() & 0o020 == 0 {
        return;
    }
    // A member may choose the group.
    if own.gid() == folder.gid() || fchown(made, None, Some(folder.gid())).is_ok() {
        let bits = own.mode() & 0o777;
        // Refused, it stays the owner's alone.
        let _ = made.set_permissions(Permissions::from_mode(bits | (bits & 0o700) >> 3));
    }
}

fn fill(file: &mut File, bytes: &[u8], like: Option<&Metadata>) -> io::Result<u64> {
    let own = file.metadata()?;
    if let Some(like) = like {
        if (own.uid(), own.gid()) != (like.uid(), like.gid()) {
            // Only root may give files away, but a member may choose the group; the content matters
            // more than either.
            let both = fchown(&*file, Some(like.uid()), Some(like.gid()));
            let _ = both.or_else(|_| fchown(&*file, None, Some(like.gid())));
        }
        if own.mode() & 0o777 != like.mode() & 0o777 {
            file.set_permissions(Permissions::from_mode(like.mode() & 0o777))?;
        }
    }
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(own.ino())
}

/// Writes `folder/name` by way of the temporary `temporary` in the same folder.
///
/// # Errors
/// An error means that nothing has changed. When only the sync behind the rename fails, that is
/// no error but `Durability::Unsynced`.
pub(super) fn replace(
    folder: &Path,
    name: &str,
    temporary: &str,
    bytes: &[u8],
    like: Option<&Metadata>,
) -> io::Result<Durability> {
    swap(folder, name, temporary, bytes, like)?;
    Ok(sync(folder))
}

/// [`replace`], but for the sync of the folder: a power cut leaves the old file or the new one, each whole. Returns the
/// inode of the new one.
///
/// # Errors
/// Nothing has changed.
pub(super) fn swap(
    folder: &Path,
    name: &str,
    temporary: &str,
    bytes: &[u8],
    like: Option<&Metadata>,
) -> io::Result<u64> {
    let temporary = folder.join(temporary);
    let inode = create(&temporary, bytes, like)?;
    if let Err(error) = std::fs::rename(&temporary, folder.join(name)) {
        let _ = std::fs::remove_file(&temporary);
        return Err(error);
    }
    Ok(inode)
}

/// Renames without ever replacing what is there.
///
/// # Errors
/// `AlreadyExists` when something is there.
pub(super) fn move_to(from: &Path, to: &Path) -> io::Result<()> {
    let here = rustix::fs::CWD;
    match rustix::fs::renameat_with(here, from, here, to, RenameFlags::NOREPLACE) {
        // Some network filesystems do not know the flag. The lock that is held keeps our own kind away.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) if to.exists() => {
            Err(ErrorKind::AlreadyExists.into())
        }
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => std::fs::rename(from, to),
        moved => moved.map_err(Error::from),
    }
}

/// Makes a folder in one that is there; one that is missing is somebody's trouble, not to be
/// papered over.
pub(super) fn ensure_folder(path: &Path) -> io::Result<()> {
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        made => {
            made?;
            let Some(folder) = path.parent() else {
                return Ok(());
            };
            let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            fit_in(
                folder,
                &rustix::fs::open(path, flags, Mode::empty())?.into(),
            );
            sync_name(path)
        }
    }
}

/// Makes the name of a new folder survive a power cut, and with it what will be kept there.
pub(super) fn sync_name(path: &Path) -> io::Result<()> {
    let above = path.parent().filter(|above| !above.as_os_str().is_empty());
    match File::open(above.unwrap_or(Path::new("."))) {
        // Who may make a folder there need not be allowed to read it.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
        above => above?.sync_all(),
    }
}

/// Makes the names in a folder survive a power cut.
pub(super) fn sync(folder: &Path) -> Durability {
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        Ok(()) => Durability::Durable,
        Err(error) => Durability::Unsynced(error),
    }
}
