//! Asking: the request is kept, then shown in Slack.

use std::time::Duration;

use super::{Desk, Error};
use crate::approval::{Approval, ApprovalId, Effect, Status};
use crate::clock;
use crate::effects::{Attempt, carry_out, give_up_posting, note_down, undone};
use crate::store::{Created, adopt, approve_by_policy, owe_request, promise_to_post};

/// How long Slack is tried before the request is given up: nobody is to wait on a message that
/// nobody can see.
const PATIENCE: Duration = Duration::from_secs(30);
/// The first pause between two attempts; they double.
const PAUSE: Duration = Duration::from_secs(1);

/// Who shows the request in Slack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Posting {
    /// This process, now.
    Now,
    /// A server on the same directory.
    Later,
    /// Nobody: the policy approves it.
    Never,
}

/// A request that was asked.
#[derive(Debug)]
pub struct Asked {
    pub approval: Approval,
    pub origin: Origin,
}

/// Whose request it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It is new.
    New,
    /// It was there before, and others may wait for it.
    Attached,
}

/// Asks. A request of that id that means the same is attached to, whatever has become of it. One whose
/// asker is to stop may come back without having been shown.
///
/// # Errors
/// `Conflict` when the id stands for another request; `Slack` when nobody can see the request, which
/// is cancelled then; `NoToken` and `NoChannel` before anything is kept.
pub fn ask(desk: &Desk<'_>, mut approval: Approval, posting: Posting) -> Result<Asked, Error> {
    let meaning = approval.digest();
    owe_request(desk.store, &mut approval);
    match posting {
        Posting::Now => {
            if !desk.terms.slack.has_token() {
                return Err(Error::NoToken);
            }
            if desk.terms.channel_of(&approval).is_none() {
                return Err(Error::NoChannel);
            }
            promise_to_post(desk.store, &mut approval);
        }
        Posting::Later => {}
        Posting::Never => approve_by_policy(desk.store, &mut approval),
    }
    let id = approval.id().clone();
    let (mut asked, origin) = match desk.store.create(&approval)? {
        Created::New(_) => (approval, Origin::New),
        Created::Existing(existing) if existing.digest() == meaning => {
            log::info!(approvalId:% = id; "Attached to a request that was made before");
            (*existing, Origin::Attached)
        }
        Created::Existing(_) => return Err(Error::Conflict(id)),
    };
    if posting == Posting::Now && asked.status() == Status::Pending {
        // Whoever asked before may have died before it was shown.
        let taken = desk.store.take_over(&id)?;
        let adopted = adopt(desk.store, &id, desk.terms.timeout)?;
        // First, so that whoever sees it in Slack finds a file that stays as it is.
        desk.record(adopted.as_ref().or(taken.as_ref()).unwrap_or(&asked));
        asked = adopted.or(taken).unwrap_or(asked);
        asked = show(desk, asked).inspect_err(|_| {
            // It ended there, and that is to be told.
            if let Ok(Some(after)) = desk.store.read(&id) {
                desk.follow_up(&after);
            }
        })?;
    }
    desk.follow_up(&asked);
    // As it stands there by now: signed, if there is a key.
    let asked = desk.store.read(&id).ok().flatten().unwrap_or(asked);
    desk.trust(&asked)?;
    Ok(Asked {
        approval: asked,
        origin,
    })
}

/// Shows the request in Slack, if that is ours to do.
fn show(desk: &Desk<'_>, asked: Approval) -> Result<Approval, Error> {
    let id = asked.id().clone();
    let end = clock::tick() + PATIENCE;
    let mut own_pause = PAUSE;
    let mut attempt = carry_out(desk.store, desk.terms, &id, Effect::PostMessage);
    loop {
        let (pause, why, unnoted) = match attempt {
            Attempt::Done(Some(shown)) => return Ok(*shown),
            Attempt::Done(None) => return Ok(asked),
            Attempt::Refused(why) => return Err(Error::Slack(why)),
            Attempt::NotNoted(note) => (None, "its message cannot be noted".to_owned(), Some(note)),
            Attempt::Again { pause, why } => (pause, why, None),
        };
        let pause = pause.unwrap_or(own_pause);
        let is_last = clock::tick() + pause > end;
        let again = if is_last { "" } else { ", trying again" };
        log::warn!(approvalId:% = id, reason:% = why; "{}{again}", undone(Effect::PostMessage));
        own_pause *= 2;
        if is_last {
            give_up_posting(desk.store, desk.terms, &id, &why)?;
            return Err(Error::Slack(why));
        }
        if desk.is_stopped(pause)? {
            return Ok(asked);
        }
        attempt = match unnoted {
            Some(unnoted) => note_down(desk.store, desk.terms, &id, *unnoted),
            None => carry_out(desk.store, desk.terms, &id, Effect::PostMessage),
        };
    }
}

/// An id that nobody has used: `apr-` and 60 random bits.
///
/// # Errors
/// The system gives no random bytes.
pub fn fresh_id() -> Result<ApprovalId, Error> {
    let letters = crate::random::letters(12).map_err(|error| Error::System {
        what: "get random bytes",
        error,
    })?;
    ApprovalId::parse(&format!("apr-{letters}")).ok_or(Error::System {
        what: "make an id",
        error: std::io::ErrorKind::InvalidData.into(),
    })
}
