//! The decision itself: one ballot, one approval, one policy, one clock → one verdict.

use super::policy::{admit, own_request};
use super::{Approval, Ballot, Choice, Knowledge, Person, Policy, Status, Voter};
use crate::clock::Timestamp;

/// By whose leave a ballot is cast.
#[derive(Clone, Copy, Debug)]
pub enum Mandate<'a> {
    /// As the policy says, by what Slack says of groups and guests.
    Policy(&'a Policy, &'a Knowledge),
    /// From the terminal of this machine, in an emergency: neither who may approve nor how many must
    /// is asked. Finality and expiry hold all the same.
    Terminal,
}

/// What a ballot amounts to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It decides: the approval takes this status.
    Decided(Status),
    /// It counts, and more people must approve.
    Counted { approvals: usize, needed: usize },
    /// It came too late: the approval takes the status `expired`.
    Lapsed,
    /// It changes nothing.
    Refused(Objection),
}

/// Why a ballot changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Objection {
    /// The approval is final already.
    Final {
        status: Status,
        by: Option<Person>,
        at: Option<Timestamp>,
    },
    /// The request means something else than what the person saw.
    Changed,
    /// The policy names others.
    NotAnApprover,
    /// The person is from another workspace.
    External,
    /// A denial must say why, and this one does not.
    NoReason,
    /// The person is a guest of the workspace.
    Guest,
    /// Slack could not say whether the person may.
    Unverified,
    /// The person asked for it.
    OwnRequest,
    /// The person has approved already.
    VotedAlready { approvals: usize, needed: usize },
}

impl Objection {
    /// Its words in logs.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Final { .. } => "already decided",
            Self::Changed => "changed since it was shown",
            Self::NotAnApprover => "not an approver",
            Self::External => "from another workspace",
            Self::NoReason => "it does not say why",
            Self::Guest => "a guest",
            Self::Unverified => "Slack could not say whether the person may",
            Self::OwnRequest => "own request",
            Self::VotedAlready { .. } => "voted already",
        }
    }
}

/// Decides. Finality comes first, then expiry, then what was seen, then who votes, then the count.
pub fn decide(
    approval: &Approval,
    ballot: &Ballot,
    mandate: Mandate<'_>,
    now: Timestamp,
) -> Verdict {
    let voter = &ballot.voter;
    if approval.status() != Status::Pending {
        return Verdict::Refused(Objection::Final {
            status: approval.status(),
            by: approval.decided_by(),
            at: approval.decided_at(),
        });
    }
    if approval.is_over(now) {
        return Verdict::Lapsed;
    }
    if ballot.seen.is_some_and(|seen| seen != approval.digest()) {
        return Verdict::Refused(Objection::Changed);
    }
    let Mandate::Policy(policy, known) = mandate else {
        return Verdict::Decided(ballot.choice.status());
    };
    let rule = policy.rule(approval.risk());
    match admit(rule, voter, known) {
        // Whoever may yet turn out to be allowed is asked for the reason at once: Slack opens a
        // dialog only within seconds.
        Ok(()) | Err(Objection::Unverified) if ballot.is_unexplained(policy) => {
            return Verdict::Refused(Objection::NoReason);
        }
        Ok(()) => {}
        Err(objection) => return Verdict::Refused(objection),
    }
    if ballot.choice == Choice::Deny {
        return Verdict::Decided(Status::Denied);
    }
    let is_own = own_request(approval, policy);
    if is_own(&voter.person.id) {
        return Verdict::Refused(Objection::OwnRequest);
    }
    let needed = policy.approvals_needed(approval.risk());
    // Votes count by the policy of now, not of when they were cast.
    let people = |counts: fn(Result<(), Objection>) -> bool| {
        approval.supporters(|other| !is_own(&other.person.id) && counts(admit(rule, other, known)))
    };
    let sure = people(|admitted| admitted.is_ok());
    let perhaps = people(|admitted| matches!(admitted, Ok(()) | Err(Objection::Unverified)));
    let has_voted = sure.contains(&voter.person.id);
    let with_this =
        |people: &[String]| people.len() + usize::from(!people.contains(&voter.person.id));
    match with_this(&sure) {
        approvals if approvals >= needed => Verdict::Decided(Status::Approved),
        // Kept, it would show as the last one that is needed, and decide nothing.
        _ if with_this(&perhaps) >= needed => Verdict::Refused(Objection::Unverified),
        approvals if has_voted => Verdict::Refused(Objection::VotedAlready { approvals, needed }),
        approvals => Verdict::Counted { approvals, needed },
    }
}

