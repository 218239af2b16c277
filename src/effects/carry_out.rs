//! One attempt at one thing that an approval owes: the call, and what it leaves in the document.

use std::time::Duration;

use super::{HORIZON, Terms, notify_agent};
use crate::approval::{Approval, ApprovalId, Digest, Effect, Owed, Status};
use crate::clock;
use crate::metrics::{self, Counter};
use crate::outgoing::CallError;
use crate::slack::api::{Client, Posted};
use crate::slack::message::{Message, Occasion};
use crate::store::{Edit, Store, StoreError, owe_callback, owe_outcome, owe_update};

/// How an attempt went.
#[derive(Debug)]
pub enum Attempt {
    /// It is done, and this is the approval as it stands then; or there is nothing to do any more.
    Done(Option<Box<Approval>>),
    /// It will never be done. That is written down, and this is why.
    Refused(String),
    /// It is done, and that could not be written down.
    NotNoted(Box<Note>),
    /// It is to be tried again, after the pause that was asked for or our own.
    Again {
        pause: Option<Duration>,
        why: String,
    },
}

impl Attempt {
    /// After a call that may work later.
    pub(super) fn again(error: &CallError) -> Self {
        let pause = match error {
            CallError::Limited(pause) => Some(*pause),
            CallError::Refused(_) | CallError::Failed(_) => None,
        };
        let why = error.to_string();
        Self::Again { pause, why }
    }

    /// After a call that is a courtesy: nobody owes what Slack refuses.
    pub(super) fn at_courtesy(called: Result<(), CallError>, what: &str) -> Self {
        match called {
            Ok(()) => Self::Done(None),
            Err(CallError::Refused(reason)) => {
                log::warn!(reason:%; "Slack refused {what}");
                Self::Done(None)
            }
            Err(error) => {
                log::warn!(reason:% = error; "Slack did not take {what}, trying again");
                Self::again(&error)
            }
        }
    }
}

/// What is to be written down about something owed.
#[derive(Debug)]
pub struct Note {
    owed: Owed,
    outcome: Outcome,
}

/// What became of something owed.
#[derive(Debug)]
enum Outcome {
    /// The request stands in Slack, as this, and that is what it showed of it.
    Posted {
        at: Posted,
        message: Message,
        shown: Digest,
    },
    /// The message shows this.
    Updated(Message),
    /// The old message says that it is old.
    Retired,
    /// The reminder stands in the thread.
    Reminded,
    /// The agent has it.
    Notified,
    /// There was nothing to do.
    Unneeded,
    /// It cannot be done.
    GivenUp(String),
}

/// Tries once to do what the approval owes of that kind in this process's name. What it says is made
/// from the approval as it is now, so a late attempt never shows an old state.
pub fn carry_out(store: &dyn Store, terms: &Terms, id: &ApprovalId, effect: Effect) -> Attempt {
    let approval = match store.read(id) {
        Ok(approval) => approval,
        Err(error) => {
            return Attempt::Again {
                pause: None,
                why: error.to_string(),
            };
        }
    };
    let Some((approval, owed)) = approval.and_then(|approval| {
        let ours = approval.owed_by(store.owner(), effect);
        ours.map(|ours| (approval, ours))
    }) else {
        return Attempt::Done(None);
    };
    let called = match call(terms, &approval, &owed) {
        Err(error @ (CallError::Limited(_) | CallError::Failed(_)))
            if clock::now().since(owed.since) > HORIZON =>
        {
            Err(CallError::Refused(format!("{error}, for a day")))
        }
        called => called,
    };
    metrics::count(Counter::Effects {
        effect: effect.word(),
        result: match &called {
            Ok(_) => "done",
            Err(CallError::Refused(_)) => "failed",
            Err(CallError::Limited(_) | CallError::Failed(_)) => "retried",
        },
    });
    let outcome = match called {
        Ok(outcome) => outcome,
        Err(CallError::Refused(why)) => Outcome::GivenUp(why),
        Err(error) => return Attempt::again(&error),
    };
    note_down(store, terms, id, Note { owed, outcome })
}

