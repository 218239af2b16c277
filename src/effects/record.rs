//! The audit log: what approvals owe to it is added in batches, one sync for many, by one thread.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::Effects;
use crate::approval::{ApprovalId, Entry, Event};
use crate::clock;
use crate::complaint::reason;
use crate::metrics::{self, Counter};
use crate::store::{Caution, Edit, Store, StoreError};

/// How many approvals are recorded at once.
const BATCH: usize = 256;
/// How long what is to be recorded waits for more, for one sync is enough for all. One click after the other, it
/// also leaves the disk to the next one.
const GATHER: Duration = Duration::from_millis(20);
/// Threads that strike a large batch off the lists.
const STRIKERS: usize = 4;
/// The first pause after a failure; each further one adds as much.
const PAUSE: Duration = Duration::from_millis(500);
/// How long an approval rests that cannot be read or written, so that it holds up no other.
const REST: Duration = Duration::from_secs(10);
/// As good as for ever.
const LONG: Duration = Duration::from_secs(3600);
/// The longest pause after a failure: a disk that has room again is noticed within that.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Approvals that owe something to the audit log, and how it is to be added.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    due: HashMap<ApprovalId, Caution>,
    /// Those that are due again then.
    resting: HashMap<ApprovalId, Instant>,
    /// Events that no approval owes, in order.
    notes: Vec<(Entry, Caution)>,
    stopping: bool,
}

impl State {
    fn is_empty(&self) -> bool {
        self.due.is_empty() && self.notes.is_empty()
    }
}

/// What is recorded at once.
#[derive(Debug, Default)]
struct Batch {
    approvals: Vec<(ApprovalId, Caution)>,
    notes: Vec<(Entry, Caution)>,
}

impl Ledger {
    /// Has an approval recorded soon.
    pub(super) fn push(&self, id: ApprovalId) {
        let mut state = self.state();
        let is_first = state.is_empty();
        state.due.entry(id).or_insert(Caution::New);
        drop(state);
        if is_first {
            self.changed.notify_one();
        }
    }

    fn note(&self, entry: Entry) {
        self.state().notes.push((entry, Caution::New));
        self.changed.notify_one();
    }

    fn push_again(&self, id: ApprovalId) {
        self.state().due.insert(id, Caution::Again);
    }

    /// Has an approval recorded after a while.
    fn rest(&self, id: ApprovalId) {
        self.state().resting.insert(id, clock::tick() + REST);
    }

    /// Waits for something to be recorded; `None` when stopping and there is nothing.
    fn next(&self) -> Option<Batch> {
        let mut state = self.state();
        loop {
            let now = clock::tick();
            let rested = state.resting.extract_if(|_, until| *until <= now);
            let rested: Vec<_> = rested.map(|(id, _)| (id, Caution::Again)).collect();
            state.due.extend(rested);
            if !state.is_empty() {
                break;
            }
            if state.stopping {
                return None;
            }
            let next = state.resting.values().min();
            let pause = next.map_or(LONG, |until| until.saturating_duration_since(now));
            state = self
                .changed
                .wait_timeout(state, pause)
                .map_or_else(|e| e.into_inner().0, |w| w.0);
        }
        drop(state);
        self.nap(GATHER);
        let mut state = self.state();
        let ids: Vec<ApprovalId> = state.due.keys().take(BATCH).cloned().collect();
        let approvals = ids.iter().filter_map(|id| state.due.remove_entry(id));
        Some(Batch {
            approvals: approvals.collect(),
            notes: std::mem::take(&mut state.notes),
        })
    }

    /// Waits for a while, or until it is stopping, which it then says.
    fn nap(&self, length: Duration) -> bool {
        let end = clock::tick() + length;
        let mut state = self.state();
        loop {
            let left = end.saturating_duration_since(clock::tick());
            if state.stopping || left.is_zero() {
                return state.stopping;
            }
            state = self
                .changed
                .wait_timeout(state, left)
                .map_or_else(|e| e.into_inner().0, |w| w.0);
        }
    }

