//! Private words to whoever clicked. They are a courtesy: owed by nobody, and tried while they make
//! sense.

use super::queue::Job;
use super::work::Task;
use super::{Attempt, Effects, Terms, WORD_HORIZON};
use crate::approval::{ApprovalId, Person, Route};
use crate::outgoing::CallError;
use crate::slack::notice::{Notice, private};

/// How a clicker is told something alone: through `response_url`, or by `chat.postEphemeral`.
#[derive(Debug)]
pub(super) struct Way {
    response_url: Option<String>,
    user: String,
    /// The channel of the click; without one, that of the approval.
    clicked: Option<String>,
    id: Option<ApprovalId>,
}

impl Effects {
    /// Tells the clicker something that the message does not show. A click on the Home tab has no
    /// `response_url`: then the word goes to the approval's channel, and nobody else there sees it.
    pub fn tell(&self, clicker: &Person, route: &Route, id: Option<&ApprovalId>, notice: &Notice) {
        let slack = &self.terms().slack;
        if slack.is_off() || (route.response_url.is_none() && !slack.has_token()) {
            return;
        }
        let way = Way {
            response_url: route.response_url.clone(),
            user: clicker.id.clone(),
            clicked: route.channel.clone(),
            id: id.cloned(),
        };
        let text = private(notice);
        let job = Job::new(Task::Tell { way, text }, WORD_HORIZON);
        self.queue.push(job.to(Some("words".into())));
    }

    pub(super) fn attempt_to_tell(&self, way: &mut Way, text: &str) -> Attempt {
        let terms = self.terms();
        let told = match &way.response_url {
            Some(response_url) => match terms.slack.tell_privately(response_url, text) {
                // It is used up, or too old.
                Err(CallError::Refused(reason)) if terms.slack.has_token() => {
                    log::debug!(reason:%; "Private answer goes to the channel");
                    way.response_url = None;
                    self.tell_in_channel(way, text, &terms)
                }
                told => told,
            },
            None => self.tell_in_channel(way, text, &terms),
        };
        Attempt::at_courtesy(told, "a private answer")
    }

    fn tell_in_channel(&self, way: &Way, text: &str, terms: &Terms) -> Result<(), CallError> {
        let approval = way.id.as_ref().and_then(|id| self.store.read(id).ok()?);
        let of_approval = approval.as_ref().and_then(|it| terms.channel_of(it));
        let clicked = way.clicked.as_deref();
        let channel = clicked.or(of_approval).or(terms.channel.as_deref());
        let channel =
            channel.ok_or_else(|| CallError::Refused("no channel is known for it".into()))?;
        terms.slack.tell_in_channel(channel, &way.user, text)
    }
}
