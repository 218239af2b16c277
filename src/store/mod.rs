//! Where approvals live. [`Store`] is the seam: above it nobody knows that it is a directory.
//! A decision is a compare-and-swap ([`Store::update`]), and [`commit`] is the only way to one.

mod audit;
pub mod audit_trail;
mod ballots;
mod commit;
mod directory;
mod durable;
mod events;
pub mod examine;
mod files;
mod follow;
mod fresh;
mod home;
mod index;
mod lock;
mod logged;
mod remains;
mod runbookai;
mod watch;

pub use commit::{
    MessagePath, Recorded, adopt, approve_by_policy, commit, expire, owe_callback, owe_execution,
    owe_outcome, owe_request, owe_update, promise_to_post, record_late_withdrawal, record_refusal,
    remind, withdraw,
};
pub use directory::{Directory, Site};

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use crate::approval::{
    Approval, ApprovalId, Ballot, Damage, Entry, Fingerprint, SignKey, Station, Status, Unrecorded,
};
use crate::clock::{Age, Timestamp};
use crate::complaint::reason;

/// Keeps approvals, for any number of processes at once.
pub trait Store: Send + Sync {
    /// The name under which this process owes effects.
    fn owner(&self) -> &str;

    /// Whose process this is, for the record.
    fn station(&self) -> &Station;

    /// From now on signs decisions with this key, and believes what it has signed.
    fn sign_with(&self, key: Option<Arc<SignKey>>);

    /// Adds lines to the audit log, in this order and durably. Any number of processes may do so.
    ///
    /// # Errors
    /// Whether they stand there is not known: what is tried again is tried with [`Caution::Again`].
    fn record(&self, entries: &[Entry], caution: Caution) -> Result<(), StoreError>;

    /// What an approval owes to the audit log in this process's name; `None` when there is no such approval. What was
    /// noted may be among it.
    ///
    /// # Errors
    /// When it is damaged or cannot be read.
    fn lines_owed(&self, id: &ApprovalId) -> Result<Option<LinesOwed>, StoreError>;

    /// Notes that the audit log tells what an approval owes to it: the next change that this process writes
    /// strikes it off the list.
    fn note_logged(&self, id: &ApprovalId, entries: &[Fingerprint]);

    /// What was noted, be it struck off since, until [`Store::strike_logged`].
    fn logged(&self, id: &ApprovalId) -> Vec<Fingerprint>;

    /// Strikes off what was noted, unless some change has done that, and forgets it.
    ///
    /// # Errors
    /// It is to be struck off still.
    fn strike_logged(&self, id: &ApprovalId) -> Result<(), StoreError>;

    /// The approval as it is now; `None` when there is none of that name.
    ///
    /// # Errors
    /// When it is damaged or cannot be read.
    fn read(&self, id: &ApprovalId) -> Result<Option<Approval>, StoreError>;

    /// An approval that was moved out of the way, the newest of that name.
    ///
    /// # Errors
    /// When it is damaged or cannot be read.
    fn archived(&self, id: &ApprovalId) -> Result<Option<Approval>, StoreError>;

    /// All approvals in place, and what is in their place but none.
    ///
    /// # Errors
    /// When the store cannot be listed.
    fn list(&self) -> Result<Listing, StoreError>;

    /// What is pending, in no order, without reading anything else. What cannot be read is left out.
    ///
    /// # Errors
    /// When the store cannot be listed.
    fn pending(&self) -> Result<Vec<Approval>, StoreError>;

    /// All approvals that were moved out of the way, like [`Store::list`].
    ///
    /// # Errors
    /// When the store cannot be listed.
    fn list_archived(&self) -> Result<Listing, StoreError>;

    /// Follows an approval from now on: what changes after this call is told.
    fn follow(&self, id: &ApprovalId) -> Box<dyn Follow>;

    /// Keeps a new approval, unless there is or was one of that name.
    ///
    /// # Errors
    /// Nothing was kept.
    fn create(&self, approval: &Approval) -> Result<Created, StoreError>;

    /// Shows the approval to `edit` while nobody else can change it, and makes the change durable
    /// when `edit` asks for that. `None` when there is no approval of that name.
    ///
    /// # Errors
    /// Whatever the error, nothing has changed.
    fn update(
        &self,
        id: &ApprovalId,
        edit: &mut dyn FnMut(&mut Approval) -> Edit,
    ) -> Result<Option<Updated>, StoreError>;

    /// Counts, without reading what has not changed.
    ///
    /// # Errors
    /// When the store cannot be listed.
    fn census(&self) -> Result<Census, StoreError>;

    /// Proves that approvals can be written now, and the audit log added to.
    ///
    /// # Errors
    /// What stands in the way.
    fn check(&self) -> Result<(), StoreError>;

    /// What has become due since it was last asked, reminders so long before a request expires; with
    /// zero there are none.
    ///
    /// # Errors
    /// When the store cannot be listed.
    fn chores(&self, now: Timestamp, remind_before: Duration) -> Result<Vec<Chore>, StoreError>;

    /// Promises, in this process's name, what dead ones had promised for an approval. `None` when
    /// there is nothing of that kind, because it is done or another process was faster.
    ///
    /// # Errors
    /// When it could not be written; the promise is then still the dead one's.
    fn take_over(&self, id: &ApprovalId) -> Result<Option<Approval>, StoreError>;

