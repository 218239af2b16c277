//! Waiting for a decision. It needs no server: the directory tells, and expiry is our own clock's.

use std::time::{Duration, Instant};

use super::{Desk, Error, PATH};
use crate::approval::{Approval, ApprovalId, Status};
use crate::clock;
use crate::store::{Edit, StoreError, expire};

/// How often whoever watches us wait is shown how long it has been.
const TICK: Duration = Duration::from_secs(1);
/// How long a file may be damaged: somebody may be writing it in place.
const MENDING: Duration = Duration::from_secs(1);

/// How waiting ended.
#[derive(Debug)]
pub enum Waited {
    /// The request is final.
    Decided(Box<Approval>),
    /// It is pending still, and the time that was granted is over.
    TimedOut,
    /// Whoever asked wants no answer any more.
    Stopped,
}

/// Waits for the decision about a request, at most so long. `tick` is called every second with the
/// request as it is then.
///
/// # Errors
/// `Missing` when there is no such request, or no more; `Store` when it is damaged or cannot be read.
pub fn wait(
    desk: &Desk<'_>,
    id: &ApprovalId,
    limit: Option<Duration>,
    tick: &mut dyn FnMut(&Approval),
) -> Result<Waited, Error> {
    let deadline = limit.map(|limit| clock::tick() + limit);
    // It is followed before it is read for the first time, so that nothing falls between the two.
    let mut follower = desk.store.follow(id);
    let mut damaged: Option<Instant> = None;
    loop {
        let mut nap = TICK;
        match read(desk, id) {
            Ok(approval) if approval.status() != Status::Pending => {
                return Ok(Waited::Decided(Box::new(approval)));
            }
            Ok(approval) => {
                damaged = None;
                let now = clock::now();
                match approval.expires_at() {
                    Some(expiry) if expiry <= now => {
                        if let Some(expired) = lapse(desk, id)? {
                            return Ok(Waited::Decided(Box::new(expired)));
                        }
                        continue;
                    }
                    Some(expiry) => nap = nap.min(expiry.since(now)),
                    None => {}
                }
                tick(&approval);
            }
            Err(Error::Store(StoreError::Damaged { id, damage })) => {
                let since = *damaged.get_or_insert_with(clock::tick);
                if since.elapsed() > MENDING {
                    return Err(Error::Store(StoreError::Damaged { id, damage }));
                }
                nap = MENDING / 10;
            }
            Err(error) => return Err(error),
        }
        if let Some(deadline) = deadline {
            let left = deadline.saturating_duration_since(clock::tick());
            if left.is_zero() {
                return Ok(Waited::TimedOut);
            }
            nap = nap.min(left);
        }
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
/// It is not noted, or will not survive a power cut.
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

/// Lets a request expire; `None` when somebody has decided it meanwhile, or its lock is held.
fn lapse(desk: &Desk<'_>, id: &ApprovalId) -> Result<Option<Approval>, Error> {
    match expire(desk.store, id, PATH) {
        Err(StoreError::Busy) => Ok(None),
        expired => Ok(expired?),
    }
}
