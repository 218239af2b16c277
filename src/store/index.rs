//! What the directory holds, known without reading it again.
//!
//! Each file is read when it is first seen and when it has changed; counts and due times are kept
//! as files come and go. On Linux the kernel tells what changed (inotify), and every question
//! first takes in what it has told, so that an answer is never older than the directory. On a
//! network filesystem, where the kernel sees only its own host's changes, the directory is listed
//! again instead, at most every [`POLL`].

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::Metadata;
use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};

use super::durable::{self, Stamp};
use super::runbookai::{self, AgentFile};
use super::{Census, Chore};
use crate::approval::{Approval, ApprovalId, Status, parse_object};
use crate::clock::{self, Timestamp};
use crate::complaint::reason;

/// How often a directory is listed where the kernel does not tell.
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
type Name = (Place, Box<str>);

/// What one file is.
#[derive(Debug)]
enum Entry {
    Approval {
        status: Status,
        due: Option<Timestamp>,
        owner: Option<Box<str>>,
        notified: bool,
    },
    AgentRequest {
        created_at: Timestamp,
    },
    AgentAnswer,
    Damaged,
}

pub(super) struct Index {
    folders: [(Place, PathBuf); 2],
    keep_decided: Duration,
    watch: Watch,
    entries: HashMap<Name, (Stamp, Entry)>,
    pending: usize,
    damaged: usize,
    /// Approvals that expire or go to the archive, by when.
    agenda: BTreeSet<(Timestamp, Name)>,
    owing: HashSet<Name>,
    agent_requests: HashSet<Name>,
    notified: Vec<Chore>,
    /// Whether the first listing is done: what is found before that is not news.
    settled: bool,
}

/// Whether whoever made a file may still be writing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writer {
    Done,
    MaybeAtIt,
}

enum Watch {
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

impl Index {
    pub(super) fn new(directory: &Path, keep_decided: Duration, polling: bool) -> Self {
        let intents = directory.join(runbookai::FOLDER);
        Self {
            folders: [
                (Place::Approvals, directory.to_owned()),
                (Place::Intents, intents),
            ],
            keep_decided,
            watch: if polling {
                Watch::Polling {
                    next: clock::tick(),
                }
            } else {
                Watch::Lost
            },
            entries: HashMap::new(),
            pending: 0,
            damaged: 0,
            agenda: BTreeSet::new(),
            owing: HashSet::new(),
            agent_requests: HashSet::new(),
            notified: Vec::new(),
            settled: false,
        }
    }

    /// Counts as of now.
    pub(super) fn census(&mut self, now: Timestamp) -> io::Result<Census> {
        self.refresh()?;
        let waiting = self
            .agent_requests
            .iter()
            .filter(|name| self.is_waiting(name, now))
            .count();
        Ok(Census {
            pending: self.pending + waiting,
            unreadable: self.damaged,
            owing: self.owing.len(),
        })
    }

    /// What is due, except for what other living processes have promised.
    pub(super) fn chores(
        &mut self,
        now: Timestamp,
        is_dead: &dyn Fn(&str) -> bool,
    ) -> io::Result<Vec<Chore>> {
        self.refresh()?;
        let mut chores = std::mem::take(&mut self.notified);
        for (due, name) in &self.agenda {
            if *due > now {
                break;
            }
            let Some(id) = ApprovalId::parse(&name.1) else {
                continue;
            };
            chores.push(match self.entries.get(name) {
                Some((
                    _,
                    Entry::Approval {
                        status: Status::Pending,
                        ..
                    },
                )) => Chore::Expire(id),
                _ => Chore::Archive(id),
            });
        }
        let mut known = HashMap::new();
        for name in &self.owing {
            if let Some((
                _,
                Entry::Approval {
                    owner: Some(owner), ..
                },
            )) = self.entries.get(name)
                && *known.entry(owner).or_insert_with(|| is_dead(owner))
            {
                chores.extend(ApprovalId::parse(&name.1).map(Chore::TakeOver));
            }
        }
        Ok(chores)
    }

    /// Lists everything again, because it is another directory.
    pub(super) fn start_over(&mut self) {
        self.watch = match self.watch {
            Watch::Polling { .. } => Watch::Polling {
                next: clock::tick(),
            },
            Watch::Told { .. } | Watch::Lost => Watch::Lost,
        };
    }

    /// Notes what this process has written itself, so that it need not be read back.
    pub(super) fn note(&mut self, place: Place, approval: &Approval, metadata: &Metadata) {
        let entry = self.entry_of(place, approval);
        self.put(
            (place, approval.id().as_str().into()),
            Stamp::of(metadata),
            entry,
        );
    }

