//! The one way to a decision, and to whatever else changes an approval: in each case what follows
//! from the change is owed by the same write.

use std::time::Duration;

use super::{Caution, Durability, Edit, Store, StoreError};
use crate::approval::{
    Approval, ApprovalId, Ballot, Effect, Entry, Event, Mandate, Objection, Owed, Person, Route,
    Run, Status, Unrecorded, Verdict, decide,
};
use crate::clock::{self, Timestamp};

/// A ballot's outcome, as it stands in the store. Only [`commit`] makes one.
#[derive(Debug)]
pub struct Recorded {
    approval: Approval,
    verdict: Verdict,
    durability: Durability,
}

impl Recorded {
    pub fn approval(&self) -> &Approval {
        &self.approval
    }

    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    pub fn durability(&self) -> &Durability {
        &self.durability
    }

    pub fn into_parts(self) -> (Approval, Verdict, Durability) {
        (self.approval, self.verdict, self.durability)
    }
}

/// How messages can be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessagePath {
    /// By the bot token, through channel and `ts`.
    BotToken,
    /// Through the click's `response_url`, which is good for 30 minutes.
    ResponseUrl,
    /// Slack is not to be called.
    Nowhere,
}

/// Decides a ballot and writes the outcome with the effects that it owes, in one atomic step. A
/// refusal changes no approval, and stands in the audit log. `None` when there is no such approval.
///
/// # Errors
/// Nothing was decided, or a refusal could not be recorded.
pub fn commit(
    store: &dyn Store,
    ballot: &Ballot,
    mandate: Mandate<'_>,
    path: MessagePath,
) -> Result<Option<Recorded>, StoreError> {
    let mut outcome = None;
    let updated = store.update(&ballot.id, &mut |approval| {
        let now = clock::now();
        let verdict = decide(approval, ballot, mandate, now);
        let mut changed = approval.record(ballot, &verdict, now);
        if changed {
            let entry = match verdict {
                Verdict::Counted { .. } => {
                    Entry::about(approval, Event::Voted, now, store.station()).cast(ballot)
                }
                Verdict::Lapsed => Entry::outcome(approval, now, store.station()),
                Verdict::Decided(_) | Verdict::Refused(_) => {
                    Entry::outcome(approval, now, store.station()).cast(ballot)
                }
            };
            owe_entry(store, approval, entry);
        }
        if approval.status() == Status::Pending {
            changed |= match verdict {
                Verdict::Counted { .. } => owe_count(approval, ballot, path, store.owner()),
                Verdict::Refused(Objection::Changed) => {
                    owe_another_message(approval, path, store.owner())
                }
                Verdict::Decided(_) | Verdict::Lapsed | Verdict::Refused(_) => false,
            };
        } else if changed {
            owe_consequences(approval, Some(ballot), path, store.owner());
        }
        outcome = Some(verdict);
        if changed { Edit::Write } else { Edit::Keep }
    })?;
    if let (Some(updated), Some(Verdict::Refused(objection))) = (&updated, &outcome) {
        let entry = Entry::about(
            &updated.approval,
            Event::Refused,
            clock::now(),
            store.station(),
        );
        let recorded = record_refusal(store, ballot, entry, objection.word());
        match mandate {
            Mandate::Terminal => put_up_with(recorded, &ballot.id),
            Mandate::Policy(..) => recorded?,
        }
    }
    Ok(updated.zip(outcome).map(|(updated, verdict)| Recorded {
        approval: updated.approval,
        verdict,
        durability: updated.durability,
    }))
}

/// Records in the audit log that a ballot was refused, and why. `entry` says what is known of the
/// request.
///
/// # Errors
/// It does not stand there.
pub fn record_refusal(
    store: &dyn Store,
    ballot: &Ballot,
    entry: Entry,
    why: &str,
) -> Result<(), StoreError> {
    store.record(&[entry.cast(ballot).refused(why)], Caution::New)
}

/// Records in the audit log that somebody wanted to withdraw what is final, if this user may write there.
pub fn record_late_withdrawal(
    store: &dyn Store,
    approval: &Approval,
    by: &Person,
    reason: Option<&str>,
) {
    let entry = Entry::about(approval, Event::Refused, clock::now(), store.station());
    let entry = entry
        .done(by, reason)
        .refused("already decided, so not cancelled");
    put_up_with(store.record(&[entry], Caution::New), approval.id());
}

/// Who decides from the terminal may not be allowed to write to the audit log.
fn put_up_with(recorded: Result<(), StoreError>, id: &ApprovalId) {
    if let Err(error) = recorded {
        log::debug!(approvalId:% = id, reason:% = error; "Refusal not recorded");
    }
}

