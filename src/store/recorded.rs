//! What the audit log tells by now although the approval's document still owes it: to strike it off takes one more
//! write, and any write of this process does that on the way.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::approval::{Approval, ApprovalId, Fingerprint};

/// By approval, until it is struck off.
#[derive(Default)]
pub(super) struct Recorded(Mutex<HashMap<ApprovalId, Lines>>);

#[derive(Default)]
struct Lines {
    entries: Vec<Fingerprint>,
    /// How many of them, from the first on, are struck off.
    struck: usize,
}

impl Recorded {
    /// Notes what stands in the log.
    pub(super) fn note(&self, id: &ApprovalId, entries: &[Fingerprint]) {
        let mut all = self.all();
        let lines = all.entry(id.clone()).or_default();
        lines.entries.extend_from_slice(entries);
    }

    /// What was noted and not forgotten.
    pub(super) fn of(&self, id: &ApprovalId) -> Vec<Fingerprint> {
        let all = self.all();
        all.get(id)
            .map(|lines| lines.entries.clone())
            .unwrap_or_default()
    }

    /// Takes it off the list of an approval that is about to be written. How much was noted.
    pub(super) fn settle(&self, approval: &mut Approval) -> usize {
        let noted = self.of(approval.id());
        if !noted.is_empty() {
            approval.settle_records(&noted);
        }
        noted.len()
    }

    /// The approval was written without the first so many.
    pub(super) fn struck(&self, id: &ApprovalId, count: usize) {
        if count > 0
            && let Some(lines) = self.all().get_mut(id)
        {
            lines.struck = lines.struck.max(count.min(lines.entries.len()));
        }
    }

    /// Forgets what is struck off. Whether nothing is left to be.
    pub(super) fn forget(&self, id: &ApprovalId) -> bool {
        let mut all = self.all();
        let is_done = all
            .get(id)
            .is_none_or(|lines| lines.struck == lines.entries.len());
        if is_done {
            all.remove(id);
        }
        is_done
    }

    fn all(&self) -> MutexGuard<'_, HashMap<ApprovalId, Lines>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