    /// Whether the agent of this request still waits: it is young, and undecided.
    fn is_waiting(&self, name: &Name, now: Timestamp) -> bool {
        let young = matches!(self.entries.get(name),
            Some((_, Entry::AgentRequest { created_at })) if *created_at + runbookai::PATIENCE > now);
        let id = name.1.strip_suffix("_pending").unwrap_or(&name.1);
        let intent = self.entries.get(&(Place::Intents, id.into()));
        young
            && !matches!(intent, Some((_, Entry::Approval { status, .. })) if *status != Status::Pending)
    }

    /// Takes in what has changed since the last time.
    fn refresh(&mut self) -> io::Result<()> {
        match &self.watch {
            Watch::Polling { next } if clock::tick() < *next => Ok(()),
            Watch::Polling { .. } => {
                self.list()?;
                self.watch = Watch::Polling {
                    next: clock::tick() + POLL,
                };
                Ok(())
            }
            Watch::Told { .. } => self.take_events(),
            Watch::Lost => {
                self.watch = self.start_watching()?;
                self.list()
            }
        }
    }

    /// Watches before the first read, so that nothing falls between the two.
    fn start_watching(&self) -> io::Result<Watch> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let what = WatchFlags::CREATE
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        let mut places = [(0, Place::Approvals), (0, Place::Intents)];
        for (watched, (place, folder)) in places.iter_mut().zip(&self.folders) {
            *watched = (inotify::add_watch(&inotify, folder, what)?, *place);
        }
        Ok(Watch::Told { inotify, places })
    }

