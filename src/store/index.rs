//! What the directory holds, known without reading it again.
//!
//! Each file is read when it is first seen and when it has changed; counts and due times are kept
//! as files come and go. Whoever asks first lets it take in what has changed ([`Index::advance`]), so
//! that on a local disk no answer is older than the directory.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::{Metadata, ReadDir};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::durable::{self, Stamp};
use super::runbookai::{self, AgentFile};
use super::watch::{Changes, Name, Place, Watch, Writer, stem};
use super::{Census, Chore};
use crate::approval::{Approval, ApprovalId, OpenLife, Status, parse_object};
use crate::clock::{self, Timestamp};
use crate::complaint::reason;

/// How much longer an approval stays whose command has yet to start or to end.
const RUN: Duration = Duration::from_secs(24 * 3600);

/// How many files are looked at between two looks at the clock.
const STRIDE: usize = 2048;

pub(super) struct Index {
    watch: Watch,
    keep_decided: Duration,
    entries: HashMap<Name, (Stamp, Entry)>,
    pending: usize,
    damaged: usize,
    /// Approvals that expire or go to the archive, by when.
    agenda: BTreeSet<(Timestamp, Name)>,
    /// Pending approvals that nobody has been reminded of, by when they expire.
    unreminded: BTreeSet<(Timestamp, Name)>,
    owing: HashSet<Name>,
    /// Requests of the RunbookAI agent, by when they were made.
    agent_requests: BTreeSet<(Timestamp, Name)>,
    /// Files that the system would not let us read a moment ago.
    again: HashSet<Name>,
    /// What is told once, when it is seen: that the agent knows, or that a request is to be adopted.
    news: Vec<Chore>,
    /// Whether what is pending has changed since that was last told.
    pending_changed: bool,
    /// Whether the first listing is done: that the agent knew before is not news.
    settled: bool,
    /// The listing that is under way.
    round: Option<Round>,
}

/// A listing of everything, as far as it has got.
struct Round {
    /// Files that were known and have not been come upon.
    gone: HashSet<Name>,
    /// The folders that are yet to be listed.
    places: Vec<(Place, PathBuf)>,
    /// The rest of the one that is being listed.
    files: Option<(Place, ReadDir)>,
}

impl Round {
    /// The files that come next, none when all were come upon.
    fn next(&mut self) -> io::Result<Vec<Name>> {
        let mut names = Vec::new();
        while names.len() < STRIDE {
            let Some((place, files)) = &mut self.files else {
                match self.places.pop() {
                    Some((place, folder)) => self.files = Some((place, std::fs::read_dir(folder)?)),
                    None => break,
                }
                continue;
            };
            match files.next() {
                Some(file) => names.extend(stem(&file?.file_name()).map(|stem| (*place, stem))),
                None => self.files = None,
            }
        }
        if !self.gone.is_empty() {
            for name in &names {
                self.gone.remove(name);
            }
        }
        Ok(names)
    }
}

/// How much of the directory is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coverage {
    Whole,
    /// A listing is under way.
    Partial,
}

/// What a look at one file tells.
enum Sight {
    /// Nothing new.
    AsKnown,
    Nothing,
    /// Something that the system does not let us read for a moment.
    Unreadable,
    New(Stamp, Entry),
}

/// What one file is.
#[derive(Debug)]
enum Entry {
    Approval(Summary),
    AgentRequest { created_at: Timestamp },
    AgentAnswer,
    Damaged,
}

/// What we need to know of an approval without reading it.
#[derive(Debug)]
struct Summary {
    status: Status,
    /// When it expires or goes to the archive.
    due: Option<Timestamp>,
    /// As long as a reminder may become due.
    life: Option<OpenLife>,
    owes: bool,
    /// Who have promised to do what it owes.
    owners: Vec<Box<str>>,
    /// Nobody has shown it in Slack, or promised to.
    unseen: bool,
    notified: bool,
}

impl Entry {
    /// Whether it is an approval that nobody has decided.
    fn is_pending(&self) -> bool {
        matches!(self, Self::Approval(summary) if summary.status == Status::Pending)
    }

    /// Whether somebody may have to decide it.
    fn is_open(&self) -> bool {
        self.is_pending() || matches!(self, Self::AgentRequest { .. })
    }
}

impl Index {
    pub(super) fn new(directory: &Path, keep_decided: Duration, polling: bool) -> Self {
        Self {
            watch: Watch::of(directory, polling),
            keep_decided,
            entries: HashMap::new(),
            pending: 0,
            damaged: 0,
            agenda: BTreeSet::new(),
            unreminded: BTreeSet::new(),
            owing: HashSet::new(),
            agent_requests: BTreeSet::new(),
            again: HashSet::new(),
            news: Vec::new(),
            pending_changed: false,
            settled: false,
            round: None,
        }
    }

