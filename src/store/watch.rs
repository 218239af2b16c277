//! Which files have changed. On Linux the kernel tells (inotify); on a network filesystem, where it
//! sees only its own host's changes, everything is to be looked at again every [`POLL`].

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};

use super::{durable, runbookai};
use crate::clock;
use crate::complaint::reason;

/// How often everything is looked at where the kernel does not tell.
const POLL: Duration = Duration::from_millis(250);

/// Which folder a file is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Place {
    /// The pending directory itself.
    Approvals,
    /// Our intents for the RunbookAI agent's requests.
    Intents,
}

/// A file's folder and its name without `.json`.
pub(super) type Name = (Place, Box<str>);

/// Whether whoever made a file may still be writing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writer {
    Done,
    MaybeAtIt,
}

/// What may have changed since the last time.
pub(super) enum Changes {
    /// These files; none at all when it is empty.
    Files(HashMap<Name, Writer>),
    /// Anything.
    Everything,
}

pub(super) struct Watch {
    pub(super) folders: [(Place, PathBuf); 2],
    state: State,
}

enum State {
    /// The kernel tells.
    Told {
        inotify: OwnedFd,
        places: [(i32, Place); 2],
    },
    /// The kernel would tell, but the watch has to be set up (again).
    Lost,
    /// We look.
    Polling { next: Instant },
}

impl Watch {
    pub(super) fn of(directory: &Path, polling: bool) -> Self {
        let intents = directory.join(runbookai::FOLDER);
        let folders = [
            (Place::Approvals, directory.to_owned()),
            (Place::Intents, intents),
        ];
        let state = if polling {
            State::Polling {
                next: clock::tick(),
            }
        } else {
            State::Lost
        };
        Self { folders, state }
    }

    /// What may have changed since the last time.
    pub(super) fn changes(&mut self) -> io::Result<Changes> {
        let now = clock::tick();
        match &mut self.state {
            State::Polling { next } if now < *next => Ok(Changes::Files(HashMap::new())),
            State::Polling { next } => {
                *next = now + POLL;
                Ok(Changes::Everything)
            }
            State::Told { inotify, places } => {
                if let Some(files) = told(inotify, places)? {
                    return Ok(Changes::Files(files));
                }
                self.start_over();
                self.changes()
            }
            State::Lost => {
                self.state = match self.begin() {
                    // Others of this user may hold all that the kernel grants: 128 by default.
                    Err(error) if is_exhausted(&error) => {
                        log::warn!(reason:% = reason(&error); "The kernel does not watch the pending directory, it is polled");
                        State::Polling { next: now + POLL }
                    }
                    begun => begun?,
                };
                Ok(Changes::Everything)
            }
        }
    }

    /// Makes everything worth a look: what was told has not been taken in.
    pub(super) fn start_over(&mut self) {
        self.state = match self.state {
            State::Polling { .. } => State::Polling {
                next: clock::tick(),
            },
            State::Told { .. } | State::Lost => State::Lost,
        };
    }

    /// Begins to watch, before the first look, so that nothing falls between the two.
    fn begin(&self) -> io::Result<State> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let what = WatchFlags::ATTRIB
            | WatchFlags::CREATE
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        let mut places = [(0, Place::Approvals), (0, Place::Intents)];
        for (watched, (place, folder)) in places.iter_mut().zip(&self.folders) {
            if *place == Place::Intents {
                durable::ensure_folder(folder)?;
            }
            *watched = (inotify::add_watch(&inotify, folder, what)?, *place);
        }
        Ok(State::Told { inotify, places })
    }
}

/// Whether the system would watch, but has no more room for it.
fn is_exhausted(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let full = [Errno::MFILE, Errno::NFILE, Errno::NOSPC, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|error| full.contains(&error))
}

/// What the kernel has told; `None` when that is not all that has happened.
fn told(
    inotify: &OwnedFd,
    places: &[(i32, Place); 2],
) -> io::Result<Option<HashMap<Name, Writer>>> {
    let incomplete = ReadFlags::QUEUE_OVERFLOW
        | ReadFlags::IGNORED
        | ReadFlags::DELETE_SELF
        | ReadFlags::MOVE_SELF;
    let mut files = HashMap::new();
    let mut buffer = [MaybeUninit::uninit(); 8192];
    let mut events = Reader::new(inotify, &mut buffer);
    loop {
        let event = match events.next() {
            Ok(event) => event,
            Err(rustix::io::Errno::AGAIN) => return Ok(Some(files)),
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        if event.events().intersects(incomplete) {
            return Ok(None);
        }
        let place = places
            .iter()
            .find(|(descriptor, _)| *descriptor == event.wd());
        let name = event
            .file_name()
            .and_then(|name| stem(OsStr::from_bytes(name.to_bytes())));
        if let (Some((_, place)), Some(name)) = (place, name) {
            // A link is whole when it appears, and nobody closes it.
            let made = event.events() == ReadFlags::CREATE;
            let writer = if made {
                Writer::MaybeAtIt
            } else {
                Writer::Done
            };
            let last = files.entry((*place, name)).or_insert(writer);
            if *last == Writer::MaybeAtIt {
                *last = writer;
            }
        }
    }
}

/// The name without `.json`; `None` for what cannot be an approval.
pub(super) fn stem(file: &OsStr) -> Option<Box<str>> {
    let name = file.to_str().filter(|name| !name.starts_with('.'))?;
    name.strip_suffix(".json").map(Into::into)
}

/// Whether the kernel says that other hosts may share it. FUSE counts: GlusterFS and sshfs use it.
pub(super) fn is_network_filesystem(path: &Path) -> bool {
    /// From linux/magic.h: NFS, SMB, CIFS, SMB2, FUSE, Ceph, AFS, 9P, Lustre, GPFS, OCFS2.
    const MAGIC: [u64; 11] = [
        0x6969,
        0x517b,
        0xff53_4d42,
        0xfe53_4d42,
        0x6573_5546,
        0x00c3_6400,
        0x5346_414f,
        0x0102_1997,
        0x0bd0_0bd0,
        0x4750_4653,
        0x7461_636f,
    ];
    rustix::fs::statfs(path)
        .is_ok_and(|fs| MAGIC.contains(&(fs.f_type.cast_unsigned() & 0xffff_ffff)))
}
