//! One ballot's way to its end: decided and durable, told in the log, its effects under way.

use super::Effects;
use crate::approval::{Ballot, Choice, Entry, Event, Mandate, Objection, Status, Verdict};
use crate::clock;
use crate::complaint::reason;
use crate::metrics::{self, Counter};
use crate::slack::notice::Notice;
use crate::store::{Durability, Recorded, StoreError, commit, record_refusal};

/// How far a ballot got.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its outcome is durable: Slack may be told that all is well.
    Settled,
    /// It stands, but a power cut might undo it: Slack must not be told that all is well.
    Unsynced,
    /// Its approval may still come; it is kept until then.
    Deferred,
}

impl Effects {
    /// Decides a ballot that has just come in.
    ///
    /// # Errors
    /// Nothing was decided or kept.
    pub fn decide(&self, ballot: &Ballot) -> Result<Outcome, StoreError> {
        let _one = self.clicks.count();
        let needs_word = self.questions(ballot).is_ok_and(|q| !q.is_empty());
        if needs_word {
            let deferred = self.store.defer(ballot)?;
            self.weigh_soon(&deferred);
            return Ok(Outcome::Deferred);
        }
        if let Some(outcome) = self.try_to_decide(ballot)? {
            return Ok(outcome);
        }
        if ballot.may_precede_file {
            if ballot.is_unexplained(&self.terms().policy) {
                self.ask_why(ballot, None);
                return Ok(Outcome::Settled);
            }
            self.store.defer(ballot)?;
            return Ok(Outcome::Deferred);
        }
        self.unknown(ballot)?;
        Ok(Outcome::Settled)
    }

    /// Decides a ballot if its approval is there; `None` when it is not.
    pub(super) fn try_to_decide(&self, ballot: &Ballot) -> Result<Option<Outcome>, StoreError> {
        let terms = self.terms();
        // An old list must not keep from the dialog whom a new one may admit.
        let known = if ballot.is_unexplained(&terms.policy) {
            self.learned.fresh(clock::tick())
        } else {
            self.known()
        };
        let mandate = Mandate::Policy(&terms.policy, &known);
        match commit(&*self.store, ballot, mandate, terms.message_path()) {
            Ok(Some(recorded)) => Ok(Some(self.follow(ballot, &recorded))),
            Ok(None) => Ok(None),
            Err(StoreError::Damaged { id, damage }) => {
                received(ballot, None);
                log::warn!(approvalId:% = id, reason:% = damage; "Click on an unreadable approval");
                self.refuse(ballot, "its approval is unreadable")?;
                self.tell_voter(ballot, &Notice::Damaged { id: id.as_str() });
                Ok(Some(Outcome::Settled))
            }
            Err(StoreError::AnsweredElsewhere) => {
                received(ballot, None);
                self.refuse(ballot, "answered by another server")?;
                self.tell_voter(ballot, &Notice::AnsweredElsewhere);
                Ok(Some(Outcome::Settled))
            }
            Err(error) => Err(error),
        }
    }

    /// What follows from a recorded ballot.
    fn follow(&self, ballot: &Ballot, recorded: &Recorded) -> Outcome {
        let approval = recorded.approval();
        received(ballot, Some(approval.operation()));
        match recorded.verdict() {
            Verdict::Decided(status) => {
                metrics::count(Counter::Decisions {
                    status: status.word(),
                });
                tell_decision(ballot);
            }
            Verdict::Counted { approvals, needed } => {
                log::info!(approvalId:% = ballot.id, approvals, needed;
                    "Approval by @{} counted", ballot.voter.person.username);
                self.tell_voter(
                    ballot,
                    &Notice::Counted {
                        approvals: *approvals,
                        needed: *needed,
                    },
                );
            }
            Verdict::Lapsed => {
                metrics::count(Counter::Decisions {
                    status: Status::Expired.word(),
                });
                log::info!(approvalId:% = ballot.id; "Approval expired before the click");
                self.tell_voter(
                    ballot,
                    &Notice::Expired {
                        at: approval.expires_at(),
                    },
                );
            }
            Verdict::Refused(Objection::NoReason) => {
                log::info!(approvalId:% = ballot.id;
                    "Asking @{} why", ballot.voter.person.username);
                self.ask_why(ballot, Some(approval.operation()));
            }
            Verdict::Refused(objection) => {
                log::info!(approvalId:% = ballot.id, reason = objection.word();
                    "Click of @{} changed nothing", ballot.voter.person.username);
                match objection {
                    Objection::Final {
                        status: Status::Expired,
                        ..
                    } => self.tell_voter(
                        ballot,
                        &Notice::Expired {
                            at: approval.expires_at(),
                        },
                    ),
                    objection => self.tell_voter(ballot, &Notice::Refused(objection)),
                }
            }
        }
        self.push_owed(approval);
        match recorded.durability() {
            Durability::Durable => Outcome::Settled,
            Durability::Unsynced(error) => {
                log::error!(approvalId:% = ballot.id, reason:% = reason(error);
                    "Decision written, but the disk would not confirm it");
                Outcome::Unsynced
            }
        }
    }

    /// Tells whoever has voted.
    pub fn tell_voter(&self, ballot: &Ballot, notice: &Notice) {
        let clicker = &ballot.voter.person;
        self.tell(clicker, &ballot.route, Some(&ballot.id), notice);
    }

    /// Tells the clicker that there is no such approval.
    ///
    /// # Errors
    /// The audit log does not tell of it.
    pub(super) fn unknown(&self, ballot: &Ballot) -> Result<(), StoreError> {
        received(ballot, None);
        log::warn!(approvalId:% = ballot.id; "No such approval");
        self.tell_voter(
            ballot,
            &Notice::Unknown {
                id: ballot.id.as_str(),
            },
        );
        self.refuse(ballot, "no such approval")
    }

    /// Records a refusal that is about no approval.
    fn refuse(&self, ballot: &Ballot, why: &str) -> Result<(), StoreError> {
        let entry = Entry::new(Event::Refused, clock::now(), self.store.station());
        record_refusal(&*self.store, ballot, entry, why)
    }
}

/// The documented lines of a click.
fn received(ballot: &Ballot, operation: Option<&str>) {
    let (username, action, id) = (
        &ballot.voter.person.username,
        ballot.choice.word(),
        &ballot.id,
    );
    match operation {
        Some(operation) => {
            log::info!(action, approvalId:% = id, operation; "Received interaction from @{username}");
        }
        None => log::info!(action, approvalId:% = id; "Received interaction from @{username}"),
    }
}

/// The documented lines of a decision.
fn tell_decision(ballot: &Ballot) {
    let verb = match ballot.choice {
        Choice::Approve => "granted",
        Choice::Deny => "denied",
    };
    let (username, id) = (&ballot.voter.person.username, &ballot.id);
    match &ballot.reason {
        Some(reason) => {
            log::info!(approvalId:% = id, reason:%, note = "Notifying agent..."; "Approval {verb} by @{username}");
        }
        None => {
            log::info!(approvalId:% = id, note = "Notifying agent..."; "Approval {verb} by @{username}");
        }
    }
}
