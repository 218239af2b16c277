//! Every message that people may see, in every state, to look at them side by side.

use serde::Serialize;
use serde_json::Value;

use super::block_kit::{check_message, check_view};
use super::people::PEOPLE;
use super::stand_in::StandIn;
use super::template::extend;
use crate::approval::{
    Approval, ApprovalId, GroupId, LevelRule, Objection, Person, Policy, Route, Status, UserId,
};
use crate::clock;
use crate::slack::dialog::{Subject, ask_why};
use crate::slack::message::{Asking, Message, Occasion};
use crate::slack::notice::{Notice, private};
use crate::slack::text::Mention;
use crate::slack::{home, mention};

/// What is shown as what, in the order of the page.
const PLAN: &str = include_str!("preview.json");

/// What a decision adds to the documented sample.
const DECIDED: &str = r#"{ "decidedBy": { "id": "$alice", "username": "alice", "name": "Alice" },
    "decidedAt": "2024-01-15T15:30:45Z" }"#;

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
        Self::said(caption.into(), &message.text, message.blocks.clone().into())
    }

    fn word(caption: &str, notice: &Notice<'_>) -> Self {
        let caption = format!("Privately: {caption}");
        Self::said(caption, &private(notice), Value::Null)
    }

    fn said(caption: String, text: &str, blocks: Value) -> Self {
        let mut body = Value::Null;
        body["text"] = text.into();
        body["blocks"] = blocks;
        let refusal = check_message(&body).err();
        Self {
            caption,
            text: text.to_owned(),
            blocks: body["blocks"].take(),
            problem: refusal.map(|refusal| refusal.to_string()),
        }
    }

    fn view(caption: &str, view: &Value) -> Self {
        let kind = view["type"].as_str().unwrap_or_default();
        let refusal = check_view(kind, view).err();
        Self {
            caption: caption.into(),
            text: String::new(),
            blocks: view["blocks"].clone(),
            problem: refusal.map(|refusal| refusal.to_string()),
        }
    }
}

fn samples() -> Vec<Sample> {
    let plan: Value = serde_json::from_slice(PLAN.as_bytes()).unwrap_or_default();
    let mut samples = Vec::new();
    for shown in plan["shown"].as_array().into_iter().flatten() {
        samples.extend(sample(&plan["sample"], shown));
    }
    samples.extend(words());
    samples
}

/// What one line of the plan wants to see.
fn sample(whole: &Value, plan: &Value) -> Option<Sample> {
    let caption = plan["caption"].as_str()?;
    let of = plan["of"].as_array()?.iter();
    let of: Option<Vec<Approval>> = of.map(|changes| approval(whole, changes, plan)).collect();
    let of = of?;
    let mention = plan["mention"].as_array().into_iter().flatten();
    let mention = mention.filter_map(|id| Mention::parse(id.as_str()?));
    let mention: Vec<Mention> = mention.collect();
    let first = || of.first();
    let message = match plan["as"].as_str()? {
        "request" => {
            let occasion = match first()?.votes() {
                [] => Occasion::Posted,
                _ => Occasion::Updated,
            };
            let policy = policy(plan["approvers"] == true);
            let asking = Asking {
                policy: &policy,
                mention: &mention,
            };
            Message::request(first()?, asking, occasion)
        }
        "outcome" => Message::outcome(first()?),
        "reminder" => Message::reminder(first()?, &mention),
        "retired" => Message::retired(first()?),
        "help" => mention::help(),
        "pending" => mention::pending(&of),
        "status" => mention::status(first()?),
        "unknown" => mention::unknown(),
        "home" => return Some(Sample::view(caption, &home::view(&of))),
        "dialog" => {
            let subject = Subject {
                id: first()?.id().clone(),
                route: Route::default(),
                seen: None,
                may_precede_file: false,
            };
            let view = ask_why(&subject, Some(first()?.operation()));
            return Some(Sample::view(caption, &view));
        }
        _ => return None,
    };
    Some(Sample::message(caption, &message))
}

/// The documented sample with changes, where null takes a field away; `None` when that is no approval.
fn approval(whole: &Value, changes: &Value, plan: &Value) -> Option<Approval> {
    let mut all = whole.clone();
    if changes["status"].is_string() {
        extend(&mut all, DECIDED, &[("$alice", PEOPLE[0].id)]);
    }
    let Value::Object(mut all) = all else {
        return None;
    };
    for (name, value) in changes.as_object()? {
        match (value, plan["repeat"].as_u64()) {
            (Value::Null, _) => drop(all.shift_remove(name)),
            (Value::String(text), Some(times)) => {
                let long = text.repeat(usize::try_from(times).ok()?);
                all.insert(name.clone(), long.into());
            }
            _ => drop(all.insert(name.clone(), value.clone())),
        }
    }
    let id = ApprovalId::parse(all.get("id")?.as_str()?)?;
    let bytes = Value::Object(all).to_string();
    Approval::parse(&id, bytes.as_bytes()).ok()
}

fn words() -> Vec<Sample> {
    let id = "apr-abc123";
    let (approvals, needed, at) = (1, 2, Some(clock::now()));
    let voted = Objection::VotedAlready { approvals, needed };
    let late = Objection::Final {
        status: Status::Denied,
        by: Some(Person {
            id: PEOPLE[0].id.into(),
            username: "alice".into(),
            name: "Alice".into(),
        }),
        at,
    };
    let words = [
        ("the vote counts", Notice::Counted { approvals, needed }),
        ("voted already", Notice::Refused(&voted)),
        ("too late", Notice::Refused(&late)),
        ("expired", Notice::Expired { at }),
        ("no approver", Notice::Refused(&Objection::NotAnApprover)),
        ("from outside", Notice::Refused(&Objection::External)),
        ("a guest", Notice::Refused(&Objection::Guest)),
        ("their own request", Notice::Refused(&Objection::OwnRequest)),
        ("no reason", Notice::Refused(&Objection::NoReason)),
        ("Slack did not say", Notice::Refused(&Objection::Unverified)),
        ("changed meanwhile", Notice::Refused(&Objection::Changed)),
        ("no such approval", Notice::Unknown { id }),
        ("a damaged file", Notice::Damaged { id }),
        ("no id", Notice::NoId),
        ("answered elsewhere", Notice::AnsweredElsewhere),
        ("our own trouble", Notice::Failed),
        ("no dialog", Notice::NoDialog),
        ("another app", Notice::Foreign),
    ];
    let words = words.iter();
    words
        .map(|(caption, notice)| Sample::word(caption, notice))
        .collect()
}

/// Anyone; or two people and a group, and a critical request needs two.
fn policy(named: bool) -> Policy {
    if !named {
        return Policy::default();
    }
    let users = PEOPLE[..2]
        .iter()
        .filter_map(|person| UserId::parse(person.id));
    let rule = LevelRule {
        users: users.collect(),
        groups: GroupId::parse("S0ONCALL1").into_iter().collect(),
        ..LevelRule::default()
    };
    Policy {
        levels: [(); 4].map(|()| rule.clone()),
        multi_approver_for_critical: true,
        ..Policy::default()
    }
}
