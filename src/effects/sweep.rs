//! What nobody's click sets off: requests that were only dropped, expiry, the archive, the promises
//! of dead processes, and clicks that came before their approval.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::record::record;
use super::{Effects, Terms};
use crate::approval::{ApprovalId, Ballot, Status};
use crate::clock;
use crate::live::hold;
use crate::metrics::{self, Counter};
use crate::slack::notice::Notice;
use crate::store::{Caution, Chore, Deferred, MessagePath, StoreError, adopt, expire, remind};

/// How often we look.
const PERIOD: Duration = Duration::from_millis(500);
/// How often we look for the approval of a click that waits.
const SHORT_PERIOD: Duration = Duration::from_millis(100);
/// How long one kind of chore goes on while another waits for its turn. Rounds of all of them stay
/// well below the two seconds in which a request is to be shown.
const TURN: Duration = Duration::from_millis(400);
/// How long something rests that could not be done.
const PAUSE: Duration = Duration::from_secs(30);
/// How long an approval may come after a click on it: the RunbookAI agent posts before it writes.
const GRACE: Duration = Duration::from_secs(3);
/// How old a click may be that is decided at all, were it because its server died.
const TOO_OLD: Duration = Duration::from_secs(10);
/// How long a click that cannot be decided is kept.
pub(super) const KEPT: Duration = Duration::from_secs(5);