impl Voter {
    /// Whether an approval of theirs would count now.
    pub fn may_approve(
        &self,
        approval: &Approval,
        policy: &Policy,
        known: &Knowledge,
        now: Timestamp,
    ) -> bool {
        let ballot = self.supposed_approval(approval, now);
        match decide(approval, &ballot, Mandate::Policy(policy, known), now) {
            Verdict::Decided(_) | Verdict::Counted { .. } => true,
            Verdict::Lapsed | Verdict::Refused(_) => false,
        }
    }
}

impl Approval {
    /// Writes a verdict into the document. `true` when that changed it.
    pub fn record(&mut self, ballot: &Ballot, verdict: &Verdict, now: Timestamp) -> bool {
        match verdict {
            Verdict::Decided(status) => {
                self.add_vote(ballot, now);
                self.finish(
                    *status,
                    Some(&ballot.voter.person),
                    ballot.reason.as_deref(),
                    now,
                );
            }
            Verdict::Counted { .. } => self.add_vote(ballot, now),
            Verdict::Lapsed => self.finish(Status::Expired, None, None, now),
            Verdict::Refused(_) => return false,
        }
        true
    }

    /// Makes a pending approval whose time is over `expired`. `true` when that changed it.
    pub fn expire(&mut self, now: Timestamp) -> bool {
        let over = self.status() == Status::Pending && self.is_over(now);
        if over {
            self.finish(Status::Expired, None, None, now);
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::super::{ApprovalId, Digest, GroupId, LevelRule, Risk, Route, Sent, UserId};
    use super::Choice::{Approve, Deny};
    use super::Objection::{
        External, Guest, NoReason, NotAnApprover, OwnRequest, Unverified, VotedAlready,
    };
    use super::Verdict::{Counted, Decided, Lapsed, Refused};
    use super::*;

    /// Milliseconds from when it was asked until it expires.
    const EXPIRY: u64 = 300_000;

    fn asked() -> Timestamp {
        Timestamp::from_unix(1_705_332_600)
    }

    fn after(millis: u64) -> Timestamp {
        asked() + Duration::from_millis(millis)
    }

    fn person(id: &str) -> Person {
        Person {
            id: id.into(),
            username: "alice".into(),
            name: "Alice".into(),
        }
    }

    /// Low: anyone. Medium: Alice or Bob. High: two of Alice, Bob and Carol. Critical: two people,
    /// wherever they are from.
    fn policy() -> Policy {
        let rule = |users: &[&str], min_approvals, allow_external| LevelRule {
            users: users.iter().filter_map(|id| UserId::parse(id)).collect(),
            min_approvals,
            allow_external,
            ..LevelRule::default()
        };
        Policy {
            levels: [
                rule(&[], 1, false),
                rule(&["UA", "UB"], 1, false),
                rule(&["UA", "UB", "UC"], 2, false),
                rule(&[], 1, true),
            ],
            allow_self_approval: false,
            multi_approver_for_critical: true,
            require_denial_reason: false,
        }
    }

    /// A pending approval that Zoe asked for, with these votes: a letter a person, `-` behind it for
    /// no, `!` for somebody of another workspace.
    fn approval(risk: Risk, votes: &str) -> Approval {
        let mut decisions: Vec<Value> = Vec::new();
        for letter in votes.chars() {
            if letter == '-' {
                let last = decisions.last_mut().unwrap();
                last["decision"] = "deny".into();
                continue;
            }
            if letter == '!' {
                decisions.last_mut().unwrap()["external"] = true.into();
                continue;
            }
            let by = person(&format!("U{letter}"));
            decisions.push(json!({ "decision": "approve", "by": by, "at": asked() }));
        }
        let document = json!({
            "id": "apr-1", "operation": "scale", "status": "pending", "riskLevel": risk.word(),
            "requestedBy": "<@UZ>", "expiresAt": after(EXPIRY), "decisions": decisions,
        });
        let id = ApprovalId::parse("apr-1").unwrap();
        Approval::parse(&id, document.to_string().as_bytes()).unwrap()
    }

    /// A vote by `U` and this letter; `!` behind it says that they are of another workspace.
    fn ballot(voter: &str, choice: Choice) -> Ballot {
        Ballot {
            id: ApprovalId::parse("apr-1").unwrap(),
            choice,
            voter: Voter {
                person: person(&format!("U{}", voter.trim_end_matches('!'))),
                external: voter.ends_with('!'),
            },
            reason: None,
            route: Route::default(),
            seen: None,
            may_precede_file: false,
            trigger_id: None,
            sent: Sent::default(),
            at: asked(),
        }
    }

    #[test]
    fn each_vote_amounts_to_what_the_table_says() {
        const GRANTED: Verdict = Decided(Status::Approved);
        const DENIED: Verdict = Decided(Status::Denied);
        const ONE_OF_TWO: Verdict = Counted {
            approvals: 1,
            needed: 2,
        };
        const AGAIN: Verdict = Refused(VotedAlready {
            approvals: 1,
            needed: 2,
        });
        const LAST: u64 = EXPIRY - 1;
        for (risk, votes, voter, choice, at, expected) in [
            // Anyone of the workspace, but not who asked, who may only say no.
            (Risk::Low, "", "A", Approve, 0, GRANTED),
            (Risk::Low, "", "A", Deny, 0, DENIED),
            (Risk::Low, "", "Z", Approve, 0, Refused(OwnRequest)),
            (Risk::Low, "", "Z", Deny, 0, DENIED),
            (Risk::Low, "", "A!", Approve, 0, Refused(External)),
            (Risk::Low, "", "A!", Deny, 0, Refused(External)),
            // Those who are listed.
            (Risk::Medium, "", "A", Approve, 0, GRANTED),
            (Risk::Medium, "", "B", Deny, 0, DENIED),
            (Risk::Medium, "", "C", Approve, 0, Refused(NotAnApprover)),
            (Risk::Medium, "", "C", Deny, 0, Refused(NotAnApprover)),
            (Risk::Medium, "", "Z", Approve, 0, Refused(NotAnApprover)),
            (Risk::Medium, "", "A!", Approve, 0, Refused(External)),
            // Two of them, in any order, each once; a denial before says nothing for anyone.
            (Risk::High, "", "A", Approve, 0, ONE_OF_TWO),
            (Risk::High, "A", "A", Approve, 0, AGAIN),
            (Risk::High, "AA", "A", Approve, 0, AGAIN),
            (Risk::High, "A", "B", Approve, 0, GRANTED),
            (Risk::High, "AA", "B", Approve, 0, GRANTED),
            (Risk::High, "A", "A", Deny, 0, DENIED),
            (Risk::High, "A", "B", Deny, 0, DENIED),
            (Risk::High, "A", "D", Deny, 0, Refused(NotAnApprover)),
            (Risk::High, "A-", "B", Approve, 0, ONE_OF_TWO),
            (Risk::High, "A-", "A", Approve, 0, ONE_OF_TWO),
            // Votes count by the policy of now: not of who is not listed, nor of who asked.
            (Risk::High, "D", "A", Approve, 0, ONE_OF_TWO),
            (Risk::Critical, "Z", "A", Approve, 0, ONE_OF_TWO),
            // Enough have approved under a quorum that was higher then: one more decides.
            (Risk::High, "AB", "A", Approve, 0, GRANTED),
            (Risk::High, "AB", "C", Approve, 0, GRANTED),
            // Two people, although the level asks for one.
            (Risk::Critical, "", "A", Approve, 0, ONE_OF_TWO),
            (Risk::Critical, "", "A!", Approve, 0, ONE_OF_TWO),
            (Risk::Critical, "A", "A!", Approve, 0, AGAIN),
            (Risk::Critical, "A", "B!", Approve, 0, GRANTED),
            (Risk::Critical, "A", "Z", Approve, 0, Refused(OwnRequest)),
            (Risk::Critical, "", "B!", Deny, 0, DENIED),
            // Up to the last millisecond, and whoever comes later finds it closed.
            (Risk::Low, "", "A", Approve, LAST, GRANTED),
            (Risk::High, "A", "B", Approve, LAST, GRANTED),
            (Risk::Low, "", "A", Approve, EXPIRY, Lapsed),
            (Risk::Low, "", "A", Deny, EXPIRY, Lapsed),
            (Risk::Low, "", "A!", Approve, EXPIRY, Lapsed),
            (Risk::Low, "", "Z", Approve, EXPIRY, Lapsed),
            (Risk::Medium, "", "C", Approve, EXPIRY + 1, Lapsed),
            (Risk::High, "A", "B", Approve, u64::MAX, Lapsed),
        ] {
            let story = format!("{risk:?}, after {votes:?}: {choice:?} by {voter} at {at}");
            let verdict = decide(
                &approval(risk, votes),
                &ballot(voter, choice),
                Mandate::Policy(&policy(), &Knowledge::default()),
                after(at),
            );
            assert_eq!(verdict, expected, "{story}");
        }
    }

    #[test]
    fn what_is_final_stays_so_whoever_clicks_and_whenever() {
        for status in Status::ALL {
            let mut decided = approval(Risk::Low, "");
            if status == Status::Pending {
                continue;
            }
            decided.finish(status, Some(&person("UB")), None, after(7_000));
            let before = decided.to_bytes();
            for (voter, choice, at) in [
                ("A", Approve, 0),
                ("A", Deny, 0),
                ("A!", Approve, 0),
                ("Z", Approve, EXPIRY),
            ] {
                let ballot = ballot(voter, choice);
                let verdict = decide(
                    &decided,
                    &ballot,
                    Mandate::Policy(&policy(), &Knowledge::default()),
                    after(at),
                );
                let expected = Refused(Objection::Final {
                    status,
                    by: Some(person("UB")),
                    at: Some(after(7_000)),
                });
                assert_eq!(verdict, expected, "{status:?} {voter} {choice:?}");
                assert!(!decided.record(&ballot, &verdict, after(at)));
                assert!(!decided.expire(after(EXPIRY)));
            }
            assert_eq!(decided.to_bytes(), before);
        }
    }

    /// Low: Ops. Medium: Alice, Ops and Dev. High: two of Alice and Ops. Critical: two people, but no
    /// guests. Every denial has to say why.
    fn policy_of_groups() -> Policy {
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
                rule(&["UA"], &["SOPS", "SDEV"], 1, true),
                rule(&["UA"], &["SOPS"], 2, true),
                rule(&[], &[], 2, false),
            ],
            require_denial_reason: true,
            ..Policy::default()
        }
    }

