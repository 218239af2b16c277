//! What follows from a request and its decision: a message appears in Slack and changes, the agent
//! and the clicker are told.
//!
//! What is owed stands in the approval's own document, so a crash loses none of it. A
//! fixed number of threads works it off; whatever fails makes room for the others and is tried again
//! after a while.

mod answer;
mod carry_out;
mod decision;
mod home;
mod knowledge;
mod notify_agent;
mod pace;
mod queue;
mod sweep;
mod weigh;

pub use carry_out::{Attempt, Note, carry_out, give_up_posting, note_down, refused, undone};
pub use decision::Outcome;
pub use notify_agent::Callbacks;

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::approval::{
    Approval, ApprovalId, Ballot, Effect, Knowledge, Person, Policy, Route, Status,
};
use crate::clock;
use crate::live::Live;
use crate::outgoing::CallError;
use crate::random;
use crate::slack::api::{Client, Identity, is_about_credentials};
use crate::slack::event;
use crate::slack::message::{Asking, Mention, Notice, private};
use crate::store::{Deferred, MessagePath, Store};
use home::Homes;
use knowledge::Learned;
use pace::Pace;
use queue::{Job, Queue};
use serde_json::Value;

/// Threads that call Slack. A call may hang for 10 s, so one is not enough.
const THREADS: usize = 4;
/// Threads that ask Slack what a vote needs, for up to 4 s each.
const ASKING: usize = 4;
/// Threads that open dialogs: a click allows that for 3 s, so nothing else may hold them up.
const OPENING: usize = 2;
/// How long an effect is tried before it is given up.
const HORIZON: Duration = Duration::from_secs(24 * 3600);
/// How long a private word makes sense: a `response_url` lives for 30 minutes.
const WORD_HORIZON: Duration = Duration::from_secs(25 * 60);
/// The pause when we have not got what it takes.
const UNABLE_PAUSE: Duration = Duration::from_secs(10);
/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Everything that decisions and their effects need. Cheap to clone.
#[derive(Clone)]
pub struct Effects {
    store: Arc<dyn Store>,
    terms: Arc<Live<Terms>>,
    queue: Arc<Queue>,
    /// Votes that need Slack's word.
    asking: Arc<Queue>,
    /// Dialogs to be opened.
    opening: Arc<Queue>,
    pace: Arc<Pace>,
    learned: Arc<Learned>,
    /// Whose the bot token is, once Slack has said so.
    identity: Arc<Live<Option<Identity>>>,
    /// Deferred ballots that a thread is deciding.
    in_hand: Arc<Mutex<HashSet<String>>>,
    /// Those for which a thread is about to ask Slack.
    weighed: Arc<Mutex<HashSet<String>>>,
    homes: Arc<Homes>,
}

/// What a reload may change.
#[derive(Debug)]
pub struct Terms {
    pub slack: Client,
    pub callbacks: Callbacks,
    pub policy: Policy,
    /// Where requests are posted that name no channel of their own.
    pub channel: Option<String>,
    /// Who is notified of a request.
    pub mention: Vec<Mention>,
    /// How long before a request expires they are reminded of it; zero for never.
    pub remind_before: Duration,
    /// How long a request stays open that does not say.
    pub timeout: Duration,
}

/// The threads behind [`Effects`].
pub struct Running {
    effects: Effects,
    /// Those that leave words for the others to deliver.
    first: Vec<JoinHandle<()>>,
    threads: Vec<JoinHandle<()>>,
}

/// What to do. No kind holds more than it needs to find the rest.
#[derive(Debug)]
enum Task {
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
    Answer(event::Mention),
    /// The Home tab of somebody whose turn it is.
    Homes,
}

/// How a clicker is told something alone.
#[derive(Debug)]
enum Way {
    ResponseUrl(String),
    /// By `chat.postEphemeral`, where the click was, or where the approval is if there is one.
    Channel {
        user: String,
        clicked: Option<String>,
        id: Option<ApprovalId>,
    },
}

impl Effects {
    pub fn new(store: Arc<dyn Store>, terms: Terms) -> Self {
        Self {
            store,
            terms: Arc::new(Live::new(terms)),
            queue: Arc::default(),
            asking: Arc::default(),
            opening: Arc::default(),
            pace: Arc::default(),
            learned: Arc::default(),
            identity: Arc::new(Live::new(None)),
            in_hand: Arc::default(),
            weighed: Arc::default(),
            homes: Arc::default(),
        }
    }

    /// From now on decides and calls by these terms.
    pub fn reload(&self, terms: Terms) {
        self.terms.replace(terms);
        self.queue.push(Job::new(Task::Identify, HORIZON));
        self.refresh_homes();
    }