/// Makes an approval `expired` if its time is over, owing what follows. The approval when that
/// changed it.
///
/// # Errors
/// Nothing has changed.
pub fn expire(
    store: &dyn Store,
    id: &ApprovalId,
    path: MessagePath,
) -> Result<Option<Approval>, StoreError> {
    change(store, id, &mut |approval| {
        let now = clock::now();
        let expired = approval.expire(now);
        if expired {
            owe_outcome(store, approval, now);
            owe_consequences(approval, None, path, store.owner());
        }
        expired
    })
}

/// Makes a pending approval `cancelled`, or `expired` if its time is over, owing what follows. The
/// approval when that changed it.
///
/// # Errors
/// Nothing has changed.
pub fn withdraw(
    store: &dyn Store,
    id: &ApprovalId,
    by: Option<&Person>,
    reason: Option<&str>,
    path: MessagePath,
) -> Result<Option<Approval>, StoreError> {
    change(store, id, &mut |approval| {
        let now = clock::now();
        if approval.status() != Status::Pending {
            return false;
        }
        if !approval.expire(now) {
            approval.finish(Status::Cancelled, by, reason, now);
        }
        owe_outcome(store, approval, now);
        owe_consequences(approval, None, path, store.owner());
        true
    })
}

/// Promises to show a pending request in Slack, and gives it an end if it has none. The approval
/// when it is ours to show now: nobody has, and nobody else who lives has promised to.
///
/// # Errors
/// Nothing has changed.
pub fn adopt(
    store: &dyn Store,
    id: &ApprovalId,
    timeout: Duration,
) -> Result<Option<Approval>, StoreError> {
    change(store, id, &mut |approval| {
        let now = clock::now();
        let promised = approval.owes_effect(Effect::PostMessage);
        let over = approval.is_over(now);
        if approval.status() != Status::Pending || over || approval.is_shown() || promised {
            return false;
        }
        approval.limit((now + timeout).rounded_up());
        owe_request(store, approval);
        owe(
            approval,
            Effect::PostMessage,
            Route::default(),
            store.owner(),
        );
        true
    })
}

/// Promises to remind of a pending request so long before it expires, once for all. The approval when
/// it is due and ours to do.
///
/// # Errors
/// Nothing has changed.
pub fn remind(
    store: &dyn Store,
    id: &ApprovalId,
    before: Duration,
) -> Result<Option<Approval>, StoreError> {
    change(store, id, &mut |approval| {
        let now = clock::now();
        let life = approval.open_life();
        let due = life.is_some_and(|life| life.calls_for_reminder(before, now));
        let Some(route) = own_message(approval).filter(|_| due) else {
            return false;
        };
        approval.note_reminder(now);
        owe(approval, Effect::Remind, route, store.owner());
        true
    })
}

/// Makes a request that is yet to be kept owe that the audit log tells of it.
pub fn owe_request(store: &dyn Store, approval: &mut Approval) {
    let now = clock::now();
    if approval.note_record(now) {
        let entry = Entry::about(approval, Event::Requested, now, store.station());
        push_entry(store, approval, entry);
    }
}

/// Makes a request owe that the audit log tells what has just become of it.
pub fn owe_outcome(store: &dyn Store, approval: &mut Approval, now: Timestamp) {
    let entry = Entry::outcome(approval, now, store.station());
    owe_entry(store, approval, entry);
}

/// Makes a request owe that the audit log tells how its command goes.
pub fn owe_execution(store: &dyn Store, approval: &mut Approval, run: Run<'_>) {
    let entry = Entry::execution(approval, run, clock::now(), store.station());
    owe_entry(store, approval, entry);
}

/// Makes a request owe a line of the audit log; that it was asked stands there first.
fn owe_entry(store: &dyn Store, approval: &mut Approval, entry: Entry) {
    owe_request(store, approval);
    push_entry(store, approval, entry);
}

fn push_entry(store: &dyn Store, approval: &mut Approval, entry: Entry) {
    approval.owe_record(&Unrecorded {
        owner: store.owner().to_owned(),
        inherited: false,
        entry,
    });
}

/// Promises to show a request in Slack that is yet to be kept, so that no server shows it, too.
pub fn promise_to_post(store: &dyn Store, approval: &mut Approval) {
    approval.forget_message();
    owe(
        approval,
        Effect::PostMessage,
        Route::default(),
        store.owner(),
    );
}

/// A request that needs nobody's approval, before it is kept: approved by the policy.
pub fn approve_by_policy(store: &dyn Store, approval: &mut Approval) {
    const POLICY: &str = "policy:auto";
    let policy = Person {
        id: POLICY.into(),
        username: POLICY.into(),
        name: POLICY.into(),
    };
    let now = clock::now();
    approval.finish(Status::Approved, Some(&policy), None, now);
    owe_outcome(store, approval, now);
    owe_callback(approval, store.owner());
}

