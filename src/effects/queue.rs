//! Jobs by when they are due, for a fixed number of threads.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::work::Task;
use crate::approval::{ApprovalId, Effect};
use crate::clock;
use crate::live::{hold, wait};

/// How many private words and answers may wait. Beyond that the newest is dropped: they are a
/// courtesy, and a Slack that hangs must not fill the memory.
const MOST_WORDS: usize = 10_000;
/// How many jobs for one destination are done at once: whoever hangs there leaves threads to the
/// others.
const AT_ONCE: usize = 2;

/// A task with its history.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) task: Task,
    /// What may hang while other things do not, if it calls any: a channel, an agent's origin, all
    /// that is a courtesy.
    destination: Option<String>,
    pub(super) attempts: u32,
    /// Not tried again after this. What an approval owes has no end here: it stands in the file, and says itself since
    /// when.
    end: Option<Instant>,
}

impl Job {
    /// To be tried for so long.
    pub(super) fn new(task: Task, horizon: Duration) -> Self {
        Self {
            end: Some(clock::tick() + horizon),
            ..Self::owed(task)
        }
    }

    /// To be tried until it is done.
    pub(super) fn owed(task: Task) -> Self {
        Self {
            task,
            destination: None,
            attempts: 0,
            end: None,
        }
    }

    pub(super) fn to(mut self, destination: Option<String>) -> Self {
        self.destination = destination;
        self
    }

    /// What one waiting job is enough for.
    fn subject(&self) -> Option<Subject> {
        match &self.task {
            Task::Owed(id, effect) | Task::Note(id, effect, _) => {
                Some(Subject::Owed(id.clone(), *effect))
            }
            Task::Answer(mention) => {
                let (channel, thread) = (mention.channel.clone(), mention.thread.clone());
                Some(Subject::Thread { channel, thread })
            }
            Task::Tell { .. }
            | Task::Weigh(_)
            | Task::AskWhy { .. }
            | Task::Identify
            | Task::Homes => None,
        }
    }
}

/// What a job is about: it tells whatever that is by then, so one is enough.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Subject {
    /// What an approval owes of a kind.
    Owed(ApprovalId, Effect),
    /// The newest question in a thread.
    Thread { channel: String, thread: String },
}

#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// A job was added: one of those who wait in `next` is to look.
    added: Condvar,
    stopped: Condvar,
}

#[derive(Default)]
struct State {
    /// By when it is due; the number keeps equals apart, and in order.
    waiting: BTreeMap<(Instant, u64), Job>,
    /// What waits or is being done, and what was pushed again meanwhile: while it is being done, that
    /// attempt may have looked too early to see what it was pushed for.
    known: HashMap<Subject, Option<Job>>,
    /// How many are being done, by destination, and those that are due and wait for one of them.
    busy: HashMap<String, Busy>,
    homes: Lane,
    number: u64,
    stopping: bool,
}

/// The jobs of one destination that are due.
#[derive(Default)]
struct Busy {
    running: usize,
    parked: VecDeque<Job>,
}

/// Where the one job for Home tabs is.
#[derive(Clone, Copy, Default)]
enum Lane {
    #[default]
    Nowhere,
    /// Among those that wait, there.
    Waiting((Instant, u64)),
    Running,
}

impl Queue {
    /// Adds a job that is due now, unless there is one for that already.
    pub(super) fn push(&self, job: Job) {
        let mut state = self.state();
        let subject = job.subject();
        if let Some(again) = subject.as_ref().and_then(|name| state.known.get_mut(name)) {
            *again = Some(job);
            return;
        }
        let fresh = match &job.task {
            Task::Owed(..) | Task::Note(..) => true,
            Task::Tell { .. }
            | Task::Answer(_)
            | Task::Weigh(_)
            | Task::AskWhy { .. }
            | Task::Identify => state.has_room(),
            Task::Homes => matches!(state.homes, Lane::Nowhere),
        };
        if fresh {
            if let Some(subject) = subject {
                state.known.insert(subject, None);
            }
            state.add(job, clock::tick());
            self.added.notify_one();
        }
    }

    /// Makes sure that the job for Home tabs is there, and not due later than that. One that is being
    /// done is followed by another if need be.
    pub(super) fn push_homes(&self, job: Job, due: Instant) {
        let mut state = self.state();
        match state.homes {
            Lane::Running => return,
            Lane::Waiting((earlier, _)) if earlier <= due => return,
            Lane::Waiting(key) => drop(state.waiting.remove(&key)),
            Lane::Nowhere if state.stopping => return,
            Lane::Nowhere => {}
        }
        state.add(job, due);
        self.added.notify_one();
    }