impl Effects {
    /// The sweeping thread's life.
    pub(super) fn sweep(&self) {
        let mut sweeper = Sweeper::new(self.terms());
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
            self.reconsider(deferred, Word::NotAsked);
        }
        let mut is_behind = !waiting.is_empty();
        let remind_before = self.terms().remind_before();
        let chores = self.store.chores(clock::now(), remind_before);
        match &chores {
            Err(error) if !sweeper.blind => {
                log::error!(reason:% = error; "Cannot see the stored approvals");
            }
            Ok(_) | Err(_) => {}
        }
        sweeper.blind = chores.is_err();
        let now = clock::tick();
        sweeper.failed.retain(|_, again| now < *again);
        let (mut orphans, mut routine) = (Vec::new(), Vec::new());
        for chore in chores.unwrap_or_default() {
            match chore {
                Chore::AgentNotified {
                    id,
                    status: Status::Approved,
                } => {
                    log::info!(approvalId:% = id; "Agent notified, executing operation");
                }
                Chore::PendingChanged => self.refresh_homes(),
                Chore::AgentNotified { id, .. } => log::info!(approvalId:% = id; "Agent notified"),
                // This is told once, however long the others take.
                Chore::Adopt(id) => drop(sweeper.to_adopt.insert(id)),
                Chore::TakeOver(id) => orphans.push(id),
                Chore::Expire(_) | Chore::Remind(_) | Chore::Archive(_) => routine.push(chore),
            }
        }
        // Thousands that expire together must not keep a new request, or what a dead server owed.
        let mut turn = Turn::begin();
        for id in orphans.into_iter().take_while(|_| turn.goes_on()) {
            sweeper.attempt(id, "take over", |id| self.take_over(id));
        }
        is_behind |= turn.is_over();
        is_behind |= self.adopt_all(sweeper);
        let mut turn = Turn::begin();
        for chore in routine.into_iter().take_while(|_| turn.goes_on()) {
            self.do_routine(sweeper, chore, remind_before);
        }
        is_behind |= turn.is_over();
        sweeper.pause = if is_behind { SHORT_PERIOD } else { PERIOD };
    }

    /// Does what comes of time alone.
    fn do_routine(&self, sweeper: &mut Sweeper, chore: Chore, remind_before: Duration) {
        match chore {
            Chore::Expire(id) => sweeper.attempt(id, "expire", |id| self.expire(id)),
            Chore::Remind(id) => {
                sweeper.attempt(id, "remind of", |id| self.remind(id, remind_before));
            }
            Chore::Archive(id) => {
                // Nobody is to see it any more.
                sweeper.unseen.remove(&id);
                sweeper.attempt(id, "archive", |id| self.store.archive(id));
            }
            Chore::Adopt(_)
            | Chore::TakeOver(_)
            | Chore::AgentNotified { .. }
            | Chore::PendingChanged => {}
        }
    }

    fn expire(&self, id: &ApprovalId) -> Result<(), StoreError> {
        if let Some(approval) = expire(&*self.store, id, self.terms().message_path())? {
            metrics::count(Counter::Decisions {
                status: approval.status().word(),
            });
            log::info!(approvalId:% = id, operation = approval.operation(); "Approval expired");
            self.push_owed(&approval);
        }
        Ok(())
    }

    fn remind(&self, id: &ApprovalId, before: Duration) -> Result<(), StoreError> {
        if let Some(approval) = remind(&*self.store, id, before)? {
            self.push_owed(&approval);
        }
        Ok(())
    }

    fn take_over(&self, id: &ApprovalId) -> Result<(), StoreError> {
        if let Some(approval) = self.store.take_over(id)? {
            log::info!(approvalId:% = id; "Finishing what another process left undone");
            self.push_owed(&approval);
        }
        Ok(())
    }

    /// Shows those requests in Slack that were only dropped into the store. Whether there was no time for
    /// all of them.
    fn adopt_all(&self, sweeper: &mut Sweeper) -> bool {
        let terms = self.terms();
        if !Arc::ptr_eq(&terms, &sweeper.terms) {
            sweeper.terms = Arc::clone(&terms);
            sweeper.to_adopt.extend(sweeper.unseen.drain());
        }
        let mut unseen = 0;
        let mut turn = Turn::begin();
        for id in std::mem::take(&mut sweeper.to_adopt) {
            if !turn.goes_on() || sweeper.is_resting(&id) {
                sweeper.to_adopt.insert(id);
                continue;
            }
            match self.adopt(&id, &terms) {
                // What is damaged is looked at again when it has changed.
                Ok(Adoption::Done) | Err(StoreError::Damaged { .. }) => {}
                Ok(Adoption::Nowhere) => {
                    log::debug!(approvalId:% = id; "Not posted");
                    sweeper.unseen.insert(id);
                    unseen += 1;
                }
                Err(error) => {
                    sweeper.rest(id.clone(), "adopt", &error);
                    sweeper.to_adopt.insert(id);
                }
            }
        }
        if unseen > 0 {
            log::warn!(requests = unseen;
                "Nobody sees a request: posting it needs a bot token and a channel");
        }
        turn.is_over()
    }

    fn adopt(&self, id: &ApprovalId, terms: &Terms) -> Result<Adoption, StoreError> {
        let Some(approval) = self.store.read(id)? else {
            return Ok(Adoption::Done);
        };
        if terms.message_path() != MessagePath::BotToken || terms.channel_of(&approval).is_none() {
            return Ok(Adoption::Nowhere);
        }
        if let Some(approval) = adopt(&*self.store, id, terms.timeout)? {
            // First, so that whoever sees it in Slack finds a file that stays as it is.
            let unrecorded = record(&*self.store, &[(id.clone(), Caution::New)]);
            let recorded = unrecorded.is_empty().then(|| self.store.read(id));
            let recorded = recorded.transpose()?.flatten();
            self.push_owed(recorded.as_ref().unwrap_or(&approval));
        }
        Ok(Adoption::Done)
    }

    /// Tries again to decide a click that waits: for its approval, or for Slack's word.
    pub(super) fn reconsider(&self, deferred: &Deferred, word: Word) {
        let Some(_in_hand) = Mark::set(&self.in_hand, deferred.name()) else {
            return;
        };
        // Whoever had it in hand before may have dealt with it.
        if self.store.is_deferred(deferred) && self.is_settled(deferred, word) {
            self.store.settle_deferred(deferred);
        }
    }

    /// Whether a click that waits stands in its approval already: whoever had it in hand died before
    /// they could say so, and there is nothing to tell anybody.
    fn is_recorded(&self, ballot: &Ballot) -> bool {
        let Ok(Some(approval)) = self.store.read(&ballot.id) else {
            return false;
        };
        let meaning = approval.digest();
        approval.votes().iter().any(|vote| {
            vote.by.id == ballot.voter.person.id
                && vote.decision == ballot.choice
                && vote.at.unix() >= ballot.at.unix()
                && vote.is_about(meaning)
                && !vote.distrusted
        })
    }

    /// Whether a click that waits has come to its end.
    fn is_settled(&self, deferred: &Deferred, word: Word) -> bool {
        let ballot = &deferred.ballot;
        if self.is_recorded(ballot) {
            return true;
        }
        let age = deferred.age();
        // A click is for now: whoever was away for long must not decide by it, under other rules.
        if age > TOO_OLD {
            log::warn!(approvalId:% = ballot.id; "A click was not decided in time");
            self.tell_voter(ballot, &Notice::Failed);
            return true;
        }
        let needs_word = || self.questions(ballot).is_ok_and(|q| !q.is_empty());
        if word == Word::NotAsked && age < KEPT && needs_word() {
            self.weigh_soon(deferred);
            return false;
        }
        match self.try_to_decide(ballot) {
            Ok(Some(_)) => {}
            Ok(None) if age < GRACE => return false,
            Ok(None) => match self.unknown(ballot) {
                Ok(()) => {}
                Err(_) if age < KEPT => return false,
                Err(error) => {
                    log::error!(approvalId:% = ballot.id, reason:% = error;
                        "The audit log does not tell of a click that was refused");
                }
            },
            Err(StoreError::Busy | StoreError::Io { .. }) if age < KEPT => return false,
            Err(error) => {
                log::error!(approvalId:% = ballot.id, reason:% = error; "A click could not be decided");
                self.tell_voter(ballot, &Notice::Failed);
            }
        }
        true
    }
}

