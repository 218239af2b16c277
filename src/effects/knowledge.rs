//! What Slack has said of groups and people, remembered for a while.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::approval::{Approval, Ballot, Choice, GroupId, Knowledge, Policy, Status};
use crate::outgoing::CallError;
use crate::slack::api::Client;

/// How long an answer is as good as a new one. Slack grants about 20 questions a minute.
const FRESH: Duration = Duration::from_secs(60);
/// How long an answer will do when Slack gives no new one.
const USABLE: Duration = Duration::from_secs(600);

/// Something to ask Slack before a vote can be weighed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Question {
    Members(GroupId),
    Guest(String),
}

#[derive(Debug, Default)]
pub(super) struct Learned {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    members: HashMap<GroupId, (Instant, Vec<String>)>,
    guests: HashMap<String, (Instant, bool)>,
}

impl Learned {
    /// What is to be asked before a ballot can be weighed. Who is listed by name needs nobody's
    /// word, unless votes of others are to be counted; who is refused anyway needs none either.
    pub(super) fn questions(
        &self,
        policy: &Policy,
        approval: &Approval,
        ballot: &Ballot,
        now: Instant,
    ) -> Vec<Question> {
        let rule = policy.rule(approval.risk());
        let voter = &ballot.voter;
        if approval.status() != Status::Pending || (voter.external && !rule.allow_external) {
            return Vec::new();
        }
        let mut people = vec![voter.person.id.clone()];
        if ballot.choice == Choice::Approve && policy.approvals_needed(approval.risk()) > 1 {
            for other in approval.approvers().map(|other| other.person.id) {
                if !people.contains(&other) {
                    people.push(other);
                }
            }
        }
        let state = self.state();
        let is_fresh = |at: Instant| now.duration_since(at) < FRESH;
        let mut questions = Vec::new();
        if people.iter().any(|id| !rule.lists(id)) {
            let is_unknown =
                |group: &&GroupId| !state.members.get(*group).is_some_and(|m| is_fresh(m.0));
            let unknown = rule.groups.iter().filter(is_unknown);
            questions.extend(unknown.cloned().map(Question::Members));
        }
        if !rule.allow_guests {
            let is_unknown = |id: &String| !state.guests.get(id).is_some_and(|g| is_fresh(g.0));
            questions.extend(people.into_iter().filter(is_unknown).map(Question::Guest));
        }
        questions
    }

    /// Asks Slack, and remembers the answer.
    ///
    /// # Errors
    /// Slack has not answered; what it said before holds for a while.
    pub(super) fn ask(&self, slack: &Client, question: &Question) -> Result<(), CallError> {
        match question {
            Question::Members(group) => {
                let members = slack.group_members(group)?;
                remember(&mut self.state().members, group.clone(), members);
            }
            Question::Guest(user) => {
                let guest = slack.is_guest(user)?;
                remember(&mut self.state().guests, user.clone(), guest);
            }
        }
        Ok(())
    }

    /// What can be relied upon now.
    pub(super) fn now(&self, now: Instant) -> Knowledge {
        let state = self.state();
        Knowledge {
            members: usable(&state.members, now),
            guests: usable(&state.guests, now),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn remember<K: Eq + Hash, V>(answers: &mut HashMap<K, (Instant, V)>, key: K, value: V) {
    let now = crate::clock::tick();
    answers.retain(|_, (at, _)| now.duration_since(*at) < USABLE);
    answers.insert(key, (now, value));
}

fn usable<K: Clone + Eq + Hash, V: Clone>(
    answers: &HashMap<K, (Instant, V)>,
    now: Instant,
) -> HashMap<K, V> {
    answers
        .iter()
        .filter(|(_, (at, _))| now.duration_since(*at) < USABLE)
        .map(|(key, (_, value))| (key.clone(), value.clone()))
        .collect()
}