/// Makes the approval owe the update of its message, unless somebody owes it already.
pub fn owe_update(approval: &mut Approval, owner: &str) {
    let owed = approval.owes_effect(Effect::UpdateMessage);
    if let (false, Some(route)) = (owed, own_message(approval)) {
        owe(approval, Effect::UpdateMessage, route, owner);
    }
}

/// Applies a change that says whether there was anything to change. The approval when there was.
fn change(
    store: &dyn Store,
    id: &ApprovalId,
    apply: &mut dyn FnMut(&mut Approval) -> bool,
) -> Result<Option<Approval>, StoreError> {
    let mut changed = false;
    let updated = store.update(id, &mut |approval| {
        changed = apply(approval);
        if changed { Edit::Write } else { Edit::Keep }
    })?;
    Ok(updated.filter(|_| changed).map(|updated| updated.approval))
}

/// What follows when an approval becomes final: its message changes, the agent is told.
fn owe_consequences(
    approval: &mut Approval,
    ballot: Option<&Ballot>,
    path: MessagePath,
    owner: &str,
) {
    // While it is yet to be shown, whoever shows it shows it as it is then.
    let unseen = approval.owes_effect(Effect::PostMessage);
    let routes = routes(approval, ballot, path);
    if routes.is_empty() && !unseen {
        log::debug!(approvalId:% = approval.id(); "No way to update this approval's message");
    }
    for route in routes {
        owe(approval, Effect::UpdateMessage, route, owner);
    }
    owe_callback(approval, owner);
}

/// Makes a pending request owe that its message shows a vote that counts. `false` without a message
/// that is known to show what the file says: the RunbookAI agent's says more than its file does.
fn owe_count(approval: &mut Approval, ballot: &Ballot, path: MessagePath, owner: &str) -> bool {
    let by_url = ballot.route.response_url.clone().map(|url| Route {
        response_url: Some(url),
        ..Route::default()
    });
    let route = own_message(approval).and_then(|own| match path {
        MessagePath::BotToken => Some(own),
        MessagePath::ResponseUrl => by_url,
        MessagePath::Nowhere => None,
    });
    route
        .map(|route| owe(approval, Effect::UpdateMessage, route, owner))
        .is_some()
}

/// Where the approval's messages are: the one that posting returned, and the one that was clicked
/// when that is another copy of ours, or the only one known.
fn routes(approval: &Approval, ballot: Option<&Ballot>, path: MessagePath) -> Vec<Route> {
    let own = own_message(approval);
    let click = ballot
        .map(|ballot| ballot.route.clone())
        .unwrap_or_default();
    let by_url = Route {
        response_url: click.response_url.clone(),
        ..Route::default()
    };
    let is_ours = ballot.is_some_and(|ballot| ballot.seen.is_some());
    let clicked = Route {
        response_url: None,
        ..click
    };
    let clicked = Some(clicked).filter(|clicked| {
        (is_ours || own.is_none()) && clicked.channel.is_some() && clicked.ts.is_some()
    });
    let mut routes: Vec<Route> = match path {
        MessagePath::BotToken => own.into_iter().chain(clicked).collect(),
        MessagePath::ResponseUrl => Vec::new(),
        MessagePath::Nowhere => return Vec::new(),
    };
    if routes.is_empty() && by_url.response_url.is_some() {
        routes.push(by_url);
    }
    routes
}

fn own_message(approval: &Approval) -> Option<Route> {
    approval.message().map(|(channel, ts)| Route {
        channel: Some(channel.to_owned()),
        ts: Some(ts.to_owned()),
        response_url: None,
    })
}

/// Makes a request whose meaning has changed since it was shown owe another message, and the end of
/// the old one. `false` when that is under way, or no message of ours can be changed.
fn owe_another_message(approval: &mut Approval, path: MessagePath, owner: &str) -> bool {
    let Some(old) = own_message(approval).filter(|_| path == MessagePath::BotToken) else {
        return false;
    };
    if approval.shows_its_meaning() {
        return false;
    }
    approval.forget_message();
    owe(approval, Effect::PostMessage, Route::default(), owner);
    owe(approval, Effect::RetireMessage, old, owner);
    true
}

/// Makes a final approval owe word to its agent, if that wants any.
pub fn owe_callback(approval: &mut Approval, owner: &str) {
    if approval.text("callbackUrl").is_some() {
        owe(approval, Effect::NotifyAgent, Route::default(), owner);
    }
}

fn owe(approval: &mut Approval, effect: Effect, route: Route, owner: &str) {
    approval.owe(&Owed {
        effect,
        owner: owner.to_owned(),
        since: clock::now(),
        route,
    });
}