/// A mark on a click that waits. It goes when this does, whatever ends the thread's work on it.
pub(super) struct Mark<'a> {
    pub(super) names: &'a Mutex<HashSet<String>>,
    pub(super) name: &'a str,
}

impl<'a> Mark<'a> {
    /// `None` when it is marked already.
    fn set(names: &'a Mutex<HashSet<String>>, name: &'a str) -> Option<Self> {
        let mut marked = hold(names);
        let fresh = marked.insert(name.to_owned());
        // One that is made here goes here, with the mark that it does not own.
        fresh.then(|| Self { names, name })
    }
}

impl Drop for Mark<'_> {
    fn drop(&mut self) {
        let mut marked = hold(self.names);
        marked.remove(self.name);
    }
}

/// One kind of chore's turn: it ends in time, and what is left of the kind is due again.
struct Turn {
    end: Instant,
    over: bool,
}

impl Turn {
    fn begin() -> Self {
        Self {
            end: clock::tick() + TURN,
            over: false,
        }
    }

    /// Whether there is time for another.
    fn goes_on(&mut self) -> bool {
        self.over |= clock::tick() > self.end;
        !self.over
    }

    /// Whether there was none for something.
    fn is_over(&self) -> bool {
        self.over
    }
}

/// Whether Slack has been asked what a click needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Asked,
    NotAsked,
}

/// What became of a request that is to be adopted.
enum Adoption {
    /// It is ours, another's, or gone.
    Done,
    /// It cannot be posted by these terms.
    Nowhere,
}

/// What the sweeping thread remembers from one round to the next.
struct Sweeper {
    pause: Duration,
    /// Whether the store could not be seen the last time.
    blind: bool,
    /// What failed, and when it is worth another attempt.
    failed: HashMap<ApprovalId, Instant>,
    to_adopt: HashSet<ApprovalId>,
    /// Requests that cannot be posted by these terms.
    unseen: HashSet<ApprovalId>,
    terms: Arc<Terms>,
}

impl Sweeper {
    fn new(terms: Arc<Terms>) -> Self {
        Self {
            pause: Duration::ZERO,
            blind: false,
            failed: HashMap::new(),
            to_adopt: HashSet::new(),
            unseen: HashSet::new(),
            terms,
        }
    }

    fn attempt(
        &mut self,
        id: ApprovalId,
        what: &str,
        act: impl Fn(&ApprovalId) -> Result<(), StoreError>,
    ) {
        if self.is_resting(&id) {
            return;
        }
        match act(&id) {
            Ok(()) => drop(self.failed.remove(&id)),
            Err(error) => self.rest(id, what, &error),
        }
    }

    fn is_resting(&self, id: &ApprovalId) -> bool {
        let again = self.failed.get(id);
        again.is_some_and(|again| clock::tick() < *again)
    }

    /// Lets something rest that could not be done.
    fn rest(&mut self, id: ApprovalId, what: &str, error: &StoreError) {
        log::warn!(approvalId:% = id, reason:% = error; "Cannot {what} an approval");
        self.failed.insert(id, clock::tick() + PAUSE);
    }
}
