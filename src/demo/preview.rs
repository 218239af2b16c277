//! Every message that people may see, in every state, to look at them side by side.

use serde::Serialize;
use serde_json::{Value, json};

use super::block_kit::{check_message, check_view};
use super::people::PEOPLE;
use super::stand_in::StandIn;
use crate::approval::{
    Approval, ApprovalId, GroupId, LevelRule, Person, Policy, Refusal, Risk, Route, Status, UserId,
};
use crate::clock::{self, Timestamp};
use crate::slack::dialog::{Subject, ask_why};
use crate::slack::message::{Asking, Message, Occasion};
use crate::slack::notice::{Notice, private};
use crate::slack::text::Mention;
use crate::slack::{home, mention};

/// One thing that people may see.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Sample {
    caption: String,
    text: String,
    blocks: Value,
    /// What Slack would not take of it.
    problem: Option<String>,
}

impl StandIn {
    /// Shows samples instead of what a server says.
    pub fn preview(&self) {
        self.slack.state().samples = Some(samples());
    }
}

impl Sample {
    fn message(caption: &str, message: &Message) -> Self {
        let body = json!({ "text": message.text, "blocks": message.blocks });
        Self {
            caption: caption.into(),
            problem: check_message(&body)
                .err()
                .map(|refusal| refusal.to_string()),
            text: message.text.clone(),
            blocks: message.blocks.clone().into(),
        }
    }

    fn view(caption: &str, view: &Value) -> Self {
        let kind = view["type"].as_str().unwrap_or_default();
        Self {
            caption: caption.into(),
            problem: check_view(kind, view)
                .err()
                .map(|refusal| refusal.to_string()),
            text: String::new(),
            blocks: view["blocks"].clone(),
        }
    }

    fn word(caption: &str, notice: &Notice<'_>) -> Self {
        let text = private(notice);
        let body = json!({ "text": text });
        Self {
            caption: format!("Privately: {caption}"),
            problem: check_message(&body)
                .err()
                .map(|refusal| refusal.to_string()),
            text,
            blocks: Value::Null,
        }
    }
}

fn samples() -> Vec<Sample> {
    [requests(), outcomes(), answers(), views(), words()].concat()
}

fn requests() -> Vec<Sample> {
    let open = Policy::default();
    let named = policy();
    let everybody: Vec<Mention> = ["U061F7AUR", "S0ONCALL1"]
        .iter()
        .filter_map(|id| Mention::parse(id))
        .collect();
    let ask = |caption: &str, changes: Value, policy: &Policy, mention: &[Mention]| {
        let approval = approval(&changes)?;
        let asking = Asking { policy, mention };
        let occasion = match approval.votes() {
            [] => Occasion::Posted,
            _ => Occasion::Updated,
        };
        Some(Sample::message(
            caption,
            &Message::request(&approval, asking, occasion),
        ))
    };
    let long = "Scale every service of the shop for the sale. ".repeat(200);
    let command = ["psql", "orders", "-c", "DROP INDEX orders_by_date"];
    let vote = json!({ "decision": "approve", "at": clock::now(),
        "by": { "id": PEOPLE[0].id, "username": "alice", "name": "Alice" } });
    let risky = Risk::ALL.iter().filter_map(|risk| {
        let risk = risk.word();
        ask(
            &format!("A request: {risk} risk"),
            json!({ "riskLevel": risk }),
            &open,
            &[],
        )
    });
    let others = [
        ask(
            "A request for two approvers",
            json!({ "riskLevel": "critical" }),
            &named,
            &[],
        ),
        ask(
            "One of two has approved",
            json!({ "riskLevel": "critical", "decisions": [vote] }),
            &named,
            &[],
        ),
        ask(
            "A command, and people to notify",
            json!({ "command": command, "directory": "/srv/orders",
            "resource": "db-orders-1", "estimatedImpact": "slow reports for an hour" }),
            &named,
            &everybody,
        ),
        ask(
            "Nothing but an operation",
            json!({ "args": null, "description": null, "riskLevel": "low",
            "rollbackCommand": null, "requestedBy": null, "investigationId": null }),
            &open,
            &[],
        ),
        ask(
            "Far too long, and not to be trusted",
            json!({ "description": long,
            "requestedBy": "<!channel> *boss* `x`", "rollbackCommand": "``` & <@U061F7AUR>" }),
            &open,
            &[],
        ),
    ];
    risky.chain(others.into_iter().flatten()).collect()
}

fn outcomes() -> Vec<Sample> {
    let decided = |caption: &str, status: &str, changes: Value| {
        let mut all = json!({ "status": status, "decidedAt": clock::now(),
            "decidedBy": { "id": PEOPLE[0].id, "username": "alice", "name": "Alice" } });
        merge(&mut all, &changes);
        Some(Sample::message(
            caption,
            &Message::outcome(&approval(&all)?),
        ))
    };
    let ran = |caption: &str, mut how: Value| {
        how["executedAt"] = clock::now().to_string().into();
        decided(caption, "approved", how)
    };
    let pending = approval(&json!({}));
    let mentioned: Vec<Mention> = Mention::parse(PEOPLE[0].id).into_iter().collect();
    let others = pending.iter().flat_map(|approval| {
        [
            Sample::message(
                "A reminder, in its thread",
                &Message::reminder(approval, &mentioned),
            ),
            Sample::message("The request has changed", &Message::retired(approval)),
        ]
    });
    [
        decided("Granted", "approved", json!({})),
        ran("It went well", json!({ "exitCode": 0, "durationMs": 4500 })),
        ran("It failed", json!({ "exitCode": 3, "durationMs": 70 })),
        ran(
            "It could not be started",
            json!({ "executionError": "no such file or directory" }),
        ),
        decided(
            "Denied",
            "denied",
            json!({ "reason": "Not during the sale" }),
        ),
        decided("Expired", "expired", json!({ "decidedBy": null })),
        decided(
            "Withdrawn",
            "cancelled",
            json!({ "reason": "whoever asked went away",
            "decidedBy": { "id": "cli:deploy", "username": "deploy", "name": "deploy" } }),
        ),
    ]
    .into_iter()
    .flatten()
    .chain(others)
    .collect()
}

