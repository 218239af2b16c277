//! What this process has just written that approvals owe to the audit log: whoever records it need not read it again.

use std::collections::HashMap;
use std::sync::Mutex;

use super::LinesOwed;
use crate::approval::{Approval, ApprovalId};
use crate::live::hold;

/// Of how many approvals it is kept.
const MOST: usize = 512;

/// By approval, as of the last write; what is written is told under the approval's lock, so it cannot be older than that.
#[derive(Default)]
pub(super) struct Fresh(Mutex<HashMap<ApprovalId, LinesOwed>>);

impl Fresh {
    /// An approval was written.
    pub(super) fn put(&self, owner: &str, approval: &Approval) {
        let owed = LinesOwed::of(owner, approval);
        let mut all = hold(&self.0);
        if owed.lines.is_empty() || all.len() >= MOST {
            all.remove(approval.id());
        } else {
            all.insert(approval.id().clone(), owed);
        }
    }

    /// What it owes, once; `None` when that has to be read.
    pub(super) fn take(&self, id: &ApprovalId) -> Option<LinesOwed> {
        hold(&self.0).remove(id)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::approval::{Entry, Event, Station, Unrecorded};
    use crate::clock;

    fn approval(id: &str, owner: &str) -> Approval {
        let id = ApprovalId::parse(id).unwrap();
        let document = json!({ "id": id, "operation": "scale", "status": "pending" });
        let mut approval = Approval::parse(&id, document.to_string().as_bytes()).unwrap();
        approval.owe_record(&Unrecorded {
            owner: owner.into(),
            inherited: false,
            entry: Entry::about(&approval, Event::Decided, clock::now(), &Station::default()),
        });
        approval
    }

    #[test]
    fn what_was_written_last_is_told_once_and_of_too_many_it_is_to_be_read() {
        let fresh = Fresh::default();
        let ours = approval("apr-1", "us");
        fresh.put("us", &ours);
        assert_eq!(fresh.take(ours.id()).unwrap().lines.len(), 1);
        assert!(fresh.take(ours.id()).is_none(), "it is told once");
        fresh.put("us", &ours);
        fresh.put("us", &approval("apr-1", "them"));
        assert!(
            fresh.take(ours.id()).is_none(),
            "what is owed by others only"
        );
        fresh.put("us", &ours);
        for n in 0..MOST {
            fresh.put("us", &approval(&format!("apr-more-{n}"), "us"));
        }
        let last = approval(&format!("apr-more-{}", MOST - 1), "us");
        assert!(fresh.take(last.id()).is_none());
        fresh.put("us", &ours);
        assert!(fresh.take(ours.id()).is_none(), "not what was before");
    }
}