/// Gives up showing a request, in whose name it is owed: it ends `cancelled`, for nobody can see it.
///
/// # Errors
/// Nothing has changed.
pub fn give_up_posting(
    store: &dyn Store,
    terms: &Terms,
    id: &ApprovalId,
    why: &str,
) -> Result<Option<Approval>, StoreError> {
    let updated = store.update(id, &mut |approval| {
        let owed = approval.owed_by(store.owner(), Effect::PostMessage);
        let Some(owed) = owed else { return Edit::Keep };
        let outcome = Outcome::GivenUp(why.to_owned());
        write_down(approval, &owed, &outcome, store, terms);
        Edit::Write
    })?;
    Ok(updated.map(|updated| updated.approval))
}

/// Writes down what became of something owed, so that it is not done again.
pub fn note_down(store: &dyn Store, terms: &Terms, id: &ApprovalId, note: Note) -> Attempt {
    let mut ended = None;
    let updated = store.update(id, &mut |approval| {
        let before = approval.status();
        write_down(approval, &note.owed, &note.outcome, store, terms);
        ended = Some(approval.status()).filter(|status| *status != before);
        match note.outcome {
            // A message that is updated twice is the same.
            Outcome::Updated(_) | Outcome::Retired | Outcome::Unneeded => Edit::Strike,
            Outcome::Posted { .. }
            | Outcome::Reminded
            | Outcome::Notified
            | Outcome::GivenUp(_) => Edit::Write,
        }
    });
    match updated {
        Ok(updated) => {
            if let Some(status) = ended.map(Status::word) {
                metrics::count(Counter::Decisions { status });
            }
            match note.outcome {
                Outcome::GivenUp(why) => Attempt::Refused(why),
                _ => Attempt::Done(updated.map(|updated| Box::new(updated.approval))),
            }
        }
        Err(error) => {
            let effect = note.owed.effect.word();
            log::warn!(approvalId:% = id, effect, reason:% = error; "What an attempt has come to cannot be noted");
            Attempt::NotNoted(Box::new(note))
        }
    }
}

fn write_down(
    approval: &mut Approval,
    owed: &Owed,
    outcome: &Outcome,
    store: &dyn Store,
    terms: &Terms,
) {
    let now = clock::now();
    match outcome {
        Outcome::Posted { at, message, shown } => {
            approval.note_message(&at.channel, &at.ts, *shown);
            approval.settle(owed);
            // Who has voted is what a new message does not show.
            let posted = Message::request(approval, terms.asking(), Occasion::Posted);
            let voted = !approval.shown_supporters(&terms.policy).is_empty();
            if approval.status() != Status::Pending || voted || *message != posted {
                owe_update(approval, store.owner());
            }
        }
        // It is owed still when the approval says something else by now.
        Outcome::Updated(shown) if *shown != as_it_is_now(approval, terms) => {}
        Outcome::Updated(_) | Outcome::Retired | Outcome::Reminded | Outcome::Unneeded => {
            approval.settle(owed);
        }
        Outcome::Notified => {
            approval.note_agent(now);
            approval.settle(owed);
        }
        Outcome::GivenUp(why) => {
            approval.give_up(owed, why, now);
            if owed.effect == Effect::PostMessage && approval.status() == Status::Pending {
                let reason = format!("slack: {why}");
                approval.finish(Status::Cancelled, None, Some(&reason), now);
                owe_outcome(store, approval, now);
                owe_callback(approval, store.owner());
            }
        }
    }
}

fn call(terms: &Terms, approval: &Approval, owed: &Owed) -> Result<Outcome, CallError> {
    match owed.effect {
        Effect::PostMessage => post(terms, approval),
        Effect::UpdateMessage if !may_show(approval, owed) => Ok(Outcome::Unneeded),
        Effect::UpdateMessage => {
            let message = as_it_is_now(approval, terms);
            show(&terms.slack, owed, &message).map(|()| Outcome::Updated(message))
        }
        Effect::RetireMessage => {
            show(&terms.slack, owed, &Message::retired(approval)).map(|()| Outcome::Retired)
        }
        Effect::Remind => remind(terms, approval),
        Effect::NotifyAgent => {
            notify_agent::call(&terms.callbacks, approval).map(|()| Outcome::Notified)
        }
    }
}

