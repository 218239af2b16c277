//! What nobody's click sets off: expiry, the archive, the promises of dead processes, and clicks
//! that came before their approval.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::queue::Job;
use super::{Effects, HORIZON, Task};
use crate::approval::{ApprovalId, Status};
use crate::clock;
use crate::metrics::{self, Counter};
use crate::slack::message::Notice;
use crate::store::{Chore, Deferred, StoreError, expire};

/// How often we look.
const PERIOD: Duration = Duration::from_millis(500);
/// How often we look for the approval of a click that waits.
const SHORT_PERIOD: Duration = Duration::from_millis(100);
/// How long something rests that could not be done.
const PAUSE: Duration = Duration::from_secs(30);
/// How long an approval may come after a click on it: the RunbookAI agent posts before it writes.
const GRACE: Duration = Duration::from_secs(3);
/// How long a click that cannot be decided is kept.
const PATIENCE: Duration = Duration::from_secs(5);

impl Effects {
    /// The sweeping thread's life.
    pub(super) fn sweep(&self) {
        let mut sweeper = Sweeper::default();
        while self.queue.nap(sweeper.pause) {
            let swept = catch_unwind(AssertUnwindSafe(|| self.sweep_once(&mut sweeper)));
            if swept.is_err() {
                log::error!("Sweeping panicked; this is a bug");
            }
        }
    }

    fn sweep_once(&self, sweeper: &mut Sweeper) {
        // People wait for these.
        let waiting = self.store.deferred().unwrap_or_default();
        for deferred in &waiting {
            self.reconsider(deferred);
        }
        sweeper.pause = if waiting.is_empty() {
            PERIOD
        } else {
            SHORT_PERIOD
        };
        let chores = self.store.chores(clock::now());
        match &chores {
            Err(error) if !sweeper.blind => {
                log::error!(reason:% = error; "Cannot see the stored approvals");
            }
            Ok(_) | Err(_) => {}
        }
        sweeper.blind = chores.is_err();
        let started = clock::tick();
        for chore in chores.unwrap_or_default() {
            match chore {
                Chore::AgentNotified {
                    id,
                    status: Status::Approved,
                } => {
                    log::info!(approvalId:% = id; "Agent notified, executing operation");
                }
                Chore::AgentNotified { id, .. } => log::info!(approvalId:% = id; "Agent notified"),
                // What is left is due again the next time.
                _ if started.elapsed() > PERIOD => {}
                Chore::Expire(id) => sweeper.attempt(id, "expire", |id| self.expire(id)),
                Chore::Archive(id) => sweeper.attempt(id, "archive", |id| self.store.archive(id)),
                Chore::TakeOver(id) => sweeper.attempt(id, "take over", |id| self.take_over(id)),
            }
        }
    }

    fn expire(&self, id: &ApprovalId) -> Result<(), StoreError> {
        if let Some(approval) = expire(&*self.store, id, self.terms().message_path())? {
            metrics::count(Counter::Decisions {
                status: approval.status().word(),
            });
            log::info!(approvalId:% = id, operation = approval.operation(); "Approval expired");
            self.queue
                .push(Job::new(Task::UpdateMessage(id.clone()), HORIZON * 2));
        }
        Ok(())
    }

    fn take_over(&self, id: &ApprovalId) -> Result<(), StoreError> {
        if self.store.take_over(id)?.is_some() {
            log::info!(approvalId:% = id; "Finishing what another server left undone");
            self.queue
                .push(Job::new(Task::UpdateMessage(id.clone()), HORIZON * 2));
        }
        Ok(())
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

/// What the sweeping thread remembers from one round to the next.
struct Sweeper {
    pause: Duration,
    /// Whether the store could not be seen the last time.
    blind: bool,
    /// What failed, and when it is worth another attempt.
    failed: HashMap<ApprovalId, Instant>,
}

impl Default for Sweeper {
    fn default() -> Self {
        Self {
            pause: Duration::ZERO,
            blind: false,
            failed: HashMap::new(),
        }
    }
}

impl Sweeper {
    fn attempt(
        &mut self,
        id: ApprovalId,
        what: &str,
        act: impl Fn(&ApprovalId) -> Result<(), StoreError>,
    ) {
        if self
            .failed
            .get(&id)
            .is_some_and(|again| clock::tick() < *again)
        {
            return;
        }
        match act(&id) {
            Ok(()) => drop(self.failed.remove(&id)),
            Err(error) => {
                log::warn!(approvalId:% = id, reason:% = error; "Cannot {what} an approval");
                self.failed.insert(id, clock::tick() + PAUSE);
            }
        }
    }
}
