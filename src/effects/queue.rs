//! Jobs by when they are due, for a fixed number of threads.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::HORIZON;
use super::work::Task;
use crate::approval::{ApprovalId, Effect};
use crate::clock;

/// How many private words and answers may wait. Beyond that the newest is dropped: they are a
/// courtesy, and a Slack that hangs must not fill the memory.
const MOST_WORDS: usize = 10_000;

/// A task with its history.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) task: Task,
    pub(super) attempts: u32,
    /// Not tried again after this.
    end: Instant,
}

impl Job {
    pub(super) fn new(task: Task, horizon: Duration) -> Self {
        Self {
            task,
            attempts: 0,
            end: clock::tick() + horizon,
        }
    }
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
    /// What waits or is being done, by approval and kind: one job each is enough, for it tells
    /// whatever the approval is by then.
    known: HashSet<(ApprovalId, Effect)>,
    /// What was pushed again while it was being done: that attempt may have looked too early to see
    /// what it was pushed for.
    missed: HashSet<(ApprovalId, Effect)>,
    homes: Lane,
    number: u64,
    stopping: bool,
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
    /// Adds a job that is due now.
    pub(super) fn push(&self, job: Job) {
        let mut state = self.state();
        let fresh = match &job.task {
            Task::Owed(id, effect) | Task::Note(id, effect, _) => {
                let fresh = state.known.insert((id.clone(), *effect));
                if !fresh {
                    state.missed.insert((id.clone(), *effect));
                }
                fresh
            }
            Task::Tell { .. }
            | Task::Answer(_)
            | Task::Weigh(_)
            | Task::AskWhy { .. }
            | Task::Identify => state.waiting.len() < MOST_WORDS + state.known.len(),
            Task::Homes => matches!(state.homes, Lane::Nowhere),
        };
        if fresh {
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
        if due > job.end {
            self.finish(&job);
            return;
        }
        self.state().add(job, due);
        self.added.notify_one();
    }

    /// Forgets a job that is done. When it was pushed again meanwhile, it begins anew.
    pub(super) fn finish(&self, job: &Job) {
        match &job.task {
            Task::Owed(id, effect) | Task::Note(id, effect, _) => {
                let name = (id.clone(), *effect);
                let mut state = self.state();
                state.known.remove(&name);
                if state.missed.remove(&name) {
                    drop(state);
                    self.push(Job::new(Task::Owed(name.0, name.1), HORIZON * 2));
                }
            }
            Task::Homes => self.state().homes = Lane::Nowhere,
            Task::Tell { .. }
            | Task::Answer(_)
            | Task::Weigh(_)
            | Task::AskWhy { .. }
            | Task::Identify => {}
        }
    }

    /// Waits for the next job that is due. `None` when stopping and nothing is due now.
    pub(super) fn next(&self) -> Option<Job> {
        let mut state = self.state();
        loop {
            let now = clock::tick();
            let due = state.waiting.first_key_value().map(|((due, _), _)| *due);
            if due.is_some_and(|due| due <= now) {
                let (_, job) = state.waiting.pop_first()?;
                match &job.task {
                    Task::Owed(id, effect) | Task::Note(id, effect, _) => {
                        state.missed.remove(&(id.clone(), *effect));
                    }
                    Task::Homes => state.homes = Lane::Running,
                    Task::Tell { .. }
                    | Task::Answer(_)
                    | Task::Weigh(_)
                    | Task::AskWhy { .. }
                    | Task::Identify => {}
                }
                return Some(job);
            }
            if state.stopping {
                return None;
            }
            state = match due {
                Some(due) => self
                    .added
                    .wait_timeout(state, due - now)
                    .map_or_else(|e| e.into_inner().0, |w| w.0),
                None => self
                    .added
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
            };
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
            state = self
                .stopped
                .wait_timeout(state, left)
                .map_or_else(|e| e.into_inner().0, |w| w.0);
        }
        false
    }

    pub(super) fn stop(&self) {
        self.state().stopping = true;
        self.added.notify_all();
        self.stopped.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
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
