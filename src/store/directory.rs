//! The store as a directory of JSON files that any program may read and add to.

use std::fs::{DirBuilder, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use memchr::memmem;

use super::audit::AuditLog;
use super::ballots::Ballots;
use super::events::Events;
use super::follow::Follower;
use super::index::{Index, Knowledge};
use super::lock::{Guard, Locks};
use super::recorded::Recorded;
use super::runbookai::{self, AgentFile, Answers, Ready};
use super::watch::Place;
use super::{
    Caution, Census, Chore, Created, Deferred, Durability, Edit, Follow, Listing, Novelty, Store,
    StoreError, Updated, durable, lock, watch,
};
use crate::approval::{
    Approval, ApprovalId, Ballot, Damage, Entry, Fingerprint, Progress, SignKey, Station, Status,
    parse_object,
};
use crate::clock::{self, Timestamp};
use crate::complaint::reason;
use crate::live::Live;

/// How often an id may have been used, as far as we look.
const REUSED: usize = 16;
/// What is written to prove that: an empty file can often be made on a disk that is full.
const PAGE: [u8; 4096] = [b' '; 4096];
/// How long a successful write proves that writing works.
const PROOF: Duration = Duration::from_millis(250);
/// How long a listing goes on before others have their turn.
const STRETCH: Duration = Duration::from_millis(20);
/// How long a count waits for a listing to be whole: health is to be told soon after the start, too.
const PATIENCE: Duration = Duration::from_millis(100);
/// How often it is looked for processes that have died.
const LOOK: Duration = Duration::from_secs(4);

/// Where a store is, and who uses it.
#[derive(Clone, Debug, Default)]
pub struct Site {
    /// The pending directory.
    pub path: PathBuf,
    /// The directory of the audit log; beside the pending one when absent.
    pub audit: Option<PathBuf>,
    /// Size from which a file of the audit log is put away, in bytes.
    pub audit_file_bytes: u64,
    pub station: Station,
    /// What decisions are signed with.
    pub key: Option<Arc<SignKey>>,
}

/// See [`Store`].
pub struct Directory {
    path: PathBuf,
    station: Station,
    audit: AuditLog,
    recorded: Recorded,
    key: Live<Option<Arc<SignKey>>>,
    owner: String,
    /// Absent until something is written: who only looks leaves no trace.
    home: Mutex<Option<Home>>,
    locks: Locks,
    ballots: Ballots,
    events: Events,
    index: Mutex<Index>,
    network: bool,
    /// Numbers the temporaries of this process.
    counter: AtomicU64,
    proven: Mutex<Option<Instant>>,
    /// When dead processes were looked for.
    looked: Mutex<Option<Instant>>,
    answers: Answers,
}

/// The directory that stands at the path, as long as it does.
struct Home {
    /// Device and inode.
    identity: (u64, u64),
    alive: Guard,
}

/// Where an approval was found.
enum Source {
    /// In a file of its own.
    File(Metadata),
    /// In our intent for a request of the RunbookAI agent.
    Intent(Metadata),
    /// Nowhere yet but in the agent's request.
    AgentRequest,
}

impl Source {
    /// Where the approval is written to.
    fn place(&self) -> Place {
        match self {
            Self::File(_) => Place::Approvals,
            Self::Intent(_) | Self::AgentRequest => Place::Intents,
        }
    }
}

impl Directory {
    /// Opens the directory to serve it. Temporaries of dead processes are removed, and answers that
    /// they had decided but not delivered are delivered.
    ///
    /// # Errors
    /// When it cannot be made, locked or written.
    pub fn open(site: &Site, keep_decided: Duration) -> Result<Self, StoreError> {
        Self::make(&site.path)?;
        let directory = Self::at(site, keep_decided)?;
        directory.settle_in()?;
        directory.audit.prepare()?;
        directory
            .clear_up()
            .map_err(io_error("clear up the pending directory"))?;
        Ok(directory)
    }

    /// Opens the directory to ask, to look or to decide once.
    ///
    /// # Errors
    /// When it is not there or cannot be entered.
    pub fn visit(site: &Site) -> Result<Self, StoreError> {
        // Only who serves it moves anything to the archive.
        Self::at(site, Duration::MAX)
    }

    /// Makes the directory, unless it is there.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn make(path: &Path) -> Result<(), StoreError> {
        let made = DirBuilder::new().mode(0o700).recursive(true).create(path);
        made.map_err(io_error("make the pending directory"))
    }

    fn at(site: &Site, keep_decided: Duration) -> Result<Self, StoreError> {
        let path = site
            .path
            .canonicalize()
            .map_err(io_error("find the pending directory"))?;
        let audit = site.audit_folder(&path);
        let network = watch::is_network_filesystem(&path);
        Ok(Self {
            station: site.station.clone(),
            key: Live::new(site.key.clone()),
            audit: AuditLog::of(&audit, site.audit_file_bytes),
            recorded: Recorded::default(),
            owner: lock::fresh_name().map_err(io_error("get random bytes"))?,
            home: Mutex::new(None),
            locks: Locks::of(&path),
            ballots: Ballots::of(&path),
            events: Events::of(&path),
            answers: Answers::of(&path),
            index: Mutex::new(Index::new(&path, keep_decided, network)),
            path,
            network,
            counter: AtomicU64::new(0),
            proven: Mutex::new(None),
            looked: Mutex::new(None),
        })
    }

    /// Makes our folders and announces this process, unless that is done.
    fn settle_in(&self) -> Result<(), StoreError> {
        let mut home = hold(&self.home);
        if home.is_none() {
            *home = Some(Home::move_in(&self.path, &self.locks, &self.owner)?);
        }
        Ok(())
    }

    /// Whether other hosts may share it, so that it is polled instead of watched.
    pub fn is_on_network(&self) -> bool {
        self.network
    }

    /// Whether requests of the RunbookAI agent wait in another directory, which is not served.
    pub fn is_missing_requests_in(&self, other: &Path) -> bool {
        let elsewhere = other.canonicalize().is_ok_and(|other| other != self.path);
        let files = std::fs::read_dir(other)
            .into_iter()
            .flatten()
            .filter_map(Result::ok);
        let mut names = files.filter_map(|file| file.file_name().into_string().ok());
        elsewhere && names.any(|name| name.ends_with("_pending.json"))
    }

    /// Takes notice when another directory stands at the path, because one was moved or mounted
    /// there: the kernel goes on telling about the old one.
    fn stay_home(&self) -> Result<(), StoreError> {
        let mut home = hold(&self.home);
        let now = identity(&self.path)?;
        if home.as_ref().is_some_and(|home| home.identity != now) {
            *home = Some(Home::move_in(&self.path, &self.locks, &self.owner)?);
            self.index().start_over();
            log::warn!(path:% = self.path.display(); "Another pending directory stands at this path now");
        }
        Ok(())
    }

    /// Removes what dead processes left behind and delivers what they had decided.
    fn clear_up(&self) -> io::Result<()> {
        let dead = self.dead()?;
        // Those as well that have left nothing else.
        self.remove_temporaries(&|owner| self.locks.is_dead(owner))?;
        for file in std::fs::read_dir(self.intents())?.filter_map(Result::ok) {
            let name = file.file_name().into_string().unwrap_or_default();
            let id = name.strip_suffix(".answer").and_then(ApprovalId::parse);
            if let Some(id) = id {
                self.answers.put_off(id);
            }
        }
        self.audit.clear_up(clock::now());
        self.answers.deliver_late(&self.locks);
        self.forget(dead);
        Ok(())
    }

    /// Removes the temporaries of these processes.
    fn remove_temporaries(&self, of: &dyn Fn(&str) -> bool) -> io::Result<()> {
        for folder in [&self.path, &self.intents(), self.ballots.folder()] {
            for file in std::fs::read_dir(folder)?.filter_map(Result::ok) {
                let name = file.file_name().into_string().unwrap_or_default();
                if lock::temporary_owner(&name).is_some_and(of) {
                    // Another process may be clearing up, too.
                    let _ = std::fs::remove_file(file.path());
                }
            }
        }
        Ok(())
    }

    /// Removes what dead processes announced themselves with, and their temporaries: commands that were
    /// killed leave them while a server goes on.
    fn bury_the_dead(&self) -> io::Result<()> {
        let dead = self.dead()?;
        if !dead.is_empty() {
            self.remove_temporaries(&|owner| dead.iter().any(|dead| dead == owner))?;
            self.forget(dead);
        }
        Ok(())
    }

    /// The dead processes that announced themselves here.
    fn dead(&self) -> io::Result<Vec<String>> {
        let mut owners = self.locks.owners()?;
        owners.retain(|owner| *owner != self.owner && self.locks.is_dead(owner));
        Ok(owners)
    }

    /// Removes what dead processes announced themselves with, once nothing else of theirs is left.
    fn forget(&self, dead: Vec<String>) {
        for owner in dead {
            if !self.ballots.are_owned_by(&owner) {
                self.locks.forget_if_dead(&owner);
            }
        }
    }

    /// Looks for dead processes, if that has not been done lately.
    fn look_for_the_dead(&self) {
        let mut looked = hold(&self.looked);
        let tick = clock::tick();
        if looked.is_some_and(|at| tick.duration_since(at) < LOOK) {
            return;
        }
        *looked = Some(tick);
        if let Err(error) = self.bury_the_dead() {
            log::debug!(reason:% = reason(&error); "Not cleared up after dead processes");
        }
    }

    /// Finds an approval as it is now, whatever host has written it. The lock must be held.
    fn find_locked(&self, id: &ApprovalId) -> Result<Option<(Approval, Source)>, StoreError> {
        if self.network {
            durable::revalidate(&self.file(id));
            durable::revalidate(&self.intent(id));
        }
        self.find(id)
    }

    /// Finds an approval.
    fn find(&self, id: &ApprovalId) -> Result<Option<(Approval, Source)>, StoreError> {
        let read = |path: &Path| {
            durable::read(path).map_err(|error| match error.kind() {
                ErrorKind::InvalidData => StoreError::Damaged {
                    id: id.clone(),
                    damage: Damage::new(reason(&error)),
                },
                _ => io_error(format!("read {id}"))(error),
            })
        };
        let damaged = |damage| StoreError::Damaged {
            id: id.clone(),
            damage,
        };
        let parse = |bytes: &[u8]| {
            let mut approval = Approval::parse(id, bytes).map_err(damaged)?;
            if let Some(key) = &*self.key.now() {
                approval.distrust_unsigned_votes(key.verify_key());
            }
            Ok(approval)
        };
        let mut answered = false;
        if let Some((bytes, metadata)) = read(&self.file(id))? {
            match recognise(&bytes) {
                None => return Ok(Some((parse(&bytes)?, Source::File(metadata)))),
                Some(AgentFile::Answer) => answered = true,
                Some(AgentFile::Request { .. }) => {}
            }
        }
        if let Some((bytes, metadata)) = read(&self.intent(id))? {
            return Ok(Some((parse(&bytes)?, Source::Intent(metadata))));
        }
        if answered {
            return Err(StoreError::AnsweredElsewhere);
        }
        let request = read(&self.path.join(runbookai::request_name(id)))?;
        Ok(match request.and_then(|(bytes, _)| recognise(&bytes)) {
            Some(AgentFile::Request { created_at }) => {
                let approval = runbookai::as_approval(id, created_at).map_err(damaged)?;
                Some((approval, Source::AgentRequest))
            }
            Some(AgentFile::Answer) | None => None,
        })
    }

    /// Reads every approval in a folder.
    fn list_folder(&self, folder: &Path) -> Result<Listing, StoreError> {
        let failed = || io_error(format!("list {}", folder.display()));
        let mut listing = Listing::default();
        for file in std::fs::read_dir(folder).map_err(failed())? {
            let file = file.map_err(failed())?.file_name();
            let Some(stem) = watch::stem(&file) else {
                continue;
            };
            match self.list_file(folder, &stem) {
                Ok(found) => listing.approvals.extend(found),
                Err(damage) => listing.unreadable.push((format!("{stem}.json"), damage)),
            }
        }
        Ok(listing)
    }

    /// What one file of a listing is; `None` for what is no approval and need not be one.
    fn list_file(&self, folder: &Path, stem: &str) -> Result<Option<Approval>, Damage> {
        // An id that was used before has a number in the archive.
        let name = match stem.split_once('.') {
            Some((name, number)) if number.parse::<u64>().is_ok() && folder != self.path => name,
            _ => stem,
        };
        let path = folder.join(format!("{stem}.json"));
        let read = durable::read(&path).map_err(|error| Damage::new(reason(&error)))?;
        let Some((bytes, _)) = read else {
            return Ok(None);
        };
        match recognise(&bytes) {
            Some(AgentFile::Answer) => Ok(None),
            Some(AgentFile::Request { .. }) => {
                let id = stem.strip_suffix(runbookai::REQUEST);
                let Some(id) = id.and_then(ApprovalId::parse) else {
                    return Ok(None);
                };
                match self.find(&id) {
                    // What has a file of its own is listed by that.
                    Ok(found) => Ok(found
                        .filter(|(_, source)| !matches!(source, Source::File(_)))
                        .map(|(found, _)| found)),
                    Err(StoreError::AnsweredElsewhere) => Ok(None),
                    Err(StoreError::Damaged { damage, .. }) => Err(damage),
                    Err(error) => Err(Damage::new(error.to_string())),
                }
            }
            None => {
                let id = ApprovalId::parse(name)
                    .ok_or_else(|| Damage::new("its name is no approval id"))?;
                Approval::parse(&id, &bytes).map(Some)
            }
        }
    }

    fn archive_folder(&self) -> PathBuf {
        self.path.join("archive")
    }

    /// Writes an approval to where it was found.
    fn write(&self, approval: &Approval, source: &Source) -> io::Result<Durability> {
        self.strike(approval, source)?;
        Ok(durable::sync(&self.folder(source)))
    }

    /// [`Directory::write`], whole but not safe from a power cut.
    fn strike(&self, approval: &Approval, source: &Source) -> io::Result<()> {
        let like = match source {
            Source::File(metadata) | Source::Intent(metadata) => Some(metadata),
            Source::AgentRequest => None,
        };
        let (name, document) = (format!("{}.json", approval.id()), document(approval)?);
        let (folder, place) = (self.folder(source), source.place());
        let inode = durable::swap(&folder, &name, &self.temporary(), &document, like)?;
        // Whoever holds the index has better things to do than to wait; it is told of the file by the system.
        if let Ok(mut index) = self.index.try_lock() {
            index.learn(place, approval, inode);
        }
        Ok(())
    }

    /// Where an approval stands that was found there.
    fn folder(&self, source: &Source) -> PathBuf {
        match source.place() {
            Place::Approvals => self.path.clone(),
            Place::Intents => self.intents(),
        }
    }

    /// Writes a new approval to where nothing is.
    fn write_new(&self, approval: &Approval) -> io::Result<Durability> {
        let temporary = self.path.join(self.temporary());
        durable::create(&temporary, &document(approval)?, None)?;
        if let Err(error) = durable::move_to(&temporary, &self.file(approval.id())) {
            let _ = std::fs::remove_file(&temporary);
            return Err(error);
        }
        Ok(durable::sync(&self.path))
    }

    /// Decides a request of the RunbookAI agent: the ready answer, the intent, the delivery.
    fn answer_agent(&self, approval: &Approval, source: &Source) -> io::Result<Durability> {
        let ready = self.answers.prepare(approval)?;
        let written = self.write(approval, source);
        match (&written, ready) {
            (Err(_), Ready::Prepared) => self.answers.withdraw(approval.id()),
            (Ok(_), Ready::Prepared) => self.answers.deliver_or_put_off(approval.id()),
            (_, Ready::Nothing) => {}
        }
        written
    }

    fn file(&self, id: &ApprovalId) -> PathBuf {
        self.path.join(format!("{id}.json"))
    }

    fn intents(&self) -> PathBuf {
        self.path.join(runbookai::FOLDER)
    }

    fn intent(&self, id: &ApprovalId) -> PathBuf {
        runbookai::intent_file(&self.path, id)
    }

    /// Does whatever a decision takes: a disk may refuse the sync or the rename alone.
    fn rehearse(&self) -> io::Result<()> {
        let (temporary, name) = (self.temporary(), self.temporary());
        let probe = self.path.join(&name);
        let like = self.path.metadata()?;
        let written = durable::replace(&self.path, &name, &temporary, &PAGE, Some(&like))?;
        let read = durable::read(&probe);
        std::fs::remove_file(&probe)?;
        match (read?, written) {
            (_, Durability::Durable) => Ok(()),
            (_, Durability::Unsynced(error)) => Err(error),
        }
    }

    /// A name that no other thread or process uses.
    fn temporary(&self) -> String {
        format!(
            ".tmp.{}.{}",
            self.owner,
            self.counter.fetch_add(1, Ordering::Relaxed)
        )
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        hold(&self.index)
    }

    /// The index once it knows the directory as it is now, or as far as it has got within the limit. A listing of
    /// very many files gives way to others again and again.
    fn known_index(&self, limit: Option<Duration>) -> Result<MutexGuard<'_, Index>, StoreError> {
        let started = clock::tick();
        loop {
            let mut index = self.index();
            let known = index
                .advance(STRETCH)
                .map_err(io_error("list the pending directory"))?;
            let is_over = limit.is_some_and(|limit| started.elapsed() >= limit);
            if known == Knowledge::Whole || is_over {
                return Ok(index);
            }
            drop(index);
            // Whoever waits for it would not get it from a thread that takes it again at once.
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Site {
    /// The directory of the audit log of this pending directory.
    pub fn audit_folder(&self, pending: &Path) -> PathBuf {
        let beside = || pending.parent().unwrap_or(pending).join("audit");
        self.audit.clone().unwrap_or_else(beside)
    }
}

impl Home {
    /// Makes our folders in the directory and announces this process there.
    fn move_in(path: &Path, locks: &Locks, owner: &str) -> Result<Self, StoreError> {
        let identity = identity(path)?;
        for folder in [&path.join(runbookai::FOLDER), Ballots::of(path).folder()] {
            durable::ensure_folder(folder)
                .map_err(io_error("make a folder in the pending directory"))?;
        }
        Ok(Self {
            identity,
            alive: locks.announce(owner)?,
        })
    }
}

fn identity(path: &Path) -> Result<(u64, u64), StoreError> {
    let metadata = std::fs::metadata(path).map_err(io_error("find the pending directory"))?;
    Ok((metadata.dev(), metadata.ino()))
}

impl Store for Directory {
    fn owner(&self) -> &str {
        &self.owner
    }

    fn station(&self) -> &Station {
        &self.station
    }

    fn sign_with(&self, key: Option<Arc<SignKey>>) {
        self.key.replace(key);
    }

    fn record(&self, entries: &[Entry], caution: Caution) -> Result<(), StoreError> {
        self.audit.append(entries, caution)
    }

    fn note_recorded(&self, id: &ApprovalId, entries: &[Fingerprint]) {
        self.recorded.note(id, entries);
    }

    fn recorded(&self, id: &ApprovalId) -> Vec<Fingerprint> {
        self.recorded.of(id)
    }

    fn strike_recorded(&self, id: &ApprovalId) -> Result<(), StoreError> {
        while !self.recorded.forget(id) {
            if self.update(id, &mut |_| Edit::Strike)?.is_none() {
                // Somebody has taken it away, list and all.
                self.recorded.struck(id, usize::MAX);
            }
        }
        Ok(())
    }

    fn read(&self, id: &ApprovalId) -> Result<Option<Approval>, StoreError> {
        Ok(self.find(id)?.map(|(approval, _)| approval))
    }

    fn archived(&self, id: &ApprovalId) -> Result<Option<Approval>, StoreError> {
        let mut newest = None;
        // Somebody may have removed old ones.
        for name in archive_names(id).take(REUSED) {
            match durable::read(&self.archive_folder().join(name)) {
                Ok(None) => {}
                Ok(Some((bytes, _))) => newest = Some(bytes),
                Err(error) => return Err(io_error(format!("read {id} in the archive"))(error)),
            }
        }
        let parsed = newest.map(|bytes| Approval::parse(id, &bytes)).transpose();
        parsed.map_err(|damage| StoreError::Damaged {
            id: id.clone(),
            damage,
        })
    }

    fn list(&self) -> Result<Listing, StoreError> {
        self.list_folder(&self.path)
    }

    fn pending(&self) -> Result<Vec<Approval>, StoreError> {
        self.stay_home()?;
        let ids = self.known_index(None)?.pending(clock::now());
        let found = ids.iter().filter_map(|id| self.read(id).ok()?);
        Ok(found
            .filter(|approval| approval.status() == Status::Pending)
            .collect())
    }

    fn list_archived(&self) -> Result<Listing, StoreError> {
        if self.archive_folder().is_dir() {
            self.list_folder(&self.archive_folder())
        } else {
            Ok(Listing::default())
        }
    }

    fn follow(&self, id: &ApprovalId) -> Box<dyn Follow> {
        Box::new(Follower::of(self.file(id), self.network))
    }

    fn create(&self, approval: &Approval) -> Result<Created, StoreError> {
        let id = approval.id();
        self.settle_in()?;
        let _lock = self.locks.lock(id)?;
        if let Some((existing, _)) = self.find_locked(id)? {
            return Ok(Created::Existing(Box::new(existing)));
        }
        if let Some(existing) = self.archived(id)? {
            return Ok(Created::Existing(Box::new(existing)));
        }
        let mut approval = approval.clone();
        if let Some(key) = &*self.key.now() {
            approval.sign(key, Progress::NONE);
        }
        let written = self.write_new(&approval);
        written
            .map(Created::New)
            .map_err(io_error(format!("write {id}")))
    }

    fn update(
        &self,
        id: &ApprovalId,
        edit: &mut dyn FnMut(&mut Approval) -> Edit,
    ) -> Result<Option<Updated>, StoreError> {
        let _lock = self.locks.lock(id)?;
        let Some((mut approval, source)) = self.find_locked(id)? else {
            return Ok(None);
        };
        if matches!(source, Source::Intent(_)) && self.answers.is_ready(id) {
            self.answers
                .deliver(id)
                .map_err(io_error(format!("deliver the answer to {id}")))?;
        }
        let (before, progress) = (approval.status(), approval.progress());
        let wanted = edit(&mut approval);
        let durability = if wanted == Edit::Keep {
            Durability::Durable
        } else {
            self.settle_in()?;
            let recorded = self.recorded.settle(&mut approval);
            if let Some(key) = &*self.key.now() {
                approval.sign(key, progress);
            }
            let is_answered = matches!(before, Status::Approved | Status::Denied);
            let written = match (&source, wanted) {
                (Source::Intent(_), _) if !is_answered => self.answer_agent(&approval, &source),
                (Source::AgentRequest, _) => self.answer_agent(&approval, &source),
                (_, Edit::Strike) => self
                    .strike(&approval, &source)
                    .map(|()| Durability::Durable),
                (_, Edit::Write | Edit::Keep) => self.write(&approval, &source),
            };
            let durability = written.map_err(io_error(format!("write {id}")))?;
            self.recorded.struck(id, recorded);
            durability
        };
        Ok(Some(Updated {
            approval,
            durability,
        }))
    }

    fn census(&self) -> Result<Census, StoreError> {
        self.stay_home()?;
        let index = self.known_index(Some(PATIENCE))?;
        Ok(index.census(clock::now()))
    }

    fn check(&self) -> Result<(), StoreError> {
        let mut proven = hold(&self.proven);
        if proven.is_some_and(|at| clock::tick().duration_since(at) < PROOF) {
            return Ok(());
        }
        self.locks.prove()?;
        self.rehearse()
            .map_err(io_error("write to the pending directory"))?;
        let probe = self.audit.folder().join(self.temporary());
        let written = std::fs::write(&probe, PAGE);
        let removed = std::fs::remove_file(&probe);
        let added = written.and(removed);
        added.map_err(io_error("write to the directory of the audit log"))?;
        self.audit.prepare()?;
        *proven = Some(clock::tick());
        Ok(())
    }

    fn chores(&self, now: Timestamp, remind_before: Duration) -> Result<Vec<Chore>, StoreError> {
        self.stay_home()?;
        self.answers.deliver_late(&self.locks);
        self.events.sweep(now);
        self.look_for_the_dead();
        let is_dead = |owner: &str| owner != self.owner && self.locks.is_dead(owner);
        let mut index = self.known_index(None)?;
        Ok(index.chores(now, remind_before, &is_dead))
    }

    fn take_over(&self, id: &ApprovalId) -> Result<Option<Approval>, StoreError> {
        let mut taken = false;
        let updated = self.update(id, &mut |approval| {
            let is_gone = |owner: &str| owner != self.owner && self.locks.is_dead(owner);
            taken = approval.take_over(&self.owner, &is_gone);
            if taken { Edit::Write } else { Edit::Keep }
        })?;
        Ok(updated.filter(|_| taken).map(|updated| updated.approval))
    }

    fn archive(&self, id: &ApprovalId) -> Result<(), StoreError> {
        let failed = |error| io_error(format!("archive {id}"))(error);
        let _lock = self.locks.lock(id)?;
        match self.find_locked(id)? {
            Some((approval, _)) if approval.status() == Status::Pending || approval.owes() => {
                Ok(())
            }
            Some((_, Source::File(_))) => {
                let archive = self.archive_folder();
                durable::ensure_folder(&archive).map_err(failed)?;
                for name in archive_names(id) {
                    match durable::move_to(&self.file(id), &archive.join(name)) {
                        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                        moved => return moved.map_err(failed),
                    }
                }
                Ok(())
            }
            Some((_, Source::Intent(_))) => std::fs::remove_file(self.intent(id)).map_err(failed),
            Some((_, Source::AgentRequest)) | None => Ok(()),
        }
    }

    fn is_deferred(&self, deferred: &Deferred) -> bool {
        self.ballots.is_kept(&deferred.name)
    }

    fn defer(&self, ballot: &Ballot) -> Result<Deferred, StoreError> {
        let key = self.key.now();
        let key = (*key).as_deref();
        let kept = self
            .ballots
            .keep(ballot, key, &self.owner, &self.temporary());
        kept.map_err(io_error("keep a click that waits"))
    }

    fn deferred(&self) -> Result<Vec<Deferred>, StoreError> {
        let key = (*self.key.now()).as_deref().map(SignKey::verify_key);
        let is_dead = |owner: &str| self.locks.is_dead(owner);
        self.ballots
            .waiting(key, &self.owner, &is_dead)
            .map_err(io_error("list the clicks that wait"))
    }

    fn settle_deferred(&self, deferred: &Deferred) {
        self.ballots.settle(&deferred.name);
    }

    fn take_on_event(&self, event_id: &str) -> Result<Novelty, StoreError> {
        let taken_on = self.events.take_on(event_id);
        taken_on.map_err(io_error("note an event"))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let home = self.home.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(home) = home.take() {
            self.locks.forget_own(&self.owner, home.alive);
        }
    }
}

/// An approval as it is written. It stays small enough to be read again.
///
/// # Errors
/// That is more than it can.
fn document(approval: &Approval) -> io::Result<Vec<u8>> {
    let fits = |bytes: &Vec<u8>| bytes.len() as u64 <= durable::LARGEST;
    Some(approval.to_bytes())
        .filter(fits)
        .or_else(|| Some(approval.to_line()).filter(fits))
        .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "it would be larger than 1 MiB"))
}

/// Names in the archive. An id that was used before keeps its first record: the next gets a number.
fn archive_names(id: &ApprovalId) -> impl Iterator<Item = String> + use<'_> {
    (1..).map(move |n| match n {
        1 => format!("{id}.json"),
        n => format!("{id}.{n}.json"),
    })
}

fn recognise(bytes: &[u8]) -> Option<AgentFile> {
    // The documents of our own are told apart without a second parse.
    let ours = memmem::find(bytes, b"\"operation\"").is_some();
    if ours {
        None
    } else {
        parse_object(bytes)
            .ok()
            .and_then(|fields| AgentFile::recognise(&fields))
    }
}

/// A panic elsewhere leaves nothing half-done behind these locks.
fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> StoreError {
    let what = what.into();
    |error| StoreError::Io { what, error }
}