/// What a message that stands in Slack is to show.
fn as_it_is_now(approval: &Approval, terms: &Terms) -> Message {
    match approval.status() {
        Status::Pending => Message::request(approval, terms.asking(), Occasion::Updated),
        Status::Approved | Status::Denied | Status::Expired | Status::Cancelled => {
            Message::outcome(approval)
        }
    }
}

/// Whether a message may show the approval as it is now. Pending, that is only the message of what it
/// means: nobody is to find another request under the button that they are about to click.
fn may_show(approval: &Approval, owed: &Owed) -> bool {
    let is_its_own = own_message(approval, owed).is_some() || owed.route.response_url.is_some();
    approval.status() != Status::Pending || (is_its_own && !approval.shows_something_else())
}

/// The message that something owed is about, as long as it is the one that shows the request.
fn own_message<'a>(approval: &'a Approval, owed: &Owed) -> Option<(&'a str, &'a str)> {
    let route = &owed.route;
    let at = route.channel.as_deref().zip(route.ts.as_deref());
    approval.message().filter(|own| at == Some(*own))
}

/// Reminds in the request's thread, as long as somebody can still decide it there.
fn remind(terms: &Terms, approval: &Approval) -> Result<Outcome, CallError> {
    let now = clock::now();
    if approval.status() != Status::Pending || approval.is_over(now) {
        return Ok(Outcome::Unneeded);
    }
    // It may have been posted anew since the reminder came due.
    let (channel, ts) = approval
        .message()
        .ok_or_else(|| CallError::Failed("the request is yet to be posted anew".into()))?;
    let message = Message::reminder(approval, &terms.mention);
    terms.slack.post_reply(channel, ts, &message)?;
    log::info!(approvalId:% = approval.id(); "Reminder posted");
    Ok(Outcome::Reminded)
}

fn post(terms: &Terms, approval: &Approval) -> Result<Outcome, CallError> {
    if approval.status() != Status::Pending || approval.is_shown() {
        return Ok(Outcome::Unneeded);
    }
    let channel = terms.channel_of(approval).ok_or_else(|| {
        CallError::Refused("no channel is configured, and the request names none".into())
    })?;
    let message = Message::request(approval, terms.asking(), Occasion::Posted);
    let at = terms.slack.post_message(channel, &message)?;
    let operation = approval.operation();
    log::info!(approvalId:% = approval.id(), operation, channel; "Approval request posted");
    Ok(Outcome::Posted {
        at,
        message,
        shown: approval.digest(),
    })
}

fn show(slack: &Client, owed: &Owed, message: &Message) -> Result<(), CallError> {
    let route = &owed.route;
    match (&route.channel, &route.ts, &route.response_url) {
        (Some(channel), Some(ts), _) => slack.update_message(channel, ts, message),
        (_, _, Some(response_url)) => slack.replace_original(response_url, message),
        _ => Err(CallError::Refused(
            "nothing says where the message is".into(),
        )),
    }
}

/// What is so, as long as something owed is not done.
pub fn undone(effect: Effect) -> &'static str {
    match effect {
        Effect::PostMessage => "Request not posted",
        Effect::UpdateMessage | Effect::RetireMessage => "Message not updated",
        Effect::Remind => "Reminder not posted",
        Effect::NotifyAgent => "Agent not notified",
    }
}

/// What is so, once something owed never will be done.
pub fn refused(effect: Effect) -> &'static str {
    match effect {
        Effect::PostMessage => "Slack refused to post the request",
        Effect::UpdateMessage | Effect::RetireMessage => "Slack refused to update the message",
        Effect::Remind => "Slack refused to post a reminder",
        Effect::NotifyAgent => "The agent cannot be notified",
    }
}
