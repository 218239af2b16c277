//! The threads that work off what is due, and what there may be to do.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use serde_json::Value;

use super::Effects;
use super::carry_out::{Attempt, Note, carry_out, note_down, refused, undone};
use super::queue::{Job, Queue};
use super::tell::Way;
use crate::approval::{Approval, ApprovalId, Ballot, Effect, Status};
use crate::clock;
use crate::outgoing::{CallError, Url};
use crate::random;
use crate::slack::api::is_about_credentials;
use crate::slack::event::AppMention;
use crate::store::{Deferred, MessagePath};

/// The pause when we have not got what it takes.
const UNABLE_PAUSE: Duration = Duration::from_secs(10);
/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// What to do. No kind holds more than it needs to find the rest.
#[derive(Debug)]
pub(super) enum Task {
    /// All of one kind that an approval owes.
    Owed(ApprovalId, Effect),
    /// Something owed is done, and only that is yet to be written down.
    Note(ApprovalId, Effect, Option<Box<Note>>),
    Tell {
        way: Way,
        text: String,
    },
    /// A ballot needs Slack's word first.
    Weigh(Box<Deferred>),
    /// A denial needs a reason.
    AskWhy {
        ballot: Box<Ballot>,
        view: Box<Value>,
    },
    /// Whose the bot token is.
    Identify,
    /// The answer to somebody who has mentioned the app.
    Answer(AppMention),
    /// The Home tab of somebody whose turn it is.
    Homes,
}

impl Effects {
    /// Takes up what this process owes for an approval.
    pub(super) fn push_owed(&self, approval: &Approval) {
        let is_ours = |owner: &str| owner == self.store.owner();
        if approval.owes_record_of(self.store.owner()) {
            self.ledger.push(approval.id().clone());
        }
        let terms = self.terms();
        for owed in approval.owed().filter(|owed| is_ours(&owed.owner)) {
            let (queue, destination) = match owed.effect {
                Effect::NotifyAgent => {
                    let url = approval.text("callbackUrl").and_then(Url::parse);
                    (&self.calling, url.map(|url| url.origin().to_owned()))
                }
                Effect::PostMessage
                | Effect::UpdateMessage
                | Effect::RetireMessage
                | Effect::Remind => {
                    let channel = owed.route.channel.as_deref();
                    let channel = channel.or(terms.channel_of(approval));
                    (&self.queue, channel.map(str::to_owned))
                }
            };
            let task = Task::Owed(approval.id().clone(), owed.effect);
            queue.push(Job::owed(task).to(destination));
        }
    }

    /// One thread's life: jobs as they come due.
    pub(super) fn work(&self, queue: &Queue) {
        while let Some(mut job) = queue.next() {
            let attempt = catch_unwind(AssertUnwindSafe(|| self.attempt(&mut job)));
            let attempt = attempt.unwrap_or_else(|_| {
                log::error!("An effect panicked; this is a bug");
                Attempt::Again {
                    pause: None,
                    why: String::new(),
                }
            });
            match attempt {
                Attempt::Done(approval) => {
                    queue.finish(&job);
                    // More of it, or what has become owed meanwhile.
                    if let Some(approval) = approval {
                        self.push_owed(&approval);
                    }
                    if matches!(job.task, Task::Homes) {
                        self.push_homes();
                    }
                }
                Attempt::Refused(_) => {
                    queue.finish(&job);
                    // It may have made the request final, and so owe word to the agent.
                    if let Task::Owed(id, _) | Task::Note(id, ..) = &job.task
                        && let Ok(Some(approval)) = self.store.read(id)
                    {
                        self.push_owed(&approval);
                    }
                }
                Attempt::NotNoted(note) => {
                    if let Task::Owed(id, effect) | Task::Note(id, effect, _) = job.task {
                        job.task = Task::Note(id, effect, Some(note));
                        let pause = backoff(job.attempts);
                        queue.again(job, pause);
                    }
                }
                Attempt::Again { pause, .. } => {
                    let pause = pause.unwrap_or_else(|| backoff(job.attempts));
                    queue.again(job, pause);
                }
            }
        }
    }