    /// Puts a job back for later, unless its time is over.
    pub(super) fn again(&self, job: Job, pause: Duration) {
        let due = clock::tick() + pause;
        if job.end.is_some_and(|end| due > end) {
            self.finish(&job);
            return;
        }
        let mut state = self.state();
        state.leave(&job);
        state.add(job, due);
        drop(state);
        self.added.notify_all();
    }

    /// Forgets a job that is done. When it was pushed again meanwhile, it begins anew.
    pub(super) fn finish(&self, job: &Job) {
        let mut state = self.state();
        state.leave(job);
        if matches!(job.task, Task::Homes) {
            state.homes = Lane::Nowhere;
        }
        let again = job.subject().and_then(|name| state.known.remove(&name));
        drop(state);
        if let Some(again) = again.flatten() {
            self.push(again);
        }
        self.added.notify_all();
    }

    /// Waits for the next job that is due. `None` when stopping and nothing is due now.
    pub(super) fn next(&self) -> Option<Job> {
        let mut state = self.state();
        loop {
            let now = clock::tick();
            let due = state.waiting.first_key_value().map(|((due, _), _)| *due);
            if due.is_some_and(|due| due <= now) {
                let (_, job) = state.waiting.pop_first()?;
                match state.enter(job) {
                    Some(job) => return Some(job),
                    None => continue,
                }
            }
            if state.stopping {
                return None;
            }
            state = wait(&self.added, state, due.map(|due| due - now));
        }
    }

    /// Waits for a while. `false` when the queue is stopping.
    pub(super) fn nap(&self, length: Duration) -> bool {
        let end = clock::tick() + length;
        let mut state = self.state();
        while !state.stopping {
            let Some(left) = end
                .checked_duration_since(clock::tick())
                .filter(|left| !left.is_zero())
            else {
                return true;
            };
            state = wait(&self.stopped, state, Some(left));
        }
        false
    }

    pub(super) fn stop(&self) {
        self.state().stopping = true;
        self.added.notify_all();
        self.stopped.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        hold(&self.state)
    }
}

impl State {
    /// Whether there is room for another word beside what must be done.
    fn has_room(&self) -> bool {
        let parked: usize = self.busy.values().map(|busy| busy.parked.len()).sum();
        self.waiting.len() + parked < MOST_WORDS + self.known.len()
    }

    /// Begins a job that is due, or parks it when its destination is busy.
    fn enter(&mut self, mut job: Job) -> Option<Job> {
        if let Some(destination) = &job.destination {
            let busy = self.busy.entry(destination.clone()).or_default();
            if busy.running >= AT_ONCE {
                busy.parked.push_back(job);
                return None;
            }
            busy.running += 1;
        }
        let again = job
            .subject()
            .and_then(|name| self.known.get_mut(&name)?.take());
        match &job.task {
            Task::Homes => self.homes = Lane::Running,
            // Of two questions the newer one is answered.
            Task::Answer(_) => job.task = again.map_or(job.task, |again| again.task),
            Task::Owed(..)
            | Task::Note(..)
            | Task::Tell { .. }
            | Task::Weigh(_)
            | Task::AskWhy { .. }
            | Task::Identify => {}
        }
        Some(job)
    }

    /// Makes room at the destination of a job that is not being done any more.
    fn leave(&mut self, job: &Job) {
        let Some(destination) = &job.destination else {
            return;
        };
        let Some(busy) = self.busy.get_mut(destination) else {
            return;
        };
        busy.running -= 1;
        match busy.parked.pop_front() {
            Some(parked) => self.add(parked, clock::tick()),
            None if busy.running == 0 => drop(self.busy.remove(destination)),
            None => {}
        }
    }

