//! The asking side, as plain functions that any Rust program can call: ask, wait, execute, decide
//! from the terminal, withdraw. The command line is one caller of them.
//!
//! ```no_run
//! use runbook::approval::{Approval, Status};
//! use runbook::client::{self, Desk, Posting, Waited};
//! use runbook::effects::Terms;
//! use runbook::store::Directory;
//!
//! fn is_granted(store: &Directory, terms: &Terms, request: Approval) -> Result<bool, client::Error> {
//!     let desk = Desk { store, terms, stop: None, verify: None };
//!     let asked = client::ask(&desk, request, Posting::Now)?;
//!     let waited = client::wait(&desk, asked.approval.id(), None, &mut |_| ())?;
//!     Ok(matches!(waited, Waited::Decided(decided) if decided.status() == Status::Approved))
//! }
//! ```

mod ask;
mod decide;
mod execute;
mod wait;

pub use ask::{Asked, Origin, Posting, ask, fresh_id};
pub use decide::{Decided, cancel, decide_from_terminal};
pub use execute::{Ended, claim, execute, note_end};
pub use wait::{Waited, note_agent, wait};

use std::fmt;
use std::io::{self, ErrorKind};
use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::approval::{Approval, ApprovalId, Effect, Status, VerifyKey};
use crate::effects::{Attempt, Terms, carry_out, record, refused, undone};
use crate::store::{Caution, MessagePath, Store, StoreError};

/// How messages change of what is decided here: by a token, be it not ours. A server that has one does
/// what this process leaves owed.
const PATH: MessagePath = MessagePath::BotToken;

/// What everything here works with.
#[derive(Clone, Copy)]
pub struct Desk<'a> {
    pub store: &'a dyn Store,
    pub terms: &'a Terms,
    /// Can be read as soon as whoever asked wants no answer any more.
    pub stop: Option<BorrowedFd<'a>>,
    /// Whoever has the other half must have signed an approval for it to count.
    pub verify: Option<VerifyKey>,
}

/// Why something could not be done.
#[derive(Debug)]
pub enum Error {
    Store(StoreError),
    /// Posting needs a bot token.
    NoToken,
    /// Posting needs a channel.
    NoChannel,
    /// There is another request of that id.
    Conflict(ApprovalId),
    /// Slack refused the request, or could not be reached; it is cancelled. Slack's word for why.
    Slack(String),
    /// There is no such request, or no more.
    Missing(ApprovalId),
    /// It is not approved, but this.
    Not(Status),
    /// It means something else than what was asked.
    Changed(ApprovalId),
    /// It was approved long ago; its command is not taken up any more.
    Stale(ApprovalId),
    /// It is approved, but not by whoever has the key.
    Unsigned(ApprovalId),
    /// Whoever asked wants no answer any more.
    Stopped,
    /// Its command has been taken up before: when, and how it went, in words.
    Executed {
        at: String,
        how: String,
    },
    /// The system would not let us.
    System {
        what: &'static str,
        error: io::Error,
    },
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::NoToken => f.write_str("there is no bot token to post with"),
            Self::NoChannel => f.write_str("there is no channel to post to"),
            Self::Conflict(id) => write!(f, "{id} was asked before and meant something else"),
            Self::Slack(error) => write!(f, "Slack does not show the request: {error}"),
            Self::Missing(id) => write!(f, "there is no approval {id}"),
            Self::Not(status) => write!(f, "the request is {}", status.word()),
            Self::Changed(id) => write!(f, "{id} says something else than what was asked"),
            Self::Stale(id) => write!(f, "{id} was approved more than a day ago"),
            Self::Unsigned(id) => write!(
                f,
                "{id} says that it is approved, but is not signed by the key that is asked for"
            ),
            Self::Stopped => f.write_str("it is approved, but whoever asked went away"),
            Self::Executed { at, how } => write!(f, "it was executed already at {at} ({how})"),
            Self::System { what, error } => {
                write!(f, "cannot {what}: {}", crate::complaint::reason(error))
            }
        }
    }
}

impl std::error::Error for Error {}

impl Desk<'_> {
    /// Refuses an approval that is not signed by the key that is asked for, if there is one.
    ///
    /// # Errors
    /// `Unsigned`.
    pub fn trust(&self, approval: &Approval) -> Result<(), Error> {
        match self.verify {
            Some(key) if approval.status() == Status::Approved && !approval.is_signed_by(key) => {
                Err(Error::Unsigned(approval.id().clone()))
            }
            _ => Ok(()),
        }
    }

    /// Whether whoever asked wants no answer any more; waits for that so long.
    ///
    /// # Errors
    /// The system does not let us wait.
    pub fn is_stopped(&self, within: Duration) -> Result<bool, Error> {
        let Some(stop) = self.stop else {
            std::thread::sleep(within);
            return Ok(false);
        };
        let within = Timespec::try_from(within).ok();
        let mut waiting = [PollFd::from_borrowed_fd(stop, PollFlags::IN)];
        match poll(&mut waiting, within.as_ref()) {
            Ok(ready) => Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(error) => Err(Error::System {
                what: "wait",
                error: error.into(),
            }),
        }
    }

    /// Tries once to add to the audit log what this process owes to it. Who may not write there leaves
    /// that to a server.
    pub(super) fn record(&self, approval: &Approval) {
        if approval.unrecorded().next().is_none() {
            return;
        }
        let id = approval.id().clone();
        for (id, undone) in record(self.store, &[(id, Caution::New)]) {
            let error = undone.error();
            match error {
                // Whoever waits for it complains of that.
                StoreError::Damaged { .. } => {}
                StoreError::Io { error, .. } if error.kind() == ErrorKind::PermissionDenied => {
                    log::debug!(approvalId:% = id; "The audit log is left to a server");
                }
                error => {
                    log::warn!(approvalId:% = id, reason:% = error;
                        "The audit log cannot be added to, which is left to a server");
                }
            }
        }
    }

    /// Tries once to do what this process owes for an approval, or one that is gone, and has the means
    /// for. A server does the rest as soon as this process is gone.
    pub fn follow_up(&self, approval: &Approval) {
        let others = |owner: String| owner != self.store.owner();
        let taken = if self.terms.slack.has_token() && approval.promisers().any(others) {
            self.store.take_over(approval.id()).unwrap_or_default()
        } else {
            None
        };
        let approval = taken.as_ref().unwrap_or(approval);
        self.record(approval);
        for effect in [Effect::UpdateMessage, Effect::NotifyAgent] {
            let able = match effect {
                Effect::NotifyAgent => self.terms.callbacks.secret.is_some(),
                _ => self.terms.slack.has_token(),
            };
            let owed = |approval: &Approval| approval.owed_by(self.store.owner(), effect).is_some();
            let mut owing = able && owed(approval);
            // One turn for each message, and one more for what has changed meanwhile.
            for _ in 0..3 {
                if !owing {
                    break;
                }
                let id = approval.id();
                owing = match carry_out(self.store, self.terms, id, effect) {
                    Attempt::Done(after) => after.is_some_and(|after| owed(&after)),
                    Attempt::Refused(why) => {
                        log::warn!(approvalId:% = id, reason:% = why; "{}", refused(effect));
                        false
                    }
                    Attempt::Again { why, .. } => {
                        log::warn!(approvalId:% = id, reason:% = why;
                            "{}, which is left to a server", undone(effect));
                        false
                    }
                    Attempt::NotNoted(_) => false,
                };
            }
        }
    }
}