    pub(super) fn stop(&self) {
        self.state().stopping = true;
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Effects {
    /// The recording thread's life.
    pub(super) fn keep_record(&self) {
        let mut failures = 0;
        while let Some(batch) = self.ledger.next() {
            let mut failure = None;
            for (entry, caution) in batch.notes {
                if let Err(error) = self.store.record(std::slice::from_ref(&entry), caution) {
                    failure = Some(error);
                    self.ledger.state().notes.push((entry, Caution::Again));
                }
            }
            for (id, undone) in record(&*self.store, &batch.approvals) {
                if undone.concerns_no_other() {
                    log::warn!(approvalId:% = id, reason:% = undone.error();
                        "The audit log is owed an event of an approval that cannot be used");
                    self.ledger.rest(id);
                } else {
                    self.ledger.push_again(id);
                    failure = Some(undone.into_error());
                }
            }
            let Some(error) = failure else {
                failures = 0;
                continue;
            };
            if failures == 0 {
                log::error!(reason:% = error; "Cannot add to the audit log, trying again");
            }
            failures += 1;
            // What is not recorded then stays owed, to whoever comes after us.
            let pause = PAUSE * failures;
            if self.ledger.nap(pause.min(LONGEST_PAUSE)) {
                return;
            }
        }
    }

    /// Records by which rules is decided from now on.
    pub(super) fn note_policy(&self) {
        let mut entry = Entry::new(Event::PolicyLoaded, clock::now(), self.store.station());
        entry.policy = Some(self.terms().policy.to_value());
        self.ledger.note(entry);
    }

    /// Records that other rules were to hold, and why they do not.
    pub fn note_old_policy(&self, why: &str) {
        let entry = Entry::new(Event::PolicyRefused, clock::now(), self.store.station());
        self.ledger.note(entry.refused(why));
    }
}

/// Why something is owed to the audit log still.
#[derive(Debug)]
pub enum Undone {
    /// Nothing can be added to it.
    Log(StoreError),
    /// The approval cannot be read, or what it owed not struck off.
    Approval(StoreError),
}

impl Undone {
    pub fn error(&self) -> &StoreError {
        match self {
            Self::Log(error) | Self::Approval(error) => error,
        }
    }

    fn into_error(self) -> StoreError {
        match self {
            Self::Log(error) | Self::Approval(error) => error,
        }
    }

    /// Whether it is the fault of this approval alone, and others need not wait.
    fn concerns_no_other(&self) -> bool {
        match self {
            Self::Log(_) | Self::Approval(StoreError::Busy) => false,
            Self::Approval(StoreError::Io { error, .. }) => {
                error.kind() == ErrorKind::PermissionDenied
            }
            Self::Approval(StoreError::Damaged { .. } | StoreError::AnsweredElsewhere) => true,
        }
    }
}

/// Adds to the audit log what these approvals owe to it in this process's name, and strikes it off
/// their lists. Returns those that are to be tried again, with [`Caution::Again`].
pub fn record(store: &dyn Store, batch: &[(ApprovalId, Caution)]) -> Vec<(ApprovalId, Undone)> {
    let mut undone = Vec::new();
    let mut due: Vec<(&ApprovalId, Vec<Entry>)> = Vec::new();
    let mut caution = Caution::New;
    for (id, tried) in batch {
        match store.read(id) {
            Ok(Some(approval)) => {
                let ours = approval
                    .unrecorded()
                    .filter(|unrecorded| unrecorded.owner == store.owner());
                let ours: Vec<_> = ours.collect();
                if *tried == Caution::Again || ours.iter().any(|one| one.inherited) {
                    caution = Caution::Again;
                }
                due.push((id, ours.into_iter().map(|one| one.entry).collect()));
            }
            Ok(None) => {}
            Err(error) => undone.push((id.clone(), Undone::Approval(error))),
        }
    }
    due.retain(|(_, entries)| !entries.is_empty());
    let all: Vec<Entry> = due
        .iter()
        .flat_map(|(_, entries)| entries.clone())
        .collect();
    if all.is_empty() {
        return undone;
    }
    let recorded = store.record(&all, caution);
    metrics::count(Counter::Effects {
        effect: "audit",
        result: if recorded.is_ok() { "done" } else { "retried" },
    });
    if let Err(error) = recorded {
        let (kind, what) = match &error {
            StoreError::Io { error, .. } => (error.kind(), reason(error)),
            other => (ErrorKind::Other, other.to_string()),
        };
        undone.extend(due.into_iter().map(|(id, _)| {
            let error = std::io::Error::new(kind, what.clone());
            let what = "add to the audit log".to_owned();
            (id.clone(), Undone::Log(StoreError::Io { what, error }))
        }));
        return undone;
    }
    undone.extend(strike(store, &due));
    undone
}

/// Strikes what is recorded off the lists. The disk makes several files durable together, so several threads do it.
fn strike(store: &dyn Store, recorded: &[(&ApprovalId, Vec<Entry>)]) -> Vec<(ApprovalId, Undone)> {
    let strike_one = |(id, entries): &(&ApprovalId, Vec<Entry>)| {
        let struck = store.update(id, &mut |approval| {
            approval.settle_records(entries);
            Edit::Strike
        });
        struck
            .err()
            .map(|error| ((*id).clone(), Undone::Approval(error)))
    };
    let (first, others) = recorded.split_at(recorded.len().div_ceil(STRIKERS));
    thread::scope(|scope| {
        let strike_all = |share: &[_]| share.iter().filter_map(strike_one).collect::<Vec<_>>();
        let (mut undone, mut threads) = (Vec::new(), Vec::new());
        for share in others.chunks(first.len().max(1)) {
            match thread::Builder::new().spawn_scoped(scope, move || strike_all(share)) {
                Ok(thread) => threads.push(thread),
                Err(_) => undone.extend(strike_all(share)),
            }
        }
        undone.extend(strike_all(first));
        for thread in threads {
            // What a thread that panicked has not struck stays owed, to whoever comes after us.
            undone.extend(thread.join().unwrap_or_default());
        }
        undone
    })
}
