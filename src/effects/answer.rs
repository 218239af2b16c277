//! Answers to those who mention the app, made from what is stored when they are sent.

use std::time::Duration;

use super::home::pending;
use super::queue::Job;
use super::work::Task;
use super::{Attempt, Effects};
use crate::approval::{Approval, ApprovalId};
use crate::clock;
use crate::slack::event::AppMention;
use crate::slack::mention::{self, Question};
use crate::slack::message::Message;
use crate::store::StoreError;

/// How long somebody waits for an answer.
const HORIZON: Duration = Duration::from_secs(300);
/// How long an answer leaves a channel to requests that wait to be posted there.
const YIELD: Duration = Duration::from_secs(1);

impl Effects {
    /// Answers a mention in its thread. A channel learns of its own requests only.
    pub fn answer(&self, mention: AppMention) {
        if self.terms().slack.has_token() {
            let job = Job::new(Task::Answer(mention), HORIZON);
            self.queue.push(job.to(Some("answers".into())));
        } else {
            log::debug!("An answer needs a bot token");
        }
    }

    pub(super) fn attempt_to_answer(&self, mention: &AppMention) -> Attempt {
        let channel = &*mention.channel;
        let again = |pause, why| Attempt::Again { pause, why };
        // Requests come first: however many questions there are, none of them waits for an answer.
        let now = clock::tick();
        let requests_wait = self.pace.is_spent(channel, now).then_some(YIELD);
        if let Some(pause) = requests_wait.or_else(|| self.answers.take(channel, now)) {
            return again(Some(pause), "the channel has had its fill".into());
        }
        let answer = match self.answer_to(mention) {
            Ok(answer) => answer,
            Err(error) => {
                log::warn!(channel, reason:% = error; "Mention not answered, trying again");
                return again(None, error.to_string());
            }
        };
        let replied = self
            .terms()
            .slack
            .post_reply(channel, &mention.thread, &answer);
        Attempt::at_courtesy(replied, "an answer")
    }

    fn answer_to(&self, mention: &AppMention) -> Result<Message, StoreError> {
        let is_theirs = |approval: &Approval| {
            let channel = approval.text("slackChannel");
            channel == Some(&*mention.channel)
        };
        Ok(match &mention.asks {
            Question::Help => mention::help(),
            Question::Pending => {
                let mut approvals = pending(&*self.store)?;
                approvals.retain(is_theirs);
                mention::pending(&approvals)
            }
            Question::Status(id) => {
                let approval = id.as_ref().map(|id| self.find(id)).transpose()?;
                approval
                    .flatten()
                    .filter(is_theirs)
                    .map_or_else(mention::unknown, |approval| mention::status(&approval))
            }
        })
    }

    /// An approval in place, or in the archive. What is damaged belongs to no channel.
    fn find(&self, id: &ApprovalId) -> Result<Option<Approval>, StoreError> {
        let found = match self.store.read(id) {
            Ok(None) => self.store.archived(id),
            found => found,
        };
        match found {
            Err(StoreError::Damaged { .. } | StoreError::AnsweredElsewhere) => Ok(None),
            found => found,
        }
    }
}
