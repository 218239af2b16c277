//! What nobody's click sets off: expiry, the archive, the promises of dead processes, and clicks
//! that came before their approval.

use std::time::Duration;

use super::queue::Job;
use super::{Effects, HORIZON, Task};
use crate::approval::Status;
use crate::clock;
use crate::slack::message::Notice;
use crate::store::{Chore, Deferred, StoreError, expire};

/// How often we look.
const PERIOD: Duration = Duration::from_millis(500);
/// How often we look for the approval of a click that waits.
const SHORT_PERIOD: Duration = Duration::from_millis(100);
/// How long an approval may come after a click on it: the RunbookAI agent posts before it writes.
const GRACE: Duration = Duration::from_secs(3);
/// How long a click that cannot be decided is kept.
const PATIENCE: Duration = Duration::from_secs(5);

impl Effects {
    /// The sweeping thread's life.
    pub(super) fn sweep(&self) {
        let mut healthy = true;
        loop {
            match self.store.chores(clock::now()) {
                Ok(chores) => {
                    healthy = true;
                    for chore in chores {
                        self.do_chore(chore);
                    }
                }
                Err(error) if healthy => {
                    log::error!(reason:% = error; "Cannot see the stored approvals");
                    healthy = false;
                }
                Err(_) => {}
            }
            let waiting = self.store.deferred().unwrap_or_default();
            let pause = if waiting.is_empty() {
                PERIOD
            } else {
                SHORT_PERIOD
            };
            for deferred in &waiting {
                self.reconsider(deferred);
            }
            if !self.queue.nap(pause) {
                return;
            }
        }
    }

    fn do_chore(&self, chore: Chore) {
        match chore {
            Chore::Expire(id) => match expire(&*self.store, &id, self.terms().message_path()) {
                Ok(Some(approval)) => {
                    log::info!(approvalId:% = id, operation = approval.operation(); "Approval expired");
                    self.queue
                        .push(Job::new(Task::UpdateMessage(id), HORIZON * 2));
                }
                Ok(None) => {}
                Err(error) => {
                    log::warn!(approvalId:% = id, reason:% = error; "Cannot expire an approval");
                }
            },
            Chore::Archive(id) => match self.store.archive(&id) {
                Ok(()) => log::debug!(approvalId:% = id; "Approval archived"),
                Err(error) => {
                    log::warn!(approvalId:% = id, reason:% = error; "Cannot archive an approval");
                }
            },
            Chore::TakeOver(id) => match self.store.take_over(&id) {
                Ok(Some(_)) => {
                    log::info!(approvalId:% = id; "Finishing what another server left undone");
                    self.queue
                        .push(Job::new(Task::UpdateMessage(id), HORIZON * 2));
                }
                Ok(None) => {}
                Err(error) => {
                    log::warn!(approvalId:% = id, reason:% = error; "Cannot take over an approval");
                }
            },
            Chore::AgentNotified {
                id,
                status: Status::Approved,
            } => {
                log::info!(approvalId:% = id; "Agent notified, executing operation");
            }
            Chore::AgentNotified { id, .. } => log::info!(approvalId:% = id; "Agent notified"),
        }
    }

    /// Tries again to decide a click whose approval was not there.
    fn reconsider(&self, deferred: &Deferred) {
        let ballot = &deferred.ballot;
        let age = clock::now().since(ballot.at);
        match self.try_to_decide(ballot) {
            Ok(Some(_)) => {}
            Ok(None) if age < GRACE => return,
            Ok(None) => self.unknown(ballot),
            Err(StoreError::Busy | StoreError::Io { .. }) if age < PATIENCE => return,
            Err(error) => {
                log::error!(approvalId:% = ballot.id, reason:% = error; "A click could not be decided");
                self.tell(ballot.route.response_url.as_deref(), &Notice::Failed);
            }
        }
        self.store.settle_deferred(deferred);
    }
}
