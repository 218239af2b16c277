//! The effect `updateMessage`: the Slack message shows what became of the request.

use super::{Attempt, HORIZON};
use crate::approval::{Approval, ApprovalId, Effect, Owed, Status};
use crate::clock;
use crate::slack::api::{CallError, Client};
use crate::slack::message::Message;
use crate::store::{Edit, Store};

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
    match call(slack, &approval, &owed) {
        Ok(()) => settle(store, id, &|approval| {
            approval.settle(Effect::UpdateMessage);
        }),
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
            Attempt::Again {
                pause: if let CallError::Limited(pause) = error {
                    Some(pause)
                } else {
                    None
                },
            }
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

fn give_up(store: &dyn Store, id: &ApprovalId, reason: &str) -> Attempt {
    settle(store, id, &|approval| {
        approval.give_up(Effect::UpdateMessage, reason, clock::now());
    })
}

/// Takes the effect off the approval's list. When that cannot be written, the effect is tried
/// again: rather twice than never.
fn settle(store: &dyn Store, id: &ApprovalId, change: &dyn Fn(&mut Approval)) -> Attempt {
    let updated = store.update(id, &mut |approval| {
        if approval.status() == Status::Pending {
            return Edit::Keep;
        }
        change(approval);
        Edit::Write
    });
    match updated {
        Ok(_) => {
            log::debug!(approvalId:% = id; "Slack message settled");
            Attempt::Done
        }
        Err(error) => {
            log::warn!(approvalId:% = id, reason:% = error; "Cannot note that the message is updated");
            Attempt::Again { pause: None }
        }
    }
}
