//! Private words to whoever clicked. They are a courtesy: owed by nobody, and tried while they make
//! sense.

use super::queue::Job;
use super::work::Task;
use super::{Attempt, Effects, WORD_HORIZON};
use crate::approval::{ApprovalId, Person, Route};
use crate::outgoing::CallError;
use crate::slack::notice::{Notice, private};

/// How a clicker is told something alone.
#[derive(Debug)]
pub(super) enum Way {
    ResponseUrl(String),
    /// By `chat.postEphemeral`, where the click was, or where the approval is if there is one.
    Channel {
        user: String,
        clicked: Option<String>,
        id: Option<ApprovalId>,
    },
}

impl Effects {
    /// Tells the clicker something that the message does not show. A click on the Home tab has no
    /// `response_url`: then the word goes to the approval's channel, and nobody else there sees it.
    pub fn tell(&self, clicker: &Person, route: &Route, id: Option<&ApprovalId>, notice: &Notice) {
        let way = match &route.response_url {
            Some(response_url) => Way::ResponseUrl(response_url.clone()),
            None if self.terms().slack.has_token() => Way::Channel {
                user: clicker.id.clone(),
                clicked: route.channel.clone(),
                id: id.cloned(),
            },
            None => return,
        };
        let text = private(notice);
        let task = Task::Tell { way, text };
        let job = Job::new(task, WORD_HORIZON);
        self.queue.push(job.to(Some("words".into())));
    }

    pub(super) fn attempt_to_tell(&self, way: &Way, text: &str) -> Attempt {
        let terms = self.terms();
        let told = match way {
            Way::ResponseUrl(response_url) => terms.slack.tell_privately(response_url, text),
            Way::Channel { user, clicked, id } => {
                let approval = id.as_ref().and_then(|id| self.store.read(id).ok()?);
                let of_approval = approval.as_ref().and_then(|it| terms.channel_of(it));
                let channel = clicked
                    .as_deref()
                    .or(of_approval)
                    .or(terms.channel.as_deref());
                match channel {
                    Some(channel) => terms.slack.tell_in_channel(channel, user, text),
                    None => Err(CallError::Refused("no channel is known for it".into())),
                }
            }
        };
        match told {
            Ok(()) => Attempt::Done(None),
            Err(CallError::Refused(reason)) => {
                log::warn!(reason:%; "Slack refused a private answer");
                Attempt::Done(None)
            }
            Err(CallError::Limited(pause)) => Attempt::Again {
                pause: Some(pause),
                why: "rate limited".into(),
            },
            Err(CallError::Failed(reason)) => {
                log::warn!(reason:%; "Private answer not delivered, trying again");
                Attempt::Again {
                    pause: None,
                    why: reason,
                }
            }
        }
    }
}
