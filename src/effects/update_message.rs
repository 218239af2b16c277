//! The effect `updateMessage`: the Slack message shows what became of the request.

use super::{Attempt, HORIZON};
use crate::approval::{Approval, ApprovalId, Effect, Owed, Status};
use crate::clock;
use crate::metrics::{self, Counter};
use crate::slack::api::{CallError, Client};
use crate::slack::message::Message;
use crate::store::{Edit, Store, StoreError};

/// Tries once. The message is made from the approval as it is now, so a late attempt never shows
/// an old state.
pub(super) fn attempt(store: &dyn Store, slack: &Client, id: &ApprovalId) -> Attempt {
    let approval = match store.read(id) {
        Ok(approval) => approval,
        Err(error) => {
            log::warn!(approvalId:% = id, reason:% = error; "Message not updated, trying again");
            return Attempt::Again { pause: None };
        }
    };
    let Some((approval, owed)) = approval.and_then(|approval| {
        let owed = approval
            .owed()
            .find(|owed| owed.effect == Effect::UpdateMessage && owed.owner == store.owner());
        owed.map(|owed| (approval, owed))
    }) else {
        return Attempt::Done;
    };
    let called = call(slack, &approval, &owed);
    metrics::count(Counter::Effects {
        effect: owed.effect.word(),
        result: match &called {
            Ok(()) => "done",
            Err(CallError::Refused(_)) => "failed",
            Err(CallError::Limited(_) | CallError::Failed(_)) => "retried",
        },
    });
    match called {
        Ok(()) => note(store, id),
        Err(CallError::Refused(reason)) => {
            log::error!(approvalId:% = id, reason:%; "Slack refused to update the message");
            give_up(store, id, &reason)
        }
        Err(error) if clock::now().since(owed.since) > HORIZON => {
            log::error!(approvalId:% = id, reason:% = error; "Message not updated for a day, giving up");
            give_up(store, id, &error.to_string())
        }
        Err(error) => {
            log::warn!(approvalId:% = id, reason:% = error; "Message not updated, trying again");
            let pause = if let CallError::Limited(pause) = error {
                Some(pause)
            } else {
                None
            };
            Attempt::Again { pause }
        }
    }
}

/// Writes down that the message is updated.
pub(super) fn note(store: &dyn Store, id: &ApprovalId) -> Attempt {
    match settle(store, id, &|approval| {
        approval.settle(Effect::UpdateMessage);
    }) {
        Ok(()) => Attempt::Done,
        Err(error) => {
            log::warn!(approvalId:% = id, reason:% = error; "Cannot note that the message is updated");
            Attempt::NotNoted
        }
    }
}

fn give_up(store: &dyn Store, id: &ApprovalId, why: &str) -> Attempt {
    let change =
        |approval: &mut Approval| approval.give_up(Effect::UpdateMessage, why, clock::now());
    match settle(store, id, &change) {
        Ok(()) => Attempt::Done,
        Err(error) => {
            log::warn!(approvalId:% = id, reason:% = error; "Cannot note that the message is given up");
            Attempt::Again { pause: None }
        }
    }
}

fn call(slack: &Client, approval: &Approval, owed: &Owed) -> Result<(), CallError> {
    let message = Message::outcome(approval);
    let route = &owed.route;
    match (&route.channel, &route.ts, &route.response_url) {
        (Some(channel), Some(ts), _) => slack.update_message(channel, ts, &message),
        (_, _, Some(response_url)) => slack.replace_original(response_url, &message),
        _ => Err(CallError::Refused(
            "nothing says where the message is".into(),
        )),
    }
}

fn settle(
    store: &dyn Store,
    id: &ApprovalId,
    change: &dyn Fn(&mut Approval),
) -> Result<(), StoreError> {
    let updated = store.update(id, &mut |approval| {
        if approval.status() == Status::Pending {
            return Edit::Keep;
        }
        change(approval);
        Edit::Write
    });
    updated.map(|_| log::debug!(approvalId:% = id; "Slack message settled"))
}
