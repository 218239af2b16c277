//! What the audit log tells by now although the approval's document still owes it: to strike it off takes one more
//! write, and any write of this process does that on the way.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use crate::approval::{Approval, ApprovalId, Fingerprint};
use crate::live::hold;

/// By approval, until it is struck off.
#[derive(Default)]
pub(super) struct Logged(Mutex<HashMap<ApprovalId, Lines>>);

#[derive(Default)]
struct Lines {
    entries: Vec<Fingerprint>,
    /// How many of them, from the first on, are struck off.
    struck: usize,
}

impl Logged {
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
    pub(super) fn strike_from(&self, approval: &mut Approval) -> usize {
        let noted = self.of(approval.id());
        if !noted.is_empty() {
            approval.strike_records(&noted);
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
        hold(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::approval::{Entry, Event, Station, Unrecorded};
    use crate::clock;

    #[test]
    fn what_is_recorded_is_struck_off_once_and_what_is_not_stays() {
        let id = ApprovalId::parse("apr-1").unwrap();
        let document = json!({ "id": "apr-1", "operation": "scale", "status": "pending" });
        let mut approval = Approval::parse(&id, document.to_string().as_bytes()).unwrap();
        let owe = |approval: &mut Approval, event| {
            let entry = Entry::about(approval, event, clock::now(), &Station::default());
            let fingerprint = entry.fingerprint();
            approval.owe_record(&Unrecorded {
                owner: "us".into(),
                inherited: false,
                entry,
            });
            fingerprint
        };
        let events = |approval: &Approval| -> Vec<_> {
            approval.unrecorded().map(|one| one.entry.event).collect()
        };
        let logged = Logged::default();
        assert!(logged.forget(&id), "nothing is noted");
        let requested = owe(&mut approval, Event::Requested);
        logged.note(&id, &[requested]);
        let decided = owe(&mut approval, Event::Decided);
        let count = logged.strike_from(&mut approval);
        assert_eq!(events(&approval), [Event::Decided]);
        assert!(!logged.forget(&id), "it was not written");
        // More is recorded while that is being written.
        logged.note(&id, &[decided]);
        logged.struck(&id, count);
        assert!(!logged.forget(&id), "the second is to be struck off");
        assert_eq!(logged.of(&id), [requested, decided]);
        let count = logged.strike_from(&mut approval);
        logged.struck(&id, count);
        assert!(logged.forget(&id) && events(&approval).is_empty());
        assert!(logged.of(&id).is_empty());
    }
}