    fn take_events(&mut self) -> io::Result<()> {
        let Watch::Told { inotify, places } = &self.watch else {
            return Ok(());
        };
        let mut changed = HashMap::new();
        let mut complete = true;
        let mut buffer = [MaybeUninit::uninit(); 8192];
        let mut events = Reader::new(inotify, &mut buffer);
        loop {
            let event = match events.next() {
                Ok(event) => event,
                Err(rustix::io::Errno::AGAIN) => break,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let gone = ReadFlags::QUEUE_OVERFLOW
                | ReadFlags::IGNORED
                | ReadFlags::DELETE_SELF
                | ReadFlags::MOVE_SELF;
            complete &= !event.events().intersects(gone);
            let place = places
                .iter()
                .find(|(descriptor, _)| *descriptor == event.wd());
            if let (Some((_, place)), Some(name)) = (place, event.file_name())
                && let Some(name) = stem(OsStr::from_bytes(name.to_bytes()))
            {
                // A link is whole when it appears, and nobody closes it.
                let writer = if event.events() == ReadFlags::CREATE {
                    Writer::MaybeAtIt
                } else {
                    Writer::Done
                };
                let last = changed.entry((*place, name)).or_insert(writer);
                if *last == Writer::MaybeAtIt {
                    *last = writer;
                }
            }
        }
        for (name, writer) in changed {
            if let Err(error) = self.look(name, writer) {
                // What the kernel told is used up, so everything is to be looked at again.
                self.watch = Watch::Lost;
                return Err(error);
            }
        }
        if complete {
            return Ok(());
        }
        self.watch = Watch::Lost;
        self.refresh()
    }

    /// Looks at every file, and forgets those that are gone.
    fn list(&mut self) -> io::Result<()> {
        let mut gone: HashSet<Name> = self.entries.keys().cloned().collect();
        for (place, folder) in self.folders.clone() {
            let files = match std::fs::read_dir(&folder) {
                Err(error) if error.kind() == ErrorKind::NotFound && place == Place::Intents => {
                    continue;
                }
                files => files?,
            };
            for file in files {
                if let Some(stem) = stem(&file?.file_name()) {
                    let name = (place, stem);
                    gone.remove(&name);
                    self.look(name, Writer::Done)?;
                }
            }
        }
        for name in &gone {
            self.forget(name);
        }
        self.settled = true;
        Ok(())
    }

    /// Looks at one file, and reads it when it is new or has changed.
    fn look(&mut self, name: Name, writer: Writer) -> io::Result<()> {
        let path = self.path(&name);
        let metadata = match std::fs::symlink_metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.forget(&name);
                return Ok(());
            }
            metadata => metadata?,
        };
        let stamp = Stamp::of(&metadata);
        if self
            .entries
            .get(&name)
            .is_some_and(|(known, _)| *known == stamp)
        {
            return Ok(());
        }
        let (stamp, entry) = match durable::read(&path) {
            Ok(None) => {
                self.forget(&name);
                return Ok(());
            }
            Ok(Some((bytes, metadata))) => (Stamp::of(&metadata), self.classify(&name, &bytes)),
            Err(error) => (stamp, Err(reason(&error))),
        };
        if entry.is_err() && writer == Writer::MaybeAtIt && metadata.is_file() {
            // It is news when it is closed.
            return Ok(());
        }
        let entry = entry.unwrap_or_else(|reason| {
            log::warn!(file:% = path.display(), reason:%; "Unreadable approval file, left as it is");
            Entry::Damaged
        });
        self.put(name, stamp, entry);
        Ok(())
    }

    /// What a file is, by what it holds.
    fn classify(&self, name: &Name, bytes: &[u8]) -> Result<Entry, String> {
        let id = ApprovalId::parse(&name.1).ok_or("its name is no approval id")?;
        Approval::parse(&id, bytes)
            .map(|approval| self.entry_of(name.0, &approval))
            .or_else(|damage| {
                match parse_object(bytes)
                    .ok()
                    .and_then(|fields| AgentFile::recognise(&fields))
                {
                    Some(AgentFile::Request { created_at }) if name.1.ends_with("_pending") => {
                        Ok(Entry::AgentRequest { created_at })
                    }
                    Some(AgentFile::Answer) => Ok(Entry::AgentAnswer),
                    _ => Err(damage.to_string()),
                }
            })
    }

    fn entry_of(&self, place: Place, approval: &Approval) -> Entry {
        let keep = match place {
            Place::Approvals => self.keep_decided,
            Place::Intents => runbookai::TOMBSTONE,
        };
        let owner = approval.owed().next().map(|owed| owed.owner.into());
        let due = match approval.status() {
            Status::Pending => approval.expires_at(),
            _ if owner.is_some() => None,
            // Without its time it is kept: we cannot tell how old it is.
            _ => approval.decided_at().map(|at| at + keep),
        };
        let notified = approval.text("agentNotifiedAt").is_some();
        Entry::Approval {
            status: approval.status(),
            due,
            owner,
            notified,
        }
    }

    fn put(&mut self, name: Name, stamp: Stamp, entry: Entry) {
        let was_notified = self
            .entries
            .get(&name)
            .map(|(_, old)| matches!(old, Entry::Approval { notified: true, .. }));
        self.forget(&name);
        match &entry {
            Entry::Approval {
                status,
                due,
                owner,
                notified,
            } => {
                // An intent stands beside the agent's own file, which is counted instead.
                if *status == Status::Pending && name.0 == Place::Approvals {
                    self.pending += 1;
                }
                if let Some(due) = due {
                    self.agenda.insert((*due, name.clone()));
                }
                if owner.is_some() {
                    self.owing.insert(name.clone());
                }
                if *notified
                    && self.settled
                    && was_notified != Some(true)
                    && *status != Status::Pending
                {
                    let id = ApprovalId::parse(&name.1);
                    self.notified.extend(id.map(|id| Chore::AgentNotified {
                        id,
                        status: *status,
                    }));
                }
            }
            Entry::AgentRequest { .. } => {
                self.agent_requests.insert(name.clone());
            }
            Entry::AgentAnswer => {}
            Entry::Damaged => self.damaged += 1,
        }
        self.entries.insert(name, (stamp, entry));
    }

    fn forget(&mut self, name: &Name) {
        match self.entries.remove(name) {
            Some((
                _,
                Entry::Approval {
                    status, due, owner, ..
                },
            )) => {
                if status == Status::Pending && name.0 == Place::Approvals {
                    self.pending -= 1;
                }
                if let Some(due) = due {
                    self.agenda.remove(&(due, name.clone()));
                }
                if owner.is_some() {
                    self.owing.remove(name);
                }
            }
            Some((_, Entry::AgentRequest { .. })) => {
                self.agent_requests.remove(name);
            }
            Some((_, Entry::Damaged)) => self.damaged -= 1,
            Some((_, Entry::AgentAnswer)) | None => {}
        }
    }

    fn path(&self, (place, stem): &Name) -> PathBuf {
        let folder = &self.folders[usize::from(*place == Place::Intents)].1;
        folder.join(format!("{stem}.json"))
    }
}

/// The name without `.json`; `None` for what cannot be an approval.
fn stem(file: &OsStr) -> Option<Box<str>> {
    let name = file.to_str()?;
    (!name.starts_with('.')).then_some(())?;
    name.strip_suffix(".json").map(Into::into)
}