    /// Moves an approval that was decided long ago out of the way.
    ///
    /// # Errors
    /// When it cannot be moved; it is then still in place.
    fn archive(&self, id: &ApprovalId) -> Result<(), StoreError>;

    /// Keeps a ballot that cannot be decided yet.
    ///
    /// # Errors
    /// When it could not be made durable.
    fn defer(&self, ballot: &Ballot) -> Result<Deferred, StoreError>;

    /// Whether a ballot is kept still.
    fn is_deferred(&self, deferred: &Deferred) -> bool;

    /// The ballots that wait for this process, or for one that has died, whose they were until now.
    ///
    /// # Errors
    /// When they cannot be listed.
    fn deferred(&self) -> Result<Vec<Deferred>, StoreError>;

    /// Forgets a ballot that has been dealt with.
    fn settle_deferred(&self, deferred: &Deferred);

    /// Takes on an event of Slack, by its id, unless any process has done so before. It is remembered
    /// for longer than Slack delivers it.
    ///
    /// # Errors
    /// It cannot be told whether somebody has.
    fn take_on_event(&self, event_id: &str) -> Result<Novelty, StoreError>;
}

/// What an approval owes to the audit log in one process's name.
#[derive(Debug)]
pub struct LinesOwed {
    pub lines: Vec<Unrecorded>,
    /// Whether it owes effects as well, so that it will be written again soon.
    pub owes_effects: bool,
}

impl LinesOwed {
    fn of(owner: &str, approval: &Approval) -> Self {
        let lines = approval.unrecorded().filter(|one| one.owner == owner);
        Self {
            lines: lines.collect(),
            owes_effects: approval.owes_effects(),
        }
    }
}

/// Whether an event may stand in the audit log already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caution {
    /// It does not.
    New,
    /// It may: it was tried before, by this process or by one that has died.
    Again,
}

/// Whether something happens for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Novelty {
    New,
    Known,
}

/// Tells when one approval may have changed.
pub trait Follow: Send {
    /// Waits until the approval may have changed since the last call, until `wake` can be read, or
    /// until the time is over.
    ///
    /// # Errors
    /// When the system does not let us wait.
    fn wait(&mut self, limit: Duration, wake: Option<BorrowedFd<'_>>) -> io::Result<()>;
}

/// What became of a new approval.
#[derive(Debug)]
pub enum Created {
    /// It is kept.
    New(Durability),
    /// There is or was one of that name, which is this.
    Existing(Box<Approval>),
}

/// What is stored.
#[derive(Debug, Default)]
pub struct Listing {
    pub approvals: Vec<Approval>,
    /// What should be an approval and is none: its name, and why.
    pub unreadable: Vec<(String, Damage)>,
}

/// What an edit wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Leave the stored approval as it is.
    Keep,
    /// Write it.
    Write,
    /// Write that something owed is done. Readers see it at once, and no file is ever half there, but a power cut may
    /// bring back what stood there before: then it is owed again, and found to be done or done twice.
    Strike,
}

/// An approval after an edit.
#[derive(Debug)]
pub struct Updated {
    pub approval: Approval,
    pub durability: Durability,
}

/// How safe a written change is.
#[derive(Debug)]
pub enum Durability {
    /// It survives a power cut, or nothing was written that has to.
    Durable,
    /// It stands for every reader, but the last sync failed: a power cut may undo it.
    Unsynced(io::Error),
}

/// Counts of what is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    pub pending: usize,
    pub unreadable: usize,
    /// Approvals that owe effects.
    pub owing: usize,
    /// Whether there may be more, for the first listing of very many files is still under way.
    pub counting: bool,
}

/// Something that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chore {
    /// Its time is over and nobody has decided.
    Expire(ApprovalId),
    /// It expires soon and nobody has decided.
    Remind(ApprovalId),
    /// It was decided long enough ago.
    Archive(ApprovalId),
    /// Nobody has shown it in Slack, or promised to. It is told once for each change of it.
    Adopt(ApprovalId),
    /// It owes effects, and a process that promised some is dead.
    TakeOver(ApprovalId),
    /// The agent has noted that it knows the decision.
    AgentNotified { id: ApprovalId, status: Status },
    /// What is pending is not what it was when this was last told, whoever has changed it.
    PendingChanged,
}

/// A ballot that cannot be decided yet, and where it is kept.
#[derive(Clone, Debug)]
pub struct Deferred {
    pub ballot: Ballot,
    name: String,
    age: Age,
}

impl Deferred {
    /// What tells it from others.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How long ago it was cast.
    pub fn age(&self) -> Duration {
        self.age.now()
    }
}

/// Why the store could not do it. Nothing has changed.
#[derive(Debug)]
pub enum StoreError {
    /// What is stored under that name is no approval.
    Damaged { id: ApprovalId, damage: Damage },
    /// Another server has answered this request of the RunbookAI agent.
    AnsweredElsewhere,
    /// Somebody else held the lock for too long.
    Busy,
    /// The system refused; `what` says which step.
    Io { what: String, error: io::Error },
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged { id, damage } => write!(f, "{id} is damaged: {damage}"),
            Self::AnsweredElsewhere => f.write_str("another server has answered it"),
            Self::Busy => f.write_str("the approval's lock is held by another process"),
            Self::Io { what, error } => write!(f, "cannot {what}: {}", reason(error)),
        }
    }
}

impl std::error::Error for StoreError {}

fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> StoreError {
    let what = what.into();
    |error| StoreError::Io { what, error }
}
