//! The audit log: what approvals owe to it is added in batches, one sync for many, by one thread. To strike it off their
//! lists can wait: it gives way to clicks, and to other writes of the same approval, which do it on the way.

use std::collections::{HashMap, VecDeque};
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use std::{iter, slice, thread};

use super::Effects;
use crate::approval::{ApprovalId, Entry, Event, Fingerprint};
use crate::clock;
use crate::complaint::reason;
use crate::live::{hold, wait};
use crate::metrics::{self, Counter};
use crate::store::{Caution, Store, StoreError};

/// How many approvals are recorded at once.
const BATCH: usize = 256;
/// How long what is to be recorded waits for more, for one sync is enough for all. One click after the other, it
/// also leaves the disk to the next one.
const GATHER: Duration = Duration::from_millis(20);
/// Threads that strike off the lists.
const STRIKERS: usize = 4;
/// How many one of them is worth.
const SHARE: usize = 4;
/// How many approvals are struck off at once, before it is looked again whether a click comes.
const TURN: usize = 16;
/// How many may wait for that while clicks come. What a crash leaves of them is looked for in the log by whoever comes
/// after us, which takes a millisecond each beside the clicks.
const MOST_UNSTRUCK: usize = 16384;
/// How long an approval that owes something else is left to the write that settles that.
const SETTLING: Duration = Duration::from_secs(2);
/// The first pause after a failure; each further one adds as much.
const PAUSE: Duration = Duration::from_millis(500);
/// How long an approval rests that cannot be read or written, so that it holds up no other.
const REST: Duration = Duration::from_secs(10);
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

    /// Waits for something to be recorded, if it must not wait for ever; `None` when stopping and there is nothing.
    fn next(&self, limit: Option<Duration>) -> Option<Batch> {
        let end = limit.map(|limit| clock::tick() + limit);
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
            if end.is_some_and(|end| end <= now) {
                return Some(Batch::default());
            }
            let next = state.resting.values().copied().chain(end).min();
            let pause = next.map(|until| until.saturating_duration_since(now));
            state = wait(&self.changed, state, pause);
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
            state = wait(&self.changed, state, Some(left));
        }
    }

    fn is_due(&self) -> bool {
        !self.state().is_empty()
    }

    pub(super) fn stop(&self) {
        self.state().stopping = true;
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        hold(&self.state)
    }
}

/// What is recorded and yet to be struck off.
#[derive(Default)]
struct Unstruck {
    due: VecDeque<ApprovalId>,
    /// Those that something else may strike off until then.
    settling: VecDeque<(Instant, ApprovalId)>,
}

impl Unstruck {
    fn add(&mut self, strike: Strike) {
        if strike.is_settling {
            let until = clock::tick() + SETTLING;
            self.settling.push_back((until, strike.id));
        } else {
            self.due.push_back(strike.id);
        }
    }

    /// How long the next one may wait, if there is any.
    fn patience(&self) -> Option<Duration> {
        let settled = self.settling.front();
        let settled = settled.map(|(until, _)| until.saturating_duration_since(clock::tick()));
        if self.due.is_empty() {
            settled
        } else {
            Some(GATHER)
        }
    }

    /// Takes those that are to be struck off next.
    fn turn(&mut self) -> Vec<ApprovalId> {
        let now = clock::tick();
        let over = self.settling.partition_point(|(until, _)| *until <= now);
        self.due
            .extend(self.settling.drain(..over).map(|(_, id)| id));
        let count = self.due.len().min(TURN);
        self.due.drain(..count).collect()
    }

    fn len(&self) -> usize {
        self.due.len() + self.settling.len()
    }

    /// Waits for nothing any more.
    fn hurry(&mut self) {
        let settling = self.settling.drain(..);
        self.due.extend(settling.map(|(_, id)| id));
    }
}

/// Counts the clicks that are being decided.
#[derive(Debug, Default)]
pub(super) struct Clicks(AtomicUsize);