    /// Tries once, unless it is not its turn: to wait for that is no attempt.
    fn attempt(&self, job: &mut Job) -> Attempt {
        if let Task::Owed(id, effect) = &job.task
            && let Some(later) = self.wait_for_channel(id, *effect)
        {
            return later;
        }
        job.attempts += 1;
        match &mut job.task {
            Task::Owed(id, effect) => {
                let attempt = carry_out(&*self.store, &self.terms(), id, *effect);
                say_if_undone(&attempt, id, *effect);
                attempt
            }
            Task::Note(id, effect, note) => {
                let Some(note) = note.take() else {
                    return Attempt::Done(None);
                };
                let attempt = note_down(&*self.store, &self.terms(), id, *note);
                say_if_undone(&attempt, id, *effect);
                attempt
            }
            Task::Weigh(deferred) => self.weigh(deferred),
            Task::AskWhy { ballot, view } => self.open_dialog(ballot, view),
            Task::Identify => self.identify(),
            Task::Tell { way, text } => self.attempt_to_tell(way, text),
            Task::Answer(mention) => self.attempt_to_answer(mention),
            Task::Homes => self.attempt_home(),
        }
    }

    /// Puts a post off whose channel has had its fill of them, or that we took over and cannot
    /// post: that is no refusal of Slack's, and a reload may change it.
    fn wait_for_channel(&self, id: &ApprovalId, effect: Effect) -> Option<Attempt> {
        let terms = self.terms();
        match effect {
            Effect::PostMessage | Effect::Remind => {}
            Effect::UpdateMessage | Effect::RetireMessage if terms.slack.is_off() => {
                return Some(Attempt::Again {
                    pause: Some(UNABLE_PAUSE),
                    why: "Slack is switched off".into(),
                });
            }
            Effect::UpdateMessage | Effect::RetireMessage | Effect::NotifyAgent => return None,
        }
        let approval = self.store.read(id).ok()??;
        let channel = terms
            .channel_of(&approval)
            .filter(|_| terms.message_path() == MessagePath::BotToken);
        let (pause, why) = match channel {
            Some(channel) => {
                let now = clock::tick();
                let Some(pause) = self.pace.take(channel, now) else {
                    // Slack counts both, and a 429 for an answer would hold the next request up.
                    self.answers.charge(channel, now);
                    return None;
                };
                (pause, "the channel has had its fill")
            }
            None if approval.status() == Status::Pending => {
                let why = "posting it needs a bot token and a channel";
                log::warn!(approvalId:% = id, reason = why; "Request not posted, trying again");
                (UNABLE_PAUSE, why)
            }
            None => return None,
        };
        Some(Attempt::Again {
            pause: Some(pause),
            why: why.into(),
        })
    }

    /// Learns whose the bot token is, so that it is known who comes from outside.
    fn identify(&self) -> Attempt {
        let terms = self.terms();
        if !terms.slack.has_token() {
            return Attempt::Done(None);
        }
        match terms.slack.identify() {
            Ok(identity) => {
                self.identity.replace(Some(identity));
                Attempt::Done(None)
            }
            Err(CallError::Refused(reason)) => {
                if is_about_credentials(&reason) {
                    log::error!(reason:%; "Slack does not know the bot token");
                } else {
                    log::warn!(reason:%; "Slack does not say whose the bot token is");
                }
                Attempt::Done(None)
            }
            Err(error) => {
                log::warn!(reason:% = error; "Slack did not say whose the bot token is, trying again");
                Attempt::again(&error)
            }
        }
    }
}

fn say_if_undone(attempt: &Attempt, id: &ApprovalId, effect: Effect) {
    match attempt {
        Attempt::Refused(reason) => {
            log::error!(approvalId:% = id, reason:%; "{}", refused(effect));
        }
        Attempt::Again { why, .. } => {
            log::warn!(approvalId:% = id, reason:% = why; "{}, trying again", undone(effect));
        }
        Attempt::Done(_) | Attempt::NotNoted(_) => {}
    }
}

/// The pause before attempt `attempts + 1`: doubling from 1 s, at most 5 min, less up to half of it
/// by chance, so that many who failed together do not come back together.
pub(super) fn backoff(attempts: u32) -> Duration {
    let whole = Duration::from_secs(1 << attempts.saturating_sub(1).min(16)).min(LONGEST_PAUSE);
    whole.mul_f64(1.0 - 0.5 * random::chance())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_from_within_a_second_to_five_minutes() {
        for (attempts, longest) in [(1, 1), (2, 2), (3, 4), (9, 256), (10, 300), (u32::MAX, 300)] {
            let (pause, longest) = (backoff(attempts), Duration::from_secs(longest));
            assert!(
                pause <= longest && pause >= longest / 2,
                "{attempts}: {pause:?}"
            );
        }
    }
}
