//! Waiting for a decision. It needs no server: the directory tells, and expiry is our own clock's.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use super::{Desk, Error, PATH};
use crate::approval::{Approval, ApprovalId, Status};
use crate::clock;
use crate::store::{Edit, StoreError, expire};

/// How often whoever watches us wait is shown how long it has been.
const TICK: Duration = Duration::from_secs(1);
/// How soon it is tried again what others stand in the way of.
const BUSY: Duration = Duration::from_millis(100);
/// How long a file may be damaged: somebody may be writing it in place.
const MENDING: Duration = Duration::from_secs(1);

/// How waiting ended.
#[derive(Debug)]
pub enum Waited {
    /// The request is final.
    Decided(Box<Approval>),
    /// It is pending still, and the time that was granted is over.
    TimedOut(Box<Approval>),
    /// Whoever asked wants no answer any more.
    Stopped,
}

/// Waits for the decision about a request, at most so long. `tick` is called every second with the
/// request as it is then.
///
/// # Errors
/// `Missing` when there is no such request, or no more; `Store` when it is damaged or cannot be read;
/// `Unsigned` when it is approved by somebody who may not.
pub fn wait(
    desk: &Desk<'_>,
    id: &ApprovalId,
    limit: Option<Duration>,
    tick: &mut dyn FnMut(&Approval),
) -> Result<Waited, Error> {
    let deadline = limit.and_then(|limit| clock::tick().checked_add(limit));
    // It is followed before it is read for the first time, so that nothing falls between the two.
    let mut follower = desk.store.follow(id);
    let mut damaged: Option<Instant> = None;
    loop {
        let mut nap = TICK;
        let left = deadline.map(|deadline| deadline.saturating_duration_since(clock::tick()));
        match read(desk, id) {
            Ok(approval) if approval.status() != Status::Pending => {
                desk.trust(&approval)?;
                return Ok(Waited::Decided(Box::new(approval)));
            }
            Ok(approval) => {
                damaged = None;
                let now = clock::now();
                match approval.expires_at() {
                    Some(expiry) if expiry <= now => match lapse(desk, &approval)? {
                        Some(expired) => return Ok(Waited::Decided(Box::new(expired))),
                        None => nap = BUSY,
                    },
                    Some(expiry) => nap = nap.min(expiry.since(now)),
                    None => {}
                }
                if left.is_some_and(|left| left.is_zero()) {
                    return Ok(Waited::TimedOut(Box::new(approval)));
                }
                tick(&approval);
            }
            Err(Error::Store(StoreError::Damaged { id, damage })) => {
                let since = *damaged.get_or_insert_with(clock::tick);
                let is_over = left.is_some_and(|left| left.is_zero());
                if is_over || clock::tick().duration_since(since) > MENDING {
                    return Err(Error::Store(StoreError::Damaged { id, damage }));
                }
                nap = BUSY;
            }
            Err(error) => return Err(error),
        }
        nap = left.map_or(nap, |left| nap.min(left));
        follower
            .wait(nap, desk.stop)
            .map_err(|error| Error::System {
                what: "wait for a change",
                error,
            })?;
        if desk.is_stopped(Duration::ZERO)? {
            return Ok(Waited::Stopped);
        }
    }
}

/// Notes in the request that the agent knows the decision.
///
/// # Errors
/// It is not noted. What is may not survive a power cut.
pub fn note_agent(desk: &Desk<'_>, id: &ApprovalId) -> Result<(), Error> {
    desk.store.update(id, &mut |approval| {
        let known = approval.text("agentNotifiedAt").is_some();
        if known || approval.status() == Status::Pending {
            return Edit::Keep;
        }
        approval.note_agent(clock::now());
        Edit::Write
    })?;
    Ok(())
}

/// The approval, be it in the archive.
pub(super) fn read(desk: &Desk<'_>, id: &ApprovalId) -> Result<Approval, Error> {
    let found = match desk.store.read(id)? {
        None => desk.store.archived(id)?,
        found => found,
    };
    found.ok_or_else(|| Error::Missing(id.clone()))
}

/// Lets a request expire; `None` when somebody has decided it meanwhile, or its lock is held. Who may
/// not write knows all the same that its time is over.
fn lapse(desk: &Desk<'_>, approval: &Approval) -> Result<Option<Approval>, Error> {
    match expire(desk.store, approval.id(), PATH) {
        Err(StoreError::Busy) => Ok(None),
        Err(StoreError::Io { error, .. })
            if matches!(
                error.kind(),
                ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem
            ) =>
        {
            let mut expired = approval.clone();
            expired.expire(clock::now());
            Ok(Some(expired))
        }
        expired => Ok(expired?),
    }
}