impl Clicks {
    /// One more, until what this returns is dropped.
    pub(super) fn count(&self) -> impl Drop {
        struct Counted<'a>(&'a AtomicUsize);
        impl Drop for Counted<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.0.fetch_add(1, Ordering::Relaxed);
        Counted(&self.0)
    }

    fn any(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

impl Effects {
    /// The recording thread's life.
    pub(super) fn keep_record(&self) {
        let (mut failures, mut unstruck) = (0, Unstruck::default());
        while let Some(batch) = self.ledger.next(unstruck.patience()) {
            let ids: Vec<_> = batch.approvals.iter().map(|(id, _)| id.clone()).collect();
            let recorded = catch_unwind(AssertUnwindSafe(|| self.work_off(batch, &mut unstruck)));
            let Ok(failure) = recorded else {
                log::error!("Recording panicked; this is a bug");
                for id in ids {
                    self.ledger.rest(id);
                }
                continue;
            };
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
        unstruck.hurry();
        loop {
            let turn = unstruck.turn();
            // What is not struck off by the end is found in the log by whoever comes after us.
            if turn.is_empty() || !strike(&*self.store, &turn).is_empty() {
                return;
            }
        }
    }

    /// Records a batch, and strikes off the lists what can be now. Why that is not all done.
    fn work_off(&self, batch: Batch, unstruck: &mut Unstruck) -> Option<StoreError> {
        // One click after the other leaves moments between, and the next one would find the disk busy.
        let is_quiet = batch.approvals.is_empty();
        let mut failure = self.record_notes(batch.notes).err();
        let (recorded, undone) = add_to_log(&*self.store, &batch.approvals);
        for one in recorded {
            unstruck.add(one);
        }
        failure = self.try_again(undone).or(failure);
        while unstruck.len() > MOST_UNSTRUCK
            || is_quiet && !self.clicks.any() && !self.ledger.is_due()
        {
            let turn = unstruck.turn();
            if turn.is_empty() {
                break;
            }
            failure = self.try_again(strike(&*self.store, &turn)).or(failure);
        }
        failure
    }

    /// Adds them in their order; those that could not be added go before all that comes later.
    fn record_notes(&self, notes: Vec<(Entry, Caution)>) -> Result<(), StoreError> {
        let mut notes = notes.into_iter();
        while let Some((entry, caution)) = notes.next() {
            if let Err(error) = self.store.record(slice::from_ref(&entry), caution) {
                let left = iter::once((entry, Caution::Again)).chain(notes);
                self.ledger.state().notes.splice(..0, left);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Has done again what is undone. Why others have to wait for that, if they have to.
    fn try_again(&self, undone: Vec<(ApprovalId, Undone)>) -> Option<StoreError> {
        let mut failure = None;
        for (id, undone) in undone {
            if undone.concerns_no_other() {
                log::warn!(approvalId:% = id, reason:% = undone.error();
                    "The audit log is owed an event of an approval that cannot be used");
                self.ledger.rest(id);
            } else {
                self.ledger.push_again(id);
                failure = Some(undone.into_error());
            }
        }
        failure
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

/// An approval whose lines stand in the log and are to be struck off its list.
#[derive(Debug)]
struct Strike {
    id: ApprovalId,
    /// Whether something else that it owes will have it written anyway.
    is_settling: bool,
}

/// Adds to the audit log what these approvals owe to it in this process's name, and strikes it off
/// their lists. Returns those that are to be tried again, with [`Caution::Again`].
pub fn record(store: &dyn Store, batch: &[(ApprovalId, Caution)]) -> Vec<(ApprovalId, Undone)> {
    let (recorded, mut undone) = add_to_log(store, batch);
    let recorded: Vec<_> = recorded.into_iter().map(|one| one.id).collect();
    undone.extend(strike(store, &recorded));
    undone
}

fn add_to_log(
    store: &dyn Store,
    batch: &[(ApprovalId, Caution)],
) -> (Vec<Strike>, Vec<(ApprovalId, Undone)>) {
    let (mut recorded, mut undone) = (Vec::new(), Vec::new());
    let mut entries: Vec<Entry> = Vec::new();
    let mut due: Vec<(&ApprovalId, Vec<Fingerprint>)> = Vec::new();
    let mut caution = Caution::New;
    for (id, tried) in batch {
        match store.lines_owed(id) {
            Ok(Some(owed)) => {
                let known = store.logged(id);
                let mut ours = Vec::new();
                for one in owed.lines {
                    let fingerprint = one.entry.fingerprint();
                    if !known.contains(&fingerprint) {
                        if *tried == Caution::Again || one.inherited {
                            caution = Caution::Again;
                        }
                        entries.push(one.entry);
                        ours.push(fingerprint);
                    }
                }
                if !ours.is_empty() {
                    due.push((id, ours));
                }
                recorded.push(Strike {
                    id: id.clone(),
                    is_settling: owed.owes_effects,
                });
            }
            Ok(None) => {}
            Err(error) => undone.push((id.clone(), Undone::Approval(error))),
        }
    }
    if entries.is_empty() {
        return (recorded, undone);
    }
    let added = store.record(&entries, caution);
    metrics::count(Counter::Effects {
        effect: "audit",
        result: if added.is_ok() { "done" } else { "retried" },
    });
    if let Err(error) = added {
        let (kind, what) = match &error {
            StoreError::Io { error, .. } => (error.kind(), reason(error)),
            other => (ErrorKind::Other, other.to_string()),
        };
        recorded.retain(|one| due.iter().all(|(id, _)| **id != one.id));
        undone.extend(due.into_iter().map(|(id, _)| {
            let error = std::io::Error::new(kind, what.clone());
            let what = "add to the audit log".to_owned();
            (id.clone(), Undone::Log(StoreError::Io { what, error }))
        }));
        return (recorded, undone);
    }
    for (id, fingerprints) in due {
        store.note_logged(id, &fingerprints);
    }
    (recorded, undone)
}

/// Strikes what is recorded off the lists. The disk makes several files durable together, so several threads do it.
fn strike(store: &dyn Store, recorded: &[ApprovalId]) -> Vec<(ApprovalId, Undone)> {
    let strike_one = |id: &ApprovalId| {
        let struck = store.strike_logged(id);
        struck
            .err()
            .map(|error| (id.clone(), Undone::Approval(error)))
    };
    let share = recorded.len().div_ceil(STRIKERS).max(SHARE);
    let (first, others) = recorded.split_at(recorded.len().min(share));
    thread::scope(|scope| {
        let strike_all = |share: &[_]| share.iter().filter_map(strike_one).collect::<Vec<_>>();
        let (mut undone, mut threads) = (Vec::new(), Vec::new());
        for share in others.chunks(share) {
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
