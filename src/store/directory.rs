//! The store as a directory of JSON files that any program may read and add to.

use std::fs::DirBuilder;
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::audit::AuditLog;
use super::ballots::Ballots;
use super::events::Events;
use super::files::{Files, Source, archive_names};
use super::follow::Follower;
use super::fresh::Fresh;
use super::home::Home;
use super::index::{Coverage, Index};
use super::lock::Locks;
use super::logged::Logged;
use super::runbookai::{Answers, Ready};
use super::{
    Caution, Census, Chore, Created, Deferred, Durability, Edit, Follow, LinesOwed, Listing,
    Novelty, Store, StoreError, Updated, durable, io_error, runbookai, watch,
};
use crate::approval::{
    Approval, ApprovalId, Ballot, Entry, Fingerprint, Progress, SignKey, Station, Status,
};
use crate::clock::{self, Timestamp};
use crate::live::{Live, hold};

/// How long a successful write proves that writing works.
const PROOF: Duration = Duration::from_millis(250);
/// How long a listing goes on before others have their turn.
const STRETCH: Duration = Duration::from_millis(20);
/// How long a count waits for a listing to be whole: health is to be told soon after the start, too.
const PATIENCE: Duration = Duration::from_millis(100);

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
    pub(super) files: Files,
    pub(super) home: Home,
    station: Station,
    pub(super) audit: AuditLog,
    fresh: Fresh,
    logged: Logged,
    pub(super) locks: Locks,
    pub(super) ballots: Ballots,
    events: Events,
    index: Mutex<Index>,
    proven: Mutex<Option<Instant>>,
    /// When dead processes were looked for.
    pub(super) looked: Mutex<Option<Instant>>,
    pub(super) answers: Answers,
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
        directory.home.settle_in(&directory.locks)?;
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
        let missing = path.ancestors().take_while(|folder| !folder.exists());
        let missing: Vec<&Path> = missing.collect();
        let made = DirBuilder::new().mode(0o700).recursive(true).create(path);
        made.map_err(io_error("make the pending directory"))?;
        let synced = missing.into_iter().try_for_each(durable::sync_name);
        synced.map_err(io_error("make the pending directory durable"))
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
            audit: AuditLog::of(&audit, site.audit_file_bytes),
            fresh: Fresh::default(),
            logged: Logged::default(),
            home: Home::of(&path)?,
            locks: Locks::of(&path),
            ballots: Ballots::of(&path),
            events: Events::of(&path),
            answers: Answers::of(&path),
            index: Mutex::new(Index::new(&path, keep_decided, network)),
            files: Files {
                path,
                network,
                key: Live::new(site.key.clone()),
            },
            proven: Mutex::new(None),
            looked: Mutex::new(None),
        })
    }

    /// Whether other hosts may share it, so that it is polled instead of watched.
    pub fn is_on_network(&self) -> bool {
        self.files.network
    }

    /// Whether requests of the RunbookAI agent wait in another directory, which is not served.
    pub fn is_missing_requests_in(&self, other: &Path) -> bool {
        let elsewhere = other
            .canonicalize()
            .is_ok_and(|other| other != self.files.path);
        let files = std::fs::read_dir(other)
            .into_iter()
            .flatten()
            .filter_map(Result::ok);
        let mut names = files.filter_map(|file| file.file_name().into_string().ok());
        elsewhere && names.any(|name| runbookai::is_request(&name))
    }

    /// Takes notice when another directory stands at the path, because one was moved or mounted
    /// there: the kernel goes on telling about the old one.
    fn stay_home(&self) -> Result<(), StoreError> {
        if self.home.move_on(&self.locks)? {
            self.index().start_over();
            log::warn!(path:% = self.files.path.display(); "Another pending directory stands at this path now");
        }
        Ok(())
    }

    /// Writes an approval to where it was found.
    fn write(&self, approval: &Approval, source: &Source) -> io::Result<Durability> {
        self.strike(approval, source)?;
        Ok(durable::sync(&self.files.folder(source)))
    }

    /// [`Directory::write`], whole but not safe from a power cut.
    fn strike(&self, approval: &Approval, source: &Source) -> io::Result<()> {
        let like = match source {
            Source::File(metadata) | Source::Intent(metadata) => Some(metadata),
            Source::AgentRequest => None,
        };
        let (name, document) = (format!("{}.json", approval.id()), document(approval)?);
        let (folder, place) = (self.files.folder(source), source.place());
        let inode = durable::swap(&folder, &name, &self.home.temporary(), &document, like)?;
        // Whoever holds the index has better things to do than to wait; it is told of the file by the system.
        if let Ok(mut index) = self.index.try_lock() {
            index.learn(place, approval, inode);
        }
        Ok(())
    }

    /// Writes a new approval to where nothing is.
    fn write_new(&self, approval: &Approval) -> io::Result<Durability> {
        let temporary = self.files.path.join(self.home.temporary());
        durable::create(&temporary, &document(approval)?, None)?;
        if let Err(error) = durable::move_to(&temporary, &self.files.file(approval.id())) {
            let _ = std::fs::remove_file(&temporary);
            return Err(error);
        }
        Ok(durable::sync(&self.files.path))
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

    /// Does whatever a decision takes: a disk may refuse the sync or the rename alone.
    fn rehearse(&self) -> io::Result<()> {
        let (temporary, name) = (self.home.temporary(), self.home.temporary());
        let probe = self.files.path.join(&name);
        let like = self.files.path.metadata()?;
        let written = durable::replace(
            &self.files.path,
            &name,
            &temporary,
            &durable::PAGE,
            Some(&like),
        )?;
        let read = durable::read(&probe);
        std::fs::remove_file(&probe)?;
        match (read?, written) {
            (_, Durability::Durable) => Ok(()),
            (_, Durability::Unsynced(error)) => Err(error),
        }
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
            let is_over = limit.is_some_and(|limit| clock::since(started) >= limit);
            if known == Coverage::Whole || is_over {
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

impl Store for Directory {
    fn owner(&self) -> &str {
        self.home.owner()
    }

    fn station(&self) -> &Station {
        &self.station
    }

    fn sign_with(&self, key: Option<Arc<SignKey>>) {
        self.files.key.replace(key);
    }

    fn record(&self, entries: &[Entry], caution: Caution) -> Result<(), StoreError> {
        self.audit.append(entries, caution)
    }

    fn lines_owed(&self, id: &ApprovalId) -> Result<Option<LinesOwed>, StoreError> {
        if let Some(owed) = self.fresh.take(id) {
            return Ok(Some(owed));
        }
        let approval = self.read(id)?;
        Ok(approval.map(|approval| LinesOwed::of(self.owner(), &approval)))
    }

    fn note_logged(&self, id: &ApprovalId, entries: &[Fingerprint]) {
        self.logged.note(id, entries);
    }

    fn logged(&self, id: &ApprovalId) -> Vec<Fingerprint> {
        self.logged.of(id)
    }

    fn strike_logged(&self, id: &ApprovalId) -> Result<(), StoreError> {
        while !self.logged.forget(id) {
            if self.update(id, &mut |_| Edit::Strike)?.is_none() {
                // Somebody has taken it away, list and all.
                self.logged.struck(id, usize::MAX);
            }
        }
        Ok(())
    }

    fn read(&self, id: &ApprovalId) -> Result<Option<Approval>, StoreError> {
        Ok(self.files.find(id)?.map(|(approval, _)| approval))
    }

    fn archived(&self, id: &ApprovalId) -> Result<Option<Approval>, StoreError> {
        self.files.archived(id)
    }

    fn list(&self) -> Result<Listing, StoreError> {
        self.files.list()
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
        self.files.list_archived()
    }

    fn follow(&self, id: &ApprovalId) -> Box<dyn Follow> {
        Box::new(Follower::of(self.files.file(id), self.files.network))
    }

    fn create(&self, approval: &Approval) -> Result<Created, StoreError> {
        let id = approval.id();
        self.home.settle_in(&self.locks)?;
        let _lock = self.locks.lock(id)?;
        if let Some((existing, _)) = self.files.find_locked(id)? {
            return Ok(Created::Existing(Box::new(existing)));
        }
        if let Some(existing) = self.archived(id)? {
            return Ok(Created::Existing(Box::new(existing)));
        }
        let mut approval = approval.clone();
        if let Some(key) = &*self.files.key.now() {
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
        let Some((mut approval, source)) = self.files.find_locked(id)? else {
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
            self.home.settle_in(&self.locks)?;
            let count = self.logged.strike_from(&mut approval);
            if let Some(key) = &*self.files.key.now() {
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
            self.logged.struck(id, count);
            if matches!(source, Source::File(_)) {
                self.fresh.put(self.owner(), &approval);
            }
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
        let probe = self.audit.folder().join(self.home.temporary());
        let written = std::fs::write(&probe, durable::PAGE);
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
        let is_dead = |owner: &str| owner != self.home.owner() && self.locks.is_dead(owner);
        let mut index = self.known_index(None)?;
        Ok(index.chores(now, remind_before, &is_dead))
    }

    fn take_over(&self, id: &ApprovalId) -> Result<Option<Approval>, StoreError> {
        let mut taken = false;
        let updated = self.update(id, &mut |approval| {
            let is_gone = |owner: &str| owner != self.home.owner() && self.locks.is_dead(owner);
            taken = approval.take_over(self.home.owner(), &is_gone);
            if taken { Edit::Write } else { Edit::Keep }
        })?;
        Ok(updated.filter(|_| taken).map(|updated| updated.approval))
    }

    fn archive(&self, id: &ApprovalId) -> Result<(), StoreError> {
        let failed = |error| io_error(format!("archive {id}"))(error);
        let _lock = self.locks.lock(id)?;
        match self.files.find_locked(id)? {
            Some((approval, _)) if approval.status() == Status::Pending || approval.owes() => {
                Ok(())
            }
            Some((_, Source::File(_))) => {
                let archive = self.files.archive_folder();
                durable::ensure_folder(&archive).map_err(failed)?;
                for name in archive_names(id) {
                    match durable::move_to(&self.files.file(id), &archive.join(name)) {
                        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                        moved => return moved.map_err(failed),
                    }
                }
                Ok(())
            }
            Some((_, Source::Intent(_))) => {
                std::fs::remove_file(self.files.intent(id)).map_err(failed)
            }
            Some((_, Source::AgentRequest)) | None => Ok(()),
        }
    }

    fn is_deferred(&self, deferred: &Deferred) -> bool {
        self.ballots.is_kept(&deferred.name)
    }

    fn defer(&self, ballot: &Ballot) -> Result<Deferred, StoreError> {
        let key = self.files.key.now();
        let key = (*key).as_deref();
        let kept = self
            .ballots
            .keep(ballot, key, self.home.owner(), &self.home.temporary());
        kept.map_err(io_error("keep a click that waits"))
    }

    fn deferred(&self) -> Result<Vec<Deferred>, StoreError> {
        let key = (*self.files.key.now()).as_deref().map(SignKey::verify_key);
        let is_dead = |owner: &str| self.locks.is_dead(owner);
        self.ballots
            .waiting(key, self.home.owner(), &is_dead)
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
        self.home.leave(&self.locks);
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