    /// What Slack has said: `ops=GH` are the members of Ops, `guest=K` guests, `full=A` none.
    fn known(text: &str) -> Knowledge {
        let mut known = Knowledge::default();
        for (word, letters) in text.split(' ').filter_map(|part| part.split_once('=')) {
            let people = letters.chars().map(|letter| format!("U{letter}"));
            match word {
                "guest" => known.guests.extend(people.map(|id| (id, true))),
                "full" => known.guests.extend(people.map(|id| (id, false))),
                group => {
                    let group = GroupId::parse(&format!("S{}", group.to_uppercase()));
                    known.members.insert(group.unwrap(), people.collect());
                }
            }
        }
        known
    }

    #[test]
    #[allow(clippy::too_many_lines, reason = "it is one table")]
    fn what_slack_says_and_why_somebody_denies_decide_as_the_table_says() {
        const GRANTED: Verdict = Decided(Status::Approved);
        const DENIED: Verdict = Decided(Status::Denied);
        const OTHERS: Verdict = Refused(NotAnApprover);
        const UNSURE: Verdict = Refused(Unverified);
        const WHY: Verdict = Refused(NoReason);
        const GUEST: Verdict = Refused(Guest);
        const OUTSIDE: Verdict = Refused(External);
        const ONE_OF_TWO: Verdict = Counted {
            approvals: 1,
            needed: 2,
        };
        const AGAIN: Verdict = Refused(VotedAlready {
            approvals: 1,
            needed: 2,
        });
        for (risk, said, votes, voter, choice, expected) in [
            // The members of a group, when Slack has said who they are.
            (Risk::Low, "ops=GH", "", "G", "approve", GRANTED),
            (Risk::Low, "ops=GH", "", "A", "approve", OTHERS),
            (Risk::Low, "ops=", "", "G", "approve", OTHERS),
            (Risk::Low, "", "", "G", "approve", UNSURE),
            (Risk::Low, "dev=G", "", "G", "approve", UNSURE),
            (Risk::Low, "ops=GH", "", "G!", "approve", OUTSIDE),
            (Risk::Low, "", "", "G!", "approve", OUTSIDE),
            (Risk::Low, "ops=GZ", "", "Z", "approve", Refused(OwnRequest)),
            (Risk::Low, "", "", "Z", "approve", UNSURE),
            // Why they deny; who may turn out to be allowed is asked before that is known.
            (Risk::Low, "ops=GH", "", "G", "deny: no", DENIED),
            (Risk::Low, "ops=GH", "", "G", "deny", WHY),
            (Risk::Low, "ops=GH", "", "G", "deny:", WHY),
            (Risk::Low, "ops=GH", "", "G", "deny: \t\n ", WHY),
            (Risk::Low, "", "", "G", "deny", WHY),
            (Risk::Low, "", "", "G", "deny: no", UNSURE),
            (Risk::Low, "ops=GH", "", "A", "deny", OTHERS),
            (Risk::Low, "ops=GH", "", "A", "deny: no", OTHERS),
            (Risk::Low, "", "", "G!", "deny", OUTSIDE),
            (Risk::Low, "ops=GZ", "", "Z", "deny: no", DENIED),
            (Risk::Low, "ops=GH", "", "G", "approve:", GRANTED),
            // Those who are listed need nobody's word, and one group is enough.
            (Risk::Medium, "", "", "A", "approve", GRANTED),
            (Risk::Medium, "", "", "A", "deny: no", DENIED),
            (Risk::Medium, "", "", "A", "deny", WHY),
            (Risk::Medium, "ops=G", "", "G", "approve", GRANTED),
            (Risk::Medium, "dev=D", "", "D", "approve", GRANTED),
            (Risk::Medium, "ops=G", "", "D", "approve", UNSURE),
            (Risk::Medium, "ops=G dev=D", "", "E", "approve", OTHERS),
            // Two of them; who has left the group since counts no more, and of who may have, nobody
            // can say whether two are enough.
            (Risk::High, "ops=GH", "", "G", "approve", ONE_OF_TWO),
            (Risk::High, "ops=GH", "G", "H", "approve", GRANTED),
            (Risk::High, "ops=GH", "G", "G", "approve", AGAIN),
            (Risk::High, "ops=GH", "GG", "A", "approve", GRANTED),
            (Risk::High, "ops=GH", "A", "G", "approve", GRANTED),
            (Risk::High, "", "A", "A", "approve", AGAIN),
            (Risk::High, "", "G", "A", "approve", UNSURE),
            (Risk::High, "", "GA", "A", "approve", UNSURE),
            (Risk::High, "ops=H", "G", "H", "approve", ONE_OF_TWO),
            (Risk::High, "ops=H", "G", "G", "approve", OTHERS),
            (Risk::High, "ops=GZ", "Z", "G", "approve", ONE_OF_TWO),
            (Risk::High, "ops=GH", "H!", "G", "approve", ONE_OF_TWO),
            (Risk::High, "ops=GH", "G", "H", "deny: no", DENIED),
            (Risk::High, "", "G", "A", "deny: no", DENIED),
            // Anyone but guests, then and now.
            (Risk::Critical, "full=A", "", "A", "approve", ONE_OF_TWO),
            (Risk::Critical, "full=AB", "A", "B", "approve", GRANTED),
            (Risk::Critical, "guest=A", "", "A", "approve", GUEST),
            (Risk::Critical, "", "", "A", "approve", UNSURE),
            (Risk::Critical, "full=B", "A", "B", "approve", UNSURE),
            (
                Risk::Critical,
                "full=B guest=A",
                "A",
                "B",
                "approve",
                ONE_OF_TWO,
            ),
            (Risk::Critical, "full=AB", "A!", "B", "approve", ONE_OF_TWO),
            (Risk::Critical, "guest=A", "", "A", "deny", GUEST),
            (Risk::Critical, "guest=A", "", "A", "deny: no", GUEST),
            (Risk::Critical, "", "", "A", "deny", WHY),
            (Risk::Critical, "full=A", "", "A!", "approve", OUTSIDE),
        ] {
            let story = format!("{risk:?}, {said:?}, after {votes:?}: {choice:?} by {voter}");
            let (word, reason) = match choice.split_once(':') {
                Some((word, reason)) => (word, Some(reason)),
                None => (choice, None),
            };
            let choice = if word == "deny" { Deny } else { Approve };
            let mut ballot = ballot(voter, choice);
            ballot.reason = reason.map(str::to_owned);
            let (policy, said) = (policy_of_groups(), known(said));
            let verdict = |at, document: &Approval| {
                decide(
                    document,
                    &ballot,
                    Mandate::Policy(&policy, &said),
                    after(at),
                )
            };
            let mut document = approval(risk, votes);
            assert_eq!(verdict(0, &document), expected, "{story}");
            // Whatever Slack has said: what is over is over, what was seen counts, and the terminal
            // asks nobody.
            assert_eq!(verdict(EXPIRY, &document), Lapsed, "{story}");
            let terminal = decide(&document, &ballot, Mandate::Terminal, asked());
            assert_eq!(terminal, Decided(choice.status()), "{story}");
            let before = Digest::parse(&"0".repeat(64));
            let changed = Ballot {
                seen: before,
                ..ballot.clone()
            };
            let mandate = Mandate::Policy(&policy, &said);
            let unseen = decide(&document, &changed, mandate, asked());
            assert!(
                before.is_some() && unseen == Refused(Objection::Changed),
                "{story}"
            );
            document.finish(Status::Approved, Some(&person("UB")), None, after(1));
            let over = verdict(2, &document);
            assert!(matches!(over, Refused(Objection::Final { .. })), "{story}");
        }
    }

