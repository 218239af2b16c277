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
mod record;
mod sweep;
mod tell;
mod weigh;
mod work;

pub use carry_out::{Attempt, Note, carry_out, give_up_posting, note_down, refused, undone};
pub use decision::Outcome;
pub use notify_agent::Callbacks;
pub use record::{Undone, record};

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::approval::{Approval, Knowledge, Policy};
use crate::clock;
use crate::live::Live;
use crate::slack::api::{Client, Identity};
use crate::slack::message::Asking;
use crate::slack::text::Mention;
use crate::store::{MessagePath, Store};
use home::Homes;
use knowledge::Learned;
use pace::Pace;
use queue::{Job, Queue};
use record::{Clicks, Ledger};
use work::Task;

/// Threads that call Slack. A call may hang for 10 s, so one is not enough.
const THREADS: usize = 6;
/// Threads that call agents back: whatever those do, Slack hears of it in time.
const CALLING: usize = 6;
/// Threads that ask Slack what a vote needs, for up to 4 s each.
const ASKING: usize = 4;
/// Threads that open dialogs: a click allows that for 3 s, so nothing else may hold them up.
const OPENING: usize = 6;
/// How long an effect is tried before it is given up.
const HORIZON: Duration = Duration::from_secs(24 * 3600);
/// How long a private word makes sense: a `response_url` lives for 30 minutes.
const WORD_HORIZON: Duration = Duration::from_secs(25 * 60);

/// Everything that decisions and their effects need. Cheap to clone.
#[derive(Clone)]
pub struct Effects {
    store: Arc<dyn Store>,
    terms: Arc<Live<Terms>>,
    queue: Arc<Queue>,
    /// Agents to be called back.
    calling: Arc<Queue>,
    /// Votes that need Slack's word.
    asking: Arc<Queue>,
    /// Dialogs to be opened.
    opening: Arc<Queue>,
    /// What the audit log is yet to tell.
    ledger: Arc<Ledger>,
    clicks: Arc<Clicks>,
    /// How fast requests are posted, and answers beside them.
    pace: Arc<Pace>,
    answers: Arc<Pace>,
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
    /// The last one: the others leave it what they bring about.
    recording: JoinHandle<()>,
}

impl Effects {
    pub fn new(store: Arc<dyn Store>, terms: Terms) -> Self {
        Self {
            store,
            terms: Arc::new(Live::new(terms)),
            queue: Arc::default(),
            calling: Arc::default(),
            asking: Arc::default(),
            opening: Arc::default(),
            ledger: Arc::default(),
            clicks: Arc::default(),
            pace: Arc::default(),
            answers: Arc::default(),
            learned: Arc::default(),
            identity: Arc::new(Live::new(None)),
            in_hand: Arc::default(),
            weighed: Arc::default(),
            homes: Arc::default(),
        }
    }

    /// From now on decides and calls by these terms.
    pub fn reload(&self, terms: Terms) {
        let before = self.terms();
        if terms.slack.has_token_of(&before.slack) {
            terms.slack.succeed(&before.slack);
        } else {
            // Another workspace may have other groups, and other people at home.
            self.learned.forget();
            self.identity.replace(None);
        }
        self.terms.replace(terms);
        self.note_policy();
        self.queue.push(Job::new(Task::Identify, HORIZON));
        self.refresh_homes();
    }

    /// Starts the threads; they begin with what earlier processes left undone.
    ///
    /// # Errors
    /// When the system gives no more threads.
    pub fn start(&self) -> std::io::Result<Running> {
        self.note_policy();
        let mut first = self.spawn("ask", &self.asking, ASKING)?;
        first.extend(self.spawn("dialog", &self.opening, OPENING)?);
        let mut threads = self.spawn("effect", &self.queue, THREADS)?;
        threads.extend(self.spawn("callback", &self.calling, CALLING)?);
        self.queue.push(Job::new(Task::Identify, HORIZON));
        let effects = self.clone();
        threads.push(
            thread::Builder::new()
                .name("sweep".into())
                .spawn(move || effects.sweep())?,
        );
        let effects = self.clone();
        let recording = thread::Builder::new().name("record".into());
        let recording = recording.spawn(move || effects.keep_record())?;
        Ok(Running {
            effects: self.clone(),
            first,
            threads,
            recording,
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
            MessagePath::ResponseUrl | MessagePath::Nowhere => Duration::ZERO,
        }
    }

    pub fn message_path(&self) -> MessagePath {
        if self.slack.is_off() {
            MessagePath::Nowhere
        } else if self.slack.has_token() {
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
        effects.calling.stop();
        wait(self.threads, deadline);
        effects.ledger.stop();
        wait(vec![self.recording], deadline);
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
