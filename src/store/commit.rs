//! The one way to a decision.

use super::{Durability, Edit, Store, StoreError};
use crate::approval::{
    Approval, ApprovalId, Ballot, Effect, Owed, Policy, Route, Status, Verdict, decide,
};
use crate::clock;

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
}

/// How messages can be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessagePath {
    /// By the bot token, through channel and `ts`.
    BotToken,
    /// Through the click's `response_url`, which is good for 30 minutes.
    ResponseUrl,
}

/// Decides a ballot and writes the outcome with the effects that it owes, in one atomic step.
/// `None` when there is no such approval.
///
/// # Errors
/// Nothing was decided.
pub fn commit(
    store: &dyn Store,
    ballot: &Ballot,
    policy: &Policy,
    path: MessagePath,
) -> Result<Option<Recorded>, StoreError> {
    let mut outcome = None;
    let updated = store.update(&ballot.id, &mut |approval| {
        let now = clock::now();
        let verdict = decide(approval, ballot, policy, now);
        let changed = approval.record(ballot, &verdict, now);
        if changed && approval.status() != Status::Pending {
            owe_message(approval, &ballot.route, path, store.owner());
        }
        outcome = Some(verdict);
        if changed { Edit::Write } else { Edit::Keep }
    })?;
    Ok(updated.zip(outcome).map(|(updated, verdict)| Recorded {
        approval: updated.approval,
        verdict,
        durability: updated.durability,
    }))
}

/// Makes the approval owe the update of its message, if there is any way to reach one.
fn owe_message(approval: &mut Approval, click: &Route, path: MessagePath, owner: &str) {
    let own = |key: &str| approval.text(key).map(str::to_owned);
    let by_url = || Route {
        response_url: click.response_url.clone(),
        ..Route::default()
    };
    let message = |channel: Option<String>, ts: Option<String>| match (channel, ts) {
        (Some(channel), Some(ts)) => Some(Route {
            channel: Some(channel),
            ts: Some(ts),
            response_url: None,
        }),
        _ => None,
    };
    let route = match path {
        MessagePath::ResponseUrl => by_url(),
        // The channel and ts that posting returned; what a click says only where those are unknown.
        MessagePath::BotToken => message(own("slackChannel"), own("slackMessageTs"))
            .or_else(|| message(click.channel.clone(), click.ts.clone()))
            .unwrap_or_else(by_url),
    };
    if route == Route::default() {
        log::warn!(approvalId:% = approval.id(); "No way to update this approval's message");
        return;
    }
    approval.owe(&Owed {
        effect: Effect::UpdateMessage,
        owner: owner.to_owned(),
        since: clock::now(),
        route,
    });
}

/// Makes an approval `expired` if its time is over, owing the update of its message. The approval
/// when that changed it.
///
/// # Errors
/// Nothing has changed.
pub fn expire(
    store: &dyn Store,
    id: &ApprovalId,
    path: MessagePath,
) -> Result<Option<Approval>, StoreError> {
    let mut expired = false;
    let updated = store.update(id, &mut |approval| {
        expired = approval.expire(clock::now());
        if expired {
            owe_message(approval, &Route::default(), path, store.owner());
            return Edit::Write;
        }
        Edit::Keep
    })?;
    Ok(updated.filter(|_| expired).map(|updated| updated.approval))
}