    /// Counts as of now.
    pub(super) fn census(&self, now: Timestamp) -> Census {
        Census {
            pending: self.pending + self.waiting(now).count(),
            unreadable: self.damaged,
            owing: self.owing.len(),
            counting: self.round.is_some(),
        }
    }

    /// What is pending as of now.
    pub(super) fn pending(&self, now: Timestamp) -> HashSet<ApprovalId> {
        let ours = self.entries.iter().filter_map(|(name, (_, entry))| {
            (name.0 == Place::Approvals && entry.is_pending()).then_some(&*name.1)
        });
        let agents = self.waiting(now).map(|name| {
            let stem = &*name.1;
            stem.strip_suffix(runbookai::REQUEST).unwrap_or(stem)
        });
        ours.chain(agents).filter_map(ApprovalId::parse).collect()
    }

    /// The RunbookAI agent's requests that it still waits for.
    fn waiting(&self, now: Timestamp) -> impl Iterator<Item = &Name> {
        // Older ones have been given up by their agent.
        let young = (now - runbookai::AGENT_WAITS, (Place::Approvals, "".into()));
        let made = self.agent_requests.range(young..);
        made.map(|(_, name)| name).filter(|name| self.is_open(name))
    }

    /// What is due, except for what other living processes have promised.
    pub(super) fn chores(
        &mut self,
        now: Timestamp,
        remind_before: Duration,
        is_dead: &dyn Fn(&str) -> bool,
    ) -> Vec<Chore> {
        let mut chores = std::mem::take(&mut self.news);
        if std::mem::take(&mut self.pending_changed) {
            chores.push(Chore::PendingChanged);
        }
        for (_, name) in self.agenda.iter().take_while(|(due, _)| *due <= now) {
            if let (Some(summary), Some(id)) = (self.summary(name), ApprovalId::parse(&name.1)) {
                let pending = summary.status == Status::Pending;
                chores.push(if pending {
                    Chore::Expire(id)
                } else {
                    Chore::Archive(id)
                });
            }
        }
        let near = now + remind_before;
        for (_, name) in self.unreminded.iter().take_while(|(end, _)| *end <= near) {
            let life = self.summary(name).and_then(|summary| summary.life);
            if life.is_some_and(|life| life.calls_for_reminder(remind_before, now)) {
                chores.extend(ApprovalId::parse(&name.1).map(Chore::Remind));
            }
        }
        let mut known = HashMap::new();
        for name in &self.owing {
            let mut owners = self.summary(name).into_iter().flat_map(|s| &s.owners);
            if owners.any(|owner| *known.entry(owner).or_insert_with(|| is_dead(owner))) {
                chores.extend(ApprovalId::parse(&name.1).map(Chore::TakeOver));
            }
        }
        chores
    }

    /// Looks at everything again, because it is another directory.
    pub(super) fn start_over(&mut self) {
        self.round = None;
        self.watch.start_over();
    }

    fn summary(&self, name: &Name) -> Option<&Summary> {
        match self.entries.get(name) {
            Some((_, Entry::Approval(summary))) => Some(summary),
            _ => None,
        }
    }

    /// Whether nothing has been decided about a request of the RunbookAI agent, by us or others.
    fn is_open(&self, name: &Name) -> bool {
        let id = name.1.strip_suffix(runbookai::REQUEST).unwrap_or(&name.1);
        let answer = self.entries.get(&(Place::Approvals, id.into()));
        let intent = self.summary(&(Place::Intents, id.into()));
        !matches!(answer, Some((_, Entry::AgentAnswer)))
            && intent.is_none_or(|intent| intent.status == Status::Pending)
    }

    /// Takes in what has changed since the last time, but works no longer than that: a listing of very many files
    /// goes on with the next call.
    pub(super) fn advance(&mut self, limit: Duration) -> io::Result<Coverage> {
        let taken_in = self.try_to_advance(clock::tick() + limit);
        if taken_in.is_err() {
            self.start_over();
        }
        taken_in
    }

    fn try_to_advance(&mut self, end: Instant) -> io::Result<Coverage> {
        if let Some(round) = self.round.take() {
            return self.go_on(round, end);
        }
        let again = std::mem::take(&mut self.again);
        match self.watch.changes()? {
            Changes::Everything => {
                let round = Round {
                    gone: self.entries.keys().cloned().collect(),
                    places: self.watch.folders.to_vec(),
                    files: None,
                };
                self.go_on(round, end)
            }
            Changes::Files(mut files) => {
                files.extend(again.into_iter().map(|name| (name, Writer::Done)));
                for (name, writer) in files {
                    let found = self.look(&name, writer)?;
                    self.take_in(name, found);
                }
                Ok(Coverage::Whole)
            }
        }
    }