    /// Starts the threads; they begin with what earlier processes left undone.
    ///
    /// # Errors
    /// When the system gives no more threads.
    pub fn start(&self) -> std::io::Result<Running> {
        let mut first = self.spawn("ask", &self.asking, ASKING)?;
        first.extend(self.spawn("dialog", &self.opening, OPENING)?);
        let mut threads = self.spawn("effect", &self.queue, THREADS)?;
        self.queue.push(Job::new(Task::Identify, HORIZON));
        let effects = self.clone();
        threads.push(
            thread::Builder::new()
                .name("sweep".into())
                .spawn(move || effects.sweep())?,
        );
        Ok(Running {
            effects: self.clone(),
            first,
            threads,
        })
    }

    /// Starts so many threads for a queue.
    fn spawn(
        &self,
        name: &str,
        queue: &Arc<Queue>,
        count: usize,
    ) -> std::io::Result<Vec<JoinHandle<()>>> {
        let spawn = |number| {
            let (effects, queue) = (self.clone(), Arc::clone(queue));
            let thread = thread::Builder::new().name(format!("{name}-{number}"));
            thread.spawn(move || effects.work(&queue))
        };
        (1..=count).map(spawn).collect()
    }

    pub fn store(&self) -> &dyn Store {
        &*self.store
    }

    pub fn terms(&self) -> Arc<Terms> {
        self.terms.now()
    }

    /// What Slack has said lately of groups and people.
    fn known(&self) -> Knowledge {
        self.learned.now(clock::tick())
    }

    /// Whose the bot token is, once Slack has said so.
    pub fn identity(&self) -> Arc<Option<Identity>> {
        self.identity.now()
    }

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
        self.queue.push(Job::new(task, WORD_HORIZON));
    }

    /// Takes up what this process owes for an approval.
    fn push_owed(&self, approval: &Approval) {
        for owed in approval
            .owed()
            .filter(|owed| owed.owner == self.store.owner())
        {
            let task = Task::Owed(approval.id().clone(), owed.effect);
            self.queue.push(Job::new(task, HORIZON * 2));
        }
    }

    /// One thread's life: jobs as they come due.
    fn work(&self, queue: &Queue) {
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
                match &attempt {
                    Attempt::Refused(reason) => {
                        log::error!(approvalId:% = id, reason:%; "{}", refused(*effect));
                    }
                    Attempt::Again { why, .. } => {
                        log::warn!(approvalId:% = id, reason:% = why; "{}, trying again", undone(*effect));
                    }
                    Attempt::Done(_) | Attempt::NotNoted(_) => {}
                }
                attempt
            }
            Task::Note(id, _, note) => match note.take() {
                Some(note) => note_down(&*self.store, &self.terms(), id, *note),
                None => Attempt::Done(None),
            },
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
        match effect {
            Effect::PostMessage | Effect::Remind => {}
            Effect::UpdateMessage | Effect::RetireMessage | Effect::NotifyAgent => return None,
        }
        let approval = self.store.read(id).ok()??;
        let terms = self.terms();
        let channel = terms
            .channel_of(&approval)
            .filter(|_| terms.message_path() == MessagePath::BotToken);
        let (pause, why) = match channel {
            Some(channel) => {
                let pause = self.pace.take(channel, clock::tick())?;
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
                Attempt::Again {
                    pause: None,
                    why: error.to_string(),
                }
            }
        }
    }

    fn attempt_to_tell(&self, way: &Way, text: &str) -> Attempt {
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

impl Terms {
    /// Where a request is shown: the channel that it names, or the configured one.
    pub fn channel_of<'a>(&'a self, approval: &'a Approval) -> Option<&'a str> {
        approval.text("slackChannel").or(self.channel.as_deref())
    }

    /// What the message of a request says beside it.
    pub fn asking(&self) -> Asking<'_> {
        Asking {
            policy: &self.policy,
            mention: &self.mention,
        }
    }

    /// How long before a request expires people can be reminded of it; zero for never.
    fn remind_before(&self) -> Duration {
        match self.message_path() {
            MessagePath::BotToken => self.remind_before,
            MessagePath::ResponseUrl => Duration::ZERO,
        }
    }

    pub fn message_path(&self) -> MessagePath {
        if self.slack.has_token() {
            MessagePath::BotToken
        } else {
            MessagePath::ResponseUrl
        }
    }
}

impl Running {
    /// Stops after what is due now, or at the deadline. What is owed by then stays owed.
    pub fn stop(self, deadline: Instant) {
        let effects = &self.effects;
        effects.asking.stop();
        effects.opening.stop();
        wait(self.first, deadline);
        effects.queue.stop();
        wait(self.threads, deadline);
    }
}

/// Waits until threads have ended, or until the deadline.
fn wait(threads: Vec<JoinHandle<()>>, deadline: Instant) {
    for thread in threads {
        while !thread.is_finished() && clock::tick() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The pause before attempt `attempts + 1`: doubling from 1 s, at most 5 min, less up to half of it
/// by chance, so that many who failed together do not come back together.
fn backoff(attempts: u32) -> Duration {
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