    #[test]
    fn a_vote_from_outside_says_so_and_counts_only_while_that_is_wanted() {
        let mut policy = policy();
        let mut document = approval(Risk::Critical, "");
        let knows = Knowledge::default();
        let first = ballot("A!", Approve);
        let verdict = decide(&document, &first, Mandate::Policy(&policy, &knows), asked());
        assert!(document.record(&first, &verdict, asked()));
        let written: Value = serde_json::from_slice(&document.to_bytes()).unwrap();
        assert_eq!(written["decisions"][0]["external"], true);
        let again = Approval::parse(document.id(), &document.to_bytes()).unwrap();
        let second = |policy: &Policy| {
            let ballot = ballot("B", Approve);
            decide(&again, &ballot, Mandate::Policy(policy, &knows), asked())
        };
        assert_eq!(second(&policy), Decided(Status::Approved));
        policy.levels[3].allow_external = false;
        let one = Counted {
            approvals: 1,
            needed: 2,
        };
        assert_eq!(second(&policy), one);
    }

    #[test]
    fn no_order_of_votes_approves_without_enough_people_who_may() {
        const VOTERS: [&str; 6] = ["A", "B", "C", "A!", "D", "Z"];
        let policy = policy();
        for risk in Risk::ALL {
            // Every sequence of four clicks by these people.
            for sequence in 0..VOTERS.len().pow(4) {
                let mut document = approval(risk, "");
                let mut may: Vec<&str> = Vec::new();
                let digits = (0..4).map(|n| sequence / VOTERS.len().pow(n) % VOTERS.len());
                let story: Vec<&str> = digits.map(|digit| VOTERS[digit]).collect();
                for voter in &story {
                    let person = voter.trim_end_matches('!');
                    let admitted = match risk {
                        Risk::Low => ["A", "B", "C", "D"].contains(voter),
                        Risk::Medium => ["A", "B"].contains(voter),
                        Risk::High => ["A", "B", "C"].contains(voter),
                        Risk::Critical => *voter != "Z",
                    };
                    if admitted && !may.contains(&person) {
                        may.push(person);
                    }
                    let ballot = ballot(voter, Approve);
                    let verdict = decide(
                        &document,
                        &ballot,
                        Mandate::Policy(&policy, &Knowledge::default()),
                        asked(),
                    );
                    document.record(&ballot, &verdict, asked());
                    let needed = if risk >= Risk::High { 2 } else { 1 };
                    let expected = if may.len() >= needed {
                        Status::Approved
                    } else {
                        Status::Pending
                    };
                    assert_eq!(document.status(), expected, "{risk:?} {story:?} at {voter}");
                    let mut voted: Vec<String> =
                        document.approvers().map(|voter| voter.person.id).collect();
                    voted.dedup();
                    assert!(voted.len() <= needed, "{story:?}");
                }
            }
        }
    }