    /// Looks at every file that the round has not come to, and forgets in the end those that are gone.
    fn go_on(&mut self, mut round: Round, end: Instant) -> io::Result<Coverage> {
        loop {
            let names = round.next()?;
            if names.is_empty() {
                break;
            }
            let found = self.look_at_all(&names)?;
            for (name, found) in names.into_iter().zip(found) {
                self.take_in(name, found);
            }
            if clock::tick() >= end {
                self.round = Some(round);
                return Ok(Coverage::Partial);
            }
        }
        for name in &round.gone {
            self.forget(name);
        }
        self.settled = true;
        Ok(Coverage::Whole)
    }

    /// Looks at files, and in two threads when they are many: 100,000 are listed in 0.8 of the time that one takes
    /// (`scripts/bench/run --only crowds`).
    fn look_at_all(&self, names: &[Name]) -> io::Result<Vec<Sight>> {
        let look = |names: &[Name]| {
            let found = names.iter().map(|name| self.look(name, Writer::Done));
            found.collect::<io::Result<Vec<_>>>()
        };
        if names.len() < STRIDE {
            return look(names);
        }
        let (ours, others) = names.split_at(STRIDE / 2);
        thread::scope(|scope| {
            let helper = thread::Builder::new().name("listing".into());
            let helper = helper.spawn_scoped(scope, || look(others));
            let mut found = look(ours)?;
            found.extend(match helper {
                Ok(helper) => helper.join().unwrap_or_else(|panic| resume_unwind(panic))?,
                // There is no other thread to be had.
                Err(_) => look(others)?,
            });
            Ok(found)
        })
    }

    /// Takes in what this process has just written to a file of that inode, which then need not be read.
    pub(super) fn learn(&mut self, place: Place, approval: &Approval, inode: u64) {
        let name = (place, approval.id().as_str().into());
        let found = stat(&self.path(&name));
        if let Ok(Some(metadata)) = found
            && self.settled
            && metadata.ino() == inode
        {
            let entry = Entry::Approval(self.summarise(place, approval));
            self.put(name, Stamp::of(&metadata), entry);
        }
    }