/// What is said when the app is mentioned.
fn answers() -> Vec<Sample> {
    let two: Vec<Approval> = [json!({}), json!({ "riskLevel": "critical" })]
        .iter()
        .filter_map(approval)
        .collect();
    let denied = approval(
        &json!({ "status": "denied", "decidedAt": clock::now(), "reason": "Not now",
        "decidedBy": { "id": PEOPLE[1].id, "username": "bob", "name": "Bob" } }),
    );
    let answer = |caption: &str, message: &Message| {
        Sample::message(&format!("Asked for {caption}"), message)
    };
    let mut answers = vec![
        answer("help", &mention::help()),
        answer("what is pending: nothing", &mention::pending(&[])),
        answer("what is pending", &mention::pending(&two)),
        answer("a status that is none", &mention::unknown()),
    ];
    answers.extend(two.iter().take(1).chain(&denied).map(|approval| {
        answer(
            &format!("a status: {}", approval.status().word()),
            &mention::status(approval),
        )
    }));
    answers
}

fn views() -> Vec<Sample> {
    let two: Vec<Approval> = [
        json!({ "riskLevel": "critical" }),
        json!({ "riskLevel": "low" }),
    ]
    .iter()
    .filter_map(approval)
    .collect();
    let dialog = approval(&json!({})).map(|approval| {
        let subject = Subject {
            id: approval.id().clone(),
            route: Route::default(),
            seen: None,
            may_precede_file: false,
        };
        Sample::view(
            "The dialog behind Deny",
            &ask_why(&subject, Some(approval.operation())),
        )
    });
    let homes = [
        Sample::view("Home tab", &home::view(&two)),
        Sample::view("Home tab, with nothing to do", &home::view(&[])),
    ];
    homes.into_iter().chain(dialog).collect()
}

fn words() -> Vec<Sample> {
    let id = "apr-abc123";
    let alice = Person {
        id: PEOPLE[0].id.into(),
        username: "alice".into(),
        name: "Alice".into(),
    };
    let refused =
        |caption: &str, refusal: Refusal| Sample::word(caption, &Notice::Refused(&refusal));
    vec![
        Sample::word(
            "the vote counts",
            &Notice::Counted {
                approvals: 1,
                needed: 2,
            },
        ),
        refused(
            "voted already",
            Refusal::VotedAlready {
                approvals: 1,
                needed: 2,
            },
        ),
        refused(
            "too late",
            Refusal::Final {
                status: Status::Denied,
                by: Some(alice),
                at: Some(clock::now()),
            },
        ),
        Sample::word(
            "expired",
            &Notice::Expired {
                at: Some(clock::now()),
            },
        ),
        refused("no approver", Refusal::NotAnApprover),
        refused("from outside", Refusal::External),
        refused("a guest", Refusal::Guest),
        refused("their own request", Refusal::OwnRequest),
        refused("no reason", Refusal::NoReason),
        refused("Slack did not say", Refusal::Unverified),
        refused("changed meanwhile", Refusal::Changed),
        Sample::word("no such approval", &Notice::Unknown { id }),
        Sample::word("a damaged file", &Notice::Damaged { id }),
        Sample::word("no id", &Notice::NoId),
        Sample::word("answered elsewhere", &Notice::AnsweredElsewhere),
        Sample::word("our own trouble", &Notice::Failed),
        Sample::word("no dialog", &Notice::NoDialog),
        Sample::word("another app", &Notice::Foreign),
    ]
}

/// The documented sample with these changes; `None` when that is no approval.
fn approval(changes: &Value) -> Option<Approval> {
    let id = ApprovalId::parse("apr-abc123")?;
    let mut all = json!({ "id": id, "operation": "scale_ecs_service",
        "description": "Scale checkout-api (4 → 8 tasks)",
        "args": { "service": "checkout-api", "desiredCount": 8 }, "riskLevel": "high",
        "requestedBy": "runbook-agent", "investigationId": "PD-12345",
        "rollbackCommand": "aws ecs update-service --desired-count 4",
        "requestedAt": clock::now(), "expiresAt": later(), "status": "pending" });
    merge(&mut all, changes);
    Approval::parse(&id, all.to_string().as_bytes()).ok()
}

fn later() -> Timestamp {
    clock::now() + std::time::Duration::from_secs(300)
}

/// Null takes a field away.
fn merge(all: &mut Value, changes: &Value) {
    for (name, value) in changes.as_object().into_iter().flatten() {
        match (value, all.as_object_mut()) {
            (Value::Null, Some(all)) => drop(all.shift_remove(name)),
            _ => all[name] = value.clone(),
        }
    }
}

/// Two people and a group; a critical request needs two.
fn policy() -> Policy {
    let users = PEOPLE[..2]
        .iter()
        .filter_map(|person| UserId::parse(person.id));
    let rule = LevelRule {
        users: users.collect(),
        groups: GroupId::parse("S0ONCALL1").into_iter().collect(),
        ..LevelRule::default()
    };
    Policy {
        levels: [rule.clone(), rule.clone(), rule.clone(), rule],
        multi_approver_for_critical: true,
        ..Policy::default()
    }
}
