//! The votes that a request has, and whose of them count.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::policy::{is_listed, own_request};
use super::{Approval, Ballot, Choice, Digest, Knowledge, Person, Policy, Voter};
use crate::clock::Timestamp;

/// One entry of `decisions`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    pub decision: Choice,
    pub by: Person,
    /// Whether they belonged to another workspace; absent when not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub external: bool,
    pub at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What the message showed that was clicked, as far as it said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Digest>,
    /// By the server's key: see [`Approval::sign`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    /// Whether it is none that a server has taken, as far as that is known.
    #[serde(skip)]
    pub distrusted: bool,
}

impl Vote {
    /// Whether it is about a request of this meaning. One that saw another does not count.
    pub fn is_about(&self, meaning: Digest) -> bool {
        self.seen.is_none_or(|seen| seen == meaning)
    }
}

impl Approval {
    /// Records a person's vote.
    pub(super) fn add_vote(&mut self, ballot: &Ballot, at: Timestamp) {
        self.push_vote(Vote {
            decision: ballot.choice,
            by: ballot.voter.person.clone(),
            external: ballot.voter.external,
            at,
            reason: ballot.reason.clone(),
            // A click on a message that is not ours is about what stands here now.
            seen: ballot.seen.or_else(|| Some(self.digest())),
            signature: None,
            distrusted: false,
        });
    }

    /// The people who have approved so far what the request means now.
    pub fn approvers(&self) -> impl Iterator<Item = Voter> {
        let meaning = self.digest();
        self.votes()
            .iter()
            .filter(move |vote| {
                vote.decision == Choice::Approve && vote.is_about(meaning) && !vote.distrusted
            })
            .map(|vote| Voter {
                person: vote.by.clone(),
                external: vote.external,
            })
    }

    /// The different people who have approved what the request means now, and who count, in the
    /// order of their votes.
    pub fn supporters(&self, counts: impl Fn(&Voter) -> bool) -> Vec<String> {
        let mut seen = HashSet::new();
        let people = self.approvers().filter(counts).map(|voter| voter.person.id);
        people.filter(|id| seen.insert(id.clone())).collect()
    }

    /// The people whose approvals a message shows. Slack is not asked for that, so whoever a group
    /// may list is shown as counted when they voted.
    pub fn shown_supporters(&self, policy: &Policy) -> Vec<String> {
        let (rule, nothing) = (policy.rule(self.risk()), Knowledge::default());
        let is_own = own_request(self, policy);
        self.supporters(|voter| {
            let id = voter.person.id.as_str();
            !is_own(id) && is_listed(rule, id, &nothing) != Some(false)
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::{ApprovalId, GroupId, Risk, UserId};
    use super::*;

    /// A request of Zoe's that these people have approved, a letter a person.
    fn approved(risk: Risk, votes: &str) -> Approval {
        let vote = |letter| {
            let by = json!({ "id": format!("U{letter}"), "username": "a", "name": "A" });
            json!({ "decision": "approve", "by": by, "at": "2024-01-15T15:30:45Z" })
        };
        let document = json!({ "id": "apr-1", "operation": "scale", "status": "pending",
            "riskLevel": risk.word(), "requestedBy": "<@UZ>",
            "decisions": votes.chars().map(vote).collect::<Vec<Value>>() });
        let id = ApprovalId::parse("apr-1").unwrap();
        Approval::parse(&id, document.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn those_are_shown_as_supporters_who_count_in_the_order_of_their_votes() {
        let mut policy = Policy::default();
        let listed = ["UA", "UB"].into_iter().filter_map(UserId::parse);
        policy.levels[Risk::High as usize].users = listed.collect();
        let shown = |policy: &Policy, risk, votes| approved(risk, votes).shown_supporters(policy);
        assert_eq!(shown(&policy, Risk::High, "BADB"), ["UB", "UA"]);
        assert_eq!(shown(&policy, Risk::Critical, "ZC"), ["UC"]);
        // Of a group's members only Slack knows.
        policy.levels[Risk::High as usize].groups = GroupId::parse("S1").into_iter().collect();
        assert_eq!(shown(&policy, Risk::High, "BD"), ["UB", "UD"]);
    }
}