    /// Looks at one file, and reads it when it is new or has changed.
    fn look(&self, name: &Name, writer: Writer) -> io::Result<Sight> {
        let path = self.path(name);
        // What is new is read in any case, and tells its stamp then.
        if let Some((known, _)) = self.entries.get(name)
            && stat(&path)?.is_some_and(|now| Stamp::of(&now) == *known)
        {
            return Ok(Sight::AsKnown);
        }
        let (metadata, entry) = match durable::read(&path) {
            Ok(None) => return Ok(Sight::Nothing),
            Ok(Some((bytes, metadata))) => (metadata, self.classify(name, &bytes)),
            // What is no file, or too large, or not ours to read is so until it changes.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::InvalidData | ErrorKind::PermissionDenied
                ) =>
            {
                let Some(metadata) = stat(&path)? else {
                    return Ok(Sight::Nothing);
                };
                (metadata, Err(reason(&error)))
            }
            Err(error) => {
                log::debug!(file:% = path.display(), reason:% = reason(&error); "Cannot read a file for a moment");
                return Ok(Sight::Unreadable);
            }
        };
        if entry.is_err() && writer == Writer::MaybeAtIt && metadata.is_file() {
            // It is news when it is closed.
            return Ok(Sight::AsKnown);
        }
        let entry = entry.unwrap_or_else(|reason| {
            log::warn!(file:% = path.display(), reason:%; "Unreadable approval file, left as it is");
            Entry::Damaged
        });
        Ok(Sight::New(Stamp::of(&metadata), entry))
    }

    fn take_in(&mut self, name: Name, found: Sight) {
        match found {
            Sight::AsKnown => {}
            Sight::Nothing => self.forget(&name),
            Sight::Unreadable => {
                self.again.insert(name);
            }
            Sight::New(stamp, entry) => self.put(name, stamp, entry),
        }
    }

    /// What a file is, by what it holds.
    fn classify(&self, name: &Name, bytes: &[u8]) -> Result<Entry, String> {
        let approval = match ApprovalId::parse(&name.1) {
            Some(id) => Approval::parse(&id, bytes).map_err(|damage| damage.to_string()),
            None => Err("its name is no approval id".into()),
        };
        approval
            .map(|approval| Entry::Approval(self.summarise(name.0, &approval)))
            .or_else(|damage| {
                match parse_object(bytes)
                    .ok()
                    .and_then(|fields| AgentFile::recognise(&fields))
                {
                    Some(AgentFile::Request { created_at })
                        if name.1.ends_with(runbookai::REQUEST) =>
                    {
                        Ok(Entry::AgentRequest { created_at })
                    }
                    Some(AgentFile::Answer) => Ok(Entry::AgentAnswer),
                    _ => Err(damage),
                }
            })
    }

    fn summarise(&self, place: Place, approval: &Approval) -> Summary {
        let keep = match place {
            Place::Approvals => self.keep_decided,
            Place::Intents => runbookai::TOMBSTONE,
        };
        let due = match approval.status() {
            Status::Pending => approval.expires_at(),
            _ if approval.owes() => None,
            // Without its time it is kept: we cannot tell how old it is.
            _ if approval.awaits_run() => approval.decided_at().map(|at| at + keep + RUN),
            _ => approval.decided_at().map(|at| at + keep),
        };
        Summary {
            status: approval.status(),
            due,
            life: approval.open_life(),
            owes: approval.owes(),
            owners: approval.promisers().map(Box::from).collect(),
            unseen: place == Place::Approvals
                && approval.status() == Status::Pending
                && !approval.is_shown()
                && !approval.owes_effects(),
            notified: approval.text("agentNotifiedAt").is_some(),
        }
    }

    fn put(&mut self, name: Name, stamp: Stamp, entry: Entry) {
        let replaced = self.entries.remove(&name);
        let was_notified =
            matches!(&replaced, Some((_, Entry::Approval(summary))) if summary.notified);
        self.strike(&name, replaced);
        self.pending_changed |= entry.is_open();
        match &entry {
            Entry::Approval(summary) => {
                // An intent stands beside the agent's own file, which is counted instead.
                if summary.status == Status::Pending && name.0 == Place::Approvals {
                    self.pending += 1;
                }
                if let Some(due) = summary.due {
                    self.agenda.insert((due, name.clone()));
                }
                if let Some(life) = summary.life {
                    self.unreminded.insert((life.until, name.clone()));
                }
                if summary.owes {
                    self.owing.insert(name.clone());
                }
                if summary.unseen {
                    self.news
                        .extend(ApprovalId::parse(&name.1).map(Chore::Adopt));
                }
                if summary.notified
                    && !was_notified
                    && self.settled
                    && summary.status != Status::Pending
                {
                    let (id, status) = (ApprovalId::parse(&name.1), summary.status);
                    self.news
                        .extend(id.map(|id| Chore::AgentNotified { id, status }));
                }
            }
            Entry::AgentRequest { created_at } => {
                self.agent_requests.insert((*created_at, name.clone()));
            }
            Entry::AgentAnswer => {}
            Entry::Damaged => self.damaged += 1,
        }
        self.entries.insert(name, (stamp, entry));
    }

    fn forget(&mut self, name: &Name) {
        let removed = self.entries.remove(name);
        self.strike(name, removed);
    }

    /// Takes out of the lists what was known of a file.
    fn strike(&mut self, name: &Name, removed: Option<(Stamp, Entry)>) {
        self.pending_changed |= removed.as_ref().is_some_and(|(_, entry)| entry.is_open());
        match removed {
            Some((_, Entry::Approval(summary))) => {
                if summary.status == Status::Pending && name.0 == Place::Approvals {
                    self.pending -= 1;
                }
                if let Some(due) = summary.due {
                    self.agenda.remove(&(due, name.clone()));
                }
                if let Some(life) = summary.life {
                    self.unreminded.remove(&(life.until, name.clone()));
                }
                self.owing.remove(name);
            }
            Some((_, Entry::AgentRequest { created_at })) => {
                self.agent_requests.remove(&(created_at, name.clone()));
            }
            Some((_, Entry::Damaged)) => self.damaged -= 1,
            Some((_, Entry::AgentAnswer)) | None => {}
        }
    }

    fn path(&self, (place, stem): &Name) -> PathBuf {
        let [(_, approvals), (_, intents)] = &self.watch.folders;
        let folder = match place {
            Place::Approvals => approvals,
            Place::Intents => intents,
        };
        let mut path = PathBuf::with_capacity(folder.as_os_str().len() + stem.len() + 6);
        path.push(folder);
        path.push(&**stem);
        path.as_mut_os_string().push(".json");
        path
    }
}

/// What the system says of a name; `None` when there is none.
fn stat(path: &Path) -> io::Result<Option<Metadata>> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        metadata => metadata.map(Some),
    }
}
