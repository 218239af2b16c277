//! What follows from a decision: Slack's message changes, the clicker is told.
//!
//! What a decision owes stands in the approval's own document, so a crash loses none of it. A
//! fixed number of threads works it off; whatever fails makes room for the others and is tried again
//! after a while.

mod decision;
mod queue;
mod sweep;
mod update_message;

pub use decision::Outcome;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::approval::{ApprovalId, Policy};
use crate::clock;
use crate::live::Live;
use crate::slack::api::{CallError, Client};
use crate::slack::message::{Notice, private};
use crate::store::{MessagePath, Store};
use queue::{Job, Queue};

/// Threads that call Slack. A call may hang for 10 s, so one is not enough.
const THREADS: usize = 4;
/// How long an effect is tried before it is given up.
const HORIZON: Duration = Duration::from_secs(24 * 3600);
/// How long a private word makes sense: a `response_url` lives for 30 minutes.
const WORD_HORIZON: Duration = Duration::from_secs(25 * 60);
/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Everything that decisions and their effects need. Cheap to clone.
#[derive(Clone)]
pub struct Effects {
    store: Arc<dyn Store>,
    terms: Arc<Live<Terms>>,
    queue: Arc<Queue>,
}

/// What a reload may change.
pub struct Terms {
    pub slack: Client,
    pub policy: Policy,
}

/// The threads behind [`Effects`].
pub struct Running {
    effects: Effects,
    threads: Vec<JoinHandle<()>>,
}

/// What to do. Neither kind holds more than it needs to find the rest.
#[derive(Debug)]
enum Task {
    UpdateMessage(ApprovalId),
    /// The message is updated, and only that is yet to be written down.
    NoteUpdate(ApprovalId),
    Tell {
        response_url: String,
        text: String,
    },
}

/// How an attempt went.
#[derive(Debug)]
enum Attempt {
    /// It is done, or there is nothing to do any more.
    Done,
    /// It is done, and that could not be written down.
    NotNoted,
    /// It is to be tried again, after the pause that Slack asked for or our own.
    Again { pause: Option<Duration> },
}

impl Effects {
    pub fn new(store: Arc<dyn Store>, terms: Terms) -> Self {
        Self {
            store,
            terms: Arc::new(Live::new(terms)),
            queue: Arc::default(),
        }
    }

    /// From now on decides and calls by these terms.
    pub fn reload(&self, terms: Terms) {
        self.terms.replace(terms);
    }

    /// Starts the threads; they begin with what earlier processes left undone.
    ///
    /// # Errors
    /// When the system gives no more threads.
    pub fn start(&self) -> std::io::Result<Running> {
        let mut threads = Vec::new();
        for number in 1..=THREADS {
            let effects = self.clone();
            threads.push(
                thread::Builder::new()
                    .name(format!("effect-{number}"))
                    .spawn(move || effects.work())?,
            );
        }
        let effects = self.clone();
        threads.push(
            thread::Builder::new()
                .name("sweep".into())
                .spawn(move || effects.sweep())?,
        );
        Ok(Running {
            effects: self.clone(),
            threads,
        })
    }

    pub fn store(&self) -> &dyn Store {
        &*self.store
    }

    pub fn terms(&self) -> Arc<Terms> {
        self.terms.now()
    }

    /// Tells the clicker something that the message does not show. Without a `response_url` there
    /// is no way to.
    pub fn tell(&self, response_url: Option<&str>, notice: &Notice) {
        if let Some(response_url) = response_url {
            let task = Task::Tell {
                response_url: response_url.to_owned(),
                text: private(notice),
            };
            self.queue.push(Job::new(task, WORD_HORIZON));
        }
    }

    /// One thread's life: jobs as they come due.
    fn work(&self) {
        while let Some(mut job) = self.queue.next() {
            let attempt = catch_unwind(AssertUnwindSafe(|| self.attempt(&mut job.task)));
            let attempt = attempt.unwrap_or_else(|_| {
                log::error!("An effect panicked; this is a bug");
                Attempt::Again { pause: None }
            });
            job.attempts += 1;
            match attempt {
                Attempt::Done => self.queue.finish(&job),
                Attempt::NotNoted => {
                    let pause = backoff(job.attempts);
                    self.queue.again(job, pause);
                }
                Attempt::Again { pause } => {
                    let pause = pause.unwrap_or_else(|| backoff(job.attempts));
                    self.queue.again(job, pause);
                }
            }
        }
    }

    /// Tries once. What is left to do after that may be another task.
    fn attempt(&self, task: &mut Task) -> Attempt {
        match task {
            Task::UpdateMessage(id) => {
                let id = id.clone();
                let attempt = update_message::attempt(&*self.store, &self.terms().slack, &id);
                if let Attempt::NotNoted = attempt {
                    *task = Task::NoteUpdate(id);
                }
                attempt
            }
            Task::NoteUpdate(id) => update_message::note(&*self.store, id),
            Task::Tell { response_url, text } => self.attempt_to_tell(response_url, text),
        }
    }

    fn attempt_to_tell(&self, response_url: &str, text: &str) -> Attempt {
        match self.terms().slack.tell_privately(response_url, text) {
            Ok(()) => Attempt::Done,
            Err(CallError::Refused(reason)) => {
                log::warn!(reason:%; "Slack refused a private answer");
                Attempt::Done
            }
            Err(CallError::Limited(pause)) => Attempt::Again { pause: Some(pause) },
            Err(CallError::Failed(reason)) => {
                log::warn!(reason:%; "Private answer not delivered, trying again");
                Attempt::Again { pause: None }
            }
        }
    }
}

impl Terms {
    fn message_path(&self) -> MessagePath {
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
        self.effects.queue.stop();
        for thread in self.threads {
            while !thread.is_finished() && clock::tick() < deadline {
                thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

/// The pause before attempt `attempts + 1`: doubling from 1 s, at most 5 min, less up to half of it
/// by chance, so that many who failed together do not come back together.
fn backoff(attempts: u32) -> Duration {
    let whole = Duration::from_secs(1 << attempts.saturating_sub(1).min(16)).min(LONGEST_PAUSE);
    whole.mul_f64(1.0 - 0.5 * chance())
}

/// A number from 0 to 1.
fn chance() -> f64 {
    let mut bytes = [0; 4];
    // Without random bytes all pauses are alike, which is no harm.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::NONBLOCK);
    f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX)
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
