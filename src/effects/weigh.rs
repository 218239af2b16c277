//! Votes that need Slack's word first, and the dialog that asks for a reason. Both are a person's
//! waiting, so they are tried once and at once, never by a worker, and by threads of their own.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::knowledge::Question;
use super::queue::Job;
use super::sweep::{KEPT, Mark, Word};
use super::work::Task;
use super::{Attempt, Effects, Terms, WORD_HORIZON};
use crate::approval::{Approval, Ballot, Voter};
use crate::clock;
use crate::live::hold;
use crate::outgoing::CallError;
use crate::slack::dialog::{Subject, ask_why};
use crate::slack::notice::Notice;
use crate::store::{Deferred, StoreError};

/// How long Slack lets a click open a dialog.
const TRIGGER: Duration = Duration::from_secs(3);

impl Effects {
    /// What Slack has to say before a ballot can be weighed; nothing when it is known, or is not
    /// asked for.
    ///
    /// # Errors
    /// The approval cannot be read.
    pub(super) fn questions(&self, ballot: &Ballot) -> Result<Vec<Question>, StoreError> {
        let terms = self.terms();
        // Whether somebody may deny is asked when they have said why.
        if !terms.policy.asks_slack() || ballot.is_unexplained(&terms.policy) {
            return Ok(Vec::new());
        }
        let approval = self.store.read(&ballot.id)?;
        let questions = |approval: Approval| {
            self.learned
                .questions(&terms.policy, &approval, ballot, clock::tick())
        };
        Ok(approval.map(questions).unwrap_or_default())
    }

    /// Has a thread ask Slack what a ballot needs, unless one is about to.
    pub(super) fn weigh_soon(&self, deferred: &Deferred) {
        let mut weighed = hold(&self.weighed);
        if weighed.insert(deferred.name().to_owned()) {
            let task = Task::Weigh(Box::new(deferred.clone()));
            self.asking.push(Job::new(task, WORD_HORIZON));
        }
    }

    /// Asks Slack what a ballot needs, then decides it by what is known.
    pub(super) fn weigh(&self, deferred: &Deferred) -> Attempt {
        let _weighed = Mark {
            names: &self.weighed,
            name: deferred.name(),
        };
        let ballot = &deferred.ballot;
        // Past that, whoever sweeps has refused it.
        let end = clock::tick() + KEPT.saturating_sub(deferred.age());
        if let Ok(Some(approval)) = self.store.read(&ballot.id)
            && let Err(reason) = self.ask_for(&approval, ballot, &self.terms(), end)
        {
            log::warn!(approvalId:% = ballot.id, reason:%; "Slack did not say who may decide");
        }
        self.reconsider(deferred, Word::Asked);
        Attempt::Done(None)
    }

    /// Asks Slack whatever tells which of these a person may decide. What it does not say counts as no.
    pub(super) fn learn(&self, approvals: &[Approval], voter: &Voter, terms: &Terms) {
        for approval in approvals {
            let ballot = voter.supposed_approval(approval, clock::now());
            let end = clock::tick() + KEPT;
            if let Err(reason) = self.ask_for(approval, &ballot, terms, end) {
                log::debug!(reason:%; "Slack did not say who may decide");
                if !matches!(reason, CallError::Refused(_)) {
                    return;
                }
            }
        }
    }

    /// Asks Slack, one question after another, until a ballot's outcome is known, or nobody waits for it any more.
    ///
    /// # Errors
    /// Slack has not said something. What it refuses to say of one group or person says nothing of the
    /// others, so they are asked for all the same.
    fn ask_for(
        &self,
        approval: &Approval,
        ballot: &Ballot,
        terms: &Terms,
        end: Instant,
    ) -> Result<(), CallError> {
        let mut asked = Vec::new();
        let mut said = Ok(());
        let mut now = clock::tick();
        while now <= end {
            let questions = self.learned.questions(&terms.policy, approval, ballot, now);
            let mut questions = questions.into_iter();
            let Some(question) = questions.find(|question| !asked.contains(question)) else {
                break;
            };
            match self.learned.ask(&terms.slack, &question) {
                Ok(()) => {}
                Err(refused @ CallError::Refused(_)) => said = Err(refused),
                Err(error) => return Err(error),
            }
            asked.push(question);
            now = clock::tick();
        }
        said
    }

    /// Opens the dialog that asks why, as soon as a thread is free.
    pub(super) fn ask_why(&self, ballot: &Ballot, operation: Option<&str>) {
        if ballot.trigger_id.is_none() {
            self.tell_voter(ballot, &Notice::NoDialog);
            return;
        }
        let subject = Subject {
            id: ballot.id.clone(),
            route: ballot.route.clone(),
            seen: ballot.seen,
            may_precede_file: ballot.may_precede_file,
        };
        let task = Task::AskWhy {
            ballot: Box::new(ballot.clone()),
            view: Box::new(ask_why(&subject, operation)),
        };
        self.opening.push(Job::new(task, WORD_HORIZON));
    }

    /// Opens the dialog, once: what lets us open it is gone within seconds.
    pub(super) fn open_dialog(&self, ballot: &Ballot, view: &Value) -> Attempt {
        let trigger_id = ballot.trigger_id.as_deref().unwrap_or_default();
        let opened = if clock::now().since(ballot.at) < TRIGGER {
            self.terms().slack.open_view(trigger_id, view)
        } else {
            Err(CallError::Refused("the click is too old by now".into()))
        };
        if let Err(reason) = opened {
            log::warn!(approvalId:% = ballot.id, reason:%; "The dialog that asks why was not opened");
            self.tell_voter(ballot, &Notice::NoDialog);
        }
        Attempt::Done(None)
    }
}