    fn add(&mut self, job: Job, due: Instant) {
        self.number += 1;
        if matches!(job.task, Task::Homes) {
            self.homes = Lane::Waiting((due, self.number));
        }
        self.waiting.insert((due, self.number), job);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::approval::UserId;
    use crate::slack::event::AppMention;
    use crate::slack::mention::Question;

    fn update(id: &str) -> Job {
        Job::new(
            Task::Owed(ApprovalId::parse(id).unwrap(), Effect::UpdateMessage),
            Duration::from_secs(60),
        )
    }

    #[test]
    fn an_approval_has_one_job_at_a_time_and_a_new_one_after_that() {
        let queue = Queue::default();
        queue.push(update("a"));
        queue.push(update("a"));
        let job = queue.next().unwrap();
        queue.stop();
        assert!(queue.next().is_none());
        queue.finish(&job);
        assert!(queue.next().is_none());
        queue.push(update("a"));
        assert!(queue.next().is_some());
    }

    #[test]
    fn what_is_pushed_while_it_is_being_done_is_done_again() {
        let queue = Queue::default();
        queue.push(update("a"));
        let job = queue.next().unwrap();
        queue.push(update("a"));
        queue.stop();
        assert!(queue.next().is_none());
        queue.finish(&job);
        let job = queue.next().unwrap();
        queue.finish(&job);
        assert!(queue.next().is_none());
    }

    #[test]
    fn there_is_one_job_for_home_tabs_and_the_earliest_wish_counts() {
        let (queue, now) = (Queue::default(), clock::tick());
        let push = |due| queue.push_homes(Job::new(Task::Homes, Duration::from_secs(60)), due);
        push(now + Duration::from_secs(60));
        push(now);
        push(now + Duration::from_secs(1));
        assert_eq!(queue.state().waiting.len(), 1);
        let job = queue.next().unwrap();
        push(now);
        assert!(queue.state().waiting.is_empty());
        queue.finish(&job);
        push(now);
        assert!(queue.next().is_some());
    }

    fn question(thread: &str, asks: Question) -> Job {
        let mention = AppMention {
            user: UserId::parse("U1").unwrap(),
            channel: "C1".into(),
            thread: thread.into(),
            asks,
        };
        Job::new(Task::Answer(mention), Duration::from_secs(60))
    }

    #[test]
    fn one_answer_waits_in_a_thread_and_the_newest_question_is_answered() {
        let queue = Queue::default();
        for asks in [Question::Pending, Question::Pending, Question::Help] {
            queue.push(question("1.1", asks));
        }
        queue.push(question("2.2", Question::Pending));
        assert_eq!(queue.state().waiting.len(), 2);
        let asks = |job: &Job| match &job.task {
            Task::Answer(mention) => mention.asks.clone(),
            other => panic!("{other:?}"),
        };
        let first = queue.next().unwrap();
        assert_eq!(asks(&first), Question::Help);
        // One that comes meanwhile is another, and takes the place of one that fails.
        queue.push(question("1.1", Question::Status(None)));
        queue.again(first, Duration::ZERO);
        assert_eq!(asks(&queue.next().unwrap()), Question::Pending);
        let second = queue.next().unwrap();
        assert_eq!(asks(&second), Question::Status(None));
        queue.finish(&second);
        queue.stop();
        assert!(queue.next().is_none());
    }

    #[test]
    fn a_destination_leaves_threads_to_the_others_and_gets_its_turn_in_order() {
        let queue = Queue::default();
        let to = |id: &str, destination: &str| update(id).to(Some(destination.to_owned()));
        for id in ["a", "b", "c", "d"] {
            queue.push(to(id, "C1"));
        }
        queue.push(to("e", "C2"));
        let id = |job: &Job| match &job.task {
            Task::Owed(id, _) => id.to_string(),
            other => panic!("{other:?}"),
        };
        let running = [(); 3].map(|()| queue.next().unwrap());
        assert_eq!(running.each_ref().map(id), ["a", "b", "e"]);
        queue.stop();
        assert!(queue.next().is_none());
        let [a, b, e] = running;
        queue.again(a, Duration::from_millis(1));
        let c = queue.next().unwrap();
        assert_eq!(id(&c), "c");
        assert!(queue.next().is_none());
        queue.finish(&b);
        assert_eq!(id(&queue.next().unwrap()), "d");
        for job in [&c, &e] {
            queue.finish(job);
        }
        let mut due = std::iter::repeat_with(|| queue.next()).flatten();
        assert_eq!(due.next().as_ref().map(id).as_deref(), Some("a"));
    }

    #[test]
    fn a_job_past_its_end_is_forgotten() {
        let queue = Queue::default();
        queue.push(update("a"));
        let job = queue.next().unwrap();
        queue.again(job, Duration::from_secs(61));
        queue.stop();
        assert!(queue.next().is_none());
        assert!(queue.state().known.is_empty());
    }
}
