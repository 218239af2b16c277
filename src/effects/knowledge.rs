//! What Slack has said of groups and people, remembered for a while.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::approval::{
    Approval, Ballot, Choice, GroupId, Knowledge, Mandate, Objection, Policy, Verdict, admit,
    decide, is_listed,
};
use crate::clock;
use crate::live::hold;
use crate::outgoing::CallError;
use crate::slack::api::Client;

/// How long an answer is as good as a new one. Slack grants about 20 questions a minute.
const FRESH: Duration = Duration::from_secs(60);
/// How long an answer will do when Slack gives no new one.
const USABLE: Duration = Duration::from_secs(600);

/// What Slack says of a group or a person that is no more.
const GONE: [&str; 2] = ["no_such_subteam", "user_not_found"];

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
    /// What is to be asked before a ballot can be weighed; nothing once its outcome is known. Who is
    /// listed by name needs nobody's word, unless votes of others are to be counted.
    pub(super) fn questions(
        &self,
        policy: &Policy,
        approval: &Approval,
        ballot: &Ballot,
        now: Instant,
    ) -> Vec<Question> {
        let rule = policy.rule(approval.risk());
        let fresh = self.fresh(now);
        match decide(
            approval,
            ballot,
            Mandate::Policy(policy, &fresh),
            clock::now(),
        ) {
            Verdict::Counted { .. }
            | Verdict::Refused(Objection::Unverified | Objection::VotedAlready { .. }) => {}
            Verdict::Decided(_) | Verdict::Lapsed | Verdict::Refused(_) => return Vec::new(),
        }
        let mut people = vec![ballot.voter.clone()];
        if ballot.choice == Choice::Approve && policy.approvals_needed(approval.risk()) > 1 {
            people.extend(approval.approvers());
        }
        people.retain(|voter| admit(rule, voter, &fresh) == Err(Objection::Unverified));
        let mut ids: Vec<String> = Vec::new();
        for id in people.into_iter().map(|voter| voter.person.id) {
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        let mut questions = Vec::new();
        if ids.iter().any(|id| is_listed(rule, id, &fresh).is_none()) {
            let is_unknown = |group: &&GroupId| !fresh.members.contains_key(*group);
            let unknown = rule.groups.iter().filter(is_unknown);
            questions.extend(unknown.cloned().map(Question::Members));
        }
        if !rule.allow_guests {
            ids.retain(|id| !fresh.guests.contains_key(id));
            questions.extend(ids.into_iter().map(Question::Guest));
        }
        questions
    }

    /// Asks Slack, and remembers the answer.
    ///
    /// # Errors
    /// Slack has not answered; what it said before holds for a while. Unless it says that there is
    /// no such group or person: then that is forgotten.
    pub(super) fn ask(&self, slack: &Client, question: &Question) -> Result<(), CallError> {
        let answered = match question {
            Question::Members(group) => slack
                .group_members(group)
                .map(|members| remember(&mut self.state().members, group.clone(), members)),
            Question::Guest(user) => slack
                .is_guest(user)
                .map(|guest| remember(&mut self.state().guests, user.clone(), guest)),
        };
        if let Err(CallError::Refused(error)) = &answered
            && GONE.contains(&&**error)
        {
            match question {
                Question::Members(group) => drop(self.state().members.remove(group)),
                Question::Guest(user) => drop(self.state().guests.remove(user)),
            }
        }
        answered
    }

    pub(super) fn forget(&self) {
        *self.state() = State::default();
    }

    /// What can be relied upon now.
    pub(super) fn now(&self, now: Instant) -> Knowledge {
        self.not_older_than(USABLE, now)
    }

    /// What is as good as a new answer.
    pub(super) fn fresh(&self, now: Instant) -> Knowledge {
        self.not_older_than(FRESH, now)
    }

    fn not_older_than(&self, age: Duration, now: Instant) -> Knowledge {
        let state = self.state();
        Knowledge {
            members: younger(&state.members, age, now),
            guests: younger(&state.guests, age, now),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        hold(&self.state)
    }
}

fn remember<K: Eq + Hash, V>(answers: &mut HashMap<K, (Instant, V)>, key: K, value: V) {
    let now = clock::tick();
    answers.retain(|_, (at, _)| now.duration_since(*at) < USABLE);
    answers.insert(key, (now, value));
}

fn younger<K: Clone + Eq + Hash, V: Clone>(
    answers: &HashMap<K, (Instant, V)>,
    age: Duration,
    now: Instant,
) -> HashMap<K, V> {
    answers
        .iter()
        .filter(|(_, (at, _))| now.duration_since(*at) < age)
        .map(|(key, (_, value))| (key.clone(), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::approval::{ApprovalId, LevelRule, Person, Risk, Route, UserId, Voter};
    use crate::clock;

    const NEVER: Option<u64> = None;

    fn ops() -> GroupId {
        GroupId::parse("SOPS").unwrap()
    }

    /// Low: Ops. Medium: Alice and Ops. High: two of Alice, Bob, Ops and Dev. Critical: Alice or
    /// anyone of Ops, but no guests.
    fn policy() -> Policy {
        let rule = |users: &[&str], groups: &[&str], min_approvals, allow_guests| LevelRule {
            users: users.iter().filter_map(|id| UserId::parse(id)).collect(),
            groups: groups.iter().filter_map(|id| GroupId::parse(id)).collect(),
            min_approvals,
            allow_guests,
            ..LevelRule::default()
        };
        Policy {
            levels: [
                rule(&[], &["SOPS"], 1, true),
                rule(&["UA"], &["SOPS"], 1, true),
                rule(&["UA", "UB"], &["SOPS", "SDEV"], 2, true),
                rule(&["UA"], &["SOPS"], 2, false),
            ],
            ..Policy::default()
        }
    }

    fn approval(risk: Risk, votes: &str, status: &str) -> Approval {
        let vote = |letter: char| {
            let id = format!("U{letter}");
            json!({ "decision": "approve", "by": { "id": id, "username": id, "name": id },
                "at": "2024-01-15T15:30:00Z" })
        };
        let votes: Vec<_> = votes.chars().map(vote).collect();
        let document = json!({ "id": "apr-1", "operation": "scale", "status": status,
            "riskLevel": risk.word(), "decisions": votes });
        let id = ApprovalId::parse("apr-1").unwrap();
        Approval::parse(&id, document.to_string().as_bytes()).unwrap()
    }

    fn ballot(voter: &str, choice: Choice) -> Ballot {
        let id = format!("U{}", voter.trim_end_matches('!'));
        Ballot {
            id: ApprovalId::parse("apr-1").unwrap(),
            choice,
            voter: Voter {
                person: Person {
                    id: id.clone(),
                    username: id.clone(),
                    name: id,
                },
                external: voter.ends_with('!'),
            },
            reason: None,
            route: Route::default(),
            seen: None,
            may_precede_file: false,
            trigger_id: None,
            sent: crate::approval::Sent::default(),
            at: clock::now(),
        }
    }

    /// The questions as words: groups, then people.
    fn asked(learned: &Learned, approval: &Approval, ballot: &Ballot, now: Instant) -> String {
        let questions = learned.questions(&policy(), approval, ballot, now);
        let words = questions.iter().map(|question| match question {
            Question::Members(group) => group.to_string(),
            Question::Guest(id) => id.clone(),
        });
        words.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn slack_is_asked_what_the_outcome_depends_on_and_nothing_else() {
        use Choice::{Approve, Deny};
        for (risk, votes, voter, choice, expected) in [
            // Who is listed needs nobody's word; anybody else may be a member.
            (Risk::Low, "", "G", Approve, "SOPS"),
            (Risk::Low, "", "G", Deny, "SOPS"),
            (Risk::Medium, "", "A", Approve, ""),
            (Risk::Medium, "", "A", Deny, ""),
            (Risk::Medium, "", "G", Approve, "SOPS"),
            // Who is from outside is refused whatever Slack says.
            (Risk::Low, "", "G!", Approve, ""),
            (Risk::Critical, "", "A!", Approve, ""),
            // Earlier votes matter where they are counted.
            (Risk::Medium, "G", "A", Approve, ""),
            (Risk::High, "", "A", Approve, ""),
            (Risk::High, "B", "A", Approve, ""),
            (Risk::High, "G", "A", Approve, "SOPS SDEV"),
            (Risk::High, "G", "A", Deny, ""),
            (Risk::High, "A", "G", Approve, "SOPS SDEV"),
            // Guests may be listed, too.
            (Risk::Critical, "", "A", Approve, "UA"),
            (Risk::Critical, "", "A", Deny, "UA"),
            (Risk::Critical, "", "G", Approve, "SOPS UG"),
            (Risk::Critical, "GHG", "A", Approve, "SOPS UA UG UH"),
            (Risk::Critical, "G", "A", Deny, "UA"),
        ] {
            let (learned, ballot) = (Learned::default(), ballot(voter, choice));
            let now = clock::tick();
            let found = asked(&learned, &approval(risk, votes, "pending"), &ballot, now);
            let story = format!("{risk:?}, after {votes:?}: {choice:?} by {voter}");
            assert_eq!(found, expected, "{story}");
            let decided = approval(risk, votes, "denied");
            assert_eq!(asked(&learned, &decided, &ballot, now), "", "{story}");
        }
    }

    #[test]
    fn an_answer_is_as_good_as_new_for_a_minute_and_will_do_for_ten() {
        for (age, is_asked, is_used) in [
            (Some(0), false, true),
            (Some(59_999), false, true),
            (Some(60_000), true, true),
            (Some(599_999), true, true),
            (Some(600_000), true, false),
            (NEVER, true, false),
        ] {
            let (learned, heard) = (Learned::default(), clock::tick());
            if age.is_some() {
                let mut state = learned.state();
                state.members.insert(ops(), (heard, vec!["UG".into()]));
                state.guests.insert("UG".into(), (heard, false));
            }
            let now = heard + Duration::from_millis(age.unwrap_or_default());
            let approval = approval(Risk::Critical, "", "pending");
            let questions = asked(&learned, &approval, &ballot("G", Choice::Approve), now);
            let expected = if is_asked { "SOPS UG" } else { "" };
            assert_eq!(questions, expected, "after {age:?} ms");
            let known = learned.now(now);
            let used = (known.members.contains_key(&ops()), known.guests.get("UG"));
            let expected = (is_used, is_used.then_some(&false));
            assert_eq!(used, expected, "after {age:?} ms");
        }
    }

    #[test]
    fn a_new_answer_replaces_the_old_one_and_what_is_too_old_is_forgotten() {
        let mut answers = HashMap::new();
        let now = clock::tick();
        if let Some(long_ago) = now.checked_sub(USABLE) {
            answers.insert("old", (long_ago, 1));
        }
        answers.insert("other", (now, 2));
        remember(&mut answers, "this", 3);
        remember(&mut answers, "this", 4);
        assert_eq!(answers.get("this").map(|answer| answer.1), Some(4));
        assert_eq!(answers.get("other").map(|answer| answer.1), Some(2));
        assert!(!answers.contains_key("old"));
    }
}