    #[test]
    fn only_what_changes_something_is_recorded() {
        let at = after(1_000);
        for (votes, voter, choice, status, recorded) in [
            ("", "A", Approve, "pending", 1),
            ("A", "A", Approve, "pending", 1),
            ("A", "B", Approve, "approved", 2),
            ("A", "C", Deny, "denied", 2),
            ("A", "D", Approve, "pending", 1),
        ] {
            let mut document = approval(Risk::High, votes);
            let ballot = ballot(voter, choice);
            let verdict = decide(
                &document,
                &ballot,
                Mandate::Policy(&policy(), &Knowledge::default()),
                at,
            );
            let changed = document.record(&ballot, &verdict, at);
            let written: Value = serde_json::from_slice(&document.to_bytes()).unwrap();
            assert_eq!(written["status"], status);
            let decisions = written["decisions"].as_array().unwrap();
            assert_eq!(decisions.len(), recorded);
            assert_eq!(changed, recorded > votes.len());
            if status == "pending" {
                assert!(written.get("decidedBy").is_none() && written.get("decidedAt").is_none());
            } else {
                assert_eq!(written["decidedBy"]["id"], format!("U{voter}"));
                assert_eq!(written["decidedAt"], at.to_string());
                assert_eq!(decisions[recorded - 1]["by"], written["decidedBy"]);
            }
        }
        let mut late = approval(Risk::High, "A");
        let ballot = ballot("B", Approve);
        assert!(late.record(&ballot, &Lapsed, after(EXPIRY)));
        let written: Value = serde_json::from_slice(&late.to_bytes()).unwrap();
        assert_eq!(written["status"], "expired");
        assert_eq!(written["decisions"].as_array().unwrap().len(), 1);
        assert!(written.get("decidedBy").is_none());
    }
}
